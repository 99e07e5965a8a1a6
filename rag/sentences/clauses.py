"""Clauses of a sentence: their words in order, and which words of the clauses beside it one takes part in."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise, takewhile, zip_longest

from rag.quantities.comparing import Quantity
from rag.sentences import lexicon
from rag.sentences.lexicon import EXCLUSIVE, NEGATORS, OPPOSITES, RELATIONS, SYNONYMS
from rag.sentences.verbs import AUXILIARIES, VERBS
from rag.text.words import stem

WORD_PATTERN = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_MAX_JOIN = 12
"""Characters before a clause in which the word that joins it stands."""
_SUBORDINATORS = frozenset(
    (
        "although",
        "though",
        "because",
        "or",
        "which",
        "who",
        "whose",
        "where",
        "when",
        "unless",
        "if",
        "that",
        "until",
        "since",
        "que",
        "oder",
        "weil",
        "wenn",
    )
)
JOINS = frozenset(
    ("", "and", "but", "so", "yet", "while", "whereas", "y", "pero", "mientras", "und", "aber", "während")
)
"""Words that join clauses of which each says something by itself; "" for a comma or semicolon alone."""
_CONTRAST = stem("while")
_CONDITION_WORDS = [
    "if",
    "when",
    "whenever",
    "while",
    "except",
    "unless",
    "until",
    "wenn",
    "falls",
    "außer",
    "si",
    "cuando",
    "excepto",
    "salvo",
]
CONDITIONS = frozenset((*_CONDITION_WORDS, *map(stem, _CONDITION_WORDS)))
"""Words that begin a condition or an exception."""
_EXCEPTIONS = frozenset(("except", "außer", "excepto", "salvo"))
PREPOSITIONS = frozenset(
    (
        "at",
        "in",
        "on",
        "to",
        "from",
        "for",
        "with",
        "by",
        "during",
        "after",
        "before",
        "im",
        "um",
        "am",
        "an",
        "auf",
        "mit",
        "en",
        "con",
    )
)
_DETERMINERS = frozenset(("the", "der", "die", "das", "el", "la", "los", "las"))
_OBJECT_PRONOUNS = frozenset(("it", "them"))
NEGATOR_KIND = {word: kind for kind, several in NEGATORS.items() for word in several}
_NEGATING_STEMS = frozenset(map(stem, NEGATOR_KIND))


@dataclass(frozen=True, slots=True)
class Token:
    """One word or quantity."""

    key: str
    """The stem, or "#" and the position of the quantity among those of the sentence."""
    start: int
    content: bool
    """Whether it is a content word: neither stop word, nor quantity, nor negation."""
    verb: bool = False


@dataclass(frozen=True, slots=True)
class Clause:
    """A part of a sentence with a verb, or with a quantity after one that has both."""

    tokens: tuple[Token, ...]
    quantities: tuple[Quantity, ...]
    negated: bool
    subject: frozenset[str] = frozenset()
    """Words of the sentence's subject, for a clause that has none of its own."""
    context: frozenset[str] = frozenset()
    """Words of the clauses beside it that it takes part in: of one that it depends on, or that it leaves out."""
    condition: bool = False
    """Whether it begins with "if", "when", "except" and the like."""

    @property
    def words(self) -> frozenset[str]:
        """All its stemmed words."""
        return frozenset(token.key for token in self.tokens)

    @property
    def content(self) -> frozenset[str]:
        """Its content words."""
        return frozenset(token.key for token in self.tokens if token.content)


def negation_at(clause: Clause) -> int | None:
    """Return the place of the first word of a clause that negates; None for none, whether or not two cancel each other."""
    return next((n for n, token in enumerate(clause.tokens) if token.key in _NEGATING_STEMS), None)


def has_verb(tokens: Sequence[Token]) -> bool:
    """Return whether a piece has a verb: a known one, a contracted one, or a word that may be one before a stop word."""
    return any(
        token.key in VERBS
        or token.key.endswith("n't")
        or (token.verb and after is not None and (not after.content or after.key in TITLES))
        for token, after in zip_longest(tokens, tokens[1:])
    )


def leaves_out_verb(tokens: Sequence[Token]) -> bool:
    """Return whether a piece denies what the clause before says of something else: "but not in the cabins"."""
    keys = [token.key for token in tokens if token.key not in JOINS]
    return any(token.content for token in tokens) and bool(keys) and _denies_rest(keys[0])


def _denies_rest(word: str) -> bool:
    return word in _EXCEPTIONS or NEGATOR_KIND.get(word) == "not"


def shares_verb(tokens: Sequence[Token], before: Sequence[Token]) -> bool:
    """Return whether a piece is another thing and place for the verb before: "fish on Tuesdays and meat on Fridays"."""
    at = next((n for n, token in enumerate(tokens) if token.key in PREPOSITIONS), 0)
    if not any(token.content for token in tokens[:at]) or not any(
        t.content or t.key[0] == "#" for t in tokens[at:]
    ):
        return False
    verb = next((n for n, token in enumerate(before) if token.verb), len(before))
    return any(token.key == tokens[at].key for token in before[verb:])


def says_something(tokens: Sequence[Token]) -> bool:
    """Return whether a piece has at least two content words or quantities."""
    return sum(token.content or token.key[0] == "#" for token in tokens) > 1


def is_parallel(tokens: Sequence[Token], before: Sequence[Token]) -> bool:
    """Return whether a piece without a known verb is built as the clause before, so that it says something by itself.

    It repeats a word between others ("bats hunt by night, birds hunt by day"), or has the counterpart of one of its words
    after another or with a repeated one ("green above and brown below", "the Blue Suite has a bath, the Red a shower").
    """
    repeated = {token.key for token in before if token.content}
    for at, token in enumerate(tokens):
        front, rest = tokens[:at], tokens[at + 1 :]
        if not token.content and token.key not in RELATIONS:
            continue
        led = any(t.content or t.key in NEGATOR_KIND for t in front)
        if token.key in repeated:
            where = next(n for n, t in enumerate(before) if t.key == token.key)
            if (
                led
                and any(t.content or t.key[0] == "#" for t in rest)
                and says_something((*before[:where], *before[where:]))
            ):
                return where > 0
            continue
        counterparts = EXCLUSIVE.get(token.key, frozenset()) | OPPOSITES.get(token.key, frozenset())
        counterparts |= RELATIONS.get(token.key, frozenset())
        own = {t.key for t in tokens}
        if any(t.key in counterparts and t.key not in own for t in before) and (
            any(t.content for t in front)
            or (sum(t.content for t in rest) > 1 and any(t.key in repeated for t in rest))
        ):
            return True
    return False


def with_context(clauses: Sequence[Clause], sentence: str) -> tuple[Clause, ...]:
    """Return the clauses with the words of others that they share.

    A clause after "which", "because" or "if" shares all with the one before, and the other way round. Of one after "and",
    "but" or a semicolon only what it leaves out is shared.
    """
    shared: list[set[str]] = [set() for _ in clauses]
    group = [0]
    whole = list(clauses)
    before = whole[0]
    for n in range(1, len(clauses)):
        before, clause = (whole[n - 1] if has_verb(whole[n - 1].tokens) else before), whole[n]
        join = _join(sentence, clause)
        introduces = join == "" and whole[n - 1].tokens[0].key in PREPOSITIONS | _SUBORDINATORS
        if join not in JOINS or introduces:
            group.append(group[-1])
            continue
        group.append(n)
        if not has_verb(clause.tokens):
            head = _left_out(before, clause, sentence)
            shared[n] |= {token.key for token in head}
            if leaves_out_verb(clause.tokens):
                excepted = not _EXCEPTIONS.isdisjoint(clause.words)
                whole[n] = replace(
                    clause,
                    tokens=(*head, *clause.tokens),
                    subject=before.subject,
                    negated=clause.negated or excepted != before.negated,
                )
        last = next((token for token in reversed(clause.tokens) if token.key not in JOINS), None)
        if last is not None and last.key[0] == "#":
            # "... lost 300 men, and the other 80"
            shared[n] |= {
                after.key for token, after in pairwise(before.tokens) if token.key[0] == "#" and after.content
            }
        if not has_verb(clause.tokens):
            pass
        elif not _OBJECT_PRONOUNS.isdisjoint(clause.words):
            shared[n] |= object_words(before)
        if clause.subject and has_verb(clause.tokens) and PREPOSITIONS.isdisjoint(clause.words):
            # a place or time of the one before holds for both: "dogs travel on deck and pay 3 euros"
            keys = [token.key for token in _predicate(before)]
            at = next((m for m, key in enumerate(keys) if key in PREPOSITIONS), len(keys))
            shared[n] |= {key for key in keys[at:] if key[0] != "#"}
        if not any(token.content or token.key[0] == "#" for token in _predicate(before)[1:]):
            shared[n - 1] |= clause.words
    for n in range(len(clauses)):
        for m in range(len(clauses)):
            if group[n] == group[m]:
                shared[n] |= whole[m].words | whole[m].subject | shared[m]
    for n in range(1, len(clauses)):
        if _relative(whole[n]):
            shared[n] |= {key for key in whole[n - 1].words | whole[n - 1].subject if key[0] != "#"}
    return tuple(
        replace(clause, context=frozenset(shared[n]), condition=_is_condition(sentence, clauses[n]))
        for n, clause in enumerate(whole)
    )


def _is_condition(sentence: str, clause: Clause) -> bool:
    """Return whether a clause begins with a word of a condition or an exception, or stands behind one."""
    keys = [token.key for token in clause.tokens[:2]]
    if keys[:1] == ["only"] or keys[:1] == ["and"]:
        keys = keys[1:]
    start = min((token.start for token in clause.tokens), default=0)
    gap = sentence[max(0, start - _MAX_JOIN) : start].lower()
    if keys and keys[0] in CONDITIONS:
        return not (keys[0] == _CONTRAST and gap.rstrip().endswith(","))
    before = WORD_PATTERN.findall(gap)
    if before and before[-1] == "while" and gap.rstrip().removesuffix("while").rstrip().endswith((",", ";")):
        return False  # a contrast
    return bool(before) and before[-1] in CONDITIONS


def conditions_of(clauses: Sequence[Clause], at: int) -> list[Clause]:
    """Return the conditions and exceptions of a clause: those that follow it, or that begin the sentence before it."""
    if clauses[at].condition:
        return []
    after = list(takewhile(lambda clause: clause.condition, clauses[at + 1 :]))
    before = list(takewhile(lambda clause: clause.condition, reversed(clauses[:at])))
    return [*after, *(before if len(before) == at else ())]


def _relative(clause: Clause) -> bool:
    """Return whether a clause is about things of the one before: "of whom 18 are men"."""
    return any(token.key in ("whom", "which") for token in clause.tokens[:3])


def _join(sentence: str, clause: Clause) -> str:
    """Return the word that joins a clause to the one before; "" for none."""
    if not clause.tokens:
        return ""
    start = min(token.start for token in clause.tokens)
    gap = sentence[max(0, start - _MAX_JOIN) : start].lower()
    if gap.rstrip()[-1:] in ("(", ")"):
        return "("
    before = WORD_PATTERN.findall(gap)
    word = before[-1] if before else ""
    return word if word in JOINS or word in _SUBORDINATORS else ""


def _predicate(clause: Clause) -> tuple[Token, ...]:
    """Return the tokens from the last of the first verbs on: "may be borrowed for 7 days" from "borrowed"."""
    at = next((n for n, token in enumerate(clause.tokens) if token.verb), len(clause.tokens))
    while at + 1 < len(clause.tokens) and clause.tokens[at + 1].verb and clause.tokens[at].key in AUXILIARIES:
        at += 1
    return clause.tokens[at:]


def object_words(clause: Clause) -> frozenset[str]:
    """Return the content words after the verb up to a preposition."""
    words: set[str] = set()
    for token in _predicate(clause)[1:]:
        if token.key in PREPOSITIONS:
            break
        words |= {token.key} if token.content else set()
    return frozenset(words)


def verb_words(clause: Clause) -> frozenset[str]:
    """Return the verbs that are content words."""
    return frozenset(token.key for token in clause.tokens if token.verb and token.content)


def _left_out(before: Clause, clause: Clause, sentence: str) -> list[Token]:
    """Return the tokens of the clause before that one without a verb leaves out.

    Before a preposition that is all up to that one, before a quantity all up to the first quantity; before a thing that
    stands for the object the subject and verb, for the subject the verb and the noun of several words.
    """
    own = [token for token in clause.tokens if not _denies_rest(token.key)]
    first = next((t for t in own if t.content or t.key[0] == "#" or t.key in PREPOSITIONS), None)
    after = _predicate(before)
    verb = len(before.tokens) - len(after)
    if first is None:
        return []
    if first.key in PREPOSITIONS:
        same = next((n for n, t in enumerate(before.tokens) if n > verb and t.key == first.key), None)
        other = next((n for n, t in enumerate(before.tokens) if n > verb and t.key in PREPOSITIONS), None)
        at = same if same is not None else other
        at = len(before.tokens) if at is None else at
        # a verb may stand at the end: "Hunde sind im Garten erlaubt"
        return [*before.tokens[:at], *(token for token in before.tokens[at:] if token.key in VERBS)]
    if first.key[0] == "#":
        at = next((n for n, t in enumerate(before.tokens) if t.key[0] == "#"), len(before.tokens))
        return list(before.tokens[:at])
    if leaves_out_verb(clause.tokens):
        return list(before.tokens[: verb + 1])
    if _is_other_subject(first, own, sentence):
        return [token for token in before.tokens if token.verb]
    nouns = [token for token in before.tokens[:verb] if token.content]
    objects = object_words(before)
    if clause.tokens[0].key in _DETERMINERS or (
        clause.tokens[0].key in JOINS and clause.tokens[1:2] and clause.tokens[1].key in _DETERMINERS
    ):
        objects = frozenset()  # a subject of its own
    at = own.index(first)
    for_amount = bool(after[1:]) and after[1].key[0] == "#" and own[at + 1 : at + 2]
    stands_for = EXCLUSIVE.get(first.key, frozenset()) | OPPOSITES.get(first.key, frozenset())
    if (
        not objects.isdisjoint(stands_for)
        or (objects and at + 1 < len(own))
        or (for_amount and own[at + 1].key in PREPOSITIONS)
    ):
        shared = nouns
    else:
        shared = nouns[-1:] if len(nouns) > 1 else []
    return [*shared, *(token for token in before.tokens if token.verb)]


def _is_other_subject(first: Token, own: Sequence[Token], sentence: str) -> bool:
    """Return whether a piece without a verb begins with a name that has an object behind it: "Captain Rask the Brisk"."""
    if first.key in TITLES:
        return True
    named = sentence[first.start : first.start + 1].isupper()
    return named and any(
        token.key in ("the", "a", "an", "his", "her") for token in own[own.index(first) + 1 :]
    )


TITLES = frozenset(("mr", "ms", "mrs", "miss", "dr", "captain", "prof", "professor"))
"""Words before the name of a person."""


def coverage(content: frozenset[str], words: frozenset[str]) -> float:
    """Return the share of content words that are among the words, themselves or as a synonym; 1 for none."""
    return sum(is_covered(word, words) for word in content) / len(content) if content else 1.0


def is_covered(word: str, words: frozenset[str]) -> bool:
    """Return whether a stem, or one that means the same, is among the words."""
    if word in words or word + "e" in words or (word[-1:] == "e" and word[:-1] in words):
        return True  # "hired" and "hire"
    if not SYNONYMS.get(word, frozenset()).isdisjoint(words):
        return True
    return any(lexicon.are_synonyms(word, other) for other in _by_root(words).get(word[:4], ()))


@lru_cache(maxsize=8192)
def _by_root(words: frozenset[str]) -> Mapping[str, list[str]]:
    """Return words by their first four letters."""
    roots: dict[str, list[str]] = {}
    for word in words:
        if len(word) >= 4:
            roots.setdefault(word[:4], []).append(word)
    return roots
