"""Create a small corpus of synthetic speech, to try the programs without recordings.

espeak-ng speaks everyday sentences that are composed here. The first voice speaks half of the clips: `train.txt` and
`val.txt` hold this voice only, as `path|text`. `train_ms.txt` and `val_ms.txt` hold all voices, as `path|speaker|text`.

Examples:
  python demo_corpus.py
  python demo_corpus.py --out corpora/demo --clips 240 --speakers 4
"""

import ctypes
import random
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soxr

import cli
from audio import save_audio
from corpora.filelist import Clip
from files import write_text
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
NATIVE_RATE = 22050  # Hz, of espeak-ng
VALIDATION_SHARE = 10  # every tenth clip of a voice is for validation
MIN_CLIPS = 4  # per speaker
MAX_DRAWS = 50  # random sentences per requested sentence, before the words count as exhausted

WORDS = {
    "people": "my sister|the teacher|our neighbour|the old sailor|a young doctor|your brother|the baker|nobody here",
    "actions": "found|has lost|is looking for|will carry home|wants to sell|painted|cannot forget|keeps talking about|"
    "never asked for|is proud of",
    "things": "the blue umbrella|a box of oranges|that yellow kite|fresh bread|the broken chair|a long letter|"
    "two white horses|the garden gate|her father's watch|some warm socks|this strange picture|a jar of honey",
    "places": "near the river|behind the school|in the kitchen|on the bridge|under a tree|at the station|by the sea",
    "times": "this morning|every Sunday|after lunch|before dark|last winter|at five o'clock|when it rains|again",
}
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
    folder: str | Path, speakers: int = 4, utterances: int = 240, sampling_rate: int = NATIVE_RATE, seed: int = 1234
) -> None:
    """Write `utterances` clips of 16-bit audio, each 1 to 4 seconds long, to FOLDER/wavs, and filelists beside it.

    The same arguments give the same files. Raises ValueError for more speakers than voices, or too few utterances to
    train and validate with each voice, and EspeakError if espeak-ng is missing.
    """
    if not 1 <= speakers <= len(VOICES):
        raise ValueError(f"{speakers} speakers were requested; there may be 1 to {len(VOICES)}")
    if utterances < (least := MIN_CLIPS * speakers):
        raise ValueError(f"{utterances} utterances are too few for {speakers} speakers: at least {least} are needed")
    folder = Path(folder)
    (folder / "wavs").mkdir(parents=True, exist_ok=True)
    synthesizer = Synthesizer(seed)
    splits: dict[str, list[Clip]] = {"train": [], "val": []}
    texts, others = compose(utterances, seed), speakers - 1
    half = len(texts) // 2 if others else len(texts)  # for the first voice; the others have equal parts of the rest
    for speaker, share in enumerate([texts[:half], *(texts[half + i :: others] for i in range(others))]):
        for i, text in enumerate(share):
            path = folder / "wavs" / f"{speaker}_{i:04d}.wav"
            save_audio(path, synthesizer.speak(text, VOICES[speaker], sampling_rate), sampling_rate)
            splits["val" if i % VALIDATION_SHARE == 0 else "train"].append(Clip(path.as_posix(), str(speaker), text))
    for split, clips in splits.items():
        write_text(folder / f"{split}.txt", "".join(clip.row(False) + "\n" for clip in clips if clip.speaker == "0"))
        write_text(folder / f"{split}_ms.txt", "".join(clip.row(True) + "\n" for clip in clips))


def compose(count: int, seed: int) -> list[str]:
    """Compose `count` different sentences. Raises ValueError if there are not enough words."""
    draw = random.Random(seed)
    words = {kind: choices.split("|") for kind, choices in WORDS.items()}
    sentences: dict[str, None] = {}  # a set that keeps the order
    for _ in range(MAX_DRAWS * count):
        if len(sentences) == count:
            return list(sentences)
        chosen = {kind: draw.choice(choices) for kind, choices in words.items()}
        sentence = draw.choice(PATTERNS).format(**chosen)
        sentences[sentence[0].upper() + sentence[1:]] = None
    raise ValueError(f"there are words for {len(sentences)} different sentences, and {count} were requested")


class Synthesizer:
    """espeak-ng as a synthesizer.

    Its own copy of the library makes speech reproducible, because earlier speech changes the library's global state.
    """

    def __init__(self, seed: int) -> None:
        library_path, data_path = espeak.find()
        if not Path(library_path).is_file():
            unknown = f"the library {library_path} is needed as a file, and its path is not known"
            remedy = "pip install espeakng-loader, or give the path in PHONEMIZER_ESPEAK_LIBRARY"
            raise espeak.EspeakError(f"{unknown}: {remedy}")
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as copies:  # Windows cannot delete a loaded file
            self.engine = espeak.Espeak(shutil.copy(library_path, copies), data_path)
        library = self.engine.library
        library.espeak_ng_SetRandSeed(ctypes.c_long(seed))  # the noise of breathy voices is random
        numbers, pointers = [ctypes.c_uint] * 4, [ctypes.c_void_p] * 2
        library.espeak_Synth.argtypes = [ctypes.c_char_p, ctypes.c_size_t, *numbers, *pointers]
        kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)
        self._blocks: list[bytes] = []
        self._callback = kind(self._receive)  # keeps a reference, because espeak-ng has only the pointer
        library.espeak_SetSynthCallback(self._callback)

    def speak(self, text: str, voice: str, sampling_rate: int) -> np.ndarray:
        """Speak a text in an espeak-ng voice such as "gmw/en-US+f3". Returns float32 `[samples]` in -1..1."""
        self._blocks.clear()
        self.engine.set_voice(voice)
        data = text.encode() + b"\0"
        self.engine.library.espeak_Synth(data, len(data), 0, 1, 0, 1, None, None)  # the last 1 is UTF-8
        samples = np.frombuffer(b"".join(self._blocks), np.int16).astype(np.float32) / 32768
        return samples if sampling_rate == NATIVE_RATE else soxr.resample(samples, NATIVE_RATE, sampling_rate)

    def _receive(self, samples: int | None, count: int, events: int | None) -> int:
        if samples and count > 0:
            self._blocks.append(ctypes.string_at(samples, 2 * count))
        return 0


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program with the given arguments, by default those of the command line."""
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    add("--out", default="corpora/demo", metavar="FOLDER", help="folder to write")
    add("--clips", type=int, default=240, metavar="N", help="number of recordings of all speakers together")
    add("--speakers", type=int, default=4, metavar="N", help=f"number of speakers, 1 to {len(VOICES)}")
    add("--sampling-rate", type=int, default=NATIVE_RATE, metavar="HZ", help="sampling rate of the recordings in Hz")
    add("--seed", type=int, default=1234, metavar="N", help="seed of the sentences and of breathy voices")
    args = parser.parse_args(arguments)
    with cli.errors_in_one_line("demo_corpus"):
        make_corpus(args.out, args.speakers, args.clips, args.sampling_rate, args.seed)
        print(f"{args.clips} clips and train.txt, val.txt, train_ms.txt, val_ms.txt are in {args.out}")


if __name__ == "__main__":
    main()
