"""Train for some steps, and tell by many validations what was learnt; prints one JSON line.

    python benchmarks/learning.py configs/my.json
    python benchmarks/learning.py configs/my.json --plain    # the same without CUDA graphs and kernels of our own

One validation says little: those of neighbouring steps differ by several per cent. So of the last `--last` steps one in
`--every` is validated, and in the end the mean of the weights over all of them, which varies least. Nothing is saved.
"""

import argparse
import contextlib
import dataclasses
import json
import statistics
import sys
import time
from itertools import islice
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import config as configs
import distributed
import train
from data_utils import ahead
from inference import errors_in_one_line
from trainer import Trainer, choose_precision


def measure(device: torch.device, args: argparse.Namespace) -> None:
    """Train as the command line says, and print what came out."""
    if not 1 <= args.every <= args.last <= args.steps:
        asked = f"--every is {args.every}, --last {args.last}, --steps {args.steps}"
        raise ValueError(f"{asked}; each may be 1 or more, and no larger than the next")
    config = train.with_speakers_of_lists(configs.load(args.config))
    if args.seed is not None:
        config = dataclasses.replace(config, train=dataclasses.replace(config.train, seed=args.seed))
    if args.plain:
        config = train.plain(config)
    torch.backends.cudnn.benchmark = device.type == "cuda"
    _, epochs, loader, validation = train.make_loaders(config, device)
    trainer = Trainer(config, device)
    weights = trainer.generator.weights
    means = [torch.zeros_like(weight) for weight in weights]
    mels, validations = [], []
    began = time.perf_counter()
    with contextlib.closing(ahead(loader, device)) as batches:
        for step, batch in enumerate(islice(batches, args.steps), 1):
            mel = trainer.step(batch)["loss/g/mel"]
            trainer.position.step = step
            if step % len(epochs.sampler) == 0:
                trainer.set_epoch(step // len(epochs.sampler))
            if step <= args.steps - args.last:
                continue
            mels.append(mel)
            with torch.no_grad():
                torch._foreach_lerp_(means, weights, 1 / len(mels))
            if len(mels) % args.every == 0:
                validations.append(trainer.evaluate(validation)["mel"])
    seconds = time.perf_counter() - began
    with torch.no_grad():
        torch._foreach_copy_(weights, means)
    result = {
        "config": Path(args.config).stem,
        "seed": config.train.seed,
        "steps": args.steps,
        "precision": choose_precision(config.train, device),
        "plain": args.plain,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "seconds": round(seconds, 1),
        "training_mel": round(torch.stack(mels).mean().item() / config.train.c_mel, 4),
        "validations": len(validations),
        "mel": round(statistics.mean(validations), 4),
        "mel_least": round(min(validations), 4),
        "mel_most": round(max(validations), 4),
        "mel_of_mean_weights": round(trainer.evaluate(validation)["mel"], 4),
    }
    print(json.dumps(result), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="JSON file, as train.py takes it")
    parser.add_argument("--steps", type=int, default=1000, help="to train (default: %(default)s)")
    parser.add_argument("--last", type=int, default=100, help="steps that are looked at (default: %(default)s)")
    parser.add_argument("--every", type=int, default=10, help="steps between validations (default: %(default)s)")
    parser.add_argument("--seed", type=int, help="in place of the config's")
    parser.add_argument("--plain", action="store_true", help="on a GPU, no CUDA graphs and no kernels of our own")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    args = parser.parse_args()
    with errors_in_one_line("benchmarks/learning"):
        try:
            distributed.launch(measure, args.device, 1, args)
        finally:
            train.end_workers()


if __name__ == "__main__":
    main()
