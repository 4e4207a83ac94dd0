"""Time the training step on random speech of LJ Speech's lengths; prints one JSON line.

    python benchmarks/train_step.py --config configs/vits2_ljs_nosdp.json --precision bf16

Frame lengths are uniform within the buckets of `BUCKETS`, taken in turn, with one token for 5.4 frames. `--batches`
different batches are used, one after the other. `--profile FILE` tells where the GPU's time goes too.
"""

import argparse
import dataclasses
import json
import re
import statistics
import sys
import time
from collections import Counter
from itertools import cycle, islice
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parent.parent))

import config as configs
import distributed
import fused
from commons import rounded_up
from data_utils import Batch, ahead
from inference import errors_in_one_line
from train import PAD_FRAMES, PAD_TOKENS
from trainer import Trainer, choose_precision

BUCKETS = [(150, 300), (300, 400), (400, 500), (500, 600), (600, 700), (700, 800), (700, 800), (800, 870)]
FRAMES_PER_TOKEN = 5.4

KINDS = {  # of kernels, with a pattern of their names
    "attention": "sdpa|flash|softmax|cudnn::fusion",
    "convolutions": "implicit_gemm|ImplicitGemm|cudnn|nhwc",
    "matrix products": "gemm|nvjet|cublas",
    "copies from the host": "Memcpy HtoD",
    "bias, activation, residual, mask": "^_bias_act",
    "gates and skips": "^_gate|^_residual_and_skip",
    "weight norm, cast and layout of weights": "^_weight",
    "bias gradients' sums": "^_added_up",
    "layer norms": "^_add_norm",
    "feature distances": "^_l1",
    "alignment search": "^_search",
    "optimizers and gradient norms": "multi_tensor_apply",
    "exchange between GPUs": "nccl",
    "dropout": "dropout|masked_scale",
    "copies and casts": "copy|[Mm]emcpy|CatArray|flip",
    "memory set": "[Mm]emset|FillFunctor",
    "gathering": "gather|scatter|sort",
    "spectra": "fft",
    "sums": "reduce_kernel",
    "other elementwise operations": "",
}


def random_batch(config, size: int, bucket: tuple[int, int], draws: torch.Generator) -> Batch:
    """A batch of noise with frame lengths in (low, high], padded as training pads."""
    low, high = bucket
    hop = config.data.hop_length
    frames = torch.randint(low + 1, high + 1, (size,), generator=draws)
    tokens = (frames / FRAMES_PER_TOKEN).long()
    longest = rounded_up(int(frames.max()), PAD_FRAMES)
    text = torch.randint(1, 178, (size, rounded_up(int(tokens.max()), PAD_TOKENS)), generator=draws)
    wav = 0.1 * torch.randn(size, 1, longest * hop, generator=draws)
    inside = torch.arange(longest * hop) < frames[:, None] * hop
    sid = torch.randint(0, config.data.n_speakers, (size,), generator=draws) if config.data.n_speakers else None
    text = text * (torch.arange(text.size(1)) < tokens[:, None])
    return Batch(text, tokens, wav * inside[:, None], frames * hop, sid, torch.arange(size))


def measure(device: torch.device, args: argparse.Namespace) -> None:
    """Time the steps in this process and print what came out."""
    config = configs.load(args.config)
    train = dataclasses.replace(
        config.train,
        precision=args.precision,
        batch_size=args.batch_size,
        accumulate=args.accumulate,
        recompute=args.recompute,
        cuda_graphs=not (args.plain or args.no_graphs),
        fused_kernels=not (args.plain or args.no_kernels),
    )
    config = configs.from_dict(dataclasses.asdict(dataclasses.replace(config, train=train)), "the command line")
    if args.sync_check and device.type != "cuda":
        raise ValueError("--sync-check needs a GPU")
    if args.profile and device.type != "cuda":
        raise ValueError("--profile needs a GPU")
    if min(args.batches, args.rounds) < 1:
        raise ValueError(f"--batches is {args.batches} and --rounds {args.rounds}; both may be 1 or more")
    torch.backends.cudnn.benchmark = True
    began = time.perf_counter()
    trainer = Trainer(config, device)
    draws = torch.Generator().manual_seed(distributed.rank())
    batches = [random_batch(config, args.batch_size, BUCKETS[i % len(BUCKETS)], draws) for i in range(args.batches)]
    if device.type == "cuda":
        batches = [batch.pin_memory() for batch in batches]

    endless = cycle(batches)
    total = args.warmup + args.rounds * len(BUCKETS)
    bar = tqdm(total=total, unit="step", leave=False, disable=None if distributed.is_main() else True)

    def steps(n: int) -> dict[str, torch.Tensor]:
        record = {}
        for batch in ahead(islice(endless, n), device):
            record = trainer.step(batch)
            trainer.position.step += 1
            bar.update()
            if args.wait:
                _wait(device)
        return record

    steps(args.warmup)
    _wait(device)
    warmup = time.perf_counter() - began
    rounds = []
    for _ in range(args.rounds):
        start = time.perf_counter()
        record = steps(len(BUCKETS))
        _wait(device)
        rounds.append((time.perf_counter() - start) / len(BUCKETS))
        assert all(value.isfinite() for value in record.values())
    bar.close()
    result = {
        "config": Path(args.config).stem,
        "precision": choose_precision(train, device),
        "cuda_graphs": trainer.graphs is not None,
        "fused_kernels": fused.takes(torch.zeros(1, device=device)),
        "batch": args.batch_size,
        "accumulate": train.accumulate,
        "recompute": train.recompute,
        "processes": distributed.world_size(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "seconds_a_step": round(statistics.median(rounds), 4),
        "seconds_a_step_min": round(min(rounds), 4),
        "warmup_seconds": round(warmup, 1),
    }
    if device.type == "cuda":
        result["peak_memory_gb"] = round(torch.cuda.max_memory_allocated(device) / 1e9, 2)
        result["reserved_memory_gb"] = round(torch.cuda.memory_reserved(device) / 1e9, 2)
    if args.sync_check:
        torch.cuda.set_sync_debug_mode("error")
        steps(50)
        torch.cuda.set_sync_debug_mode("default")
        result["host_syncs_in_50_steps"] = 0
    if args.profile:
        result |= _profile(steps, Path(args.profile), device)
    if args.flops:
        result |= _flops(trainer, steps, result["seconds_a_step"], device)
    if distributed.is_main():
        print(json.dumps(result), flush=True)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _flops(trainer: Trainer, steps, seconds: float, device: torch.device) -> dict[str, float]:
    """Operations of a step and, on a GPU, what share they are of what a large bf16 product gets done in that time."""
    trainer.graphs = None  # what is replayed is not counted
    with FlopCounterMode(display=False) as counter:
        steps(len(BUCKETS))
    tflop = counter.get_total_flops() / len(BUCKETS) / 1e12
    result = {"tflop_a_step": round(tflop, 4), "tflop_a_second": round(tflop / seconds, 3)}
    if device.type != "cuda":
        return result
    n, repeats = 8192, 10
    matrix = torch.randn(n, n, device=device, dtype=torch.bfloat16)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    for i in range(3 + repeats):
        if i == 3:
            start.record()
        matrix @ matrix
    end.record()
    end.synchronize()
    rate = 2 * n**3 * repeats / (start.elapsed_time(end) / 1000) / 1e12
    return result | {"matrix_tflop_a_second": round(rate), "share": round(tflop / seconds / rate, 3)}


def _profile(steps, path: Path, device: torch.device) -> dict[str, object]:
    """Write which kernels the GPU runs in a step, and return how long each kind of them keeps it busy."""
    n = len(BUCKETS)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        steps(n)
        _wait(device)
    times, launches, kinds = Counter(), Counter(), Counter()  # a step, in ms
    for event in profile.events():
        if event.device_type == torch.autograd.DeviceType.CUDA:
            times[event.name] += event.device_time_total / 1000 / n
            launches[event.name] += 1 / n
    lines = [f"{'ms a step':>9} {'launches':>8}  kernel"]
    for name, ms in times.most_common():
        kinds[kind_of(name)] += ms
        lines.append(f"{ms:9.3f} {launches[name]:8.1f}  {name}")
    if distributed.is_main():
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return {
        "profile": str(path),
        "gpu_ms_a_step": round(times.total(), 1),
        "launches_a_step": round(launches.total()),
        "ms_of": {kind: round(ms, 2) for kind, ms in kinds.most_common()},
    }


def kind_of(kernel: str) -> str:
    """What a kernel of this name does: the first of `KINDS` whose pattern it has."""
    return next(kind for kind, pattern in KINDS.items() if re.search(pattern, kernel))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/vits2_ljs_nosdp.json")
    parser.add_argument("--precision", choices=configs.PRECISIONS, default="auto")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--no-graphs", action="store_true", help="launch each operation alone")
    parser.add_argument("--no-kernels", action="store_true", help="PyTorch's own operations alone")
    parser.add_argument("--plain", action="store_true", help="both of these")
    parser.add_argument("--accumulate", type=int, default=1, help="parts that a batch is taken in")
    parser.add_argument("--recompute", action="store_true", help="compute inner activations again, not keep them")
    parser.add_argument("--batches", type=int, default=32, help="different batches, used in turn")
    parser.add_argument("--warmup", type=int, default=16, help="steps before the clock starts")
    parser.add_argument("--rounds", type=int, default=6, help="timed rounds of one step for each bucket")
    parser.add_argument("--wait", action="store_true", help="wait for the GPU after every step")
    parser.add_argument("--flops", action="store_true", help="count operations too, and their share of the chip's rate")
    parser.add_argument("--sync-check", action="store_true", help="fail if 50 steps wait for the GPU")
    parser.add_argument("--profile", metavar="FILE", help="write a table of kernels, and sum up what they do")
    args = parser.parse_args()
    with errors_in_one_line("benchmarks/train_step"):
        distributed.launch(measure, args.device, args.processes, args)


if __name__ == "__main__":
    main()
