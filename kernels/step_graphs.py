"""CUDA graphs of training steps: the host launches thousands of kernels at once.

A graph holds one shape of batch. The first step with a shape runs eagerly, so that cuDNN selects its kernels; the
second is captured, and all later ones are replayed. All other values that a step reads must therefore be in tensors on
the device (learning rate, alignment noise, loss scale) or be part of its `kind` (for example, which networks learn).
"""

from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor

from commons import map_tensors, tensors_in

Batch = Any  # nested tuples and dicts of tensors
Step = Callable[[Batch], dict[str, Tensor]]
DDP_WARM_UP = 11  # steps before a capture: DistributedDataParallel times its first ten and synchronizes for that


class GraphedSteps:
    """A runner of training steps that captures those with recurring batch shapes. One instance for each process.

    When a step of another kind comes, all graphs are discarded: training does not return to an earlier kind.

    The current stream of `device`, a GPU, must not be the default stream. `patience` is how many steps of each kind run
    eagerly before the first capture.
    """

    def __init__(self, device: torch.device, patience: int = 0):
        self.device, self.patience = device, patience
        self.kind: Hashable = None
        self.steps = 0  # of this kind
        self.graphs: dict[Hashable, Graph | None] = {}  # for each shape of batch; None before the capture
        self.pool: Any = None  # the memory of the graphs

    def __call__(self, step: Step, batch: Batch, kind: Hashable) -> dict[str, Tensor]:
        """Run a step on a batch on any device. `kind` is all that the step depends on besides tensors.

        Returns the scalars of the step, in new tensors on the GPU. Raises RuntimeError if it cannot be captured.
        """
        if kind != self.kind:
            self.kind, self.steps = kind, 0
            self.graphs.clear()
            self.pool = torch.cuda.graph_pool_handle()  # a pool without graphs cannot be used again
        self.steps += 1
        shape = tuple((x.shape, x.dtype) for x in tensors_in(batch))
        if shape not in self.graphs or self.steps <= self.patience:
            self.graphs[shape] = None
            return step(map_tensors(lambda x: x.to(self.device, non_blocking=True), batch))
        graph = self.graphs[shape]
        if graph is None:
            try:
                graph = self.graphs[shape] = Graph(step, batch, self.device, self.pool)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                options = "train.py --plain, or train.cuda_graphs false in the config, trains without graphs"
                raise RuntimeError(f"the training step cannot be captured as a CUDA graph here; {options}") from error
        return graph(batch)


class Graph:
    """A captured step. All graphs share one memory pool, because only one runs at a time."""

    def __init__(self, step: Step, batch: Batch, device: torch.device, pool: Any):
        given = map_tensors(lambda x: torch.empty_like(x, device=device), batch)
        self.inputs = tensors_in(given)
        self.graph = torch.cuda.CUDAGraph()
        # thread_local, because other threads use CUDA meanwhile: NCCL's watchdog, a loader that pins memory
        with torch.cuda.graph(self.graph, pool, torch.cuda.current_stream(device), capture_error_mode="thread_local"):
            record = step(given)
            self.values = torch.stack([value.detach().float() for value in record.values()])
        self.names = list(record)

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """Replay the step with a batch of the same shape. Returns its scalars."""
        for mine, given in zip(self.inputs, tensors_in(batch), strict=True):
            mine.copy_(given, non_blocking=True)
        self.graph.replay()
        return dict(zip(self.names, self.values.clone().unbind()))
