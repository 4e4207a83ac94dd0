"""The command-line convention of all programs: options, help texts, errors and exit codes.

Exit code 0 is success, 2 an error that the user can correct (one line on standard error), 1 a crash (a traceback), and
130 an interrupt by Ctrl-C (one line).
Importing this module loads only the standard library, so that `--help` is quick and works without the packages of
requirements-extras.txt.
"""

import argparse
import difflib
import importlib
import os
import re
import shutil
import signal
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, ModuleType
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from synthesis.speech import BaseVoice

DICTIONARY = "words and their [[phonemes]] or respellings, one word a line, or JSON"  # help of --dictionary
INTERRUPTED = 130  # exit code of a program that Ctrl-C ended
INSTALLED = "vits2-"  # with which the names of the commands of `programs` begin
_LONG_OPTION = re.compile(r"(--[^\W\d][\w-]*)(=.*)?", re.DOTALL)


class Parser(argparse.ArgumentParser):
    """An argument parser with the conventions of this repository.

    Long options may be written with `-` or `_` between words; declare them with `-`. The error for an unknown option
    names the nearest option. Errors take one line. Help texts end with the option's default. The examples of an
    installed command have its name.

    Args: `doc` is the program's docstring, of which the part after a line `Examples:` is shown after the options;
    `options` are arguments of `argparse.ArgumentParser`.
    """

    def __init__(self, doc: str | None = None, **options: Any) -> None:
        description, _, examples = (doc or "").partition("\nExamples:\n")
        options.setdefault("description", description.strip())
        options.setdefault("epilog", f"Examples:\n{examples.rstrip()}" if examples else None)
        super().__init__(formatter_class=_HelpFormatter, **options)
        if self.epilog and self.prog.startswith(INSTALLED):
            self.epilog = re.sub(r"python \w+\.py", Path(self.prog).stem, self.epilog)

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """Parse arguments as `argparse.ArgumentParser` does, with either spelling of long options."""
        args = list(sys.argv[1:] if args is None else args)
        declared = [option for option in self._option_string_actions if option.startswith("--")]
        for i, arg in enumerate(args):
            if arg == "--":
                break
            if option := _LONG_OPTION.fullmatch(arg):
                name = option[1].replace("_", "-")
                if any(known.startswith(name) for known in declared):  # argparse accepts abbreviations
                    args[i] = name + (option[2] or "")
                elif not self._subparsers:  # otherwise the option may belong to the subcommand
                    self.error(f"unknown option {option[1]}{did_you_mean(name, declared)}")
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Print a usage error as one line and exit with code 2."""
        program = self.prog.split()[0].removesuffix(".py")
        self.exit(2, f"{program}: {' '.join(message.split())} (options: {self.prog} --help)\n")


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Show descriptions and examples as written, and append defaults to help texts."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text, default = action.help or "", action.default
        has_value = action.nargs != 0 and action.option_strings and not action.required
        if not has_value or default == argparse.SUPPRESS or "(default" in text:
            return text
        values = default if isinstance(default, (list, tuple)) else [default]
        shown = " ".join(str(value) for value in values if value not in (None, "")) or "none"
        return f"{text} (default: {shown.replace('%', '%%')})"


def did_you_mean(word: str, choices: Iterable[str], cutoff: float = 0.6) -> str:
    """Return `"; did you mean CHOICE?"` for the choice nearest to `word`, or an empty string if none is near."""
    near = difflib.get_close_matches(word, list(choices), 1, cutoff)
    return f"; did you mean {near[0]}?" if near else ""


def interrupts_in_one_line() -> None:
    """Let Ctrl-C print one line while a program imports its modules; `errors_in_one_line` does so afterwards."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not if the parent process ignores it
        signal.signal(signal.SIGINT, _end)


def _end(number: int, frame: FrameType | None) -> NoReturn:
    # an exception would be lost, or printed with a traceback, by some of the modules that are imported
    os.write(2, f"{Path(sys.argv[0]).stem}: stopped by Ctrl-C\n".encode())
    os._exit(INTERRUPTED)


def command(program: str) -> str:
    """Return the name of the running program for its messages: the installed command that was called, or `program`."""
    typed = Path(sys.argv[0]).stem
    return typed if typed.startswith(INSTALLED) else program


@contextmanager
def errors_in_one_line(program: str) -> Iterator[None]:
    """Print user errors (ValueError, OSError) as one line and exit with code 2; print each warning as one line.

    Other exceptions are crashes: they pass with their traceback, and Python exits with code 1. Ctrl-C prints one
    line, and the exit code is 130. If the reader of standard output has closed it, the program exits with code 0. Lines
    begin with `command(program)`.
    """

    def show(message: Warning | str, *_args: Any, **_options: Any) -> None:
        print(f"{command(program)}: {' '.join(str(message).split())}", file=sys.stderr)

    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    with warnings.catch_warnings():
        warnings.showwarning = show
        try:
            yield
            sys.stdout.flush()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise SystemExit(0) from None
        except KeyboardInterrupt:
            show("stopped by Ctrl-C")
            raise SystemExit(INTERRUPTED) from None
        except (ValueError, OSError) as error:
            show(str(error))
            raise SystemExit(2) from None


def extra(module: str) -> ModuleType:
    """Import and return a module of requirements-extras.txt. Raises ValueError with the command that installs it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.partition(".")[0]:
            raise
        install = "-r requirements-extras.txt" if not command("") else '"vits2[serve]"'
        raise ValueError(f"this program needs the package {module}: pip install {install}") from None


class Extra:
    """A module of requirements-extras.txt that is imported when its first attribute is read."""

    def __init__(self, module: str) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Any:
        return getattr(extra(self._module), name)


def add_run(parser: argparse._ActionsContainer, *flags: str, **options: Any) -> None:
    """Add an argument that names a trained run; `synthesis.voice.find_checkpoint` and `files.run_folder` resolve it."""
    options.setdefault("help", "name of a run in logs/, the run's folder, or a checkpoint G_STEP.pth")
    parser.add_argument(*flags, metavar="RUN", **options)


def add_config(parser: argparse._ActionsContainer, *flags: str) -> None:
    """Add the option for the config of a checkpoint of other VITS code."""
    where = "the config in the checkpoint, or config.json beside it"
    parser.add_argument(*flags, metavar="JSON", help=f"config file (default: {where})")


def add_device(parser: argparse._ActionsContainer, choices: Sequence[str] | None = None) -> None:
    """Add `--device`; without `choices` it also accepts names such as cuda:1."""
    parser.add_argument("--device", choices=choices, default="auto", help="auto (a GPU if there is one), cpu or cuda")


def add_speaking_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `synthesis.speech.BaseVoice.speak`; `speaking_options` returns them."""
    from synthesis.speech import PAUSE, Scales

    noise_scale, length_scale, noise_scale_w = Scales()
    add = parser.add_argument
    add("--noise-scale", type=float, default=noise_scale, metavar="X", help="variation of the sound, a factor from 0")
    add("--noise-scale-w", type=float, default=noise_scale_w, metavar="X", help="variation of the rhythm, from 0")
    add("--length-scale", type=float, default=length_scale, metavar="X", help="factor on durations; above 1 is slower")
    add("--seed", type=int, metavar="N", help="the same seed gives the same audio (default: random)")
    add("--pause", type=float, default=PAUSE, metavar="SECONDS", help="silence between sentences, in seconds")
    add("--normalize", action="store_true", help="scale the audio to a peak of -1 dBFS")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--phonemes", action="store_true", help="the text holds phonemes, as the cleaners return them")
    form.add_argument("--ids", action="store_true", help="the text holds token ids, blanks included, between spaces")
    add("--dictionary", metavar="FILE", help=DICTIONARY)
    add("--output-raw", action="store_true", help="stream 16-bit mono PCM to standard output")
    add("--timings", metavar="FILE", help="write times of sentences, words and tokens (.json), or subtitles (.srt)")


def check_speaking_options(args: argparse.Namespace) -> None:
    """Raise ValueError if an option for speaking, the output or a picture is empty or has no effect with the others."""
    from synthesis.output import TIMINGS

    for option in ("file", "convert", "timings", "picture", "output"):
        if getattr(args, option, None) == "":
            raise ValueError(f"--{option} is empty")
    if args.timings and Path(args.timings).suffix.lower() not in TIMINGS:
        raise ValueError(f"{args.timings}: timings are written as {' or '.join(TIMINGS)}")
    for option in ("timings", "picture", "normalize", "output") if args.output_raw else ():
        if getattr(args, option, None):
            raise ValueError(f"--{option} needs the whole speech, and --output-raw writes it while it is synthesized")


def speaking_options(args: argparse.Namespace) -> dict[str, Any]:
    """Return the options of `add_speaking_options`, and `args.speaker`, as keyword arguments of `BaseVoice.speak`."""
    names = ("speaker", "noise_scale", "noise_scale_w", "length_scale", "seed", "phonemes", "pause", "normalize")
    return {name: getattr(args, name) for name in names}


def add_words(voice: "BaseVoice", args: argparse.Namespace) -> None:
    """Add the words of `--dictionary` to a voice. Raises ValueError if the file cannot be read."""
    from text.markup import read_dictionary

    if args.dictionary is not None:
        voice.add_words(read_dictionary(args.dictionary))


def given_text(text: str, args: argparse.Namespace) -> str | list[int]:
    """Return the text or, with `--ids`, its token ids. Raises ValueError for an id that is not a whole number."""
    if not args.ids:
        return text
    try:
        return [int(token) for token in text.split()]
    except ValueError:
        raise ValueError(f"--ids takes whole numbers separated by spaces, not {text[:40]!r}") from None


class Stopped(Exception):
    """Stops a notebook cell, and "Run all"; the notebook shows only the message."""

    def _render_traceback_(self) -> list[str]:
        """Return what IPython shows instead of the traceback."""
        return [f"Stopped: {self}"]


def settings_of_environment(settings: dict[str, Any]) -> dict[str, Any]:
    """Return a notebook's settings, each replaced by the environment variable `VITS_NAME` if there is one.

    Raises ValueError for a variable that is no number where the setting is one.
    """

    def given(name: str, value: Any) -> Any:
        text = os.environ.get(f"VITS_{name}")
        if text is None:
            return value
        if isinstance(value, bool):
            return text == "1"
        try:
            return type(value)(text)
        except ValueError:
            raise ValueError(f"VITS_{name} is {text!r}, which is not a number") from None

    return {name: given(name, value) for name, value in settings.items()}


def move_folder(folder: str | Path, target: str | Path) -> None:
    """Make `folder` a link to `target`, which is created, and move what `folder` holds there.

    Raises Stopped if both hold an entry of the same name.
    """
    folder, target = Path(folder), Path(target)
    target.mkdir(parents=True, exist_ok=True)
    if folder.is_symlink():
        return
    for entry in sorted(folder.iterdir()) if folder.is_dir() else []:
        if (target / entry.name).exists():
            raise Stopped(f"{entry} is in {target} already: choose another NAME, or remove one of them")
        shutil.move(entry, target / entry.name)
    if folder.is_dir():
        folder.rmdir()
    folder.symlink_to(target.resolve())


@contextmanager
def notebook_errors_in_one_line() -> Iterator[None]:
    """Stop the cell with one line for a user error (ValueError, OSError)."""
    try:
        yield
    except (ValueError, OSError) as error:
        raise Stopped(error) from None


def stop_if_failed() -> None:
    """Stop the cell if the last program that it ran with `!` failed. The program has printed the reason."""
    from IPython import get_ipython

    if status := get_ipython().user_ns["_exit_code"]:
        raise Stopped(f"the program above ended with exit code {status}; its last lines tell why")
