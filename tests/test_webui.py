"""The page's functions, and the page itself over HTTP."""

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import soundfile
import tiny_voices

gr = pytest.importorskip("gradio", reason="gradio is an extra: pip install -r requirements-extras.txt")
import webui  # noqa: E402
from synthesis import Voice  # noqa: E402

QUIET = (0.0, 0.0, 1.0, None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("logs")
    tiny_voices.save(folder / "one", tiny_voices.settings(), step=5)
    tiny_voices.save(folder / "many", tiny_voices.settings(speakers={"anna": 0, "bo": 1}))
    (folder / "empty").mkdir()
    tiny_voices.save(folder.parent / "secret", tiny_voices.settings())
    return folder


@pytest.fixture(scope="module")
def voices(folder):
    return webui.Voices(folder, device="cpu")


def expected(folder, name, text, speaker=None):
    return webui.pcm(Voice.load(folder / name).speak(text, speaker, 0, 0).audio)


def test_only_runs_with_checkpoints_are_offered_and_each_is_loaded_once(folder, voices):
    assert {name: file.name for name, file in voices.files().items()} == {"many": "G_7.pth", "one": "G_5.pth"}
    assert voices.get("one") is voices.get("one")
    for name in ("empty", "../secret", str(folder / "one"), "", None):
        with pytest.raises(ValueError, match="no such voice"):
            voices.get(name)
    alone = webui.Voices(model=folder / "many", device="cpu")
    assert list(alone.files()) == ["many"]
    with pytest.raises(ValueError, match="holds no run"):
        webui.Voices(folder / "empty")


def test_new_checkpoints_are_found(tmp_path):
    tiny_voices.save(tmp_path / "run", tiny_voices.settings(), step=1)
    voices = webui.Voices(tmp_path, device="cpu")
    assert voices.get("run").step == 1
    tiny_voices.save(tmp_path / "run", tiny_voices.settings(), step=2)
    assert voices.get("run").step == 2


def test_speech_with_picture(folder, voices):
    (rate, samples), image, facts = webui.speak(voices, "many", "Hello. You.", "bo", *QUIET)
    assert rate == 8000 and np.array_equal(samples, expected(folder, "many", "Hello. You.", "bo"))
    assert image.dtype == np.uint8 and image.ndim == 3 and image.std() > 0
    assert "2 sentences, step 7" in facts
    one, two = (webui.speak(voices, "one", "Hello.", None, 0.6, 0.8, 1, 4)[0][1] for _ in range(2))
    assert np.array_equal(one, two)


def test_conversion(voices):
    recording = (16000, (3000 * np.sin(np.arange(16000) / 9)).astype(np.int16))
    rate, samples = webui.convert(voices, "many", recording, "anna", "bo")
    assert rate == 8000 and samples.dtype == np.int16 and len(samples) == 8000
    stereo = np.stack([recording[1]] * 2, 1)
    assert len(webui.convert(voices, "many", (16000, stereo), "anna", "bo")[1]) == 8000
    np.testing.assert_allclose(webui.mono(stereo), recording[1] / 32768, atol=1e-6)


def test_errors_are_messages(voices):
    for arguments, message in [
        (("one", " ", None, *QUIET), "the text is empty"),
        (("one", "x" * 6000, None, *QUIET), "6000 characters"),
        (("many", "Hi.", "carl", *QUIET), "no speaker 'carl'"),
        (("../secret", "Hi.", None, *QUIET), "no such voice"),
        (("one", "Hi.", None, 0, 0, 1, -3), "seed is -3"),
    ]:
        with pytest.raises(gr.Error, match=message):
            webui.speak(voices, *arguments)
    for recording, message in [
        (None, "record or upload"),
        ((10, np.zeros(700)), "longer than 60"),
        ((8000, np.zeros(9)), "short"),
    ]:
        with pytest.raises(gr.Error, match=message):
            webui.convert(voices, "many", recording, "anna", "bo")
    with pytest.raises(gr.Error, match="many speakers"):
        webui.convert(voices, "one", (8000, np.zeros(900)), None, None)


def test_the_command_without_voices(tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        webui.main(["--voices", str(tmp_path)])
    assert end.value.code == 2 and "holds no run" in capsys.readouterr().err


def test_samples_clip_and_do_not_wrap():
    assert webui.pcm(np.array([0.0, 0.5, 1.5, -1.5])).tolist() == [0, 16384, 32767, -32768]


@pytest.fixture(scope="module")
def address(voices):
    page = webui.build(voices)
    _, url, _ = page.launch(prevent_thread_lock=True, quiet=True, server_port=None)
    yield url
    page.close()


def test_people_at_once_get_their_own_audio(folder, voices, address):
    client = pytest.importorskip("gradio_client").Client(address, verbose=False)
    texts = [f"This is person number {'x' * i}." for i in range(1, 6)]

    def ask(text):
        audio, image, facts = client.predict("many", text, "bo", *QUIET, api_name="/speak")
        return soundfile.read(audio, dtype="int16")[0], image, facts

    with ThreadPoolExecutor(5) as people:
        answers = list(people.map(ask, texts))
    for text, (samples, image, facts) in zip(texts, answers):
        assert np.array_equal(samples, expected(folder, "many", text, "bo"))
        assert image and "step 7" in facts


def test_the_browser_cannot_name_paths(folder, address):
    client = pytest.importorskip("gradio_client").Client(address, verbose=False)
    for name, message in [("../secret", "choices"), ("one", "the text is empty")]:
        with pytest.raises(Exception, match=message) as error:
            client.predict(name, " ", None, *QUIET, api_name="/speak")
        assert "Traceback" not in str(error.value)
    assert "secret" not in json.dumps(client.view_api(return_format="dict"))
