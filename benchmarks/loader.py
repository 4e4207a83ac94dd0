"""Time the loader alone: recordings to padded batches; prints one JSON line.

    python benchmarks/loader.py FILELIST --workers 2

FILELIST holds lines `path|phonemes` or `path|speaker|phonemes`. All are read once before the clock starts, to fill the
system's file cache.
"""

import argparse
import json
import sys
import time
from itertools import islice
from pathlib import Path

import torch
from torch.utils.data import DataLoader

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from config import DataConfig
from corpus import read_filelist
from data_utils import Collate, DistributedBucketSampler, Epochs, SpeechDataset
from inference import errors_in_one_line
from train import PAD_FRAMES, PAD_TOKENS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("filelist")
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--batches", type=int, default=100, help="that are timed")
    parser.add_argument("--batch-size", type=int, default=64)
    args = parser.parse_args()
    with errors_in_one_line("benchmarks/loader"):
        print(json.dumps(measure(args)))


def measure(args: argparse.Namespace) -> dict:
    """What the command line asks for."""
    names = sorted({clip.speaker for clip in read_filelist(args.filelist)} - {None})
    data = DataConfig(add_blank=False, n_speakers=len(names), speakers={name: i for i, name in enumerate(names)})
    dataset = SpeechDataset(args.filelist, data)
    sampler = DistributedBucketSampler(dataset, args.batch_size, [0, *range(300, 1001, 100)])
    loader = DataLoader(
        dataset,
        batch_sampler=Epochs(sampler),
        collate_fn=Collate(data.hop_length, PAD_FRAMES, PAD_TOKENS),
        num_workers=args.workers,
        generator=torch.Generator(),
    )
    # all files once, so that the system holds them, and what the workers have ready when the clock starts
    batches = iter(loader)
    for _ in range(len(sampler) + 4 * args.workers):
        next(batches)
    start = time.perf_counter()
    utterances = sum(len(batch.text) for batch in islice(batches, args.batches))
    rate = utterances / (time.perf_counter() - start)
    return {"workers": args.workers, "utterances_a_second": round(rate, 1)}


if __name__ == "__main__":
    main()
