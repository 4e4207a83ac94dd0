"""The commands that `pip install` provides: vits2-speak, vits2-train and vits2-serve.

The modules of this repository import each other by their own names, as in VITS. In an installed package they are in the
folder `vits2`, which these functions put on Python's path, so that no other program sees names such as `utils`.
"""

import importlib
import sys
from pathlib import Path


def speak() -> None:
    """Run inference.py."""
    _run("inference")


def train() -> None:
    """Run train.py."""
    _run("train")


def serve() -> None:
    """Run webui.py."""
    _run("webui")


def _run(program: str) -> None:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    importlib.import_module(program).main()
