"""What Piper and sherpa-onnx need to speak with an exported voice: ids they can count, a graph that reads them, files.

Both turn text into code points, decomposed (NFD: "ç" comes as "c" and a cedilla), look each up in a table of one id a
code point, and send `^ _ a _ b _ $`. Networks here read "ç" as one symbol and have no "^" and "$", and only some are
trained with blanks. `Inventory` gives ids beyond the network's to all that it lacks, and `Reader`, in front of the
network in the same graph, turns what the runtimes send into what the network was trained on.
"""

import json
import shlex
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import commons
from corpus import setting
from files import write_text
from speech import Scales
from synthesis import Voice
from text import espeak, table_of_symbols
from text.symbols import PAD, SPACE_ID

BOS, EOS = "^", "$"
PIPER_VERSION = "1.0.0"  # of the format of the config file
# The cleaners that leave characters: the runtimes read them as they are written, in small letters.
CHARACTERS = ("basic_cleaners", "transliteration_cleaners", "english_characters")
GLIDE = "ʲ"
GLIDED = ("i", "ɪ")
LONG = "ː"


class FrontEnd(NamedTuple):
    """How a runtime turns text into symbols: by espeak-ng in one of its voices, or character by character."""

    phonemes: bool
    voice: str  # espeak-ng's name, empty for characters


class Join(NamedTuple):
    """Two ids that follow each other and stand for one."""

    left: int
    right: int
    joined: int


class Inventory(NamedTuple):
    """The ids that a runtime counts with. Those below `n_vocab` are the network's; the graph drops the others."""

    ids: dict[str, int]  # of each code point, "^" and "$" among them
    size: int
    n_vocab: int
    joins: list[Join]
    rounds: int  # of joining, until the longest decomposed symbol is whole
    glide: tuple[int, int, list[int]] | None  # ids of GLIDE, LONG and GLIDED, where the first is to be left out


def front_end(voice: Voice) -> FrontEnd:
    """How the runtimes can come by the symbols that a voice reads.

    Raises ValueError where they cannot, or where espeak-ng has no such language.
    """
    cleaners = voice.data.text_cleaners
    name = cleaners[0] if len(cleaners) == 1 else ""
    if name in CHARACTERS:
        return FrontEnd(False, "")
    if name in ("english_cleaners2", "english_cleaners3"):
        language = "en-us"
    elif name.startswith("phonemes_"):
        language = name.removeprefix("phonemes_")
    else:
        raise ValueError(
            f"this voice reads what {' and '.join(cleaners) or 'no cleaner'} makes of a text, and the runtimes have "
            "nothing like it: they serve english_cleaners2, english_cleaners3, phonemes_LANGUAGE, and, character by "
            f"character, {', '.join(CHARACTERS)}"
        )
    # the name of the voice's file: runtimes do not know all the codes that stand for it, such as fr-fr
    return FrontEnd(True, espeak.load().voice_of(language).rpartition("/")[2].lower())


def inventory(voice: Voice) -> Inventory:
    """Number the code points that a runtime may send.

    Raises ValueError for a network with a table of its own, whose symbols nobody knows.
    """
    table = table_of_symbols(setting(voice.data, "extra_symbols"))
    if len(table) != voice.n_vocab:
        raise ValueError(
            f"this model has its own table of {voice.n_vocab} symbols, and the table here has {len(table)}: name the "
            "symbols beyond VITS's in data.extra_symbols of its config"
        )
    known = {symbol: i for i, symbol in enumerate(table)}
    beyond = _Beyond(len(table))
    joins, rounds = _joins(known, beyond)
    phonemes = front_end(voice).phonemes
    ids = {**known, **{point: i for point, i in beyond.ids.items() if len(point) == 1}}
    if not phonemes:
        ids |= {point.upper(): i for point, i in ids.items() if len(point.upper()) == 1}
        ids |= dict.fromkeys("\t\n", SPACE_ID)
    ids |= {BOS: beyond[BOS], EOS: beyond[EOS], PAD: 0}
    glide = (known[GLIDE], known[LONG], [known[symbol] for symbol in GLIDED]) if phonemes else None
    return Inventory(ids, beyond.next, len(table), joins, rounds, glide)


class _Beyond:
    """Ids from the size of the network's table on, each given when it is first asked for."""

    def __init__(self, first: int):
        self.next = first
        self.ids: dict[str, int] = {}

    def __getitem__(self, symbol: str) -> int:
        if symbol not in self.ids:
            self.ids[symbol] = self.next
            self.next += 1
        return self.ids[symbol]


def _joins(known: dict[str, int], beyond: _Beyond) -> tuple[list[Join], int]:
    """Which ids, in pairs, become the symbols that Unicode decomposes, and how many rounds that takes."""

    def number(points: str) -> int:
        composed = unicodedata.normalize("NFC", points)
        return known[composed] if composed in known else beyond[points]

    joins: dict[Join, None] = {}  # each once, in order
    rounds = 0
    for symbol in known:
        points = unicodedata.normalize("NFD", symbol)
        rounds = max(rounds, len(points) - 1)
        for end in range(1, len(points)):
            joins[Join(number(points[:end]), number(points[end]), number(points[: end + 1]))] = None
    return list(joins), rounds


class Reader(nn.Module):
    """From ids as a runtime sends them to the tokens that the network was trained on.

    Items of a batch keep their own lengths, though both runtimes send one item at a time.
    """

    def __init__(self, inventory: Inventory, add_blank: bool):
        super().__init__()
        self.inventory = inventory
        self.add_blank = add_blank
        keys = [join.left * inventory.size + join.right for join in inventory.joins]
        self.register_buffer("keys", torch.tensor(keys, dtype=torch.long))
        self.register_buffer("joined", torch.tensor([join.joined for join in inventory.joins], dtype=torch.long))

    def forward(self, x: Tensor, x_lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Args: x `[b, t]`; x_lengths `[b]`.

        Returns tokens `[b, t_s]`, their lengths `[b]`, and for each token the place in x that it comes from
        `[b, t_s]`; a blank comes from the pad that stands where it does. Id 0, the pad, marks what is left out.
        """
        ids = self.inventory.ids
        place = torch.arange(x.size(1)).expand_as(x)
        x = x * commons.sequence_mask(x_lengths, x.size(1))
        x, place, _ = closed_up(x.masked_fill((x == ids[BOS]) | (x == ids[EOS]), 0), place)
        for _ in range(self.inventory.rounds):
            x, place, _ = closed_up(self._joined(x), place)
        x = self._without_glides(x)
        x, place, lengths = closed_up(x.masked_fill(x >= self.inventory.n_vocab, 0), place)
        if self.add_blank:
            x = F.pad(torch.stack([x, torch.zeros_like(x)], 2).flatten(1), (1, 0))
            place = torch.cat([place[:, :1] - 1, torch.stack([place, place + 1], 2).flatten(1)], 1)
            place = torch.minimum(place.clamp_min(0), x_lengths.unsqueeze(1) - 1)
            lengths = 2 * lengths + 1
        return x, lengths, place

    def _joined(self, x: Tensor) -> Tensor:
        """Put the joined id in the place of the left one and 0 in that of the right one; `[b, t]` in and out."""
        if not len(self.keys):
            return x
        pairs = x * self.inventory.size + F.pad(x[:, 1:], (0, 1))
        match = pairs.unsqueeze(2) == self.keys  # [b, t, joins]
        found = match.any(2)
        x = torch.where(found, (match * self.joined).sum(2), x)
        return x.masked_fill(F.pad(found, (1, 0))[:, :-1], 0)

    def _without_glides(self, x: Tensor) -> Tensor:
        """Put 0 in the place of "ʲ" after i: espeak-ng in the runtimes writes the glide from i to a vowel, which
        espeak-ng as the cleaners call it never does, so that no voice has learned it there; `[b, t]` in and out."""
        if self.inventory.glide is None:
            return x
        glide, long, vowels = self.inventory.glide
        before, two_before = F.pad(x, (1, 0))[:, :-1], F.pad(x, (2, 0))[:, :-2]
        vowel = torch.tensor(vowels)
        after = (before.unsqueeze(2) == vowel).any(2)
        after_long = (before == long) & (two_before.unsqueeze(2) == vowel).any(2)
        return x.masked_fill((x == glide) & (after | after_long), 0)


def closed_up(x: Tensor, place: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Move what is not 0 in `x` `[b, t]` to the left, and with it the values of `place` `[b, t]`.

    Returns both as `[b, n]`, n the longest that is left and at least 1, and their lengths `[b]`.
    """
    keep = x != 0
    lengths = keep.sum(1)
    # what is left out goes to a column beyond the last, which is cut off
    column = torch.where(keep, keep.long().cumsum(1) - 1, x.size(1))
    width = lengths.max().clamp_min(1)
    empty = torch.zeros_like(F.pad(x, (0, 1)))
    return empty.scatter(1, column, x)[:, :width], empty.scatter(1, column, place)[:, :width], lengths


class RuntimeGraph(nn.Module):
    """The exported network behind a `Reader`. A single speaker with an embedding is spoken without asking for it."""

    def __init__(self, graph: nn.Module, reader: Reader, one_of_one: bool):
        super().__init__()
        self.graph = graph
        self.reader = reader
        self.one_of_one = one_of_one

    def forward(self, x: Tensor, x_lengths: Tensor, scales: Tensor, sid: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Args: x `[b, t]`, a runtime's ids; x_lengths `[b]`; scales `[3]`; sid `[b]`.

        Returns audio `[b, 1, 1, time]` and the frames of each of x `[b, t]`.
        """
        tokens, lengths, place = self.reader(x, x_lengths)
        if self.one_of_one:
            sid = torch.zeros_like(x_lengths)
        audio, durations = self.graph(tokens, lengths, scales, sid)
        return audio, torch.zeros_like(x, dtype=durations.dtype).scatter_add(1, place, durations)


def behind_reader(graph: nn.Module, voice: Voice) -> RuntimeGraph:
    """The graph of a voice as Piper and sherpa-onnx call it. Raises ValueError for a voice that they cannot serve."""
    reader = Reader(inventory(voice), voice.data.add_blank)
    return RuntimeGraph(graph, reader, one_of_one=voice.data.n_speakers == 1)


def facts(voice: Voice, comment: str) -> dict[str, str]:
    """The metadata by which sherpa-onnx knows what to do with the file.

    Raises ValueError for a comment with a word that means another kind of model there.
    """
    for word in ("coqui", "icefall", "inflect", "melo"):
        if word in comment:
            raise ValueError(f"sherpa-onnx takes a file for {word}'s by its comment: leave {word!r} out of --comment")
    front = front_end(voice)
    ids = inventory(voice).ids
    return {
        "comment": f"piper {comment}".strip(),  # and for one to be called as Piper calls it by this word
        "language": front.voice or "und",
        "voice": front.voice,
        "has_espeak": str(int(front.phonemes)),
        "frontend": "" if front.phonemes else "characters",
        "use_eos_bos": "1",
        "bos_id": str(ids[BOS]),
        "eos_id": str(ids[EOS]),
        "blank_id": "0",
        "pad_id": "0",
    }


def piper_config(voice: Voice, name: str) -> dict:
    """The config file of a Piper voice called `name`."""
    front, symbols, scales = front_end(voice), inventory(voice), Scales()
    family, _, region = front.voice.partition("-")
    return {
        "audio": {"sample_rate": voice.sampling_rate},
        "dataset": name,
        "espeak": {"voice": front.voice},
        "language": {"code": f"{family}_{region.upper()}" if region else family, "family": family},
        "inference": {
            "noise_scale": scales.noise_scale,
            "length_scale": scales.length_scale,
            "noise_w": scales.noise_scale_w,
        },
        "phoneme_type": "espeak" if front.phonemes else "text",
        "phoneme_map": {},
        "phoneme_id_map": {point: [i] for point, i in symbols.ids.items()},
        "num_symbols": symbols.size,
        "num_speakers": max(1, voice.data.n_speakers),
        "speaker_id_map": voice.speakers,
        "hop_length": voice.data.hop_length,
        "piper_version": PIPER_VERSION,
    }


def for_piper(voice: Voice, path: Path) -> list[str]:
    """Write the config file that Piper reads beside a model. Returns what to tell the user."""
    config = path.with_name(path.name + ".json")
    write_text(config, json.dumps(piper_config(voice, path.stem), ensure_ascii=False, indent=2) + "\n")
    speaker = " -s 0" if voice.data.n_speakers > 1 else ""
    return [
        f"{config}: what Piper knows of it",
        f'python -m piper -m {shlex.quote(str(path))}{speaker} -f speech.wav "Some words."',
    ]


def for_sherpa(voice: Voice, path: Path) -> list[str]:
    """Write the table of symbols that sherpa-onnx reads beside a model. Returns what to tell the user."""
    tokens = path.with_name("tokens.txt")
    # a line of an id alone is the space; other white space cannot be written
    points = {point: i for point, i in inventory(voice).ids.items() if point == " " or not point.isspace()}
    table = "".join(f"{point} {i}\n" for point, i in points.items())
    if tokens.is_file() and tokens.read_text(encoding="utf-8") != table:
        raise ValueError(f"{tokens} is another voice's table: write this one into a folder of its own")
    write_text(tokens, table)
    options = {"vits-model": path, "vits-tokens": tokens}
    if front_end(voice).phonemes:
        options["vits-data-dir"] = espeak.find()[1] or "espeak-ng-data"
    if voice.data.n_speakers > 1:
        options["sid"] = 0
    given = " ".join(f"--{name}={shlex.quote(str(value))}" for name, value in options.items())
    return [
        f"{tokens}: its symbols",
        f'sherpa-onnx-offline-tts {given} --output-filename=speech.wav "Some words."',
        'the program comes with: pip install "sherpa-onnx-bin<2"',
        "sherpa-onnx 2 has no espeak-ng and takes phonemes instead of text, in GenerationConfig.phoneme_codepoints",
    ]


RUNTIMES: dict[str, Callable[[Voice, Path], list[str]]] = {"piper": for_piper, "sherpa": for_sherpa}
