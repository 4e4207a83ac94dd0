"""Metadata of ONNX files: what `export_onnx.py` writes about a voice and `infer_onnx.py` reads.

Keys and values are strings; lists and tables are JSON. sherpa-onnx reads some of the keys too. Importing this module
needs neither PyTorch nor onnx.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from conditions import CONDITIONS
from config import DataConfig, ModelConfig, field_names, read_section
from synthesis.speech import Scales
from text.cleaners import language_of
from text.markup import check_dictionary
from text.symbols import symbols as vits_symbols
from text.tokens import symbol_table

if TYPE_CHECKING:
    from synthesis import Voice

REQUIRED = ("sample_rate", "hop_length", "n_speakers", "speakers", "cleaners", "symbols", "n_vocab", "add_blank")
# settings of the text besides those that files have always had; the metadata holds them as JSON under the key "text"
TEXT = (
    *("symbols", "extra_symbols", "blank_symbol", "begin_symbol", "end_symbol", "unicode_form", "n_vocab"),
    *("normalize", "dictionary"),
)
DIGEST_LENGTH = 16  # hexadecimal digits
MAX_QUOTED = 20  # characters of a value in a message
LARGEST = 1 << 20  # of any number in the metadata: a speaker's id, a rate, a count


class Description(NamedTuple):
    """What a file says about its voice. `data` has only the settings that synthesis needs; the others are defaults."""

    data: DataConfig
    model: dict[str, int]  # settings that the graph does not show, see `decoders.Decoder.noted_settings`
    n_vocab: int
    step: int | None
    context: int  # frames on either side that the audio of a frame depends on; 0 for a voice in one file


def facts(voice: "Voice", comment: str = "", split: bool = False) -> dict[str, str]:
    """Return the metadata of a voice in one file or, with `split`, in two. Settings of conditions keep their names."""
    data = voice.data
    settings = {key: getattr(data, key) for condition in CONDITIONS.values() for key in condition.settings}
    settings["speakers"] = voice.speakers  # complete, also where the config has no names
    text = {key: getattr(data, key) for key in TEXT}
    if any(text[key] != getattr(DataConfig(), key) for key in TEXT if key != "extra_symbols"):
        settings["text"] = text
    return {
        "model_type": "vits",
        "comment": comment,
        "sample_rate": str(data.sampling_rate),
        "hop_length": str(data.hop_length),
        **{key: json.dumps(value, ensure_ascii=False) for key, value in settings.items()},
        "language": language_of(data.text_cleaners),
        "cleaners": json.dumps(data.text_cleaners),
        "symbols": json.dumps(voice.symbols, ensure_ascii=False),
        "n_vocab": str(voice.n_vocab),
        "add_blank": str(int(data.add_blank)),
        "scales": json.dumps(Scales()),
        **{key: str(getattr(voice.config.model, key)) for key in voice.net.dec.noted_settings},
        "step": str(voice.step if voice.step is not None else ""),
        **({"context": str(voice.context), "weights": digest(voice)} if split else {}),
    }


def read(metadata: Mapping[str, str]) -> Description | None:
    """Read what `facts` wrote; None if the file does not describe its voice. Raises ValueError for a broken value.

    Settings of conditions that the file lacks, because it is older than the condition, have their defaults.
    """
    if not all(key in metadata for key in REQUIRED):
        return None
    settings = [key for condition in CONDITIONS.values() for key in condition.settings if key in metadata]
    try:
        symbols = json.loads(metadata["symbols"])
        if not isinstance(symbols, list) or not all(isinstance(symbol, str) for symbol in symbols):
            raise ValueError("symbols is not a list of strings")
        data = {key: json.loads(metadata[key]) for key in settings} | {
            "sampling_rate": _count("sample_rate", metadata["sample_rate"], 1),
            "hop_length": _count("hop_length", metadata["hop_length"], 1),
            "text_cleaners": json.loads(metadata["cleaners"]),
            "extra_symbols": "".join(symbols[len(vits_symbols) :]),
            "add_blank": metadata["add_blank"] == "1",
        }
        if "text" in metadata:
            text = json.loads(metadata["text"])
            read_section(DataConfig, text, "text")
            data |= {key: text[key] for key in TEXT}
        described = dataclasses.replace(DataConfig(), **data)
        symbol_table(described)
        check_dictionary(described.dictionary, "dictionary")
        for name in settings:
            _check(name, data[name], getattr(DataConfig(), name))
        _check("text_cleaners", described.text_cleaners, DataConfig().text_cleaners)
        step = int(metadata.get("step") or 0) or None
        n_vocab = _count("n_vocab", metadata["n_vocab"], 1)
        model = {key: _count(key, metadata[key], 1) for key in field_names(ModelConfig) if key in metadata}
        return Description(described, model, n_vocab, step, _count("context", metadata.get("context", 0), 0))
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        raise ValueError(f"its metadata is broken: {error}") from None


def _count(name: str, value: Any, least: int) -> int:
    """Return a whole number. Raises ValueError if it is out of range."""
    number = int(value)
    if not least <= number <= LARGEST:
        raise ValueError(f"{name} is {str(value)[:MAX_QUOTED]}; it may be from {least} to {LARGEST}")
    return number


def _check(name: str, value: Any, default: Any) -> None:
    """Raise ValueError if a value is not of the kind of its setting's default, or a number in it is out of range."""
    numbers = list(value.values()) if isinstance(value, dict) else [value] if isinstance(value, int) else []
    if not isinstance(value, type(default)):
        raise ValueError(f"{name} is {str(value)[:MAX_QUOTED]!r}, not of the type {type(default).__name__}")
    for number in numbers:
        _count(name, number, 0)
    if isinstance(value, list) and not all(isinstance(entry, str) for entry in value):
        raise ValueError(f"{name} is not a list of strings")


def digest(voice: "Voice") -> str:
    """Return a hash of the weights, by which an encoder refuses the decoder of another voice."""
    weights = hashlib.sha256()
    for value in voice.net.state_dict().values():
        weights.update(value.contiguous().numpy().tobytes())
    return weights.hexdigest()[:DIGEST_LENGTH]
