"""Read the checkable parts of a sentence: numbers, times, yes or no, and the words that carry content.

Light on purpose: citations, gold passages and the trial's scores all use it, so that they agree on what a fact is.
"""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation

STOP_WORDS = frozenset(
    """a about above after again all also am an and any are as at be because been before being below between both
    but by can could did do does doing down during each either else ever every few for from further get give given
    go goes going got had has have having he help her here hers him his how however i if in into is it its itself
    just kindly let like ll look make many may me might mine more most much must my need no nor not now of off ok
    okay on once one only onto or other our ours out over own per please re s same shall she should since so some
    sorry still such sure t than thank thanks that the their theirs them then there these they this those through
    to too unfortunately under until up upon us ve very want was we well were what when where whether which while
    who whom whose why will with within without would yes yet you your yours""".split()
)
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")

_UNITS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
).split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
_VALUES = {word: n for n, word in enumerate(_UNITS)} | {word: n for n, word in zip(range(20, 100, 10), _TENS)}  # noqa: B905
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
_DIGITS = re.compile(r"(?<![^\W\d_])\d[\d,]*(?:\.\d+)?")
_NO = re.compile(
    r"\b(?:no|not|none|never|neither|nor|cannot|without|unable|unavailable|prohibited|forbidden|banned|unfortunately"
    r"|excluded|closed|refused)\b|n['’]t\b",
    re.I,
)
_IDIOMS = re.compile(
    r"\b(?:no problem|no worries|not only|no (?:later|earlier|more|less|fewer) than|not (?:later|more|less) than"
    r"|no need|no doubt|no matter|whether or not|if not|why not|no\.\s*\d+"
    r"|(?:at )?no (?:extra |additional |further )?(?:charge|cost|fee)s?)\b",
    re.I,
)
_YES = re.compile(
    r"\b(?:yes|yeah|yep|certainly|absolutely|of course|definitely|sure|indeed)\b"
    r"|\b(?:there (?:is|are)|(?:is|are) (?:available|allowed|permitted|welcome|offered|provided|accepted|possible)"
    r"|you (?:can|may)|(?:does|do) (?:have|offer|provide|accept|allow)|offers?|provides?|accepts?|allows?|has|have)\b",
    re.I,
)


def numbers(text: str) -> frozenset[str]:
    """Return the numbers and times of a text in one form each.

    ``14.50`` is "14.5", ``1,200`` is "1200", ``three`` is "3", ``7 pm`` is "19:00"; a range "7-9 pm" is two times.
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
    found.update(filter(None, (_plain(m.group()) for m in _DIGITS.finditer(text))))
    return frozenset(found)


def polarity(text: str) -> str | None:
    """Return "no" for a denial, "yes" for an assent, None for a text that is neither.

    Questions in the text are ignored ("Shall I ...?"); so are idioms such as "no later than" or "at no extra cost".
    """
    statements = " ".join(part for part in sentences(text) if not part.rstrip().endswith("?"))
    plain = _IDIOMS.sub(" ", statements or text)
    if _NO.search(plain):
        return "no"
    return "yes" if _YES.search(plain) else None


def words(text: str) -> list[str]:
    """Return the text's words, lower case and stemmed, in order; digits and single letters are kept."""
    return [stem(_bare(match.group())) for match in _WORD.finditer(text.lower())]


def content_words(text: str) -> list[str]:
    """Return the stemmed words that carry content: stop words left out, in order, with repeats."""
    bare = (_bare(match.group()) for match in _WORD.finditer(text.lower()))
    return [stem(word) for word in bare if word not in STOP_WORDS and not word.endswith("n't")]


def stem(word: str) -> str:
    """Return the word without its plural, -ed or -ing ending; light, so that different words stay different."""
    if len(word) <= 3 or not word.isascii() or not word.isalpha():
        return word
    if word.endswith("ies") and len(word) > 4:
        word = word[:-3] + "y"
    elif word.endswith(("sses", "shes", "ches", "xes", "zes")):
        word = word[:-2]
    elif word.endswith("s") and not word.endswith(("ss", "us", "is")):
        word = word[:-1]
    for ending in ("ing", "ed"):
        root = word[: -len(ending)]
        if word.endswith(ending) and len(root) >= 3 and re.search(r"[aeiouy]", root):
            doubled = root[-1] == root[-2] and root[-1] not in "lsz"
            word = root[:-1] if doubled else root
            break
    return word[:-1] if word.endswith("e") and len(word) > 4 else word


_ABBREVIATIONS = re.compile(
    r"\b(?:mr|mrs|ms|dr|prof|st|no|nr|vs|etc|approx|e\.g|i\.e|a\.m|p\.m|jr|sr|inc|ltd|co|dept|tel|min|max)\.$",
    re.I,
)
_END = re.compile(r"(?:[.!?…]+[\"'”’)\]]*)(?=\s)|\n\s*\n|\n(?=\s*(?:[-*+|]|\d+[.)])\s)")


def sentences(text: str) -> list[str]:
    """Return the text's sentences, trimmed; each is an exact slice of the text."""
    return [text[start:end] for start, end in sentence_spans(text)]


def sentence_spans(text: str) -> list[tuple[int, int]]:
    """Return (start, end) of each sentence; abbreviations and "a.m." do not end one before a small letter."""
    cuts = [0]
    for match in _END.finditer(text):
        head, tail = text[cuts[-1] : match.end()], text[match.end() :].lstrip()
        mark = match.group()
        if mark.startswith(".") and _ABBREVIATIONS.search(head):
            ends_with_half = re.search(r"\b[ap]\.m\.$", head, re.I)
            if not (ends_with_half and tail[:1].isupper()):
                continue
        cuts.append(match.end())
    spans = []
    for start, end in zip(cuts, [*cuts[1:], len(text)], strict=True):
        piece = text[start:end]
        if piece.strip():
            lead = len(piece) - len(piece.lstrip())
            spans.append((start + lead, start + len(piece.rstrip())))
    return spans


def _bare(word: str) -> str:
    word = word.replace("’", "'")
    return word[:-2] if word.endswith("'s") else word


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
    lead, unit = match["lead"].lower(), (match["unit"] or "").lower()
    value = _VALUES[lead]
    if unit:
        value = value + _VALUES[unit] if value >= 20 and value % 10 == 0 else value
    scale = {"hundred": 100, "thousand": 1000, "million": 1_000_000}.get((match["scale"] or "").lower(), 1)
    rest = f" {unit}" if unit and not (_VALUES[lead] >= 20 and _VALUES[lead] % 10 == 0) else ""
    return f"{value * scale}" + (f" {_VALUES[rest.strip()]}" if rest else "")


def _plain(digits: str) -> str:
    try:
        value = Decimal(digits.replace(",", ""))
    except InvalidOperation:
        return ""
    text = format(value.normalize(), "f")
    return text
