"""Long text is split at the ends of sentences, in any language, and not after abbreviations and numbers."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synthesis.sentences import split


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("Hello there. How are you? I'm fine!", ["Hello there.", "How are you?", "I'm fine!"]),
        ("Mr. Smith met Dr. J. Jones on Jan. 3. Again.", ["Mr. Smith met Dr. J. Jones on Jan. 3. Again."]),
        ("It costs 3.50. They paid 1994. Later more.", ["It costs 3.50.", "They paid 1994.", "Later more."]),
        ("Er kam am 3. Mai, z.B. nach Bonn. Dann ging er.", ["Er kam am 3. Mai, z.B. nach Bonn.", "Dann ging er."]),
        ('"Really?" he asked. "Yes." She left.', ['"Really?" he asked.', '"Yes."', "She left."]),
        ("Well... maybe. Or not…", ["Well... maybe.", "Or not…"]),
        ("你好。今天天气很好！你呢？", ["你好。", "今天天气很好！", "你呢？"]),
        ("यह है। वह है।", ["यह है।", "वह है।"]),
        ("كيف حالك؟ بخير.", ["كيف حالك؟", "بخير."]),
        ("no capitals here. so every mark ends. good", ["no capitals here.", "so every mark ends.", "good"]),
        ("hˈaɪ ðɛɹ. hˌaʊ ɑːɹ juː?", ["hˈaɪ ðɛɹ.", "hˌaʊ ɑːɹ juː?"]),
        ("A wrapped\nline\n\nA title", ["A wrapped line", "A title"]),
        ("No", ["No"]),
        (" \n\n ", []),
        ("", []),
    ],
)
def test_text_is_split_into_sentences(text, pieces):
    assert [piece.text for piece in split(text)] == pieces
    assert all(piece.ends for piece in split(text))


def test_long_sentences_are_cut_at_the_best_place():
    clauses = "One clause here, and a second one there; " * 8
    pieces = split(clauses + "the end.", max_characters=100)
    assert all(piece.text.endswith(";") for piece in pieces[:-1])
    assert [piece.ends for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    assert [len(piece.text) for piece in split("word " * 60, 100)] == [99, 99, 99]
    assert [len(piece.text) for piece in split("x" * 250, 100)] == [100, 100, 50]


@given(st.text(alphabet="aB.!?,;。 \n\"'1…", max_size=300), st.integers(5, 50))
def test_pieces_are_complete_and_not_too_long(text, max_characters):
    pieces = [piece.text for piece in split(text, max_characters)]
    assert "".join("".join(pieces).split()) == "".join(text.split())
    assert all(0 < len(piece) <= max_characters and piece == piece.strip() for piece in pieces)


MARKS = ("..", ". ", "!", "! ", "?!) ", "。", ".,", " .", "\n ")
WORDS = ("Mr. ", "A mr. ", "J. ", "z.B. ", "a.", "A. b ", "Abc. ")


@pytest.mark.parametrize("part", MARKS + WORDS)
def test_splitting_takes_linear_time(part):
    text = "A" + part * (100_000 // len(part))
    began = time.process_time()
    split(text)
    assert time.process_time() - began < 2  # quadratic time takes minutes
