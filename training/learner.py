"""A network that learns: its optimizer, its averaged weights, and gradient accumulation."""

import contextlib
from collections.abc import Collection, Iterator, Sequence
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

import distributed
from config import TrainConfig
from data_utils import Batch

AVERAGE_START = 10  # the decay of the weight average is at most (1 + step) / (AVERAGE_START + step)

Network = TypeVar("Network", bound=nn.Module)


class Learner(Generic[Network]):
    """A network with its optimizer, wrapped in DistributedDataParallel if there are several processes.

    `average` is the exponential moving average of the weights, in the order of `weights`, or None before the first
    call of `update_average`.
    """

    def __init__(self, network: Network, train: TrainConfig, device: torch.device):
        self.network = network.to(device)
        # listed once, because walking through the modules is slow
        self.weights: list[Tensor] = list(network.parameters())
        self.wrapped = distributed.wrap(self.network, device)
        self.average: list[Tensor] | None = None
        self.learning_rate = train.learning_rate
        cuda = device.type == "cuda"
        # on a GPU the rate is a tensor there, which a captured step reads anew
        self.rate = torch.tensor(self.learning_rate, device=device) if cuda else None
        self.optimizer = torch.optim.AdamW(
            self.weights,
            self.learning_rate if self.rate is None else self.rate,
            (train.betas[0], train.betas[1]),
            train.eps,
            train.weight_decay,
            fused=cuda,
            capturable=cuda,
        )

    def set_learning_rate(self, learning_rate: float) -> None:
        """Set the learning rate from the next update on."""
        self.learning_rate = learning_rate
        if self.rate is not None:
            self.rate.fill_(learning_rate)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate if self.rate is None else self.rate

    def accumulate(self, loss: Tensor, scaler: torch.amp.GradScaler) -> None:
        """Add the gradients of a loss to those already computed."""
        scaler.scale(loss).backward()

    def update(self, scaler: torch.amp.GradScaler) -> Tensor:
        """Update the weights and return the gradients' norm. Gradients that are not finite change no weights."""
        scaler.unscale_(self.optimizer)
        norm = torch.nn.utils.get_total_norm([p.grad for p in self.weights if p.grad is not None])
        scaler.step(self.optimizer)
        return norm

    @torch.no_grad()
    def update_average(self, decay: float, step: int) -> None:
        """Include the weights after `step` in their average. The decay of early steps is lower, so that it follows."""
        if self.average is None:
            self.average = [weight.detach().clone() for weight in self.weights]
        torch._foreach_lerp_(self.average, self.weights, 1 - min(decay, (1 + step) / (AVERAGE_START + step)))

    @contextlib.contextmanager
    def averaged(self) -> Iterator[Network]:
        """Yield the network with the averaged weights, if there are any; then restore its own."""
        average, own = self.average or [], []
        with torch.no_grad():
            for weight, mean in zip(self.weights, average):
                own.append(weight.clone())
                weight.copy_(mean)  # in place, because captured steps read the weights at this address
        try:
            yield self.network
        finally:
            with torch.no_grad():
                for weight, value in zip(self.weights, own):
                    weight.copy_(value)

    @contextlib.contextmanager
    def frozen(self) -> Iterator[Network]:
        """Yield the network with frozen weights: gradients pass through it to its input only."""
        for weight in self.weights:
            weight.requires_grad_(False)
        try:
            yield self.network
        finally:
            for weight in self.weights:
                weight.requires_grad_(True)


def accumulating(parts: Sequence[Batch], learners: Collection[Learner[Any]]) -> Iterator[Batch]:
    """Yield the parts of a batch for gradient accumulation. Processes exchange gradients with the last part."""
    for learner in learners:
        learner.optimizer.zero_grad(set_to_none=True)
        distributed.rebuild_buckets(learner.wrapped)
    *others, last = parts
    with contextlib.ExitStack() as stack:
        for learner in learners:
            stack.enter_context(distributed.unexchanged(learner.wrapped))
        yield from others
    yield last
