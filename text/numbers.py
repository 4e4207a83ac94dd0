"""English numbers to words: dates, times, amounts, units, fractions and ranges.

"$12.50 in 1999" becomes "twelve dollars and fifty cents in nineteen ninety nine".
"""

import re
import unicodedata
from collections.abc import Callable

_NUMBER = r"(\d{1,3}(?:,\d{3})+(?!\d)|(?<!\d)\d+)"  # without the lookbehind, the search takes quadratic time
_ALONE = r"(?<![\d.,:/-])"  # before the first digit of a number that is not part of a longer one
_SIGNS = "[$£€¥]"
_SCALED = r"(\s(?:hundred|thousand|million|billion|trillion)\b|\s?(?:bn|tn|[kmb])\b)?"
_MONTH_NAMES = "january february march april may june july august september october november december"
_MONTHS = _MONTH_NAMES.split()
_ADDRESS = re.compile(r"(?<![\d.])\d{1,3}(?:\.\d{1,3}){3}(?![\d]|\.\d)")
_DAY_FIRST = re.compile(r"(?<![\d.])(?:the )?(\d{1,2})\.(\d{1,2})\.(\d{4})(?!\d|\.\d)", re.IGNORECASE)
_YEAR_FIRST = re.compile(rf"{_ALONE}(?:the )?(\d{{4}})-(\d\d)-(\d\d)(?![\d-])", re.IGNORECASE)
_SLASHED = re.compile(rf"{_ALONE}(?:the )?(\d{{1,2}})/(\d{{1,2}})/(\d{{4}})(?![\d/])", re.IGNORECASE)
_VERSION = re.compile(r"(?<![\d.])\d+(?:\.\d+){2,}(?![\d]|\.\d)")
_HALF_DAY = re.compile(rf"{_ALONE}(\d{{1,2}})(?::([0-5]\d))?\s?([ap])\.?m\b\.?", re.IGNORECASE)
_SECONDS = re.compile(r"(?<![\d:])(\d{1,2}):([0-5]\d):([0-5]\d)(?![\d:])")
_TIME = re.compile(r"\b(\d{1,2}):([0-5]\d)\b")
_MONEY = re.compile(rf"(?<!\d)({_SIGNS})\s?{_NUMBER}(?:\.(\d+))?{_SCALED}", re.IGNORECASE)
_MONEY_LAST = re.compile(rf"(?<!\d){_NUMBER}(?:\.(\d+))?{_SCALED}\s?({_SIGNS})", re.IGNORECASE)
_NUMERO = re.compile(r"(?:\bno(s?)\.|№)\s?(?=\d)", re.IGNORECASE)
_FRACTION = re.compile(rf"{_ALONE}(?:(\d+)\s+)?(\d{{1,2}})/(\d{{1,3}})(?![\d/]|[.,]\d)")
_RANGE = re.compile(rf"{_ALONE}(\d+(?:\.\d+)?)\s?[-–—]\s?(\d+(?:\.\d+)?)(?![\d/:-]|[.,]\d)")
_TIMES = re.compile(r"(?<=\d)\s?[×x]\s?(?=\d)", re.IGNORECASE)
_DECADE = re.compile(r"\b(1[1-9]|20)(\d)0'?s\b")
_ORDINAL = re.compile(rf"{_NUMBER}(?:st|nd|rd|th)\b", re.IGNORECASE)
_DECIMAL = re.compile(rf"{_NUMBER}?\.(\d+)")
_YEAR = re.compile(r"(?<![\d,])(1[1-9]\d\d|20[1-9]\d)(?!,?\d)")
_WHOLE = re.compile(_NUMBER)
_VULGAR = re.compile("[¼-¾⅐-⅞]")
_MINUS = re.compile(r"(?<!\S)[-−](?=\d)")
_BETWEEN_LETTER_AND_DIGIT = re.compile(r"(?<=[^\W\d_])(?=\d)|(?<=\d)(?=[^\W\d_])")

_CURRENCIES = {
    "$": ("dollar", "dollars", "cent", "cents"),
    "£": ("pound", "pounds", "penny", "pence"),
    "€": ("euro", "euros", "cent", "cents"),
    "¥": ("yen", "yen", "sen", "sen"),
}
_SCALES = {"k": "thousand", "m": "million", "b": "billion", "bn": "billion", "tn": "trillion"}
_UNIT_NAMES = """
    mm=millimeter, cm=centimeter, m=meter, km=kilometer, mi=mile, yd=yard, m²=square meter, km²=square kilometer,
    m³=cubic meter, mg=milligram, g=gram, kg=kilogram, lb=pound, lbs=pound, oz=ounce, ml=milliliter, l=liter,
    ms=millisecond, min=minute, hz=hertz, khz=kilohertz, mhz=megahertz, ghz=gigahertz, kb=kilobyte, mb=megabyte,
    gb=gigabyte, tb=terabyte, kw=kilowatt, kwh=kilowatt hour, km/h=kilometer per hour, m/s=meter per second,
    mph=mile per hour, °=degree, °c=degree celsius, °f=degree fahrenheit
"""
_UNITS = dict(unit.strip().split("=") for unit in _UNIT_NAMES.split(","))
_UNIT = re.compile(
    rf"(?<![\d.])(\d[\d,]{{0,99}}(?:\.\d+)?)\s?({'|'.join(sorted(_UNITS, key=len, reverse=True))})(?![\w²³/])",
    re.IGNORECASE,
)
_FRACTION_SLASH = "\u2044"
_LONGEST_NUMBER = 15  # digits; longer numbers are read digit by digit


def spell_numbers(text: str) -> str:
    """Return English text with all numbers in words, in lower case. Words may be separated by more than one space."""
    for pattern, spoken in _RULES:
        text = pattern.sub(spoken, text)
    return text


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


def _money(sign: str, whole: str, fraction: str | None, scale: str | None) -> str:
    one, many, one_part, many_parts = _CURRENCIES[sign]
    if scale or (fraction and len(fraction) != 2):
        amount = _decimal(whole, fraction) if fraction else _words(whole)
        scale = (scale or "").strip().lower()
        return " ".join(filter(None, (amount, _SCALES.get(scale, scale), many)))
    spoken = f"{_words(whole)} {one if whole == '1' else many}"
    parts = int(fraction or 0)
    return f"{spoken} and {_words(str(parts))} {one_part if parts == 1 else many_parts}" if parts else spoken


def _date(match: re.Match, day: str, month: str, year: str) -> str:
    if not (1 <= int(day) <= 31 and 1 <= int(month) <= 12):
        return match[0]
    return f"the {_words(str(int(day)), 'ordinal')} of {_MONTHS[int(month) - 1]} {_words(year, 'year')}"


def _slashed(match: re.Match) -> str:
    first, second, year = match.groups()  # the month is first, as in the United States, where that is possible
    return _date(match, first, second, year) if int(first) > 12 else _date(match, second, first, year)


def _time(match: re.Match) -> str:
    minutes = _minutes(match[2]) or "o'clock"
    return f"{_words(str(int(match[1])))} {minutes}"


def _half_day(match: re.Match) -> str:
    minutes = _minutes(match[2] or "00")
    return f"{_words(str(int(match[1])))} {minutes + ' ' if minutes else ''}{match[3].lower()}.m."


def _minutes(digits: str) -> str:
    spoken = _words(str(int(digits)))
    return "" if digits == "00" else f"oh {spoken}" if digits[0] == "0" else spoken


def _seconds(match: re.Match) -> str:
    counts = [_counted(str(int(n)), unit) for n, unit in zip(match.groups(), ("hour", "minute", "second"))]
    return f"{counts[0]} {counts[1]} and {counts[2]}"


def _counted(number: str, unit: str) -> str:
    """Return a number and its unit, of which the first word that can be counted is in the plural."""
    head, space, rest = unit.partition(" per ") if " per " in unit else unit.partition(" ")
    if head in ("square", "cubic", "kilowatt"):
        head, space, rest = unit, "", ""
    same = number == "1" or head.endswith("hertz")
    return f"{number} {head if same else head + 's'}{space}{rest}"


def _fraction(match: re.Match) -> str:
    whole, part, parts = match.groups()
    if not 0 < int(part) < int(parts) <= 100:
        return match[0]
    name = {"2": "half", "4": "quarter"}.get(parts) or _words(parts, "ordinal")
    plural = "halves" if name == "half" else f"{name}s"
    spoken = f"{_words(part)} {name if part == '1' else plural}"
    return f"{_words(whole)} and {spoken}" if whole else spoken


def _range(match: re.Match) -> str:
    first, last = match.groups()
    telephone = len(first) == 3 and len(last) == 4
    return match[0] if float(first) >= float(last) or telephone else f"{first} to {last}"


_RULES: tuple[tuple[re.Pattern, Callable[[re.Match], str]], ...] = (  # applied in this order
    (_VULGAR, lambda m: f" {unicodedata.normalize('NFKC', m[0]).replace(_FRACTION_SLASH, '/')}"),
    (_MINUS, lambda m: "minus "),
    (_ADDRESS, lambda m: " dot ".join(" ".join(map(_words, part)) for part in m[0].split("."))),
    (_DAY_FIRST, lambda m: _date(m, m[1], m[2], m[3])),
    (_YEAR_FIRST, lambda m: _date(m, m[3], m[2], m[1])),
    (_SLASHED, _slashed),
    (_VERSION, lambda m: " point ".join(map(_words, m[0].split(".")))),
    (_HALF_DAY, _half_day),
    (_SECONDS, _seconds),
    (_TIME, _time),
    (_MONEY, lambda m: _money(*m.groups())),
    (_MONEY_LAST, lambda m: _money(m[4], m[1], m[2], m[3])),
    (_NUMERO, lambda m: "numbers " if m[1] else "number "),
    (_FRACTION, _fraction),
    (_RANGE, _range),
    (_TIMES, lambda m: " times "),
    (_UNIT, lambda m: _counted(m[1], _UNITS[m[2].lower()])),
    (_DECADE, _decade),
    (_ORDINAL, lambda m: _words(m[1], "ordinal")),
    (_BETWEEN_LETTER_AND_DIGIT, lambda m: " "),
    (_DECIMAL, lambda m: f" {_decimal(m[1], m[2])} "),
    (_YEAR, lambda m: _words(m[1], "year")),
    (_WHOLE, lambda m: _words(m[1])),
)
