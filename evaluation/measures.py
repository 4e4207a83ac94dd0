"""Measures: they compute the quantities of a report, one sentence at a time.

A measure returns the terms of one sentence, and leaves out quantities that it cannot compute: those that need the
recording, when the recordings themselves are scored, and those that need `takes.json`, for other systems.
"""

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from audio import load_audio
from evaluation import RATE, acoustics, durations, needed
from evaluation.judges import JUDGES, SpeakerEncoder, cosine_to_mean
from evaluation.quantities import QUANTITIES
from evaluation.recognition import Whisper, edits, normalize
from evaluation.takes import Take, refuse_short

TRIM_FRAME = 400  # samples at `RATE`, of the frames whose levels are compared
SILENCE = 40  # dB below the loudest frame, at the ends of the audio


class Sound(NamedTuple):
    """Audio of a take and its recording, float32 `[n]` at `RATE`; the recording is None if it is the take itself."""

    spoken: np.ndarray
    recorded: np.ndarray | None


class Options(NamedTuple):
    """Choices of the user that measures read."""

    references: Sequence[Take]  # recordings that define the speakers
    whisper: str | None = None  # folder of another model
    language: str = "en"


class Score(NamedTuple):
    """Result of one sentence: terms of the sums of each quantity, and facts for its entry in report.json."""

    terms: Mapping[str, tuple[float, ...]]
    facts: Mapping[str, Any] = {}


class Measure(ABC):
    """Computes one or more quantities of `QUANTITIES`. Raises ValueError if a package is missing."""

    def __init__(self, options: Options):
        self.options = options

    def check(self, takes: Sequence[Take]) -> None:  # noqa: B027 - most measures can score any take
        """Raise ValueError if takes cannot be scored, before they are spoken."""

    @abstractmethod
    def score(self, take: Take, sound: Sound) -> Score:
        """Score one sentence."""


class Recognition(Measure):
    """Error rates of a recognizer: `cer` and `wer`."""

    def __init__(self, options: Options):
        super().__init__(options)
        self.recognizer = Whisper(options.whisper, options.language)

    def score(self, take: Take, sound: Sound) -> Score:
        """Transcribe the audio and count edits."""
        heard = self.recognizer.transcribe(sound.spoken)
        counts = edits(*(normalize(text, self.options.language) for text in (take.text, heard)))
        terms = {"cer": (counts.characters, counts.character_count), "wer": (counts.words, counts.word_count)}
        return Score(terms, {"heard": heard, "cer": counts.characters / max(1, counts.character_count)})


class Opinion(Measure):
    """Predicted opinion scores: every entry of `JUDGES`."""

    def __init__(self, options: Options):
        super().__init__(options)
        self.judges = {name: judge() for name, judge in JUDGES.items()}

    def score(self, take: Take, sound: Sound) -> Score:
        """Run every predictor."""
        scores = {name: judge.score(sound.spoken) for name, judge in self.judges.items()}
        return Score({name: (score, 1) for name, score in scores.items()}, scores)


class Similarity(Measure):
    """Similarity of a take to the mean of its speaker's reference recordings, excluding the take itself.

    A converted take is compared with the speaker of its recording too: `source_similarity`.
    """

    def __init__(self, options: Options):
        super().__init__(options)
        self.encoder = SpeakerEncoder()
        self.references: dict[str | None, dict[str, np.ndarray]] = defaultdict(dict)

    def check(self, takes: Sequence[Take]) -> None:
        """Raise ValueError for a take whose speaker has no reference recording."""
        speakers = {reference.speaker for reference in self.options.references}
        for take in takes:
            for who in _speakers(take):
                if (len(speakers) != 1 or "source" in take.facts) and who not in speakers:
                    raise ValueError(
                        f"no recording of speaker {who!r} to compare with: name a filelist with --reference"
                    )

    def score(self, take: Take, sound: Sound) -> Score:
        """Compare embeddings."""
        for reference in () if self.references else self.options.references:
            embedding = self.encoder.embed(load_audio(reference.recording, RATE))
            self.references[reference.speaker][reference.recording] = embedding
        embedding = self.encoder.embed(sound.spoken)
        found = {}
        for name, who in zip(("similarity", "source_similarity"), _speakers(take)):
            known = next(iter(self.references.values())) if len(self.references) == 1 else self.references[who]
            own = take.recording if name == "source_similarity" else take.audio
            if others := [reference for path, reference in known.items() if path != own]:
                found[name] = cosine_to_mean(embedding, others)
        return Score({name: (value, 1) for name, value in found.items()}, found)


def _speakers(take: Take) -> list[str | None]:
    """Return the speaker of a take and, if it is converted, the speaker of its recording."""
    speaker = take.facts.get("speaker") or take.speaker
    return [speaker, take.facts["source"]] if "source" in take.facts else [speaker]


class Acoustics(Measure):
    """Distances to the recording: `mcd`, `log_f0_rmse` and `voicing_error`."""

    def __init__(self, options: Options):
        super().__init__(options)
        needed("pyworld")

    def score(self, take: Take, sound: Sound) -> Score:
        """Compare the take with its recording."""
        if sound.recorded is None or "source" in take.facts:  # the recording of a converted take is of another voice
            return Score({})
        d = acoustics.compare(acoustics.analyze(sound.spoken), acoustics.analyze(sound.recorded))
        terms = {
            "mcd": (d.distortion, d.pairs),
            "log_f0_rmse": (d.squared_log_f0, d.voiced_pairs),
            "voicing_error": (d.voicing_errors, d.pairs),
        }
        return Score(terms, {"mcd": d.distortion / d.pairs})


class Durations(Measure):
    """Rhythm: variation of durations, spread between seeds, and speaking rate."""

    def score(self, take: Take, sound: Sound) -> Score:
        """Compare predicted and aligned durations, and the speaking rates."""
        letters = len(normalize(take.text, self.options.language).replace(" ", ""))
        spoken = (letters, voiced_seconds(sound.spoken))
        terms: dict[str, tuple[float, ...]] = {"speaking_rate": spoken}
        if sound.recorded is not None:
            terms["speaking_rate_ratio"] = (*spoken, letters, voiced_seconds(sound.recorded))
        if "predicted" in take.facts:
            drawn = durations.merged_log(take.facts["symbols"], take.facts["predicted"])[1]
            if len(drawn) > 1:
                terms["duration_spread"] = (drawn.std(0, ddof=1).sum(), drawn.shape[1])
            if "aligned" in take.facts:
                aligned = durations.merged_log(take.facts["symbols"], take.facts["aligned"])[1]
                x, y = drawn.ravel(), np.tile(aligned, len(drawn))
                terms["duration_std_ratio"] = (x.size, x.sum(), (x**2).sum(), y.sum(), (y**2).sum())
        return Score(terms)


class Speed(Measure):
    """Computing time: `real_time_factor` and `first_sound`."""

    def score(self, take: Take, sound: Sound) -> Score:
        """Read the times of `takes.json`."""
        facts = take.facts
        terms: dict[str, tuple[float, ...]] = {}
        if "elapsed" in facts:
            terms["real_time_factor"] = (facts["elapsed"], facts["seconds"])
        if "first_sound" in facts:
            terms["first_sound"] = (facts["first_sound"], 1)
        return Score(terms)


MEASURES: dict[str, type[Measure]] = {
    "cer": Recognition,
    "mos": Opinion,
    "similarity": Similarity,
    "mcd": Acoustics,
    "durations": Durations,
    "speed": Speed,
}


def voiced_seconds(samples: np.ndarray) -> float:
    """Return the duration of samples `[n]` at `RATE` without silence at the ends, in seconds."""
    import librosa  # takes seconds

    trimmed, _ = librosa.effects.trim(samples, top_db=SILENCE, frame_length=TRIM_FRAME, hop_length=TRIM_FRAME // 4)
    return len(trimmed) / RATE


def load_sound(path: str) -> np.ndarray:
    """Return samples `[n]` at `RATE` in -1..1. Raises ValueError for audio that is too short or not finite."""
    samples = load_audio(path, RATE)
    refuse_short(path, len(samples), RATE)
    if not np.isfinite(samples).all():
        raise ValueError(f"{path}: the samples contain NaN or infinity")
    return np.clip(samples, -1, 1)


def score_all(
    takes: Sequence[Take], measures: dict[str, Measure], progress: Callable[[Sequence[Take]], Any]
) -> tuple[dict[str, np.ndarray], list[dict[str, Any]]]:
    """Score every take with every measure.

    Returns the terms of each quantity `[sentences, k]`, NaN for sentences that have none, and facts of each
    sentence. Raises ValueError for audio that is too short or not finite.
    """
    terms: list[dict[str, tuple[float, ...]]] = []
    sentences = []
    for take in progress(takes):
        own = take.audio == take.recording
        sound = Sound(load_sound(take.audio), None if own else load_sound(take.recording))
        sentence: dict[str, Any] = {"name": take.name, "text": take.text}
        terms.append({})
        for measure in measures.values():
            score = measure.score(take, sound)
            sentence |= score.facts
            terms[-1] |= score.terms
        sentences.append(sentence)
    widths = {name: len(row) for rows in terms for name, row in rows.items()}
    matrices = {
        name: np.array([rows.get(name, (np.nan,) * widths[name]) for rows in terms], np.float64)
        for name in QUANTITIES
        if name in widths
    }
    return matrices, sentences
