"""Evaluations during training: their process, their results, and the voice that they choose."""

import json
import time

import pytest
import tiny
from test_train import metrics, with_config

import checkpoint
from evaluation import background

# In place of evaluate.py: writes a report with the CER that `cer.json` holds for the step, or fails for null.
PROGRAM = """
import json, pathlib, sys
arguments = sys.argv[1:]
voice, output = (pathlib.Path(arguments[arguments.index(name) + 1]) for name in ("-m", "--output"))
assert voice.is_file() and arguments[arguments.index("--device") + 1] == "cpu"
cer = json.loads(pathlib.Path("cer.json").read_text())[output.name]
if cer is None:
    raise SystemExit("evaluate: nothing was heard")
if cer == "endless":
    while True: pass
(output / "report.json").write_text(json.dumps({"cer": {"value": cer}, "other": {"value": 1}}))
"""


@pytest.fixture
def evaluations(workspace, monkeypatch):
    """Return a function that sets the CER of each step of the run to come."""
    (workspace / "program.py").write_text(PROGRAM, "utf-8")
    (workspace / "lines.txt").write_text("val0.wav|Hello.\n", "utf-8")
    (workspace / "missing.txt").write_text("missing.wav|Hello.\n", "utf-8")
    monkeypatch.setattr(background, "PROGRAM", workspace / "program.py")
    monkeypatch.setattr("evaluation.background.check_packages", lambda: None)
    monkeypatch.setattr("training.process.PROGRESS_INTERVAL", 1)
    return lambda values: (workspace / "cer.json").write_text(json.dumps(values), "utf-8")


def wait_for_every_evaluation(monkeypatch):
    """Let each step wait for a running evaluation, so that none is left out."""
    result = background.BackgroundEvaluation.result
    monkeypatch.setattr(background.BackgroundEvaluation, "result", lambda self, wait=False: result(self, True))


def test_the_best_voice_is_that_of_the_lowest_cer(evaluations, monkeypatch):
    wait_for_every_evaluation(monkeypatch)
    evaluations({"1": 0.5, "2": 0.2, "3": None, "4": 0.4})
    settings = {"train": {"eval_interval": 1, "best": "cer"}}
    with_config(settings)("--max-steps", 4, "--evaluate-every", 1, "--evaluate-list", "lines.txt")
    found = {line["step"]: line["evaluation/cer"] for line in metrics("logs/voice") if "evaluation/cer" in line}
    assert found == {1: 0.5, 2: 0.2, 4: 0.4}
    assert checkpoint.read("logs/voice/G_best.pth")["step"] == 2
    assert "the evaluation of step 3 failed: evaluate: nothing was heard" in tiny.Path(
        "logs/voice/train.log"
    ).read_text("utf-8")
    assert not list(tiny.Path("logs/voice/evaluation").glob("*/voice.pth"))


def test_a_later_start_knows_the_best_evaluation_of_an_earlier_one(evaluations, monkeypatch):
    """The last evaluation of a start ends after its last checkpoint."""
    wait_for_every_evaluation(monkeypatch)
    evaluations({"2": 0.1, "4": 0.4, "6": 0.05})
    train = with_config({"train": {"eval_interval": 2, "best": "cer"}})
    every = ["--evaluate-every", 2, "--evaluate-list", "lines.txt"]
    train("--max-steps", 2, *every)
    assert checkpoint.read("logs/voice/G_best.pth")["step"] == 2
    left = tiny.Path("logs/voice/evaluation/3/voice.pth")  # of an evaluation that was killed
    left.parent.mkdir()
    left.write_bytes(b"")
    train("--max-steps", 4, *every)
    assert checkpoint.read("logs/voice/G_best.pth")["step"] == 2 and not left.exists()
    train("--max-steps", 6, *every)
    assert checkpoint.read("logs/voice/G_best.pth")["step"] == 6


def test_patience_counts_evaluations(evaluations, monkeypatch):
    wait_for_every_evaluation(monkeypatch)
    evaluations({str(step): 0.1 * step for step in range(1, 9)})
    settings = {"train": {"eval_interval": 1, "best": "cer", "patience": 2}}
    with_config(settings)("--max-steps", 8, "--evaluate-every", 1, "--evaluate-list", "lines.txt")
    assert max(line["step"] for line in metrics("logs/voice")) < 8
    assert "cer has not improved in 2 measurements" in tiny.Path("logs/voice/train.log").read_text("utf-8")


def test_training_does_not_wait_and_ends_an_evaluation_that_is_too_slow(evaluations, workspace):
    evaluations({"1": "endless"})
    evaluation = background.BackgroundEvaluation("lines.txt", workspace / "evaluation")
    path = evaluation.voice(1)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"")
    began = time.monotonic()
    evaluation.start(1)
    _, process = evaluation.running
    assert evaluation.result() is None and evaluation.running and time.monotonic() - began < 5
    evaluation.stop()
    assert process.poll() is not None and not path.exists() and evaluation.running is None


@pytest.mark.parametrize(
    "settings, arguments, message",
    [
        ({"best": "cer"}, [], "measured only with --evaluate-every"),
        ({}, ["--evaluate-every", 3], "must be a multiple of train.eval_interval (2)"),
        ({}, ["--evaluate-every", 2, "--evaluate-list", "none.txt"], "there is no file none.txt"),
        ({}, ["--evaluate-every", 2], "give a filelist of plain text with --evaluate-list"),
        ({}, ["--evaluate-list", "lines.txt"], "--evaluate-list has no effect without --evaluate-every"),
        ({}, ["--evaluate-every", 2, "--evaluate-list", "missing.txt"], "missing.wav"),
    ],
)
def test_options_that_do_not_fit_are_reported(settings, arguments, message, evaluations, capsys):
    with pytest.raises(SystemExit) as ended:
        with_config({"train": {"eval_interval": 2, **settings}})("--max-steps", 2, *arguments)
    assert ended.value.code == 2 and message in capsys.readouterr().err


def test_missing_packages_are_named_before_training(workspace, monkeypatch, capsys):
    (workspace / "lines.txt").write_text("val0.wav|Hello.\n", "utf-8")
    monkeypatch.setattr(background.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit):
        with_config()("--max-steps", 2, "--evaluate-every", 1000, "--evaluate-list", "lines.txt")
    assert "run `make evaluate-setup`" in capsys.readouterr().err and not tiny.Path("logs").exists()
