"""Speak with an exported voice through ONNX Runtime.

python infer_onnx.py --model NAME.onnx --output-wav-path speech.wav --text "Hello." [--sid 3]

Files written by export_onnx.py say everything themselves; files of other VITS code need --config-path. Of a voice
exported with --split, name NAME.encoder.onnx; NAME.decoder.onnx is found beside it, and --output-raw streams the voice.
"""

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnxruntime

import config as configs
import inference
from speech import BaseVoice, Latent, Scales
from text.symbols import symbols as vits_symbols

ENCODER, DECODER = ".encoder.onnx", ".decoder.onnx"  # what a voice in two files ends with
NOISE_FRAMES = 4096  # 47 seconds at 22,050 Hz and hop 256, after which given noise repeats
NEEDED = ("sample_rate", "hop_length", "n_speakers", "speakers", "cleaners", "symbols", "n_vocab", "add_blank")


class OnnxVoice(BaseVoice):
    """A voice in an ONNX file, or in two; speaks as `synthesis.Voice` does, through ONNX Runtime.

    Raises ValueError if a file is missing, is no ONNX model, or needs a config and has none.
    """

    def __init__(self, path: str | Path, config_path: str | Path | None = None, threads: int = 0):
        path = Path(path)
        if not path.is_file() and path.with_suffix(ENCODER).is_file():
            path = path.with_suffix(ENCODER)
        self.session = _session(path, threads)
        self.inputs = {entry.name: entry.shape for entry in self.session.get_inputs()}
        self.outputs = [entry.name for entry in self.session.get_outputs()]
        if not {"input", "input_lengths", "scales"} <= set(self.inputs):
            raise ValueError(f"{path} is no exported VITS voice: its inputs are {', '.join(self.inputs)}")
        self.path = path
        self.decoder = self._decoder(threads) if "z" in self.outputs else None
        metadata = self.session.get_modelmeta().custom_metadata_map
        if all(key in metadata for key in NEEDED):
            try:
                super().__init__(_data(metadata), int(metadata["n_vocab"]), int(metadata.get("step") or 0) or None)
            except (ValueError, AttributeError) as error:
                raise ValueError(f"{path}: its metadata is broken: {error}") from None
        elif config_path is not None:
            super().__init__(configs.load(config_path).data)
        else:
            raise ValueError(f"{path} says nothing about its voice: give its config file with --config-path")
        self.context = int(metadata.get("context", 0))
        self._random = np.random.default_rng()

    def _decoder(self, threads: int) -> onnxruntime.InferenceSession:
        path = self.path.with_name(self.path.name.removesuffix(ENCODER) + DECODER)
        decoder = _session(path, threads)
        if decoder.get_modelmeta().custom_metadata_map != self.session.get_modelmeta().custom_metadata_map:
            raise ValueError(f"{path} and {self.path} are not of one export: export the voice again")
        return decoder

    def _latents(self, tokens: list[list[int]], sid: int | None, scales: Scales) -> list[Latent]:
        if self.decoder is None and len(tokens) > 1:  # one by one: the decoder in the file hears the others' padding
            return [latent for t in tokens for latent in self._latents([t], sid, scales)]
        lengths = np.array([len(t) for t in tokens], np.int64)
        x = np.zeros((len(tokens), lengths.max()), np.int64)
        for row, t in zip(x, tokens):
            row[: len(t)] = t
        feed = {"input": x, "input_lengths": lengths, "scales": np.array(scales, np.float32)}
        if "sid" in self.inputs:
            feed["sid"] = np.full(len(tokens), sid or 0, np.int64)
        feed |= self._noise(x.shape)
        made, *more = _run(self.session, self.outputs, feed, self.path)
        durations = [d[:n].astype(np.int64) for d, n in zip(more[0], lengths)] if more else [None]
        if self.decoder is None:  # the file went all the way to sound
            return [Latent(made.reshape(-1), made.size // self.data.hop_length, durations[0])]
        frames = [max(1, int(d.sum())) for d in durations]
        g = [{"g": g[None]} for g in more[1]] if len(more) > 1 else [{}] * len(tokens)
        contents = ({"z": z[None, :, :n], **speaker} for z, n, speaker in zip(made, frames, g))
        return [Latent(content, n, d) for content, n, d in zip(contents, frames, durations)]

    def _decode(self, latent: Latent, start: int, end: int) -> np.ndarray:
        if self.decoder is None:
            return latent.content[start * self.data.hop_length : end * self.data.hop_length]
        z = np.ascontiguousarray(latent.content["z"][:, :, start:end])
        return _run(self.decoder, ["output"], {**latent.content, "z": z}, self.path)[0].reshape(-1)

    def _noise(self, shape: tuple[int, int]) -> dict[str, np.ndarray]:
        """Random numbers for the inputs that ask for them, by the seed if there is one; shape `[b, t_s]`."""
        b, t_s = shape
        columns = {"noise_w": t_s, "noise": NOISE_FRAMES}
        return {
            name: self._random.standard_normal((b, int(self.inputs[name][1]), n), np.float32)
            for name, n in columns.items()
            if name in self.inputs
        }

    def _draws(self, seed: int | None) -> Callable[[], AbstractContextManager]:
        if seed is not None and "noise" not in self.inputs:
            raise ValueError("this file draws its own noise: export it with --noise-inputs, and seeds will work")
        random = np.random.default_rng(seed)

        @contextmanager
        def drawing() -> Iterator[None]:
            self._random = random
            yield

        return drawing


def _session(path: Path, threads: int) -> onnxruntime.InferenceSession:
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has a type for each status, and all of them mean the same here
        raise ValueError(f"{path} is no ONNX model: {str(error).splitlines()[0]}") from None


def _run(session: onnxruntime.InferenceSession, outputs: list[str], feed: dict, path: Path) -> list[np.ndarray]:
    try:
        return session.run(outputs, feed)
    except Exception as error:  # as above: an id that the network does not have, or a file that is not what it says
        raise ValueError(f"{path} cannot speak this: {str(error).splitlines()[0]}") from None


def _data(metadata: dict[str, str]) -> SimpleNamespace:
    """The part of a config's data section that speaking needs, from a file's metadata."""
    speakers = json.loads(metadata["speakers"])
    return SimpleNamespace(
        sampling_rate=int(metadata["sample_rate"]),
        hop_length=int(metadata["hop_length"]),
        n_speakers=int(metadata["n_speakers"]),
        speakers=speakers,
        text_cleaners=json.loads(metadata["cleaners"]),
        extra_symbols="".join(json.loads(metadata["symbols"])[len(vits_symbols) :]),
        add_blank=metadata["add_blank"] == "1",
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="the .onnx file")
    parser.add_argument("--config-path", help="config file, for .onnx files that do not describe themselves")
    parser.add_argument("--output-wav-path", dest="output", help=".wav, .flac or .ogg file to write; - is stdout")
    parser.add_argument("--text", required=True)
    parser.add_argument("--sid", dest="speaker", help="speaker, by id or name, for models of many")
    parser.set_defaults(picture=None)
    inference.add_scales(parser)
    args = parser.parse_args(arguments)
    with inference.errors_in_one_line("infer_onnx"):
        inference.refuse_contradictions(args)
        inference.speak_text(OnnxVoice(args.model, args.config_path), args)


if __name__ == "__main__":
    main()
