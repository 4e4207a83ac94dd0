"""From the files of another program to a voice of this one: find the files, read them, and build config and weights."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

import checkpoint
import config as configs
from config import Config
from files import VOICE
from importers import architecture, coqui, huggingface, piper, vits
from importers.source import Imported, config_beside, find_weights, read_config, read_pickled, read_safetensors
from models import SynthesizerTrn

CONVERTERS: dict[str, Callable[..., Imported]] = {  # by the layout of the names of the weights
    "vits": vits.convert,
    "huggingface": huggingface.convert,
    "coqui": coqui.convert,
}
WEIGHT_FILES = (  # in a folder, the most likely first
    *("model.safetensors", "pytorch_model.bin", "best_model.pth", "model_file.pth", "model.pth", "G_latest.pth"),
    *("G_*.pth", VOICE, "*.onnx", "*.safetensors", "*.ckpt", "*.pth", "*.pt", "*.bin"),
)


class Voice(NamedTuple):
    """A voice in the terms of this program; the weights have VITS's names and no wrong shapes."""

    title: str
    config: Config
    weights: dict[str, Tensor]
    missing: list[str]  # of the network; all match `checkpoint.TRAINING_ONLY`
    notes: list[str]


def read(path: Path, config_path: Path | None = None, **data: Any) -> Voice:
    """Read a voice from a file or a folder; `data` replaces keys of the config's section.

    Raises ValueError, which names what is unknown or not supported, if this program cannot speak with it.
    """
    file = weights_file(path)
    files = {entry.name: entry for entry in file.parent.iterdir()}
    found = find(file, files, config_path)
    found.data |= data
    config = build_config(found, str(file))
    return Voice(found.title, config, *fitting(found, config, str(file)), found.notes)


def weights_file(path: Path) -> Path:
    """Return the file with the weights in a folder, or the file itself. Raises ValueError if there is none."""
    if path.is_file():
        return path
    if not path.is_dir():
        raise ValueError(f"there is no file or folder {path}")
    for pattern in WEIGHT_FILES:
        # of several checkpoints, the one of the highest step
        if found := sorted(path.glob(pattern), key=lambda file: (checkpoint.step_of(file), file.name)):
            return found[-1]
    raise ValueError(f"{path} holds no file of weights: {', '.join(WEIGHT_FILES)}")


def find(file: Path, files: Mapping[str, Path], config_path: Path | None) -> Imported:
    """Read weights and config of a voice in the form of its program."""
    is_graph = file.suffix == ".onnx"
    content: Any = None
    if not is_graph:
        content = read_safetensors(file) if file.suffix == ".safetensors" else read_pickled(file)
    config = (read_config(config_path), str(config_path)) if config_path else config_beside(file, content)
    sections = config[0] if config else {}
    if is_graph:
        return piper.from_graph(file, sections)
    layout, weights = find_weights(content, file)
    return CONVERTERS[layout](file, content, weights, sections, files)


def build_config(found: Imported, where: str) -> Config:
    """Return the config of a voice. Raises ValueError, beginning with `where`, if there is none for this network."""
    model = architecture.model_section(found.weights, found.model, where)
    data = {**found.data, **architecture.data_section(found.weights, found.data, where)}
    if not data["n_speakers"]:
        data.pop("speakers", None)
    model["use_mel_posterior_encoder"] = data.setdefault("use_mel_posterior_encoder", False)
    return configs.from_dict({"train": found.train, "data": data, "model": model}, where)


def fitting(found: Imported, config: Config, where: str) -> tuple[dict[str, Tensor], list[str]]:
    """Return the weights that the network has, and the names of those that it has in addition.

    Raises ValueError, beginning with `where`, for weights that speech needs or that this network does not know.
    """
    with torch.device("meta"):
        net = SynthesizerTrn.from_config(config, len(found.weights["enc_p.emb.weight"]))
    ours = checkpoint.reference_state_dict(net)
    weights = {n: w for n, w in checkpoint.fitted(found.weights, ours).items() if not checkpoint.UNUSED.match(n)}
    missing = [name for name in ours if name not in weights]
    needed = [name for name in missing if not checkpoint.TRAINING_ONLY.match(name)]
    unknown = [name for name in weights if name not in ours]
    wrong = [name for name in ours if name in weights and weights[name].shape != ours[name].shape]
    if needed:
        raise ValueError(f"{where}: {len(needed)} weights are missing that speech needs: {', '.join(needed[:3])}")
    if unknown:
        raise ValueError(f"{where}: the network here has no place for {len(unknown)} weights: {', '.join(unknown[:3])}")
    if wrong:
        shapes = [f"{n} is {list(weights[n].shape)}, not {list(ours[n].shape)}" for n in wrong[:3]]
        raise ValueError(f"{where}: the shapes of {len(wrong)} weights differ: {'; '.join(shapes)}")
    return {name: weights[name] for name in ours if name in weights}, missing


def save(voice: Voice, folder: Path) -> list[Path]:
    """Write a voice as a run's folder. Returns the files."""
    sections = dataclasses.asdict(voice.config)
    path = folder / "G_0.pth"
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "model": voice.weights,
        "iteration": 0,
        "optimizer": None,
        "learning_rate": voice.config.train.learning_rate,
    }
    checkpoint.write(path, {**content, "config": sections, "step": 0})
    configs.save(voice.config, folder / "config.json")
    return [path, folder / "config.json"]
