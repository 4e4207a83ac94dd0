"""What every door speaks through: text in, pieces of token ids to whatever turns them to sound, `Speech` out.

`BaseVoice` knows languages, speakers, pauses, seeds and streams, and nothing about networks. `synthesis.Voice` speaks
with PyTorch, `infer_onnx.OnnxVoice` with ONNX Runtime.
"""

import difflib
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np

import sentences
from corpus import setting, token_ids
from text import clean_text, table_of_symbols
from text.symbols import PAD, PUNCTUATION

PAUSE = 0.2  # seconds of silence between sentences
BATCH = 16  # pieces that go through the text encoder and the flow together
MOST_NAMED = 20  # speakers listed in an error message
FIRST_CHUNK, LARGEST_CHUNK = 32, 512  # frames of a stream's first chunk, soon heard, and of its later ones
LOUDEST = 10 ** (-1 / 20)  # the highest sample of normalised audio: -1 dBFS


class Scales(NamedTuple):
    """How freely and how slowly to speak: VITS's three numbers, and its defaults."""

    noise_scale: float = 0.667
    length_scale: float = 1.0
    noise_scale_w: float = 0.8

    def check(self) -> None:
        """Raise ValueError for a number that cannot be spoken with."""
        for name, value in self._asdict().items():
            least = 0.01 if name == "length_scale" else 0
            if not least <= value < 100:
                raise ValueError(f"{name} is {value}; it may be from {least} to 100")


def check_seed(seed: int | None) -> None:
    """Raise ValueError for what is no seed."""
    if seed is not None and not (isinstance(seed, int) and 0 <= seed < 1 << 63):
        raise ValueError(f"seed is {seed}; it may be a whole number from 0 to 2^63 - 1")


@dataclass(frozen=True)
class Sentence:
    """One spoken piece of a text."""

    text: str  # as written; empty if token ids were given
    symbols: str  # what the cleaners made of it
    tokens: list[int]  # what the network read, blanks included
    names: list[str]  # the symbol of each token; empty where the network's table is not known
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
        return np.concatenate([self._known(sentence) for sentence in self.sentences])

    @property
    def alignment(self) -> np.ndarray:
        """`[tokens, frames]`, one where the token speaks; frames of pauses are left out."""
        token = np.repeat(np.arange(len(self.tokens)), self.durations)
        return (np.arange(len(self.tokens))[:, None] == token).astype(np.float32)

    def timings(self) -> list[dict]:
        """When every sentence, word and token speaks, in seconds: for subtitles and lips, ready for JSON.

        A word is what stands between two spaces among the symbols.
        """
        timed = []
        for sentence in self.sentences:
            ends = sentence.start + np.cumsum(self._known(sentence)) * self.hop_length
            starts = [sentence.start, *ends[:-1]]
            tokens = [
                {"symbol": name, "start": self._time(start), "end": self._time(end)}
                for name, start, end in zip(sentence.names or [""] * len(ends), starts, ends)
            ]
            words = (list(word) for spoken, word in groupby(tokens, lambda token: token["symbol"] != " ") if spoken)
            timed.append(
                {
                    "text": sentence.text,
                    "symbols": sentence.symbols,
                    "start": self._time(sentence.start),
                    "end": self._time(ends[-1]),
                    "words": [
                        {
                            "symbols": "".join(token["symbol"] for token in word if token["symbol"] != PAD),
                            "start": word[0]["start"],
                            "end": word[-1]["end"],
                        }
                        for word in words
                    ],
                    "tokens": tokens,
                }
            )
        return timed

    def _time(self, sample: int) -> float:
        return round(float(sample) / self.sampling_rate, 4)

    def _known(self, sentence: Sentence) -> np.ndarray:
        if sentence.durations is None:
            raise ValueError("this model does not tell its durations: export it again with export_onnx.py")
        return sentence.durations


class Latent(NamedTuple):
    """One piece of text on the way to sound: all but the decoder is done."""

    content: Any  # what the runtime's `_decode` takes
    frames: int
    durations: np.ndarray | None  # [tokens], int64


class Line(NamedTuple):
    """One piece of text on its way to the network."""

    text: str
    symbols: str
    tokens: list[int]
    ends: bool  # a pause may follow


class BaseVoice(ABC):
    """A voice by the `data` section of its config; a runtime adds `_latents`, `_decode` and `_draws`.

    `n_vocab` is the size of the network's embedding (None: not known). Threads may share a voice.
    """

    context = 0  # frames on either side that a decoded frame depends on
    # Of all voices together: PyTorch's random state is one, and two networks at once slow each other down.
    _lock = threading.Lock()

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
        number = int(speaker) if isinstance(speaker, int) or str(speaker).isdecimal() else -1
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
        if text is None or isinstance(text, bytes):
            raise ValueError(f"a text is a str, or a sequence of token ids, and not {type(text).__name__}")
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
        normalize: bool = False,
        stream: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> Speech | Iterator[np.ndarray]:
        """Speak a text of any length, sentence by sentence.

        Args:
            text: see `read`.
            speaker: name or id, for models of many.
            noise_scale, noise_scale_w: variation of the sound and of the rhythm; 0 is the most probable.
            length_scale: above 1 is slower.
            seed: the same seed gives the same audio on the same device, whatever else draws random numbers, and
                leaves those undisturbed. None draws from the global state.
            pause: seconds of silence between sentences.
            normalize: scale the whole audio so that its loudest sample is at -1 dBFS.
            stream: return at once, and yield the audio in parts as they are made, float32 `[samples]`; joined they
                are the `audio` of the whole.
            progress: called after each piece with how many are done and how many there are.

        Raises:
            ValueError: unknown speaker, nothing to pronounce, scales out of range, or a stream to be normalised. At
                the call itself; later only what the network does wrong.
        """
        scales = Scales(noise_scale, length_scale, noise_scale_w)
        sid = self._check(speaker, scales, seed, pause)
        if stream and normalize:
            raise ValueError("a stream cannot be normalised: its loudest sample may be yet to come")
        lines = self.read(text, phonemes)
        latents = self._pieces([[line.tokens] for line in lines], sid, scales, seed)
        if stream:
            return self._stream(lines, latents, pause, progress)
        audios, durations = [], []
        for done, latent in enumerate(latents, 1):
            audios.append(self._audio(latent, 0, latent.frames))
            durations.append(latent.durations)
            if progress:
                progress(done, len(lines))
        return self._join(lines, audios, durations, pause, normalize)

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
        normalize: bool = False,
        batch: int = BATCH,
    ) -> list[Speech]:
        """Speak many texts, up to `batch` pieces at a time; arguments as for `speak`.

        Without noise each comes out as from `speak`; with noise, the draws are others.
        """
        scales = Scales(noise_scale, length_scale, noise_scale_w)
        sid = self._check(speaker, scales, seed, pause)
        if batch < 1:
            raise ValueError(f"batch is {batch}; it counts pieces from 1")
        read = [self.read(text, phonemes) for text in lines]
        tokens = [line.tokens for pieces in read for line in pieces]
        order = sorted(range(len(tokens)), key=lambda i: len(tokens[i]))
        batches = [[tokens[i] for i in order[begin : begin + batch]] for begin in range(0, len(order), batch)]
        spoken: dict[int, tuple] = {}
        for i, latent in zip(order, self._pieces(batches, sid, scales, seed)):
            spoken[i] = self._audio(latent, 0, latent.frames), latent.durations
        in_order = (spoken[i] for i in range(len(tokens)))
        return [self._join(pieces, *zip(*(next(in_order) for _ in pieces)), pause, normalize) for pieces in read]

    def _check(self, speaker: str | int | None, scales: Scales, seed: int | None, pause: float) -> int | None:
        """Refuse what cannot be spoken with; returns the speaker's id."""
        scales.check()
        if not 0 <= pause <= 60:
            raise ValueError(f"pause is {pause}; it may be from 0 to 60 seconds")
        check_seed(seed)
        return self.speaker_id(speaker)

    def _pieces(self, batches: list[list[list[int]]], sid, scales: Scales, seed: int | None) -> Iterator[Latent]:
        """Batches of token ids to latents, one batch after the other, as they are asked for."""
        draws = self._draws(seed)
        for tokens in batches:
            with self._lock, draws():
                latents = self._latents(tokens, sid, scales)
            yield from latents

    def _stream(self, lines: list[Line], latents: Iterator[Latent], pause: float, progress) -> Iterator[np.ndarray]:
        for done, (line, latent) in enumerate(zip(lines, latents), 1):
            yield from self._chunks(latent)
            if progress:
                progress(done, len(lines))
            if done < len(lines) and (silence := self._pause_after(line, pause)).size:
                yield silence

    def _chunks(self, latent: Latent) -> Iterator[np.ndarray]:
        """A latent's audio in parts of growing size, each decoded with all that its edges depend on."""
        start, size = 0, FIRST_CHUNK
        while start < latent.frames:
            end = min(start + size, latent.frames)
            left, right = max(start - self.context, 0), min(end + self.context, latent.frames)
            audio = self._audio(latent, left, right)
            yield audio[(start - left) * self.data.hop_length : (end - left) * self.data.hop_length]
            start, size = end, min(2 * size, LARGEST_CHUNK)

    def _audio(self, latent: Latent, start: int, end: int) -> np.ndarray:
        with self._lock:
            audio = self._decode(latent, start, end)
        if not np.isfinite(audio).all():
            raise ValueError("the network made NaN or infinity instead of sound: its weights are broken")
        return audio

    def _pause_after(self, line: Line, pause: float) -> np.ndarray:
        return np.zeros(round(pause * self.sampling_rate) if line.ends else 0, np.float32)

    def _join(self, lines: list[Line], audios, durations, pause: float, normalize: bool) -> Speech:
        if normalize:
            loudest = max(float(np.abs(audio).max()) for audio in audios)
            audios = [audio * np.float32(LOUDEST / max(loudest, 1e-5)) for audio in audios]
        parts, said, start = [], [], 0
        for line, audio, frames in zip(lines, audios, durations):
            names, silence = self._names(line.tokens), self._pause_after(line, pause)
            said.append(Sentence(line.text, line.symbols, line.tokens, names, frames, start, audio))
            parts += [audio, silence]
            start += len(audio) + len(silence)
        return Speech(np.concatenate(parts[:-1]), self.sampling_rate, self.data.hop_length, said)

    def _names(self, tokens: list[int]) -> list[str]:
        table = table_of_symbols(setting(self.data, "extra_symbols"))
        return [table[token] for token in tokens] if self.n_vocab in (None, len(table)) else []

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
            last = f" to {self.n_vocab - 1}" if self.n_vocab is not None else " and more"
            raise ValueError(f"there is no token {wrong[0]}: the network knows 0{last}")
        if not ids:
            raise ValueError("there are no tokens to speak")
        return ids

    @abstractmethod
    def _latents(self, tokens: list[list[int]], sid: int | None, scales: Scales) -> list[Latent]:
        """Take a batch of token ids as far as the decoder, in their order."""

    @abstractmethod
    def _decode(self, latent: Latent, start: int, end: int) -> np.ndarray:
        """Samples `[(end - start) * hop_length]`, float32, of the frames from `start` to `end` heard alone."""

    @abstractmethod
    def _draws(self, seed: int | None) -> Callable[[], AbstractContextManager]:
        """Makes contexts within which random draws follow from the seed, each going on where the last one ended.

        None leaves the draws as they are.
        """
