"""Merge the filelists of several corpora into those of one voice with several speakers."""

from collections.abc import Mapping
from pathlib import Path

from corpora.filelist import Clip, read_filelist

SPLITS = ("train", "val", "test")


def merge(corpora: Mapping[str, Path], repeats: Mapping[str, int]) -> dict[str, list[Clip]]:
    """Return the clips of all corpora by split, each with the name of its corpus as the speaker.

    Args: `corpora`, for each speaker a folder with train.txt, val.txt and test.txt, or the start of the names of lists
    that `make_filelists.py` wrote, such as filelists/ljs; the lists have plain text. `repeats`, how often the training
    clips of a speaker occur (default: once). Raises ValueError for a repeat of another speaker or below 1, a speaker
    without a training list, and as `read_filelist`.
    """
    for speaker, times in repeats.items():
        if speaker not in corpora:
            raise ValueError(f"there is no speaker {speaker!r} to repeat; the speakers are {', '.join(corpora)}")
        if times < 1:
            raise ValueError(f"{speaker} is repeated {times} times; it must be 1 or more")
    splits: dict[str, list[Clip]] = {split: [] for split in SPLITS}
    for speaker, source in corpora.items():
        for split, clips in splits.items():
            path = list_of(source, split)
            if path.is_file():
                times = repeats.get(speaker, 1) if split == "train" else 1
                clips += [clip._replace(speaker=speaker) for clip in read_filelist(path)] * times
            elif split == "train":
                raise ValueError(f"{speaker} has no training list: there is no file {path}")
    return splits


def list_of(source: Path, split: str) -> Path:
    """Return the path of a corpus's list: FOLDER/SPLIT.txt, or START_audio_text_SPLIT_filelist.txt."""
    return source / f"{split}.txt" if source.is_dir() else Path(f"{source}_audio_text_{split}_filelist.txt")
