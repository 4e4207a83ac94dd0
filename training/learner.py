"""A network that learns: its optimizer, its averaged weights, and gradient accumulation."""

import contextlib
from collections.abc import Collection, Iterator, Mapping, Sequence
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

    `lr_scale` has factors on the learning rate by the beginning of the names of weights; the longest one holds. Weights
    with the factor 0 are frozen.
    `average` is the exponential moving average of the weights, in the order of `weights`, or None before the first
    call of `update_average`.
    """

    def __init__(
        self, network: Network, train: TrainConfig, device: torch.device, lr_scale: Mapping[str, float] | None = None
    ):
        self.network = network.to(device)
        # listed once, because walking through the modules is slow
        self.weights: list[Tensor] = list(network.parameters())
        self.average: list[Tensor] | None = None
        self.learning_rate = train.learning_rate
        cuda = device.type == "cuda"
        groups: dict[float, list[Tensor]] = {}
        for name, weight in network.named_parameters():
            groups.setdefault(scale := scale_of(name, lr_scale or {}), []).append(weight)
            weight.requires_grad_(scale > 0)
        self.wrapped = distributed.wrap(self.network, device)
        self.scales = list(groups)
        # on a GPU the rates are tensors there, which a captured step reads anew
        self.rates = [torch.zeros((), device=device) for _ in groups] if cuda else []
        self.optimizer = torch.optim.AdamW(
            [{"params": weights} for weights in groups.values()],
            torch.tensor(self.learning_rate, device=device) if cuda else self.learning_rate,
            (train.betas[0], train.betas[1]),
            train.eps,
            train.weight_decay,
            fused=cuda,
            capturable=cuda,
        )
        self.set_learning_rate(self.learning_rate)

    def set_learning_rate(self, learning_rate: float) -> None:
        """Set the learning rate from the next update on."""
        self.learning_rate = learning_rate
        for i, (group, scale) in enumerate(zip(self.optimizer.param_groups, self.scales)):
            group["lr"] = self.rates[i].fill_(learning_rate * scale) if self.rates else learning_rate * scale

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


def scale_of(name: str, scales: Mapping[str, float]) -> float:
    """Return the factor on the learning rate of a weight: that of the longest beginning of its name, otherwise 1."""
    found = [part for part in scales if name.startswith(part)]
    return scales[max(found, key=len)] if found else 1.0
