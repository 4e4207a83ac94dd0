"""Word error rate of a voice as a speech recogniser hears it, beside that of the recordings; prints one JSON line.

    python benchmarks/intelligibility.py -m logs/NAME FILELIST

FILELIST holds lines `path|text` in plain English. The recogniser is pocketsphinx with its own US English model
(`pip install pocketsphinx`); it is a weak one, so only the distance between voice and recordings says something.
"""

import argparse
import json
import re
import sys
from pathlib import Path

import numpy as np
import soxr
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from audio import load_audio
from corpus import read_filelist
from synthesis import Voice

RATE = 16000  # Hz, the recogniser's


class Listener:
    """What pocketsphinx hears."""

    def __init__(self):
        from pocketsphinx import Decoder

        self.decoder = Decoder(samprate=RATE, loglevel="FATAL")

    def words(self, samples: np.ndarray) -> list[str]:
        """The words in samples `[n]`, float in -1..1, at `RATE`."""
        pcm = (samples.clip(-1, 1) * 32767).astype(np.int16).tobytes()
        self.decoder.start_utt()
        self.decoder.process_raw(pcm, full_utt=True)
        self.decoder.end_utt()
        heard = self.decoder.hyp()
        return heard.hypstr.split() if heard else []


def word_errors(expected: list[str], heard: list[str]) -> int:
    """Least number of words to insert, drop or replace (Levenshtein)."""
    row = list(range(len(heard) + 1))
    for i, word in enumerate(expected, 1):
        above, row = row, [i]
        for j, other in enumerate(heard, 1):
            row.append(min(above[j] + 1, row[-1] + 1, above[j - 1] + (word != other)))
    return row[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("filelist")
    parser.add_argument("-m", "--model", required=True, help="a run's folder, its name, or a checkpoint")
    parser.add_argument("-s", "--speaker")
    parser.add_argument("--sentences", type=int, help="only this many of the list")
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    voice, listener = Voice.load(args.model, device=args.device), Listener()
    clips = read_filelist(args.filelist)[: args.sentences]
    errors = {"recordings": 0, "voice": 0}
    words = 0
    for clip in tqdm(clips, disable=None):
        expected = re.sub(r"[^a-z' ]", " ", clip.text.lower()).split()
        words += len(expected)
        speech = voice.speak(clip.text, speaker=args.speaker, seed=1)
        spoken = soxr.resample(speech.audio, speech.sampling_rate, RATE)
        errors["recordings"] += word_errors(expected, listener.words(load_audio(clip.path, RATE)))
        errors["voice"] += word_errors(expected, listener.words(spoken))
    rates = {name: round(100 * count / words, 1) for name, count in errors.items()}
    print(json.dumps({"sentences": len(clips), "words": words, "word_error_rate_percent": rates}))


if __name__ == "__main__":
    main()
