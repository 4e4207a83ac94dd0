"""Pictures of training and synthesis: spectrograms, alignments, curves. As a program, draw the curves of runs.

The picture has a panel for every loss, norm and validation result of metrics.jsonl over training steps, in groups. Axes
state units and the direction of improvement, a star marks the best validation, and dotted lines mark the steps from
which a run was resumed. Several runs share the panels. docs/training.md explains how to read them.

Examples:
  python plots.py NAME curves.png
  python plots.py NAME OTHER_NAME --output curves.png
  python plots.py NAME --metrics validation/mel loss/d/total --output two_panels.png
  python plots.py NAME --pictures pictures.png              last spectrograms and alignments of training
"""

import cli

if __name__ == "__main__":
    cli.interrupts_in_one_line()

import io
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

import config as configs
from files import run_folder
from synthesis.speech import Speech
from text.symbols import PAD

if TYPE_CHECKING:  # slow to import, and most processes draw nothing
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_LETTERED = 70  # symbols that are readable in one picture
MAX_MARKED = 30  # points of a curve, below which each is marked
LOG_RANGE = 20  # quotient of the largest and the smallest value, from which an axis is logarithmic
MANY_DECADES = 1000  # such a quotient from which only powers of ten are labeled
MAX_HIDDEN = 0.2  # share of values that such an axis may lack, because they are not positive
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe and Ito, 2008
MARKERS = "os^Dv*P"  # of runs, which are thus distinguishable without colors
DISCRIMINATORS = 6  # of waveforms: `discriminators.MultiPeriodDiscriminator` adds their losses
LOWER, HIGHER, BALANCE = "lower is better", "higher is better", "no direction: balance"


class Panel(NamedTuple):
    """One panel of `save_curves`: what it shows, and the names of its numbers in metrics.jsonl."""

    group: str
    title: str
    axis: str  # the quantity with its unit, and the direction of improvement on a second line
    trained: str = ""  # of training steps
    validated: str = ""  # of validations
    weight: str = ""  # setting of the config's section `train` by which the number of training steps is multiplied
    undecided: float = 0.0  # least-squares loss of discriminators whose scores are all 0.5


LEAST_SQUARES = f"least-squares loss\n{BALANCE}"
NORM = f"L2 norm of the gradient\n{BALANCE}"
GIGABYTES = "gigabytes\nconstant is good"
PANELS = (
    Panel("Validation", "Spectrogram", f"log-mel L1 distance\n{LOWER}", "loss/g/mel", "validation/mel", "c_mel"),
    Panel(
        "Validation",
        "Prior and posterior",
        f"KL divergence, nats per frame\n{LOWER}, but not 0",
        "loss/g/kl",
        "validation/kl",
        "c_kl",
    ),
    Panel("Validation", "Durations", f"error, frames per token\n{LOWER}", validated="validation/duration_error"),
    Panel(
        "Validation",
        "Variation of durations",
        "std of log durations,\npredicted / aligned, best is 1",
        validated="validation/duration_std_ratio",
    ),
    Panel("Evaluation", "Characters", f"error rate, fraction\n{LOWER}", validated="evaluation/cer"),
    Panel("Evaluation", "Words", f"error rate, fraction\n{LOWER}", validated="evaluation/wer"),
    Panel("Evaluation", "Quality", f"DNSMOS, 1 to 5\n{HIGHER}", validated="evaluation/dnsmos"),
    Panel("Evaluation", "Artifacts", f"PLCMOS, 1 to 5\n{HIGHER}", validated="evaluation/plcmos"),
    Panel("Generator losses", "Total", f"weighted sum of losses\n{BALANCE}", "loss/g/total"),
    Panel("Generator losses", "Adversarial", LEAST_SQUARES, "loss/g/gen", undecided=DISCRIMINATORS / 4),
    Panel("Generator losses", "Feature matching", f"L1 distance of feature maps\n{BALANCE}", "loss/g/fm"),
    Panel("Discriminator losses", "Waveform", LEAST_SQUARES, "loss/d/total", undecided=DISCRIMINATORS / 2),
    Panel("Discriminator losses", "Durations", LEAST_SQUARES, "loss/dur_d/total", undecided=1 / 2),
    Panel("Duration losses", "Predictor", f"loss per token\n{LOWER}", "loss/g/dur", "validation/dur"),
    Panel("Duration losses", "Adversarial", LEAST_SQUARES, "loss/g/dur_gen", undecided=1 / 4),
    Panel("Gradient norms", "Generator", NORM, "grad_norm_g"),
    Panel("Gradient norms", "Waveform discriminator", NORM, "grad_norm_d"),
    Panel("Gradient norms", "Duration discriminator", NORM, "grad_norm_dur_d"),
    Panel("Rates and speed", "Learning rate", "step size of AdamW\nset by the config", "learning_rate"),
    Panel(
        "Rates and speed", "Alignment noise", "scale of the noise, no unit\nset by the config", "scale/alignment_noise"
    ),
    Panel("Rates and speed", "Speed", f"seconds per step\n{LOWER}", "seconds_a_step"),
    Panel("Memory", "Training process", GIGABYTES, "memory/process_gb"),
    Panel("Memory", "Data workers", GIGABYTES, "memory/workers_gb"),
    Panel("Memory", "Tensors on the GPU", GIGABYTES, "memory/gpu_allocated_gb"),
    Panel("Memory", "Pools on the GPU", GIGABYTES, "memory/gpu_reserved_gb"),
)
LETTER_SPACE = 0.08  # of the height of an alignment, below it for the letters of its first symbols
PICTURES = {  # of a validation utterance in the TensorBoard events of training
    "mel/recording": "Recording",
    "mel/synthesis": "Synthesis of the same text",
    "alignment/found": "Alignment of the recording, found by the search",
    "alignment/predicted": "Alignment of the synthesis, from predicted durations",
}
EARLIER = {  # their names in runs of earlier versions
    "mel/recording": "gt/mel",
    "mel/synthesis": "gen/mel",
    "alignment/found": "all/attn",
    "alignment/predicted": "gen/attn",
}


def new_figure(rows: int, size: tuple[float, float], columns: int = 1, **layout: Any) -> "tuple[Figure, np.ndarray]":
    """Return a figure of `size` in inches that needs no display, and its axes `[rows * columns]`.

    Without margins in `layout["gridspec_kw"]`, matplotlib computes them, which takes most of the time of drawing.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(size, layout=None if "gridspec_kw" in layout else "constrained")
    FigureCanvasAgg(figure)
    return figure, np.ravel(figure.subplots(rows, columns, **layout))


def _pixels(figure: "Figure") -> np.ndarray:
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()  # type: ignore[attr-defined]


def plot_spectrogram_to_numpy(spectrogram: np.ndarray) -> np.ndarray:
    """Draw a log-mel spectrogram `[bands, frames]`. Returns pixels `[height, width, 3]`, 8 bit."""
    margins = {"left": 0.055, "right": 1.05, "bottom": 0.19, "top": 0.97}  # the color bar is inside the right margin
    figure, (axes,) = new_figure(1, (10, 2.5), gridspec_kw=margins)
    image = axes.imshow(spectrogram, aspect="auto", origin="lower", interpolation="none", cmap="magma")
    axes.set(xlabel="time (frames)", ylabel="mel band (low to high)")
    figure.colorbar(image, label="log amplitude", pad=0.01)
    return _pixels(figure)


def plot_alignment_to_numpy(alignment: np.ndarray, info: str | None = None) -> np.ndarray:
    """Draw an alignment `[tokens, frames]` under the title `info`. Returns pixels `[height, width, 3]`, 8 bit."""
    margins = {"left": 0.1, "right": 0.98, "bottom": 0.12, "top": 0.92}
    figure, (axes,) = new_figure(1, (6, 4), gridspec_kw=margins)
    axes.imshow(alignment, aspect="auto", origin="lower", interpolation="none", cmap="magma")
    axes.set(xlabel="time (frames)", ylabel="token of the text (first to last)", title=info or "")
    return _pixels(figure)


def plot_speech_to_numpy(spectrogram: np.ndarray, speech: Speech) -> np.ndarray:
    """Draw the spectrogram of a speech over seconds and, below it, the time of each token, blanks and spaces paler.

    Args: `spectrogram` log-mel `[bands, frames]` of `speech.audio`. Returns pixels `[height, width, 3]`, 8 bit.
    """
    count = sum(1 for symbol in _symbols(speech) if symbol.strip())
    height = min(max(1.6, 0.1 * count), 3.2) if count <= MAX_LETTERED else 2.4
    figure, (above, below) = new_figure(2, (7.2, 2.2 + height), height_ratios=(1.7, height))
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
                middle = ((begin + end) / 2, row)
                below.annotate(
                    symbols[row], middle, (0, -1), textcoords="offset points", ha="center", va="top", fontsize=8
                )
    below.add_collection(PolyCollection(bars, facecolors=colors, edgecolors=colors, linewidths=0.7))
    below.grid(alpha=0.25)
    below.set_axisbelow(True)
    below.set(xlabel="seconds", xlim=(0, speech.seconds), ylim=(-LETTER_SPACE * len(bars), len(bars)), yticks=[])
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
    path: str | Path,
    spoken: Mapping[str, tuple[np.ndarray, Speech]],
    curves: Mapping[str, tuple[list[int], list[float]]],
) -> None:
    """Write a PNG of speeches, as `plot_speech_to_numpy` draws them, and of curves.

    `spoken` has log-mel spectrograms `[bands, frames]` and speeches by speaker, and `curves` steps and values by title.
    """
    parts = 2 * len(spoken)
    figure, axes = new_figure(parts + len(curves), (10, 3 * parts + 2.2 * len(curves)))
    for above, below, (name, (spectrogram, speech)) in zip(axes[:parts:2], axes[1:parts:2], spoken.items()):
        draw_speech(above, below, spectrogram, speech)
        above.set(title=f"Spectrogram, {name}")
    for panel, (name, (steps, values)) in zip(axes[parts:], curves.items()):
        _draw_curve(panel, steps, values)
        panel.set(xlabel="step", ylabel=name)
    figure.savefig(path, dpi=100)


def save_curves(path: str | Path, *folders: str | Path, columns: int = 3, metrics: Sequence[str] | None = None) -> None:
    """Write a PNG with panels for the numbers in the metrics.jsonl of one or several runs.

    A training loss beside its validation is divided by its weight, which is in the run's config.json, or is the default
    if there is none. With `metrics`, only the panels of these numbers are drawn. Raises ValueError if no run has one
    of them, or any number.
    """
    from reporting import metric_names  # imports PyTorch

    runs = [Path(folder) for folder in folders]
    existing = list(dict.fromkeys(name for run in runs for name in metric_names(run)))
    if not existing:
        raise ValueError(f"{runs[0] / 'metrics.jsonl'} has no numbers yet")
    known = {name for panel in PANELS for name in (panel.trained, panel.validated)}
    others = [Panel("Other numbers", name, "value, unit unknown", name) for name in existing if name not in known]
    if unknown := [name for name in metrics or () if name not in existing]:
        raise ValueError(f"there is no number {unknown[0]!r}{cli.did_you_mean(unknown[0], existing)}")
    wanted = set(metrics or existing) & set(existing)
    panels = [panel for panel in (*PANELS, *others) if wanted & {panel.trained, panel.validated}]
    columns = min(columns, len(panels))
    rows = _rows(panels, columns)
    figure, axes = new_figure(len(rows), (4.2 * columns, 2.7 * len(rows) + 0.5), columns)
    groups: set[str] = set()
    for panel, place in zip((panel for row in rows for panel in row), axes):
        if panel is None:
            place.set_axis_off()
            continue
        _draw_panel(place, panel, runs)
        if panel.group not in groups:
            place.annotate(panel.group, (0, 1), (0, 20), "axes fraction", "offset points", fontsize=11, weight="bold")
        groups.add(panel.group)
    _add_legend(figure, runs, columns, any(panel.validated for panel in panels))
    figure.savefig(path, dpi=100)


def _rows(panels: Iterable[Panel], columns: int) -> list[list[Panel | None]]:
    """Place panels in rows. A group starts a new row unless all of it fits into the last one."""
    groups: dict[str, list[Panel]] = {}
    for panel in panels:
        groups.setdefault(panel.group, []).append(panel)
    places: list[Panel | None] = []
    for group in groups.values():
        free = -len(places) % columns
        places += [*([None] * free if len(group) > free else []), *group]
    places += [None] * (-len(places) % columns)
    return [places[start : start + columns] for start in range(0, len(places), columns)]


def _draw_panel(axes: "Axes", panel: Panel, runs: Sequence[Path]) -> None:
    """Draw the curves of all runs, with the best validation and the steps of resumption."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

    from reporting import read_metrics, resumptions

    drawn: list[float] = []
    for i, run in enumerate(runs):
        color, marker = (COLORS[i % len(COLORS)], MARKERS[i % len(MARKERS)]) if runs[1:] else (COLORS[1], None)
        steps, values = read_metrics(run, panel.trained)
        if panel.weight and values:
            weight = _weight(run, panel.weight)
            values = [value / weight for value in values] if weight else [math.nan] * len(values)
        pale: dict[str, Any] = {"alpha": 0.45, "linewidth": 1.0} if panel.validated else {"linewidth": 1.2}
        every = max(1, len(steps) // 8)
        axes.plot(steps, values, color=color, marker=None if panel.validated else marker, markevery=every, ms=4, **pale)
        drawn += values
        steps, values = read_metrics(run, panel.validated)
        drawn += values
        color = color if runs[1:] else COLORS[0]
        axes.plot(steps, values, color=color, marker=marker or "o", ms=4, linewidth=1.6)
        best = _best(run)
        if best and best.step in steps:
            step, value = best.step, values[steps.index(best.step)]
            axes.plot(step, value, "*", color=color, ms=13, markeredgecolor="black", zorder=3)
            if not runs[1:]:
                axes.set_title(f"{value:.4g} at step {step:,}", loc="right", fontsize=8)
        for resumed in resumptions(run):
            axes.axvline(resumed, color=color if runs[1:] else "black", linestyle=":", linewidth=1, alpha=0.6)
    logarithmic = _spans_decades(drawn)
    if logarithmic:
        axes.set_yscale("log", nonpositive="mask")
        below, above = axes.get_ylim()
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if above < MANY_DECADES * below else (1,)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.minorticks_off()
    if panel.undecided:
        axes.axhline(panel.undecided, color="gray", linestyle="--", linewidth=1)
        style: dict[str, Any] = {"fontsize": 7, "ha": "right", "va": "bottom", "color": "gray"}
        axes.annotate("undecided", (1, panel.undecided), (-2, 2), ("axes fraction", "data"), "offset points", **style)
    axes.set_title(f"{panel.title}{' (log scale)' if logarithmic else ''}", loc="left", fontsize=9)
    axes.set_xlabel("training step", fontsize=8)
    axes.set_ylabel(panel.axis, fontsize=8)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step:,.0f}"))
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.3)


def _spans_decades(values: Sequence[float]) -> bool:
    """Return whether values need a logarithmic axis. A few may be 0 or less, as estimates of a KL divergence are."""
    positive = [value for value in values if math.isfinite(value) and value > 0]
    few = len(values) - len(positive) <= MAX_HIDDEN * len(values)
    return bool(positive) and few and max(positive) > LOG_RANGE * min(positive)


class _Best(NamedTuple):
    """The best validation or evaluation of a run, and the name of the measure that `train.best` chooses."""

    measure: str
    step: int
    value: float


def _best(run: Path) -> _Best | None:
    """Return the result whose weights are in G_best.pth; None if `train.best` is not measured yet."""
    from reporting import read_metrics

    settings = _settings(run)
    measure, first = settings.best, 0
    if measure == "auto":
        measure, start = "mel", settings.duration_stage_start
        if start is not None and any(step >= start for step in read_metrics(run, "validation/duration_error")[0]):
            measure, first = "duration_error", start
    group = "evaluation" if measure in configs.EVALUATED else "validation"
    sign = -1 if measure in configs.HIGHER_IS_BETTER else 1
    results = zip(*read_metrics(run, f"{group}/{measure}"))
    finite = [(sign * value, step, value) for step, value in results if math.isfinite(value) and step >= first]
    return _Best(measure, *min(finite)[1:]) if finite else None


def _weight(run: Path, name: str) -> float:
    """Return a weight of losses from the run's config."""
    return getattr(_settings(run), name)


def _settings(run: Path) -> configs.TrainConfig:
    """Return the section `train` of the run's config, or the defaults if there is none."""
    own = run / "config.json"
    return configs.load(own).train if own.exists() else configs.TrainConfig()


def _add_legend(figure: "Figure", runs: Sequence[Path], columns: int, validated: bool) -> None:
    """Explain colors, the star and the dotted lines above all panels."""
    from matplotlib.lines import Line2D

    from reporting import resumptions

    black: dict[str, Any] = {"color": "black"}
    if runs[1:]:
        entries = []
        for i, run in enumerate(runs):
            best = _best(run)
            reached = f": {best.value:.4g} at step {best.step:,}" if best else ""
            look: dict[str, Any] = {"color": COLORS[i % len(COLORS)], "marker": MARKERS[i % len(MARKERS)], "ms": 5}
            entries.append(Line2D([], [], label=f"{run.name}{reached}", **look))
        pale: dict[str, Any] = black | {"alpha": 0.45}
    else:
        entries = [Line2D([], [], label="validation", color=COLORS[0], marker="o", ms=4)] if validated else []
        pale = {"color": COLORS[1]}
    if validated or not runs[1:]:
        entries.append(Line2D([], [], label="training", linewidth=1, **pale))
    if measures := sorted({best.measure for best in map(_best, runs) if best}) if validated else []:
        star = f"best validation by {' or '.join(measures)}"
        entries.append(Line2D([], [], label=star, marker="*", linestyle="", ms=10, **black))
    if any(resumptions(run) for run in runs):
        entries.append(Line2D([], [], label="stopped and resumed", linestyle=":", **black))
    title = f"{len(runs)} runs" if runs[1:] else f"Run {runs[0].name}"
    style = {"loc": "outside upper center", "ncols": min(columns, len(entries)), "frameon": False}
    figure.legend(handles=entries, title=title, title_fontsize=12, fontsize=9, **style)


def save_pictures(path: str | Path, folder: str | Path) -> None:
    """Write a PNG of the last spectrograms and alignments in the TensorBoard events of a run.

    They show a validation utterance and the synthesis of its text. Raises ValueError if a picture is missing.
    """
    from matplotlib.image import imread
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), {"images": 1}).Reload()  # it keeps the last one
    tags = sorted(events.Tags()["images"])
    chosen = {}
    for name in PICTURES:  # of the first speaker, if there are several
        found = [tag for tag in tags if tag in (name, EARLIER[name]) or tag.startswith(f"{name}/")]
        if not found:
            raise ValueError(f"{folder} has no picture {name}: training writes it after its first validation")
        chosen[name] = events.Images(found[0])[-1]
    own = Path(folder, "config.json")
    data = configs.load(own).data if own.exists() else None
    frame = f"; a frame is {1000 * data.hop_length / data.sampling_rate:.1f} ms" if data else ""
    figure, _ = new_figure(1, (10, 9.2))
    figure.clear()
    places = figure.subplot_mosaic(
        [["mel/recording"] * 2, ["mel/synthesis"] * 2, ["alignment/found", "alignment/predicted"]],
        height_ratios=(2.5, 2.5, 3.4),
    )
    for name, title in PICTURES.items():
        places[name].imshow(imread(io.BytesIO(chosen[name].encoded_image_string)))
        places[name].set_axis_off()
        places[name].set_title(title, fontsize=10)
    figure.suptitle(f"Run {Path(folder).name}, step {chosen['mel/synthesis'].step:,}{frame}", fontsize=12)
    figure.savefig(path, dpi=100)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program with the given arguments, by default those of the command line."""
    parser = cli.Parser(__doc__)
    cli.add_run(parser, "runs", nargs="+", help="names of runs in logs/, or their folders; then the PNG of the curves")
    parser.add_argument("--output", metavar="PNG", help="the picture of the curves (default: the last argument)")
    parser.add_argument("--pictures", metavar="PNG", help="picture of spectrograms and alignments (default: none)")
    parser.add_argument("--metrics", nargs="+", metavar="NAME", help="draw only their panels (default: all)")
    args = parser.parse_args(arguments)
    with cli.errors_in_one_line("plots"):
        names, output = args.runs, args.output
        if output is None and names[1:]:
            *names, output = names
        if not (output or args.pictures):
            raise ValueError("name the picture to write: NAME curves.png, --output or --pictures")
        for picture in filter(None, (output, args.pictures)):
            if not Path(picture).suffix:
                raise ValueError(f"{picture} names no picture: end it in .png, or give --output")
        if args.pictures and names[1:]:
            raise ValueError(f"--pictures shows one run, and {len(names)} were given")
        folders = [_folder_of(name) for name in names]
        if output:
            save_curves(output, *folders, metrics=args.metrics)
            print(f"curves: {output}")
        if args.pictures:
            save_pictures(args.pictures, folders[0])
            print(f"spectrograms and alignments: {args.pictures}")


def _folder_of(name: str) -> Path:
    """Return the folder of a run that has metrics. Raises ValueError, with the nearest name, if there is none."""
    folder = Path(name) if Path(name, "metrics.jsonl").is_file() else run_folder(name)
    if not (folder / "metrics.jsonl").is_file():
        near = cli.did_you_mean(folder.name, [path.parent.name for path in folder.parent.glob("*/metrics.jsonl")])
        raise ValueError(
            f"{folder} holds no metrics.jsonl: it is not a run, or has not reached its first log_interval{near}"
        )
    return folder


if __name__ == "__main__":
    main()
