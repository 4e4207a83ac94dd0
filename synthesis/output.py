"""What programs write from speech: audio files, raw samples, timings and subtitles. Does not import PyTorch."""

import io
import json
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from audio import save_audio, to_pcm
from files import write_text
from synthesis.speech import BaseVoice, Speech, Text


def speak_to_file(
    voice: BaseVoice, text: Text, path: str | Path, timings: str | Path | None = None, raw: bool = False, **options: Any
) -> Speech | None:
    """Speak one text with `options` of `BaseVoice.speak`, write the audio as `save` does, and print a report.

    `timings` is a file for the times, in the format of `TIMINGS` that its suffix names, or None. With `raw`, samples
    are streamed to standard output instead, and the result is None.
    """
    if raw:
        write_raw(voice, text, **options)
        return None
    begin = time.perf_counter()
    speech = voice.speak(text, **options)
    elapsed = time.perf_counter() - begin
    save(path, speech.audio, speech.sampling_rate)
    if timings:
        Path(timings).parent.mkdir(parents=True, exist_ok=True)
        write_text(timings, TIMINGS[Path(timings).suffix.lower()](speech))
    report(path, speech.seconds, elapsed)
    return speech


def write_raw(voice: BaseVoice, text: Text, **options: Any) -> None:
    """Speak to standard output as `write_parts` does."""
    write_parts(voice.speak(text, stream=True, **options))


def write_parts(parts: Iterable[np.ndarray]) -> None:
    """Write parts of audio, float `[samples]`, to standard output as 16-bit little-endian mono PCM."""
    for part in parts:
        sys.stdout.buffer.write(to_pcm(part).astype("<i2").tobytes())
        sys.stdout.buffer.flush()


def save(path: str | Path, samples: np.ndarray, sampling_rate: int) -> None:
    """Write samples `[samples]` to an audio file, whose folder is created, or as WAV to standard output for "-"."""
    if path != "-":
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        save_audio(path, samples, sampling_rate)
        return
    wav = io.BytesIO()
    soundfile.write(wav, to_pcm(samples), sampling_rate, format="WAV")
    sys.stdout.buffer.write(wav.getvalue())


def report(path: str | Path, seconds: float, elapsed: float) -> None:
    """Print the duration of the audio and the speed of synthesis; to standard error if the audio went to "-"."""
    line = f"{path}: {seconds:.2f} s of audio, {seconds / elapsed:.1f} times real time"
    print(line, file=sys.stderr if path == "-" else sys.stdout)


def subtitles(speech: Speech) -> str:
    """Return the sentences of a speech as SubRip subtitles."""

    def clock(seconds: float) -> str:
        ms = round(1000 * seconds)
        return f"{ms // 3_600_000:02}:{ms // 60_000 % 60:02}:{ms // 1000 % 60:02},{ms % 1000:03}"

    blocks = []
    for number, timed in enumerate(speech.timings(), 1):
        text = timed["text"] or " ".join(word["symbols"] for word in timed["words"])  # token ids have no text
        blocks.append(f"{number}\n{clock(timed['start'])} --> {clock(timed['end'])}\n{text}\n")
    return "\n".join(blocks)


TIMINGS: dict[str, Callable[[Speech], str]] = {
    ".json": lambda speech: json.dumps(speech.timings(), ensure_ascii=False, indent=1) + "\n",
    ".srt": subtitles,
}
