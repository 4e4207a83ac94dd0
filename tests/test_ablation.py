"""The recipe of the ablation: its rows, and training, speaking and scoring with programs that are called in turn."""

import json
import time
from pathlib import Path

import pytest
import tiny

import config as configs
import evaluate
import train
from recipes import ablation

PROGRAMS = {"train.py": train.main, "evaluate.py": evaluate.main}


@pytest.fixture
def programs(workspace, monkeypatch):
    """Run the programs in this process. Returns their names and arguments."""
    called = []

    def run(program, *arguments, environment=None):
        called.append((program, list(arguments)))
        extra = ["--device=cpu"] if "--compare" not in arguments else []
        extra += ["--measures=durations"] if "--wavs" in arguments else []
        PROGRAMS[program]([*arguments, *extra])

    monkeypatch.setattr(ablation, "run", run)
    # training handles signals, which only the main thread may do
    monkeypatch.setattr(ablation, "on_gpus", lambda jobs, *_: [job.train_and_speak("0") for job in jobs])
    Path("test.txt").write_text("val0.wav|Hello world.\nval1.wav|A small voice.\n", "utf-8")
    return called


def base(**changes):
    settings = {"model": {"use_duration_discriminator": True, "use_sdp": False, "use_duration_noise": True}}
    return tiny.write_config(Path("base.json"), settings, **changes)


def test_every_row_differs_from_the_base_and_gives_a_valid_config(workspace):
    base()
    two = ["two_train.txt", "two_val.txt", "two_test.txt"]
    arguments = ablation.argparse.Namespace(
        config="base.json", output="out", filelist="test.txt", two_speakers=two, steps=1, stages=[]
    )
    rows = ablation.ROWS | ablation.SPEAKER_ROWS
    found = {row: configs.load(ablation.Job(arguments, row, 3).write_config()) for row in rows}
    assert all(config.train.seed == 3 for config in found.values())
    texts = {row: json.dumps(configs.dataclasses.asdict(config)) for row, config in found.items()}
    assert len(set(texts.values())) == len(rows)
    plain = found["vits"]
    assert plain.model.use_sdp and not plain.model.use_transformer_flows and not plain.model.use_noise_scaled_mas
    assert plain.data.add_blank and not plain.model.use_duration_discriminator and plain.spec_channels > 80 / 2
    assert found["two_speakers"].data.training_files == "two_train.txt" and found["two_speakers"].data.n_speakers == 2


@pytest.mark.slow
def test_rows_are_trained_spoken_scored_and_compared_and_the_same_command_continues(programs):
    base()
    command = ["test.txt", "-c", "base.json", "--output", "out", "--rows", "vits2", "--seeds", "1", "2", "--steps", "1"]
    ablation.main([*command, "--stages", "train"])
    assert [program for program, _ in programs] == ["train.py"] * 2
    ablation.main(command)
    assert [program for program, _ in programs[2:]] == ["evaluate.py"] * 5  # 2 spoken, 2 scored, and the table
    table = Path("out/table.md").read_text("utf-8")
    assert "vits2-1" in table and "vits2-2" in table and "duration variation" in table
    del programs[:]
    ablation.main([*command, "--stages", "train", "speak", "score"])
    assert not programs


def test_each_gpu_gets_its_number_of_runs():
    class Job:
        def train_and_speak(self, gpu):
            running.append(gpu)
            most.append((len(running), running.count(gpu)))
            time.sleep(0.02)
            running.remove(gpu)
            done.append(gpu)

    class Broken(Job):
        def train_and_speak(self, gpu):
            raise ValueError("broken")

    running, most, done = [], [], []
    ablation.on_gpus([Job() for _ in range(10)], ["0", "1"], 2)
    assert set(done) == {"0", "1"} and len(done) == 10
    assert max(total for total, _ in most) <= 4 and max(same for _, same in most) == 2
    with pytest.raises(ValueError, match="broken"):
        ablation.on_gpus([Broken(), Job()], ["0"], 1)
    assert len(done) == 10  # no other job has started


def test_gpus_are_those_that_the_user_made_visible(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert ablation.visible_gpus(2) == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5,7")
    assert ablation.visible_gpus(2) == ["3", "5"]
    with pytest.raises(ValueError, match="--gpus is 4, and CUDA_VISIBLE_DEVICES lists 3"):
        ablation.visible_gpus(4)


@pytest.mark.slow
def test_other_steps_are_trained_spoken_and_scored_again(programs):
    base()
    command = ["test.txt", "-c", "base.json", "--output", "out", "--rows", "vits2", "--seeds", "1"]
    ablation.main([*command, "--steps", "1"])
    del programs[:]
    ablation.main([*command, "--steps", "2"])
    assert [program for program, _ in programs] == ["train.py"] + ["evaluate.py"] * 3
    assert json.loads(Path("out/vits2-1/report.json").read_text("utf-8"))["details"]["step"] == 2
    for name in ("takes.json", "report.json"):
        Path("out/vits2-1", name).write_text("{}", "utf-8")
        with pytest.raises(SystemExit, match="2"):
            ablation.main([*command, "--steps", "2"])
        if name == "takes.json":
            Path("out/vits2-1", name).unlink()
            ablation.main([*command, "--steps", "2"])


def test_errors_take_one_line(programs, capsys):
    base()
    with pytest.raises(SystemExit) as ended:
        ablation.main(["test.txt", "-c", "base.json", "--output", "out", "--rows", "two_speakers"])
    assert ended.value.code == 2 and "give --two-speakers" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--stages", "table"], "no row has been scored yet"),
        ([], "training ended without logs/out/vits2-1/G_1.pth: if it was stopped, the same command resumes it"),
    ],
)
def test_a_recipe_without_results_takes_one_line(options, message, programs, monkeypatch, capsys):
    base()
    monkeypatch.setitem(PROGRAMS, "train.py", lambda arguments: None)
    with pytest.raises(SystemExit, match="2"):
        ablation.main(
            [
                "test.txt",
                "-c",
                "base.json",
                "--output",
                "out",
                "--rows",
                "vits2",
                "--seeds",
                "1",
                "--steps",
                "1",
                *options,
            ]
        )
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("lines", [None, "nowhere.wav|Hello."])
def test_a_missing_list_or_recording_is_found_before_training(lines, programs, capsys):
    base()
    Path("test.txt").unlink()
    if lines:
        Path("test.txt").write_text(lines, "utf-8")
    with pytest.raises(SystemExit, match="2"):
        ablation.main(["test.txt", "-c", "base.json", "--output", "out", "--rows", "vits2", "--seeds", "1"])
    assert not programs and ("nowhere.wav" if lines else "test.txt") in capsys.readouterr().err


def test_a_program_that_fails_ends_the_recipe():
    with pytest.raises(ValueError, match=r"exit code 2 of: .*train\.py"):
        ablation.run("train.py", "-c", "nowhere.json", "-m", "a")
