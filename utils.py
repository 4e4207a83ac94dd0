"""The functions of VITS's `utils` under their old names, for notebooks of VITS."""

import dataclasses
from pathlib import Path
from typing import Any

import torch

import cli
import config
from audio import load_audio, read_header
from checkpoint import latest_checkpoint_path as latest_checkpoint_path
from checkpoint import load_checkpoint as load_checkpoint
from checkpoint import save_checkpoint as save_checkpoint
from corpora.filelist import read_filelist, read_rows
from files import run_folder
from plots import plot_alignment_to_numpy as plot_alignment_to_numpy
from plots import plot_spectrogram_to_numpy as plot_spectrogram_to_numpy


class HParams(dict[str, Any]):
    """A config as VITS code reads it: `hps.data.hop_length`, `**hps.model`, `"key" in hps.train`."""

    def __init__(self, **values: Any) -> None:
        super().__init__({key: HParams(**v) if isinstance(v, dict) else v for key, v in values.items()})

    def __getattr__(self, key: str) -> Any:
        if key not in self:
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


def load_filepaths_and_text(filename: str | Path, split: str = "|") -> list[list[str]]:
    """Return the columns of a file's lines. With the default separator, the file must be a valid filelist."""
    if split != "|":
        return [columns for _, columns in read_rows(filename, split)]
    return [[c.path, c.text] if c.speaker is None else [c.path, c.speaker, c.text] for c in read_filelist(filename)]


def load_wav_to_torch(full_path: str | Path) -> tuple[torch.Tensor, int]:
    """Return a recording at its own rate, float `[samples]` in VITS's scale of ±32768, and the rate in Hz."""
    _, rate = read_header(full_path)
    return torch.from_numpy(load_audio(full_path, rate)) * 32768.0, rate
