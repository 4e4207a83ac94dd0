"""Evaluate a voice on held-out lines: speak them, score the audio, and write a report.

FILELIST has lines `path|text` or `path|speaker|text` in plain text, with recordings that the voice was not trained on.
DIR receives the audio, report.md, report.json and pictures. docs/evaluation.md explains the measures. Speaking and
scoring can run on two machines: `--speak-only` needs no package for evaluation; `--wavs DIR/wavs` scores the result.

Examples:
  python evaluate.py FILELIST -m NAME --output DIR
  python evaluate.py FILELIST -m NAME --output DIR --speak-only
  python evaluate.py FILELIST --wavs FOLDER --output DIR
  python evaluate.py FILELIST -m NAME --convert SPEAKER --output DIR
  python evaluate.py FILELIST --recordings --output DIR
  python evaluate.py --compare DIR OTHER_DIR --output table.md
"""

import cli

if __name__ == "__main__":
    cli.interrupts_in_one_line()

import argparse
import shlex
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from tqdm import tqdm

from evaluation import takes
from files import write_text
from synthesis.speech import BaseVoice, check_seed

if TYPE_CHECKING:
    from synthesis import Voice

SEED, SEEDS = 1, 5
OF_VOICES = ("mcd", "speed")  # measures that recordings do not have


def load_voice(args: argparse.Namespace) -> BaseVoice:
    """Load the voice of `-m`: a run, a checkpoint, or an exported file."""
    if Path(args.model).suffix == ".onnx":
        from infer_onnx import OnnxVoice

        return OnnxVoice(args.model, args.config)
    from synthesis import Voice

    return Voice.load(args.model, args.config, args.device)


def evaluate(args: argparse.Namespace, command: str) -> None:
    """Speak the lines if there is a voice, score the takes and write the report."""
    lines = takes.recordings(args.filelist)[: args.sentences]
    scored, settings = takes.read(args.wavs, lines) if args.wavs else (lines, {})
    takes.check_audio(scored)  # this and all other checks before hours of work
    scorers: dict[str, Any] = {} if args.speak_only else load_measures(args, lines)
    voice = load_voice(args) if args.model else None
    if not voice:
        checked = scored
    elif args.convert:
        checked = takes.sources(voice, lines, args.convert)
    else:
        checked = takes.check_lines(voice, lines, args.speaker)
    for measure in scorers.values():
        measure.check(checked)
    if voice:
        seed, about = SEED if args.seed is None else args.seed, {"model": args.model}
        if args.convert:
            scored, settings = takes.convert(cast("Voice", voice), checked, args.output, seed, args.convert, **about)
        else:
            draws = args.seeds or SEEDS
            scored, settings = takes.speak(voice, lines, args.output, seed, draws, args.speaker, **about)
    if args.speak_only:
        folder = Path(args.output) / takes.FOLDER
        print(f"audio of {len(checked)} lines: {folder}; score them with --wavs {folder}")
        return
    score(args, scorers, scored, settings | {"command": command})


def load_measures(args: argparse.Namespace, lines: Sequence[takes.Take]) -> dict[str, Any]:
    """Load the measures of `--measures`. Raises ValueError for an unknown name and for a missing package."""
    from evaluation.measures import MEASURES, Options

    names = asked_measures(args) or list(MEASURES)
    for name in names:
        if name not in MEASURES:
            raise ValueError(
                f"there is no measure {name!r}{cli.did_you_mean(name, MEASURES)}; all: {','.join(MEASURES)}"
            )
    if args.language != "en" and "cer" in names and not args.whisper:
        raise ValueError(f"--language {args.language} needs a multilingual model: give its folder with --whisper")
    references = takes.recordings(args.reference) if args.reference else lines
    takes.check_audio(references)
    return {name: MEASURES[name](Options(references, args.whisper, args.language)) for name in names}


def score(args: argparse.Namespace, scorers: dict[str, Any], scored: list[takes.Take], details: dict[str, Any]) -> None:
    """Score takes, write the report to `--output`, and print its table."""
    from evaluation import pictures, report
    from evaluation.measures import score_all

    terms, sentences = score_all(scored, scorers, partial(tqdm, desc="scoring", unit="line", disable=None))
    content = report.build(terms, sentences, scored, **details)
    folder = Path(args.output)
    folder.mkdir(parents=True, exist_ok=True)
    report.write(content, folder, pictures.draw(folder, scored, sentences))
    for name, quantity in report.QUANTITIES.items():
        if name in content:
            print(f"{quantity.title:26} {report.interval(name, content[name])}")
    print(f"{folder / report.MARKDOWN}")


def asked_measures(args: argparse.Namespace) -> list[str]:
    """Return the names in `--measures`, empty if it is not given."""
    return [name.strip() for name in args.measures.split(",")] if args.measures else []


def check_options(args: argparse.Namespace) -> None:
    """Raise ValueError for options that are out of range, do not go together, or have no effect."""
    check_seed(args.seed)
    for name in ("seed", "seeds", "speaker", "convert"):
        if getattr(args, name) is not None and not args.model:
            raise ValueError(f"--{name} has no effect without the voice that speaks: -m")
    if without := [name for name in asked_measures(args) if name in OF_VOICES] if args.recordings else []:
        raise ValueError(f"--measures {without[0]} has no values for --recordings: it measures what a system speaks")
    for name in ("seeds", "sentences"):
        if (value := getattr(args, name)) is not None and value < 1:
            raise ValueError(f"--{name} is {value}; it must be 1 or more")
    for name in ("speaker", "seeds"):
        if args.convert and getattr(args, name) is not None:
            raise ValueError(f"--{name} has no effect with --convert")
    if args.speak_only and not args.model:
        raise ValueError("--speak-only needs the voice that speaks: -m")
    if not args.filelist and not args.compare:
        raise ValueError("name the FILELIST of the lines to evaluate")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program with the given arguments, by default those of the command line."""
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    add("filelist", metavar="FILELIST", nargs="?", help="lines path|text or path|speaker|text, plain text")
    task = parser.add_mutually_exclusive_group(required=True)
    cli.add_run(task, "-m", "--model", help="run, checkpoint or exported .onnx file of the voice that speaks")
    task.add_argument("--wavs", metavar="FOLDER", help="score the audio of any system, NAME.wav for each recording")
    task.add_argument("--recordings", action="store_true", help="score the recordings themselves")
    task.add_argument("--compare", nargs="+", metavar="DIR", help="write a table of reports to --output")
    add("--output", required=True, metavar="DIR", help="folder to write, or the table's file with --compare")
    cli.add_config(parser, "-c", "--config")
    add("-s", "--speaker", help="name or id, for a voice of several speakers (default: the filelist's)")
    add("--convert", metavar="SPEAKER", help="convert the recordings of the other speakers to this one, and score that")
    add("--sentences", type=int, metavar="N", help="use the first N lines only (default: all)")
    add("--seed", type=int, metavar="N", help=f"seed of every sentence (default: {SEED})")
    add("--seeds", type=int, metavar="N", help=f"predictions of each rhythm, for their spread (default: {SEEDS})")
    add("--speak-only", action="store_true", help="speak and do not score")
    add("--measures", metavar="A,B", help="comma-separated: cer, mos, similarity, mcd, durations, speed (default: all)")
    add(
        "--reference",
        metavar="FILELIST",
        help="recordings of the voice that similarity compares with (default: FILELIST)",
    )
    add("--whisper", metavar="FOLDER", help="another Whisper model in CTranslate2's format (default: tiny.en)")
    add("--language", default="en", help="language of the recognizer, for --whisper")
    cli.add_device(parser)
    args = parser.parse_args(arguments)
    with cli.errors_in_one_line("evaluate"):
        check_options(args)
        if args.compare:
            from evaluation import report

            write_text(args.output, report.compare(args.compare))
        else:
            given = sys.argv[1:] if arguments is None else arguments
            evaluate(args, shlex.join(["python", "evaluate.py", *given]))


if __name__ == "__main__":
    main()
