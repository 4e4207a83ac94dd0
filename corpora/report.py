"""The report of a checked corpus as HTML or Markdown: histograms, what was found, and the most suspicious clips."""

import html
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
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
MAX_ERRORS, MAX_WARNINGS = 20, 5  # recordings listed for each error and warning in a message

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


class Heard(NamedTuple):
    """A clip with what a recognizer heard, and the character error rate between its text and that."""

    clip: Clip
    heard: str
    cer: float


@dataclass
class Report:
    """The result of a check. `errors` and `warnings` map a reason to the recordings concerned, the worst first."""

    measured: list[Measured] = field(default_factory=list)
    frames: list[int] = field(default_factory=list)  # of each clip's spectrogram; 0 if it cannot be read
    findings: list[Finding] = field(default_factory=list)  # the worst first
    symbols: Counter[str] = field(default_factory=Counter)
    unknown: Counter[str] = field(default_factory=Counter)  # symbols without an id
    errors: dict[str, list[str]] = field(default_factory=dict)
    warnings: dict[str, list[str]] = field(default_factory=dict)
    checksum: str = ""  # SHA-256 of all names, speakers, texts and samples
    left_out: dict[str, int] = field(default_factory=dict)  # clips that are not in the lists, by reason
    heard: list[Heard] = field(default_factory=list)  # the largest error rate first

    def __str__(self) -> str:
        seconds = sum(clip.seconds for clip in self.measured)
        lines = [f"{len(self.measured)} recordings, {seconds / 60:.1f} minutes:"]
        for kind, reasons, most in (("error", self.errors, MAX_ERRORS), ("warning", self.warnings, MAX_WARNINGS)):
            for reason, names in reasons.items():
                rest = f", and {len(names) - most} more" if len(names) > most else ""
                lines.append(f"{kind}: {reason} ({len(names)}): {', '.join(names[:most])}{rest}")
        return "\n".join(lines) if self.errors or self.warnings else f"{lines[0]} nothing to report"

    def add(self, findings: Sequence[Finding]) -> None:
        """Add findings, and their recordings to `errors` and `warnings`."""
        self.findings += sorted(findings, key=lambda finding: -finding.severity)
        for clip, kind, reason, _, detail in sorted(findings, key=lambda finding: -finding.severity):
            getattr(self, kind).setdefault(reason, []).append(f"{clip.path}: {detail}" if detail else clip.path)

    def extend(self, other: "Report") -> None:
        """Add the results of another report."""
        self.measured += other.measured
        self.frames += other.frames
        self.findings += other.findings
        self.symbols.update(other.symbols)
        self.unknown.update(other.unknown)
        self.left_out |= other.left_out
        self.heard = sorted([*self.heard, *other.heard], key=lambda heard: -heard.cer)
        for ours, theirs in ((self.errors, other.errors), (self.warnings, other.warnings)):
            for reason, names in theirs.items():
                ours.setdefault(reason, []).extend(names)

    def stop_on_errors(self) -> None:
        """Raise ValueError if there are errors; the report names the recordings."""
        if self.errors:
            raise ValueError("repair the recordings that the errors above name, or remove them from the filelist")


def write_report(path: str | Path, report: Report) -> None:
    """Write a report in the format of the suffix, a key of `FORMATS`.

    Links to recordings are relative to the report. Raises ValueError for another suffix.
    """
    write = format_of(path)
    charts = [chart for chart in _charts(report) if chart.values]
    write_text(path, write(Path(path), report, charts))


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


def _charts(report: Report) -> list[Chart]:
    read = [clip for clip in report.measured if clip.seconds]
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
        _histogram("Character error rate of the recognizer", [heard.cer for heard in report.heard]),
        _ranking("Symbols (count)", report.symbols),
        _ranking("Symbols without an id, which are left out (count)", report.unknown),
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


def _reasons(report: Report) -> list[tuple[str, str, int]]:
    """Return kind, reason and number of clips or symbols: errors, warnings, and what is not in the lists."""
    counts = {
        "error": {reason: len(names) for reason, names in report.errors.items()},
        "warning": {reason: len(names) for reason, names in report.warnings.items()},
        "not in the lists": report.left_out,
    }
    return [
        (kind, reason, count)
        for kind, reasons in counts.items()
        for reason, count in sorted(reasons.items(), key=lambda item: -item[1])
    ]


def _clips(report: Report) -> list[tuple[str, str, list[tuple[Clip, str]]]]:
    """Return the lists of clips: title, title of the last column, and clips with the content of that column."""
    found = [(clip, _complaints(findings)) for clip, findings in suspicious(report.findings)]
    heard = [(clip, f"{cer:.2f}: {text}") for clip, text, cer in report.heard]
    lists = [
        ("The most suspicious clips", "findings", found[:MAX_SUSPICIOUS]),
        ("Speech that differs most from the text", "error rate, and what was heard", heard[:MAX_SUSPICIOUS]),
    ]
    return [(title, column, clips) for title, column, clips in lists if clips]


def _complaints(findings: Sequence[Finding]) -> str:
    return "; ".join(f"{one.reason}: {one.detail}" if one.detail else one.reason for one in findings)


def _link(path: Path, recording: str) -> str:
    return quote(Path(os.path.relpath(recording, path.parent)).as_posix())


def _html(path: Path, report: Report, charts: Sequence[Chart]) -> str:
    parts = ["<!DOCTYPE html>", '<html lang="en"><meta charset="utf-8">', "<title>Report of a corpus</title>"]
    parts += [f"<style>{STYLE}</style>", "<h1>Report of a corpus</h1>", f"<p>{_summary(report.measured)}</p>"]
    parts += ["<h2>Findings</h2>", "<table><tr><th>kind<th>reason<th>number"]
    parts += [f"<tr><td>{kind}<td>{html.escape(reason)}<td>{count}" for kind, reason, count in _reasons(report)]
    parts.append("</table>")
    for title, column, clips in _clips(report):
        parts += [f"<h2>{title}</h2>", f"<table><tr><th>play<th>clip<th>{column}"]
        for clip, content in clips:
            player = f'<audio controls preload="none" src="{html.escape(_link(path, clip.path))}"></audio>'
            text = f"{html.escape(clip.path)}<br>{html.escape(clip.text)}"
            parts.append(f"<tr><td>{player}<td>{text}<td>{html.escape(content)}")
        parts.append("</table>")
    parts += ["<h2>Distributions</h2>", '<div class="charts">']
    for chart in charts:
        longest = max(chart.values) or 1
        parts += ["<div>", f"<h3>{html.escape(chart.title)}</h3>", "<table>"]
        for label, value in zip(chart.labels, chart.values):
            bar = f'<span class="bar" style="width: {10 * value / longest:.2f}rem"></span>'
            parts.append(f'<tr class="number"><td>{html.escape(label)}<td>{bar} {_number(value)}')
        parts += ["</table>", "</div>"]
    return "\n".join([*parts, "</div>", "</html>", ""])


def _markdown(path: Path, report: Report, charts: Sequence[Chart]) -> str:
    lines = ["# Report of a corpus", "", _summary(report.measured), "", "## Findings", ""]
    lines += ["| kind | reason | number |", "|---|---|---|"]
    lines += [f"| {kind} | {_cell(reason)} | {count} |" for kind, reason, count in _reasons(report)]
    for title, column, clips in _clips(report):
        lines += ["", f"## {title}", "", f"| clip | text | {column} |", "|---|---|---|"]
        for clip, content in clips:
            link = f"[{_cell(clip.path)}]({_link(path, clip.path)})"
            lines.append(f"| {link} | {_cell(clip.text)} | {_cell(content)} |")
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
