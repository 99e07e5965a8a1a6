"""Whether the words of a claim stand in the order and on the sides in which a source has them."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher

from rag.grounding.source import Source
from rag.sentences import lexicon
from rag.sentences.clauses import (
    NEGATOR_KIND,
    PREPOSITIONS,
    Token,
)
from rag.sentences.lexicon import CONVERSES, FILLERS, RELATIONS
from rag.sentences.statements import ParsedStatement, leading_words

YES, NEARLY, LIMITED, NO = "yes", "nearly", "limited", "no"
"""LIMITED: the source says it with a restriction that the claim lacks."""
_BEFORE_VERB = 8
_BE = frozenset(("is", "are", "was", "were", "be", "been", "being"))
_PRICE = frozenset(("pay", "cost"))
_MAX_REPLACED = 4
"""Most words of a name that stands for another."""
_MIN_EQUAL = 3
"""Words that must be the same and in the same order where one that differs is taken to stand for another; one
fewer where both have as many words."""


def is_converse(claimed: Sequence[Token], own: Sequence[Token]) -> bool:
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


def relations_agree(claimed: Sequence[Token], own: Sequence[Token]) -> bool:
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


def sides_exchanged(claimed: Sequence[Token], own: Sequence[Token]) -> bool:
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


def words_stand(claim: ParsedStatement, source: Source) -> str:
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
            is_word = any(word in NEGATOR_KIND for word in (*claimed_words[a:b], *own[c:d]))
            if not is_word and denied == any(clause.negated for clause in source.statement.clauses):
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
