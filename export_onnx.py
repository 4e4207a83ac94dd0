"""Write a trained voice as one ONNX file, with the names that Piper gives to inputs and outputs.

python export_onnx.py --model-path logs/NAME --output NAME.onnx
python export_onnx.py --model-path logs/NAME --output NAME.onnx --runtime piper      # and NAME.onnx.json
python export_onnx.py --model-path logs/NAME --output NAME.onnx --runtime sherpa     # and tokens.txt
With --half or --int8 the file is smaller, and its size, speed and error are printed beside those of fp32.

Inputs: `input` int64 [batch, phonemes] token ids; `input_lengths` int64 [batch]; `scales` float32 [3] = noise_scale,
length_scale, noise_scale_w; for many speakers `sid` int64 [batch]. With --noise-inputs also `noise` and, if the
durations are drawn, `noise_w`, float32 [batch, channels, any].
Outputs: `output` float32 [batch, 1, 1, time]; `durations` float32 [batch, phonemes], whole frames of hop_length
samples, from which the length of each item of a batch follows.
With --runtime, `input` may also be the ids that Piper and sherpa-onnx send (`runtimes.py`); `durations` are theirs.
With --split two files, NAME.encoder.onnx with `z` float32 [batch, channels, frames] (and `g` [batch, channels, 1] for
many speakers) in place of `output`, and NAME.decoder.onnx from those to `output`: a stream decodes `z` in parts, each
with `context` (in the metadata) frames more on either side, whose audio it leaves out.
"""

import argparse
import hashlib
import json
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

import onnx_graph
import runtimes
import shrink
from corpus import setting
from files import replacing
from infer_onnx import DECODER, ENCODER
from inference import errors_in_one_line
from speech import Scales
from synthesis import Voice
from text import table_of_symbols

AXES = {
    "input": {0: "batch_size", 1: "phonemes"},
    "input_lengths": {0: "batch_size"},
    "sid": {0: "batch_size"},
    "z": {0: "batch_size", 2: "frames"},
    "g": {0: "batch_size"},
    "output": {0: "batch_size", 3: "time"},
    "durations": {0: "batch_size", 1: "phonemes"},
}


class Encoder(nn.Module):
    """All before the decoder, as a file holds it."""

    def __init__(self, voice: Voice):
        super().__init__()
        self.net = voice.net

    def forward(self, x: Tensor, x_lengths: Tensor, scales: Tensor, sid: Tensor | None = None) -> tuple[Tensor, ...]:
        """Args: x `[b, t_s]`; x_lengths `[b]`; scales `[3]`; sid `[b]`.

        Returns z `[b, inter, t_t]`, durations `[b, t_s]` and, for many speakers, g `[b, gin, 1]`.
        """
        planned = self.net.plan(x, x_lengths, sid, scales[1], scales[2])
        z, *_ = self.net.latent(planned, scales[0])
        return (z, planned.durations) if planned.g is None else (z, planned.durations, planned.g)


class Decoder(nn.Module):
    """The decoder, as a file holds it."""

    def __init__(self, voice: Voice):
        super().__init__()
        self.dec = voice.net.dec

    def forward(self, z: Tensor, g: Tensor | None = None) -> Tensor:
        """Args: z `[b, inter, t_t]`; g `[b, gin, 1]` for many speakers. Returns `[b, 1, 1, time]`."""
        return self.dec(z, g).unsqueeze(1)


class Graph(nn.Module):
    """The whole network, as a file holds it."""

    def __init__(self, voice: Voice):
        super().__init__()
        self.encoder, self.decoder = Encoder(voice), Decoder(voice)

    def forward(self, x: Tensor, x_lengths: Tensor, scales: Tensor, sid: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Args: x `[b, t_s]`; x_lengths `[b]`; scales `[3]`; sid `[b]`. Returns `[b, 1, 1, time]` and `[b, t_s]`."""
        z, durations, *g = self.encoder(x, x_lengths, scales, sid)
        return self.decoder(z, *g), durations


def export(
    voice: Voice,
    path: str | Path,
    noise_inputs: bool = False,
    comment: str = "",
    for_runtimes: bool = False,
    weights: str | None = None,
) -> None:
    """Write a voice (on the CPU) to an ONNX file, whole or not at all.

    Args:
        noise_inputs: random numbers come as inputs; Piper and sherpa-onnx give none.
        comment: for the file's metadata.
        for_runtimes: read what Piper and sherpa-onnx send, and not the network's tokens alone.
        weights: one of `shrink.SHRINK`, or None for fp32.
    """
    if for_runtimes and noise_inputs:
        raise ValueError("Piper and sherpa-onnx give no noise: leave out --noise-inputs or --runtime")
    refuse_unspeakable(voice)
    graph = Graph(voice)
    described = facts(voice, comment)
    if for_runtimes:
        graph = runtimes.behind_reader(graph, voice)
        described |= runtimes.facts(voice, comment)
    example = example_text(voice)
    if for_runtimes and voice.data.n_speakers == 1:  # the runtimes name no speaker where there is one
        del example["sid"]
    noise = draws(voice) if noise_inputs else {}
    write(graph, example, ["output", "durations"], path, described, noise, weights)


def export_split(
    voice: Voice, path: str | Path, noise_inputs: bool = False, comment: str = "", weights: str | None = None
) -> tuple[Path, Path]:
    """Write a voice (on the CPU) as two ONNX files beside `path`, for streams. Returns their paths."""
    refuse_unspeakable(voice)
    described = facts(voice, comment) | {"context": str(voice.context), "weights": digest(voice)}
    files = Path(path).with_suffix(ENCODER), Path(path).with_suffix(DECODER)
    text = example_text(voice)
    outputs = ["z", "durations"] + (["g"] if voice.data.n_speakers else [])
    write(Encoder(voice), text, outputs, files[0], described, draws(voice) if noise_inputs else {}, weights)
    latent = {"z": torch.zeros(1, voice.config.model.inter_channels, 20)}
    if voice.data.n_speakers:
        latent["g"] = torch.zeros(1, voice.config.model.gin_channels, 1)
    write(Decoder(voice), latent, ["output"], files[1], described, {}, weights)
    return files


def refuse_unspeakable(voice: Voice) -> None:
    """Raise ValueError where speaking does: endless durations, which the exporter would follow, or broken weights."""
    tokens = example_text(voice)["input"][0].tolist()
    voice.speak(tokens, 0 if voice.data.n_speakers else None, noise_scale_w=0.0, seed=0)


def digest(voice: Voice) -> str:
    """What only this voice's weights have, so that two halves of different voices are not put together."""
    weights = hashlib.sha256()
    for value in voice.net.state_dict().values():
        weights.update(value.contiguous().numpy().tobytes())
    return weights.hexdigest()[:16]


def example_text(voice: Voice) -> dict[str, Tensor]:
    """Inputs by which the exporter follows the network."""
    x = torch.arange(1, 51).unsqueeze(0) % voice.n_vocab
    example = {"input": x, "input_lengths": torch.tensor([50]), "scales": torch.tensor(Scales())}
    return {**example, "sid": torch.tensor([0])} if voice.data.n_speakers else example


def write(
    graph: nn.Module,
    example: dict[str, Tensor],
    outputs: list[str],
    path: str | Path,
    described: dict[str, str],
    noise: dict[str, int],
    weights: str | None,
) -> None:
    """Write one graph with its metadata, its draws as inputs of the channels of `noise`, and its weights as named."""
    with replacing(path) as unfinished, warnings.catch_warnings(), torch.no_grad():
        # the exporter warns of its own age and of what it does not fold
        warnings.simplefilter("ignore")
        torch.onnx.export(
            graph.eval(),
            tuple(example.values()),
            str(unfinished),
            dynamo=False,  # the newer exporter cannot take the length of the speech from the network's output
            opset_version=onnx_graph.OPSET,
            input_names=list(example),
            output_names=outputs,
            dynamic_axes={name: AXES[name] for name in [*example, *outputs] if name in AXES},
        )
        model = onnx.load(unfinished)
        onnx_graph.flatten_decoder(model)
        if noise:
            onnx_graph.noise_from_inputs(model, noise)
        onnx_graph.describe(model, described)
        if weights:
            model = shrink.SHRINK[weights](model)
        onnx.checker.check_model(model)
        onnx.save(model, unfinished)


def draws(voice: Voice) -> dict[str, int]:
    """What the network draws at random, in that order: names of the file's inputs and their channels."""
    model = voice.config.model
    if model.use_sdp:
        return {"noise_w": 2, "noise": model.inter_channels}
    durations = {"noise_w": model.hidden_channels} if model.use_duration_noise else {}
    return {**durations, "noise": model.inter_channels}


def facts(voice: Voice, comment: str = "") -> dict[str, str]:
    """What the file says about the voice; lists and tables are JSON."""
    data = voice.data
    symbols = table_of_symbols(setting(data, "extra_symbols"))
    return {
        "model_type": "vits",
        "comment": comment,
        "sample_rate": str(data.sampling_rate),
        "hop_length": str(data.hop_length),
        "n_speakers": str(data.n_speakers),
        "speakers": json.dumps(voice.speakers, ensure_ascii=False),
        "language": language(data.text_cleaners),
        "cleaners": json.dumps(data.text_cleaners),
        # a network with a table of its own speaks ids, and no symbols belong to them
        "symbols": json.dumps(symbols if len(symbols) == voice.n_vocab else [], ensure_ascii=False),
        "n_vocab": str(voice.n_vocab),
        "add_blank": str(int(data.add_blank)),
        "scales": json.dumps(Scales()),
        "step": str(voice.step if voice.step is not None else ""),
    }


def language(cleaners: Sequence[str]) -> str:
    """The espeak-ng code of the language that the cleaners read, empty where they read any."""
    for name in cleaners:
        if name.startswith("phonemes_"):
            return name.removeprefix("phonemes_")
        if name.startswith("english_"):
            return "en-us"
    return ""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model-path", required=True, help="checkpoint G_STEP.pth, a run's folder, or its name")
    parser.add_argument("--config-path", help="config file, for checkpoints that hold none and have none beside them")
    parser.add_argument("--output", required=True, help="the .onnx file to write")
    parser.add_argument("--noise-inputs", action="store_true", help="take all random numbers as inputs")
    parser.add_argument("--split", action="store_true", help="write encoder and decoder apart, for streams")
    parser.add_argument("--runtime", choices=list(runtimes.RUNTIMES), help="write what this program speaks with")
    smaller = parser.add_mutually_exclusive_group()
    smaller.add_argument("--half", action="store_true", help="weights in 16 bits: half the file, the same speed")
    smaller.add_argument("--int8", action="store_true", help="kernels in 8 bits: a quarter, the same speed, some error")
    parser.add_argument("--comment", default="", help="text for the file's metadata, such as licence and source")
    args = parser.parse_args(arguments)
    with errors_in_one_line("export_onnx"):
        voice = Voice.load(args.model_path, args.config_path)
        output = Path(args.output)
        if output.is_dir():
            raise ValueError(f"{output} is a folder: name the .onnx file to write")
        if args.split and args.runtime:
            raise ValueError("Piper and sherpa-onnx take one file: leave out --split or --runtime")
        output.parent.mkdir(parents=True, exist_ok=True)
        weights = "half" if args.half else "int8" if args.int8 else None
        options = {"noise_inputs": args.noise_inputs, "comment": args.comment}

        def write_files(path: Path, weights: str | None) -> tuple[Path, ...]:
            if args.split:
                return export_split(voice, path, **options, weights=weights)
            export(voice, path, **options, for_runtimes=bool(args.runtime), weights=weights)
            return (path,)

        files = write_files(output, weights)
        for file in files:
            print(f"{file}: {file.stat().st_size / 1e6:.1f} MB, step {voice.step}")
        if weights:
            with tempfile.TemporaryDirectory() as folder:
                full = write_files(Path(folder) / "fp32.onnx", None)
                print(shrink.compare(full, files, voice))
        if args.runtime:
            print(*runtimes.RUNTIMES[args.runtime](voice, output), sep="\n")


if __name__ == "__main__":
    main()
