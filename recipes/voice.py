"""Train the small voice of this repository, from recordings to an evaluated checkpoint.

The voice has the speakers that are given, in this order, and a synthetic one, `teacher`, which speaks lines of TEXTS
(recipes/teacher.py). Its recordings add pronunciations that a small corpus lacks. All recordings are copied without
silence at the ends and at one loudness. OUTPUT receives the copies, their lists and the config; the run is
logs/NAME. The same command continues after an interruption: finished stages are quick, and training resumes.

The voice in pretrained/ was trained on LJ Speech (public domain; 38 minutes), Kathleen
(github.com/rhasspy/dataset-voice-kathleen, CC0) and hibari (Apache-2.0) speaking transcripts of LJ Speech.

Examples:
  pip install hibari-tts==0.2.1 pyloudnorm
  python recipes/voice.py TEXTS --speaker lj=LISTS --speaker kathleen=LISTS --repeat lj=10 --output voice -m small
  python recipes/voice.py TEXTS --speaker lj=LISTS --speaker kathleen=LISTS --output voice -m small --stages evaluate
"""

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cli
import config as configs
from files import run_folder
from recipes.ablation import REPOSITORY, run

TEACHER, VALIDATION_CLIPS = "teacher", "20"
NAME, CONFIG = "voice", "voice_config.json"  # of the joined lists
LOUDNESS = "-23"  # LUFS
SPEAKER_CONDITION = {"gin_channels": 64, "use_spk_conditioned_encoder": True}  # added to the network
LR_DECAY = 0.992  # for each pass over about 11,500 clips


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program with the given arguments, by default those of the command line."""
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    add("texts", metavar="TEXTS", help="lines name|text for the teacher, plain English")
    add("--speaker", action="append", required=True, metavar="NAME=LISTS", help="as in make_filelists.py merge")
    add("--repeat", action="append", default=[], metavar="NAME=N", help="as in make_filelists.py merge")
    add("--clips", default="6000", metavar="N", help="lines that the teacher speaks")
    add("--output", required=True, type=Path, metavar="FOLDER", help="folder of recordings, lists, config and report")
    add("-m", "--model", required=True, metavar="NAME", help="name of the run")
    add("-c", "--config", metavar="JSON", default=str(REPOSITORY / "configs/vits2_small.json"), help="the network")
    add("--init-from", metavar="RUN", help="as in train.py: a run with a network of almost the same parts")
    add("--steps", default="36000", metavar="N", help="training steps")
    add("--stages", nargs="+", choices=STAGES, default=[*STAGES], metavar="STAGE", help=f"any of {', '.join(STAGES)}")
    args = parser.parse_args(arguments)
    with cli.errors_in_one_line("recipes/voice"):
        for stage, work in STAGES.items():
            if stage in args.stages:
                print(f"{stage}:", flush=True)
                work(args)


def teach(args: argparse.Namespace) -> None:
    """Let the teacher speak, and write the lists of its recordings."""
    rate, teacher = configs.load(args.config).data.sampling_rate, str(args.output / TEACHER)
    run("recipes/teacher.py", args.texts, "--output", teacher, "--clips", args.clips, "--sampling-rate", str(rate))
    options = ["--name", TEACHER, "--out", str(args.output / "lists"), "--val", VALIDATION_CLIPS, "--test", "0"]
    run("make_filelists.py", "folder", teacher, *options)


def join(args: argparse.Namespace) -> None:
    """Join the lists of all speakers, and write copies of the recordings."""
    speakers = [*args.speaker, f"{TEACHER}={args.output / 'lists' / TEACHER}"]
    options = [f"--speaker={pair}" for pair in speakers] + [f"--repeat={pair}" for pair in args.repeat]
    out = ["--name", NAME, "--out", str(args.output / "lists"), "--clean", "english_cleaners2"]
    run("make_filelists.py", "merge", *options, *out)
    changes = ["--trim", "--loudness", LOUDNESS, "--out", str(args.output / "copies")]
    run("corpus.py", "-c", str(args.output / "lists" / CONFIG), *changes)


def train_voice(args: argparse.Namespace) -> None:
    """Write the config of the voice, and train it."""
    network, corpus = configs.load(args.config), configs.load(args.output / "copies" / CONFIG)
    voice = dataclasses.replace(network, data=corpus.data)
    path = args.output / CONFIG
    configs.save(
        configs.changed(configs.changed(voice, "model", **SPEAKER_CONDITION), "train", lr_decay=LR_DECAY), path
    )
    begun = any(run_folder(args.model).glob("G_*.pth"))
    start = ["--init-from", args.init_from] if args.init_from and not begun else []
    run("train.py", "-c", str(path), "-m", args.model, "--max-steps", args.steps, *start)


def evaluate(args: argparse.Namespace) -> None:
    """Evaluate the voice on the test sentences of all speakers."""
    tests = str(args.output / "lists" / f"{NAME}_audio_sid_text_test_filelist.txt")
    run("evaluate.py", tests, "-m", args.model, "--output", str(args.output / "evaluation"))


STAGES = {"teach": teach, "join": join, "train": train_voice, "evaluate": evaluate}


if __name__ == "__main__":
    main()
