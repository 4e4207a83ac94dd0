"""Time the synthesis of speech from text with any runtime, and print one line of JSON.

Without `--model`, the voice has the network of `--config` with random weights, and speaks at the pace of LJ Speech. The
output has the speed in times real time, the milliseconds of three sentences of 2, 6 and 10 seconds, and the time until
a stream of the longest one yields its first sound. `network_ms`, with PyTorch only, leaves out the conversion of the
text to tokens. With `--lines N`, it also has the speed of `speak_batch` on N texts, and of one text after the other.

Examples:
  python benchmarks/synthesis.py --runtime onnx
  python benchmarks/synthesis.py --device cuda --repeats 10
  python benchmarks/synthesis.py --device cuda --lines 1024
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import checkpoint
import cli
import config as configs
from export import runtimes
from export_onnx import export, export_split
from infer_onnx import OnnxVoice, load_session
from models import SynthesizerTrn
from synthesis.speech import BaseVoice, Text
from synthesis.voice import Voice, find_device
from text import espeak, table_of_symbols

SEED = 1  # makes a sentence equally long in every round, if the runtime accepts a seed
WARM_UP = 2  # rounds before the timed ones; the first sentence of a length captures CUDA graphs
FRAMES = 4.5  # per token; the network rounds up to 5, as in LJ Speech
SENTENCES = [  # of about 2, 6 and 10 seconds, as in LJ Speech
    "The birch canoe slid on the smooth planks.",
    "The quick brown fox jumps over the lazy dog, while all the other animals watch and wonder why.",
    "In the morning they walked down to the harbor, bought fresh bread and coffee, and sat on the wall until the "
    "first boats came back with their catch, silvery and cold, in boxes.",
]
Say = Callable[[Text], Iterator[np.ndarray]]  # yields the audio of a text in parts, as they are synthesized


def random_network(config_path: Path) -> tuple[SynthesizerTrn, configs.Config]:
    """Return a network with random weights and constant durations. Raises ValueError for a stochastic predictor."""
    config = configs.load(config_path)
    torch.manual_seed(0)
    net = SynthesizerTrn.from_config(config, len(table_of_symbols()))
    if config.model.use_sdp:
        raise ValueError(f"{config_path} has a stochastic duration predictor: give a checkpoint with --model")
    with torch.no_grad():
        net.dp.proj.weight.zero_()
        net.dp.proj.get_parameter("bias").fill_(torch.tensor(FRAMES).log())
    return net, config


def random_voice(config_path: Path, device: str, **options: bool) -> Voice:
    """Return a voice of `random_network`."""
    net, config = random_network(config_path)
    return Voice(net.to(find_device(device)), config, **options)


def speaking(voice: BaseVoice, seed: int | None = None, stream: bool = True) -> Say:
    """Return a function that speaks as a stream or, without `stream`, decodes a sentence in one pass."""
    speak: Callable[..., Any] = partial(voice.speak, speaker=0 if voice.data.n_speakers else None, seed=seed, pause=0)
    return partial(speak, stream=True) if stream else lambda text: iter([speak(text).audio])


def by_torch(voice: Voice, folder: Path, threads: int) -> Say:
    """Save the voice, and return a function that speaks with PyTorch."""
    checkpoint.save_checkpoint(voice.net, None, 0.0, 0, folder / "voice.pth")
    return speaking(voice, SEED)


def by_onnx(write: Callable[..., object], voice: Voice, folder: Path, threads: int) -> Say:
    """Export with a function of export_onnx.py, and return a function that speaks with ONNX Runtime."""
    write(voice, folder / "voice.onnx")
    return speaking(OnnxVoice(folder / "voice.onnx", threads=threads))


def by_piper(voice: Voice, folder: Path, threads: int) -> Say:
    """Export, and return a function that speaks with Piper."""
    import piper

    path = folder / "voice.onnx"
    export(voice, path, for_runtimes=True)
    runtimes.RUNTIMES["piper"](voice, path)
    spoken = piper.PiperVoice.load(path)
    spoken.session = load_session(path, threads)
    return lambda text: (chunk.audio_float_array for chunk in spoken.synthesize(str(text)))


def by_sherpa(voice: Voice, folder: Path, threads: int) -> Say:
    """Export, and return a function that speaks with sherpa-onnx."""
    import sherpa_onnx

    path = folder / "voice.onnx"
    export(voice, path, for_runtimes=True)
    runtimes.RUNTIMES["sherpa"](voice, path)
    files = {"model": str(path), "tokens": str(folder / "tokens.txt"), "data_dir": espeak.find()[1]}
    model = sherpa_onnx.OfflineTtsVitsModelConfig(**files)
    config = sherpa_onnx.OfflineTtsModelConfig(vits=model, num_threads=threads)
    spoken = sherpa_onnx.OfflineTts(sherpa_onnx.OfflineTtsConfig(model=config))
    return lambda text: iter([np.asarray(spoken.generate(text).samples)])


RUNTIMES: dict[str, Callable[[Voice, Path, int], Say]] = {
    "torch": by_torch,
    "onnx": partial(by_onnx, export),
    "onnx-half": partial(by_onnx, partial(export, weights="half")),
    "onnx-int8": partial(by_onnx, partial(export, weights="int8")),
    "onnx-split": partial(by_onnx, export_split),
    "piper": by_piper,
    "sherpa": by_sherpa,
}


def times(say: Say, text: Text, repeats: int) -> tuple[float, float, int]:
    """Return the median seconds until the first part and until the last, and the number of samples."""
    firsts, lasts = [], []
    for _ in range(WARM_UP + repeats):
        begin, first, samples = time.perf_counter(), 0.0, 0
        for part in say(text):  # parts are on the CPU, so there is no device to wait for
            first = first or time.perf_counter() - begin
            samples += len(part)
        firsts.append(first)
        lasts.append(time.perf_counter() - begin)
    return statistics.median(firsts[WARM_UP:]), statistics.median(lasts[WARM_UP:]), samples


def batch_speeds(voice: BaseVoice, count: int, repeats: int) -> dict[str, Any]:
    """Return the speed of many texts in times real time: together, and one after the other.

    The texts have 4 to 30 words of `SENTENCES`. The batch size is the voice's own.
    """
    random, words = np.random.default_rng(SEED), " ".join(SENTENCES).split()
    texts = [" ".join(random.choice(words, random.integers(4, 31))) for _ in range(count)]
    options: dict[str, Any] = {"speaker": 0 if voice.data.n_speakers else None, "pause": 0}
    speeds = {}
    for name, speak in {
        "times_real_time": lambda: voice.speak_batch(texts, **options),
        "one_by_one_times_real_time": lambda: [voice.speak(text, **options) for text in texts],
    }.items():
        spans = []
        for _ in range(1 + repeats):
            begin = time.perf_counter()
            seconds = sum(speech.seconds for speech in speak())
            spans.append(time.perf_counter() - begin)
        speeds[name] = round(seconds / statistics.median(spans[1:]), 2)
    return {"lines": count, "batch": voice.batch, **speeds}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the program."""
    parser = cli.Parser(__doc__)
    cli.add_run(parser, "--model", help="name of a run, its folder, or a checkpoint (default: random weights)")
    add = parser.add_argument
    config = Path(__file__).resolve().parents[1] / "configs/vits2_ljs_nosdp.json"
    text = "config file of the random weights (default: configs/vits2_ljs_nosdp.json)"
    add("--config", type=Path, default=config, metavar="JSON", help=text)
    add("--runtime", choices=list(RUNTIMES), default="torch", help="program that computes the network")
    add("--device", default="cpu", help="auto, cpu or cuda; for PyTorch only")
    add("--plain", action="store_true", help="on a GPU, speak without CUDA graphs")
    add("--fp32", action="store_true", help="on a GPU, decode in fp32")
    add("--threads", type=int, default=2, metavar="N", help="CPU threads")
    add("--repeats", type=int, default=5, metavar="N", help="timed rounds, of which the median is taken")
    add("--lines", type=int, default=0, metavar="N", help="also time N texts in batches; for PyTorch only")
    args = parser.parse_args(argv)
    with cli.errors_in_one_line("benchmarks/synthesis"):
        print(json.dumps(measure(args)))


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Time what the command line requests. Raises ValueError if its options contradict each other."""
    if args.runtime != "torch" and args.device != "cpu":
        raise ValueError(f"--runtime {args.runtime} is timed on the CPU: omit --device")
    if args.lines and args.runtime != "torch":
        raise ValueError("--lines is timed with PyTorch: omit --runtime")
    if args.repeats < 1:
        raise ValueError(f"--repeats is {args.repeats}; it must be 1 or more")
    torch.set_num_threads(args.threads)
    options = {"device": args.device, "graphs": not args.plain, "half": not args.fp32}
    voice = Voice.load(args.model, **options) if args.model else random_voice(args.config, **options)
    with tempfile.TemporaryDirectory() as folder:
        say = RUNTIMES[args.runtime](voice, Path(folder), args.threads)
        megabytes = sum(path.stat().st_size for path in Path(folder).iterdir()) / 1e6
        one_pass = speaking(voice, SEED, stream=False) if args.runtime == "torch" else say
        spoken = [times(one_pass, text, args.repeats) for text in SENTENCES]
        first, streamed_whole, _ = times(say, SENTENCES[-1], args.repeats)
        batched = {"batched": batch_speeds(voice, args.lines, args.repeats)} if args.lines else {}
    rate = voice.sampling_rate
    sentences = [{"seconds": round(n / rate, 2), "ms": round(1000 * t, 1)} for _, t, n in spoken]
    if args.runtime == "torch":
        for text, sentence in zip(SENTENCES, sentences):
            tokens = [token for line in voice.read(text) for token in line.tokens]
            sentence["network_ms"] = round(1000 * times(one_pass, tokens, args.repeats)[1], 1)
    return {
        "runtime": args.runtime,
        "device": torch.cuda.get_device_name(voice.device) if voice.device.type == "cuda" else "cpu",
        "graphs": bool(voice.graphed and voice.graphed.capture),
        "decoder": "fp16" if voice.half else "fp32",
        "threads": args.threads,
        "torch": torch.__version__,
        "times_real_time": round(sum(n for *_, n in spoken) / rate / sum(t for _, t, _ in spoken), 2),
        "sentences": sentences,
        "first_sound_ms": round(1000 * first, 1),
        "streamed_whole_ms": round(1000 * streamed_whole, 1),
        "megabytes": round(megabytes, 1),
        **batched,
    }


if __name__ == "__main__":
    main()
