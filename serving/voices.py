"""The voices that the server offers, by name. A client never sends a path."""

import contextlib
import functools
import threading
from pathlib import Path
from typing import Any

import synthesis
from files import PRETRAINED, RUNS, pretrained_voice

MAX_LOADED = 8  # voices kept in memory


class UnknownVoice(ValueError):
    """The server offers no voice of this name."""


class Voices:
    """The runs with a checkpoint in `folder` and `pretrained`, the pretrained voice, or only `model`.

    A voice is loaded when it is first used. Raises ValueError if there are no voices.
    """

    def __init__(self, folder: str | Path | None = None, model: str | Path | None = None, device: str = "auto") -> None:
        self.folder, self.model = Path(folder or RUNS), model
        self._loading = threading.Lock()
        # the second argument, a modification time, makes the cache load a changed file again
        self._load = functools.lru_cache(MAX_LOADED)(lambda file, _: synthesis.Voice.load(file, device=device))
        if not self.files():
            where = f"{self.folder} holds no run with a checkpoint G_STEP.pth"
            raise ValueError(f"{where}: train a voice, or give another folder with --voices or a checkpoint with -m")

    def files(self) -> dict[str, Path]:
        """Return names and checkpoints of the voices that the folders hold now."""
        if self.model is not None:
            file = synthesis.find_checkpoint(self.model)
            return {file.parent.name or file.stem: file}
        found: dict[str, Path] = {}
        for run in sorted(self.folder.iterdir()) if self.folder.is_dir() else []:
            if run.is_dir():
                with contextlib.suppress(ValueError):  # no checkpoints
                    found[run.name] = synthesis.find_checkpoint(run)
        with contextlib.suppress(ValueError):
            found.setdefault(PRETRAINED.name, pretrained_voice())
        return found

    def file(self, name: str) -> Path:
        """Return the checkpoint of a voice. Raises UnknownVoice for a name that is not in the list."""
        files = self.files()
        if not isinstance(name, str) or name not in files:  # clients may send anything
            raise UnknownVoice("there is no such voice; the list of voices may have changed")
        return files[name]

    def get(self, name: str) -> "synthesis.Voice":
        """Return a voice. Raises ValueError for an unknown name or a checkpoint that does not load."""
        file = self.file(name)
        try:
            with self._loading:
                return self._load(file, file.stat().st_mtime_ns)
        except (ValueError, OSError) as error:
            raise ValueError(str(error).replace(f"{file.parent}", name)) from None  # hides paths of the server

    def about(self, name: str) -> dict[str, Any]:
        """Return a description of a voice for clients, with `error` if it does not load. Raises UnknownVoice."""
        described = {"name": name, "checkpoint": self.file(name).name}
        try:
            voice = self.get(name)
        except UnknownVoice:
            raise
        except ValueError as error:
            return described | {"error": str(error)}
        speakers = {"speakers": list(voice.speakers), "default_speaker": voice.default_speaker}
        return described | speakers | {"sampling_rate": voice.sampling_rate}

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
