"""Serve a web page for trained voices: text to speech with a picture of the alignment, and voice conversion.

The page offers the voices of one folder by name. A client never sends a path.

Examples:
  python webui.py                        (all runs in logs/)
  python webui.py --voices my_voices --port 8000
  python webui.py -m NAME --share
"""

import cli

if __name__ == "__main__":
    cli.interrupts_in_one_line()

import contextlib
import functools
import html
import inspect
import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import inference
import synthesis
from audio import refuse_long, to_pcm
from files import RUNS
from synthesis.speech import Scales

if TYPE_CHECKING:
    import gradio as gr
else:
    gr = cli.Extra("gradio")  # --help does not need it

MAX_TEXT = 5000  # characters
MAX_RECORDING = 60  # seconds
MAX_WAITING = 16  # requests in the queue; further ones get a message
MAX_LOADED = 8  # voices kept in memory
MAX_PORT = (1 << 16) - 1
PRIVATE: dict[str, Any] = {"api_visibility": "private"}  # events of the page that are not part of its API
SEEDS = 1 << 31  # random seeds are below this, so that they are easy to type
EXAMPLES = [
    "Hello world, how are you?",
    "The old sailor has lost the garden gate by the sea.",
    "Did you see the blue umbrella? My sister found it behind the school this morning.",
]


class Voices:
    """The voices that the page offers: the runs with a checkpoint in `folder`, or only `model`.

    A voice is loaded when it is first used. Raises ValueError if there are no voices.
    """

    def __init__(self, folder: str | Path | None = None, model: str | Path | None = None, device: str = "auto") -> None:
        self.folder, self.model = Path(folder or RUNS), model
        self._loading = threading.Lock()
        # the second argument, a modification time, makes the cache load a changed file again
        self._load = functools.lru_cache(MAX_LOADED)(lambda file, _: synthesis.Voice.load(file, device=device))
        if not self.files():
            where = f"{folder} holds no run with a checkpoint G_STEP.pth"
            raise ValueError(f"{where}: train a voice, or give another folder with --voices or a checkpoint with -m")

    def files(self) -> dict[str, Path]:
        """Return names and checkpoints of the voices that the folder holds now."""
        if self.model is not None:
            file = synthesis.find_checkpoint(self.model)
            return {file.parent.name or file.stem: file}
        found: dict[str, Path] = {}
        for run in sorted(self.folder.iterdir()) if self.folder.is_dir() else []:
            if run.is_dir():
                with contextlib.suppress(ValueError):  # no checkpoints
                    found[run.name] = synthesis.find_checkpoint(run)
        return found

    def file(self, name: str) -> Path:
        """Return the checkpoint of a voice. Raises ValueError for a name that is not in the list."""
        files = self.files()
        if name not in files:
            raise ValueError("there is no such voice; reload the page to update the list")
        return files[name]

    def get(self, name: str) -> "synthesis.Voice":
        """Return a voice. Raises ValueError for an unknown name or a checkpoint that does not load."""
        file = self.file(name)
        try:
            with self._loading:
                return self._load(file, file.stat().st_mtime_ns)
        except (ValueError, OSError) as error:
            raise ValueError(str(error).replace(f"{file.parent}", name)) from None  # hides paths of the server

    def first(self) -> str:
        """Return the name of the first voice that loads. Raises ValueError if none does."""
        problem = ValueError("the folder holds no voice any more")
        for name in self.files():
            try:
                self.get(name)
                return name
            except ValueError as error:
                problem = error
        raise problem


@contextlib.contextmanager
def messages() -> Iterator[None]:
    """Show user errors as messages on the page."""
    try:
        yield
    except ValueError as error:
        # escaped, because the page renders markup and the message may quote typed text
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
    progress: Callable[..., Any] | None = None,
) -> tuple[tuple[int, np.ndarray], np.ndarray, str, str]:
    """Speak a text. `seed` is as typed, and `progress` is a `gradio.Progress`.

    Returns sampling rate and 16-bit samples `[samples]`, a picture `[h, w, 3]`, a line of facts, and the seed.
    """
    with messages():
        if len(text) > MAX_TEXT:
            raise ValueError(f"the text has {len(text)} characters; the limit is {MAX_TEXT}")
        voice, number = voices.get(name), seed_of(seed)
        speaker = speaker if voice.data.n_speakers else None

        def show(done: int, pieces: int) -> None:
            if progress is not None:  # not its truth value: a gradio.Progress has the length 0
                progress((done, pieces), desc="Speaking", unit="sentences")

        speech = voice.speak(text, speaker, noise_scale, noise_scale_w, length_scale, number, progress=show)
        facts = f"{speech.seconds:.1f} s · {count(len(speech.sentences), 'sentence')} · seed {number}"
        # 16 bits, because gradio scales float samples to a full-scale peak
        return (speech.sampling_rate, to_pcm(speech.audio)), inference.picture(voice, speech), facts, str(number)


def seed_of(typed: str | None) -> int:
    """Return the typed seed, or a random one for None and empty text. Raises ValueError for anything but digits."""
    if not typed or not typed.strip():
        return secrets.randbelow(SEEDS)
    if not typed.strip().isdecimal():
        raise ValueError(f"the seed is {typed!r}: give a whole number from 0, or nothing for a random seed")
    return int(typed)


def convert(
    voices: Voices, name: str, recording: str | None, source: str | None, target: str | None
) -> tuple[int, np.ndarray]:
    """Convert `recording`, a file that gradio has stored, from speaker `source` to `target`.

    Returns sampling rate in Hz and 16-bit samples `[samples]`.
    """
    with messages():
        if recording is None:
            raise ValueError("record or upload something to convert first")
        voice = voices.get(name)
        try:
            refuse_long(recording, MAX_RECORDING)
            audio = voice.convert(recording, source, target)  # type: ignore[arg-type]  # for None an error with choices
            return voice.sampling_rate, to_pcm(audio)
        except ValueError as error:
            raise ValueError(str(error).replace(recording, Path(recording).name)) from None


def count(number: int, noun: str) -> str:
    """Return a number with its noun: `1 sentence` or `2 sentences`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def chosen(voices: Voices, name: str) -> tuple[Any, ...]:
    """Return updates of the components that `build` lists for a voice. The first shows why a voice does not load."""
    try:
        voice = voices.get(name)
    except ValueError as error:
        return f"**This voice cannot be used:** {error}", *[gr.update(visible=False)] * 5
    speakers = list(voice.speakers)
    kind = count(len(speakers), "speaker") if speakers else "one speaker"
    many = bool(speakers)
    first, second, *_ = [*speakers, *speakers, None, None]
    return (
        f"{kind} · {voice.sampling_rate / 1000:g} kHz · {voices.file(name).name}",
        gr.update(choices=speakers, value=first, visible=many),
        gr.update(choices=speakers, value=first),
        gr.update(choices=speakers, value=second),
        gr.update(visible=many),
        gr.update(visible=not many),
    )


def build(voices: Voices) -> "gr.Blocks":
    """Create the page. Raises ValueError if no voice loads."""
    first = voices.first()

    def opened() -> tuple[Any, ...]:
        names = list(voices.files())
        name = first if first in names or not names else names[0]
        return gr.update(choices=names, value=name), *chosen(voices, name)

    # generated files are deleted after a day, and all of them when the program ends
    with gr.Blocks(title="VITS2 voices", analytics_enabled=False, delete_cache=(3600, 86400)) as page:
        gr.Markdown("# VITS2 voices\nChoose a voice, type a text, and listen.")
        with gr.Row():
            with gr.Column():
                name = gr.Dropdown(list(voices.files()), value=first, label="Voice")
            with gr.Column(elem_classes="facts"):
                about = gr.Markdown()
        with gr.Tab("Text to speech"):
            speaker = speech_tab(voices, name)
        with gr.Tab("Voice conversion"):
            source, target, conversion = conversion_tab(voices, name)
            no_conversion = gr.Markdown("Conversion needs a voice of several speakers; this one has a single speaker.")
        dependent = [about, speaker, source, target, conversion, no_conversion]  # shown and filled by `opened`
        name.change(functools.partial(chosen, voices), name, dependent, **PRIVATE)
        page.load(opened, None, [name, *dependent], **PRIVATE)
    return page.queue(default_concurrency_limit=2, max_size=MAX_WAITING)


def speech_tab(voices: Voices, name: "gr.Dropdown") -> "gr.Dropdown":
    """Create the inputs on the left, sound and picture on the right. Returns the speaker's component."""
    noise_scale, length_scale, noise_scale_w = Scales()
    speak_for_page: Any = functools.partial(speak, voices)
    # gradio reads the API's names from the signature, and finds its progress bar by the default
    *names, progress = inspect.signature(speak_for_page).parameters.values()
    speak_for_page.__signature__ = inspect.Signature([*names, progress.replace(default=gr.Progress())])
    with gr.Row():
        with gr.Column():
            text = gr.Textbox(EXAMPLES[1], lines=5, max_lines=12, max_length=MAX_TEXT, label="Text")
            speaker = speaker_choice("Speaker", visible=False)
            button = gr.Button("Speak", variant="primary")
            gr.Examples([[example] for example in EXAMPLES], [text], **PRIVATE)
            with gr.Accordion("More settings", open=False) as settings:
                length = gr.Slider(0.3, 3, length_scale, label="Length", info="above 1 is slower")
                sound, rhythm = "0 is the most probable sound", "0 is the most even rhythm"
                noise = gr.Slider(0, 1.5, noise_scale, label="Variation of the sound", info=sound)
                noise_w = gr.Slider(0, 1.5, noise_scale_w, label="Variation of the rhythm", info=rhythm)
                # not gr.Number, which turns an empty field into 0 when the settings are unfolded
                seed = gr.Textbox(label="Seed", info="the same seed gives the same audio", placeholder="random")
        with gr.Column():
            audio = gr.Audio(label="Speech", format="wav", interactive=False, buttons=["download"])
            with gr.Row(equal_height=True):
                facts = gr.Markdown(elem_classes="facts")
                keep = gr.Button("Keep this seed", size="sm", scale=0, min_width=140, visible=False)
            image = gr.Image(show_label=False, interactive=False, buttons=["download", "fullscreen"])
    used = gr.State()
    asked, answer = [name, text, speaker, noise, noise_w, length, seed], [audio, image, facts, used]
    gr.on([button.click, text.submit], speak_for_page, asked, answer, show_progress_on=audio, api_name="speak")
    used.change(lambda: gr.update(visible=True), None, keep, **PRIVATE)
    keep.click(lambda used: (used, gr.update(open=True)), used, [seed, settings], show_progress="hidden", **PRIVATE)
    return speaker


def conversion_tab(voices: Voices, name: "gr.Dropdown") -> "tuple[gr.Dropdown, gr.Dropdown, gr.Row]":
    """Create the recording on the left, the sound on the right. Returns both speakers' components and their row."""
    with gr.Row(visible=False) as row:
        with gr.Column():
            label = f"Recording (up to {MAX_RECORDING} seconds)"
            recording = gr.Audio(label=label, type="filepath", buttons=["download"])
            with gr.Row():
                source, target = speaker_choice("Source speaker"), speaker_choice("Target speaker")
            button = gr.Button("Convert", variant="primary")
        with gr.Column():
            converted = gr.Audio(label="Converted", format="wav", interactive=False, buttons=["download"])
            gr.Markdown("Both must be speakers of the voice. Recordings of other people are converted less accurately.")
    button.click(functools.partial(convert, voices), [name, recording, source, target], converted, api_name="convert")
    return source, target, row


def speaker_choice(label: str, visible: bool = True) -> "gr.Dropdown":
    """Create a choice that accepts any value, because API clients have not chosen a voice. The voice checks it."""
    return gr.Dropdown([], value=None, label=label, allow_custom_value=True, visible=visible)


def serve(page: "gr.Blocks", port: int | None, share: bool = False, quiet: bool = False) -> str:
    """Start the server in threads of its own; `port` None is any free port. Returns the page's address.

    Raises ValueError for a port that is out of range or in use.
    """
    if port is not None and not 0 < port <= MAX_PORT:
        raise ValueError(f"port is {port}; it may be from 1 to {MAX_PORT}")
    theme = gr.themes.Default(  # fonts of gradio or the system, so that the page needs no other server
        primary_hue="indigo",
        neutral_hue="slate",
        font=[gr.themes.LocalFont("Source Sans Pro", weights=(400, 700)), "sans-serif"],
        font_mono=[gr.themes.Font("monospace")],
    )
    css = Path(__file__).with_suffix(".css")
    look: dict[str, Any] = {"theme": theme, "css_paths": css, "footer_links": ["api"], "run_history": False}
    try:
        return page.launch(
            prevent_thread_lock=True, server_port=port, share=share, quiet=quiet, max_file_size="100mb", **look
        )[1]
    except OSError:
        raise ValueError(f"port {port} cannot be opened, perhaps because it is in use: change --port") from None


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program with the given arguments, by default those of the command line."""
    parser = cli.Parser(__doc__)
    voices = parser.add_mutually_exclusive_group()
    voices.add_argument("--voices", default=RUNS, metavar="FOLDER", help="folder of runs to offer")
    help_text = "offer only this run: its name in logs/, its folder or a checkpoint (default: all of --voices)"
    cli.add_run(voices, "-m", "--model", help=help_text)
    cli.add_device(parser)
    parser.add_argument("--port", type=int, default=7860, metavar="N", help=f"port of the page, 1 to {MAX_PORT}")
    parser.add_argument("--share", action="store_true", help="create a public address through gradio's tunnel")
    args = parser.parse_args(arguments)
    with cli.errors_in_one_line("webui"):
        cli.extra("gradio")
        page = build(Voices(args.voices, args.model, args.device))
        serve(page, args.port, args.share)
        page.block_thread()


if __name__ == "__main__":
    main()
