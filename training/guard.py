"""Training steps with losses or gradients that are not finite, and validation recordings that are not."""

import logging
from collections import deque
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

import distributed
from data_utils import Batch

logger = logging.getLogger(__name__)

PROGRESS_INTERVAL = 25  # steps between two readings of the losses, for the progress bar and to find skipped steps
MAX_SKIPPED_STEPS = 5  # updates that may be skipped in such an interval before training stops
SCALE_SEARCH = 16  # further ones in fp16, which lowers its scale from 65536 to 1 by overflows
MAX_LISTED = 8  # utterances of a step, in a message


def warn_of_recordings(batches: Iterable[Batch], names: Sequence[str]) -> None:
    """Log the recordings of `batches` that have samples which are not finite. `names` are those of the dataset."""
    broken = [
        names[i] for batch in batches for i, wav in zip(batch.index.tolist(), batch.wav) if not wav.isfinite().all()
    ]
    if broken:
        more = f" and {len(broken) - MAX_LISTED} more" if broken[MAX_LISTED:] else ""
        logger.warning("recordings with samples that are not finite: %s%s", ", ".join(broken[:MAX_LISTED]), more)


class StepGuard:
    """Finds steps with losses or gradients that are not finite, without a host synchronization at each step.

    Args:
        names: of the corpus's utterances.
        overflows: steps in an interval that may have finite losses and infinite gradients. fp16 finds its scale by
            such steps; more of them are an error.
    """

    def __init__(self, names: Sequence[str], overflows: int):
        self.names, self.overflows = names, overflows
        self.steps: deque[tuple[Tensor, Tensor]] = deque(maxlen=PROGRESS_INTERVAL)

    def add(self, index: Tensor, record: dict[str, Tensor]) -> None:
        """Record a step: the indices of its utterances `[b]`, and whether its losses and its gradients are finite."""
        losses = [value.float() for name, value in record.items() if not name.startswith("grad_norm")]
        gradients = [value.float() for name, value in record.items() if name.startswith("grad_norm")]
        finite = [torch.stack(values).isfinite().all() for values in (losses, gradients)]
        self.steps.append((index, torch.stack(finite)))

    def check(self, step: int) -> None:
        """Log the utterances of skipped steps. Waits for the device.

        Raises SystemExit if more than `MAX_SKIPPED_STEPS` were skipped since the last check.
        """
        broken = torch.stack([~finite for _, finite in self.steps]).float()
        losses, gradients = (distributed.sum_over_ranks(broken) > 0).cpu().unbind(1)  # all processes stop together
        overflowed = gradients & ~losses
        skipped = losses | overflowed if overflowed.sum() > self.overflows else losses
        bad = [index for (index, _), is_bad in zip(self.steps, skipped) if is_bad]
        self.steps.clear()
        for index in bad[:MAX_SKIPPED_STEPS]:
            names = ", ".join(self.names[i] for i in index.tolist()[:MAX_LISTED])
            logger.warning("an update before step %d was skipped: not finite. Utterances: %s ...", step, names)
        if len(bad) > MAX_SKIPPED_STEPS:
            raise SystemExit(
                f"{len(bad)} of {len(losses)} updates before step {step} had losses or gradients that are not finite. "
                "They were skipped, and the weights are unharmed. Check the utterances above, or try --precision fp32."
            )
