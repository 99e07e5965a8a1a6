"""A sentence in the form in which statements are compared: its words in order, quantities, names, clauses and negations."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise

from rag.quantities.comparing import Quantity
from rag.quantities.labels import find_labels
from rag.quantities.reading import read_quantities
from rag.sentences.claims import proper_names
from rag.sentences.clauses import (
    NEGATOR_KIND,
    WORD_PATTERN,
    Clause,
    Token,
    has_verb,
    is_parallel,
    leaves_out_verb,
    says_something,
    shares_verb,
    with_context,
)
from rag.sentences.lexicon import RELATIONS
from rag.sentences.verbs import VERBS
from rag.sentences.wording import plain_wording
from rag.text.numbers import without_idioms
from rag.text.words import STOP_WORDS, stem

_PAIR = re.compile(r"(?:\b[A-Z][\w'’-]+ and [A-Z]|\bbetween\s[^,;]{1,20}\sand\s.)$")
"""Two names or two bounds that "and" joins."""
_GAP = re.compile(
    r"(?:and\s+|but\s+)?(?:(?:the|his|her|its|their|our)\s+(?:[a-z]+\s+){0,2})?(?:[A-Z][\w.’'-]*\s+"
    r"|\d+\s+)+(?:the|an?|of|by|in|on|at|to|for|from|until)\s"
)
"""A piece that leaves out the verb of the one before: "Captain Rask the Brisk", "Tour B the southern districts"."""
_CONTRAST = re.compile(r"(?:;|\b(?:while|whereas|während|mientras(?: que)?))\s+$", re.I)
_BREAK = re.compile(
    r"(?:[,;:]\s+|\s*[()]\s*|\s+[–—-]\s+(?!\d)|\s*—\s*)(?:(?:and|but|or|so|yet|while|whereas|which|who|where|y"
    r"|pero|und|aber)\s+)?"
    r"|\s+(?:and|but|while|whereas|although|though|because|so|or|which|who|whose|where|when|unless|if|that"
    r"|(?:until|since)(?! \d)"
    r"|y|pero|que|und|aber|oder|weil|wenn|während|mientras)\s+|\s+(?=(?:except|außer|excepto|salvo)\s)",
    re.I,
)
_LEAD = re.compile(
    r"\W*(?:(?:yes|no|sorry|sure|unfortunately|certainly|absolutely|of course|indeed|ja|nein|sí"
    r"|leider)\s*[,.;:!–—-]+\s*"
    r"|(?:according to|based on|as (?:stated|described|mentioned|noted|per) (?:in|by)|laut|según) "
    r"(?:the |this |our |your |el |la |dem )?"
    r"(?:given |provided )?(?:documents?|passages?|texts?|sources?|documentation"
    r"|information|dokument|documento)[^,]{0,20},\s*"
    r"|as (?:stated|described|mentioned|noted),\s*"
    r"|(?:the|this) (?:document|passage|text|source|documentation)s? (?:says?|states?|explains?|mentions?"
    r"|notes?) that\s+"
    r"|(?:i['’]m|i am) (?:afraid|sorry)(?: but| that)?,?\s+|(?:please )?(?:note|be aware|keep in mind"
    r"|remember) that\s+)",
    re.I,
)
"""Words that introduce a statement and are no part of it."""
_CLEFT = re.compile(
    r"^It (?:is|was) (?P<named>(?!(?:not|only|until|because|when|so)\b)[^,;:]{2,80}?) (?:that|who|which) (?P<next>[a-z]+)\b"
)
"""The beginning of "It was Ada Berg who founded the school", which says that Ada Berg founded it."""
_NAMED = re.compile(r"(?:the|an?|his|her|its|their|our)\b|[A-Z0-9]")
_NO_CLEFT = frozenset(
    ("the", "a", "an", "his", "her", "its", "their", "our", "you", "we", "they", "he", "she", "it", "all")
)
_HERE = re.compile(
    r",?\s+(?:at|in|of|from|by) (?:this|our|their) (?:hotel|restaurant|place|location|property|establishment"
    r"|venue|facility"
    r"|guest ?house|time|point|moment|site|shop|store|station)\b",
    re.I,
)
"""A reference to the place that the whole passage is about."""
_NOT_EARLIER = re.compile(r"\b(?:no|not) earlier than\b(?= [A-Z])")
_NOT_LATER = re.compile(r"\b(?:no|not) later than\b(?= [A-Z])")
"""Bounds of a day or month that is a word."""
_NAME_BEFORE = re.compile(
    r"\b([A-Z][\w’'-]+(?:\s[A-Z][\w’'-]+)*),?\s+who\s+$"
    r"|[;,]\s+(?:his|her|its|their|our|the)\s[a-z ]+,\s+([A-Z][\w’'-]+\.?(?:\s[A-Z][\w’'-]+)*),\s+$"
)
"""The name before "who", or in apposition: "his brother Lars, who runs", "his predecessor, Ms. Orr, now chairs"."""
_MAX_NAMED = 120
"""Characters before a clause in which a name that it is about stands."""
_HYPHEN = re.compile(r"\b(on|off|wi|e|non|pre|co|multi|self|anti)-(?=[a-z])", re.I)
_BOUND_IDIOM = re.compile(
    r"\b(?:no|not|never|n['’]t)(?: \w+)? (?:(?:more|less|fewer|later|earlier|greater|longer|larger|higher|lower"
    r"|older|younger"
    r"|shorter|smaller) than\b|exceed\w*|(?:over|under)(?= \d))",
    re.I,
)
"""Words that bound a quantity, which deny nothing."""
_ANAPHORS_TEXT = """
    it they he she this these those its their his her both such that
"""
_ANAPHORS = frozenset(map(stem, _ANAPHORS_TEXT.split()))
"""A sentence that begins with one of these continues what the sentence before is about."""
_AUXILIARIES_TEXT = """
    is are was were can cannot could will would do does did has have had may must not
"""
_AUXILIARIES = frozenset(map(stem, _AUXILIARIES_TEXT.split()))
_CONJUNCTIONS = frozenset(("and", "but", "or"))
_PERSONS = frozenset(("you", "we", "i", "they", "he", "she"))
_MAX_SUBJECT = 4
"""Content words before the verb that are taken for the subject."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedStatement:
    """A sentence as statements are compared."""

    clauses: tuple[Clause, ...]
    content: frozenset[str]
    words: frozenset[str]
    """All stemmed words, also those without content, and pairs of neighbours as one word: "Master Card", "high chair"."""
    quantities: tuple[Quantity, ...]
    names: frozenset[str]
    leading: tuple[str, ...]
    """Content words before the first verb: usually the subject."""
    continues: bool
    """Whether it begins with a pronoun, so that its subject is in the sentence before."""


@lru_cache(maxsize=8192)
def read_statement(sentence: str) -> ParsedStatement:
    """Return the statement of a sentence, without words that only introduce it; recent ones are cached."""
    sentence = without_lead(sentence)
    quantities = read_quantities(sentence)
    tokens = _tokens(sentence, quantities)
    clauses = tuple(
        _clause(sentence, tokens, quantities, start, end) for start, end in _clause_spans(sentence, tokens)
    )
    leading = leading_words(tokens)
    labels = find_labels(sentence)
    clauses = _completed(clauses)
    clauses = tuple(
        _with_subject(sentence, clause, leading) if n else clause for n, clause in enumerate(clauses)
    )
    clauses = with_context(clauses, sentence)
    first = [token.key for token in tokens[:2]]
    return ParsedStatement(
        clauses=clauses,
        content=frozenset(token.key for token in tokens if token.content),
        words=frozenset(token.key for token in tokens if token.key[0] != "#") | _joined(sentence) | labels,
        quantities=quantities,
        names=_names(_without(sentence, quantities)) | labels,
        leading=leading,
        continues=bool(_ANAPHORS & set(first)),
    )


def parts(statement: ParsedStatement) -> list[ParsedStatement]:
    """Return each clause of a statement that says something as a statement of its own, with the subject of the whole."""
    return [
        replace(
            statement,
            clauses=(clause,),
            content=clause.content | clause.subject,
            words=clause.words | clause.subject,
            quantities=clause.quantities,
            names=frozenset(
                name
                for name in statement.names
                if name in clause.words | clause.subject
                or (name[-1].isdigit() and re.sub(r"^\D+", "", name) in clause.words | clause.subject)
            ),
        )
        for clause in statement.clauses
        if clause.content or clause.quantities
    ]


def _names(sentence: str) -> frozenset[str]:
    """Return the names of a sentence, also of one that is mostly names but has a verb: "Anna Berg plays Lady Macbeth."."""
    if names := proper_names(sentence):
        return names
    tokens = WORD_PATTERN.findall(sentence)
    if not any(word.islower() and stem(word) in VERBS for word in tokens):
        return frozenset()
    return frozenset(stem(word.lower()) for word in tokens[1:] if word[0].isupper() and not word.isupper())


def _without(sentence: str, quantities: Sequence[Quantity]) -> str:
    """Return a sentence without its quantities: "10 AM" is no name."""
    for quantity in quantities:
        sentence = (
            sentence[: quantity.start]
            + " " * (quantity.through - quantity.start)
            + sentence[quantity.through :]
        )
    return sentence


def states_fact(text: str) -> bool:
    """Return whether a text has a verb after a subject, as "printers are free" and unlike "quote the tag"."""
    tokens = _tokens(text, read_quantities(text))
    first = next((n for n, token in enumerate(tokens) if token.verb or token.key in VERBS), None)
    return first is not None and first > 0


def without_lead(sentence: str) -> str:
    """Return a sentence without an answer or a reference to the source in front: "Yes, ...", "The text says that ..."."""
    while (lead := _LEAD.match(sentence)) and lead.end() < len(sentence):
        sentence = sentence[lead.end() :]
    sentence = _NOT_LATER.sub("by", _NOT_EARLIER.sub("from", sentence))
    sentence = plain_wording(_HYPHEN.sub(r"\1", _HERE.sub("", sentence)))
    return _CLEFT.sub(_uncleft, sentence)


def _uncleft(match: re.Match[str]) -> str:
    """Return the subject and first word of what "It was ... who" says; all as it was where no verb follows."""
    named, after = match["named"], match["next"]
    is_verb = after.endswith("ed") or stem(after) in VERBS
    if after in _NO_CLEFT or not (is_verb or _NAMED.match(named)):
        return match.group()  # "It is important that visitors register"
    return f"{named[0].upper()}{named[1:]} {after}"


def _tokens(sentence: str, quantities: Sequence[Quantity]) -> list[Token]:
    """Return the words and quantities of a sentence in order; the words of a quantity and its unit are not among them."""
    tokens = [Token(f"#{n}", quantity.start, False) for n, quantity in enumerate(quantities)]
    spans = [(quantity.start, quantity.through) for quantity in quantities]
    for match in WORD_PATTERN.finditer(sentence):
        if any(start < match.end() and match.start() < end for start, end in spans):
            continue
        word = match.group().lower().replace("’", "'").removesuffix("'s")
        content = word not in STOP_WORDS and word not in NEGATOR_KIND and not word.endswith("n't")
        key = stem(word)
        verb = key in VERBS or (word.endswith("ed") and len(word) > 4) or _is_verb(sentence, match)
        tokens.append(Token(key, match.start(), content and key not in RELATIONS, verb))
    return sorted(tokens, key=lambda token: token.start)


def _is_verb(sentence: str, match: re.Match[str]) -> bool:
    """Return whether a word stands where a verb does: between a name or noun and "the", "her", "all" and the like."""
    word = match.group()
    if not word.islower() or len(word) < 4 or word in STOP_WORDS or word in _NO_VERBS:
        return False
    before = re.search(r"([\w’']+)\s$", sentence[: match.start()])
    if not before or not _DETERMINER.match(sentence, match.end()):
        return False
    last = before[1].lower()
    if last in STOP_WORDS and last not in _BEFORE_VERBS:
        return False
    ends = word.endswith("s") and not word.endswith(("ss", "us", "is", "ings"))
    return ends != (last.endswith("s") and not last.endswith("ss") and before[1].islower())


_BEFORE_VERBS = frozenset(
    ("who", "which", "that", "he", "she", "it", "they", "we", "you", "now", "also", "still", "then")
)
"""Words without content behind which a word may be a verb."""
_DETERMINER = re.compile(
    r"\s+(?:the|an?|his|her|its|their|our|your|all|every|each|no|any|it|them|him|both)\b"
)
_NO_VERBS = frozenset(
    [
        "outside",
        "inside",
        "without",
        "within",
        "beyond",
        "near",
        "along",
        "across",
        "behind",
        "beside",
        "despite",
        "including",
        "except",
        "than",
        "like",
        "under",
        "over",
        "during",
        "until",
        "since",
        "before",
        "after",
        "around",
        "between",
        "toward",
        "towards",
        "onto",
        "into",
        "upon",
        "per",
        "plus",
        "minus",
        "versus",
    ]
)


def _joined(sentence: str) -> frozenset[str]:
    """Return neighbouring words as one word."""
    matches = list(WORD_PATTERN.finditer(sentence.lower()))
    return frozenset(
        stem(one.group() + other.group())
        for one, other in pairwise(matches)
        if other.start() - one.end() == 1 and sentence[one.end()] in " -"
    )


def _clause_spans(sentence: str, tokens: Sequence[Token]) -> list[tuple[int, int]]:
    """Return (start, end) of each clause: pieces between breaks, joined where one has no verb of its own."""
    cuts = [0]
    for match in _BREAK.finditer(sentence):
        cuts.append(match.end())
    pieces = [
        (start, end)
        for start, end in zip(cuts, [*cuts[1:], len(sentence) + 1], strict=True)
        if any(start <= token.start < end for token in tokens)
    ]
    joined: list[tuple[int, int]] = []
    pending: int | None = None
    for start, end in pieces:
        inside = [token for token in tokens if start <= token.start < end]
        whole = has_verb(inside) or leaves_out_verb(inside)
        gap = joined and pending is None and _GAP.match(sentence, start)
        if not whole and gap and any(t.verb for t in tokens if joined[-1][0] <= t.start < joined[-1][1]):
            whole = sum(token.content for token in inside) > 1
        if not whole and joined and pending is None and not _PAIR.search(sentence[: start + 1]):
            last = [token for token in tokens if joined[-1][0] <= token.start < joined[-1][1]]
            whole = shares_verb(inside, last) or is_parallel(inside, last)
            whole = whole or (
                _CONTRAST.search(sentence[:start]) is not None
                and says_something(inside)
                and says_something(last)
            )
        counted = bool(joined) and any(t.key[0] == "#" for t in inside) and any(t.content for t in inside)
        counted = counted and not _PAIR.search(sentence[: start + 1])
        if whole or (counted and pending is None):
            joined.append((start if pending is None else pending, end))
            pending = None
        elif joined and pending is None:
            joined[-1] = joined[-1][0], end
        else:
            pending = start if pending is None else pending
    if pending is not None:
        joined.append((pending, len(sentence) + 1))
    return joined or [(0, len(sentence) + 1)]


def _completed(clauses: Sequence[Clause]) -> tuple[Clause, ...]:
    """Return the clauses with what one that ends with an auxiliary leaves out: "admins can delete them, editors cannot"."""
    whole: list[Clause] = []
    for clause in clauses:
        last = next((t for t in reversed(clause.tokens) if t.key not in _CONJUNCTIONS), None)
        if (
            whole
            and last is not None
            and (last.key in _AUXILIARIES or last.key.endswith("n't"))
            and clause.content
        ):
            before = whole[-1].tokens
            verb = next((n for n, token in enumerate(before) if token.key in VERBS), len(before))
            clause = replace(clause, tokens=(*clause.tokens, *(t for t in before[verb + 1 :] if t.content)))
        whole.append(clause)
    return tuple(whole)


def _has_subject(clause: Clause) -> bool:
    """Return whether a clause begins with something else than a verb, a quantity or a pronoun."""
    first = next(
        (token for token in clause.tokens if token.content or token.key[0] == "#" or token.key in VERBS), None
    )
    return first is not None and first.content and first.key not in VERBS


def _with_subject(sentence: str, clause: Clause, leading: Sequence[str]) -> Clause:
    """Return a clause with its subject: the name that "who" is about, or the leading words where it has none of its own."""
    start = min((token.start for token in clause.tokens), default=0)
    if match := _NAME_BEFORE.search(sentence[max(0, start - _MAX_NAMED) : start]):
        named = WORD_PATTERN.findall(match[1] or match[2])
        return replace(clause, subject=frozenset(stem(word.lower()) for word in named))
    return clause if _has_subject(clause) else replace(clause, subject=frozenset(leading))


def _clause(
    sentence: str, tokens: Sequence[Token], quantities: Sequence[Quantity], start: int, end: int
) -> Clause:
    return Clause(
        tuple(token for token in tokens if start <= token.start < end),
        tuple(quantity for quantity in quantities if start <= quantity.start < end),
        _negated(sentence[start:end]),
    )


def _negated(clause: str) -> bool:
    """Return whether a clause is negated: each kind of negation once, two of them cancel each other."""
    kinds = set()
    for match in WORD_PATTERN.finditer(_BOUND_IDIOM.sub(" ", without_idioms(clause))):
        word = match.group().lower().replace("’", "'")
        kind = "not" if word.endswith("n't") else NEGATOR_KIND.get(word)
        if kind:
            kinds.add(kind)
    return len(kinds) % 2 == 1


def leading_words(tokens: Sequence[Token]) -> tuple[str, ...]:
    """Return the content words before the first verb, the first ones only."""
    leading: list[str] = []
    if tokens and tokens[0].key in _PERSONS:
        return ()
    for token in tokens:
        if ((token.verb or token.key in VERBS) and leading) or len(leading) == _MAX_SUBJECT:
            break
        if token.content:
            leading.append(token.key)
    return tuple(leading)
