"""Tests of cleaning filelists."""

from collections import Counter

import pytest

import preprocess
from corpora import shards
from corpora.filelist import ListRecord, read_record, write_record
from text import clean_text


def write(path, content):
    path.write_bytes(content.encode("utf-8"))
    return path


def test_the_command_line_of_vits_cleans_the_given_column(tmp_path):
    one = write(tmp_path / "one.txt", "a.wav|Hello, Dr. Who.\nb.wav|It is 1.5 x.\n")
    two = write(tmp_path / "two.txt", "c.wav|Fine!\n")
    options = ["--text_cleaners", "english_cleaners2", "--out_extension", "cleaned"]
    preprocess.main(["--text_index", "1", "--filelists", str(one), str(two), *options])
    said = [("a.wav", "Hello, Dr. Who."), ("b.wav", "It is 1.5 x."), ("c.wav", "Fine!")]
    lines = [f"{wav}|{clean_text(text, ['english_cleaners2'])}" for wav, text in said]
    assert (tmp_path / "one.txt.cleaned").read_text("utf-8") == f"{lines[0]}\n{lines[1]}\n"
    assert (tmp_path / "two.txt.cleaned").read_text("utf-8") == f"{lines[2]}\n"
    endings = ("", ".cleaned", ".cleaned.json")
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        f"{name}.txt{end}" for name in ("one", "two") for end in endings
    ]
    assert read_record(tmp_path / "one.txt.cleaned") == ListRecord(("english_cleaners2",), None, {}, {})
    assert read_record(tmp_path / "one.txt") is None


def test_speaker_column_line_ends_byte_order_mark_and_blank_lines(tmp_path):
    path = write(tmp_path / "f", "\ufeffa.wav|7|ONE\r\n\r\nb.wav|8|Two\r\n")
    preprocess.clean_filelist(path, 2, ["basic_cleaners"], "done")
    assert (tmp_path / "f.done").read_bytes() == b"a.wav|7|one\nb.wav|8|two\n"


def test_the_last_column_is_the_text_by_default(tmp_path):
    path = write(tmp_path / "f", "a.wav|ANNA|ONE\n")
    preprocess.main(["--filelists", str(path), "--text_cleaners", "basic_cleaners"])
    assert (tmp_path / "f.cleaned").read_text() == "a.wav|ANNA|one\n"


def test_unknown_symbols_are_counted_and_reported(tmp_path, capsys):
    path = write(tmp_path / "f", "a.wav|(One)\nb.wav|two (2)\n")
    assert preprocess.clean_filelist(path, 1, ["basic_cleaners"]) == Counter({"(": 2, ")": 2, "2": 1})
    preprocess.main(["--filelists", str(path), "--text_cleaners", "basic_cleaners"])
    assert "'(' (U+0028) 2 times" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "text_index", "message"),
    [
        ("a.wav|one|two\nb.wav|one\nc.wav|two\n", 1, r"f, line 1: 3 columns where most lines have 2; a text must not"),
        ("a.wav|one\n\nb.wav|\n", 1, r"f, line 3: the text, column 1, is empty"),
        ("a.wav|one\n", 2, r"f: the text index is 2; it may be from 1, because column 0 has the paths, to 1"),
        ("a.wav|one\n", 0, r"f: the text index is 0"),
        ("a.wav\n", 1, r"f has one column; expected path\|text"),
        ("a.wav|one\n", -1, r"f: the text index is -1"),
        ("a.wav|one\nb.wav|- -\n", 1, r"f, line 2: english_cleaners2 leave nothing of '- -'"),
        ("\n \n", 1, r"f has no lines"),
    ],
)
def test_errors_name_file_and_line_and_write_nothing(tmp_path, content, text_index, message):
    path = write(tmp_path / "f", content)
    with pytest.raises(ValueError, match=message):
        preprocess.clean_filelist(path, text_index, ["english_cleaners2"])
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


@pytest.mark.parametrize(
    ("name", "cleaner", "message"),
    [
        ("none", "basic_cleaners", "cannot read none: No such file"),
        ("latin", "basic_cleaners", "latin: not UTF-8"),
        ("none", "basic_cleaner", "nearest: basic_cleaners"),
    ],
)
def test_user_errors_take_one_line(tmp_path, monkeypatch, capsys, name, cleaner, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "latin").write_bytes(b"a.wav|caf\xe9\n")
    with pytest.raises(SystemExit, match="2"):
        preprocess.main(["--filelists", name, "--text_cleaners", cleaner])
    error = capsys.readouterr().err
    assert error.startswith("preprocess: ") and message in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--jobs", "0", "0 jobs were requested; the number of processes must be 1 or more"),
        ("--out-extension", "", "the output extension is ''; it is appended"),
        ("--text-index", "0", "column 0 has the paths"),
    ],
)
def test_options_out_of_range_are_refused(tmp_path, capsys, option, value, message):
    path = write(tmp_path / "f", "a.wav|one\n")
    with pytest.raises(SystemExit, match="2"):
        preprocess.main(["--filelists", str(path), "--text_cleaners", "basic_cleaners", option, value])
    assert message in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


@pytest.mark.parametrize("content", ["{}", "[]", "no JSON", '{"text_cleaners": 3, "sampling_rate": 1}'])
def test_a_malformed_record_is_named(tmp_path, content):
    write(tmp_path / "f.cleaned.json", content)
    with pytest.raises(ValueError, match=r"f\.cleaned\.json is not a record of a filelist"):
        read_record(tmp_path / "f.cleaned")


def test_the_number_of_processes_does_not_change_the_file(tmp_path, monkeypatch):
    path = write(tmp_path / "f", "".join(f"{i}.wav|The dog saw {i} cats, or {i}.5 cats.\n" for i in range(60)))
    preprocess.clean_filelist(path, 1, ["english_cleaners2"], "one", jobs=1)
    monkeypatch.setattr(preprocess, "LINES_PER_PROCESS", 30)
    monkeypatch.setattr(preprocess, "LINES_PER_TASK", 7)
    preprocess.clean_filelist(path, 1, ["english_cleaners2"], "two", jobs=2)
    assert (tmp_path / "f.one").read_bytes() == (tmp_path / "f.two").read_bytes()


def test_a_cleaner_that_keeps_bars_adds_no_columns(tmp_path, monkeypatch):
    monkeypatch.setattr(preprocess, "clean_text", lambda text, names, _: f"{text}|x")
    path = write(tmp_path / "f", "a.wav|one\n")
    preprocess.clean_filelist(path, 1, ["basic_cleaners"])
    assert (tmp_path / "f.cleaned").read_text() == "a.wav|one x\n"


def clean(path, *arguments):
    preprocess.main(["--filelists", str(path), "--text_cleaners", "basic_cleaners", *arguments])


def test_parts_are_cleaned_separately_and_joined(tmp_path, capsys):
    path = write(tmp_path / "f", "".join(f"{i}.wav|Text {i}.\n\n" for i in range(8)))
    clean(path, "--out-extension", "whole")
    for i in (3, 1, 2):
        clean(path, "--shard", f"{i}/3")
    assert (tmp_path / "f.cleaned.2-of-3").read_text() == "".join(f"{i}.wav|text {i}.\n" for i in (2, 3, 4))
    clean(path, "--merge")
    assert (tmp_path / "f.cleaned").read_bytes() == (tmp_path / "f.whole").read_bytes()
    assert read_record(tmp_path / "f.cleaned") == read_record(tmp_path / "f.whole")
    assert sorted(file.name for file in tmp_path.glob("f.cleaned*")) == ["f.cleaned", "f.cleaned.json"]
    with pytest.raises(SystemExit, match="2"):
        clean(path, "--shard", "4/3")
    assert "argument --shard: '4/3' is no part I/N, such as 2/8" in capsys.readouterr().err


def test_parts_that_do_not_fit_are_not_joined(tmp_path, capsys):
    path = write(tmp_path / "f", "a.wav|A\nb.wav|B\n")

    def refused():
        with pytest.raises(SystemExit, match="2"):
            clean(path, "--merge")
        assert not (tmp_path / "f.cleaned").exists()
        return capsys.readouterr().err

    assert "f.cleaned: parts 1 are missing; found: none" in refused()
    clean(path, "--shard", "2/2")
    assert "parts 1 are missing; found: f.cleaned.2-of-2" in refused()
    preprocess.main(["--filelists", str(path), "--text_cleaners", "transliteration_cleaners", "--shard", "1/2"])
    assert "its parts were cleaned with different cleaners" in refused()
    clean(path, "--shard", "1/2")
    clean(path, "--shard", "1/3")
    assert "parts 2, 3 are missing" in refused()
    (tmp_path / "f.cleaned.1-of-3").unlink()
    write(path, "a.wav|A\nb.wav|B\nc.wav|C\n")
    assert "its parts have 2 lines, and" in refused()


def test_the_texts_of_shards_are_cleaned(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a.wav", "sound")
    shards.main([str(write(tmp_path / "f", "a.wav|One\n")), "--out", "packed"])
    clean(write(tmp_path / "list", "packed/f-000000.tar\n"))
    assert (tmp_path / "list.cleaned").read_text() == "packed/f-000000.tar/512+5/00000000_a.wav|one\n"


def test_cleaned_lists_and_columns_of_speakers_are_not_cleaned(tmp_path, capsys):
    path = write(tmp_path / "f", "a.wav|anna|A\n")
    clean(path)
    for arguments, message in (
        ([f"{path}.cleaned"], "f.cleaned is cleaned already, with basic_cleaners"),
        ([path, "--text_index", "1"], "column 1 of 3 is the speaker"),
    ):
        with pytest.raises(SystemExit, match="2"):
            clean(*arguments)
        assert message in capsys.readouterr().err


def test_a_list_that_is_cleaned_again_keeps_what_is_known_of_its_recordings(tmp_path):
    path = write(tmp_path / "f", "a.wav|A\n")
    write_record(f"{path}.cleaned", ListRecord(("phonemes_de",), 16000, {"no text": 2}))
    clean(path)
    assert read_record(f"{path}.cleaned") == ListRecord(("basic_cleaners",), 16000, {"no text": 2}, {})


def test_the_words_of_a_dictionary_are_replaced(tmp_path):
    (tmp_path / "list").write_text("a.wav|Ask nginx.\n", encoding="utf-8")
    (tmp_path / "words").write_text("nginx [[ˈɛndʒɪn]]\n", encoding="utf-8")
    preprocess.main(["--filelists", str(tmp_path / "list"), "--dictionary", str(tmp_path / "words")])
    assert (tmp_path / "list.cleaned").read_text("utf-8") == "a.wav|ˈæsk ˈɛndʒɪn.\n"
    assert read_record(tmp_path / "list.cleaned").dictionary == {"nginx": "[[ˈɛndʒɪn]]"}


def test_texts_in_a_script_that_the_cleaner_spells_are_named(tmp_path, capsys):
    (tmp_path / "list").write_text("a.wav|hello\nb.wav|hello 你好\n", encoding="utf-8")
    preprocess.main(["--filelists", str(tmp_path / "list"), "--text-cleaners", "phonemes_en-us"])
    assert "1 texts have words in a script that phonemes_en-us would spell letter by letter: text 2 ('你好')" in (
        capsys.readouterr().out
    )
