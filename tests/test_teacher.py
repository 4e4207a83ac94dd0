import importlib.util
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from recipes import teacher

TEXTS = "a|One.|One.\nb|Two.\n\nc|Three.\nd|" + "x" * 300


class Hibari:
    """A teacher whose audio is as long as its text, in tenths of a second."""

    def __call__(self, text: str, seed: int) -> np.ndarray:
        return np.full(2400 * len(text), 0.1, np.float32)


class Pool:
    """Runs the work in this process."""

    def __init__(self, processes, initializer):
        initializer()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def map(self, function, *values, chunksize):
        return map(function, *values)


def stand_in(patch: pytest.MonkeyPatch) -> None:
    """Replace the package of the teacher."""
    find = importlib.util.find_spec
    patch.setattr("importlib.util.find_spec", lambda name, *more: name == "hibari" or find(name, *more))
    patch.setattr("recipes.teacher.ProcessPoolExecutor", Pool)
    patch.setitem(sys.modules, "hibari", SimpleNamespace(Hibari=Hibari))


@pytest.fixture
def installed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    stand_in(monkeypatch)
    (tmp_path / "texts.txt").write_text(TEXTS, "utf-8")


def test_texts_are_spoken_once(installed, tmp_path):
    teacher.main(["texts.txt", "--output", "out", "--jobs", "1"])
    assert (tmp_path / "out/metadata.csv").read_text("utf-8") == "a|One.\nb|Two.\nc|Three.\n"  # the longest is left out
    assert [soundfile.info(f"out/wavs/{name}.flac").duration for name in "abc"] == [0.4, 0.4, 0.6]
    before = (tmp_path / "out/wavs/a.flac").stat().st_mtime_ns
    teacher.main(["texts.txt", "--output", "out", "--jobs", "1", "--clips", "2"])
    assert (tmp_path / "out/metadata.csv").read_text("utf-8") == "a|One.\nb|Two.\n"
    assert (tmp_path / "out/wavs/a.flac").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("texts", "options", "message"),
    [
        ("a|One.\na|Two.", [], "texts.txt, line 2: the name 'a' occurs twice"),
        ("", [], "there is nothing to speak"),
        ("One.", ["--jobs", "0"], "all numbers are at least 1"),
    ],
)
def test_errors(texts, options, message, installed, tmp_path, capsys):
    (tmp_path / "texts.txt").write_text(texts, "utf-8")
    with pytest.raises(SystemExit, match="2"):
        teacher.main(["texts.txt", "--output", "out", *options])
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_missing_teacher_is_named(installed, monkeypatch, capsys):
    monkeypatch.setattr(teacher.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="2"):
        teacher.main(["texts.txt", "--output", "out"])
    assert "pip install hibari-tts==0.2.1" in capsys.readouterr().err
