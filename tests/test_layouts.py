"""Tests of the layouts of corpora: a corpus of each is generated and read by the program."""

import codecs
import dataclasses
import json
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import soundfile

import config
import make_filelists
from corpora.filelist import read_filelist, read_record
from corpora.layouts import LAYOUTS, recognize
from corpora.recordings import READ_SUFFIXES, Files

SPEAKERS = ("anna", "bert")
TEXTS = [f"Grüße aus Nummer {word}." for word in ("eins", "zwei", "drei", "vier", "fünf", "sechs")]
CITIES = ("广州", "北京", "上海", "天津", "重庆", "成都")
FORMATS = {".aifc": "AIFF", ".aif": "AIFF", ".snd": "AU", ".oga": "OGG", ".opus": "OGG", ".sph": "NIST"}


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def record(path, rate=22050, seconds=0.1):
    path.parent.mkdir(parents=True, exist_ok=True)
    suffix = path.suffix.lower()
    subtype = {".opus": "OPUS", ".oga": "VORBIS", ".ogg": "VORBIS"}.get(suffix)
    noise = 0.1 * np.random.default_rng(0).standard_normal(round(seconds * rate))
    soundfile.write(path, noise, rate, subtype, format=FORMATS.get(suffix))


class Writer:
    """Write the corpora. `form` normalizes names in files, `write` encodes, and `suffix` is that of recordings.

    `mixed` recordings have other formats and rates than the tables state.
    """

    def __init__(self, encoding="utf-8", newline="\n", form="NFC", suffix=".wav", mixed=()):
        self.encoding, self.newline, self.form, self.suffix, self.mixed = encoding, newline, form, suffix, mixed

    def write(self, path, lines):
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "w", encoding=self.encoding, newline=self.newline) as file:
            file.write(unicodedata.normalize(self.form, "".join(f"{line}\n" for line in lines)))

    def clips(self, name="{speaker}_ö {i}", folder="corpus/{speaker}"):
        """Write recordings, and return speaker, name and text of each."""
        clips = []
        for i, text in enumerate(TEXTS):
            speaker = SPEAKERS[i % 2]
            called = name.format(speaker=speaker, i=i)
            suffix, rate = self.mixed[i % len(self.mixed)] if self.mixed else (self.suffix, 22050)
            record(Path(folder.format(speaker=speaker), f"{called}{suffix}"), rate)
            clips.append((speaker, called, text))
        return clips

    def kaldi(self):
        clips = self.clips()
        paths = [f"corpus/{s}/{n}{self.suffix}" for s, n, _ in clips]
        self.write("corpus/data/wav.scp", [f"u{i} {path}" for i, path in enumerate(paths)])
        self.write("corpus/data/text", [f"u{i} {t}" for i, (_, _, t) in enumerate(clips)])
        self.write("corpus/data/utt2spk", [f"u{i} {s}" for i, (s, _, _) in enumerate(clips)])

    def commonvoice(self):
        rows = [f"{s}{'0' * 99}\t{n}{self.suffix}\t{t}\t2" for s, n, t in self.clips(folder="corpus/clips")]
        self.write("corpus/validated.tsv", ["client_id\tpath\tsentence\tup_votes", *rows])
        self.write("corpus/train.tsv", ["client_id\tpath\tsentence\tup_votes", rows[0]])

    def mailabs(self):
        clips = self.clips(folder="corpus/by_book/female/{speaker}/book/wavs")
        for speaker in SPEAKERS:
            book = f"corpus/by_book/female/{speaker}/book"
            self.write(f"{book}/metadata.csv", [f"{n}|raw|{t}" for s, n, t in clips if s == speaker])
            self.write(f"{book}/metadata_mls.json", ["{}"])

    def audiofolder(self):
        rows = [f'{s}/{n}{self.suffix},"{t}",{s}' for s, n, t in self.clips()]
        self.write("corpus/metadata.csv", ["file_name,transcription,speaker_id", *rows])

    def coqui(self):
        rows = [f"wavs/{n}{self.suffix}|{t}|{s}" for s, n, t in self.clips(folder="corpus/wavs")]
        self.write("corpus/metadata_train.csv", ["audio_file|text|speaker_name", *rows])

    def ljspeech(self):
        rows = [f"{n}|{t[:-1]}|{t}" for _, n, t in self.clips(folder="corpus/wavs")]
        self.write("corpus/metadata.csv", rows)

    def piper(self):
        self.write("corpus/metadata.csv", [f"{n}|{s}|{t}" for s, n, t in self.clips(folder="corpus/wav")])

    def speakers(self):
        clips = self.clips("{i}", "corpus/{speaker}/wavs")
        for i in range(2, len(clips)):  # both speakers have recordings of these names
            record(Path(f"corpus/{SPEAKERS[(i + 1) % 2]}/wavs/{i}{self.suffix}"))
        for speaker in SPEAKERS:
            self.write(f"corpus/{speaker}/metadata.csv", [f"{n}|{t}" for s, n, t in clips if s == speaker])

    def aishell3(self):
        rows = []
        for i, (first, second) in enumerate(CITIES):
            record(Path(f"corpus/train/wav/SSB000{i % 2}/SSB000{i % 2}000{i}{self.suffix}"))
            rows.append(f"SSB000{i % 2}000{i}.wav\t{first} yi1 {second} er4")
        self.write("corpus/train/content.txt", rows)

    def libritts(self):
        for speaker, name, text in self.clips("{speaker}_1_{i}", "corpus/{speaker}/1"):
            self.write(f"corpus/{speaker}/1/{name}.normalized.txt", [text])
            self.write(f"corpus/{speaker}/1/{name}.original.txt", ["raw"])

    def librispeech(self):
        clips = self.clips("{speaker}-1-{i}", "corpus/{speaker}/1")
        for speaker in SPEAKERS:
            rows = [f"{n} {t.upper()}" for s, n, t in clips if s == speaker]
            self.write(f"corpus/{speaker}/1/{speaker}-1.trans.txt", rows)

    def vctk(self):
        for speaker, name, text in self.clips("{speaker}_{i}_mic1", "corpus/wav48_silence_trimmed/{speaker}"):
            record(Path(f"corpus/wav48_silence_trimmed/{speaker}/{name[:-1]}2{self.suffix}"))
            self.write(f"corpus/txt/{speaker}/{name.removesuffix('_mic1')}.txt", [text])

    def texts(self):
        for i, (speaker, name, text) in enumerate(self.clips()):
            self.write(f"corpus/{speaker}/{name}.{('txt', 'lab')[i % 2]}", [text])


NAMED = {"piper": ["--layout", "piper"], "texts": ["--speaker-folders"]}  # options besides the folder
SINGLE = {"ljspeech"}  # layouts without speakers


def read(*options, lists="filelists"):
    """Run the program on the corpus. Return the clips of all its lists as (recording, speaker, text)."""
    make_filelists.main(["folder", "corpus", "--val", "1", "--test", "1", "--out", lists, *options])
    clips = [clip for path in sorted(Path(lists).glob("*_filelist.txt")) for clip in read_filelist(path)]
    assert all(Path(clip.path).is_file() for clip in clips)
    return sorted((clip.path, clip.speaker, unicodedata.normalize("NFC", clip.text)) for clip in clips)


CONDITIONS = {  # of the table in docs/data.md
    "plain": {},
    "Windows": {"newline": "\r\n", "encoding": "utf-8-sig"},
    "decomposed": {"form": "NFD", "suffix": ".FLAC"},
    "Ogg": {"suffix": ".Ogg"},
    "mixed": {"mixed": ((".WAV", 48000), (".mp3", 16000), (".Flac", 22050), (".opus", 24000), (".aiff", 44100))},
}
REFUSED = ("UTF-16", "Latin-1")  # encodings, of the same table


@pytest.mark.parametrize("how", CONDITIONS.values(), ids=CONDITIONS)
@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_is_recognized_and_read(name, how, capsys):
    writer = Writer(**how)
    getattr(writer, name)()
    clips = read(*NAMED.get(name, ()))
    said = capsys.readouterr().out
    assert f"corpus: layout {name} ({LAYOUTS[name].title})" in said
    if name == "aishell3":
        assert {text for *_, text in clips} == set(CITIES)
        assert {speaker for _, speaker, _ in clips} == {"SSB0000", "SSB0001"}
        return
    texts = [text.upper().lower() if name == "librispeech" else text for text in TEXTS]
    assert sorted(text for *_, text in clips) == sorted(texts)
    speaker_of = {text: SPEAKERS[i % 2] for i, text in enumerate(texts)}
    for path, speaker, text in clips:
        expected = None if name in SINGLE else speaker_of[text]
        assert speaker == (f"{expected}{'0' * 99}"[:8] if name == "commonvoice" else expected)
        if name != "speakers":
            assert str(texts.index(text)) in Path(path).stem
        assert speaker_of[text] in path
    assert name in SINGLE or "2 speakers, with clips: " in said


@pytest.mark.parametrize("encoding", REFUSED)
@pytest.mark.parametrize("name", LAYOUTS)
def test_texts_in_another_encoding_are_named(name, encoding, capsys):
    chinese = name == "aishell3" and encoding == "Latin-1"  # which has no Chinese characters
    getattr(Writer("gb18030" if chinese else encoding), name)()
    with pytest.raises(SystemExit, match="2"):
        read(*NAMED.get(name, ()))
    error = capsys.readouterr().err
    assert f"not UTF-8 but probably {'UTF-16' if encoding == 'UTF-16' else 'CP1252 or Latin-1'}" in error
    assert error.count("\n") == 1


def test_the_document_has_the_results_of_every_layout_and_condition():
    document = (Path(__file__).parent.parent / "docs/data.md").read_text("utf-8")
    lines = document[document.index("| layout |") :].partition("\n\n")[0].splitlines()
    header, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert header == ["layout", *CONDITIONS, *REFUSED]
    results = ["correct list"] * len(CONDITIONS) + ["one message"] * len(REFUSED)
    assert rows == [[f"`{name}`", *results] for name in LAYOUTS]


def test_every_format_that_is_looked_for_is_read(capsys):
    suffixes = [*sorted(READ_SUFFIXES - {".nist", ".wav"}), ".WAV"]
    for suffix in suffixes:
        record(Path(f"corpus/a{suffix[1:]}{suffix}"), 48000)
        Path(f"corpus/a{suffix[1:]}.txt").write_text("Ja.")
    for suffix in (".m4a", ".webm", ".webm"):
        Path(f"corpus/b{len(list(Path('corpus').iterdir()))}{suffix}").write_bytes(b"x")
    Path("corpus/._aflac.flac").write_bytes(b"x")
    assert len(read("--clean", "basic_cleaners")) == len(suffixes)
    said = capsys.readouterr().out
    assert "Not read: 2 .webm files: convert them" in said and "Not read: 1 .m4a files" in said
    assert config.load("filelists/corpus_config.json").data.sampling_rate == 48000


@pytest.mark.parametrize(
    ("recorded", "chosen"),
    [(8000, 16000), (16000, 16000), (22050, 22050), (24000, 24000), (32000, 24000), (44100, 44100), (96000, 48000)],
)
def test_the_config_has_the_settings_of_the_rate(recorded, chosen, capsys):
    for name in "abc":
        record(Path(f"corpus/{name}.wav"), recorded)
        Path(f"corpus/{name}.txt").write_text("Ja.")
    for options, expected in (((), chosen), (("--sampling-rate", "22050"), 22050), ((), chosen)):
        make_filelists.main(["folder", "corpus", "--clean", "basic_cleaners", *options])
        assert f"config for one voice at {expected} Hz" in capsys.readouterr().out
        made = dataclasses.asdict(config.load("filelists/corpus_config.json"))
        for section, settings in config.RATES[expected].items():
            assert settings.items() <= made[section].items()
    path = Path("filelists/corpus_config.json")
    edited = json.loads(path.read_text())
    edited["train"]["segment_size"] = 16 * made["data"]["hop_length"]  # of the same rate, so that it is kept
    path.write_text(json.dumps(edited))
    make_filelists.main(["folder", "corpus", "--clean", "basic_cleaners"])
    assert config.load(path).train.segment_size == edited["train"]["segment_size"]


def test_segments_of_kaldi_are_cut(capsys):
    Path("corpus").mkdir()
    samples = np.arange(2000) / 4000
    soundfile.write("corpus/long.wav", samples, 1000, "FLOAT")
    Path("corpus/wav.scp").write_text("r corpus/long.wav\nc flac -c -d -s corpus/other.flac |\ns sox x.wav - |\n")
    record(Path("corpus/other.flac"), 1000, 1)
    rows = ["u1 r 0.1 0.6", "u2 r 0.6 1.1", "u3 c 0 0.5", "u4 r 2.5 3", "u5 s 0 1"]
    Path("corpus/segments").write_text("\n".join(rows))
    Path("corpus/text").write_text("u1 ONE\nu2 TWO\nu3 THREE\nu4 FOUR\nu5 FIVE\nu6 SIX\n")
    Path("corpus/utt2spk").write_text("".join(f"u{i} u{i}\n" for i in range(1, 7)))
    clips = read()
    said = capsys.readouterr().out
    for reason in ("segment not within the recording", "not in segments", "wav.scp has a command"):
        assert f"Left out, {reason}" in said
    assert [(speaker, text) for _, speaker, text in clips] == [(None, "one"), (None, "two"), (None, "three")]
    audio, rate = soundfile.read(clips[0][0])
    assert rate == 1000
    np.testing.assert_allclose(audio, samples[100:600], atol=1e-4)
    Path("corpus/segments").write_text("u1 r start end")
    with pytest.raises(SystemExit, match="2"):
        read()
    assert "segments, line 1: expected UTTERANCE RECORDING START END" in capsys.readouterr().err


def test_recordings_of_kaldi_by_absolute_path_are_those_of_the_corpus(capsys):
    Writer().kaldi()
    scp = Path("corpus/data/wav.scp")
    scp.write_text(scp.read_text().replace("corpus/", f"{Path('corpus').resolve()}/"))
    assert all(path.startswith("corpus/") for path, *_ in read())
    assert "Left out" not in capsys.readouterr().out


def test_texts_beside_recordings_are_preferred_to_tables_in_folders(capsys):
    writer = Writer()
    writer.texts()
    for folder in ("old", "older"):
        writer.write(f"corpus/{folder}/metadata.csv", ["a|b"])
        assert len(read("--speaker-folders")) == len(TEXTS)
        assert "layout texts" in capsys.readouterr().out


def test_tables_without_header_beside_tables_with_one_are_passed_over():
    writer = Writer()
    writer.coqui()
    writer.write("corpus/metadata_old.csv", ["a|b|c"])
    assert len(read()) == len(TEXTS)


def test_json_lines_and_other_names_of_tables():
    writer = Writer()
    rows = [{"file_name": f"{s}/{n}.wav", "id": 3, "text": t, "speaker_id": s} for s, n, t in writer.clips()]
    writer.write("corpus/metadata.jsonl", [json.dumps(row) for row in rows])
    expected = read(lists="jsonl")
    assert [speaker for _, speaker, _ in expected] == sorted(SPEAKERS * 3)
    Path("corpus/metadata.jsonl").unlink()
    writer.write("corpus/lines.txt", [f"{row['file_name']}|{row['text']}" for row in rows])
    assert read("--metadata", "lines.txt", lists="bars") == [(path, None, text) for path, _, text in expected]
    writer.write("corpus/lines.txt", [f"{row['file_name']}\t{row['text']}" for row in rows])
    assert read("--metadata", "corpus/lines.txt", lists="tabs") == [(path, None, text) for path, _, text in expected]


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        (["file_name,text", "a.wav,x,y"], "metadata.csv, line 2: not as many columns as the header has"),
        (["file_name,text", "a.wav"], "metadata.csv, line 2: not as many columns"),
        (["id|Bert B|it is", "id2|Bert B|it was"], "looks like speakers"),
    ],
)
def test_malformed_tables_name_file_and_line(lines, complaint):
    record(Path("corpus/a.wav"))
    Writer().write("corpus/metadata.csv", lines)
    with pytest.raises(ValueError, match=complaint):
        make_filelists.folder(Path("corpus"))


def test_malformed_json_lines_name_file_and_line():
    record(Path("corpus/a.wav"))
    for line, complaint in (
        ("{", "not valid JSON"),
        ("3", "expected a JSON object"),
        ('{"a": 1}', "columns for record"),
    ):
        Writer().write("corpus/metadata.jsonl", ['{"file_name": "a", "text": "x"}', line])
        with pytest.raises(ValueError, match=rf"metadata.jsonl, line 2: {complaint}"):
            make_filelists.folder(Path("corpus"))


def test_an_unknown_layout_names_what_was_seen_and_looked_for():
    record(Path("corpus/a.wav"))
    for name in ("wav.scp", "metadata.txt"):
        Path("corpus", name).write_text("x y")
    with pytest.raises(ValueError, match=r"1 recordings, but no texts") as error:
        make_filelists.folder(Path("corpus"))
    said = str(error.value)
    assert "metadata.txt (--metadata metadata.txt), wav.scp (--layout kaldi)" in said
    assert all(kind.looked_for in said for kind in LAYOUTS.values())
    with pytest.raises(ValueError, match=r"wav.scp without the file text"):
        make_filelists.folder(Path("corpus"), layout="kaldi")
    with pytest.raises(ValueError, match=r"there is no layout 'kaldy'; did you mean kaldi\?"):
        make_filelists.folder(Path("corpus"), layout="kaldy")
    with pytest.raises(ValueError, match=r"has no file other.csv"):
        make_filelists.folder(Path("corpus"), metadata="other.csv")
    Path("corpus/metadata.csv").write_text("b|no recording\nc|none")
    with pytest.raises(ValueError, match=r"no clip has both a text and a recording in the layout ljspeech"):
        make_filelists.folder(Path("corpus"))
    with pytest.raises(ValueError, match=r"metadata.csv \(--layout ljspeech\)"):
        make_filelists.folder(Path("corpus"), layout="libritts")
    Path("corpus/a.wav").rename("corpus/a.webm")
    Path("corpus/metadata.csv").unlink()
    with pytest.raises(ValueError, match=r"corpus has no recordings that can be read; it has 1 .webm"):
        make_filelists.folder(Path("corpus"))


def test_common_voice_of_several_languages_is_refused():
    Writer().commonvoice()
    Path("corpus/de").mkdir()
    Path("corpus/de/validated.tsv").write_text(Path("corpus/validated.tsv").read_text())
    with pytest.raises(ValueError, match=r"several corpora .*give the folder of one language"):
        make_filelists.folder(Path("corpus"))


def test_label_files_with_times_are_not_texts(capsys):
    Writer().texts()
    Path("corpus/anna/anna_ö 0.txt").rename("corpus/anna/anna_ö 0.lab")
    Path("corpus/anna/anna_ö 0.lab").write_text("0 1200000 sil\n1200000 2000000 a\n")
    assert len(read()) == len(TEXTS) - 1
    assert "Left out, label file with times instead of a text: 1 clips (anna_ö 0.wav)" in capsys.readouterr().out


def test_names_that_a_list_cannot_contain_and_empty_texts_are_left_out(capsys):
    Writer().texts()
    for name in ("a|b", "a\nb", "a\udcff"):
        record(Path("corpus/anna/a.wav"))
        Path("corpus/anna/a.wav").rename(f"corpus/anna/{name}.wav")
        Path(f"corpus/anna/{name}.txt").write_text("x")
    Path("corpus/anna/loop").symlink_to(Path("corpus").resolve())
    Path("corpus/anna/anna_ö 0.txt").write_text(" \n")
    assert len(read()) == len(TEXTS) - 1
    said = capsys.readouterr().out
    assert "Left out, path with | or a line break, with a space at its ends, or not in UTF-8: 3 clips" in said
    assert "Left out, no text: 1 clips (anna_ö 0.wav)" in said


@pytest.mark.parametrize(
    ("folders", "level", "expected"),
    [
        (("anna/wavs", "bert/wavs"), None, {"anna", "bert"}),
        (("wavs/anna", "wavs/bert"), None, {"anna", "bert"}),
        (("anna/take", "bert/take"), None, {"anna", "bert"}),
        (("anna/x", "bert/y"), 1, {"anna", "bert"}),
        (("f/anna/x", "m/bert/y"), 2, {"anna", "bert"}),
        (("f/anna", "m/bert"), None, {"anna", "bert"}),
        (("train/anna", "test/anna", "train/bert", "test/bert"), None, {"anna", "bert"}),
        (("anna/1", "anna/2", "bert/1", "bert/2"), 1, {"anna", "bert"}),
    ],
)
def test_folders_of_speakers(folders, level, expected):
    for folder in folders:
        for i in range(2):
            record(Path("corpus", folder, f"{i}.wav"))
            Path("corpus", folder, f"{i}.txt").write_text("Ja.")
    splits = make_filelists.folder(Path("corpus"), speaker_folders=True, speaker_level=level)
    assert {clip.speaker for clips in splits.values() for clip in clips} == expected
    record(Path("corpus/0.wav"))
    Path("corpus/0.txt").write_text("Ja.")
    with pytest.raises(ValueError, match=r"corpus/0.wav lies in no .*expected corpus/SPEAKER/NAME"):
        make_filelists.folder(Path("corpus"), speaker_folders=True, speaker_level=level)


def test_folders_of_the_same_name_below_several_folders_are_ambiguous():
    for folder in ("anna/1", "anna/2", "bert/1", "bert/2"):
        record(Path("corpus", folder, "0.wav"))
        Path("corpus", folder, "0.txt").write_text("Ja.")
    with pytest.raises(ValueError, match=r"may be the folders anna, bert or the folders in them, 1, 2: give --speaker"):
        make_filelists.folder(Path("corpus"), speaker_folders=True)


def test_named_columns_read_tables_with_commas(capsys):
    for i in range(3):
        record(Path(f"corpus/wavs/{i}.wav"))
    for mark in ",;":
        table = "".join(f'{i}.wav{mark}"Yes{mark} {i}"\r\n' for i in range(3))
        Path("corpus/lines.csv").write_bytes(f"clip{mark}words\r\n{table}".encode())
        clips = read("--metadata", "lines.csv", "--columns", "id,text")
        assert [text for *_, text in clips] == [f"Yes{mark} {i}" for i in range(3)]
    with pytest.raises(
        ValueError, match=r"has one column, as in 'clip;words': separate id and text by \| or, in a tab"
    ):
        make_filelists.folder(Path("corpus"), metadata="lines.csv")
    Path("corpus/lines.csv").rename("corpus/lines.json")
    with pytest.raises(ValueError, match=r"Seen: lines.json \(not read\)"):
        make_filelists.folder(Path("corpus"))


def test_every_speaker_is_in_training():
    Writer().texts()
    record(Path("corpus/cleo/1.wav"))
    Path("corpus/cleo/1.txt").write_text("Ja.")
    for seed in range(10):
        splits = make_filelists.folder(Path("corpus"), speaker_folders=True, val=2, test=2, seed=seed)
        assert {clip.speaker for clip in splits["train"]} == {*SPEAKERS, "cleo"}


def test_clean_writes_a_config_that_fits(capsys):
    Writer().texts()
    record(Path("corpus/anna/slow.wav"), 16000)
    Path("corpus/anna/slow.txt").write_text("Ja.")
    Path("corpus/bert/bert_ö 1.lab").write_text("- -")
    read("--speaker-folders", "--clean", "phonemes_de")
    said = capsys.readouterr().out
    assert "Left out, phonemes_de leave nothing of the text: 1 clips" in said
    assert "Sampling rates: 22050 Hz: " in said and "16000 Hz: 1" in said
    path = Path("filelists/corpus_config.json")
    made = config.load(path)
    assert (made.data.text_cleaners, made.data.sampling_rate) == (["phonemes_de"], 22050)
    assert (made.data.n_speakers, made.data.speakers) == (2, {"anna": 0, "bert": 1})
    assert made.model.gin_channels > 0
    for filelist in (made.data.training_files, made.data.validation_files):
        assert read_filelist(filelist) and read_record(filelist)[:2] == (("phonemes_de",), 22050)
    edited = json.loads(path.read_text())
    edited["train"]["batch_size"] = 7
    path.write_text(json.dumps(edited))
    make_filelists.main(["folder", "corpus", "--clean", "basic_cleaners"])
    made = config.load(path)
    assert (made.train.batch_size, made.data.n_speakers, made.data.speakers) == (7, 0, {})
    assert made.data.text_cleaners == ["basic_cleaners"]
    assert "belongs to an earlier list of other columns" in capsys.readouterr().out


def test_lists_of_an_earlier_run_do_not_survive_without_val(capsys):
    Writer().texts()
    read("--clean", "basic_cleaners")
    make_filelists.main(["folder", "corpus", "--val", "0", "--test", "0", "--clean", "basic_cleaners"])
    said = capsys.readouterr().out
    kept = {path.name for path in Path("filelists").glob("*filelist*")}
    assert kept == {f"corpus_audio_text_train_filelist.txt{end}" for end in ("", ".cleaned", ".cleaned.json")}
    assert (
        "text_val_filelist.txt of an earlier run is removed" in said
        and "corpus_config.json of an earlier run does not fit" in said
    )


@pytest.mark.parametrize("name", ["a/b", "", "..", "a\\b"])
def test_names_that_are_no_start_of_a_file_name_are_refused(name, capsys):
    Writer().texts()
    with pytest.raises(SystemExit, match="2"):
        read("--name", name)
    assert "is no start of a file name" in capsys.readouterr().err and not Path("filelists").exists()


def test_a_name_that_resembles_a_list_of_speakers():
    Writer().texts()
    read("--name", "x_sid_text_", "--clean", "basic_cleaners")
    clips = read_filelist("filelists/x_sid_text__audio_text_train_filelist.txt.cleaned")
    assert all(clip.text.startswith("grüße") and clip.path.startswith("corpus/") for clip in clips)


def test_partial_ljspeech_in_flac_gets_a_validation_list(capsys):
    writer = Writer(suffix=".flac")
    writer.write("LJ/metadata.csv", [f"LJ001-000{i}|Text {i}." for i in range(6)])
    for i in range(6):
        record(Path(f"LJ/wavs/LJ001-000{i}.flac"))
    make_filelists.main(["ljspeech", "LJ"])
    said = capsys.readouterr().out
    assert "None of the clips is in VITS's validation set: 1 val and 1 test clips are drawn at random" in said
    lists = {path.name.split("_")[3]: read_filelist(path) for path in Path("filelists").glob("*.txt")}
    assert {split: len(clips) for split, clips in lists.items()} == {"train": 4, "val": 1, "test": 1}
    assert all(Path(clip.path).is_file() for clips in lists.values() for clip in clips)


def test_the_byte_order_mark_is_not_part_of_the_first_name():
    record(Path("corpus/a.wav"))
    Path("corpus/metadata.csv").write_bytes(codecs.BOM_UTF8 + b"file_name,text\r\na.wav,x\r\n")
    name, layout = recognize(Files(Path("corpus")))
    assert name == "audiofolder" and [entry.recording for entry in layout.entries()] == ["a.wav"]
