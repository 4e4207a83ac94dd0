"""Training in one process, from start to end: `train.py` starts one or several of them."""

import argparse
import contextlib
import logging
import math
import multiprocessing.util
import time
from pathlib import Path
from typing import Any, cast

import torch
from torch.utils.data import Subset

import checkpoint
import config as configs
import corpus
import distributed
from config import Config, changed
from data_utils import ahead
from evaluation.background import BackgroundEvaluation
from files import REST, VOICE
from importers import transfer
from reporting import Meter, Reporter, set_up_logging, show_samples
from synthesis.voice import find_checkpoint
from trainer import Trainer
from training import memory, pace
from training.evaluations import collect, recall_evaluations, start_evaluation
from training.guard import PROGRESS_INTERVAL, SCALE_SEARCH, StepGuard, warn_of_recordings
from training.loaders import end_workers, make_loaders
from training.record import write_start
from training.run import Run, locked, save, save_before_end
from training.stop import Stopped, StopRequest

logger = logging.getLogger(__name__)


def train_process(device: torch.device, config: Config, folder: Path, args: argparse.Namespace) -> None:
    """Train in one process, from start to end. The main process locks the run's folder."""
    with contextlib.ExitStack() as stack:
        distributed.in_main(lambda: stack.enter_context(locked(folder)))
        train_in(folder, device, config, args)


def train_in(folder: Path, device: torch.device, config: Config, args: argparse.Namespace) -> None:
    """Set up a run in its locked folder, and train."""
    set_up_logging(folder)
    # workers ignore signals (see `ignore_signals`), so that those still alive at the end must be killed
    multiprocessing.util.Finalize(None, end_workers, exitpriority=10)
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True  # batches have few shapes, see `make_loaders`
    # weights that do not fit are refused before the recordings are checked, which takes longer
    trainer = Trainer(plain(config) if args.plain else config, device)  # --plain is not saved with the run
    if not checkpoint.resume_run(trainer, folder):
        config = start_from(trainer, config, args)
    checksum = None if args.skip_check else distributed.in_main(lambda: check(config, folder))
    train_set, epochs, train_loader, validation_loader = make_loaders(config, device, folder / "headers.npy")
    if distributed.is_main():  # after resuming, so that a config that does not fit cannot replace the run's own
        configs.save(config, folder / "config.json")
        for unfinished in folder.glob(".*.tmp"):  # of a process that was killed while it saved
            unfinished.unlink()
        write_start(folder, args.command, trainer.position.step, device, checksum)
    total = args.max_steps or config.train.epochs * len(epochs.sampler)
    reporter = Reporter(folder, trainer.position.step, total, args.began - trainer.position.seconds)
    batches = ahead(train_loader, device)
    evaluation = None
    if args.evaluate_every and distributed.is_main():
        evaluation = BackgroundEvaluation(args.evaluate_list, folder / "evaluation")
    every = args.evaluate_every or 0
    run = Run(trainer, train_set.names, epochs, batches, validation_loader, reporter, folder, total, evaluation, every)
    if evaluation:
        recall_evaluations(run, evaluation)
    try:
        fit(run)
    finally:
        if evaluation:
            evaluation.stop()
        batches.close()  # ends the workers, which ignore signals
        reporter.close()


def plain(config: Config) -> Config:
    """Return the config of the same training without CUDA graphs and fused kernels."""
    return changed(config, "train", cuda_graphs=False, fused_kernels=False)


def check(config: Config, folder: Path) -> str:
    """Check every recording and text before training. Stop if one would spoil it. Returns the checksum of all."""
    report = corpus.check_config(config, folder / "corpus.json")
    logger.info("%s", report)
    report.stop_on_errors()
    return report.checksum


def start_from(trainer: Trainer, config: Config, args: argparse.Namespace) -> Config:
    """Copy the weights of `--init-from` and `--init-discriminator` into a new run. Returns the run's config.

    If the file has no posterior encoder, that of the run learns alone at first, unless the config decides otherwise.
    """
    networks = checkpoint.read_networks(find_checkpoint(args.init_from)) if args.init_from else {}
    if args.init_discriminator:
        path = Path(args.init_discriminator)
        networks["discriminator"] = path, checkpoint.read(path)
    for name, (path, content) in networks.items():
        if name not in trainer.learners:
            continue
        network = trainer.learners[name].network
        with checkpoint.structure_of(path):
            plan = transfer.plan(network, content, config, str(path))
        transfer.apply(network, plan)
        logger.info("%s from %s:\n%s", name, path, plan.table())
        if plan.lacks_posterior and config.train.warm_up_steps is None:
            config, trainer.config = (
                changed(each, "train", warm_up_steps=transfer.WARM_UP) for each in (config, trainer.config)
            )
            logger.info("the posterior encoder is new: it learns alone for %d steps", transfer.WARM_UP)
            if path.name == VOICE and not path.with_name(REST).is_file():
                logger.warning("%s, which has the posterior encoder of this voice, is missing", path.with_name(REST))
    return config


def fit(run: Run) -> None:
    """Train until `run.total` steps are done or a stop is requested, with logs, validations and checkpoints."""
    stop = StopRequest(run.trainer.device)
    run.saved = run.trainer.position.step
    try:
        train_until_end(run, stop)
    except Stopped:
        save(run)
        logger.info("stopped at step %d; the same command resumes from there", run.saved)
    except checkpoint.NotFinite:
        raise
    except (Exception, SystemExit) as error:
        if distributed.is_disconnection(error):  # in the middle of a step, so that networks are of different steps
            logger.warning("another process has ended; the run resumes from its last checkpoint, step %d", run.saved)
            raise
        # `StepGuard` ends all processes together; any other error may be that of this process alone
        save_before_end(run, together=isinstance(error, SystemExit))
        raise


def train_until_end(run: Run, stop: StopRequest) -> None:
    """Train and validate. Raises Stopped if a stop is requested while this process waits for data."""
    trainer, epochs, position = run.trainer, run.epochs, run.trainer.position
    train = trainer.config.train
    meter, guard = Meter(), StepGuard(run.names, SCALE_SEARCH if trainer.scales else 0)
    timer = Timer(position.step)
    epoch_length = len(epochs.sampler)
    if position.batch >= epoch_length:  # saved with more batches: another corpus, or fewer processes
        position.epoch, position.batch = position.epoch + 1, 0
    epochs.epoch, epochs.start = position.epoch, position.batch
    trainer.set_epoch(position.epoch)
    if position.step >= run.total:
        logger.info("nothing to train: the run is at step %d of %d", position.step, run.total)
        return
    stopping, first = False, position.step
    for batch in stop.waits(run.batches):
        if position.step == first:
            pace.advise(trainer, batch, run.total)
        record = trainer.step(batch)
        meter.add(record)
        guard.add(batch.index, record)
        position.step += 1
        position.batch += 1
        run.reporter.step()
        stopping = stop.agreed(position.step)
        last = position.step >= run.total or stopping
        if position.step % PROGRESS_INTERVAL == 0 or last:
            guard.check(position.step)
            collect(run)
        if position.step % train.log_interval == 0 or last:
            values = meter.means() | {"learning_rate": trainer.generator.learning_rate}
            values["seconds_a_step"] = timer.seconds_a_step(position.step)
            values["scale/alignment_noise"] = trainer.generator.network.current_mas_noise_scale
            values |= memory.in_use(trainer.device)
            run.reporter.show(position.epoch, values)
            run.reporter.scalars(position.step, values)
        if position.batch == epoch_length:
            position.epoch, position.batch = position.epoch + 1, 0
            trainer.set_epoch(position.epoch)
        if position.step % train.eval_interval == 0 or last:
            validate_and_save(run, stop)
            timer.restart(position.step)
            if trainer.is_exhausted():
                logger.info("%s has not improved in %d measurements", trainer.best_measure(), position.waited)
                break
        if last:
            break
    if run.evaluation and run.evaluation.running and not stopping:
        logger.info("waiting for the evaluation of step %d", run.evaluation.running[0])
        collect(run, wait=True)
    if stopping and position.step < run.total:
        logger.info("stopped at step %d; the same command resumes from there", position.step)


def validate_and_save(run: Run, stop: StopRequest) -> None:
    """Measure the validation set, write checkpoints, and show a sample."""
    trainer = run.trainer
    results = trainer.evaluate(stop.waits(run.validation_loader))
    run.reporter.scalars(trainer.position.step, {f"validation/{name}": value for name, value in results.items()})
    if not all(map(math.isfinite, results.values())):
        whole: Any = cast(Subset, run.validation_loader.dataset).dataset
        warn_of_recordings(stop.waits(run.validation_loader), whole.names)
    if trainer.update_best(results):
        checkpoint.save_voice(trainer, run.folder / "G_best.pth")
    if run.evaluation and trainer.position.step % run.evaluate_every == 0:
        start_evaluation(run, run.evaluation)
    save(run)
    if distributed.is_main():
        show_samples(run.reporter, trainer, run.validation_loader)


class Timer:
    """Measures seconds per training step, without the time of validations."""

    def __init__(self, step: int):
        self.restart(step)

    def restart(self, step: int) -> None:
        """Start to measure at a step."""
        self.started, self.first = time.perf_counter(), step

    def seconds_a_step(self, step: int) -> float:
        """Return the mean since the last restart, and restart."""
        seconds = (time.perf_counter() - self.started) / max(step - self.first, 1)
        self.restart(step)
        return seconds
