"""Predicted opinion scores: networks that score the audio of one sentence.

They run on a CPU, without access to the network.
"""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable

import numpy as np

from evaluation import RATE, needed


class Judge(ABC):
    """Predicts the opinion score of listeners. Raises ValueError if a package is missing."""

    title: str
    meaning: str

    @abstractmethod
    def score(self, samples: np.ndarray) -> float:
        """Return the score of samples `[n]` at `RATE`, in -1..1."""


class DNSMOS(Judge):
    """DNSMOS P.835 (Reddy et al., 2022, arXiv 2110.01763)."""

    title, meaning = "DNSMOS", "predicted opinion of the overall quality, 1 to 5"

    def __init__(self) -> None:
        self.module = needed("speechmos.dnsmos")

    def score(self, samples: np.ndarray) -> float:
        """Return the overall score of the model that is not personalized."""
        return float(self.module.run(samples, sr=RATE)["ovrl_mos"])


class PLCMOS(Judge):
    """PLCMOS v2 (Diener et al., 2023, arXiv 2305.15127)."""

    title, meaning = "PLCMOS", "predicted opinion of gaps and artifacts, 1 to 5"

    def __init__(self) -> None:
        self.module = needed("speechmos.plcmos")

    def score(self, samples: np.ndarray) -> float:
        """Return the score. The model draws its raters from NumPy's random state; here they are the same each time."""
        state = np.random.get_state()
        np.random.seed(0)
        try:
            return float(self.module.run(samples, sr=RATE)["plcmos"])
        finally:
            np.random.set_state(state)


JUDGES: dict[str, type[Judge]] = {"dnsmos": DNSMOS, "plcmos": PLCMOS}


class SpeakerEncoder:
    """The speaker encoder of Resemblyzer (Wan et al., 2018, arXiv 1710.10467). Raises ValueError if it is missing."""

    def __init__(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about names of SciPy that Resemblyzer uses
            self.module = needed("resemblyzer")
        self.encoder = self.module.VoiceEncoder("cpu", verbose=False)

    def embed(self, samples: np.ndarray) -> np.ndarray:
        """Return the embedding `[256]` of samples `[n]` at `RATE`: of length 1, or zero for silence."""
        if not samples.any():
            return np.zeros(256, np.float32)
        voiced = self.module.preprocess_wav(samples)
        return self.encoder.embed_utterance(voiced if len(voiced) else samples)


def cosine_to_mean(embedding: np.ndarray, references: Iterable[np.ndarray]) -> float:
    """Return the cosine of the angle between an embedding and the mean of the references, 0 if one is zero."""
    center = np.sum(list(references), axis=0)
    length = np.linalg.norm(center) * np.linalg.norm(embedding)
    return float(center @ embedding / length) if length else 0.0
