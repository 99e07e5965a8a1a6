"""Amounts and times in words of their own: "half an hour", "two thirds of", "twice a week", "a quarter to eight"."""

from __future__ import annotations

import re
from decimal import Decimal

from rag.quantities.comparing import Quantity
from rag.quantities.units import UNITS

_FRACTION = re.compile(
    r"\b(?:(?P<n>an?|one|two|three|four)[\s-](?P<part>half|third|quarter|fifth|tenth)s?(?=\s+of\b|\s*[,.;]|\s*$"
    r"|\s+(?:more|less|fewer))"
    r"|(?P<half>half)(?=\s+(?:of|the|its|his|her|their|our|all)\b))",
    re.I,
)
_PARTS = {
    "half": Decimal("0.5"),
    "third": Decimal(1) / 3,
    "quarter": Decimal("0.25"),
    "fifth": Decimal("0.2"),
    "tenth": Decimal("0.1"),
}
_COUNTS = {"a": 1, "an": 1, "one": 1, "two": 2, "three": 3, "four": 4}
_PART_OF_UNIT = re.compile(
    r"\b(?:(?P<half>half an?)|(?P<quarter>a quarter of an?)|(?P<quarters>three quarters of an?))\s+(?P<unit>[a-z]+)\b"
    r"|\b(?:(?:for|after|in|within|lasting|takes?|took|lasts?|lasted|about|least|most|up to|than|over|under"
    r"|needs?) )(?P<whole>an?)\s+(?P<long>hour|day|week|fortnight|month|year|minute|decade|century|kilo(?:gram"
    r"|metre)?|litre|metre|mile)\b(?! (?:ticket|pass|trip|job|care|centre|before|after|ago))"
    r"(?P<and>\s+and\s+a\s+half)?|(?<!of )\bevery (?P<every>hour|week|month|quarter|year)\b",
    re.I,
)
_FREQUENCY = re.compile(
    r"\b(?P<n>once|twice|thrice)(?=\s+(?:a|an|per|each|every|daily|weekly|monthly|yearly|in)\b)", re.I
)
_SPOKEN_TIME = re.compile(
    r"\b(?:(?P<past>half[\s-]past)|(?P<halb>halb)|(?P<after>(?:a )?quarter past|viertel nach)"
    r"|(?P<before>(?:a )?quarter to|viertel vor))\s+(?P<hour>\d{1,2}|[^\W\d]+)\b"
    r"|\b(?P<full>\d{1,2}|[a-z]+) o['’]clock\b"
    r"|(?:\b(?P<minutes>five|ten|twenty(?:[\s-]five)?|5|10|20|25)(?:\s+minutes?)?\s+past"
    r"|(?<=\b(?:at|by) )(?P<left>five|ten|twenty(?:[\s-]five)?|5|10|20|25)(?:\s+minutes?)?\s+to)\s+"
    r"(?P<of>\d{1,2}|[a-z]+)\b(?!\s+[a-z]+s\b)",
    re.I,
)
_EVENING = re.compile(
    r"\s+(?:(?P<pm>in the (?:evening|afternoon)|at night|p\.?m\b)|in the morning|a\.?m\b)", re.I
)
_HOURS = {
    word: n
    for words_of_hours in (
        "one two three four five six seven eight nine ten eleven twelve",
        "eins zwei drei vier fünf sechs sieben acht neun zehn elf zwölf",
    )
    for n, word in enumerate(words_of_hours.split(), 1)
} | {"ein": 1}
_MINUTES = {"five": 5, "ten": 10, "twenty": 20, "twentyfive": 25, "5": 5, "10": 10, "20": 20, "25": 25}
_FREQUENCIES = {"once": "1", "twice": "2", "thrice": "3"}


def _fraction(match: re.Match[str]) -> Quantity | None:
    """Return the quantity of words such as "half an hour", "two thirds of" and "twice a week"."""
    groups = match.groupdict()
    start, end = match.start(), match.end()
    unit = "share"
    if groups.get("part") or (groups.get("half") and "unit" not in groups):
        value = _PARTS[(groups["part"] or "half").lower()] * _COUNTS[(groups["n"] or "a").lower()]
    elif "unit" in groups:
        name = groups["unit"] or groups["long"] or groups["every"]
        unit = UNITS.get((name or "").lower(), "")
        if not unit or len(name or "") < 3:
            return None
        value = (
            Decimal("0.5") if groups["half"] else Decimal("0.25") if groups["quarter"] else Decimal("0.75")
        )
        if not (groups["half"] or groups["quarter"] or groups["quarters"]):
            value = Decimal("1.5") if groups["and"] else Decimal(1)
            start = match.start("whole" if groups["whole"] else "every")
    else:
        value, unit = Decimal(_FREQUENCIES[groups["n"].lower()]), "times"
    text = format(round(value, 4).normalize(), "f")
    return Quantity(value=text, date=None, unit=unit, bound="", start=start, end=end, through=end)


def spoken_times(text: str) -> frozenset[str]:
    """Return times such as "half past six" and "Viertel vor acht", in both halves of the day where none is named."""
    return frozenset(time for match in _SPOKEN_TIME.finditer(text) for time in _clock_times(match))


def with_clock_times(text: str) -> str:
    """Return a text with "half past six" as "06:30 / 18:30", as one time where the half of the day is named."""
    for match in reversed(list(_SPOKEN_TIME.finditer(text))):
        if times := _clock_times(match):
            named = _EVENING.match(text, match.end())
            text = text[: match.start()] + " / ".join(times) + text[(named or match).end() :]
    return text


def _clock_times(match: re.Match[str]) -> list[str]:
    quantity = _spoken_time(match)
    if quantity is None:
        return []
    hour, _, minute = quantity.value.partition(":")
    named = _EVENING.match(match.string, match.end())
    halves = (int(hour),) if named else (int(hour) % 12, int(hour) % 12 + 12)
    return [f"{half:02d}:{minute}" for half in halves]


def _spoken_time(match: re.Match[str]) -> Quantity | None:
    """Return a time such as "half past six"; without "in the evening" it is in either half of the day."""
    word = (match["hour"] or match["full"] or match["of"]).lower()
    hour = int(word) if word.isdigit() else _HOURS.get(word, 0)
    if not 0 < hour <= 12:
        return None
    hour -= match["before"] is not None or match["halb"] is not None or match["left"] is not None
    few = _MINUTES.get(re.sub(r"[\s-]", "", (match["minutes"] or match["left"] or "").lower()), 0)
    minute = (
        f"{60 - few if match['left'] else few:02d}"
        if few
        else "30"
        if match["past"] or match["halb"]
        else "15"
        if match["after"]
        else "45"
        if match["before"]
        else "00"
    )
    half = _EVENING.match(match.string, match.end())
    value = f"{hour % 12 or 12}:{minute}" if hour % 12 else f"0:{minute}"
    if half:
        value = f"{hour % 12 + 12 * bool(half['pm']):02d}:{minute}"
    end = half.end() if half else match.end()
    return Quantity(value=value, date=None, unit="", bound="", start=match.start(), end=end, through=end)
