"""Train duration predictors on a frozen voice, with and without an adversary, and measure what they learned.

The duration predictor passes no gradient to the text encoder. Therefore a trained voice can be frozen: its text states
and aligned durations are computed once, and each form of training takes minutes and sees the same data. Every line of
output has these measurements on the validation list of the voice:

  duration_std_ratio  standard deviation of predicted log durations, divided by that of the aligned ones
  duration_spread     standard deviation of log durations between draws for the same text
  rmse                root mean squared error of log durations predicted without noise
  loss_d, loss_g      losses of the discriminator that trained with the predictor, and of the predictor against it
  fresh_TYPE          loss of new discriminators of each type, trained against the frozen predictor; 0.5 is chance

Examples:
  python benchmarks/durations.py features NAME features.pt
  python benchmarks/durations.py train features.pt --forms mse dur_disc_3_noise --seeds 1 2
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import checkpoint
import cli
import config as configs
import distributed
import losses
from discriminators import DURATION_DISCRIMINATORS, DurationDiscriminatorV1
from durations import DurationPredictor, dequantize
from files import run_folder
from models import DURATION_CHANNELS, DURATION_KERNEL
from synthesis.voice import find_device
from trainer import Trainer
from training.loaders import end_workers, make_loaders
from training.networks import DURATION_DISCRIMINATOR_DROPOUT, DURATION_DISCRIMINATOR_KERNEL

LEARNING_RATE, BETAS, EPS = 2e-4, (0.8, 0.99), 1e-9  # as in the shipped configs
DRAWS = 8
PASSES = 3  # over the training data, because a pass leaves out what does not fill a batch
FRESH = ("dur_disc_2", "dur_disc_3")


@dataclass(frozen=True)
class Form:
    """A way to train durations: the discriminator's type, or None for the squared error alone."""

    discriminator: str | None = None
    noise: bool = False
    dropout: float = 0.5
    dequantize: bool = False  # the aligned durations, for a discriminator that does not do it itself


FORMS = {
    "mse": Form(),
    "mse_dropout_0.1": Form(dropout=0.1),
    "dur_disc_1": Form("dur_disc_1"),
    "dur_disc_2": Form("dur_disc_2"),
    "dur_disc_2_noise": Form("dur_disc_2", noise=True),
    "dur_disc_2_noise_dropout_0.1": Form("dur_disc_2", noise=True, dropout=0.1),
    "dur_disc_2_noise_dequantized": Form("dur_disc_2", noise=True, dequantize=True),
    "dur_disc_2_noise_dequantized_dropout_0.1": Form("dur_disc_2", noise=True, dropout=0.1, dequantize=True),
    "dur_disc_3": Form("dur_disc_3", dropout=0.1),
    "dur_disc_3_noise": Form("dur_disc_3", noise=True, dropout=0.1),  # of the shipped configs
    "dur_disc_3_noise_dropout_0.5": Form("dur_disc_3", noise=True),
}


class Clip(NamedTuple):
    """Text states `[h, t_s]` and aligned durations in frames `[t_s]` of an utterance."""

    x: Tensor
    w: Tensor


class Clips(NamedTuple):
    """A batch: text states `[b, h, t_s]`, mask and log durations of the alignment, each `[b, 1, t_s]`."""

    x: Tensor
    x_mask: Tensor
    logw_: Tensor


def main(argv: Sequence[str] | None = None) -> None:
    """Run the program."""
    parser = cli.Parser(__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    features = commands.add_parser("features", help="compute text states and aligned durations of a run")
    cli.add_run(features, "run", help="run with a checkpoint; its config names the filelists")
    features.add_argument("output", metavar="FILE", help="file to write")
    training = commands.add_parser("train", help="train and measure forms")
    training.add_argument("features", metavar="FILE", help="output of the command `features`")
    training.add_argument("--forms", nargs="+", choices=FORMS, default=list(FORMS), metavar="FORM", help="forms")
    training.add_argument("--seeds", nargs="+", type=int, default=[1], metavar="N", help="seeds of each form")
    training.add_argument("--steps", type=int, default=3000, metavar="N", help="steps of the predictor")
    training.add_argument("--batch-size", type=int, default=64, metavar="N", help="utterances per step")
    training.add_argument("--fresh-steps", type=int, default=1000, metavar="N", help="steps of new discriminators")
    for command in (features, training):
        cli.add_device(command)
    args = parser.parse_args(argv)
    with cli.errors_in_one_line("benchmarks/durations"):
        if args.command == "features":
            try:
                distributed.launch(extract, args.device, 1, args)
            finally:
                end_workers()
            return
        device = find_device(args.device)
        clips = load_features(args.features, device)
        for seed in args.seeds:
            for name in args.forms:
                began = time.perf_counter()
                values = measure(FORMS[name], clips["training"], collate(clips["validation"]), seed, args)
                line = {"form": name, "seed": seed, "steps": args.steps, **values}
                print(json.dumps(line | {"seconds": round(time.perf_counter() - began)}), flush=True)


@torch.no_grad()
def extract(device: torch.device, args: argparse.Namespace) -> None:
    """Write text states and aligned durations of the training and the validation list."""
    folder = run_folder(args.run)
    config = configs.load(folder / "config.json")
    _, epochs, loader, validation = make_loaders(config, device)
    trainer = Trainer(config, device)
    if not checkpoint.resume_run(trainer, folder):
        raise ValueError(f"{folder} holds no checkpoint G_*.pth: durations are aligned by a trained run")
    found: dict[str, list[tuple[Tensor, Tensor]]] = {}
    loaders = {"training": islice(loader, PASSES * len(epochs.sampler)), "validation": validation}
    for name, batches in loaders.items():
        clips = {}
        with trainer.evaluating() as net:
            for batch in batches:
                batch = batch.to(device)
                spectra = trainer.spectra(batch.wav, batch.wav_lengths)
                out = net(batch.text, batch.text_lengths, spectra.y, spectra.lengths, batch.conditions)
                for i, tokens in enumerate(batch.text_lengths.tolist()):
                    x, w = out.durations.x[i, :, :tokens], out.attn[i, 0, :, :tokens].sum(0)
                    clips[int(batch.index[i])] = x.half().cpu(), w.short().cpu()
        found[name] = list(clips.values())
        print(f"{name}: {len(clips)} utterances")
    torch.save(found, args.output)


def load_features(path: str, device: torch.device) -> dict[str, list[Clip]]:
    """Return the utterances of the lists `training` and `validation`. Raises ValueError for another file."""
    try:
        content = torch.load(path, map_location=device, weights_only=True)
        return {name: [Clip(x.float(), w.float()) for x, w in content[name]] for name in ("training", "validation")}
    except OSError:
        raise
    except Exception:  # foreign bytes raise errors of many kinds
        raise ValueError(f"{path} is not an output of the command `features`") from None


def collate(clips: Sequence[Clip]) -> Clips:
    """Pad utterances to a batch."""
    tokens = max(len(clip.w) for clip in clips)
    x = torch.stack([F.pad(clip.x, (0, tokens - len(clip.w))) for clip in clips])
    w = torch.stack([F.pad(clip.w, (0, tokens - len(clip.w))) for clip in clips]).unsqueeze(1)
    x_mask = (w > 0).float()
    return Clips(x, x_mask, torch.log(w + 1e-6) * x_mask)


def batches(clips: Sequence[Clip], size: int) -> Iterator[Clips]:
    """Yield random batches without end."""
    size = min(size, len(clips))
    while True:
        order = torch.randperm(len(clips)).tolist()
        for i in range(0, len(clips) - size + 1, size):
            yield collate([clips[j] for j in order[i : i + size]])


class Adversary:
    """A discriminator of durations with its optimizer."""

    def __init__(self, kind: str, channels: int, device: torch.device, dequantize: bool = False):
        sizes = (channels, channels, DURATION_DISCRIMINATOR_KERNEL, DURATION_DISCRIMINATOR_DROPOUT)
        self.network: DurationDiscriminatorV1 = DURATION_DISCRIMINATORS[kind](*sizes).to(device)
        self.dequantizes = dequantize or self.network.dequantizes
        self.optimizer = adamw(self.network)

    def loss(self, clips: Clips, logw: Tensor) -> Tensor:
        """Return the discriminator's loss for predicted log durations `[b, 1, t_s]`."""
        x, x_mask, logw_ = clips
        real = dequantize(logw_, x_mask) if self.dequantizes else logw_
        scores_r, scores_g = self.network(x, x_mask, real, logw.detach())
        return losses.discriminator_loss(scores_r, scores_g, x_mask.transpose(1, 2))[0]

    def step(self, clips: Clips, logw: Tensor) -> float:
        """Update the discriminator and return its loss."""
        return update(self.optimizer, self.loss(clips, logw))

    def adversarial_loss(self, clips: Clips, logw: Tensor) -> Tensor:
        """Return the predictor's loss."""
        score = self.network.score(self.network.text_features(clips.x, clips.x_mask), clips.x_mask, logw)
        return losses.generator_loss([score], clips.x_mask.transpose(1, 2))[0]


def adamw(network: torch.nn.Module) -> torch.optim.Optimizer:
    """Return the optimizer of training."""
    return torch.optim.AdamW(network.parameters(), LEARNING_RATE, BETAS, EPS)


def update(optimizer: torch.optim.Optimizer, loss: Tensor) -> float:
    """Do one step of an optimizer and return the loss."""
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


def measure(form: Form, training: list[Clip], heldout: Clips, seed: int, args: argparse.Namespace) -> dict[str, float]:
    """Train one form and return its measurements."""
    torch.manual_seed(seed)
    channels, device = heldout.x.size(1), heldout.x.device
    predictor = DurationPredictor(channels, DURATION_CHANNELS, DURATION_KERNEL, form.dropout, use_noise=form.noise)
    predictor.to(device)
    optimizer = adamw(predictor)
    adversary = Adversary(form.discriminator, channels, device, form.dequantize) if form.discriminator else None
    values: dict[str, float] = {}
    for clips in islice(batches(training, args.batch_size), args.steps):
        logw = predictor(clips.x, clips.x_mask)
        loss = predictor.loss(logw, clips.logw_, clips.x_mask).sum()
        if adversary:
            values["loss_d"] = adversary.step(clips, logw)
            adversarial = adversary.adversarial_loss(clips, logw)
            values["loss_g"] = adversarial.item()
            loss = loss + adversarial
        update(optimizer, loss)
    predictor.eval().requires_grad_(False)
    valid = heldout.x_mask > 0
    aligned = heldout.logw_[valid]
    draws = torch.stack([predictor(heldout.x, heldout.x_mask)[valid] for _ in range(DRAWS)])
    without_noise = predictor(heldout.x, heldout.x_mask, noise_scale=0.0)[valid]
    values["duration_std_ratio"] = (draws[0].std() / aligned.std()).item()
    values["rmse"] = (without_noise - aligned).square().mean().sqrt().item()
    values["duration_spread"] = draws.std(0).mean().item()
    for kind in FRESH:
        fresh = Adversary(kind, channels, device)
        for clips in islice(batches(training, args.batch_size), args.fresh_steps):
            fresh.step(clips, predictor(clips.x, clips.x_mask))
        fresh.network.eval()
        with torch.no_grad():
            values[f"fresh_{kind}"] = fresh.loss(heldout, predictor(heldout.x, heldout.x_mask)).item()
    return {name: round(value, 4) for name, value in values.items()}


if __name__ == "__main__":
    main()
