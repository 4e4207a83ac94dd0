"""Takes: the audio that is scored, one file for each line of a filelist, and facts that only the voice can state.

`speak` writes the takes of a voice to a folder, with `takes.json` beside them. This stage needs no package for
evaluation, so it can run on another machine than the scoring. `takes.json` holds the settings of the voice and, for
each sentence, times in seconds and durations in whole frames: `symbols` of the tokens of the whole line, `predicted`
durations [draws][tokens] as they are spoken, and `aligned` durations [tokens] of the recording.
"""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from audio import FORMATS, read_header, save_audio
from corpora.filelist import read_filelist
from evaluation import alignment
from files import write_text
from synthesis.speech import BaseVoice

if TYPE_CHECKING:
    from synthesis import Voice

FOLDER, FACTS = "wavs", "takes.json"  # in the output folder
JSON, MARKDOWN = "report.json", "report.md"  # there too, written by `evaluation.report`
LEAST_SECONDS = 0.1  # of audio that the networks accept


@dataclass
class Take:
    """The audio of one line, and its entry in `takes.json`, which is empty for recordings and for other systems."""

    name: str  # of the recording, without folder and suffix
    text: str
    recording: str  # path
    speaker: str | None  # column of the filelist
    audio: str  # path of the audio that is scored
    facts: dict[str, Any] = field(default_factory=dict)


def recordings(filelist: str | Path) -> list[Take]:
    """Return the recordings of a filelist as takes.

    Recordings of one name in several folders are named by folder and name. Raises ValueError as `read_filelist`, for a
    list of phonemes, and for a recording that is listed twice.
    """
    if Path(filelist).suffix == ".cleaned":
        raise ValueError(f"{filelist} holds phonemes, and evaluation needs the text: give {Path(filelist).stem}")
    clips = read_filelist(filelist)
    names = [Path(clip.path).stem for clip in clips]
    if len(set(names)) < len(names):
        names = ["_".join(Path(clip.path).with_suffix("").parts[-2:]) for clip in clips]
    name, count = Counter(names).most_common(1)[0]
    if count > 1:
        raise ValueError(f"{filelist}: {count} recordings are named {name!r}; the names must differ")
    return [Take(name, clip.text, clip.path, clip.speaker, clip.path) for name, clip in zip(names, clips)]


def check_audio(takes: Iterable[Take]) -> None:
    """Raise ValueError if the audio of a take or its recording is missing, is not audio, or is too short."""
    for path in dict.fromkeys(path for take in takes for path in (take.recording, take.audio)):
        refuse_short(path, *read_header(path))


def refuse_short(path: str, samples: int, rate: int) -> None:
    """Raise ValueError if a file of that number of samples at `rate` Hz is too short to be scored."""
    if samples < LEAST_SECONDS * rate:
        raise ValueError(f"{path} lasts {samples / rate:.3f} s; evaluation needs at least {LEAST_SECONDS:g} s")


def check_lines(voice: BaseVoice, lines: Sequence[Take], speaker: str | None) -> list[Take]:
    """Return the lines with the speakers that `speak` gives them.

    Raises ValueError if the voice cannot speak a line, or has no such speaker.
    """
    checked = []
    for line in lines:
        who = speaker_of(voice, line, speaker)
        try:
            voice.speaker_id(who)
            voice.read(line.text)
        except ValueError as error:
            raise ValueError(f"{line.recording}: {error}") from None
        checked.append(replace(line, facts={"speaker": who}))
    return checked


def sources(voice: BaseVoice, lines: Sequence[Take], target: str) -> list[Take]:
    """Return the lines that `convert` converts to a speaker: those of other speakers, with the target in their facts.

    Raises ValueError if the voice cannot convert recordings, has no such speaker, or if no line is of another speaker.
    """
    if not hasattr(voice, "convert"):
        raise ValueError("--convert needs a checkpoint: an exported voice has no posterior encoder")
    if not voice.data.n_speakers:
        raise ValueError("--convert needs a model of several speakers, and this model has a single voice")
    target_id = voice.speaker_id(target)
    if unnamed := [line.recording for line in lines if line.speaker is None]:
        raise ValueError(f"--convert needs lines path|speaker|text: {unnamed[0]} has no speaker")
    others = [line for line in lines if voice.speaker_id(line.speaker) != target_id]
    if not others:
        raise ValueError(f"--convert {target}: all recordings are of this speaker")
    return [replace(line, facts={"speaker": target, "source": line.speaker}) for line in others]


def speaker_of(voice: BaseVoice, line: Take, speaker: str | None) -> str | None:
    """Return who speaks a line: the given speaker, or the one of the filelist if the voice has several."""
    return speaker if speaker is not None else line.speaker if voice.data.n_speakers else None


def read_json(path: Path) -> dict[str, Any]:
    """Return the content of takes.json or report.json. Raises ValueError if the file is damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(content["sentences"], list) and all(isinstance(s, dict) for s in content["sentences"]):
            return content
    except (ValueError, KeyError, TypeError):
        pass
    raise ValueError(f"{path} is damaged: it must be a JSON object with a list of sentences")


def read(folder: str | Path, lines: Sequence[Take]) -> tuple[list[Take], dict[str, Any]]:
    """Return the takes in a folder of any system's audio, `NAME.wav` for each line, and the settings of the voice.

    The settings and facts come from `takes.json` in the folder or beside it; without it they are empty. Raises
    ValueError if a line has no audio file or several, or if the takes are of another text.
    """
    folder = Path(folder)
    described = next((path for path in (folder / FACTS, folder.parent / FACTS) if path.is_file()), None)
    content = read_json(described) if described else {"sentences": []}
    facts = {sentence.get("name"): sentence for sentence in content.pop("sentences")}
    if content.get("convert"):  # the recordings of the target speaker are not converted
        lines = [line for line in lines if line.name in facts]
    takes = []
    for line in lines:
        paths = [folder / f"{line.name}{suffix}" for suffix in FORMATS]
        found = [path for path in paths if path.is_file()]
        if not found:
            raise ValueError(f"{folder} has no {paths[0].name} (nor {', '.join(list(FORMATS)[1:])}) for {line.text!r}")
        if found[1:]:
            raise ValueError(f"{folder} has {' and '.join(path.name for path in found)}: remove all but one of them")
        known = facts.get(line.name, {})
        if known and known.get("text") != line.text:
            raise ValueError(
                f"{described}: {line.name} was spoken from {known.get('text')!r}, and the list has {line.text!r}"
            )
        takes.append(Take(line.name, line.text, line.recording, line.speaker, str(found[0]), known))
    return takes, content


def speak(
    voice: BaseVoice,
    lines: Sequence[Take],
    output: str | Path,
    seed: int,
    draws: int,
    speaker: str | None = None,
    **about: Any,
) -> tuple[list[Take], dict[str, Any]]:
    """Speak all lines to `OUTPUT/wavs` and write `OUTPUT/takes.json`. Returns the takes and settings, as `read`.

    Args:
        seed: of every sentence; an exported voice without noise inputs draws its own noise.
        draws: predictions of the durations for each sentence, from which the spread is computed.
        speaker: name or id; by default the one of each line, if the voice has several.
        about: entries of `takes.json` that describe the voice.
    """
    seeds: dict[str, Any] = {"seed": seed} if alignment.takes_seeds(voice) else {}
    gpu = gpu_of(voice)
    frame_ms = 1000 * voice.data.hop_length / voice.sampling_rate
    warm = False

    def spoken(line: Take) -> tuple[np.ndarray, dict[str, Any]]:
        nonlocal warm
        who = speaker_of(voice, line, speaker)
        for _ in range(1 if warm and not gpu else 2):  # the first sentence, and any new length on a GPU, is slower
            begin = time.perf_counter()
            speech = voice.speak(line.text, who, **seeds)
            elapsed = time.perf_counter() - begin
            begin = time.perf_counter()
            next(voice.speak(line.text, who, stream=True, **seeds))
            first_sound = time.perf_counter() - begin
        warm = True
        times = {"elapsed": elapsed, "first_sound": first_sound, "frame_ms": frame_ms}
        durations = alignment.durations(voice, line.text, line.recording, who, seed, draws)
        return speech.audio, {"speaker": who, **times, **durations}

    return _write_takes(
        voice, lines, output, spoken, "speaking", {**about, "speaker": speaker, "draws": draws, **seeds}
    )


def convert(
    voice: "Voice", lines: Sequence[Take], output: str | Path, seed: int, target: str, **about: Any
) -> tuple[list[Take], dict[str, Any]]:
    """Convert the recordings of all lines to the voice of a speaker. Writes and returns the same as `speak`.

    The facts of a take name the speaker of the recording as its `source`.
    """

    def converted(line: Take) -> tuple[np.ndarray, dict[str, Any]]:
        begin = time.perf_counter()
        audio = voice.convert(line.recording, str(line.speaker), target, seed=seed)
        return audio, {"speaker": target, "source": line.speaker, "elapsed": time.perf_counter() - begin}

    return _write_takes(voice, lines, output, converted, "converting", {**about, "convert": target, "seed": seed})


def _write_takes(
    voice: BaseVoice,
    lines: Sequence[Take],
    output: str | Path,
    produce: Callable[[Take], tuple[np.ndarray, dict[str, Any]]],
    title: str,
    settings: dict[str, Any],
) -> tuple[list[Take], dict[str, Any]]:
    """Write the audio `[samples]` and the facts that `produce` returns for each line, and the settings of the voice."""
    folder = Path(output) / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    remove_results(output)
    takes: list[Take] = []
    for line in tqdm(lines, title, unit="line", disable=None):
        audio, facts = produce(line)
        path = folder / f"{line.name}.flac"
        save_audio(path, audio, voice.sampling_rate)
        facts = {"name": line.name, "text": line.text, "seconds": len(audio) / voice.sampling_rate, **facts}
        takes.append(Take(line.name, line.text, line.recording, line.speaker, str(path), facts))
    settings |= {"step": voice.step, "device": gpu_of(voice) or "CPU", "sampling_rate": voice.sampling_rate}
    write_facts(output, settings, [take.facts for take in takes])
    return takes, settings


def remove_results(output: str | Path) -> None:
    """Remove takes.json and the report, which do not describe audio that is about to be replaced."""
    for name in (FACTS, JSON, MARKDOWN):
        (Path(output) / name).unlink(missing_ok=True)


def write_facts(output: str | Path, settings: dict[str, Any], sentences: list[dict[str, Any]]) -> None:
    """Write `OUTPUT/takes.json`: the settings of a voice, and facts of each sentence."""
    content = {**settings, "sentences": sentences}
    write_text(Path(output) / FACTS, json.dumps(content, ensure_ascii=False) + "\n")


def gpu_of(voice: BaseVoice) -> str | None:
    """Return the name of the GPU that the voice runs on, None on the CPU."""
    if not hasattr(voice, "device") or voice.device.type != "cuda":
        return None
    import torch

    return torch.cuda.get_device_name(voice.device)
