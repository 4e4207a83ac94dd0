"""Voices of other programs are imported with their text, and speak as they did there."""

import argparse
import dataclasses
import json
import math
import warnings
import zlib
from pathlib import Path, PosixPath

import numpy as np
import pytest
import tiny
import tiny_voices
import torch

import checkpoint
import export_onnx
import import_voice
from importers import coqui, huggingface, reading
from synthesis import Voice

onnxruntime = pytest.importorskip(
    "onnxruntime", reason="onnxruntime is an extra: pip install -r requirements-extras.txt"
)
safetensors = pytest.importorskip(
    "safetensors.torch", reason="safetensors is an extra: pip install -r requirements-extras.txt"
)

IDS = [1, 0, 20, 0, 9, 0, 13, 0, 2]
STILL = {"noise_scale": 0.0, "noise_scale_w": 0.0}
LINEAR = {"use_mel_posterior_encoder": False}  # spectrograms, as in VITS
GOLDEN = tiny.ROOT / "tests" / "golden"


def of_vits(speakers: int = 0, data: dict | None = None, **model) -> checkpoint.Config:
    """Return a tiny config of the network of VITS."""
    return tiny_voices.settings(None, speakers, data={**LINEAR, "add_blank": True, **(data or {})}, **(LINEAR | model))


def folded(weights: dict) -> dict:
    """Return weights with every weight norm folded."""
    return checkpoint.fitted(weights, [name.removesuffix("_g") for name in weights if name.endswith("weight_g")])


def run(*arguments: object) -> None:
    """Run the program."""
    import_voice.main([str(argument) for argument in arguments])


def audio(voice: Voice | str, ids: list[int] = IDS, **options) -> np.ndarray:
    """Return what a voice says without noise."""
    voice = Voice.load(voice) if isinstance(voice, str) else voice
    return voice.speak(ids, **STILL, **options).audio


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


# Files of VITS


def prefixed(prefix: str):
    """Return a function that adds a prefix to all names."""
    return lambda weights: {prefix + name: value for name, value in weights.items()}


FORMS = {
    "bare": lambda weights: weights,
    "weight": lambda weights: {"weight": weights, "info": "100 epochs"},
    "parallel": lambda weights: {"model": prefixed("module.")(weights), "iteration": 3},
    "compiled": lambda weights: {"model": prefixed("module._orig_mod.")(weights)},
    "Lightning": lambda weights: {"state_dict": {**prefixed("model_g.")(weights), "model_d.x": torch.zeros(2)}},
    "folded": lambda weights: {"model": folded(weights)},
    "parametrized": lambda weights: {
        "model": {
            name.replace("weight_g", "parametrizations.weight.original0").replace(
                "weight_v", "parametrizations.weight.original1"
            ): value
            for name, value in weights.items()
        }
    },
    "without training": lambda weights: {n: w for n, w in weights.items() if not checkpoint.TRAINING_ONLY.match(n)},
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_checkpoint_of_vits_speaks_the_same(form, tmp_path, capsys):
    config = of_vits(use_sdp=True, data={"text_cleaners": ["english_cleaners2"]})
    net = tiny_voices.network(config)
    torch.save(FORMS[form](checkpoint.reference_state_dict(net)), tmp_path / "G_100.pth")
    sections = dataclasses.asdict(config)
    (tmp_path / "config.json").write_text(json.dumps(sections), "utf-8")
    run("G_100.pth", "-m", "voice")
    report = capsys.readouterr().out
    assert "found      VITS: a single voice, 8000 Hz, flow of VITS, stochastic durations, decoder hifigan" in report
    assert ("missing" in report) == (form == "without training")
    expected = audio(Voice(net, config))
    assert np.allclose(audio("voice"), expected, atol=1e-6)
    assert len(Voice.load("voice").speak("Hello.", seed=0).audio) > 0
    with pytest.raises(SystemExit):  # nothing is overwritten
        run("G_100.pth", "-m", "voice")
    assert "logs/voice has checkpoints already" in capsys.readouterr().err


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_safetensors_in_16_bits(dtype, tmp_path):
    config = of_vits()
    net = tiny_voices.network(config)
    weights = {name: w.to(dtype).contiguous() for name, w in checkpoint.reference_state_dict(net).items()}
    safetensors.save_file(weights, tmp_path / "voice.safetensors")
    (tmp_path / "voice.json").write_text(json.dumps(dataclasses.asdict(config)), "utf-8")
    run(tmp_path, "-m", "voice")
    content = checkpoint.read("logs/voice/G_0.pth")
    assert all(value.dtype == torch.float32 for value in content["model"].values())
    assert tiny.equal(content["model"], {name: value.float() for name, value in weights.items()})


@pytest.mark.parametrize("flow", ["pre_conv", "pre_conv2", "fft", "mono_layer_post_residual"])
def test_the_architecture_is_read_from_the_weights(flow, tmp_path):
    """A config with wrong numbers does not matter, where the weights decide."""
    config = tiny_voices.settings(flow, {"ann": 0, "bo": 1}, posterior_layers=3, posterior_channels=12)
    torch.save({"model": checkpoint.reference_state_dict(tiny_voices.network(config))}, "G_1.pth")
    sections = dataclasses.asdict(config)
    sections["model"] |= {"n_layers": 9, "hidden_channels": 64, "posterior_layers": 16, "gin_channels": 2}
    sections["train"]["c_other"] = 1
    (tmp_path / "config.json").write_text(json.dumps(sections), "utf-8")
    voice = reading.read(Path("G_1.pth"))
    assert voice.config.model == config.model and voice.config.data.speakers == {"ann": 0, "bo": 1}
    assert voice.notes == ["keys of the config's 'train' that are not used here: c_other"] and not voice.missing


def test_plachtaas_symbols_and_speakers_come_along(tmp_path, capsys):
    table = ["_", *"!?. abcdefghijklmnopqrstuvwxyz", "ch"]
    config = of_vits(3)
    net = tiny_voices.network(config, len(table))
    torch.save({"model": checkpoint.reference_state_dict(net)}, "G_latest.pth")
    sections = dataclasses.asdict(config) | {"symbols": table, "speakers": {"ann": 0, "bo": 1, "cy": 2}}
    for key in ("symbols", "speakers", "n_vocab"):
        del sections["data"][key]
    (tmp_path / "finetune_speaker.json").write_text(json.dumps(sections), "utf-8")
    run(".", "-m", "voice", "--cleaners", "basic_cleaners")
    voice = Voice.load("voice")
    assert list(voice.speakers) == ["ann", "bo", "cy"]
    assert voice.read("Much.")[0].tokens == [0, 17, 0, 25, 0, 31, 0, 3, 0]  # m u ch .
    assert np.allclose(audio(voice, speaker="cy"), audio(Voice(net, config), speaker=2), atol=1e-6)


def test_the_vocabulary_of_mms(tmp_path):
    (tmp_path / "vocab.txt").write_text("k\n'\nz\n|\ny\n \na\n", "utf-8")
    config = of_vits()
    torch.save({"model": checkpoint.reference_state_dict(tiny_voices.network(config, 7))}, "G_100000.pth")
    (tmp_path / "config.json").write_text(json.dumps(dataclasses.asdict(config)), "utf-8")
    run("G_100000.pth", "-m", "voice")
    assert Voice.load("voice").read("zyk a")[0].tokens == [0, 2, 0, 4, 0, 0, 0, 5, 0, 6, 0]


# Piper


def piper_json(rows: int, speakers: int = 0) -> dict:
    """Return the JSON file of a voice of Piper with a small table."""
    table = {"_": [0], "^": [1], "$": [2], " ": [3], **{letter: [i] for i, letter in enumerate("abcdehlnorsuw.", 4)}}
    return {
        "audio": {"sample_rate": 16000, "quality": "x_low"},
        "espeak": {"voice": "en-us"},
        "inference": {"noise_scale": 0.333, "length_scale": 1, "noise_w": 0.8},
        "phoneme_type": "text",
        "phoneme_id_map": table,
        "num_symbols": rows,
        "num_speakers": max(1, speakers),
        "speaker_id_map": {f"speaker {i}": i for i in range(speakers)},
    }


PIPER = {
    "low": {"resblock": "2", "resblock_kernel_sizes": [3, 5], "resblock_dilation_sizes": [[1, 2], [2, 6]]},
    "high": {"hidden_channels": 24, "n_heads": 3, "n_layers": 3, "kernel_size": 5, "upsample_rates": [8, 4, 2],
             "upsample_kernel_sizes": [16, 8, 4], "resblock_dilation_sizes": [[1, 2, 4]]},
}  # fmt: skip


def as_piper_exports(net: torch.nn.Module, path: Path, speakers: int) -> None:
    """Export a network in the way of Piper: without weight norm in the decoder, and with its names of inputs."""
    net.dec.remove_weight_norm()

    def forward(text, lengths, scales, sid=None):
        return net.infer(text, lengths, sid, scales[0], scales[1], scales[2])[0].unsqueeze(1)

    net.forward = forward
    example = (torch.tensor([IDS]), torch.tensor([len(IDS)]), torch.tensor([0.667, 1.0, 0.8]))
    names = ["input", "input_lengths", "scales"]
    if speakers:
        example, names = (*example, torch.tensor([0])), [*names, "sid"]
    axes = {"input": {0: "batch_size", 1: "phonemes"}, "input_lengths": {0: "batch_size"}, "output": {0: "b", 1: "t"}}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net, example, path, dynamo=False, opset_version=15, input_names=names, output_names=["output"],
            dynamic_axes=axes,
        )  # fmt: skip


@pytest.mark.parametrize(("kind", "speakers", "sdp"), [("low", 0, True), ("high", 3, True), ("low", 2, False)])
def test_a_voice_of_piper_speaks_as_onnx_runtime_does(kind, speakers, sdp, tmp_path, capsys):
    config = of_vits(speakers, use_sdp=sdp, use_spk_conditioned_encoder=False, **PIPER[kind])
    net = tiny_voices.network(config, 30)
    as_piper_exports(net, tmp_path / "voice.onnx", speakers)
    (tmp_path / "voice.onnx.json").write_text(json.dumps(piper_json(30, speakers)), "utf-8")
    run("voice.onnx", "-m", "voice")
    report = capsys.readouterr().out
    assert "its owner speaks with --noise-scale 0.333" in report and "missing" in report
    voice = Voice.load("voice")
    inputs = {
        "input": np.array([IDS]),
        "input_lengths": np.array([len(IDS)]),
        "scales": np.array([0, 1, 0], np.float32),
    }
    if speakers:
        inputs["sid"] = np.array([1])
    expected = onnxruntime.InferenceSession("voice.onnx").run(None, inputs)[0].squeeze()
    assert np.abs(audio(voice, speaker="speaker 1" if speakers else None) - expected).max() < 1e-5
    # begin, blank, the letters with blanks, end
    assert voice.read("Hello.")[0].tokens == [1, 0, 9, 0, 8, 0, 10, 0, 10, 0, 12, 0, 17, 0, 2]
    ours, theirs = dataclasses.asdict(voice.config.model), dataclasses.asdict(config.model)
    assert not [key for key in ours if ours[key] != theirs[key] and not key.startswith(("istft", "convnext"))]
    with pytest.raises(ValueError, match="no posterior encoder"):
        voice.net.enc_q(torch.zeros(1, 129, 4), torch.tensor([4]))


@pytest.mark.parametrize(
    ("flow", "model"),
    [
        ("pre_conv", {"decoder": "vocos"}),
        ("pre_conv", tiny.DECODERS["harmonic_vocos"]),
        tiny.slow("pre_conv", tiny.DECODERS["mb_istft"]),
        ("fft", {"use_sdp": True}),
    ],
)
@pytest.mark.parametrize("options", [[], tiny.slow(["--half", "--runtime", "piper"])])
def test_an_exported_voice_comes_back(flow, model, options, tmp_path):
    speakers = {"ann": 0, "bo": 1}
    tiny_voices.save(Path("logs/voice"), tiny_voices.settings(flow, speakers, **model))
    export_onnx.main(["--model-path", "logs/voice", "--output", "voice.onnx", *options])
    run("voice.onnx", "-m", "back")
    there, back = Voice.load("voice"), Voice.load("back")
    assert back.speakers == speakers and back.read("Hello.") == there.read("Hello.")
    tolerance = 0.02 if options else 1e-5
    assert np.allclose(audio(back, speaker="bo"), audio(there, speaker="bo"), atol=tolerance)


def test_a_checkpoint_of_lightning_is_read_by_an_allow_list(tmp_path, monkeypatch):
    """The arguments of Piper's training describe the network, and are pickled as objects."""
    config = of_vits(use_sdp=True, **PIPER["low"])
    net = tiny_voices.network(config, 30)
    arguments = {key: getattr(config.model, key) for key in ("upsample_rates", "resblock_dilation_sizes", "resblock")}
    arguments |= {"num_symbols": 30, "sample_rate": 16000, "dataset": [PosixPath("/data/x.jsonl")], "hop_length": 64}
    arguments |= {"filter_length": 256, "win_length": 256, "upsample_rates": "(8, 8,)"}
    content = {
        "pytorch-lightning_version": "1.9.5",
        "state_dict": prefixed("model_g.")(checkpoint.reference_state_dict(net)),
        "hyper_parameters": arguments,
        "args": argparse.Namespace(quality="medium"),
    }
    torch.save(content, tmp_path / "epoch=1.ckpt")
    (tmp_path / "config.json").write_text(json.dumps(piper_json(30)), "utf-8")
    voice = reading.read(Path("epoch=1.ckpt"))
    assert voice.title == "Piper (Lightning)" and not voice.missing and voice.config.data.hop_length == 64
    assert voice.config.model.resblock_dilation_sizes == [[1, 2], [2, 6]]

    class Harm:
        def __reduce__(self):
            return (print, ("harm",))

    torch.save({**content, "callbacks": Harm()}, tmp_path / "epoch=2.ckpt")
    with pytest.raises(ValueError, match=r"epoch=2\.ckpt holds an object of the type .*print; only weights"):
        reading.read(Path("epoch=2.ckpt"))


# Hugging Face


def golden_weights(shapes: dict[str, list[int]]) -> dict[str, torch.Tensor]:
    """Return weights that depend on names and shapes alone, as in the golden values."""
    weights = {}
    for name, shape in shapes.items():
        generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
        value = torch.randn(shape, generator=generator) * 0.3
        weights[name] = value.abs() + 0.5 if name.endswith(("original0", "norm.weight")) else value
    return weights


@pytest.mark.parametrize("case", ["stochastic", "speakers"])
def test_vits_of_hugging_face_speaks_as_there_and_goes_back(case, tmp_path, capsys):
    golden = json.loads((GOLDEN / f"huggingface_{case}.json").read_text("utf-8"))
    weights = golden_weights(golden["shapes"])
    folder = tmp_path / "there"
    folder.mkdir()
    safetensors.save_file(weights, folder / "model.safetensors", {"format": "pt"})
    for name in ("config", "vocab", "tokenizer_config"):
        (folder / f"{name}.json").write_text(json.dumps(golden[name]), "utf-8")
    run("there", "-m", "voice")
    voice = Voice.load("voice")
    assert voice.read(golden["text"])[0].tokens == golden["ids"]
    spoken = audio(voice, golden["ids"], speaker=golden["speaker"])
    assert np.abs(spoken - np.array(golden["waveform"])).max() < 2e-4
    run("logs/voice", "--to", "hf", "-o", "back")
    back = safetensors.load_file("back/model.safetensors")
    assert {name: list(value.shape) for name, value in back.items()} == golden["shapes"]
    assert all(torch.allclose(back[name], value, atol=1e-6) for name, value in weights.items())
    config = json.loads(Path("back/config.json").read_text("utf-8"))
    ours = {key: config[key] for key in golden["config"] if key in config and key != "architectures"}
    assert ours == {key: golden["config"][key] for key in ours} and len(ours) > 30
    assert json.loads(Path("back/vocab.json").read_text("utf-8")) == golden["vocab"]


def test_a_network_that_hugging_face_does_not_have(tmp_path, capsys):
    tiny_voices.save(Path("logs/voice"), tiny_voices.settings())
    with pytest.raises(SystemExit):
        run("logs/voice", "--to", "hf", "-o", "there")
    assert "does not have the transformer flow, a posterior encoder of mel" in capsys.readouterr().err


# Coqui


@pytest.mark.parametrize("speakers", [0, 2])
def test_a_voice_of_coqui(speakers, tmp_path):
    config = of_vits(speakers, use_sdp=not speakers, use_spk_conditioned_encoder=False)
    characters = {"pad": "<PAD>", "eos": "<EOS>", "bos": "<BOS>", "blank": "<BLNK>", "characters": "cba",
                  "punctuations": "!. ", "is_sorted": True, "characters_class": "x.Graphemes"}  # fmt: skip
    net = tiny_voices.network(config, 10)
    parts = {
        "enc_p": "text_encoder",
        "enc_q": "posterior_encoder",
        "dec": "waveform_decoder",
        "dp": "duration_predictor",
    }
    theirs = {"disc.nets.0.bias": torch.zeros(1)}
    for name, value in net.state_dict().items():
        part, *rest = name.split(".")
        if "flows" in rest[0]:
            place = int(rest[1])
            rest[1] = str(math.ceil(place / 2))
            rest = [{"m": "translation", "logs": "log_scale"}.get(module, module) for module in rest]
        if part == "dec" and rest[0] == "cond":
            rest[0] = "cond_layer"
        theirs[".".join([parts.get(part, part), *rest])] = value
    arguments = {"upsample_rates_decoder": [8, 8], "resblock_dilation_sizes_decoder": [[1, 3, 5]]}
    sections = {
        "model": "vits", "characters": characters, "text_cleaner": "basic_cleaners", "add_blank": True,
        "enable_eos_bos_chars": True, "model_args": arguments,
        "audio": {"sample_rate": 8000, "fft_size": 256, "hop_length": 64, "win_length": 256, "num_mels": 20},
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(sections), "utf-8")
    torch.save({"model": theirs, "step": 3, "model_loss": {"train_loss": 1.0}}, "best_model.pth")
    if speakers:
        torch.save({"ann": 0, "bo": 1}, "speakers.pth")
    run(".", "-m", "voice")
    voice = Voice.load("voice")
    ids = [2, 3, 4, 3, 5, 3, 8, 3, 1]  # <BOS> blank a blank b blank . blank <EOS>
    assert voice.read("Ab.")[0].tokens == ids
    expected = audio(Voice(net, config), ids, speaker=1 if speakers else None)
    assert np.allclose(audio(voice, ids, speaker="bo" if speakers else None), expected, atol=1e-6)
    own = coqui.vocabulary({**characters, "characters_class": "TTS.tts.models.vits.VitsCharacters", "phonemes": "ɑ"})
    assert own == ["<PAD>", *"!. ", *"cbaɑ", "<BLNK>"]


# What is not known


def weights_of(**model) -> dict:
    """Return the weights of a tiny network of VITS."""
    return checkpoint.reference_state_dict(tiny_voices.network(of_vits(**model)))


UNKNOWN = {
    "no config": (lambda w: w, lambda c: None, "do not tell the strides of its decoder .* give its config"),
    "emotions": (lambda w: {**w, "enc_p.emo_proj.weight": w["enc_p.proj.weight"]}, lambda c: c, "an emotion embedding"),
    "sub-bands": (
        lambda w: {**w, "dec.subband_conv_post.weight": w["dec.conv_post.weight"]},
        lambda c: c,
        "a decoder of sub-bands with the filter bank and the phases of MB-iSTFT-VITS, which the network here",
    ),
    "another part": (lambda w: {**w, "dec.other.weight": w["enc_p.proj.bias"]}, lambda c: c, "no place.*dec.other"),
    "missing": (lambda w: {n: x for n, x in w.items() if n != "dp.proj.bias"}, lambda c: c, "needs: dp.proj.bias"),
    "not finite": (lambda w: {**w, "dp.proj.bias": torch.tensor([math.nan])}, lambda c: c, "dp.proj.bias contains NaN"),
    "a discriminator": (lambda w: {"discriminators.0.bias": w["dp.proj.bias"]}, lambda c: c, "no text embedding"),
    "other upsampling": (
        lambda w: w,
        lambda c: c["model"].update(upsample_rates=[4, 4, 4]) or c,
        "has 2 upsamplings .* but its config has upsample_rates",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", UNKNOWN)
def test_one_line_names_what_is_unknown(case, tmp_path, capsys):
    of_weights, of_config, complaint = UNKNOWN[case]
    torch.save({"model": of_weights(weights_of())}, "G_1.pth")
    if sections := of_config(dataclasses.asdict(of_vits())):
        (tmp_path / "config.json").write_text(json.dumps(sections), "utf-8")
    with pytest.raises(ValueError, match=complaint) as raised:
        reading.read(Path("G_1.pth"))
    assert "G_1.pth" in str(raised.value) and "\n" not in str(raised.value)


def test_files_that_are_no_voice(tmp_path):
    (tmp_path / "a.pth").write_bytes(b"nothing")
    (tmp_path / "a.onnx").write_bytes(b"nothing")
    (tmp_path / "a.safetensors").write_bytes(b"nothing")
    for name in ("a.pth", "a.onnx", "a.safetensors"):
        with pytest.raises(ValueError, match=name):
            reading.read(Path(name))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty holds no file of weights"):
        reading.read(Path("empty"))
    with pytest.raises(ValueError, match=r"x: the network here cannot have window_size 6 \(not 4\)"):
        huggingface.refuse_other_settings({"window_size": 6}, Path("x"))
