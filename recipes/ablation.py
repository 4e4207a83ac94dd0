"""Train and evaluate VITS, VITS2, and VITS2 without each of its parts, all with equal steps.

A row is a variant of the base config; `ROWS` lists them. Each row and seed trains in logs/NAME/ROW-SEED, where NAME is
the name of DIR, speaks the test lines to DIR/ROW-SEED, and is scored there by evaluate.py. The same command continues
after an interruption: finished parts are skipped, and runs resume. Without the packages of `make evaluate-setup`, use
`--stages train speak` and score on another machine.

Examples:
  python recipes/ablation.py TEST_LIST --output ablation
  python recipes/ablation.py TEST_LIST --output ablation --rows vits vits2 --seeds 1 --stages train speak
  python recipes/ablation.py TEST_LIST --output ablation --stages score table
"""

import argparse
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cli
import config as configs
import train
from evaluation import report, takes
from files import run_folder

REPOSITORY = Path(__file__).resolve().parents[1]
STAGES = ("train", "speak", "score", "table")
NO_ADVERSARY = {"use_duration_discriminator": False, "use_duration_noise": False, "duration_p_dropout": 0.5}
LINEAR = {"use_mel_posterior_encoder": False}
FLOWS = [name for name in configs.CHOICES["model.transformer_flow_type"] if name != "pre_conv"]
ROWS: dict[str, dict[str, dict[str, Any]]] = {  # changes of the base config, which is VITS2, by section
    "vits2": {},
    "vits": {
        "data": {"add_blank": True, **LINEAR},
        "model": {
            "use_sdp": True,
            "use_transformer_flows": False,
            "use_noise_scaled_mas": False,
            **NO_ADVERSARY,
            **LINEAR,
        },
    },
    "no_duration_adversary": {"model": NO_ADVERSARY},
    "no_alignment_noise": {"model": {"use_noise_scaled_mas": False}},
    "no_transformer_flow": {"model": {"use_transformer_flows": False}},
    "no_mel_posterior": {"data": LINEAR, "model": LINEAR},
    "stochastic_durations": {"model": {"use_sdp": True, **NO_ADVERSARY}},
    "blanks": {"data": {"add_blank": True}},
    **{f"flow_{name}": {"model": {"transformer_flow_type": name}} for name in FLOWS},
}
SPEAKER_ROWS = {  # on the lists of --two-speakers
    "two_speakers": {"data": {"n_speakers": 2}, "model": {"gin_channels": 256, "use_spk_conditioned_encoder": True}},
    "no_conditioned_encoder": {"data": {"n_speakers": 2}, "model": {"gin_channels": 256}},
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program with the given arguments, by default those of the command line."""
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    add("filelist", metavar="TEST_LIST", help="lines path|text of test sentences, plain text")
    add("-c", "--config", metavar="JSON", default=str(REPOSITORY / "configs/ablation.json"), help="the base, VITS2")
    add("--output", required=True, metavar="DIR", help="folder of runs, takes and reports")
    add("--rows", nargs="+", choices=[*ROWS, *SPEAKER_ROWS], default=list(ROWS), metavar="ROW", help="rows to train")
    add("--seeds", nargs="+", type=int, default=[1, 2], metavar="N", help="seeds of each row")
    add("--steps", type=int, default=6000, metavar="N", help="training steps of each row")
    add("--two-speakers", nargs=3, metavar=("TRAIN", "VALIDATION", "TEST_LIST"), help="filelists of the speaker rows")
    add("--stages", nargs="+", choices=STAGES, default=STAGES, metavar="STAGE", help="what to do")
    add("--gpus", type=int, default=1, metavar="N", help="GPUs to use")
    add("--runs-per-gpu", type=int, default=1, metavar="N", help="runs that share a GPU")
    args = parser.parse_args(arguments)
    with cli.errors_in_one_line("ablation"):
        if wrong := [row for row in args.rows if row in SPEAKER_ROWS and not args.two_speakers]:
            raise ValueError(f"the row {wrong[0]} needs the filelists of two speakers: give --two-speakers")
        jobs = [Job(args, row, seed) for seed in args.seeds for row in args.rows]
        gpus = visible_gpus(args.gpus)
        if "train" in args.stages or "speak" in args.stages:
            for filelist in dict.fromkeys(job.filelist for job in jobs):  # errors before hours of work
                takes.check_audio(takes.recordings(filelist))
            on_gpus(jobs, gpus, args.runs_per_gpu)
        for job in jobs if "score" in args.stages else []:
            job.score()
        if "table" in args.stages:
            reports = [str(job.folder) for job in jobs if (job.folder / takes.JSON).exists()]
            if not reports:
                raise ValueError("no row has been scored yet")
            run("evaluate.py", "--compare", *reports, "--output", str(Path(args.output) / "table.md"))


class Job:
    """One row with one seed."""

    def __init__(self, args: argparse.Namespace, row: str, seed: int):
        self.args, self.row, self.seed = args, row, seed
        self.folder = Path(args.output) / f"{row}-{seed}"
        self.name = f"{Path(args.output).name}/{row}-{seed}"  # of the run in logs/
        self.final = run_folder(self.name) / f"G_{args.steps}.pth"
        self.filelist = args.two_speakers[2] if row in SPEAKER_ROWS else args.filelist

    def write_config(self) -> Path:
        """Write the config of this row and return its path."""
        config = configs.load(self.args.config)
        for section, values in (ROWS | SPEAKER_ROWS)[self.row].items():
            config = train.changed(config, section, **values)
        if self.row in SPEAKER_ROWS:
            lists = dict(zip(("training_files", "validation_files"), self.args.two_speakers))
            config = train.changed(config, "data", **lists)
        path = self.folder / "config.json"
        self.folder.mkdir(parents=True, exist_ok=True)
        configs.save(train.changed(config, "train", seed=self.seed), path)
        return path

    def train_and_speak(self, gpu: str) -> None:
        """Train and speak on one GPU, as far as this is not done. Raises ValueError if training was stopped."""
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": gpu}
        if "train" in self.args.stages and not self.final.exists():
            options = ["-c", str(self.write_config()), "-m", self.name, "--max-steps", str(self.args.steps)]
            run("train.py", *options, environment=environment)
            if not self.final.exists():
                raise ValueError(f"training ended without {self.final}: if it was stopped, the same command resumes it")
        if "speak" in self.args.stages and not self.is_spoken():
            options = ["-m", str(self.final), "--output", str(self.folder), "--speak-only"]
            run("evaluate.py", self.filelist, *options, environment=environment)

    def is_spoken(self) -> bool:
        """Return whether the final checkpoint has spoken the lines of the test list."""
        path = self.folder / takes.FACTS
        if not path.exists():
            return False
        spoken = takes.read_json(path)
        lines = [(line.name, line.text) for line in takes.recordings(self.filelist)]
        same_voice = (spoken.get("model"), spoken.get("step")) == (str(self.final), self.args.steps)
        return same_voice and report.texts(spoken) == lines

    def is_scored(self) -> bool:
        """Return whether the report is of the takes."""
        if not (self.folder / takes.JSON).exists():
            return False
        scored, spoken = takes.read_json(self.folder / takes.JSON), takes.read_json(self.folder / takes.FACTS)
        details = scored.get("details", {})
        same_voice = all(details.get(key) == spoken.get(key) for key in ("model", "step"))
        return same_voice and report.texts(scored) == report.texts(spoken)

    def score(self) -> None:
        """Score what the row has spoken, if that is not done."""
        if (self.folder / takes.FACTS).exists() and not self.is_scored():
            wavs = str(self.folder / "wavs")
            run("evaluate.py", self.filelist, "--wavs", wavs, "--output", str(self.folder))


def visible_gpus(count: int) -> list[str]:
    """Return the first GPUs of CUDA_VISIBLE_DEVICES, of all GPUs if it is not set. Raises ValueError for too few."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = [str(i) for i in range(count)] if visible is None else visible.split(",")
    if count > len(gpus):
        raise ValueError(f"--gpus is {count}, and CUDA_VISIBLE_DEVICES lists {len(gpus)}: {visible}")
    return gpus[:count]


def on_gpus(jobs: Sequence[Job], gpus: Sequence[str], runs_per_gpu: int) -> None:
    """Train and speak all jobs, `runs_per_gpu` at a time on each GPU.

    Raises ValueError if one fails. No other job starts then, and those that run are finished.
    """
    free: queue.Queue[str] = queue.Queue()
    for gpu in [*gpus] * runs_per_gpu:
        free.put(gpu)
    failed = threading.Event()

    def work(job: Job) -> None:
        gpu = free.get()
        try:
            if not failed.is_set():
                job.train_and_speak(gpu)
        except BaseException:
            failed.set()
            raise
        finally:
            free.put(gpu)

    with ThreadPoolExecutor(len(gpus) * runs_per_gpu) as pool:
        futures = [pool.submit(work, job) for job in jobs]
        try:
            for future in futures:
                future.result()
        except BaseException:
            failed.set()
            raise


def run(program: str, *arguments: str, environment: dict[str, str] | None = None) -> None:
    """Run a program of the repository. Raises ValueError with its command if it fails."""
    command = [sys.executable, str(REPOSITORY / program), *arguments]
    if code := subprocess.run(command, env=environment).returncode:
        raise ValueError(f"exit code {code} of: {' '.join(command)}")


if __name__ == "__main__":
    main()
