"""What an index knows of its documents besides their text, and which of them a query may search."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import Any

import numpy as np

from rag.search.filters import Condition, DaySpan, day_span
from rag.search.query import Query
from rag.text.sanitize import single_line
from rag.types import Chunk

_REMEMBERED = 64
_LISTED = 8
"""Keys and values named in a note, at most."""


@dataclass(frozen=True, slots=True)
class ChunkSelection:
    """The chunks that a query may find."""

    rows: np.ndarray | None
    """bool [chunks]; None for all of them."""
    notes: tuple[str, ...] = ()
    """What was left out and why, a sentence each."""


class DocumentIndex:
    """Metadata of the documents of one generation, beside the chunks they were cut into."""

    def __init__(self, abouts: Mapping[str, Mapping[str, Any]], chunks: Sequence[Chunk]) -> None:
        """Take the documents' fields by id, and all chunks in their order."""
        self._abouts = abouts
        self._chunks = chunks
        self._known: dict[object, ChunkSelection] = {}

    def __contains__(self, doc: str) -> bool:
        """Return whether the index holds a document of this id."""
        return doc in self._abouts

    def metadata(self, doc: str) -> Mapping[str, Any]:
        """Return a document's metadata."""
        found: Mapping[str, Any] = self._abouts[doc]["metadata"]
        return found

    def has_expired(self, doc: str, day: date) -> bool:
        """Return whether a document was valid only until an earlier day."""
        days = day_span(self.metadata(doc).get("valid_until"))
        return days is not None and days.last < day

    def select(self, query: Query, today: date) -> ChunkSelection:
        """Return what a query's date and conditions leave; what is asked again is remembered."""
        key = tuple(query.where), query.as_of, query.expired, today
        found = self._known.get(key)
        if found is None:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            found = self._known[key] = self._selected(query, today)
        return found

    def _selected(self, query: Query, today: date) -> ChunkSelection:
        allowed = set(self._abouts)
        notes: list[str] = []
        for condition in query.where:
            allowed = self._fulfilling(condition, allowed, notes)
        if query.as_of is not None:
            allowed = self._published(query.as_of, allowed, notes)
        if not query.expired:
            allowed = self._valid(query.as_of or today, allowed, notes)
        if not allowed and self._abouts:
            notes.append(f"nothing is left to search of {_counted(len(self._abouts), 'document')}")
        # keys and values come from documents, and notes are printed
        return ChunkSelection(self._rows(allowed), tuple(map(single_line, notes)))

    def _rows(self, allowed: set[str]) -> np.ndarray | None:
        if len(allowed) == len(self._abouts):
            return None
        numbers = {doc: n for n, doc in enumerate(self._abouts)}
        mask = np.zeros(len(numbers), dtype=bool)
        mask[[numbers[doc] for doc in allowed]] = True
        return np.asarray(mask[self._of_chunk])

    def _fulfilling(self, condition: Condition, allowed: set[str], notes: list[str]) -> set[str]:
        """Return the documents that fulfil a condition; a note where none does, or some cannot be compared."""
        answers = {doc: condition.holds(self._fields(doc)) for doc in self._abouts}
        if incomparable := sum(answer is None for answer in answers.values()):
            notes.append(
                f"{_counted(incomparable, 'document')} left out: {condition.key} there is no number and no date, "
                f"so it cannot be compared ({condition})"
            )
        if not any(answers.values()):
            notes.append(f"no document has {condition}: {self._instead(condition.key)}")
        return {doc for doc in allowed if answers[doc]}

    def _published(self, day: date, allowed: set[str], notes: list[str]) -> set[str]:
        """Return the documents that were known on a day: those without a date, or with one not later."""
        spans = self._spans(("date", "updated"), allowed, notes, "known")
        later = {doc for doc, days in spans.items() if days.first > day}
        if later:
            notes.append(f"{_counted(len(later), 'document')} dated after {day} left out")
        return allowed - later

    def _valid(self, day: date, allowed: set[str], notes: list[str]) -> set[str]:
        """Return the documents that had not expired on a day."""
        spans = self._spans(("valid_until",), allowed, notes, "valid")
        gone = {doc for doc, days in spans.items() if days.last < day}
        if gone:
            notes.append(
                f"{_counted(len(gone), 'document')} that expired before {day} left out (--expired searches them)"
            )
        return allowed - gone

    def _spans(
        self, keys: Sequence[str], allowed: set[str], notes: list[str], taken: str
    ) -> dict[str, DaySpan]:
        """Return the days under the first of the keys that a document has; a note on those that are no dates."""
        found: dict[str, DaySpan] = {}
        unread = 0
        for doc in allowed:
            metadata = self._abouts[doc]["metadata"]
            value = next((v for key in keys if (v := metadata.get(key))), None)
            if value is not None:
                days = day_span(value)
                unread += days is None
                if days:
                    found[doc] = days
        if unread:
            notes.append(f"{_counted(unread, 'document')} taken as {taken}: {keys[0]} there is no date")
        return found

    def _fields(self, doc: str) -> dict[str, Any]:
        about = self._abouts[doc]
        plain = {name: about[name] for name in ("title", "media", "source")}
        return {**plain, **about["metadata"], "doc": doc}

    def _instead(self, key: str) -> str:
        """Return what a user could have meant: the key's values, or the keys there are."""
        values: Counter[str] = Counter()
        keys: Counter[str] = Counter()
        for doc in self._abouts:
            fields = self._fields(doc)
            keys.update(name for name in fields if name != "page_starts")
            found = fields.get(key)
            values.update(map(str, found if isinstance(found, list) else [] if found is None else [found]))
        if not values:
            return f"there is no key {key!r}; the keys are {_listed(keys)}"
        return f"the values of {key} are {_listed(values)}"

    @cached_property
    def _of_chunk(self) -> np.ndarray:
        numbers = {doc: n for n, doc in enumerate(self._abouts)}
        return np.array([numbers[chunk.doc] for chunk in self._chunks], dtype=np.int64)


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' if count != 1 else ''}"


def _listed(counted: Counter[str]) -> str:
    """Name the most frequent ones, and how many more there are."""
    named = [name if len(name) <= 40 else name[:39] + "…" for name, _ in counted.most_common(_LISTED)]
    more = len(counted) - len(named)
    return ", ".join(named) + (f" and {more} more" if more else "")
