"""Time the measurements of the corpus check, and count how many altered copies of recordings it finds.

FILELISTs have lines `path|text` or `path|speaker|text`. The program prints one line of JSON: CPU milliseconds of one
thread for a recording, decoded only and measured, the copies that were found of those made, by their kind, and the
pairs of different recordings that were taken for the same speech.

Example:
  python benchmarks/check.py train.txt val.txt --copies 140
"""

import io
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cli
from audio import load_audio, read_header
from corpora.duplicates import fingerprint, near_duplicates
from corpora.filelist import read_filelist
from corpora.sounds import measure

Sound = tuple[np.ndarray, int]  # samples float32 [n] and their rate in Hz


def main(argv: Sequence[str] | None = None) -> None:
    """Run the program."""
    parser = cli.Parser(__doc__)
    parser.add_argument("filelists", nargs="+", metavar="FILELIST", help="filelists of recordings")
    parser.add_argument("--copies", type=int, default=140, metavar="N", help="copies of each kind")
    args = parser.parse_args(argv)
    with cli.errors_in_one_line("benchmarks/check"):
        if args.copies < 1:
            raise ValueError(f"--copies is {args.copies}; it must be 1 or more")
        paths = [*dict.fromkeys(clip.path for path in args.filelists for clip in read_filelist(path))]
        rates = [read_header(path)[1] for path in paths]
        measured = [measure(path).words for path in paths]  # also reads the files for the timed passes
        result: dict[str, Any] = {
            "recordings": len(paths),
            "decode_ms": milliseconds(load_audio, paths, rates),
            "measure_ms": milliseconds(measure, paths),
            "false_pairs": len(near_duplicates(measured)),
        }
        sources = [len(paths) * i // args.copies for i in range(min(args.copies, len(paths)))]
        sounds = [(load_audio(paths[i], rates[i]), rates[i]) for i in sources]
        for name, alter in ALTERATIONS.items():
            copies = [fingerprint(*alter(samples, rate)) for samples, rate in sounds]
            pairs = {(a, b) for a, b, _ in near_duplicates([*measured, *copies])}
            found = sum((source, len(paths) + i) in pairs for i, source in enumerate(sources))
            result[name] = f"{found} of {len(copies)}"
        print(json.dumps(result))


def milliseconds(function: Callable[..., Any], *arguments: Sequence[Any]) -> float:
    """Return the mean CPU time of a call."""
    began = time.process_time()
    for each in zip(*arguments):
        function(*each)
    return round(1000 * (time.process_time() - began) / len(arguments[0]), 2)


def encoded(samples: np.ndarray, rate: int, kind: str, subtype: str) -> Sound:
    """Return samples after lossy encoding."""
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=kind, subtype=subtype)
    file.seek(0)
    return soundfile.read(file, dtype="float32")


def noisy(samples: np.ndarray, rate: int) -> Sound:
    """Return samples with white noise 20 dB below them."""
    noise = np.random.default_rng(0).standard_normal(len(samples), np.float32)
    return samples + 0.1 * np.sqrt(np.mean(samples**2)) * noise, rate


def resampled(samples: np.ndarray, rate: int, to: int) -> Sound:
    """Return samples at another rate."""
    return soxr.resample(samples, rate, to), to


def combined(samples: np.ndarray, rate: int) -> Sound:
    """Return samples that are cut, resampled, quieter and encoded."""
    low, to = resampled(samples[rate // 10 : -rate // 20], rate, 16000)
    return encoded(0.1 * low, to, "OGG", "VORBIS")


ALTERATIONS: dict[str, Callable[[np.ndarray, int], Sound]] = {
    "vorbis": lambda samples, rate: encoded(samples, rate, "OGG", "VORBIS"),
    "mp3": lambda samples, rate: encoded(samples, rate, "MP3", "MPEG_LAYER_III"),
    "8000 Hz": lambda samples, rate: resampled(samples, rate, 8000),
    "48000 Hz": lambda samples, rate: resampled(samples, rate, 48000),
    "50 ms cut": lambda samples, rate: (samples[rate // 20 :], rate),
    "25 ms cut": lambda samples, rate: (samples[rate // 40 :], rate),
    "half": lambda samples, rate: (samples[: len(samples) * 11 // 20], rate),
    "6 dB louder": lambda samples, rate: (np.clip(2 * samples, -1, 1), rate),
    "noise": noisy,
    "combined": combined,
}


if __name__ == "__main__":
    main()
