"""The pretrained voice speaks varied texts: none is silent, clipped, cut off or drawn out."""

from pathlib import Path

import numpy as np
import pytest
import tiny

import config as configs
from files import REST, VOICE
from synthesis import Voice

FOLDER = tiny.ROOT / "pretrained"
SENTENCES = Path(__file__).with_name("sentences.txt").read_text("utf-8").splitlines()
QUICK = (0, 8, 14, 24, 30, 39, 50, 60, 67, 75, 85, 95)  # one of each kind
SOUNDS_PER_SECOND = 13  # of read English
EDGE = 0.5  # seconds of silence and slow ends that a text of any length may have in addition
FACTOR = 3  # between the expected duration and an accepted one
SILENT = 0.01  # root mean square of a text that is not spoken
FADED = 0.25  # level of the last 10 ms, relative to the whole
MIB = 1 << 20

pytestmark = pytest.mark.skipif(not (FOLDER / VOICE).is_file(), reason="pretrained/G.pth is not here")


@pytest.fixture(scope="module")
def voice() -> Voice:
    return Voice.load(FOLDER)


def level(audio: np.ndarray) -> float:
    """Return the root mean square."""
    return float(np.sqrt(np.mean(np.square(audio))))


def sounds(symbols: str) -> int:
    """Return the number of phonemes: symbols without stress, length and punctuation."""
    return sum(1 for symbol in symbols if symbol.isalpha() and symbol not in "ːˑ")


@pytest.mark.parametrize("number", tiny.mostly_slow(range(len(SENTENCES)), *QUICK))
def test_texts_are_spoken_whole(voice, number):
    speech = voice.speak(SENTENCES[number], seed=number)
    peak, edge = np.abs(speech.audio).max(), speech.sampling_rate // 100
    whole, end = level(speech.audio), level(speech.audio[-edge:])
    quietest = min(level(sentence.audio) for sentence in speech.sentences)
    expected = sum(EDGE + sounds(sentence.symbols) / SOUNDS_PER_SECOND for sentence in speech.sentences)
    seconds = speech.seconds
    assert peak < 1, "clipped"
    assert quietest > SILENT, "silent"
    assert end < FADED * whole, "cut off"
    assert expected / FACTOR < seconds < FACTOR * expected


def test_the_sentences_are_a_hundred_and_differ():
    assert len(SENTENCES) == len(set(SENTENCES)) == 100


@pytest.mark.parametrize("speaker", ["lj", "kathleen", "teacher"])
def test_every_speaker_speaks(voice, speaker):
    speech = voice.speak(SENTENCES[15], speaker, seed=1)
    assert level(speech.audio) > SILENT and 1 < speech.seconds < 6


def test_the_files_are_small_and_the_first_speaker_is_the_default(voice):
    sizes = [(FOLDER / name).stat().st_size for name in (VOICE, REST)]
    assert sizes[0] <= 16 * MIB and sum(sizes) <= 32 * MIB
    data = configs.load(FOLDER / "config.json").data
    assert data == voice.data and data.training_files == "" and voice.speakers[data.default_speaker] == 0
    quiet = {"noise_scale": 0, "noise_scale_w": 0}
    assert np.array_equal(voice.speak("Hello.", **quiet).audio, voice.speak("Hello.", 0, **quiet).audio)
