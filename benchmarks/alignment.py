"""Times every alignment search that runs here on the same ragged batches, and checks that they agree.

Prints one JSON line: median milliseconds by backend for each size; for the CPU backends on a GPU's tensors, the
transfers are part of it.
"""

import argparse
import importlib.util
import json
import statistics
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from monotonic_align import BACKENDS, extension, maximum_path

WARM_UP, REPEATS = 3, 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--sizes",
        nargs="+",
        type=shape,
        default=[(64, 566, 110), (64, 850, 160)],
        help="batch x frames x tokens: 64x566x110",
    )
    args = parser.parse_args()

    results = []
    for size in args.sizes:
        neg_cent, mask = ragged_batch(*size, device=args.device)
        paths = {name: maximum_path(neg_cent, mask, name) for name in available(args.device)}
        first, *rest = paths.values()
        results.append(
            {
                "size": "x".join(map(str, size)),
                "equal": all(torch.equal(first, path) for path in rest),
                "ms": {name: milliseconds(neg_cent, mask, name) for name in paths},
            }
        )
    on_gpu = args.device.startswith("cuda")
    device = torch.cuda.get_device_name(args.device) if on_gpu else f"cpu, {torch.get_num_threads()} threads"
    print(json.dumps({"device": device, "torch": torch.__version__, "results": results}))
    if not all(result["equal"] for result in results):
        raise SystemExit("alignment: the backends found different paths")


def shape(text: str) -> tuple[int, int, int]:
    """`64x566x110` as numbers."""
    b, t_t, t_s = map(int, text.split("x"))
    if not 0 < t_s <= t_t or b < 1:
        raise argparse.ArgumentTypeError(f"{text}: a path needs a token, and a frame for each token")
    return b, t_t, t_s


def available(device: str) -> list[str]:
    without = set()
    if not device.startswith("cuda") or importlib.util.find_spec("triton") is None:
        without.add("triton")
    if extension.load() is None:
        without.add("cython")
    return [name for name in BACKENDS if name not in without]


def ragged_batch(b: int, t_t: int, t_s: int, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Random scores and the mask [b, t_t, t_s]; the first utterance fills the grid, the last half of it."""
    fill = torch.linspace(1.0, 0.5, b)[:, None, None]
    mask = (torch.arange(t_t)[:, None] < (fill * t_t).round()) & (torch.arange(t_s) < (fill * t_s).round())
    values = torch.randn(b, t_t, t_s, generator=torch.Generator().manual_seed(0)) * 50 - 300
    return values.to(device), mask.float().to(device)


def milliseconds(neg_cent: torch.Tensor, mask: torch.Tensor, backend: str) -> float:
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
