"""What export does to a graph after PyTorch has written it: faster convolutions, noise as an input, facts."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
DECODER_SCOPE = "/dec/"  # in the names that PyTorch gives to the decoder's nodes


def noise_from_inputs(model: onnx.ModelProto, channels: dict[str, int]) -> None:
    """Replace the graph's random draws by inputs `[batch, channels, n]`, in place.

    Column t takes the input's column t mod n, so any n will do; repetition is heard below a few hundred.

    Args:
        channels: names and channels of the inputs, in the order in which the network draws.
    """
    graph = model.graph
    draws = [node for node in graph.node if node.op_type == "RandomNormalLike"]
    for node, (name, width) in zip(draws, channels.items(), strict=True):
        shape = ["batch_size", width, f"{name}_length"]
        graph.input.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
        place = list(graph.node).index(node)
        graph.node.remove(node)
        for offset, step in enumerate(_repeated(name, node.input[0], node.output[0])):
            graph.node.insert(place + offset, step)
    for i, name in enumerate(("noise_zero", "noise_one", "noise_last")):
        graph.initializer.append(numpy_helper.from_array(np.array(i, np.int64), name))


def _repeated(name: str, like: str, output: str) -> list[onnx.NodeProto]:
    """Nodes that repeat or cut the input `name` along its last axis to the length of the tensor `like`."""
    node = _named_node
    return [
        node("Shape", [like], [f"{name}_wanted"]),
        node("Gather", [f"{name}_wanted", "noise_last"], [f"{name}_columns"]),
        node("Range", ["noise_zero", f"{name}_columns", "noise_one"], [f"{name}_column"]),
        node("Shape", [name], [f"{name}_given"]),
        node("Gather", [f"{name}_given", "noise_last"], [f"{name}_period"]),
        node("Mod", [f"{name}_column", f"{name}_period"], [f"{name}_source"]),
        node("Gather", [name, f"{name}_source"], [output], axis=2),
    ]


def _named_node(operator: str, inputs: list[str], outputs: list[str], **attributes) -> onnx.NodeProto:
    """A node with a name, from which programs that change the graph make names of their own."""
    return helper.make_node(operator, inputs, outputs, name=outputs[0], **attributes)


def describe(model: onnx.ModelProto, facts: dict[str, str]) -> None:
    """Write metadata into the file, in place of any there."""
    del model.metadata_props[:]
    helper.set_model_props(model, facts)


def flatten_decoder(model: onnx.ModelProto) -> None:
    """Make the decoder's convolutions two-dimensional ones of height 1, in place: ONNX Runtime computes them faster."""
    graph = model.graph
    nodes = [node for node in graph.node if DECODER_SCOPE in node.name]
    if not nodes:
        return
    weights = {tensor.name: tensor for tensor in graph.initializer}
    made = {output for node in nodes for output in node.output}
    entering: dict[str, str] = {}  # three-dimensional tensors from outside, and their names with a height
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
        squeeze = _named_node("Squeeze", [f"{name}_of_height_1", "height_axis"], [name])
        graph.node.insert(list(graph.node).index(last) + 1, squeeze)
    first = min(list(graph.node).index(node) for node in nodes)
    for name, with_height in entering.items():
        graph.node.insert(first, _named_node("Unsqueeze", [name, "height_axis"], [with_height]))


def _add_height(conv: onnx.NodeProto, kernel: onnx.TensorProto) -> None:
    """Give a one-dimensional convolution and its kernel `[o, i, k]` a height of 1 before their length."""
    kernel.dims.insert(2, 1)
    for attribute in conv.attribute:
        if attribute.name in ("kernel_shape", "strides", "dilations"):
            attribute.ints.insert(0, 1)
        elif attribute.name == "output_padding":
            attribute.ints.insert(0, 0)
        elif attribute.name == "pads":  # at the beginnings of the axes, then at their ends
            left, right = attribute.ints
            attribute.ints[:] = [0, left, 0, right]
