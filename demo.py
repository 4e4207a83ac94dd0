"""A training run in a few minutes on any machine: makes a corpus of synthetic speech, trains on it, and speaks.

So short a run shows that all parts work. Its voice hums and has no words yet.

    python demo.py                 one voice, configs/demo.json
    python demo.py --speakers 4    four voices, configs/demo_ms.json
    python demo.py --steps 3000    goes on with the voice that is there

The run is an ordinary one: logs/demo holds what every run's folder holds, and demo.wav and demo.png beside it.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

import config as configs
import demo_corpus
import preprocess
import train
from audio import save_audio
from config import Config
from files import run_folder
from mel_processing import log_mel
from plots import save_overview
from reporting import read_metrics
from speech import Speech
from synthesis import Voice

CONFIGS = Path(__file__).parent / "configs"
STEPS = 700
CLIPS = 400
SENTENCE = "The baker never asked for two white horses on the bridge."  # its words are in the corpus, it is not
NOISE_SCALE = 0.3  # less than usual: after minutes, what the prior calls likely is still wide
THREADS = 4  # networks this small gain nothing from more
CURVES = {"mel loss": "loss/g/mel", "validation mel L1": "validation/mel", "duration loss": "loss/g/dur"}


def main(argv: Sequence[str] | None = None) -> Path:
    """Run the demo as the command line says; returns the folder that holds demo.wav and demo.png."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=STEPS, help="training steps in all (default: %(default)s)")
    parser.add_argument("--speakers", type=int, default=1, help="voices to learn (default: %(default)s)")
    parser.add_argument("--clips", type=int, default=CLIPS, help="recordings to make (default: %(default)s)")
    parser.add_argument("--text", default=SENTENCE, help="what to say in the end (default: %(default)r)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    args = parser.parse_args(argv)
    try:
        return demo(args.steps, args.speakers, args.clips, args.text, args.device)
    except ValueError as error:
        raise SystemExit(f"demo.py: {error}") from None


def demo(steps: int, speakers: int, clips: int, text: str, device: str) -> Path:
    """Make the corpus, train up to `steps`, speak `text`. Returns the run's folder.

    What an earlier call has trained is gone on with, so that with no more steps than there are it only speaks.

    Raises:
        ValueError: more speakers than the config has room for, or too few clips.
    """
    name = "demo" if speakers == 1 else "demo_ms"
    config = configs.load(CONFIGS / f"{name}.json")
    if speakers > max(config.data.n_speakers, 1):
        raise ValueError(f"{speakers} speakers, and configs/{name}.json has room for {config.data.n_speakers}")
    torch.set_num_threads(min(THREADS, torch.get_num_threads()))

    print(f"1. {clips} clips of synthetic speech", flush=True)
    make_lists(config, clips, speakers)
    print(f"2. training to step {steps}; Ctrl-C stops it, and the same command goes on", flush=True)
    started = time.monotonic()
    arguments = ["-c", str(CONFIGS / f"{name}.json"), "-m", name, "--max-steps", str(steps)]
    train.main([*arguments, "--device", device, "--processes", "1"])
    minutes = (time.monotonic() - started) / 60
    print(f"3. speaking, after {minutes:.1f} minutes of training: {text}", flush=True)
    folder = run_folder(name)
    voice = Voice.load(folder, device=device)
    spoken = [voice.speak(text, speaker, NOISE_SCALE, seed=1) for speaker in list(voice.speakers)[:speakers] or [None]]
    save(folder, voice, spoken, text)
    return folder


def make_lists(config: Config, clips: int, speakers: int) -> None:
    """Write the corpus that the config names, and its cleaned lists. The same arguments make the same files."""
    lists = [Path(path).with_suffix("") for path in (config.data.training_files, config.data.validation_files)]
    demo_corpus.make_corpus(lists[0].parent, speakers, clips, config.data.sampling_rate)
    for path in lists:
        preprocess.clean_filelist(path, 2 if config.data.n_speakers else 1, config.data.text_cleaners)


def save(folder: Path, voice: Voice, spoken: list[Speech], text: str) -> None:
    """Write demo.wav, all voices in turn, and demo.png, the first voice and the curves; say what they show."""
    pause = np.zeros(voice.sampling_rate // 2, np.float32)
    sound = np.concatenate([part for speech in spoken for part in (speech.audio, pause)])
    save_audio(folder / "demo.wav", sound, voice.sampling_rate)
    first = spoken[0]
    mel = log_mel(torch.from_numpy(first.audio)[None], voice.data)[0].numpy()
    curves = {title: read_metrics(folder, name) for title, name in CURVES.items()}
    save_overview(folder / "demo.png", mel, first, curves)
    print(f"""
{folder / "demo.wav"}   the sentence, which was not trained on; after {voice.step} steps it is a hum without words
{folder / "demo.png"}   from top to bottom
    the spectrogram of what you hear: bands are the voice, dark gaps the stops between sounds
    which sound of the text speaks when: steps nearly even at first, of different widths once durations are learnt
    the loss curves: mel falls fast and then slowly; its validation follows while nothing is learnt by heart
logs/{folder.name} is a run like any other: `tensorboard --logdir logs`, `python train.py -m {folder.name}`
""")


if __name__ == "__main__":
    main()
