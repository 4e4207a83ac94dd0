"""A web page for trained voices: type a text, hear it, see it; and speak with another speaker's voice.

python webui.py [--voices logs | -m logs/NAME] [--port 7860] [--share]

The browser chooses a voice by its name in a list that the server made, and never sends a path.
"""

import argparse
import contextlib
import functools
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import gradio as gr
import numpy as np

import inference
from checkpoint import step_of
from speech import Scales, Speech
from synthesis import Voice, find_checkpoint

LONGEST_TEXT = 5000  # characters
LONGEST_RECORDING = 60  # seconds
EXAMPLES = ["Hello world, how are you?", "The quick brown fox jumps over the lazy dog."]


class Voices:
    """The voices that may be chosen: runs with a checkpoint in one folder, or a single one; each is loaded once."""

    def __init__(self, folder: str | Path | None = None, model: str | Path | None = None, device: str = "auto"):
        self.folder = Path(folder) if folder is not None else None
        self.model = model
        self._loading = threading.Lock()
        self._load = functools.lru_cache(maxsize=8)(lambda file: Voice.load(file, device=device))
        if not self.files():
            where = f"{folder} holds no run with a checkpoint G_STEP.pth"
            raise ValueError(f"{where}: train one, or name a folder with --voices or a checkpoint with -m")

    def files(self) -> dict[str, Path]:
        """Names and checkpoints, as the folder is now."""
        if self.model is not None:
            file = find_checkpoint(self.model)
            return {file.parent.name or file.stem: file}
        found = {}
        for run in sorted(self.folder.iterdir()) if self.folder.is_dir() else []:
            if run.is_dir() and (
                any(step_of(file) >= 0 for file in run.glob("G_*.pth")) or list(run.glob("G_best.pth"))
            ):
                found[run.name] = find_checkpoint(run)
        return found

    def get(self, name: str) -> Voice:
        """A voice of the list. Raises ValueError for a name that is not in it."""
        files = self.files()
        if name not in files:
            raise ValueError("there is no such voice; reload the page for the list as it is now")
        with self._loading:
            return self._load(files[name])


@contextlib.contextmanager
def messages() -> Iterator[None]:
    """Errors that a user can put right, as messages on the page."""
    try:
        yield
    except ValueError as error:
        raise gr.Error(str(error), print_exception=False) from None


def speak(
    voices: Voices,
    name: str,
    text: str,
    speaker: str | None,
    noise_scale: float,
    noise_scale_w: float,
    length_scale: float,
    seed: float | None,
) -> tuple[tuple[int, np.ndarray], np.ndarray, str]:
    """Returns sampling rate and 16-bit samples, a picture `[h, w, 3]`, and a line of facts."""
    with messages():
        if len(text) > LONGEST_TEXT:
            raise ValueError(f"the text has {len(text)} characters; this page speaks up to {LONGEST_TEXT}")
        voice = voices.get(name)
        speech = voice.speak(
            text,
            speaker if voice.data.n_speakers else None,
            noise_scale,
            noise_scale_w,
            length_scale,
            None if seed is None else int(seed),
        )
        facts = f"{speech.seconds:.1f} s, {len(speech.sentences)} sentences, step {voice.step}"
        return (speech.sampling_rate, pcm(speech.audio)), picture(voice, speech), facts


def convert(
    voices: Voices, name: str, recording: tuple[int, np.ndarray] | None, source: str | None, target: str | None
) -> tuple[int, np.ndarray]:
    """Returns sampling rate and 16-bit samples of `recording` (the same) in the voice of `target`."""
    with messages():
        if recording is None:
            raise ValueError("record or upload something to convert first")
        rate, samples = recording
        if len(samples) > LONGEST_RECORDING * rate:
            raise ValueError(f"the recording is longer than {LONGEST_RECORDING} seconds")
        voice = voices.get(name)
        return voice.sampling_rate, pcm(voice.convert(mono(samples), source, target, rate))


def pcm(audio: np.ndarray) -> np.ndarray:
    """Float samples as 16-bit ones, clipped and not wrapped: gradio would stretch quiet speech to full scale."""
    return np.clip(np.round(audio * 32768), -32768, 32767).astype(np.int16)


def mono(samples: np.ndarray) -> np.ndarray:
    """A recording from the browser, `[samples]` or `[samples, channels]` of any type, as mono float32 in -1..1."""
    if np.issubdtype(samples.dtype, np.integer):
        samples = samples / float(np.iinfo(samples.dtype).max + 1)
    return (samples if samples.ndim == 1 else samples.mean(1)).astype(np.float32)


def picture(voice: Voice, speech: Speech) -> np.ndarray:
    """Spectrogram and alignment, pixels `[height, width, 3]`."""
    from matplotlib.image import imread

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "speech.png"
        inference.draw(voice, speech, path)
        return (imread(path)[..., :3] * 255).astype(np.uint8)


def build(voices: Voices) -> gr.Blocks:
    """The page."""
    names = list(voices.files())
    first = voices.get(names[0])

    def speakers_of(name: str):
        with messages():
            voice = voices.get(name)
        choices = list(voice.speakers)
        many = bool(choices)
        update = gr.update(choices=choices, value=choices[0] if many else None, visible=many)
        return update, update, update, gr.update(visible=many)

    def refresh():
        return gr.update(choices=list(voices.files()))

    def speaker_choice(label: str) -> gr.Dropdown:
        choices = list(first.speakers)
        return gr.Dropdown(choices, value=choices[0] if choices else None, label=label, visible=bool(choices))

    default = Scales()
    with gr.Blocks(title="VITS2 voices", analytics_enabled=False) as page:
        name = gr.Dropdown(names, value=names[0], label="Voice")
        with gr.Tab("Text to speech"):
            text = gr.Textbox(EXAMPLES[0], lines=4, max_length=LONGEST_TEXT, label="Text")
            gr.Examples([[example] for example in EXAMPLES], [text])
            speaker = speaker_choice("Speaker")
            with gr.Row():
                noise = gr.Slider(0, 1.5, default.noise_scale, label="Noise scale (sound)")
                noise_w = gr.Slider(0, 1.5, default.noise_scale_w, label="Noise scale w (rhythm)")
                length = gr.Slider(0.3, 3, default.length_scale, label="Length scale (above 1 is slower)")
                seed = gr.Number(None, label="Seed (empty: another each time)", precision=0, minimum=0)
            button = gr.Button("Speak", variant="primary")
            audio = gr.Audio(label="Speech", type="numpy", format="wav", interactive=False)
            facts = gr.Textbox(label="About it", interactive=False)
            image = gr.Image(label="Spectrogram and alignment", type="numpy", interactive=False)
            button.click(
                functools.partial(speak, voices),
                [name, text, speaker, noise, noise_w, length, seed],
                [audio, image, facts],
                api_name="speak",
            )
        with gr.Tab("Voice conversion", visible=bool(first.speakers)) as conversion:
            recording = gr.Audio(label="Recording", type="numpy", sources=["upload", "microphone"])
            source, target = speaker_choice("Speaker of the recording"), speaker_choice("Speaker to sound like")
            change = gr.Button("Convert", variant="primary")
            converted = gr.Audio(label="Converted", type="numpy", format="wav", interactive=False)
            change.click(
                functools.partial(convert, voices), [name, recording, source, target], converted, api_name="convert"
            )
        name.change(speakers_of, name, [speaker, source, target, conversion])
        page.load(refresh, None, name)
    return page.queue(default_concurrency_limit=2)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--voices", default="logs", help="folder of runs to choose from")
    parser.add_argument("-m", "--model", help="one voice only: run, folder or checkpoint")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--port", type=int, default=7860)
    parser.add_argument("--share", action="store_true", help="a public address, through gradio's tunnel")
    args = parser.parse_args(arguments)
    with inference.errors_in_one_line("webui"):
        page = build(Voices(args.voices, args.model, args.device))
        page.launch(server_port=args.port, share=args.share, max_file_size="100mb")


if __name__ == "__main__":
    main()
