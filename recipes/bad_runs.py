"""Train a good voice and five bad ones on purpose, and draw their curves, spectrograms and alignments.

Every bad run has one mistake and otherwise the config, the recordings and the number of steps of the good run.
docs/training.md describes the pictures. The same command continues after an interruption: finished runs are not
repeated, and an unfinished one resumes. A run that training itself stops counts as finished.

OUTPUT receives a folder for each run, `curves.png` with the curves of all runs and, for each run, `NAME_curves.png`,
which compares it with the good run, and `NAME.png` with its last spectrograms and alignments.

Examples:
  python recipes/bad_runs.py -c configs/my.json --steps 1500
  python recipes/bad_runs.py -c configs/my.json --steps 1500 --only good bad_transcripts
"""

import gc
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cli
import config as configs
import plots
from audio import load_audio, read_header, save_audio
from config import Config
from corpora.filelist import Clip, read_filelist
from files import write_text

GOOD = "good"
POINTS, VALIDATIONS = 100, 10  # of each curve
WEIGHT_FACTOR = 100  # of all losses of the generator but the adversarial ones
RATE_FACTOR = 20  # of the learning rate that is too high
HEADER_FACTOR = 2  # between the sampling rate in the headers and the true one
COMPARED = (  # panels of NAME_curves.png
    "validation/mel",
    "validation/kl",
    "validation/duration_error",
    "loss/g/gen",
    "loss/d/total",
    "grad_norm_g",
)
ENDED = "ended.txt"  # in the folder of a run that training stopped: the reason

CorpusChange = Callable[[Sequence[Clip], Path], list[Clip]]  # from clips and a folder for new recordings to clips


class Recipe(NamedTuple):
    """One run: its mistake in words, and what it changes."""

    mistake: str
    change_config: Callable[[Config], Config] = lambda config: config
    change_corpus: CorpusChange | None = None
    trained_discriminator: bool = False  # start with the discriminator of the good run


def exchanged_texts(clips: Sequence[Clip], folder: Path) -> list[Clip]:
    """Return the clips with the texts of others. Lengths match, so that the check of the corpus finds nothing."""
    order = sorted(range(len(clips)), key=lambda i: len(clips[i].text))
    texts = {i: clips[other].text for i, other in zip(order, order[1:] + order[:1])}
    return [clip._replace(text=texts[i]) for i, clip in enumerate(clips)]


def wrong_headers(clips: Sequence[Clip], folder: Path) -> list[Clip]:
    """Copy the recordings with headers that state a higher sampling rate: speech becomes faster and higher."""
    folder.mkdir(parents=True, exist_ok=True)
    copies = []
    for i, clip in enumerate(clips):
        copy = folder / f"{i:05d}.wav"
        if not copy.exists():
            _, rate = read_header(clip.path)
            save_audio(copy, load_audio(clip.path, rate), HEADER_FACTOR * rate)
        copies.append(clip._replace(path=copy.as_posix()))
    return copies


def with_training(config: Config, **values: float) -> Config:
    """Return the config with other values in its section `train`."""
    from train import changed  # imports PyTorch

    return changed(config, "train", **values)


RECIPES: dict[str, Recipe] = {
    GOOD: Recipe("none"),
    "no_alignment": Recipe(
        "the weights of the mel loss and of the KL divergence are exchanged",
        lambda config: with_training(config, c_mel=config.train.c_kl, c_kl=config.train.c_mel),
    ),
    "strong_discriminator": Recipe(
        "the discriminator is that of the good run, and the generator hardly learns from it: the weights of the mel "
        f"loss and of the KL divergence are {WEIGHT_FACTOR} times those of the config",
        lambda config: with_training(
            config, c_mel=WEIGHT_FACTOR * config.train.c_mel, c_kl=WEIGHT_FACTOR * config.train.c_kl
        ),
        trained_discriminator=True,
    ),
    "wrong_rate": Recipe(
        f"the headers of the recordings state {HEADER_FACTOR} times the true sampling rate", change_corpus=wrong_headers
    ),
    "bad_transcripts": Recipe("each recording has the text of another one", change_corpus=exchanged_texts),
    "high_learning_rate": Recipe(
        f"the learning rate is {RATE_FACTOR} times that of the config",
        lambda config: with_training(config, learning_rate=RATE_FACTOR * config.train.learning_rate),
    ),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program with the given arguments, by default those of the command line."""
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    add("-c", "--config", required=True, metavar="JSON", help="config of the good run")
    add("--steps", type=int, default=1500, metavar="N", help="training steps of each run")
    add("--output", default="logs/bad_runs", metavar="FOLDER", help="folder of the runs and pictures")
    add("--only", nargs="+", choices=RECIPES, metavar="NAME", help=f"some of {', '.join(RECIPES)} (default: all)")
    cli.add_device(parser, ("auto", "cpu", "cuda"))
    args = parser.parse_args(arguments)
    with cli.errors_in_one_line("recipes/bad_runs"):
        if args.steps < 1:
            raise ValueError(f"--steps is {args.steps}; it must be 1 or more")
        output, config = Path(args.output).resolve(), configs.load(args.config)
        for name in args.only or RECIPES:
            if not is_finished(output / name, args.steps):
                print(f"{name}: the mistake is: {RECIPES[name].mistake}", flush=True)
                run(name, config, output, args.steps, args.device)
            if not is_finished(output / name, args.steps):
                print(f"{name}: stopped before step {args.steps}; the same command resumes", flush=True)
                return
        draw(output)


def is_finished(folder: Path, steps: int) -> bool:
    """Return whether a run has been validated at step `steps` or was stopped by training."""
    from reporting import read_metrics

    if (folder / ENDED).exists():
        return True
    return (folder / "metrics.jsonl").exists() and max(read_metrics(folder, "validation/mel")[0], default=0) >= steps


def run(name: str, config: Config, output: Path, steps: int, device: str) -> None:
    """Start or resume a run. Raises ValueError if it needs the discriminator of a good run that does not exist."""
    import torch

    import checkpoint
    import train

    recipe, folder = RECIPES[name], output / name
    intervals = {"log_interval": max(1, steps // POINTS), "eval_interval": max(1, steps // VALIDATIONS)}
    config = with_training(recipe.change_config(config), **intervals, keep_checkpoints=1)
    if recipe.change_corpus:
        config = with_changed_lists(config, recipe.change_corpus, output / f"{name}_corpus")
    folder.mkdir(parents=True, exist_ok=True)
    configs.save(config, output / f"{name}.json")
    arguments = ["-c", str(output / f"{name}.json"), "-m", str(folder), "--max-steps", str(steps), "--device", device]
    if recipe.trained_discriminator and not checkpoint.steps_in(folder):
        arguments += ["--init-discriminator", checkpoint.latest_checkpoint_path(output / GOOD, "D_*.pth")]
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        train.main([*arguments, "--processes", "1"])
    except SystemExit as end:
        if not isinstance(end.code, str):  # a user error; a text is the reason for which training stopped
            raise
        write_text(folder / ENDED, f"{end.code}\n")
        print(f"{name}: training stopped: {end.code}", flush=True)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    gc.collect()
    torch.cuda.empty_cache()


def with_changed_lists(config: Config, change: CorpusChange, folder: Path) -> Config:
    """Write changed copies of the filelists, and of recordings if they change. Returns the config that names them."""
    import train

    lists = {}
    for kind in ("training", "validation"):
        clips = change(read_filelist(getattr(config.data, f"{kind}_files")), folder / kind)
        folder.mkdir(parents=True, exist_ok=True)
        lists[f"{kind}_files"] = (folder / f"{kind}.txt").as_posix()
        write_text(lists[f"{kind}_files"], "".join(clip.row(clip.speaker is not None) + "\n" for clip in clips))
    return train.changed(config, "data", **lists)


def draw(output: Path) -> None:
    """Draw all runs that exist, and print the paths of the pictures. A run without validation has no spectrograms."""
    from reporting import metric_names

    runs = [output / name for name in RECIPES if (output / name / "metrics.jsonl").exists()]
    written = [output / "curves.png"] if runs else []
    for path in written:
        plots.save_curves(path, *runs)
    for folder in runs:
        pair = [run for run in runs if run in (output / GOOD, folder)]
        written.append(output / f"{folder.name}_curves.png")
        existing = {name for run in pair for name in metric_names(run)}
        plots.save_curves(written[-1], *pair, metrics=[name for name in COMPARED if name in existing])
        try:
            plots.save_pictures(output / f"{folder.name}.png", folder)
            written.append(output / f"{folder.name}.png")
        except ValueError as error:
            print(error)
    for path in written:
        print(f"picture: {path}")


if __name__ == "__main__":
    main()
