"""Memory in use during a run, which shows whether it grows."""

import multiprocessing
import os
from pathlib import Path

import torch

GB = 1e9  # bytes


def in_use(device: torch.device) -> dict[str, float]:
    """Return the memory in use in gigabytes, by the names of metrics.jsonl. Does not synchronize with the device.

    `memory/process_gb` is the resident memory of this process and `memory/workers_gb` that of its child processes, the
    data workers, where shared pages count in each. Both are missing on systems without `/proc`. On a GPU there are
    also the memory of its tensors, `memory/gpu_allocated_gb`, and of PyTorch's pools, `memory/gpu_reserved_gb`.
    """
    found = {}
    if (own := _resident(os.getpid())) is not None:
        workers = [_resident(child.pid) for child in multiprocessing.active_children() if child.pid]
        found = {"memory/process_gb": own / GB, "memory/workers_gb": sum(filter(None, workers)) / GB}
    if device.type == "cuda":
        found["memory/gpu_allocated_gb"] = torch.cuda.memory_allocated(device) / GB
        found["memory/gpu_reserved_gb"] = torch.cuda.memory_reserved(device) / GB
    return found


def _resident(process: int) -> int | None:
    """Return the resident memory of a process in bytes, or None if it has ended or the system has no `/proc`."""
    try:
        pages = Path(f"/proc/{process}/statm").read_text("ascii").split()[1]
    except OSError:
        return None
    return int(pages) * os.sysconf("SC_PAGE_SIZE")
