"""Whether a passage supports a statement, and by which of its sentences.

A passage is compared sentence by sentence (:mod:`rag.grounding.agreement`) if it contains every name and quotation of the
statement and enough of its content words, also of those that are not in the passage's title.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from rag.grounding.agreement import MIN_SHARE, compare
from rag.grounding.fields import Field
from rag.grounding.order import LIMITED, NEARLY, YES
from rag.grounding.source import Source
from rag.quantities.comparing import agree
from rag.sentences import claims
from rag.sentences.claims import Claim, normalise_quotation
from rag.sentences.clauses import coverage, is_covered
from rag.sentences.lexicon import FILLERS
from rag.sentences.pronouns import resolve_pronouns
from rag.sentences.statements import ParsedStatement, parts, read_statement
from rag.sentences.tables import Table, read_tables, stating_row
from rag.sentences.verbs import VERBS
from rag.text.words import sentence_spans, stem, words
from rag.types import Chunk

_MAX_BEFORE = 3
"""Sentences that one which begins with a pronoun is read with."""
MIN_VERBATIM = 0.85
"""Share of a statement's content words in one sentence, from which its clauses are not looked for in other sentences."""
_PLURAL = frozenset(("both", "they", "neither", "each", "all", "these"))
"""Words at the beginning of a sentence about several things of those before it."""
_COUNTS = re.compile(r"\W*(?:neither\b.*?\b(nor)\b|each\s+([a-z]{3,}))", re.I)
"""Words that count something that they name themselves."""
_MAX_LESS = 1
"""Words and quantities that a sentence may share less with a statement than the one that shares most."""
MIN_SHARED = 0.75
"""Words and quantities that a passage shares with a statement, relative to the passage that shares most."""
_BARE_VALUES = frozenset(
    {"", "-", "–", "—", "n/a", "na", "no", "none", "null", "true", "false", "unknown", "yes"}
)
"""Values of fields that any passage could contain: they are no evidence for one."""
_UNSPACED = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]")
"""A letter of a script that is written without spaces: Thai, Lao, Burmese, Khmer, Japanese, Chinese."""


@dataclass(frozen=True, slots=True)
class Support:
    """The best supporting passage and the sentence in it that supports the claim."""

    chunk: Chunk
    position: int
    """The passage's position among those given, from 0."""
    start: int
    end: int
    """The quote is ``chunk.text[start:end]``."""
    score: float
    """Share of the claim's content words in the passage plus their share in the quote, 0 to 2."""
    limited: bool = False
    """Whether the passage says so with a restriction that the claim lacks."""

    @property
    def quote(self) -> str:
        """The supporting sentence, an exact substring of the chunk."""
        return self.chunk.text[self.start : self.end]


def best_support(sentence: str, passages: Sequence[Chunk]) -> Support | None:
    """Return the passage that supports a whole sentence best, the first of equals; None if none does."""
    return _best(read_statement(sentence), claims.quotations(sentence), passages, (YES,))


def nearest_support(sentence: str, passages: Sequence[Chunk]) -> Support | None:
    """Return the best passage that supports a sentence with a restriction that it lacks, or but for one word."""
    return _best(read_statement(sentence), claims.quotations(sentence), passages, (YES, LIMITED, NEARLY))


def clause_supports(sentence: str, passages: Sequence[Chunk]) -> list[Support | None]:
    """Return the best support of each clause of a sentence that says something by itself, None where none supports it."""
    quotes = claims.quotations(sentence)
    return [_best(part, quotes, passages, (YES,)) for part in parts(read_statement(sentence))]


def is_contradicted(sentence: str, passages: Sequence[Chunk]) -> bool:
    """Return whether a passage's sentence has nearly all words of a statement and still does not bear it out."""
    statement = read_statement(sentence)
    return any(
        coverage(statement.content, own.source.window) >= MIN_VERBATIM
        and compare(statement, own.source) != YES
        for chunk in passages
        for own in _read_passage(chunk).sentences
    )


def supported_share(fields: Sequence[Field], chunks: Sequence[Chunk]) -> float:
    """Return the share of a structured reply's checkable fields that these passages support, each field by one of them.

    Fields that state nothing checkable (yes, none, a dash) do not count; 0.0 when no other is left.
    """
    checkable = [field for field in fields if is_checkable(field)]
    supported = sum(any(supports_field(field, chunk) for chunk in chunks) for field in checkable)
    return supported / len(checkable) if checkable else 0.0


def is_checkable(field: Field) -> bool:
    """Return whether a field's value holds a word, a number or a date that a passage could contain."""
    if field.value.strip().casefold() in _BARE_VALUES:
        return False
    claim = Claim.of(field.value)
    return bool(claim.words or claim.numbers or claim.dates)


def supports_field(field: Field, chunk: Chunk) -> bool:
    """Return whether a passage supports one value of a structured reply: it is in it word for word, or as a claim.

    The key is not compared: it is a word of the reply's schema. Title and heading count, since a card names its subject.
    """
    value = normalise_quotation(field.value)
    text = _read_passage(chunk).normal
    if not any(letter.isalpha() for letter in value):
        verbatim = False  # numbers are compared by value: 5 is not a part of 12.5
    elif _UNSPACED.search(value):
        verbatim = value in text
    else:
        verbatim = re.search(rf"(?<!\w){re.escape(value)}(?!\w)", text) is not None
    return verbatim or best_support(field.value, [chunk]) is not None


@dataclass(frozen=True, slots=True)
class _PassageSentence:
    """One sentence of a passage."""

    start: int
    end: int
    source: Source


@dataclass(frozen=True, slots=True)
class _ReadPassage:
    """A passage in the form that statements are compared with."""

    words: frozenset[str]
    """Stemmed words of title, heading and text."""
    title: frozenset[str]
    above: frozenset[str]
    """Words of title and heading."""
    normal: str
    sentences: tuple[_PassageSentence, ...]
    tables: tuple[Table, ...]


@lru_cache(maxsize=2048)
def _read_passage(chunk: Chunk) -> _ReadPassage:
    """Return a chunk's words and sentences, cached because answers cite the same chunks again."""
    above = read_statement(f"{chunk.title}. {chunk.heading}")
    spans = [
        # a question states nothing
        span
        for span in sentence_spans(chunk.text)
        if not chunk.text[slice(*span)].rstrip("\"'”’)]* ").endswith("?")
    ]
    texts = [chunk.text[start:end] for start, end in spans]
    statements = [read_statement(text) for text in resolve_pronouns(texts)]
    goes_on = [
        read_statement(text).continues and ("it" in _first(text) or read.continues)
        for text, read in zip(texts, statements, strict=True)
    ]
    all_words = above.words.union(*(statement.words for statement in statements))
    tables = read_tables(chunk.text)
    sentences: list[_PassageSentence] = []
    before: tuple[ParsedStatement, ...] = ()
    for n, ((start, end), statement, continues) in enumerate(zip(spans, statements, goes_on, strict=True)):
        continued = before[:_MAX_BEFORE] if continues else ()
        if _PLURAL.intersection(_first(texts[n])[:1]) and not _counts_other(texts[n], statements[:n]):
            continued = tuple(reversed(statements[max(0, n - _MAX_BEFORE) : n]))
        window = statement.words.union(above.words, *(other.words for other in continued))
        near = [statements[m].words for m in (n - 1, n + 1) if 0 <= m < len(statements)]
        years = tuple(q for q in statements[n - 1].quantities if q.is_year) if n else ()
        beside = frozenset[str]().union(*near)
        source = Source(statement, continued, above, all_words, window, years, beside)
        if not any(start < row.end and row.start < end for table in tables for row in table.rows):
            sentences.append(_PassageSentence(start, end, source))
        before = (statement, *continued)
    whole = f"{chunk.title}. {chunk.heading}. {chunk.text}"
    return _ReadPassage(
        all_words,
        frozenset(words(chunk.title)),
        above.words,
        normalise_quotation(whole),
        tuple(sentences),
        tables,
    )


def _first(text: str) -> list[str]:
    return words(text)[:2]


def _counts_other(text: str, before: Sequence[ParsedStatement]) -> bool:
    """Return whether "each" or "neither" counts things that no sentence before names: "Each payslip has a number"."""
    if not (match := _COUNTS.match(text)):
        return False
    if match[1] is not None:
        return True
    counted = stem(match[2].lower())
    return counted not in VERBS and not any(counted in other.words for other in before[-_MAX_BEFORE:])


def _best(
    statement: ParsedStatement, quotes: Sequence[str], passages: Sequence[Chunk], accepted: Sequence[str]
) -> Support | None:
    """Return the best support among the accepted; none by a passage that says clearly less of it than another does."""
    supports = []
    most = 0
    for position, chunk in enumerate(passages):
        shared, support = _support(statement, quotes, chunk, position, accepted)
        most = max(most, shared)
        supports += [(shared, support)] if support else []
    near = [support for shared, support in supports if shared >= MIN_SHARED * most]
    return max(near, key=lambda support: support.score, default=None)


def _support(
    statement: ParsedStatement, quotes: Sequence[str], chunk: Chunk, position: int, accepted: Sequence[str]
) -> tuple[int, Support | None]:
    """Return what one passage shares with a statement, and the support by one of the sentences that share most."""
    passage = _read_passage(chunk)
    content = statement.content
    if not (content or statement.quantities) or not statement.names <= passage.words:
        return 0, None
    # words of the title are in every passage of the document, so they alone must not carry a claim
    share = coverage(content, passage.words)
    weighed = content - FILLERS
    if (
        not statement.quantities
        and min(coverage(weighed, passage.words), coverage(weighed - passage.title, passage.words))
        < MIN_SHARE
    ):
        return 0, None
    if any(quote not in passage.normal for quote in quotes):
        return 0, None
    for table in passage.tables:
        row = stating_row(statement, table, passage.above)
        if row is not None:
            return len(content), Support(chunk, position, row.start, row.end, share)
    scored = []
    for sentence in passage.sentences:
        source = sentence.source
        own = sum(is_covered(word, source.window) for word in content)
        own += sum(any(agree(q, other) for other in source.quantities) for q in statement.quantities)
        scored.append((own, sentence))
    most = max((own for own, _ in scored), default=0)
    for own, sentence in sorted(scored, key=lambda pair: -pair[0]):
        if own < most - _MAX_LESS or not own:
            continue
        verdict = compare(statement, sentence.source)
        if verdict in accepted:
            near = coverage(content, sentence.source.statement.words)
            return most, Support(
                chunk, position, sentence.start, sentence.end, share + near, verdict == LIMITED
            )
    return most, None
