"""Conditions of the network besides the text: the speaker, and whatever a project adds.

A bundle is a dict from names of `CONDITIONS` to values, one for each utterance. The same bundle travels through
filelists, batches, `SynthesizerTrn`, training, synthesis and exported files. The network embeds every condition and
sums the embeddings to one vector g `[b, gin, 1]`, which conditions all of its parts.

A new condition is one subclass of `Condition` and one line in `CONDITIONS`. This module does not import PyTorch,
because synthesis with ONNX Runtime must work without it.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cli import did_you_mean

if TYPE_CHECKING:
    from torch import Tensor, nn

    from corpora.filelist import Clip

MAX_NAMED = 20  # speakers or words listed in a message
Values = dict[str, np.generic | np.ndarray]  # of one utterance, by condition
Bundle = Mapping[str, "Tensor"]  # of a batch: [b] for ids, [b, d] for vectors


class Condition:
    """An id for each utterance, embedded by a table of `size(data)` rows.

    `data` is the config's section of that name. A condition that is a vector, float32 `[size]`, overrides `embedding`
    and `example` too.
    """

    module: str  # attribute of SynthesizerTrn that holds the embedding; its weights' names begin with it
    settings: tuple[str, ...] = ()  # keys of `data` that the methods below read; exported files carry them

    def size(self, data: Any) -> int:
        """Return the number of ids, 0 if this voice does not use the condition."""
        raise NotImplementedError

    def of_clips(self, clips: Sequence["Clip"], data: Any) -> Sequence[int | np.ndarray] | None:
        """Return the value of each clip, or None if this voice does not use the condition.

        Raises ValueError with the line of the filelist if a clip has no valid value.
        """
        raise NotImplementedError

    def resolve(self, given: Any, data: Any) -> int | np.ndarray:
        """Return the value of a user's choice, a value or a name. Raises ValueError if it is unknown or None."""
        raise NotImplementedError

    def example(self, size: int) -> np.generic | np.ndarray:
        """Return a valid value, for export and measurements."""
        return np.int64(0)

    def embedding(self, size: int, gin_channels: int) -> "nn.Module":
        """Return the module that maps the values of a batch, `[b]` or `[b, size]`, to `[b, gin]`."""
        from torch import nn

        return nn.Embedding(size, gin_channels)


class Speaker(Condition):
    """The speaker, by name or id.

    `data.n_speakers` is their number, `data.speakers` the table of their names, and `data.default_speaker` the one that
    speaks where none is given.
    """

    module = "emb_g"
    settings = ("n_speakers", "speakers", "default_speaker")

    def size(self, data: Any) -> int:
        """Return the number of speakers; 0 for a single-speaker voice, which has no embedding."""
        return data.n_speakers

    def of_clips(self, clips: Sequence["Clip"], data: Any) -> Sequence[int] | None:
        """Return the id of each speaker. Raises ValueError for unknown ones, and for several if `n_speakers` is 0."""
        import corpus  # synthesis does without it

        return corpus.speaker_ids(clips, data)

    def names(self, data: Any) -> dict[str, int]:
        """Return names and ids of the speakers, by id. A speaker without a name is named by the id."""
        names = {number: name for name, number in data.speakers.items()}
        return {names.get(i, str(i)): i for i in range(data.n_speakers)}

    def resolve(self, given: str | int | None, data: Any) -> int:
        """Return the id of a speaker given by name or id; None is the default speaker.

        Raises ValueError, with the nearest name and the choices, for an unknown speaker, or for None without a default.
        """
        table = self.names(data)
        names = list(table)
        choices = ", ".join(names[:MAX_NAMED])
        if len(names) > MAX_NAMED:
            choices += f" ... ({len(names)} in total)"
        given = (data.default_speaker or None) if given is None else given
        if given is None:
            raise ValueError(f"this model has several speakers: choose one of {choices}")
        if isinstance(given, str) and given in table:
            return table[given]
        number = int(given) if isinstance(given, int) or str(given).isdecimal() else -1
        if 0 <= number < data.n_speakers:
            return number
        raise ValueError(f"there is no speaker {given!r}{did_you_mean(str(given), names) or '.'} Choices: {choices}")


CONDITIONS: dict[str, Condition] = {"sid": Speaker()}


def sizes(data: Any) -> dict[str, int]:
    """Return the conditions that a voice uses and their sizes; `data` is the config's section of that name."""
    found = {name: condition.size(data) for name, condition in CONDITIONS.items()}
    return {name: size for name, size in found.items() if size}


def of_clips(clips: Sequence["Clip"], data: Any) -> dict[str, np.ndarray]:
    """Return each condition of all clips of a filelist, `[clips, ...]`. Raises ValueError as `Condition.of_clips`."""
    columns = {name: condition.of_clips(clips, data) for name, condition in CONDITIONS.items()}
    return {name: np.asarray(column) for name, column in columns.items() if column is not None}


def resolve(given: Mapping[str, Any], data: Any) -> Values:
    """Return the values of a user's choices, by the names of `CONDITIONS`; None means not given.

    Raises ValueError for an unknown or missing condition or value, and for a condition that this voice does not use.
    """
    used = sizes(data)
    for name, value in given.items():
        if name not in CONDITIONS:
            raise ValueError(f"there is no condition {name!r}; choices: {', '.join(CONDITIONS)}")
        if value is not None and name not in used:
            if name == "sid":
                raise ValueError(f"there is no speaker {value!r}: this model has a single voice")
            raise ValueError(f"this model does not use the condition {name!r}; it uses {', '.join(used) or 'none'}")
    return {name: np.asarray(CONDITIONS[name].resolve(given.get(name), data))[()] for name in used}
