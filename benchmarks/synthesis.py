"""Times speech from text by every door: times real time, milliseconds a sentence, until the first sound, file size.

Prints one JSON line. Without --model it times random weights of the shape of configs/vits2_ljs_nosdp.json, set to
speak at the pace of LJ Speech. The last sentence takes 10 seconds; its first sound is what its stream yields first.
`network_ms` is a sentence without its way from text to tokens, for PyTorch.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import checkpoint
import config as configs
from inference import errors_in_one_line
from models import SynthesizerTrn
from speech import BaseVoice
from synthesis import Voice, find_device
from text import espeak, table_of_symbols

DEFAULT_CONFIG = Path(__file__).resolve().parents[1] / "configs" / "vits2_ljs_nosdp.json"
SEED = 1  # where a voice takes one, a sentence is of one length at every round, whatever the duration predictor
WARM_UP = 2  # rounds before the timed ones: the first of a length captures CUDA graphs
FRAMES = 4.5  # a token; rounded up by the network to 5, as LJ Speech has
SENTENCES = [  # of the lengths of LJ Speech's, about 2, 6 and 10 seconds
    "The birch canoe slid on the smooth planks.",
    "The quick brown fox jumps over the lazy dog, while all the other animals watch and wonder why.",
    "In the morning they walked down to the harbor, bought fresh bread and coffee, and sat on the wall until the "
    "first boats came back with their catch, silvery and cold, in boxes.",
]
Text = str | list[int]  # or the ids of its tokens
Say = Callable[[Text], Iterator[np.ndarray]]  # a text to its audio in parts, as they are made


def random_voice(config_path: Path, device: str, **options: bool) -> Voice:
    """A voice of the config's shape with random weights and steady durations."""
    config = configs.load(config_path)
    torch.manual_seed(0)
    net = SynthesizerTrn.from_config(config, len(table_of_symbols()))
    if config.model.use_sdp:
        raise ValueError(f"{config_path} has a stochastic predictor: give a checkpoint, --model")
    with torch.no_grad():
        net.dp.proj.weight.zero_()
        net.dp.proj.bias.fill_(torch.tensor(FRAMES).log())
    return Voice(net.to(find_device(device)), config, **options)


def streamed(voice: BaseVoice, seed: int | None = None) -> Say:
    speaker = 0 if voice.data.n_speakers else None
    return lambda text: voice.speak(text, speaker, seed=seed, pause=0, stream=True)


def by_torch(voice: Voice, folder: Path, threads: int) -> Say:
    checkpoint.save_checkpoint(voice.net, None, 0.0, 0, folder / "voice.pth")
    return streamed(voice, SEED)


def by_onnx(voice: Voice, folder: Path, threads: int, **options) -> Say:
    from export_onnx import export
    from infer_onnx import OnnxVoice

    export(voice, folder / "voice.onnx", **options)
    return streamed(OnnxVoice(folder / "voice.onnx", threads=threads))


def by_split_onnx(voice: Voice, folder: Path, threads: int) -> Say:
    from export_onnx import export_split
    from infer_onnx import OnnxVoice

    export_split(voice, folder / "voice.onnx")
    return streamed(OnnxVoice(folder / "voice.onnx", threads=threads))


def exported_for(runtime: str, voice: Voice, folder: Path) -> Path:
    import runtimes
    from export_onnx import export

    path = folder / "voice.onnx"
    export(voice, path, for_runtimes=True)
    runtimes.RUNTIMES[runtime](voice, path)
    return path


def by_piper(voice: Voice, folder: Path, threads: int) -> Say:
    import onnxruntime
    import piper

    path = exported_for("piper", voice, folder)
    spoken = piper.PiperVoice.load(path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    spoken.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda text: (chunk.audio_float_array for chunk in spoken.synthesize(text))


def by_sherpa(voice: Voice, folder: Path, threads: int) -> Say:
    import sherpa_onnx

    path = exported_for("sherpa", voice, folder)
    model = sherpa_onnx.OfflineTtsVitsModelConfig(
        model=str(path), tokens=str(folder / "tokens.txt"), data_dir=espeak.find()[1]
    )
    config = sherpa_onnx.OfflineTtsModelConfig(vits=model, num_threads=threads)
    spoken = sherpa_onnx.OfflineTts(sherpa_onnx.OfflineTtsConfig(model=config))
    return lambda text: iter([np.asarray(spoken.generate(text).samples)])


RUNTIMES = {
    "torch": by_torch,
    "onnx": by_onnx,
    "onnx-half": lambda *args: by_onnx(*args, weights="half"),
    "onnx-int8": lambda *args: by_onnx(*args, weights="int8"),
    "onnx-split": by_split_onnx,
    "piper": by_piper,
    "sherpa": by_sherpa,
}


def whole(voice: BaseVoice, text: Text) -> Iterator[np.ndarray]:
    """The same without a stream, which decodes in one go."""
    yield voice.speak(text, 0 if voice.data.n_speakers else None, seed=SEED, pause=0).audio


def times(say: Say, text: Text, repeats: int) -> tuple[float, float, int]:
    """Median seconds until the first part and until the last, and samples of audio."""
    firsts, lasts = [], []
    for _ in range(WARM_UP + repeats):
        begin, first, samples = time.perf_counter(), None, 0
        for part in say(text):  # parts are on the CPU: nothing is left to wait for
            first = first or time.perf_counter() - begin
            samples += len(part)
        firsts.append(first)
        lasts.append(time.perf_counter() - begin)
    return statistics.median(firsts[WARM_UP:]), statistics.median(lasts[WARM_UP:]), samples


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="run, folder or checkpoint")
    parser.add_argument("--config", type=Path, default=DEFAULT_CONFIG, help="shape of the random weights")
    parser.add_argument("--runtime", choices=list(RUNTIMES), default="torch")
    parser.add_argument("--device", default="cpu", help="auto, cpu or cuda (PyTorch only)")
    parser.add_argument("--plain", action="store_true", help="on a GPU, without CUDA graphs")
    parser.add_argument("--fp32", action="store_true", help="on a GPU, with the decoder in fp32")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=5)
    with errors_in_one_line("benchmarks/synthesis"):
        print(json.dumps(measure(parser.parse_args())))


def measure(args: argparse.Namespace) -> dict:
    """What the command line asks for."""
    if args.runtime != "torch" and args.device != "cpu":
        raise ValueError("other runtimes are timed on the CPU; leave out --device")
    if args.repeats < 1:
        raise ValueError(f"--repeats is {args.repeats}; it counts from 1")
    torch.set_num_threads(args.threads)

    options = {"device": args.device, "graphs": not args.plain, "half": not args.fp32}
    voice = Voice.load(args.model, **options) if args.model else random_voice(args.config, **options)
    device = torch.cuda.get_device_name(voice.device) if voice.device.type == "cuda" else "cpu"
    with tempfile.TemporaryDirectory() as folder:
        say = RUNTIMES[args.runtime](voice, Path(folder), args.threads)
        megabytes = sum(path.stat().st_size for path in Path(folder).iterdir()) / 1e6
        one_go = (lambda text: whole(voice, text)) if args.runtime == "torch" else say
        spoken = [times(one_go, text, args.repeats) for text in SENTENCES]
        first, streamed_whole, _ = times(say, SENTENCES[-1], args.repeats)
    rate = voice.sampling_rate
    sentences = [{"seconds": round(n / rate, 2), "ms": round(1000 * t, 1)} for _, t, n in spoken]
    if args.runtime == "torch":
        for text, sentence in zip(SENTENCES, sentences):
            tokens = [token for line in voice.read(text) for token in line.tokens]
            sentence["network_ms"] = round(1000 * times(one_go, tokens, args.repeats)[1], 1)
    return {
        "runtime": args.runtime,
        "device": device,
        "graphs": bool(voice.graphed and voice.graphed.capture),
        "decoder": "fp16" if voice.half else "fp32",
        "threads": args.threads,
        "torch": torch.__version__,
        "times_real_time": round(sum(n for *_, n in spoken) / rate / sum(t for _, t, _ in spoken), 2),
        "sentences": sentences,
        "first_sound_ms": round(1000 * first, 1),
        "streamed_whole_ms": round(1000 * streamed_whole, 1),
        "megabytes": round(megabytes, 1),
    }


if __name__ == "__main__":
    main()
