"""Tests of the command line: its files, its options, and its errors in one line."""

import io
import json
import os
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
import soundfile
import tiny_voices

import inference
from audio import to_pcm
from synthesis import Voice

ROOT = Path(__file__).resolve().parents[1]
QUIET = ["--noise-scale", "0", "--noise-scale-w", "0", "--device", "cpu"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("logs")
    tiny_voices.save(folder / "one", tiny_voices.settings())
    tiny_voices.save(folder / "many", tiny_voices.settings(speakers={"anna": 0, "bo": 1}), with_config=False)
    return folder


def read(path):
    samples, rate = soundfile.read(path, dtype="float32")
    assert rate == 8000
    return samples


@pytest.mark.parametrize("name", ["o.wav", "o.flac"])
def test_a_text_to_a_file_with_a_picture(runs, tmp_path, capsys, name):
    out, picture = tmp_path / name, tmp_path / "o.png"
    inference.main(["-m", str(runs / "one"), "-t", "Hello. You!", "-o", str(out), "--picture", str(picture), *QUIET])
    expected = Voice.load(runs / "one").speak("Hello. You!", noise_scale=0, noise_scale_w=0)
    np.testing.assert_allclose(read(out), expected.audio, atol=2e-4)
    assert picture.read_bytes().startswith(b"\x89PNG")
    said = capsys.readouterr().out
    assert said.startswith(f"{out}: {expected.seconds:.2f} s of audio, ") and "times real time" in said


def test_the_program_with_the_name_of_a_run(runs, tmp_path):
    (tmp_path / "logs").symlink_to(runs)
    command = [sys.executable, str(ROOT / "inference.py"), "-m", "one", "-t", "Hi.", "-o", "hi.wav", "--seed", "1"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(read(tmp_path / "hi.wav"))
    wrong = subprocess.run([*command, "--speaker", "x"], cwd=tmp_path, capture_output=True, text=True)
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1) and "single voice" in wrong.stderr


@pytest.mark.parametrize("source", ["file", "stdin"])
def test_lines_to_a_folder(runs, tmp_path, monkeypatch, source):
    text = "\ufeffFirst line.\r\n\r\nSecond line, a longer one.\r\n"
    (tmp_path / "lines").write_text(text, encoding="utf-8", newline="")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode()), "latin-1"))
    given = "-" if source == "stdin" else str(tmp_path / "lines")
    inference.main(["-m", str(runs / "many"), "-f", given, "-o", str(tmp_path / "out"), "-s", "bo", *QUIET])
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["0001.wav", "0002.wav", "lines.txt", "speech.json"]
    listed = (tmp_path / "out" / "lines.txt").read_text("utf-8")
    assert listed == "0001.wav|First line.\n0002.wav|Second line, a longer one.\n"
    assert 0 < len(read(tmp_path / "out" / "0001.wav")) < len(read(tmp_path / "out" / "0002.wav"))


def test_a_stopped_run_goes_on_and_files_of_other_runs_are_removed(runs, tmp_path, monkeypatch, capsys):
    def speak(text, *more):
        (tmp_path / "lines").write_text(text, "utf-8")
        options = ["-m", str(runs / "one"), "-f", str(tmp_path / "lines"), "-o", str(tmp_path / "out"), "--seed", "1"]
        inference.main([*options, *more, "--device", "cpu"])
        return sorted(path.name for path in (tmp_path / "out").iterdir())

    def stops(path, *arguments):
        if path.name == "0003.wav":
            raise KeyboardInterrupt
        save(path, *arguments)

    save, text = inference.save_audio, "One.\nTwo.\nThree.\nFour.\n"
    monkeypatch.setattr(inference, "save_audio", stops)
    with pytest.raises(SystemExit, match="130"):
        speak(text)
    said = capsys.readouterr().err.rpartition("\r")[2]
    assert said.strip() == "inference: stopped after 2 of 4 lines; the same command goes on"
    written = []
    monkeypatch.setattr(inference, "save_audio", lambda path, *rest: (written.append(path.name), save(path, *rest)))
    assert speak(text) == ["0001.wav", "0002.wav", "0003.wav", "0004.wav", "lines.txt", "speech.json"]
    assert written == ["0003.wav", "0004.wav"]
    (tmp_path / "out" / "mine.wav").touch()
    assert speak("One.\nTwo.\n") == ["0001.wav", "0002.wav", "lines.txt", "mine.wav", "speech.json"]
    written.clear()
    speak("One.\nTwo.\n", "--length-scale", "2")
    assert written == ["0001.wav", "0002.wav"]


def test_text_is_spoken_while_it_arrives(runs, monkeypatch):
    """The writer continues only when the first sentence has been spoken."""
    source, target = os.pipe()
    spoken = threading.Event()

    class Output(io.BytesIO):
        def write(self, data):
            spoken.set()
            return super().write(data)

    def write_slowly():
        with open(target, "wb", buffering=0) as pipe:
            pipe.write(b"Hello the")
            pipe.write("re. Yoü".encode()[:-1])
            assert spoken.wait(20)
            pipe.write("ü are.\n".encode()[1:])

    writer = threading.Thread(target=write_slowly)
    writer.start()
    output = Output()
    with open(source, encoding="utf-8") as text:
        monkeypatch.setattr("sys.stdin", text)
        monkeypatch.setattr("sys.stdout", io.TextIOWrapper(output))
        inference.main(["-m", str(runs / "one"), "-t", "-", "--output-raw", *QUIET])
    writer.join()
    expected = Voice.load(runs / "one").speak("Hello there. Yoü are.", noise_scale=0, noise_scale_w=0)
    np.testing.assert_allclose(np.frombuffer(output.getvalue(), "<i2"), to_pcm(expected.audio), atol=1)


def test_a_text_from_standard_input(runs, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"Hello.\nYou.")))
    inference.main(["-m", str(runs / "one"), "-t", "-", "-o", str(tmp_path / "o.wav"), *QUIET])
    expected = Voice.load(runs / "one").speak("Hello.\nYou.", noise_scale=0, noise_scale_w=0)
    np.testing.assert_allclose(read(tmp_path / "o.wav"), expected.audio, atol=2e-4)


def test_a_line_that_cannot_be_spoken_is_left_out(runs, tmp_path, capsys):
    (tmp_path / "lines").write_text("One.\n你好\nTwo 你好. Three.\n", encoding="utf-8")
    inference.main(["-m", str(runs / "one"), "-f", str(tmp_path / "lines"), "-o", str(tmp_path / "out"), *QUIET])
    assert (tmp_path / "out" / "lines.txt").read_text("utf-8") == "0001.wav|One.\n0003.wav|Two 你好. Three.\n"
    assert "text 2: nothing in the text '你好' can be pronounced; it is left out" in capsys.readouterr().err


def test_a_dictionary_of_words(runs, tmp_path):
    (tmp_path / "words.txt").write_text("nginx engine x\n", encoding="utf-8")
    say = ["-m", str(runs / "one"), *QUIET, "-o"]
    inference.main([*say, str(tmp_path / "a.wav"), "-t", "NGINX.", "--dictionary", str(tmp_path / "words.txt")])
    inference.main([*say, str(tmp_path / "b.wav"), "-t", "engine x."])
    assert (read(tmp_path / "a.wav") == read(tmp_path / "b.wav")).all()


def test_speakers_and_conversion(runs, tmp_path, capsys):
    inference.main(["-m", str(runs / "many"), "--list-speakers", "--device", "cpu"])
    assert capsys.readouterr().out == "0\tanna\n1\tbo\n"
    soundfile.write(tmp_path / "in.wav", 0.1 * np.sin(np.arange(4000) / 9), 8000)
    out = tmp_path / "out.wav"
    how = ["--source", "anna", "--speaker", "bo", "-o", str(out), "--seed", "2", "--device", "cpu"]
    inference.main(["-m", str(runs / "many"), "--convert", str(tmp_path / "in.wav"), *how])
    expected = Voice.load(runs / "many").convert(tmp_path / "in.wav", "anna", "bo", seed=2)
    np.testing.assert_allclose(read(out), expected, atol=2e-4)


def test_options_change_the_audio(runs, tmp_path):
    def spoken(*options):
        out = tmp_path / "o.wav"
        inference.main(["-m", str(runs / "one"), "-t", "One. Two.", "-o", str(out), *options, *QUIET])
        return len(read(out))

    plain = spoken()
    assert spoken("--pause", "1.2") == plain + 8000
    assert spoken("--length-scale", "2") > 1.3 * plain
    tokens = len(Voice.load(runs / "one").speak("one. two.").tokens)
    assert tokens == len("one.") + len("two.")
    assert spoken("--normalize") == plain and np.abs(read(tmp_path / "o.wav")).max() == pytest.approx(0.8913, abs=1e-3)


def program(*arguments, stdin=b""):
    """Run inference.py as a program. Returns standard output and standard error."""
    command = [sys.executable, str(ROOT / "inference.py"), *map(str, arguments), *QUIET]
    done = subprocess.run(command, input=stdin, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout, done.stderr.decode()


def test_audio_on_standard_output(runs, tmp_path):
    expected = Voice.load(runs / "one").speak("Hello. You!", noise_scale=0, noise_scale_w=0).audio
    raw, said = program("-m", runs / "one", "-f", "-", "--output-raw", stdin=b"Hello. You!\n")
    np.testing.assert_allclose(np.frombuffer(raw, "<i2") / 32768, expected, atol=2e-4)
    assert said == ""
    wav, said = program("-m", runs / "one", "-t", "Hello. You!", "-o", "-")
    samples, rate = soundfile.read(io.BytesIO(wav), dtype="float32")
    assert rate == 8000 and said.startswith("-: ")
    np.testing.assert_allclose(samples, expected, atol=2e-4)


def test_closing_standard_output_ends_the_program_without_an_error(runs):
    command = [sys.executable, str(ROOT / "inference.py"), "-m", str(runs / "one"), "-t", "A long text. " * 300]
    with subprocess.Popen(
        [*command, "--output-raw", *QUIET], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as running:
        assert len(running.stdout.read(1000)) == 1000
        running.stdout.close()
        assert running.wait(60) == 0 and running.stderr.read() == b""


def test_timings_and_subtitles(runs, tmp_path):
    for name in ("t.json", "t.srt"):
        text = ["-t", "Hello there. You!", "-o", str(tmp_path / "o.wav"), "--timings", str(tmp_path / "new" / name)]
        inference.main(["-m", str(runs / "one"), *text, *QUIET])
    spoken = Voice.load(runs / "one").speak("Hello there. You!", noise_scale=0, noise_scale_w=0)
    assert json.loads((tmp_path / "new" / "t.json").read_text("utf-8")) == spoken.timings()
    first, second = (tmp_path / "new" / "t.srt").read_text("utf-8").split("\n\n")
    assert first.startswith("1\n00:00:00,000 --> 00:00:0") and first.endswith("\nHello there.")
    end = spoken.timings()[1]["end"]
    assert second.splitlines()[1].endswith(f"--> 00:00:{int(end):02},{round(1000 * (end % 1)):03}")


def test_every_speaking_option_reaches_the_voice(runs, monkeypatch, tmp_path):
    given_options = {}
    monkeypatch.setattr(Voice, "speak", lambda self, text, speaker=None, **how: given_options.update(how) or 1 / 0)
    given = {"noise-scale": 0.1, "noise-scale-w": 0.2, "length-scale": 1.3, "seed": 4, "pause": 0.5}
    options = [part for name, value in given.items() for part in (f"--{name}", str(value))]
    with pytest.raises(ZeroDivisionError):
        inference.main(["-m", str(runs / "one"), "-t", "Hi.", "--phonemes", "--normalize", *options])
    wanted = {name.replace("-", "_"): value for name, value in given.items()}
    assert given_options == wanted | {"phonemes": True, "normalize": True}


def test_token_ids_instead_of_text(runs, tmp_path):
    voice = Voice.load(runs / "one")
    tokens = " ".join(map(str, voice.speak("Hello").tokens))
    inference.main(["-m", str(runs / "one"), "-t", tokens, "--ids", "-o", str(tmp_path / "o.wav"), *QUIET])
    expected = voice.speak("Hello", noise_scale=0, noise_scale_w=0).audio
    np.testing.assert_allclose(read(tmp_path / "o.wav"), expected, atol=2e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-m", "{runs}/one", "-t", "a b", "--ids"], "whole numbers separated by spaces, not 'a b'"),
        (["-m", "{runs}/one", "-t", "1 999", "--ids"], "there is no token 999"),
        (["-m", "{runs}/one", "-f", ""], "--file is empty"),
        (
            ["-m", "{runs}/one", "-t", "Hi.", "--nois_scale", "0"],
            "unknown option --nois_scale; did you mean --noise-scale?",
        ),
        (["-m", "{runs}/one", "-f", "-", "-o", "-"], "-o - needs a single text"),
        (["-m", "{runs}/one", "-t", "Hi.", "--source", "0"], "--source needs --convert"),
        (
            ["-m", "{runs}/many", "--convert", "x.wav", "--length-scale", "3"],
            "--length-scale has no effect with --convert",
        ),
        (["-m", "{runs}/many", "--convert", "x.wav", "--output-raw"], "--output-raw has no effect with --convert"),
        (["-m", "{runs}/one", "-t", "Hi.", "--device", "mps"], "synthesis does not run on 'mps'"),
        (["-m", "{runs}/one", "-t", "Hi.", "--timings", "t.txt"], "t.txt: timings are written as .json or .srt"),
        (["-m", "{runs}/one", "-f", "-", "--timings", "t.json"], "--timings needs a single text"),
        (["-m", "{runs}/one", "-t", "Hi.", "--output-raw", "--normalize"], "--normalize needs the whole speech"),
        (["-m", "{runs}/one", "-t", "Hi.", "--output-raw", "-o", "x.wav"], "--output needs the whole speech"),
        (["-m", "none", "-t", "Hi."], "there is no checkpoint or run none"),
        (["-m", "{runs}/one", "-t", " "], "the text is empty"),
        (["-m", "{runs}/one", "-t", "?!"], "nothing in the text '?!' can be pronounced"),
        (["-m", "{runs}/many", "-t", "Hi."], "choose one of anna, bo"),
        (["-m", "{runs}/many", "-t", "Hi.", "-s", "bob"], "did you mean bo?"),
        (["-m", "{runs}/one", "-t", "Hi.", "-o", "x.mp3"], "cannot write .mp3"),
        (["-m", "{runs}/one", "-t", "Hi.", "-o", "{runs}/one/lines/x.wav"], "lines"),
        (["-m", "{runs}/one", "-t", "Hi.", "-c", "no.json"], "cannot read the config file no.json"),
        (["-m", "{runs}/one", "-t", "Hi.", "--device", "gpu"], "there is no device 'gpu'"),
        (["-m", "{runs}/one", "-f", "no.txt"], "no.txt"),
        (["-m", "{runs}/one/lines", "-t", "Hi."], "does not load as a checkpoint"),
        (["-m", "{runs}/one", "-f", "{runs}/one/lines"], "text 1: nothing in the text '!' can be pronounced; none of"),
        (["-m", "{runs}/many", "--convert", "no.wav", "-s", "bo", "--source", "anna"], "no.wav: no such file"),
        (["-m", "{runs}/many", "--convert", "no.wav", "-s", "bo"], "--convert needs --source, the name or number of"),
        (["-m", "{runs}/many", "--convert", "no.wav", "--source", "bo"], "--convert needs --speaker, the name or"),
        (["-m", "{runs}/many", "--convert", "{runs}/one/lines", "-s", "bo", "--source", "bo"], "one/lines: Format not"),
        (["-m", "{runs}/many", "--convert", "{runs}/short.wav", "-s", "bo", "--source", "bo"], "short.wav: 9 samples"),
    ],
)
def test_errors_take_one_line(runs, capsys, monkeypatch, tmp_path, arguments, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["inference.py"])
    (runs / "one" / "lines").write_text("!\n...\n")
    soundfile.write(runs / "short.wav", np.zeros(9), 8000)
    with pytest.raises(SystemExit) as end:
        inference.main([argument.format(runs=runs) for argument in arguments])
    error = capsys.readouterr().err
    assert end.value.code == 2
    assert message in error and error.count("\n") == 1 and error.startswith("inference: ")
    assert not list(tmp_path.iterdir())


def test_the_warning_about_unknown_symbols_takes_one_line(runs, tmp_path, capsys):
    warnings.simplefilter("default")
    inference.main(["-m", str(runs / "one"), "-t", "Hi 你.", "-o", str(tmp_path / "o.wav"), *QUIET])
    assert capsys.readouterr().err == "inference: symbol '你' (U+4F60) is not in the table and is left out\n"


def test_a_file_of_lines_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"cannot read .*nolines\.txt: No such file"):
        inference.read_lines(str(tmp_path / "nolines.txt"))
