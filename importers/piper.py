"""Voices of Piper: an ONNX graph with its JSON file, or a checkpoint of training (PyTorch Lightning)."""

import dataclasses
import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import cli
from config import ModelConfig, field_names
from export import metadata
from importers.source import Imported
from synthesis.speech import Scales
from text.table import PIPER_CHARACTERS

PARTS = re.compile(r"(?:^|\.)((?:enc_p|enc_q|dec|flow|dp|emb_g)\..+)$")  # the name that VITS gives, after any prefix
SCOPE = re.compile(r"^(?:.*?/)?((?:enc_p|enc_q|dec|flow|dp|emb_g)(?:/[\w.]+)*)/\w+$")  # of a node's name
PARAMETER = re.compile(r"\.(weight|bias|gamma|beta|emb_rel_k|emb_rel_v|m|logs)$")
COPIES = ("Cast", "Identity", "DequantizeLinear")  # operations
NORM = {"Mul": "gamma", "Add": "beta"}  # parameters of a normalization by the nodes that apply them
FILTER_LENGTH = WIN_LENGTH = 1024  # Piper trains every voice with these
BLANK, BEGIN, END, FORM = "_", "^", "$", "NFD"
ARGUMENTS = {"sample_rate": "sampling_rate", "mel_channels": "n_mel_channels"}  # of Piper's training, and ours
DATA_ARGUMENTS = ("filter_length", "hop_length", "win_length", "mel_fmin", "mel_fmax")


def from_graph(path: Path, config: Mapping[str, Any]) -> Imported:
    """Return the voice of an ONNX file. Raises ValueError if it is no graph of VITS."""
    onnx = cli.extra("onnx")
    try:
        graph = onnx.load(path)
    except Exception as error:  # of protobuf
        raise ValueError(f"{path} is no ONNX file, or damaged: {' '.join(str(error).split())}") from None
    reader = Graph(graph, path)
    weights = reader.weights()
    if "enc_p.emb.weight" not in weights or "dec.conv_pre.weight" not in weights:
        raise ValueError(f"{path} is no graph of VITS: there is no text embedding or decoder among its weights")
    described = metadata.read({entry.key: entry.value for entry in graph.metadata_props})
    if described:  # exported here
        data = dataclasses.asdict(described.data)
        weights.pop("dec.synthesis.weight", None)  # of the decoder mb_istft, which makes it from the settings
        model = {**reader.decoder(), "istft_hop_length": described.data.hop_length, **described.model}
        return Imported("ONNX file of this repository", weights, model, data)
    return _voice("Piper (ONNX)", path, weights, reader.decoder(), {}, config)


def from_arguments(
    path: Path, weights: dict[str, Tensor], arguments: Mapping[str, Any], config: Mapping[str, Any]
) -> Imported:
    """Return the voice of a checkpoint of Lightning whose arguments are those of Piper's training."""
    known = field_names(ModelConfig)
    model = {key: _plain(value) for key, value in arguments.items() if key in known}
    data = {ARGUMENTS.get(key, key): value for key, value in arguments.items() if key in (*ARGUMENTS, *DATA_ARGUMENTS)}
    return _voice("Piper (Lightning)", path, weights, model, data, config)


def _plain(value: Any) -> Any:
    """Return tuples as lists, and the text of a tuple, as a command line gives it, as its value."""
    if isinstance(value, str) and value.startswith(("(", "[")):
        numbers = re.sub(r",\s*([\])])", r"\1", value.replace("(", "[").replace(")", "]"))
        value = json.loads(numbers)
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _voice(
    title: str,
    path: Path,
    weights: dict[str, Tensor],
    model: dict[str, Any],
    data: dict[str, Any],
    config: Mapping[str, Any],
) -> Imported:
    """Return a voice with the text and the symbols that Piper's JSON file describes."""
    if not isinstance(config.get("phoneme_id_map"), Mapping):
        raise ValueError(f"{path}: there is no config of Piper with a phoneme_id_map beside it: name it with --config")
    voice = Imported(title, weights, model)
    audio, rows = config.get("audio", {}), len(weights["enc_p.emb.weight"])
    voice.data = {
        "sampling_rate": audio.get("sample_rate", data.get("sampling_rate", 22050)),
        "filter_length": FILTER_LENGTH,
        "win_length": WIN_LENGTH,
        "hop_length": math.prod(model.get("upsample_rates", [])),
        **data,
        "add_blank": True,
        "blank_symbol": BLANK,
        "begin_symbol": BEGIN,
        "end_symbol": END,
        "unicode_form": FORM,
        "n_vocab": rows,
        "cleaned_text": False,
        **_text(config, voice.notes),
    }
    speakers = config.get("speaker_id_map") or {}
    if "emb_g.weight" in weights and speakers:
        voice.data["speakers"] = {str(name): int(number) for name, number in speakers.items()}
    _note_scales(config.get("inference") or {}, voice.notes)
    return voice


def _text(config: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
    """Return the table of symbols and the cleaner."""
    kind, table = config.get("phoneme_type", "espeak"), config["phoneme_id_map"]
    if kind in PIPER_CHARACTERS:  # Piper sends single code points, besides clusters that it names
        joined = {"".join(cluster) for cluster in config.get("vowel_clusters") or ()}
        table = {symbol: ids for symbol, ids in table.items() if len(symbol) == 1 or symbol in joined}
    if config.get("phoneme_map"):
        notes.append("its phoneme_map, which replaces phonemes before they become ids, is not used")
    if kind == "espeak":
        cleaners = [f"phonemes_{(config.get('espeak') or {}).get('voice', 'en-us')}"]
    else:
        cleaners = ["basic_cleaners"]
        if kind != "text":
            notes.append(
                f"its phonemes are of the type {kind!r}, which is not made here: give it phonemes (--phonemes)"
            )
    return {"symbols": table, "text_cleaners": cleaners}


def _note_scales(inference: Mapping[str, Any], notes: list[str]) -> None:
    """Note the scales with which the owner of a voice speaks, where they differ from those here."""
    ours = Scales()._asdict()
    theirs = {"noise_scale": "noise_scale", "length_scale": "length_scale", "noise_w": "noise_scale_w"}
    options = [
        f"--{name.replace('_', '-')} {inference[key]:g}"
        for key, name in theirs.items()
        if isinstance(inference.get(key), (int, float)) and inference[key] != ours[name]
    ]
    if options:
        notes.append(f"its owner speaks with {' '.join(options)}")


class Graph:
    """The weights of an ONNX graph under VITS's names, and the numbers of its decoder.

    PyTorch's exporter keeps the names of most parameters. Weight norms are computed beforehand, and such weights have
    no names: they get that of the bias beside them, or of the node. Weights that a node computes, as in a file of 16 or
    8 bits, are computed with ONNX Runtime.
    """

    def __init__(self, model: Any, path: Path):
        self.model, self.path = model, path
        self.initializers = {entry.name: entry for entry in model.graph.initializer}
        self.makers = {output: node for node in model.graph.node for output in node.output}
        self.users: dict[str, list[Any]] = {}
        for node in model.graph.node:
            for name in node.input:
                self.users.setdefault(name, []).append(node)

    def weights(self) -> dict[str, Tensor]:
        """Return the weights, in fp32 and without weight norm."""
        places = dict(self._named())
        for node in self.model.graph.node:
            for name, place in self._of_node(node):
                places.setdefault(name, place)
        arrays = self._values(set(places.values()))
        weights = {name: arrays[place] for name, place in places.items()}
        if "dp.flows.0.m" in weights and "dp.flows.0.logs" not in weights:
            weights["dp.flows.0.logs"] = -np.log(self._factor_after("dp.flows.0.m", places))
        found = {name: torch.from_numpy(np.array(value, np.float32)) for name, value in weights.items()}
        found |= {name: found.pop(f"{name}.T").mT for name in [n[:-2] for n in found if n.endswith(".T")]}
        # convolutions may be written as two-dimensional ones of height 1
        return {name: w.squeeze(2) if w.dim() == 4 and w.size(2) == 1 else w for name, w in found.items()}

    def _named(self) -> Iterator[tuple[str, str]]:
        """Yield the parameters that kept their names, and where they are.

        The exporter keeps one of several equal parameters, and gives the names of the others to copies of it.
        """
        copies = {node.output[0]: node.input[0] for node in self.model.graph.node if node.op_type == "Identity"}
        for name, place in ({name: name for name in self.initializers} | copies).items():
            if (match := PARTS.search(name)) and PARAMETER.search(name) and self._is_constant(place):
                yield match[1], place

    def _of_node(self, node: Any) -> Iterator[tuple[str, str]]:
        """Yield the names and places of the weights of a layer, by the node that computes it."""
        stem = self._stem(node)
        if node.op_type == "Gather" and self._is_constant(node.input[0]):
            if stem in ("enc_p.emb", "emb_g"):
                yield f"{stem}.weight", node.input[0]
            elif node.input[1] == self.model.graph.input[0].name:
                yield "enc_p.emb.weight", node.input[0]
            elif node.input[1] == "sid":
                yield "emb_g.weight", node.input[0]
        elif stem is None:
            return
        elif node.op_type in ("Conv", "ConvTranspose"):
            yield f"{stem}.weight", node.input[1]
            if len(node.input) > 2:
                yield f"{stem}.bias", node.input[2]
        elif node.op_type == "LayerNormalization":
            yield from ((f"{stem}.{parameter}", place) for parameter, place in zip(NORM.values(), node.input[1:]))
        elif node.op_type == "MatMul" and self._is_constant(node.input[1]):
            if stem.endswith("spk_emb_linear"):
                yield f"{stem}.weight.T", node.input[1]
            elif ".attn_layers." in stem and not PARTS.search(node.input[1]):
                yield f"{stem}.emb_rel_k.T", node.input[1]
        elif node.op_type in ("Mul", "Add") and ("norm" in stem or stem.endswith("spk_emb_linear")):
            for name in node.input:
                if self._is_constant(name) and not self._is_number(name):
                    yield f"{stem}.{NORM[node.op_type] if 'norm' in stem else 'bias'}", name

    def _is_constant(self, name: str) -> bool:
        """Return whether a tensor is a weight, or computed from weights alone."""
        node = self.makers.get(name)
        return name in self.initializers or (node is not None and all(map(self._is_constant, node.input)))

    def _is_number(self, name: str) -> bool:
        """Return whether a constant is a single number."""
        source = name if name in self.initializers else next(iter(self.makers[name].input), "")
        return source not in self.initializers or math.prod(self.initializers[source].dims) <= 1

    def _source(self, name: str) -> str:
        """Return the tensor that a tensor is a copy of, in this or in another type."""
        while (node := self.makers.get(name)) is not None and node.op_type in COPIES:
            name = node.input[0]
        return name

    def _stem(self, node: Any) -> str | None:
        """Return the name of a node's module, by its own name and those of the weights beside it.

        The node may be named after the module that calls it, and a weight after another module with an equal one.
        """
        scope = SCOPE.match(node.name)
        module = scope[1].replace("/", ".") if scope else None
        sources = map(self._source, node.input[1:])
        names = (PARTS.search(name) for name in sources if name in self.initializers)
        named = next((PARAMETER.sub("", match[1]) for match in names if match), None)
        return module if module and not f"{named}.".startswith(f"{module}.") else named

    def _factor_after(self, shift: str, places: dict[str, str]) -> np.ndarray:
        """Return the constant by which the graph multiplies after it subtracts a weight."""
        users = self.users.get(places[shift], [])
        users = [*users, *(user for node in users if node.op_type == "Cast" for user in self.users[node.output[0]])]
        for subtraction in (node for node in users if node.op_type == "Sub"):
            for product in (node for node in self.users.get(subtraction.output[0], []) if node.op_type == "Mul"):
                (other,) = set(product.input) - {subtraction.output[0]}
                return self._values({other})[other]
        raise ValueError(f"{self.path}: the graph has {shift}, but not the scale beside it")

    def _values(self, names: set[str]) -> dict[str, np.ndarray]:
        """Return tensors that do not depend on the graph's inputs. Raises ValueError if one does."""
        numpy_helper = cli.extra("onnx.numpy_helper")
        found = {name: numpy_helper.to_array(self.initializers[name]) for name in names if name in self.initializers}
        computed = sorted(names - set(found))
        if computed:
            try:
                session = cli.extra("onnxruntime").InferenceSession(self._constants(computed).SerializeToString())
                found |= dict(zip(computed, session.run(computed, {})))
            except Exception as error:  # of ONNX Runtime
                reason = " ".join(str(error).split())[:200]
                raise ValueError(f"{self.path}: weights such as {computed[0]} cannot be computed: {reason}") from None
        return found

    def _constants(self, names: list[str]) -> Any:
        """Return a model without inputs whose outputs are the named tensors."""
        helper = cli.extra("onnx.helper")
        needed, waiting = [], list(names)
        while waiting:
            node = self.makers.get(waiting.pop())
            if node is not None and node not in needed:
                needed.append(node)
                waiting += node.input
        nodes = [node for node in self.model.graph.node if node in needed]
        weights = [self.initializers[n] for n in {n for node in nodes for n in node.input} if n in self.initializers]
        outputs = [helper.make_value_info(name, helper.make_tensor_type_proto(1, None)) for name in names]
        graph = helper.make_graph(nodes, "constants", [], outputs, weights)
        opsets = list(self.model.opset_import)
        return helper.make_model(graph, opset_imports=opsets, ir_version=self.model.ir_version)

    def decoder(self) -> dict[str, Any]:
        """Return the strides and dilations of HiFi-GAN as settings of a config, none for another decoder."""
        rates: dict[int, int] = {}
        dilations: dict[int, dict[int, int]] = {}
        for node in self.model.graph.node:
            stem = self._stem(node) if node.op_type in ("Conv", "ConvTranspose") else None
            numbers = {entry.name: list(entry.ints) for entry in node.attribute}
            if match := re.match(r"dec\.ups\.(\d+)$", stem or ""):
                rates[int(match[1])] = numbers.get("strides", [1])[-1]
            elif match := re.match(r"dec\.resblocks\.(\d+)\.convs1?\.(\d+)$", stem or ""):
                dilations.setdefault(int(match[1]), {})[int(match[2])] = numbers.get("dilations", [1])[-1]
        if not rates or len(dilations) % len(rates):
            return {}
        kernels = len(dilations) // len(rates)
        return {
            "upsample_rates": [rates[i] for i in sorted(rates)],
            "resblock_dilation_sizes": [[dilations[i][k] for k in sorted(dilations[i])] for i in range(kernels)],
        }
