"""What every door speaks through: text in, pieces of token ids to whatever turns them to sound, `Speech` out.

`BaseVoice` knows languages, speakers, pauses and seeds, and nothing about networks. `synthesis.Voice` speaks with
PyTorch, `infer_onnx.OnnxVoice` with ONNX Runtime.
"""

import difflib
import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

import sentences
from corpus import setting, token_ids
from text import clean_text, table_of_symbols
from text.symbols import PAD, PUNCTUATION

PAUSE = 0.2  # seconds of silence between sentences
BATCH = 16  # pieces that go through the text encoder and the flow together
MOST_NAMED = 20  # speakers listed in an error message


class Scales(NamedTuple):
    """How freely and how slowly to speak: VITS's three numbers, and its defaults."""

    noise_scale: float = 0.667
    length_scale: float = 1.0
    noise_scale_w: float = 0.8

    def check(self) -> None:
        """Raise ValueError for a number that cannot be spoken with."""
        for name, value in self._asdict().items():
            if not 0 <= value < 100:
                raise ValueError(f"{name} is {value}; it may be from 0 to 100")
        if self.length_scale < 0.01:
            raise ValueError(f"length_scale is {self.length_scale}; it stretches the speech and must exceed 0.01")


@dataclass(frozen=True)
class Sentence:
    """One spoken piece of a text."""

    text: str  # as written; empty if token ids were given
    symbols: str  # what the cleaners made of it
    tokens: list[int]  # what the network read, blanks included
    durations: np.ndarray | None  # frames of each token [tokens], int64; None where a runtime does not tell
    start: int  # its first sample in the whole audio
    audio: np.ndarray  # [samples], float32


@dataclass(frozen=True)
class Speech:
    """Spoken text: `audio` is float32 `[samples]`, with the pauses; the rest tells which token speaks when."""

    audio: np.ndarray
    sampling_rate: int
    hop_length: int
    sentences: list[Sentence]

    @property
    def seconds(self) -> float:
        return len(self.audio) / self.sampling_rate

    @property
    def tokens(self) -> list[int]:
        """The tokens of all sentences."""
        return [token for sentence in self.sentences for token in sentence.tokens]

    @property
    def durations(self) -> np.ndarray:
        """Frames of `hop_length` samples for each of `tokens`; pauses between sentences belong to none."""
        if any(sentence.durations is None for sentence in self.sentences):
            raise ValueError("this model does not tell its durations: export it again with export_onnx.py")
        return np.concatenate([sentence.durations for sentence in self.sentences])

    @property
    def alignment(self) -> np.ndarray:
        """`[tokens, frames]`, one where the token speaks; frames of pauses are left out."""
        token = np.repeat(np.arange(len(self.tokens)), self.durations)
        return (np.arange(len(self.tokens))[:, None] == token).astype(np.float32)


class Utterance(NamedTuple):
    """What a runtime makes of one piece."""

    audio: np.ndarray  # [samples], float32
    durations: np.ndarray | None  # [tokens], int64


class Line(NamedTuple):
    """One piece of text on its way to the network."""

    text: str
    symbols: str
    tokens: list[int]
    ends: bool  # a pause may follow


class BaseVoice(ABC):
    """A voice by the `data` section of its config; a runtime adds `_utter` and `_seeded`.

    `n_vocab` is the size of the network's embedding (None: not known). One thread speaks at a time.
    """

    _lock = threading.Lock()  # of all voices together, as PyTorch's random state is

    def __init__(self, data, n_vocab: int | None = None, step: int | None = None):
        self.data = data
        self.n_vocab = n_vocab
        self.step = step

    @property
    def sampling_rate(self) -> int:
        return self.data.sampling_rate

    @property
    def speakers(self) -> dict[str, int]:
        """Names and ids of the speakers, by id; the ids are their names where the config holds none."""
        names = {number: name for name, number in self.data.speakers.items()}
        return {names.get(i, str(i)): i for i in range(self.data.n_speakers)}

    def speaker_id(self, speaker: str | int | None) -> int | None:
        """The id of a speaker given by name or id; None for a model of one voice.

        Raises:
            ValueError: there is no such speaker, or none was given and there are many; the message names the nearest
                and the choices.
        """
        if not self.data.n_speakers:
            if speaker is not None:
                raise ValueError(f"there is no speaker {speaker!r}: this model has a single voice")
            return None
        table = self.speakers
        names = list(table)
        choices = ", ".join(names[:MOST_NAMED])
        if len(names) > MOST_NAMED:
            choices += f" ... ({len(names)} in all)"
        if speaker is None:
            raise ValueError(f"this model has many speakers: choose one of {choices}")
        if isinstance(speaker, str) and speaker in table:
            return table[speaker]
        number = int(speaker) if not isinstance(speaker, str) or speaker.isdecimal() else -1
        if 0 <= number < self.data.n_speakers:
            return number
        near = difflib.get_close_matches(str(speaker), names, 1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ValueError(f"there is no speaker {speaker!r}; {hint}Choices: {choices}")

    def read(self, text: str | Sequence[int], phonemes: bool = False) -> list[Line]:
        """Split a text into pieces and turn them into token ids.

        Args:
            text: written text, which goes through the config's cleaners; or, with `phonemes`, what cleaners would
                return; or token ids as `Speech.tokens` returns them, blanks included, spoken as one piece.

        Raises:
            ValueError: nothing in it can be pronounced, or ids that the network does not have.
        """
        if not isinstance(text, str):
            return [Line("", "", self._checked_ids(text), True)]
        self._check_table()
        lines = []
        for piece in sentences.split(text):
            symbols = piece.text if phonemes else clean_text(piece.text, self.data.text_cleaners)
            if self._pronounceable(symbols):
                lines.append(Line(piece.text, symbols, token_ids(symbols, self.data), piece.ends))
        if not lines:
            shown = text.strip() if len(text.strip()) <= 40 else text.strip()[:40] + "..."
            raise ValueError(f"nothing in the text {shown!r} can be pronounced" if shown else "the text is empty")
        return lines

    def speak(
        self,
        text: str | Sequence[int],
        speaker: str | int | None = None,
        noise_scale: float = Scales().noise_scale,
        noise_scale_w: float = Scales().noise_scale_w,
        length_scale: float = Scales().length_scale,
        seed: int | None = None,
        phonemes: bool = False,
        pause: float = PAUSE,
    ) -> Speech:
        """Speak a text of any length, sentence by sentence.

        Args:
            text: see `read`.
            speaker: name or id, for models of many.
            noise_scale, noise_scale_w: variation of the sound and of the rhythm; 0 is the most probable.
            length_scale: above 1 is slower.
            seed: the same seed gives the same audio on the same device, whatever else draws random numbers, and
                leaves those undisturbed. None draws from the global state.
            pause: seconds of silence between sentences.

        Raises:
            ValueError: unknown speaker, nothing to pronounce, or scales out of range.
        """
        scales = Scales(noise_scale, length_scale, noise_scale_w)
        return self._speak([text], speaker, scales, seed, phonemes, pause, batch=1)[0]

    def speak_batch(
        self,
        lines: Sequence[str | Sequence[int]],
        speaker: str | int | None = None,
        noise_scale: float = Scales().noise_scale,
        noise_scale_w: float = Scales().noise_scale_w,
        length_scale: float = Scales().length_scale,
        seed: int | None = None,
        phonemes: bool = False,
        pause: float = PAUSE,
        batch: int = BATCH,
    ) -> list[Speech]:
        """Speak many texts, up to `batch` pieces at a time; arguments as for `speak`.

        Without noise each comes out as from `speak`; with noise, the draws are others.
        """
        scales = Scales(noise_scale, length_scale, noise_scale_w)
        return self._speak(lines, speaker, scales, seed, phonemes, pause, batch)

    def _speak(self, texts, speaker, scales: Scales, seed, phonemes, pause: float, batch: int) -> list[Speech]:
        scales.check()
        if not 0 <= pause <= 60:
            raise ValueError(f"pause is {pause}; it may be from 0 to 60 seconds")
        if seed is not None and not 0 <= seed < 1 << 63:
            raise ValueError(f"seed is {seed}; it may be from 0 to 2^63 - 1")
        sid = self.speaker_id(speaker)
        read = [self.read(text, phonemes) for text in texts]
        tokens = [line.tokens for lines in read for line in lines]
        order = sorted(range(len(tokens)), key=lambda i: len(tokens[i])) if batch > 1 else range(len(tokens))
        spoken: list[Utterance | None] = [None] * len(tokens)
        with self._lock, self._seeded(seed):
            for begin in range(0, len(tokens), batch):
                chosen = order[begin : begin + batch]
                for i, utterance in zip(chosen, self._utter([tokens[i] for i in chosen], sid, scales)):
                    spoken[i] = utterance
        utterances = iter(spoken)
        return [self._join(lines, [next(utterances) for _ in lines], pause) for lines in read]

    def _join(self, lines: list[Line], utterances: list[Utterance], pause: float) -> Speech:
        silence = np.zeros(round(pause * self.sampling_rate), np.float32)
        parts, said, start = [], [], 0
        for line, utterance in zip(lines, utterances):
            if not np.isfinite(utterance.audio).all():
                raise ValueError("the network made NaN or infinity instead of sound: its weights are broken")
            said.append(Sentence(line.text, line.symbols, line.tokens, utterance.durations, start, utterance.audio))
            parts.append(utterance.audio)
            if line.ends and line is not lines[-1]:
                parts.append(silence)
            start = sum(map(len, parts))
        return Speech(np.concatenate(parts), self.sampling_rate, self.data.hop_length, said)

    def _pronounceable(self, symbols: str) -> bool:
        table = table_of_symbols(setting(self.data, "extra_symbols"))
        return any(symbol in table and symbol not in PAD + PUNCTUATION for symbol in symbols)

    def _check_table(self) -> None:
        size = len(table_of_symbols(setting(self.data, "extra_symbols")))
        if self.n_vocab not in (None, size):
            raise ValueError(
                f"this model has its own table of {self.n_vocab} symbols, and the table here has {size}: give token "
                "ids, or name the symbols beyond VITS's in data.extra_symbols of its config"
            )

    def _checked_ids(self, ids: Sequence[int]) -> list[int]:
        ids = [int(i) for i in ids]
        wrong = [i for i in ids if i < 0 or (self.n_vocab is not None and i >= self.n_vocab)]
        if wrong:
            raise ValueError(f"there is no token {wrong[0]}: the network knows 0 to {(self.n_vocab or 0) - 1}")
        if not ids:
            raise ValueError("there are no tokens to speak")
        return ids

    @abstractmethod
    def _utter(self, tokens: list[list[int]], sid: int | None, scales: Scales) -> list[Utterance]:
        """Turn a batch of token ids into sound, in their order."""

    @abstractmethod
    def _seeded(self, seed: int | None) -> AbstractContextManager:
        """Within it, random draws follow from the seed; None leaves them as they are."""
