"""By whatever door, a voice without noise says the same; test_runtimes.py has the doors of Piper and sherpa-onnx."""

import io
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import tiny_voices

pytest.importorskip("onnxruntime", reason="onnxruntime is an extra: pip install -r requirements-extras.txt")
pytest.importorskip("gradio", reason="gradio is an extra: pip install -r requirements-extras.txt")
import export_onnx
import infer_onnx
import inference
import webui
from synthesis import Voice

TEXT = "Doctor Smith opened the door. Nobody was there, or so it seemed!"
QUIET = {"noise_scale": 0.0, "noise_scale_w": 0.0}
QUIET_OPTIONS = ["--noise-scale", "0", "--noise-scale-w", "0"]
ENGLISH = {"text_cleaners": ["english_cleaners2"]}
VOICES = {
    "deterministic": tiny_voices.settings(data=ENGLISH),
    "stochastic, many speakers": tiny_voices.settings(data=ENGLISH, use_sdp=True, speakers={"anna": 0, "bo": 1}),
}
SIXTEEN_BITS = 0.5 / 32768  # the most that rounding moves a sample by, which ONNX Runtime's differences add to
ONNX = 1e-4


@pytest.fixture(scope="module", params=VOICES)
def door(request, tmp_path_factory):
    """A run, its folder, its speaker and what it says by the Python library."""
    folder = tmp_path_factory.mktemp("logs")
    config = VOICES[request.param]
    tiny_voices.save(folder / "run", config)
    voice = Voice.load(folder / "run")
    speaker = "bo" if config.data.n_speakers else None
    return SimpleNamespace(
        folder=folder,
        run=folder / "run",
        voice=voice,
        speaker=speaker,
        audio=voice.speak(TEXT, speaker, **QUIET).audio,
        speaker_option=["-s", speaker] if speaker else [],
    )


def test_there_is_something_to_hear(door):
    assert len(door.voice.speak(TEXT, door.speaker, **QUIET).sentences) == 2
    assert door.audio.std() > 0.01


def test_a_stream(door):
    parts = list(door.voice.speak(TEXT, door.speaker, **QUIET, stream=True))
    np.testing.assert_allclose(np.concatenate(parts), door.audio, atol=1e-5)


def test_a_batch(door):
    spoken = door.voice.speak_batch(["Another line.", TEXT], door.speaker, **QUIET)[1]
    np.testing.assert_allclose(spoken.audio, door.audio, atol=1e-5)


def test_phonemes_and_ids(door):
    phonemes = " ".join(sentence.symbols for sentence in door.voice.speak(TEXT, door.speaker, **QUIET).sentences)
    spoken = door.voice.speak(phonemes, door.speaker, phonemes=True, **QUIET)
    np.testing.assert_allclose(spoken.audio, door.audio, atol=1e-5)
    by_ids = [door.voice.speak(s.tokens, door.speaker, **QUIET).audio for s in spoken.sentences]
    np.testing.assert_allclose(by_ids[0], door.audio[: len(by_ids[0])], atol=1e-5)
    np.testing.assert_allclose(by_ids[1], door.audio[-len(by_ids[1]) :], atol=1e-5)


@pytest.mark.parametrize("name", ["o.wav", "o.flac"])
def test_the_command_line(door, tmp_path, name):
    arguments = ["-m", str(door.run), "-t", TEXT, "-o", str(tmp_path / name), *door.speaker_option, "--device", "cpu"]
    inference.main([*arguments, *QUIET_OPTIONS])
    samples, _ = soundfile.read(tmp_path / name)
    np.testing.assert_allclose(samples, door.audio, atol=1.01 * SIXTEEN_BITS)


@pytest.mark.parametrize("split", [False, True], ids=["one file", "two files"])
def test_onnx(door, tmp_path, split, monkeypatch):
    path = tmp_path / "voice.onnx"
    export = [f"--model-path={door.run}", f"--output={path}"]
    export_onnx.main([*export, "--split"] if split else export)
    speaker = ["--sid", door.speaker] if door.speaker else []
    arguments = ["--model", str(path), "--text", TEXT, *speaker, *QUIET_OPTIONS]
    infer_onnx.main([*arguments, "--output-wav-path", str(tmp_path / "o.wav")])
    np.testing.assert_allclose(soundfile.read(tmp_path / "o.wav")[0], door.audio, atol=ONNX + SIXTEEN_BITS)
    raw = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(raw))
    infer_onnx.main([*arguments, "--output-raw"])
    np.testing.assert_allclose(np.frombuffer(raw.getvalue(), "<i2") / 32768, door.audio, atol=ONNX + SIXTEEN_BITS)


def test_the_web_page(door):
    voices = webui.Voices(door.folder, device="cpu")
    (rate, samples), *_ = webui.speak(voices, "run", TEXT, door.speaker, 0.0, 0.0, 1.0, None)
    assert rate == door.voice.sampling_rate
    np.testing.assert_allclose(samples / 32768, door.audio, atol=1.01 * SIXTEEN_BITS)
