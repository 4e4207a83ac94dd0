"""Metadata of ONNX files: what `export_onnx.py` writes about a voice and `infer_onnx.py` reads.

Keys and values are strings; lists and tables are JSON. sherpa-onnx reads some of the keys too. Importing this module
needs neither PyTorch nor onnx.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from conditions import CONDITIONS
from config import DataConfig
from synthesis.speech import Scales
from text.symbols import symbols as vits_symbols

if TYPE_CHECKING:
    from synthesis import Voice

REQUIRED = ("sample_rate", "hop_length", "n_speakers", "speakers", "cleaners", "symbols", "n_vocab", "add_blank")
DIGEST_LENGTH = 16  # hexadecimal digits


class Description(NamedTuple):
    """What a file says about its voice. `data` has only the settings that synthesis needs; the others are defaults."""

    data: DataConfig
    n_vocab: int
    step: int | None
    context: int  # frames on either side that the audio of a frame depends on; 0 for a voice in one file


def facts(voice: "Voice", comment: str = "", split: bool = False) -> dict[str, str]:
    """Return the metadata of a voice in one file or, with `split`, in two. Settings of conditions keep their names."""
    data = voice.data
    settings = {key: getattr(data, key) for condition in CONDITIONS.values() for key in condition.settings}
    settings["speakers"] = voice.speakers  # complete, also where the config has no names
    return {
        "model_type": "vits",
        "comment": comment,
        "sample_rate": str(data.sampling_rate),
        "hop_length": str(data.hop_length),
        **{key: json.dumps(value, ensure_ascii=False) for key, value in settings.items()},
        "language": language(data.text_cleaners),
        "cleaners": json.dumps(data.text_cleaners),
        "symbols": json.dumps(voice.symbols, ensure_ascii=False),
        "n_vocab": str(voice.n_vocab),
        "add_blank": str(int(data.add_blank)),
        "scales": json.dumps(Scales()),
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
        data = {key: json.loads(metadata[key]) for key in settings} | {
            "sampling_rate": int(metadata["sample_rate"]),
            "hop_length": int(metadata["hop_length"]),
            "text_cleaners": json.loads(metadata["cleaners"]),
            "extra_symbols": "".join(json.loads(metadata["symbols"])[len(vits_symbols) :]),
            "add_blank": metadata["add_blank"] == "1",
        }
        step = int(metadata.get("step") or 0) or None
        return Description(DataConfig(**data), int(metadata["n_vocab"]), step, int(metadata.get("context", 0)))
    except (ValueError, TypeError, LookupError) as error:
        raise ValueError(f"its metadata is broken: {error}") from None


def language(cleaners: Sequence[str]) -> str:
    """Return the espeak-ng code of the cleaners' language, empty if they serve any language."""
    for name in cleaners:
        if name.startswith("phonemes_"):
            return name.removeprefix("phonemes_")
        if name.startswith("english_"):
            return "en-us"
    return ""


def digest(voice: "Voice") -> str:
    """Return a hash of the weights, by which an encoder refuses the decoder of another voice."""
    weights = hashlib.sha256()
    for value in voice.net.state_dict().values():
        weights.update(value.contiguous().numpy().tobytes())
    return weights.hexdigest()[:DIGEST_LENGTH]
