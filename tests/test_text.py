"""Symbols, ids, cleaners and phonemes, against the reference, phonemizer and expected texts."""

import ctypes.util
import json
import multiprocessing
import shutil
import subprocess
import sys
import threading
import time
import warnings
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import text
from text import cleaners, espeak
from text.symbols import SPACE_ID, symbols

GOLDEN = json.loads((Path(__file__).parent / "golden" / "text.json").read_text(encoding="utf-8"))
NAMES = ["basic_cleaners", "transliteration_cleaners", "english_cleaners", "english_cleaners2", "english_cleaners3"]
SENTENCES = [
    "In being comparatively modern, it was built of brick; the rooms (forty-eight) were small.",
    '"Well," he said: "3,500 men, or 2.5 % of them - who knows?"',
    "Dr. Smith's e-mail… arrived at 11:45 p.m., didn't it?!",
    "  Hello ,  world .  ",
    "No. 7, 1.5. And so on; 5.",
]


def test_symbols_equal_those_of_vits():
    assert symbols == list(GOLDEN["symbols"])
    assert len(symbols) == 178 and symbols[SPACE_ID] == " "


@pytest.mark.parametrize("name", NAMES)
def test_cleaners_equal_the_reference(name):
    for case in GOLDEN["cases"]:
        assert text.clean_text(case["text"], [name]) == case[name]


@pytest.mark.filterwarnings("ignore:symbol")
def test_ids_equal_the_reference():
    for case in GOLDEN["cases"]:
        assert text.text_to_sequence(case["text"], ["english_cleaners2"]) == case["ids_english_cleaners2"]


def test_a_symbol_that_occurs_twice_has_the_second_id():
    assert text.cleaned_text_to_sequence("'") == [176]


@given(st.lists(st.sampled_from(symbols)).map("".join))
def test_sequence_to_text_inverts_cleaned_text_to_sequence(cleaned):
    assert text.sequence_to_text(text.cleaned_text_to_sequence(cleaned)) == cleaned


def test_unknown_symbols_are_skipped_and_counted_with_one_warning_each():
    assert text.unknown_symbols("(a) 7(") == Counter({"(": 2, ")": 1, "7": 1})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(3):
            assert text.cleaned_text_to_sequence("(a((") == text.cleaned_text_to_sequence("a")
    assert [str(w.message) for w in caught] == ["symbol '(' (U+0028) is not in the table and is left out"]


def test_extra_symbols_have_the_ids_after_the_table():
    ids = text.cleaned_text_to_sequence("ɑ̃5", extra_symbols="5\u0303")
    assert ids == [symbols.index("ɑ"), 179, 178]
    assert text.sequence_to_text(ids, "5\u0303") == "ɑ̃5"
    assert not text.unknown_symbols("ɑ̃5", "5\u0303")
    for repeated in ("5a", "55"):
        with pytest.raises(ValueError, match="extra_symbols"):
            text.cleaned_text_to_sequence("a", repeated)


def test_error_for_an_unknown_cleaner_names_the_nearest_and_all():
    with pytest.raises(ValueError, match=r"'english_cleaner2'; nearest: english_cleaners2; all: basic.*phonemes_"):
        text.text_to_sequence("a", ["english_cleaner2"])


def test_every_registered_cleaner_is_found_by_its_name():
    for name, cleaner in cleaners.CLEANERS.items():
        assert cleaners.get_cleaner(name) is cleaner
        assert cleaner("A dog.")


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("It costs $12.50 in 1999.", "it costs twelve dollars and fifty cents in nineteen ninety nine."),
        ("£1, €2.01; $3.5 million", "one pound, two euros and one cent; three point five million dollars"),
        ("The 3rd of May, 2021, at 11:45", "the third of may, twenty twenty one, at eleven forty five"),
        ("1,234 men at 5:00 or 5:07", "one thousand two hundred and thirty four men at five o'clock or five oh seven"),
        ("the 1960s - 2.05 & 50%", "the nineteen sixties two point zero five and fifty percent"),
        ("agent 007 at -5 degrees", "agent zero zero seven at minus five degrees"),
        ("Mrs. Lee — a (good) friend…", "missus lee, a good friend..."),
        ("well-known café, ½ m²", "well known cafe, one two m two"),
    ],
)
def test_english_characters(written, expected):
    assert cleaners.english_characters(written) == expected


@given(st.text(max_size=60) | st.text("0123456789.,:$£€%- ()st'x\u0663", max_size=30))
@settings(max_examples=200, deadline=None)
def test_english_characters_produce_only_symbols_with_ids(written):
    assert not text.unknown_symbols(cleaners.english_characters(written))


@pytest.mark.parametrize("language", ["en-us", "de", "fr-fr", "pt-br"])
@pytest.mark.parametrize("marks_and_stress", [True, False])
def test_phonemes_equal_those_of_phonemizer(language, marks_and_stress):
    wrapper = pytest.importorskip("phonemizer.backend.espeak.wrapper").EspeakWrapper
    library, data = espeak.find()
    wrapper.set_library(library)
    wrapper.set_data_path(data)
    from phonemizer.backend import EspeakBackend

    backend = EspeakBackend(
        language,
        preserve_punctuation=marks_and_stress,
        with_stress=marks_and_stress,
        language_switch="remove-flags",
    )
    ours = [espeak.phonemize(line, language, marks_and_stress, marks_and_stress) for line in SENTENCES]
    assert ours == [backend.phonemize([line], strip=True)[0] for line in SENTENCES]


def test_no_text_is_lost_after_a_decimal_point():
    assert espeak.phonemize("it is 1.5 x.") == "ɪɾ ɪz wˈʌn pɔɪnt fˈaɪv ˈɛks."


def test_language_switches_are_removed():
    assert espeak.phonemize("le football", "fr-fr") == "lə- fˈʊtbɔːl"


def test_phonemes_of_other_languages():
    assert text.clean_text("Schöne Straße, „gut“!", ["phonemes_de"]) == "ʃˈøːnə ʃtɾˈɑːsə, “ɡˈuːt“!"
    assert text.clean_text("du pain (bon)", ["phonemes_fr"]) == text.clean_text("du pain bon", ["phonemes_fr-fr"])
    assert cleaners.phonemes("a。", "en-us") == cleaners.phonemes("a.", "en-us")
    with pytest.raises(espeak.EspeakError, match=r"no language 'en-uk'; nearest: .*en-us.*all: af am"):
        text.clean_text("a", ["phonemes_en-uk"])


def test_unusual_text_causes_no_error():
    for odd in ["", " ", "...", "\0", "a\0b", "\ud800", "-" * 500, "a" * 5000, "🙂"]:
        espeak.phonemize(odd)
    assert "bˈiː" in espeak.phonemize("a\0b")


def test_phonemes_do_not_depend_on_earlier_calls():
    alone = [(espeak.phonemize(line), espeak.phonemize(line, "de")) for line in SENTENCES]
    backwards = [(espeak.phonemize(line), espeak.phonemize(line, "de")) for line in reversed(SENTENCES)]
    assert backwards == alone[::-1]


def test_threads_can_share_the_library():
    expected = {lang: [espeak.phonemize(line, lang) for line in SENTENCES] for lang in ("en-us", "de", "fr-fr")}
    wrong = []

    def work(language):
        for _ in range(40):
            if [espeak.phonemize(line, language) for line in SENTENCES] != expected[language]:
                wrong.append(language)

    threads = [threading.Thread(target=work, args=(language,)) for language in expected for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def _phonemize_into(queue, line):
    queue.put(espeak.phonemize(line))


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:This process")
def test_a_process_can_fork_while_another_thread_phonemizes():
    expected = espeak.phonemize(SENTENCES[0])
    stop = threading.Event()

    def work():
        while not stop.is_set():
            espeak.phonemize(SENTENCES[1], "de")

    thread = threading.Thread(target=work)
    thread.start()
    try:
        context = multiprocessing.get_context("fork")
        for _ in range(10):
            queue = context.Queue()
            child = context.Process(target=_phonemize_into, args=(queue, SENTENCES[0]), daemon=True)
            child.start()
            assert queue.get(timeout=10) == expected
            child.join()
    finally:
        stop.set()
        thread.join()


def test_importing_loads_neither_espeak_nor_optional_packages():
    program = (
        "import sys, text, text.cleaners, preprocess; "
        "from text import espeak; assert espeak._espeak is None; "
        "assert not {'espeakng_loader', 'phonemizer', 'num2words'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, cwd=Path(text.__file__).parents[1])


def test_error_for_a_missing_library_names_the_package_to_install(monkeypatch):
    monkeypatch.delenv("PHONEMIZER_ESPEAK_LIBRARY", raising=False)
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    monkeypatch.setattr(ctypes.util, "find_library", lambda name: None)
    with pytest.raises(espeak.EspeakError, match="pip install espeakng-loader"):
        espeak.find()
    monkeypatch.setattr(ctypes.util, "find_library", lambda name: "libespeak-ng.so.1")
    assert espeak.find() == ("libespeak-ng.so.1", None)


def test_library_named_by_the_environment_has_priority(monkeypatch, tmp_path):
    library, data = espeak.find()
    monkeypatch.setenv("PHONEMIZER_ESPEAK_LIBRARY", str(tmp_path / "none.so"))
    with pytest.raises(espeak.EspeakError, match=r"none\.so is not a file"):
        espeak.find()
    (tmp_path / "none.so").write_text("")
    monkeypatch.setenv("PHONEMIZER_ESPEAK_DATA_PATH", data)
    assert espeak.find() == (str(tmp_path / "none.so"), data)
    with pytest.raises(espeak.EspeakError, match="does not load"):
        espeak.Espeak(*espeak.find())
    copy = shutil.copy(library, tmp_path)  # a copy, because the state of the loaded library must not change
    with pytest.raises(espeak.EspeakError, match="does not start with the data in /nowhere"):
        espeak.Espeak(copy, "/nowhere")


def test_a_line_of_spaces_takes_linear_time():
    began = time.process_time()
    assert not text.clean_text(" " * 20_000, ["english_cleaners2"]).strip()
    assert time.process_time() - began < 5  # 16 seconds before
