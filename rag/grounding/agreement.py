"""Whether one sentence of a passage says what a statement says: the same of the same things, not only with the same words.

:func:`compare` binds each quantity to its unit, its bound and the words next to it, compares negations and opposites within
the clause that is meant, relations with their sides, and the order of the words around a verb. A word that the passage uses
only elsewhere is taken for one of another statement, unless the sentence is about the same subject.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher

from rag.quantities import BY, FROM, Quantity, agree, ends_of_range, same_unit
from rag.quantities.derived import is_derived
from rag.quantities.units import UNITS
from rag.sentences import lexicon
from rag.sentences.clauses import (
    PREPOSITIONS,
    Clause,
    Token,
    conditions_of,
    coverage,
    is_covered,
    object_words,
    verb_words,
)
from rag.sentences.lexicon import CONVERSES, EXCLUSIVE, FILLERS, PARTIAL, RELATIONS, UNIVERSAL
from rag.sentences.qualifiers import left_out, same_extent, same_modality
from rag.sentences.statements import ParsedStatement, leading_words
from rag.text.words import stem

YES, NEARLY, LIMITED, NO = "yes", "nearly", "limited", "no"
"""LIMITED: the source says it with a restriction that the claim lacks."""
MIN_SHARE = 0.5
"""Share of a clause's content words that the sentence, what it continues and the title must contain."""
MAX_MISSING = 0.67
"""The same of those that are neither names nor in the title nor fillers: most that may be missing."""
MAX_DISPLACED = 0.34
"""Share of a clause's content words that may be only in other sentences of the passage."""
_NEIGHBOURS = 3
"""Words on each side of a quantity that are compared."""
_MAX_GAP = 6
"""Characters between a quantity and the word for what is counted: "10 of the rooms"."""
_FORMERLY = frozenset(
    map(stem, ("formerly", "previously", "before", "earlier", "initially", "originally", "once"))
)
_BEFORE_VERB = 8
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_BE = frozenset(("is", "are", "was", "were", "be", "been", "being"))
_JOINING = frozenset(("and", "but", "or", "whil", "whereas", "plus"))
_PRICE = frozenset(("pay", "cost"))
_STATES = frozenset(("off",))
"""Words without content that still are opposites of others."""
_MAX_REPLACED = 4
"""Most words of a name that stands for another."""
_MIN_EQUAL = 3
"""Words that must be the same and in the same order where one that differs is taken to stand for another; one
fewer where both have as many words."""


@dataclass(frozen=True, slots=True)
class Source:
    """One sentence of a passage with what it must be read with."""

    statement: ParsedStatement
    before: tuple[ParsedStatement, ...]
    """The sentences before it, where it begins with a pronoun, the nearest first."""
    above: ParsedStatement
    """Title and heading."""
    elsewhere: frozenset[str]
    """All words of the passage."""
    window: frozenset[str]
    """Words of the sentence, of those before it, and of title and heading."""
    previous: tuple[Quantity, ...] = ()
    """Years of the sentence before it, from which "two years later" counts."""
    beside: frozenset[str] = frozenset()
    """Words of the sentence before it and of the one after it."""

    @property
    def subject(self) -> tuple[str, ...]:
        """The content words of its subject; of the sentence before, where it begins with a pronoun."""
        return self.before[-1].leading if self.before else self.statement.leading

    @property
    def quantities(self) -> tuple[Quantity, ...]:
        """The quantities of the sentence, of those before it, and of title and heading."""
        return sum((other.quantities for other in (self.statement, *self.before, self.above)), ())

    @property
    def clauses(self) -> Iterator[Clause]:
        """The clauses of the sentence, then those before it."""
        for statement in (self.statement, *self.before):
            yield from statement.clauses


def compare(claim: ParsedStatement, source: Source) -> str:
    """Return whether a sentence bears out every clause of a claim: yes, no, or nearly (one word stands for another)."""
    if not claim.names <= source.elsewhere:
        return NO
    clauses = [clause for clause in claim.clauses if clause.content or clause.quantities]
    if not clauses or not all(_bears_out(clause, claim, source) for clause in clauses):
        return NO
    stands = _words_stand(claim, source)
    return LIMITED if stands == YES and any(_is_limited(c, claim, source) for c in clauses) else stands


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
    content = clause.content | clause.subject
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
        and _quantities_agree(clause, content, claim, source)
        and all(
            _clause_agrees(clause, content, claim, own, source)
            and same_modality(clause, own)
            and same_extent(clause, own)
            for own in _nearest(content, clause, source)
        )
    )


def _joins_clauses(clause: Clause, content: frozenset[str], claim: ParsedStatement, source: Source) -> bool:
    """Return whether a clause takes its words and quantities from several clauses that each say something by themselves."""
    own = source.statement
    if source.before:
        words = _checked_words(content, source, bool(clause.quantities))
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
    words = _checked_words(clause.content, source, bool(clause.quantities))
    if any(_fits(clause, words, part, source) for part in own.clauses):
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
            _fits(replace(clause, quantities=_of_tokens(piece, clause)), own_words, part, source)
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
        stray = [word for word in words if not is_covered(word, whole) and not _has_opposite(word, whole)]
        if len(words) < 3 * len(stray) or any(word not in allowed for word in stray):
            continue
        others = frozenset[str]().union(
            *(leading_words(other.tokens) for other in source.statement.clauses if other is not part)
        )
        subject = part.subject or frozenset(leading_words(part.tokens))
        known = all(is_covered(word, claim.words) for word in subject)
        whole_known = all(is_covered(word, claim.words) for word in part.content - FILLERS)
        if (
            whole_known
            and (known or others.isdisjoint(stray))
            and _fits(clause, [w for w in words if w not in stray], part, source)
        ):
            return True
    return False


def _checked_words(content: frozenset[str], source: Source, counted: bool) -> list[str]:
    """Return the content words that are in the sentence, and neither in those before it or above it nor fillers.

    Units neither, where something is counted: "17 euros an hour".
    """
    before = source.above.words.union(*(other.words for other in source.before))
    plain = [word for word in content if word not in FILLERS and not (counted and word in UNITS)]
    own = source.statement.words
    return [
        word
        for word in plain
        if not is_covered(word, before) and (is_covered(word, own) or _has_opposite(word, own))
    ]


def _fits(clause: Clause, words: Sequence[str], part: Clause, source: Source) -> bool:
    """Return whether one clause of the sentence has these words, or their opposites, and the claim's quantities."""
    whole = part.words | part.subject | part.context
    quantities = source.statement.quantities
    return all(is_covered(word, whole) or _has_opposite(word, whole) for word in words) and all(
        any(agree(q, other) and f"#{n}" in whole for n, other in enumerate(quantities))
        for q in clause.quantities
        if any(agree(q, other) for other in quantities)
    )


def missing_words(content: frozenset[str], source: Source) -> frozenset[str]:
    """Return the content words of which the sentence has neither themselves, nor one of the same meaning or the opposite."""
    return frozenset(
        word
        for word in content
        if not is_covered(word, source.window) and not _has_opposite(word, source.window)
    )


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
    checked = _checked_words(clause.content, source, bool(clause.quantities))
    fitting = [own for own in source.statement.clauses if _fits(clause, checked, own, source)]
    for own in fitting if fitting and not source.before else source.clauses:
        words = own.words
        shared = sum(2 * is_covered(word, words) or _has_opposite(word, words) for word in clause.content)
        shared += own.content == clause.content
        shared += 2 * sum(any(agree(q, other) for other in own.quantities) for q in clause.quantities)
        # the subject that the clause takes from another one only decides between equals
        shared += any(is_covered(word, words) for word in clause.subject)
        # of a sentence that goes on from others its own clauses come first
        scored.append((shared + (not source.before or own in source.statement.clauses) / 2, own))
    most = max((shared for shared, _ in scored), default=0)
    return [own for shared, own in scored if shared == most]


def _has_opposite(word: str, words: frozenset[str]) -> bool:
    return any(lexicon.are_opposite(word, other) for other in words)


def _clause_agrees(
    clause: Clause, content: frozenset[str], claim: ParsedStatement, own: Clause, source: Source
) -> bool:
    """Return whether one clause of the source does not say otherwise than the claim's clause."""
    words = own.words
    if _is_converse(clause.tokens, own.tokens):
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
    return _relations_agree(clause.tokens, own.tokens) and not _sides_exchanged(
        clause.tokens, (*subject, *own.tokens)
    )


def _is_other_person(clause: Clause, own: Clause, claim: ParsedStatement, source: Source) -> bool:
    """Return whether a named subject of a claim does what the source's clause says of another named one."""
    known = source.statement.names.union(*(other.names for other in source.before)) - EXCLUSIVE.keys()
    if not any(token.verb and token.content for token in own.tokens):
        return False  # "the warden is A" is "A is the warden"
    said = (clause.subject or frozenset(leading_words(clause.tokens))) & claim.names
    names = (own.subject or frozenset(leading_words(own.tokens))) & known
    if not said or not names or not said.isdisjoint(names) or said <= source.above.words:
        return False
    return ("by" in clause.words) == ("by" in own.words)


def _is_converse(claimed: Sequence[Token], own: Sequence[Token]) -> bool:
    """Return whether two comparisons exchange sides and the word between: "A is slower than B", "B is faster than A"."""
    sides = []
    for tokens in (claimed, own):
        keys = [token.key for token in tokens]
        at = keys.index("than") if "than" in keys else 0
        if not at:
            return False
        sides.append((keys[at - 1], _next_content(tokens, at), leading_words(tokens)))
    (word, after, before), (other, other_after, other_before) = sides
    exchanged = after in other_before and other_after in before and after != other_after
    return exchanged and lexicon.are_opposite(word, other)


def _relations_agree(claimed: Sequence[Token], own: Sequence[Token]) -> bool:
    """Return whether words such as before and after, from and to, have the same things on their sides."""
    claimed_words, source = [token.key for token in claimed], [token.key for token in own]
    for at, word in enumerate(claimed_words):
        others = RELATIONS.get(word)
        if others is None:
            continue
        if at + 1 < len(claimed) and claimed[at + 1].key[0] == "#":
            continue  # a bound of a quantity
        after = _next_content(claimed, at)
        if _precedes(own, word, after):
            continue
        left = {token.key for token in claimed[:at] if token.content}
        for position, other in enumerate(source):
            if other == word or other in others:
                target = _next_content(own, position)
                before = {token.key for token in own[:position] if token.content}
                exchanged = after != target and after in before and target in left
                if other == word and exchanged:
                    return False
                if other in others and word not in source and other not in claimed_words:
                    converse = CONVERSES.get(word) == other and exchanged
                    if not converse and (target == after or CONVERSES.get(word) == other or not after):
                        return False
                if other in others and target == after and after:
                    return False
    return True


def _precedes(tokens: Sequence[Token], word: str, target: str) -> bool:
    """Return whether a word occurs with this next content word."""
    return any(token.key == word and _next_content(tokens, at) == target for at, token in enumerate(tokens))


def _next_content(tokens: Sequence[Token], at: int) -> str:
    return next((token.key for token in tokens[at + 1 :] if token.content), "")


def _sides_exchanged(claimed: Sequence[Token], own: Sequence[Token]) -> bool:
    """Return whether the words on both sides of a shared verb are exchanged, the verb being in the same voice."""
    keys = {token.key for token in own}
    if any(CONVERSES.get(token.key) in keys and token.key not in keys for token in claimed):
        return False  # "A starts before B" is "B starts after A"
    first = [token for token in claimed if token.content]
    if claimed and claimed[0].key in PREPOSITIONS:
        first = first[1:]  # "im Garten sind Hunde": a place, not the subject
    second = [token.key for token in own if token.content]
    place = {key: at for at, key in enumerate(second) if second.count(key) == 1}
    claimed_keys = [token.key for token in first]
    shared = [
        (place[token.key], token)
        for token in first
        if token.key in place and claimed_keys.count(token.key) == 1
    ]
    return any(
        a > b > c and verb.verb and _passive(claimed, verb.key) == _passive(own, verb.key)
        for (a, _), (b, verb), (c, _) in zip(shared, shared[1:], shared[2:], strict=False)
    )


def _passive(tokens: Sequence[Token], verb: str) -> bool:
    """Return whether a form of "be" stands not far before a verb: "is no longer offered", "there is no parking offered"."""
    keys = [token.key for token in tokens]
    at = keys.index(verb)
    return not _BE.isdisjoint(keys[max(0, at - _BEFORE_VERB) : at])


def _quantities_agree(
    clause: Clause, content: frozenset[str], claim: ParsedStatement, source: Source
) -> bool:
    """Return whether the source says each quantity of a clause of the same thing."""
    formerly = not _FORMERLY.isdisjoint(clause.words)
    for quantity in clause.quantities:
        if any(agree(quantity, other) for other in source.above.quantities):
            continue
        if quantity.is_year and any(q.year == quantity.value for q in clause.quantities):
            continue  # compared with the amount of that year
        if formerly and not quantity.change:
            quantity = replace(quantity, change=FROM)
        places = [own for own in source.clauses if any(agree(quantity, other) for other in own.quantities)]
        if (
            quantity.is_year
            and _has_later(source.statement.quantities)
            and not any(agree(quantity, other) for other in source.statement.quantities)
        ):
            places = []  # the year of another sentence, from which this one counts on
        if not any(_is_bound(quantity, clause, content, own, claim, source) for own in places):
            if not is_derived(quantity, clause.words, (*source.quantities, *source.previous)):
                return False
    return True


def _has_later(quantities: Sequence[Quantity]) -> bool:
    return any(q.kind == "duration" and q.counted in ("later", "earlier") for q in quantities)


def _is_bound(
    quantity: Quantity,
    clause: Clause,
    content: frozenset[str],
    own: Clause,
    claim: ParsedStatement,
    source: Source,
) -> bool:
    """Return whether no other quantity of the source is nearer to what the claim says of this one.

    Compared are the words beside it, and those of the clause, unless the claim repeats all of the clause.
    """
    beside = _beside(clause, quantity)
    same = [other for other in own.quantities if agree(quantity, other)]
    if any(quantity.year and quantity.year == other.year for other in same):
        return True
    if any(_is_placed(quantity, other) for other in same) and not any(
        _is_placed(quantity, rival) and not agree(quantity, rival) for rival in source.statement.quantities
    ):
        return True
    here = max(_shared(beside, _beside(own, other)) for other in own.quantities if agree(quantity, other))
    words = own.words | own.subject
    whole = all(is_covered(word, claim.words) for word in own.content)
    around = sum(is_covered(word, words) for word in content)
    checked = _checked_words(content, source, bool(clause.quantities))
    fits = _fits(clause, checked, own, source)
    rest = replace(clause, quantities=())
    for rival_clause in source.clauses:
        if fits and rival_clause is not own and not _fits(rest, checked, rival_clause, source):
            continue
        for rival in rival_clause.quantities:
            if rival.value == quantity.value and same_unit(quantity, rival):
                continue
            if ends_of_range(quantity, rival):
                continue
            if rival.change in (BY, FROM) and quantity.change != rival.change:
                continue
            if rival.counted and any(
                agree(q, rival) and q.counted == rival.counted for q in clause.quantities
            ):
                continue
            if rival.timed != quantity.timed or (
                quantity.unit and quantity.unit != rival.unit and rival.value != quantity.value
            ):
                continue
            if any(agree(q, rival) for q in clause.quantities) and _same_order(
                quantity, rival, clause, rival_clause
            ):
                continue
            if _names_other(quantity, rival, clause, own, rival_clause):
                return False
            there = _shared(beside, _beside(rival_clause, rival))
            rival_words = rival_clause.words | rival_clause.subject
            rival_around = sum(is_covered(word, rival_words) for word in content)
            if there > here and rival_around >= around:
                return False
            rival_whole = all(is_covered(word, claim.words) for word in rival_clause.content)
            if not whole and rival_clause is not own and rival_around >= around + (not rival_whole):
                return False
    return True


def _is_placed(quantity: Quantity, other: Quantity) -> bool:
    """Return whether two quantities are for each of the same thing, or count the same."""
    return not quantity.per.isdisjoint(other.per) or bool(
        quantity.counted and quantity.counted == other.counted
    )


def _names_other(quantity: Quantity, rival: Quantity, clause: Clause, own: Clause, other: Clause) -> bool:
    """Return whether what is counted by a claimed quantity is what the source counts by a rival, and not by the same one."""
    counted = _after(clause, quantity)
    same = {_after(own, q) for q in own.quantities if agree(quantity, q)}
    return bool(counted) and counted not in same and counted == _after(other, rival)


def _after(clause: Clause, quantity: Quantity) -> str:
    """Return the content word right after a quantity."""
    token = next((token for token in clause.tokens if token.start >= quantity.end and token.content), None)
    return token.key if token and token.start <= quantity.through + _MAX_GAP else ""


def _same_order(quantity: Quantity, rival: Quantity, clause: Clause, own: Clause) -> bool:
    """Return whether two quantities that are both claimed stand in the source's order."""
    other = next(q for q in clause.quantities if agree(q, rival))
    same = next((q for q in own.quantities if agree(quantity, q)), None)
    return same is None or (quantity.start < other.start) == (same.start < rival.start)


def _beside(clause: Clause, quantity: Quantity) -> frozenset[str]:
    """Return the content and relation words next to a quantity."""
    words = [
        token for token in clause.tokens if token.content or token.key in RELATIONS or token.key[0] == "#"
    ]
    at = next((n for n, token in enumerate(words) if token.start == quantity.start), None)
    if at is None:
        return frozenset()
    near = words[max(0, at - _NEIGHBOURS) : at] + words[at + 1 : at + 1 + _NEIGHBOURS]
    return frozenset(token.key for token in near if token.key[0] != "#")


def _shared(one: frozenset[str], other: frozenset[str]) -> int:
    return sum(is_covered(word, other) for word in one)


def _words_stand(claim: ParsedStatement, source: Source) -> str:
    """Return NO if a word stands where the source has its opposite, NEARLY if where it has another one, else YES.

    Compared are the words in order. Where a name stands for another it may be of several words; of other words only one or
    two may stand for as many others, in a statement that is otherwise the same.
    """
    tokens = [token for clause in claim.clauses for token in clause.tokens]
    claimed_words = [token.key for token in tokens if _ordered(token)]
    answer = YES
    own = [token.key for clause in source.statement.clauses for token in clause.tokens if _ordered(token)]
    # synonyms count as equal
    as_own = [
        w if w in own else next((o for o in own if lexicon.are_synonyms(w, o)), w) for w in claimed_words
    ]
    matcher = SequenceMatcher(None, as_own, own, autojunk=False)
    equal = sum(block.size for block in matcher.get_matching_blocks())
    if 2 * equal < len(claimed_words):
        return YES
    denied = any(clause.negated for clause in claim.clauses)
    for tag, a, b, c, d in matcher.get_opcodes():
        if tag != "replace":
            continue
        if b - a == d - c and any(map(lexicon.are_opposite, claimed_words[a:b], own[c:d])):
            if denied == any(clause.negated for clause in source.statement.clauses):
                return NO
            continue
        new = [
            word
            for word in as_own[a:b]
            if as_own.count(word) > own.count(word)
            and word in claim.content
            and (word in claim.names or word not in source.above.words)
            and word not in FILLERS
        ]
        old = [
            word
            for word in own[c:d]
            if own.count(word) > as_own.count(word) and word in source.statement.content
        ]
        if claim.quantities and set(new) <= _PRICE:
            continue  # "dogs pay 3 euros on deck" for "dogs travel on deck for 3 euros"
        named = not claim.names.isdisjoint(new)
        alike = equal >= _MIN_EQUAL or (equal == _MIN_EQUAL - 1 and len(claimed_words) == len(own))
        one_for_one = len(new) == len(old) <= 2 and equal + len(new) == len(claimed_words) and alike
        if new and old and (one_for_one or (named and max(len(new), len(old)) <= _MAX_REPLACED)):
            answer = NEARLY
    return answer


def _ordered(token: Token) -> bool:
    return token.content or (token.key in lexicon.OPPOSITES and token.key not in RELATIONS)
