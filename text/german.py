"""German dates, ordinal numbers, times, amounts, units, fractions and ranges to words.

"am 3. Oktober um 17:30 Uhr" becomes "am dritten Oktober um siebzehn Uhr dreißig". Other numbers, which espeak-ng reads
well, stay as they are.
"""

import re
from collections.abc import Callable

_MONTH_NAMES = "Januar Februar März April Mai Juni Juli August September Oktober November Dezember"
MONTHS = _MONTH_NAMES.split()
# Words before an ordinal number and its ending after them
ENDINGS = {
    **dict.fromkeys(("am", "dem", "den", "des", "im", "vom", "zum", "zur", "beim", "bis", "ab", "seit"), "n"),
    **dict.fromkeys(("der", "die", "das", "jede", "diese"), ""),
    **dict.fromkeys(("ein", "kein", "jeder", "dieser"), "r"),
}
_BEFORE = rf"(?:\b({'|'.join(ENDINGS)})\s+)"
_ALONE = r"(?<![\d.,:/-])"
_AMOUNT = r"(\d+(?:\.\d{3})*(?:,\d+)?)"
_CURRENCIES = {"€": "Euro", "$": "Dollar", "£": "Pfund", "¥": "Yen"}
_SCALES = {"mio": "Millionen", "mrd": "Milliarden", "tsd": "tausend"}
_SCALE = r"(?:\s?(Mio|Mrd|Tsd)\b\.?)?"
_FRACTIONS = {"2": "halb", "3": "drittel", "4": "viertel", "5": "fünftel", "8": "achtel", "10": "zehntel"}
_UNIT_NAMES = """
    mm=Millimeter, cm=Zentimeter, m=Meter, km=Kilometer, m²=Quadratmeter, km²=Quadratkilometer, m³=Kubikmeter,
    mg=Milligramm, g=Gramm, kg=Kilogramm, ml=Milliliter, l=Liter, km/h=Kilometer pro Stunde, m/s=Meter pro Sekunde,
    °C=Grad Celsius, °F=Grad Fahrenheit, °=Grad, %=Prozent, kW=Kilowatt, kWh=Kilowattstunden, Hz=Hertz, kHz=Kilohertz,
    MHz=Megahertz, GHz=Gigahertz, MB=Megabyte, GB=Gigabyte, TB=Terabyte
"""
_UNITS = dict(unit.strip().split("=") for unit in _UNIT_NAMES.split(","))
_UNIT = "|".join(sorted(map(re.escape, _UNITS), key=len, reverse=True))


def spell_german(text: str) -> str:
    """Return German text with dates, ordinal numbers, times, amounts, units, fractions and ranges in words."""
    for pattern, spoken in _RULES:
        text = pattern.sub(spoken, text)
    return text


def _number(digits: str, kind: str = "cardinal") -> str:
    from num2words import num2words  # imported late because only this option needs it

    return num2words(int(digits), lang="de", to=kind)


def _ordinal(day: str, before: str | None) -> str:
    ending = ENDINGS[before.lower()] if before else "r"
    return f"{before + ' ' if before else ''}{_number(day, 'ordinal')}{ending}"


def _date(match: re.Match) -> str:
    before, day, month, year = match.groups()
    if not (1 <= int(day) <= 31 and 1 <= int(month) <= 12):
        return match[0]
    return f"{_ordinal(day, before)} {MONTHS[int(month) - 1]} {_number(year, 'year')}"


def _time(match: re.Match) -> str:
    hour, minute, second = match.groups()
    spoken = f"{'ein' if int(hour) == 1 else _number(hour)} Uhr"
    if int(minute) or second:
        spoken += f" {_number(minute)}"
    return f"{spoken} und {_number(second)} Sekunden" if second else spoken


def _money(amount: str, scale: str | None, sign: str) -> str:
    whole, _, fraction = amount.partition(",")
    if scale:
        return f"{amount} {_SCALES[scale.lower()]} {_CURRENCIES[sign]}"
    number = "ein" if whole == "1" else whole
    cents = f" {int(fraction)}" if len(fraction) == 2 and int(fraction) else ""
    return f"{number} {_CURRENCIES[sign]}{cents}" if len(fraction) in (0, 2) else f"{amount} {_CURRENCIES[sign]}"


def _fraction(match: re.Match) -> str:
    part, parts = match.groups()
    if parts not in _FRACTIONS or int(part) >= int(parts):
        return match[0]
    return f"{'ein' if part == '1' else _number(part)} {_FRACTIONS[parts]}"


def _range(match: re.Match) -> str:
    first, last = match.groups()
    return f"{first} bis {last}" if int(first) < int(last) else match[0]


_RULES: tuple[tuple[re.Pattern, Callable[[re.Match], str]], ...] = (  # applied in this order
    (re.compile(r"(?<![\d.])\d{1,3}(?:\.\d{1,3}){3}(?!\d|\.\d)"), lambda m: m[0].replace(".", " Punkt ")),
    (re.compile(rf"{_BEFORE}?(?<![\d.])(\d{{1,2}})\.\s?(\d{{1,2}})\.\s?(\d{{4}})(?!\d)", re.IGNORECASE), _date),
    (re.compile(r"(?<![\d.])\d+(?:\.\d{1,2}){2,}(?!\d)"), lambda m: m[0].replace(".", " Punkt ")),
    (
        re.compile(rf"{_BEFORE}?(?<![\d.])(\d{{1,2}})\.(?=\s(?:{'|'.join(MONTHS)})\b)", re.IGNORECASE),
        lambda m: _ordinal(m[2], m[1]),
    ),
    (re.compile(rf"{_BEFORE}(\d{{1,3}})\.(?=\s[^\W\d_])", re.IGNORECASE), lambda m: _ordinal(m[2], m[1])),
    (re.compile(rf"{_ALONE}([01]?\d|2[0-4]):([0-5]\d)(?::([0-5]\d))?(?![\d:])(?:\s?Uhr\b)?"), _time),
    (
        re.compile(rf"([{''.join(_CURRENCIES)}])\s?{_AMOUNT}{_SCALE}", re.IGNORECASE),
        lambda m: _money(m[2], m[3], m[1]),
    ),
    (
        re.compile(rf"{_ALONE}{_AMOUNT}{_SCALE}\s?([{''.join(_CURRENCIES)}])", re.IGNORECASE),
        lambda m: _money(m[1], m[2], m[3]),
    ),
    (re.compile(r"\bNr\.\s?(?=\d)", re.IGNORECASE), lambda m: "Nummer "),
    (re.compile(rf"{_ALONE}(\d{{1,2}})/(\d{{1,2}})(?![\d/])"), _fraction),
    (re.compile(rf"{_ALONE}(\d{{1,4}})\s?[-–]\s?(\d{{1,4}})(?![\d/:-]|[.,]\d)"), _range),
    (re.compile(r"(?<=\d)\s?[×x]\s?(?=\d)"), lambda m: " mal "),
    (
        re.compile(rf"(?<![\d.,]){_AMOUNT}\s?({_UNIT})(?![\w²³/])"),
        lambda m: f"{'ein' if m[1] == '1' else m[1]} {_UNITS[m[2]]}",
    ),
)
