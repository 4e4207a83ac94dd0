"""Tests of filelists, speaker numbers, and the check of recordings and texts."""

import json
import random
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import soxr

import corpus
from corpora import duplicates, sounds
from corpora import filelist as lists
from text import tokens

RATE = 22050


def data(**changes):
    defaults = {
        "text_cleaners": ["basic_cleaners"],
        "sampling_rate": RATE,
        "hop_length": 256,
        "add_blank": False,
        "n_speakers": 0,
        "cleaned_text": True,
    }
    return SimpleNamespace(**(defaults | changes))


def filelist(tmp_path, text, encoding="utf-8", name="list.txt"):
    path = tmp_path / name
    path.write_bytes(text.encode(encoding))
    return path


def voice(seconds=1.0, level=0.3, rate=RATE, seed=0):
    noise = np.random.default_rng(seed).standard_normal(round(seconds * rate)).clip(-3, 3)
    return (level / 3 * noise).astype(np.float32)


def clips_of(tmp_path, recordings, text="hello"):
    """Write recordings (name to samples, or samples and rate) and return them as clips."""
    clips = []
    for number, (name, samples) in enumerate(recordings.items(), 1):
        samples, rate = samples if isinstance(samples, tuple) else (samples, RATE)
        soundfile.write(tmp_path / name, samples, rate, subtype="FLOAT" if name.endswith(".wav") else None)
        clips.append(corpus.Clip(str(tmp_path / name), None, text, number))
    return clips


# --- filelists


def test_two_and_three_columns(tmp_path):
    assert corpus.read_filelist(filelist(tmp_path, "a.wav|Hi there.\nb.wav|Bye.")) == [
        ("a.wav", None, "Hi there.", 1),
        ("b.wav", None, "Bye.", 2),
    ]
    assert corpus.read_filelist(filelist(tmp_path, "a.wav|anna|Hi.\n"))[0] == ("a.wav", "anna", "Hi.", 1)


def test_line_ends_byte_order_mark_and_blank_lines(tmp_path):
    text = "\n a.wav | Grüße\u2028dich \r\n\r\n   \r\nb.wav|ˈɔːsʌm\r\n\n"
    clips = corpus.read_filelist(filelist(tmp_path, text, "utf-8-sig"))
    assert clips == [("a.wav", None, "Grüße\u2028dich", 2), ("b.wav", None, "ˈɔːsʌm", 5)]


def test_recordings_are_found_beside_the_filelist(tmp_path):
    (tmp_path / "wavs").mkdir()
    (tmp_path / "wavs" / "a.wav").touch()
    paths = [clip.path for clip in corpus.read_filelist(filelist(tmp_path, "wavs/a.wav|x\nwavs/b.wav|x"))]
    assert paths == [str(tmp_path / "wavs" / "a.wav"), "wavs/b.wav"]


@pytest.mark.parametrize("speakers", [False, True])
def test_lists_are_read_the_same_in_blocks_as_line_by_line(tmp_path, monkeypatch, speakers):
    draw = random.Random(0)
    monkeypatch.setattr(lists, "BLOCK", 50)
    monkeypatch.setattr(lists, "LINES", 3)
    for _ in range(30):
        rows = [[f"{i}.wav", *([f"v{draw.randrange(3)}"] if speakers else []), "ä\u2028 x"] for i in range(20)]
        padded = ["|".join(column.center(draw.randrange(12)) for column in row) for row in rows]
        text = "".join(line + draw.choice(["\n", "\r\n", "\n \n\n"]) for line in padded)
        path = filelist(tmp_path, text.rstrip(draw.choice(["\n", ""])), draw.choice(["utf-8", "utf-8-sig"]))
        plain, parsed = lists.Filelist(path), lists.Filelist(path, str)
        assert plain.plain and not parsed.plain and plain.speakers == parsed.speakers
        assert list(plain) == list(parsed) == [plain[i] for i in range(20)] == [parsed[i] for i in range(20)]


@pytest.mark.parametrize(
    "text, complaint",
    [
        ("a.wav|x\nb.wav|x|y\nc.wav|z", r"list\.txt, line 2: 3 columns where most lines have 2.*must not contain \|"),
        ("a.wav|0|x\n\nb.wav|0|x|y\nc.wav|0|z", r"list\.txt, line 3: 4 columns"),
        ("a.wav|0|x\nb.wav|x\nc.wav|0|x", r"list\.txt, line 2: 2 columns where most lines have 3"),
        ("a.wav x", r"list\.txt, line 1: 1 columns; expected path\|text"),
        ("a.wav|x\n|y", r"list\.txt, line 2: the path is empty"),
        ("a.wav|x\n" + "a" * 5000 + "|y", r"list\.txt, line 2: the path has 5000 bytes; the most is 4096$"),
        ("\n \n", r"list\.txt has no lines"),
    ],
)
def test_errors_name_the_line(tmp_path, text, complaint):
    with pytest.raises(ValueError, match=complaint):
        corpus.read_filelist(filelist(tmp_path, text))


def test_errors_name_the_unreadable_filelist(tmp_path):
    with pytest.raises(ValueError, match=r"none\.txt: No such file"):
        corpus.read_filelist(tmp_path / "none.txt")
    with pytest.raises(ValueError, match=r"list\.txt: not UTF-8"):
        corpus.read_filelist(filelist(tmp_path, "a.wav|Grüße", "latin-1"))
    for encoding, named in (("latin-1", "CP1252"), ("utf-16", "UTF-16"), ("utf-16-le", "UTF-16LE")):
        with pytest.raises(ValueError, match=rf"list\.txt: not UTF-8 but probably .*iconv -f {named} -t UTF-8"):
            corpus.read_filelist(filelist(tmp_path, "a.wav|Grüße", encoding))


# --- speakers


def spoken_by(*labels):
    return [corpus.Clip(f"{i}.wav", label, "x", i) for i, label in enumerate(labels, 1)]


def test_speaker_numbers_are_kept_and_names_are_numbered():
    assert corpus.speaker_table([spoken_by("7", "2", "7")], 8) == {"2": 2, "7": 7}
    assert corpus.speaker_table([spoken_by("p9", "p10", "anna"), spoken_by("p9")], 3) == {"anna": 0, "p10": 1, "p9": 2}
    assert corpus.speaker_table([spoken_by(None, None), spoken_by(None)], 0) == {}
    assert corpus.speaker_table([spoken_by("anna", "anna")], 0) == {}  # a single speaker with a name


@pytest.mark.parametrize(
    "lists, n_speakers, complaint",
    [
        ([spoken_by("0", "3")], 3, r"line 2 \(.*\): speaker '3' has id 3: data.n_speakers, now 3, must be 4"),
        ([spoken_by("a", "b", "c")], 2, "must be 3 or more"),
        ([spoken_by("0", "anna")], 9, r"line 2 \(2\.wav\): speaker 'anna' is a name"),
        ([spoken_by("anna"), spoken_by("anna", "bob")], 9, r"line 2 \(2\.wav\): speaker 'bob' is not in the training"),
        ([spoken_by("0"), spoken_by("1")], 9, "'1' is not in the training"),
        ([spoken_by(None)], 2, r"n_speakers is 2, but 1\.wav has no speaker"),
        ([spoken_by("0"), spoken_by(None)], 2, "has no speaker"),
        ([spoken_by("0", "1")], 0, "2 speakers: set data.n_speakers"),
    ],
)
def test_wrong_speakers_are_refused(lists, n_speakers, complaint):
    with pytest.raises(ValueError, match=complaint):
        corpus.speaker_table(lists, n_speakers)


def test_speaker_ids_come_from_the_table_or_are_numbers():
    named = data(n_speakers=5, speakers={"anna": 4, "bob": 0})
    assert corpus.speaker_ids(spoken_by("bob", "anna"), named) == [0, 4]
    assert corpus.speaker_ids(spoken_by("3", "0"), data(n_speakers=5)) == [3, 0]
    assert corpus.speaker_ids(spoken_by(None), data()) is None
    with pytest.raises(ValueError, match=r"line 2 \(2\.wav\): speaker 'eve' has no id below 5.*anna, bob"):
        corpus.speaker_ids(spoken_by("bob", "eve"), named)
    with pytest.raises(ValueError, match=r"speaker 'bob' has no id below 4"):
        corpus.speaker_ids(spoken_by("bob"), data(n_speakers=4, speakers={"bob": 4}))
    with pytest.raises(ValueError, match=r"data\.speakers is empty"):
        corpus.speaker_ids(spoken_by("anna"), data(n_speakers=5))


# --- tokens


def test_token_ids_of_cleaned_and_uncleaned_lists_with_and_without_blanks():
    plain = tokens.token_ids("hi you", data())
    assert len(plain) == 6 and 0 not in plain
    assert tokens.cleaned("HI  You", data(cleaned_text=False)) == "hi you"
    assert tokens.cleaned("HI  You", data()) == "HI  You"
    assert tokens.token_ids("hi you", data(add_blank=True)) == [0, *[t for i in plain for t in (i, 0)]]


# --- the check


def test_a_good_corpus_has_nothing_to_report(tmp_path):
    recordings = {"a.wav": voice(), "b.flac": voice(2, seed=1), "c.ogg": voice(3, seed=2), "d.wav": (voice(), 16000)}
    clips = clips_of(tmp_path, recordings)
    report = corpus.check_corpus(clips, data())
    assert (report.errors, report.warnings) == ({}, {})
    assert report.frames == [86, 172, 258, 22050 * 22050 // 16000 // 256]
    assert "4 recordings" in str(report)
    report.stop_on_errors()


def test_errors_name_every_unusable_recording(tmp_path):
    bad = voice()
    bad[100] = np.nan
    clips = clips_of(
        tmp_path,
        {
            "good.wav": voice(),
            "nan.wav": bad,
            "silent.wav": np.zeros(RATE),
            "no_samples.wav": np.zeros(0),
            "cut.wav": voice(),
            "cut.flac": voice(),
            "cut.ogg": voice(3),
            "short.wav": voice(0.04),
            "slow.wav": (voice(), 16000),
            "constant.wav": np.full(RATE, 0.3),
            "integers.wav": 32768 * voice(),
        },
    )
    for name in ("cut.wav", "cut.flac", "cut.ogg"):
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content[: len(content) // 2])
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.wav").write_text("hello")
    clips += [corpus.Clip(str(tmp_path / name), None, "x", 0) for name in ("empty.wav", "text.wav", "none.wav")]
    report = corpus.check_corpus(clips, data(resample=False))
    named = {reason: {name.split(": ")[0] for name in names} for reason, names in report.errors.items()}
    expected = {
        "no such file": ["none.wav"],
        "empty file": ["empty.wav"],
        "no samples": ["no_samples.wav"],
        "truncated": ["cut.wav", "cut.ogg"],
        "cannot be decoded": ["cut.flac", "text.wav"],
        "silent": ["silent.wav"],
        "NaN or infinite samples": ["nan.wav"],
        "constant level": ["constant.wav"],
        "float samples in the scale of integers": ["integers.wav"],
        "other sampling rate, with data.resample false": ["slow.wav"],
        "more tokens than frames": ["short.wav"],
    }
    assert named == {reason: {str(tmp_path / name) for name in names} for reason, names in expected.items()}
    assert report.errors["more tokens than frames"][0].endswith("5 tokens, 3 frames")
    assert report.errors["other sampling rate, with data.resample false"][0].endswith("16000 Hz instead of 22050 Hz")
    with pytest.raises(ValueError, match="repair the recordings"):
        report.stop_on_errors()
    assert all(str(tmp_path / name) in str(report) for names in expected.values() for name in names)


def test_blanks_count_as_tokens(tmp_path):
    clips = clips_of(tmp_path, {"short.wav": voice(0.1)})  # 8 frames
    assert not corpus.check_corpus(clips, data()).errors
    assert "more tokens than frames" in corpus.check_corpus(clips, data(add_blank=True)).errors


def test_warnings_name_the_worst_recording_first(tmp_path):
    pause = np.zeros(RATE)
    clips = clips_of(
        tmp_path,
        {
            **{f"{i}.wav": voice(1 + i / 50, seed=i) for i in range(12)},
            "late.wav": np.concatenate([pause, voice(seed=20)]),
            "early.wav": np.concatenate([voice(seed=21), pause, pause]),
            "earlier.wav": np.concatenate([voice(seed=22), pause]),
            "quiet.wav": voice(level=0.01, seed=23),
            "clipped.wav": np.clip(5 * voice(seed=24), -1, 1),
            "slow.wav": voice(9, seed=25),
            "offset.wav": voice(1.01, seed=26) + 0.05,
            "again.wav": voice(1.02, seed=1),
            "crowded.wav": voice(1.03, seed=27),
        },
    )
    clips[-2] = clips[-2]._replace(text="howdy")
    clips[-1] = clips[-1]._replace(text="hello world")
    report = corpus.check_corpus(clips, data(max_text_len=10), longest=300)
    named = {
        reason: [name.split(": ")[0].removeprefix(f"{tmp_path}/") for name in names]
        for reason, names in report.warnings.items()
    }
    assert not report.errors
    assert named == {
        "leading silence above 0.5 s": ["late.wav"],
        "trailing silence above 0.5 s": ["early.wav", "earlier.wav"],
        "level below -35 dBFS": ["quiet.wav"],
        "clipping": ["clipped.wav"],
        "unusual characters per second": ["slow.wav", "crowded.wav"],
        "offset above 0.02": ["offset.wav"],
        "two texts for the same recording": ["again.wav"],
        "text not of 1 to 10 symbols, which training leaves out": ["crowded.wav"],
        "more than 300 frames, which training leaves out": ["slow.wav"],
        "few different texts, so that this may be another column": ["'hello' x 19", "'howdy' x 1", "'hello world' x 1"],
    }
    shutil.copy(clips[0].path, tmp_path / "copy.wav")
    same = clips[0]._replace(path=str(tmp_path / "copy.wav"))
    again = corpus.check_corpus([clips[0], same, clips[0]], data()).warnings
    assert again == {"same recording and text as another clip": [f"{same.path}: the other is {clips[0].path}"]}
    report.stop_on_errors()


@pytest.mark.filterwarnings("ignore:symbol")
def test_unknown_symbols_are_counted(tmp_path):
    clips = clips_of(tmp_path, {"a.wav": voice(9)}, text="a long sentence with a tilde ã and a digit 3 and another 3")
    report = corpus.check_corpus(clips, data())
    assert not report.errors
    assert list(report.warnings.values()) == [["'3' (U+0033) x 2", "'ã' (U+00E3) x 1"]]
    foreign = corpus.check_corpus([clips[0]._replace(text="привет, мир")], data())
    assert "'р' (U+0440) x 2" in next(iter(foreign.errors.values()))
    assert not corpus.check_corpus([clips[0]._replace(text="мир")], data(extra_symbols="мир")).errors


@pytest.mark.parametrize(
    "change", [None, [], [1], [[1, 2]], [[1, 2], None], [[1, 2], [1]], [None, ["x"] * 10]], ids=str
)
def test_a_cache_with_damaged_entries_is_replaced(tmp_path, change):
    clips, cache = clips_of(tmp_path, {"a.wav": voice()}), tmp_path / "corpus.json"
    first = corpus.check_corpus(clips, data(), cache)
    stored = json.loads(cache.read_text())
    (key, _), path = stored["files"][clips[0].path], clips[0].path
    damaged = [key, change[1]] if isinstance(change, list) and len(change) == 2 else change
    cache.write_text(json.dumps(stored | {"files": {path: damaged}}))
    assert corpus.check_corpus(clips, data(), cache) == first
    assert json.loads(cache.read_text()) == stored


def test_the_checksum_is_that_of_texts_speakers_and_samples(tmp_path):
    def checksum(clips):
        return corpus.check_corpus(clips, data()).checksum

    clips = clips_of(tmp_path, {"a.wav": voice(), "b.wav": voice(2)})
    first = checksum(clips)
    assert len(first) == 64 and checksum(clips) == first
    assert checksum([clips[0]._replace(text="hˈa."), clips[1]]) != first
    soundfile.write(clips[1].path, voice(2) * 0.99, RATE)
    assert checksum(clips) != first


def test_a_column_of_speakers_in_place_of_texts_is_a_warning(tmp_path):
    names = {f"{i}.wav": voice(1 + i / 10, seed=i) for i in range(10)}
    clips = [clip._replace(text=("anna", "bo")[i % 2]) for i, clip in enumerate(clips_of(tmp_path, names))]
    (found,) = [
        n for reason, n in corpus.check_corpus(clips, data()).warnings.items() if "few different texts" in reason
    ]
    assert found == ["'anna' x 5", "'bo' x 5"]


def test_words_in_a_script_that_the_cleaner_spells_are_a_warning(tmp_path):
    clips = clips_of(tmp_path, {"a.wav": voice(9)}, text="hello 你好")
    settings = data(cleaned_text=False, text_cleaners=["phonemes_en-us"])
    found = corpus.check_corpus(clips, settings).warnings
    assert found["words in a script that the cleaner spells letter by letter"] == [f"{clips[0].path}: '你好'"]


def test_a_text_without_symbols_is_an_error(tmp_path):
    assert "no text" in corpus.check_corpus(clips_of(tmp_path, {"a.wav": voice()}, text=""), data()).errors


def test_the_same_speech_in_another_encoding_level_and_cut_is_found(tmp_path):
    speech, other = voice(3), voice(3, seed=1)
    shorter = soxr.resample(0.1 * speech[2000:-3000], RATE, 16000)
    recordings = {"a.wav": speech, "b.ogg": (shorter, 16000), "c.mp3": other, "d.wav": other[::-1], "e.flac": other}
    clips = clips_of(tmp_path, recordings | {"part.wav": speech[: 2 * RATE]})
    clips[4] = clips[4]._replace(text="another text")
    expected = {
        "same speech and text as another clip, in another encoding, level or cut": ("b.ogg", "a.wav"),
        "two texts for the same speech": ("e.flac", "c.mp3"),
        "speech that another clip contains, or the reverse": ("part.wav", "a.wav"),
    }
    found = corpus.check_corpus(clips, data()).warnings
    for reason, (clip, earlier) in expected.items():
        assert f"{tmp_path / clip}: the other is {tmp_path / earlier}" in found.pop(reason)
    assert not [reason for reason in found if "clip" in reason or "speech" in reason]


def test_recordings_that_only_begin_equally_are_no_duplicates():
    first = voice(6, seed=1)
    second = np.concatenate([first[: len(first) * 3 // 5], voice(6, seed=2)[len(first) * 3 // 5 :]])
    prints = [duplicates.fingerprint(samples, RATE) for samples in (first, second)]
    assert len(set(prints[0]) & set(prints[1])) > 10 and not duplicates.near_duplicates(prints)


def test_fingerprints_hardly_depend_on_rate_and_cut_and_short_recordings_have_none():
    sounds_and_rates = [(voice(4, seed=seed), RATE) for seed in range(3)]
    given = sounds_and_rates[0][0]
    sounds_and_rates += [(soxr.resample(given, RATE, rate), rate) for rate in (2500, 8000, 16000, 48000, 96000)]
    sounds_and_rates += [(given[RATE * cut // 1000 :], RATE) for cut in (13, 26, 39)]  # the steps are 51 ms long
    pairs = duplicates.near_duplicates([duplicates.fingerprint(*each) for each in sounds_and_rates])
    same = (0, *range(3, len(sounds_and_rates)))
    assert pairs == [(i, j, False) for n, i in enumerate(same) for j in same[n + 1 :]]
    for samples in (0, 1, 3, 50):
        for rate in (1000, RATE, 96000):
            words = duplicates.fingerprint(np.ones(samples, np.float32), rate)
            assert words.shape == (0,) and not duplicates.near_duplicates([words, words])


def test_an_interrupted_check_keeps_its_measurements(tmp_path, monkeypatch):
    clips = clips_of(tmp_path, {"a.wav": voice(), "b.wav": voice()})
    measure = sounds.measure

    def interrupted(path):
        if path.endswith("b.wav"):
            raise KeyboardInterrupt
        return measure(path)

    monkeypatch.setattr(sounds, "measure", interrupted)
    with pytest.raises(KeyboardInterrupt):
        corpus.check_corpus(clips, data(), tmp_path / "corpus.json")
    assert list(json.loads((tmp_path / "corpus.json").read_text())["files"]) == [clips[0].path]


def test_unchanged_recordings_are_measured_once(tmp_path, monkeypatch):
    clips = clips_of(tmp_path, {"a.wav": voice(), "b.wav": voice(2), "none.wav": voice()})
    (tmp_path / "none.wav").unlink()
    cache = tmp_path / "run" / "corpus.json"
    measured = []
    measure = sounds.measure
    monkeypatch.setattr(sounds, "measure", lambda path: measured.append(path) or measure(path))
    first = corpus.check_corpus(clips, data(), cache)
    assert len(measured) == 3
    assert corpus.check_corpus(clips, data(), cache) == first
    assert measured[3:] == [clips[2].path]  # a missing recording is looked for every time
    soundfile.write(clips[0].path, voice(3), RATE)
    assert corpus.check_corpus(clips, data(), cache).frames == [258, 172, 0]
    assert clips[0].path in measured[4:] and clips[1].path not in measured[4:]
    assert corpus.check_corpus(clips, data(hop_length=512), cache).frames == [129, 86, 0]
    assert [path.name for path in cache.parent.iterdir()] == ["corpus.json"]


@pytest.mark.parametrize("content", ["", "[]", '{"files": 3}', '{"settings": [1], "files": {}}', "[" * 100_000])
def test_an_invalid_cache_is_replaced(tmp_path, content):
    clips = clips_of(tmp_path, {"a.wav": voice()})
    cache = filelist(tmp_path, content, name="corpus.json")
    assert corpus.check_corpus(clips, data(), cache).frames == [86]
    assert list(json.loads(cache.read_text())["files"]) == [clips[0].path]


def run(capsys, *arguments):
    """Run the program. Returns exit code, standard output and standard error."""
    with pytest.raises(SystemExit) as end:
        corpus.main([str(argument) for argument in arguments])
    said = capsys.readouterr()
    return end.value.code, said.out, said.err


def test_command_line(tmp_path, capsys):
    clips_of(tmp_path, {"a.wav": voice()})
    good = filelist(tmp_path, "a.wav|həlˈoʊ", name="good.txt.cleaned")
    code, out, _ = run(capsys, good)
    assert code == 0 and "1 recordings" in out
    bad = filelist(tmp_path, "a.wav|hello\nb.wav|hello", name="bad.txt")
    code, out, _ = run(capsys, good, bad, "--text_cleaners", "basic_cleaners")
    assert code == 2 and "error: no such file (1): b.wav" in out
    for option in ("--hop-length", "--sampling-rate"):
        code, out, error = run(capsys, good, option, "0")
        assert (code, out) == (2, "") and f"{option} is 0, and should be 1 or more" in error
    code, out, error = run(capsys, tmp_path / "none.txt")
    assert (code, out) == (2, "") and "none.txt: No such file" in error


@pytest.mark.parametrize("suffix", [".txt", ".txt.cleaned"])
def test_command_line_compares_the_lists_with_each_other(tmp_path, capsys, suffix):
    clips_of(tmp_path, {"a.wav": voice(2), "b.wav": voice(2, seed=1), "louder.flac": voice(2, level=0.6)})
    train = filelist(tmp_path, "a.wav|hello\nb.wav|goodbye", name=f"train{suffix}")
    val = filelist(tmp_path, "louder.flac|hello\nb.wav|goodbye", name=f"val{suffix}")
    code, out, _ = run(capsys, train, val, "--text-cleaners", "basic_cleaners")
    assert code == 0 and f"in two filelists, so that validation is too optimistic (1): {tmp_path / 'b.wav'}" in out
    assert f"{tmp_path / 'louder.flac'}: the other is {tmp_path / 'a.wav'}" in out
    copies = {".txt": ".txt.cleaned", ".txt.cleaned": ".txt"}  # the same clips before or after cleaning
    shutil.copy(train, other := tmp_path / f"train{copies[suffix]}")
    _, out, _ = run(capsys, train, other, "--text-cleaners", "basic_cleaners")
    assert "two filelists" not in out and "the other is" not in out


def test_command_line_checks_a_config(tmp_path, capsys):
    clips_of(tmp_path, {"a.wav": voice()})
    files = {
        "training_files": str(filelist(tmp_path, "a.wav|0|hello")),
        "validation_files": str(filelist(tmp_path, "a.wav|1|hello", name="val.txt")),
    }
    for n_speakers, message in ((0, None), (2, "'1' is not in the training list")):
        path = tmp_path / "config.json"
        speakers = {"n_speakers": n_speakers}
        model = {"gin_channels": 256} if n_speakers else {}
        path.write_text(json.dumps({"train": {}, "data": files | speakers, "model": model}))
        code, out, error = run(capsys, "-c", path)
        assert code == 0 and "2 recordings" in out if message is None else code == 2 and message in error


def test_command_line_compares_speakers_with_the_config(tmp_path, capsys):
    clips_of(tmp_path, {"a.wav": voice()})
    lists = {
        "training_files": str(filelist(tmp_path, "a.wav|0024|hello")),
        "validation_files": str(filelist(tmp_path, "a.wav|0024|hello", name="val.txt")),
    }
    path = tmp_path / "config.json"
    for speakers, n_speakers, code, message in (
        ({"0024": 0}, 1, 0, "2 recordings"),
        ({"0024": 0, "anna": 1}, 2, 0, "warning: data.n_speakers is 2, and the training list has 1 speaker"),
        ({"anna": 0}, 1, 2, "speaker '0024' has no id below 1; data.speakers has anna"),
    ):
        data = lists | {"speakers": speakers, "n_speakers": n_speakers}
        path.write_text(json.dumps({"train": {}, "data": data, "model": {"gin_channels": 256}}))
        ended, out, error = run(capsys, "-c", path)
        assert ended == code and message in out + error and ("warning: data" in out) == (n_speakers == 2)


def test_parts_are_measured_separately_and_checked_together(tmp_path, capsys, monkeypatch):
    clips_of(tmp_path, {f"{i}.wav": voice(seed=i) for i in range(5)})
    listed = filelist(tmp_path, "".join(f"{i}.wav|hello\n" for i in range(5)), name="list.txt.cleaned")
    cache = tmp_path / "measured" / "c.json"
    for i in (1, 2):
        corpus.main([str(listed), "--cache", str(cache), "--shard", f"{i}/2"])
        assert "recordings are measured" in capsys.readouterr().out
    assert sorted(path.name for path in cache.parent.iterdir()) == ["c.json.1-of-2", "c.json.2-of-2"]
    monkeypatch.setattr("corpora.sounds.measure", lambda path: pytest.fail("decoded again"))
    code, out, _ = run(capsys, listed, "--cache", cache)
    assert "5 recordings" in out and cache.exists()
    for part in cache.parent.glob("*-of-*"):
        part.unlink()
    assert run(capsys, listed, "--cache", cache)[:2] == (code, out)
    with pytest.raises(SystemExit, match="2"):
        corpus.main([str(listed), "--shard", "1/2"])
    assert "--shard needs --cache" in capsys.readouterr().err
