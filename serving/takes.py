"""A take: one text, spoken once. Its audio comes in parts, and its facts when it is finished."""

import secrets
from collections.abc import Iterator
from typing import Any

import numpy as np

from synthesis import Voice
from synthesis.sentences import split
from synthesis.speech import Sentence, Speech
from text import unknown_symbols

MAX_TEXT = 5000  # characters
MAX_SHOWN = 80  # characters of a sentence that was left out
SEEDS = 1 << 31  # random seeds are below this, so that they are easy to type


class Take:
    """A text that is spoken by a voice with `options` of `BaseVoice.speak`; without a seed, it draws one.

    Iterate over `parts`, float32 `[samples]`. `sentences` grows meanwhile. Raises ValueError as `speak`, and for a text
    of more than `MAX_TEXT` characters.
    """

    def __init__(self, voice: "Voice", text: str, seed: int | None = None, **options: Any):
        if not isinstance(text, str):
            raise ValueError("the text is missing")
        if len(text) > MAX_TEXT:
            raise ValueError(f"the text has {len(text)} characters; the limit is {MAX_TEXT}")
        self.voice, self.text = voice, text
        self.seed = secrets.randbelow(SEEDS) if seed is None else seed
        self.sentences: list[Sentence] = []
        self.samples = 0
        self.parts = self._counted(
            voice.speak(text, seed=self.seed, stream=True, spoken=self.sentences.append, **options)
        )

    def _counted(self, parts: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        for part in parts:
            self.samples += len(part)
            yield part

    def timings(self, sentence: Sentence) -> dict[str, Any]:
        """Return the times of a sentence, as in `Speech.timings`."""
        return Speech(sentence.audio, self.voice.sampling_rate, self.voice.data.hop_length, [sentence]).timings()[0]

    def facts(self) -> dict[str, Any]:
        """Return seed, seconds, sentences with their times, and what was left out of the text, ready for JSON."""
        extra = self.voice.data.extra_symbols
        unknown = {symbol for sentence in self.sentences for symbol in unknown_symbols(sentence.symbols, extra)}
        spoken = {sentence.text for sentence in self.sentences}
        silent = [piece.text for piece in split(self.text) if piece.text not in spoken]
        return {
            "seed": self.seed,
            "seconds": round(self.samples / self.voice.sampling_rate, 3),
            "sampling_rate": self.voice.sampling_rate,
            "sentences": [self.timings(sentence) for sentence in self.sentences],
            "symbols_left_out": sorted(unknown),
            "text_left_out": [text[:MAX_SHOWN] for text in silent],
        }


def speaker_of(voice: "Voice", speaker: str | None, *other_names: str) -> str | None:
    """Return the speaker that a client names.

    A voice of one speaker, or the default speaker of several, may be called by `other_names` instead; both are None.
    """
    if voice.speakers and voice.default_speaker is None:
        return speaker
    return None if speaker not in voice.speakers and speaker in (None, "", *other_names) else speaker
