"""Read the checkable parts of a sentence: numbers, times, yes or no (and, from words, its content words).

Light on purpose: citations, gold passages and the trial's scores all use it, so that they agree on what a
fact is.
"""

from __future__ import annotations

import re
from decimal import Decimal

from rag.text.words import sentences

_UNIT_WORDS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
)
_TEN_WORDS = "twenty thirty forty fifty sixty seventy eighty ninety"
_UNITS = _UNIT_WORDS.split()
_TENS = _TEN_WORDS.split()
_VALUES = {word: n for n, word in enumerate(_UNITS)}
_VALUES |= {word: 20 + 10 * n for n, word in enumerate(_TENS)}
_NUMBER_WORDS = "|".join(sorted(_VALUES, key=len, reverse=True))
_SPELT = re.compile(
    rf"\b(?P<lead>{_NUMBER_WORDS})(?:[\s-](?P<unit>{'|'.join(_UNITS[1:10])}))?\b"
    r"(?:\s+(?P<scale>hundred|thousand|million))?",
    re.I,
)
_ONE_IS_NO_NUMBER = re.compile(
    r"(?:\b(?:this|that|which|each|any|every|no|the|another|other|only|some|right|good)\s+one\b)"
    r"|\bone(?=\s+(?:of|is|that|who|which|can|could|will|would|another|should|may|or|and|in|at|on|for|to|with)\b"
    r"|\s*[^\w\s-]|\s*$)",
    re.I,
)
_SCALES = {"hundred": 100, "thousand": 1000, "million": 1_000_000}
_HALF = r"(?P<{0}>a\.?\s?m\b\.?|p\.?\s?m\b\.?)"
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
_NAMED = {"noon": "12:00", "midday": "12:00", "midnight": "00:00"}
_DIGITS = re.compile(r"(?<!\w)\d[\d,]*(?:\.\d+)?")
_NO = re.compile(
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
_ASSENT = r"(?:yes|yeah|yep|certainly|absolutely|of course|definitely|sure|indeed)"
_LEAD = re.compile(rf"\W*(?:(?P<yes>{_ASSENT})|no)\b", re.I)
_YES = re.compile(
    rf"\b{_ASSENT}\b"
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
    found: set[str] = set()
    text = _ONE_IS_NO_NUMBER.sub(" ", text)
    text = _RANGE.sub(lambda m: _range(m, found), text)
    text = _TIME.sub(lambda m: _time(m, found), text)
    for word, value in _NAMED.items():
        if re.search(rf"\b{word}\b", text, re.I):
            found.add(value)
    text = _SPELT.sub(lambda m: f" {_spelt(m)} ", text)
    found.update(_plain(match.group()) for match in _DIGITS.finditer(text))
    return frozenset(found)


def polarity(text: str) -> str | None:
    """Return "no" for a denial, "yes" for an assent, None for a text that is neither.

    A leading yes or no decides. Questions in the text are ignored ("Shall I ...?"), and so are idioms such as
    "no later than" or "at no extra cost".
    """
    statements = " ".join(part for part in sentences(text) if not part.endswith("?"))
    plain = _IDIOMS.sub(" ", statements or text)
    if lead := _LEAD.match(plain):
        return "yes" if lead["yes"] else "no"
    if _NO.search(plain):
        return "no"
    return "yes" if _YES.search(plain) else None


def numbers_agree(claim: str, source: str) -> bool:
    """Return whether every number of the claim is in the source and neither denies what the other says."""
    return extract_numbers(claim) <= extract_numbers(source) and (polarity(claim) == "no") == (
        polarity(source) == "no"
    )


def _clock(hour: int, minute: str | None, half: str) -> str:
    if half:
        hour = hour % 12 + (12 if half[0].lower() == "p" else 0)
    return f"{hour % 24:02d}:{minute or '00'}"


def _range(match: re.Match[str], found: set[str]) -> str:
    first, second, half = int(match["h1"]), int(match["h2"]), match["half"]
    if first > 12 or second > 12 or (match["sep"].lower() == "and" and not match["m1"]):
        return match.group()
    other = half if first % 12 <= second % 12 else ("am" if half[0].lower() == "p" else "pm")
    found.update((_clock(first, match["m1"], other), _clock(second, match["m2"], half)))
    return " "


def _time(match: re.Match[str], found: set[str]) -> str:
    if match["h24"]:
        found.add(_clock(int(match["h24"]), match["m24"], ""))
    elif int(match["h"]) <= 12:
        found.add(_clock(int(match["h"]), match["m"], match["half"]))
    else:
        found.add(_clock(int(match["h"]), match["m"], ""))
    return " "


def _spelt(match: re.Match[str]) -> str:
    """Write a spelt number in digits; "twelve thirty" stays two numbers, "twenty-five" is one."""
    lead, unit = _VALUES[match["lead"].lower()], _VALUES.get((match["unit"] or "").lower())
    scale = _SCALES.get((match["scale"] or "").lower(), 1)
    if unit is None:
        return f"{lead * scale}"
    return f"{(lead + unit) * scale}" if lead >= 20 else f"{lead} {unit * scale}"


def _plain(digits: str) -> str:
    return format(Decimal(digits.replace(",", "")).normalize(), "f")
