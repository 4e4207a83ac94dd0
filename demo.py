"""Speak with the pretrained voice, and train it for a new speaker on the CPU, which takes minutes.

The recordings of the new speaker are synthetic: espeak-ng speaks them first. The run is an ordinary run in
logs/demo, with demo.wav and demo.png beside its files: the sentence by the default speaker, and by the new one.

Examples:
  python demo.py
  python demo.py --text "Your own sentence."
  python demo.py --steps 1000        (resumes the run)
"""

import cli

if __name__ == "__main__":
    cli.interrupts_in_one_line()

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import config as configs
import preprocess
import synthesis
from audio import save_audio
from conditions import Speaker
from config import Config
from corpora import synthetic
from corpora.filelist import read_filelist
from files import PRETRAINED, run_folder, write_text
from plots import save_overview
from synthesis.speech import Speech

NAME, CORPUS = "demo", Path("corpora/demo")
CLIPS, STEPS = 200, 240
SENTENCE = "The baker never asked for two white horses on the bridge."  # the corpus has its words, but not the sentence
SPEAKER = "espeak"  # the new one
TRAIN: dict[str, Any] = {  # for a CPU
    "batch_size": 4,
    "segment_size": 4096,
    "bucket_boundaries": [0, 120, 160, 200, 300, 500],
    "num_workers": 1,
    "log_interval": 10,
    "eval_interval": 80,
    "keep_checkpoints": 1,
    "ema": 0.0,
    "learning_rate": 1e-4,  # with 2e-4, the new speaker was harder to understand
    "lr_scale": {"enc_q.": 0, "enc_p.": 0, "flow.": 0.3, "emb_g.": 20},  # 0: frozen
}
MAX_THREADS = 4  # more do not speed up such small batches
CURVES = {"mel loss": "loss/g/mel", "validation mel L1": "validation/mel", "duration loss": "loss/g/dur"}


def main(arguments: Sequence[str] | None = None) -> Path:
    """Run the demo. Returns the folder of demo.wav and demo.png."""
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    add("--steps", type=int, default=STEPS, metavar="N", help="training steps in total")
    add("--clips", type=int, default=CLIPS, metavar="N", help="number of recordings to create")
    add("--text", default=SENTENCE, help="text to speak")
    cli.add_device(parser, ("auto", "cpu", "cuda"))
    args = parser.parse_args(arguments)
    with cli.errors_in_one_line("demo"):
        return demo(args.steps, args.clips, args.text, args.device)


def demo(steps: int, clips: int, text: str, device: str) -> Path:
    """Speak `text`, create the corpus, train up to `steps`, which resumes an earlier run, and speak `text` again.

    Returns the run's folder. Raises ValueError for too few clips, or if the pretrained voice is missing.
    """
    import torch  # takes seconds, and --help does not need it

    import train

    # half of the cores, because threads that wait for each other are slow on a machine that has other work
    torch.set_num_threads(max(1, min(MAX_THREADS, torch.get_num_threads() // 2)))
    folder = run_folder(NAME)
    folder.mkdir(parents=True, exist_ok=True)
    print(f"1. Speaking with the pretrained voice: {text}", flush=True)
    voice = synthesis.Voice.load(device=device)
    default = voice.data.default_speaker or next(iter(voice.speakers))
    spoken = {default: voice.speak(text, default, seed=1)}
    sound = folder / "before.wav"
    save_audio(sound, spoken[default].audio, voice.sampling_rate)
    print(f"   {sound}, {spoken[default].seconds:.1f} s", flush=True)
    print(f"2. Creating {clips} recordings of a new speaker, {SPEAKER}", flush=True)
    config = make_corpus(voice.config, clips)
    print(f"3. Training to step {steps}; Ctrl-C stops, and the same command resumes", flush=True)
    arguments = ["-c", str(config), "-m", NAME, "--max-steps", str(steps), "--device", device, "--processes", "1"]
    started = time.monotonic()
    train.main(arguments if any(folder.glob("G_*.pth")) else [*arguments, "--init-from", PRETRAINED.name])
    minutes = (time.monotonic() - started) / 60
    print(f"4. Speaking with the new speaker after {minutes:.1f} minutes of training", flush=True)
    taught = synthesis.Voice.load(folder, device=device)
    spoken[SPEAKER] = taught.speak(text, SPEAKER, seed=1)
    save(folder, taught, spoken)
    return folder


def make_corpus(config: Config, clips: int) -> Path:
    """Write the recordings of the new speaker, their cleaned lists, and the config for them. Returns the config's path.

    `config` is that of the voice to start from. The same arguments give the same files.
    """
    data, lists = config.data, {}
    synthetic.make_corpus(CORPUS, 1, clips, data.sampling_rate)
    for split in ("train", "val"):
        path = CORPUS / f"{SPEAKER}_{split}.txt"
        rows = [clip._replace(speaker=SPEAKER).row(True) for clip in read_filelist(CORPUS / f"{split}.txt")]
        write_text(path, "".join(f"{row}\n" for row in rows))
        preprocess.clean_filelist(path, None, data.text_cleaners)
        lists[split] = f"{path.as_posix()}.cleaned"
    names = [*Speaker().names(data), SPEAKER]
    data = dataclasses.replace(
        data,
        training_files=lists["train"],
        validation_files=lists["val"],
        n_speakers=len(names),
        speakers={name: i for i, name in enumerate(names)},
    )
    path = CORPUS / "config.json"
    configs.save(dataclasses.replace(config, data=data, train=dataclasses.replace(config.train, **TRAIN)), path)
    return path


def save(folder: Path, voice: "synthesis.Voice", spoken: dict[str, Speech]) -> None:
    """Write demo.wav, with the speakers in turn, and demo.png, with their spectrograms and the curves of the run."""
    import torch

    from mel_processing import log_mel
    from reporting import read_metrics

    pause = np.zeros(voice.sampling_rate // 2, np.float32)
    save_audio(
        folder / "demo.wav", np.concatenate([x for s in spoken.values() for x in (s.audio, pause)]), voice.sampling_rate
    )
    drawn = {name: (log_mel(torch.from_numpy(s.audio)[None], voice.data)[0].numpy(), s) for name, s in spoken.items()}
    curves = {title: read_metrics(folder, name) for title, name in CURVES.items()}
    save_overview(folder / "demo.png", drawn, curves)
    print(f"""
{folder / "demo.wav"}   the sentence by {" and then by ".join(spoken)}
{folder / "demo.png"}   spectrogram and alignment of both, and the curves of the training
logs/{folder.name} is an ordinary run:
    python inference.py -m {folder.name} -s {SPEAKER} -t "Hello."
    tensorboard --logdir logs
""")


if __name__ == "__main__":
    main()
