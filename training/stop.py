"""Signals that ask training to stop."""

import logging
import signal
import time
from collections.abc import Iterable, Iterator
from types import FrameType

import torch

import distributed
from data_utils import Batch, waited
from training.guard import PROGRESS_INTERVAL

logger = logging.getLogger(__name__)

SAME_REQUEST = 2.0  # seconds within which a second signal is the same request: some send it to a process and its group


class Stopped(BaseException):
    """A stop was requested while the process waited for data."""


class StopRequest:
    """Turns SIGINT (Ctrl-C) and SIGTERM into a stop after the current step, with a checkpoint; a second one kills.

    A single process also stops while it waits for data. Several processes can only stop together, after a step.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self.requested: float | None = None  # time of the first signal
        self.waiting = False  # for data, in a single process
        signal.signal(signal.SIGINT, self._request)
        signal.signal(signal.SIGTERM, self._request)

    def agreed(self, step: int) -> bool:
        """Return whether to stop after this step. Several processes agree at steps that wait for the device anyway."""
        requested = self.requested is not None
        if distributed.world_size() == 1:
            return requested
        if step % PROGRESS_INTERVAL:
            return False
        return distributed.sum_over_ranks(torch.tensor(float(requested), device=self.device)).item() > 0

    def waits(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Yield the batches of a loader. Raises Stopped if a stop is requested during the wait for one."""
        iterator = iter(batches)
        while True:
            self.waiting = distributed.world_size() == 1
            try:
                batch = waited(iterator)
            except StopIteration:
                return
            finally:
                self.waiting = False
            yield batch

    def _request(self, number: int, frame: FrameType | None) -> None:
        if self.requested is None:
            self.requested = time.monotonic()
            if self.waiting:
                logger.info("stopping without waiting for data")
                raise Stopped
            when = "this step" if distributed.world_size() == 1 else f"at most {PROGRESS_INTERVAL} steps"
            logger.info("stopping after %s; a second signal stops at once", when)
        elif time.monotonic() > self.requested + SAME_REQUEST:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
