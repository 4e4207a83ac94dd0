"""Train for a number of steps, measure the result by many validations, and print one line of JSON.

A single validation is not conclusive, because validations of neighboring steps differ by several per cent. Therefore
one in `--every` of the last `--last` steps is validated, and finally the mean of the weights over all of these steps,
which varies least. Nothing is saved.

Examples:
  python benchmarks/learning.py configs/my.json
  python benchmarks/learning.py configs/my.json --plain     without CUDA graphs and Triton kernels
"""

import argparse
import contextlib
import json
import statistics
import sys
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import torch
from torch.utils.data import DataLoader

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cli
import config as configs
import distributed
import train
from data_utils import ahead
from trainer import Trainer, choose_precision


def main(argv: Sequence[str] | None = None) -> None:
    """Run the program."""
    parser = cli.Parser(__doc__)
    parser.add_argument("config", metavar="JSON", help="config file, as for train.py")
    parser.add_argument("--steps", type=int, default=1000, metavar="N", help="training steps")
    parser.add_argument("--last", type=int, default=100, metavar="N", help="steps at the end that are measured")
    parser.add_argument("--every", type=int, default=10, metavar="N", help="steps between two validations")
    parser.add_argument("--seed", type=int, metavar="N", help="replaces train.seed of the config")
    parser.add_argument("--plain", action="store_true", help="on a GPU, train without CUDA graphs and Triton kernels")
    cli.add_device(parser, ("auto", "cpu", "cuda"))
    args = parser.parse_args(argv)
    with cli.errors_in_one_line("benchmarks/learning"):
        try:
            distributed.launch(measure, args.device, 1, args)
        finally:
            train.end_workers()


def measure(device: torch.device, args: argparse.Namespace) -> None:
    """Train in this process and print the result. Raises ValueError if the options contradict each other."""
    if not 1 <= args.every <= args.last <= args.steps:
        given = f"--every is {args.every}, --last {args.last}, --steps {args.steps}"
        raise ValueError(f"{given}; each must be 1 or more and at most as large as the next")
    config = train.with_speakers_of_lists(configs.load(args.config))
    if args.seed is not None:
        config = train.changed(config, "train", seed=args.seed)
    if args.plain:
        config = train.plain(config)
    torch.backends.cudnn.benchmark = device.type == "cuda"
    _, epochs, loader, validation = train.make_loaders(config, device)
    trainer = Trainer(config, device)
    began = time.perf_counter()
    training_mel, mels = learn(trainer, loader, validation, len(epochs.sampler), args)
    result = {
        "config": Path(args.config).stem,
        "seed": config.train.seed,
        "steps": args.steps,
        "precision": choose_precision(config.train, device),
        "plain": args.plain,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "seconds": round(time.perf_counter() - began, 1),
        "training_mel": round(training_mel / config.train.c_mel, 4),
        "validations": len(mels),
        "mel": round(statistics.mean(mels), 4),
        "mel_least": round(min(mels), 4),
        "mel_most": round(max(mels), 4),
        "mel_of_mean_weights": round(trainer.evaluate(validation)["mel"], 4),
    }
    print(json.dumps(result), flush=True)


def learn(
    trainer: Trainer, loader: DataLoader, validation: DataLoader, epoch_steps: int, args: argparse.Namespace
) -> tuple[float, list[float]]:
    """Train, and leave the mean of the weights over the last steps in the generator.

    Returns the mean mel loss of the last steps, and the mel L1 of each validation.
    """
    weights: list[torch.Tensor] = [*trainer.generator.weights]
    means = [torch.zeros_like(weight) for weight in weights]
    losses, mels = [], []
    with contextlib.closing(ahead(loader, trainer.device)) as batches:
        for step, batch in enumerate(islice(batches, args.steps), 1):
            loss = trainer.step(batch)["loss/g/mel"]
            trainer.position.step = step
            if step % epoch_steps == 0:
                trainer.set_epoch(step // epoch_steps)
            if step <= args.steps - args.last:
                continue
            losses.append(loss)
            with torch.no_grad():
                torch._foreach_lerp_(means, weights, 1 / len(losses))
            if len(losses) % args.every == 0:
                mels.append(trainer.evaluate(validation)["mel"])
    with torch.no_grad():
        torch._foreach_copy_(weights, means)
    return torch.stack(losses).mean().item(), mels


if __name__ == "__main__":
    main()
