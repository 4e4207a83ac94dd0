"""The program train.py: published configs, resuming, other weights, wrong input, several processes."""

import json
import multiprocessing
import multiprocessing.connection
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import tiny
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.data import DataLoader

import checkpoint
import config as configs
import corpus
import data_utils
import train
import trainer
import training.loaders
import training.process
import training.run
import training.stop
from corpora.filelist import ListRecord, write_record
from synthesis import Voice
from text.symbols import symbols as vits_symbols
from training import guard as guards
from training import record

PUBLISHED = sorted((tiny.ROOT / "tests/golden/configs").glob("*/*.json"))
NO_LEARNING = {"learning_rate": 1e-30, "weight_decay": 0}  # steps that do not change weights
ALL_PARTS = (tiny.MANY_VOICES, tiny.DURATION_DISCRIMINATOR, {"model": {"use_sdp": True}})
PROGRAM = str(tiny.ROOT / "train.py")


def with_config(*arguments, name="voice", **more):
    """Write a tiny config. Returns a function that trains the run `logs/NAME` with it and with more arguments."""
    path = tiny.write_config(Path("tiny.json"), *arguments, **more)
    return lambda *extra: run("-c", path, "-m", name, *extra)


def run(*arguments):
    """Run the program in this process, by default to resume the run logs/voice."""
    train.main(["-m", "voice", "--device", "cpu", *map(str, arguments)])


def contents(folder, step):
    """Return everything in the checkpoints of a step except for the training time."""
    files = {}
    for path in sorted(Path(folder).glob(f"*_{step}.pth")):
        files[path.name] = content = torch.load(path, weights_only=True)
        content.get("state", {"position": {}})["position"].pop("seconds", None)
    assert len(files) >= 2
    return files


def position(path):
    """Return the progress of the run that a checkpoint holds."""
    return torch.load(path, weights_only=True)["state"]["position"]


def metrics(folder):
    return [json.loads(line) for line in Path(folder, "metrics.jsonl").read_text("utf-8").splitlines()]


def error_of(capsys, *arguments):
    """Run the program, which must end with a one-line error and the exit code of user errors. Returns its output."""
    with pytest.raises(SystemExit) as ended:
        run("--max-steps", 3, *arguments)
    output = capsys.readouterr().err.strip()
    assert ended.value.code == 2 and output.splitlines()[-1].startswith("train: ")
    return output


@pytest.fixture(autouse=True)
def without_samples(request, monkeypatch):
    """Leave out pictures and audio of validations, half of the time of a run, except in tests marked `samples`."""
    if "samples" not in request.keywords:
        monkeypatch.setattr(training.process, "show_samples", lambda *_: None)


# Published configs


FAST = ("vits2_ljs_base", "vits2_vctk_base")  # the configs that `make test` trains


@pytest.mark.parametrize(
    "path",
    tiny.mostly_slow(PUBLISHED, *(path for path in PUBLISHED if path.stem in FAST)),
    ids=lambda path: f"{path.parent.name}/{path.name}",
)
def test_every_published_config_trains_a_step(path, tmp_path, monkeypatch):
    """Shorter segments, a batch of two, and no files of 1 GB save time. Everything else is as published."""
    monkeypatch.chdir(tmp_path)
    config = json.loads(path.read_text("utf-8"))
    config["train"] |= {"batch_size": 2, "segment_size": 1024, "num_workers": 0}
    (tmp_path / "filelists").mkdir()
    voices = config["data"]["n_speakers"]
    for kind in ("training", "validation"):
        lines = []
        for i in range(2):
            soundfile.write(f"{kind}{i}.wav", tiny.speech(0.28 + 0.02 * i, i, 22050), 22050)
            lines.append("|".join([f"{kind}{i}.wav", *([str(i * 108)] if voices else []), "hˈa."]))
        Path(config["data"][f"{kind}_files"]).write_text("\n".join(lines), "utf-8")
    (tmp_path / "config.json").write_text(json.dumps(config), "utf-8")
    written = []
    monkeypatch.setattr(checkpoint, "save_checkpoint", lambda *a, **more: written.append(a[4].name))
    run("-c", "config.json", "--max-steps", 1)
    first, *_, last = metrics("logs/voice")
    assert all(np.isfinite(value) for value in first.values()) and first["loss/g/mel"] > 0
    assert ("loss/dur_d/total" in first) == config["model"].get("use_duration_discriminator", False)
    assert last["validation/mel"] > 0
    assert {"G_1.pth", "D_1.pth"} <= set(written)


def test_train_ms_is_the_same_program(workspace):
    path = tiny.write_config(workspace / "tiny.json")
    done = tiny.python(str(tiny.ROOT / "train_ms.py"), "-c", path, "-m", "a", "--max-steps", "1", folder=workspace)
    assert done.returncode == 0, done.stderr
    assert (workspace / "logs/a/G_1.pth").exists()


# Resuming


@pytest.mark.parametrize(
    ("workers", "config_given", "killed"),
    [(0, True, True), pytest.param(2, False, False, marks=pytest.mark.samples)],
)
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(workspace, monkeypatch, workers, config_given, killed):
    """A killed run resumes from its last checkpoint; an error saves one first."""
    tiny.write_corpus(workspace, 7, 3, speakers=2)
    settings = {
        "train": {
            "num_workers": workers,
            "eval_interval": 3,
            "log_interval": 1,
            "lr_decay": 0.9,
            "ema": 0.9,
            "patience": 99,
        }
    }
    with_config(*ALL_PARTS, settings, name="whole")("--max-steps", 8)
    broken = with_config(*ALL_PARTS, settings, name="broken")
    step = trainer.Trainer.step

    def broken_at_step_5(self, batch):
        return 1 / 0 if self.position.step == 5 else step(self, batch)

    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(trainer.Trainer, "step", broken_at_step_5)
        if killed:
            patch.setattr(training.process, "save_before_end", lambda *_, **__: None)
        broken("--max-steps", 8)
    newest = checkpoint.latest_checkpoint_path("logs/broken")
    assert newest.endswith("G_3.pth" if killed else "G_5.pth")
    assert position(newest)["batch"] > 0  # in the middle of an epoch
    torch.manual_seed(99)  # the random state of the process must not matter
    broken("--max-steps", 8) if config_given else run("-m", "broken", "--max-steps", 8)
    assert tiny.equal(contents("logs/whole", 8), contents("logs/broken", 8))
    whole, again = ([line for line in metrics(f"logs/{name}") if "event" not in line] for name in ("whole", "broken"))
    for n in range(4, 9):
        mine, other = ([line for line in lines if line["step"] == n] for lines in (whole, again))
        for name in set(mine[0]) - {"elapsed", "seconds_a_step", "memory/process_gb", "memory/workers_gb"}:
            assert mine[0][name] == other[-len(mine)][name], (n, name)


def test_a_killed_run_resumes_from_its_last_checkpoint(workspace):
    settings = {"train": {"eval_interval": 2, "keep_checkpoints": 0}}
    path = tiny.write_config(workspace / "tiny.json", settings)
    folder = workspace / "logs/voice"
    program = start(workspace, "-c", path)
    wait_for(lambda: (folder / "G_4.pth").exists(), program)
    program.send_signal(signal.SIGKILL)
    program.wait()
    last = max(checkpoint.step_of(file) for file in folder.glob("G_*.pth"))
    run("--max-steps", last + 1)
    with_config(settings, name="whole")("--max-steps", last + 1)
    assert tiny.equal(contents(folder, last + 1), contents("logs/whole", last + 1))


@pytest.mark.parametrize(
    ("number", "workers", "processes"),
    [(signal.SIGINT, 2, 1), (signal.SIGTERM, 0, 1), tiny.slow(signal.SIGINT, 0, 2)],
)
def test_an_interrupted_run_saves_a_checkpoint_and_exits_with_0(workspace, number, workers, processes):
    path = tiny.write_config(workspace / "tiny.json", {"train": {"log_interval": 1, "num_workers": workers}})
    folder = workspace / "logs/voice"
    program = start(workspace, "-c", path, "--processes", str(processes))
    wait_for(lambda: (folder / "metrics.jsonl").exists() and len(metrics(folder)) >= 2, program)
    program.send_signal(number)  # the program and at once its group with the workers, as `timeout` does
    os.killpg(program.pid, number)
    _, errors = program.communicate(timeout=60)
    assert program.returncode == 0, errors
    step = int(re.search(r"stopped at step (\d+); the same command resumes", errors)[1])
    assert checkpoint.step_of(checkpoint.latest_checkpoint_path(folder)) == step
    assert position(folder / f"G_{step}.pth")["step"] == step


def test_plain_applies_to_one_start_only(workspace, monkeypatch):
    settings = []
    build = trainer.Trainer
    monkeypatch.setattr(
        training.process, "Trainer", lambda config, device: settings.append(config.train) or build(config, device)
    )
    with_config()("--max-steps", 1, "--plain")
    run("--max-steps", 2)
    assert [(s.cuda_graphs, s.fused_kernels) for s in settings] == [(False, False), (True, True)]


def test_an_interrupt_before_training_prints_one_line(workspace, monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(training.process, "check", interrupted)
    with pytest.raises(SystemExit, match="130"):
        with_config()("--max-steps", 1)
    said = capsys.readouterr().err.splitlines()
    assert said == ["training on cpu in fp32, 1 process(es)", "train: stopped before training began"]


def test_a_second_signal_ends_the_program_at_once(monkeypatch):
    stop = training.stop.StopRequest(torch.device("cpu"))
    signal.raise_signal(signal.SIGTERM)
    assert stop.agreed(1)
    monkeypatch.setattr(training.stop, "SAME_REQUEST", -1.0)
    sent = []
    monkeypatch.setattr(signal, "raise_signal", sent.append)
    stop._request(signal.SIGTERM, None)
    assert sent == [signal.SIGTERM] and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def start(folder, *arguments):
    """Start the program in its own process group."""
    return subprocess.Popen(
        [sys.executable, PROGRAM, "-m", "voice", "--device", "cpu", *arguments],
        cwd=folder,
        env=tiny.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for(condition, program, seconds=90):
    end = time.monotonic() + seconds
    while not condition():
        if program.poll() is not None or time.monotonic() > end:
            program.kill()
            raise AssertionError(f"the program has ended or hangs: {program.communicate()[1]}")
        time.sleep(0.02)


def keep_lines(n):
    """Keep the first lines of the training filelist."""
    lines = Path("train.txt").read_text("utf-8").splitlines()
    Path("train.txt").write_text("\n".join(lines[:n]), "utf-8")


def test_a_run_with_fewer_utterances_resumes_at_the_next_epoch(workspace):
    with_config()("--max-steps", 3)
    keep_lines(2)
    run("--max-steps", 5)
    found = position("logs/voice/G_5.pth")  # two steps with one batch in each epoch
    assert (found["step"], found["epoch"], found["batch"]) == (5, 3, 0)


def test_resuming_with_another_network_fails_and_keeps_all_files(workspace, capsys):
    with_config()("--max-steps", 1)
    folder = Path("logs/voice")
    before = {path: path.read_bytes() for path in [folder / "config.json", *folder.glob("*.pth")]}
    flow = tiny.write_config(Path("fft.json"), model={"transformer_flow_type": "fft"})
    complaint = "G_1.pth was trained with the flow 'pre_conv'; the config's is 'fft'"
    assert complaint in error_of(capsys, "-c", flow)
    tiny.write_corpus(workspace, speakers=2)
    speakers = tiny.write_config(Path("many.json"), tiny.MANY_VOICES)
    assert "its speakers: a single voice; the config's: 2" in error_of(capsys, "-c", speakers)
    tiny.write_corpus(workspace)
    assert all(path.read_bytes() == content for path, content in before.items())
    run("--max-steps", 2)


def test_the_speaker_table_of_a_run_without_checkpoints_is_not_kept(workspace):
    tiny.write_corpus(workspace, speakers=2)
    config = tiny.config(tiny.MANY_VOICES, data={"speakers": {"gone": 0, "away": 1}})
    (workspace / "logs/voice").mkdir(parents=True)
    configs.save(config, workspace / "logs/voice/config.json")
    with_config(tiny.MANY_VOICES)("--max-steps", 1)
    assert "gone" not in configs.load(workspace / "logs/voice/config.json").data.speakers


def test_the_speakers_of_a_run_whose_config_is_broken_are_those_of_its_checkpoint(workspace, capsys):
    tiny.write_corpus(workspace, speakers=2)
    for name in ("train.txt", "val.txt"):
        path = workspace / name
        path.write_text(path.read_text("utf-8").replace("|0|", "|zoë|").replace("|1|", "|anna|"), "utf-8")
    with_config(tiny.MANY_VOICES)("--max-steps", 1)
    own = Path("logs/voice/config.json")
    whole = own.read_text("utf-8")
    own.write_text(whole[:100], "utf-8")
    keep_lines(1)
    with_config(tiny.MANY_VOICES)("--max-steps", 2)
    assert own.read_text("utf-8") == whole
    assert "config.json, line" in capsys.readouterr().err


def test_an_unknown_cleaner_logs_a_warning(workspace, capsys):
    with_config(data={"text_cleaners": ["japanese_cleaners"]})("--max-steps", 1)
    assert "there is no text cleaner 'japanese_cleaners'; nearest: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("record", "data", "complaint"),
    [
        (("phonemes_nl",), {}, "train.txt was cleaned with phonemes_nl, and data.text_cleaners is english_cleaners2"),
        (("english_cleaners2",), {"normalize": True}, 'set data.text_cleaners to ["english_cleaners2"] and data.norm'),
        (("phonemes_nl",), {"cleaned_text": False}, "train.txt is cleaned already (with phonemes_nl)"),
        (None, {"text_cleaners": ["phonemes_xx"]}, "data.text_cleaners: espeak-ng has no language 'xx'; nearest: "),
    ],
)
def test_cleaners_that_do_not_fit_the_lists_stop_training(record, data, complaint, workspace, capsys):
    if record:
        write_record("train.txt", ListRecord(record, tiny.RATE))
    error = error_of(capsys, "-c", tiny.write_config(Path("tiny.json"), data=data))
    assert complaint in error and error.splitlines()[-1].count("train: ") == 1
    assert not list(Path("logs").glob("voice/G_*.pth"))


def test_a_dictionary_that_does_not_fit_the_lists_stops_training(workspace, capsys):
    path = tiny.write_config(Path("tiny.json"), data={"dictionary": {"c": "e"}})
    for recorded, words in (({"a": "b", "c": "d"}, "'a', 'c'"), ({}, "'c'")):
        write_record("train.txt", ListRecord(("english_cleaners2",), tiny.RATE, {}, recorded))
        said = error_of(capsys, "-c", path)
        assert "train.txt was cleaned with another dictionary than data.dictionary" in said
        assert f"(different words: {words})" in said
    for recorded in ({"c": "e"}, None):  # lists that an earlier version has cleaned have no dictionary in the record
        write_record("train.txt", ListRecord(("english_cleaners2",), tiny.RATE, {}, recorded))
        corpus.check_records(configs.load(path).data)


def test_a_plain_list_beside_its_cleaned_copy_stops_training(workspace, capsys):
    write_record("train.txt.cleaned", ListRecord(("english_cleaners2",), tiny.RATE))
    error = error_of(capsys, "-c", tiny.write_config(Path("tiny.json")))
    assert "train.txt is not cleaned, and data.cleaned_text is true: set data.training_files to train.txt.clea" in error


def test_a_rate_above_that_of_the_recordings_is_reported(workspace, capsys):
    write_record("train.txt", ListRecord(("english_cleaners3",), 8000))
    with_config()("--max-steps", 1)
    assert "data.sampling_rate is 16000, and most recordings have a lower rate (1): train.txt: 8000 Hz" in (
        capsys.readouterr().err
    )


def test_settings_on_which_the_weights_depend_do_not_change_on_resumption(workspace, capsys):
    with_config()("--max-steps", 1)
    own = Path("logs/voice/config.json")
    for key, value in (("sampling_rate", 22050), ("text_cleaners", ["phonemes_de"])):
        sections = json.loads(own.read_text())
        before, sections["data"][key] = sections["data"][key], value
        Path("tiny.json").write_text(json.dumps(sections))
        error = error_of(capsys, "-c", "tiny.json", "--skip-check")
        trained, wanted = json.dumps(before), json.dumps(value)
        assert f"G_1.pth was trained with data.{key} {trained}, and the config has {wanted}: restore" in error
    own.write_text(json.dumps(sections))  # an edit of the run's own config
    assert "G_1.pth was trained with data.text_cleaners" in error_of(capsys, "--skip-check")


def test_a_checkpoint_of_another_kind_is_named_in_the_error(workspace, capsys):
    with_config()("--max-steps", 1)
    shutil.copy("logs/voice/D_1.pth", "logs/voice/G_1.pth")
    assert "logs/voice/G_1.pth holds a discriminator (D), but a synthesizer (G) is needed" in error_of(capsys)


def flip(path):
    """Change one bit in the middle of a file, which is in a tensor."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def spoil(path):
    """Replace a weight by NaN."""
    content = torch.load(path, weights_only=True)
    next(iter(content["model"].values())).view(-1)[0] = float("nan")
    torch.save(content, path)


HARM = {
    "cut off": (lambda path: path.write_bytes(path.read_bytes()[:1000]), "D_2.pth does not load as a checkpoint"),
    "empty": (lambda path: path.write_bytes(b""), "D_2.pth does not load as a checkpoint"),
    "NaN": (spoil, "D_2.pth contains NaN or infinite weights"),
    "missing": (Path.unlink, "there is no file logs/voice/D_2.pth"),
    "a flipped bit": (flip, "D_2.pth does not load as a checkpoint; it is truncated or damaged: the checksum of "),
}


@pytest.mark.parametrize("case", tiny.mostly_slow(HARM, "cut off", "a flipped bit"))
def test_a_damaged_checkpoint_is_named_and_the_run_resumes_from_the_one_before(case, workspace, capsys):
    harm, complaint = HARM[case]
    with_config(train={"eval_interval": 1})("--max-steps", 2)
    expected = contents("logs/voice", 2)
    path = Path("logs/voice/D_2.pth")
    harm(path)
    capsys.readouterr()
    run("--max-steps", 2)
    said = capsys.readouterr().err
    assert re.search(complaint + r".*\. The run resumes from step 1$", said, re.MULTILINE), said
    assert "resumed from logs/voice/G_1.pth at step 1" in said
    assert tiny.equal(contents("logs/voice", 2), expected)
    for file in Path("logs/voice").glob("?_*.pth"):
        file.write_bytes(b"")
    assert "G_2.pth does not load as a checkpoint" in error_of(capsys)


def test_old_checkpoints_are_deleted_and_the_best_is_kept(workspace):
    with_config(train={"eval_interval": 1, "keep_checkpoints": 2})("--max-steps", 4)
    names = sorted(path.name for path in Path("logs/voice").glob("*.pth"))
    assert names == ["D_3.pth", "D_4.pth", "G_3.pth", "G_4.pth", "G_best.pth"]
    best = torch.load("logs/voice/G_best.pth", weights_only=True)
    measured = {line["step"]: line["validation/mel"] for line in metrics("logs/voice") if "validation/mel" in line}
    assert measured[best["step"]] == min(measured.values())
    assert best["config"]["model"]["inter_channels"] == 8


# Starting from other weights


def assert_equal_weights(path, other):
    """Compare the weights of two files. The tolerance allows for steps without learning."""
    mine, theirs = (torch.load(file, weights_only=True)["model"] for file in (path, other))
    assert all(torch.allclose(mine[name], theirs[name], rtol=0, atol=1e-20) for name in mine | theirs)


def test_training_starts_from_checkpoints_of_vits_at_step_0(workspace, capsys):
    """Such files, renamed to G_0.pth and D_0.pth, hold no state of a run."""
    config = tiny.config()
    folder = workspace / "logs/voice"
    folder.mkdir(parents=True)
    networks = {"G": trainer.build_generator(config), "D": trainer.build_discriminator(config)}
    for name, network in networks.items():
        tiny.randomise(network, 0.1)
        checkpoint.save_checkpoint(network, torch.optim.AdamW(network.parameters()), 2e-4, 1, folder / f"{name}_0.pth")
    before = {path: path.read_bytes() for path in folder.glob("*_0.pth")}
    with_config(train=NO_LEARNING | {"eval_interval": 1, "keep_checkpoints": 1})("--max-steps", 3)
    said = capsys.readouterr().err
    after = torch.load(folder / "G_3.pth", weights_only=True)
    wanted = checkpoint.reference_state_dict(networks["G"])
    assert all(torch.equal(value, wanted[name]) for name, value in after["model"].items())
    assert after["state"]["position"]["step"] == 3
    assert all(path.read_bytes() == content for path, content in before.items())
    assert "resumed from" in said


def test_checkpoints_of_vits_resume_at_the_start_of_their_epoch(workspace, capsys):
    config = tiny.config()
    Path("logs/voice").mkdir(parents=True)
    for name, network in (("G", trainer.build_generator(config)), ("D", trainer.build_discriminator(config))):
        optimizer = torch.optim.AdamW(network.parameters())
        checkpoint.save_checkpoint(network, optimizer, 2e-4, 4, Path(f"logs/voice/{name}_50.pth"))
    with_config()("--max-steps", 51)
    assert "G_50.pth was written by another program" in capsys.readouterr().err
    found = position("logs/voice/G_51.pth")
    assert (found["step"], found["epoch"], found["batch"]) == (51, 3, 1)


def test_a_second_program_in_the_same_folder_is_rejected(workspace, monkeypatch, capsys):
    monkeypatch.setattr(training.run, "LOCK_PATIENCE", 0.1)
    with_config()("--max-steps", 1)
    with training.run.locked(Path("logs/voice")):
        assert "another program trains in logs/voice" in error_of(capsys, "-c", "tiny.json")
    with_config()("--max-steps", 2)
    assert Path("logs/voice/G_2.pth").exists()


def test_a_run_is_given_by_its_name_or_its_folder(workspace, capsys):
    with_config(name="logs/voice")("--max-steps", 1)
    with_config(name="voice")("--max-steps", 2)
    assert Path("logs/voice/G_2.pth").exists() and not Path("logs/logs").exists()
    for name in ("", ".", "logs", "../voice"):
        assert "names no run" in error_of(capsys, "-c", "tiny.json", "-m", name)


def test_a_recording_in_both_filelists_logs_a_warning(workspace, capsys):
    lines = Path("train.txt").read_text("utf-8-sig").splitlines()
    Path("val.txt").write_text(lines[0], "utf-8")
    with_config()("--max-steps", 1)
    assert re.search(r"in two filelists, .*\(1\): train0\.wav", capsys.readouterr().err)


def test_a_full_disk_prints_one_line(workspace, monkeypatch, capsys):
    def full(content, path):
        Path(path).write_bytes(b"half")
        raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0")

    monkeypatch.setattr(torch, "save", full)
    said = error_of(capsys, "-c", tiny.write_config(Path("tiny.json")))
    assert re.search(r"^train: \S+\.pth cannot be written; \d+ MB are free", said, re.MULTILINE)
    assert not list(Path("logs/voice").glob(".*.tmp"))


def test_checkpoints_renamed_to_step_0_start_a_new_run(workspace):
    with_config(name="source", train={"eval_interval": 3})("--max-steps", 7)
    found = position("logs/source/G_7.pth")
    assert found["epoch"] > 0 and found["best"] < float("inf")
    Path("logs/voice").mkdir()
    for name in ("G", "D"):
        shutil.copy(f"logs/source/{name}_7.pth", f"logs/voice/{name}_0.pth")
    with_config(train=NO_LEARNING)("--max-steps", 1)
    assert_equal_weights("logs/voice/G_1.pth", "logs/source/G_7.pth")
    found = position("logs/voice/G_1.pth")
    assert (found["step"], found["epoch"]) == (1, 0)
    assert Path("logs/voice/G_best.pth").exists()


def test_training_starts_from_a_generator_alone(workspace, capsys):
    folder = workspace / "logs/voice"
    folder.mkdir(parents=True)
    checkpoint.save_checkpoint(trainer.build_generator(tiny.config()), None, 2e-4, 1, folder / "G_0.pth")
    with_config()("--max-steps", 1)
    assert "D_0.pth does not exist: that network starts from random weights" in capsys.readouterr().err
    assert (folder / "D_1.pth").exists()


def test_fine_tuning_copies_weights_and_keeps_its_source(workspace, capsys):
    with_config(name="source")("--max-steps", 1)
    sources = [Path("logs/source/G_1.pth"), Path("logs/source/D_1.pth")]
    before = [path.read_bytes() for path in sources]
    options = ["--init-from", sources[0], "--init-discriminator", sources[1]]
    with_config(name="fine", train=NO_LEARNING)(*options, "--max-steps", 1)
    said = capsys.readouterr().err
    assert [path.read_bytes() for path in sources] == before
    for name in ("G_1.pth", "D_1.pth"):
        assert_equal_weights(f"logs/fine/{name}", f"logs/source/{name}")
    assert "generator from logs/source/G_1.pth" in said and "discriminator from logs/source/D_1.pth" in said


def test_weights_that_do_not_fit_are_refused_before_the_recordings_are_checked(workspace, capsys, monkeypatch):
    with_config()("--max-steps", 1)
    monkeypatch.setattr("corpus.check_config", lambda *_: pytest.fail("checked"))
    wider = tiny.write_config(Path("wide.json"), {"model": {"hidden_channels": 10}})
    assert "G_1.pth" in error_of(capsys, "-c", wider)
    Path("damaged.pth").write_bytes(Path("logs/voice/G_1.pth").read_bytes()[:1000])
    for option in ("--init-from", "--init-discriminator"):
        assert "damaged.pth" in error_of(capsys, "-c", "tiny.json", "-m", "new", option, "damaged.pth")


def test_init_options_are_rejected_for_a_run_with_checkpoints(workspace, capsys):
    with_config()("--max-steps", 1)
    shutil.copy("logs/voice/G_1.pth", "other.pth")
    for option in ("--init-from", "--init-discriminator"):
        assert "logs/voice has checkpoints already: choose another" in error_of(capsys, option, "other.pth")


# Wrong input is reported before training


def corrupt(name, change):
    """Return a function that changes the file of one recording."""
    return lambda folder: change(folder / name)


def write(samples):
    return lambda path: soundfile.write(path, samples, tiny.RATE, "FLOAT")


def lines_of(change):
    def edit(folder):
        path = folder / "train.txt"
        path.write_text(change(path.read_text("utf-8")), "utf-8")

    return edit


WRONG_INPUT = {
    "missing recording": (corrupt("train1.wav", Path.unlink), r"no such file.*train1\.wav"),
    "empty file": (corrupt("train1.wav", lambda path: path.write_bytes(b"")), r"empty file.*train1\.wav"),
    "no audio": (corrupt("train1.wav", lambda path: path.write_text("hello")), r"cannot be decoded.*train1\.wav"),
    "truncated": (corrupt("train1.wav", lambda p: p.write_bytes(p.read_bytes()[:5000])), r"truncated.*train1\.wav"),
    "silent": (corrupt("train1.wav", write(np.zeros(8000, np.float32))), r"silent.*train1\.wav"),
    "not finite": (corrupt("train1.wav", write(np.full(8000, np.nan, np.float32))), r"NaN or infinite.*train1\.wav"),
    "no samples": (corrupt("train1.wav", write(np.zeros(0, np.float32))), r"no samples.*train1\.wav"),
    "bad validation": (corrupt("val1.wav", Path.unlink), r"no such file.*val1\.wav"),
    "more tokens than frames": (
        lines_of(lambda text: text.replace("train0.wav|", "train0.wav|" + "a" * 90)),
        r"more tokens than frames.*train0\.wav: 1\d\d tokens, 75 frames",
    ),
    "four columns": (lines_of(lambda text: text.replace("1.wav|", "1.wav|0|x|")), r"train\.txt, line 2: 4 columns"),
    "one column": (lines_of(lambda text: text.replace("train1.wav|", "train1.wav ")), r"train\.txt, line 2: 1 columns"),
    "text with a bar": (lines_of(lambda text: text.replace("n1.wav|", "n1.wav|a|")), r"line 2: 3 columns where"),
    "no text": (lines_of(lambda text: re.sub(r"train1.wav\|.*", "train1.wav|", text)), r"no text.*train1\.wav"),
    "no lines": (lines_of(lambda text: "\n\n"), r"train\.txt has no lines"),
    "no filelist": (lambda folder: (folder / "train.txt").unlink(), r"cannot read train\.txt"),
    "not UTF-8": (lambda folder: (folder / "train.txt").write_bytes(b"a.wav|\xff"), r"train\.txt: not UTF-8"),
    "speakers without n_speakers": (
        lambda folder: tiny.write_corpus(folder, speakers=2),
        "2 speakers: set data.n_speakers to their number",
    ),
    "foreign alphabet": (
        lines_of(lambda text: re.sub("[a-z](?=[^|]*$)", "щ", text, flags=re.M)),
        "symbols without an id",
    ),
}


@pytest.mark.parametrize("case", WRONG_INPUT)
def test_wrong_input_is_reported_before_training(workspace, capsys, case):
    spoil, complaint = WRONG_INPUT[case]
    spoil(workspace)
    said = error_of(capsys, "-c", tiny.write_config(workspace / "tiny.json"))
    assert re.search(complaint, said, re.S), said
    assert not list(workspace.glob("logs/voice/*.pth"))


WRONG_SPEAKERS = {
    "unknown in validation": ({"val.txt": ("|1|", "|7|")}, r"speaker '7' is not in the training list"),
    "id too high": ({"train.txt": ("|1|", "|7|")}, r"speaker '7' .*has id 7: data.n_speakers, now 2, must be 8"),
    "names and numbers": ({"train.txt": ("|1|", "|anna|")}, r"'anna' is a name, while '0' is a number"),
    "no speaker column": (
        {"train.txt": ("|1|", "|"), "val.txt": ("|1|", "|")},
        r"line 2: 2 columns where most lines have 3",
    ),
}


@pytest.mark.parametrize("case", WRONG_SPEAKERS)
def test_wrong_speakers_are_reported_before_training(workspace, capsys, case):
    changes, complaint = WRONG_SPEAKERS[case]
    tiny.write_corpus(workspace, speakers=2)
    for name, (old, new) in changes.items():
        path = workspace / name
        path.write_text(path.read_text("utf-8").replace(old, new), "utf-8")
    said = error_of(capsys, "-c", tiny.write_config(workspace / "tiny.json", tiny.MANY_VOICES))
    assert re.search(complaint, said), said


def test_wrong_options_and_configs_are_reported(workspace, capsys, monkeypatch):
    path = tiny.write_config(workspace / "tiny.json", train={"batchsize": 3})
    complaint = "tiny.json, train: unknown key 'batchsize'; did you mean 'batch_size'?"
    assert complaint in error_of(capsys, "-c", path)
    assert "logs/voice has no run yet: give its config with -c" in error_of(capsys)
    assert "cannot read the config file none.json" in error_of(capsys, "-c", "none.json")
    path = tiny.write_config(workspace / "tiny.json")
    assert "there is no checkpoint or run none.pth" in error_of(capsys, "-c", path, "--init-from", "none.pth")
    assert "-1 processes were asked for" in error_of(capsys, "-c", path, "--processes", -1)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert "PyTorch sees no GPU" in error_of(capsys, "-c", path, "--device", "cuda")


@pytest.mark.slow
def test_errors_in_several_processes_print_no_traceback(workspace):
    (workspace / "train1.wav").unlink()
    tiny.write_config(workspace / "tiny.json")
    command = (PROGRAM, "-c", "tiny.json", "-m", "voice", "--device", "cpu", "--processes", "2")
    for options in ([], ["--skip-check"]):
        done = tiny.python(*command, *options, folder=workspace)
        assert done.returncode == 2
        assert "train: " in done.stderr and "train1.wav" in done.stderr and "Traceback" not in done.stderr


UNREADABLE = """
import data_utils, train

def load_audio(path, *more):
    raise ValueError(f"{path}: removed since")

data_utils.load_audio = load_audio
train.main(["-c", "tiny.json", "-m", "voice", "--device", "cpu", "--skip-check"])
"""


def test_an_error_in_a_loader_process_prints_one_line_and_ends_the_program(workspace):
    tiny.write_config(workspace / "tiny.json", train={"num_workers": 1})
    done = tiny.python("-c", UNREADABLE, folder=workspace, timeout=60)
    assert done.returncode == 2
    assert re.fullmatch(r"train: train\d\.wav: removed since", done.stderr.splitlines()[-1]), done.stderr
    assert "Traceback" not in done.stderr


def test_workers_that_are_killed_at_the_end_raise_no_error():
    batches = iter(DataLoader(range(9), num_workers=1))  # type: ignore[arg-type]
    next(batches)
    handler, workers = signal.getsignal(signal.SIGCHLD), multiprocessing.active_children()
    try:
        training.loaders.end_workers()
        multiprocessing.connection.wait([worker.sentinel for worker in workers])
        time.sleep(0.1)  # PyTorch's handler of the signal would raise here
    finally:
        signal.signal(signal.SIGCHLD, handler)
    assert workers and not multiprocessing.active_children()


SHORT_OF_MEMORY = """
import torch, train

def no_room(*_):
    raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)")

torch.UntypedStorage._share_fd_cpu_ = no_room
train.main(["-c", "tiny.json", "-m", "voice", "--device", "cpu", "--max-steps", "3"])
"""


def test_a_run_without_shared_memory_copies_batches_and_says_so(workspace):
    tiny.write_config(workspace / "tiny.json", train={"num_workers": 1})
    done = tiny.python("-c", SHORT_OF_MEMORY, folder=workspace, timeout=60)
    assert done.returncode == 0 and (workspace / "logs/voice/G_3.pth").exists(), done.stderr
    assert done.stderr.count("batches are copied through pipes") == 1 and "--shm-size" in done.stderr


@pytest.mark.parametrize(("limit", "workers"), [(120, 2), tiny.slow(70, 0)])
def test_a_run_with_few_file_descriptors_says_so_and_trains(workspace, limit, workers):
    tiny.write_config(workspace / "tiny.json", train={"num_workers": 2})
    command = (PROGRAM, "-c", "tiny.json", "-m", "voice", "--device", "cpu", "--max-steps", "3")
    limits = (resource.RLIMIT_NOFILE, (limit, limit))
    done = tiny.python(*command, folder=workspace, preexec_fn=lambda: resource.setrlimit(*limits), timeout=60)
    assert done.returncode == 0, done.stderr
    if len(os.sched_getaffinity(0)) >= 2:
        assert f"only {limit} file descriptors are allowed: {workers} workers load the data" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_stop_request_ends_the_wait_for_data_with_a_checkpoint(workspace, monkeypatch, capsys):
    load, loaded = data_utils.load_audio, []

    def hangs_later(*arguments):
        loaded.append(arguments)
        if len(loaded) == 8:
            signal.raise_signal(signal.SIGTERM)
            pytest.fail("the wait goes on")
        return load(*arguments)

    monkeypatch.setattr(data_utils, "load_audio", hangs_later)
    with_config()("--max-steps", 9, "--skip-check")
    step = int(re.search(r"stopped at step (\d+); the same command resumes", capsys.readouterr().err)[1])
    assert 0 < step < 9 and position(f"logs/voice/G_{step}.pth")["step"] == step


HANGING = """
import time
import data_utils, train, training.loaders

training.loaders.DATA_PATIENCE = 1
data_utils.load_audio = lambda *_: time.sleep(100)
train.main(["-c", "tiny.json", "-m", "voice", "--device", "cpu", "--skip-check"])
"""


@pytest.mark.slow
def test_the_wait_for_data_ends_with_the_possible_causes(workspace):
    tiny.write_config(workspace / "tiny.json", train={"num_workers": 1})
    done = tiny.python("-c", HANGING, folder=workspace, timeout=60)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert "no batch arrived from the workers that load the data: DataLoader timed out after 1 seconds" in done.stderr


def harmed_at_step(monkeypatch, step, harm):
    """Call `harm(trainer)` after a step of training."""
    original = trainer.Trainer.step

    def stepping(self, batch):
        record = original(self, batch)
        if self.position.step == step - 1:
            harm(self)
        return record

    monkeypatch.setattr(trainer.Trainer, "step", stepping)


def emptied(path):
    Path(path).write_bytes(b"")


def removed(pattern):
    for path in Path().glob(pattern):
        path.unlink()


ENDINGS = {  # what happens after step 3, and the complaint
    "a validation recording is removed": (lambda _: Path("val0.wav").unlink(), "val0.wav: no such file"),
    "training recordings are removed": (lambda _: removed("train*.wav"), r"train\d.wav: no such file"),
    "recordings become short": (
        lambda _: [write(tiny.speech(0.01))(path) for path in Path().glob("train*.wav")],
        r"train\d.wav: the file has changed since training began: it has 160 samples",
    ),
    "the folder of the run is deleted": (
        lambda _: shutil.rmtree("logs/voice"),
        "No such file or directory: b?'logs/voice/",
    ),
    "recordings become garbage": (lambda _: [emptied(path) for path in Path().glob("train*.wav")], r"train\d.wav: "),
}


@pytest.mark.parametrize("case", ENDINGS)
def test_an_error_ends_the_run_with_a_checkpoint(case, workspace, monkeypatch, capsys):
    harm, complaint = ENDINGS[case]
    harmed_at_step(monkeypatch, 3, harm)
    path = tiny.write_config(Path("tiny.json"), train={"eval_interval": 4})
    with pytest.raises(SystemExit) as ended:
        run("-c", path, "--max-steps", 9)
    said = capsys.readouterr().err
    assert ended.value.code == 2 and re.search(complaint, said.splitlines()[-1]), said
    step = int(re.search(r"the run ends at step (\d+), which is saved", said)[1])
    assert step >= 3 and position(f"logs/voice/G_{step}.pth")["step"] == step


def test_an_error_in_one_of_two_processes_saves_a_checkpoint(workspace):
    path = tiny.write_config(workspace / "tiny.json", train={"batch_size": 1})
    code = f"""
import threading, time
from pathlib import Path
import train

def remove():
    while not Path("logs/voice/metrics.jsonl").exists():
        time.sleep(0.02)
    for path in Path().glob("train*.wav"):
        path.unlink()

if __name__ == "__main__":
    threading.Thread(target=remove).start()
    train.main(["-c", {path!r}, "-m", "voice", "--device", "cpu", "--processes", "2"])
"""
    (workspace / "remove.py").write_text(code, "utf-8")
    done = tiny.python("remove.py", folder=workspace)
    assert done.returncode == 2, done.stderr
    last = checkpoint.latest_checkpoint_path(workspace / "logs/voice")
    state = torch.load(last, weights_only=True)["state"]
    assert state["position"]["step"] == checkpoint.step_of(last) >= 2


def test_weights_that_are_not_finite_end_the_run_and_replace_nothing(workspace, monkeypatch, capsys):
    def harm(trained):
        with torch.no_grad():
            next(trained.generator.network.dp.parameters()).view(-1)[0] = float("nan")

    harmed_at_step(monkeypatch, 4, harm)
    path = tiny.write_config(Path("tiny.json"), train={"eval_interval": 2, "keep_checkpoints": 1})
    with pytest.raises(SystemExit, match="2"):
        run("-c", path, "--max-steps", 6)
    said = capsys.readouterr().err
    assert "the weights at step 4 contain NaN or infinity and are not saved; step 2 is the newest" in said
    for file in ("G_2.pth", "D_2.pth", "G_best.pth"):
        content = torch.load(f"logs/voice/{file}", weights_only=True)
        assert all(value.isfinite().all() for value in content["model"].values())
    assert not list(Path("logs/voice").glob("*_4.pth"))


# Unusual runs that train


@pytest.mark.slow
def test_two_processes_with_unequal_batches_accumulate_gradients(workspace):
    path = tiny.write_config(workspace / "tiny.json", tiny.DURATION_DISCRIMINATOR, train={"accumulate": 2})
    keep_lines(3)
    options = ["-c", path, "-m", "voice", "--device", "cpu", "--processes", "2", "--max-steps", "3"]
    done = tiny.python(PROGRAM, *options, folder=workspace)
    assert done.returncode == 0 and (workspace / "logs/voice/G_3.pth").exists(), done.stderr


def test_few_and_short_utterances_train(workspace):
    """Utterances shorter than the segment, a batch of one, and fewer utterances than a batch."""
    clips = [("short.wav", tiny.speech(0.08)), ("long.wav", tiny.speech(1.0, 1))]
    tiny.write_list(workspace / "train.txt", clips)
    Path("train.txt").write_text(Path("train.txt").read_text("utf-8").replace(tiny.TEXTS[0], "ha"), "utf-8")
    with_config(name="both", train={"batch_size": 1, "bucket_boundaries": [0, 50, 400]})("--max-steps", 3)
    one = Path("train.txt").read_text("utf-8").splitlines()[0] + "\n"
    Path("train.txt").write_text(one, "utf-8")
    Path("val.txt").write_text(one, "utf-8")
    with_config(name="one", train={"batch_size": 4, "eval_interval": 1})("--max-steps", 2)
    for name in ("both", "one"):
        assert all(np.isfinite(value) for line in metrics(f"logs/{name}") for value in line.values())


def test_named_speakers_keep_their_ids(workspace):
    tiny.write_corpus(workspace, speakers=2)
    for name in ("train.txt", "val.txt"):
        text = Path(name).read_text("utf-8").replace("|0|", "|Zoë|").replace("|1|", "|anna|")
        Path(name).write_text("\ufeff" + text.replace("\n", "\r\n") + "\r\n\r\n", "utf-8")
    with_config(tiny.MANY_VOICES)("--max-steps", 1)
    assert configs.load("logs/voice/config.json").data.speakers == {"Zoë": 0, "anna": 1}
    assert torch.load("logs/voice/G_1.pth", weights_only=True)["config"]["data"]["speakers"] == {"Zoë": 0, "anna": 1}
    lines = Path("train.txt").read_text("utf-8-sig").splitlines()
    Path("train.txt").write_text("\n".join(line for line in lines if "Zoë" not in line), "utf-8")
    Path("val.txt").write_text(lines[1], "utf-8")
    with_config(tiny.MANY_VOICES)("--max-steps", 2)  # without Zoë, anna has the same id
    assert configs.load("logs/voice/config.json").data.speakers == {"Zoë": 0, "anna": 1}


def test_a_table_of_symbols_from_a_file_is_kept_in_the_run_and_speaks(workspace):
    table = {symbol: [i] for i, symbol in enumerate(dict.fromkeys(["_", "^", "$", *vits_symbols]))}
    Path("voice.onnx.json").write_text(json.dumps({"phoneme_id_map": table}), "utf-8")
    marks = {"add_blank": True, "blank_symbol": "_", "begin_symbol": "^", "end_symbol": "$"}
    with_config(data={"symbols": "voice.onnx.json", "n_vocab": 256, **marks})("--max-steps", 1)
    Path("voice.onnx.json").unlink()
    assert configs.load("logs/voice/config.json").data.symbols == table
    voice = Voice.load("logs/voice")
    assert len(voice.net.enc_p.emb.weight) == 256
    assert voice.read("ab.", phonemes=True)[0].tokens == [1, *(i for s in "ab." for i in (0, *table[s])), 0, 2]


def test_steps_that_are_not_finite_are_skipped_and_end_the_run_if_frequent(workspace, capsys):
    write(np.full(6000, np.nan, np.float32))(workspace / "train0.wav")
    write(np.full(6000, np.nan, np.float32))(workspace / "val1.wav")
    with_config(name="one", train={"batch_size": 1})("--skip-check", "--max-steps", 7)
    said = capsys.readouterr().err
    assert re.search(r"recordings with samples that are not finite: \S*val1.wav\n", said)
    assert re.search(r"an update before step 7 was skipped: not finite. Utterances: \S*train0.wav", said)
    weights = torch.load("logs/one/G_7.pth", weights_only=True)["model"]
    assert all(value.isfinite().all() for value in weights.values())
    for i in range(7):
        write(np.full(6000, np.nan, np.float32))(workspace / f"train{i}.wav")
    with pytest.raises(SystemExit, match=r"7 of 7 updates before step 7 had losses or gradients that are not finite"):
        with_config(name="all", train={"batch_size": 1})("--skip-check", "--max-steps", 7)
    assert position("logs/all/G_7.pth")["step"] == 7


def test_fp16_may_overflow_in_a_limited_number_of_steps(caplog):
    guard = guards.StepGuard(["a", "b"], guards.SCALE_SEARCH)
    finite, overflowed = ({"loss/g/total": torch.tensor(1.0), "grad_norm_g": torch.tensor(g)} for g in (1.0, np.inf))

    def check_after(overflows: int, step: int) -> None:
        for i in range(guards.PROGRESS_INTERVAL):
            guard.add(torch.tensor([0, 1]), overflowed if i < overflows else finite)
        guard.check(step)

    check_after(guards.SCALE_SEARCH, 25)
    assert not caplog.text
    with pytest.raises(SystemExit, match="17 of 25 updates before step 50"):
        check_after(guards.SCALE_SEARCH + 1, 50)
    assert caplog.text.count("Utterances: a, b") == guards.MAX_SKIPPED_STEPS


@pytest.mark.samples
def test_tensorboard_has_losses_norms_pictures_and_audio(workspace):
    with_config(tiny.DURATION_DISCRIMINATOR, train={"log_interval": 1})("--max-steps", 2)
    board = EventAccumulator("logs/voice", {"scalars": 0, "images": 0, "audio": 0}).Reload()
    terms = ["mel", "kl", "dur", "gen", "fm", "dur_gen"]
    scalars = {"loss/d/total", "loss/dur_d/total", *(f"loss/g/{name}" for name in ["total", *terms])}
    scalars |= {f"optim/grad_norm_{name}" for name in ("g", "d", "dur_d")}
    scalars |= {f"validation/{name}" for name in ("mel", "kl", "dur", "duration_error", "duration_std_ratio")}
    scalars |= {f"optim/{name}" for name in ("learning_rate", "seconds_a_step", "scale/alignment_noise")}
    scalars |= {"memory/process_gb", "memory/workers_gb"}
    assert scalars == set(board.Tags()["scalars"])
    assert set(board.Tags()["images"]) == {"mel/recording", "mel/synthesis", "alignment/predicted", "alignment/found"}
    assert set(board.Tags()["audio"]) == {"audio/recording", "audio/synthesis"}
    assert min(board.Tags()["scalars"]).startswith("loss/")  # the group that TensorBoard opens first
    assert [event.step for event in board.Scalars("loss/g/mel")] == [1, 2]
    first, *_ = metrics("logs/voice")
    assert board.Scalars("loss/g/mel")[0].value == pytest.approx(first["loss/g/mel"], abs=1e-5)
    parts = sum(first[f"loss/g/{name}"] for name in terms)
    assert first["loss/g/total"] == pytest.approx(parts, rel=1e-5)
    assert first["scale/alignment_noise"] == 0.01
    log = Path("logs/voice/train.log").read_text("utf-8")
    assert "loss/g/mel" in log and "validation/mel" in log


KILLED = """
import os, signal
import train, trainer

step = trainer.Trainer.step

def killed_once(self, batch):
    first = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
    if first and self.position.step == 3 and os.environ["RANK"] == "1":
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, batch)

trainer.Trainer.step = killed_once
train.main()
"""


@pytest.mark.slow
def test_torchrun_restarts_two_processes_after_a_kill_and_the_result_is_the_same(workspace):
    """The reference is started by train.py itself, so this also shows that a seed gives the same weights twice."""
    tiny.write_corpus(workspace, 9, 3, speakers=2)
    tiny.write_config(workspace / "tiny.json", *ALL_PARTS, train={"eval_interval": 2})
    options = ["-c", "tiny.json", "--device", "cpu", "--max-steps", "4"]
    spawned = tiny.python(PROGRAM, "-m", "a", "--processes", "2", *options, folder=workspace, timeout=400)
    assert spawned.returncode == 0, spawned.stderr
    (workspace / "killed.py").write_text(KILLED, "utf-8")
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "--max-restarts=1"]
    joined = tiny.python(*torchrun, "killed.py", "-m", "b", *options, folder=workspace, timeout=400)
    assert joined.returncode == 0 and "Traceback" not in joined.stderr, joined.stderr
    assert "process 0 ends, because the connection to another process was lost" in joined.stderr
    assert "resumed from logs/b/G_2.pth at step 2" in joined.stderr
    assert tiny.equal(contents(workspace / "logs/a", 4), contents(workspace / "logs/b", 4))
    assert len(torch.load(workspace / "logs/a/G_4.pth", weights_only=True)["state"]["random"]) == 2


def test_a_seed_gives_the_same_weights_and_each_start_is_recorded(workspace, monkeypatch):
    config = tiny.write_config(Path("tiny.json"), *ALL_PARTS)
    tiny.write_corpus(workspace, 7, 3, speakers=2)
    for name in "ab":
        torch.manual_seed(ord(name))  # the random state of the process must not matter
        run("-c", config, "-m", name, "--max-steps", 2)
    assert tiny.equal(contents("logs/a", 2), contents("logs/b", 2))
    monkeypatch.setattr(record, "CODE", workspace)  # no repository
    run("-m", "a", "--max-steps", 3, "--skip-check")
    first, second = map(json.loads, Path("logs/a/starts.jsonl").read_text("utf-8").splitlines())
    other = json.loads(Path("logs/b/starts.jsonl").read_text("utf-8"))
    assert first["command"] == "train.py -m voice --device cpu -c tiny.json -m a --max-steps 2".replace(
        "tiny.json", config
    )
    assert (first["step"], second["step"], first["processes"], first["device"]) == (0, 2, 1, "cpu")
    assert first["versions"]["torch"] == torch.__version__ and len(first["data"]) == 64
    assert first["data"] == other["data"] and (second["data"], second["commit"], second["diff"]) == (None, None, None)


def test_the_record_of_a_start_has_commit_and_changes(tmp_path, monkeypatch):
    def git(*arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        done = subprocess.run(["git", *identity, *arguments], cwd=tmp_path / "code", check=True, capture_output=True)
        return done.stdout.decode().strip()

    (tmp_path / "code").mkdir()
    (tmp_path / "code/train.py").write_text("a = 1\n")
    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "-m", "first")
    monkeypatch.setattr(record, "CODE", tmp_path / "code")
    record.write_start(tmp_path, "train.py", 0, torch.device("cpu"), None)
    (tmp_path / "code/train.py").write_text("a = 2\n")
    record.write_start(tmp_path, "train.py", 5, torch.device("cpu"), None)
    clean, changed = map(json.loads, (tmp_path / "starts.jsonl").read_text("utf-8").splitlines())
    assert clean["commit"] == changed["commit"] == git("rev-parse", "HEAD") and clean["diff"] is None
    (tmp_path / "code/train.py").write_text("a = 1\n")
    git("apply", str(tmp_path / changed["diff"]))
    assert (tmp_path / "code/train.py").read_text() == "a = 2\n"
