"""The functions of `utils` in VITS and vits2_pytorch under their old names, for notebooks and programs of both."""

import dataclasses
import logging
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

import cli
import config
from audio import load_audio, read_header
from checkpoint import latest_checkpoint_path as latest_checkpoint_path
from checkpoint import load_checkpoint as load_checkpoint
from checkpoint import save_checkpoint as save_checkpoint
from checkpoint import step_of
from corpora.filelist import read_filelist, read_rows
from files import run_folder, write_text
from plots import plot_alignment_to_numpy as plot_alignment_to_numpy
from plots import plot_spectrogram_to_numpy as plot_spectrogram_to_numpy

PASSED = ("mas_noise_scale_initial", "noise_scale_delta")  # by programs of vits2_pytorch, beside `**hps.model`
KEPT = 3  # checkpoints of each kind that `remove_old_checkpoints` leaves
LOG_FORMAT = "%(asctime)s\t%(name)s\t%(levelname)s\t%(message)s"


class HParams(dict[str, Any]):
    """A config as VITS code reads it: `hps.data.hop_length`, `**hps.model`, `"key" in hps.train`.

    The keys in `PASSED` can be read, but they are not listed, so that `**hps.model` passes none of them twice.
    """

    passed: dict[str, Any]

    def __init__(self, **values: Any) -> None:
        listed = {key: value for key, value in values.items() if key not in PASSED}
        super().__init__({key: HParams(**v) if isinstance(v, dict) else v for key, v in listed.items()})
        object.__setattr__(self, "passed", {key: value for key, value in values.items() if key in PASSED})

    def __missing__(self, key: str) -> Any:
        return self.passed[key]

    def __getattr__(self, key: str) -> Any:
        if key not in self and key not in self.passed:
            raise AttributeError(f"there is no setting {key!r}{cli.did_you_mean(key, self)}")
        return self[key]

    def __setattr__(self, key: str, value: Any) -> None:
        self[key] = value


def get_hparams_from_file(config_path: str | Path) -> HParams:
    """Read and check a config file (see `config.load`) and return it with every default filled in."""
    return HParams(**dataclasses.asdict(config.load(config_path)))


def get_hparams_from_dir(model_dir: str | Path) -> HParams:
    """Return the config of a run's folder, with the folder as `model_dir`."""
    hps = get_hparams_from_file(Path(model_dir) / "config.json")
    hps.model_dir = str(model_dir)
    return hps


def get_hparams(init: bool = True) -> HParams:
    """Parse `-c CONFIG -m NAME`. With `init`, copy the config to `logs/NAME`; otherwise read the config there."""
    parser = cli.Parser("Parse the options of VITS's training programs.")
    parser.add_argument("-c", "--config", default="./configs/vits2_ljs_nosdp.json", metavar="JSON", help="config file")
    parser.add_argument("-m", "--model", required=True, metavar="NAME", help="name of the run in logs/")
    args = parser.parse_args()
    folder = run_folder(args.model)
    if init:
        folder.mkdir(parents=True, exist_ok=True)
        config.save(config.load(args.config), folder / "config.json")
    return get_hparams_from_dir(folder)


def get_logger(model_dir: str | Path, filename: str = "train.log") -> logging.Logger:
    """Return a logger, named after a run's folder, that writes to a file there."""
    folder = Path(model_dir)
    folder.mkdir(parents=True, exist_ok=True)
    logger = logging.getLogger(folder.name)
    logger.setLevel(logging.DEBUG)
    handler = logging.FileHandler(folder / filename)
    handler.setFormatter(logging.Formatter(LOG_FORMAT))
    logger.addHandler(handler)
    return logger


def check_git_hash(model_dir: str | Path) -> None:
    """Write the commit of this code to `githash` in a run's folder. If that names another commit, log a warning."""
    command = ["git", "rev-parse", "HEAD"]
    found = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    commit, file = found.stdout.strip(), Path(model_dir) / "githash"
    logger = logging.getLogger(__name__)
    if not commit:
        logger.warning("%s is not a git repository, so the commit is not checked", Path(__file__).parent)
    elif not file.exists():
        write_text(file, commit)
    elif (saved := file.read_text(encoding="utf-8").strip()) != commit:
        logger.warning("the run was started with the commit %s; this is %s", saved[:8], commit[:8])


def summarize(
    writer: Any,
    global_step: int,
    scalars: Mapping[str, Any] | None = None,
    histograms: Mapping[str, Any] | None = None,
    images: Mapping[str, Any] | None = None,
    audios: Mapping[str, Any] | None = None,
    audio_sampling_rate: int = 22050,
) -> None:
    """Write numbers, distributions, pictures `[height, width, 3]` and audio to TensorBoard's `SummaryWriter`."""
    for name, value in (scalars or {}).items():
        writer.add_scalar(name, value, global_step)
    for name, value in (histograms or {}).items():
        writer.add_histogram(name, value, global_step)
    for name, value in (images or {}).items():
        writer.add_image(name, value, global_step, dataformats="HWC")
    for name, value in (audios or {}).items():
        writer.add_audio(name, value, global_step, audio_sampling_rate)


def scan_checkpoint(dir_path: str | Path, regex: str) -> list[str] | None:
    """Return the checkpoints in a folder that match a pattern such as `G_*.pth`, by their steps, or None."""
    paths = sorted((path for path in Path(dir_path).glob(regex) if step_of(path) >= 0), key=step_of)
    return [str(path) for path in paths] or None


def remove_old_checkpoints(cp_dir: str | Path, prefixes: Sequence[str] = ("G_*.pth", "D_*.pth", "DUR_*.pth")) -> None:
    """Delete the checkpoints in a folder except for the three newest of each pattern."""
    for prefix in prefixes:
        for path in (scan_checkpoint(cp_dir, prefix) or [])[:-KEPT]:
            Path(path).unlink()


def load_filepaths_and_text(filename: str | Path, split: str = "|") -> list[list[str]]:
    """Return the columns of a file's lines. With the default separator, the file must be a valid filelist."""
    if split != "|":
        return [columns for _, columns in read_rows(filename, split)]
    return [[c.path, c.text] if c.speaker is None else [c.path, c.speaker, c.text] for c in read_filelist(filename)]


def load_wav_to_torch(full_path: str | Path) -> tuple[torch.Tensor, int]:
    """Return a recording at its own rate, float `[samples]` in VITS's scale of ±32768, and the rate in Hz."""
    _, rate = read_header(full_path)
    return torch.from_numpy(load_audio(full_path, rate)) * 32768.0, rate
