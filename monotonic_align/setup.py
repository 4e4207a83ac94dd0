"""Compile core.pyx: `python setup.py build_ext --inplace` writes the module next to its source."""

import os
import sys
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError, LinkError


class BuildWithThreads(build_ext):
    """Build with OpenMP if the compiler supports it, and otherwise for a single thread."""

    def build_extension(self, ext: Extension) -> None:
        """Build one extension module."""
        plain = [] if sys.platform == "win32" else ["-O3"]
        openmp = "/openmp" if sys.platform == "win32" else "-fopenmp"
        try:
            ext.extra_compile_args, ext.extra_link_args = [*plain, openmp], [openmp] if plain else []
            super().build_extension(ext)
        except (CompileError, LinkError):
            print("The compiler has no OpenMP; building for a single thread.")
            ext.extra_compile_args, ext.extra_link_args = plain, []
            super().build_extension(ext)


if __name__ == "__main__":
    os.chdir(Path(__file__).resolve().parent)
    modules = cythonize([Extension("core", ["core.pyx"])], build_dir="build", quiet=True)
    setup(name="core", packages=[], py_modules=[], ext_modules=modules, cmdclass={"build_ext": BuildWithThreads})
