"""What a run tells: train.log, TensorBoard, metrics.jsonl and a progress bar. Only the main process speaks."""

import json
import logging
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

import distributed

logger = logging.getLogger(__name__)


class Meter:
    """Running means of losses, kept on their device so that nobody waits for them."""

    def __init__(self):
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}

    def add(self, record: dict[str, Tensor]) -> None:
        """Take one step's losses, scalars on any device."""
        for name, value in record.items():
            value = value.detach().float()
            self.sums[name] = self.sums[name] + value if name in self.sums else value
            self.counts[name] = self.counts.get(name, 0) + 1

    def means(self) -> dict[str, float]:
        """The means over steps and processes since the last call. Waits for the device."""
        names = sorted(self.sums)
        values = torch.stack([self.sums[name] / self.counts[name] for name in names]) if names else torch.zeros(0)
        values = distributed.sum_over_ranks(values) / distributed.world_size()
        self.sums, self.counts = {}, {}
        return dict(zip(names, values.tolist()))


def set_up_logging(folder: Path) -> None:
    """Log to `train.log` in the run's folder and to the terminal; the other processes report warnings only."""
    root = logging.getLogger()
    root.setLevel(logging.INFO if distributed.is_main() else logging.WARNING)
    if distributed.is_main():
        file = logging.FileHandler(folder / "train.log", encoding="utf-8")
        file.setFormatter(logging.Formatter("%(asctime)s\t%(levelname)s\t%(message)s"))
        terminal = logging.StreamHandler(sys.stderr)
        terminal.setFormatter(logging.Formatter("%(message)s"))
        root.handlers = [file, terminal]


class Reporter:
    """Writes what the main process has to tell; in the other processes every method does nothing."""

    def __init__(self, folder: Path, step: int, total: int, began: float):
        self.active = distributed.is_main()
        self.began = began  # seconds since the epoch, earlier for what the run took before it was resumed
        if self.active:
            from torch.utils.tensorboard import SummaryWriter  # slow to import

            set_up = {"initial": step, "total": total, "unit": "step", "dynamic_ncols": True, "smoothing": 0.05}
            self.bar = tqdm(**set_up, mininterval=0.5, disable=None)
            self.redirect = logging_redirect_tqdm()
            self.redirect.__enter__()
            self.board = SummaryWriter(folder, purge_step=step + 1)
            self.metrics = folder / "metrics.jsonl"
            if self.metrics.exists():
                _cut_off_half_a_line(self.metrics)

    def elapsed(self) -> float:
        """Seconds that the run has taken."""
        return time.time() - self.began

    def step(self) -> None:
        """Move the progress bar by one step."""
        if self.active:
            self.bar.update()

    def show(self, epoch: int, values: dict[str, float]) -> None:
        """Put the main losses beside the progress bar."""
        if self.active:
            names = {"loss/g/mel": "mel", "loss/g/kl": "kl", "loss/g/dur": "dur", "loss/d/total": "d"}
            shown = {short: f"{values[name]:.2f}" for name, short in names.items() if name in values}
            self.bar.set_postfix(epoch=epoch + 1, **shown)

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Write numbers to TensorBoard, metrics.jsonl and train.log."""
        if not self.active:
            return
        for name, value in values.items():
            self.board.add_scalar(name, value, step)
        line = {"step": step, "elapsed": round(self.elapsed(), 1)} | {
            name: round(value, 6) for name, value in values.items()
        }
        with self.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        text = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
        logger.info("step %d: %s", step, text)

    def pictures(self, step: int, images: dict[str, np.ndarray]) -> None:
        """Write pictures `[height, width, 3]` to TensorBoard."""
        if self.active:
            for name, image in images.items():
                self.board.add_image(name, image, step, dataformats="HWC")

    def audio(self, step: int, clips: dict[str, np.ndarray], sampling_rate: int) -> None:
        """Write sounds `[samples]` in -1..1 to TensorBoard."""
        if self.active:
            for name, samples in clips.items():
                self.board.add_audio(name, samples[None], step, sampling_rate)

    def close(self) -> None:
        """Flush everything."""
        if self.active:
            self.bar.close()
            self.board.close()
            self.redirect.__exit__(None, None, None)


def metric_names(folder: str | Path) -> list[str]:
    """The names of the numbers in a run's metrics.jsonl, those of validation first."""
    names = {name for record in _records(folder) for name in record} - {"step", "elapsed"}
    return sorted(names, key=lambda name: (not name.startswith("validation"), not name.startswith("loss"), name))


def read_metrics(folder: str | Path, name: str) -> tuple[list[int], list[float]]:
    """Steps and values of one number in a run's metrics.jsonl; what a resumed run did again counts once."""
    values = {record["step"]: record[name] for record in _records(folder) if name in record}
    steps = sorted(values)
    return steps, [values[step] for step in steps]


def _records(folder: str | Path) -> list[dict]:
    path = Path(folder) / "metrics.jsonl"
    *lines, _ = path.read_text(encoding="utf-8").split("\n")  # after the last line's end: nothing, or half a line
    records = []
    for number, line in enumerate(lines, 1):
        try:
            records.append(json.loads(line))
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: no JSON: {error}") from None
    return records


def _cut_off_half_a_line(path: Path) -> None:
    """Take off what a process wrote of its last line when it was killed, or the disk was full."""
    with path.open("rb+") as file:
        file.truncate(file.read().rfind(b"\n") + 1)
