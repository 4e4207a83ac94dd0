"""Speech synthesis without a particular runtime: text in, `Speech` out.

`BaseVoice` handles text, speakers and other conditions, pauses, seeds and streams. Its subclasses run the network:
`synthesis.Voice` with PyTorch and `infer_onnx.OnnxVoice` with ONNX Runtime.
"""

import dataclasses
import threading
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby, tee
from typing import Any, Literal, NamedTuple, cast, overload

import numpy as np

from conditions import Speaker, Values, resolve
from config import DataConfig
from synthesis import arriving, sentences
from synthesis.words import written_words
from text import clean_text, markup
from text.cleaners import unreadable
from text.markup import MAX_PAUSE
from text.symbols import PAD, PUNCTUATION
from text.tokens import clean, cleaners, symbol_table, token_ids, token_names, vocabulary

PAUSE = 0.2  # seconds of silence between sentences
FIRST_CHUNK, MAX_CHUNK = 20, 512  # frames of a stream's first chunk, kept short for low latency, and of later ones
PEAK = 10 ** (-1 / 20)  # peak of normalized audio: -1 dBFS
MIN_PEAK = 1e-5  # quieter audio is not amplified to PEAK
MAX_SHOWN = 40  # characters of a text in an error message
MAX_NAMED = 3  # words in a warning
SEED_STEP = 0x4F1BBCDCBFA53E0B  # between the seeds of the pieces of a text; large, so that other seeds do not meet it
Text = str | Sequence[int]  # written text, phonemes, or token ids
Tokens = list[list[int]]  # token ids of a batch of pieces
Seeds = Sequence[int | None]  # of the pieces of a batch, or None for each
Progress = Callable[[int, int], None]
Made = tuple[np.ndarray, np.ndarray | None]  # audio [samples] and durations [tokens] of a piece


class Scales(NamedTuple):
    """Standard deviations of the noise of the latent and of the durations, and a factor on all durations (VITS)."""

    noise_scale: float = 0.667
    length_scale: float = 1.0
    noise_scale_w: float = 0.8

    def check(self) -> None:
        """Raise ValueError for a value out of range."""
        for name, value in self._asdict().items():
            least = 0.01 if name == "length_scale" else 0
            if not least <= value < 100:
                raise ValueError(f"{name} is {value}; it may be from {least} to 100")


def check_seed(seed: int | None) -> None:
    """Raise ValueError for a value that is not a seed."""
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 1 << 63):
        raise ValueError(f"seed is {seed}; it may be a whole number from 0 to 2^63 - 1")


@dataclass(frozen=True)
class Options:
    """How texts are spoken: the arguments that `speak`, `speak_stream` and `speak_batch` have in common."""

    speaker: str | int | None = None  # name or id, for a model of several speakers
    noise_scale: float = Scales().noise_scale  # variation of the sound; 0 is the most probable
    noise_scale_w: float = Scales().noise_scale_w  # variation of the rhythm; 0 is the most probable
    length_scale: float = Scales().length_scale  # factor on all durations; above 1 is slower
    # The same seed gives the same audio of a text on the same device, alone or in a batch. Other random draws do not
    # affect it and are not affected. None draws from the global random state.
    seed: int | None = None
    phonemes: bool = False  # the text is what the cleaners return, see `BaseVoice.read`
    pause: float = PAUSE  # seconds of silence between sentences
    conditions: Mapping[str, Any] | None = None  # other than the speaker, by their names in `conditions.CONDITIONS`

    @property
    def scales(self) -> Scales:
        """Return the inputs of the network."""
        return Scales(self.noise_scale, self.length_scale, self.noise_scale_w)

    def check(self, data: DataConfig) -> Values:
        """Return the values of the conditions. Raises ValueError for a value that is out of range or unknown."""
        self.scales.check()
        if not 0 <= self.pause <= MAX_PAUSE:
            raise ValueError(f"pause is {self.pause}; it may be from 0 to {MAX_PAUSE} seconds")
        check_seed(self.seed)
        return resolve({"sid": self.speaker, **(self.conditions or {})}, data)

    def piece_seed(self, piece: int) -> int | None:
        """Return the seed of a piece of a text, counted from 0."""
        return None if self.seed is None else (self.seed + piece * SEED_STEP) % (1 << 63)


@dataclass(frozen=True)
class Sentence:
    """A synthesized piece of a text."""

    text: str  # as written; empty if token ids were given
    symbols: str  # output of the cleaners
    tokens: list[int]  # input of the network, with blanks
    names: list[str]  # symbol of each token; empty if the network's symbol table is unknown
    durations: np.ndarray | None  # frames of each token [tokens], int64; None if the model does not return them
    start: int  # index of its first sample in the whole audio
    audio: np.ndarray  # [samples], float32
    cleaners: Sequence[str] = ()  # that made the symbols of the text; none if it was given as phonemes


@dataclass(frozen=True)
class Speech:
    """Synthesized text: audio, float32 `[samples]` with pauses, and the timing of its tokens."""

    audio: np.ndarray
    sampling_rate: int
    hop_length: int
    sentences: list[Sentence]

    @property
    def seconds(self) -> float:
        """Duration of the audio."""
        return len(self.audio) / self.sampling_rate

    @property
    def tokens(self) -> list[int]:
        """Tokens of all sentences."""
        return [token for sentence in self.sentences for token in sentence.tokens]

    @property
    def durations(self) -> np.ndarray:
        """Frames of each of `tokens`, int64 `[tokens]`; pauses are not included."""
        return np.concatenate([self._known(sentence) for sentence in self.sentences])

    @property
    def alignment(self) -> np.ndarray:
        """Matrix `[tokens, frames]` that is 1 where the frame belongs to the token; pauses are not included."""
        return np.repeat(np.eye(len(self.tokens), dtype=np.float32), self.durations, axis=1)

    def timings(self) -> list[dict[str, Any]]:
        """Return start and end of every sentence, word and token in seconds, ready for JSON.

        Words are separated by spaces among the symbols; `text` is the written word behind them. Raises ValueError if
        the model does not return durations.
        """
        timed = []
        for sentence in self.sentences:
            ends = sentence.start + np.cumsum(self._known(sentence)) * self.hop_length
            starts = [sentence.start, *ends[:-1]]
            names = sentence.names or [""] * len(ends)
            tokens = [{"symbol": name, **self._span(*span)} for name, *span in zip(names, starts, ends)]
            runs = [list(run) for in_word, run in groupby(tokens, lambda token: token["symbol"] != " ") if in_word]
            texts = ["".join(token["symbol"] for token in run).replace(PAD, "") for run in runs]
            clean = partial(clean_text, cleaner_names=sentence.cleaners)
            words = [
                {"text": written, "symbols": text, "start": run[0]["start"], "end": run[-1]["end"]}
                for written, text, run in zip(written_words(sentence.text, texts, clean), texts, runs)
            ]
            whole = {"text": sentence.text, "symbols": sentence.symbols, **self._span(sentence.start, ends[-1])}
            timed.append({**whole, "words": words, "tokens": tokens})
        return timed

    def _span(self, start: int, end: int) -> dict[str, Any]:
        """Return two positions in samples as seconds."""
        return {name: round(float(at) / self.sampling_rate, 4) for name, at in (("start", start), ("end", end))}

    def _known(self, sentence: Sentence) -> np.ndarray:
        if sentence.durations is None:
            raise ValueError("this model does not return durations: export it again with export_onnx.py")
        return sentence.durations


class Latent(NamedTuple):
    """A piece of text before the decoder."""

    content: Any  # input of the runtime's `_decode`
    frames: int
    durations: np.ndarray | None  # [tokens], int64


class Line(NamedTuple):
    """A piece of text before the network."""

    text: str
    symbols: str
    tokens: list[int]
    names: list[str]  # of the tokens, as in `Sentence`
    ends: bool  # a sentence ends with it, so a pause may follow
    cleaners: Sequence[str] = ()  # that made the symbols
    before: float = 0.0  # seconds of silence before it, for a piece after a break that follows no other
    after: float | None = None  # seconds of silence after it, where the text has a break


def _shortened(text: str) -> str:
    return text.strip() if len(text.strip()) <= MAX_SHOWN else text.strip()[:MAX_SHOWN] + "..."


class BaseVoice(ABC):
    """A voice described by the `data` section of its config. A runtime adds `_latents` and `_decode`.

    `n_vocab` is the size of the network's symbol table, None if it is unknown. `speakers` maps names to ids, in the
    order of the ids; a speaker without a name is named by the id. Threads may share a voice.
    """

    context = 0  # frames on either side that the audio of a frame depends on
    batch = 4  # pieces that pass the network together; more do not speed up a CPU
    # One lock for all voices: PyTorch has one random state, and two networks at a time slow each other down.
    _lock = threading.Lock()

    def __init__(self, data: DataConfig, n_vocab: int | None = None, step: int | None = None):
        self.data, self.n_vocab, self.step = data, n_vocab, step
        self.sampling_rate = data.sampling_rate  # in Hz
        self.speakers = Speaker().names(data)

    def speaker_id(self, speaker: str | int | None) -> int | None:
        """Return the id of a speaker given by name or id, as `Speaker.resolve`; None for a single-speaker voice."""
        return Speaker().resolve(speaker, self.data) if self.data.n_speakers or speaker is not None else None

    @property
    def default_speaker(self) -> str | None:
        """Name of the speaker that speaks where none is given; None if one must be given, or there is a single one."""
        if not self.data.n_speakers or not self.data.default_speaker:
            return None
        return list(self.speakers)[Speaker().resolve(None, self.data)]

    @property
    def symbols(self) -> tuple[str, ...]:
        """Symbol of each id, "" for an id without one; empty if the network has its own table, which is unknown."""
        names, size = symbol_table(self.data).names, vocabulary(self.data)
        return (*names, *[""] * (size - len(names))) if self.n_vocab in (None, size) else ()

    def add_words(self, dictionary: Mapping[str, str]) -> None:
        """Add words to the voice's dictionary: `[[phonemes]]` or a respelling for each. Raises ValueError if wrong."""
        markup.check_dictionary(dictionary, "dictionary")
        known = cast(dict[str, str], self.data.dictionary)  # a loaded config has the words, not their file
        self.data = dataclasses.replace(self.data, dictionary=known | dict(dictionary))

    def check_symbols(self) -> None:
        """Raise ValueError if the network has its own table of symbols."""
        if not self.symbols:
            here = vocabulary(self.data)
            own = f"this model has its own table of {self.n_vocab} symbols, and the table here has {here}"
            unless = (
                "unless its config has the table as data.symbols or data.extra_symbols, and its size as data.n_vocab"
            )
            raise ValueError(f"{own}: it reads only token ids, {unless}")

    def read(self, text: Text, phonemes: bool = False) -> list[Line]:
        """Split a text into pieces and convert them to token ids.

        Args: text for the config's cleaners, which may contain the marks of `text.markup`; with `phonemes`, text as the
        cleaners return it; or token ids as in `Speech.tokens`, with blanks, which are one piece. Raises ValueError if
        the text has no pronounceable symbol, or the network has no such token.
        """
        if text is None or isinstance(text, bytes):
            raise ValueError(f"a text is a str or a sequence of token ids, not {type(text).__name__}")
        if not isinstance(text, str):
            ids = [int(i) for i in text]
            for i in ids:
                if i < 0 or (self.n_vocab is not None and i >= self.n_vocab):
                    last = f" to {self.n_vocab - 1}" if self.n_vocab is not None else " and more"
                    raise ValueError(f"there is no token {i}: the tokens of this model are 0{last}")
            if not ids:
                raise ValueError("there are no tokens to synthesize")
            names = self.symbols if all(i < len(self.symbols) for i in ids) else ()
            return [Line("", "", ids, [names[i] for i in ids] if names else [], True)]
        self.check_symbols()
        lines, left_out, silence = self._read_text(text, phonemes)
        if not lines:
            shown = _shortened(text)
            raise ValueError(f"nothing in the text {shown!r} can be pronounced" if shown else "the text is empty")
        for piece in left_out:
            warnings.warn(f"nothing in {_shortened(piece)!r} can be pronounced: it is left out", stacklevel=3)
        return [lines[0]._replace(before=silence), *lines[1:]]

    def _read_text(self, text: str, phonemes: bool) -> tuple[list[Line], list[str], float]:
        """Return the pieces of a text, those that cannot be pronounced, and the seconds of breaks before the first."""
        lines: list[Line] = []
        left_out: list[str] = []
        silence = 0.0
        *begin, end = markup.spans(text)
        for span in [*begin, end]:
            read = list(self._read_span(span, phonemes, span is end or sentences.ends_sentence(span.text)))
            lines += [line for line in read if line.tokens]
            left_out += [line.text for line in read if not line.tokens and any(map(str.isalnum, line.text))]
            if span.pause is not None and lines:
                lines[-1] = lines[-1]._replace(after=span.pause + (lines[-1].after or 0))
            elif span.pause is not None:
                silence += span.pause
        return lines, left_out, silence

    def _read_arriving(self, texts: Iterable[str], phonemes: bool) -> Iterator[Line]:
        """Yield the pieces of a text that comes in parts. Pieces that cannot be pronounced are left out."""
        silence, text = 0.0, ""
        for piece in arriving.pieces(texts):
            text = f"{text} {piece.text}".strip()
            if markup.is_open(text):  # a text in another language that has several sentences
                continue
            lines, _, before = self._read_text(text, phonemes)
            silence, text = silence + before, ""
            if lines:
                lines[0] = lines[0]._replace(before=silence)
                lines[-1] = lines[-1]._replace(ends=piece.ends)
                yield from lines
                silence = 0.0

    def _read_span(self, span: markup.Span, phonemes: bool, ends: bool) -> Iterator[Line]:
        """Yield the pieces of a part of a text; `ends` says whether its end is that of a sentence.

        A piece that cannot be pronounced has no tokens. Warns of words that espeak-ng spells letter by letter.
        """
        table = symbol_table(self.data)
        pronounceable = table.ids.keys() - {*PAD, *PUNCTUATION, self.data.begin_symbol, self.data.end_symbol}
        plain, inline = markup.hidden(span.text)
        pieces = sentences.split(plain)
        names = [] if phonemes else cleaners(self.data, span.language)
        for piece, text in zip(pieces, markup.shown([piece.text for piece in pieces], inline)):
            if phonemes:
                symbols = markup.PHONEMES.sub(r"\1", text)
            else:
                symbols = clean(text, self.data, span.language)
                if words := unreadable(text, names):
                    named = ", ".join(map(repr, words[:MAX_NAMED]))
                    spelled = f"the script of {named} is not that of the language: it is spelled letter by letter"
                    warnings.warn(spelled, stacklevel=4)
            spoken = not pronounceable.isdisjoint(table.split(symbols))
            tokens = token_ids(symbols, self.data) if spoken else []
            last = piece is pieces[-1]
            ended = piece.ends and (ends or not last)
            yield Line(text, symbols, tokens, token_names(symbols, self.data), ended, names)

    @overload
    def speak(self, text: Text, *args: Any, stream: Literal[True], **options: Any) -> Iterator[np.ndarray]: ...
    @overload
    def speak(self, text: Text, *args: Any, stream: Literal[False] = False, **options: Any) -> Speech: ...
    def speak(
        self,
        text: Text,
        *args: Any,
        normalize: bool = False,
        stream: bool = False,
        progress: Progress | None = None,
        spoken: Callable[[Sentence], None] | None = None,
        **options: Any,
    ) -> Speech | Iterator[np.ndarray]:
        """Synthesize a text of any length, sentence by sentence.

        Args:
            text: see `read`.
            args, options: values of `Options`: speaker, noise_scale, noise_scale_w, length_scale, seed, phonemes,
                pause, conditions.
            normalize: scale the audio to a peak of -1 dBFS.
            stream: return an iterator over the parts of the audio, float32 `[samples]`, instead of the whole.
            progress: called after each piece with the number of finished pieces and their total.
            spoken: with `stream`, called with each piece before its last part is yielded.

        Raises ValueError for a wrong argument or a text that cannot be pronounced. A stream raises it before it begins,
        except for errors of the network.
        """
        asked = Options(*args, **options)
        values = asked.check(self.data)
        if stream and normalize:
            raise ValueError("a stream cannot be normalized, because its peak is not known before its end")
        lines = self.read(text, asked.phonemes)
        latents = self._one_by_one(lines, values, asked)
        if stream:
            report = (lambda done: progress(done, len(lines))) if progress else None
            return self._stream(lines, latents, asked.pause, report, spoken)
        made = []
        for latent in latents:
            made.append((self._audio(latent, 0, latent.frames), latent.durations))
            if progress:
                progress(len(made), len(lines))
        return self._join(lines, made, asked.pause, normalize)

    def speak_stream(
        self, texts: Iterable[str], *args: Any, spoken: Callable[[Sentence], None] | None = None, **options: Any
    ) -> Iterator[np.ndarray]:
        """Synthesize text while it arrives, such as that of a language model, sentence by sentence.

        Args: `texts` are parts of one text, cut anywhere; the others are those of `speak`. Yields the parts of the
        audio, float32 `[samples]`. A sentence is spoken as soon as the next word or the end of its line has arrived.
        Pieces without a pronounceable symbol are left out. Raises ValueError for a wrong argument.
        """
        asked = Options(*args, **options)
        values = asked.check(self.data)
        self.check_symbols()
        lines, ahead = tee(self._read_arriving(texts, asked.phonemes))
        return self._stream(lines, self._one_by_one(ahead, values, asked), asked.pause, None, spoken)

    def speak_batch(
        self, texts: Sequence[Text], *args: Any, normalize: bool = False, batch: int | None = None, **options: Any
    ) -> list[Speech]:
        """Synthesize several texts, `batch` pieces of similar length at a time; None is the voice's own number.

        The other arguments are those of `speak`, which returns the same audio for each text with the same seed.
        """
        asked = Options(*args, **options)
        values = asked.check(self.data)
        size = self.batch if batch is None else batch
        if size < 1:
            raise ValueError(f"batch is {size}; it must be 1 or more pieces")
        read = [self.read(text, asked.phonemes) for text in texts]
        pieces = [(line.tokens, asked.piece_seed(i)) for lines in read for i, line in enumerate(lines)]
        order = sorted(range(len(pieces)), key=lambda i: len(pieces[i][0]))
        made: dict[int, Made] = {}
        for begin in range(0, len(order), size):
            places = order[begin : begin + size]
            tokens, seeds = zip(*(pieces[i] for i in places))
            with self._lock:
                latents = self._latents(list(tokens), values, asked.scales, seeds)
                audios = self._decode_whole(latents)
            made |= {i: (_finite(audio), latent.durations) for i, audio, latent in zip(places, audios, latents)}
        in_order = (made[i] for i in range(len(pieces)))
        return [self._join(lines, [next(in_order) for _ in lines], asked.pause, normalize) for lines in read]

    def _one_by_one(self, lines: Iterable[Line], values: Values, asked: Options) -> Iterator[Latent]:
        """Yield the latents of the pieces of a text. Each is computed when it is asked for."""
        for i, line in enumerate(lines):
            with self._lock:
                (latent,) = self._latents([line.tokens], values, asked.scales, [asked.piece_seed(i)])
            yield latent

    def _stream(
        self,
        lines: Iterable[Line],
        latents: Iterator[Latent],
        pause: float,
        report: Callable[[int], None] | None,
        spoken: Callable[[Sentence], None] | None,
    ) -> Iterator[np.ndarray]:
        """Yield the audio in chunks of growing size, each decoded with `context` frames on either side."""
        position = 0  # samples before the piece
        after = 0.0  # seconds of silence after the piece before
        last: Line | None = None
        for done, (line, latent) in enumerate(zip(lines, latents), 1):
            for silence in (self._silence(after), self._silence(line.before)):
                position += len(silence)
                if silence.size:
                    yield silence
            start, size = 0, FIRST_CHUNK
            chunks: list[np.ndarray] = []
            while start < latent.frames:
                end = min(start + size, latent.frames)
                left, right = max(start - self.context, 0), min(end + self.context, latent.frames)
                audio = self._audio(latent, left, right)
                chunks.append(audio[(start - left) * self.data.hop_length : (end - left) * self.data.hop_length])
                start, size = end, min(2 * size, MAX_CHUNK)
                if spoken and start == latent.frames:
                    spoken(self._sentence(line, latent.durations, position, np.concatenate(chunks)))
                yield chunks[-1]
            if report:
                report(done)
            position += sum(map(len, chunks))
            after, last = self._pause_after(line, pause, last=False), line
        if last and last.after:
            yield self._silence(last.after)

    def _audio(self, latent: Latent, start: int, end: int) -> np.ndarray:
        """Decode the frames from `start` to `end`. Raises ValueError for audio that is not finite."""
        with self._lock:
            return _finite(self._decode(latent, start, end))

    def _silence(self, seconds: float) -> np.ndarray:
        return np.zeros(round(seconds * self.sampling_rate), np.float32)

    def _pause_after(self, line: Line, pause: float, last: bool) -> float:
        """Return the seconds of silence after a piece: a break of the text, or the pause between two sentences."""
        return line.after if line.after is not None else pause if line.ends and not last else 0.0

    def _sentence(self, line: Line, durations: np.ndarray | None, start: int, audio: np.ndarray) -> Sentence:
        return Sentence(line.text, line.symbols, line.tokens, line.names, durations, start, audio, line.cleaners)

    def _join(self, lines: list[Line], made: list[Made], pause: float, normalize: bool) -> Speech:
        """Concatenate the pieces of a text, with pauses between its sentences."""
        if normalize:
            gain = np.float32(PEAK / max(MIN_PEAK, *(float(np.abs(audio).max()) for audio, _ in made)))
            made = [(audio * gain, durations) for audio, durations in made]
        parts = [self._silence(lines[0].before)]
        spoken, start = [], len(parts[0])
        for line, (audio, durations) in zip(lines, made):
            silence = self._silence(self._pause_after(line, pause, line is lines[-1]))
            spoken.append(self._sentence(line, durations, start, audio))
            parts += [audio, silence]
            start += len(audio) + len(silence)
        return Speech(np.concatenate(parts), self.sampling_rate, self.data.hop_length, spoken)

    @abstractmethod
    def _latents(self, tokens: Tokens, values: Values, scales: Scales, seeds: Seeds) -> list[Latent]:
        """Compute the input of the decoder for a batch of token ids that share the values of the conditions.

        The random draws of an item follow from its seed alone. With None, they come from the global random state.
        """

    @abstractmethod
    def _decode(self, latent: Latent, start: int, end: int) -> np.ndarray:
        """Decode the frames from `start` to `end` alone; returns float32 `[(end - start) * hop_length]`."""

    def _decode_whole(self, latents: list[Latent]) -> list[np.ndarray]:
        """Decode all frames of each latent of a batch."""
        return [self._decode(latent, 0, latent.frames) for latent in latents]


def _finite(audio: np.ndarray) -> np.ndarray:
    """Return the audio. Raises ValueError if it is not finite."""
    if not np.isfinite(audio).all():
        raise ValueError("the audio contains NaN or infinity: the weights of the network are broken")
    return audio
