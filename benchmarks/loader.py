"""Time the data loader alone, from recordings to padded batches, and print one line of JSON.

FILELIST has lines `path|phonemes` or `path|speaker|phonemes`, of recordings or of shards. All recordings are read once
before the timed batches, so that the operating system has cached the files. The times and the memory until the batches
of the first epoch are known are measured as well; with --batches 0 nothing else is.

Examples:
  python benchmarks/loader.py FILELIST --workers 2
  python benchmarks/loader.py FILELIST --batches 0 --cache headers.npy
"""

import json
import sys
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import torch
from torch.utils.data import DataLoader

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cli
from config import DataConfig
from corpora.filelist import Filelist
from data_utils import Collate, DistributedBucketSampler, Epochs, SpeechDataset
from training.loaders import PAD_FRAMES, PAD_TOKENS


def main(argv: Sequence[str] | None = None) -> None:
    """Run the program."""
    parser = cli.Parser(__doc__)
    parser.add_argument("filelist", metavar="FILELIST", help="filelist with phonemes")
    parser.add_argument("--workers", type=int, default=8, metavar="N", help="processes that read recordings")
    parser.add_argument("--batches", type=int, default=100, metavar="N", help="timed batches")
    parser.add_argument("--batch-size", type=int, default=64, metavar="N", help="utterances per batch")
    parser.add_argument("--cache", metavar="NPY", help="file that keeps the headers of recordings (default: none)")
    args = parser.parse_args(argv)
    with cli.errors_in_one_line("benchmarks/loader"):
        began, cpu, before = time.perf_counter(), time.process_time(), megabytes()
        speakers = sorted(name for name in Filelist(args.filelist).speakers if name is not None)
        table = {name: i for i, name in enumerate(speakers)}
        data = DataConfig(add_blank=False, n_speakers=len(speakers), speakers=table)
        dataset = SpeechDataset(args.filelist, data, cache=args.cache)
        sampler = DistributedBucketSampler(dataset, args.batch_size, [0, *range(300, 1001, 100)])
        result = {
            "utterances": len(dataset),
            "seconds_to_open": round(time.perf_counter() - began, 1),
            "cpu_seconds_to_open": round(time.process_time() - cpu, 1),
            "megabytes_to_open": round(megabytes() - before),
        }
        if not args.batches:
            print(json.dumps(result))
            return
        loader = DataLoader(
            dataset,
            batch_sampler=Epochs(sampler),
            collate_fn=Collate(data.hop_length, PAD_FRAMES, PAD_TOKENS),
            num_workers=args.workers,
            generator=torch.Generator(),
        )
        batches = iter(loader)
        for _ in range(len(sampler) + 4 * args.workers):  # one epoch, and the batches that workers prepare in advance
            next(batches)
        start = time.perf_counter()
        rate = sum(len(batch.text) for batch in islice(batches, args.batches)) / (time.perf_counter() - start)
        print(json.dumps(result | {"workers": args.workers, "utterances_a_second": round(rate, 1)}))


def megabytes() -> float:
    """Return the private memory of this process, without files that it maps."""
    return int(Path("/proc/self/status").read_text("utf-8").partition("RssAnon:")[2].split()[0]) / 1000


if __name__ == "__main__":
    main()
