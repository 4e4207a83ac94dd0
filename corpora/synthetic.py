"""Makes a small corpus of synthetic speech, to try the programs on before there are recordings.

    python demo_corpus.py --out corpora/demo --clips 240

espeak-ng speaks everyday sentences that are composed here. The first voice speaks half of the clips: `train.txt` and
`val.txt` hold it alone, `path|text`; `train_ms.txt` and `val_ms.txt` hold all voices, `path|speaker|text`.
"""

import argparse
import ctypes
import random
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soxr

from audio import save_audio
from preprocess import write_lines
from text import espeak

# Voices and variants of espeak-ng that differ in accent, pitch and timbre.
VOICES = (
    "gmw/en-US",
    "gmw/en-US+f3",
    "gmw/en+m3",
    "gmw/en-GB-scotland+f2",
    "gmw/en-US+m7",
    "gmw/en-029+f4",
    "gmw/en-GB-x-rp+m1",
    "gmw/en-US+f5",
)
NATIVE_RATE = 22050  # of espeak-ng
VALIDATION_SHARE = 10  # every tenth clip of a voice validates

PEOPLE = "my sister|the teacher|our neighbour|the old sailor|a young doctor|your brother|the baker|nobody here"
ACTIONS = (
    "found|has lost|is looking for|will carry home|wants to sell|painted|cannot forget|keeps talking about|"
    "never asked for|is proud of"
)
THINGS = (
    "the blue umbrella|a box of oranges|that yellow kite|fresh bread|the broken chair|a long letter|two white horses|"
    "the garden gate|her father's watch|some warm socks|this strange picture|a jar of honey"
)
PLACES = "near the river|behind the school|in the kitchen|on the bridge|under a tree|at the station|by the sea"
TIMES = "this morning|every Sunday|after lunch|before dark|last winter|at five o'clock|when it rains|again"
PATTERNS = (
    "{people} {actions} {things}.",
    "{people} {actions} {things} {times}.",
    "{people} {actions} {things} {places}.",
    "Did you see {things} {places}?",
    "{times}, {people} {actions} {things}.",
    "Please put {things} {places}!",
    "Where is {people}, and who has {things}?",
    "Somebody left {things} {places} {times}.",
)


def make_corpus(
    folder: str | Path, speakers: int = 4, utterances: int = 240, sampling_rate: int = 22050, seed: int = 1234
) -> None:
    """Writes `utterances` clips of 16-bit audio, about 1 to 4 s long, to FOLDER/wavs, and the lists beside it.

    The same arguments give the same files. Raises ValueError for more speakers than there are voices, or for too few
    utterances to train and validate with each voice, and EspeakError without espeak-ng.
    """
    if not 1 <= speakers <= len(VOICES):
        raise ValueError(f"{speakers} speakers, of whom there are 1 to {len(VOICES)}")
    if utterances < 4 * speakers:
        raise ValueError(f"{utterances} utterances are too few for {speakers} speakers: at least {4 * speakers}")
    folder = Path(folder)
    (folder / "wavs").mkdir(parents=True, exist_ok=True)
    texts = compose(utterances, seed)
    synthesizer = Synthesizer(seed)
    clips = []
    for speaker, share in enumerate(_shares(texts, speakers)):
        for index, text in enumerate(share):
            path = folder / "wavs" / f"{speaker}_{index:04d}.wav"
            save_audio(path, synthesizer.speak(text, VOICES[speaker], sampling_rate), sampling_rate)
            clips.append(("val" if index % VALIDATION_SHARE == 0 else "train", speaker, f"{path.as_posix()}", text))
    for split in ("train", "val"):
        one = [f"{path}|{text}" for part, speaker, path, text in clips if part == split and speaker == 0]
        many = [f"{path}|{speaker}|{text}" for part, speaker, path, text in clips if part == split]
        write_lines(folder / f"{split}.txt", one)
        write_lines(folder / f"{split}_ms.txt", many)


def compose(count: int, seed: int) -> list[str]:
    """Returns `count` different sentences. Raises ValueError if the words do not suffice for so many."""
    draw = random.Random(seed)
    words = {"people": PEOPLE, "actions": ACTIONS, "things": THINGS, "places": PLACES, "times": TIMES}
    words = {kind: choices.split("|") for kind, choices in words.items()}
    sentences = {}  # keys keep their order
    for _ in range(50 * count):
        if len(sentences) == count:
            return list(sentences)
        chosen = {kind: draw.choice(choices) for kind, choices in words.items()}
        sentence = draw.choice(PATTERNS).format(**chosen)
        sentences[sentence[0].upper() + sentence[1:]] = None
    raise ValueError(f"the words suffice for {len(sentences)} different sentences, not for {count}")


class Synthesizer:
    """espeak-ng as a speaker, in a copy of the library of its own.

    The library's state is global, and what it spoke before changes what it speaks next: a fresh copy repeats itself,
    and leaves alone the one that phonemises in this process.
    """

    def __init__(self, seed: int):
        library_path, data_path = espeak.find()
        if not Path(library_path).is_file():
            raise espeak.EspeakError(
                f"a copy of {library_path} is needed, and its place is not known: pip install espeakng-loader, "
                "or name the file in PHONEMIZER_ESPEAK_LIBRARY"
            )
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as copies:  # Windows keeps a loaded file
            self.engine = espeak.Espeak(shutil.copy(library_path, copies), data_path)
        library = self.engine.library
        library.espeak_ng_SetRandSeed(ctypes.c_long(seed))  # else breathy voices differ from run to run
        library.espeak_Synth.argtypes = [ctypes.c_char_p, ctypes.c_size_t] + [ctypes.c_uint] * 4 + [ctypes.c_void_p] * 2
        kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)
        self._blocks: list[bytes] = []
        self._callback = kind(self._receive)  # kept: espeak holds the bare pointer
        library.espeak_SetSynthCallback(self._callback)

    def speak(self, text: str, voice: str, sampling_rate: int) -> np.ndarray:
        """Returns float32 `[samples]` in -1..1 of `text` in an espeak-ng voice such as "gmw/en-US+f3"."""
        self._blocks.clear()
        self.engine.set_voice(voice)
        data = text.encode() + b"\0"
        utf8 = 1
        self.engine.library.espeak_Synth(data, len(data), 0, 1, 0, utf8, None, None)
        samples = np.frombuffer(b"".join(self._blocks), np.int16).astype(np.float32) / 32768
        return samples if sampling_rate == NATIVE_RATE else soxr.resample(samples, NATIVE_RATE, sampling_rate)

    def _receive(self, samples, count: int, events) -> int:
        if samples and count > 0:
            self._blocks.append(ctypes.string_at(samples, 2 * count))
        return 0


def _shares(texts: list[str], speakers: int) -> list[list[str]]:
    """Half of the texts for the first voice, the rest in equal parts for the others."""
    if speakers == 1:
        return [texts]
    half = len(texts) // 2
    return [texts[:half], *(texts[half + i :: speakers - 1] for i in range(speakers - 1))]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="corpora/demo")
    parser.add_argument("--clips", type=int, default=240)
    parser.add_argument("--speakers", type=int, default=4)
    parser.add_argument("--sampling_rate", type=int, default=22050)
    parser.add_argument("--seed", type=int, default=1234)
    options = parser.parse_args(arguments)
    try:
        make_corpus(options.out, options.speakers, options.clips, options.sampling_rate, options.seed)
    except ValueError as error:
        raise SystemExit(str(error)) from error
    print(f"{options.clips} clips and train.txt, val.txt, train_ms.txt, val_ms.txt are in {options.out}")


if __name__ == "__main__":
    main()
