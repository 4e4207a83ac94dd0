"""Files of --half and --int8 are smaller than fp32, have nearly the same audio, and export prints their error."""

import re

import numpy as np
import onnx
import pytest
import tiny
import tiny_voices
from onnx import numpy_helper

import export_onnx
import infer_onnx
from export import shrink
from synthesis import Voice

QUIET = {"noise_scale": 0.0, "noise_scale_w": 0.0}
# Wide enough for the weights to outweigh the graph.
WIDE = {"upsample_initial_channel": 128, "hidden_channels": 64, "filter_channels": 128}
CASES = {
    "deterministic": WIDE,
    "stochastic, several speakers": {**WIDE, "use_sdp": True, "speakers": 2},
    "mb_istft": {**WIDE, **tiny.DECODERS["mb_istft"]},
    "vocos": {**WIDE, "decoder": "vocos", "convnext_channels": 64},
}
# Highest size, as a share of fp32, and highest log-mel L1 error. Trained weights have a tenth of that error.
LIMITS = {"half": (0.65, 0.03), "int8": (0.45, 0.3)}


@pytest.fixture(scope="module", params=tiny.mostly_slow(CASES, *(case for case in CASES if case != "mb_istft")))
def voice(request):
    conf = tiny_voices.settings(**CASES[request.param])
    return Voice(tiny_voices.network(conf), conf)


@pytest.fixture(scope="module")
def full(voice, tmp_path_factory):
    path = tmp_path_factory.mktemp("full") / "voice.onnx"
    export_onnx.export(voice, path, comment="by me")
    return path


@pytest.mark.parametrize("weights", shrink.SHRINK)
def test_files_are_smaller_and_audio_is_nearly_the_same(voice, full, tmp_path, weights, monkeypatch):
    monkeypatch.setattr(shrink, "REPEATS", 1)
    size, error = LIMITS[weights]
    small = tmp_path / "small.onnx"
    export_onnx.export(voice, small, comment="by me", weights=weights)
    before, after = shrink.measure([full], voice), shrink.measure([small], voice)
    assert after.megabytes < size * before.megabytes
    assert 0 < shrink.log_mel_error(before, after) < error
    assert (before.durations != after.durations).mean() < 0.05
    models = [onnx.load(path) for path in (full, small)]
    assert len({str(sorted((p.key, p.value) for p in model.metadata_props)) for model in models}) == 1
    assert len({str((model.graph.input, model.graph.output)) for model in models}) == 1


@pytest.mark.parametrize("weights", shrink.SHRINK)
def test_smaller_files_take_noise_as_inputs(voice, tmp_path, weights):
    export_onnx.export(voice, tmp_path / "small.onnx", noise_inputs=True, weights=weights)
    small, speaker = infer_onnx.OnnxVoice(tmp_path / "small.onnx"), 0 if voice.data.n_speakers else None
    first, again, other = (small.speak([5, 6, 7], speaker, seed=seed).audio for seed in (1, 1, 2))
    assert np.array_equal(first, again) and not np.array_equal(first[:64], other[:64])


def test_int8_rounds_each_channel_of_a_kernel_to_its_scale(full):
    model = onnx.load(full)
    kernels = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    transposed = {node.input[1] for node in model.graph.node if node.op_type == "ConvTranspose"}
    single = {name for name, kernel in kernels.items() if kernel.ndim > 2 and kernel.shape[name in transposed] == 1}
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in shrink.int8(model).graph.initializer}
    names = [name.removesuffix("_int8") for name in stored if name.endswith("_int8")]
    assert len(names) > 20 and transposed - single <= set(names)
    assert single <= set(stored)
    for name in names:
        eighth, scale = stored[f"{name}_int8"], stored[f"{name}_scale"]
        assert eighth.dtype == np.int8 and scale.shape[1 if name in transposed else 0] == scale.size > 0
        assert (np.abs(eighth * scale - kernels[name]) <= scale * 0.501).all()


def test_the_error_is_the_mean_over_frames_that_both_have():
    durations = np.array([2, 0, 3])
    mel = np.array([[1.0, 2, 3, 4, 5]])
    a = shrink.Measured(1, 1, mel, durations)
    b = shrink.Measured(1, 1, np.array([[1.0, 9, 3, 4]]), np.array([1, 1, 2]))
    assert shrink.log_mel_error(a, b) == 0
    assert shrink.log_mel_error(a, a._replace(log_mel=mel + 0.5)) == 0.5


@pytest.mark.slow
def test_export_prints_size_speed_and_error(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(shrink, "REPEATS", 1)
    checkpoint = tiny_voices.save(tmp_path / "run", tiny_voices.settings(**WIDE))
    output = tmp_path / "v.onnx"
    export_onnx.main([f"--model-path={checkpoint}", f"--output={output}", "--int8"])
    _, full, small = capsys.readouterr().out.splitlines()
    figures = r"\d+\.\d MB, \d+\.\d\d times real time on 2 threads"
    assert re.fullmatch(f"fp32: {figures}", full)
    assert re.fullmatch(rf".*v\.onnx: {figures}, log-mel L1 error \d\.\d{{4}}, \d+ of \d+ durations changed", small)
    assert len(infer_onnx.OnnxVoice(output).speak("hello", **QUIET).audio)
    export_onnx.main([f"--model-path={checkpoint}", f"--output={output}", "--half", "--split"])
    *_, full, small = capsys.readouterr().out.splitlines()
    assert re.fullmatch(f"fp32: {figures}", full) and re.match(rf".*v\.encoder\.onnx: {figures}, log-mel L1", small)
    with pytest.raises(SystemExit) as end:
        export_onnx.main([f"--model-path={checkpoint}", f"--output={output}", "--int8", "--half"])
    assert end.value.code == 2 and "not allowed with" in capsys.readouterr().err
