"""A web page for trained voices: type a text, hear it, see it; and speak with another speaker's voice.

python webui.py [--voices logs | -m logs/NAME] [--port 7860] [--share]

The browser chooses a voice by its name in a list that the server made, and never sends a path.
"""

import argparse
import contextlib
import functools
import html
import secrets
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import gradio as gr
import numpy as np

import inference
from audio import read_header, to_pcm
from files import RUNS
from speech import Scales
from synthesis import Voice, find_checkpoint

LONGEST_TEXT = 5000  # characters
LONGEST_RECORDING = 60  # seconds
MIN_WIDTH = 320  # pixels of a column; in a narrower window they stand one under the other
SEEDS = 1 << 31  # those that are drawn; anybody can type them again
EXAMPLES = [
    "Hello world, how are you?",
    "The old sailor has lost the garden gate by the sea.",
    "Did you see the blue umbrella? My sister found it behind the school this morning.",
]
PROGRESS = gr.Progress()  # gradio knows it by being a default argument
THEME = gr.themes.Default(  # fonts that come with gradio or the system: the page asks no other server for anything
    primary_hue="indigo",
    neutral_hue="slate",
    font=[gr.themes.LocalFont("Source Sans Pro", weights=(400, 700)), "sans-serif"],
    font_mono=[gr.themes.Font("monospace")],
)
CSS = """
.gradio-container > main { width: 100%; max-width: 1200px !important; margin: 0 auto; }
footer .divider { display: none; }
.facts { color: var(--body-text-color-subdued); align-self: center; }
"""


class Voices:
    """The voices that may be chosen: runs with a checkpoint in one folder, or a single one; each is loaded once."""

    def __init__(self, folder: str | Path | None = None, model: str | Path | None = None, device: str = "auto"):
        self.folder = Path(folder) if folder is not None else None
        self.model = model
        self._loading = threading.Lock()
        self._load = functools.lru_cache(maxsize=8)(lambda file, _changed: Voice.load(file, device=device))
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
            if run.is_dir():
                with contextlib.suppress(ValueError):  # a run without checkpoints
                    found[run.name] = find_checkpoint(run)
        return found

    def file(self, name: str) -> Path:
        """The checkpoint of a voice of the list. Raises ValueError for a name that is not in it."""
        try:
            return self.files()[name]
        except KeyError:
            raise ValueError("there is no such voice; reload the page for the list as it is now") from None

    def get(self, name: str) -> Voice:
        """A voice of the list. Raises ValueError for a name that is not in it, or a checkpoint that does not load."""
        file = self.file(name)
        try:
            with self._loading:
                return self._load(file, file.stat().st_mtime_ns)
        except (ValueError, OSError) as error:
            raise ValueError(str(error).replace(f"{file.parent}", name)) from None  # where it lies is nobody's business

    def first(self) -> str:
        """The first voice of the list that loads. Raises ValueError if none does."""
        for name in self.files():
            try:
                self.get(name)
            except ValueError as error:
                problem = error
            else:
                return name
        raise problem


@contextlib.contextmanager
def messages() -> Iterator[None]:
    """Errors that a user can put right, as messages on the page."""
    try:
        yield
    except ValueError as error:
        # the page renders markup, and what was typed may hold some
        raise gr.Error(html.escape(str(error), quote=False), print_exception=False) from None


def speak(
    voices: Voices,
    name: str,
    text: str,
    speaker: str | None,
    noise_scale: float,
    noise_scale_w: float,
    length_scale: float,
    seed: str | None,
    progress: gr.Progress = PROGRESS,
) -> tuple[tuple[int, np.ndarray], np.ndarray, str, str]:
    """Returns sampling rate and 16-bit samples, a picture `[h, w, 3]`, a line of facts, and the seed."""
    with messages():
        if len(text) > LONGEST_TEXT:
            raise ValueError(f"the text has {len(text)} characters; this page speaks up to {LONGEST_TEXT}")
        voice = voices.get(name)
        number = seed_of(seed)
        speech = voice.speak(
            text,
            speaker if voice.data.n_speakers else None,
            noise_scale,
            noise_scale_w,
            length_scale,
            number,
            progress=lambda done, pieces: progress((done, pieces), desc="Speaking", unit="sentences"),
        )
        facts = f"{speech.seconds:.1f} s · {count(len(speech.sentences), 'sentence')} · seed {number}"
        # 16 bits: gradio would stretch quiet speech to full scale
        return (speech.sampling_rate, to_pcm(speech.audio)), inference.picture(voice, speech), facts, str(number)


def seed_of(typed: str | None) -> int:
    """The seed that was typed, or one that is drawn. Raises ValueError for what is no number from 0."""
    if not typed or not typed.strip():
        return secrets.randbelow(SEEDS)
    if not typed.strip().isdecimal():
        raise ValueError(f"the seed is {typed!r}: give a whole number from 0, or nothing for another each time")
    return int(typed)


def convert(
    voices: Voices, name: str, recording: str | None, source: str | None, target: str | None
) -> tuple[int, np.ndarray]:
    """Returns sampling rate and 16-bit samples of `recording`, a file that gradio has taken in, as `target` says it."""
    with messages():
        if recording is None:
            raise ValueError("record or upload something to convert first")
        voice = voices.get(name)
        try:
            header = read_header(recording)
            if header.frames > LONGEST_RECORDING * header.rate:
                raise ValueError(f"the recording is longer than {LONGEST_RECORDING} seconds")
            return voice.sampling_rate, to_pcm(voice.convert(recording, source, target))
        except ValueError as error:
            raise ValueError(str(error).replace(recording, Path(recording).name)) from None


def count(number: int, noun: str) -> str:
    """A number of things in words, `1 sentence` or `2 sentences`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


class OfVoice(NamedTuple):
    """What of the page depends on the voice: the components, or updates of them in the same order."""

    about: gr.Markdown
    speaker: gr.Dropdown
    source: gr.Dropdown
    target: gr.Dropdown
    conversion: gr.Row
    no_conversion: gr.Markdown


def chosen(voices: Voices, name: str) -> OfVoice:
    """Updates of the page for a voice; one that does not load says so where it would be described."""
    try:
        voice = voices.get(name)
    except ValueError as error:
        return OfVoice(f"**This voice cannot be used:** {error}", *[gr.update(visible=False)] * 5)
    speakers = list(voice.speakers)
    kind = count(len(speakers), "speaker") if speakers else "one speaker"
    about = f"{kind} · {voice.sampling_rate / 1000:g} kHz · {voices.file(name).name}"
    many = bool(speakers)
    first, second = speakers[:2] if len(speakers) > 1 else (speakers or [None]) * 2
    return OfVoice(
        about,
        gr.update(choices=speakers, value=first, visible=many),
        gr.update(choices=speakers, value=first),
        gr.update(choices=speakers, value=second),
        gr.update(visible=many),
        gr.update(visible=not many),
    )


def build(voices: Voices) -> gr.Blocks:
    """The page."""
    first = voices.first()

    def opened() -> tuple:
        names = list(voices.files())
        name = first if first in names or not names else names[0]
        return gr.update(choices=names, value=name), *chosen(voices, name)

    # Files that the page made are deleted when they are a day old, and all when it ends.
    with gr.Blocks(title="VITS2 voices", analytics_enabled=False, delete_cache=(3600, 86400)) as page:
        gr.Markdown("# VITS2 voices\nChoose a voice, type a text, and listen.")
        with gr.Row():
            with gr.Column(min_width=MIN_WIDTH):
                name = gr.Dropdown(list(voices.files()), value=first, label="Voice")
            with gr.Column(min_width=MIN_WIDTH, elem_classes="facts"):
                about = gr.Markdown()
        # what depends on the voice is shown once `opened` has said what it is
        with gr.Tab("Text to speech"):
            speaker = speech_tab(voices, name)
        with gr.Tab("Voice conversion"):
            source, target, conversion = conversion_tab(voices, name)
            no_conversion = gr.Markdown("Conversion needs a voice of several speakers; this one has a single one.")
        dependent = OfVoice(about, speaker, source, target, conversion, no_conversion)
        name.change(functools.partial(chosen, voices), name, list(dependent), api_visibility="private")
        page.load(opened, None, [name, *dependent], api_visibility="private")
    return page.queue(default_concurrency_limit=2)


def speech_tab(voices: Voices, name: gr.Dropdown) -> gr.Dropdown:
    """Text on the left, sound and picture on the right. Returns the choice of the speaker."""
    default = Scales()
    with gr.Row():
        with gr.Column(min_width=MIN_WIDTH):
            text = gr.Textbox(EXAMPLES[1], lines=5, max_lines=12, max_length=LONGEST_TEXT, label="Text")
            speaker = speaker_choice("Speaker", visible=False)
            button = gr.Button("Speak", variant="primary")
            gr.Examples([[example] for example in EXAMPLES], [text], api_visibility="private")
            with gr.Accordion("More settings", open=False) as settings:
                length = gr.Slider(0.3, 3, default.length_scale, label="Length", info="above 1 is slower")
                noise = gr.Slider(
                    0, 1.5, default.noise_scale, label="Variation of the sound", info="0 is the most probable one"
                )
                noise_w = gr.Slider(
                    0, 1.5, default.noise_scale_w, label="Variation of the rhythm", info="0 is the steadiest"
                )
                seed = gr.Textbox(  # gr.Number turns an empty field into 0 when the settings are unfolded
                    label="Seed", info="the same number gives the same take again", placeholder="drawn anew each time"
                )
        with gr.Column(min_width=MIN_WIDTH):
            audio = gr.Audio(label="Speech", type="numpy", format="wav", interactive=False, buttons=["download"])
            with gr.Row(equal_height=True):
                facts = gr.Markdown(elem_classes="facts")
                keep = gr.Button("Keep this seed", size="sm", scale=0, min_width=140, visible=False)
            image = gr.Image(show_label=False, type="numpy", interactive=False, buttons=["download", "fullscreen"])
    used = gr.State()
    gr.on(
        [button.click, text.submit],
        functools.partial(speak, voices),
        [name, text, speaker, noise, noise_w, length, seed],
        [audio, image, facts, used],
        show_progress_on=audio,
        api_name="speak",
    )
    used.change(lambda: gr.update(visible=True), None, keep, api_visibility="private")
    keep.click(
        lambda used: (used, gr.update(open=True)),
        used,
        [seed, settings],
        show_progress="hidden",
        api_visibility="private",
    )
    return speaker


def conversion_tab(voices: Voices, name: gr.Dropdown) -> tuple[gr.Dropdown, gr.Dropdown, gr.Row]:
    """Recording on the left, sound on the right. Returns the choices of the two speakers, and what holds it all."""
    with gr.Row(visible=False) as row:
        with gr.Column(min_width=MIN_WIDTH):
            recording = gr.Audio(
                label=f"Recording (up to {LONGEST_RECORDING} seconds)",
                type="filepath",
                sources=["upload", "microphone"],
                buttons=["download"],
            )
            with gr.Row():
                source, target = speaker_choice("Who speaks in it"), speaker_choice("Who shall say it")
            button = gr.Button("Convert", variant="primary")
        with gr.Column(min_width=MIN_WIDTH):
            converted = gr.Audio(label="Converted", type="numpy", format="wav", interactive=False, buttons=["download"])
            gr.Markdown("Both are speakers whom the voice has learnt; a stranger's recording comes out roughly.")
    button.click(functools.partial(convert, voices), [name, recording, source, target], converted, api_name="convert")
    return source, target, row


def speaker_choice(label: str, visible: bool = True) -> gr.Dropdown:
    """A choice that the voice itself checks: a client of the API has chosen no voice when it names a speaker."""
    return gr.Dropdown([], value=None, label=label, allow_custom_value=True, visible=visible)


def serve(page: gr.Blocks, port: int | None, share: bool = False, quiet: bool = False) -> str:
    """Start the server in threads of its own; None is any free port. Returns the page's address.

    Raises:
        ValueError: there is no such port, or another program has it.
    """
    if port is not None and not 0 < port < 1 << 16:
        raise ValueError(f"port is {port}; ports are numbers from 1 to {(1 << 16) - 1}")
    try:
        return page.launch(
            server_port=port,
            share=share,
            quiet=quiet,
            prevent_thread_lock=True,
            max_file_size="100mb",
            theme=THEME,
            css=CSS,
            footer_links=["api"],
            run_history=False,
        )[1]
    except OSError:
        raise ValueError(
            f"port {port} cannot be opened, another program may have it: name another with --port"
        ) from None


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--voices", default=RUNS, help="folder of runs to choose from (default: %(default)s)")
    which.add_argument("-m", "--model", help="one voice only: run, folder or checkpoint")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--port", type=int, default=7860)
    parser.add_argument("--share", action="store_true", help="a public address, through gradio's tunnel")
    args = parser.parse_args(arguments)
    with inference.errors_in_one_line("webui"):
        page = build(Voices(args.voices, args.model, args.device))
        serve(page, args.port, args.share)
        page.block_thread()


if __name__ == "__main__":
    main()
