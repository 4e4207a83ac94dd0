"""Speak with an exported voice through ONNX Runtime.

python infer_onnx.py --model NAME.onnx --output-wav-path speech.wav --text "Hello." [--sid 3]

Files written by export_onnx.py say everything themselves; files of other VITS code need --config-path.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnxruntime

import config as configs
from audio import save_audio
from inference import add_scales, errors_in_one_line
from speech import BaseVoice, Scales, Utterance
from text.symbols import symbols as vits_symbols

NOISE_FRAMES = 4096  # 47 seconds at 22,050 Hz and hop 256, after which given noise repeats
NEEDED = ("sample_rate", "hop_length", "n_speakers", "speakers", "cleaners", "symbols", "n_vocab", "add_blank")


class OnnxVoice(BaseVoice):
    """A voice in an ONNX file; speaks as `synthesis.Voice` does, through ONNX Runtime.

    Raises ValueError if the file is missing, is no ONNX model, or needs a config and has none.
    """

    def __init__(self, path: str | Path, config_path: str | Path | None = None, threads: int = 0):
        if not Path(path).is_file():
            raise ValueError(f"there is no file {path}")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        try:
            self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime has a type for each status, and all of them mean the same here
            raise ValueError(f"{path} is no ONNX model: {str(error).splitlines()[0]}") from None
        self.inputs = {entry.name: entry.shape for entry in self.session.get_inputs()}
        self.outputs = [entry.name for entry in self.session.get_outputs()]
        if not {"input", "input_lengths", "scales"} <= set(self.inputs):
            raise ValueError(f"{path} is no exported VITS voice: its inputs are {', '.join(self.inputs)}")
        metadata = self.session.get_modelmeta().custom_metadata_map
        if all(key in metadata for key in NEEDED):
            super().__init__(_data(metadata), int(metadata["n_vocab"]), int(metadata.get("step") or 0) or None)
        elif config_path is not None:
            super().__init__(configs.load(config_path).data)
        else:
            raise ValueError(f"{path} says nothing about its voice: give its config file with --config-path")
        self._random: np.random.Generator | None = None

    def _utter(self, tokens: list[list[int]], sid: int | None, scales: Scales) -> list[Utterance]:
        lengths = np.array([len(t) for t in tokens], np.int64)
        x = np.zeros((len(tokens), lengths.max()), np.int64)
        for row, t in zip(x, tokens):
            row[: len(t)] = t
        feed = {"input": x, "input_lengths": lengths, "scales": np.array(scales, np.float32)}
        if "sid" in self.inputs:
            feed["sid"] = np.full(len(tokens), sid or 0, np.int64)
        feed |= self._noise(x.shape)
        audio, *durations = self.session.run(self.outputs, feed)
        audio = audio.reshape(len(tokens), -1)
        if not durations:
            return [Utterance(samples, None) for samples in audio]
        frames = [d[:n].astype(np.int64) for d, n in zip(durations[0], lengths)]
        return [Utterance(a[: max(1, d.sum()) * self.data.hop_length], d) for a, d in zip(audio, frames)]

    def _noise(self, shape: tuple[int, int]) -> dict[str, np.ndarray]:
        """Random numbers for the inputs that ask for them, by the seed if there is one; shape `[b, t_s]`."""
        random = self._random or np.random.default_rng()
        b, t_s = shape
        columns = {"noise_w": t_s, "noise": NOISE_FRAMES}
        return {
            name: random.standard_normal((b, int(self.inputs[name][1]), n), np.float32)
            for name, n in columns.items()
            if name in self.inputs
        }

    @contextmanager
    def _seeded(self, seed: int | None) -> Iterator[None]:
        if seed is not None and "noise" not in self.inputs:
            raise ValueError("this file draws its own noise: export it with --noise-inputs, and seeds will work")
        self._random = None if seed is None else np.random.default_rng(seed)
        yield


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
    parser.add_argument("--output-wav-path", required=True, help=".wav, .flac or .ogg file to write")
    parser.add_argument("--text", required=True)
    parser.add_argument("--sid", help="speaker, by id or name, for models of many")
    add_scales(parser)
    args = parser.parse_args(arguments)
    with errors_in_one_line("infer_onnx"):
        voice = OnnxVoice(args.model, args.config_path)
        scales = Scales(args.noise_scale, args.length_scale, args.noise_scale_w)._asdict()
        speech = voice.speak(args.text, args.sid, seed=args.seed, phonemes=args.phonemes, pause=args.pause, **scales)
        Path(args.output_wav_path).parent.mkdir(parents=True, exist_ok=True)
        save_audio(args.output_wav_path, speech.audio, speech.sampling_rate)
        print(f"{args.output_wav_path}: {speech.seconds:.2f} s")


if __name__ == "__main__":
    main()
