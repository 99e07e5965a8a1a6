"""Whether one sentence of a passage says what a statement says: the same of the same things, not only with the same words.

:func:`compare` binds each quantity to its unit, its bound and the words next to it, compares negations and opposites within
the clause that is meant, relations with their sides, and the order of the words around a verb. A word that the passage uses
only elsewhere is taken for one of another statement, unless the sentence is about the same subject.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rag.grounding.binding import quantities_agree
from rag.grounding.order import LIMITED, NO, YES, is_converse, relations_agree, sides_exchanged, words_stand
from rag.grounding.source import Source, checked_words, fits, has_opposite, missing_words
from rag.quantities.comparing import Quantity, agree
from rag.sentences import lexicon
from rag.sentences.clauses import (
    TITLES,
    Clause,
    Token,
    conditions_of,
    coverage,
    is_covered,
    object_words,
    verb_words,
)
from rag.sentences.lexicon import EXCLUSIVE, FILLERS, PARTIAL, UNIVERSAL
from rag.sentences.qualifiers import left_out, same_extent, same_modality
from rag.sentences.statements import ParsedStatement, leading_words
from rag.text.words import stem

MIN_SHARE = 0.5
"""Share of a clause's content words that the sentence, what it continues and the title must contain."""
MAX_MISSING = 0.67
"""The same of those that are neither names nor in the title nor fillers: most that may be missing."""
MAX_DISPLACED = 0.34
"""Share of a clause's content words that may be only in other sentences of the passage."""
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_JOINING = frozenset(("and", "but", "or", "whil", "whereas", "plus"))
_NAMING = frozenset(map(stem, ("called", "named", "titled", "known")))
_STATES = frozenset(("off",))
"""Words without content that still are opposites of others."""


def compare(claim: ParsedStatement, source: Source) -> str:
    """Return whether a sentence bears out every clause of a claim: yes, no, or nearly (one word stands for another)."""
    if not claim.names <= source.elsewhere or _names_other_number(claim, source):
        return NO
    clauses = [clause for clause in claim.clauses if clause.content or clause.quantities]
    if not clauses or not all(_bears_out(clause, claim, source) for clause in clauses):
        return NO
    stands = words_stand(claim, source)
    return LIMITED if stands == YES and any(_is_limited(c, claim, source) for c in clauses) else stands


def _names_other_number(claim: ParsedStatement, source: Source) -> bool:
    """Return whether a claim names "Alva 2" where the sentence names "Alva 1" only."""
    own = {name for name in source.statement.names if name[-1].isdigit()}
    return any(
        name[-1].isdigit()
        and name not in own
        and any(other.rstrip("0123456789") == name.rstrip("0123456789") for other in own - claim.names)
        for name in claim.names
    )


def _is_limited(clause: Clause, claim: ParsedStatement, source: Source) -> bool:
    """Return whether the source says a clause only with a restriction that the claim lacks."""
    content = clause.content | clause.subject
    own_clauses = source.statement.clauses
    chosen = _nearest(content, clause, source)
    nearest = [n for n, own in enumerate(own_clauses) if any(own is other for other in chosen)]
    return bool(nearest) and all(
        left_out(
            claim.words,
            claim.quantities,
            own_clauses[n],
            conditions_of(own_clauses, n),
            source.statement.quantities,
        )
        for n in nearest
    )


def _bears_out(clause: Clause, claim: ParsedStatement, source: Source) -> bool:
    """Return whether a sentence bears out one clause of a claim."""
    content = (clause.content | clause.subject) - TITLES
    missing = missing_words(content, source) | frozenset(
        name
        for name in claim.names - source.window
        if name[-1].isdigit() and name.lstrip(_LETTERS) in clause.words | clause.subject
    )
    displaced = frozenset(word for word in missing if word in source.elsewhere)
    known = sum(any(agree(q, other) for other in source.quantities) for q in clause.quantities)
    weighed = content - FILLERS
    if weighed and (len(weighed - missing) + known) / (len(weighed) + known) < MIN_SHARE:
        return False
    return (
        _same_subject(clause, content, missing, displaced, claim, source)
        and not _joins_clauses(clause, content, claim, source)
        and not _differs_for_both(clause, source)
        and quantities_agree(clause, content, claim, source)
        and all(
            _clause_agrees(clause, content, claim, own, source)
            and same_modality(clause, own)
            and same_extent(clause, own)
            for own in _nearest(content, clause, source)
        )
    )


def _differs_for_both(clause: Clause, source: Source) -> bool:
    """Return whether a clause about "both" is said of one thing and denied of the other: "A has a lift, B has none"."""
    if "both" not in clause.words:
        return False
    predicate = clause.content - clause.subject - set(leading_words(clause.tokens))
    own = [part for part in source.statement.clauses if predicate and predicate <= part.words | part.context]
    return len({part.negated for part in own}) > 1


def _joins_clauses(clause: Clause, content: frozenset[str], claim: ParsedStatement, source: Source) -> bool:
    """Return whether a clause takes its words and quantities from several clauses that each say something by themselves."""
    own = source.statement
    if source.before:
        words = checked_words(content, source, bool(clause.quantities))
        quantities = [q for q in clause.quantities if any(agree(q, other) for other in own.quantities)]
        predicate = content - set(leading_words(clause.tokens)) - clause.subject
        here = coverage(predicate, own.words)
        if not words and not quantities:
            # all is said in the sentences before, which are compared by themselves
            return any(coverage(predicate, other.words) > here for other in source.before)
        if words and not quantities and set(words) <= set(leading_words(clause.tokens)):
            # only the subject is in the sentence itself: the rest is said of another one
            rest = content - set(words) - source.above.words - FILLERS
            if any(
                is_covered(w, other.words) and not is_covered(w, own.words)
                for w in rest
                for other in source.before
            ):
                return True
    if len(own.clauses) == 1 or (
        len(own.clauses) != len(claim.clauses) and all(is_covered(word, claim.words) for word in own.content)
    ):
        return False
    # the subject that a claim's clause takes from another one is checked in that one
    words = checked_words(clause.content, source, bool(clause.quantities))
    if any(fits(clause, words, part, source) for part in own.clauses):
        return False
    return not _fits_in_parts(clause, words, source) and not _fits_nearly(clause, words, claim, source)


def _fits_in_parts(clause: Clause, words: Sequence[str], source: Source) -> bool:
    """Return whether the pieces of a clause between "and" and the like fit a clause of the sentence each."""
    pieces: list[list[Token]] = [[]]
    for token in clause.tokens:
        if token.key in _JOINING and len(pieces[-1]) > 1:
            pieces.append([])
        else:
            pieces[-1].append(token)
    checked = [[token.key for token in piece if token.key in words] for piece in pieces]
    amounts = [[token.key for token in piece if token.key[0] == "#"] for piece in pieces]
    if len(pieces) < 2 or any(len(one) + len(other) < 2 for one, other in zip(checked, amounts, strict=True)):
        return False
    return all(
        any(
            fits(replace(clause, quantities=_of_tokens(piece, clause)), own_words, part, source)
            for part in source.statement.clauses
        )
        for piece, own_words in zip(pieces, checked, strict=True)
    )


def _of_tokens(tokens: Sequence[Token], clause: Clause) -> tuple[Quantity, ...]:
    starts = {token.start for token in tokens}
    return tuple(quantity for quantity in clause.quantities if quantity.start in starts)


def _fits_nearly(clause: Clause, words: Sequence[str], claim: ParsedStatement, source: Source) -> bool:
    """Return whether a clause of the sentence has all words but a few that are neither names nor its subject or verb."""
    allowed = [
        word
        for word in words
        if word not in claim.names and not any(token.key == word and token.verb for token in clause.tokens)
    ]
    for part in source.statement.clauses:
        whole = part.words | part.subject | part.context
        stray = [word for word in words if not is_covered(word, whole) and not has_opposite(word, whole)]
        if len(words) < 3 * len(stray) or any(word not in allowed or word in EXCLUSIVE for word in stray):
            continue
        others = frozenset[str]().union(
            *(leading_words(other.tokens) for other in source.statement.clauses if other is not part)
        )
        subject = part.subject or frozenset(leading_words(part.tokens))
        known = all(is_covered(word, claim.words) for word in subject)
        if "both" in clause.words and "both" not in part.words:
            continue
        whole_known = all(is_covered(word, claim.words) for word in part.content - FILLERS)
        if (
            whole_known
            and (known or others.isdisjoint(stray))
            and fits(clause, [w for w in words if w not in stray], part, source)
        ):
            return True
    return False


def _same_subject(
    clause: Clause,
    content: frozenset[str],
    missing: frozenset[str],
    displaced: frozenset[str],
    claim: ParsedStatement,
    source: Source,
) -> bool:
    """Return whether a clause with words that are only in other sentences can still be about this sentence's subject."""
    own = content - source.above.words
    plain = own - claim.names - FILLERS
    if len(plain) > 1 and len(plain & missing) / len(plain) > MAX_MISSING:
        return False
    if not displaced:
        return True
    if displaced & claim.names and not displaced & claim.names <= source.above.words:
        return False
    beside = _is_beside(displaced, own, claim, source)
    if not beside and not all(is_covered(word, claim.words) for word in source.subject):
        return False
    if not displaced.isdisjoint(claim.leading) and not any(
        is_covered(w, frozenset(claim.leading)) for w in source.subject
    ):
        return False
    # a clause whose whole subject is in other sentences is about something else
    subject = clause.subject or leading_words(clause.tokens)
    # and one of which all that is said of its subject is in other sentences says something else
    predicate = own - set(subject) - FILLERS
    if predicate and predicate <= displaced:
        return False
    if (
        subject
        and not displaced.isdisjoint(subject)
        and not any(is_covered(word, source.window) for word in subject)
    ):
        return False
    if displaced & claim.names and not source.statement.names <= claim.words:
        return False
    # a thing of another sentence that stands for the one of this sentence's verb
    if any(
        displaced & object_words(clause)
        and any(is_covered(verb, verb_words(own)) for verb in verb_words(clause))
        and not all(is_covered(word, claim.words) for word in object_words(own))
        for own in source.statement.clauses
    ):
        return False
    # what is stated in other words of another sentence is another statement
    if any(token.verb and token.key in displaced for token in clause.tokens):
        return False
    return len(displaced) <= MAX_DISPLACED * len(own)


def _is_beside(
    displaced: frozenset[str], own: frozenset[str], claim: ParsedStatement, source: Source
) -> bool:
    """Return whether words from elsewhere are few, in a sentence beside, and name what this one's subject belongs to."""
    if not all(is_covered(word, source.beside) for word in displaced) or 3 * len(displaced) > len(own):
        return False
    if any(token.verb and token.key in displaced for clause in claim.clauses for token in clause.tokens):
        return False
    return any(is_covered(word, claim.words) for word in source.subject)


def _nearest(content: frozenset[str], clause: Clause, source: Source) -> list[Clause]:
    """Return the source's clauses that share most words and quantities with the claim's, several when equal."""
    scored = []
    checked = checked_words(clause.content, source, bool(clause.quantities))
    fitting = [own for own in source.statement.clauses if fits(clause, checked, own, source)]
    for own in fitting if fitting and not source.before else source.clauses:
        words = own.words
        shared = sum(2 * is_covered(word, words) or has_opposite(word, words) for word in clause.content)
        shared += own.content == clause.content
        shared += 2 * sum(any(agree(q, other) for other in own.quantities) for q in clause.quantities)
        # the subject that the clause takes from another one only decides between equals
        shared += any(is_covered(word, words) for word in clause.subject)
        # of a sentence that goes on from others its own clauses come first
        scored.append((shared + (not source.before or own in source.statement.clauses) / 2, own))
    most = max((shared for shared, _ in scored), default=0)
    return [own for shared, own in scored if shared == most]


def _clause_agrees(
    clause: Clause, content: frozenset[str], claim: ParsedStatement, own: Clause, source: Source
) -> bool:
    """Return whether one clause of the source does not say otherwise than the claim's clause."""
    words = own.words
    if is_converse(clause.tokens, own.tokens):
        return clause.negated == own.negated
    others = (own.content | words & _STATES) - claim.words
    lacking = [word for word in content if word not in words]
    reversed_words = sum(
        any(lexicon.are_opposite(word, other) for other in others) and not is_covered(word, words)
        for word in lacking
    )
    if (clause.negated != own.negated) is not (reversed_words % 2 == 1):
        return False
    if any(
        not EXCLUSIVE.get(word, frozenset()).isdisjoint(others) and not is_covered(word, words)
        for word in lacking
    ):
        return False
    claimed_words = clause.words
    if claimed_words & UNIVERSAL and not words & UNIVERSAL and (words & PARTIAL) - claimed_words:
        return False
    subject = tuple(Token(word, -1, True) for word in sorted(own.subject - own.words))
    if _is_other_person(clause, own, claim, source):
        return False
    return relations_agree(clause.tokens, own.tokens) and not sides_exchanged(
        clause.tokens, (*subject, *own.tokens)
    )


def _is_other_person(clause: Clause, own: Clause, claim: ParsedStatement, source: Source) -> bool:
    """Return whether a named subject of a claim does what the source's clause says of another named one."""
    known = source.statement.names.union(*(other.names for other in source.before)) - EXCLUSIVE.keys()
    if not any(token.verb and token.content and token.key not in _NAMING for token in own.tokens):
        return False  # "the warden is A" is "A is the warden"
    persons = (clause.subject or frozenset(leading_words(clause.tokens))) & (claim.names - EXCLUSIVE.keys())
    names = (own.subject or frozenset(leading_words(own.tokens))) & known
    persons, names = persons - TITLES, names - TITLES
    if not persons or not names or persons <= names or names <= persons or persons <= source.above.words:
        return False
    return ("by" in clause.words) == ("by" in own.words)
