"""Time the training step on random speech with the lengths of LJ Speech, and print one line of JSON.

The frame lengths of a batch are uniform within one of `BUCKETS`, which are used in turn, and a token spans 5.4 frames.
`--batches` different batches are used, one after the other.

Examples:
  python benchmarks/train_step.py --precision bf16 --batches 8
  python benchmarks/train_step.py --config configs/vits2_ljs_base.json --precision bf16 --batches 8
  python benchmarks/train_step.py --precision bf16 --batches 8 --profile kernels.txt
"""

import argparse
import dataclasses
import json
import re
import statistics
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import cycle, islice
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.benchmark import Timer, timer
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parent.parent))

import cli
import conditions
import config as configs
import distributed
from commons import rounded_up
from config import Config
from data_utils import Batch, ahead
from kernels import fused
from train import changed
from trainer import Trainer, choose_precision
from training.loaders import PAD_FRAMES, PAD_TOKENS

BUCKETS = [(150, 300), (300, 400), (400, 500), (500, 600), (600, 700), (700, 800), (700, 800), (800, 870)]
FRAMES_PER_TOKEN = 5.4
N_SYMBOLS = 178
CHECKED_STEPS = 50  # of --sync-check

KINDS = {  # of kernels, with a pattern of their names
    "attention": "sdpa|flash|softmax|cudnn::fusion",
    "convolutions": "implicit_gemm|ImplicitGemm|cudnn|nhwc",
    "matrix products": "gemm|nvjet|cublas",
    "copies from the host": "Memcpy HtoD",
    "bias, activation, residual, mask": "^_bias_act",
    "gates and skips": "^_gate|^_residual_and_skip",
    "weight norm, cast and layout of weights": "^_weight",
    "bias gradients' sums": "^_column_sums",
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

Steps = Callable[[int], dict[str, Tensor]]  # does a number of training steps and returns the record of the last one


def main(argv: Sequence[str] | None = None) -> None:
    """Run the program."""
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    add("--config", default="configs/vits2_ljs_nosdp.json", metavar="JSON", help="config file")
    add("--precision", choices=configs.PRECISIONS, default="auto", help="replaces train.precision of the config")
    add("--batch-size", type=int, default=64, metavar="N", help="utterances per step and process")
    cli.add_device(parser, ("auto", "cpu", "cuda"))
    add("--processes", type=int, default=1, metavar="N", help="processes, one per GPU")
    add("--no-graphs", action="store_true", help="on a GPU, launch every operation separately")
    add("--no-kernels", action="store_true", help="on a GPU, use PyTorch's own operations only")
    add("--plain", action="store_true", help="both --no-graphs and --no-kernels")
    add("--accumulate", type=int, default=1, metavar="N", help="parts in which each batch is processed")
    add("--recompute", action="store_true", help="recompute inner activations in the backward pass")
    add("--batches", type=int, default=32, metavar="N", help="different batches, used in turn")
    add("--warmup", type=int, default=16, metavar="N", help="steps before the timed ones")
    add("--rounds", type=int, default=6, metavar="N", help=f"timed rounds of {len(BUCKETS)} steps, one per bucket")
    add("--wait", action="store_true", help="wait for the GPU after every step")
    add("--flops", action="store_true", help="also count operations, and compare with the rate of a matrix product")
    add("--sync-check", action="store_true", help=f"fail if the host waits for the GPU in {CHECKED_STEPS} steps")
    add("--profile", metavar="FILE", help="write a table of kernels to FILE and summarize the work of the GPU")
    args = parser.parse_args(argv)
    with cli.errors_in_one_line("benchmarks/train_step"):
        distributed.launch(measure, args.device, args.processes, args)


def measure(device: torch.device, args: argparse.Namespace) -> None:
    """Time the steps in this process and print the result.

    Raises ValueError if the options contradict each other, the config or the device.
    """
    config = requested_config(args)
    for option in ("sync_check", "profile"):
        if getattr(args, option) and device.type != "cuda":
            raise ValueError(f"--{option.replace('_', '-')} needs a GPU")
    if min(args.batches, args.rounds) < 1:
        raise ValueError(f"--batches is {args.batches} and --rounds {args.rounds}; both must be 1 or more")
    torch.backends.cudnn.benchmark = True
    began = timer()
    trainer = Trainer(config, device)
    total = args.warmup + args.rounds * len(BUCKETS)
    with tqdm(total=total, unit="step", leave=False, disable=None if distributed.is_main() else True) as bar:
        steps = endless_steps(trainer, args.batches, bar, args.wait)
        steps(args.warmup)
        warmup = timer() - began
        rounds = []  # mean seconds of a step
        for _ in range(args.rounds):
            start = timer()  # waits for the GPU
            record = steps(len(BUCKETS))
            rounds.append((timer() - start) / len(BUCKETS))
            assert all(value.isfinite() for value in record.values())
    result = {
        "config": Path(args.config).stem,
        "precision": choose_precision(config.train, device),
        "cuda_graphs": trainer.graphs is not None,
        "fused_kernels": config.train.fused_kernels and fused.supports(torch.zeros(1, device=device)),
        "batch": args.batch_size,
        "accumulate": config.train.accumulate,
        "recompute": config.train.recompute,
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
        steps(CHECKED_STEPS)
        torch.cuda.set_sync_debug_mode("default")
        result["host_syncs_in_50_steps"] = 0
    if args.profile:
        result |= profile_of(steps, Path(args.profile))
    if args.flops:
        result |= flops_of(trainer, steps, result["seconds_a_step"], device)
    if distributed.is_main():
        print(json.dumps(result), flush=True)


def requested_config(args: argparse.Namespace) -> Config:
    """Return the config with the changes of the command line. Raises ValueError if they contradict it."""
    config = changed(
        configs.load(args.config),
        "train",
        precision=args.precision,
        batch_size=args.batch_size,
        accumulate=args.accumulate,
        recompute=args.recompute,
        cuda_graphs=not (args.plain or args.no_graphs),
        fused_kernels=not (args.plain or args.no_kernels),
    )
    return configs.from_dict(dataclasses.asdict(config), "the command line")


def random_batch(config: Config, low: int, high: int, draws: torch.Generator) -> Batch:
    """Return a batch of noise with frame lengths in (low, high], padded as in training on a GPU."""
    size, hop = config.train.batch_size, config.data.hop_length
    frames = torch.randint(low + 1, high + 1, (size,), generator=draws)
    tokens = (frames / FRAMES_PER_TOKEN).long()
    longest = rounded_up(int(frames.max()), PAD_FRAMES)
    text = torch.randint(1, N_SYMBOLS, (size, rounded_up(int(tokens.max()), PAD_TOKENS)), generator=draws)
    wav = 0.1 * torch.randn(size, 1, longest * hop, generator=draws)
    inside = torch.arange(longest * hop) < frames[:, None] * hop
    ids = {name: torch.randint(0, n, (size,), generator=draws) for name, n in conditions.sizes(config.data).items()}
    text = text * (torch.arange(text.size(1)) < tokens[:, None])
    return Batch(text, tokens, wav * inside[:, None], frames * hop, ids, torch.arange(size))


def endless_steps(trainer: Trainer, count: int, bar: tqdm, wait_always: bool) -> Steps:
    """Return a function that does n training steps on `count` batches of noise, used in turn across its calls."""
    draws = torch.Generator().manual_seed(distributed.rank())
    batches = [random_batch(trainer.config, *BUCKETS[i % len(BUCKETS)], draws) for i in range(count)]
    endless = cycle([batch.pin_memory() for batch in batches] if trainer.device.type == "cuda" else batches)

    def steps(n: int) -> dict[str, Tensor]:
        record: dict[str, Tensor] = {}
        for batch in ahead(islice(endless, n), trainer.device):
            record = trainer.step(batch)
            trainer.position.step += 1
            bar.update()
            if wait_always and trainer.device.type == "cuda":
                torch.cuda.synchronize(trainer.device)
        return record

    return steps


def flops_of(trainer: Trainer, steps: Steps, seconds: float, device: torch.device) -> dict[str, float]:
    """Return the operations of a step and, on a GPU, their rate as a share of that of a large bf16 matrix product."""
    trainer.graphs = None  # replayed operations are not counted
    with FlopCounterMode(display=False) as counter:
        steps(len(BUCKETS))
    tflop = counter.get_total_flops() / len(BUCKETS) / 1e12
    result = {"tflop_a_step": round(tflop, 4), "tflop_a_second": round(tflop / seconds, 3)}
    if device.type != "cuda":
        return result
    n = 8192
    matrix = torch.randn(n, n, device=device, dtype=torch.bfloat16)
    rate = 2 * n**3 / Timer("matrix @ matrix", globals={"matrix": matrix}).timeit(10).mean / 1e12
    return result | {"matrix_tflop_a_second": round(rate), "share": round(tflop / seconds / rate, 3)}


def profile_of(steps: Steps, path: Path) -> dict[str, object]:
    """Write the time of every kernel of a step to a file, and return the time of each kind of kernel."""
    n = len(BUCKETS)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        steps(n)
    kernels = [kernel for kernel in profile.key_averages() if kernel.device_type == torch.autograd.DeviceType.CUDA]
    kernels.sort(key=lambda kernel: kernel.device_time_total, reverse=True)
    lines = [f"{'ms a step':>9} {'launches':>8}  kernel"]
    lines += [f"{kernel.device_time_total / 1000 / n:9.3f} {kernel.count / n:8.1f}  {kernel.key}" for kernel in kernels]
    if distributed.is_main():
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    kinds: dict[str, float] = defaultdict(float)  # in ms per step
    for kernel in kernels:
        kinds[kind_of(kernel.key)] += kernel.device_time_total / 1000 / n
    return {
        "profile": str(path),
        "gpu_ms_a_step": round(sum(kinds.values()), 1),
        "launches_a_step": round(sum(kernel.count for kernel in kernels) / n),
        "ms_of": {kind: round(kinds[kind], 2) for kind in sorted(kinds, key=kinds.__getitem__, reverse=True)},
    }


def kind_of(kernel: str) -> str:
    """Return the kind of a kernel: the first of `KINDS` whose pattern its name matches."""
    return next(kind for kind, pattern in KINDS.items() if re.search(pattern, kernel))


if __name__ == "__main__":
    main()
