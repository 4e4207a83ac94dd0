"""Tests of trimmed copies of a corpus and of the comparison of speech and text."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

import config
import corpus
import make_filelists
from audio import load_audio
from corpora import copies
from corpora.filelist import read_filelist, read_record
from evaluation import transcripts

RATE = 22050


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    """Recordings with silence at the ends, of two formats and rates, their lists and config, and a broken recording."""
    monkeypatch.chdir(tmp_path)
    for i, suffix in enumerate(("wav", "flac", "ogg", "wav")):
        rate = (RATE, 16000)[i % 2]
        speech = 0.05 * np.random.default_rng(i).standard_normal(rate * (1 + i)).clip(-3, 3)
        Path(f"voice/{i % 2}").mkdir(parents=True, exist_ok=True)
        soundfile.write(f"voice/{i % 2}/take {i}.{suffix}", np.pad(speech, rate), rate)
        Path(f"voice/{i % 2}/take {i}.txt").write_text(f"Take number {i}.")
    make_filelists.main(["folder", "voice", "--test", "0", "--clean", "basic_cleaners"])
    train = Path("filelists/voice_audio_text_train_filelist.txt")
    for path in (train, Path(f"{train}.cleaned")):
        path.write_text(path.read_text() + "voice/broken.wav|broken\n")
    Path("voice/broken.wav").write_bytes(b"RIFF")
    return tmp_path


def run(capsys, *arguments):
    """Run the program. Returns exit code, standard output and standard error."""
    with pytest.raises(SystemExit) as end:
        corpus.main(["-c", "filelists/voice_config.json", *map(str, arguments)])
    said = capsys.readouterr()
    return end.value.code, said.out, said.err


def state(folder):
    """Return the content of every file of a folder."""
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in Path(folder).rglob("*") if path.is_file()}


def test_copies_are_trimmed_and_of_one_loudness_and_sources_are_kept(workspace, capsys):
    before = state("voice") | state("filelists")
    code, said, _ = run(capsys, "--trim", "--loudness", -23, "--out", "clean")
    assert code == 0 and "error: cannot be decoded (1): voice/broken.wav" in said
    assert "4 copies, and 0 of an earlier start" in said and "1 recordings with errors are in no list" in said
    assert state("voice") | state("filelists") == before
    data = config.load("clean/voice_config.json").data
    assert data.text_cleaners == ["basic_cleaners"] and data.training_files.startswith("clean/")
    clips = [clip for path in (data.training_files, data.validation_files) for clip in read_filelist(path)]
    assert sorted(Path(clip.path).name for clip in clips) == [f"take {i}.flac" for i in range(4)]
    assert read_record(data.training_files) == read_record("filelists/voice_audio_text_train_filelist.txt.cleaned")
    assert len(read_filelist(data.training_files.removesuffix(".cleaned"))) == 3
    for clip in clips:
        number = int(Path(clip.path).stem.split()[1])
        samples, rate = soundfile.read(clip.path)
        assert rate == (RATE, 16000)[number % 2] and clip.text == f"take number {number}."
        assert len(samples) / rate == pytest.approx(1 + number + 2 * copies.MARGIN, abs=0.05)
        assert copies.loudness(samples, rate) == pytest.approx(-23, abs=0.1)


def test_an_interrupted_program_continues_and_other_changes_need_another_folder(workspace, capsys):
    assert run(capsys, "--trim", "--out", "clean")[0] == 0
    Path("clean/recordings/0/take 0.flac").unlink()
    times = {path: path.stat().st_mtime_ns for path in Path("clean/recordings").rglob("*.flac")}
    assert "1 copies, and 3 of an earlier start" in run(capsys, "--trim", "--out", "clean")[1]
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())
    soundfile.write("voice/0/take 0.wav", np.random.default_rng(9).standard_normal(RATE) / 9, RATE)  # a changed source
    assert "1 copies, and 3 of an earlier start" in run(capsys, "--trim", "--out", "clean")[1]
    code, _, error = run(capsys, "--loudness", -20, "--out", "clean")
    assert code == 2 and "clean has copies with other changes" in error


def test_peaks_limit_the_loudness(workspace, capsys):
    click = np.concatenate([[0.9], np.random.default_rng(0).standard_normal(RATE) / 300])
    soundfile.write("voice/0/take 0.wav", click, RATE)
    _, said, _ = run(capsys, "--loudness", -16, "--out", "loud")
    assert "1 copies are quieter than -16 LUFS, because of their peaks" in said
    assert np.abs(load_audio("loud/recordings/0/take 0.flac", RATE)).max() == pytest.approx(copies.PEAK, abs=1e-3)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--trim"], "--out needs --trim, --loudness or both, and these need --out"),
        (["--out", "x"], "--out needs --trim, --loudness or both, and these need --out"),
        (["--loudness", "3", "--out", "x"], "a loudness of 3 LUFS is not between -70 and 0"),
        (["--trim", "--out", "filelists"], "lies in filelists: choose another folder for the copies"),
        (["--trim", "--out", "voice/broken.wav"], "is a file: name a folder for the copies"),
        (["--report", "x.pdf"], "x.pdf: a report is written as .html or .md"),
        (["--recognize", "--language", "de"], "speech in 'de' needs a multilingual model"),
        (["--whisper", "x"], "--whisper and --language have no effect without --recognize"),
    ],
)
def test_options_that_cannot_work_are_refused(options, complaint, workspace, capsys):
    before = state(".")
    code, _, error = run(capsys, *options)
    assert code == 2 and complaint in error and error.count("\n") == 1
    assert state(".") == before


class Recognizer:
    """A stand-in that hears the right words in each recording but one."""

    def __init__(self, model=None, language="en"):
        self.heard = []

    def transcribe(self, samples):
        self.heard.append(len(samples))
        seconds = round(len(samples) / 16000) - 3
        return "Something else entirely" if seconds == 2 else f"take number {('zero', 'one', 'two', 'three')[seconds]}"


def test_clips_are_ranked_by_recognized_speech(workspace, capsys, monkeypatch):
    made = []
    monkeypatch.setattr(transcripts, "Whisper", lambda *given: made.append(Recognizer()) or made[-1])
    code, said, _ = run(capsys, "--recognize", "--cache", "cache.json", "--report", "report.md")
    assert code == 2 and len(made[0].heard) == 4
    assert "recognized speech differs from the text by 30% or more (1): voice/0/take 2.ogg: " in said
    page = Path("report.md").read_text()
    ranking = page[page.index("## Speech that differs most from the text") :]
    assert "Something else entirely" in ranking.splitlines()[4] and "## Character error rate" in ranking
    run(capsys, "--recognize", "--cache", "cache.json")
    assert made[1].heard == []
    assert len(json.loads(Path("cache.heard.json").read_text())["files"]) == 4


def test_recognition_needs_plain_text(workspace, capsys):
    assert corpus.language_of(["phonemes_pt-br"]) == "pt" and corpus.language_of(["english_cleaners2"]) == "en"
    Path("filelists/voice_audio_text_val_filelist.txt").unlink()
    assert "there is no list filelists/voice_audio_text_val_filelist.txt" in run(capsys, "--recognize")[2]
