"""Tests of the corpus of synthetic speech."""

import os

import numpy as np
import pytest
import soundfile

from corpora import synthetic
from text import clean_text, espeak, unknown_symbols


def rows(path):
    return [line.split("|") for line in path.read_text("utf-8").splitlines()]


def content(folder):
    return {path.name: path.read_bytes() for path in sorted((folder / "wavs").iterdir())}


def test_the_lists_are_for_one_speaker_and_for_many(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    synthetic.main(["--out", "demo", "--clips", "40", "--speakers", "4"])
    one, many = rows(tmp_path / "demo/train.txt"), rows(tmp_path / "demo/train_ms.txt")
    one_val, many_val = rows(tmp_path / "demo/val.txt"), rows(tmp_path / "demo/val_ms.txt")
    assert len(one) + len(one_val) == 20 and len(many) + len(many_val) == 40
    for part in (many, many_val):
        assert {speaker for _, speaker, _ in part} == set("0123")
    assert [row for row in many if row[1] == "0"] == [[path, "0", text] for path, text in one]
    assert len({row[2] for row in many + many_val}) == 40
    for path, _, _ in many + many_val:
        assert os.path.isfile(path)


def test_clips_are_16_bit_speech_of_one_to_four_seconds(tmp_path):
    synthetic.make_corpus(tmp_path, speakers=len(synthetic.VOICES), utterances=64, sampling_rate=16000)
    for path in (tmp_path / "wavs").iterdir():
        info = soundfile.info(path)
        assert (info.subtype, info.samplerate, info.channels) == ("PCM_16", 16000, 1)
        assert 1 < info.duration < 4.2
        assert 0.05 < np.abs(soundfile.read(path)[0]).max() <= 1


def test_the_voices_differ():
    synthesizer = synthetic.Synthesizer(seed=1)
    spoken = [synthesizer.speak("Fresh bread.", voice, 22050) for voice in synthetic.VOICES]
    for i, first in enumerate(spoken):
        for second in spoken[:i]:
            assert len(first) != len(second) or np.abs(first - second).max() > 0.05


def test_the_same_arguments_give_the_same_files(tmp_path):
    synthetic.make_corpus(tmp_path / "a", speakers=2, utterances=12)
    expected = espeak.phonemize("Where is the baker?")
    synthetic.make_corpus(tmp_path / "b", speakers=2, utterances=12)
    assert content(tmp_path / "a") == content(tmp_path / "b")
    assert espeak.phonemize("Where is the baker?") == expected
    synthetic.make_corpus(tmp_path / "c", speakers=2, utterances=12, seed=2)
    assert content(tmp_path / "a") != content(tmp_path / "c")


def test_the_seed_determines_the_noise_of_a_voice():
    first, again, other = (
        synthetic.Synthesizer(seed).speak("Fresh socks.", synthetic.VOICES[1], 22050) for seed in (1, 1, 2)
    )
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_sentences_differ_and_have_only_known_symbols():
    sentences = synthetic.compose(1000, seed=0)
    assert len(set(sentences)) == 1000
    for sentence in sentences[:200]:
        assert sentence[0].isupper() and sentence[-1] in ".?!"
        assert not unknown_symbols(clean_text(sentence, ["english_cleaners2"]))


@pytest.mark.parametrize(("speakers", "utterances"), [(0, 10), (99, 400), (4, 15)])
def test_impossible_numbers_are_refused(tmp_path, speakers, utterances):
    with pytest.raises(ValueError, match="speakers"):
        synthetic.make_corpus(tmp_path, speakers, utterances)
