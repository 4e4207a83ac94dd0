"""A run in one process: what it trains with, and how it is saved."""

import contextlib
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout
from torch.utils.data import DataLoader

import checkpoint
from data_utils import Batch, Epochs
from evaluation.background import BackgroundEvaluation
from reporting import Reporter
from trainer import Trainer

logger = logging.getLogger(__name__)

LOCK_PATIENCE = 15  # seconds that the workers of a killed run may still hold its folder


@dataclass
class Run:
    """Everything that one process trains with."""

    trainer: Trainer
    names: Sequence[str]  # of the training utterances
    epochs: Epochs
    batches: Iterable[Batch]
    validation_loader: DataLoader
    reporter: Reporter
    folder: Path
    total: int  # steps
    evaluation: BackgroundEvaluation | None = None  # in the main process, with --evaluate-every
    evaluate_every: int = 0  # steps; 0: never
    saved: int = 0  # step of the newest checkpoint


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock a run's folder. Raises ValueError if another program trains there."""
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=LOCK_PATIENCE)
    except Timeout:
        raise ValueError(f"another program trains in {folder}: choose another name with -m") from None
    except NotImplementedError:
        logger.warning("the file system of %s has no locks: do not start two programs in it", folder)
    try:
        yield
    finally:
        lock.release()


def save(run: Run, together: bool = True) -> None:
    """Write checkpoints, unless this step has them already. See `checkpoint.save_run` for `together`."""
    trainer = run.trainer
    if trainer.position.step > run.saved:
        trainer.position.seconds = run.reporter.elapsed()
        checkpoint.save_run(trainer, run.folder, together)
        run.saved = trainer.position.step


def save_before_end(run: Run, together: bool) -> None:
    """Save what was trained before an error ends the run, also if its folder was deleted. Log why if that fails too."""
    try:
        run.folder.mkdir(parents=True, exist_ok=True)
        save(run, together)
        logger.info("the run ends at step %d, which is saved", run.saved)
    except (ValueError, OSError, RuntimeError) as error:
        logger.warning("step %d could not be saved before the end: %s", run.trainer.position.step, error)
