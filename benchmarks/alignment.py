"""Time every alignment search that runs on this machine on equal batches, and check that the searches agree.

Prints one line of JSON with the median milliseconds of each backend. For the CPU backends with tensors on a GPU, the
times include the copies from and to the GPU. The exit code is 1 if two backends find different paths.

Examples:
  python benchmarks/alignment.py
  python benchmarks/alignment.py --device cpu --sizes 64x566x110
"""

import argparse
import importlib.util
import json
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cli
from monotonic_align import BACKENDS, extension, maximum_path

WARM_UP, REPEATS = 3, 20


def main(argv: Sequence[str] | None = None) -> None:
    """Run the program."""
    parser = cli.Parser(__doc__)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", default=device, help="cpu or cuda (default: cuda if there is a GPU)")
    sizes = [(64, 566, 110), (64, 850, 160)]
    text = "utterances x frames x tokens of each batch (default: 64x566x110 64x850x160)"
    parser.add_argument("--sizes", nargs="+", type=shape, default=sizes, metavar="BxFxT", help=text)
    args = parser.parse_args(argv)
    with cli.errors_in_one_line("benchmarks/alignment"):
        results = [measure(size, args.device) for size in args.sizes]
        on_gpu = args.device.startswith("cuda")
        device = torch.cuda.get_device_name(args.device) if on_gpu else f"cpu, {torch.get_num_threads()} threads"
        print(json.dumps({"device": device, "torch": torch.__version__, "results": results}))
    if not all(result["equal"] for result in results):
        raise SystemExit("alignment: the backends found different paths")


def shape(text: str) -> tuple[int, int, int]:
    """Parse a size such as `64x566x110`."""
    b, t_t, t_s = map(int, text.split("x"))
    if not 0 < t_s <= t_t or b < 1:
        raise argparse.ArgumentTypeError(f"{text}: a path needs at least one token, and a frame for each token")
    return b, t_t, t_s


def measure(size: tuple[int, int, int], device: str) -> dict[str, object]:
    """Return the times of every backend that runs on this machine, and whether their paths are equal, for one batch."""
    triton = device.startswith("cuda") and importlib.util.find_spec("triton") is not None
    runs = {"triton": triton, "cython": extension.load() is not None, "numpy": True}
    neg_cent, mask = ragged_batch(*size, device=device)
    paths = {name: maximum_path(neg_cent, mask, name) for name in BACKENDS if runs[name]}
    first, *rest = paths.values()
    return {
        "size": "x".join(map(str, size)),
        "equal": all(torch.equal(first, path) for path in rest),
        "ms": {name: milliseconds(neg_cent, mask, name) for name in paths},
    }


def ragged_batch(b: int, t_t: int, t_s: int, device: str) -> tuple[Tensor, Tensor]:
    """Return random scores and their mask, each `[b, t_t, t_s]`. Lengths fall from the full size to half of it."""
    fill = torch.linspace(1.0, 0.5, b)[:, None, None]
    mask = (torch.arange(t_t)[:, None] < (fill * t_t).round()) & (torch.arange(t_s) < (fill * t_s).round())
    values = torch.randn(b, t_t, t_s, generator=torch.Generator().manual_seed(0)) * 50 - 300
    return values.to(device), mask.float().to(device)


def milliseconds(neg_cent: Tensor, mask: Tensor, backend: str) -> float:
    """Return the median time of a search."""
    times = []
    for _ in range(WARM_UP + REPEATS):
        if neg_cent.is_cuda:
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            maximum_path(neg_cent, mask, backend)
            end.record()
            end.synchronize()
            times.append(start.elapsed_time(end))
        else:
            begin = time.perf_counter()
            maximum_path(neg_cent, mask, backend)
            times.append((time.perf_counter() - begin) * 1000)
    return round(statistics.median(times[WARM_UP:]), 3)


if __name__ == "__main__":
    main()
