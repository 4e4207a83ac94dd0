"""Evaluate a voice on held-out lines: speak them, score the audio, and write a report.

FILELIST has lines `path|text` or `path|speaker|text` in plain text, with recordings that the voice was not trained on.
DIR receives the audio, report.md, report.json and pictures. docs/evaluation.md explains the measures. Speaking and
scoring can run on two machines: `--speak-only` needs no package for evaluation; `--wavs DIR/wavs` scores the result.

Examples:
  python evaluate.py FILELIST -m NAME --output DIR
  python evaluate.py FILELIST -m NAME --output DIR --speak-only
  python evaluate.py FILELIST --wavs FOLDER --output DIR
  python evaluate.py FILELIST --recordings --output DIR
  python evaluate.py --compare DIR OTHER_DIR --output table.md
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

import cli
from evaluation import takes
from files import write_text
from synthesis.speech import BaseVoice, check_seed


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
    scorers: dict[str, Any] = {} if args.speak_only else load_measures(args, lines)  # errors before hours of work
    scored, settings = takes.read(args.wavs, lines) if args.wavs else (lines, {})
    if args.model:
        speak = partial(takes.speak, seed=args.seed, draws=args.seeds, speaker=args.speaker, model=args.model)
        scored, settings = speak(load_voice(args), lines, args.output)
    if args.speak_only:
        folder = Path(args.output) / takes.FOLDER
        print(f"{len(lines)} sentences are in {folder}; score them with --wavs {folder}")
        return
    score(args, scorers, scored, settings | {"command": command})


def load_measures(args: argparse.Namespace, lines: Sequence[takes.Take]) -> dict[str, Any]:
    """Load the measures of `--measures`. Raises ValueError for an unknown name and for a missing package."""
    from evaluation.measures import MEASURES, Options

    names = args.measures.split(",") if args.measures else list(MEASURES)
    for name in names:
        if name not in MEASURES:
            raise ValueError(
                f"there is no measure {name!r}{cli.did_you_mean(name, MEASURES)}; all: {','.join(MEASURES)}"
            )
    references = takes.recordings(args.reference) if args.reference else lines
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


def check_options(args: argparse.Namespace) -> None:
    """Raise ValueError for options that are out of range or do not go together."""
    check_seed(args.seed)
    for name in ("seeds", "sentences"):
        if (value := getattr(args, name)) is not None and value < 1:
            raise ValueError(f"--{name} is {value}; it must be 1 or more")
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
    add("--sentences", type=int, metavar="N", help="use the first N lines only (default: all)")
    add("--seed", type=int, default=1, metavar="N", help="seed of every sentence")
    add("--seeds", type=int, default=5, metavar="N", help="predictions of each rhythm, for the spread between them")
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
