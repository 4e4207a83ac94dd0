"""All interfaces give the same audio for a voice without noise; test_runtimes.py tests Piper and sherpa-onnx."""

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
from serving.takes import Take
from serving.voices import Voices
from synthesis import Voice

TEXT = "Doctor Smith opened the door. Nobody was there, or so it seemed!"
QUIET = {"noise_scale": 0.0, "noise_scale_w": 0.0}
QUIET_OPTIONS = ["--noise-scale", "0", "--noise-scale-w", "0"]
ENGLISH = {"text_cleaners": ["english_cleaners2"]}
VOICES = {
    "deterministic": tiny_voices.settings(data=ENGLISH),
    "stochastic, many speakers": tiny_voices.settings(data=ENGLISH, use_sdp=True, speakers={"anna": 0, "bo": 1}),
}
SIXTEEN_BITS = 0.5 / 32768  # largest change by rounding; differences of ONNX Runtime add to it
ONNX = 1e-4


@pytest.fixture(scope="module", params=VOICES)
def case(request, tmp_path_factory):
    """A run, its folder, its speaker, and its audio from the Python interface."""
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


def test_the_audio_is_not_silent(case):
    assert len(case.voice.speak(TEXT, case.speaker, **QUIET).sentences) == 2
    assert case.audio.std() > 0.01


def test_a_stream(case):
    parts = list(case.voice.speak(TEXT, case.speaker, **QUIET, stream=True))
    np.testing.assert_allclose(np.concatenate(parts), case.audio, atol=1e-5)


def test_a_batch(case):
    spoken = case.voice.speak_batch(["Another line.", TEXT], case.speaker, **QUIET)[1]
    np.testing.assert_allclose(spoken.audio, case.audio, atol=1e-5)


def test_phonemes_and_ids(case):
    phonemes = " ".join(sentence.symbols for sentence in case.voice.speak(TEXT, case.speaker, **QUIET).sentences)
    spoken = case.voice.speak(phonemes, case.speaker, phonemes=True, **QUIET)
    np.testing.assert_allclose(spoken.audio, case.audio, atol=1e-5)
    by_ids = [case.voice.speak(s.tokens, case.speaker, **QUIET).audio for s in spoken.sentences]
    np.testing.assert_allclose(by_ids[0], case.audio[: len(by_ids[0])], atol=1e-5)
    np.testing.assert_allclose(by_ids[1], case.audio[-len(by_ids[1]) :], atol=1e-5)


@pytest.mark.parametrize("name", ["o.wav", "o.flac"])
def test_the_command_line(case, tmp_path, name):
    arguments = ["-m", str(case.run), "-t", TEXT, "-o", str(tmp_path / name), *case.speaker_option, "--device", "cpu"]
    inference.main([*arguments, *QUIET_OPTIONS])
    samples, _ = soundfile.read(tmp_path / name)
    np.testing.assert_allclose(samples, case.audio, atol=1.01 * SIXTEEN_BITS)


@pytest.mark.parametrize("split", [False, True], ids=["one file", "two files"])
def test_onnx(case, tmp_path, split, monkeypatch):
    path = tmp_path / "voice.onnx"
    export = [f"--model-path={case.run}", f"--output={path}"]
    export_onnx.main([*export, "--split"] if split else export)
    speaker = ["--sid", case.speaker] if case.speaker else []
    arguments = ["--model", str(path), "--text", TEXT, *speaker, *QUIET_OPTIONS]
    infer_onnx.main([*arguments, "--output-wav-path", str(tmp_path / "o.wav")])
    np.testing.assert_allclose(soundfile.read(tmp_path / "o.wav")[0], case.audio, atol=ONNX + SIXTEEN_BITS)
    raw = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(raw))
    infer_onnx.main([*arguments, "--output-raw"])
    np.testing.assert_allclose(np.frombuffer(raw.getvalue(), "<i2") / 32768, case.audio, atol=ONNX + SIXTEEN_BITS)


def test_the_server(case):
    voice = Voices(case.folder, device="cpu").get("run")
    take = Take(voice, TEXT, speaker=case.speaker, noise_scale=0.0, noise_scale_w=0.0)
    np.testing.assert_allclose(np.concatenate(list(take.parts)), case.audio, atol=ONNX)
