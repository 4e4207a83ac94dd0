"""Pack a trained voice into a folder that is distributed with the code.

G.pth holds what speaks, and training.pth the rest, from which other voices are trained: the posterior encoder and the
discriminators. Both are in fp16, without optimizers. config.json has no file names of the machine that trained. The
averaged weights are packed if the run has them, and the written voice speaks a sentence as a test.

Examples:
  python recipes/pack.py logs/NAME --output pretrained --report evaluation
"""

import argparse
import dataclasses
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import checkpoint
import cli
import config as configs
from conditions import Speaker
from config import Config
from files import REST, VOICE, write_text
from synthesis import Voice, find_checkpoint

MIB = 1 << 20
MAX_VOICE, MAX_ALL = 16 * MIB, 32 * MIB  # bytes of G.pth, and of both files
REPORTS = ("report.md", "report.json")  # of evaluate.py
SENTENCE = "A new voice speaks."
MAX_CHANGE = 0.2  # of the duration of the sentence, relative, by the rounding of weights
SILENT = 1e-3  # root mean square of a voice that does not speak


def pack(source: Path, output: Path, speaker: str | None) -> list[Path]:
    """Write the voice of a checkpoint, and the discriminators beside it, to a folder. Returns the files.

    `speaker` speaks where none is given. Raises ValueError, before any file is replaced, for weights that fp16 cannot
    hold, for files that are too large, and for a voice that does not speak as before.
    """
    content = checkpoint.read_generator(source)
    voice = Voice.load(source)
    config = without_paths(voice.config, speaker)
    weights = {name: x for name, x in checkpoint.voice_weights(content).items() if not checkpoint.UNUSED.match(name)}
    common: dict[str, Any] = {
        "step": voice.step,
        "iteration": 0,
        "optimizer": None,
        "learning_rate": config.train.learning_rate,
    }
    common["config"] = dataclasses.asdict(config)
    speaks = {name: x for name, x in weights.items() if not checkpoint.TRAINING_ONLY.match(name)}
    trains = {name: x for name, x in weights.items() if checkpoint.TRAINING_ONLY.match(name)}
    others = discriminators(source)
    unfinished = output.with_name(f".{output.name}.unfinished")
    unfinished.mkdir(parents=True)
    try:
        configs.save(config, unfinished / "config.json")
        checkpoint.write(unfinished / VOICE, {**common, "model": half(speaks)})
        halves = {name: half(each) for name, each in others.items()}
        checkpoint.write(unfinished / REST, {**common, "model": half(trains), **halves})
        check(voice, unfinished)
        output.mkdir(parents=True, exist_ok=True)
        return [file.replace(output / file.name) for file in sorted(unfinished.iterdir())]
    finally:
        shutil.rmtree(unfinished)


def without_paths(config: Config, speaker: str | None) -> Config:
    """Return the config of a voice without the names of its filelists, and with a default speaker, if it has several.

    Raises ValueError for an unknown speaker.
    """
    changed: dict[str, Any] = {"training_files": "", "validation_files": ""}
    if config.data.n_speakers:
        names = list(Speaker().names(config.data))
        chosen = speaker or config.data.default_speaker or names[0]
        changed["default_speaker"] = names[int(Speaker().resolve(chosen, config.data))]
    elif speaker is not None:
        raise ValueError(f"there is no speaker {speaker!r}: this voice has a single speaker")
    return dataclasses.replace(config, data=dataclasses.replace(config.data, **changed))


def discriminators(source: Path) -> dict[str, dict[str, Tensor]]:
    """Return the weights of the discriminators by learner: those of the generator's step, or the newest of its run.

    Raises ValueError if the run has no waveform discriminator.
    """
    found = {}
    for name, prefix in checkpoint.FILES.items():
        if name == "generator":
            continue
        same = source.with_name(source.name.replace("G_", f"{prefix}_", 1))
        if not same.is_file():
            if name == "duration_discriminator" and not list(source.parent.glob(f"{prefix}_*.pth")):
                continue
            same = Path(checkpoint.latest_checkpoint_path(source.parent, f"{prefix}_*.pth"))
        found[name] = checkpoint.voice_weights(checkpoint.read(same))
    return found


def half(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return weights in fp16. Raises ValueError if one is too large for it."""
    halves = {name: weight.half() if weight.is_floating_point() else weight for name, weight in weights.items()}
    for name, weight in halves.items():
        if not weight.isfinite().all():
            raise ValueError(f"{name} has values that are too large for fp16, or not finite")
    return halves


def check(voice: Voice, folder: Path) -> None:
    """Raise ValueError if the files of a folder are too large, do not load, or do not speak as the voice before."""
    sizes = [(folder / name).stat().st_size for name in (VOICE, REST)]
    for name, size, limit in ((VOICE, sizes[0], MAX_VOICE), ("both files", sum(sizes), MAX_ALL)):
        if size > limit:
            raise ValueError(f"{name} would have {size / MIB:.2f} MiB; the limit is {limit / MIB:.0f} MiB")
    packed = Voice.load(folder)
    if not packed.has_posterior or set(packed.speakers) != set(voice.speakers):
        raise ValueError("the packed voice has lost its posterior encoder or speakers")
    for speaker in voice.speakers or [None]:
        options: dict[str, Any] = {"noise_scale": 0, "noise_scale_w": 0}
        before, after = (each.speak(SENTENCE, speaker, **options) for each in (voice, packed))
        loudness = float(np.sqrt(np.mean(after.audio**2)))
        who = "the packed voice" if speaker is None else f"speaker {speaker} of the packed voice"
        if loudness < SILENT:
            raise ValueError(f"{who} is silent")
        if abs(after.seconds - before.seconds) > MAX_CHANGE * before.seconds:
            raise ValueError(f"{who} speaks {after.seconds:.2f} s in place of {before.seconds:.2f} s")
        print(f"{who}: {after.seconds:.2f} s in place of {before.seconds:.2f} s, root mean square {loudness:.3f}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program with the given arguments, by default those of the command line."""
    parser = cli.Parser(__doc__)
    cli.add_run(parser, "run")
    parser.add_argument("--output", required=True, metavar="FOLDER", help="folder to write, such as pretrained")
    parser.add_argument(
        "--speaker", help="speaker where none is given, for several (default: that of the run, or the first)"
    )
    parser.add_argument("--report", metavar="FOLDER", help="report of evaluate.py to copy")
    args = parser.parse_args(arguments)
    with cli.errors_in_one_line("recipes/pack"):
        run(args)


def run(args: argparse.Namespace) -> None:
    """Pack a voice with its report, and print the files with their sizes."""
    reports = [Path(args.report, name) for name in REPORTS] if args.report else []
    for report in reports:
        if not report.is_file():
            raise ValueError(f"there is no file {report}")
    output = Path(args.output)
    files = pack(find_checkpoint(args.run), output, args.speaker)
    for report in reports:
        files.append(output / report.name)
        # the pictures stay where they are
        write_text(files[-1], re.sub(r"## Pictures\n.*?(?=## |\Z)", "", report.read_text("utf-8"), flags=re.DOTALL))
    for file in files:
        print(f"{file}: {file.stat().st_size / MIB:.2f} MiB")


if __name__ == "__main__":
    main()
