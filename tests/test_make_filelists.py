"""Tests of the filelists that are written for corpora."""

import hashlib
import json
import unicodedata
from functools import partial
from pathlib import Path

import pytest
import soundfile
import tiny
import tiny_voices

import config
import corpus
import make_filelists
from corpora.filelist import read_filelist
from make_filelists import FACTS, Clip

# SHA-256 of the sorted names in the filelists of VITS, one per line; of speakers as "p225 101".
LJSPEECH = {
    "val": "db6d2331f6933b6cec173a65aa002baf0483749dfc65c1f633af1fd53826dd3a",
    "test": "ee02699f7ecb483d4683d76ccb6661c62362094fca29a6cb17dc4299536df153",
}
VCTK = {
    "val": "3e1312d9575ee2d2f30d30067478486dad39990522fba6294fbbfaf46bd1f73a",
    "test": "74daf7a7be23d8958f63acb9e3930929802282005ea0760b6ee330729129aa3a",
}
VCTK_SPEAKERS = "39c76999d30e0b29b578792cd5a07e8ea176e3050f4090c6578353ace650b295"


def digest(names):
    return hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()


def named(corpus, separator, splits=("val", "test")):
    facts = json.loads((FACTS / f"{corpus}_splits.json").read_text())
    return [f"{g}{separator}{n}" for s in splits for g, numbers in facts[s].items() for n in numbers.split()]


def touch(path, content=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def make_ljspeech(corpus, train):
    """LJ Speech with the clips of val and test by name, and `train` others, numbered from 9000."""
    names = sorted({*named("ljspeech", "-"), *(f"LJ{1 + i % 50:03}-{9000 + i // 50}" for i in range(train))})
    (corpus / "wavs").mkdir(parents=True)
    for name in names:
        (corpus / "wavs" / f"{name}.wav").touch()
    lines = [f'{name}|In 1901 "no"|In nineteen-oh-one "no {name}' for name in names]
    touch(corpus / "metadata.csv", "\n".join(lines) + "\n")
    return corpus


def test_ljspeech_gets_the_splits_of_vits(tmp_path, capsys):
    lj = make_ljspeech(tmp_path / "LJSpeech-1.1", train=12500)
    make_filelists.main(["ljspeech", str(lj)])
    said = capsys.readouterr().out
    assert "Left out" not in said and "where the corpus" not in said
    for split, count in (("train", 12500), ("val", 100), ("test", 500)):
        lines = (tmp_path / f"filelists/ljs_audio_text_{split}_filelist.txt").read_text("utf-8").splitlines()
        names = [line.split("|")[0].removeprefix("DUMMY1/").removesuffix(".wav") for line in lines]
        assert len(set(names)) == count
        assert split == "train" or digest(names) == LJSPEECH[split]
        assert lines[0] == f'DUMMY1/{names[0]}.wav|In nineteen-oh-one "no {names[0]}'
    assert (tmp_path / "DUMMY1").resolve() == lj / "wavs"


def test_ljspeech_reports_missing_recordings(tmp_path, capsys):
    lj = make_ljspeech(tmp_path / "LJSpeech-1.1", train=10)
    (lj / "wavs" / "LJ001-0110.wav").unlink()
    assert len(make_filelists.ljspeech(lj)["val"]) == 99
    said = capsys.readouterr().out
    assert "Left out, no recording: 1 clips (LJ001-0110)" in said
    assert "val: 99 clips, where the corpus of VITS has 100" in said
    assert "train: 10 clips, where the corpus of VITS has 12500" in said


@pytest.fixture(params=["downsampled_wavs", "wav48", "wav48_silence_trimmed"])
def audio(request, tmp_path):
    """VCTK with the clips of val and test, one more for each speaker, and a speaker that VITS does not number."""
    trimmed = request.param == "wav48_silence_trimmed"
    speakers = " ".join(json.loads((FACTS / "vctk_splits.json").read_text())["speakers"]).split()
    names = {*named("vctk", "_"), *(f"{speaker}_999" for speaker in [*speakers, "s5"])}
    for name in names:
        speaker = name.split("_")[0]
        touch(tmp_path / f"VCTK/txt/{speaker}/{name}.txt", f"Please call\n {name}. \n")
        for suffix in ("_mic1.flac", "_mic2.flac") if trimmed else (".wav",):
            touch(tmp_path / f"VCTK/{request.param}/{speaker}/{name}{suffix}")
    touch(tmp_path / f"VCTK/{request.param}/p315/p315_001{'_mic1.flac' if trimmed else '.wav'}")  # without a text
    return tmp_path / "VCTK" / request.param


def test_vctk_gets_the_splits_and_speaker_numbers_of_vits(audio, tmp_path, capsys):
    make_filelists.main(["vctk", str(audio.parent), "--clean", "basic_cleaners"])
    data = config.load("filelists/vctk_config.json").data
    assert (data.n_speakers, data.speakers) == (109, {})
    said = capsys.readouterr().out
    assert "Left out, speaker has no number in VITS: 1 clips (s5_999)" in said
    assert "train: 108 clips, where the corpus of VITS has 43470" in said
    numbers = set()
    for split, count in (("train", 108), ("val", 100), ("test", 500)):
        path = tmp_path / f"filelists/vctk_audio_sid_text_{split}_filelist.txt"
        rows = [line.split("|") for line in path.read_text("utf-8").splitlines()]
        ending = "_mic1.flac" if audio.name.endswith("trimmed") else ".wav"
        names = [wav.split("/")[-1].removesuffix(ending) for wav, _, _ in rows]
        assert len(set(names)) == count
        assert split == "train" or digest(names) == VCTK[split]
        assert all((tmp_path / wav).is_file() for wav, _, _ in rows)
        assert [text for _, _, text in rows] == [f"Please call {name}." for name in names]
        numbers |= {(name.split("_")[0], sid) for name, (_, sid, _) in zip(names, rows)}
    assert digest(f"{speaker} {sid}" for speaker, sid in numbers) == VCTK_SPEAKERS
    assert (tmp_path / "DUMMY2").resolve() == audio


def test_clean_writes_the_copies_for_training(tmp_path, capsys):
    for name in "abc":
        touch(tmp_path / f"voice/wavs/{name}.wav")
    touch(tmp_path / "voice/metadata.csv", "a|7|A B\nb|8|B\nc|8|C\n")
    make_filelists.main(
        ["folder", "voice", "--columns", "id,speaker,text", "--val", "1", "--test", "1", "--clean", "basic_cleaners"]
    )
    lists = sorted(path.name for path in (tmp_path / "filelists").glob("*.cleaned"))
    assert lists == [f"voice_audio_sid_text_{split}_filelist.txt.cleaned" for split in ("test", "train", "val")]
    rows = sorted("".join((tmp_path / "filelists" / name).read_text() for name in lists).splitlines())
    assert rows == ["voice/wavs/a.wav|7|a b", "voice/wavs/b.wav|8|b", "voice/wavs/c.wav|8|c"]
    assert "earlier list" not in capsys.readouterr().out
    make_filelists.main(["folder", "voice", "--columns", "id,speaker,text", "--val", "1", "--test", "1"])
    said = capsys.readouterr().out
    assert all(f"{Path('filelists') / name} belongs to an earlier list" in said for name in lists)


def test_the_words_of_a_dictionary_are_replaced_and_kept_in_the_config(tmp_path, capsys):
    for name in "abc":
        touch(tmp_path / f"voice/wavs/{name}.wav")
    touch(tmp_path / "voice/metadata.csv", "a|SQL\nb|SQL\nc|SQL\n")
    (tmp_path / "words.txt").write_text("SQL sequel\n", "utf-8")
    command = ["folder", "voice", "--val", "1", "--test", "1"]
    for given in (["--dictionary", "words.txt"], []):  # without the option, the words are those of the config
        make_filelists.main([*command, "--clean", "basic_cleaners", *given])
        data = config.load("filelists/voice_config.json").data
        assert data.dictionary == {"SQL": "sequel"}
        assert Path(data.training_files).read_text("utf-8").endswith("|sequel\n")
        corpus.check_records(data)
    capsys.readouterr()
    with pytest.raises(SystemExit):
        make_filelists.main([*command, "--dictionary", "words.txt"])
    assert "--dictionary has no effect without --clean" in capsys.readouterr().err


def test_folder_splits_at_random_and_reproducibly(tmp_path):
    lines = []
    for i in range(60):
        touch(tmp_path / f"voice/wavs/{i}.flac")
        lines.append(f'{i}.flac|raw {i}|"normalised {i}')
    touch(tmp_path / "voice/metadata.csv", "\n".join(lines))
    splits = make_filelists.folder(tmp_path / "voice")
    assert {split: len(clips) for split, clips in splits.items()} == {"train": 54, "val": 3, "test": 3}
    assert splits == make_filelists.folder(tmp_path / "voice")
    assert splits["val"] != make_filelists.folder(tmp_path / "voice", seed=1)["val"]
    clips = [clip for part in splits.values() for clip in part]
    assert sorted(clip.text for clip in clips) == sorted(f'"normalised {i}' for i in range(60))


def test_folder_with_a_text_for_each_recording(tmp_path, capsys):
    for name in ("anna/1", "anna/2", "ben/3", "ben/4"):
        touch(tmp_path / f"voice/{name}.wav")
        touch(tmp_path / f"voice/{name}.txt", f"\ufeffText of\r\n{name} | \n" if name != "ben/4" else "")
    splits = make_filelists.folder(tmp_path / "voice", speaker_folders=True, val=1, test=0)
    clips = sorted(clip for part in splits.values() for clip in part)
    where = tmp_path / "voice"
    assert clips == [
        Clip(str(where / "anna/1.wav"), "anna", "Text of anna/1"),
        Clip(str(where / "anna/2.wav"), "anna", "Text of anna/2"),
        Clip(str(where / "ben/3.wav"), "ben", "Text of ben/3"),
    ]
    assert "Left out, no text: 1 clips (4.wav)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ("a,x\nb,y\n", r"metadata.csv has one column, as in 'a,x': separate id and text by \|"),
        ("a|x|y|z\nb|x|y|z\n", r"has 4 columns, as in 'a\|x\|y\|z': name them, as in --columns id,speaker,text"),
        ("a|x\nb|x|y\nc|x\n", r"metadata.csv, line 2: 3 columns where most lines have 2"),
        ("a|x\nb|y\n", r"2 clips are too few for 1 val and 1 test clips"),
        (
            "a|A b.|anna\nb|C d.|bo\nc|E f.|bo",
            r"third column \(anna, bo, ...\) looks like speakers.*--columns id,text,speaker",
        ),
        ("a|x\nb\nc|x\n", r"line 2: 1 columns where most lines have 2; a column or its separator is missing"),
        (
            "a|anna|A b.\nb|bo|C d.\nc|bo|E f.",
            r"second column \(anna, bo, ...\) looks like speakers.*--columns id,speaker",
        ),
    ],
)
def test_folder_errors(tmp_path, metadata, message):
    for name in "abc":
        touch(tmp_path / f"voice/{name}.wav")
    touch(tmp_path / "voice/metadata.csv", metadata)
    with pytest.raises(ValueError, match=message):
        make_filelists.folder(tmp_path / "voice")


def refused(capsys, *arguments):
    """Run the program, which must refuse its arguments. Returns the error."""
    with pytest.raises(SystemExit, match="2"):
        make_filelists.main([str(argument) for argument in arguments])
    error = capsys.readouterr().err
    assert error.startswith("make_filelists: ") and error.count("\n") == 1
    return error


def test_user_errors_are_found_before_files_are_written(tmp_path, capsys):
    for name in "abc":
        touch(tmp_path / f"voice/{name}.wav")
        touch(tmp_path / f"voice/{name}.txt", name)
    for split in ("val", "test"):
        error = refused(capsys, "folder", "voice", f"--{split}", "-1")
        assert f"-1 {split} clips were requested; the number must be 0 or more" in error
    assert "no_such_cleaner" in refused(capsys, "folder", "voice", "--clean", "no_such_cleaner")
    assert not (tmp_path / "filelists").exists()


def test_a_recording_is_in_one_list_once(tmp_path, capsys):
    for name in "abcd":
        touch(tmp_path / f"voice/{name}.wav")
    touch(tmp_path / "voice/metadata.csv", "".join(f"{name}|{name} says\n" for name in "abcdb"))
    clips = [clip for part in make_filelists.folder(tmp_path / "voice").values() for clip in part]
    assert sorted(clip.text for clip in clips) == ["a says", "b says", "c says", "d says"]
    assert "Left out, recording of an earlier line: 1 clips (b)" in capsys.readouterr().out


@pytest.mark.parametrize("texts", ["metadata", "files"])
@pytest.mark.parametrize("forms", [("NFD", "NFC"), ("NFC", "NFD")])
def test_accents_match_in_both_unicode_forms(texts, forms, tmp_path):
    recording, text = (partial(unicodedata.normalize, form) for form in forms)
    names = [f"grüß{i}" for i in range(3)]
    for name in names:
        touch(tmp_path / "voice" / recording(f"{name}.wav"))
        if texts == "files":
            touch(tmp_path / "voice/texts" / text(f"{name}.txt"), name)
    if texts == "metadata":
        touch(tmp_path / "voice/metadata.csv", "".join(text(f"{name}|{name}\n") for name in names))
    clips = [clip for part in make_filelists.folder(tmp_path / "voice").values() for clip in part]
    assert len(clips) == 3 and all(Path(clip.path).exists() for clip in clips)


def test_folders_distinguish_recordings_of_the_same_name(tmp_path):
    corpus, names = tmp_path / "voice", [f"{who}/{i:03}" for who in ("anna", "bo") for i in range(4)]
    for name in names:
        touch(corpus / f"{name}.ogg")
    for form in ("{}", "{}.ogg", "voice/{}.ogg"):
        touch(corpus / "metadata.csv", "\n".join(f"{form.format(name)}|{name} speaks" for name in names))
        clips = [clip for part in make_filelists.folder(corpus, speaker_folders=True).values() for clip in part]
        expected = [(str(corpus / f"{n}.ogg"), n.split("/")[0], f"{n} speaks") for n in names]
        assert sorted(clip[:3] for clip in clips) == expected
    touch(corpus / "metadata.csv", "000|who?\n001|who?\n002|who?")
    with pytest.raises(ValueError, match=r"csv, line 1: 000 may be .*anna/000.ogg or .*bo/000.ogg: give its path"):
        make_filelists.folder(corpus)


def test_texts_in_sister_folders(tmp_path):
    names = [f"{who}/{{}}/{i:03}" for who in ("anna", "bo") for i in range(2)]
    for name in names:
        touch(tmp_path / "voice" / f"{name.format('wav')}.ogg")
        touch(tmp_path / "voice" / f"{name.format('txt')}.txt", name.format("says"))
    clips = [clip for part in make_filelists.folder(tmp_path / "voice").values() for clip in part]
    assert sorted(c.text for c in clips) == sorted(name.format("says") for name in names)
    assert all(clip.text.split("/")[0] in clip.path for clip in clips)
    touch(tmp_path / "voice/bo/txt/000.txt", "")
    (tmp_path / "voice/anna/txt").rename(tmp_path / "voice/texts")
    with pytest.raises(ValueError, match=r"the text of .*anna/wav/000.ogg may be .*put the file beside"):
        make_filelists.folder(tmp_path / "voice")


def test_given_columns_are_not_questioned(tmp_path):
    for name in "abc":
        touch(tmp_path / f"voice/{name}.wav")
    touch(tmp_path / "voice/metadata.csv", "a|anna|A b.\nb|bo|C d.\nc|bo|E f.")
    for columns in (("id", "text", "normalised"), ["id", "text", "normalised"]):
        clips = make_filelists.folder(tmp_path / "voice", columns, val=1, test=1)
        assert sorted(clip.text for part in clips.values() for clip in part) == ["A b.", "C d.", "E f."]


def test_folders_of_another_layout_are_refused(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    for kind, message in (
        ("ljspeech", "metadata.csv: No such file"),
        ("vctk", "is not VCTK: it needs a folder txt"),
        ("folder", "has no recordings"),
    ):
        assert message in refused(capsys, kind, tmp_path / "empty")
    touch(tmp_path / "archive.zip")
    assert "no such folder" in refused(capsys, "folder", tmp_path / "missing")
    assert "is a file, not a folder: unpack" in refused(capsys, "folder", tmp_path / "archive.zip")


def test_link_keeps_existing_folders_and_replaces_a_broken_link(tmp_path, capsys):
    (tmp_path / "corpus").mkdir()
    (tmp_path / "DUMMY1").mkdir()
    make_filelists.link(tmp_path / "corpus", tmp_path / "DUMMY1")
    assert "is kept, although it is not" in capsys.readouterr().out
    assert not (tmp_path / "DUMMY1").is_symlink()
    (tmp_path / "DUMMY2").symlink_to(tmp_path / "gone")
    make_filelists.link(tmp_path / "corpus", tmp_path / "DUMMY2")
    assert (tmp_path / "DUMMY2").samefile(tmp_path / "corpus")


def test_lists_of_single_speakers_are_merged(tmp_path, capsys):
    """The speakers are numbered as they are given, and clips of one with little speech occur several times."""
    for name, start in (("ben", "ben/"), ("anna", "anna_audio_text_")):
        for split in ("train", "val"):
            touch(tmp_path / f"{start}{split}{'.txt' if name == 'ben' else '_filelist.txt'}", f"{name}.wav|Text.\n")
    command = ["merge", "--name", "two", "--speaker", "ben=ben", "--speaker", "anna=anna", "--repeat", "anna=2"]
    make_filelists.main([*command, "--clean", "basic_cleaners"])
    train = Path("filelists/two_audio_sid_text_train_filelist.txt").read_text("utf-8")
    assert train == "ben.wav|ben|Text.\n" + 2 * "anna.wav|anna|Text.\n"
    assert config.load("filelists/two_config.json").data.speakers == {"ben": 0, "anna": 1}
    wrong = {
        ("--repeat", "eva=2"): "there is no speaker 'eva' to repeat; the speakers are ben, anna",
        ("--repeat", "anna=0"): "anna is repeated 0 times",
        (
            "--speaker",
            "eva=nowhere",
        ): "eva has no training list: there is no file nowhere_audio_text_train_filelist.txt",
        ("--speaker", "ben=anna"): "two of the speakers have one name",
        ("--speaker", "ben"): "'ben' is not NAME=VALUE",
    }
    for more, message in wrong.items():
        with pytest.raises(SystemExit, match="2"):
            make_filelists.main([*command, *more])
        assert message in capsys.readouterr().err


@pytest.mark.parametrize("given", [None, "anna"])
def test_a_config_to_train_on_from_a_voice_has_its_network_and_one_more_speaker(given, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    several = tiny_voices.settings(speakers={"lj": 0, "anna": 1}, data={"default_speaker": "lj"})
    tiny_voices.save(Path("voice"), several, with_config=False)
    Path("my/wavs").mkdir(parents=True)
    rows = []
    for i in range(4):
        soundfile.write(f"my/wavs/{i}.wav", tiny.speech(0.5, i), tiny.RATE)
        rows.append(f"{i}|{given}|Hello {i}." if given else f"{i}|Hello {i}.")
    Path("my/metadata.csv").write_text("\n".join(rows), "utf-8")
    columns = ["--columns", "id,speaker,text"] if given else []
    Path("words.txt").write_text("Hello hallo\n", "utf-8")
    make_filelists.main(["folder", "my", "--voice", "voice", "--dictionary", "words.txt", *columns])
    made = config.load("filelists/my_config.json")
    new = {} if given else {"my": 2}
    assert made.model == several.model and made.data.speakers == {"lj": 0, "anna": 1} | new
    assert made.data.n_speakers == 2 + len(new) and made.data.default_speaker == next(iter(new), "lj")
    assert made.data.sampling_rate == 8000 and made.data.text_cleaners == ["basic_cleaners"]
    clips = read_filelist(made.data.training_files)
    assert {clip.speaker for clip in clips} == {given or "my"} and made.data.dictionary == {"Hello": "hallo"}
    assert all(clip.text.startswith("hallo") for clip in clips)
    assert "--init-from voice" in capsys.readouterr().out


def test_a_config_to_train_on_from_a_voice_of_one_speaker(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    single = tiny_voices.settings()
    tiny_voices.save(Path("voice"), single, with_config=False)
    Path("my").mkdir()
    for i in range(4):
        soundfile.write(f"my/{i}.wav", tiny.speech(0.5, i), tiny.RATE)
        Path(f"my/{i}.txt").write_text("Hello.", "utf-8")
    make_filelists.main(["folder", "my", "--voice", "voice"])
    made = config.load("filelists/my_config.json")
    assert made.model == single.model and not made.data.n_speakers and not made.data.speakers


def test_a_voice_without_config_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    tiny_voices.save(Path("voice"), tiny_voices.settings())
    with pytest.raises(SystemExit, match="2"):
        make_filelists.main(["folder", "my", "--voice", "voice"])
    assert "voice has no config.json" in capsys.readouterr().err
