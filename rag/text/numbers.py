"""The checkable parts of a sentence: its numbers and times, and whether it affirms or denies.

Citations, gold passages and the trial's scores all use this module, so that they agree on what a fact is; it
therefore needs the standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal

from rag.text.words import sentences

_UNIT_WORDS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
)
_TEN_WORDS = "twenty thirty forty fifty sixty seventy eighty ninety"
_UNITS = _UNIT_WORDS.split()
_TENS = _TEN_WORDS.split()
_WORD_VALUES = {word: n for n, word in enumerate(_UNITS)}
_WORD_VALUES |= {word: 20 + 10 * n for n, word in enumerate(_TENS)}
_NUMBER_WORDS = "|".join(sorted(_WORD_VALUES, key=len, reverse=True))
_SPELT_NUMBER = re.compile(
    rf"\b(?P<lead>{_NUMBER_WORDS})(?:[\s-](?P<unit>{'|'.join(_UNITS[1:10])}))?\b"
    r"(?:\s+(?P<scale>hundred|thousand|million))?",
    re.I,
)
_ONE_AS_PRONOUN = re.compile(
    r"(?:\b(?:this|that|which|each|any|every|no|the|another|other|only|some|right|good)\s+one\b)"
    r"|\bone(?=\s+(?:of|is|that|who|which|can|could|will|would|another|should|may|or|and|in|at|on|for|to|with)\b"
    r"|\s*[^\w\s-]|\s*$)",
    re.I,
)
_SCALES = {"hundred": 100, "thousand": 1000, "million": 1_000_000}
_HALF = r"(?P<{0}>a\.?\s?m\b\.?|p\.?\s?m\b\.?)"
"""Half of the day: a.m. or p.m."""
_RANGE = re.compile(
    r"(?<![\w.:])(?P<h1>\d{1,2})(?:[:.](?P<m1>[0-5]\d))?\s*(?P<sep>-|–|—|to|until|till|and)\s*"
    r"(?P<h2>\d{1,2})(?:[:.](?P<m2>[0-5]\d))?\s*" + _HALF.format("half"),
    re.I,
)
_TIME = re.compile(
    r"(?<![\w.:])(?P<h>\d{1,2})(?:[:.](?P<m>[0-5]\d))?\s*" + _HALF.format("half") + r"|"
    r"(?<![\w.:])(?P<h24>[01]?\d|2[0-4]):(?P<m24>[0-5]\d)(?!\d)",
    re.I,
)
_NAMED_TIMES = {"noon": "12:00", "midday": "12:00", "midnight": "00:00"}
_NAMED_TIME = re.compile(rf"\b(?:{'|'.join(_NAMED_TIMES)})\b", re.I)
_DIGITS = re.compile(r"(?<!\w)\d[\d,]*(?:\.\d+)?")
_DENIAL = re.compile(
    r"\b(?:no|not|none|never|neither|nor|cannot|without|unable|unavailable|prohibited|forbidden|banned|unfortunately"
    r"|excluded|refused)\b|n['’]t\b",
    re.I,
)
_IDIOMS = re.compile(
    r"\b(?:no problem|no worries|not only|not? (?:later|earlier|more|less|fewer) than"
    r"|no need|no doubt|no matter|whether or not|if not|why not|no\.\s*\d+"
    r"|(?:at )?no (?:extra |additional |further )?(?:charge|cost|fee)s?)\b",
    re.I,
)
_ASSENT_WORDS = r"(?:yes|yeah|yep|certainly|absolutely|of course|definitely|sure|indeed)"
_LEADING_ANSWER = re.compile(rf"\W*(?:(?P<yes>{_ASSENT_WORDS})|no)\b", re.I)
_AFFIRMATION = re.compile(
    rf"\b{_ASSENT_WORDS}\b"
    r"|\b(?:there (?:is|are)|you (?:can|may)|offers?|provides?|accepts?|allows?|has|have"
    r"|(?:is|are) (?:available|allowed|permitted|welcome|offered|provided|accepted|possible)"
    r"|(?:does|do) (?:have|offer|provide|accept|allow))\b",
    re.I,
)


def extract_numbers(text: str) -> frozenset[str]:
    """Return the numbers and times of a text in one form each.

    ``14.50`` is "14.5", ``1,200`` is "1200", ``three`` is "3", ``7 pm`` is "19:00"; "7-9 pm" is two times.
    The word "one" counts only before a thing ("one suitcase"), not as a pronoun.
    """
    return frozenset(value for value, _, _ in find_numbers(text))


def find_numbers(text: str) -> list[tuple[str, int, int]]:
    """Return each number and time as (value, start, end) in the order of the text; values as in :func:`extract_numbers`.

    Both ends of a range such as "7-9 pm" have the span of the whole range.
    """
    places: list[tuple[str, int, int]] = []

    def take(values: Sequence[str], match: re.Match[str]) -> str:
        """Note the values and return as many spaces as the text had characters, so that offsets stay."""
        places.extend((value, match.start(), match.end()) for value in values)
        return " " * len(match.group()) if values else match.group()

    rest = _ONE_AS_PRONOUN.sub(lambda m: " " * len(m.group()), text)
    # Ranges before times, times before plain numbers: each takes its characters out of the text.
    rest = _RANGE.sub(lambda m: take(_range(m), m), rest)
    rest = _TIME.sub(lambda m: take([_time(m)], m), rest)
    rest = _NAMED_TIME.sub(lambda m: take([_NAMED_TIMES[m.group().lower()]], m), rest)
    rest = _SPELT_NUMBER.sub(lambda m: take(_spelt(m), m), rest)
    places += [(_plain(m.group()), m.start(), m.end()) for m in _DIGITS.finditer(rest)]
    return sorted(places, key=lambda place: place[1:])


def polarity(text: str) -> str | None:
    """Return "no" for a denial, "yes" for an assent, None for a text that is neither.

    A leading yes or no decides. Questions in the text are ignored ("Shall I ...?"), and so are idioms such as
    "no later than" or "at no extra cost".
    """
    statements = " ".join(part for part in sentences(text) if not part.endswith("?"))
    plain = _IDIOMS.sub(" ", statements or text)
    if lead := _LEADING_ANSWER.match(plain):
        return "yes" if lead["yes"] else "no"
    if _DENIAL.search(plain):
        return "no"
    return "yes" if _AFFIRMATION.search(plain) else None


def without_idioms(text: str) -> str:
    """Return the text without idioms that hold a word of denial but deny nothing: "no later than", "at no extra cost"."""
    return _IDIOMS.sub(" ", text)


def numbers_agree(claim: str, source: str) -> bool:
    """Return whether every number of the claim is in the source and neither denies what the other says."""
    return extract_numbers(claim) <= extract_numbers(source) and (polarity(claim) == "no") == (
        polarity(source) == "no"
    )


def _clock(hour: int, minute: str | None, half: str) -> str:
    """Return a time as HH:MM; ``half`` is empty, or begins with a or p."""
    if half:
        hour = hour % 12 + (12 if half[0].lower() == "p" else 0)
    return f"{hour % 24:02d}:{minute or '00'}"


def _range(match: re.Match[str]) -> list[str]:
    """Return both ends of a range such as "7-9 pm"; [] where it is no range of times."""
    first, second, half = int(match["h1"]), int(match["h2"]), match["half"]
    if first > 12 or second > 12 or (match["sep"].lower() == "and" and not match["m1"]):
        return []
    # "7-9 pm" begins at 7 pm, but "11-1 pm" at 11 am: the first hour is in the other half when it is the
    # later one.
    other = half if first % 12 <= second % 12 else ("am" if half[0].lower() == "p" else "pm")
    return [_clock(first, match["m1"], other), _clock(second, match["m2"], half)]


def _time(match: re.Match[str]) -> str:
    """Return a time as HH:MM."""
    if match["h24"]:
        return _clock(int(match["h24"]), match["m24"], "")
    half = match["half"] if int(match["h"]) <= 12 else ""
    return _clock(int(match["h"]), match["m"], half)


def _spelt(match: re.Match[str]) -> list[str]:
    """Return a spelt number in digits; "twelve thirty" is two numbers, "twenty-five" is one."""
    lead, unit = _WORD_VALUES[match["lead"].lower()], _WORD_VALUES.get((match["unit"] or "").lower())
    scale = _SCALES.get((match["scale"] or "").lower(), 1)
    if unit is None:
        return [str(lead * scale)]
    return [str((lead + unit) * scale)] if lead >= 20 else [str(lead), str(unit * scale)]


def _plain(digits: str) -> str:
    """Return a number without separators of thousands and trailing zeros, not in exponent form."""
    return format(Decimal(digits.replace(",", "")).normalize(), "f")
