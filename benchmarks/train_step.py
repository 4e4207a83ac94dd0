"""Time the training step on random speech of LJ Speech's lengths; prints one JSON line.

    python benchmarks/train_step.py --config configs/vits2_ljs_nosdp.json --precision bf16

Every step gets a new batch. Frame lengths are uniform within the buckets of `BUCKETS`, taken in turn, with one token
for 5.4 frames. `--profile FILE` writes where the GPU's time goes instead.
"""

import argparse
import dataclasses
import json
import statistics
import sys
import time
from itertools import cycle, islice
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

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

    def steps(n: int) -> dict[str, torch.Tensor]:
        record = {}
        for batch in ahead(islice(endless, n), device):
            record = trainer.step(batch)
            trainer.position.step += 1
            if args.wait:
                _wait(device)
        return record

    steps(args.warmup)
    _wait(device)
    warmup = time.perf_counter() - began
    if args.profile:
        _profile(steps, len(BUCKETS), Path(args.profile), device)
        return
    rounds = []
    for _ in range(args.rounds):
        start = time.perf_counter()
        record = steps(len(BUCKETS))
        _wait(device)
        rounds.append((time.perf_counter() - start) / len(BUCKETS))
        assert all(value.isfinite() for value in record.values())
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


def _profile(steps, n: int, path: Path, device: torch.device) -> None:
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities, record_shapes=False) as profile:
        steps(n)
        _wait(device)
    if distributed.is_main():
        averages = profile.key_averages()
        path.write_text(averages.table(sort_by="self_cuda_time_total", row_limit=60, max_name_column_width=90))
        print(f"profile of {n} steps: {path}")


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
    parser.add_argument("--profile", metavar="FILE", help="write a table of kernels instead of timing")
    args = parser.parse_args()
    with errors_in_one_line("benchmarks/train_step"):
        distributed.launch(measure, args.device, args.processes, args)


if __name__ == "__main__":
    main()
