"""Train a voice.

The config and its filelists decide whether the voice has one speaker or several. The same command trains on a CPU, on
one GPU, on all GPUs of a machine and, started by torchrun, on several machines. It resumes an interrupted run.

Examples:
  python train.py -c configs/vits2_ljs_nosdp.json -m ljs           train, or resume, the run logs/ljs
  python train.py -m ljs                                           resume with the run's own config
  python train.py -c configs/my.json -m my --init-from G.pth       start from the weights of another model
"""

import argparse
import logging
import shlex
import sys
import time
from pathlib import Path

import cli
import config as configs
from config import Config, changed
from files import run_folder

# Modules that import NumPy or PyTorch are imported where they are used, because they take seconds.

logger = logging.getLogger(__name__)


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = cli.Parser(__doc__)
    parser.add_argument("-c", "--config", metavar="JSON", help="config file; not needed to resume a run")
    parser.add_argument(
        "-m",
        "--model",
        required=True,
        metavar="NAME",
        help="name of the run, whose folder is logs/NAME, or that folder",
    )
    parser.add_argument(
        "--max-steps", type=int, metavar="N", help="stop after N steps in total (default: train.epochs of the config)"
    )
    parser.add_argument("--init-from", metavar="RUN", help="start from the weights of this run or checkpoint that fit")
    parser.add_argument(
        "--init-discriminator", metavar="D.pth", help="copy the weights of this discriminator in the same way"
    )
    cli.add_device(parser, ("auto", "cpu", "cuda"))
    parser.add_argument("--processes", type=int, metavar="N", help="processes on this machine (default: one per GPU)")
    parser.add_argument("--precision", choices=configs.PRECISIONS, help="replaces train.precision of the config")
    parser.add_argument(
        "--plain",
        action="store_true",
        help="on a GPU, train without CUDA graphs and fused kernels; for this start only",
    )
    parser.add_argument(
        "--evaluate-every",
        type=int,
        metavar="N",
        help="measure CER and MOS of a few lines every N steps, in a separate process (needs make evaluate-setup)",
    )
    parser.add_argument(
        "--evaluate-list",
        metavar="FILELIST",
        help="lines of plain text for --evaluate-every (default: the validation list without .cleaned)",
    )
    parser.add_argument("--skip-check", action="store_true", help="skip the check of recordings and texts")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Run the program. Exit code 2 is a user error, 130 an interrupt before training."""
    args = parse_args(argv)
    args.began = time.time()
    args.command = shlex.join(["train.py", *(sys.argv[1:] if argv is None else argv)])
    with cli.errors_in_one_line("train"):
        try:
            config, folder = prepare_run(args)
            start(config, folder, args)
        except KeyboardInterrupt:  # during training the signal is a request to stop, see StopRequest
            print("train: stopped before training began", file=sys.stderr)
            raise SystemExit(cli.INTERRUPTED) from None


def start(config: Config, folder: Path, args: argparse.Namespace) -> None:
    """Train in the processes that the options ask for. Raises ValueError as they do."""
    import distributed
    from training.process import train_process

    try:
        distributed.launch(train_process, args.device, args.processes, config, folder, args)
    except (ValueError, OSError) as error:
        raise ValueError(distributed.reason(error)) from None


def prepare_run(args: argparse.Namespace) -> tuple[Config, Path]:
    """Return the config, given or the run's own, and the run's folder, which is created if it is new.

    Raises ValueError if the options do not fit the run.
    """
    import corpus

    folder = run_folder(args.model)
    own = folder / "config.json"
    started = any(folder.glob("G_*.pth"))
    if args.config:
        config = configs.load(args.config)
        if not config.data.speakers and own.exists() and started:
            config = changed(config, "data", speakers=speakers_of_run(folder))
    elif own.exists():
        config = configs.load(own)
    else:
        raise ValueError(f"{folder} has no run yet: give its config with -c")
    if args.precision:
        config = changed(config, "train", precision=args.precision)
    if started and (args.init_from or args.init_discriminator):
        raise ValueError(
            f"{folder} has checkpoints already: choose another name with -m, "
            "or omit --init-from and --init-discriminator"
        )
    if args.init_from:
        from synthesis.voice import find_checkpoint

        find_checkpoint(args.init_from)
    if args.init_discriminator and not Path(args.init_discriminator).is_file():
        raise ValueError(f"there is no file {args.init_discriminator}")
    if args.max_steps is not None and args.max_steps < 1:
        raise ValueError(f"--max-steps is {args.max_steps}; it must be 1 or more")
    if args.evaluate_list and args.evaluate_every is None:
        raise ValueError("--evaluate-list has no effect without --evaluate-every")
    if args.evaluate_every is not None:
        args.evaluate_list = list_to_evaluate(args, config)
    elif config.train.best in configs.EVALUATED:
        raise ValueError(f"train.best is {config.train.best!r}, which is measured only with --evaluate-every")
    corpus.check_records(config.data)
    config = with_speakers_of_lists(config)
    folder.mkdir(parents=True, exist_ok=True)
    return config, folder


def speakers_of_run(folder: Path) -> dict[str, int]:
    """Return the table of speakers of a run with checkpoints, from its config or, if that is broken, a checkpoint."""
    try:
        return configs.load(folder / "config.json").data.speakers
    except ValueError as error:
        import checkpoint

        content = checkpoint.read(checkpoint.latest_checkpoint_path(folder))
        logger.warning("%s. The speakers are those of the newest checkpoint", error)
        speakers = (content.get("config") or {}).get("data", {}).get("speakers", {})
        return {str(name): int(number) for name, number in speakers.items()}


def list_to_evaluate(args: argparse.Namespace, config: Config) -> str:
    """Return the filelist for `--evaluate-every`. Raises ValueError if options, files or packages do not fit."""
    from audio import read_header
    from evaluation import takes
    from evaluation.background import SENTENCES, check_packages

    every, interval = args.evaluate_every, config.train.eval_interval
    if every < 1 or every % interval:
        raise ValueError(f"--evaluate-every is {every}; it must be a multiple of train.eval_interval ({interval})")
    path = args.evaluate_list or config.data.validation_files.removesuffix(".cleaned")
    if not args.evaluate_list and path == config.data.validation_files and config.data.cleaned_text:
        raise ValueError(f"{path} has no name with .cleaned: give a filelist of plain text with --evaluate-list")
    if not Path(path).is_file():
        raise ValueError(f"there is no file {path}: give a filelist of plain text with --evaluate-list")
    for take in takes.recordings(path)[:SENTENCES]:
        read_header(take.recording)
    check_packages()
    return path


def with_speakers_of_lists(config: Config) -> Config:
    """Return the config with a table of speakers, taken from its filelists if it has none."""
    import corpus
    from corpora.filelist import Filelist

    if config.data.speakers:
        return config
    lists = [Filelist(path) for path in (config.data.training_files, config.data.validation_files)]
    return changed(config, "data", speakers=corpus.speaker_table(lists, config.data.n_speakers))


if __name__ == "__main__":
    main()
