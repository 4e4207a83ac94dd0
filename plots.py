"""Pictures of training and synthesis: spectrograms, alignments, curves. As a program, draw the curves of a run.

The picture has a panel for every loss, norm and validation result of the run's metrics.jsonl, over training steps.

Examples:
  python plots.py NAME curves.png
  python plots.py logs/NAME curves.png
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import cli
from files import run_folder
from synthesis.speech import Speech
from text.symbols import PAD

if TYPE_CHECKING:  # slow to import, and most processes draw nothing
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_LETTERED = 70  # symbols that are readable in one picture
MAX_MARKED = 30  # points of a curve, below which each is marked


def _figure(rows: int, size: tuple[float, float], columns: int = 1, **layout: Any) -> "tuple[Figure, np.ndarray]":
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(size, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, np.ravel(figure.subplots(rows, columns, **layout))


def _pixels(figure: "Figure") -> np.ndarray:
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()  # type: ignore[attr-defined]


def _image(values: np.ndarray, size: tuple[float, float], rows: str, title: str = "") -> np.ndarray:
    figure, (axes,) = _figure(1, size)
    axes.imshow(values, aspect="auto", origin="lower", interpolation="none")
    axes.set(xlabel="frames", ylabel=rows, title=title)
    return _pixels(figure)


def plot_spectrogram_to_numpy(spectrogram: np.ndarray) -> np.ndarray:
    """Draw a spectrogram `[bands, frames]`. Returns pixels `[height, width, 3]`, 8 bit."""
    return _image(spectrogram, (10, 2.5), "bands")


def plot_alignment_to_numpy(alignment: np.ndarray, info: str | None = None) -> np.ndarray:
    """Draw an alignment `[tokens, frames]`. Returns pixels `[height, width, 3]`, 8 bit."""
    return _image(alignment, (6, 4), "tokens", info or "")


def plot_speech_to_numpy(spectrogram: np.ndarray, speech: Speech) -> np.ndarray:
    """Draw the spectrogram of a speech over seconds and, below it, the time of each token, blanks and spaces paler.

    Args: `spectrogram` log-mel `[bands, frames]` of `speech.audio`. Returns pixels `[height, width, 3]`, 8 bit.
    """
    count = sum(1 for symbol in _symbols(speech) if symbol.strip())
    height = min(max(1.6, 0.1 * count), 3.2) if count <= MAX_LETTERED else 2.4
    figure, (above, below) = _figure(2, (7.2, 2.2 + height), height_ratios=(1.7, height))
    draw_speech(above, below, spectrogram, speech)
    figure.set_dpi(150)
    return _pixels(figure)


def draw_speech(above: "Axes", below: "Axes", spectrogram: np.ndarray, speech: Speech) -> None:
    """Draw the two parts of `plot_speech_to_numpy` on matplotlib axes."""
    from matplotlib.collections import PolyCollection

    bands, frames = spectrogram.shape
    seconds = frames * speech.hop_length / speech.sampling_rate
    above.imshow(spectrogram, aspect="auto", origin="lower", cmap="magma", extent=(0, seconds, 0, bands))
    above.set(ylabel="mel band", title="Spectrogram")
    symbols = _symbols(speech)
    count = sum(1 for symbol in symbols if symbol.strip())
    lettered = count <= MAX_LETTERED
    bars: list[list[tuple[float, float]]] = []  # of each token; an image would need tokens times frames pixels
    colors = []
    for sentence in speech.sentences:
        durations = np.asarray(sentence.durations) * (speech.hop_length / speech.sampling_rate)
        ends = sentence.start / speech.sampling_rate + np.cumsum(durations)
        for begin, end in zip(ends - durations, ends):
            row = len(bars)
            bars.append([(begin, row), (end, row), (end, row + 1), (begin, row + 1)])
            colors.append("#4338ca" if symbols[row].strip() else "#a5b4fc")
            if lettered:
                below.annotate(symbols[row], (end, row + 1), (1, -1), textcoords="offset points", va="top", fontsize=8)
    below.add_collection(PolyCollection(bars, facecolors=colors, edgecolors=colors, linewidths=0.7))
    below.grid(alpha=0.25)
    below.set_axisbelow(True)
    below.set(xlabel="seconds", xlim=(0, speech.seconds), ylim=(0, len(speech.tokens)), yticks=[])
    below.set(ylabel="symbols of the text" if lettered else f"{count} symbols", title="Alignment")
    above.sharex(below)


def _symbols(speech: Speech) -> list[str]:
    """Return the symbol of each token, a space for blanks and unknown symbols."""
    names = [name for sentence in speech.sentences for name in sentence.names or [PAD] * len(sentence.tokens)]
    return [name.replace(PAD, " ") for name in names]


def _draw_curve(axes: "Axes", steps: Sequence[int], values: Sequence[float], **style: Any) -> None:
    axes.plot(steps, values, marker="." if len(steps) < MAX_MARKED else None, **style)
    axes.grid(alpha=0.3)


def save_overview(
    path: str | Path, spectrogram: np.ndarray, speech: Speech, curves: Mapping[str, tuple[list[int], list[float]]]
) -> None:
    """Write a PNG of a speech, as `plot_speech_to_numpy` draws it, and of curves: steps and values by title."""
    figure, axes = _figure(2 + len(curves), (10, 6 + 2.2 * len(curves)))
    draw_speech(axes[0], axes[1], spectrogram, speech)
    for panel, (name, (steps, values)) in zip(axes[2:], curves.items()):
        _draw_curve(panel, steps, values)
        panel.set(xlabel="step", ylabel=name)
    figure.savefig(path, dpi=100)


def save_curves(path: str | Path, folder: str | Path, columns: int = 4) -> None:
    """Write a PNG with a panel for every number in the metrics.jsonl of a run's folder, validation first."""
    from reporting import metric_names, read_metrics  # imports PyTorch

    names = metric_names(folder)
    rows = -(-len(names) // columns)
    figure, panels = _figure(rows, (3.6 * columns, 2.1 * rows), columns)
    for panel, name in zip(panels, names):
        _draw_curve(panel, *read_metrics(folder, name), linewidth=1.2)
        panel.set_title(name, fontsize=9)
        panel.tick_params(labelsize=7)
    for panel in panels[len(names) :]:
        panel.set_axis_off()
    figure.savefig(path, dpi=80)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program with the given arguments, by default those of the command line."""
    parser = cli.Parser(__doc__)
    cli.add_run(parser, "run", help="name of a run in logs/, or the run's folder")
    parser.add_argument("output", metavar="PNG", help="the picture to write")
    args = parser.parse_args(arguments)
    with cli.errors_in_one_line("plots"):
        given = Path(args.run)
        folder = given if (given / "metrics.jsonl").is_file() else run_folder(args.run)
        if not (folder / "metrics.jsonl").is_file():
            near = cli.did_you_mean(folder.name, [path.parent.name for path in folder.parent.glob("*/metrics.jsonl")])
            raise ValueError(
                f"{folder} holds no metrics.jsonl: it is not a run, or has not reached its first log_interval{near}"
            )
        save_curves(args.output, folder)


if __name__ == "__main__":
    main()
