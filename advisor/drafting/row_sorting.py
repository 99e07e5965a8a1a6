"""Sort training rows into changing facts, stable facts and behaviour: what to index, what to train on.

Decided by fixed rules from reply and documents, without a model: a fact is what a passage supports, or what
states a number, a date or a name that the question does not; it changes when it states a price, a time, a
date, a telephone number or a version. A reply that states nothing of that kind, refuses, or is only tone is
an example of behaviour. :func:`sort_rows_of_files` and :func:`sort_rows_without_documents` are the entry
points.
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
from rag.text.dates import extract_dates
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
