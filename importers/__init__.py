"""Voices of other programs: reading their files, and copying weights between networks that differ."""
