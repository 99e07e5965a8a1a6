"""How a text bounds a quantity ("at least", "about"), and what it is in a change: to 5, by 5, from 5."""

from __future__ import annotations

import re

from rag.quantities.comparing import (
    ABOUT,
    BY,
    DOWN,
    ENDS,
    EXACTLY,
    FROM,
    LESS,
    MORE,
    NEARLY,
    STARTS,
    TO,
    UP,
    Quantity,
)

_GREATER = (
    r"(?:more|greater|higher|longer|larger|bigger|older|later|taller|heavier|further|wider|faster|better"
    r"|over) than"
)
_FEWER = r"(?:less|fewer|lower|shorter|smaller|younger|earlier|lighter|narrower|slower|cheaper) than"
_PREFIXES = tuple(
    (
        bound,
        re.compile(
            rf"(?:^|[^\w-])(?:{pattern})(?:\s+(?:a|an|the|of|about|zu[mr]|de[mnr]|age|at))*(?:\s+(?:first|last"
            rf"|next))?\s*[$£€¥(]?\s*$",
            re.I,
        ),
    )
    for bound, pattern in (
        (DOWN, rf"(?:no|not|never)(?: \w+)? {_GREATER}|no later than|not exceed(?:ing)?|not over"),
        (UP, rf"(?:no|not|never)(?: \w+)? {_FEWER}|no earlier than|not under|not before"),
        (EXACTLY, r"exactly|precisely|just(?= )(?! (?:over|under))|genau|exactamente"),
        (NEARLY, r"nearly|almost|close to|just (?:under|below|short of)|fast|knapp|casi|not quite"),
        (
            ABOUT,
            r"on average(?: within| about| around| some)?|an average of|about|approximately|approx\.?|roughly"
            r"|around|circa|ca?\.|some|an estimated|estimated at|etwa|ungefähr|rund"
            r"|unos|unas|alrededor de|aproximadamente|~|≈",
        ),
        (
            UP,
            r"at (?:the very )?least|upwards? of|min\.?|(?:a )?minimum(?: \w+)?(?: of| is)?|not below|al menos"
            r"|como mínimo|mínimo(?: de)?|mindestens",
        ),
        (
            MORE,
            rf"{_GREATER}|(?:just |well )?over|above|exceed(?:s|ed|ing)?|beyond|in excess of|más de|mehr als|über",
        ),
        (
            DOWN,
            r"at (?:the (?:very )?)?most|up to|as (?:many|much|late) as|within|max\.?|limited to|(?:only )?up to"
            r"|(?:a )?maximum(?: \w+)?(?: of| is)?|como máximo|hasta|máximo(?: de)?|höchstens|maximal|bis zu",
        ),
        (LESS, rf"{_FEWER}|under|below|menos de|weniger als|unter"),
        (
            ENDS,
            r"before|until|till|prior to|by|through|to|antes de(?:l)?|vor|bis|spätestens(?: um)?|jusqu['’]à|avant",
        ),
        (
            STARTS,
            r"frühestens(?: um)?|dès|après|au moins|after|from|since|starting(?: at| on| from)?|beginning(?: at"
            r"| on)?|as of|following|después de(?:l)?|desde"
            r"|nach|seit|ab|ab dem",
        ),
    )
)
CONTEXT = 240
"""Characters before an amount that are read for what it is part of; with all, a long list of amounts took seconds."""
_HIGHER = r"(?:more|over|older|above|later|up|longer|higher)\b(?! than)"
_LOWER = r"(?:less|fewer|under|younger|below|earlier|shorter|lower)\b(?! than)"
_SUFFIXES = (
    (UP, re.compile(r"\s*(?:\w+ )?(?:ahead|before|in advance) or earlier\b", re.I)),
    (
        UP,
        re.compile(rf"\s*(?:\+|(?:\w+ ){{0,2}}?(?:or|and) {_HIGHER}|(?:\w+ )?(?:at least|minimum)\b)", re.I),
    ),
    (
        DOWN,
        re.compile(
            rf"\s*(?:(?:\w+ ){{0,2}}?(?:or|and) {_LOWER}|(?:\w+ )?(?:at (?:the )?most|maximum|max)\b)", re.I
        ),
    ),
    (ABOUT, re.compile(r"\s*(?:\w+ )?(?:or so|approximately|or thereabouts|on average)\b", re.I)),
)
_RISE = (
    r"(?:r[io]se|risen|rising|rises|grow[ns]?|grew|growing|increas(?:e[sd]?|ing)|climb(?:s|ed)?|gain(?:s|ed)?"
    r"|rais(?:e[sd]?|ing)"
    r"|went up|goes up|gone up|jump(?:s|ed)?|improv(?:e[sd]?|ing)|exten(?:d(?:s|ed)?)|enlarg(?:e[sd]?|ing)"
    r"|expand(?:s|ed)?|went"
    r"|climbed|reached|put up(?= by\b))"
)
_FALL = (
    r"(?:f[ae]lls?|fallen|falling|dropp?(?:s|ed|ing)?|declin(?:e[sd]?|ing)|decreas(?:e[sd]?|ing)|shr[aiu]nk"
    r"|reduc(?:e[sd]?|ing)"
    r"|cut(?:s|ting)?|lower(?:s|ed)?|went down|goes down|gone down|lost|loses?|sank|sunk"
    r"|(?:up|down)(?= (?:by |from )?[$£€]?\d))"
)
_CHANGE = re.compile(rf"\b(?:{_RISE}|{_FALL}|doubled|tripled|halved|change[sd]?)\b", re.I)
_BY_BEFORE = re.compile(
    r"(?:\bby|\b(?:rose|rises?|risen|fell|falls?|fallen|grew|grows?|grown|increased|decreased|dropped|declined"
    r"|shrank|sank|gained|gains?|up|down)|\b(?:rise|fall|drop|increase|decrease|growth|reduction|cut|decline|gain"
    r"|loss) of)\s*(?:about |around |roughly |nearly |almost |over |some |only |a further |another |more than "
    r"|just )*[$£€¥]?\s*$",
    re.I,
)
_BY_AFTER = re.compile(
    r"\s*(?:(?:more|higher|lower|less|fewer|longer|shorter|cheaper|dearer|cooler|warmer|wider|taller|heavier|lighter"
    r"|further|farther|faster|slower)\b"
    r"(?! than [$£€]?\d)|(?:\w+ ){0,2}(?:was|were) added\b"
    r"|(?:\w+ )?(?:increase|decrease|rise|fall|drop|reduction|growth)\b)",
    re.I,
)
_TO_BEFORE = re.compile(
    r"\b(?:to|at)\s*(?:about |around |roughly |nearly |almost |over |some |only |just )*[$£€¥]?\s*$", re.I
)
_FROM_BEFORE = re.compile(
    r"\bfrom\s*(?:about |around |roughly |nearly |almost |over |some |only |just )*[$£€¥]?\s*$", re.I
)


def inner_bound(before: str) -> str:
    """Return the bound behind "by" or "to": "fell by almost 5 percent"."""
    inner = re.sub(r"\b(?:by|to|from)\s+(?=\w)", "", before, flags=re.I)
    inner_kind = bound_of(inner, "", "", False)
    return inner_kind if inner_kind in (ABOUT, NEARLY, MORE, UP, LESS, DOWN) and inner != before else ""


def change_of(text: str, quantity: Quantity, before: str) -> str:
    """Return the part of an amount in a change: by how much, to what, from what; "" where there is none."""
    head = text[max(0, quantity.start - CONTEXT) : quantity.start]
    if _BY_AFTER.match(text, quantity.through):
        return BY
    clause = re.split(r"[;.]\s|\b(?:and|but|while|when)\b(?![^;]*\bto\s*[$£€]?\s*$)", head)[-1]
    if not _CHANGE.search(clause) and not _CHANGE.search(text[quantity.through : quantity.through + 40]):
        return ""
    if _FROM_BEFORE.search(before):
        return FROM
    if not _CHANGE.search(clause):
        return (
            BY
            if re.match(r"\s+(?:rise|fall|increase|decrease|drop|cut|reduction)\b", text[quantity.through :])
            else ""
        )
    if _TO_BEFORE.search(before) or re.search(r"\bup to\s*[$£€]?\s*$", before):
        return TO
    return BY if _BY_BEFORE.search(head) else ""


def bound_of(before: str, after: str, behind: str, timed: bool) -> str:
    """Return how a quantity is bounded by the text before it, after its digits and behind its unit; "" for neither."""
    for text in (after, behind):
        for bound, pattern in _SUFFIXES:
            if pattern.match(text):
                return bound
    for bound, pattern in _PREFIXES:
        if match := pattern.search(before):
            word = match.group().strip(" $£€¥(").lower()
            # "by 5" bounds a time
            if not timed and word in ("by", "through", "vor", "nach"):
                return ""
            return bound
    return ""
