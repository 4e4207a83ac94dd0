"""Smaller ONNX files: weights are stored in 16 or 8 bits, and the network computes in fp32.

ONNX Runtime expands the weights once, when it loads the file. On a CPU, computing in lower precision is slower: there
are few fp16 kernels, and 8-bit convolutions (`onnxruntime.quantization`) take four times as long (see
benchmarks/README.md).
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from infer_onnx import OnnxVoice
from mel_processing import log_mel
from synthesis import Voice
from text.tokens import token_ids

# Phonemes, so that measurements do not need espeak-ng; about 5 seconds of speech.
SAMPLE = "ðə kwˈɪk bɹˈaʊn fˈɑːks dʒˈʌmps ˌoʊvɚ ðə lˈeɪzi dˈɔɡ, wˌaɪl ˈɔːl ðɪ ˈʌðɚ ˈænɪməlz wˈɑːtʃ."
THREADS = 2  # of ONNX Runtime
REPEATS = 3  # timed runs, of which the fastest counts
INT8_MAX = 127


def half(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with all constants in fp16; every operator computes in fp32."""
    # imported here, because the import changes sys.path
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    operators = sorted({node.op_type for node in model.graph.node})
    model = convert_float_to_float16(
        model, keep_io_types=True, disable_shape_infer=True, op_block_list=operators, force_fp16_initializers=True
    )
    OnnxModel(model).topological_sort()  # the conversion appends its casts at the end
    return model


def int8(model: onnx.ModelProto) -> onnx.ModelProto:
    """Store the kernels of convolutions in 8 bits with one scale for each output channel. Changes the model in place.

    A cast and a product restore a kernel. ONNX Runtime computes these once, but DequantizeLinear at every call. Kernels
    with one output channel, which yield the samples, are small and stay in fp32.
    """
    graph = model.graph
    output_axis = {"Conv": 0, "ConvTranspose": 1}
    axes = {node.input[1]: output_axis[node.op_type] for node in graph.node if node.op_type in output_axis}
    restored = []
    for tensor in [tensor for tensor in graph.initializer if tensor.name in axes]:
        name, kernel = tensor.name, numpy_helper.to_array(tensor)
        if kernel.shape[axes[name]] == 1:
            continue
        others = tuple(axis for axis in range(kernel.ndim) if axis != axes[name])
        scale = np.maximum(np.abs(kernel).max(axis=others, keepdims=True) / INT8_MAX, np.finfo(np.float32).tiny)
        graph.initializer.remove(tensor)
        graph.initializer.append(numpy_helper.from_array(np.round(kernel / scale).astype(np.int8), f"{name}_int8"))
        graph.initializer.append(numpy_helper.from_array(scale.astype(np.float32), f"{name}_scale"))
        restored.append(helper.make_node("Cast", [f"{name}_int8"], [f"{name}_fp32"], to=TensorProto.FLOAT))
        restored.append(helper.make_node("Mul", [f"{name}_fp32", f"{name}_scale"], [name]))
    for place, node in enumerate(restored):
        graph.node.insert(place, node)
    return model


SHRINK: dict[str, Callable[[onnx.ModelProto], onnx.ModelProto]] = {"half": half, "int8": int8}


class Measured(NamedTuple):
    """Size, speed and output of a voice's file or files."""

    megabytes: float
    times_real_time: float  # on THREADS threads
    log_mel: np.ndarray  # [bands, frames]
    durations: np.ndarray  # [tokens], frames

    def __str__(self) -> str:
        return f"{self.megabytes:.1f} MB, {self.times_real_time:.2f} times real time on {THREADS} threads"


def measure(files: Sequence[Path], voice: Voice) -> Measured:
    """Synthesize SAMPLE without noise from the file, or the two files, of a voice."""
    spoken = OnnxVoice(files[0], threads=THREADS)
    tokens = [i % voice.n_vocab for i in token_ids(SAMPLE, voice.data)]
    conditions = voice.example_conditions()
    times = []
    for _ in range(1 + REPEATS):
        begin = time.perf_counter()
        speech = spoken.speak(tokens, noise_scale=0, noise_scale_w=0, conditions=conditions)
        times.append(time.perf_counter() - begin)
    mel = log_mel(torch.from_numpy(speech.audio).unsqueeze(0), voice.data)[0].numpy()
    megabytes = sum(file.stat().st_size for file in files) / 1e6
    return Measured(megabytes, speech.seconds / min(times[1:]), mel, speech.durations)


def log_mel_error(a: Measured, b: Measured) -> float:
    """Return the mean absolute difference of two log-mel spectrograms, over the frames of each token that both have."""
    common = np.minimum(a.durations, b.durations)
    frame = np.arange(common.sum()) - np.repeat(common.cumsum() - common, common)  # index within its token
    mels = [m.log_mel[:, np.repeat(m.durations.cumsum() - m.durations, common) + frame] for m in (a, b)]
    return float(np.abs(mels[0] - mels[1]).mean())


def compare(full: Sequence[Path], small: Sequence[Path], voice: Voice) -> str:
    """Return two lines that compare the fp32 file or files of a voice with smaller ones."""
    before, after = measure(full, voice), measure(small, voice)
    changed = int((before.durations != after.durations).sum())
    return (
        f"fp32: {before}\n{small[0]}: {after}, log-mel L1 error {log_mel_error(before, after):.4f}, "
        f"{changed} of {len(before.durations)} durations changed"
    )
