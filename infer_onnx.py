"""Speak with an exported voice through ONNX Runtime.

Files of export_onnx.py describe themselves; files of other VITS code need --config-path. PyTorch is not needed.

Without --model the pretrained voice speaks. It is exported once, which needs PyTorch and onnx.

Examples:
  python infer_onnx.py --text "Hello." --output-wav-path hello.wav
  python infer_onnx.py --model NAME.onnx --text "Hello." --output-wav-path hello.wav
  python infer_onnx.py --model NAME.onnx --text "Hello." --sid 3 --output-wav-path hello.wav
  python infer_onnx.py --model NAME.encoder.onnx --text "Hello." --output-raw | aplay -t raw -f S16_LE -r 22050
The last one streams a voice that was exported with --split; NAME.decoder.onnx must be in the same folder.
"""

import cli

if __name__ == "__main__":
    cli.interrupts_in_one_line()

import hashlib
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import config as configs
from conditions import CONDITIONS, Values
from export import metadata
from files import pretrained_voice
from synthesis import output
from synthesis.speech import BaseVoice, Latent, Scales, Seeds

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

ENCODER, DECODER = ".encoder.onnx", ".decoder.onnx"  # suffixes of a voice in two files
MAX_NOISE_CHANNELS = 4096
DIGEST_LENGTH = 16  # hexadecimal digits, of the name of an exported file
EXPORTED = f"{'[0-9a-f]' * DIGEST_LENGTH}.onnx"  # pattern of these names
KEPT_EXPORTS = 2  # files of the pretrained voice in the cache
NOISE_FRAMES = 4096  # length of given noise, after which it repeats: 47 seconds at 22,050 Hz and hop 256


class OnnxVoice(BaseVoice):
    """A voice in one or two ONNX files, with the interface of `synthesis.Voice`.

    Args: `path`, the file; of two files, the encoder's, or the name with the suffix .onnx that export_onnx.py was
    given; `config_path`, for files that do not describe themselves; `threads` of ONNX Runtime; 0 is all. Raises
    ValueError if a file is missing or not an ONNX model of a voice, or if the config or onnxruntime is missing.
    """

    def __init__(self, path: str | Path, config_path: str | Path | None = None, threads: int = 0):
        path = Path(path)
        if not path.is_file() and path.with_suffix(ENCODER).is_file():
            path = path.with_suffix(ENCODER)
        self.session = load_session(path, threads)
        self.inputs = {entry.name: entry.shape for entry in self.session.get_inputs()}
        self.outputs = [entry.name for entry in self.session.get_outputs()]
        if not {"input", "input_lengths", "scales"} <= set(self.inputs):
            raise ValueError(f"{path} is not an exported VITS voice: its inputs are {', '.join(self.inputs)}")
        for name in {"noise_w", "noise"} & self.inputs.keys():
            shape = self.inputs[name]
            if len(shape) != 3 or not isinstance(shape[1], int) or not 0 < shape[1] <= MAX_NOISE_CHANNELS:
                raise ValueError(f"{path} is not an exported VITS voice: its input {name} has the shape {shape}")
        self.path = path
        self.decoder = None
        facts = self.session.get_modelmeta().custom_metadata_map
        if "z" in self.outputs:
            beside = path.with_name(path.name.removesuffix(ENCODER) + DECODER)
            self.decoder = load_session(beside, threads)
            if self.decoder.get_modelmeta().custom_metadata_map != facts:
                raise ValueError(f"{beside} and {path} are not of one export: export the voice again")
        try:
            described = metadata.read(facts)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
        if described:
            super().__init__(described.data, described.n_vocab, described.step)
            self.context = described.context
        elif config_path is not None:
            super().__init__(configs.load(config_path).data)
        else:
            raise ValueError(f"{path} does not describe its voice: give its config file with --config-path")
        self._random = np.random.default_rng()

    def _latents(self, tokens: list[list[int]], values: Values, scales: Scales, seeds: Seeds) -> list[Latent]:
        if self.decoder is None and len(tokens) > 1:  # one by one, because padding would change the decoder's output
            return [latent for t, seed in zip(tokens, seeds) for latent in self._latents([t], values, scales, [seed])]
        if "noise" not in self.inputs and any(seed is not None for seed in seeds):
            raise ValueError("this file draws its own noise: export it with --noise-inputs to use seeds")
        lengths = np.array([len(t) for t in tokens], np.int64)
        x = np.zeros((len(tokens), lengths.max()), np.int64)
        for row, t in zip(x, tokens):
            row[: len(t)] = t
        feed = {"input": x, "input_lengths": lengths, "scales": np.array(scales, np.float32)}
        for name in CONDITIONS.keys() & self.inputs.keys():
            # a file of other VITS code may ask a single-speaker voice for a speaker, who is 0
            feed[name] = np.stack([values.get(name, np.int64(0))] * len(x))
        randoms = [self._random if seed is None else np.random.default_rng(seed) for seed in seeds]
        for name, columns in ("noise_w", lengths), ("noise", [NOISE_FRAMES] * len(x)):
            if name in self.inputs:
                feed[name] = np.zeros((len(x), int(self.inputs[name][1]), max(columns)), np.float32)
                for item, random, count in zip(feed[name], randoms, columns):
                    item[:, :count] = random.standard_normal((len(item), count), np.float32)
        made, *more = _run(self.session, self.outputs, feed, self.path)
        durations: list[Any] = [d[:n].astype(np.int64) for d, n in zip(more[0], lengths)] if more else [None]
        if self.decoder is None:  # the file includes the decoder
            return [Latent(made.reshape(-1), made.size // self.data.hop_length, durations[0])]
        encoded = {name: value for name, value in zip(self.outputs, [made, *more]) if name != "durations"}
        contents = ({name: value[i : i + 1] for name, value in encoded.items()} for i in range(len(tokens)))
        return [Latent(content, max(1, int(d.sum())), d) for content, d in zip(contents, durations)]

    def _decode(self, latent: Latent, start: int, end: int) -> np.ndarray:
        if self.decoder is None:
            return latent.content[start * self.data.hop_length : end * self.data.hop_length]
        z = np.ascontiguousarray(latent.content["z"][:, :, start:end])
        return _run(self.decoder, ["output"], {**latent.content, "z": z}, self.path)[0].reshape(-1)


def exported() -> Path:
    """Return the ONNX file of the pretrained voice, which the first call exports to the user's cache.

    The export removes those of earlier voices, except for the newest, which another installation may use.

    Raises ValueError if the voice or a package that the export needs is missing, or the cache cannot be written.
    """
    file = pretrained_voice()
    digest = hashlib.sha256(file.read_bytes()).hexdigest()[:DIGEST_LENGTH]
    path = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "vits2", f"{digest}.onnx")
    if not path.is_file():
        for package in ("torch", "onnx"):
            cli.extra(package)
        import export_onnx
        from synthesis import Voice

        print(f"infer_onnx: exporting the voice to {path}, once", file=sys.stderr)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            folder = f"{path.parent}, the folder of exported voices, cannot be created"
            raise ValueError(f"{folder}: {error.strerror}; XDG_CACHE_HOME names another one") from error
        export_onnx.export(Voice.load(file), path, noise_inputs=True)
        for earlier in sorted(path.parent.glob(EXPORTED), key=lambda one: one.stat().st_mtime)[:-KEPT_EXPORTS]:
            earlier.unlink(missing_ok=True)
    return path


def load_session(path: Path, threads: int) -> "InferenceSession":
    """Load a model on the CPU; 0 threads are all. Raises ValueError if there is none."""
    onnxruntime = cli.extra("onnxruntime")
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has a type for each status
        raise ValueError(f"{path} is not an ONNX model: {str(error).splitlines()[0]}") from None


def _run(session: "InferenceSession", outputs: Sequence[str], feed: Mapping[str, Any], path: Path) -> list[np.ndarray]:
    """Run a model. Raises ValueError if it fails, as for an id that the network does not have."""
    try:
        return session.run(outputs, feed)
    except Exception as error:  # as in `_session`
        raise ValueError(f"{path} cannot speak this: {str(error).splitlines()[0]}") from None


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program with the given arguments, by default those of the command line."""
    parser = cli.Parser(__doc__)
    parser.add_argument("--model", metavar="ONNX", help="the .onnx file (default: the pretrained voice)")
    parser.add_argument("--config-path", metavar="JSON", help="config file, for files that do not describe themselves")
    wav = ".wav, .flac or .ogg file to write; - is standard output (default: speech.wav)"
    parser.add_argument("--output-wav-path", dest="output", metavar="FILE", help=wav)
    parser.add_argument("--text", required=True, help="text to speak")
    parser.add_argument("--sid", dest="speaker", metavar="SPEAKER", help="id or name, for a voice of several speakers")
    cli.add_speaking_options(parser)
    args = parser.parse_args(arguments)
    with cli.errors_in_one_line("infer_onnx"):
        cli.check_speaking_options(args)
        voice = OnnxVoice(args.model or exported(), args.config_path)
        cli.add_words(voice, args)
        text, path = cli.given_text(args.text, args), args.output or "speech.wav"
        output.speak_to_file(voice, text, path, args.timings, args.output_raw, **cli.speaking_options(args))


if __name__ == "__main__":
    main()
