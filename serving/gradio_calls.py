"""The calls `/speak` and `/convert` for clients of Gradio, which the page of earlier versions had."""

import contextlib
import html
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

import inference
from audio import to_pcm
from serving.api import convert_file
from serving.gate import Listeners
from serving.studio import Studio
from serving.takes import Take, speaker_of
from serving.voices import Voices
from synthesis.speech import Scales, Speech


class Blocks(gr.Blocks):
    """Gradio's part of the server. A value of the wrong type is a message to the client, not a traceback in the log."""

    async def preprocess_data(self, *arguments: Any, **options: Any) -> Any:
        """Check and convert the values of a call."""
        try:
            return await super().preprocess_data(*arguments, **options)
        except Exception as error:  # of pydantic, of gradio, and whatever a comparison of wrong types raises
            raise gr.Error(f"a value of the call is not valid: {type(error).__name__}", print_exception=False) from None


@contextlib.contextmanager
def messages() -> Iterator[None]:
    """Show user errors as messages of Gradio."""
    try:
        yield
    except ValueError as error:
        # escaped, because clients may render markup and the message may quote typed text
        raise gr.Error(html.escape(str(error), quote=False), print_exception=False) from None


def seed_of(typed: str | None) -> int | None:
    """Return the typed seed, None for None and empty text. Raises ValueError for anything but digits."""
    if not typed or not typed.strip():
        return None
    if not typed.strip().isdecimal():
        raise ValueError(f"the seed is {typed!r}: give a whole number from 0, or nothing for a random seed")
    return int(typed)


def count(number: int, noun: str) -> str:
    """Return a number with its noun: `1 sentence` or `2 sentences`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


class Calls:
    """The functions behind the calls. A call whose client has left ends with its next part of audio."""

    def __init__(self, voices: Voices, studio: Studio, listeners: Listeners):
        self.voices, self.studio, self.listeners = voices, studio, listeners

    async def speak(
        self,
        name: str,
        text: str,
        speaker: str | None,
        noise_scale: float,
        noise_scale_w: float,
        length_scale: float,
        seed: str | None,
        request: Any = None,
    ) -> tuple[tuple[int, np.ndarray], np.ndarray, str]:
        """Speak a text; `seed` is as typed, and `request` is Gradio's.

        Returns sampling rate and 16-bit samples `[samples]`, a picture `[h, w, 3]`, and a line of facts.
        """
        began = time.monotonic()
        with messages(), self.studio.open() as job:
            voice, number = self.voices.get(name), seed_of(seed)
            scales = Scales(noise_scale, length_scale, noise_scale_w)._asdict()
            speaker = speaker_of(voice, speaker) if voice.speakers else None
            take = await job.run(lambda: Take(voice, text, speaker=speaker, seed=number, **scales))
            parts = []
            async for part in job.iterate(take.parts):
                parts.append(part)
                if request is not None:
                    self.listeners.check(request.session_hash, began)
            speech = Speech(np.concatenate(parts), voice.sampling_rate, voice.data.hop_length, take.sentences)
            picture = await job.run(inference.picture, voice, speech)
            facts = f"{speech.seconds:.1f} s · {count(len(speech.sentences), 'sentence')} · seed {take.seed}"
            # 16 bits, because gradio scales float samples to a full-scale peak
            return (speech.sampling_rate, to_pcm(speech.audio)), picture, facts

    async def convert(
        self, name: str, recording: str | None, source: str | None, target: str | None
    ) -> tuple[int, np.ndarray]:
        """Convert `recording`, a file that Gradio has stored, from speaker `source` to `target`.

        Returns sampling rate in Hz and 16-bit samples `[samples]`.
        """
        with messages(), self.studio.open() as job:
            if recording is None:
                raise ValueError("record or upload something to convert first")
            voice = self.voices.get(name)
            audio = await convert_file(job, voice, recording, Path(recording).name, source, target, None)
            return voice.sampling_rate, to_pcm(audio)


def build(calls: Calls) -> Blocks:
    """Create Gradio's part of the server, which has no page."""
    noise_scale, length_scale, noise_scale_w = Scales()
    names = list(calls.voices.files())

    async def speak(
        name: str,
        text: str,
        speaker: str | None,
        noise_scale: float,
        noise_scale_w: float,
        length_scale: float,
        seed: str | None,
        request: gr.Request,
    ) -> Any:
        return await calls.speak(name, text, speaker, noise_scale, noise_scale_w, length_scale, seed, request)

    # generated files are deleted after a day, and all of them when the program ends
    with Blocks(analytics_enabled=False, delete_cache=(3600, 86400)) as blocks:
        name = gr.Dropdown(names, value=names[0], label="Voice")
        speaker, source, target = (
            gr.Dropdown([], value=None, label=label, allow_custom_value=True)  # any: the voice checks it
            for label in ("Speaker", "Source speaker", "Target speaker")
        )
        noise = gr.Slider(0, 1.5, noise_scale, label="Variation of the sound")
        noise_w = gr.Slider(0, 1.5, noise_scale_w, label="Variation of the rhythm")
        length = gr.Slider(0.3, 3, length_scale, label="Length")
        inputs = [name, gr.Textbox(label="Text"), speaker, noise, noise_w, length, gr.Textbox(label="Seed")]
        outputs = [gr.Audio(label="Speech", format="wav"), gr.Image(), gr.Textbox(label="Facts")]
        gr.Button().click(speak, inputs, outputs, api_name="speak")
        recording, converted = gr.Audio(label="Recording", type="filepath"), gr.Audio(label="Converted", format="wav")
        gr.Button().click(calls.convert, [name, recording, source, target], converted, api_name="convert")
    return blocks.queue(default_concurrency_limit=None)
