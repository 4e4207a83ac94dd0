"""Pictures of a report: error rates by sentence, durations by class, and spectrograms of the first sentence."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from audio import load_audio
from evaluation import RATE
from evaluation.report import log_durations
from evaluation.takes import Take
from files import replacing
from plots import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BANDS, FFT, HOP = 80, 1024, 200  # of spectrograms
BLUE, GRAY = "#4338ca", "#9ca3af"  # synthesis and recordings


def draw(folder: str | Path, takes: Sequence[Take], sentences: Sequence[dict[str, Any]]) -> list[str]:
    """Write the pictures for which there is data to a folder. Returns the names of the files."""
    pictures = {"spectrograms.png": spectrograms(takes[0])}
    if all("cer" in sentence for sentence in sentences):
        pictures["errors.png"] = errors(sentences)
    predicted, aligned, classes = log_durations(takes)
    if classes:
        pictures["rhythm.png"] = violins(predicted, aligned, classes)
    for name, figure in pictures.items():
        with replacing(Path(folder) / name) as unfinished:
            figure.savefig(unfinished, format="png", dpi=100)
    return list(pictures)


def spectrograms(take: Take) -> "Figure":
    """Draw the log-mel spectrograms of a take and, below it, of its recording."""
    import librosa  # takes seconds

    paths = [take.audio] if take.audio == take.recording else [take.audio, take.recording]
    figure, panels = new_figure(len(paths), (9, 2.4 * len(paths)))
    for panel, path, title in zip(panels, paths, (take.name, "recording")):
        samples = load_audio(path, RATE)
        mel = librosa.feature.melspectrogram(y=samples, sr=RATE, n_fft=FFT, hop_length=HOP, n_mels=BANDS)
        seconds = len(samples) / RATE
        panel.imshow(
            librosa.power_to_db(mel, ref=np.max),
            origin="lower",
            aspect="auto",
            cmap="magma",
            extent=(0, seconds, 0, BANDS),
        )
        panel.set(title=title, ylabel="mel band", xlabel="seconds")
    return figure


def errors(sentences: Sequence[dict[str, Any]]) -> "Figure":
    """Draw the character error rate of each sentence."""
    figure, (panel,) = new_figure(1, (9, 3))
    panel.bar(range(len(sentences)), [100 * sentence["cer"] for sentence in sentences], color=BLUE)
    panel.set(xlabel="sentence", ylabel="character error rate, %")
    return figure


def violins(predicted: np.ndarray, aligned: np.ndarray, classes: Sequence[str]) -> "Figure":
    """Draw the distributions of log durations `[symbols]` by class: predicted and, in gray, aligned."""
    names = [name for name in dict.fromkeys(classes) if classes.count(name) > 1]
    figure, (panel,) = new_figure(1, (9, 4))
    of = np.array(classes)
    for values, offset, color in ((predicted, -0.2, BLUE), (aligned, 0.2, GRAY)):
        sets = [values[of == name] / np.log(10) for name in names]
        parts = panel.violinplot(sets, [i + offset for i in range(len(names))], widths=0.35, showmedians=True)
        for body in parts["bodies"]:
            body.set_facecolor(color)
    panel.set(xticks=range(len(names)), ylabel="log10 of the duration in ms", title="predicted (blue), aligned (gray)")
    panel.set_xticklabels(names)
    return figure
