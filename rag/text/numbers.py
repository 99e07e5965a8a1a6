"""The checkable parts of a sentence: its numbers and times, and whether it affirms or denies.

Citations, gold passages and the trial's scores all use this module, so that they agree on what a fact is; it
therefore needs the standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from decimal import Decimal

from rag.text.words import sentences

_ONES = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
NUMBER_WORDS = {word: n for n, word in enumerate(_ONES)} | {word: 20 + 10 * n for n, word in enumerate(_TENS)}
"""Value of each English number word below a hundred that is one word."""
SCALES = {
    "hundred": 100,
    "thousand": 1_000,
    "k": 1_000,
    "million": 1_000_000,
    "millions": 1_000_000,
    "millones": 1_000_000,
    "millionen": 1_000_000,
    "billion": 1_000_000_000,
    "bn": 1_000_000_000,
    "trillion": 1_000_000_000_000,
    "mil": 1_000,
    "tausend": 1_000,
    "dozen": 12,
}
_SCALE = "|".join(sorted(SCALES, key=len, reverse=True))
_NUMBER_WORD = re.compile(
    rf"\b(?:(?P<ten>{'|'.join(_TENS)})|(?P<one>{'|'.join(sorted(_ONES, key=len, reverse=True))})"
    r"|(?P<a>an?(?=\s+(?:hundred|thousand|million|billion|dozen)\b)|half a(?=\s+(?:million|billion|dozen)\b))"
    r"|(?P<scale>hundred|thousand|million|billion|dozen))\b",
    re.I,
)
_AND_A_HALF = re.compile(r"(?:\s+and\s+a\s+half\b|(?P<more>\s*½))", re.I)
_SCALE_AFTER = re.compile(rf"\s*-?\s*(?P<scale>{_SCALE})\b(?!\s*-)|(?P<short>m|bn)\b", re.I)
_CURRENCY_BEFORE = re.compile(r"[$£€¥]\s*$")
_ONE_AS_PRONOUN = re.compile(
    r"(?:\b(?:this|that|which|each|any|every|no|the|another|other|only|some|right|good)\s+one\b)"
    r"|\bone(?!\s+and\s+a\s+half)(?=\s+(?:of|is|that|who|which|can|could|will|would|another|should|may|or|and|in|at|on|for|to|with)\b"
    r"|\s*[^\w\s-]|\s*$)",
    re.I,
)
_HALF = r"(?P<{0}>a\.?\s?m\b\.?|p\.?\s?m\b\.?)"
"""Half of the day: a.m. or p.m."""
_RANGE = re.compile(
    r"(?<![\w.:])(?P<h1>\d{1,2})(?:[:.](?P<m1>[0-5]\d))?\s*(?P<sep>-|–|—|to|until|till|and)\s*"
    r"(?P<h2>\d{1,2})(?:[:.](?P<m2>[0-5]\d))?\s*" + _HALF.format("half"),
    re.I,
)
_TIME = re.compile(
    r"(?<![\w.:])(?P<h>\d{1,2})(?:[:.](?P<m>[0-5]\d))?\s*" + _HALF.format("half") + r"|"
    r"(?<![\w.:])(?P<h24>[01]?\d|2[0-4]):(?P<m24>[0-5]\d)(?!\d)|"
    r"(?<![\w.:])(?P<hu>[01]?\d|2[0-4])(?:[:.](?P<mu>[0-5]\d)\s*(?:Uhr|h|hrs?|horas|heures)|\s*(?:Uhr|heures))\b(?!\s*\d)",
    re.I,
)
_NAMED_TIMES = {"noon": "12:00", "midday": "12:00", "midnight": "00:00"}
_NAMED_TIME = re.compile(rf"\b(?:{'|'.join(_NAMED_TIMES)})\b", re.I)
_DIGITS = re.compile(
    r"(?<!\w)(?:\d{1,3}(?:[\u00a0\u202f]\d{3})+|\d+,\d{1,2}(?![\d,.])|\d(?:[\d,]*\d)?)(?:\.\d+)?"
)
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
_LEADING_ANSWER = re.compile(rf"\W*(?:(?P<yes>{_ASSENT_WORDS})(?!,? not\b)|no)\b", re.I)
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
    places += _spelt_numbers(rest)
    places += [_scaled(rest, _plain(m.group()), m) for m in _DIGITS.finditer(rest)]
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
    if match["hu"]:
        return _clock(int(match["hu"]), match["mu"], "")
    half = match["half"] if int(match["h"]) <= 12 else ""
    return _clock(int(match["h"]), match["m"], half)


def _spelt_numbers(text: str) -> Iterator[tuple[str, int, int]]:
    """Yield the numbers in words; "twelve thirty" is two of them, "two hundred and twenty-five" is one."""
    words: list[re.Match[str]] = []
    for match in _NUMBER_WORD.finditer(text):
        if words and not _goes_on(text, words, match):
            yield from _spelt(text, words)
            words = []
        words.append(match)
    if words:
        yield from _spelt(text, words)


def _goes_on(text: str, words: Sequence[re.Match[str]], match: re.Match[str]) -> bool:
    """Return whether a number word belongs to the number of those before it."""
    last, gap = words[-1], text[words[-1].end() : match.start()].lower()
    if gap.strip(" -") == "and":
        return last["scale"] is not None and match["scale"] is None and match["a"] is None
    if gap.strip(" -") or match["a"]:
        return False
    if match["scale"]:
        return last["scale"] is None or match["scale"].lower() != last["scale"].lower()
    small = match["one"] is not None and 0 < NUMBER_WORDS[match["one"].lower()] < 10
    return last["scale"] is not None or (last["ten"] is not None and small)


def _spelt(text: str, words: Sequence[re.Match[str]]) -> Iterator[tuple[str, int, int]]:
    """Yield the number of successive words with its place; a scale without a number before it is none."""
    if words[0]["scale"]:
        return
    total, current = Decimal(0), Decimal(0)
    for match in words:
        if match["scale"]:
            size = SCALES[match["scale"].lower()]
            current = max(current, Decimal(1)) * size if current != Decimal("0.5") else current * size
            if size > 100:
                total, current = total + current, Decimal(0)
        elif match["a"]:
            current = Decimal("0.5") if match["a"].lower().startswith("half") else Decimal(1)
        else:
            current += NUMBER_WORDS[(match["ten"] or match["one"]).lower()]
    yield _scaled(text, _form(total + current), words[-1], words[0].start())


def _scaled(text: str, value: str, match: re.Match[str], start: int | None = None) -> tuple[str, int, int]:
    """Return a number with what follows it: "and a half", "million"."""
    start, end, number = match.start() if start is None else start, match.end(), Decimal(value)
    if half := _AND_A_HALF.match(text, end):
        number, end = number + Decimal("0.5"), half.end()
    if scale := _SCALE_AFTER.match(text, end):
        if scale["scale"]:
            number, end = number * SCALES[scale["scale"].lower()], scale.end()
        elif _CURRENCY_BEFORE.search(text[:start]):
            number, end = number * (10**6 if scale["short"].lower() == "m" else 10**9), scale.end()
    return _form(number), start, end


def _plain(digits: str) -> str:
    """Return a number without separators of thousands and trailing zeros, not in exponent form."""
    if re.fullmatch(r"\d+,\d{1,2}", digits):
        digits = digits.replace(",", ".")
    return _form(Decimal(re.sub(r"[,\s]", "", digits)))


def _form(number: Decimal) -> str:
    return format(number.normalize(), "f")
