"""Doors for VITS notebooks: the functions that VITS keeps in `utils`, from the files where they live here."""

import argparse
import dataclasses
from pathlib import Path

import torch

import config as _config
from audio import load_audio, read_header
from checkpoint import latest_checkpoint_path, load_checkpoint, save_checkpoint
from corpus import read_filelist
from files import run_folder
from plots import plot_alignment_to_numpy, plot_spectrogram_to_numpy

__all__ = [
    "HParams",
    "get_hparams",
    "get_hparams_from_dir",
    "get_hparams_from_file",
    "latest_checkpoint_path",
    "load_checkpoint",
    "load_filepaths_and_text",
    "load_wav_to_torch",
    "plot_alignment_to_numpy",
    "plot_spectrogram_to_numpy",
    "save_checkpoint",
]


class HParams:
    """A config as VITS code reads it: `hps.data.hop_length`, `**hps.model`, `"key" in hps.train`."""

    def __init__(self, **values):
        for key, value in values.items():
            setattr(self, key, HParams(**value) if isinstance(value, dict) else value)

    def keys(self):
        return self.__dict__.keys()

    def items(self):
        return self.__dict__.items()

    def values(self):
        return self.__dict__.values()

    def get(self, key, default=None):
        return self.__dict__.get(key, default)

    def __iter__(self):
        return iter(self.__dict__)

    def __len__(self):
        return len(self.__dict__)

    def __getitem__(self, key):
        return getattr(self, key)

    def __setitem__(self, key, value):
        setattr(self, key, value)

    def __contains__(self, key):
        return key in self.__dict__

    def __repr__(self):
        return repr(self.__dict__)


def get_hparams_from_file(config_path) -> HParams:
    """Read and check a config file (see `config.load`) and return it with every default filled in."""
    return HParams(**dataclasses.asdict(_config.load(config_path)))


def get_hparams_from_dir(model_dir) -> HParams:
    """The config of a run's folder, with the folder as `model_dir`."""
    hps = get_hparams_from_file(Path(model_dir) / "config.json")
    hps.model_dir = str(model_dir)
    return hps


def get_hparams(init: bool = True) -> HParams:
    """Parse `-c CONFIG -m NAME`; with `init`, copy the config into `logs/NAME`, else read the one that is there."""
    parser = argparse.ArgumentParser()
    parser.add_argument("-c", "--config", default="./configs/vits2_ljs_nosdp.json", help="JSON file")
    parser.add_argument("-m", "--model", required=True, help="name of the run in logs/")
    args = parser.parse_args()
    folder = run_folder(args.model)
    if init:
        folder.mkdir(parents=True, exist_ok=True)
        _config.save(_config.load(args.config), folder / "config.json")
    return get_hparams_from_dir(folder)


def load_filepaths_and_text(filename, split: str = "|") -> list[list[str]]:
    """The columns of a filelist's lines; with the split of filelists, checked by `corpus.read_filelist`."""
    if split != "|":
        lines = Path(filename).read_text(encoding="utf-8-sig").splitlines()
        return [line.split(split) for line in lines if line.strip()]
    clips = read_filelist(filename)
    return [[c.path, c.text] if c.speaker is None else [c.path, c.speaker, c.text] for c in clips]


def load_wav_to_torch(full_path) -> tuple[torch.Tensor, int]:
    """A recording at its own rate as VITS scales it, float `[samples]` in ±32768, and the rate in Hz."""
    rate = read_header(full_path).rate
    return torch.from_numpy(load_audio(full_path, rate)) * 32768.0, rate
