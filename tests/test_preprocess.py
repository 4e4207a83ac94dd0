from collections import Counter

import pytest

import preprocess
from text import clean_text


def write(path, content):
    path.write_bytes(content.encode("utf-8"))
    return path


def test_the_command_of_vits_cleans_the_named_column(tmp_path):
    one = write(tmp_path / "one.txt", "a.wav|Hello, Dr. Who.\nb.wav|It is 1.5 x.\n")
    two = write(tmp_path / "two.txt", "c.wav|Fine!\n")
    options = ["--text_cleaners", "english_cleaners2", "--out_extension", "cleaned"]
    preprocess.main(["--text_index", "1", "--filelists", str(one), str(two), *options])
    said = [("a.wav", "Hello, Dr. Who."), ("b.wav", "It is 1.5 x."), ("c.wav", "Fine!")]
    lines = [f"{wav}|{clean_text(text, ['english_cleaners2'])}" for wav, text in said]
    assert (tmp_path / "one.txt.cleaned").read_text("utf-8") == f"{lines[0]}\n{lines[1]}\n"
    assert (tmp_path / "two.txt.cleaned").read_text("utf-8") == f"{lines[2]}\n"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["one.txt", "one.txt.cleaned", "two.txt", "two.txt.cleaned"]


def test_speaker_column_windows_lines_mark_and_blank_lines(tmp_path):
    path = write(tmp_path / "f", "\ufeffa.wav|7|ONE\r\n\r\nb.wav|8|Two\r\n")
    preprocess.clean_filelist(path, 2, ["basic_cleaners"], "done")
    assert (tmp_path / "f.done").read_bytes() == b"a.wav|7|one\nb.wav|8|two\n"


def test_unknown_symbols_are_counted_and_reported(tmp_path, capsys):
    path = write(tmp_path / "f", "a.wav|(One)\nb.wav|two (2)\n")
    assert preprocess.clean_filelist(path, 1, ["basic_cleaners"]) == Counter({"(": 2, ")": 2, "2": 1})
    preprocess.main(["--filelists", str(path), "--text_cleaners", "basic_cleaners"])
    assert "'(' (U+0028) 2 times" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "text_index", "message"),
    [
        ("a.wav|one|two\nb.wav|one\nc.wav|two\n", 1, r"f:1: 3 columns, where most lines have 2; \"\|\" separates"),
        ("a.wav|one\n\nb.wav|\n", 1, r"f:3: the text, column 1, is empty"),
        ("a.wav|one\n", 2, r"f:1: no column 2"),
        ("a.wav|one\n", -1, r"f:1: no column -1"),
        ("a.wav|one\nb.wav|- -\n", 1, r"f:2: english_cleaners2 leave nothing of '- -'"),
        ("\n \n", 1, r"f has no lines"),
    ],
)
def test_errors_name_file_and_line_and_write_nothing(tmp_path, content, text_index, message):
    path = write(tmp_path / "f", content)
    with pytest.raises(ValueError, match=message):
        preprocess.clean_filelist(path, text_index, ["english_cleaners2"])
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_files_and_cleaners_that_do_not_exist_end_the_command(tmp_path):
    with pytest.raises(SystemExit, match="none is no filelist"):
        preprocess.main(["--filelists", str(tmp_path / "none")])
    (tmp_path / "latin").write_bytes(b"a.wav|caf\xe9\n")
    with pytest.raises(SystemExit, match="latin is no filelist in UTF-8"):
        preprocess.main(["--filelists", str(tmp_path / "latin")])
    with pytest.raises(SystemExit, match="nearest: basic_cleaners"):
        preprocess.main(["--filelists", str(tmp_path / "none"), "--text_cleaners", "basic_cleaner"])


def test_processes_write_the_same_file(tmp_path, monkeypatch):
    path = write(tmp_path / "f", "".join(f"{i}.wav|The dog saw {i} cats, or {i}.5 cats.\n" for i in range(60)))
    preprocess.clean_filelist(path, 1, ["english_cleaners2"], "one", jobs=1)
    monkeypatch.setattr(preprocess, "LINES_A_PROCESS", 30)
    monkeypatch.setattr(preprocess, "LINES_A_TASK", 7)
    preprocess.clean_filelist(path, 1, ["english_cleaners2"], "two", jobs=2)
    assert (tmp_path / "f.one").read_bytes() == (tmp_path / "f.two").read_bytes()


def test_a_cleaner_that_keeps_bars_makes_no_columns(tmp_path, monkeypatch):
    monkeypatch.setattr(preprocess, "clean_text", lambda text, names: f"{text}|x")
    path = write(tmp_path / "f", "a.wav|one\n")
    preprocess.clean_filelist(path, 1, ["basic_cleaners"])
    assert (tmp_path / "f.cleaned").read_text() == "a.wav|one x\n"
