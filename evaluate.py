"""Evaluate a voice on held-out lines: speak them, score the audio, and write a report.

FILELIST has lines `path|text` or `path|speaker|text` in plain text, with recordings that the voice was not trained on.
DIR receives the audio, report.md, report.json and pictures. docs/evaluation.md explains the measures. Speaking and
scoring can run on two machines: `--speak-only` needs no package for evaluation; `--wavs DIR/wavs` scores the result.

Examples:
  python evaluate.py FILELIST -m NAME --output DIR
  python evaluate.py FILELIST -m NAME --output DIR --speak-only
  python evaluate.py FILELIST --wavs FOLDER --output DIR
  python evaluate.py FILELIST --recordings --output DIR
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import cli
from evaluation import takes
from synthesis.speech import BaseVoice, check_seed


def load_voice(args: argparse.Namespace) -> BaseVoice:
    """Load the voice of `-m`: a run, a checkpoint, or an exported file."""
    if Path(args.model).suffix == ".onnx":
        from infer_onnx import OnnxVoice

        return OnnxVoice(args.model, args.config)
    from synthesis import Voice

    return Voice.load(args.model, args.config, args.device)


def speak(args: argparse.Namespace, lines: Sequence[takes.Take]) -> None:
    """Speak the lines to `--output`."""
    takes.speak(load_voice(args), lines, args.output, args.seed, args.seeds, args.speaker, model=args.model)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program with the given arguments, by default those of the command line."""
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    add("filelist", metavar="FILELIST", help="lines path|text or path|speaker|text, plain text")
    source = parser.add_mutually_exclusive_group(required=True)
    cli.add_run(source, "-m", "--model", help="run, checkpoint or exported .onnx file of the voice that speaks")
    source.add_argument("--wavs", metavar="FOLDER", help="score the audio of any system, NAME.wav for each recording")
    source.add_argument("--recordings", action="store_true", help="score the recordings themselves")
    add("--output", required=True, metavar="DIR", help="folder to write")
    cli.add_config(parser, "-c", "--config")
    add("-s", "--speaker", help="name or id, for a voice of several speakers (default: the filelist's)")
    add("--seed", type=int, default=1, metavar="N", help="seed of every sentence")
    add("--seeds", type=int, default=5, metavar="N", help="predictions of each rhythm, for the spread between them")
    add("--speak-only", action="store_true", help="speak and do not score")
    cli.add_device(parser)
    args = parser.parse_args(arguments)
    with cli.errors_in_one_line("evaluate"):
        check_seed(args.seed)
        if args.seeds < 1:
            raise ValueError(f"--seeds is {args.seeds}; it must be 1 or more")
        if args.speak_only and not args.model:
            raise ValueError("--speak-only needs the voice that speaks: -m")
        lines = takes.recordings(args.filelist)
        if args.model:
            speak(args, lines)


if __name__ == "__main__":
    main()
