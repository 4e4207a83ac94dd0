"""CUDA graphs of the training step: thousands of kernels that the host launches as one.

A graph holds one shape of batch. The first step of a shape runs as it is written, which lets cuDNN choose its kernels;
the second is captured; from then on the step is replayed. What a step reads besides its batch must live on the device
(learning rate, alignment noise, the scale of fp16), and what it decides by looking at numbers of the host is part of
the `kind` that its graphs are kept under.
"""

from collections.abc import Callable, Hashable

import torch
from torch import Tensor

from data_utils import Batch

Step = Callable[[Batch], dict[str, Tensor]]
DDP_WARM_UP = 11  # steps before a capture: DistributedDataParallel times its first ten, which waits for the device


class GraphedSteps:
    """Runs training steps, from their second shape-alike on as CUDA graphs. One for each process.

    Graphs of one kind of step go when another kind comes, which no step comes back from.

    Args:
        device: the GPU, whose current stream is not the default one.
        patience: steps of each kind that run as they are written before anything is captured.
    """

    def __init__(self, device: torch.device, patience: int = 0):
        self.device = device
        self.patience = patience
        self.kind: Hashable = None
        self.steps = 0  # of this kind
        self.seen: set[Hashable] = set()
        self.graphs: dict[Hashable, Graph] = {}
        self.pool = None  # their memory

    def __call__(self, step: Step, batch: Batch, kind: Hashable) -> dict[str, Tensor]:
        """Do `step` with a batch on any device; returns its scalars, on the GPU, in tensors of their own.

        Raises:
            RuntimeError: the step cannot be captured; the message says how to do without.
        """
        if kind != self.kind:
            self.kind, self.steps = kind, 0
            self.seen.clear()
            self.graphs.clear()
            self.pool = torch.cuda.graph_pool_handle()  # one that has lost all its graphs may not be had again
        self.steps += 1
        shape = tuple((x.shape, x.dtype) if x is not None else None for x in batch)
        if shape not in self.graphs:
            if shape not in self.seen or self.steps <= self.patience:
                self.seen.add(shape)
                return step(batch.to(self.device, non_blocking=True))
            try:
                self.graphs[shape] = Graph(step, batch, self.device, self.pool)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                raise RuntimeError(
                    "the training step cannot be captured as a CUDA graph here; train.py --plain, or train.cuda_graphs "
                    "false in the config, trains without"
                ) from error
        return self.graphs[shape](batch)


class Graph:
    """A captured step. All graphs take their memory from one pool, since only one runs at a time."""

    def __init__(self, step: Step, batch: Batch, device: torch.device, pool):
        self.batch = Batch(*(None if x is None else torch.empty_like(x, device=device) for x in batch))
        self.graph = torch.cuda.CUDAGraph()
        stream = torch.cuda.current_stream(device)
        # other threads may go on using CUDA meanwhile: NCCL's watchdog, a loader that pins memory
        with torch.cuda.graph(self.graph, pool, stream, capture_error_mode="thread_local"):
            record = step(self.batch)
            self.values = torch.stack([value.detach().float() for value in record.values()])
        self.names = list(record)

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        for mine, given in zip(self.batch, batch):
            if mine is not None:
                mine.copy_(given, non_blocking=True)
        self.graph.replay()
        return dict(zip(self.names, self.values.clone().unbind()))
