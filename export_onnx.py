"""Export a trained voice to ONNX.

The file has Piper's names of inputs and outputs.

Inputs: `input` int64 [batch, phonemes], token ids; `input_lengths` int64 [batch]; `scales` float32 [3] = noise_scale,
length_scale, noise_scale_w; each condition of the voice, such as `sid` int64 [batch] for several speakers. With
--noise-inputs also `noise` and, if the durations are random, `noise_w`, float32 [batch, channels, any].

Outputs: `output` float32 [batch, 1, 1, time]; `durations` float32 [batch, phonemes] in frames of hop_length samples,
whose sum is the length of each item of a batch.

With --runtime, `input` also accepts the ids that Piper and sherpa-onnx send, and `durations` belong to these ids.

With --split there are two files. NAME.encoder.onnx has the outputs `z` float32 [batch, channels, frames] and, with
conditions, `g` [batch, channels, 1] in place of `output`. NAME.decoder.onnx maps them to `output`. A stream decodes `z`
in parts, with `context` more frames (see the metadata) on either side, whose audio it discards.

Examples:
  python export_onnx.py --output voice.onnx                                           the pretrained voice
  python export_onnx.py --model-path logs/NAME --output NAME.onnx
  python export_onnx.py --model-path logs/NAME --output NAME.onnx --half              half the size; prints the error
  python export_onnx.py --model-path logs/NAME --output NAME.onnx --runtime piper     also writes NAME.onnx.json
  python export_onnx.py --model-path logs/NAME --output NAME.onnx --runtime sherpa    also writes tokens.txt
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import cli
from files import PRETRAINED

if TYPE_CHECKING:
    from torch import nn

    from synthesis import Voice

# Modules that import PyTorch or onnx are imported where they are used, because they take seconds.
RUNTIMES = ("piper", "sherpa")  # keys of `export.runtimes.RUNTIMES`


def export(
    voice: "Voice",
    path: str | Path,
    noise_inputs: bool = False,
    comment: str = "",
    for_runtimes: bool = False,
    weights: str | None = None,
) -> None:
    """Write a voice on the CPU to one ONNX file, whole or not at all.

    Args: `noise_inputs`, take all random numbers as inputs; `comment`, text for the metadata; `for_runtimes`, accept
    the ids of Piper and sherpa-onnx besides the network's tokens; `weights`, "half", "int8", or None for fp32. Raises
    ValueError if the network is not trained or broken, or if Piper and sherpa-onnx do not support the voice.
    """
    from export import graph as graphs
    from export import metadata, runtimes

    if for_runtimes and noise_inputs:
        raise ValueError("Piper and sherpa-onnx do not give noise: leave out --noise-inputs or --runtime")
    graphs.check_speech(voice)
    graph: nn.Module = graphs.Graph(voice)
    facts, example = metadata.facts(voice, comment), graphs.example_text(voice)
    if for_runtimes:
        graph = runtimes.RuntimeGraph(graph, voice)
        facts |= runtimes.facts(voice, comment)
        if graph.one_speaker:
            del example["sid"]
    graphs.write(voice, graph, example, ["output", "durations"], path, facts, noise_inputs, weights)


def export_split(
    voice: "Voice", path: str | Path, noise_inputs: bool = False, comment: str = "", weights: str | None = None
) -> tuple[Path, Path]:
    """Write a voice on the CPU to two ONNX files beside `path`, encoder and decoder, for streams.

    Returns their paths. Arguments and errors are those of `export`.
    """
    from export import graph as graphs
    from export import metadata
    from infer_onnx import DECODER, ENCODER

    graphs.check_speech(voice)
    facts = metadata.facts(voice, comment, split=True)
    encoder, decoder = Path(path).with_suffix(ENCODER), Path(path).with_suffix(DECODER)
    text, latent = graphs.example_text(voice), graphs.example_latent(voice)
    outputs = ["z", "durations", *(["g"] if "g" in latent else [])]
    graphs.write(voice, graphs.Encoder(voice), text, outputs, encoder, facts, noise_inputs, weights)
    graphs.write(voice, graphs.Decoder(voice), latent, ["output"], decoder, facts, False, weights)
    return encoder, decoder


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program with the given arguments, by default those of the command line."""
    parser = cli.Parser(__doc__)
    cli.add_run(parser, "--model-path", default=PRETRAINED.name)
    cli.add_config(parser, "--config-path")
    parser.add_argument("--output", metavar="ONNX", required=True, help="the .onnx file to write")
    parser.add_argument("--noise-inputs", action="store_true", help="take all random numbers as inputs, for seeds")
    parser.add_argument("--split", action="store_true", help="write encoder and decoder to two files, for streams")
    parser.add_argument("--runtime", choices=RUNTIMES, help="write the files of Piper or sherpa-onnx")
    smaller = parser.add_mutually_exclusive_group()
    smaller.add_argument("--half", action="store_true", help="store 16-bit weights: half the size, the same speed")
    eight_bit = "store 8-bit kernels: a quarter of the size, the same speed, a larger error"
    smaller.add_argument("--int8", action="store_true", help=eight_bit)
    parser.add_argument("--comment", default="", metavar="TEXT", help="text for the metadata: the license, the source")
    args = parser.parse_args(arguments)
    with cli.errors_in_one_line("export_onnx"):
        output = Path(args.output)
        if output.is_dir():
            raise ValueError(f"{output} is a folder: name the .onnx file to write")
        if args.split and args.runtime:
            raise ValueError("Piper and sherpa-onnx take one file: leave out --split or --runtime")
        for package in ("onnx", "onnxruntime"):
            cli.extra(package)
        from export import runtimes, shrink
        from synthesis import Voice

        voice = Voice.load(args.model_path, args.config_path)
        output.parent.mkdir(parents=True, exist_ok=True)
        weights = "half" if args.half else "int8" if args.int8 else None
        files = write_files(voice, output, args, weights)
        for file in files:
            print(f"{file}: {file.stat().st_size / 1e6:.1f} MB, step {voice.step}")
        if weights:
            with tempfile.TemporaryDirectory() as folder:
                print(shrink.compare(write_files(voice, Path(folder) / "fp32.onnx", args, None), files, voice))
        if args.runtime:
            print(*runtimes.RUNTIMES[args.runtime](voice, output), sep="\n")


def write_files(voice: "Voice", path: Path, args: argparse.Namespace, weights: str | None) -> tuple[Path, ...]:
    """Write the file, or with `args.split` the two files, of a voice. Returns their paths."""
    if args.split:
        return export_split(voice, path, args.noise_inputs, args.comment, weights)
    export(voice, path, args.noise_inputs, args.comment, bool(args.runtime), weights)
    return (path,)


if __name__ == "__main__":
    main()
