"""Written words beside the words of the symbols."""

import pytest

from synthesis.words import written_words
from text import clean_text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello there.", ["Hello", "there."]),
        ("In 1999 it was & is.", ["In", "1999", "1999", "1999", "it", "was", "&", "is."]),
        ("One of the best in the world.", ["One", "of the", "best", "in the", "world."]),
        ("The one that it was for.", ["The", "one", "that it", "was", "for."]),
        ("It cost $3.50, Dr. Smith.", ["It", "cost", *5 * ["$3.50,"], "Dr.", "Smith."]),
    ],
)
def test_numbers_and_joined_words(text, expected):
    symbols = clean_text(text, ["english_cleaners2"])
    assert written_words(text, symbols.split(), lambda word: clean_text(word, ["english_cleaners2"])) == expected


def test_words_without_a_text_or_without_likeness():
    assert written_words("", ["a", "b"], str) == ["", ""]
    assert len(written_words("one two", ["x", "y", "z"], str)) == 3
