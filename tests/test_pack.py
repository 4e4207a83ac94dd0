"""A packed voice: it speaks as before, trains further, and is the default of the programs."""

import dataclasses
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
import tiny
import tiny_voices
import torch

import checkpoint
import config as configs
import export_onnx
import infer_onnx
import inference
import train
import utils
from files import REST, VOICE
from models import SynthesizerTrn
from recipes import pack
from serving.takes import speaker_of
from serving.voices import Voices
from synthesis import Voice, find_checkpoint
from training.networks import build_discriminator, build_duration_discriminator

QUIET = {"noise_scale": 0, "noise_scale_w": 0}
SPEAKERS = {"anna": 0, "bo": 1}
LISTS = {"training_files": "/home/me/train.txt", "validation_files": "/home/me/val.txt"}


def settings(**data: object) -> configs.Config:
    discriminators = {"use_duration_discriminator": True, "discriminator_channels": 64}
    return tiny_voices.settings(speakers=SPEAKERS, data=LISTS | data, **discriminators)


def write_run(folder: Path, conf: configs.Config) -> Path:
    """Write a run of random weights whose averaged weights are those of `tiny_voices.network`. Returns its folder."""
    folder.mkdir(parents=True)
    torch.manual_seed(5)
    average = checkpoint.reference_state_dict(tiny_voices.network(conf))
    others = SynthesizerTrn.from_config(conf, len(average["enc_p.emb.weight"]))
    more = {"config": dataclasses.asdict(conf), "step": 9, "ema": average}
    checkpoint.save_checkpoint(others, None, 1e-4, 1, folder / "G_9.pth", **more)
    checkpoint.save_checkpoint(build_discriminator(conf), None, 1e-4, 1, folder / "D_9.pth")
    checkpoint.save_checkpoint(build_duration_discriminator(conf), None, 1e-4, 1, folder / "DUR_9.pth")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Return the folder `pretrained` of a packed voice; its run is beside it."""
    made = tmp_path_factory.mktemp("packed")
    pack.main([str(write_run(made / "run", settings())), "--output", str(made / "pretrained"), "--speaker", "bo"])
    return made / "pretrained"


@pytest.fixture
def shipped(folder, tmp_path, monkeypatch) -> Path:
    """Make the packed voice the one that comes with the code, in an empty working directory."""
    monkeypatch.setattr("files.PRETRAINED", folder)
    monkeypatch.chdir(tmp_path)
    return folder


def test_the_files_are_small_complete_and_without_paths(folder):
    assert sorted(path.name for path in folder.iterdir()) == [VOICE, "config.json", REST]
    voice, rest = (torch.load(folder / name, weights_only=True) for name in (VOICE, REST))
    tables = [voice["model"], *(rest[name] for name in ("model", "discriminator", "duration_discriminator"))]
    assert all(weight.dtype == torch.float16 for table in tables for weight in table.values())
    assert not any(name.startswith("enc_q.") for name in voice["model"])
    assert all(name.startswith("enc_q.") for name in rest["model"]) and rest["model"]
    assert "home" not in json.dumps([voice["config"], rest["config"], (folder / "config.json").read_text("utf-8")])
    assert voice["step"] == rest["step"] == 9
    assert configs.load(folder / "config.json").data.default_speaker == "bo"
    assert checkpoint.damaged_record(folder / VOICE) is None
    assert checkpoint.read(folder / VOICE)["model"]["enc_p.emb.weight"].dtype == torch.float32


def test_it_speaks_as_the_averaged_weights_of_the_run_by_the_default_speaker(folder):
    run, packed = Voice.load(folder.with_name("run")), Voice.load(folder)
    before, after = run.speak("Hello there.", "bo", **QUIET), packed.speak("Hello there.", **QUIET)
    assert len(before.audio) == len(after.audio) and packed.step == 9
    np.testing.assert_allclose(after.audio, before.audio, atol=0.05 * np.abs(before.audio).max())
    assert not np.array_equal(after.audio, packed.speak("Hello there.", "anna", **QUIET).audio)
    with pytest.raises(ValueError, match="several speakers"):
        run.speak("Hello there.")


def test_the_voice_alone_speaks_and_converts_only_with_the_other_file(folder, tmp_path):
    tone = tiny.speech(1, rate=8000)
    assert len(Voice.load(folder).convert(tone, "anna", "bo", seed=1))
    (tmp_path / VOICE).write_bytes((folder / VOICE).read_bytes())
    alone = Voice.load(tmp_path / VOICE)
    assert not alone.has_posterior and len(alone.speak("Hello there.").audio)
    with pytest.raises(ValueError, match="no posterior encoder"):
        alone.convert(tone, "anna", "bo")


def test_files_of_two_voices_are_refused(folder, tmp_path):
    for name in (VOICE, REST):
        content = torch.load(folder / name, weights_only=True)
        torch.save(content | {"step": 3 if name == REST else 9}, tmp_path / name)
    with pytest.raises(ValueError, match="are not of one voice"):
        checkpoint.read_generator(tmp_path / VOICE)
    with pytest.raises(ValueError, match="are not of one voice"):
        Voice.load(tmp_path).convert(tiny.speech(1, rate=8000), "anna", "bo")


def test_the_other_file_is_read_by_the_first_conversion_only(folder, tmp_path):
    (tmp_path / VOICE).write_bytes((folder / VOICE).read_bytes())
    rest, tone = tmp_path / REST, tiny.speech(1, rate=8000)
    rest.write_bytes(b"damaged")
    voice = Voice.load(tmp_path)
    assert len(voice.speak("Hello there.").audio)
    for _ in range(2):
        with pytest.raises(ValueError, match=f"{rest} does not load"):
            voice.convert(tone, "anna", "bo")
    rest.write_bytes((folder / REST).read_bytes())
    converted = voice.convert(tone, "anna", "bo", seed=1)
    rest.unlink()
    assert np.array_equal(voice.convert(tone, "anna", "bo", seed=1), converted)
    whole = SynthesizerTrn.from_config(configs.load(folder / "config.json"), 178)
    utils.load_checkpoint(folder / VOICE, whole)
    expected = Voice(whole, voice.config).convert(tone, "anna", "bo", seed=1)
    np.testing.assert_allclose(converted, expected, atol=1e-5)


def test_programs_speak_with_it_by_default(shipped):
    inference.main(["-t", "Hello there.", "-o", "hello.wav", "--noise-scale", "0", "--noise-scale-w", "0"])
    expected = Voice.load().speak("Hello there.", **QUIET)
    np.testing.assert_allclose(soundfile.read("hello.wav")[0], expected.audio, atol=1e-3)
    assert find_checkpoint("pretrained") == shipped / VOICE
    offered = Voices("logs", device="cpu")
    assert offered.files() == {"pretrained": shipped / VOICE} and offered.first() == "pretrained"
    assert offered.about("pretrained")["speakers"] == ["anna", "bo"]


def test_exports_have_the_default_speaker_and_the_first_use_exports(shipped, tmp_path, monkeypatch, capsys):
    pytest.importorskip("onnx", reason="onnx is an extra: pip install -r requirements-extras.txt")
    pytest.importorskip("onnxruntime", reason="onnxruntime is an extra: pip install -r requirements-extras.txt")
    export_onnx.main(["--output", "voice.onnx"])
    spoken = infer_onnx.OnnxVoice("voice.onnx").speak("Hello there.", **QUIET).audio
    np.testing.assert_allclose(spoken, Voice.load().speak("Hello there.", "bo", **QUIET).audio, atol=1e-3)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    capsys.readouterr()
    others = [Path("cache/vits2", f"{i:016x}.onnx") for i in range(4)] + [Path("cache/vits2/mine.onnx")]
    for age, other in enumerate(others):
        other.parent.mkdir(parents=True, exist_ok=True)
        other.touch()
        os.utime(other, (age, age))
    for name in ("0.wav", "1.wav"):
        infer_onnx.main(["--text", "Hello there.", "--seed", "7", "--output-wav-path", name])
    assert Path("0.wav").read_bytes() == Path("1.wav").read_bytes()
    assert capsys.readouterr().err.count("exporting the voice") == 1
    assert [other.exists() for other in others] == [False, False, False, True, True] and infer_onnx.exported().is_file()


@pytest.mark.parametrize("program", [inference.main, infer_onnx.main, export_onnx.main])
def test_a_missing_voice_is_one_line(program, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("files.PRETRAINED", tmp_path / "pretrained")
    options = ["--output", str(tmp_path / "voice.onnx")] if program is export_onnx.main else ["--text", "Hello."]
    with pytest.raises(SystemExit, match="2"):
        program(options)
    error = capsys.readouterr().err
    assert f"there is no {tmp_path / 'pretrained' / VOICE}, the voice that comes with" in error
    assert error.count("\n") == 1


def test_a_client_names_the_default_speaker_in_several_ways(folder):
    voice, asks = Voice.load(folder), Voice.load(folder.with_name("run"))
    names = (None, "", "default", "pretrained")
    assert [speaker_of(voice, name, "pretrained", "default") for name in names] == [None] * 4
    assert speaker_of(voice, "anna", "default") == "anna" and speaker_of(asks, "default", "default") == "default"


def test_training_starts_from_both_files_with_one_more_speaker(shipped):
    """Frozen weights stay those of the voice, and the new speaker begins as the mean of the others."""
    clips = [(f"{i}.wav", tiny.speech(0.5 + 0.1 * i, i, 8000)) for i in range(6)]
    for name, samples in clips:
        soundfile.write(name, samples, 8000)
    for name, some in (("train.txt", clips[:4]), ("val.txt", clips[4:])):
        Path(name).write_text("".join(f"{path}|carla|hello there\n" for path, _ in some), "utf-8")
    sections = dataclasses.asdict(configs.load(shipped / "config.json"))
    sections["data"] |= {"training_files": "train.txt", "validation_files": "val.txt", "n_speakers": 3}
    sections["data"]["speakers"] = SPEAKERS | {"carla": 2}
    sections["train"] |= {"batch_size": 2, "num_workers": 0, "lr_scale": {"": 0, "emb_g.": 1}}
    Path("my.json").write_text(json.dumps(sections), "utf-8")
    train.main(["-c", "my.json", "-m", "my", "--init-from", "pretrained", "--max-steps", "1", "--device", "cpu"])
    log = Path("logs/my/train.log").read_text("utf-8")
    assert all(f"{name} from {shipped / REST}" in log for name in ("discriminator", "duration_discriminator"))
    rows = re.findall(r"^([\w.]+) +([\d-]+) +([\d-]+) +([\d-]+) +([\d-]+)", log, re.MULTILINE)
    assert [row[0] for row in rows if row[1] == "-"] == ["emb_g"] and {row[4] for row in rows} == {"-"}
    before, after = Voice.load(shipped), Voice.load("my")
    before.convert(clips[0][1], "anna", "bo")  # which reads the posterior encoder
    assert list(after.speakers) == ["anna", "bo", "carla"]
    for weight, start in ((after.net.dec, before.net.dec), (after.net.enc_q, before.net.enc_q)):
        assert all(torch.equal(a, b) for a, b in zip(weight.state_dict().values(), start.state_dict().values()))
    spread = (before.net.emb_g.weight[0] - before.net.emb_g.weight[1]).abs().max()
    assert (after.net.emb_g.weight[2] - before.net.emb_g.weight.mean(0)).abs().max() < spread / 2


def test_the_interface_of_vits_loads_both_files(folder):
    conf = configs.load(folder / "config.json")
    network = SynthesizerTrn.from_config(conf, 178)
    utils.load_checkpoint(folder / VOICE, network)
    given = torch.load(folder / REST, weights_only=True)["model"]["enc_q.pre.weight"].float()
    assert torch.equal(network.enc_q.pre.weight, given) and given.any()


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({}, ["--speaker", "carl"], "there is no speaker 'carl'"),
        ({"limit": 1000}, [], "the limit is"),
        ({"weight": 1e6}, [], "too large for fp16"),
        ({"silent": True}, [], "is silent"),
        ({}, ["--report", "nowhere"], "there is no file nowhere/report.md"),
        ({"missing": "D_9.pth"}, [], "has no checkpoint D_*.pth"),
    ],
)
def test_a_voice_that_cannot_be_packed_leaves_the_folder_as_it_was(
    change, options, message, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    run = write_run(Path("run"), settings())
    content = checkpoint.read(run / "G_9.pth")
    if "limit" in change:
        monkeypatch.setattr(pack, "MAX_VOICE", change["limit"])
    if "weight" in change:
        content["ema"]["enc_q.pre.bias"][0] = change["weight"]
    if "silent" in change:
        for name, weight in content["ema"].items():
            if name.startswith("dec.conv_post."):
                weight.zero_()
    checkpoint.write(run / "G_9.pth", content)
    if "missing" in change:
        (run / change["missing"]).unlink()
    Path("out").mkdir()
    Path("out", VOICE).write_text("before", "utf-8")
    with pytest.raises(SystemExit, match="2"):
        pack.main(["run", "--output", "out", *options])
    assert message in capsys.readouterr().err
    assert [path.name for path in Path("out").iterdir()] == [VOICE] and Path("out", VOICE).read_text(
        "utf-8"
    ) == "before"
    assert not list(Path().glob(".out*"))


def test_the_report_is_copied_and_a_single_speaker_packs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    conf = tiny_voices.settings(discriminator_channels=64)
    tiny_voices.save(Path("run"), conf, step=9).rename("run/G_best.pth")
    checkpoint.save_checkpoint(build_discriminator(conf), None, 1e-4, 1, "run/D_30.pth")
    Path("report").mkdir()
    for name in pack.REPORTS:
        Path("report", name).write_text("## Values\n\n1\n\n## Pictures\n\n![a](a.png)\n\n## Conditions\n", "utf-8")
    pack.main(["run", "--output", "out", "--report", "report"])
    assert sorted(path.name for path in Path("out").iterdir()) == [
        VOICE,
        "config.json",
        "report.json",
        "report.md",
        REST,
    ]
    assert Path("out/report.md").read_text("utf-8") == "## Values\n\n1\n\n## Conditions\n"
    assert "out/G.pth: " in capsys.readouterr().out
    assert "duration_discriminator" not in checkpoint.read(Path("out", REST)) and Voice.load("out").step == 9
