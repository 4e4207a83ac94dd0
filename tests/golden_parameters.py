"""The rule for the parameters of the networks whose outputs are in tests/golden."""

import math
import zlib

import numpy as np
import torch
from torch import nn


def reference_name(name: str) -> str:
    """Return a parameter's name in VITS checkpoints, where weight norm has `weight_g` and `weight_v`."""
    return name.replace("parametrizations.weight.original0", "weight_g").replace(
        "parametrizations.weight.original1", "weight_v"
    )


@torch.no_grad()
def fill(network: nn.Module) -> nn.Module:
    """Set every parameter to values that its name in VITS checkpoints and its shape determine. Returns the network."""
    for name, parameter in network.named_parameters():
        name = reference_name(name)
        n = parameter.numel()
        s = np.sin(0.7 * np.arange(n, dtype=np.float64) + (zlib.crc32(name.encode()) % 628) / 100)
        if name.endswith("weight_g"):
            values = 0.6 + 0.1 * s
        elif name.endswith("gamma"):
            values = 1 + 0.1 * s
        elif parameter.dim() > 1:
            values = 1.5 * s / math.sqrt(n // parameter.shape[0])
        else:
            values = 0.1 * s
        parameter.copy_(torch.from_numpy(values.reshape(parameter.shape).astype(np.float32)))
    return network
