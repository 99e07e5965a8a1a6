"""Facts that are lists: days of the week, and things of which each must be named and no other."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from functools import lru_cache

from runners.scoring.statements import LEADING_ARTICLES, content_tokens, shared_tokens

MAX_ITEM_WORDS = 4
_SPLIT = re.compile(r"\s*(?:[,;:/\n]|\b(?:and|or|plus|as well as|und|oder|sowie|y|o|et|ou)\b|&)\s*", re.I)
_NEGATED = re.compile(
    r"\b(?:no|not|never|except|without|neither|nor|excluding|apart from|other than|closed|ohne|kein\w*|nicht)\b|n't\b",
    re.I,
)
_PREPOSITION = re.compile(r"^(?:by|in|on|with|via|at|for|from)\s+(?=\w)", re.I)
_ONE_PLACE = re.compile(r"^\W*(?:where|wo|dónde|où|who is|when)\b", re.I)
_CLAUSE_WORD = re.compile(
    r"\b(?:we|you|they|it|i|he|she|is|are|was|were|be|can|will|may|must|have|has|which|who|that|this|please|just|so|all|both|each"
    r"|in|on|at|for|with|to|from|by|if|when|as|then|there|here|too|only|every|more)\b",
    re.I,
)
_NAMELY = re.compile(r"\W*(?:namely|that is|i\.?e\.?)\b", re.I)
_SUBJECT = re.compile(r"\b(?:we|you|they|there|is|are|include|offer|sell|have)\b", re.I)
_WEEKDAYS = (
    "monday montag lunes lundi|tuesday dienstag martes mardi|wednesday mittwoch miércoles mercredi"
    "|thursday donnerstag jueves jeudi|friday freitag viernes vendredi|saturday samstag sonnabend sábado samedi"
    "|sunday sonntag domingo dimanche"
)
_WEEKDAY = {
    name.removesuffix("s"): day for day, names in enumerate(_WEEKDAYS.split("|")) for name in names.split()
}
_DAY_NAME = r"(?:" + "|".join(sorted(_WEEKDAY, key=len, reverse=True)) + r")s?"
_SHORT_DAY = re.compile(
    r"\b(Mon|Tues?|Weds?|Thu(?:rs?)?|Fri|Sat|Sun)\b\.?(?=\s*(?:[-–,/&.;)]|to\b|and\b|until\b|$))"
)
_LONG_DAY = dict(
    zip(
        ("mon", "tue", "wed", "thu", "fri", "sat", "sun"),
        (n.split()[0] for n in _WEEKDAYS.split("|")),
        strict=True,
    )
)
_DAY_RANGE = re.compile(
    rf"\b({_DAY_NAME})\s*(?:-|–|to|till|until|through|bis|a|hasta)\s*({_DAY_NAME})\b", re.I
)
_GROUPS = (
    (
        re.compile(
            r"\b(?:every day(?! except)|daily|all week|seven days a week|7 days a week|täglich)\b", re.I
        ),
        range(7),
    ),
    (re.compile(r"\b(?:every day|any day)(?= except)", re.I), range(7)),
    (re.compile(r"(?<!\d )\b(?:weekdays?|on working days|during the week|werktags)\b", re.I), range(5)),
    (re.compile(r"\bweekends?\b", re.I), range(5, 7)),
)
_EXCEPT_DAYS = re.compile(
    rf"\b(?:closed|except|not|never|no|apart from|other than)\b(?: \w+){{0,3}}?\s+"
    rf"(?:{_DAY_NAME}(?:\s*[,&–-]\s*|\s+(?:and|or|to)\s+)?)+",
    re.I,
)


_DAY_TOKENS = frozenset(["daily", "every", "day", "weekday", "week", "weekend", "except"])


@lru_cache(maxsize=16384)
def weekdays_of(text: str, groups: bool = False, asked_closed: bool = False) -> frozenset[int]:
    """Return the weekdays that a text names, Monday as 0; English, German, Spanish and French names.

    Args:
        text: the text.
        groups: whether to count "Monday to Friday", "weekdays" and "every day" as their days, and leave out days on
            which something is not ("closed on Sundays").
        asked_closed: whether days are asked on which something is not, which are then not left out.
    """
    text = _SHORT_DAY.sub(lambda m: _LONG_DAY[m[1][:3].lower()], text)
    days: set[int] = set()
    excluded: set[int] = set()
    if groups:
        without = [] if asked_closed else [match.group() for match in _EXCEPT_DAYS.finditer(text)]
        excluded = {day for part in without for day in weekdays_of(part)}
        text = text if asked_closed else _EXCEPT_DAYS.sub(" ", text)
        for match in _DAY_RANGE.finditer(text):
            first, last = (_day(match[n]) for n in (1, 2))
            days |= {(first + step) % 7 for step in range((last - first) % 7 + 1)}
        for pattern, members in _GROUPS:
            days |= set(members) if pattern.search(text) else set()
        days -= excluded
    words = re.findall(r"[^\W\d_]+", text.lower())
    days |= {_day(word) for word in words if word.removesuffix("s") in _WEEKDAY}
    return frozenset(days or excluded)  # "closed on Mondays" alone names Mondays


def besides_days(tokens: Sequence[str]) -> list[str]:
    """Return the content words that name no days, which are compared as days: without "Friday", "daily", "except"."""
    return [token for token in tokens if token not in _DAY_TOKENS and not weekdays_of(token)]


def _day(word: str) -> int:
    return _WEEKDAY[word.lower().removesuffix("s")]


@lru_cache(maxsize=8192)
def items_of(fact: str, question: str) -> tuple[str, ...]:
    """Return the items of a fact that is a list of things, () for any other fact."""
    text = fact.strip().rstrip(".")
    if weekdays_of(text) or re.search(r"\d", text) or _ONE_PLACE.search(question):
        return ()
    items = tuple(_PREPOSITION.sub("", item) for item in _SPLIT.split(text) if item)
    short = all(0 < len(item.split()) <= MAX_ITEM_WORDS for item in items)
    return items if len(items) > 1 and short and not any(map(_CLAUSE_WORD.search, items)) else ()


def lists_exactly(
    items: Sequence[str],
    sentences: Sequence[str],
    known: Collection[str],
    asked: Collection[str],
    language: str,
) -> bool:
    """Return whether sentences name every item and no other beside them.

    Args:
        items: the items.
        sentences: those of the answer.
        known: the content words of fact, references and question.
        asked: those of the question, by which no item is told from another.
        language: of the words.
    """
    wanted = [set(content_tokens(item, language)) for item in items]
    wanted = [tokens - set(asked) or tokens for tokens in wanted]
    named: set[int] = set()
    for sentence in sentences:
        pieces = [piece for piece in _SPLIT.split(sentence) if piece.strip()]
        tokens = [content_tokens(piece, language) for piece in pieces]
        holds = [
            {
                n
                for n, words in enumerate(wanted)
                if words and _names(words, have, known) and not _NEGATED.search(piece)
            }
            for piece, have in zip(pieces, tokens, strict=True)
        ]
        named |= set().union(*holds)
        places = [at for at, which in enumerate(holds) if which]
        if len(places) > 1 or (places and len(items) == 2):
            first, last = places[0], places[-1]
            between = range(first + 1, min(last + 2, len(pieces)))
            if any(not holds[at] and _is_foreign_item(pieces[at], tokens[at], known) for at in between):
                return False
            named_first = first == 1 and not _is_led_in(sentence, pieces)
            if named_first and _SUBJECT.search(pieces[0]) and not _ends_known(tokens[0], known):
                return False
    return all(n in named for n, words in enumerate(wanted) if words)


def _names(words: set[str], have: Collection[str], known: Collection[str]) -> bool:
    hits = len(shared_tokens(words, have))
    return hits == len(words) or (2 * hits >= len(words) and len(shared_tokens(have, known)) == len(have))


def _is_led_in(sentence: str, pieces: Sequence[str]) -> bool:
    """Return whether the first piece only leads a list in: "Three ways are open to you: cash, card and transfer"."""
    return sentence[len(pieces[0]) :].lstrip().startswith(":") or _NAMELY.match(pieces[1]) is not None


def _is_foreign_item(piece: str, tokens: Sequence[str], known: Collection[str]) -> bool:
    words = [word for word in re.findall(r"[^\W\d_]+", piece.lower()) if word not in LEADING_ARTICLES]
    foreign = len(tokens) - len(shared_tokens(tokens, known))
    return (
        foreign > 0
        and len(words) <= MAX_ITEM_WORDS
        and not _CLAUSE_WORD.search(piece)
        and not _NEGATED.search(piece)
    )


def _ends_known(tokens: Sequence[str], known: Collection[str]) -> bool:
    return not tokens or bool(shared_tokens(tokens[-1:], known))
