"""Comparison of speech and text: a recognizer transcribes each recording, and clips are ranked by their error rate."""

from collections.abc import Sequence
from pathlib import Path

from audio import load_audio
from corpora.cache import computed
from corpora.filelist import Clip, read_filelist
from corpora.report import Heard
from evaluation import RATE
from evaluation.recognition import Whisper, edits, normalize


class Comparison:
    """Compares the recordings of lists with their texts before cleaning.

    Args: `paths` of lists, cleaned or not; `model` and `language` as in `evaluation.recognition.Whisper`. Raises
    ValueError if a list of plain text, a package or the model of the recognizer is missing.
    """

    def __init__(self, paths: Sequence[str], model: str | None, language: str):
        self.texts: dict[str, str] = {}
        for plain in (path.removesuffix(".cleaned") for path in paths):
            if not Path(plain).is_file():
                raise ValueError(f"there is no list {plain}: speech is compared with text before it is cleaned")
            self.texts |= {clip.path: clip.text for clip in read_filelist(plain)}
        if language != "en" and not model:
            raise ValueError(f"speech in {language!r} needs a multilingual model: give its folder with --whisper")
        self.recognizer = Whisper(model, language)
        self.language, self.settings = language, [model, language, RATE]

    def rank(self, clips: Sequence[Clip], cache: str | Path | None) -> list[Heard]:
        """Transcribe recordings. Return their clips with plain text, the largest error rate first.

        `cache` is a JSON file that keeps what was heard.
        """
        compared = {clip.path: clip._replace(text=self.texts[clip.path]) for clip in clips if clip.path in self.texts}
        title, is_text = "recognizing speech", lambda value: isinstance(value, str)
        transcripts = computed([*compared], self._transcribe, cache, self.settings, title, is_text, workers=1)
        ranked = [
            Heard(clip, said, self._error_rate(clip.text, said)) for clip, said in zip(compared.values(), transcripts)
        ]
        return sorted(ranked, key=lambda heard: -heard.cer)

    def _transcribe(self, path: str) -> str:
        return self.recognizer.transcribe(load_audio(path, RATE))

    def _error_rate(self, text: str, said: str) -> float:
        counts = edits(normalize(text, self.language), normalize(said, self.language))
        return counts.characters / max(1, counts.character_count)
