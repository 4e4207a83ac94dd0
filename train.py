"""Train a voice.

The config and its filelists decide whether the voice has one speaker or several. The same command trains on a CPU, on
one GPU, on all GPUs of a machine and, started by torchrun, on several machines. It resumes an interrupted run.

Examples:
  python train.py -c configs/vits2_ljs_nosdp.json -m ljs           train, or resume, the run logs/ljs
  python train.py -m ljs                                           resume with the run's own config
  python train.py -c configs/my.json -m my --init-from G.pth       start from the weights of another model
"""

import argparse
import contextlib
import dataclasses
import itertools
import logging
import multiprocessing.util
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sized
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, cast

import torch
from filelock import FileLock, Timeout
from torch import Tensor
from torch.utils.data import DataLoader, Subset

import checkpoint
import cli
import config as configs
import corpus
import distributed
from audio import read_header
from config import Config
from corpora.filelist import Clip
from data_utils import (
    Batch,
    Collate,
    DistributedBucketSampler,
    Epochs,
    SpeechDataset,
    ToMainProcess,
    ahead,
    waited,
    workers_that_fit,
)
from evaluation import takes
from evaluation.background import SENTENCES, BackgroundEvaluation, Result, check_packages
from files import run_folder
from importers import transfer
from plots import plot_alignment_to_numpy, plot_spectrogram_to_numpy
from reporting import Meter, Reporter, set_up_logging
from synthesis.voice import find_checkpoint
from text.cleaners import get_cleaner
from trainer import Trainer

logger = logging.getLogger(__name__)

PROGRESS_INTERVAL = 25  # steps between two readings of the losses, for the progress bar and to find skipped steps
MAX_SKIPPED_STEPS = 5  # updates that may be skipped in such an interval before training stops
SCALE_SEARCH = 16  # further ones in fp16, which lowers its scale from 65536 to 1 by overflows
MAX_LISTED = 8  # utterances of a step, in a message
VALIDATION_BATCH = 16
DATA_PATIENCE = 300  # seconds to wait for a batch of a loader's workers
LOCK_PATIENCE = 15  # seconds that the workers of a killed run may still hold its folder
PAD_FRAMES, PAD_TOKENS = 100, 64  # multiples to which batches are padded on a GPU
SAME_REQUEST = 2.0  # seconds within which a second signal is the same request: some send it to a process and its group


@dataclass
class Run:
    """Everything that one process trains with."""

    trainer: Trainer
    names: list[str]  # of the training utterances
    epochs: Epochs
    batches: Iterable[Batch]
    validation_loader: DataLoader
    reporter: Reporter
    folder: Path
    total: int  # steps
    evaluation: BackgroundEvaluation | None = None  # in the main process, with --evaluate-every
    evaluate_every: int = 0  # steps; 0: never
    saved: int = 0  # step of the newest checkpoint


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = cli.Parser(__doc__)
    parser.add_argument("-c", "--config", metavar="JSON", help="config file; not needed to resume a run")
    parser.add_argument(
        "-m",
        "--model",
        required=True,
        metavar="NAME",
        help="name of the run, whose folder is logs/NAME, or that folder",
    )
    parser.add_argument(
        "--max-steps", type=int, metavar="N", help="stop after N steps in total (default: train.epochs of the config)"
    )
    parser.add_argument(
        "--init-from", metavar="RUN", help="start from the weights of this run or checkpoint G_STEP.pth that fit"
    )
    parser.add_argument(
        "--init-discriminator", metavar="D.pth", help="copy the weights of this discriminator in the same way"
    )
    cli.add_device(parser, ("auto", "cpu", "cuda"))
    parser.add_argument("--processes", type=int, metavar="N", help="processes on this machine (default: one per GPU)")
    parser.add_argument("--precision", choices=configs.PRECISIONS, help="replaces train.precision of the config")
    parser.add_argument(
        "--plain",
        action="store_true",
        help="on a GPU, train without CUDA graphs and fused kernels; for this start only",
    )
    parser.add_argument(
        "--evaluate-every",
        type=int,
        metavar="N",
        help="measure CER and MOS of a few lines every N steps, in a separate process (needs make evaluate-setup)",
    )
    parser.add_argument(
        "--evaluate-list",
        metavar="FILELIST",
        help="lines of plain text for --evaluate-every (default: the validation list without .cleaned)",
    )
    parser.add_argument("--skip-check", action="store_true", help="skip the check of recordings and texts")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Run the program. Exit code 2 is a user error, 130 an interrupt before training."""
    args = parse_args(argv)
    args.began = time.time()
    with cli.errors_in_one_line("train"):
        try:
            config, folder = prepare_run(args)
            distributed.launch(train_process, args.device, args.processes, config, folder, args)
        except (ValueError, OSError) as error:
            raise ValueError(distributed.reason(error)) from None
        except KeyboardInterrupt:  # during training the signal is a request to stop, see StopRequest
            print("train: stopped before training began", file=sys.stderr)
            raise SystemExit(cli.INTERRUPTED) from None


def prepare_run(args: argparse.Namespace) -> tuple[Config, Path]:
    """Return the config, given or the run's own, and the run's folder, which is created if it is new.

    Raises ValueError if the options do not fit the run.
    """
    folder = run_folder(args.model)
    own = folder / "config.json"
    started = any(folder.glob("G_*.pth"))
    if args.config:
        config = configs.load(args.config)
        if not config.data.speakers and own.exists() and started:
            config = changed(config, "data", speakers=speakers_of_run(folder))
    elif own.exists():
        config = configs.load(own)
    else:
        raise ValueError(f"{folder} has no run yet: give its config with -c")
    if args.precision:
        config = changed(config, "train", precision=args.precision)
    if started and (args.init_from or args.init_discriminator):
        raise ValueError(
            f"{folder} has checkpoints already: choose another name with -m, "
            "or omit --init-from and --init-discriminator"
        )
    if args.init_from:
        find_checkpoint(args.init_from)
    if args.init_discriminator and not Path(args.init_discriminator).is_file():
        raise ValueError(f"there is no file {args.init_discriminator}")
    if args.max_steps is not None and args.max_steps < 1:
        raise ValueError(f"--max-steps is {args.max_steps}; it must be 1 or more")
    if args.evaluate_list and args.evaluate_every is None:
        raise ValueError("--evaluate-list has no effect without --evaluate-every")
    if args.evaluate_every is not None:
        args.evaluate_list = list_to_evaluate(args, config)
    elif config.train.best in configs.EVALUATED:
        raise ValueError(f"train.best is {config.train.best!r}, which is measured only with --evaluate-every")
    config = with_speakers_of_lists(config)
    folder.mkdir(parents=True, exist_ok=True)
    return config, folder


def speakers_of_run(folder: Path) -> dict[str, int]:
    """Return the table of speakers of a run with checkpoints, from its config or, if that is broken, a checkpoint."""
    try:
        return configs.load(folder / "config.json").data.speakers
    except ValueError as error:
        content = checkpoint.read(checkpoint.latest_checkpoint_path(folder))
        logger.warning("%s. The speakers are those of the newest checkpoint", error)
        speakers = (content.get("config") or {}).get("data", {}).get("speakers", {})
        return {str(name): int(number) for name, number in speakers.items()}


def list_to_evaluate(args: argparse.Namespace, config: Config) -> str:
    """Return the filelist for `--evaluate-every`. Raises ValueError if options, files or packages do not fit."""
    every, interval = args.evaluate_every, config.train.eval_interval
    if every < 1 or every % interval:
        raise ValueError(f"--evaluate-every is {every}; it must be a multiple of train.eval_interval ({interval})")
    path = args.evaluate_list or config.data.validation_files.removesuffix(".cleaned")
    if not args.evaluate_list and path == config.data.validation_files and config.data.cleaned_text:
        raise ValueError(f"{path} has no name with .cleaned: give a filelist of plain text with --evaluate-list")
    if not Path(path).is_file():
        raise ValueError(f"there is no file {path}: give a filelist of plain text with --evaluate-list")
    for take in takes.recordings(path)[:SENTENCES]:
        read_header(take.recording)
    check_packages()
    return path


def changed(config: Config, section: str, **values: Any) -> Config:
    """Return the config with other values in one section."""
    return dataclasses.replace(config, **{section: dataclasses.replace(getattr(config, section), **values)})


def with_speakers_of_lists(config: Config) -> Config:
    """Return the config with a table of speakers, taken from its filelists if it has none."""
    if config.data.speakers:
        return config
    return changed(config, "data", speakers=corpus.speaker_table(read_lists(config), config.data.n_speakers))


def plain(config: Config) -> Config:
    """Return the config of the same training without CUDA graphs and fused kernels."""
    return changed(config, "train", cuda_graphs=False, fused_kernels=False)


def read_lists(config: Config) -> list[list[Clip]]:
    """Read the training and the validation filelist."""
    return [corpus.read_filelist(path) for path in (config.data.training_files, config.data.validation_files)]


def train_process(device: torch.device, config: Config, folder: Path, args: argparse.Namespace) -> None:
    """Train in one process, from start to end. The main process locks the run's folder."""
    with contextlib.ExitStack() as stack:
        distributed.in_main(lambda: stack.enter_context(locked(folder)))
        train_in(folder, device, config, args)


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


def train_in(folder: Path, device: torch.device, config: Config, args: argparse.Namespace) -> None:
    """Set up a run in its locked folder, and train."""
    set_up_logging(folder)
    # workers ignore signals (see `ignore_signals`), so that those still alive at the end must be killed
    multiprocessing.util.Finalize(None, end_workers, exitpriority=10)
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True  # batches have few shapes, see `make_loaders`
    if not args.skip_check:
        distributed.in_main(lambda: check(config, folder))
    train_set, epochs, train_loader, validation_loader = make_loaders(config, device)
    trainer = Trainer(plain(config) if args.plain else config, device)  # --plain is not saved with the run
    if not checkpoint.resume_run(trainer, folder):
        config = start_from(trainer, config, args)
    if distributed.is_main():  # after resuming, so that a config that does not fit cannot replace the run's own
        configs.save(config, folder / "config.json")
        for unfinished in folder.glob(".*.tmp"):  # of a process that was killed while it saved
            unfinished.unlink()
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


def check(config: Config, folder: Path) -> None:
    """Check every recording and text before training. Stop if one would spoil it."""
    lists = read_lists(config)
    report = corpus.check_corpus(list(itertools.chain(*lists)), config.data, folder / "corpus.json")
    logger.info("%s", report)
    trained, validated = ({clip.path for clip in clips} for clips in lists)
    if both := sorted(trained & validated):
        logger.warning(
            "%d recordings are in both filelists (%s, ...): validation will be too optimistic about them",
            len(both),
            both[0],
        )
    report.stop_on_errors()
    for name in config.data.text_cleaners if config.data.cleaned_text else ():
        try:
            get_cleaner(name)
        except ValueError as error:  # cleaned filelists train without the cleaner, as those of other VITS code do
            logger.warning("data.text_cleaners: %s. The voice will accept phonemes, but no text.", error)


def make_loaders(config: Config, device: torch.device) -> tuple[SpeechDataset, Epochs, DataLoader, DataLoader]:
    """Return training set, epochs, training loader and validation loader of this process.

    On a GPU the shapes of batches are padded to few sizes, because each new shape is captured and autotuned.
    """
    train, data = config.train, config.data
    cuda = device.type == "cuda"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    train_set = SpeechDataset(data.training_files, data)
    validation_set = SpeechDataset(data.validation_files, data)
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
    """Kill the workers that an error has left; the interpreter would wait for them."""
    for worker in multiprocessing.active_children():
        worker.kill()


def start_from(trainer: Trainer, config: Config, args: argparse.Namespace) -> Config:
    """Copy the weights of `--init-from` and `--init-discriminator` into a new run. Returns the run's config.

    If the file has no posterior encoder, that of the run learns alone at first, unless the config decides otherwise.
    """
    for given, name in ((args.init_from, "generator"), (args.init_discriminator, "discriminator")):
        if not given:
            continue
        path = find_checkpoint(given) if name == "generator" else Path(given)
        network = trainer.learners[name].network
        with checkpoint.structure_of(path):
            plan = transfer.plan(network, checkpoint.read(path), config, str(path))
        transfer.apply(network, plan)
        logger.info("%s from %s:\n%s", name, path, plan.table())
        if plan.lacks_posterior and config.train.warm_up_steps is None:
            config, trainer.config = (
                changed(each, "train", warm_up_steps=transfer.WARM_UP) for each in (config, trainer.config)
            )
            logger.info("the posterior encoder is new: it learns alone for %d steps", transfer.WARM_UP)
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
        # `StepGuard` ends all processes together; any other error may be that of this process alone
        save_before_end(run, together=isinstance(error, SystemExit))
        raise


def train_until_end(run: Run, stop: "StopRequest") -> None:
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
    stopping = False
    for batch in stop.waits(run.batches):
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


def validate_and_save(run: Run, stop: "StopRequest") -> None:
    """Measure the validation set, write checkpoints, and show a sample."""
    trainer = run.trainer
    results = trainer.evaluate(stop.waits(run.validation_loader))
    run.reporter.scalars(trainer.position.step, {f"validation/{name}": value for name, value in results.items()})
    if trainer.update_best(results):
        checkpoint.save_voice(trainer, run.folder / "G_best.pth")
    if run.evaluation and trainer.position.step % run.evaluate_every == 0:
        start_evaluation(run, run.evaluation)
    save(run)
    if distributed.is_main():
        show_sample(run)


def save(run: Run, together: bool = True) -> None:
    """Write checkpoints, unless this step has them already. See `checkpoint.save_run` for `together`."""
    trainer = run.trainer
    if trainer.position.step > run.saved:
        trainer.position.seconds = run.reporter.elapsed()
        checkpoint.save_run(trainer, run.folder, together)
        run.saved = trainer.position.step


def save_before_end(run: Run, together: bool) -> None:
    """Save what was trained before an error ends the run. If that fails too, log why."""
    try:
        save(run, together)
        logger.info("the run ends at step %d, which is saved", run.saved)
    except (ValueError, OSError, RuntimeError) as error:
        logger.warning("step %d could not be saved before the end: %s", run.trainer.position.step, error)


def start_evaluation(run: Run, evaluation: BackgroundEvaluation) -> None:
    """Start to evaluate the voice of this step, unless the last evaluation is still running."""
    step = run.trainer.position.step
    if evaluation.running:
        logger.info(
            "step %d is not evaluated, because the evaluation of step %d is running", step, evaluation.running[0]
        )
        return
    path = evaluation.voice(step)
    path.parent.mkdir(parents=True, exist_ok=True)
    checkpoint.save_voice(run.trainer, path)
    evaluation.start(step)


def collect(run: Run, wait: bool = False) -> None:
    """Report the result of an evaluation that has ended, and keep its voice if it is the best by that measure."""
    result = run.evaluation.result(wait) if run.evaluation else None
    if result is None:
        return
    run.reporter.scalars(result.step, {f"evaluation/{name}": value for name, value in result.values.items()})
    keep_if_best(run, result)


def keep_if_best(run: Run, result: Result) -> None:
    """Record an evaluation, and make its voice `G_best.pth` if it is the best by that measure."""
    if run.trainer.update_best(result.values) and result.voice.exists():
        os.replace(result.voice, run.folder / "G_best.pth")
    result.voice.unlink(missing_ok=True)


def recall_evaluations(run: Run, evaluation: BackgroundEvaluation) -> None:
    """Find the best of the evaluations of earlier starts, of which some may have ended after the last checkpoint."""
    if run.trainer.best_measure() in configs.EVALUATED:
        run.trainer.position.best, run.trainer.position.waited = float("inf"), 0
        for result in evaluation.past():
            keep_if_best(run, result)
    for voice in evaluation.folder.glob("*/voice.pth"):  # of evaluations that were ended
        voice.unlink()


def show_sample(run: Run) -> None:
    """Synthesize a validation sentence and log its pictures and audio beside those of the recording."""
    trainer, loader = run.trainer, run.validation_loader
    middle = len(cast(Sized, loader.dataset)) // 2
    batch = loader.collate_fn([loader.dataset[middle]]).to(trainer.device)
    sample = trainer.synthesize(batch)
    step = trainer.position.step
    run.reporter.pictures(
        step,
        {
            "gt/mel": plot_spectrogram_to_numpy(sample.mel),
            "gen/mel": plot_spectrogram_to_numpy(sample.mel_hat),
            "gen/attn": plot_alignment_to_numpy(sample.alignment),
            "all/attn": plot_alignment_to_numpy(sample.aligned),
        },
    )
    recording = batch.wav[0, 0, : int(batch.wav_lengths[0])].cpu().numpy()
    clips = {"gt/audio": recording, "gen/audio": sample.audio}
    run.reporter.audio(step, clips, trainer.config.data.sampling_rate)


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


class StepGuard:
    """Finds steps with losses or gradients that are not finite, without a host synchronization at each step.

    Args:
        names: of the corpus's utterances.
        overflows: steps in an interval that may have finite losses and infinite gradients. fp16 finds its scale by
            such steps; more of them are an error.
    """

    def __init__(self, names: list[str], overflows: int):
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


if __name__ == "__main__":
    main()
