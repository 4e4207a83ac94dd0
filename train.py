"""Train a voice: `python train.py -c configs/vits2_ljs_nosdp.json -m ljs`.

One voice or many is a matter of the config and its filelists. The same command trains on the CPU, on one GPU, on all
GPUs of a machine and, started by torchrun, on many machines; a run that was stopped goes on when it is given again.
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
from collections.abc import Iterator
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from torch.utils.data import DataLoader, Subset

import checkpoint
import config as configs
import corpus
import distributed
from config import Config
from data_utils import Collate, DistributedBucketSampler, Epochs, SpeechDataset, ahead
from files import run_folder
from plots import plot_alignment_to_numpy, plot_spectrogram_to_numpy
from reporting import Meter, Reporter, set_up_logging
from text.cleaners import get_cleaner
from trainer import Trainer

logger = logging.getLogger(__name__)

PROGRESS_INTERVAL = 25  # steps between looks at the losses for the progress bar and for steps that went wrong
MAX_BAD_STEPS = 5  # updates in such a stretch that may be left out before training stops
SCALE_SEARCH = 16  # gradients that may overflow in a stretch of fp16, which halves its scale from 65536 to 1
VALIDATION_BATCH = 16
LOCK_PATIENCE = 15  # seconds that the workers of a run that was killed may still be there and hold its folder
PAD_FRAMES, PAD_TOKENS = 100, 64  # multiples that batches are padded to on a GPU


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, epilog="See README.md for examples."
    )
    parser.add_argument("-c", "--config", help="JSON file; may be left out when a run goes on")
    parser.add_argument("-m", "--model", required=True, metavar="NAME", help="the run's name: its folder is logs/NAME")
    parser.add_argument("--max-steps", type=int, help="stop after this many steps in all")
    parser.add_argument(
        "--init-from", metavar="G.pth", help="start from this generator's weights, as far as names and shapes agree"
    )
    parser.add_argument(
        "--init-discriminator", metavar="D.pth", help="start from this discriminator's weights, beside --init-from"
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--processes", type=int, help="processes on this machine (default: one for each GPU)")
    parser.add_argument("--precision", choices=configs.PRECISIONS, help="in place of the config's train.precision")
    parser.add_argument("--plain", action="store_true", help="on a GPU, no CUDA graphs and no kernels of our own")
    parser.add_argument("--skip-check", action="store_true", help="do not decode every recording before training")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Train as the command line says; a user's error ends in a message and status 2, Ctrl-C before training in 130."""
    args = parse_args(argv)
    args.began = time.time()
    try:
        config, folder = prepare_run(args)
        distributed.launch(run, args.device, args.processes, config, folder, args)
    except (ValueError, OSError) as error:
        print(f"train.py: {distributed.reason(error)}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:  # training itself takes the signal for a wish
        print("train.py: stopped before training began", file=sys.stderr)
        raise SystemExit(distributed.INTERRUPTED) from None


def prepare_run(args: argparse.Namespace) -> tuple[Config, Path]:
    """The run's folder, made if it is new, and its config: the one given, else the one the run began with."""
    folder = run_folder(args.model)
    kept = folder / "config.json"
    if args.config:
        config = configs.load(args.config)
        if not config.data.speakers and kept.exists() and any(folder.glob("G_*.pth")):
            config = with_speakers(config, configs.load(kept).data.speakers)
    elif kept.exists():
        config = configs.load(kept)
    else:
        raise ValueError(f"{folder} holds no run yet: give its config with -c")
    if args.precision:
        config = dataclasses.replace(config, train=dataclasses.replace(config.train, precision=args.precision))
    begun = any(folder.glob("G_*.pth"))
    if begun and (args.init_from or args.init_discriminator):
        raise ValueError(f"{folder} has begun already: take another name with -m, or leave out --init-...")
    for path in (args.init_from, args.init_discriminator):
        if path and not Path(path).is_file():
            raise ValueError(f"there is no file {path}")
    if args.max_steps is not None and args.max_steps < 1:
        raise ValueError(f"--max-steps is {args.max_steps}; it counts training steps from 1")
    config = with_speakers_of_lists(config)
    folder.mkdir(parents=True, exist_ok=True)
    return config, folder


def with_speakers(config: Config, speakers: dict[str, int]) -> Config:
    """The config with a table of speakers."""
    return dataclasses.replace(config, data=dataclasses.replace(config.data, speakers=speakers))


def with_speakers_of_lists(config: Config) -> Config:
    """The config with its own table of speakers or, if it has none, that of its filelists."""
    if config.data.speakers:
        return config
    return with_speakers(config, corpus.speaker_table(read_lists(config), config.data.n_speakers))


def plain(config: Config) -> Config:
    """The config of the same training by PyTorch's own operations, one after the other."""
    return dataclasses.replace(config, train=dataclasses.replace(config.train, cuda_graphs=False, fused_kernels=False))


def read_lists(config: Config) -> list[list[corpus.Clip]]:
    """The training and the validation filelist."""
    return [corpus.read_filelist(path) for path in (config.data.training_files, config.data.validation_files)]


def run(device: torch.device, config: Config, folder: Path, args: argparse.Namespace) -> None:
    """What one process does from start to end."""
    with contextlib.ExitStack() as stack:
        distributed.in_main(lambda: stack.enter_context(alone_in(folder)))
        train_in(folder, device, config, args)


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keep other programs from training in a run's folder meanwhile.

    Raises:
        ValueError: another program trains there.
    """
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=LOCK_PATIENCE)
    except Timeout:
        raise ValueError(f"{folder} is being trained by another program: another name with -m is another run") from None
    except NotImplementedError:
        logger.warning("%s: its file system has no locks; mind that only one program trains there", folder)
    try:
        yield
    finally:
        lock.release()


def train_in(folder: Path, device: torch.device, config: Config, args: argparse.Namespace) -> None:
    """Train in a folder that is this program's own."""
    set_up_logging(folder)
    # what still lives at the end hears no signal: see `leave_signals_to_main`
    multiprocessing.util.Finalize(None, end_workers, exitpriority=10)
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True  # batches come in few shapes, see `make_loaders`
    if not args.skip_check:
        distributed.in_main(lambda: check(config, folder))
    train_set, epochs, train_loader, validation_loader = make_loaders(config, device)
    trainer = Trainer(plain(config) if args.plain else config, device)  # of this start, not of the run
    if not trainer.resume(folder):
        for path, name in ((args.init_from, "generator"), (args.init_discriminator, "discriminator")):
            if path:
                taken = checkpoint.transfer(trainer.learners[name].network, path, dataclasses.asdict(config.model))
                report_transfer(path, *taken)
    if distributed.is_main():  # not earlier: a config that does not fit the run's files must not replace theirs
        configs.save(config, folder / "config.json")
        for unfinished in folder.glob(".*.tmp"):  # of a process that was killed while it saved
            unfinished.unlink()
    total = args.max_steps or config.train.epochs * len(epochs.sampler)
    reporter = Reporter(folder, trainer.position.step, total, args.began - trainer.position.seconds)
    batches = ahead(train_loader, device)
    try:
        fit(trainer, train_set, epochs, batches, validation_loader, reporter, folder, total)
    finally:
        batches.close()  # ends the workers, which no signal ends
        reporter.close()


def check(config: Config, folder: Path) -> None:
    """Look at every recording and text before any time is spent on training; stop if one would spoil it."""
    lists = read_lists(config)
    report = corpus.check_corpus(list(itertools.chain(*lists)), config.data, folder / "corpus.json")
    logger.info("%s", report)
    trained, validated = ({clip.path for clip in clips} for clips in lists)
    if both := sorted(trained & validated):
        logger.warning(
            "%d recordings are in both lists (%s, ...): what is learnt by heart will look well in validation",
            len(both),
            both[0],
        )
    report.stop_on_errors()
    for name in config.data.text_cleaners if config.data.cleaned_text else ():
        try:
            get_cleaner(name)
        except ValueError as error:  # clean lists train without it, as those of other VITS code do
            logger.warning("data.text_cleaners: %s. The voice will speak phonemes, and no text.", error)


def make_loaders(config: Config, device: torch.device):
    """Datasets and loaders of this process. On a GPU, shapes are padded to few sizes, each of which costs set-up."""
    train, data = config.train, config.data
    cuda = device.type == "cuda"
    train_set = SpeechDataset(data.training_files, data)
    validation_set = SpeechDataset(data.validation_files, data)
    sampler = DistributedBucketSampler(train_set, train.batch_size, train.bucket_boundaries, seed=train.seed)
    epochs = Epochs(sampler)
    common = {
        "collate_fn": Collate(data.hop_length, *((PAD_FRAMES, PAD_TOKENS) if cuda else (1, 1))),
        "num_workers": min(train.num_workers, usable_cores()),
        "pin_memory": cuda,
        "worker_init_fn": leave_signals_to_main,
        "generator": torch.Generator(),  # its own: a loader must not move the training's random draws
    }
    train_loader = DataLoader(train_set, batch_sampler=epochs, **common)
    by_length = sorted(range(len(validation_set)), key=lambda i: validation_set.lengths[i])
    mine = Subset(validation_set, by_length[distributed.rank() :: distributed.world_size()])
    validation_loader = DataLoader(mine, min(VALIDATION_BATCH, train.batch_size), **common)
    return train_set, epochs, train_loader, validation_loader


def usable_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def leave_signals_to_main(worker: int) -> None:
    """A terminal's Ctrl-C and a scheduler's SIGTERM reach workers too; the main process decides when to end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def end_workers() -> None:
    """End this process's workers, which an error may have left behind; the interpreter would wait for them."""
    for worker in multiprocessing.active_children():
        worker.kill()


def report_transfer(path: str, taken: int, missing: list[str], unused: list[str]) -> None:
    """Say what a transfer took over and what it did not."""
    logger.info("%s: %d tensors taken over", path, taken)
    for what, names in (("start anew", missing), ("are not used", unused)):
        if names:
            parts = sorted({".".join(name.split(".")[:3]) for name in names})
            logger.info("%d tensors %s: %s", len(names), what, ", ".join(parts[:12]) + (" ..." if parts[12:] else ""))


def fit(trainer: Trainer, train_set, epochs: Epochs, batches, validation_loader, reporter, folder, total) -> None:
    """Train until `total` steps are done, looking, measuring and saving on the way."""
    train, position = trainer.config.train, trainer.position
    meter, window = Meter(), Window(train_set.names, SCALE_SEARCH if trainer.scales else 0)
    stop = StopRequest(trainer.device)
    timer = Timer(position.step)
    epoch_length = len(epochs.sampler)
    if position.batch >= epoch_length:  # the run was saved with more batches: another corpus, or fewer processes
        position.epoch, position.batch = position.epoch + 1, 0
    epochs.epoch, epochs.start = position.epoch, position.batch
    trainer.set_epoch(position.epoch)
    if position.step >= total:
        logger.info("nothing to train: the run is at step %d of %d", position.step, total)
        return
    for batch in batches:
        record = trainer.step(batch)
        meter.add(record)
        window.add(batch.index, record)
        position.step += 1
        position.batch += 1
        reporter.step()
        stopping = stop.agreed(position.step)
        last = position.step >= total or stopping
        if position.step % PROGRESS_INTERVAL == 0 or last:
            window.stop_if_broken(position.step)
        if position.step % train.log_interval == 0 or last:
            values = meter.means() | {"learning_rate": trainer.generator.learning_rate}
            values["seconds_a_step"] = timer.seconds_a_step(position.step)
            values["scale/alignment_noise"] = trainer.generator.network.current_mas_noise_scale
            reporter.show(position.epoch, values)
            reporter.scalars(position.step, values)
        if position.batch == epoch_length:
            position.epoch, position.batch = position.epoch + 1, 0
            trainer.set_epoch(position.epoch)
        if position.step % train.eval_interval == 0 or last:
            validate_and_save(trainer, validation_loader, reporter, folder)
            timer.restart(position.step)
        if last:
            break
    if stopping and position.step < total:
        logger.info("stopped at step %d; the same command goes on from there", position.step)


def validate_and_save(trainer: Trainer, validation_loader, reporter: Reporter, folder: Path) -> None:
    """Measure on the validation set, keep the best generator apart, write checkpoints and things to look at."""
    step = trainer.position.step
    results = trainer.evaluate(validation_loader)
    reporter.scalars(step, {f"validation/{name}": value for name, value in results.items()})
    if trainer.is_best(results):
        trainer.save_best(folder)
    trainer.position.seconds = reporter.elapsed()
    trainer.save(folder)
    if distributed.is_main():
        show_sample(trainer, validation_loader, reporter)


def show_sample(trainer: Trainer, validation_loader, reporter: Reporter) -> None:
    """Synthesise a validation sentence from its text, and put picture and sound beside the recording's."""
    step, data = trainer.position.step, trainer.config.data
    middle = len(validation_loader.dataset) // 2
    batch = validation_loader.collate_fn([validation_loader.dataset[middle]]).to(trainer.device)
    o, attn, mel, mel_hat = trainer.synthesise(batch)
    reporter.pictures(
        step,
        {
            "gt/mel": plot_spectrogram_to_numpy(mel),
            "gen/mel": plot_spectrogram_to_numpy(mel_hat),
            "gen/attn": plot_alignment_to_numpy(attn[0]),
            "all/attn": plot_alignment_to_numpy(attn[1]),
        },
    )
    n = int(batch.wav_lengths[0])
    sounds = {"gt/audio": batch.wav[0, 0, :n].cpu().numpy(), "gen/audio": o}
    reporter.audio(step, sounds, data.sampling_rate)


class Timer:
    """Seconds a training step takes, the time between validations apart."""

    def __init__(self, step: int):
        self.restart(step)

    def restart(self, step: int) -> None:
        self.started, self.first = time.perf_counter(), step

    def seconds_a_step(self, step: int) -> float:
        seconds = (time.perf_counter() - self.started) / max(step - self.first, 1)
        self.restart(step)
        return seconds


class Window:
    """The latest steps' losses and utterances, to find steps that were left out without waiting for each.

    Args:
        names: of the corpus's utterances.
        overflows: how many of the steps may have finite losses and gradients that are not, which is how fp16 finds its
            scale; with more, something is wrong.
    """

    def __init__(self, names: list[str], overflows: int):
        self.names, self.overflows = names, overflows
        self.steps: deque = deque(maxlen=PROGRESS_INTERVAL)

    def add(self, index: torch.Tensor, record: dict[str, torch.Tensor]) -> None:
        """Remember a step: which utterances, and whether its losses and its gradients were finite."""
        losses = [value.float() for name, value in record.items() if not name.startswith("grad_norm")]
        gradients = [value.float() for name, value in record.items() if name.startswith("grad_norm")]
        finite = [torch.stack(values).isfinite().all() for values in (losses, gradients)]
        self.steps.append((index, torch.stack(finite)))

    def stop_if_broken(self, step: int) -> None:
        """Name the utterances of steps that were left out, and stop after too many. Waits for the device."""
        broken = torch.stack([~finite for _, finite in self.steps]).float()
        losses, gradients = (distributed.sum_over_ranks(broken) > 0).cpu().unbind(1)  # all processes stop together
        overflowed = gradients & ~losses
        left_out = losses | overflowed if overflowed.sum() > self.overflows else losses
        bad = [index for (index, _), is_bad in zip(self.steps, left_out) if is_bad]
        self.steps.clear()
        for index in bad[:MAX_BAD_STEPS]:
            names = ", ".join(self.names[i] for i in index.tolist()[:8])
            logger.warning("before step %d, an update was left out: not finite. Utterances: %s ...", step, names)
        if len(bad) > MAX_BAD_STEPS:
            raise SystemExit(
                f"{len(bad)} of {len(losses)} updates before step {step} had losses or gradients that are not finite; "
                "the weights are as the good steps left them. Look at the utterances above, or try --precision fp32."
            )


class StopRequest:
    """Ctrl-C and SIGTERM end training after a step, with a checkpoint; a second time, at once."""

    SAME = 2.0  # seconds within which a second signal is the same request: some senders signal a process and its group

    def __init__(self, device: torch.device):
        self.device = device
        self.requested: float | None = None  # when
        signal.signal(signal.SIGINT, self._request)
        signal.signal(signal.SIGTERM, self._request)

    def agreed(self, step: int) -> bool:
        """Whether to stop after this step. Many processes ask each other, at steps that wait for the device anyway."""
        wish = self.requested is not None
        if distributed.world_size() == 1:
            return wish
        if step % PROGRESS_INTERVAL:
            return False
        return distributed.sum_over_ranks(torch.tensor(float(wish), device=self.device)).item() > 0

    def _request(self, number, frame) -> None:
        if self.requested is None:
            self.requested = time.monotonic()
            when = "this step" if distributed.world_size() == 1 else f"at most {PROGRESS_INTERVAL} steps"
            logger.info("stopping after %s; once more to stop at once", when)
        elif time.monotonic() > self.requested + self.SAME:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)


if __name__ == "__main__":
    main()
