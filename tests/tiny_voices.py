"""Checkpoints of tiny networks with random weights and durations like those of speech."""

import dataclasses
import math
from pathlib import Path

import torch

import checkpoint
import config
from models import SynthesizerTrn
from text.symbols import symbols

MODEL = {
    "inter_channels": 8,
    "hidden_channels": 16,
    "filter_channels": 32,
    "n_layers": 1,
    "upsample_rates": [8, 8],
    "upsample_initial_channel": 16,
    "upsample_kernel_sizes": [16, 16],
    "resblock_kernel_sizes": [3],
    "resblock_dilation_sizes": [[1, 3, 5]],
    "convnext_channels": 16,
    "convnext_layers": 2,
    "istft_n_fft": 256,
    "istft_hop_length": 64,
    "use_mel_posterior_encoder": True,
    "use_sdp": False,
}
MANY = {"gin_channels": 8, "n_layers": 3, "use_spk_conditioned_encoder": True}
EPOCH = 2  # `iteration` in files of VITS
FLOWS = ["pre_conv", "pre_conv2", "fft", "mono_layer_inter_residual", "mono_layer_post_residual", None]


def settings(flow: str | None = "pre_conv", speakers: int | dict = 0, data=(), **model) -> config.Config:
    """Return a config; `speakers` is their number or the table of their names, `data` and `model` set other keys."""
    table = speakers if isinstance(speakers, dict) else {}
    count = len(table) or speakers
    sections = {
        "train": {"segment_size": 1024},
        "data": {
            "sampling_rate": 8000,
            "filter_length": 256,
            "hop_length": 64,
            "win_length": 256,
            "n_mel_channels": 20,
            "text_cleaners": ["basic_cleaners"],
            "use_mel_posterior_encoder": True,
            "add_blank": False,
            "n_speakers": count,
            "speakers": table,
            **dict(data),
        },
        "model": {**MODEL, **(MANY if count else {}), **model},
    }
    if flow is not None:
        sections["model"] |= {"use_transformer_flows": True, "transformer_flow_type": flow}
    return config.from_dict(sections)


def network(conf: config.Config, n_vocab: int = len(symbols), frames: float = 3.5) -> SynthesizerTrn:
    """Return a network of the config whose durations are about `frames` frames for each token."""
    with torch.random.fork_rng([]):
        torch.manual_seed(1)
        net = SynthesizerTrn.from_config(conf, n_vocab)
        with torch.no_grad():
            for name, parameter in net.named_parameters():
                if name.endswith(("post.weight", "proj.weight")):  # zero at first, which makes a flow the identity
                    parameter.normal_(0, 0.3 / math.sqrt(parameter.shape[1]))
                if name.startswith("dec.") and name.endswith("original0"):
                    parameter.mul_(20)
            if conf.model.use_sdp:
                net.dp.flows[0].m.fill_(-math.log(frames))
            else:
                net.dp.proj.bias.fill_(math.log(frames))
    return net.eval()


def save(folder: Path, conf: config.Config, step: int = 7, with_config: bool = True, **more) -> Path:
    """Write `G_STEP.pth`, with the config in it or, as VITS code does, beside it. Returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"G_{step}.pth"
    extra = {"config": dataclasses.asdict(conf), "step": step} if with_config else {}
    checkpoint.save_checkpoint(network(conf, **more), None, 1e-4, EPOCH, path, **extra)
    if not with_config:
        config.save(conf, folder / "config.json")
    return path


def save_runs(folder: Path) -> Path:
    """Write three runs: `broken`, which does not load, `one` with a single speaker, and `two` with anna and bo."""
    (folder / "broken").mkdir()
    (folder / "broken" / "G_9.pth").write_bytes(b"half a checkpoint")
    save(folder / "one", settings(), step=5)
    save(folder / "two", settings(speakers={"anna": 0, "bo": 1}))
    return folder
