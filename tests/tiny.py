"""A tiny corpus and a network of a few thousand weights, with which tests train the real program."""

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
from data_utils import Batch

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
        "convnext_channels": 16,
        "convnext_layers": 2,
        "istft_n_fft": 256,
        "istft_hop_length": HOP,
        "use_sdp": False,
        "use_transformer_flows": True,
        "transformer_flow_type": "pre_conv",
        "use_noise_scaled_mas": True,
        "use_mel_posterior_encoder": True,
        "discriminator_channels": 64,
    },
}
MANY_VOICES = {"data": {"n_speakers": 2}, "model": {"gin_channels": 6, "use_spk_conditioned_encoder": True}}
DECODERS = {  # keys of the model section that select each decoder; the sections above are for hifigan and vocos
    "hifigan": {"decoder": "hifigan"},
    "vocos": {"decoder": "vocos"},
    "harmonic_vocos": {"decoder": "harmonic_vocos"},
    "mb_istft": {
        "decoder": "mb_istft",
        "upsample_rates": [4],
        "upsample_kernel_sizes": [8],
        "istft_n_fft": 16,
        "istft_hop_length": 4,
    },
}
DURATION_DISCRIMINATOR = {"model": {"use_duration_discriminator": True}}


def slow(*values: object):
    """Return the values of a case that only `make test-all` runs."""
    return pytest.param(*values, marks=pytest.mark.slow)


def mostly_slow(cases, *fast: object) -> list:
    """Return the cases of a test, of which `make test` runs only the fast ones."""
    return [case if case in fast else slow(case) for case in cases]


def sections(*changes: dict, **more: dict) -> dict:
    """Return the sections of a tiny config with changes `{section: {key: value}}`, applied in their order."""
    result = copy.deepcopy(SECTIONS)
    for change in (*changes, more):
        for section, values in change.items():
            result[section] |= values
    return result


def config(*changes: dict, **more: dict) -> configs.Config:
    """Return a tiny config, checked."""
    return configs.from_dict(sections(*changes, **more))


def write_config(path: Path, *changes: dict, **more: dict) -> str:
    """Write a tiny config file. Returns its path."""
    path.write_text(json.dumps(sections(*changes, **more)), "utf-8")
    return str(path)


def batch(config: configs.Config, frames=(60, 44), tokens=(7, 5), more_tokens=0, more_frames=0) -> Batch:
    """Return a batch of random tokens and noise, padded by `more_tokens` and `more_frames` more than necessary."""
    draws = torch.Generator().manual_seed(3)
    hop = config.data.hop_length
    text = torch.zeros(len(frames), max(tokens) + more_tokens).long()
    wav = torch.zeros(len(frames), 1, (max(frames) + more_frames) * hop)
    for i, (n, length) in enumerate(zip(tokens, frames)):
        text[i, :n] = torch.randint(1, 178, (n,), generator=draws)
        wav[i, :, : length * hop].normal_(0, 0.1, generator=draws)
    index, speakers = torch.arange(len(frames)), config.data.n_speakers
    given = {"sid": index % speakers} if speakers else {}
    return Batch(text, torch.tensor(tokens), wav, torch.tensor(frames) * hop, given, index)


def speech(seconds: float, seed: int = 0, rate: int = RATE) -> np.ndarray:
    """Return a tone with noise, neither silent nor clipped, float `[samples]`."""
    time = np.arange(round(seconds * rate)) / rate
    noise = np.random.default_rng(seed).standard_normal(len(time))
    return (0.3 * np.sin(2 * np.pi * (200 + 40 * seed) * time) + 0.02 * noise).astype(np.float32)


def write_list(path: Path, clips: list[tuple], speakers: int = 0) -> None:
    """Write recordings, given as (name, samples), and their filelist `path`. Texts and speakers alternate."""
    lines = []
    for i, (name, samples) in enumerate(clips):
        soundfile.write(path.parent / name, samples, RATE, "FLOAT")
        lines.append("|".join([name, *([str(i % speakers)] if speakers else []), TEXTS[i % len(TEXTS)]]))
    path.write_text("\n".join(lines), "utf-8")


def write_corpus(folder: Path, train: int = 7, validation: int = 3, speakers: int = 0) -> None:
    """Write recordings of 0.3 to 0.9 seconds and their filelists train.txt and val.txt."""
    for name, count, seed in (("train", train, 0), ("val", validation, 100)):
        clips = [(f"{name}{i}.wav", speech(0.3 + 0.6 * i / max(count - 1, 1), seed + i)) for i in range(count)]
        write_list(folder / f"{name}.txt", clips, speakers)


def no_dropout(network: torch.nn.Module) -> torch.nn.Module:
    """Switch off dropout permanently, in modules and where attention calls it as a function."""
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
    """Set every weight to a random value, also those initialized to zero. Gains are near 1."""
    draws = torch.Generator().manual_seed(seed)
    for name, parameter in network.named_parameters():
        noise = torch.empty(parameter.shape, dtype=torch.float64).normal_(0, scale, generator=draws)
        gain = name.endswith(("gamma", "original0", "weight_g"))
        parameter.copy_(1 + noise if gain else noise)
    return network


def equal(a, b) -> bool:
    """Return whether two nested structures of dicts, lists and tensors are equal to the last bit."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b


def python(*arguments: str, folder: Path, timeout: float = 120, **popen) -> subprocess.CompletedProcess:
    """Run Python in a folder, on one thread, and capture its output as text."""
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
    """Run Python code with Triton's interpreter, which executes kernels on the CPU. It may import what tests import."""
    folders = [str(ROOT), str(ROOT / "tests"), *sys.path]
    subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(folders)},
        check=True,
        timeout=timeout,
    )


def environment() -> dict[str, str]:
    """Return the environment of programs that tests start: one thread, no GPU, and this repository on the path."""
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "CUDA_VISIBLE_DEVICES": ""}
