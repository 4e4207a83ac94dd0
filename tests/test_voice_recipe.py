"""The recipe of the small voice: its programs are called in turn, and some of them run."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import test_teacher

import config as configs
import corpus
import make_filelists
from files import run_folder
from recipes import teacher, voice

PROGRAMS = {
    "recipes/teacher.py": teacher.main,
    "make_filelists.py": make_filelists.main,
    "corpus.py": corpus.main,
}


@pytest.fixture
def called(tmp_path, monkeypatch):
    """Run the programs that prepare recordings in this process. Returns the names and arguments of all programs."""
    monkeypatch.chdir(tmp_path)
    test_teacher.stand_in(monkeypatch)
    monkeypatch.setattr(voice, "VALIDATION_CLIPS", "1")
    calls = []

    def run(program, *arguments):
        calls.append((program, arguments))
        options = ["--jobs=1"] if "teacher" in program else []
        if program in PROGRAMS:
            try:
                PROGRAMS[program]([*arguments, *options])
            except SystemExit as end:
                assert not end.code

    monkeypatch.setattr(voice, "run", run)
    Path("texts.txt").write_text("a|One small text.\nb|Two small texts.\nc|Three small texts.\n", "utf-8")
    Path("ann").mkdir()
    random = np.random.default_rng(1)
    for name in ("x", "y", "z"):
        soundfile.write(f"ann/{name}.wav", 0.1 * random.standard_normal(22050), 22050)
    for split, name in zip(("train", "val", "test"), "xyz"):
        Path("ann", f"{split}.txt").write_text(f"{name}.wav|My name is {name}.\n", "utf-8")
    return calls


def test_recordings_become_the_lists_and_the_config_of_the_run(called):
    pytest.importorskip("pyloudnorm")
    options = ["--speaker", "ann=ann", "--repeat", "ann=2", "--output", "out", "-m", "small", "--steps", "7"]
    voice.main(["texts.txt", *options, "--clips", "3"])
    programs = ["recipes/teacher.py", "make_filelists.py", "make_filelists.py", "corpus.py", "train.py", "evaluate.py"]
    assert [program for program, _ in called] == programs
    assert called[-2][1] == ("-c", "out/voice_config.json", "-m", "small", "--max-steps", "7")
    assert [line.split("|")[1:] for line in Path(called[-1][1][0]).read_text("utf-8").splitlines()] == [
        ["ann", "My name is z."]
    ]
    config = configs.load("out/voice_config.json")
    assert config.data.speakers == {"ann": 0, "teacher": 1} and config.model.gin_channels
    assert config.model.decoder == configs.load(voice.REPOSITORY / "configs/vits2_small.json").model.decoder
    lines = Path(config.data.training_files).read_text("utf-8").splitlines()
    assert sorted(line.split("|")[1] for line in lines) == ["ann", "ann", "teacher", "teacher"]
    assert all(line.startswith("out/copies/recordings/") for line in lines)
    assert json.loads(Path("out/voice_config.json").read_text("utf-8"))["train"]["lr_decay"] == voice.LR_DECAY

    again = ["texts.txt", *options, "--stages", "train", "--init-from", "old"]
    voice.main(again)
    assert called[-1][1][-2:] == ("--init-from", "old")
    run_folder("small").mkdir(parents=True)
    (run_folder("small") / "G_7.pth").touch()
    voice.main(again)  # resumes
    assert "--init-from" not in called[-1][1]


def test_stages_can_be_chosen(called):
    options = ["--speaker", "ann=ann", "--output", "out", "-m", "small"]
    voice.main(["texts.txt", *options, "--stages", "evaluate"])
    assert [program for program, _ in called] == ["evaluate.py"]
