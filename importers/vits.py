"""VITS and its forks with the same names of weights: files of weights with a config of three sections."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from config import SECTIONS, field_names
from importers import piper
from importers.source import Imported
from text.symbols import symbols as vits_symbols

VOCABULARY = "vocab.txt"  # of the voices of MMS as they were trained: one symbol in each line


def convert(
    path: Path, content: Any, weights: dict[str, Tensor], config: Mapping[str, Any], files: Mapping[str, Path]
) -> Imported:
    """Return the voice of a file whose weights have VITS's names.

    Without a config of three sections, the arguments that Lightning saves (`hyper_parameters`) are used.
    """
    arguments = content.get("hyper_parameters") if isinstance(content, Mapping) else None
    if isinstance(arguments, Mapping) and "model" not in config:
        return piper.from_arguments(path, weights, arguments, config)
    voice = Imported("VITS", weights)
    for name, part in SECTIONS.items():
        section = config.get(name, {})
        section = section if isinstance(section, Mapping) else {}
        known = field_names(part)
        getattr(voice, name).update({key: value for key, value in section.items() if key in known})
        if left := [key for key in section if key not in known]:
            voice.notes.append(f"keys of the config's {name!r} that are not used here: {', '.join(map(str, left))}")
    voice.data.update(_symbols(config, len(weights["enc_p.emb.weight"]), files, voice.notes))
    if speakers := _speakers(config):
        voice.data["speakers"] = speakers
    voice.data.setdefault("add_blank", True)
    return voice


def _symbols(config: Mapping[str, Any], rows: int, files: Mapping[str, Path], notes: list[str]) -> dict[str, Any]:
    """Return the table of symbols: that of the config or of the folder, otherwise VITS's if its length fits."""
    table = config.get("symbols")
    if table is None and VOCABULARY in files:
        table = files[VOCABULARY].read_text(encoding="utf-8").split("\n")[:rows]
    if isinstance(table, str):
        table = list(table)
    if isinstance(table, list):
        return {"symbols": list(map(str, table)), "n_vocab": rows}
    given = config.get("data")
    if isinstance(given, Mapping) and ("symbols" in given or "extra_symbols" in given):
        return {}
    if rows != len(vits_symbols):
        notes.append(
            f"its {rows} symbols are unknown: it speaks token ids only, unless --symbols names a file with them"
        )
    return {}


def _speakers(config: Mapping[str, Any]) -> dict[str, int]:
    """Return the names of speakers in the places where forks of VITS keep them."""
    section = config.get("data")
    data: Mapping[str, Any] = section if isinstance(section, Mapping) else {}
    for table in (config.get("speakers"), data.get("spk2id"), data.get("spk"), data.get("speakers")):
        if isinstance(table, Mapping) and all(isinstance(number, int) for number in table.values()):
            return {str(name): number for name, number in table.items()}
        if isinstance(table, list):
            return {str(name): number for number, name in enumerate(table)}
    return {}
