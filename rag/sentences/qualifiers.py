"""What limits a statement: modality (must, should, may), how many it holds for (all, most, some), and its conditions.

:func:`same_modality` and :func:`same_extent` say whether a clause of a source bears out one of a statement in this respect;
:func:`left_out` names the restrictions of the source's clause that the statement lacks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from rag.quantities.comparing import ABOUT, BY, FROM, Quantity, agree
from rag.sentences.clauses import CONDITIONS, Clause, Token, is_covered
from rag.sentences.lexicon import FILLERS, NEGATORS
from rag.text.words import stem

MUST, _SHOULD, _MAY, _MIGHT, _PLAN, _WILL, NOT_NEEDED, FORBIDDEN = range(1, 9)


def _stems(text: str) -> frozenset[str]:
    return frozenset(map(stem, text.split()))


_OBLIGATION = _stems(
    "must need needed required require requires compulsory mandatory obligatory necessary obliged requirement"
)
_ADVICE = _stems(
    "should ought recommended recommend advised advise advisable suggested encouraged please asked"
)
_PERMISSION = _stems(
    "may can could cannot allowed allow allows permitted permit permits welcome possible able"
)
_CHANCE = _stems("might perhaps possibly maybe probably likely")
_INTENT = _stems("plan plans planned intend intends intended hope hopes")
_EXPECTED = _stems("expected expect expects")
_BAN = _stems("forbidden prohibited banned forbid forbids prohibits prohibit ban")
_FREE_CHOICE = _stems("optional voluntary")
_MODALS = frozenset(("may", "can", "must", "need", "could", "should"))
_DENIALS = frozenset(word for word in NEGATORS["not"])
_BORNE_OUT = {
    MUST: (MUST, 0),
    _SHOULD: (_SHOULD,),
    _MAY: (_MAY, _MIGHT, 0),
    _MIGHT: (_MIGHT, _MAY, _PLAN),
    _PLAN: (_PLAN, _SHOULD, _WILL),
    _WILL: (_WILL, _PLAN, 0, MUST),
    NOT_NEEDED: (NOT_NEEDED,),
    FORBIDDEN: (FORBIDDEN, 0),
    0: (0, _MAY, MUST, _WILL, FORBIDDEN, NOT_NEEDED),
}
"""The modalities of a source that bear out each of a statement."""
_ALL, _MOST, _HALF, _MANY, _SOME, _FEW, _NONE, _NOT_ALL = range(1, 9)
_EXTENTS = {
    **dict.fromkeys(_stems("all every each always both everyone everybody everything everywhere"), _ALL),
    **dict.fromkeys(_stems("most mostly usually generally majority"), _MOST),
    **dict.fromkeys(_stems("many several often numerous frequently"), _MANY),
    **dict.fromkeys(_stems("some sometimes certain partly occasionally"), _SOME),
    **dict.fromkeys(_stems("none neither nobody"), _NONE),
    **dict.fromkeys(_stems("few rarely seldom hardly"), _FEW),
}
_NEARLY = frozenset(("nearly", "almost", "virtually", "practically"))
_CONDITION_SHARE, _ONLY_SHARE = 0.34, 0.67
"""Share of the words of a condition, and of what "only" stands before, that a statement has which does not leave it out."""
_ONLY = frozenset(("only", "exclusively", "solely", "nur", "solo"))
_LIMITING = _stems("with without outside beyond except ohne sin außerhalb")
"""Prepositions whose phrase limits what a statement is about."""
_ENDINGS = _stems(
    "in on at to from for by with without outside inside during after before since until of and or but is are was were"
    " may can must should will has have do does who which that not if when while into within per as than except"
)


def modality(clause: Clause) -> int:
    """Return the modality of a clause; 0 for a plain statement."""
    keys = [token.key for token in clause.tokens]
    words = frozenset(keys)
    denied = clause.negated or any(one in _MODALS and other in _DENIALS for one, other in pairwise(keys))
    if words & _FREE_CHOICE:
        return MUST if denied else NOT_NEEDED
    if words & _BAN:
        return _MAY if denied and len(words & _BAN) == 1 and "not" in words else FORBIDDEN
    if words & _OBLIGATION and not (words & _PERMISSION and "must" not in words):
        return NOT_NEEDED if denied and not {"without"} & words else MUST
    if words & _ADVICE:
        return _SHOULD
    if words & _CHANCE:
        return _MIGHT
    if words & _EXPECTED:
        return _SHOULD
    if words & _INTENT:
        return _PLAN
    if words & _PERMISSION:
        return FORBIDDEN if denied else _MAY
    return _WILL if "will" in words or ("is" in words and _is_to(keys)) else 0


def _is_to(keys: Sequence[str]) -> bool:
    return any(one in ("is", "are") and other == "to" for one, other in pairwise(keys))


def same_modality(claimed: Clause, own: Clause) -> bool:
    """Return whether a clause of a source says as strongly what a claimed clause says: not must for may or should."""
    claim_kind, known = modality(claimed), modality(own)
    if claim_kind == known or known in _BORNE_OUT[claim_kind]:
        return True
    # "works without a connection" for "does not need a connection"
    return claim_kind == NOT_NEEDED and known in (0, _MAY) and own.negated


def extent(clause: Clause) -> int:
    """Return for how many a clause holds; 0 where it has no word for it."""
    keys = [token.key for token in clause.tokens]
    first = 0
    for at, key in enumerate(keys):
        kind = _EXTENTS.get(key, 0)
        if kind == _ALL and at and keys[at - 1] in _NEARLY:
            kind = _MOST
        if kind == _ALL and at and keys[at - 1] == "not":
            kind = _NOT_ALL
        if (
            key == "no"
            and at < 2
            and keys[at + 1 : at + 2] not in (["more"], ["less"], ["longer"], ["later"])
        ):
            kind = _NONE
        if kind == _MOST and keys[at - 1 : at] == ["at"]:
            kind = 0
        first = first or kind
    if not first and any(quantity.unit == "share" for quantity in clause.quantities):
        return _HALF
    return first


def same_extent(claimed: Clause, own: Clause) -> bool:
    """Return whether a clause of a source holds for as many as a claimed clause says: not most for all."""
    claim_kind, known = extent(claimed), extent(own)
    if not known or known == claim_kind:
        return True
    if claim_kind == 0:
        return known == _ALL or not _is_limited_subject(own, claimed)
    return {
        _ALL: known == _ALL or (known == _NONE and claimed.negated),
        _NONE: known in (_NONE, _ALL),
        _MOST: known in (_ALL, _MOST),
        _HALF: known == _HALF,
        _MANY: known in (_ALL, _MOST, _MANY),
        _SOME: known != _NONE,
        _FEW: known == _FEW,
        _NOT_ALL: known in (_NOT_ALL, _MOST, _SOME, _FEW, _HALF, _MANY),
    }.get(claim_kind, True)


def _is_limited_subject(own: Clause, claimed: Clause) -> bool:
    """Return whether a word such as "most" stands before a noun that the claim has without it."""
    for at, token in enumerate(own.tokens[:6]):
        if _EXTENTS.get(token.key, _ALL) not in (_ALL, _NONE):
            after = next((t for t in own.tokens[at + 1 : at + 4] if t.content), None)
            return after is not None and is_covered(after.key, claimed.words)
    return False


def left_out(
    claim_words: frozenset[str],
    claimed: Sequence[Quantity],
    own: Clause,
    linked: Sequence[Clause],
    quantities: Sequence[Quantity],
) -> bool:
    """Return whether a statement lacks a restriction of the source's clause.

    Args:
        claim_words: all words of the statement.
        claimed: its quantities.
        own: the clause of the source.
        linked: the clauses that depend on it or that it depends on.
        quantities: those of the source's sentence, to which tokens such as "#1" refer.
    """
    return any(
        _is_missing(phrase, claim_words, claimed, quantities) for phrase in _restrictions(own, linked)
    ) or any(
        _is_missing(phrase, claim_words, claimed, quantities, _ONLY_SHARE) for phrase in _only(own.tokens)
    )


def _only(tokens: Sequence[Token]) -> Iterator[Sequence[Token]]:
    """Yield what "only" stands before, or behind at the end of a phrase: "of the intensive course only"."""
    for at, token in enumerate(tokens):
        if token.key not in _ONLY:
            continue
        last = at + 1 == len(tokens) or (tokens[at + 1].key in ("and", "but", "or") and at > 0)
        if last:
            start = at
            while start and tokens[start - 1].key not in _ENDINGS and not tokens[start - 1].verb:
                start -= 1
            yield tokens[start:at]
        else:
            yield _phrase(tokens, at + (tokens[at + 1].key in _ENDINGS))


def _restrictions(own: Clause, linked: Sequence[Clause]) -> Iterator[Sequence[Token]]:
    """Yield the tokens of each condition, exception and limiting phrase."""
    for clause in linked:
        at = next((n for n, token in enumerate(clause.tokens) if token.key in CONDITIONS), -1)
        yield clause.tokens[at + 1 :]
    tokens = own.tokens
    for at, token in enumerate(tokens):
        if token.key in CONDITIONS and token.key not in ("until", "while"):
            yield _phrase(tokens, at, condition=True)
        elif token.key in _LIMITING:
            yield _phrase(tokens, at)


def _phrase(tokens: Sequence[Token], at: int, condition: bool = False) -> Sequence[Token]:
    """Return the tokens after one up to the next preposition or verb; of a condition all up to the end of the clause."""
    end = at + 1
    while end < len(tokens):
        begun = any(
            (token.content and token.key not in FILLERS) or token.key[0] == "#"
            for token in tokens[at + 1 : end]
        )
        if begun and not condition and (tokens[end].key in _ENDINGS or tokens[end].verb):
            break
        end += 1
    return tokens[at + 1 : end]


def _is_missing(
    phrase: Sequence[Token],
    claim_words: frozenset[str],
    claimed: Sequence[Quantity],
    quantities: Sequence[Quantity],
    share: float = _CONDITION_SHARE,
) -> bool:
    content = [token.key for token in phrase if token.content and token.key not in FILLERS]
    amounts = [
        quantities[int(token.key[1:])]
        for token in phrase
        if token.key[0] == "#" and int(token.key[1:]) < len(quantities)
    ]
    if not content and not amounts:
        return False
    if any(not any(agree(q, own) or _alike(q, own) for q in claimed) for own in amounts):
        return True
    known = sum(is_covered(word, claim_words) for word in content)
    return bool(content) and known < share * len(content)


def _alike(claimed: Quantity, own: Quantity) -> bool:
    return (
        claimed.value == own.value
        and ABOUT not in (claimed.bound, own.bound)
        and claimed.change not in (BY, FROM)
    )
