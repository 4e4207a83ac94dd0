"""English numbers to words, for models that read characters.

"$12.50 in 1999" becomes "twelve dollars and fifty cents in nineteen ninety nine".
"""

import re

_NUMBER = r"(\d{1,3}(?:,\d{3})+(?!\d)|\d+)"
_MONEY = re.compile(rf"([$£€])\s?{_NUMBER}(?:\.(\d+))?(\s(?:hundred|thousand|million|billion|trillion)\b)?")
_TIME = re.compile(r"\b(\d{1,2}):([0-5]\d)\b")
_DECADE = re.compile(r"\b(1[1-9]|20)(\d)0'?s\b")
_ORDINAL = re.compile(rf"{_NUMBER}(?:st|nd|rd|th)\b")
_DECIMAL = re.compile(rf"{_NUMBER}?\.(\d+)")
_YEAR = re.compile(r"(?<![\d,])(1[1-9]\d\d|20[1-9]\d)(?!,?\d)")
_WHOLE = re.compile(_NUMBER)
_MINUS = re.compile(r"(?<!\S)-(?=\d)")
_BETWEEN_LETTER_AND_DIGIT = re.compile(r"(?<=[^\W\d_])(?=\d)|(?<=\d)(?=[^\W\d_])")

_CURRENCIES = {
    "$": ("dollar", "dollars", "cent", "cents"),
    "£": ("pound", "pounds", "penny", "pence"),
    "€": ("euro", "euros", "cent", "cents"),
}
_LONGEST_NUMBER = 15  # digits; longer numbers are read digit by digit


def spell_numbers(text: str) -> str:
    """Return lower-case `text` with all numbers in words. Words may be separated by more than one space."""
    text = _MINUS.sub("minus ", text)
    text = _MONEY.sub(_money, text)
    text = _TIME.sub(_time, text)
    text = _DECADE.sub(_decade, text)
    text = _ORDINAL.sub(lambda m: _words(m[1], "ordinal"), text)
    text = _BETWEEN_LETTER_AND_DIGIT.sub(" ", text)
    text = _DECIMAL.sub(lambda m: f" {_decimal(m[1], m[2])} ", text)
    text = _YEAR.sub(lambda m: _words(m[1], "year"), text)
    return _WHOLE.sub(lambda m: _words(m[1]), text)


def _words(digits: str, kind: str = "cardinal") -> str:
    from num2words import num2words  # imported late because only models of characters need it

    digits = digits.replace(",", "")
    if len(digits) > _LONGEST_NUMBER or (len(digits) > 1 and digits[0] == "0"):
        return " ".join(num2words(int(digit)) for digit in digits)
    return num2words(int(digits), to=kind).replace(",", "").replace("-", " ")


def _decimal(whole: str | None, fraction: str) -> str:
    return f"{_words(whole or '0')} point {' '.join(_words(digit) for digit in fraction)}"


def _decade(match: re.Match) -> str:
    century, tens = match.groups()
    plural = {"0": "hundreds", "1": "tens"}.get(tens) or _words(f"{tens}0").removesuffix("y") + "ies"
    return f"{_words(century)} {plural}"


def _money(match: re.Match) -> str:
    sign, whole, fraction, scale = match.groups()
    one, many, one_part, many_parts = _CURRENCIES[sign]
    if scale or (fraction and len(fraction) != 2):
        amount = _decimal(whole, fraction) if fraction else _words(whole)
        return f"{amount}{scale or ''} {many}"
    spoken = f"{_words(whole)} {one if whole == '1' else many}"
    parts = int(fraction or 0)
    return f"{spoken} and {_words(str(parts))} {one_part if parts == 1 else many_parts}" if parts else spoken


def _time(match: re.Match) -> str:
    hour, minute = _words(str(int(match[1]))), match[2]
    if minute == "00":
        return f"{hour} o'clock"
    return f"{hour} {'oh ' if minute[0] == '0' else ''}{_words(str(int(minute)))}"
