"""Exported voices equal PyTorch, in one file that describes itself or in two, also where PyTorch is not installed."""

import json
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import soundfile
import tiny
import tiny_voices
import torch

import checkpoint
import config
import export_onnx
import infer_onnx
from export import metadata
from synthesis import Voice, speech
from synthesis.speech import Scales
from text.cleaners import language_of

QUIET = {"noise_scale": 0.0, "noise_scale_w": 0.0}
CASES = {
    **{f"deterministic {flow}": {"flow": flow} for flow in ("pre_conv", "mono_layer_post_residual", None)},
    "duration noise": {"use_duration_noise": True, "flow": "pre_conv2"},
    "stochastic": {"use_sdp": True},
    "stochastic, several speakers": {"use_sdp": True, "speakers": {"anna": 0, "bo": 1}},
    "several speakers, fft": {"speakers": 3, "flow": "fft", "resblock": "2", "resblock_dilation_sizes": [[1, 3]]},
    "mono_layer_inter_residual": {"flow": "mono_layer_inter_residual"},
    "vocos": {"decoder": "vocos"},
    # in a short FFT, the lobes of harmonics overlap, and rounding decides to which of them a bin belongs
    "harmonic_vocos, several speakers": {
        "decoder": "harmonic_vocos",
        "istft_n_fft": 1024,
        "speakers": {"anna": 0, "bo": 1},
    },
    "mb_istft": tiny.DECODERS["mb_istft"],
    "vocos, several speakers": {"decoder": "vocos", "use_sdp": True, "speakers": {"anna": 0, "bo": 1}},
}
SPLIT = [
    "deterministic pre_conv",
    "stochastic, several speakers",
    "harmonic_vocos, several speakers",
    tiny.slow("mb_istft"),
]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A function that returns the voice of a case and its ONNX file, which is exported once."""
    made = {}

    def get(case="deterministic pre_conv", **options):
        key = (case, *options.items())
        if key not in made:
            voice = Voice(tiny_voices.network(conf := tiny_voices.settings(**CASES[case])), conf, step=7)
            path = tmp_path_factory.mktemp("onnx") / "voice.onnx"
            export_onnx.export(voice, path, **options)
            made[key] = voice, path
        return made[key]

    return get


# "vocos, several speakers" has a decoder and a duration predictor of other cases
@pytest.mark.parametrize("case", tiny.mostly_slow(CASES, *set(CASES) - {"vocos", "stochastic"}))
def test_equals_pytorch_for_batches_of_different_lengths(exported, case):
    voice, path = exported(case)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    random = np.random.default_rng(0)
    for lengths in ([1], [9], [120], [40, 7], [3, 61, 30]):
        x = random.integers(1, 178, (len(lengths), max(lengths)))
        feed = {"input": x, "input_lengths": np.array(lengths), "scales": np.array([0, 1.3, 0], np.float32)}
        sid = None
        if voice.data.n_speakers:
            feed["sid"] = np.arange(len(lengths)) % voice.data.n_speakers
            sid = torch.from_numpy(feed["sid"])
        audio, durations = session.run(["output", "durations"], feed)
        with torch.no_grad():
            args = torch.from_numpy(x), torch.tensor(lengths), sid
            expected, attn, _, _ = voice.net.infer(*args, noise_scale=0, length_scale=1.3, noise_scale_w=0)
        assert audio.shape == (len(lengths), 1, 1, expected.size(2))
        assert expected.abs().max() > 0.01
        np.testing.assert_array_equal(durations, attn.sum((1, 2)).numpy())
        np.testing.assert_allclose(audio[:, 0], expected.numpy(), atol=1e-4)


@pytest.mark.parametrize("case", ["stochastic, several speakers", "several speakers, fft", "mb_istft"])
def test_only_the_decoders_convolutions_are_two_dimensional(exported, case):
    model = onnx.load(exported(case)[1])
    kernels = {tensor.name: len(tensor.dims) for tensor in model.graph.initializer}
    ranks = {"decoder": set(), "others": set()}
    for node in model.graph.node:
        if node.op_type in ("Conv", "ConvTranspose") and node.input[1] in kernels:  # not where two layers share one
            ranks["decoder" if "/dec/" in node.name else "others"].add(kernels[node.input[1]])
    assert ranks == {"decoder": {4}, "others": {3}}


def test_attention_weights_have_no_guards_against_nan(exported):
    nodes = onnx.load(exported("deterministic pre_conv")[1]).graph.node
    assert "Softmax" in {node.op_type for node in nodes} and "IsNaN" not in {node.op_type for node in nodes}


def test_scales_change_the_random_draws_of_the_graph(exported):
    _, path = exported("stochastic")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def say(*scales):
        x = np.arange(1, 30)[None]
        feed = {"input": x, "input_lengths": np.array([29]), "scales": np.array(scales, np.float32)}
        return session.run(["output", "durations"], feed)

    first, second = say(0.667, 1, 0.8), say(0.667, 1, 0.8)
    assert not np.array_equal(first[1], second[1])
    assert np.array_equal(say(0, 1, 0)[0], say(0, 1, 0)[0])
    assert not np.array_equal(say(0.667, 1, 0)[0], say(0.667, 1, 0)[0])
    assert 1.8 < say(0, 2, 0)[1].sum() / say(0, 1, 0)[1].sum() < 2.2


@pytest.mark.parametrize("case", ["deterministic pre_conv", "stochastic", "duration noise"])
def test_noise_inputs_replace_the_random_draws_of_pytorch(exported, case, monkeypatch):
    voice, path = exported(case, noise_inputs=True)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    x = torch.arange(1, 41).unsqueeze(0)
    random = torch.Generator().manual_seed(5)
    noise_w = torch.randn(1, 16 if case == "duration noise" else 2, 40, generator=random)
    noise = torch.randn(1, 8, 1000, generator=random)
    left = [noise] if case == "deterministic pre_conv" else [noise_w, noise]
    feed = dict(zip(("noise", "noise_w"), (n.numpy() for n in reversed(left))))
    feed |= {"input": x.numpy(), "input_lengths": np.array([40]), "scales": np.array(Scales(), np.float32)}
    audio = session.run(["output"], feed)[0]

    monkeypatch.setattr(torch, "randn", lambda *shape, **_: left.pop(0)[..., : shape[-1]])
    monkeypatch.setattr(torch, "randn_like", lambda like: left.pop(0)[..., : like.size(-1)])
    with torch.no_grad():
        expected = voice.net.infer(x, torch.tensor([40]), None, *Scales())[0]
    np.testing.assert_allclose(audio[:, 0], expected.numpy(), atol=1e-4)
    short = {**feed, "noise": feed["noise"][..., :64]}  # repeats instead of failing
    assert session.run(["output"], short)[0].shape == audio.shape


def test_the_file_describes_itself(exported):
    voice, path = exported("stochastic, several speakers")
    model = onnx.load(path)
    facts = {entry.key: entry.value for entry in model.metadata_props}
    assert facts["sample_rate"] == "8000" and facts["hop_length"] == "64" and facts["n_speakers"] == "2"
    assert json.loads(facts["speakers"]) == {"anna": 0, "bo": 1}
    assert len(json.loads(facts["symbols"])) == 178 and facts["add_blank"] == "0" and facts["step"] == "7"
    assert json.loads(facts["scales"]) == [0.667, 1.0, 0.8] and facts["comment"] == ""
    assert facts | {"comment": "by me"} == metadata.facts(voice, "by me")
    assert json.loads(facts["cleaners"]) == ["basic_cleaners"] and facts["language"] == ""
    assert [entry.name for entry in model.graph.input] == ["input", "input_lengths", "scales", "sid"]
    assert [entry.name for entry in model.graph.output] == ["output", "durations"]
    assert 15 <= model.opset_import[0].version <= 17
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("cleaners", "language"),
    [(["english_cleaners2"], "en-us"), (["phonemes_de"], "de"), (["basic_cleaners"], "")],
)
def test_the_language_follows_from_the_cleaners(cleaners, language):
    assert language_of(cleaners) == language


@pytest.mark.parametrize("case", ["stochastic, several speakers", "vocos, several speakers"])
def test_an_onnx_voice_equals_the_checkpoint(exported, case):
    voice, path = exported(case)
    speaker = "bo" if voice.data.n_speakers else None
    text = "A first sentence. And then a second one, a little longer!"
    ours = infer_onnx.OnnxVoice(path).speak(text, speaker, **QUIET)
    expected = voice.speak(text, speaker, **QUIET)
    assert [s.text for s in ours.sentences] == [s.text for s in expected.sentences]
    np.testing.assert_array_equal(ours.durations, expected.durations)
    np.testing.assert_allclose(ours.audio, expected.audio, atol=1e-4)
    both = infer_onnx.OnnxVoice(path).speak_batch([text, "Short."], speaker, **QUIET)
    np.testing.assert_array_equal(both[0].durations, expected.durations)
    np.testing.assert_allclose(both[0].audio, expected.audio, atol=1e-4)
    alone = voice.speak("Short.", speaker, **QUIET)
    np.testing.assert_allclose(both[1].audio, alone.audio, atol=1e-4)


@pytest.mark.parametrize("split", [False, True], ids=["one file", "two files"])
def test_every_scale_has_its_effect(exported, tmp_path, split):
    voice, _ = exported("stochastic")
    path = tmp_path / "v.onnx"
    (export_onnx.export_split if split else export_onnx.export)(voice, path, noise_inputs=True)
    spoken = infer_onnx.OnnxVoice(path)
    plain = spoken.speak("Some words.", **QUIET)
    slow = spoken.speak("Some words.", **QUIET, length_scale=2)
    np.testing.assert_array_equal(slow.durations, voice.speak("Some words.", **QUIET, length_scale=2).durations)
    assert slow.durations.sum() > 1.5 * plain.durations.sum()
    sound = spoken.speak("Some words.", noise_scale=0.7, noise_scale_w=0, seed=1)
    np.testing.assert_array_equal(sound.durations, plain.durations)
    assert not np.array_equal(sound.audio, plain.audio)
    rhythm = spoken.speak("Some words.", noise_scale=0, noise_scale_w=0.8, seed=1)
    assert not np.array_equal(rhythm.durations, plain.durations)


def test_files_of_two_voices_and_untrained_networks_are_refused(exported, tmp_path):
    one, other = exported("stochastic")[0], exported("stochastic, several speakers")[0]
    export_onnx.export_split(one, tmp_path / "one.onnx")
    export_onnx.export_split(other, tmp_path / "other.onnx")
    (tmp_path / "other.decoder.onnx").rename(tmp_path / "one.decoder.onnx")
    with pytest.raises(ValueError, match="are not of one export"):
        infer_onnx.OnnxVoice(tmp_path / "one.encoder.onnx")
    conf = tiny_voices.settings()
    untrained = Voice(tiny_voices.network(conf, frames=1e6), conf)
    with pytest.raises(ValueError, match="hardly trained"):
        export_onnx.export(untrained, tmp_path / "untrained.onnx")


def test_errors_of_onnx_runtime_are_one_line(exported):
    spoken = infer_onnx.OnnxVoice(exported()[1])
    spoken.n_vocab = None
    with pytest.raises(ValueError, match=r"voice\.onnx cannot speak this"):
        spoken.speak([5, 999])


@pytest.mark.parametrize("case", tiny.mostly_slow(SPLIT, "deterministic pre_conv", "vocos, several speakers"))
def test_a_voice_in_two_files_streams(exported, case, tmp_path, monkeypatch):
    monkeypatch.setattr(speech, "FIRST_CHUNK", 4)
    monkeypatch.setattr(speech, "MAX_CHUNK", 16)
    voice, _ = exported(case)
    speaker = "bo" if voice.data.n_speakers else None
    text = "A first sentence. And then a second one, a little longer!"
    expected = voice.speak(text, speaker, **QUIET)
    export_onnx.export_split(voice, tmp_path / "v.onnx")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["v.decoder.onnx", "v.encoder.onnx"]
    for name in ("v.onnx", "v.encoder.onnx"):
        split = infer_onnx.OnnxVoice(tmp_path / name)
        parts = list(split.speak(text, speaker, **QUIET, stream=True))
        assert len(parts) > 20
        np.testing.assert_allclose(np.concatenate(parts), expected.audio, atol=1e-4)
    batch = split.speak_batch([text, "Short."], speaker, **QUIET)
    np.testing.assert_allclose(batch[0].audio, expected.audio, atol=1e-4)
    np.testing.assert_array_equal(batch[0].durations, expected.durations)
    export_onnx.export_split(voice, tmp_path / "v.onnx", noise_inputs=True)
    seeded = infer_onnx.OnnxVoice(tmp_path / "v.onnx")
    whole, parts = seeded.speak(text, speaker, seed=3), seeded.speak(text, speaker, seed=3, stream=True)
    np.testing.assert_allclose(np.concatenate(list(parts)), whole.audio, atol=1e-5)
    batch = seeded.speak_batch([text, "Short."], speaker, seed=3)
    np.testing.assert_allclose(batch[0].audio, whole.audio, atol=1e-4)
    (tmp_path / "v.decoder.onnx").unlink()
    with pytest.raises(ValueError, match=r"there is no file .*v\.decoder\.onnx"):
        infer_onnx.OnnxVoice(tmp_path / "v.onnx")


def test_seeds_need_noise_inputs(exported):
    voice = infer_onnx.OnnxVoice(exported("stochastic", noise_inputs=True)[1])
    one, two, other = (voice.speak("Some words.", seed=seed).audio for seed in (1, 1, 2))
    assert np.array_equal(one, two) and not np.array_equal(one, other)
    with pytest.raises(ValueError, match="--noise-inputs"):
        infer_onnx.OnnxVoice(exported("stochastic")[1]).speak("Some words.", seed=1)


def test_the_commands_of_the_readme(tmp_path, capsys):
    conf = tiny_voices.settings(speakers={"anna": 0, "bo": 1})
    path = tiny_voices.save(tmp_path / "run", conf, with_config=False)
    config_path, onnx_path, wav = path.with_name("config.json"), tmp_path / "out" / "v.onnx", tmp_path / "o.wav"
    export_onnx.main([f"--model-path={path}", f"--config-path={config_path}", f"--output={onnx_path}"])
    speak = [f"--model={onnx_path}", f"--config-path={config_path}", f"--output-wav-path={wav}", "--text=hello world"]
    infer_onnx.main([*speak, "--sid=1", "--noise-scale=0", "--noise-scale-w=0"])
    samples, rate = soundfile.read(wav)
    expected = Voice.load(path).speak("hello world", "bo", **QUIET)
    assert rate == 8000
    np.testing.assert_allclose(samples, expected.audio, atol=2e-4)
    capsys.readouterr()
    export_onnx.main([f"--model-path={path}", f"--output={onnx_path.with_name('s.onnx')}", "--split"])
    assert [line.split(":")[0][-15:] for line in capsys.readouterr().out.splitlines()] == [
        "/s.encoder.onnx",
        "/s.decoder.onnx",
    ]

    for arguments, message in [
        ([*speak], "choose one of anna, bo"),
        ([*speak, "--sid=carl"], "there is no speaker 'carl'"),
        ([*speak[1:], f"--model={path}", "--sid=0"], "is not an ONNX model"),
        ([*speak[1:], "--model=none.onnx", "--sid=0"], "there is no file none.onnx"),
        ([*speak[:-1], "--text= ", "--sid=0"], "the text is empty"),
    ]:
        with pytest.raises(SystemExit) as end:
            infer_onnx.main(arguments)
        error = capsys.readouterr().err
        assert end.value.code == 2 and message in error and error.count("\n") == 1

    with pytest.raises(SystemExit) as end:
        export_onnx.main([f"--model-path={onnx_path}", f"--output={tmp_path / 'w.onnx'}"])
    assert end.value.code == 2 and "does not load as a checkpoint" in capsys.readouterr().err


def test_files_without_metadata_need_a_config(exported, tmp_path):
    voice, path = exported()
    model = onnx.load(path)
    del model.metadata_props[:]
    del model.graph.output[1]
    onnx.save(model, foreign := tmp_path / "foreign.onnx")
    with pytest.raises(ValueError, match="--config-path"):
        infer_onnx.OnnxVoice(foreign)
    config.save(voice.config, tmp_path / "config.json")
    spoken = infer_onnx.OnnxVoice(foreign, tmp_path / "config.json").speak("hello", **QUIET)
    np.testing.assert_allclose(spoken.audio, voice.speak("hello", **QUIET).audio, atol=1e-4)
    with pytest.raises(ValueError, match="does not return durations"):
        _ = spoken.durations


def test_a_network_with_its_own_symbol_table_takes_ids_only(tmp_path):
    conf = tiny_voices.settings()
    voice = Voice(tiny_voices.network(conf, n_vocab=60), conf)
    export_onnx.export(voice, tmp_path / "v.onnx")
    spoken = infer_onnx.OnnxVoice(tmp_path / "v.onnx")
    assert len(spoken.speak([1, 59, 3], **QUIET).audio)
    with pytest.raises(ValueError, match="own table of 60 symbols"):
        spoken.speak("hello")
    with pytest.raises(ValueError, match="no token 60"):
        spoken.speak([60])


def test_the_file_has_every_weight_of_synthesis_once(exported):
    """It has none of the posterior encoder."""
    voice, path = exported()
    used = sum(p.numel() for name, p in voice.net.named_parameters() if not name.startswith("enc_q"))
    stored = sum(int(np.prod(t.dims)) for t in onnx.load(path).graph.initializer)
    assert 0.95 * used < stored < 1.1 * used
    assert checkpoint.step_of(path) == -1


NO_TORCH = """
import sys
sys.modules["torch"] = None
import infer_onnx
infer_onnx.main(sys.argv[1:])
"""


def test_a_voice_speaks_where_pytorch_is_not_installed(tmp_path):
    conf = tiny_voices.settings(data={"text_cleaners": ["english_cleaners2"]}, speakers={"anna": 0, "bo": 1})
    voice = Voice(tiny_voices.network(conf), conf)
    export_onnx.export(voice, tmp_path / "v.onnx")
    text = "Doctor Smith has 2 doors."
    arguments = ["--model=v.onnx", f"--text={text}", "--sid=bo", "--noise_scale=0", "--noise_scale_w=0"]
    done = tiny.python("-c", NO_TORCH, *arguments, "--output_wav_path=o.wav", "--timings=o.json", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    expected = voice.speak(text, "bo", **QUIET)
    np.testing.assert_allclose(soundfile.read(tmp_path / "o.wav")[0], expected.audio, atol=2e-4)
    assert json.loads((tmp_path / "o.json").read_text()) == expected.timings()


@pytest.mark.parametrize(("program", "package"), [("export_onnx", "onnx"), ("infer_onnx", "onnxruntime")])
def test_missing_packages_are_named_with_the_command_that_installs_them(
    program, package, tmp_path, monkeypatch, capsys
):
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [_Missing(package), *sys.meta_path])
    options = {
        "export_onnx": [f"--model-path={tmp_path}", f"--output={tmp_path / 'v.onnx'}"],
        "infer_onnx": ["--model=v.onnx", "--text=Hi."],
    }
    with pytest.raises(SystemExit) as end:
        {"export_onnx": export_onnx, "infer_onnx": infer_onnx}[program].main(options[program])
    error = capsys.readouterr().err
    assert end.value.code == 2 and error.count("\n") == 1
    assert f"{package}: pip install -r requirements-extras.txt" in error


class _Missing:
    """A finder of modules to which one package is not installed."""

    def __init__(self, package: str):
        self.package = package

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == self.package:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def test_settings_that_a_file_lacks_have_their_defaults(exported):
    voice, _ = exported("stochastic, several speakers")
    facts = metadata.facts(voice)
    described = metadata.read(facts)
    assert described.data.speakers == {"anna": 0, "bo": 1} and described.data.sampling_rate == 8000
    assert (described.n_vocab, described.step, described.context) == (178, 7, 0)
    assert metadata.read(metadata.facts(voice, split=True)).context == voice.context
    assert metadata.read({}) is None
    with pytest.raises(ValueError, match="its metadata is broken"):
        metadata.read(facts | {"symbols": "3"})


def test_the_settings_of_the_text_are_in_the_metadata():
    text = {"symbols": {"_": [0], "a": [1, 2]}, "begin_symbol": "a", "n_vocab": 5, "dictionary": {"b": "[[a]]"}}
    conf = tiny_voices.settings(data=text)
    facts = metadata.facts(Voice(tiny_voices.network(conf, 5), conf))
    described = metadata.read(facts)
    assert {key: getattr(described.data, key) for key in text} == text and described.n_vocab == 5
    plain = tiny_voices.settings()
    assert "text" not in metadata.facts(Voice(tiny_voices.network(plain), plain))
    for wrong in ("[]", "{}", facts["text"].replace("[1, 2]", "[-1]"), facts["text"].replace('"b"', '"b c"')):
        with pytest.raises(ValueError, match="its metadata is broken"):
            metadata.read(facts | {"text": wrong})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("n_speakers", "1" + "0" * 30),
        ("n_speakers", "1e400"),
        ("n_speakers", "-1"),
        ("n_speakers", "null"),
        ("speakers", "[" * 100_000),
        ("speakers", '{"anna": 1e30}'),
        ("speakers", '["anna"]'),
        ("sample_rate", "0"),
        ("hop_length", "-256"),
        ("n_vocab", "9" * 30),
        ("cleaners", "7"),
        ("cleaners", "[7]"),
        ("symbols", '[["a"]]'),
        ("context", "9" * 12),
    ],
)
def test_metadata_that_would_exhaust_memory_or_fail_later_is_rejected(key, value, exported):
    voice, _ = exported("stochastic, several speakers")
    with pytest.raises(ValueError, match="its metadata is broken: "):
        metadata.read(metadata.facts(voice) | {key: value})
