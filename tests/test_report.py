"""Tests of the report of a corpus."""

import re

import numpy as np
import pytest
import soundfile

import corpus
from corpora.filelist import Clip
from corpora.report import Finding, suspicious

RATE = 22050


@pytest.fixture
def filelist(tmp_path, monkeypatch):
    """A list of two speakers with a quiet recording, an unreadable one, and names that need escapes."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my wavs").mkdir()
    for seed, (name, level) in enumerate((("good", 0.1), ("quiet", 0.001), ("<ü> #1", 0.001))):
        noise = np.random.default_rng(seed).standard_normal(RATE // 2).clip(-3, 3)
        soundfile.write(f"my wavs/{name}.wav", level * noise, RATE, "FLOAT")
    (tmp_path / "my wavs/bad.wav").write_bytes(b"no audio")
    texts = {"good": "hi", "quiet": "<b>bold & loud and clear", "bad": "yes", "<ü> #1": "no"}
    lines = [f"my wavs/{name}.wav|{('anna', 'bo')[i % 2]}|{text}" for i, (name, text) in enumerate(texts.items())]
    (tmp_path / "list.txt.cleaned").write_text("\n".join(lines), "utf-8")
    return "list.txt.cleaned"


def report(filelist, name):
    with pytest.raises(SystemExit) as end:
        corpus.main([filelist, "--report", name])
    return end.value.code, open(name, encoding="utf-8").read()


def test_html_has_histograms_reasons_and_players(filelist, tmp_path):
    (tmp_path / "out").mkdir()
    code, page = report(filelist, "out/report.html")
    assert code == 2 and "4 recordings, 0.0 minutes" in page
    titles = re.findall(r"<h3>(.*?)</h3>", page)
    assert [title.split(" (")[0] for title in titles] == [
        "Duration",
        "Tokens per second",
        "Level",
        "Silence at the start",
        "Silence at the end",
        "Speakers",
        "Symbols",
        "Symbols without an id, which are left out",
    ]
    assert "<tr><td>error<td>cannot be decoded<td>1" in page and "<tr><td>warning<td>level below -35 dBFS<td>2" in page
    players = re.findall(r'src="(.*?)"', page)
    assert players[0] == "../my%20wavs/bad.wav" and len(players) == 3
    assert "../my%20wavs/%3C%C3%BC%3E%20%231.wav" in players
    assert "&lt;b&gt;bold &amp; loud and clear" in page and "<b>" not in page
    counts = re.search(r"<h3>Duration.*?</table>", page, re.DOTALL)
    assert sum(int(number) for number in re.findall(r"</span> (\d+)", counts[0])) == 3


def test_markdown_has_the_same_content(filelist):
    _, page = report(filelist, "report.md")
    assert "| error | cannot be decoded | 1 |" in page and "| anna | " in page
    assert page.index("my%20wavs/bad.wav") < page.index("my%20wavs/quiet.wav")
    assert "my wavs/good.wav" not in page


def test_another_format_is_refused_before_recordings_are_read(filelist, capsys):
    with pytest.raises(SystemExit, match="2"):
        corpus.main([filelist, "--report", "report.pdf"])
    said = capsys.readouterr()
    assert "report.pdf: a report is written as .html or .md" in said.err and said.out == ""


def test_errors_come_first_and_then_high_ranks_of_warnings():
    clips = {name: Clip(name, None, "x") for name in "abcd"}
    findings = [
        Finding(clips["a"], "warnings", "pause", 1),
        Finding(clips["b"], "warnings", "pause", 2),
        Finding(clips["c"], "errors", "empty", 0),
        Finding(clips["d"], "warnings", "pause", 1),
        Finding(clips["d"], "warnings", "level", 50),
    ]
    assert [clip.path for clip, _ in suspicious(findings)] == ["c", "d", "b", "a"]
