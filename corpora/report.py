"""The report of a checked corpus as HTML or Markdown: histograms, what was found, and the most suspicious clips."""

import html
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import numpy as np

from corpora.filelist import Clip
from files import write_text

BINS = 20  # of a histogram
MAX_BARS = 60  # speakers and symbols in a chart
MAX_SUSPICIOUS = 200  # clips in the list
ERROR_WEIGHT = 100.0  # of an error in comparison with a warning, which counts 1 to 2
BAR = 30  # characters of the longest bar in Markdown

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; } td, th { padding: .15rem .8rem .15rem 0; text-align: left; vertical-align: top; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(20rem, 1fr)); gap: 0 2rem; }
.bar { background: #4477aa; height: .8rem; display: inline-block; } .number { font-size: 12px; }
audio { height: 2rem; }
"""


class Finding(NamedTuple):
    """Something that a check found in a clip."""

    clip: Clip
    kind: str  # "errors" or "warnings"
    reason: str
    severity: float  # comparable only between findings of the same reason
    detail: str = ""


class Measured(NamedTuple):
    """A clip with what was measured; `seconds` is 0 if the recording cannot be read."""

    clip: Clip
    seconds: float
    tokens: int
    level: float  # dBFS
    leading: float  # seconds of silence
    trailing: float


class Chart(NamedTuple):
    """Bars with labels; `values` are their lengths."""

    title: str
    labels: list[str]
    values: list[float]


def write_report(
    path: str | Path,
    measured: Sequence[Measured],
    findings: Sequence[Finding],
    symbols: Mapping[str, int],
    unknown: Mapping[str, int],
) -> None:
    """Write a report in the format of the suffix, a key of `FORMATS`.

    `symbols` counts the symbols of the texts, and `unknown` those without an id, which are left out. Links to
    recordings are relative to the report. Raises ValueError for another suffix.
    """
    write = format_of(path)
    charts = [chart for chart in _charts(measured, symbols, unknown) if chart.values]
    write_text(path, write(Path(path), measured, findings, charts))


def format_of(path: str | Path) -> Callable[..., str]:
    """Return the writer for the suffix of a path. Raises ValueError for an unknown suffix."""
    suffix = Path(path).suffix.lower()
    if suffix not in FORMATS:
        raise ValueError(f"{path}: a report is written as {' or '.join(FORMATS)}")
    return FORMATS[suffix]


def suspicious(findings: Sequence[Finding]) -> list[tuple[Clip, list[Finding]]]:
    """Return the clips with findings, the most suspicious first.

    An error outweighs all warnings. A warning counts more the higher its severity ranks among those of its reason,
    because severities of different reasons have different units.
    """
    of_reason: dict[str, list[float]] = {}
    for finding in findings:
        of_reason.setdefault(finding.reason, []).append(finding.severity)
    order = {reason: np.sort(severities) for reason, severities in of_reason.items()}
    scores: defaultdict[str, float] = defaultdict(float)
    of_clip: dict[str, tuple[Clip, list[Finding]]] = {}
    for finding in findings:
        severities = order[finding.reason]
        rank = np.searchsorted(severities, finding.severity, "right") / len(severities)
        scores[finding.clip.path] += ERROR_WEIGHT if finding.kind == "errors" else 1 + float(rank)
        of_clip.setdefault(finding.clip.path, (finding.clip, []))[1].append(finding)
    return [of_clip[path] for path in sorted(scores, key=lambda path: -scores[path])]


def _charts(measured: Sequence[Measured], symbols: Mapping[str, int], unknown: Mapping[str, int]) -> list[Chart]:
    read = [clip for clip in measured if clip.seconds]
    speakers: defaultdict[str, float] = defaultdict(float)
    for clip in read:
        if clip.clip.speaker is not None:
            speakers[clip.clip.speaker] += clip.seconds / 60
    return [
        _histogram("Duration (s)", [clip.seconds for clip in read]),
        _histogram("Tokens per second", [clip.tokens / clip.seconds for clip in read]),
        _histogram("Level (dBFS)", [clip.level for clip in read]),
        _histogram("Silence at the start (s)", [clip.leading for clip in read]),
        _histogram("Silence at the end (s)", [clip.trailing for clip in read]),
        _ranking("Speakers (minutes)", speakers),
        _ranking("Symbols (count)", symbols),
        _ranking("Symbols without an id, which are left out (count)", unknown),
    ]


def _histogram(title: str, values: Sequence[float]) -> Chart:
    if not values:
        return Chart(title, [], [])
    counts, edges = np.histogram(values, BINS)
    return Chart(title, [f"{edge:.2f}" for edge in edges[:-1]], counts.tolist())


def _ranking(title: str, counts: Mapping[str, float]) -> Chart:
    chosen = sorted(counts.items(), key=lambda item: -item[1])[:MAX_BARS]
    more = f", the first {MAX_BARS} of {len(counts)}" if len(counts) > MAX_BARS else ""
    return Chart(title + more, [repr(name) if name.isspace() else name for name, _ in chosen], [n for _, n in chosen])


def _summary(measured: Sequence[Measured]) -> str:
    minutes = sum(clip.seconds for clip in measured) / 60
    return f"{len(measured)} recordings, {minutes:.1f} minutes"


def _reasons(findings: Sequence[Finding]) -> list[tuple[str, str, int]]:
    """Return kind, reason and number of clips, errors first and then the most frequent."""
    counts = Counter((finding.kind, finding.reason) for finding in findings)
    ordered = sorted(counts.items(), key=lambda item: (item[0][0], -item[1]))
    return [(kind.removesuffix("s"), reason, count) for (kind, reason), count in ordered]


def _complaints(findings: Sequence[Finding]) -> str:
    return "; ".join(f"{one.reason}: {one.detail}" if one.detail else one.reason for one in findings)


def _link(path: Path, recording: str) -> str:
    return quote(Path(os.path.relpath(recording, path.parent)).as_posix())


def _html(path: Path, measured: Sequence[Measured], findings: Sequence[Finding], charts: Sequence[Chart]) -> str:
    parts = ["<!DOCTYPE html>", '<html lang="en"><meta charset="utf-8">', "<title>Report of a corpus</title>"]
    parts += [f"<style>{STYLE}</style>", "<h1>Report of a corpus</h1>", f"<p>{_summary(measured)}</p>"]
    parts += ["<h2>Findings</h2>", "<table><tr><th>kind<th>reason<th>clips"]
    parts += [f"<tr><td>{kind}<td>{html.escape(reason)}<td>{count}" for kind, reason, count in _reasons(findings)]
    parts += ["</table>", "<h2>The most suspicious clips</h2>", "<table><tr><th>play<th>clip<th>findings"]
    for clip, found in suspicious(findings)[:MAX_SUSPICIOUS]:
        player = f'<audio controls preload="none" src="{html.escape(_link(path, clip.path))}"></audio>'
        text = f"{html.escape(clip.path)}<br>{html.escape(clip.text)}"
        parts.append(f"<tr><td>{player}<td>{text}<td>{html.escape(_complaints(found))}")
    parts += ["</table>", "<h2>Distributions</h2>", '<div class="charts">']
    for chart in charts:
        longest = max(chart.values) or 1
        parts += ["<div>", f"<h3>{html.escape(chart.title)}</h3>", "<table>"]
        for label, value in zip(chart.labels, chart.values):
            bar = f'<span class="bar" style="width: {10 * value / longest:.2f}rem"></span>'
            parts.append(f'<tr class="number"><td>{html.escape(label)}<td>{bar} {_number(value)}')
        parts += ["</table>", "</div>"]
    return "\n".join([*parts, "</div>", "</html>", ""])


def _markdown(path: Path, measured: Sequence[Measured], findings: Sequence[Finding], charts: Sequence[Chart]) -> str:
    lines = ["# Report of a corpus", "", _summary(measured), "", "## Findings", ""]
    lines += ["| kind | reason | clips |", "|---|---|---|"]
    lines += [f"| {kind} | {_cell(reason)} | {count} |" for kind, reason, count in _reasons(findings)]
    lines += ["", "## The most suspicious clips", "", "| clip | text | findings |", "|---|---|---|"]
    for clip, found in suspicious(findings)[:MAX_SUSPICIOUS]:
        link = f"[{_cell(clip.path)}]({_link(path, clip.path)})"
        lines.append(f"| {link} | {_cell(clip.text)} | {_cell(_complaints(found))} |")
    for chart in charts:
        longest = max(chart.values) or 1
        lines += ["", f"## {chart.title}", "", "| from | | |", "|---|---|---|"]
        for label, value in zip(chart.labels, chart.values):
            lines.append(f"| {_cell(label)} | {'█' * round(BAR * value / longest)} | {_number(value)} |")
    return "\n".join([*lines, ""])


def _number(value: float) -> str:
    return f"{value:.0f}" if value == round(value) else f"{value:.2f}"


def _cell(text: str) -> str:
    for character in "\\|`*_<>[]":
        text = text.replace(character, f"\\{character}")
    return text


FORMATS: dict[str, Callable[..., str]] = {".html": _html, ".md": _markdown}
