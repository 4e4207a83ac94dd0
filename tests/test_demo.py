"""Tests of the demo, from the pretrained voice to the picture, with a tiny voice and few steps."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import soundfile
import test_pack
import tiny_voices

import config as configs
import demo
from corpora.filelist import read_filelist
from recipes import pack
from reporting import read_metrics
from synthesis import Voice

ARGUMENTS = ["--clips", "24", "--text", "On the bridge.", "--device", "cpu"]


@pytest.fixture
def workspace(tmp_path, monkeypatch) -> Path:
    """Make a tiny voice of two speakers, at the rate of phonemes of English, the one that comes with the code."""
    conf = test_pack.settings(text_cleaners=["english_cleaners2"])
    pack.main([str(test_pack.write_run(tmp_path / "run", conf)), "--output", str(tmp_path / "pretrained")])
    monkeypatch.setattr("files.PRETRAINED", tmp_path / "pretrained")
    monkeypatch.setitem(demo.TRAIN, "segment_size", 1024)
    monkeypatch.setitem(demo.TRAIN, "eval_interval", 2)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_demo_speaks_teaches_a_speaker_and_resumes(workspace, capsys):
    folder = demo.main(["--steps", "2", *ARGUMENTS])
    told = capsys.readouterr().out
    assert folder == Path("logs/demo") and f"{folder}/demo.wav" in told and f"{folder}/demo.png" in told
    config = configs.load(folder / "config.json")
    assert config.data.speakers == {"anna": 0, "bo": 1, "espeak": 2} and config.data.default_speaker == "anna"
    assert (folder / "demo.png").read_bytes().startswith(b"\x89PNG")
    assert "pretrained/G.pth" in (folder / "train.log").read_text("utf-8") and (folder / "G_2.pth").is_file()
    before, both = (soundfile.read(folder / name)[0] for name in ("before.wav", "demo.wav"))
    assert np.abs(before).max() > 0 and np.array_equal(both[: len(before)], before)
    assert np.abs(both[len(before) + 4000 :]).max() > 0
    assert read_metrics(folder, "validation/mel")[0] == [2]
    assert list(Voice.load(folder).speakers) == ["anna", "bo", "espeak"]

    demo.main(["--steps", "2", *ARGUMENTS])  # nothing is left to train: the demo only speaks, with the same result
    assert np.array_equal(both, soundfile.read(folder / "demo.wav")[0])
    demo.main(["--steps", "3", *ARGUMENTS])
    assert read_metrics(folder, "validation/mel")[0] == [2, 3]


def test_the_corpus_has_the_words_of_the_sentence_and_not_the_sentence(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    conf = tiny_voices.settings(speakers={"anna": 0}, data={"text_cleaners": ["english_cleaners2"]})
    config = configs.load(demo.make_corpus(conf, demo.CLIPS))
    assert dataclasses.asdict(config.train).items() >= demo.TRAIN.items() and config.model == conf.model
    lists = [config.data.training_files, config.data.validation_files]
    assert {clip.speaker for path in lists for clip in read_filelist(path)} == {demo.SPEAKER}
    plain = {clip.text for path in lists for clip in read_filelist(path.removesuffix(".cleaned"))}
    assert len(plain) == demo.CLIPS and demo.SENTENCE not in plain
    words = {word for text in plain for word in text.lower().strip(".?!").replace(",", "").split()}
    assert set(demo.SENTENCE.lower().strip(".").split()) <= words


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--clips", "2"], "utterances are too few"), (["--text", "..."], "nothing in the text '...' can be pronounced")],
)
def test_user_errors_take_one_line(workspace, capsys, arguments, message):
    with pytest.raises(SystemExit, match="2"):
        demo.main(arguments)
    error = capsys.readouterr().err
    assert error.startswith("demo: ") and message in error and error.count("\n") == 1


def test_a_missing_voice_is_named(workspace, capsys):
    (workspace / "pretrained/G.pth").unlink()
    with pytest.raises(SystemExit, match="2"):
        demo.main(ARGUMENTS)
    assert "the voice that comes with the code" in capsys.readouterr().err
