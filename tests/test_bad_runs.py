"""Runs with one mistake each: their changes of corpus and config, the whole program, and its continuation."""

import dataclasses
import json
import signal

import numpy as np
import pytest
import soundfile
import tiny

import audio
import config as configs
import reporting
import train
import trainer
from corpora.filelist import Clip, read_filelist
from recipes import bad_runs

STEPS = 2


def run(*arguments, steps=STEPS):
    """Run the program with a tiny config in the working directory."""
    path = tiny.write_config(bad_runs.Path("tiny.json"))
    bad_runs.main(["-c", path, "--steps", str(steps), "--output", "out", "--device", "cpu", *arguments])


def last_step(name):
    return max(reporting.read_metrics(f"out/{name}", "validation/mel")[0])


def test_every_clip_gets_a_text_of_another_with_nearly_the_same_length(tmp_path):
    clips = [Clip(f"{i}.wav", "anna", f"{i}" * (1 + i * 7 % 10), i) for i in range(10)]
    changed = bad_runs.exchanged_texts(clips, tmp_path)
    assert sorted(clip.text for clip in changed) == sorted(clip.text for clip in clips)
    assert [(clip.path, clip.speaker) for clip in changed] == [(clip.path, clip.speaker) for clip in clips]
    differences = [len(new.text) - len(old.text) for old, new in zip(clips, changed)]
    assert sorted(differences) == [-9] + [1] * 9  # the longest text has no next one


def test_copies_with_wrong_headers_have_the_same_samples_and_half_the_duration(tmp_path):
    samples = tiny.speech(0.5)
    soundfile.write(tmp_path / "a.wav", samples, tiny.RATE)
    clips = [Clip(str(tmp_path / "a.wav"), None, "text")]
    (copy,) = bad_runs.wrong_headers(clips, tmp_path / "copies")
    assert copy.text == "text" and audio.read_header(copy.path) == (len(samples), 2 * tiny.RATE)
    assert np.array_equal(soundfile.read(copy.path)[0], soundfile.read(clips[0].path)[0])
    assert audio.audio_length(copy.path, tiny.RATE) == len(samples) // 2
    soundfile.write(copy.path, samples[:10], tiny.RATE)
    bad_runs.wrong_headers(clips, tmp_path / "copies")
    assert audio.read_header(copy.path)[0] == 10  # not written again


@pytest.mark.slow
def test_runs_train_differ_by_one_mistake_and_are_drawn(workspace, monkeypatch, capsys):
    names = ["good", "strong_discriminator", "bad_transcripts"]
    run("--only", *names)
    assert [last_step(name) for name in names] == [STEPS] * 3
    sections = {name: dataclasses.asdict(configs.load(f"out/{name}/config.json")) for name in names}
    differences = {
        name: {key for part in own for key, value in own[part].items() if value != sections["good"][part][key]}
        for name, own in sections.items()
    }
    lists = {"training_files", "validation_files"}
    assert differences == {
        "good": set(),
        "strong_discriminator": {"c_mel", "c_kl"},
        "bad_transcripts": lists,
    }
    good, bad = (read_filelist(sections[name]["data"]["training_files"]) for name in ("good", "bad_transcripts"))
    assert [clip.path for clip in good] == [clip.path for clip in bad]
    assert [clip.text for clip in good] != [clip.text for clip in bad]
    copied = [name for name in names if f"D_{STEPS}.pth:\n" in (workspace / f"out/{name}/train.log").read_text("utf-8")]
    assert copied == ["strong_discriminator"]
    printed = capsys.readouterr().out
    pictures = ["curves.png", *(f"{name}{part}.png" for name in names for part in ("", "_curves"))]
    for picture in pictures:
        assert (workspace / "out" / picture).read_bytes().startswith(b"\x89PNG")
        assert f"picture: {workspace / 'out' / picture}\n" in printed
    monkeypatch.setattr(train, "main", lambda arguments: pytest.fail("a finished run was repeated"))
    run("--only", "good")


@pytest.mark.slow
def test_an_interrupted_run_resumes_and_the_following_ones_wait(workspace, monkeypatch, capsys):
    step = trainer.Trainer.step

    def interrupted(self, batch):
        if self.position.step == 0:
            signal.raise_signal(signal.SIGTERM)
        return step(self, batch)

    before = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch:
        patch.setattr(trainer.Trainer, "step", interrupted)
        run("--only", "good", "high_learning_rate")
    assert "good: stopped before step 2; the same command resumes" in capsys.readouterr().out
    assert last_step("good") == 1 and not (workspace / "out/high_learning_rate").exists()
    assert signal.getsignal(signal.SIGTERM) == before
    run("--only", "good")
    assert last_step("good") == STEPS and reporting.resumptions("out/good") == [1]


def test_a_run_that_training_stops_is_finished_and_its_curves_are_drawn(workspace, monkeypatch, capsys):
    def stopped(arguments):
        folder = workspace / "out/high_learning_rate"
        (folder / "metrics.jsonl").write_text(json.dumps({"step": 1, "elapsed": 1.0, "loss/g/mel": 9.0}) + "\n")
        raise SystemExit("9 of 25 updates were not finite")

    monkeypatch.setattr(train, "main", stopped)
    run("--only", "high_learning_rate")
    assert (workspace / "out/high_learning_rate/ended.txt").read_text() == "9 of 25 updates were not finite\n"
    printed = capsys.readouterr().out
    assert "high_learning_rate: training stopped: 9 of 25" in printed and "has no picture mel/recording" in printed
    assert (workspace / "out/high_learning_rate_curves.png").exists()
    monkeypatch.setattr(train, "main", lambda arguments: pytest.fail("a finished run was repeated"))
    run("--only", "high_learning_rate")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--steps", "0"), "--steps is 0; it must be 1 or more"),
        (("--only", "strong_discriminator"), "out/good has no checkpoint D_*.pth"),
    ],
)
def test_user_errors_take_one_line(workspace, capsys, arguments, message):
    with pytest.raises(SystemExit, match="2"):
        run(*arguments)
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("recipes/bad_runs: ") and message in error


def test_errors_of_training_end_the_program(workspace):
    (workspace / "train.txt").write_text("none.wav|hˈa.\n", "utf-8")
    with pytest.raises(SystemExit, match="2"):
        run("--only", "good")
    assert not (workspace / "out/good/ended.txt").exists()
