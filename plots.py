"""Pictures of training and synthesis: spectrograms, alignments, loss curves."""

from pathlib import Path

import numpy as np


def _figure(rows: int, size: tuple[float, float]):
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # slow to import, and most processes draw nothing
    from matplotlib.figure import Figure

    figure = Figure(size, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, np.atleast_1d(figure.subplots(rows))


def _pixels(figure) -> np.ndarray:
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()


def draw_spectrogram(axes, spectrogram: np.ndarray, title: str = "") -> None:
    """Put a log spectrogram `[bands, frames]` on matplotlib axes."""
    axes.imshow(spectrogram, aspect="auto", origin="lower", interpolation="none")
    axes.set(xlabel="frames", ylabel="bands", title=title)


def draw_alignment(axes, alignment: np.ndarray, title: str = "") -> None:
    """Put an alignment `[tokens, frames]` on matplotlib axes."""
    axes.imshow(alignment, aspect="auto", origin="lower", interpolation="none")
    axes.set(xlabel="frames", ylabel="tokens", title=title)


def plot_spectrogram_to_numpy(spectrogram: np.ndarray) -> np.ndarray:
    """Draw a spectrogram `[bands, frames]`; returns pixels `[height, width, 3]`, 8 bit."""
    figure, (axes,) = _figure(1, (10, 2.5))
    draw_spectrogram(axes, spectrogram)
    return _pixels(figure)


def plot_alignment_to_numpy(alignment: np.ndarray, info: str | None = None) -> np.ndarray:
    """Draw an alignment `[tokens, frames]`; returns pixels `[height, width, 3]`, 8 bit."""
    figure, (axes,) = _figure(1, (6, 4))
    draw_alignment(axes, alignment, info or "")
    return _pixels(figure)


def save_overview(
    path: str | Path,
    spectrogram: np.ndarray,
    alignment: np.ndarray,
    curves: dict[str, tuple[list[int], list[float]]],
    title: str,
) -> None:
    """Write a PNG of a synthesised sentence and the run that learned it.

    Args:
        spectrogram: log-mel `[bands, frames]`.
        alignment: `[tokens, frames]`.
        curves: steps and values of each loss, by name.
    """
    figure, axes = _figure(2 + len(curves), (10, 3 + 2.2 * (1 + len(curves))))
    draw_spectrogram(axes[0], spectrogram, title)
    draw_alignment(axes[1], alignment)
    for panel, (name, (steps, values)) in zip(axes[2:], curves.items()):
        panel.plot(steps, values, marker="." if len(steps) < 30 else None)
        panel.set(xlabel="step", ylabel=name)
        panel.grid(alpha=0.3)
    figure.savefig(path, dpi=100)
