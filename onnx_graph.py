"""What export does to a graph after PyTorch has written it: noise as an input, facts about the voice."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 17


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
    node = helper.make_node
    return [
        node("Shape", [like], [f"{name}_wanted"]),
        node("Gather", [f"{name}_wanted", "noise_last"], [f"{name}_columns"]),
        node("Range", ["noise_zero", f"{name}_columns", "noise_one"], [f"{name}_column"]),
        node("Shape", [name], [f"{name}_given"]),
        node("Gather", [f"{name}_given", "noise_last"], [f"{name}_period"]),
        node("Mod", [f"{name}_column", f"{name}_period"], [f"{name}_source"]),
        node("Gather", [name, f"{name}_source"], [output], axis=2),
    ]


def describe(model: onnx.ModelProto, facts: dict[str, str]) -> None:
    """Write metadata into the file, in place of any there."""
    del model.metadata_props[:]
    helper.set_model_props(model, facts)
