"""The metadata of an index's documents, and which documents a query may search."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

from rag.search.filters import Condition, DaySpan, day_span
from rag.search.query import Query
from rag.text.sanitize import single_line

_CACHED_SELECTIONS = 64
_MAX_LISTED = 8
"""Most keys or values that a note names."""


@dataclass(frozen=True, slots=True)
class DocumentSelection:
    """The documents that a query may search."""

    allowed: frozenset[str] | None
    """Their ids; None for all."""
    notes: tuple[str, ...] = ()
    """What was left out and why, one sentence each."""


@runtime_checkable
class SearchableFields(Protocol):
    """Fields of documents that are not all in memory."""

    def may_have(self, key: str) -> bool:
        """Return whether any document may have a key in its metadata; false only if none has."""


class DocumentIndex:
    """Metadata of the documents of one generation."""

    def __init__(self, fields: Mapping[str, Mapping[str, Any]]) -> None:
        """Store the documents' fields (title, media, source, metadata) by id."""
        self._document_fields = fields
        self._selections: dict[object, DocumentSelection] = {}

    def __contains__(self, doc: str) -> bool:
        """Return whether the index has a document of this id."""
        return doc in self._document_fields

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of the documents."""
        return tuple(self._document_fields)

    def metadata(self, doc: str) -> Mapping[str, Any]:
        """Return a document's metadata."""
        metadata: Mapping[str, Any] = self._document_fields[doc]["metadata"]
        return metadata

    def select(self, query: Query, today: date) -> DocumentSelection:
        """Return the documents that a query's date and conditions allow; recent selections are cached."""
        key = tuple(query.where), query.as_of, query.expired, today
        selection = self._selections.get(key)
        if selection is None:
            if len(self._selections) >= _CACHED_SELECTIONS:
                self._selections.clear()
            selection = self._selections[key] = self._selected(query, today)
        return selection

    def _selected(self, query: Query, today: date) -> DocumentSelection:
        """Apply the query's conditions, its date and the expiry of documents."""
        if not query.where and query.as_of is None and (query.expired or not self._may_expire):
            return DocumentSelection(None)  # nothing can be left out: no document has to be read
        allowed = set(self._document_fields)
        notes: list[str] = []
        for condition in query.where:
            allowed = self._satisfying(condition, allowed, notes)
        if query.as_of is not None:
            allowed = self._published(query.as_of, allowed, notes)
        if not query.expired:
            allowed = self._valid(query.as_of or today, allowed, notes)
        if not allowed and self._document_fields:
            notes.append(f"nothing is left to search of {count_documents(len(self._document_fields))}")
        all_allowed = len(allowed) == len(self._document_fields)
        # keys and values come from documents, and notes are printed
        return DocumentSelection(None if all_allowed else frozenset(allowed), tuple(map(single_line, notes)))

    def _satisfying(self, condition: Condition, allowed: set[str], notes: list[str]) -> set[str]:
        """Return the documents that satisfy a condition; add a note if none does, or if some cannot be compared."""
        answers = {doc: condition.holds(self._fields(doc)) for doc in self._document_fields}
        if incomparable := sum(answer is None for answer in answers.values()):
            notes.append(
                f"{count_documents(incomparable)} not searched: their {condition.key} is neither a number nor a date, "
                f"so it cannot be compared ({condition})"
            )
        if not any(answers.values()):
            notes.append(f"no document has {condition}: {self._instead(condition.key)}")
        return {doc for doc in allowed if answers[doc]}

    def _published(self, day: date, allowed: set[str], notes: list[str]) -> set[str]:
        """Return the documents that were published on a day: those without a date, or with one that is not later."""
        spans = self._spans(("date", "updated"), allowed, notes, "known")
        later = {doc for doc, days in spans.items() if days.first > day}
        if later:
            notes.append(f"{count_documents(len(later))} dated after {day} not searched")
        return allowed - later

    def _valid(self, day: date, allowed: set[str], notes: list[str]) -> set[str]:
        """Return the documents that had not expired on a day."""
        spans = self._spans(("valid_until",), allowed, notes, "valid")
        expired = {doc for doc, days in spans.items() if days.last < day}
        if expired:
            notes.append(
                f"{count_documents(len(expired))} that expired before {day} not searched (--expired searches them)"
            )
        return allowed - expired

    def _spans(
        self, keys: Sequence[str], allowed: set[str], notes: list[str], treated_as: str
    ) -> dict[str, DaySpan]:
        """Return the days under the first of the keys that a document has; add a note if some values are not dates."""
        spans: dict[str, DaySpan] = {}
        unreadable = 0
        for doc in allowed:
            metadata = self._document_fields[doc]["metadata"]
            value = next((candidate for key in keys if (candidate := metadata.get(key))), None)
            if value is not None:
                days = day_span(value)
                unreadable += days is None
                if days:
                    spans[doc] = days
        if unreadable:
            notes.append(f"{count_documents(unreadable)} taken as {treated_as}: {keys[0]} there is no date")
        return spans

    def _fields(self, doc: str) -> dict[str, Any]:
        """Return the fields of a document that conditions can use."""
        about = self._document_fields[doc]
        plain = {name: about[name] for name in ("title", "media", "source")}
        return {**plain, **about["metadata"], "doc": doc}

    def _instead(self, key: str) -> str:
        """Return what the user could have meant: the values of the key, or the existing keys."""
        values: Counter[str] = Counter()
        keys: Counter[str] = Counter()
        for doc in self._document_fields:
            fields = self._fields(doc)
            keys.update(name for name in fields if name != "page_starts")
            field = fields.get(key)
            values.update(map(str, field if isinstance(field, list) else [] if field is None else [field]))
        if not values:
            return f"there is no key {key!r}; the keys are {listed_names(keys)}"
        return f"the values of {key} are {listed_names(values)}"

    @cached_property
    def _may_expire(self) -> bool:
        """Whether any document may have a day until which it is valid."""
        if isinstance(self._document_fields, SearchableFields):
            return self._document_fields.may_have("valid_until")
        return any(fields["metadata"].get("valid_until") for fields in self._document_fields.values())


def count_documents(count: int) -> str:
    """Return "1 document" or "12 documents"."""
    return f"{count} document{'s' if count != 1 else ''}"


def listed_names(counted: Counter[str]) -> str:
    """Return the most frequent ones, and how many more there are."""
    names = [name if len(name) <= 40 else name[:39] + "…" for name, _ in counted.most_common(_MAX_LISTED)]
    more = len(counted) - len(names)
    return ", ".join(names) + (f" and {more} more" if more else "")
