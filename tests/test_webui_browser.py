"""Tests of the web page: the program runs, and a real browser types, clicks, plays and downloads.

They need Chromium (Debian: `apt-get install chromium`) and Playwright (requirements-dev.txt). A request that leaves
this machine fails the test.

docs/webui.png is created here as well, from the voices in a folder, for example those of `make demo`:
WEBUI_SCREENSHOT=docs/webui.png WEBUI_VOICES=logs make test ARGS="-k screenshot"
"""

import itertools
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import soundfile
import tiny
import tiny_voices

pytest.importorskip("gradio", reason="gradio is an extra: pip install -r requirements-extras.txt")
playwright = pytest.importorskip(
    "playwright.sync_api", reason="Playwright is missing: pip install -r requirements-dev.txt"
)
from audio import to_pcm  # noqa: E402
from synthesis import Voice  # noqa: E402
from synthesis.output import subtitles  # noqa: E402

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
if CHROMIUM is None:
    pytest.skip("there is no Chromium here: apt-get install chromium", allow_module_level=True)

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
LOCAL = ("http://127.0.0.1:", "blob:http://127.0.0.1:", "data:")
PATIENCE = 20_000  # milliseconds
expect = playwright.expect
expect.set_options(timeout=PATIENCE)
SENTENCE = "The old sailor has lost the garden gate by the sea."
LONG = "This is a long text whose request is abandoned. " * 99
COLLECT_SOUNDS = """
window.started = [];  // times at which parts of audio were scheduled
const start = AudioBufferSourceNode.prototype.start;
AudioBufferSourceNode.prototype.start = function (at) { started.push(at); return start.call(this, at); };
"""
SCREENSHOT = os.environ.get("WEBUI_SCREENSHOT")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_voices.save_runs(tmp_path_factory.mktemp("logs"))


def start(folder, log, *options):
    """Start the program. Returns its process and its address when it is ready."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, str(tiny.ROOT / "webui.py"), "--voices", str(folder), "--port", str(port), *options]
    # requests to other machines fail, because this proxy does not exist
    offline = {f"{scheme}_PROXY": "http://127.0.0.1:9" for scheme in ("HTTP", "HTTPS", "ALL")} | {
        "NO_PROXY": "127.0.0.1"
    }
    environment = {name: value for name, value in tiny.environment().items() if "proxy" not in name.lower()} | offline
    process = subprocess.Popen(command, cwd=log.parent, env=environment, stdout=log.open("w"), stderr=subprocess.STDOUT)
    deadline = time.monotonic() + 240
    while "Running on" not in log.read_text("utf-8"):
        assert process.poll() is None and time.monotonic() < deadline, log.read_text("utf-8")
        time.sleep(0.1)
    return process, f"http://127.0.0.1:{port}/"


@pytest.fixture(scope="module")
def address(folder, tmp_path_factory):
    log = tmp_path_factory.mktemp("server") / "log"
    process, address = start(folder, log)
    yield address
    alive = process.poll() is None
    process.terminate()
    process.wait(20)
    said = log.read_text("utf-8")
    assert alive and "Traceback" not in said and "rror" not in said, said


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        context = browser.new_context(viewport={"width": 1280, "height": 900})
        context.set_default_timeout(PATIENCE)
        context.add_init_script(COLLECT_SOUNDS)
        yield context  # its windows share a cache of the page's scripts
        browser.close()


@pytest.fixture
def page(browser):
    """A new window, in which every request must stay on this machine and no script may fail."""
    page = browser.new_page()
    asked, failed = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: failed.append(str(error)))
    yield page
    page.close()
    assert asked and [url for url in asked if not url.startswith(LOCAL)] == []
    assert failed == []


@pytest.fixture
def opened(page, address):
    return visit(page, address)


def visit(page, address):
    page.goto(address)
    page.get_by_text(re.compile(r"kHz · G_")).wait_for()  # the description of the voice has loaded
    return page


def choose_voice(page, name, about):
    page.get_by_label("Voice", exact=True).select_option(name)
    page.get_by_text(about).wait_for()


def type_seed(page, seed):
    if not page.locator("#seed").is_visible():
        page.get_by_text("More settings").click()
    page.locator("#seed").fill(str(seed))


def write(page, text):
    page.get_by_label("Text", exact=True).fill(text)


def click(page, name):
    page.get_by_role("button", name=name, exact=True).click()


def speak(page, text):
    """Type, click, and wait for the line of facts about the new take: seconds, sentences, seed."""
    write(page, text)
    takes = page.locator(".facts").count()
    click(page, "Speak")
    wait_for(lambda: page.locator(".facts").count() > takes)
    page.get_by_role("button", name="Speak", exact=True).wait_for()  # it has been played
    return page.locator("#latest .facts").text_content()


def download(page, suffix, take="#latest"):
    """Download a take. Returns its name and path."""
    with page.expect_download() as waited:
        page.locator(take).get_by_text(suffix, exact=True).first.click()
    return waited.value.suggested_filename, waited.value.path()


def samples(path):
    audio, rate = soundfile.read(path, dtype="int16")
    assert rate == 8000
    return audio


def requests(address):
    return json.load(urllib.request.urlopen(f"{address}health"))["requests"]


def wait_for(condition):
    deadline = time.monotonic() + PATIENCE / 1000
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_text_is_spoken_drawn_and_downloaded(opened, folder):
    type_seed(opened, 5)
    expected = Voice.load(folder / "one").speak("Hello there. How are you?", seed=5)
    assert speak(opened, "Hello there. How are you?") == f"{expected.seconds:.1f} s · 2 sentences · seed 5"
    name, path = download(opened, "wav")
    assert name == "hello-there-how-are-you.wav"
    np.testing.assert_allclose(samples(path), to_pcm(expected.audio), atol=1)
    for suffix in ("mp3", "ogg"):
        name, path = download(opened, suffix)
        assert name == f"hello-there-how-are-you.{suffix}"
        assert soundfile.info(path).duration == pytest.approx(expected.seconds, abs=0.2)
    assert Path(download(opened, "srt")[1]).read_text("utf-8") == subtitles(expected)
    assert opened.locator("#latest audio").evaluate("one => one.duration") == pytest.approx(expected.seconds, abs=0.01)
    assert opened.locator("#latest .phonemes").text_content() == "hello there. how are you?"
    words = opened.locator("#latest .words span").all_text_contents()
    assert words == ["Hello", "there.", "How", "are", "you?"]
    width, empty = opened.locator("#latest canvas").evaluate(
        "one => [one.width, new Set(one.getContext('2d').getImageData(0, 0, one.width, 9).data).size < 9]"
    )
    assert width > 200 and not empty


def test_audio_plays_while_it_is_generated_and_stop_ends_both(opened, address):
    write(opened, LONG)
    click(opened, "Speak")
    wait_for(lambda: opened.evaluate("started.length") > 1)
    assert requests(address) == 1  # the first part is played, and the rest is still being generated
    expect(opened.get_by_role("button", name="Speaking…")).to_be_disabled()
    expect(opened.get_by_text(re.compile(r"Speaking: \d+ sentences?, [\d.]+ s"))).to_be_visible()
    click(opened, "Stop")
    wait_for(lambda: requests(address) == 0)
    expect(opened.get_by_role("button", name="Speak", exact=True)).to_be_enabled()
    expect(opened.get_by_role("alert")).to_be_hidden()
    speak(opened, "Hello.")


def test_a_call_ends_when_its_tab_is_closed(browser, address):
    tab = visit(browser.new_page(), address)
    write(tab, LONG)
    click(tab, "Speak")
    wait_for(lambda: tab.evaluate("started.length") > 0)
    tab.close()
    wait_for(lambda: requests(address) == 0)


def test_a_text_over_the_limit_is_said_and_kept(opened):
    write(opened, "x" * 5003)
    expect(opened.get_by_text("3 characters over the limit of 5,000")).to_be_visible()
    expect(opened.get_by_role("button", name="Speak", exact=True)).to_be_disabled()
    expect(opened.get_by_label("Text", exact=True)).to_have_value("x" * 5003)
    write(opened, "Hello.")
    expect(opened.get_by_text("6 of 5,000 characters")).to_be_visible()
    expect(opened.get_by_text("Shift+Enter")).to_be_visible()
    opened.get_by_label("Text", exact=True).press("Shift+Enter")
    expect(opened.locator("#latest .facts")).to_have_text(re.compile("1 sentence · seed"))


def test_takes_are_kept_to_compare_and_a_seed_can_be_kept(opened):
    opened.get_by_text("More settings").click()
    first = speak(opened, "Hello there.")
    second = speak(opened, "Hello there.")
    assert first != second
    expect(opened.locator("#takes .facts")).to_have_text([first])
    opened.locator("#takes").get_by_role("button", name="Keep this seed").click()
    expect(opened.locator("#seed")).to_have_value(first.rpartition(" ")[2])
    assert speak(opened, "Hello there.") == first
    assert (
        Path(download(opened, "wav")[1]).read_bytes()
        == Path(download(opened, "wav", "#takes article >> nth=1")[1]).read_bytes()
    )


def test_each_line_may_be_a_take(opened):
    opened.get_by_label("One take for each line").check()
    speak(opened, "One.\n\nTwo.\nThree.")
    expect(opened.locator(".said")).to_have_text(["Three.", "Two.", "One."])


def test_voices_and_speakers_are_chosen(opened, folder):
    expect(opened.get_by_label("Speaker", exact=True)).to_be_hidden()
    choose_voice(opened, "two", "2 speakers · 8 kHz · G_7.pth")
    type_seed(opened, 3)
    opened.get_by_label("Pace").fill("0.8")
    opened.get_by_label("Speaker", exact=True).select_option("bo")
    speak(opened, "I am bo.")
    expected = Voice.load(folder / "two").speak("I am bo.", "bo", length_scale=1 / 0.8, seed=3)
    np.testing.assert_allclose(samples(download(opened, "wav")[1]), to_pcm(expected.audio), atol=1)
    choose_voice(opened, "one", "one speaker")
    expect(opened.get_by_label("Speaker", exact=True)).to_be_hidden()


def test_a_recording_is_converted_with_a_seed(opened, folder, tmp_path):
    opened.get_by_role("tab", name="Voice conversion").click()
    expect(opened.get_by_text("Conversion needs a voice of several speakers")).to_be_visible()
    choose_voice(opened, "two", "2 speakers")
    click(opened, "Convert")
    expect(opened.get_by_role("alert")).to_have_text("record or upload something to convert first")
    soundfile.write(tmp_path / "in.wav", tiny.speech(1.0, rate=16000), 16000)
    opened.get_by_label("Recording (").set_input_files(tmp_path / "in.wav")
    opened.get_by_label("Speaker of the recording").select_option("bo")
    opened.get_by_label("Convert to").select_option("anna")
    opened.locator("#convert-seed").fill("4")
    click(opened, "Convert")
    expect(opened.locator("#latest .facts")).to_have_text("1.0 s · seed 4")
    name, path = download(opened, "wav")
    expected = to_pcm(Voice.load(folder / "two").convert(tmp_path / "in.wav", "bo", "anna", seed=4))
    assert name == "in-wav-as-anna.wav" and np.array_equal(samples(path), expected)


def test_errors_clear_the_take_before_and_the_page_stays_usable(opened):
    facts = speak(opened, "Hello.")
    write(opened, " ")
    click(opened, "Speak")
    expect(opened.get_by_role("alert")).to_have_text("the text is empty")
    expect(opened.locator("#latest .facts")).to_have_count(0)  # neither its picture, its facts nor its seed
    expect(opened.locator("#takes .facts")).to_have_text([facts])
    write(opened, "Hello.")
    type_seed(opened, "<b>four</b>")
    click(opened, "Speak")
    expect(opened.get_by_role("alert")).to_contain_text("the seed is '<b>four</b>'")
    type_seed(opened, "4")
    assert speak(opened, "Hello.").endswith("seed 4")
    expect(opened.get_by_role("alert")).to_be_hidden()


def test_the_choices_return_after_a_voice_that_does_not_load(opened):
    opened.get_by_role("tab", name="Voice conversion").click()
    choose_voice(opened, "broken", "This voice cannot be used: broken/G_9.pth does not load as a checkpoint")
    expect(opened.get_by_label("Convert to")).to_be_hidden()
    choose_voice(opened, "two", "2 speakers")
    expect(opened.get_by_label("Convert to")).to_be_visible()
    expect(opened.get_by_label("Convert to")).to_have_value("bo")
    opened.get_by_role("tab", name="Text to speech").click()
    expect(opened.get_by_label("Speaker", exact=True)).to_be_visible()


def test_what_a_voice_cannot_speak_is_said(opened):
    speak(opened, "Hello ⱡ.\n\n?!\n\nYou.")
    expect(opened.get_by_text("Left out, because the voice cannot speak it")).to_contain_text("the symbol “ⱡ”, “?!”")


def test_voice_and_text_survive_a_reload(opened):
    choose_voice(opened, "two", "2 speakers")
    opened.get_by_label("Speaker", exact=True).select_option("bo")
    write(opened, "I stay here.")
    opened.reload()
    opened.get_by_text("2 speakers").wait_for()
    expect(opened.get_by_label("Text", exact=True)).to_have_value("I stay here.")
    expect(opened.get_by_label("Speaker", exact=True)).to_have_value("bo")
    opened.evaluate("localStorage.clear()")


def test_a_new_voice_is_in_the_list_of_a_new_page(page, address, folder):
    path = tiny_voices.save(folder / "three", tiny_voices.settings(), step=3)
    visit(page, address)
    choose_voice(page, "three", "one speaker · 8 kHz · G_3.pth")
    speak(page, "I am new here.")
    path.unlink()
    click(page, "Speak")
    page.get_by_text("there is no such voice").wait_for()
    page.evaluate("localStorage.clear()")


def test_the_default_speaker_of_a_voice_is_chosen(page, address, folder):
    names = {"anna": 0, "bo": 1, "cy": 2}
    path = tiny_voices.save(folder / "three", tiny_voices.settings(speakers=names, data={"default_speaker": "bo"}))
    visit(page, address)
    choose_voice(page, "three", "3 speakers")
    speaker = page.get_by_label("Speaker", exact=True)
    expect(speaker).to_have_value("bo")
    speaker.select_option("cy")
    page.reload()
    expect(speaker).to_have_value("cy")
    choose_voice(page, "two", "2 speakers")
    expect(speaker).to_have_value("anna")
    path.unlink()
    page.evaluate("localStorage.clear()")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_narrow_window_shows_one_column_and_the_picture_follows_the_colors(opened, scheme):
    opened.emulate_media(color_scheme=scheme)
    opened.set_viewport_size({"width": 390, "height": 800})
    expect(opened.locator(".picture")).to_have_count(0)  # hidden until there is one
    speak(opened, SENTENCE)
    assert opened.evaluate("document.documentElement.scrollWidth") <= 390
    button = opened.get_by_role("button", name="Speak", exact=True).bounding_box()
    take = opened.locator("#latest article").bounding_box()
    assert 0 < take["y"] - button["y"] - button["height"] < 40 and take["x"] + take["width"] <= 390
    picture = opened.locator("#latest .picture")
    boxes = [one.bounding_box() for one in opened.locator("#latest .symbols span").all()]
    assert len(boxes) > 20
    assert all(one["x"] + one["width"] <= after["x"] + 0.1 for one, after in itertools.pairwise(boxes))
    *_, last = opened.locator("#latest .symbols span").all()
    picture.evaluate("one => one.scrollLeft = one.scrollWidth")
    inside = picture.bounding_box()
    assert last.bounding_box()["x"] + last.bounding_box()["width"] <= inside["x"] + inside["width"] + 1
    lightness = "one => one.getContext('2d').getImageData(0, 0, one.width, 128).data.reduce((a, b) => a + b)"
    means = []
    for colors in (scheme, {"light": "dark", "dark": "light"}[scheme]):
        opened.emulate_media(color_scheme=colors)
        means.append(opened.locator("#latest canvas").evaluate(lightness))
    assert means[0] != means[1]


@pytest.mark.slow
def test_a_page_with_an_api_key_asks_for_it(page, folder, tmp_path):
    process, address = start(folder, tmp_path / "log", "--api-key", "secret")
    try:
        page.goto(address)
        page.get_by_label("API key").fill("secret")
        click(page, "Use this key")
        page.get_by_text(re.compile(r"kHz · G_")).wait_for()
    finally:
        process.terminate()
        process.wait(20)


@pytest.mark.skipif(not SCREENSHOT, reason="WEBUI_SCREENSHOT is not set")
def test_screenshot(page, tmp_path):
    process, address = start(Path(os.environ["WEBUI_VOICES"]).resolve(), tmp_path / "log")
    try:
        visit(page, address)
        page.set_viewport_size({"width": 1280, "height": 960})
        speak(page, SENTENCE)
        page.mouse.move(0, 0)
        page.wait_for_timeout(1000)  # until the waveform is drawn
        page.screenshot(path=tiny.ROOT / SCREENSHOT)
    finally:
        process.terminate()
        process.wait(20)
