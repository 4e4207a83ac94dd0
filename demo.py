"""Create synthetic speech, train a small voice on it for a few minutes, and speak with it.

Such a short run only shows that all parts work: its voice hums and has no words yet. The run is an ordinary run in
logs/demo, with demo.wav and demo.png beside its files.

Examples:
  python demo.py                      (one speaker, configs/demo.json)
  python demo.py --speakers 4         (four speakers, configs/demo_ms.json)
  python demo.py --steps 3000         (resumes the run)
"""

import cli

if __name__ == "__main__":
    cli.interrupts_in_one_line()

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import config as configs
import preprocess
import synthesis
from audio import save_audio
from corpora import synthetic
from files import run_folder
from plots import save_overview
from synthesis.speech import Speech

CONFIGS = Path(__file__).parent / "configs"
CLIPS = 400
SENTENCE = "The baker never asked for two white horses on the bridge."  # the corpus has its words, but not the sentence
NOISE_SCALE = 0.3  # below the default, because the prior is still wide after minutes of training
THREADS = 4  # more do not speed up such a small network
CURVES = {"mel loss": "loss/g/mel", "validation mel L1": "validation/mel", "duration loss": "loss/g/dur"}


def main(arguments: Sequence[str] | None = None) -> Path:
    """Run the demo. Returns the folder of demo.wav and demo.png."""
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    add("--steps", type=int, default=700, metavar="N", help="training steps in total")
    add("--speakers", type=int, default=1, metavar="N", help="number of speakers")
    add("--clips", type=int, default=CLIPS, metavar="N", help="number of recordings to create")
    add("--text", default=SENTENCE, help="text to speak after training")
    cli.add_device(parser, ("auto", "cpu", "cuda"))
    args = parser.parse_args(arguments)
    with cli.errors_in_one_line("demo"):
        return demo(args.steps, args.speakers, args.clips, args.text, args.device)


def demo(steps: int, speakers: int, clips: int, text: str, device: str) -> Path:
    """Create the corpus, train up to `steps`, which resumes an earlier run, and speak `text`. Returns the run's folder.

    Raises ValueError for more speakers than the config allows, or too few clips.
    """
    import torch  # takes seconds, and --help does not need it

    import train

    name = "demo" if speakers == 1 else "demo_ms"
    config = configs.load(CONFIGS / f"{name}.json")
    if speakers > max(config.data.n_speakers, 1):
        raise ValueError(f"{speakers} speakers are too many: configs/{name}.json has room for {config.data.n_speakers}")
    torch.set_num_threads(min(THREADS, torch.get_num_threads()))
    print(f"1. Creating {clips} clips of synthetic speech", flush=True)
    make_lists(config, clips, speakers)
    print(f"2. Training to step {steps}; Ctrl-C stops, and the same command resumes", flush=True)
    started = time.monotonic()
    arguments = ["-c", str(CONFIGS / f"{name}.json"), "-m", name, "--max-steps", str(steps)]
    train.main([*arguments, "--device", device, "--processes", "1"])
    print(f"3. Speaking after {(time.monotonic() - started) / 60:.1f} minutes of training: {text}", flush=True)
    folder = run_folder(name)
    voice = synthesis.Voice.load(folder, device=device)
    names: Sequence[str | None] = list(voice.speakers)[:speakers] or [None]
    save(folder, voice, [voice.speak(text, speaker, NOISE_SCALE, seed=1) for speaker in names])
    return folder


def make_lists(config: configs.Config, clips: int, speakers: int) -> None:
    """Write the corpus of the config and its cleaned lists. The same arguments give the same files."""
    lists = [Path(path).with_suffix("") for path in (config.data.training_files, config.data.validation_files)]
    synthetic.make_corpus(lists[0].parent, speakers, clips, config.data.sampling_rate)
    for path in lists:
        preprocess.clean_filelist(path, 2 if config.data.n_speakers else 1, config.data.text_cleaners)


def save(folder: Path, voice: "synthesis.Voice", spoken: list[Speech]) -> None:
    """Write demo.wav, with all speakers in turn, and demo.png, with the first speaker and the curves."""
    import torch

    from mel_processing import log_mel
    from reporting import read_metrics

    pause = np.zeros(voice.sampling_rate // 2, np.float32)
    sound = np.concatenate([part for speech in spoken for part in (speech.audio, pause)])
    save_audio(folder / "demo.wav", sound, voice.sampling_rate)
    mel = log_mel(torch.from_numpy(spoken[0].audio)[None], voice.data)[0].numpy()
    curves = {title: read_metrics(folder, name) for title, name in CURVES.items()}
    save_overview(folder / "demo.png", mel, spoken[0], curves)
    print(f"""
{folder / "demo.wav"}   the sentence, which was not in the training data; after {voice.step} steps it is only a hum
{folder / "demo.png"}   from top to bottom
    the spectrogram of demo.wav: bands are the voice, dark gaps are the stops between sounds
    the alignment of symbols and time: symbols of similar length at first, of different length after longer training
    the loss curves: the mel loss falls quickly and then slowly, and validation follows unless the model overfits
logs/{folder.name} is an ordinary run: `tensorboard --logdir logs`, `python train.py -m {folder.name}`
""")


if __name__ == "__main__":
    main()
