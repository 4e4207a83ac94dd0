"""The server's parts: turns of requests, encoded streams, the gate, and OpenAI's API with OpenAI's own client."""

import asyncio
import base64
import io
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from urllib.parse import urlsplit

import numpy as np
import pytest
import soundfile
import tiny_voices

pytest.importorskip("gradio", reason="gradio is an extra: pip install -r requirements-extras.txt")
from fastapi import FastAPI, Request
from fastapi.testclient import TestClient

import webui
from audio import to_pcm
from serving import gate, gradio_calls
from serving.encoding import FORMATS, Encoder, encode_wav
from serving.studio import Busy, Studio
from serving.takes import Take
from serving.voices import Voices
from synthesis import Voice

LONG = "This is a long text whose request is abandoned. " * 99
TEXT = "Hello there. How are you?"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_voices.save_runs(tmp_path_factory.mktemp("logs"))


@pytest.fixture(scope="module")
def address(folder):
    blocks, address = webui.serve(Voices(folder, device="cpu"), None, quiet=True)
    yield address
    blocks.close()


def ask(address, path, content=None, headers=()):
    """Return status, headers and body of the response to GET, or to POST of `content`, JSON or bytes."""
    connection = HTTPConnection(urlsplit(address).netloc, timeout=30)
    body = content if content is None or isinstance(content, bytes) else json.dumps(content)
    given = {"Content-Type": "application/json"} if isinstance(body, str) else {}
    connection.request("GET" if content is None else "POST", path, body, given | dict(headers))
    answer = connection.getresponse()
    result = answer.status, dict(answer.getheaders()), answer.read()
    connection.close()
    return result


def speech(address, **content):
    return ask(address, "/v1/audio/speech", {"model": "one", "input": TEXT, "seed": 3} | content)


def message(answer):
    status, _, body = answer
    return status, json.loads(body)["error"]["message"]


# Turns


def test_a_new_request_goes_before_those_that_have_used_time():
    order, gate_ = [], threading.Event()

    async def work(studio, name, steps):
        with studio.open() as job:
            for _ in range(steps):
                await job.run(lambda: (gate_.wait(10), time.sleep(0.002), order.append(name)))

    async def all_three():
        studio = Studio(9)
        tasks = [asyncio.create_task(work(studio, name, 20)) for name in ("long", "longer")]
        await asyncio.sleep(0.01)
        gate_.set()
        await asyncio.sleep(0.01)
        tasks.append(asyncio.create_task(work(studio, "short", 1)))
        await asyncio.gather(*tasks)
        studio.close()

    asyncio.run(all_three())
    assert order.index("short") < 12 and len(order) == 41
    assert abs(order[:20].count("long") - order[:20].count("longer")) < 8  # the others share


def test_a_request_that_is_cancelled_leaves_its_place_and_errors_pass():
    async def cancelled():
        studio, release, done = Studio(1), threading.Event(), []
        with studio.open() as job:
            with pytest.raises(Busy, match="busy with 1 requests"), studio.open():
                pass
            first = asyncio.create_task(job.run(release.wait, 10))
            second = asyncio.create_task(job.run(done.append, 1))
            await asyncio.sleep(0.01)
            second.cancel()
            await asyncio.sleep(0.01)
            release.set()
            await first
            with pytest.raises(ZeroDivisionError):
                await job.run(lambda: 1 / 0)
        assert not done and not studio.active
        with studio.open() as job:
            assert [item async for item in job.iterate(iter("ab"))] == ["a", "b"]
        studio.close()

    asyncio.run(cancelled())


# Formats


@pytest.mark.parametrize("name", FORMATS)
def test_audio_is_encoded_part_by_part(name):
    samples = (0.3 * np.sin(np.arange(22050) / 9)).astype(np.float32)
    encoder = Encoder(name, 22050)
    parts = [encoder.encode(part) for part in np.array_split(samples, 5)]
    encoded = b"".join([*parts, encoder.encode(np.zeros(0, np.float32), last=True)])
    if name == "pcm":
        assert len(encoded) == 2 * 24000
        return
    assert name == "flac" or len(parts[0]) > 0
    decoded, rate = soundfile.read(io.BytesIO(encoded))
    assert rate == encoder.rate and len(decoded) / rate == pytest.approx(1, abs=0.08 if name == "mp3" else 1e-3)
    assert decoded.std() == pytest.approx(samples.std(), rel=0.1)
    if name in ("wav", "flac"):
        assert np.array_equal(to_pcm(decoded), to_pcm(samples))


def test_only_wav_files_are_encoded():
    for bad in (b"", b"RIFF", b"x" * 5000):
        with pytest.raises(ValueError, match="16-bit mono WAV"):
            encode_wav(bad, "mp3")
    stereo = io.BytesIO()
    soundfile.write(stereo, np.zeros((100, 2)), 8000, format="WAV")
    with pytest.raises(ValueError, match="16-bit mono WAV"):
        encode_wav(stereo.getvalue(), "mp3")


# The gate


def client(**options):
    app = FastAPI()

    @app.get("/")
    @app.get("/v1/models")
    def nothing():
        return "in"

    @app.post("/v1/audio/speech")
    async def length(request: Request):
        return len(await request.body())

    settings = {"hosts": (), "api_key": None, "listeners": gate.Listeners()}
    app.add_middleware(gate.Gate, **settings | options)
    return TestClient(app, base_url="http://localhost:7860")


@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        ("localhost:7860", None, 200),
        ("127.0.0.1:7860", "http://127.0.0.1:7860", 200),
        ("[::1]:7860", None, 200),
        ("192.168.1.7", None, 200),
        ("speech.example.org", "https://speech.example.org", 200),
        ("evil.example", None, 403),
        ("evil.example:7860", "http://evil.example:7860", 403),
        ("localhost.evil.example", None, 403),
        ("[", None, 403),
        ("", None, 403),
        ("localhost:7860", "http://evil.example", 403),
        ("localhost:7860", "http://localhost:9999", 403),
        ("localhost:7860", "null", 403),
    ],
)
def test_other_hosts_and_pages_are_refused(host, origin, status):
    headers = {"host": host} | ({"origin": origin} if origin else {})
    assert client(hosts=["speech.example.org"]).get("/", headers=headers).status_code == status
    assert client(hosts=["*"]).get("/", headers={"host": "any.example"}).status_code == 200


def test_an_api_key_protects_everything_but_the_page():
    here = client(api_key="secret")
    assert here.get("/").status_code == 200 and here.get("/v1/models").status_code == 401
    for key, status in (("Bearer secret", 200), ("Bearer secre", 401), ("secretx", 401), ("Bearer ü", 401)):
        answer = here.get("/v1/models", headers={"Authorization": key.encode()})
        assert answer.status_code == status


def test_large_requests_are_refused_by_their_header_and_while_they_arrive():
    here, big = client(), b"x" * (gate.MAX_JSON + 1)
    assert here.post("/v1/audio/speech", content=big).status_code == 413
    assert here.post("/v1/audio/speech", content=iter([big[:-1], b"x"])).status_code == 413
    assert here.post("/v1/audio/speech", content=big[:-1]).json() == gate.MAX_JSON


def test_calls_to_which_nobody_listens_end(monkeypatch):
    monkeypatch.setattr(gate, "PATIENCE", 0)
    listeners = gate.Listeners()
    scope = {"path": "/gradio_api/call/speak/a1", "query_string": b""}
    with listeners.counted(scope), listeners.counted({"path": "/x", "query_string": b""}):
        listeners.check("a1", time.monotonic() - 1)
    with listeners.counted({"path": "/gradio_api/queue/data", "query_string": b"session_hash=s2"}):
        listeners.check("s2", time.monotonic() - 1)
    for name in ("a1", "s2", "b"):
        with pytest.raises(ValueError, match="nobody waits"):
            listeners.check(name, time.monotonic() - 1)


# HTTP


def test_openai_client_speaks(folder, address):
    openai = pytest.importorskip("openai", reason="openai is for the tests: pip install -r requirements-dev.txt")
    api = openai.OpenAI(base_url=f"{address}v1", api_key="none", max_retries=0)
    assert [model.id for model in api.models.list()] == ["broken", "one", "two"]
    wanted = {"response_format": "wav", "extra_body": {"seed": 3, "noise_scale": 0.5}}
    whole = api.audio.speech.create(model="two", voice="bo", input=TEXT, speed=0.8, **wanted).content
    expected = Voice.load(folder / "two").speak(TEXT, "bo", 0.5, length_scale=1 / 0.8, seed=3)
    np.testing.assert_allclose(soundfile.read(io.BytesIO(whole), dtype="int16")[0], to_pcm(expected.audio), atol=1)
    with api.audio.speech.with_streaming_response.create(model="one", voice="one", input=TEXT) as stream:
        assert stream.headers["content-type"] == "audio/mpeg"
        assert soundfile.read(io.BytesIO(b"".join(stream.iter_bytes())))[1] == 8000
    for wrong, error in [
        ({"model": "none"}, openai.NotFoundError),
        ({"voice": "carl"}, openai.BadRequestError),
        ({"input": " "}, openai.BadRequestError),
        ({"response_format": "aac"}, openai.BadRequestError),
    ]:
        with pytest.raises(error):
            api.audio.speech.create(**{"model": "two", "voice": "bo", "input": TEXT} | wrong)


def test_events_hold_audio_times_and_facts(folder, address):
    status, headers, body = speech(address, response_format="wav", stream_format="sse", input="Hello. 中文. You ⱡ.")
    assert status == 200 and headers["content-type"].startswith("text/event-stream")
    events = [json.loads(block.removeprefix("data: ")) for block in body.decode().strip().split("\n\n")]
    audio = b"".join(base64.b64decode(event["audio"]) for event in events if event["type"] == "speech.audio.delta")
    expected = Voice.load(folder / "one").speak("Hello. 中文. You ⱡ.", seed=3)
    np.testing.assert_allclose(np.frombuffer(audio[44:], "<i2"), to_pcm(expected.audio), atol=1)
    sentences = [event for event in events if event["type"] == "speech.sentence.done"]
    done = events[-1]
    assert [dict(one, type=0) for one in sentences] == [dict(one, type=0) for one in done["sentences"]]
    assert done["sentences"] == expected.timings() and done["seed"] == 3
    assert done["seconds"] == pytest.approx(expected.seconds, abs=1e-3)
    assert done["symbols_left_out"] == ["ⱡ"] and done["text_left_out"] == ["中文."]


def test_wrong_requests_get_one_line_of_json(address, capfd):
    for content, line in [
        ({"input": "x" * 5001}, "input: String should have at most 5000 characters"),
        ({"speed": 9}, "speed: Input should be less than or equal to 4"),
        ({"model": "broken"}, "broken/G_9.pth does not load"),
        ({"model": "two"}, "choose one of anna, bo"),
        ({"seed": -1}, "seed: Input should be greater"),
    ]:
        status, said = message(speech(address, **content))
        assert status == 400 and line in said and "\n" not in said and "/tmp" not in said
    assert message(ask(address, "/v1/audio/speech", b"{"))[0] == 400
    assert message(ask(address, "/v1/voices/none"))[0] == 404
    assert ask(address, "/gradio_api/proxy=x%00")[0] == 404
    for path in ("call/speak/0", "queue/data?session_hash=0"):
        assert ask(address, f"/gradio_api/{path}")[0] == 200  # an empty answer
    for path in (
        "/gradio_api/call/speak",
        "/gradio_api/queue/join",
        "/gradio_api/call/none",
        "/gradio_api/call/v2/none",
    ):
        for content in (b"{", {"data": 5}, {"data": [1]}, [], {"data": ["one"] * 99}, {"data": [["one"], *7 * [{}]]}):
            status, _, body = ask(address, f"/gradio_api/{path}", content)
            if status == 200:
                status, _, body = ask(address, f"/gradio_api/{path}/{json.loads(body)['event_id']}")
                assert status == 200 and body.startswith(b"event: error")
            assert status < 500 and b"Traceback" not in body, (path, content)
    assert "Traceback" not in capfd.readouterr().err


def test_health_and_voices(address):
    assert json.loads(ask(address, "/health")[2]) == {"status": "ok", "voices": 3, "requests": 0, "limit": 64}
    broken, one, two = json.loads(ask(address, "/v1/voices")[2])["voices"]
    assert "does not load" in broken["error"]
    facts = {"checkpoint": "G_5.pth", "speakers": [], "default_speaker": None, "sampling_rate": 8000}
    assert one == {"name": "one", **facts}
    assert two == json.loads(ask(address, "/v1/voices/two")[2]) and two["speakers"] == ["anna", "bo"]


def test_recordings_are_converted_with_a_seed_and_encoded(folder, address, tmp_path):
    path = tmp_path / "in.flac"
    soundfile.write(path, 0.1 * np.sin(np.arange(16000) / 9), 16000)
    query = "/v1/audio/convert?model=two&source=anna&target=bo&seed=4"
    status, _, wav = ask(address, query, path.read_bytes())
    assert status == 200
    expected = to_pcm(Voice.load(folder / "two").convert(path, "anna", "bo", seed=4))
    assert np.array_equal(soundfile.read(io.BytesIO(wav), dtype="int16")[0], expected)
    assert soundfile.read(io.BytesIO(ask(address, "/v1/audio/encode?response_format=ogg", wav)[2]))[1] == 8000
    assert message(ask(address, query, b"noise")) == (400, "the recording: Format not recognised.")


def busy(address):
    return json.loads(ask(address, "/health")[2])["requests"]


def wait_for(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_requests_that_are_left_end_and_short_ones_do_not_wait(address):
    left = []
    for _ in range(5):
        connection = HTTPConnection(urlsplit(address).netloc, timeout=30)
        content = json.dumps({"model": "one", "input": LONG, "response_format": "wav", "speed": 0.25})
        connection.request("POST", "/v1/audio/speech", content, {"Content-Type": "application/json"})
        assert len(connection.getresponse().read(100)) == 100  # it sounds before it is finished
        left.append(connection)
    assert busy(address) == 5
    begin = time.monotonic()
    assert speech(address, input="Hi.")[0] == 200
    assert time.monotonic() - begin < 1 and busy(address) == 5
    for connection in left:
        connection.sock.close() if connection.sock else connection.close()
    del left, connection
    wait_for(lambda: busy(address) == 0)


def test_too_many_requests_are_refused(folder, monkeypatch):
    monkeypatch.setattr(webui, "MAX_REQUESTS", 2)
    release, original = threading.Event(), Take.__init__

    def waits(self, *arguments, **options):
        release.wait(20)
        original(self, *arguments, **options)

    monkeypatch.setattr(Take, "__init__", waits)
    blocks, address = webui.serve(Voices(folder, device="cpu"), None, quiet=True)
    try:
        with ThreadPoolExecutor(2) as pool:
            waiting = [pool.submit(speech, address) for _ in range(2)]
            wait_for(lambda: busy(address) == 2)
            status, headers, body = speech(address)
            assert status == 429 and headers["retry-after"] == "1" and b"busy with 2 requests" in body
            release.set()
            assert [future.result()[0] for future in waiting] == [200, 200]
    finally:
        release.set()
        blocks.close()


def test_an_abandoned_call_of_gradio_ends(folder, monkeypatch):
    monkeypatch.setattr(gate, "PATIENCE", 0)
    calls = gradio_calls.Calls(Voices(folder, device="cpu"), Studio(1), gate.Listeners())

    class Left:
        session_hash = "nobody"

    with pytest.raises(Exception, match="nobody waits"):
        asyncio.run(calls.speak("one", LONG, None, 0, 0, 1, "1", Left()))
    assert not calls.studio.active
