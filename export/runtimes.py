"""Voices for Piper and sherpa-onnx: ids of their symbols, a graph that reads those ids, and the files they need.

Both runtimes convert text to code points in decomposed form (NFD: "ç" becomes "c" and a cedilla), look up one id for
each code point, and send `^ _ a _ b _ $`. The networks here read "ç" as one symbol, have no "^" and "$", and only some
are trained with blanks. `Inventory` gives ids after the network's own to code points that the network lacks. `Reader`,
which precedes the network in the graph, converts the ids of a runtime to the tokens that the network was trained on.
A voice with Piper's table and marks reads the ids of the runtimes as they are.
"""

import json
import shlex
import unicodedata
from collections import defaultdict
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import commons
from files import write_text
from synthesis import Voice
from synthesis.speech import Scales
from text import espeak
from text.cleaners import language_of
from text.symbols import PAD
from text.tokens import mark_ids, symbol_table

BOS, EOS = "^", "$"
PIPER_VERSION = "1.0.0"  # of the format of the config file
# Cleaners whose output is characters. The runtimes read characters as written, in lower case.
CHARACTER_CLEANERS = ("basic_cleaners", "transliteration_cleaners", "english_characters")
GLIDE = "ʲ"
GLIDED = ("i", "ɪ")
LONG = "ː"
# sherpa-onnx takes the format of a file from words in its comment.
RESERVED_WORDS = ("coqui", "icefall", "inflect", "melo")


class Inventory(NamedTuple):
    """The ids that a runtime sends. Those below `n_vocab` are the network's; the graph drops the others."""

    ids: dict[str, int]  # of each code point, including "^" and "$"
    size: int
    n_vocab: int
    joins: dict[tuple[int, int], int]  # pairs of successive ids and the id that replaces them
    rounds: int  # rounds of joining that the longest decomposed symbol needs
    glide: tuple[int, int, list[int]] | None  # ids of GLIDE, LONG and GLIDED, for a voice of phonemes


def front_end(voice: Voice) -> str:
    """Return the espeak-ng voice by which the runtimes convert text to symbols; empty if they send its characters.

    Raises ValueError if they can do neither.
    """
    cleaners = [name for name in voice.data.text_cleaners if not name.startswith("normalize_")]
    name = cleaners[0] if len(cleaners) == 1 else ""
    if name in CHARACTER_CLEANERS:
        return ""
    if name not in ("english_cleaners2", "english_cleaners3") and not name.startswith("phonemes_"):
        made = f"the output of {' and '.join(cleaners) or 'no cleaner'}, which Piper and sherpa-onnx cannot make"
        supported = "english_cleaners2, english_cleaners3, phonemes_LANGUAGE and, character by character,"
        raise ValueError(f"this voice reads {made}: they support {supported} {', '.join(CHARACTER_CLEANERS)}")
    # the name of the voice's file, because the runtimes do not know all codes that refer to it, such as fr-fr
    return espeak.load().voice_of(language_of(cleaners)).rpartition("/")[2].lower()


def reads_as_runtimes(voice: Voice) -> bool:
    """Return whether the voice was trained on the ids, in the order, that the runtimes send."""
    data = voice.data
    marks = (data.begin_symbol, data.blank_symbol, data.end_symbol, data.add_blank, data.unicode_form)
    return marks == (BOS, PAD, EOS, True, "NFD") and all(len(symbol) == 1 for symbol in symbol_table(data).ids)


def runtime_ids(voice: Voice) -> dict[str, tuple[int, ...]]:
    """Return the ids of each code point that a runtime may send. Raises ValueError as `inventory`."""
    if reads_as_runtimes(voice):
        voice.check_symbols()
        return symbol_table(voice.data).ids
    return {point: (i,) for point, i in inventory(voice).ids.items()}


def inventory(voice: Voice) -> Inventory:
    """Number the code points that a runtime may send.

    Raises ValueError if the network's symbols are unknown, or its table cannot be made from single code points.
    """
    voice.check_symbols()
    n_vocab, phonemes = voice.n_vocab, bool(front_end(voice))
    table, data = symbol_table(voice.data), voice.data
    if data.begin_symbol or data.end_symbol or any(len(ids) > 1 for ids in table.ids.values()):
        raise ValueError(
            "Piper and sherpa-onnx read tables with begin and end marks, or symbols of several ids, only as "
            "Piper has them: single code points in NFD, with the marks ^, _ and $"
        )
    if len(table.names[0]) == 1 and table.names[0] != PAD:
        raise ValueError(f"Piper and sherpa-onnx need the id 0 for a pad, and here it is {table.names[0]!r}")
    unspoken = {table.names[0], data.blank_symbol} - {PAD}
    known = {symbol: i for symbol, (i,) in table.ids.items() if symbol not in unspoken}
    extra: dict[str, int] = defaultdict(count(n_vocab).__next__)  # a string gets the next id when it is looked up
    joins, rounds = {}, 0
    for symbol in known:
        points = unicodedata.normalize("NFD", symbol)
        rounds = max(rounds, len(points) - 1)
        if len(unicodedata.normalize("NFC", symbol)) > 1:
            raise ValueError(f"Piper and sherpa-onnx send single characters, not {symbol!r}, which is in the table")
        for end in range(1, len(points)):
            left, right, joined = (_id(part, known, extra) for part in (points[:end], points[end], points[: end + 1]))
            joins[left, right] = joined
    ids = {**known, **{point: i for point, i in extra.items() if len(point) == 1}}
    if not phonemes:
        ids |= {point.upper(): i for point, i in ids.items() if len(point.upper()) == 1}
        ids |= dict.fromkeys("\t\n", known[" "]) if " " in known else {}
    ids |= {BOS: extra[BOS], EOS: extra[EOS], PAD: 0}
    has_glide = phonemes and known.keys() >= {GLIDE, LONG, *GLIDED}
    glide = (known[GLIDE], known[LONG], [known[symbol] for symbol in GLIDED]) if has_glide else None
    return Inventory(ids, n_vocab + len(extra), n_vocab, joins, rounds, glide)


def _id(points: str, known: dict[str, int], extra: dict[str, int]) -> int:
    composed = unicodedata.normalize("NFC", points)
    return known[composed] if composed in known else extra[points]


class Reader(nn.Module):
    """Converts the ids of a runtime to tokens of the network.

    Batches of different lengths are allowed, although both runtimes send one utterance at a time.
    """

    def __init__(self, inventory: Inventory, add_blank: bool, blank: int = 0):
        super().__init__()
        self.inventory, self.add_blank, self.blank = inventory, add_blank, blank

    def forward(self, x: Tensor, x_lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Args: x `[b, t]`; x_lengths `[b]`.

        Returns tokens `[b, t_s]`, their lengths `[b]`, and the index in x of each token `[b, t_s]`. A blank has the
        index of the pad in its place. Within this method, id 0 (the pad) marks ids to remove.
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
            x = F.pad(torch.stack([x, torch.full_like(x, self.blank)], 2).flatten(1), (1, 0), value=self.blank)
            place = torch.cat([place[:, :1] - 1, torch.stack([place, place + 1], 2).flatten(1)], 1)
            place = torch.minimum(place.clamp_min(0), x_lengths.unsqueeze(1) - 1)
            lengths = 2 * lengths + 1
        return x, lengths, place

    def _joined(self, x: Tensor) -> Tensor:
        """Replace the left id of each pair by the joined one and the right id by 0; `[b, t]` to `[b, t]`."""
        joins, size = self.inventory.joins, self.inventory.size
        if not joins:
            return x
        pairs = x * size + F.pad(x[:, 1:], (0, 1))
        match = pairs.unsqueeze(2) == torch.tensor([left * size + right for left, right in joins])  # [b, t, joins]
        found = match.any(2)
        x = torch.where(found, (match * torch.tensor(list(joins.values()))).sum(2), x)
        return x.masked_fill(F.pad(found, (1, 0))[:, :-1], 0)

    def _without_glides(self, x: Tensor) -> Tensor:
        """Replace "ʲ" after i by 0; `[b, t]` to `[b, t]`.

        The espeak-ng of the runtimes writes the glide from i to a vowel. The espeak-ng of the cleaners does not, so no
        voice has learned it there.
        """
        if self.inventory.glide is None:
            return x
        glide, long, vowels = self.inventory.glide
        before, two_before = F.pad(x, (1, 0))[:, :-1], F.pad(x, (2, 0))[:, :-2]
        vowel = torch.tensor(vowels)
        after = (before.unsqueeze(2) == vowel).any(2)
        after_long = (before == long) & (two_before.unsqueeze(2) == vowel).any(2)
        return x.masked_fill((x == glide) & (after | after_long), 0)


def closed_up(x: Tensor, place: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Remove the zeros of `x` `[b, t]` and the same elements of `place` `[b, t]`.

    Returns both as `[b, n]`, padded with zeros to the longest row, at least 1, and the lengths of the rows `[b]`.
    """
    keep = x != 0
    lengths = keep.sum(1)
    # removed elements go to a column beyond the last, which is cut off
    column = torch.where(keep, keep.long().cumsum(1) - 1, x.size(1))
    width = lengths.max().clamp_min(1)
    empty = torch.zeros_like(F.pad(x, (0, 1)))
    return empty.scatter(1, column, x)[:, :width], empty.scatter(1, column, place)[:, :width], lengths


class RuntimeGraph(nn.Module):
    """The exported network after a `Reader`, which a voice that reads the ids of the runtimes does not need.

    If the voice has a table of one speaker, the speaker is not an input. Raises ValueError for a voice that the
    runtimes do not support.
    """

    def __init__(self, graph: nn.Module, voice: Voice):
        super().__init__()
        others = [name for name in voice.net.conditions if name != "sid"]
        if others:
            raise ValueError(f"Piper and sherpa-onnx support no condition but the speaker: not {', '.join(others)}")
        self.graph = graph
        if reads_as_runtimes(voice):
            self.reader = None
        else:
            self.reader = Reader(inventory(voice), voice.data.add_blank, mark_ids(voice.data)[0][0])
        self.one_speaker = voice.data.n_speakers == 1

    def forward(self, x: Tensor, x_lengths: Tensor, scales: Tensor, *conditions: Tensor) -> tuple[Tensor, Tensor]:
        """Args: x `[b, t]`, ids of a runtime; x_lengths `[b]`; scales `[3]`; conditions: the speaker `[b]`, if any.

        Returns audio `[b, 1, 1, time]` and the frames of each element of x `[b, t]`.
        """
        if self.one_speaker:
            conditions = (torch.zeros_like(x_lengths),)
        if self.reader is None:
            return self.graph(x, x_lengths, scales, *conditions)
        tokens, lengths, place = self.reader(x, x_lengths)
        audio, durations = self.graph(tokens, lengths, scales, *conditions)
        return audio, torch.zeros_like(x, dtype=durations.dtype).scatter_add(1, place, durations)


def facts(voice: Voice, comment: str) -> dict[str, str]:
    """Return the metadata that sherpa-onnx needs. Raises ValueError for a word of `RESERVED_WORDS` in the comment."""
    for word in RESERVED_WORDS:
        if word in comment:
            raise ValueError(f"sherpa-onnx would take the file for one of {word}: leave {word!r} out of --comment")
    front, ids = front_end(voice), runtime_ids(voice)
    return {
        "comment": f"piper {comment}".strip(),  # the word selects the inputs of Piper
        "language": front or "und",
        "voice": front,
        "has_espeak": str(int(bool(front))),
        "frontend": "" if front else "characters",
        "use_eos_bos": "1",
        "bos_id": str(ids[BOS][0]),
        "eos_id": str(ids[EOS][0]),
        "blank_id": str(ids[PAD][0]),
        "pad_id": str(ids[PAD][0]),
    }


def for_piper(voice: Voice, path: Path) -> list[str]:
    """Write the config file of Piper beside a model. Returns lines to print."""
    front, ids = front_end(voice), runtime_ids(voice)
    family, _, region = front.partition("-")
    noise_scale, length_scale, noise_w = Scales()
    config = {
        "audio": {"sample_rate": voice.sampling_rate},
        "dataset": path.stem,
        "espeak": {"voice": front},
        "language": {"code": f"{family}_{region.upper()}" if region else family, "family": family},
        "inference": {"noise_scale": noise_scale, "length_scale": length_scale, "noise_w": noise_w},
        "phoneme_type": "espeak" if front else "text",
        "phoneme_map": {},
        "phoneme_id_map": {point: list(several) for point, several in ids.items()},
        "num_symbols": max(voice.n_vocab, *(1 + i for several in ids.values() for i in several)),
        "num_speakers": max(1, voice.data.n_speakers),
        "speaker_id_map": voice.speakers,
        "hop_length": voice.data.hop_length,
        "piper_version": PIPER_VERSION,
    }
    file = path.with_name(path.name + ".json")
    write_text(file, json.dumps(config, ensure_ascii=False, indent=2) + "\n")
    model, speaker = shlex.quote(str(path)), " -s 0" if voice.data.n_speakers > 1 else ""
    command = f'python -m piper -m {model}{speaker} -f speech.wav "Some words."'
    return [f"{file}: the config file of Piper", command]


def for_sherpa(voice: Voice, path: Path) -> list[str]:
    """Write the symbol table of sherpa-onnx beside a model. Returns lines to print.

    Raises ValueError if the folder holds the table of another voice, or a symbol has several ids.
    """
    tokens = path.with_name("tokens.txt")
    ids = runtime_ids(voice)
    if several := [point for point, found in ids.items() if len(found) > 1]:
        raise ValueError(f"sherpa-onnx has one id for a symbol, and {several[0]!r} has {list(ids[several[0]])}")
    # a line with an id alone stands for the space; other white space cannot be written
    points = {point: i for point, (i,) in ids.items() if point == " " or not point.isspace()}
    table = "".join(f"{point} {i}\n" for point, i in points.items())
    if tokens.is_file() and tokens.read_text(encoding="utf-8") != table:
        raise ValueError(f"{tokens} is the table of another voice: export this voice to another folder")
    write_text(tokens, table)
    options = {"vits-model": str(path), "vits-tokens": str(tokens)}
    if front_end(voice):
        options["vits-data-dir"] = str(espeak.find()[1] or "espeak-ng-data")
    if voice.data.n_speakers > 1:
        options["sid"] = "0"
    given = " ".join(f"--{name}={shlex.quote(value)}" for name, value in options.items())
    return [
        f"{tokens}: the symbol table of sherpa-onnx",
        f'sherpa-onnx-offline-tts {given} --output-filename=speech.wav "Some words."',
        'the program is installed by: pip install "sherpa-onnx-bin<2"',
        "sherpa-onnx 2 has no espeak-ng; give it phonemes in GenerationConfig.phoneme_codepoints",
    ]


RUNTIMES: dict[str, Callable[[Voice, Path], list[str]]] = {"piper": for_piper, "sherpa": for_sherpa}
