"""Make a corpus of synthetic speech: a teacher voice speaks lines of text.

TEXTS has lines `name|text`, such as the metadata.csv of LJ Speech, or lines of text alone. FOLDER receives
wavs/NAME.flac and metadata.csv, which `make_filelists.py folder` reads. The same command continues after an
interruption. The voice is `heart` of hibari (Apache-2.0), whose weights are in the package.

Examples:
  pip install hibari-tts==0.2.1
  python recipes/teacher.py TEXTS --output corpora/teacher --clips 4500
  python make_filelists.py folder corpora/teacher --name teacher
"""

import importlib.util
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import soxr
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cli
from audio import save_audio
from files import write_text
from recipes import peers

CHUNK = 8  # lines that a process receives at once
MAX_CHARACTERS = 200  # longer lines are left out, because training leaves out long recordings

_say: peers.Say | None = None  # of a worker process


def read_texts(path: str | Path) -> dict[str, str]:
    """Return the texts by name. Lines without a name are named by their number. Raises ValueError for equal names."""
    texts: dict[str, str] = {}
    for number, line in enumerate(Path(path).read_text("utf-8-sig").splitlines(), 1):
        *name, text = (part.strip() for part in line.split("|")[:2])
        if not text:
            continue
        key = name[0] if name else f"{number:06}"
        if key in texts:
            raise ValueError(f"{path}, line {number}: the name {key!r} occurs twice")
        texts[key] = text
    return {name: text for name, text in texts.items() if len(text) <= MAX_CHARACTERS}


def load() -> None:
    """Load the teacher in a worker process."""
    global _say
    _say = peers.hibari()


def speak(path: Path, text: str, sampling_rate: int | None) -> None:
    """Speak a text to a file that does not exist yet, at a rate in Hz or that of the teacher."""
    if not path.exists():
        assert _say is not None
        samples, rate = _say(text)
        if sampling_rate is not None:
            samples = soxr.resample(samples, rate, sampling_rate)
        save_audio(path, samples, sampling_rate or rate)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program with the given arguments, by default those of the command line."""
    parser = cli.Parser(__doc__)
    parser.add_argument("texts", metavar="TEXTS", help="lines name|text or text, plain English")
    parser.add_argument("--output", required=True, metavar="FOLDER", help="folder of the corpus")
    parser.add_argument("--clips", type=int, metavar="N", help="speak N lines, evenly chosen (default: all)")
    rate = "rate of the recordings (default: the teacher's)"
    parser.add_argument("--sampling-rate", type=int, metavar="HZ", help=rate)
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), metavar="N", help="processes that speak")
    args = parser.parse_args(arguments)
    with cli.errors_in_one_line("recipes/teacher"):
        texts = list(read_texts(args.texts).items())
        clips = len(texts) if args.clips is None else min(args.clips, len(texts))
        if clips < 1 or args.jobs < 1 or (args.sampling_rate or 1) < 1:
            raise ValueError("there is nothing to speak: TEXTS needs lines, and all numbers are at least 1")
        if importlib.util.find_spec("hibari") is None:
            raise ValueError("the teacher is not installed: pip install hibari-tts==0.2.1")
        chosen = dict(texts[i * len(texts) // clips] for i in range(clips))
        wavs = Path(args.output) / "wavs"
        wavs.mkdir(parents=True, exist_ok=True)
        paths = [wavs / f"{name}.flac" for name in chosen]
        with ProcessPoolExecutor(args.jobs, initializer=load) as pool:
            spoken = pool.map(partial(speak, sampling_rate=args.sampling_rate), paths, chosen.values(), chunksize=CHUNK)
            for _ in tqdm(spoken, "speaking", len(paths), unit="line", disable=None):
                pass
        write_text(Path(args.output) / "metadata.csv", "".join(f"{name}|{text}\n" for name, text in chosen.items()))
        print(f"{len(paths)} lines: {args.output}")


if __name__ == "__main__":
    main()
