"""Voices of other programs: reading their files, and the configs by which their projects are recognized."""
