"""Measure the word error rate of a voice with a speech recognizer, and that of the recordings for comparison.

FILELIST has lines `path|text` in plain English. The recognizer is pocketsphinx with its US English model
(`pip install pocketsphinx`). It is a weak recognizer, so only the difference between voice and recordings is
meaningful. Prints one line of JSON.

Examples:
  python benchmarks/intelligibility.py -m logs/NAME FILELIST
  python benchmarks/intelligibility.py -m logs/NAME FILELIST --sentences 20
"""

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soxr
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cli
from audio import load_audio
from corpora.filelist import read_filelist
from synthesis import Voice

RATE = 16000  # Hz, of the recognizer


class Recognizer:
    """The recognizer pocketsphinx. Raises ValueError if it is not installed."""

    def __init__(self) -> None:
        try:
            from pocketsphinx import Decoder
        except ModuleNotFoundError:
            raise ValueError("this program needs the package pocketsphinx: pip install pocketsphinx") from None

        self.decoder = Decoder(samprate=RATE, loglevel="FATAL")

    def words(self, samples: np.ndarray) -> list[str]:
        """Return the recognized words of samples `[n]` in [-1, 1] at `RATE`."""
        pcm = (samples.clip(-1, 1) * 32767).astype(np.int16).tobytes()
        self.decoder.start_utt()
        self.decoder.process_raw(pcm, full_utt=True)
        self.decoder.end_utt()
        return hypothesis.hypstr.split() if (hypothesis := self.decoder.hyp()) else []


def word_errors(expected: Sequence[str], recognized: Sequence[str]) -> int:
    """Return the least number of insertions, deletions and substitutions of words (Levenshtein distance)."""
    row = list(range(len(recognized) + 1))
    for i, word in enumerate(expected, 1):
        above, row = row, [i]
        for j, other in enumerate(recognized, 1):
            row.append(min(above[j] + 1, row[-1] + 1, above[j - 1] + (word != other)))
    return row[-1]


def main(argv: Sequence[str] | None = None) -> None:
    """Run the program."""
    parser = cli.Parser(__doc__)
    parser.add_argument("filelist", metavar="FILELIST", help="filelist of lines path|text")
    cli.add_run(parser, "-m", "--model", required=True)
    parser.add_argument("-s", "--speaker", metavar="S", help="name or number of the speaker, for many speakers")
    parser.add_argument("--sentences", type=int, metavar="N", help="use the first N lines only (default: all)")
    cli.add_device(parser)
    args = parser.parse_args(argv)
    with cli.errors_in_one_line("benchmarks/intelligibility"):
        voice, recognizer = Voice.load(args.model, device=args.device), Recognizer()
        clips = read_filelist(args.filelist)[: args.sentences]
        words, errors = 0, {"recordings": 0, "voice": 0}
        for clip in tqdm(clips, disable=None):
            expected = re.sub(r"[^a-z' ]", " ", clip.text.lower()).split()
            words += len(expected)
            speech = voice.speak(clip.text, speaker=args.speaker, seed=1)
            spoken = soxr.resample(speech.audio, speech.sampling_rate, RATE)
            errors["recordings"] += word_errors(expected, recognizer.words(load_audio(clip.path, RATE)))
            errors["voice"] += word_errors(expected, recognizer.words(spoken))
        rates = {name: round(100 * count / max(words, 1), 1) for name, count in errors.items()}
        print(json.dumps({"sentences": len(clips), "words": words, "word_error_rate_percent": rates}))


if __name__ == "__main__":
    main()
