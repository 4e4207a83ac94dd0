"""Train duration predictors on a frozen voice, with and without an adversary, and measure what they learned.

The text states and the aligned durations of a trained run are computed once. Each form of training then takes minutes,
and all forms see the same data, so that they can be compared. The measurements, on the validation list of the run:

- spread_ratio: standard deviation of predicted log durations, divided by that of the aligned ones
- rmse: root mean squared error of log durations, without noise
- draws: standard deviation between draws for the same text
- discriminator: loss of a freshly trained discriminator against the frozen predictor; 0.5 is chance

Examples:
  python benchmarks/durations.py features NAME features.pt
  python benchmarks/durations.py train features.pt --forms mse adversary noise --seeds 1 2
"""

import argparse
import copy
import dataclasses
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import checkpoint
import cli
import config as configs
import distributed
import losses
import train
from discriminators import DurationDiscriminatorV2
from durations import DurationPredictor
from files import run_folder
from trainer import Trainer

H = 192  # replaced by the width of the features


@dataclass
class Form:
    adversary: bool = True
    noise: bool = False
    dropout: float = 0.5  # of the predictor
    sigmoid: bool = True
    dequantize: bool = False
    weight: float = 1.0  # of the adversarial loss
    d_dropout: float = 0.1
    mse: float = 1.0
    d_lr: float = 1.0


FORMS = {
    "mse": Form(adversary=False),
    "mse_nodrop": Form(adversary=False, dropout=0.1),
    "v2": Form(),
    "noise": Form(noise=True),
    "noise_nosig": Form(noise=True, sigmoid=False),
    "noise_deq": Form(noise=True, dequantize=True),
    "noise_nodrop": Form(noise=True, dropout=0.1),
    "nodrop": Form(dropout=0.1, dequantize=True, sigmoid=False),
    "all": Form(noise=True, dropout=0.1, dequantize=True, sigmoid=False),
    "all_sig": Form(noise=True, dropout=0.1, dequantize=True),
    "all_w2": Form(noise=True, dropout=0.1, dequantize=True, sigmoid=False, weight=2.0),
    "all_wp3": Form(noise=True, dropout=0.1, dequantize=True, sigmoid=False, weight=0.3),
    "all_d0": Form(noise=True, dropout=0.0, dequantize=True, sigmoid=False),
    "all_d3": Form(noise=True, dropout=0.3, dequantize=True, sigmoid=False),
    "all_ddrop": Form(noise=True, dropout=0.1, dequantize=True, sigmoid=False, d_dropout=0.3),
}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the program."""
    parser = cli.Parser(__doc__)
    sub = parser.add_subparsers(dest="command", required=True)
    features = sub.add_parser("features")
    features.add_argument("run")
    features.add_argument("output")
    trained = sub.add_parser("train")
    trained.add_argument("features")
    trained.add_argument("--forms", nargs="+", default=list(FORMS))
    trained.add_argument("--seeds", nargs="+", type=int, default=[1])
    trained.add_argument("--steps", type=int, default=3000)
    trained.add_argument("--fresh", type=int, default=1500)
    trained.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args(argv)
    if args.command == "features":
        distributed.launch(extract, "auto", 1, args)
        return
    lists = torch.load(args.features, map_location=args.device)
    for seed in args.seeds:
        for name in args.forms:
            began = time.time()
            result = measure(lists, FORMS[name], seed, args)
            print(json.dumps({"form": name, "seed": seed, **result, "seconds": round(time.time() - began)}), flush=True)


@torch.no_grad()
def extract(device: torch.device, args: argparse.Namespace) -> None:
    folder = run_folder(args.run)
    config = configs.load(folder / "config.json")
    _, _, loader, validation = train.make_loaders(config, device)
    trainer = Trainer(config, device)
    checkpoint.resume_run(trainer, folder)
    found = {}
    for name, batches in (("train", loader), ("validation", validation)):
        items = {}
        with trainer.evaluating() as net:
            for batch in batches if name == "validation" else first_epochs(loader, 3):
                batch = batch.to(device)
                spec, _, lengths = trainer.spectrograms(batch.wav, batch.wav_lengths)
                out = net(batch.text, batch.text_lengths, spec, lengths, batch.conditions)
                for i, n in enumerate(batch.text_lengths.tolist()):
                    items[int(batch.index[i])] = (
                        out.durations.x[i, :, :n].half().cpu(),
                        out.attn[i, 0].sum(0)[:n].cpu(),
                        batch.text[i, :n].cpu(),
                    )
        found[name] = list(items.values())
        print(name, len(found[name]), flush=True)
    torch.save(found, args.output)


def first_epochs(loader, count):
    total = count * len(loader.batch_sampler.sampler)
    for i, batch in enumerate(loader):
        if i >= total:
            return
        yield batch


def collate(items):
    n = max(len(w) for _, w, _ in items)
    x = torch.stack([F.pad(x.float(), (0, n - x.size(1))) for x, _, _ in items])
    w = torch.stack([F.pad(w.float(), (0, n - len(w))) for _, w, _ in items]).unsqueeze(1)
    mask = (w > 0).float()
    return x, mask, w


class Discriminator(DurationDiscriminatorV2):
    def __init__(self, form: Form):
        super().__init__(H, H, 3, form.d_dropout)
        if not form.sigmoid:
            self.output_layer = nn.Linear(H, 1)


def real(w, mask, form):
    if form.dequantize:
        w = w + torch.rand_like(w) - 0.5
    return torch.log(w + 1e-6 + (1 - mask)) * mask


def batches(items, size=64):
    size = min(size, len(items))
    order = torch.randperm(len(items)).tolist()
    for i in range(0, len(items) - size + 1, size):
        yield collate([items[j] for j in order[i : i + size]])


def optimizer(net, lr=2e-4):
    return torch.optim.AdamW(net.parameters(), lr, (0.8, 0.99), 1e-9, 0.01)


def discriminator_step(d, opt, x, mask, w, logw, form):
    scores_r, scores_g = d(x, mask, real(w, mask, form), logw.detach())
    loss = losses.discriminator_loss(scores_r, scores_g, mask.transpose(1, 2))[0]
    opt.zero_grad()
    loss.backward()
    opt.step()
    return loss


def endless(items):
    while True:
        yield from batches(items)


@torch.no_grad()
def heldout_loss(d, p, lists, form):
    d.eval()
    x, mask, w = lists["validation_batch"]
    values = []
    for _ in range(4):
        scores_r, scores_g = d(x, mask, real(w, mask, form), p(x, mask))
        values.append(losses.discriminator_loss(scores_r, scores_g, mask.transpose(1, 2))[0].item())
    d.train()
    return sum(values) / len(values)


def measure(lists, form, seed, args):
    global H
    H = lists["train"][0][0].size(0)
    torch.manual_seed(seed)
    to = lambda items: [tuple(t.to(args.device) for t in item) for item in items]
    lists = {"train": to(lists["train"]), "validation": to(lists["validation"])}
    lists["validation_batch"] = collate(lists["validation"])
    p = DurationPredictor(H, 256, 3, form.dropout, use_noise=form.noise).to(args.device)
    d = Discriminator(form).to(args.device)
    p_opt, d_opt = optimizer(p), optimizer(d, 2e-4 * form.d_lr)
    d_losses, g_losses = [], []
    for step, (x, mask, w) in enumerate(endless(lists["train"])):
        if step == args.steps:
            break
        logw = p(x, mask)
        if form.adversary:
            d_losses.append(discriminator_step(d, d_opt, x, mask, w, logw, form).detach())
        loss = form.mse * p.loss(logw, torch.log(w + 1e-6) * mask, mask).sum()
        if form.adversary:
            score = d.score(d.text_features(x, mask), mask, logw)
            g = losses.generator_loss([score], mask.transpose(1, 2))[0]
            g_losses.append(g.detach())
            loss = loss + form.weight * g
        p_opt.zero_grad()
        loss.backward()
        p_opt.step()
    p.eval().requires_grad_(False)
    x, mask, w = lists["validation_batch"]
    logw_ = torch.log(w + 1e-6)[mask > 0]
    draws = torch.stack([p(x, mask)[mask > 0] for _ in range(8)])
    mean = p(x, mask, noise_scale=0.0)[mask > 0]
    out = {
        "spread_ratio": (draws[0].std() / logw_.std()).item(),
        "spread_ratio_0.8": (p(x, mask, noise_scale=0.8)[mask > 0].std() / logw_.std()).item(),
        "rmse": (mean - logw_).square().mean().sqrt().item(),
        "draws": draws.std(0).mean().item(),
        "mean_shift": (mean.mean() - logw_.mean()).item(),
    }
    if form.adversary:
        out["d_train"] = torch.stack(d_losses[-100:]).mean().item()
        out["g_train"] = torch.stack(g_losses[-100:]).mean().item()
        out["d_own"] = heldout_loss(d, p, lists, form)
    # fresh discriminators, the same judges for all forms
    for name, judge in (("fresh_v2", Form()), ("fresh_deq", Form(sigmoid=False, dequantize=True))):
        torch.manual_seed(seed + 100)
        fresh = Discriminator(judge).to(args.device)
        opt = optimizer(fresh)
        least = 9.0
        for step, (x, mask, w) in enumerate(endless(lists["train"])):
            if step == args.fresh:
                break
            discriminator_step(fresh, opt, x, mask, w, p(x, mask), judge)
            if step % 250 == 249:
                last = heldout_loss(fresh, p, lists, judge)
                least = min(least, last)
        out[name] = last
        out[name + "_least"] = least
    return {k: round(v, 4) for k, v in out.items()}


if __name__ == "__main__":
    main()
