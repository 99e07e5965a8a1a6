"""Numbers that are parts of names, and no quantities: "the Aldra 300", "room 12", "zones 1 and 2"."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rag.quantities.comparing import YEAR
from rag.quantities.units import UNITS
from rag.text.dates import MONTHS, Date
from rag.text.numbers import find_numbers
from rag.text.words import STOP_WORDS, stem

_LABEL_NOUNS = frozenset(
    [
        "room",
        "ward",
        "line",
        "route",
        "hall",
        "zone",
        "level",
        "stage",
        "platform",
        "gate",
        "bus",
        "tram",
        "train",
        "building",
        "section",
        "chapter",
        "article",
        "part",
        "page",
        "phase",
        "step",
        "model",
        "version",
        "berth",
        "lane",
        "bay",
        "table",
        "figure",
        "exit",
        "terminal",
        "grade",
        "tour",
        "plot",
        "locker",
        "block",
        "flat",
        "track",
        "unit",
        "district",
        "region",
        "house",
        "apartment",
        "suite",
        "cabin",
        "desk",
        "counter",
        "window",
        "court",
        "pitch",
        "trail",
        "path",
        "pier",
        "dock",
        "quay",
        "highway",
        "motorway",
        "road",
        "junction",
        "class",
        "form",
        "type",
        "category",
        "module",
        "lesson",
        "unit",
        "paragraph",
        "clause",
        "no",
        "extension",
    ]
)
"""Nouns whose number is their name."""
_PEOPLE = frozenset(("people", "men", "women", "children"))
_NO_LABEL = frozenset(
    [
        "monday",
        "tuesday",
        "wednesday",
        "thursday",
        "friday",
        "saturday",
        "sunday",
        *MONTHS,
        "spring",
        "summer",
        "autumn",
        "winter",
        "easter",
        "christmas",
        "chf",
        "usd",
        "eur",
        "gbp",
        "about",
        "over",
        "under",
        "nearly",
        "almost",
        "around",
        "roughly",
        "only",
        "up",
    ]
)


def without_labels(
    text: str, places: Sequence[tuple[str, Date | None, int, int]]
) -> list[tuple[str, Date | None, int, int]]:
    """Return the numbers without those that are parts of names: "the Aldra 300", "room 12", "zones 1 and 2"."""
    others: list[tuple[str, Date | None, int, int]] = []
    last = -1
    for place in places:
        _, date, start, end = place
        if date is None and _is_label(text, start, end, last):
            last = end
        else:
            others.append(place)
    return others


def find_labels(text: str) -> frozenset[str]:
    """Return names that end in a number as one word each: "aldra300", and "zone1" and "zone2" of "zones 1 and 2"."""
    names: set[str] = set()
    noun, last = "", -1
    for _, start, end in find_numbers(text):
        if not _is_label(text, start, end, last):
            continue
        if before := re.search(r"([^\W\d_][\w’'-]*)\s$", text[:start]):
            noun = (
                before[1].lower() if last < 0 or text[last:start].strip() not in ("and", "to", "or") else noun
            )
        noun = noun[:-1] if noun.endswith("s") and noun[:-1] in _LABEL_NOUNS else noun
        last = end
        names.add(noun + text[start:end])
    return frozenset(names)


def _is_label(text: str, start: int, end: int, last: int) -> bool:
    digits, head, tail = text[start:end], text[:start], text[end : end + 30]
    if not digits.isdigit() or len(digits) > 4 or re.match(r"\s*(?:[%°]|[€$£](?!\d))|-|\s\d", tail):
        return False
    if last >= 0 and re.fullmatch(r"\s*(?:and|to|or|,|–|-)\s*", text[last:start]):
        return True
    before = re.search(r"([^\W\d_][\w’'-]*)\s$", head)
    if not before:
        return False
    word = before[1].lower()
    following = re.match(r"\s+([^\W\d_]+)", tail)
    after = following[1].lower() if following else ""
    if after in UNITS and len(after) > 1:
        return False
    if word in _LABEL_NOUNS or (word.endswith("s") and word[:-1] in _LABEL_NOUNS):
        return not (word == "no" or word.endswith("s")) or not after.endswith("s")
    if YEAR.fullmatch(digits) or not before[1][0].isupper() or word in STOP_WORDS or word in _NO_LABEL:
        return False
    first = not head[: before.start()].strip() or head[: before.start()].rstrip()[-1:] in ".!?:"
    counts = (
        after.endswith("s") and not after.endswith("ss") and stem(after) not in _LABEL_VERBS
    ) or after in _PEOPLE
    return not counts and not (first and after and stem(after) not in _LABEL_VERBS)


_LABEL_VERBS = frozenset(
    map(
        stem,
        [
            "is",
            "was",
            "has",
            "are",
            "can",
            "must",
            "may",
            "will",
            "does",
            "do",
            "runs",
            "leaves",
            "delivers",
            "costs",
            "weighs",
            "holds",
            "takes",
            "needs",
            "starts",
            "ends",
            "stops",
            "goes",
            "carries",
            "seats",
            "opens",
            "closes",
            "serves",
            "follows",
            "burns",
            "uses",
            "lasts",
            "includes",
            "offers",
            "covers",
            "works",
            "heats",
            "sails",
            "departs",
            "arrives",
            "reaches",
            "connects",
            "charges",
            "measures",
            "produces",
            "contains",
            "and",
            "or",
            "also",
            "only",
        ],
    )
)
