"""Reports of a training run: train.log, TensorBoard, metrics.jsonl and a progress bar. Only the main process writes."""

import json
import logging
import math
import sys
import threading
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

import distributed
from conditions import Speaker
from config import DataConfig
from data_utils import Collate, Utterance
from plots import plot_alignment_to_numpy, plot_spectrogram_to_numpy
from text import sequence_to_text
from text.symbols import PAD

if TYPE_CHECKING:
    from trainer import Trainer

logger = logging.getLogger(__name__)

BAR_METRICS = {"loss/g/mel": "mel", "loss/g/kl": "kl", "loss/g/dur": "dur", "loss/d/total": "d"}  # and their labels
# TensorBoard shows groups in alphabetical order, so `loss/` opens first. metrics.jsonl keeps the names.
OPTIMIZATION = ("grad_norm_", "learning_rate", "seconds_a_step", "scale/")
SHOWN_SPEAKERS = 4  # of which pictures and audio are written
SEARCHED = 32  # utterances that are read to find them
RESUMED = "resumed"  # the `event` of a line of metrics.jsonl that has no numbers


class Meter:
    """Means of losses over several steps. They stay on their device, so adding a step does not synchronize with it."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.counts: Counter[str] = Counter()

    def add(self, record: dict[str, Tensor]) -> None:
        """Add the losses of one step, scalars on any device."""
        self.counts.update(record.keys())
        for name, value in record.items():
            value = value.detach().float()
            self.sums[name] = self.sums[name] + value if name in self.sums else value

    def means(self) -> dict[str, float]:
        """Return the means over steps and processes since the last call. Synchronizes with the device."""
        names = sorted(self.sums)
        values = torch.stack([self.sums[name] / self.counts[name] for name in names]) if names else torch.zeros(0)
        values = distributed.sum_over_ranks(values) / distributed.world_size()
        self.sums, self.counts = {}, Counter()
        return dict(zip(names, values.tolist()))


def set_up_logging(folder: Path) -> None:
    """Log to `train.log` in the run's folder and to the terminal. The other processes log warnings only."""
    root = logging.getLogger()
    root.setLevel(logging.INFO if distributed.is_main() else logging.WARNING)
    if distributed.is_main():
        file = logging.FileHandler(folder / "train.log", encoding="utf-8")
        file.setFormatter(logging.Formatter("%(asctime)s\t%(levelname)s\t%(message)s"))
        terminal = logging.StreamHandler(sys.stderr)
        terminal.setFormatter(logging.Formatter("%(message)s"))
        root.handlers = [file, terminal]
        threading.excepthook = report_thread


def report_thread(error: threading.ExceptHookArgs) -> None:
    """Log an OSError that ended a thread as one line: TensorBoard writes in a thread, and the disk may be full."""
    if isinstance(error.exc_value, OSError):
        logger.warning(
            "%s cannot write any more: %s", error.thread.name if error.thread else "a thread", error.exc_value
        )
    else:
        threading.__excepthook__(error)


class Reporter:
    """The writer of a run's reports. In all processes but the main one, its methods do nothing.

    Args:
        folder: of the run.
        step: number of steps done; later entries of an earlier process are removed from TensorBoard.
        total: number of steps of the whole run.
        began: start of the run in seconds since the epoch, moved back by the time that it took before it was resumed.
    """

    def __init__(self, folder: Path, step: int, total: int, began: float):
        self.active = distributed.is_main()
        self.began = began
        self.seen: set[str] = set()
        self.outputs = ExitStack()
        if self.active:
            from torch.utils.tensorboard import SummaryWriter  # slow to import

            settings: dict[str, Any] = {"unit": "step", "dynamic_ncols": True, "smoothing": 0.05, "mininterval": 0.5}
            self.bar = tqdm(initial=step, total=total, disable=None, **settings)  # None: shown on a terminal only
            self.outputs.enter_context(self.bar)
            self.outputs.enter_context(logging_redirect_tqdm())
            self.board = self.outputs.enter_context(SummaryWriter(folder, purge_step=step + 1))
            self.metrics = folder / "metrics.jsonl"
            if self.metrics.exists():
                with self.metrics.open("rb+") as file:  # remove a line that a killed process left incomplete
                    file.truncate(file.read().rfind(b"\n") + 1)
            if step:
                self._record({"step": step, "elapsed": round(self.elapsed(), 1), "event": RESUMED})

    def elapsed(self) -> float:
        """Return the seconds that the run has taken."""
        return time.time() - self.began

    def step(self) -> None:
        """Advance the progress bar by one step."""
        if self.active:
            self.bar.update()

    def show(self, epoch: int, values: dict[str, float]) -> None:
        """Show the epoch, counted from 0 in the argument and from 1 in the bar, and the losses of `BAR_METRICS`."""
        if self.active:
            shown: dict[str, Any] = {BAR_METRICS[name]: f"{values[name]:.2f}" for name in BAR_METRICS if name in values}
            self.bar.set_postfix(epoch=epoch + 1, **shown)

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Write numbers to TensorBoard, metrics.jsonl and train.log. NaN and infinity are null in metrics.jsonl."""
        if not self.active:
            return
        if broken := [name for name, value in values.items() if not math.isfinite(value)]:
            logger.warning("step %d: not finite: %s", step, ", ".join(broken))
        for name, value in values.items():
            self.board.add_scalar(f"optim/{name}" if name.startswith(OPTIMIZATION) else name, value, step)
        rounded = {name: round(value, 6) if math.isfinite(value) else None for name, value in values.items()}
        self._record({"step": step, "elapsed": round(self.elapsed(), 1)} | rounded)
        logger.info("step %d: %s", step, ", ".join(f"{name} {value:.4g}" for name, value in values.items()))

    def _record(self, line: dict[str, Any]) -> None:
        with self.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, allow_nan=False) + "\n")

    def pictures(self, step: int, images: dict[str, np.ndarray]) -> None:
        """Write images `[height, width, 3]` to TensorBoard."""
        if self.active:
            for name, image in images.items():
                self.board.add_image(name, image, step, dataformats="HWC")

    def audio(self, step: int, clips: dict[str, np.ndarray], sampling_rate: int) -> None:
        """Write audio `[samples]` in [-1, 1] to TensorBoard; the sampling rate is in Hz."""
        if self.active:
            for name, samples in clips.items():
                self.board.add_audio(name, samples[None], step, sampling_rate)

    def text(self, step: int, name: str, text: str) -> None:
        """Write a text to TensorBoard."""
        if self.active:
            self.board.add_text(name, text, step)

    def first(self, name: str) -> bool:
        """Return whether this is the first call with the name, for what is written once."""
        new = name not in self.seen
        self.seen.add(name)
        return new

    def close(self) -> None:
        """Flush and close all outputs."""
        self.outputs.close()


def show_samples(reporter: Reporter, trainer: "Trainer", loader: DataLoader) -> None:
    """Synthesize a validation sentence of each of up to `SHOWN_SPEAKERS` speakers, and report pictures and audio.

    The recordings and the symbols of their texts are reported once.
    """
    data, step = trainer.config.data, trainer.position.step
    first = reporter.first("samples")
    for speaker, utterance in one_of_each_speaker(loader.dataset, data).items():
        batch = cast(Collate, loader.collate_fn)([utterance]).to(trainer.device)
        sample = trainer.synthesize(batch)
        of = f"/{speaker}" if speaker else ""
        pictures = {
            f"alignment/found{of}": plot_alignment_to_numpy(sample.aligned),
            f"alignment/predicted{of}": plot_alignment_to_numpy(sample.alignment),
            f"mel/synthesis{of}": plot_spectrogram_to_numpy(sample.mel_hat),
        }
        clips = {f"audio/synthesis{of}": sample.audio}
        if first:
            pictures[f"mel/recording{of}"] = plot_spectrogram_to_numpy(sample.mel)
            clips[f"audio/recording{of}"] = batch.wav[0, 0, : int(batch.wav_lengths[0])].cpu().numpy()
            reporter.text(step, f"text{of}", sequence_to_text(utterance.text, data.extra_symbols).replace(PAD, ""))
        reporter.pictures(step, pictures)
        reporter.audio(step, clips, data.sampling_rate)


def one_of_each_speaker(dataset: Any, data: DataConfig) -> dict[str, Utterance]:
    """Return an utterance of each of the first speakers from the middle of a dataset on, by the speaker's name.

    The name is empty for a single speaker.
    """
    names = {number: name for name, number in Speaker().names(data).items()}
    found: dict[str, Utterance] = {}
    for i in range(min(len(dataset), SEARCHED)):
        utterance = dataset[(len(dataset) // 2 + i * max(1, len(dataset) // SEARCHED)) % len(dataset)]
        sid = utterance.conditions.get("sid")
        found.setdefault("" if sid is None else names[int(sid)], utterance)
        if len(found) == min(SHOWN_SPEAKERS, data.n_speakers or 1):
            break
    return found


def metric_names(folder: str | Path) -> list[str]:
    """Return the names of the numbers in a run's metrics.jsonl: validation first, then losses, then the rest."""
    names = {name for record in _records(folder) for name in record} - {"step", "elapsed", "event"}
    return sorted(names, key=lambda name: (not name.startswith("validation"), not name.startswith("loss"), name))


def read_metrics(folder: str | Path, name: str) -> tuple[list[int], list[float]]:
    """Return the steps and values of one number in a run's metrics.jsonl.

    A step that was repeated after resuming has the value of its last line. Values that were not finite are left out.
    Raises ValueError, with the number of the line, if a line is not JSON.
    """
    values = {record["step"]: record[name] for record in _records(folder) if record.get(name) is not None}
    steps = sorted(values)
    return steps, [values[step] for step in steps]


def resumptions(folder: str | Path) -> list[int]:
    """Return the steps from which a run was resumed, in ascending order."""
    return sorted({record["step"] for record in _records(folder) if record.get("event") == RESUMED})


def _records(folder: str | Path) -> list[dict[str, Any]]:
    path = Path(folder) / "metrics.jsonl"
    *lines, _ = path.read_text(encoding="utf-8").split("\n")  # the last part is empty, or a line that is being written
    records = []
    for number, line in enumerate(lines, 1):
        try:
            records.append(json.loads(line))
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: not valid JSON: {error}") from None
    return records
