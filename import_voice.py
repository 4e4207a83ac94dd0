"""Import a voice of another program as a run of this one, which speaks, exports and continues to train.

The file, or the folder that holds it, is one of: a checkpoint of VITS, vits2_pytorch or a fork with the same network
(bare, in `model`, `weight` or `state_dict`, with the prefixes of parallel, compiled and Lightning modules, as
safetensors, in 16 bits, with weight norm or folded); a voice of Piper (.onnx with .onnx.json, or .ckpt with its
config.json); a folder of Hugging Face's VitsModel, MMS included; a voice of Coqui TTS; a fine-tune of Plachtaa.

The architecture is read from the weights or the graph, and what they do not tell from the config beside them. No code
in a file is executed. The run is logs/NAME.

Examples:
  python import_voice.py en_US-joe-medium.onnx -m joe          a voice of Piper
  python import_voice.py mms-tts-eng -m eng                    a folder of Hugging Face
  python import_voice.py G_100000.pth -c config.json -m old    a checkpoint of VITS
  python import_voice.py logs/eng --to hf -o mms-copy          back to the form of Hugging Face
"""

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import cli
from files import run_folder

if TYPE_CHECKING:
    from importers.reading import Voice

# Modules that import PyTorch are imported where they are used, because that takes seconds.


def describe(voice: "Voice") -> list[str]:
    """Return lines that tell what was found, what was converted, and what is missing."""
    import checkpoint

    data, model = voice.config.data, voice.config.model
    flow = f"flow {model.transformer_flow_type}" if model.use_transformer_flows else "flow of VITS"
    predictor = "stochastic durations" if model.use_sdp else "deterministic durations"
    speakers = f"{data.n_speakers} speakers" if data.n_speakers else "a single voice"
    rows = len(voice.weights["enc_p.emb.weight"])
    lines = [
        f"found      {voice.title}: {speakers}, {data.sampling_rate} Hz, {flow}, {predictor}, decoder {model.decoder}",
        f"text       {', '.join(data.text_cleaners)}; {rows} symbols; {_marks(voice)}",
        f"converted  {len(voice.weights)} weights: {_parts(voice.weights)}",
    ]
    if voice.missing:
        posterior = any(name.startswith(checkpoint.POSTERIOR) for name in voice.missing)
        lost = "it speaks and exports; conversion needs a posterior" if posterior else "only training uses them"
        lines.append(f"missing    {len(voice.missing)} weights: {_parts(voice.missing)} ({lost})")
    return [*lines, *(f"note       {note}" for note in voice.notes)]


def _marks(voice: "Voice") -> str:
    data = voice.config.data
    blanks = "blanks between symbols" if data.add_blank else "no blanks"
    marks = [f"{data.begin_symbol} before"] if data.begin_symbol else []
    marks += [f"{data.end_symbol} after a text"] if data.end_symbol else []
    return ", ".join([blanks, *marks])


def _parts(names: Sequence[str] | dict) -> str:
    """Return how many weights each part of the network has."""
    return ", ".join(f"{part} {count}" for part, count in Counter(name.split(".")[0] for name in names).items())


def import_from(source: Path, args: argparse.Namespace) -> None:
    """Write the run of a voice of another program, and print a report."""
    from importers import reading
    from text.table import read_symbols

    replaced: dict = {"text_cleaners": args.cleaners} if args.cleaners else {}
    if args.symbols:
        replaced["symbols"] = read_symbols(Path(args.symbols))
    folder = run_folder(args.model)
    if any(folder.glob("G_*.pth")):
        raise ValueError(f"{folder} has checkpoints already: choose another name with -m")
    voice = reading.read(source, Path(args.config) if args.config else None, **replaced)
    print(*describe(voice), sep="\n")
    for file in reading.save(voice, folder):
        print(f"written    {file}")
    print(f'speak      python inference.py -m {args.model} -t "A new voice speaks."')


def export_to(source: Path, output: Path) -> None:
    """Write a run, or a voice of another program, in the form of Hugging Face."""
    from importers import huggingface, reading
    from synthesis.voice import find_checkpoint
    from text.tokens import symbol_table

    voice = reading.read(source if source.is_file() else find_checkpoint(source))
    table = {symbol: ids[0] for symbol, ids in symbol_table(voice.config.data).ids.items()}
    for path in huggingface.write(output, voice.weights, voice.config, table):
        print(f"written    {path}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program with the given arguments, by default those of the command line."""
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    add("source", metavar="FILE_OR_FOLDER", help="file of weights, or the folder with it; with --to a run")
    add("-m", "--model", metavar="NAME", help="name of the new run, whose folder is logs/NAME, or that folder")
    add("-c", "--config", metavar="FILE", help="its config, JSON or YAML (default: in the file, or beside it)")
    add("--symbols", metavar="JSON", help="its table of symbols: a list, or an object of symbols and ids")
    add("--cleaners", nargs="+", metavar="NAME", help="cleaners of its texts (default: those of its config)")
    add("--to", choices=["hf"], help="write a run in the form of Hugging Face's VitsModel")
    add("-o", "--output", metavar="FOLDER", help="with --to: folder to write (default: that of -m)")
    args = parser.parse_args(arguments)
    if not (args.model or (args.to and args.output)) or (args.output and not args.to):
        parser.error("give -m NAME, or --to hf -o FOLDER")
    with cli.errors_in_one_line("import_voice"):
        if args.to:
            export_to(Path(args.source), Path(args.output) if args.output else run_folder(args.model))
        else:
            import_from(Path(args.source), args)


if __name__ == "__main__":
    main()
