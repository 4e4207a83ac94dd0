"""ONNX graphs of a voice: the modules that PyTorch's exporter traces, and changes to the graph that it writes."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from export import shrink
from files import replacing
from synthesis import Voice
from synthesis.speech import Scales

OPSET = 17
DECODER_SCOPE = "/dec/"  # in the names that PyTorch gives to the decoder's nodes
EXAMPLE_TOKENS, EXAMPLE_FRAMES = 50, 20  # lengths of the inputs that are traced
AXES = {  # dynamic axes of inputs and outputs; conditions have the first one
    "input": {0: "batch_size", 1: "phonemes"},
    "input_lengths": {0: "batch_size"},
    "z": {0: "batch_size", 2: "frames"},
    "g": {0: "batch_size"},
    "output": {0: "batch_size", 3: "time"},
    "durations": {0: "batch_size", 1: "phonemes"},
}


class Encoder(nn.Module):
    """The network without its decoder."""

    def __init__(self, voice: Voice):
        super().__init__()
        self.net = voice.net

    def forward(self, x: Tensor, x_lengths: Tensor, scales: Tensor, *conditions: Tensor) -> tuple[Tensor, ...]:
        """Args: x `[b, t_s]`; x_lengths `[b]`; scales `[3]`; conditions in the order of `net.conditions`.

        Returns z `[b, inter, t_t]`, durations `[b, t_s]` and, for a voice with conditions, g `[b, gin, 1]`.
        """
        planned = self.net.plan(x, x_lengths, dict(zip(self.net.conditions, conditions)), scales[1], scales[2])
        z, *_ = self.net.latent(planned, scales[0])
        return (z, planned.durations) if planned.g is None else (z, planned.durations, planned.g)


class Decoder(nn.Module):
    """The decoder alone."""

    def __init__(self, voice: Voice):
        super().__init__()
        self.dec = voice.net.dec.onnx_form()

    def forward(self, z: Tensor, g: Tensor | None = None) -> Tensor:
        """Args: z `[b, inter, t_t]`; g `[b, gin, 1]` for a voice with conditions. Returns `[b, 1, 1, time]`."""
        return self.dec(z, g).unsqueeze(1)


class Graph(nn.Module):
    """The whole network."""

    def __init__(self, voice: Voice):
        super().__init__()
        self.encoder, self.decoder = Encoder(voice), Decoder(voice)

    def forward(self, x: Tensor, x_lengths: Tensor, scales: Tensor, *conditions: Tensor) -> tuple[Tensor, Tensor]:
        """Args: as `Encoder.forward`. Returns audio `[b, 1, 1, time]` and durations `[b, t_s]`."""
        z, durations, *g = self.encoder(x, x_lengths, scales, *conditions)
        return self.decoder(z, *g), durations


def example_text(voice: Voice) -> dict[str, Tensor]:
    """Return inputs of `Graph` by name, with which the exporter traces it."""
    return {
        "input": torch.arange(1, EXAMPLE_TOKENS + 1).unsqueeze(0) % voice.n_vocab,
        "input_lengths": torch.tensor([EXAMPLE_TOKENS]),
        "scales": torch.tensor(Scales()),
        **voice.bundle(voice.example_conditions(), 1),
    }


def check_speech(voice: Voice) -> None:
    """Raise ValueError for a network that cannot speak. The exporter would follow endless durations."""
    tokens = example_text(voice)["input"][0].tolist()
    voice.speak(tokens, noise_scale_w=0.0, seed=0, conditions=voice.example_conditions())


def example_latent(voice: Voice) -> dict[str, Tensor]:
    """Return inputs of `Decoder` by name."""
    z = torch.zeros(1, voice.config.model.inter_channels + voice.net.dec.extra_channels, EXAMPLE_FRAMES)
    return {"z": z, "g": torch.zeros(1, voice.config.model.gin_channels, 1)} if voice.net.conditions else {"z": z}


def write(
    voice: Voice,
    graph: nn.Module,
    example: dict[str, Tensor],
    outputs: list[str],
    path: str | Path,
    facts: dict[str, str],
    noise_inputs: bool,
    weights: str | None,
) -> None:
    """Trace a module of a voice and write it to a file with the metadata `facts`, whole or not at all.

    `example` holds its inputs by name, `outputs` the names of its outputs. With `noise_inputs`, the random draws are
    inputs (see `noise_from_inputs`). `weights` is a key of `shrink.SHRINK`, or None for fp32.
    """
    axes = AXES | {name: {0: "batch_size"} for name in voice.net.conditions}
    with replacing(path) as unfinished, warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporter warns that it is deprecated and of constants it does not fold
        torch.onnx.export(
            graph.eval(),
            tuple(example.values()),
            str(unfinished),
            dynamo=False,  # the newer exporter cannot take the length of the speech from the network's output
            opset_version=OPSET,
            input_names=list(example),
            output_names=outputs,
            dynamic_axes={name: axes[name] for name in [*example, *outputs] if name in axes},
        )
        model = onnx.load(unfinished)
        remove_nan_guards(model)
        if voice.net.dec.flatten_convolutions:
            flatten_decoder(model)
        if noise_inputs:
            noise_from_inputs(model, voice)
        helper.set_model_props(model, facts)
        if weights:
            model = shrink.SHRINK[weights](model)
        onnx.checker.check_model(model)
        onnx.save(model, unfinished)


def remove_nan_guards(model: onnx.ModelProto) -> None:
    """Remove the nodes that replace NaN in attention weights by 0, in place.

    PyTorch's exporter adds them for positions that may attend to nothing. The masks here allow every position to attend
    to one at least, and the nodes take a sixth of the encoder's time.
    """
    graph = model.graph
    made = {node.output[0]: node for node in graph.node}
    for guard in [node for node in graph.node if node.op_type == "IsNaN"]:
        (where,) = (node for node in graph.node if guard.output[0] in node.input)
        weights, zero = made[guard.input[0]], made[where.input[1]]
        weights.output[0] = where.output[0]
        for node in (guard, where, zero):
            graph.node.remove(node)


def noise_from_inputs(model: onnx.ModelProto, voice: Voice) -> None:
    """Replace the random draws of a voice's graph by inputs `[batch, channels, n]`, in place.

    Column t of a draw is column t mod n of the input, so n is arbitrary. Repetition is audible below a few hundred.
    """
    graph, settings = model.graph, voice.config.model
    channels = {"noise": settings.inter_channels}  # of each draw, in the order of the network
    if settings.use_sdp or settings.use_duration_noise:
        channels = {"noise_w": 2 if settings.use_sdp else settings.hidden_channels, **channels}
    draws = [node for node in graph.node if node.op_type == "RandomNormalLike"]
    for node, (name, width) in zip(draws, channels.items(), strict=True):
        shape: list[str | int] = ["batch_size", width, f"{name}_length"]
        graph.input.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
        place = list(graph.node).index(node)
        graph.node.remove(node)
        steps = [  # along the last axis, to the length of the tensor that the network gave to the draw
            _node("Shape", [node.input[0]], f"{name}_wanted"),
            _node("Gather", [f"{name}_wanted", "noise_last"], f"{name}_columns"),
            _node("Range", ["noise_zero", f"{name}_columns", "noise_one"], f"{name}_column"),
            _node("Shape", [name], f"{name}_given"),
            _node("Gather", [f"{name}_given", "noise_last"], f"{name}_period"),
            _node("Mod", [f"{name}_column", f"{name}_period"], f"{name}_source"),
            _node("Gather", [name, f"{name}_source"], node.output[0], axis=2),
        ]
        for offset, step in enumerate(steps):
            graph.node.insert(place + offset, step)
    for i, name in enumerate(("noise_zero", "noise_one", "noise_last")):
        graph.initializer.append(numpy_helper.from_array(np.array(i, np.int64), name))


def _node(operator: str, inputs: list[str], output: str, **attributes: Any) -> onnx.NodeProto:
    """Return a node with a name, from which programs that change the graph derive new names."""
    return helper.make_node(operator, inputs, [output], name=output, **attributes)


def flatten_decoder(model: onnx.ModelProto) -> None:
    """Rewrite the decoder's convolutions as two-dimensional ones of height 1, which ONNX Runtime computes faster.

    Tensors get their height at the decoder's first convolutions and lose it at its outputs. The nodes between must
    therefore work on any number of dimensions, such as activations and sums. Changes the model in place.
    """
    graph = model.graph
    nodes = [node for node in graph.node if DECODER_SCOPE in node.name]
    if not nodes:
        return
    weights = {tensor.name: tensor for tensor in graph.initializer}
    made = {output for node in nodes for output in node.output}
    entering: dict[str, str] = {}  # three-dimensional inputs of the decoder, and their names with a height
    for node in nodes:
        if node.op_type in ("Conv", "ConvTranspose"):
            _add_height(node, weights[node.input[1]])
            if node.input[0] not in made:
                node.input[0] = entering.setdefault(node.input[0], f"{node.input[0]}_of_height_1")
    wanted = {name for node in graph.node if DECODER_SCOPE not in node.name for name in node.input}
    wanted |= {output.name for output in graph.output}
    graph.initializer.append(numpy_helper.from_array(np.array([2], np.int64), "height_axis"))
    for name in sorted(made & wanted):
        last = next(node for node in nodes if name in node.output)
        last.output[list(last.output).index(name)] = f"{name}_of_height_1"
        squeeze = _node("Squeeze", [f"{name}_of_height_1", "height_axis"], name)
        graph.node.insert(list(graph.node).index(last) + 1, squeeze)
    first = min(list(graph.node).index(node) for node in nodes)
    for name, with_height in entering.items():
        graph.node.insert(first, _node("Unsqueeze", [name, "height_axis"], with_height))


def _add_height(conv: onnx.NodeProto, kernel: onnx.TensorProto) -> None:
    """Give a one-dimensional convolution and its kernel `[o, i, k]` a height of 1 before their length."""
    kernel.dims.insert(2, 1)
    for attribute in conv.attribute:
        if attribute.name in ("kernel_shape", "strides", "dilations"):
            attribute.ints.insert(0, 1)
        elif attribute.name == "output_padding":
            attribute.ints.insert(0, 0)
        elif attribute.name == "pads":  # the beginnings of all axes, then their ends
            left, right = attribute.ints
            attribute.ints[:] = [0, left, 0, right]
