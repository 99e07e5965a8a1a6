"""Turn an English statement into a question that it answers, by its first verb: no model, no guess.

The subject and the verb change places ("The office is open from 7 am" asks "When is the office open?"); where
the statement holds a time, a price, a number or a name, that is what is asked for, else yes or no. A sentence
that does not begin with a plain subject is left alone: a question less is better than one nobody would ask.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

from rag.lexicon import AUXILIARIES, CLAUSE, DETERMINERS, FORMS, ONLY_PAST, OPENERS, PLURAL, PREPOSITIONS

_LARGE = r"(?: (?:million|billion))?"
_MONEY = rf"(?:[$€£]\s?\d[\d,.]*{_LARGE}|\d[\d,.]*{_LARGE} (?:euros?|dollars?|pounds|cents))"
_COUNT = (
    r"(?:\d[\d,.]*\d|\d|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|twenty|thirty|forty|fifty)"
)
_CLOCK = r"(?:noon|midnight|\d{1,2}[:.]\d\d(?: ?[ap]\.?m\b\.?)?|\d{1,2} ?[ap]\.?m\b\.?)"
_MONTH = r"(?:January|February|March|April|May|June|July|August|September|October|November|December)"
_WEEKDAY = r"(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)days?"
_DAY = rf"(?:(?:every |each )?{_WEEKDAY}(?:(?:, | and | or ){_WEEKDAY})*)"
_DATE = rf"(?:(?:\d{{1,2}} )?{_MONTH}(?: \d{{1,2}})?(?:,? \d{{4}})?|(?:1[5-9]|20)\d\d)"
_SPAN = rf"(?:(?:up to|at most|at least|about) )?{_COUNT} (?:seconds|minutes|hours|days|nights|weeks|months|years)"
_NAME = r"(?:the )?[A-Z][\w'’-]*(?: (?:of |the |and )?[A-Z][\w'’-]*)*"
_SLOTS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("Why", re.compile(r",? because (?P<slot>.+)$")),
    ("After how long", re.compile(rf"\bafter (?P<slot>{_SPAN})")),
    ("Within what time", re.compile(rf"\bwithin (?P<slot>{_SPAN})")),
    ("For how long", re.compile(rf"\bfor (?P<slot>{_SPAN})")),
    ("By when", re.compile(rf"\bby (?P<slot>{_CLOCK}|{_DATE})")),
    ("Until when", re.compile(rf"\b(?:until|till) (?P<slot>{_CLOCK}|{_DATE}|{_DAY})")),
    ("When", re.compile(rf"\bfrom (?P<slot>(?:{_CLOCK}|{_DATE}|{_DAY}) (?:to|until|till) (?:{_CLOCK}|{_DATE}|{_DAY}))")),
    ("When", re.compile(rf"\b(?:only )?(?:at|before|after|since|on|in|every) (?P<slot>{_CLOCK}|{_DATE}|{_DAY})(?![\w-])")),
)  # fmt: skip
_DATED = re.compile(rf"\b(?:{_CLOCK}|{_DATE})")
"""With a second date left over, it would be open which of them is asked for."""
_FIRST = {
    "How much": re.compile(rf"^(?:only )?(?P<slot>{_MONEY})(?![\w-])"),
    "How many {noun}": re.compile(
        rf"^(?P<slot>{_COUNT}) (?P<noun>[a-z]+s)(?![\w-])(?! (?:of|long|wide|deep|high|tall|old|away|ahead|before|after)\b)"
    ),
}
_PLACED = re.compile(
    r"(?:land|dock|park|stand|lie|sit|stay|stop|meet|live|work|located|held|kept|sold|moored|found)$"
)
_WHERE = re.compile(
    rf"^\s?(?P<slot>(?:in|at|on|near|behind|beside|opposite) {_NAME})(?=$| (?:on|in|for|when|from|until|every|instead)\b)"
)
_PERSON = re.compile(
    r"(?:er|or|ist|man|woman|captain|doctor|vet|chef|clerk|head|president|king|queen|keeper)$"
)
_POINTING = re.compile(r"\b(?:this|these|those)\b")
"""What these point to stands in another sentence."""
_LIST_MARK = re.compile(r"^(?:[-*•+]|\d{1,3}[.)])\s+|^(?:yes|no|sorry|unfortunately),\s+", re.I)
_ODD = re.compile(r"[@<>|{}\\_*#\[\]=“”\"…;]|(?<!\d):|:(?!\d)|--|\s['’,.]|\brespectively\b")
_WORDS = 26
"""A longer statement makes a question that nobody would ask."""


@dataclass(frozen=True, slots=True)
class Turned:
    """A question and what the statement answers to it."""

    question: str
    answer: str
    """The words asked for; yes or no where nothing was asked for but whether it is so."""


def turned(sentence: str, names: Collection[str] = ()) -> Turned | None:
    """Return the question that a statement answers, or None when it is not a plain one.

    ``names`` are words that keep their capital letter at the beginning of a sentence.
    """
    text = " ".join(_LIST_MARK.sub("", sentence.strip()).split())
    if not text.endswith((".", "!")) or _ODD.search(text) or len(text.split()) > _WORDS:
        return None
    said = re.split(
        r"(?:,| -)? (?:but|which|who|so that|whereas)\b|,? and (?:the|it|they|you|we)\b", text.rstrip(".! ")
    )[0]
    tokens = said.split()
    for at in range(1, min(9, len(tokens))):
        verb, subject = _verb(tokens, at), _subject(tokens[:at], names)
        if verb and subject and (found := _asked(subject, *verb, " ".join(tokens[at + 1 :]))):
            return found
    return None


def _asked(subject: str, auxiliary: str, base: str, rest: str) -> Turned | None:
    """Ask for what the rest of a statement holds; ``base`` is empty where the auxiliary is the only verb."""
    rest, denied = _positive(rest)
    verb = f" {base}" if base else ""
    if not rest or _POINTING.search(rest) or (base and _has_other_verb(rest)):
        return None
    if base in (
        "",
        "cost",
        "take",
        "have",
        "need",
        "carry",
        "hold",
        "seat",
        "offer",
        "last",
        "contain",
        "weigh",
        "pay",
    ):
        for asking, pattern in _FIRST.items():
            match = pattern.match(rest)
            if match and (auxiliary == "is" or base):
                asking = asking.format(noun=match.groupdict().get("noun", ""))
                return Turned(f"{asking} {auxiliary} {subject}{verb}{rest[match.end() :]}?", match["slot"])
    if not base and (match := re.match(r"(?:called|named) (?P<slot>.+)$", rest)):
        return Turned(f"What {auxiliary} {subject} called?", match["slot"])
    if not base and (named := _identity(subject, auxiliary, rest)):
        return named
    for asking, pattern in _SLOTS:
        match = pattern.search(rest)
        left = f"{rest[: match.start()].rstrip(' ,')}{rest[match.end() :]}".strip() if match else ""
        if match and (left or base) and not denied and not _DATED.search(left):
            return Turned(f"{asking} {auxiliary} {subject}{verb}{' ' if left else ''}{left}?", match["slot"])
    word = base or rest.split()[0]
    after = rest if base else rest.removeprefix(word)
    if _PLACED.match(word) and not denied and (match := _WHERE.match(after)):
        left = after[match.end() :]
        return Turned(f"Where {auxiliary} {subject} {word}{left}?", match["slot"].strip())
    return Turned(f"{auxiliary.capitalize()} {subject}{verb} {rest}?", "no" if denied else "yes")


def _identity(subject: str, auxiliary: str, rest: str) -> Turned | None:
    """Ask who or what something is, where the statement says just that."""
    if auxiliary not in ("is", "are", "was", "were") or subject == "there":
        return None
    if re.fullmatch(_NAME, rest) and not rest.startswith("the "):
        head = re.split(r" (?:of|for|in|at|on|near|from|with|to)\b", subject)[0].split()[-1]
        return Turned(f"{'Who' if _PERSON.search(head) else 'What'} {auxiliary} {subject}?", rest)
    if subject[:1].isupper() and re.match(r"(?:an?|the|one of) ", rest):
        return Turned(f"What {auxiliary} {subject}?", rest)
    return None


def _verb(tokens: list[str], at: int) -> tuple[str, str] | None:
    """Return the auxiliary that asks and the verb's base form, when the verb of a statement stands here."""
    token, before = tokens[at], tokens[at - 1].lower()
    if token in AUXILIARIES:
        return token, ""
    if (
        token in ("has", "have", "had")
        and at + 1 < len(tokens)
        and re.search(
            r"(?:ed|en|been|not|made|had|held|kept|paid|sold|sent|built|become|come)$", tokens[at + 1]
        )
    ):
        return token, ""
    after = tokens[at + 1] if at + 1 < len(tokens) else ""
    if token in ("does", "do", "did") and (after == "not" or FORMS.get(after) == ("do", after)):
        return token, ""
    form = FORMS.get(token)
    if form is None or before in OPENERS | DETERMINERS:
        return None
    plural = (before.endswith("s") and not before.endswith(("ss", "us"))) or before in PLURAL
    if form[0] == "does":
        return None if plural else form
    if form[0] == "did":
        participle = token not in ONLY_PAST and tokens[at + 1 : at + 2] and tokens[at + 1] in PREPOSITIONS
        return None if participle or any(word in FORMS for word in tokens[at + 1 :]) else form
    return form if plural else None


def _subject(tokens: list[str], names: Collection[str]) -> str:
    """Return the subject as it stands inside a sentence, or nothing when it is no plain one."""
    first = re.split("['’]", tokens[0].lower())[0]
    if first == "there" and len(tokens) == 1:
        return "there"
    lowered = {token.lower() for token in tokens}
    if (
        first in OPENERS
        or lowered & (CLAUSE | {"it", "this", "these", "those"})
        or any("," in t for t in tokens)
    ):
        return ""
    named = (
        tokens[0] in names or not tokens[0][1:].islower() or tokens[1:2] != [w.lower() for w in tokens[1:2]]
    )
    return " ".join(tokens if named and first not in DETERMINERS else [first, *tokens[1:]])


def _positive(rest: str) -> tuple[str, bool]:
    """Return what a statement says without its denial, and whether there was one."""
    found = re.subn(r"^(?:not|never)\s+|^no longer\s+", "", rest)
    if found[1]:
        return found[0], True
    if match := re.match(r"no (?=[a-z])", rest):
        return f"any {rest[match.end() :]}", True
    return rest, False


def _has_other_verb(rest: str) -> bool:
    """Return whether another verb follows that no subordinate clause holds; then the first was none."""
    for word in rest.split():
        if word in CLAUSE:
            return False
        if word in AUXILIARIES:
            return True
    return False
