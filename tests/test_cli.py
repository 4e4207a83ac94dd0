"""Tests of the command-line convention: options, help texts, exit codes, and notebook cells that end in one line."""

import argparse
import importlib
import os
import re
import subprocess
import sys
import warnings

import pytest
import tiny
from IPython.core.interactiveshell import InteractiveShell

import cli

# every program, with a call that is a user error
PROGRAMS = {
    "corpus.py": ["none.txt"],
    "demo.py": ["--clips", "1"],
    "demo_corpus.py": ["--speakers", "99"],
    "evaluate.py": ["none.txt", "-m", "none", "--output", "out"],
    "export_onnx.py": ["--model-path", "none", "--output", "a.onnx"],
    "import_voice.py": ["none", "-m", "a"],
    "infer_onnx.py": ["--model", "none.onnx", "--text", "Hello."],
    "inference.py": ["-m", "none", "-t", "Hello."],
    "make_filelists.py": ["folder", "none"],
    "plots.py": ["none", "a.png"],
    "preprocess.py": ["--filelists", "none.txt"],
    "train.py": ["-m", "none"],
    "train_ms.py": ["-m", "none"],
    "webui.py": ["-m", "none"],
}
EXTRAS = ("gradio", "onnx", "onnxruntime")


def run(program, *arguments, folder, blocked=()):
    """Run a program in a folder; the packages `blocked` cannot be imported."""
    for name in blocked:
        (folder / f"{name}.py").write_text(f"raise ModuleNotFoundError('blocked', name={name!r})")
    path = str(tiny.ROOT / program)
    code = f"import runpy, sys; sys.argv[0] = {program!r}; runpy.run_path({path!r}, run_name='__main__')"
    return tiny.python("-c", code, *arguments, folder=folder)


@pytest.fixture
def parser():
    parser = cli.Parser("What it does.\n\nExamples:\n  python program.py --max-steps 3\n", prog="program.py")
    parser.add_argument("-m", "--max-steps", type=int, default=7, help="number of steps")
    parser.add_argument("--text", default="100 %", help="text to speak")
    parser.add_argument("--names", nargs="+", default=["a", "b"], help="names")
    parser.add_argument("--seed", type=int, help="seed (default: random)")
    parser.add_argument("--plain", action="store_true", help="no kernels")
    return parser


@pytest.mark.parametrize(
    ("arguments", "steps", "text"),
    [
        (["--max-steps", "3"], 3, "100 %"),
        (["--max_steps", "3"], 3, "100 %"),
        (["--max_steps=3", "--text=--a_b"], 3, "--a_b"),
        (["--max_st", "3"], 3, "100 %"),
        (["-m", "3", "--text", "a_b --c_d"], 3, "a_b --c_d"),
        ([], 7, "100 %"),
    ],
)
def test_long_options_accept_dashes_and_underscores(parser, arguments, steps, text):
    args = parser.parse_args(arguments)
    assert (args.max_steps, args.text) == (steps, text)


def test_arguments_after_two_dashes_are_not_options():
    parser = cli.Parser("Doc.")
    parser.add_argument("files", nargs="*")
    assert parser.parse_args(["--", "--a_b"]).files == ["--a_b"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--max_stps", "3"], "unknown option --max_stps; did you mean --max-steps?"),
        (["--zzz"], "unknown option --zzz (options"),
        (["--max-steps", "x"], "argument -m/--max-steps: invalid int value: 'x'"),
    ],
)
def test_usage_errors_take_one_line_and_name_the_nearest_option(parser, capsys, arguments, message):
    with pytest.raises(SystemExit, match="2"):
        parser.parse_args(arguments)
    error = capsys.readouterr().err
    assert error.startswith("program: ") and message in error and error.count("\n") == 1


def test_help_shows_defaults_and_examples(parser):
    text = parser.format_help()
    assert "number of steps (default: 7)" in text and "text to speak (default: 100 %)" in text
    assert "names (default: a b)" in text and "seed (default: random)\n" in text and "no kernels\n" in text
    assert "What it does.\n" in text and text.endswith("Examples:\n  python program.py --max-steps 3\n")


class Parsed(Exception):
    """Carries a program's parser out of its `main`."""


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_option_has_a_description_and_a_default_and_every_program_examples(program, monkeypatch):
    def stop(parser, *_):
        raise Parsed(parser)

    monkeypatch.setattr(cli.Parser, "parse_args", stop)
    with pytest.raises(Parsed) as parsed:
        importlib.import_module(program.removesuffix(".py")).main([])
    (parser,) = parsed.value.args
    assert parser.description and parser.epilog.startswith("Examples:\n  python ")
    parsers = [parser]
    for action in parser._actions:
        parsers += (action.choices or {}).values() if isinstance(action, argparse._SubParsersAction) else []
    for action in (action for each in parsers for action in each._actions if action.option_strings):
        text = parser._get_formatter()._get_help_string(action)
        assert len(text.split()) > 1, action
        assert action.nargs == 0 or action.required or "(default: " in text, action
        assert not any("_" in option for option in action.option_strings)


@pytest.mark.parametrize("program", PROGRAMS)
def test_help_is_quick_and_works_without_the_extras(program, tmp_path):
    """Packages that take seconds to import are not imported."""
    done = run(program, "--help", folder=tmp_path, blocked=(*EXTRAS, "torch", "matplotlib"))
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.startswith(f"usage: {program} ")


@pytest.mark.parametrize("program", PROGRAMS)
def test_user_errors_take_one_line_and_exit_with_2(program, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        importlib.import_module(program.removesuffix(".py")).main(PROGRAMS[program])
    error = capsys.readouterr().err
    assert end.value.code == 2 and error.count("\n") == 1
    assert error.startswith(f"{program.removesuffix('.py').replace('train_ms', 'train')}: ")


@pytest.mark.parametrize(("program", "package"), [("webui.py", "gradio"), ("infer_onnx.py", "onnxruntime")])
def test_a_missing_extra_takes_one_line(program, package, tmp_path):
    (tmp_path / "voice.onnx").touch()
    arguments = ["--model", "voice.onnx", "--text", "Hello."] if program == "infer_onnx.py" else []
    done = run(program, *arguments, folder=tmp_path, blocked=[package])
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert f"needs the package {package}: pip install -r requirements-extras.txt" in done.stderr


def test_errors_in_one_line(capsys):
    with pytest.raises(SystemExit, match="2"), cli.errors_in_one_line("program"):
        warnings.warn("two\nlines", stacklevel=1)
        raise ValueError("wrong\n  value")
    assert capsys.readouterr().err == "program: two lines\nprogram: wrong value\n"
    with pytest.raises(KeyError), cli.errors_in_one_line("program"):  # a crash keeps its traceback
        raise KeyError("name")


def test_an_installed_command_has_its_own_name_in_messages(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/usr/bin/vits2-speak.exe"])
    with pytest.raises(SystemExit, match="2"), cli.errors_in_one_line("inference"):
        cli.extra("no_such_package")
    message = 'vits2-speak: this program needs the package no_such_package: pip install "vits2[serve]"\n'
    assert capsys.readouterr().err == message


def test_did_you_mean():
    assert cli.did_you_mean("batchsize", ["epochs", "batch_size"]) == "; did you mean batch_size?"
    assert cli.did_you_mean("zzz", ["epochs"]) == ""


# Notebooks


@pytest.fixture
def shell(tmp_path, monkeypatch):
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))  # not the settings and the history of the user
    yield InteractiveShell.instance()
    InteractiveShell.clear_instance()


def test_user_errors_stop_a_cell_with_one_line():
    for error in (ValueError("data.hop_length is 3"), OSError("no such disk")):
        with pytest.raises(cli.Stopped, match=str(error)) as stopped, cli.notebook_errors_in_one_line():
            raise error
        assert stopped.value._render_traceback_() == [f"Stopped: {error}"]
    with pytest.raises(KeyError), cli.notebook_errors_in_one_line():
        raise KeyError("name")


def test_a_failed_program_stops_the_cell(shell):
    shell.run_cell("!exit 0")
    cli.stop_if_failed()
    shell.run_cell("!exit 3")
    with pytest.raises(cli.Stopped, match="exit code 3"):
        cli.stop_if_failed()


def test_the_notebook_shows_only_the_message(shell, capsys):
    result = shell.run_cell("import cli\nraise cli.Stopped('there is no my.zip')")
    assert isinstance(result.error_in_exec, cli.Stopped)
    assert capsys.readouterr().out.strip() == "Stopped: there is no my.zip"


@pytest.mark.parametrize("program", sorted(set(PROGRAMS) - {"demo.py", "preprocess.py"}))  # which import little
def test_ctrl_c_during_imports_prints_one_line(program, tmp_path):
    stub = "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(9)\n"
    for name in ("numpy", "torch"):
        (tmp_path / f"{name}.py").write_text(stub, "utf-8")
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    command = [sys.executable, tiny.ROOT / program, *PROGRAMS[program]]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == cli.INTERRUPTED
    assert re.fullmatch(r"(\w+): stopped (by Ctrl-C|before training began)\n", done.stderr), done.stderr
