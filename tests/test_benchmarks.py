"""The programs in `benchmarks` run as the READMEs say; what they measure is not judged."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import soundfile
import tiny
import tiny_voices

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


def program(name: str):
    """A benchmark as a module."""
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(name: str, *arguments: str) -> None:
    """The main function of a benchmark, as the command line calls it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [f"{name}.py", *arguments])
        program(name).main()


@pytest.mark.parametrize("runtime", ["torch", "onnx", "onnx-half", "onnx-int8", "onnx-split"])
def test_every_way_to_speak_is_timed(runtime, tmp_path, capsys):
    voice = tiny_voices.save(tmp_path / "run", tiny_voices.settings(use_sdp=True, speakers=2))
    run("synthesis", f"--model={voice}", f"--runtime={runtime}", "--repeats=1", "--threads=1")
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["runtime"] == runtime and result["times_real_time"] > 0 and result["first_sound_ms"] > 0
    assert len(result["sentences"]) == 3 and all(sentence["ms"] > 0 for sentence in result["sentences"])


def test_alignment_is_timed_and_compared(capsys):
    run("alignment", "--device=cpu", "--sizes", "2x30x20")
    (result,) = json.loads(capsys.readouterr().out)["results"]
    assert result["size"] == "2x30x20" and result["equal"] and result["ms"]["numpy"] > 0


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
def test_kernels_are_told_apart_by_their_names(kernel, kind):
    assert program("train_step").kind_of(kernel) == kind


@pytest.mark.parametrize("speakers", [0, 2])
def test_what_is_learnt_is_measured_by_many_validations(speakers, workspace, capsys):
    tiny.write_corpus(workspace, speakers=speakers)
    config = tiny.write_config(Path("tiny.json"), tiny.MANY_VOICES if speakers else {})
    results = []
    for steps in (6, 9):
        run("learning", config, f"--steps={steps}", "--last=4", "--every=2", "--seed=5", "--device=cpu")
        results.append(json.loads(capsys.readouterr().out.splitlines()[-1]))
    before, after = results
    assert before["validations"] == after["validations"] == 2 and before["seed"] == 5
    assert before["mel_least"] < before["mel"] < before["mel_most"]
    assert after["mel"] < before["mel"] and after["mel_of_mean_weights"] < before["mel_of_mean_weights"]
    assert after["training_mel"] < before["training_mel"]


@pytest.mark.parametrize("speakers", [0, 2])
def test_the_loader_is_timed_alone(speakers, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    lines = []
    for i in range(4):
        soundfile.write(f"{i}.wav", tiny.speech(0.6, i, 22050), 22050)
        lines.append("|".join([f"{i}.wav", *([f"voice {i % 2}"] if speakers else []), "hˈa."]))
    Path("list.txt").write_text("\n".join(lines), "utf-8")
    run("loader", "list.txt", "--workers=0", "--batches=2", "--batch-size=2")
    assert json.loads(capsys.readouterr().out)["utterances_a_second"] > 0


@pytest.mark.parametrize(
    "name, arguments, message",
    [
        ("alignment", ["--sizes", "4x10x20"], "a frame for each token"),
        ("train_step", ["--batch-size=2", "--accumulate=3"], "train.accumulate (3)"),
        ("train_step", ["--device=cpu", "--sync-check"], "--sync-check needs a GPU"),
        ("train_step", ["--device=cpu", "--profile=profile.txt"], "--profile needs a GPU"),
        ("train_step", ["--device=cpu", "--batches=0"], "--batches is 0"),
        ("synthesis", ["--repeats=0"], "--repeats is 0"),
        ("learning", [str(BENCHMARKS.parent / "configs/demo.json"), "--every=0"], "--every is 0"),
    ],
)
def test_wrong_arguments_are_told_in_one_line(name, arguments, message, capsys):
    with pytest.raises(SystemExit) as end:
        run(name, *arguments)
    said = capsys.readouterr()
    assert end.value.code == 2 and message in said.err and "Traceback" not in said.err and not said.out
