"""Evaluation of voices, for `evaluate.py`.

`takes` speaks the lines of a filelist, with the durations of `alignment`, and reads any system's audio. `measures`
computes the numbers of `quantities`: error rates of a recognizer (`recognition`), predicted opinion scores and the
similarity of speakers (`judges`), distances to the recordings (`acoustics`), and rhythm (`durations`). `bootstrap`
gives intervals; `report` and `pictures` write results. `transcripts` compares the texts of a corpus with its speech.
"""

import importlib
from types import ModuleType

RATE = 16000  # Hz, at which all audio is scored


def needed(module: str) -> ModuleType:
    """Import and return a module of requirements-evaluate.txt. Raises ValueError with the command that installs it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"evaluation needs the package {error.name}: run `make evaluate-setup`, or choose other --measures"
        ) from None
