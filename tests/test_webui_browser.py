"""Tests of the web page: the program runs, and a real browser types, clicks, plays and downloads.

They need Chromium (Debian: `apt-get install chromium`) and Playwright (requirements-dev.txt). A request that leaves
this machine fails the test.

docs/webui.png is created here as well, from the voices in a folder, for example those of `make demo`:
WEBUI_SCREENSHOT=docs/webui.png WEBUI_VOICES=logs make test ARGS="-k screenshot"
"""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
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
LOCAL = ("http://127.0.0.1:", "ws://127.0.0.1:", "blob:http://127.0.0.1:", "data:")
PATIENCE = 30_000  # milliseconds
SENTENCE = "The old sailor has lost the garden gate by the sea."
COLLECT_PLAYERS = """
window.played = [];
const play = HTMLMediaElement.prototype.play;
HTMLMediaElement.prototype.play = function () { played.push(this); return play.call(this); };
"""
SCREENSHOT = os.environ.get("WEBUI_SCREENSHOT")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_voices.save_runs(tmp_path_factory.mktemp("logs"))


def start(folder, log):
    """Start the program. Returns its process and its address when it is ready."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, str(tiny.ROOT / "webui.py"), "--voices", str(folder), "--port", str(port)]
    # requests to other machines fail, because this proxy does not exist
    offline = {f"{scheme}_PROXY": "http://127.0.0.1:9" for scheme in ("HTTP", "HTTPS", "ALL")} | {
        "NO_PROXY": "127.0.0.1"
    }
    environment = {name: value for name, value in tiny.environment().items() if "proxy" not in name.lower()} | offline
    process = subprocess.Popen(command, cwd=log.parent, env=environment, stdout=log.open("w"), stderr=subprocess.STDOUT)
    deadline = time.monotonic() + 120
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
        context.add_init_script(COLLECT_PLAYERS)
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


def choose(page, label, option):
    page.get_by_label(label, exact=True).click()
    page.get_by_role("option", name=option, exact=True).click()
    playwright.expect(page.get_by_role("option")).to_have_count(0, timeout=PATIENCE)  # the list has closed


def choose_voice(page, name, about):
    choose(page, "Voice", name)
    page.get_by_text(about).wait_for()


def type_seed(page, seed):
    if not page.get_by_label("Seed").is_visible():
        page.get_by_text("More settings").click()
    page.get_by_label("Seed").fill(str(seed))


def speak(page, text):
    """Type, click, and wait for the line of facts about the new sound: seconds, sentences, seed."""
    page.get_by_label("Text", exact=True).fill(text)
    facts = page.get_by_text(re.compile(r"^\d+\.\d s · \d+ sentences? · seed \d+$"))
    before = facts.text_content() if facts.count() else ""
    picture = page.locator(".image-frame img")
    drawn = picture.get_attribute("src") if picture.count() else ""
    page.get_by_role("button", name="Speak").click()
    playwright.expect(picture).not_to_have_attribute("src", drawn, timeout=PATIENCE)
    assert facts.text_content() != before
    return facts.text_content()


def download(page, label):
    """Download a sound. Returns its samples."""
    sound = page.locator(".block", has=page.get_by_test_id(f"waveform-{label}")).last
    with page.expect_download() as waited:
        sound.get_by_label("Download").click()
    samples, rate = soundfile.read(waited.value.path(), dtype="int16")
    assert rate == 8000
    return samples


def test_a_text_is_spoken_played_drawn_and_downloaded(opened, folder):
    type_seed(opened, 5)
    facts = speak(opened, "Hello there. How are you?")
    expected = Voice.load(folder / "one").speak("Hello there. How are you?", seed=5)
    assert facts == f"{expected.seconds:.1f} s · 2 sentences · seed 5"
    assert np.array_equal(download(opened, "Speech"), to_pcm(expected.audio))

    opened.get_by_test_id("waveform-Speech").get_by_label("Play", exact=True).click()
    opened.wait_for_function("played.length && played[0].currentTime > 0.2")
    assert opened.evaluate("played[0].duration") == pytest.approx(expected.seconds, abs=0.01)

    width, height = opened.locator(".image-frame img").evaluate("image => [image.naturalWidth, image.naturalHeight]")
    assert width > 900 and height > 400


def test_a_seed_can_be_kept(opened):
    opened.get_by_text("More settings").click()
    drawn = speak(opened, "Hello there.")
    facts = speak(opened, "Hello there.")
    assert drawn.rpartition(" ")[2] != facts.rpartition(" ")[2]  # opening the settings leaves the seed empty
    first = download(opened, "Speech")
    opened.get_by_role("button", name="Keep this seed").click()
    playwright.expect(opened.get_by_label("Seed")).to_have_value(facts.rpartition(" ")[2], timeout=PATIENCE)
    speak(opened, "Something else.")
    assert speak(opened, "Hello there.") == facts
    assert np.array_equal(download(opened, "Speech"), first)


def test_voices_and_speakers_are_chosen(opened, folder):
    assert not opened.get_by_label("Speaker", exact=True).is_visible()
    choose_voice(opened, "two", "2 speakers · 8 kHz · G_7.pth")
    type_seed(opened, 3)
    voice = Voice.load(folder / "two")
    for name in ("anna", "bo"):
        choose(opened, "Speaker", name)
        speak(opened, f"I am {name}.")
        assert np.array_equal(download(opened, "Speech"), to_pcm(voice.speak(f"I am {name}.", name, seed=3).audio))
    choose_voice(opened, "one", "one speaker")
    assert not opened.get_by_label("Speaker", exact=True).is_visible()
    speak(opened, SENTENCE)
    assert np.array_equal(download(opened, "Speech"), to_pcm(Voice.load(folder / "one").speak(SENTENCE, seed=3).audio))


def test_a_recording_is_converted(opened, tmp_path):
    opened.get_by_role("tab", name="Voice conversion").click()
    opened.get_by_text("Conversion needs a voice of several speakers").wait_for()
    choose_voice(opened, "two", "2 speakers")
    opened.get_by_role("button", name="Convert").click()
    opened.get_by_text("record or upload something").wait_for()
    soundfile.write(tmp_path / "in.wav", tiny.speech(1.0, rate=16000), 16000)
    opened.locator("input[type=file]").set_input_files(tmp_path / "in.wav")
    opened.get_by_test_id("waveform-Recording (up to 60 seconds)").first.wait_for()
    choose(opened, "Source speaker", "bo")
    choose(opened, "Target speaker", "anna")
    opened.get_by_role("button", name="Convert").click()
    samples = download(opened, "Converted")
    assert len(samples) == 8000 and samples.std() > 0


def test_errors_are_messages_and_the_page_stays_usable(opened):
    opened.get_by_label("Text", exact=True).fill(" ")
    opened.get_by_role("button", name="Speak").click()
    opened.get_by_test_id("toast-body").get_by_text("the text is empty").wait_for()
    choose_voice(opened, "broken", "This voice cannot be used: broken/G_9.pth does not load as a checkpoint")
    opened.get_by_label("Text", exact=True).fill("Hello.")
    opened.get_by_role("button", name="Speak").click()
    opened.get_by_test_id("toast-body").get_by_text("broken/G_9.pth does not load").wait_for()
    choose_voice(opened, "one", "one speaker")
    type_seed(opened, "<b>four</b>")
    opened.get_by_role("button", name="Speak").click()
    opened.get_by_test_id("toast-body").get_by_text("the seed is '<b>four</b>'").wait_for()
    type_seed(opened, "4")
    assert speak(opened, "Hello.").endswith("seed 4")


def test_progress_counts_sentences(opened):
    opened.get_by_label("Text", exact=True).fill("Yes. " * 300)
    opened.get_by_role("button", name="Speak").click()
    opened.get_by_text(re.compile(r"\b[1-9]\d*/300 sentences")).wait_for()
    opened.get_by_text(re.compile(r"· 300 sentences ·")).wait_for()


def test_a_new_voice_is_in_the_list_of_a_new_page(page, address, folder):
    path = tiny_voices.save(folder / "three", tiny_voices.settings(), step=3)
    visit(page, address)
    choose_voice(page, "three", "one speaker · 8 kHz · G_3.pth")
    speak(page, "I am new here.")
    path.unlink()
    page.get_by_role("button", name="Speak").click()
    page.get_by_text("there is no such voice").wait_for()


def test_a_narrow_window_shows_one_column(opened):
    opened.set_viewport_size({"width": 390, "height": 800})
    speak(opened, SENTENCE)
    assert opened.evaluate("document.documentElement.scrollWidth") <= 390
    button = opened.get_by_role("button", name="Speak").bounding_box()
    sound = opened.get_by_test_id("waveform-Speech").bounding_box()
    assert sound["y"] > button["y"] + button["height"] and sound["x"] + sound["width"] <= 390


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
