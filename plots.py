"""Pictures of training and synthesis: spectrograms, alignments, loss curves.

python plots.py logs/NAME curves.png     every loss, norm and measurement of a run over its steps
"""

import argparse
from pathlib import Path

import numpy as np

from reporting import metric_names, read_metrics
from speech import Speech
from text.symbols import PAD

MOST_NAMED = 70  # symbols that still can be read in one picture


def _figure(rows: int, size: tuple[float, float], columns: int = 1, **layout):
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # slow to import, and most processes draw nothing
    from matplotlib.figure import Figure

    figure = Figure(size, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, np.ravel(figure.subplots(rows, columns, **layout))


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


def plot_speech_to_numpy(spectrogram: np.ndarray, speech: Speech) -> np.ndarray:
    """Draw what was said over seconds: the spectrogram, and under it which symbol of the text speaks when.

    Args:
        spectrogram: log-mel `[bands, frames]` of `speech.audio`.
        speech: what to draw; its blanks and spaces are no sounds and drawn paler.

    Returns:
        Pixels `[height, width, 3]`, 8 bit.
    """
    naming = _sounds(speech) <= MOST_NAMED
    height = min(max(1.6, 0.1 * _sounds(speech)), 3.2) if naming else 2.4
    figure, (above, below) = _figure(2, (7.2, 2.2 + height), height_ratios=(1.7, height))
    draw_speech(above, below, spectrogram, speech)
    figure.set_dpi(150)
    return _pixels(figure)


def draw_speech(above, below, spectrogram: np.ndarray, speech: Speech) -> None:
    """Put on two matplotlib axes what `plot_speech_to_numpy` draws."""
    bands, frames = spectrogram.shape
    seconds = frames * speech.hop_length / speech.sampling_rate
    above.imshow(spectrogram, aspect="auto", origin="lower", cmap="magma", extent=(0, seconds, 0, bands))
    above.set(ylabel="mel band", title="Spectrogram")
    naming = _sounds(speech) <= MOST_NAMED
    _draw_spans(below, speech, naming)
    below.set(xlabel="seconds", xlim=(0, speech.seconds), ylim=(0, len(speech.tokens)), yticks=[])
    label = "sounds of the text" if naming else f"{_sounds(speech)} sounds"
    below.set(ylabel=label, title="Which sound speaks when")
    above.sharex(below)


def _symbols(speech: Speech) -> list[str]:
    """The symbol of each token, a space for blanks and for what is not known."""
    names = [name for sentence in speech.sentences for name in sentence.names or [PAD] * len(sentence.tokens)]
    return [name.replace(PAD, " ") for name in names]


def _sounds(speech: Speech) -> int:
    return sum(1 for symbol in _symbols(speech) if symbol.strip())


def _draw_spans(axes, speech: Speech, naming: bool) -> None:
    """A bar for each token from its first to its last moment; an image would be tokens times frames large."""
    from matplotlib.collections import PolyCollection

    frame = speech.hop_length / speech.sampling_rate
    symbols, bars, colors = _symbols(speech), [], []
    for sentence in speech.sentences:
        ends = sentence.start / speech.sampling_rate + np.cumsum(sentence.durations) * frame
        for begin, end in zip(ends - sentence.durations * frame, ends):
            row = len(bars)
            bars.append([(begin, row), (end, row), (end, row + 1), (begin, row + 1)])
            colors.append("#4338ca" if symbols[row].strip() else "#a5b4fc")
            if naming:
                axes.annotate(symbols[row], (end, row + 1), (1, -1), textcoords="offset points", va="top", fontsize=8)
    axes.add_collection(PolyCollection(bars, facecolors=colors, edgecolors=colors, linewidths=0.7))
    axes.grid(alpha=0.25)
    axes.set_axisbelow(True)


def save_overview(
    path: str | Path, spectrogram: np.ndarray, speech: Speech, curves: dict[str, tuple[list[int], list[float]]]
) -> None:
    """Write a PNG of a synthesised sentence, as `plot_speech_to_numpy` draws it, and of the run that learned it.

    Args:
        curves: steps and values of each loss, by name.
    """
    figure, axes = _figure(2 + len(curves), (10, 6 + 2.2 * len(curves)))
    draw_speech(*axes[:2], spectrogram, speech)
    for panel, (name, (steps, values)) in zip(axes[2:], curves.items()):
        panel.plot(steps, values, marker="." if len(steps) < 30 else None)
        panel.set(xlabel="step", ylabel=name)
        panel.grid(alpha=0.3)
    figure.savefig(path, dpi=100)


def save_curves(path: str | Path, folder: str | Path, columns: int = 4) -> None:
    """Write a PNG with a panel for every number in a run's metrics.jsonl, over steps, validation first."""
    names = metric_names(folder)
    rows = -(-len(names) // columns)
    figure, panels = _figure(rows, (3.6 * columns, 2.1 * rows), columns)
    for panel, name in zip(panels, names):
        steps, values = read_metrics(folder, name)
        panel.plot(steps, values, linewidth=1.2, marker="." if len(steps) < 30 else None)
        panel.set_title(name, fontsize=9)
        panel.tick_params(labelsize=7)
        panel.grid(alpha=0.3)
    for panel in panels[len(names) :]:
        panel.set_axis_off()
    figure.savefig(path, dpi=80)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Draw the curves of a run.")
    parser.add_argument("run", help="the run's folder, logs/NAME")
    parser.add_argument("output", help="the PNG to write")
    args = parser.parse_args(argv)
    if not (Path(args.run) / "metrics.jsonl").exists():
        parser.error(f"{args.run} holds no metrics.jsonl: it is no run, or has not reached its first log_interval")
    try:
        save_curves(args.output, args.run)
    except OSError as error:
        parser.error(f"{args.output} cannot be written: {error}")
    except ValueError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
