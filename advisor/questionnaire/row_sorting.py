"""Sort training rows into changing facts, stable facts and behaviour: what to index, what to train on.

Decided by fixed rules from reply and documents, without a model: a fact is what a passage supports, or what
states a number, a date or a name that the question does not; it changes when it states a price, a time, a
date, a telephone number or a version. A reply that states nothing of that kind, refuses, or is only tone is
an example of behaviour. :func:`sort_rows_of_files` and :func:`sort_rows_without_documents` are the entry
points; :func:`share_stating_facts` tells in milliseconds whether replies are mostly facts that their prompts lack.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rag.grounding import gold
from rag.sentences import claims
from rag.text.dates import extract_dates, without_dates
from rag.text.words import count_noun, sentences
from rag.types import Document
from runners.data.document_sample import block_texts
from runners.data.examples import Example
from runners.data.refusals import is_refusal
from runners.preflight.report import count_of_rows

CHANGING = "changing fact"
STABLE = "stable fact"
BEHAVIOUR = "behaviour"
NO_DOCUMENTS_NOTE = (
    "No documents were read, so a fact without number, date or name counts as style. "
    "Facts that change are better looked up than trained."
)
"""What cannot be decided without documents."""
_VOLATILE = {
    "price": re.compile(
        r"[€$£¥]\s?\d|\d\s?[€£¥]|\d\s?(?:euros?|dollars?|pounds?|cents?|crowns?|marks?|per ?cent|%)"
        r"|\b(?:EUR|USD|GBP|CHF|SEK|NOK|DKK)\b",
        re.I,
    ),
    "time": re.compile(
        r"\b\d{1,2}[:h][0-5]\d\b|\b\d{1,2}(?:\.[0-5]\d)?\s?(?:a\.?m|p\.?m|o'clock)\b|\b(?:noon|midnight)\b",
        re.I,
    ),
    "telephone": re.compile(r"(?<![\w.])\+?\d(?:[\d ()/-]{5,})\d(?!\w)"),
    "version": re.compile(r"\bv\d+(?:\.\d+)*\b|\bversion \d|\b\d+\.\d+\.\d+\b", re.I),
}
_QUANTITY = re.compile(
    r"\b\d+(?:[.,]\d+)?\s?(?:hours?|hrs?|days?|weeks?|months?|minutes?|mins?|kg|kilos?|grams?|g|lit(?:re|er)s?|ml|cm|m|km|miles?)\b",
    re.I,
)
"""A duration or a measure: a fact as well, though it seldom changes."""
FACT_SENTENCES = 1 / 3
"""Share of a reply's sentences that must state such a value: a long reply has a number somewhere, whatever it is about."""
MOST_NUMBERS_GIVEN = 1
"""Most numbers in a prompt whose reply is looked at: from two on it may be worked out."""
MIN_LOOKED_AT = 20
"""Fewest replies that can be looked at, from which a share is given."""
MIN_LOOKED_AT_SHARE = 0.5
"""Share of all replies that can be looked at, from which they stand for the file."""


@dataclass(frozen=True, slots=True)
class SortedRow:
    """One training row with its kind."""

    line: int
    kind: str
    """changing fact, stable fact or behaviour."""
    says: tuple[str, ...]
    """The kinds of changing content in it: price, time, date, telephone, version."""
    doc: str | None
    """The document that supports it, None when none does."""


@dataclass(frozen=True, slots=True)
class RowSorting:
    """Every row's kind, and counts of them."""

    rows: tuple[SortedRow, ...]
    looked: bool = True
    """Whether there were documents to look the facts up in."""

    def of(self, kind: str) -> tuple[SortedRow, ...]:
        """Return the rows of a kind."""
        return tuple(row for row in self.rows if row.kind == kind)

    @property
    def missing(self) -> tuple[SortedRow, ...]:
        """Return the changing facts that no document holds: an update of the index will not reach them.

        Empty when no documents were read.
        """
        return tuple(row for row in self.of(CHANGING) if self.looked and row.doc is None)

    def to_json(self) -> dict[str, Any]:
        """Return counts and rows as JSON values."""
        kinds = {"changing": CHANGING, "stable": STABLE, "behaviour": BEHAVIOUR}
        return {
            "rows": len(self.rows),
            **{name: len(self.of(kind)) for name, kind in kinds.items()},
            "in_documents": sum(row.doc is not None for row in self.rows) if self.looked else None,
            "missing": [row.line for row in self.missing] if self.looked else None,
            "each": [{"line": r.line, "kind": r.kind, "says": list(r.says), "doc": r.doc} for r in self.rows],
        }

    @property
    def text(self) -> str:
        """Return what the rows are, and what belongs where, in two or three sentences."""
        if not self.rows:
            return "no rows to sort"
        facts = [row for row in self.rows if row.kind != BEHAVIOUR]
        says = Counter(kind for row in self.of(CHANGING) for kind in row.says)
        of_what = f" ({', '.join(f'{kind} {n}' for kind, n in says.most_common())})" if says else ""
        held = sum(row.doc is not None for row in facts)
        text = (
            f"of {count_of_rows(len(self.rows))}, {len(self.of(CHANGING))} state facts that change{of_what}, "
            f"{len(self.of(STABLE))} facts that do not, {len(self.of(BEHAVIOUR))} show style only."
        )
        if not self.looked:
            return f"{text} {NO_DOCUMENTS_NOTE}"
        if held:
            text += (
                f" {held} of the {len(facts)} facts are in the documents already: look them up there, and use training only "
                "for style."
            )
        if self.missing:
            count = len(self.missing)
            lines = ", ".join(str(row.line) for row in self.missing[:3])
            place = f"line {lines}" if count == 1 else f"lines {lines}{', ...' * (count > 3)}"
            text += (
                f" {count_noun(count, 'fact')} that may change {'is' if count == 1 else 'are'} in no document ({place}): "
                f"write {'it' if count == 1 else 'them'} into one, or a fine-tuned model will repeat old values."
            )
        return text


def sort_rows_by_kind(
    rows: Sequence[Example], documents: Iterable[Document] = (), refusals: Sequence[str] = ()
) -> RowSorting:
    """Sort training rows by what they teach; raw texts, which answer nothing, are left out."""
    finder = gold.GoldFinder(block_texts(documents))
    return RowSorting(tuple(_sort_row(row, finder, refusals) for row in rows if not row.raw))


def sort_rows_without_documents(rows: Sequence[Example], refusals: Sequence[str] = ()) -> RowSorting:
    """Sort training rows where no documents are at hand, as before a training step on its own."""
    return replace(sort_rows_by_kind(rows, (), refusals), looked=False)


def sort_rows_of_files(
    rows: Sequence[Example], documents: Path | None, refusals: Sequence[str] = ()
) -> RowSorting:
    """Sort training rows with the documents of a path, None for none."""
    from rag.loading.reader import load_documents

    return sort_rows_by_kind(rows, load_documents(documents).documents if documents else (), refusals)


def kinds_of_change(statement: str) -> tuple[str, ...]:
    """Return the kinds of content in a statement that are likely to change."""
    kinds = [kind for kind, pattern in _VOLATILE.items() if pattern.search(statement)]
    return tuple(kinds + ["date"] * bool(extract_dates(statement)))


def share_stating_facts(rows: Sequence[Example]) -> float | None:
    """Return the share of replies that state prices, times, dates, telephone numbers or quantities of their own.

    A value counts that the chat before the reply does not hold. Raw texts, refusals, and replies to prompts with several
    numbers are left out.

    Returns:
        The share, 0 to 1; None where fewer than :data:`MIN_LOOKED_AT` replies, or less than half, can be looked at.
    """
    chats = [row for row in rows if not row.raw and not row.refuses]
    looked_at = [
        row for row in chats if len(re.findall(r"\d+(?:[.,:]\d+)*", _before(row))) <= MOST_NUMBERS_GIVEN
    ]
    if len(looked_at) < max(MIN_LOOKED_AT, MIN_LOOKED_AT_SHARE * len(chats)):
        return None
    return round(sum(map(_states_facts, looked_at)) / len(looked_at), 4)


def _before(row: Example) -> str:
    """Return what the model is given before the reply."""
    return "\n".join(turn["content"] for turn in row.messages[:-1])


def _states_facts(row: Example) -> bool:
    """Whether enough sentences of a reply state values that the chat before it does not hold."""
    before = _before(row)
    given, dates = " ".join(before.lower().split()), extract_dates(before)
    statements = sentences(row.reply)
    stating = sum(
        bool(extract_dates(text) - dates) or any(value not in given for value in _values(text))
        for text in statements
    )
    return stating > 0 and stating >= FACT_SENTENCES * len(statements)


def _values(statement: str) -> list[str]:
    """Return the values in a statement that can be facts, dates aside, in lower case."""
    rest = without_dates(statement)
    patterns = (*_VOLATILE.values(), _QUANTITY)
    values = [match[0] for pattern in patterns for match in pattern.finditer(rest)]
    return [" ".join(value.lower().split()) for value in values]


def _sort_row(row: Example, finder: gold.GoldFinder, refusals: Sequence[str]) -> SortedRow:
    """Return a row with its kind."""
    statements = [sentence for sentence in sentences(row.reply) if not sentence.rstrip().endswith("?")]
    if row.refuses or not statements or is_refusal(row.reply, refusals):
        return SortedRow(row.line, BEHAVIOUR, (), None)
    statement = " ".join(statements)
    chunk = finder.find(row.reply, row.question)
    claim = claims.Claim.of(statement)
    new_facts = claim.numbers or claim.dates or claim.names - claims.Claim.of(row.question).words
    if chunk is None and not new_facts:
        return SortedRow(row.line, BEHAVIOUR, (), None)
    says = kinds_of_change(statement)
    return SortedRow(row.line, CHANGING if says else STABLE, says, chunk.doc if chunk else None)
