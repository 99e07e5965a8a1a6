"""Times, dates and amounts of a text in figures: "an hour" as "1 hour", "the first of April" as "1 April"."""

from __future__ import annotations

import re
from calendar import month_name, monthrange
from functools import lru_cache

from rag.quantities.phrases import with_clock_times
from rag.quantities.units import UNITS
from rag.text.numbers import find_numbers

_ORDINALS = (
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth fifteenth"
    " sixteenth seventeenth eighteenth nineteenth twentieth twenty-first twenty-second twenty-third twenty-fourth"
    " twenty-fifth twenty-sixth twenty-seventh twenty-eighth twenty-ninth thirtieth thirty-first"
)
_DAY_OF_ORDINAL = {word: day for day, word in enumerate(_ORDINALS.split(), 1)}
_MONTH = r"(?:Jan|Feb|Mar|Apr|May|June?|July?|Aug|Sept?|Oct|Nov|Dec)[a-z]{0,6}"
_ORDINAL = "|".join(sorted(_DAY_OF_ORDINAL, key=len, reverse=True)).replace("-", r"[\s-]")
_ORDINAL_DAY = re.compile(
    rf"\b(?:the\s+)?(?P<a>{_ORDINAL})\s+(?:day\s+)?(?:of\s+)?(?P<of>{_MONTH})\b|\b(?P<month>{_MONTH})\s+(?:the\s+)?(?P<b>{_ORDINAL})\b"
)
_NAMED_DAYS = {
    "new year's eve": "31 December",
    "new year's day": "1 January",
    "christmas eve": "24 December",
    "christmas day": "25 December",
    "boxing day": "26 December",
    "halloween": "31 October",
    "valentine's day": "14 February",
    "may day": "1 May",
}
_NAMED_DAY = re.compile(rf"\b(?:{'|'.join(_NAMED_DAYS)})\b", re.I)
_DOTTED_DATE = re.compile(r"(?<![\d.])(?P<day>[12]\d|3[01]|0?[1-9])\.(?P<month>1[0-2]|0?[1-9])\.(?!\d)")
_SLASHED_DATE = re.compile(r"(?<![\d/])(?P<a>\d{1,2})/(?P<b>\d{1,2})/(?P<year>(?:20|19)?\d\d)(?![\d/])")
_SHORT_SLASHED_DATE = re.compile(
    r"(?:(?<=\bon )|(?<=\bby )|(?<=\bis )|(?<=from )|(?<=until )|(?<=the )|^)(?P<a>\d{1,2})/(?P<b>\d{1,2})(?P<year>)"
    r"(?=[\s.,;!)]*$|[.,;!])"
)
_MONTH_OF_YEAR = re.compile(rf"\b({_MONTH}) of ((?:19|20)\d\d)\b")
_LAST_DAY = re.compile(rf"\b(?:the )?last day of (?P<month>{_MONTH})\b")
_MONTHS = tuple(month_name)[1:]
_PART = re.compile(r"\s+(?:half|halves|thirds?|quarters?|fifths?|tenths?)\b", re.I)
_DECIMAL = re.compile(r"\b(?P<whole>\d+) point (?P<digits>\d(?: \d)*)\b")
_LONG_UNITS = "|".join(
    sorted(
        (form for form in UNITS if (len(form) > 3 or form == "day") and form.isalpha()), key=len, reverse=True
    )
)
_ONE_UNIT = re.compile(
    rf"(?P<before>\S{{1,40}}\s+)?\b(?:an?|1)\s+(?:full |whole |good )?(?P<unit>{_LONG_UNITS})\b(?P<half> and a half\b)?",
    re.I,
)
_TIMES = re.compile(r"\b(once|twice)(?= (?:a|an|per|each|every|weekly|daily|monthly|yearly)\b)", re.I)
_STOREY = re.compile(
    rf"\b(?:(?P<word>{_ORDINAL})|(?P<digits>\d+)(?:st|nd|rd|th)) (?P<noun>floor|row|level|storey)\b", re.I
)
_PARTS_OF_ONE = {"half": "0.5", "a": "0.25", "quarter": "0.25", "three": "0.75", "3": "0.75"}
_PART_OF_UNIT = re.compile(
    rf"\b(?P<part>half(?: an?|-)?|a quarter(?: of an?)?|quarter of an?|(?:three|3)[ -]quarters of an?)"
    rf"[ -]?(?P<unit>{_LONG_UNITS})\b",
    re.I,
)
_RATE = re.compile(rf"(?:\d[\d.,]*|[$£€¥%]|\b(?:{_LONG_UNITS}|times|once|twice|only|of))\s*$", re.I)
"""What stands before "an hour" where that is what an amount is for: "12 euros an hour", "twice a week"."""
_HALF_DAY = re.compile(
    r"\b(?P<hour>[1-9]|1[0-2])(?P<minute>[:.][0-5]\d)?(?: o['’]clock)?\s+"
    r"(?:in the (?:(?P<am>morning)|afternoon|evening)|at night|tonight)\b",
    re.I,
)
_BARE_TIME = re.compile(
    r"(?<![\d:.,/-])(?P<hour>[1-9]|1[0-2])(?P<minute>:[0-5]\d)(?![\d:])(?!(?:\s*(?:-|–|to|until|till|and)\s*\d{1,2}(?:[:.]\d\d)?)?"
    r"\s*(?:[ap]\.?\s?m\b|Uhr|h\b|hrs|in the|at night|tonight|/ ))",
    re.I,
)
_ONE_OCLOCK = re.compile(
    r"\bone(?=(?: o['’]clock)? (?:in the (?:morning|afternoon)|at night)\b| o['’]clock\b)", re.I
)
_NO_WEEKENDS = re.compile(
    r"\b(?P<days>(?:\d+|an?|\w+) days?),?\s+(?:\()?(?:not counting|not including|excluding|without|leaving out)"
    r" (?:saturdays|sundays|weekends?|holidays)\b",
    re.I,
)
_THAT_MONTH = re.compile(
    rf"(?P<before>\b(?P<month>{_MONTH})\b[^.;]{{1,80}}?\b(?:the )?\d{{1,2}})(?:st|nd|rd|th)? of (?:that|the same) month\b"
)
_EITHER_HALF = re.compile(r"(?P<first>\d\d:\d\d) / (?P<second>\d\d:\d\d)")
_TWO_NUMBERS = re.compile(
    r"\b(?P<before>at|by|until|till|from|to|before|after|is|and)\s+(?P<hour>\d|1[0-2]) (?P<minute>[0-5][05])\b(?!\s*\w*%)"
)
_PRICE = re.compile(
    r"\b(?P<whole>\d+) (?P<unit>pounds?|euros?|dollars?|francs?) (?:and )?(?P<cents>\d\d)(?: (?:cents?|pence|p))?\b(?! \d)"
)


@lru_cache(maxsize=16384)
def in_figures(text: str, either_half: bool = True) -> str:
    """Return a text with its numbers, times, dates and amounts as figures, as far as they are in English words.

    Args:
        text: the text.
        either_half: whether "5:15" may be in the afternoon, as "quarter past five" always may.
    """
    text = _ONE_OCLOCK.sub("1", text)
    text = _BARE_TIME.sub(_both_halves, text) if either_half else text
    text = with_clock_times(text)
    text = _ORDINAL_DAY.sub(_ordinal_day, text.replace("’", "'"))
    text = _MONTH_OF_YEAR.sub(r"\1 \2", _LAST_DAY.sub(_last_day, text))
    text = _THAT_MONTH.sub(r"\g<before> \g<month>", text)
    text = _SHORT_SLASHED_DATE.sub(lambda m: _slashed_date(m) or m.group(), text)
    text = _NAMED_DAY.sub(lambda m: _NAMED_DAYS[m.group().lower()], text)
    text = _SLASHED_DATE.sub(_slashed_date, text)
    text = _DOTTED_DATE.sub(lambda m: f"{int(m['day'])} {_MONTHS[int(m['month']) - 1]}", text)
    for value, start, end in reversed(find_numbers(text)):
        words = text[start:end]
        if words.isascii() and not re.search(r"\d", words) and not _PART.match(text, end):
            text = text[:start] + value + text[end:]
    text = _NO_WEEKENDS.sub(lambda m: re.sub(r"(?= days?$)", " working", m["days"]), text)
    text = _DECIMAL.sub(lambda m: f"{m['whole']}.{m['digits'].replace(' ', '')}", text)
    text = _TWO_NUMBERS.sub(lambda m: f"{m['before']} {m['hour']}:{m['minute']}", text)
    text = _HALF_DAY.sub(_half_day, text)
    text = _PRICE.sub(lambda m: f"{m['whole']}.{m['cents']} {m['unit']}", text)
    text = _TIMES.sub(lambda m: f"{'1' if m[1].lower() == 'once' else '2'} times", text)
    text = _STOREY.sub(lambda m: f"{m['noun']} {m['digits'] or _DAY_OF_ORDINAL[m['word'].lower()]}", text)
    text = _PART_OF_UNIT.sub(_part_of_unit, text)
    return _ONE_UNIT.sub(_one_unit, text)


def readings(text: str) -> tuple[str, ...]:
    """Return the texts in figures that a text may mean: one for each half of the day where it names none."""
    plain = in_figures(text, False)
    if not _EITHER_HALF.search(plain):
        return (plain,)
    return tuple(_EITHER_HALF.sub(rf"\g<{half}>", plain) for half in ("first", "second"))


def _both_halves(match: re.Match[str]) -> str:
    """Return "5:15" as "05:15 / 17:15"."""
    hour = int(match["hour"]) % 12
    return f"{hour:02d}{match['minute']} / {hour + 12:02d}{match['minute']}"


def _half_day(match: re.Match[str]) -> str:
    """Return "7 in the evening" as "7 pm"; 12 at night is midnight."""
    midnight = match["hour"] == "12" and "night" in match.group().lower()
    return f"{match['hour']}{match['minute'] or ''} {'am' if match['am'] or midnight else 'pm'}"


def _ordinal_day(match: re.Match[str]) -> str:
    word = (match["a"] or match["b"]).lower().replace(" ", "-")
    return f"{_DAY_OF_ORDINAL[word]} {match['of'] or match['month']}"


def _last_day(match: re.Match[str]) -> str:
    month = next(n for n, name in enumerate(_MONTHS, 1) if name.startswith(match["month"][:3]))
    return f"{monthrange(2001, month)[1]} {match['month']}"


def _slashed_date(match: re.Match[str]) -> str:
    """Return 22/06/2024 and 06/22/2024 as one; 05/12/2024 as both days that it may be."""
    first, second = int(match["a"]), int(match["b"])
    year = f"20{match['year']}" if len(match["year"]) == 2 else match["year"]
    days = dict.fromkeys(
        f"{day} {_MONTHS[month - 1]} {year}".strip()
        for day, month in ((first, second), (second, first))
        if 1 <= day <= 31 and 1 <= month <= 12
    )
    return " / ".join(days) or match.group()


def _part_of_unit(match: re.Match[str]) -> str:
    """Return "0.5 day" for "half-day" and "half a day"."""
    part = re.split(r"[ -]", match["part"].lower())[0]
    return f"{_PARTS_OF_ONE[part]} {match['unit']}"


def _one_unit(match: re.Match[str]) -> str:
    """Return "1 hour" for "an hour", but for one that an amount is for ("12 euros an hour")."""
    before = match["before"] or ""
    if _RATE.search(before) or before.strip().lower() in ("half", "quarter", "quarters"):
        return match.group()
    return f"{before}{'1.5' if match['half'] else '1'} {match['unit']}"
