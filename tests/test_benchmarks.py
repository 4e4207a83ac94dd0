"""The programs in `benchmarks` run with the options that the documents name. The measured values are not tested."""

import importlib.util
import json
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
import tiny
import tiny_voices
import torch

import train

BENCHMARKS = tiny.ROOT / "benchmarks"
PROGRAMS = sorted(path.stem for path in BENCHMARKS.glob("*.py"))


def program(name: str):
    """Import a benchmark."""
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def result_of(name: str, arguments: list[str], capsys) -> dict:
    """Run a benchmark; returns the JSON that it prints."""
    program(name).main(arguments)
    return json.loads(capsys.readouterr().out.splitlines()[-1])


@pytest.mark.parametrize(
    "runtime",
    [
        "torch",
        "onnx",
        *(tiny.slow(kind) for kind in ("onnx-half", "onnx-int8", "onnx-split")),
    ],
)
def test_synthesis_times_every_runtime(runtime, tmp_path, capsys):
    voice = tiny_voices.save(tmp_path / "run", tiny_voices.settings(use_sdp=True, speakers=2))
    lines = ["--lines=3"] if runtime == "torch" else []
    options = [f"--model={voice}", f"--runtime={runtime}", "--repeats=1", "--threads=1", *lines]
    result = result_of("synthesis", options, capsys)
    assert not lines or result["batched"]["times_real_time"] > 0
    assert result["runtime"] == runtime and result["times_real_time"] > 0 and result["first_sound_ms"] > 0
    assert len(result["sentences"]) == 3 and all(sentence["ms"] > 0 for sentence in result["sentences"])


@pytest.mark.slow
def test_server_answers_under_load(tmp_path, capsys, monkeypatch):
    pytest.importorskip("gradio", reason="gradio is an extra: pip install -r requirements-extras.txt")
    voice = tiny_voices.save(tmp_path / "run", tiny_voices.settings(speakers={"anna": 0, "bo": 1}))
    module = program("server")
    monkeypatch.setattr(module, "WARM_UP", 4)
    module.main([f"--model={voice}", "--requests=20", "--at-once=5", "--threads=1"])
    result = json.loads(capsys.readouterr().out)
    assert result["answers"] == {"200": 20} and result["megabytes_grown"] < 50
    assert 0 < result["first_sound_ms"] < 1000 and result["after_abandoned_ms"] < 1000 + result["short_text_ms"]


def test_alignment_times_and_compares_the_backends(capsys):
    (result,) = result_of("alignment", ["--device=cpu", "--sizes", "2x30x20"], capsys)["results"]
    assert result["size"] == "2x30x20" and result["equal"] and result["ms"]["numpy"] > 0


@pytest.mark.parametrize("speakers", [0, 2])
def test_train_step_times_steps_and_counts_operations(speakers, tmp_path, capsys):
    config = tiny.write_config(tmp_path / "tiny.json", tiny.MANY_VOICES if speakers else {})
    small = ["--device=cpu", "--batch-size=2", "--accumulate=2", "--batches=3", "--warmup=1", "--rounds=1", "--flops"]
    module = program("train_step")
    module.BUCKETS = [(40, 60), (60, 80)]
    module.main([f"--config={config}", *small])
    result = json.loads(capsys.readouterr().out)
    assert result["config"] == "tiny" and result["precision"] == "fp32" and result["accumulate"] == 2
    assert not result["cuda_graphs"] and not result["fused_kernels"]
    assert result["seconds_a_step"] > 0 and result["tflop_a_step"] > 0


@pytest.mark.parametrize(
    "kernel, kind",
    [
        ("sm90_xmma_fprop_implicit_gemm_bf16bf16_bf16f32_f32_nhwckrsc_nhwc_tilesize128x128x64", "convolutions"),
        ("_ZN17cutlass__5x_cudnn6KernelINS_4conv6kernel23ImplicitGemmConvolutionINS1", "convolutions"),
        ("sm80_xmma_gemm_f32f32_f32f32_f32_tn_n_tilesize64x64x8_execute_kernel__5x_cublas", "matrix products"),
        ("cudnn_generated_fort_native_sdpa_sm90_flash_bprop_wgmma_f16_knob_26", "attention"),
        ("Memcpy HtoD (Pinned -> Device)", "copies from the host"),
        ("_gate_backward", "gates and skips"),
        ("void at::native::vectorized_elementwise_kernel<4, at::native::FillFunctor<float> >", "memory set"),
        ("void at::native::vectorized_elementwise_kernel<8, CUDAFunctor_add>", "other elementwise operations"),
    ],
)
def test_train_step_recognizes_kernels_by_name(kernel, kind):
    assert program("train_step").kind_of(kernel) == kind


def test_train_step_knows_every_kernel_of_this_repository():
    module = program("train_step")
    sources = [tiny.ROOT / "kernels/triton_kernels.py", tiny.ROOT / "monotonic_align/triton_search.py"]
    launched = {name for path in sources for name in re.findall(r"(\w+)\[", path.read_text("utf-8"))}
    defined = {name for path in sources for name in re.findall(r"@triton\.jit.*\ndef (\w+)", path.read_text("utf-8"))}
    assert len(launched & defined) > 10
    assert "other elementwise operations" not in map(module.kind_of, launched & defined)


@pytest.mark.parametrize("speakers", [0, 2])
def test_loader_times_batches(speakers, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    lines = []
    for i in range(4):
        soundfile.write(f"{i}.wav", tiny.speech(0.6, i, 22050), 22050)
        lines.append("|".join([f"{i}.wav", *([f"voice {i % 2}"] if speakers else []), "hˈa."]))
    Path("list.txt").write_text("\n".join(lines), "utf-8")
    result = result_of("loader", ["list.txt", "--workers=0", "--batches=2", "--batch-size=2"], capsys)
    assert result["utterances_a_second"] > 0 and result["utterances"] == 4
    result = result_of("loader", ["list.txt", "--batches=0", "--cache=headers.npy"], capsys)
    assert result["cpu_seconds_to_open"] >= 0 and "workers" not in result and Path("headers.npy").exists()


def test_check_times_recordings_and_finds_altered_copies(tmp_path, capsys):
    lines = []
    for i in range(3):
        soundfile.write(tmp_path / f"{i}.wav", 0.1 * np.random.default_rng(i).standard_normal(44100), 22050)
        lines.append(f"{i}.wav|text")
    (tmp_path / "list.txt").write_text("\n".join(lines), "utf-8")
    result = result_of("check", [str(tmp_path / "list.txt"), "--copies=2"], capsys)
    assert result.pop("recordings") == 3 and result.pop("false_pairs") == 0
    assert 0 < result.pop("decode_ms") < result.pop("measure_ms")
    assert len(result) == 10 and set(result.values()) == {"2 of 2"}


FORMS = ("dur_disc_3_noise", "dur_disc_2_noise", "dur_disc_2_noise_dequantized")


def test_durations_compares_forms_on_a_frozen_voice(workspace, capsys):
    path = tiny.write_config(workspace / "tiny.json")
    train.main(["-c", path, "-m", "voice", "--device=cpu", "--max-steps=1"])
    program("durations").main(["features", "voice", "features.pt", "--device=cpu"])
    steps = ["--steps=3", "--fresh-steps=2", "--device=cpu"]
    program("durations").main(["train", "features.pt", "--forms", "mse", *FORMS, *steps])
    mse, adversarial, raw, dequantized = [json.loads(line) for line in capsys.readouterr().out.splitlines()[-4:]]
    assert raw["loss_d"] != dequantized["loss_d"]
    assert mse["duration_spread"] == 0 < adversarial["duration_spread"]  # only the noise input makes draws differ
    assert "loss_d" not in mse and adversarial["loss_d"] > 0 and adversarial["loss_g"] > 0
    for result in (mse, adversarial):
        assert (
            result["duration_std_ratio"] > 0 and 0 < result["fresh_dur_disc_2"] < 2 and result["fresh_dur_disc_3"] > 0
        )


def test_durations_need_a_trained_run_and_its_features(workspace, capsys):
    module = program("durations")
    Path("logs/untrained").mkdir(parents=True)
    tiny.write_config(workspace / "logs/untrained/config.json")
    Path("text.pt").write_text("text", "utf-8")
    torch.save({"model": {}}, "other.pt")
    for arguments, message in (
        (["features", "untrained", "features.pt"], "logs/untrained holds no checkpoint G_*.pth"),
        (["train", "text.pt"], "text.pt is not an output of the command `features`"),
        (["train", "other.pt"], "other.pt is not an output of the command `features`"),
    ):
        with pytest.raises(SystemExit, match="2"):
            module.main([*arguments, "--device=cpu"])
        assert message in capsys.readouterr().err and not Path("features.pt").exists()


@pytest.mark.parametrize(
    "name, arguments, message",
    [
        ("alignment", ["--sizes", "4x10x20"], "a frame for each token"),
        ("train_step", ["--batch-size=2", "--accumulate=3"], "train.accumulate (3)"),
        ("train_step", ["--device=cpu", "--sync-check"], "--sync-check needs a GPU"),
        ("train_step", ["--device=cpu", "--profile=profile.txt"], "--profile needs a GPU"),
        ("train_step", ["--device=cpu", "--batches=0"], "--batches is 0"),
        ("synthesis", ["--repeats=0"], "--repeats is 0"),
        ("loader", ["nowhere.txt"], "nowhere.txt"),
        ("check", ["nowhere.txt"], "nowhere.txt"),
        ("check", ["list.txt", "--copies=0"], "--copies is 0"),
    ],
)
def test_a_user_error_takes_one_line(name, arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tiny.ROOT)
    with pytest.raises(SystemExit) as end:
        program(name).main(arguments)
    output = capsys.readouterr()
    assert end.value.code == 2 and message in output.err and output.err.count("\n") == 1 and not output.out


@pytest.mark.parametrize("name", PROGRAMS)
def test_help_has_a_text_for_every_option_and_examples(name, capsys):
    with pytest.raises(SystemExit) as end:
        program(name).main(["--help"])
    text = capsys.readouterr().out
    assert end.value.code == 0 and f"python benchmarks/{name}.py" in text
