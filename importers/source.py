"""What an importer finds in the files of another program, and how such files are read without executing code."""

import json
import pickle
import re
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import cli
from checkpoint import damaged_record

MARKS = {  # the last part of the name of the text embedding, by the layout of the names
    "enc_p.emb.weight": "vits",
    "text_encoder.embed_tokens.weight": "huggingface",
    "text_encoder.emb.weight": "coqui",
}
WRAPPERS = re.compile(r"(?:(?<=^)|(?<=\.))(?:module|_orig_mod)\.")  # of parallel and compiled modules
UNSUPPORTED = re.compile(r"(?:GLOBAL|global) ([\w.]+)")  # in PyTorch's message for a type that is not allowed
MAX_DEPTH = 3  # of dicts in a file, among which the weights are searched
CONFIG_SUFFIXES = (".json", ".yaml", ".yml")


@dataclass
class Imported:
    """A voice of another program in the terms of this one.

    `weights` have VITS's names, with or without weight norm. `train`, `data` and `model` are sections of a config; the
    weights decide where a section says nothing (`importers.architecture`).
    """

    title: str  # of the program or the format
    weights: dict[str, Tensor]
    model: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    train: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)  # what was converted, and what was left behind


class Record(dict):
    """Stands in for the dict-like and namespace-like objects of other programs in a pickled file."""

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            self.update(state)


def joined(*parts: str) -> str:
    """Stand in for the classes of paths: return a path as a string."""
    return "/".join(parts)


PATHS = ("Path", "PosixPath", "WindowsPath", "PurePath", "PurePosixPath", "PureWindowsPath")
RECORDS = (
    *("utils.HParams", "__main__.HParams", "vits.utils.HParams", "argparse.Namespace", "types.SimpleNamespace"),
    *("pytorch_lightning.utilities.parsing.AttributeDict", "lightning.pytorch.utilities.parsing.AttributeDict"),
    *("lightning_fabric.utilities.data.AttributeDict", "lightning.fabric.utilities.data.AttributeDict"),
)
# Types that checkpoints of the family hold besides tensors, and what is built in their place. PyTorch refuses others.
ALLOWED: list[Callable | tuple[Callable, str]] = [
    defaultdict,
    dict,
    list,
    *((joined, f"{module}.{name}") for module in ("pathlib", "pathlib._local") for name in PATHS),
    *((Record, name) for name in RECORDS),
]


def read_pickled(path: Path) -> Any:
    """Read a file of `torch.save` onto the CPU. Raises ValueError for a damaged file and a type that is not allowed."""
    try:
        if record := damaged_record(path):
            raise zipfile.BadZipFile(f"the checksum of {record} is wrong")
        with torch.serialization.safe_globals(ALLOWED):
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}") from None
    except pickle.UnpicklingError as error:
        found = UNSUPPORTED.search(str(error))
        what = f"an object of the type {found[1]}" if found else "something that is no data"
        raise ValueError(f"{path} holds {what}; only weights, numbers, texts and paths are read") from None
    except Exception as error:  # PyTorch raises many types for damaged files
        message = (str(error).strip().splitlines() or [repr(error)])[0]
        raise ValueError(f"{path} does not load; it is damaged or no file of PyTorch: {message}") from None


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file. Raises ValueError if it is damaged."""
    library = cli.extra("safetensors.torch")
    try:
        return library.load_file(path)
    except Exception as error:  # the library has an exception of its own
        raise ValueError(f"{path} is no file of safetensors, or damaged: {error}") from None


def read_config(path: Path) -> dict[str, Any]:
    """Read a JSON or YAML file with an object of keys and values. Raises ValueError for anything else."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        is_yaml = path.suffix in (".yaml", ".yml")
        content = cli.extra("yaml").safe_load(text) if is_yaml else json.loads(text)
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from None
    except Exception as error:  # of either parser, or UnicodeDecodeError
        reason = " ".join(str(error).split())
        raise ValueError(f"{path} is not valid {path.suffix.lstrip('.').upper() or 'JSON'}: {reason}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} is no config: it holds {type(content).__name__}, not an object of keys and values")
    return content


def find_weights(content: Any, where: Path) -> tuple[str, dict[str, Tensor]]:
    """Return the layout of the names, a value of `MARKS`, and a generator's weights without prefixes, in fp32.

    They may be the whole content, or lie in dicts such as `model`, `weight` or `state_dict`. Raises ValueError if there
    are none, or if one is not finite.
    """
    for names in _dicts(content):
        tensors = {WRAPPERS.sub("", str(name)): x for name, x in names.items() if isinstance(x, Tensor)}
        for mark, layout in MARKS.items():
            for name in tensors:
                if name == mark or name.endswith(f".{mark}"):
                    prefix = name.removesuffix(mark)
                    found = {n.removeprefix(prefix): x for n, x in tensors.items() if n.startswith(prefix)}
                    return layout, {n: _checked(x, n, where) for n, x in found.items()}
    shown = ", ".join(list(map(str, content))[:5]) if isinstance(content, Mapping) else type(content).__name__
    raise ValueError(f"{where} holds no generator of the VITS family: there is no text embedding. It has {shown}")


def _dicts(content: Any, depth: int = 0) -> Iterator[Mapping]:
    """Yield a dict and those inside it, the outer ones first."""
    if isinstance(content, Mapping):
        yield content
        if depth < MAX_DEPTH:
            for value in content.values():
                yield from _dicts(value, depth + 1)


def _checked(weight: Tensor, name: str, where: Path) -> Tensor:
    weight = weight.detach().float() if weight.is_floating_point() else weight.detach()
    if not weight.isfinite().all():
        raise ValueError(f"{where}: {name} contains NaN or infinity")
    return weight.clone()


def config_beside(path: Path, content: Any = None) -> tuple[dict[str, Any], str] | None:
    """Return the config of a weights file and where it was found, or None.

    It is in the file, or beside it: NAME.json, config.json, or the only other file of that kind.
    """
    if isinstance(content, Mapping) and isinstance(content.get("config"), dict):
        return content["config"], str(path)
    names = [path.with_name(f"{path.name}.json"), path.with_name("config.json"), path.with_name("config.yaml")]
    names += [path.with_suffix(suffix) for suffix in CONFIG_SUFFIXES]
    others = [file for file in sorted(path.parent.iterdir()) if file.suffix in CONFIG_SUFFIXES]
    for file in [*names, *(others if len(others) == 1 else [])]:
        if file.is_file():
            return read_config(file), str(file)
    return None
