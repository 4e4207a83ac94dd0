"""Tests of pictures, and of the program that draws the curves of a run."""

import json

import numpy as np
import pytest

import plots
from synthesis.speech import Sentence, Speech

RATE, HOP = 8000, 80  # a frame is 0.01 seconds


def speech(*durations, names):
    """Return a speech of named tokens with durations in frames, with pauses of 0.2 seconds between sentences."""
    sentences, start = [], 0
    for frames in durations:
        audio = np.zeros(sum(frames) * HOP, np.float32)
        said, names = names[: len(frames)], names[len(frames) :]
        sentences.append(Sentence("", "", [1] * len(frames), said, np.array(frames), start, audio))
        start += len(audio) + RATE // 5
    return Speech(np.zeros(start - RATE // 5, np.float32), RATE, HOP, sentences)


def draw(spoken):
    frames = len(spoken.audio) // HOP
    return plots.plot_speech_to_numpy(np.random.default_rng(0).random((20, frames)), spoken)


def test_a_speech_gives_a_picture():
    picture = draw(speech([10, 20], [5], names=["a", "_", "b"]))
    assert picture.ndim == 3 and picture.shape[2] == 3 and picture.dtype == np.uint8
    assert len(np.unique(picture)) > 10


def test_bars_are_at_the_times_of_the_tokens(monkeypatch):
    monkeypatch.setattr(plots, "_pixels", lambda figure: figure)
    above, below = draw(speech([10, 0, 20], [5, 5], names=["a", " ", "_", "b", "c"])).axes
    assert above.images[0].get_extent() == pytest.approx([0, 0.6, 0, 20])
    assert below.get_xlim() == above.get_xlim() == pytest.approx((0, 0.6))
    (bars,) = below.collections
    spans = [(*path.vertices[[0, 1], 0], path.vertices[0, 1]) for path in bars.get_paths()]
    expected = [(0, 0.1, 0), (0.1, 0.1, 1), (0.1, 0.3, 2), (0.5, 0.55, 3), (0.55, 0.6, 4)]
    np.testing.assert_allclose(spans, expected, atol=1e-6)
    strong, pale = bars.get_facecolors()[[0, 1]]
    assert not np.array_equal(strong, pale)
    assert [np.array_equal(color, strong) for color in bars.get_facecolors()] == [True, False, False, True, True]
    assert [text.get_text().strip() for text in below.texts] == ["a", "", "", "b", "c"]


def test_long_texts_are_not_lettered(monkeypatch):
    monkeypatch.setattr(plots, "_pixels", lambda figure: figure)
    many = plots.MAX_LETTERED + 1
    _, below = draw(speech([3] * many, names=["a"] * many)).axes
    assert not below.texts and below.get_ylabel() == f"{many} symbols"


def test_curves_of_a_run_by_name_and_by_path(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "logs/voice"
    run.mkdir(parents=True)
    lines = [{"step": step, "elapsed": 1.0, "loss/g/mel": 1 / step, "validation/mel": 2.0} for step in (1, 2)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for name in ("voice", "logs/voice", str(run)):
        plots.main([name, "curves.png"])
        assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
        (tmp_path / "curves.png").unlink()
    with pytest.raises(SystemExit, match="2"):
        plots.main(["voise", "curves.png"])
    assert "logs/voise holds no metrics.jsonl" in (error := capsys.readouterr().err) and "did you mean voice?" in error
