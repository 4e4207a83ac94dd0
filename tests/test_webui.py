"""Tests of the program, its voices and the calls of Gradio's clients; test_webui_browser.py tests the page."""

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
import urllib.parse
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path

import numpy as np
import pytest
import soundfile
import tiny
import tiny_voices

gr = pytest.importorskip("gradio", reason="gradio is an extra: pip install -r requirements-extras.txt")
from gradio_client import Client, handle_file  # noqa: E402

import webui  # noqa: E402
from audio import to_pcm  # noqa: E402
from serving import gradio_calls  # noqa: E402
from serving.gate import Listeners  # noqa: E402
from serving.studio import Studio  # noqa: E402
from serving.voices import Voices  # noqa: E402
from synthesis import Voice  # noqa: E402

QUIET = (0.0, 0.0, 1.0, None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Runs, and folders that the page must not offer."""
    folder = tiny_voices.save_runs(tmp_path_factory.mktemp("logs"))
    (folder / "empty").mkdir()
    tiny_voices.save(folder.parent / "secret", tiny_voices.settings())
    return folder


@pytest.fixture(scope="module")
def voices(folder):
    return Voices(folder, device="cpu")


@pytest.fixture(scope="module")
def calls(voices):
    return gradio_calls.Calls(voices, Studio(9), Listeners())


def speak(calls, *arguments):
    return asyncio.run(calls.speak(*arguments))


def convert(calls, *arguments):
    return asyncio.run(calls.convert(*arguments))


@pytest.fixture
def recording(tmp_path):
    path = tmp_path / "in.wav"
    soundfile.write(path, 0.1 * np.sin(np.arange(16000) / 9), 16000)
    return str(path)


def expected(folder, name, text, speaker=None):
    return to_pcm(Voice.load(folder / name).speak(text, speaker, 0, 0).audio)


def test_only_runs_with_checkpoints_are_offered_and_each_is_loaded_once(folder, voices):
    found = {name: file.name for name, file in voices.files().items()}
    assert found == {"broken": "G_9.pth", "one": "G_5.pth", "two": "G_7.pth"}
    assert voices.get("one") is voices.get("one")
    for name in ("empty", "../secret", str(folder / "one"), "", None):
        with pytest.raises(ValueError, match="no such voice"):
            voices.get(name)
    alone = Voices(model=folder / "two", device="cpu")
    assert list(alone.files()) == ["two"]
    with pytest.raises(ValueError, match="holds no run"):
        Voices(folder / "empty")


def test_a_voice_that_does_not_load_shows_the_error_and_leaves_the_others_usable(folder, voices, calls):
    assert voices.first() == "one"
    with pytest.raises(gr.Error, match=r"broken/G_9\.pth does not load") as error:
        speak(calls, "broken", "Hi.", None, *QUIET)
    assert str(folder) not in str(error.value)
    assert "broken/G_9.pth does not load" in voices.about("broken")["error"]
    assert voices.about("two")["speakers"] == ["anna", "bo"] and voices.about("one")["speakers"] == []


def test_the_voice_that_comes_with_the_code_is_offered_and_a_run_hides_it(tmp_path, monkeypatch):
    logs, pretrained = tmp_path / "logs", tmp_path / "pretrained"
    monkeypatch.setattr("files.PRETRAINED", pretrained)
    tiny_voices.save(logs / "a", tiny_voices.settings())
    assert list(Voices(logs).files()) == ["a"]
    tiny_voices.save(pretrained, tiny_voices.settings()).rename(pretrained / "G.pth")
    assert Voices(logs).files() == {"a": logs / "a/G_7.pth", "pretrained": pretrained / "G.pth"}
    assert list(Voices(tmp_path / "none").files()) == ["pretrained"]
    assert Voice.load("pretrained").step == Voice.load().step == Voice.load(pretrained).step == 7
    tiny_voices.save(logs / "pretrained", tiny_voices.settings())
    assert Voices(logs).files()["pretrained"].parent == logs / "pretrained"


@pytest.mark.parametrize("given", ["bo", "1"])
def test_the_default_speaker_speaks_where_none_is_chosen(tmp_path, given):
    tiny_voices.save(
        tmp_path / "run", tiny_voices.settings(speakers={"anna": 0, "bo": 1}, data={"default_speaker": given})
    )
    voices = Voices(tmp_path, device="cpu")
    assert voices.about("run")["default_speaker"] == "bo"
    calls = gradio_calls.Calls(voices, Studio(9), Listeners())
    for chosen in (None, ""):
        (_, samples), *_ = speak(calls, "run", "Hello.", chosen, *QUIET)
        np.testing.assert_allclose(samples, expected(tmp_path, "run", "Hello.", "bo"), atol=1)


def test_new_checkpoints_are_found(tmp_path):
    tiny_voices.save(tmp_path / "run", tiny_voices.settings(), step=1)
    voices = Voices(tmp_path, device="cpu")
    first = voices.get("run")
    tiny_voices.save(tmp_path / "run", tiny_voices.settings(), step=2)
    assert voices.file("run").name == "G_2.pth" and voices.get("run") is not first
    best = tmp_path / "other" / "G_best.pth"
    tiny_voices.save(best.parent, tiny_voices.settings(), step=1).rename(best)
    first = voices.get("other")
    os.utime(best, ns=(0, 0))  # a better checkpoint with the same name
    second = voices.get("other")
    assert second is not first and voices.get("other") is second


def test_speech_with_a_picture(folder, calls):
    (rate, samples), image, facts = speak(calls, "two", "Hello. You.", "bo", *QUIET)
    assert rate == 8000
    np.testing.assert_allclose(samples, expected(folder, "two", "Hello. You.", "bo"), atol=1)
    assert image.dtype == np.uint8 and image.ndim == 3 and image.std() > 0
    assert facts == f"{len(samples) / 8000:.1f} s · 2 sentences · seed {facts.split()[-1]}"


def test_the_shown_seed_gives_the_same_audio(folder, calls):
    first, second = (speak(calls, "one", "Hello.", None, 0.6, 0.8, 1, typed) for typed in ("", None))
    seed = first[2].split()[-1]
    assert seed != second[2].split()[-1]
    again = speak(calls, "one", "Hello.", None, 0.6, 0.8, 1, seed)
    assert np.array_equal(first[0][1], again[0][1]) and again[2] == first[2]
    spoken = Voice.load(folder / "one").speak("Hello.", None, 0.6, 0.8, 1, int(seed))
    np.testing.assert_allclose(first[0][1], to_pcm(spoken.audio), atol=1)


def test_every_slider_reaches_the_voice(folder, calls):
    spoken = Voice.load(folder / "one").speak("Hello.", None, 0.3, 0.4, 1.5, seed=2)
    (_, samples), *_ = speak(calls, "one", "Hello.", None, 0.3, 0.4, 1.5, "2")
    np.testing.assert_allclose(samples, to_pcm(spoken.audio), atol=1)


def test_conversion(folder, calls, recording):
    rate, samples = convert(calls, "two", recording, "anna", "bo")
    assert rate == 8000 and samples.dtype == np.int16 and len(samples) == 8000 and samples.std() > 0


def test_errors_are_messages(calls, tmp_path, recording):
    for arguments, message in [
        (("one", " ", None, *QUIET), "the text is empty"),
        (("one", "x" * 6000, None, *QUIET), "6000 characters"),
        (("two", "Hi.", "carl", *QUIET), "no speaker 'carl'"),
        (("../secret", "Hi.", None, *QUIET), "no such voice"),
        (("one", "Hi.", None, 0, 0, 1, "-3"), "the seed is '-3'"),
        (("one", "Hi.", None, 0, 0, 1, "9" * 19), "2\\^63"),
    ]:
        with pytest.raises(gr.Error, match=message):
            speak(calls, *arguments)
    soundfile.write(tmp_path / "long.wav", np.zeros(70_000), 1000)
    soundfile.write(tmp_path / "short.wav", np.zeros(9), 8000)
    soundfile.write(tmp_path / "wide.flac", np.zeros((60 * 48000, 8), np.int16), 48000)
    (tmp_path / "text.wav").write_text("no sound")
    for path, message in [
        (None, "record or upload"),
        (str(tmp_path / "long.wav"), "longer than 60"),
        (str(tmp_path / "wide.flac"), "8 channels at 48000 Hz are too much"),
        (str(tmp_path / "short.wav"), "9 samples are too short"),
        (str(tmp_path / "text.wav"), "^.text.wav: Format not recognised"),
    ]:
        with pytest.raises(gr.Error, match=message):
            convert(calls, "two", path, "anna", "bo")
    with pytest.raises(gr.Error, match="several speakers"):
        convert(calls, "one", recording, None, None)


@pytest.mark.parametrize("problem", ["empty folder", "broken voice", "busy port", "no port"])
def test_user_errors_take_one_line(folder, tmp_path, capsys, problem):
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = busy.getsockname()[1]
        arguments, message = {
            "empty folder": (["--voices", str(tmp_path)], f"{tmp_path} holds no run"),
            "broken voice": (["-m", str(folder / "broken")], "G_9.pth does not load"),
            "busy port": (["--voices", str(folder), "--port", str(port)], f"port {port} cannot be opened"),
            "no port": (["--voices", str(folder), "--port", "70000"], "from 1 to 65535"),
        }[problem]
        with pytest.raises(SystemExit) as end:
            webui.main([*arguments, "--device", "cpu"])
    said = capsys.readouterr().err
    assert end.value.code == 2 and said.startswith("webui: ") and message in said and said.count("\n") == 1


@pytest.fixture(scope="module")
def address(voices):
    blocks, address = webui.serve(voices, None, quiet=True)
    yield address
    blocks.close()


@pytest.fixture(scope="module")
def client(address):
    return Client(address, verbose=False)


def test_ten_simultaneous_users_get_their_own_audio(folder, client):
    asked = [
        (("two", "bo"), ("one", None), ("two", "anna"))[i % 3] + (f"This is person number {'x' * i}.",)
        for i in range(1, 11)
    ]

    def ask(name, speaker, text):
        audio, image, facts = client.predict(name, text, speaker, *QUIET, api_name="/speak")
        return soundfile.read(audio, dtype="int16")[0], image, facts

    with ThreadPoolExecutor(10) as people:
        answers = list(people.map(lambda question: ask(*question), asked))
    for (name, speaker, text), (samples, image, facts) in zip(asked, answers):
        np.testing.assert_allclose(samples, expected(folder, name, text, speaker), atol=1)  # rounded differently
        assert image and "1 sentence · seed" in facts
    assert len({samples.tobytes() for samples, _, _ in answers}) == 10


def test_api_clients_convert_and_get_messages(folder, client, recording):
    converted = client.predict("two", handle_file(recording), "anna", "bo", api_name="/convert")
    assert len(soundfile.read(converted)[0]) == 8000
    for name, message in [("../secret", "not valid"), ("one", "the text is empty"), ("broken", "does not load")]:
        with pytest.raises(Exception, match=message) as error:
            client.predict(name, " ", None, *QUIET, api_name="/speak")
        assert "Traceback" not in str(error.value) and str(folder) not in str(error.value)
    described = client.view_api(return_format="dict")
    assert sorted(described["named_endpoints"]) == ["/convert", "/speak"]
    assert "secret" not in json.dumps(described)


def test_files_of_clients_are_gone_when_the_program_is_terminated(folder, tmp_path):
    cache, log = tmp_path / "cache", tmp_path / "log"
    cache.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}/"
    command = [
        sys.executable,
        str(tiny.ROOT / "webui.py"),
        "--voices",
        str(folder),
        "--port",
        address.split(":")[2][:-1],
    ]
    environment = tiny.environment() | {"GRADIO_TEMP_DIR": str(cache)}
    program = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=log.open("w"), stderr=subprocess.STDOUT)
    try:
        while "Running on" not in log.read_text("utf-8"):
            assert program.poll() is None
            time.sleep(0.1)
        assert upload(address, "in.wav", b"RIFF").is_relative_to(cache)
        program.terminate()
        program.wait(20)
    finally:
        program.kill()
    assert not list(cache.iterdir()) and "Traceback" not in log.read_text("utf-8")


def ask(address, path, content=None, kind="application/json"):
    """Return status and text of the response to GET, or to POST of `content`, with the path exactly as given."""
    connection = HTTPConnection(urllib.parse.urlsplit(address).netloc, timeout=20)
    headers = {} if content is None else {"Content-Type": kind}
    connection.request("GET" if content is None else "POST", f"/{path}", content, headers)
    answer = connection.getresponse()
    return answer.status, answer.read().decode("utf-8", "replace")


def upload(address, name, content):
    """Upload a file as a browser does. Returns its path on the server."""
    head = f'--end\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'.encode()
    form = head + content + b"\r\n--end--\r\n"
    status, answer = ask(address, "gradio_api/upload", form, "multipart/form-data; boundary=end")
    assert status == 200, answer
    return Path(json.loads(answer)[0])


def test_no_file_outside_the_cache_can_be_read(folder, address, recording):
    climbing = ("../" * 9 + "etc/passwd", "%2e%2e/" * 9 + "etc/passwd", f"{folder}/../secret/G_7.pth")
    existing = (folder / "one" / "G_5.pth", recording, webui.__file__, "webui.py", "/etc/passwd")
    for path in (*existing, *climbing, "/proc/self/environ", ".", "", f"{address}gradio_api/info"):
        status, answer = ask(address, f"gradio_api/file={path}")
        assert status in (403, 404) and "root:" not in answer, path
    for place in ("static/", "assets/", "gradio_api/file/"):
        for path in climbing:
            status, answer = ask(address, place + path)
            assert status in (403, 404) and "root:" not in answer, place + path
    taken_in = upload(address, "in.wav", Path(recording).read_bytes())
    assert ask(address, f"gradio_api/file={taken_in}")[0] == 200  # the refusals above have another reason than spelling


def test_a_client_cannot_convert_a_file_of_the_server(folder, client, address, recording):
    """Makes the call by HTTP, because gradio's client would upload the file."""
    taken_in = upload(address, "in.wav", Path(recording).read_bytes())
    climbing = f"{taken_in.parent}/{'../' * 9}{recording}"
    others = (recording, climbing, "/etc/passwd", folder / "one" / "G_5.pth", f"{address}gradio_api/info")
    for path, end in [(taken_in, "event: complete"), *((path, "event: error") for path in others)]:
        data = ["two", {"path": str(path), "meta": {"_type": "gradio.FileData"}}, "anna", "bo"]
        call = json.loads(ask(address, "gradio_api/call/convert", json.dumps({"data": data}))[1])["event_id"]
        answer = ask(address, f"gradio_api/call/convert/{call}")[1]
        assert answer.startswith(end), path
        assert "root:" not in answer and "Traceback" not in answer
    assert client.predict("one", "Hi.", None, *QUIET, api_name="/speak")  # the server still works


def test_names_of_uploads_are_not_paths(address, tmp_path):
    stored = upload(address, f"{'../' * 9}{tmp_path}/escaped.wav", b"RIFF")
    assert ".." not in stored.parts and stored.is_relative_to(gr.utils.get_upload_folder())
    assert stored.name == "escaped.wav" and not list(tmp_path.iterdir())
