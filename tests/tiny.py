"""A corpus of tones and a network of a few thousand weights, so that a test can train the real program."""

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import config as configs

ROOT = Path(__file__).parent.parent
RATE, HOP, SEGMENT = 16000, 64, 2048
TEXTS = ("hˈɛloʊ wˈɜld.", "ɐ smˈɔːl vˈɔɪs,", "tˈɛn tˈoʊnz?", "wˈʌn mˈoːɹ!", "nˈɔɪz ænd tˈoʊn")

SECTIONS = {
    "train": {
        "log_interval": 2,
        "eval_interval": 1000,
        "batch_size": 2,
        "segment_size": SEGMENT,
        "bucket_boundaries": [0, 160, 400],
        "num_workers": 0,
        "learning_rate": 1e-3,
    },
    "data": {
        "training_files": "train.txt",
        "validation_files": "val.txt",
        "sampling_rate": RATE,
        "filter_length": 256,
        "hop_length": HOP,
        "win_length": 256,
        "n_mel_channels": 20,
        "add_blank": False,
        "use_mel_posterior_encoder": True,
    },
    "model": {
        "inter_channels": 8,
        "hidden_channels": 8,
        "filter_channels": 16,
        "n_layers": 3,
        "resblock": "2",
        "resblock_kernel_sizes": [3],
        "resblock_dilation_sizes": [[1, 3]],
        "upsample_rates": [8, 8],
        "upsample_initial_channel": 16,
        "upsample_kernel_sizes": [16, 16],
        "use_sdp": False,
        "use_transformer_flows": True,
        "transformer_flow_type": "pre_conv",
        "use_noise_scaled_mas": True,
        "use_mel_posterior_encoder": True,
        "discriminator_channels": 64,
    },
}
MANY_VOICES = {"data": {"n_speakers": 2}, "model": {"gin_channels": 6, "use_spk_conditioned_encoder": True}}


def sections(*changes: dict, **more: dict) -> dict:
    """The sections of a tiny config, with `{section: {key: value}}` changed one after the other."""
    result = copy.deepcopy(SECTIONS)
    for change in (*changes, more):
        for section, values in change.items():
            result[section] |= values
    return result


def config(*changes: dict, **more: dict) -> configs.Config:
    """A checked tiny config."""
    return configs.from_dict(sections(*changes, **more))


def write_config(path: Path, *changes: dict, **more: dict) -> str:
    """Write a tiny config file; returns its path."""
    path.write_text(json.dumps(sections(*changes, **more)), "utf-8")
    return str(path)


def speech(seconds: float, seed: int = 0, rate: int = RATE) -> np.ndarray:
    """Something that is neither silent nor clipped, float `[samples]`."""
    time = np.arange(round(seconds * rate)) / rate
    noise = np.random.default_rng(seed).standard_normal(len(time))
    return (0.3 * np.sin(2 * np.pi * (200 + 40 * seed) * time) + 0.02 * noise).astype(np.float32)


def write_list(path: Path, clips: list[tuple], speakers: int = 0) -> None:
    """A filelist beside its recordings, from (name, samples); texts take turns, and so do speakers."""
    lines = []
    for i, (name, samples) in enumerate(clips):
        soundfile.write(path.parent / name, samples, RATE, "FLOAT")
        lines.append("|".join([name, *([str(i % speakers)] if speakers else []), TEXTS[i % len(TEXTS)]]))
    path.write_text("\n".join(lines), "utf-8")


def write_corpus(folder: Path, train: int = 7, validation: int = 3, speakers: int = 0) -> None:
    """Recordings of 0.3 to 0.9 seconds and their filelists train.txt and val.txt."""
    for name, count, seed in (("train", train, 0), ("val", validation, 100)):
        clips = [(f"{name}{i}.wav", speech(0.3 + 0.6 * i / max(count - 1, 1), seed + i)) for i in range(count)]
        write_list(folder / f"{name}.txt", clips, speakers)


def no_dropout(network: torch.nn.Module) -> torch.nn.Module:
    """Turn dropout off for good, in the modules and where attention calls it as a function."""
    for module in network.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        elif hasattr(module, "p_dropout"):
            module.p_dropout = 0.0
    return network


def no_noise(patch: pytest.MonkeyPatch) -> None:
    """Make every random draw zero."""
    for name in ("randn", "randn_like", "rand"):
        draw = getattr(torch, name)
        patch.setattr(torch, name, lambda *a, draw=draw, **k: torch.zeros_like(draw(*a, **k)))


@torch.no_grad()
def randomise(network: torch.nn.Module, scale: float = 0.2, seed: int = 0) -> torch.nn.Module:
    """Give every weight a random value, also those that start as zero; gains stay near 1."""
    draws = torch.Generator().manual_seed(seed)
    for name, parameter in network.named_parameters():
        noise = torch.empty(parameter.shape, dtype=torch.float64).normal_(0, scale, generator=draws)
        gain = name.endswith(("gamma", "original0", "weight_g"))
        parameter.copy_(1 + noise if gain else noise)
    return network


def equal(a, b) -> bool:
    """Whether two nests of dicts, lists and tensors are the same to the last bit."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b


def python(*arguments: str, folder: Path, timeout: float = 120, **popen) -> subprocess.CompletedProcess:
    """Run Python with its output kept as text, in a folder, on one thread."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=timeout,
        **popen,
    )


def in_triton_interpreter(code: str, timeout: float = 240) -> None:
    """Run Python code, which may import what tests may, with Triton's kernels interpreted on the CPU."""
    folders = [str(ROOT), str(ROOT / "tests"), *sys.path]
    subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(folders)},
        check=True,
        timeout=timeout,
    )


def environment() -> dict[str, str]:
    """What programs of these tests inherit: this machine's variables, one thread each, and this repository."""
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "CUDA_VISIBLE_DEVICES": ""}
