"""Checkpoints without what only training needs."""

from pathlib import Path

import torch

import checkpoint
from files import replacing


def save_weights(source: str | Path, target: str | Path) -> None:
    """Write the weights of a checkpoint that synthesis uses, with its config and step, without the optimizer.

    The file takes about a quarter of the space of `source`, and can also be the start of a fine-tuning (`--init-from`).
    Raises ValueError if `source` is no checkpoint.
    """
    content = checkpoint.read(source)
    kept = {name: content[name] for name in ("iteration", "learning_rate", "config", "step") if name in content}
    with replacing(target, durable=True) as unfinished:
        torch.save({"model": checkpoint.voice_weights(content), "optimizer": None, **kept}, unfinished)
