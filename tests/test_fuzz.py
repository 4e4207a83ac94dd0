"""The program tests/fuzz.py: it counts what fails, and some cases of quick kinds pass."""

import os
import time

import fuzz
import pytest


@pytest.mark.parametrize("kind", ["filelists", "options", "recordings", "checkpoints", "onnx"])
def test_some_cases_pass(kind):
    result = fuzz.fuzz(kind, seed=2, count=25)
    assert result["cases"] == 25 and result["accepted"] and not result["failed"], result


def odd(draw):
    """Fail in every way that is to be found, by the number that is drawn."""
    match draw.randrange(6):
        case 0:
            return {}["missing"]
        case 1:
            raise ValueError("x" * 9999)
        case 2:
            raise ValueError
        case 3:
            os._exit(3)
        case 4:
            while True:  # takes processor time
                pass
        case _:
            raise ValueError("a short message, which is no fault")


def test_every_way_to_fail_is_counted(monkeypatch):
    monkeypatch.setitem(fuzz.KINDS, "odd", lambda folder: odd)
    monkeypatch.setattr(fuzz, "SECONDS", 0.2)
    began = time.monotonic()
    result = fuzz.fuzz("odd", seed=1, count=25)
    said = " ".join(result["faults"])
    for part in ("KeyError at test_fuzz.py", "ValueError with 9999", "ValueError with 0", "process: 3", "too long"):
        assert part in said, result
    assert 5 < result["failed"] < 25 and time.monotonic() - began < 60
