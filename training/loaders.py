"""Loaders of batches, and the processes that work for them."""

import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Subset

import distributed
from config import Config
from data_utils import Collate, DistributedBucketSampler, Epochs, SpeechDataset, ToMainProcess, workers_that_fit

VALIDATION_BATCH = 16
DATA_PATIENCE = 300  # seconds to wait for a batch of a loader's workers
PAD_FRAMES, PAD_TOKENS = 100, 64  # multiples to which batches are padded on a GPU


def make_loaders(
    config: Config, device: torch.device, cache: Path | None = None
) -> tuple[SpeechDataset, Epochs, DataLoader, DataLoader]:
    """Return training set, epochs, training loader and validation loader of this process.

    The file `cache` keeps the headers of the recordings. On a GPU the shapes of batches are padded to few sizes,
    because each new shape is captured and autotuned.
    """
    train, data = config.train, config.data
    cuda = device.type == "cuda"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    train_set = SpeechDataset(data.training_files, data, cache=cache)
    validation_set = SpeechDataset(data.validation_files, data, cache=cache)
    sampler = DistributedBucketSampler(train_set, train.batch_size, train.bucket_boundaries, seed=train.seed)
    epochs = Epochs(sampler)
    workers, share = workers_that_fit(min(train.num_workers, cores))
    common: dict[str, Any] = {
        "collate_fn": ToMainProcess(Collate(data.hop_length, *((PAD_FRAMES, PAD_TOKENS) if cuda else (1, 1))), share),
        "num_workers": workers,
        "timeout": DATA_PATIENCE if workers else 0,
        "pin_memory": cuda,
        "worker_init_fn": ignore_signals,
        "generator": torch.Generator(),  # its own, so that the loader does not change training's random state
    }
    train_loader = DataLoader(train_set, batch_sampler=epochs, **common)
    by_length = sorted(range(len(validation_set)), key=lambda i: validation_set.lengths[i])
    mine = Subset(validation_set, by_length[distributed.rank() :: distributed.world_size()])
    validation_loader = DataLoader(mine, min(VALIDATION_BATCH, train.batch_size), **common)
    return train_set, epochs, train_loader, validation_loader


def ignore_signals(worker: int) -> None:
    """Let a worker ignore SIGINT and SIGTERM, which terminals and schedulers send to it too."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def end_workers() -> None:
    """Kill the workers that an error has left; the interpreter would wait for them. Only for the end of the program."""
    if hasattr(signal, "SIGCHLD"):  # PyTorch's handler would raise an error for each killed worker
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for worker in multiprocessing.active_children():
        worker.kill()
