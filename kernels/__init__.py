"""Code that exists for GPU speed only. Every part of it computes what plain PyTorch operations compute.

- `convolutions`: convolutions in the memory layout that GPUs are fast with, with the interface of `torch.nn`.
- `fused`: elementwise operations fused into one pass over memory. Its kernels are in `triton_kernels`.
- `step_graphs`: CUDA graphs of training steps.

The plain path is the oracle of the tests. `kernels.fused.enable(network, False)` selects it for one network.
"""

import importlib.util
import logging
from collections.abc import Callable

logger = logging.getLogger(__name__)


def triton_runs(attempt: Callable[[], object], otherwise: str) -> bool:
    """Return whether Triton is installed and `attempt`, which launches a kernel, succeeds.

    A failure is logged together with `otherwise`: what the caller does without Triton.
    """
    if importlib.util.find_spec("triton") is None:
        return False
    try:
        attempt()
    except Exception as error:  # Triton compiles on this machine, and its failures have no common type
        logger.warning("Triton does not run here, %s: %s", otherwise, (str(error).splitlines() or [repr(error)])[0])
        return False
    return True
