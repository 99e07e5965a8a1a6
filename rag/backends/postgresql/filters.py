"""Which documents of an index in PostgreSQL a query may search, by statements on the table of metadata values.

A document's fields are rows of the table ``values``, one for each item of a list, so that an equality is an index look-up
and any other condition is evaluated on the distinct values of its key (:meth:`rag.search.filters.Condition.holds`) instead
of on all documents. ``page_starts`` is left out: no one searches by it. Results and notes equal those of
:class:`rag.search.documents.DocumentIndex`.
"""
# ruff: noqa: S608 - names and numbers put into statements come from the tables, values are always bound

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from hashlib import sha256
from typing import Any
from uuid import UUID

from rag.backends.postgresql.reader import GenerationReader
from rag.files import canonical_json
from rag.search.documents import count_documents, listed_names
from rag.search.filters import PATH_FIELDS, Condition, day_span
from rag.search.query import Query
from rag.text.sanitize import single_line

CACHED_SELECTIONS = 64
PUBLISHED_KEYS = ("date", "updated")
EXPIRY_KEY = "valid_until"
_UNSEARCHED = "page_starts"


@dataclass(frozen=True, slots=True)
class SqlClause:
    """A condition in SQL on the row ``d`` of a document, with the values bound to it."""

    sql: str
    values: tuple[Any, ...] = ()

    def negated(self) -> SqlClause:
        """Return its opposite."""
        return SqlClause(f"not ({self.sql})", self.values)


NOTHING = SqlClause("false")


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class AllowedDocuments:
    """The documents that conditions and dates allow."""

    clauses: tuple[SqlClause, ...]
    """All must hold; empty if all documents are allowed."""
    documents: int
    chunks: int
    notes: tuple[str, ...]

    @property
    def sql(self) -> str:
        """The clauses as one condition on ``d``, beginning with "and"; "" for all documents."""
        return "".join(f" and ({clause.sql})" for clause in self.clauses)

    @property
    def values(self) -> tuple[Any, ...]:
        """The values of :attr:`sql`."""
        return tuple(value for clause in self.clauses for value in clause.values)


class DocumentFilters:
    """Selects documents of one generation; recent selections are cached."""

    def __init__(self, reader: GenerationReader, documents: int, chunks: int) -> None:
        """Take the reader and the generation's counts."""
        self._reader = reader
        self._documents = documents
        self._chunks = chunks
        self._table = f"{reader.tables.name('documents')} d where {reader.lives('d')}"
        self._values = reader.tables.name("values")
        self._selections: dict[object, AllowedDocuments] = {}

    def select(self, query: Query, today: date) -> AllowedDocuments:
        """Return the documents that a query's date and conditions allow."""
        key = tuple(query.where), query.as_of, query.expired, today
        selection = self._selections.get(key)
        if selection is None:
            if len(self._selections) >= CACHED_SELECTIONS:
                self._selections.clear()
            selection = self._selections[key] = self._selected(query, today)
        return selection

    def _selected(self, query: Query, today: date) -> AllowedDocuments:
        clauses: list[SqlClause] = []
        notes: list[str] = []
        for condition in query.where:
            clauses.append(self._satisfying(condition, notes))
        if query.as_of is not None:
            self._add_dates("dated", "known", query.as_of, clauses, notes)
        if not query.expired:
            self._add_dates("until", "valid", query.as_of or today, clauses, notes)
        documents, chunks = self._documents, self._chunks
        if clauses:
            sql = "select count(*), coalesce(sum(d.chunks), 0)::int8 from "
            documents, chunks = self._rows(sql, clauses)[0]
        if not documents and self._documents:
            notes.append(f"nothing is left to search of {count_documents(self._documents)}")
        everything = documents == self._documents
        # keys and values come from documents, and notes are printed
        return AllowedDocuments(
            () if everything else tuple(clauses), documents, chunks, tuple(map(single_line, notes))
        )

    def _satisfying(self, condition: Condition, notes: list[str]) -> SqlClause:
        """Return the clause of a condition; add a note if no document satisfies it, or if some cannot be compared."""
        if condition.sign in ("=", "!="):
            clause = self._equal(condition)
            clause = clause if condition.sign == "=" else clause.negated()
        else:
            clause, incomparable = self._ordered(condition)
            if count := self._count([incomparable, clause.negated()]) if incomparable is not NOTHING else 0:
                notes.append(
                    f"{count_documents(count)} not searched: their {condition.key} is neither a number nor a date, "
                    f"so it cannot be compared ({condition})"
                )
        if clause is NOTHING or not self._rows("select 1 from ", [clause], " limit 1"):
            notes.append(f"no document has {condition}: {self._instead(condition.key)}")
        return clause

    def _equal(self, condition: Condition) -> SqlClause:
        """Return the clause that one of the key's values equals the condition's."""
        key, wanted = condition.key, condition.value.casefold()
        if set("*?") & set(wanted):
            positive = Condition(key, "=", condition.value)
            return self._any_of(
                key, [text for text, value in self._distinct(key) if positive.holds({key: [value]})]
            )
        folded = [folded_id(key, wanted)]
        if key in PATH_FIELDS:
            folded.append(prefix_id(key, wanted.rstrip("/") + "/"))
        try:
            number = float(condition.value)
        except ValueError:
            return self._some_value("v.folded = any(%s)", (folded,))
        return self._some_value(
            "(v.folded = any(%s) or (v.name = %s and v.number = %s))", (folded, name_id(key), number)
        )

    def _ordered(self, condition: Condition) -> tuple[SqlClause, SqlClause]:
        """Return the clauses that some value is in the order, and that some value cannot be ordered."""
        key = condition.key
        answers: dict[bool | None, list[str]] = {True: [], None: [], False: []}
        for text, value in self._distinct(key):
            answers[condition.holds({key: [value]})].append(text)
        return self._any_of(key, answers[True]), self._any_of(key, answers[None])

    def _distinct(self, key: str) -> Iterator[tuple[str, Any]]:
        """Yield the distinct values of a key, as stored and as they are."""
        sql = (
            f"select distinct v.value from {self._values} v where v.name = %s and v.value is not null "
            f"and {self._reader.lives('v')}"
        )
        for (text,) in self._reader.rows(sql, (name_id(key),)):
            yield text, json.loads(text)

    def _any_of(self, key: str, texts: list[str]) -> SqlClause:
        """Return the clause that one of the key's values is among some stored ones."""
        return (
            self._some_value("v.name = %s and v.value = any(%s)", (name_id(key), texts)) if texts else NOTHING
        )

    def _some_value(self, sql: str, values: tuple[Any, ...]) -> SqlClause:
        exists = f"exists (select 1 from {self._values} v where v.doc = d.number and {self._reader.lives('v')} and {sql})"
        return SqlClause(exists, values)

    def _add_dates(
        self, column: str, treated_as: str, day: date, clauses: list[SqlClause], notes: list[str]
    ) -> None:
        """Leave out the documents dated after a day, or expired before it; add notes about them."""
        key, sign = ("date", ">") if column == "dated" else (EXPIRY_KEY, "<")
        left_out = SqlClause(f"d.{column} is not null and d.{column} {sign} %s", (day,))
        if unreadable := self._count([*clauses, SqlClause(f"d.{column}_unreadable")]):
            notes.append(f"{count_documents(unreadable)} taken as {treated_as}: {key} there is no date")
        if count := self._count([*clauses, left_out]):
            clauses.append(left_out.negated())
            notes.append(
                f"{count_documents(count)} dated after {day} not searched"
                if column == "dated"
                else f"{count_documents(count)} that expired before {day} not searched (--expired searches them)"
            )

    def _instead(self, key: str) -> str:
        """Return what the user could have meant: the values of the key, or the existing keys."""
        # the most frequent first, then in the order in which a walk over the documents meets them
        order = "min(d.id collate \"C\" || chr(1) || lpad(v.position::text, 9, '0'))"
        base = (
            f"from {self._values} v join {self._reader.tables.name('documents')} d on d.number = v.doc and "
        )
        base += f"{self._reader.lives('d')} where {self._reader.lives('v')}"
        sql = f"select v.value, count(*), {order} as first {base} and v.name = %s and v.value is not null "
        values: Counter[str] = Counter()
        for text, count, _ in self._reader.rows(sql + "group by v.value order by first", (name_id(key),)):
            values[str(json.loads(text))] += count
        if values:
            return f"the values of {key} are {listed_names(values)}"
        sql = (
            f'select v."key", count(distinct v.doc), {order} as first {base} group by v."key" order by first'
        )
        keys = Counter({name: count for name, count, _ in self._reader.rows(sql)})
        return f"there is no key {key!r}; the keys are {listed_names(keys)}"

    def _count(self, clauses: list[SqlClause]) -> int:
        return int(self._rows("select count(*) from ", clauses)[0][0])

    def _rows(self, head: str, clauses: list[SqlClause], tail: str = "") -> list[Any]:
        """Return the rows of a statement on the documents of the generation for which all clauses hold."""
        values = [value for clause in clauses for value in clause.values]
        return self._reader.rows(
            head + self._table + "".join(f" and ({clause.sql})" for clause in clauses) + tail, values
        )


def value_rows(document: str, fields: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of a document's fields, without its number: position, key, name, folded, number, value.

    ``folded`` identifies key and value in any letter case. A path has further rows without a value, one for each folder
    above it. A key without a value has one row, so that it can be named.

    Args:
        document: its id.
        fields: of the text store: title, media, source and metadata, as read from JSON.
    """
    plain = {name: fields[name] for name in ("title", "media", "source")}
    position = 0
    for key, field in {**plain, **fields["metadata"], "doc": document}.items():
        if key == _UNSEARCHED:
            continue
        items = field if isinstance(field, list) else [] if field is None else [field]
        if not items:
            yield position, key, name_id(key), None, None, None
            position += 1
        for item in items:
            text = str(item).casefold()
            yield position, key, name_id(key), folded_id(key, text), _number(item), canonical_json(item)
            position += 1
            if key in PATH_FIELDS and _number(item) is None:
                for end, char in enumerate(text):
                    if char == "/":
                        prefix = prefix_id(key, text[: end + 1])
                        yield position, key, name_id(key), prefix, None, None


def date_columns(metadata: Mapping[str, Any]) -> tuple[date | None, bool, date | None, bool]:
    """Return a document's first day of publication and last day of validity, each with whether it cannot be read."""
    columns: list[Any] = []
    for keys, which in ((PUBLISHED_KEYS, 0), ((EXPIRY_KEY,), 1)):
        value = next((candidate for key in keys if (candidate := metadata.get(key))), None)
        days = day_span(value) if value is not None else None
        columns += [days[which] if days else None, value is not None and days is None]
    return tuple(columns)  # type: ignore[return-value]


def name_id(key: str) -> UUID:
    """Return what identifies a key, of whatever length."""
    return _identity("name", key)


def folded_id(key: str, text: str) -> UUID:
    """Return what identifies a value, in lower case, under a key."""
    return _identity("value", key, text)


def prefix_id(key: str, folder: str) -> UUID:
    """Return what identifies a folder, in lower case and with "/" at its end, above a path."""
    return _identity("folder", key, folder)


def _identity(*parts: str) -> UUID:
    data = "\0".join(parts).encode("utf-8", "surrogatepass")
    return UUID(bytes=sha256(data).digest()[:16])


def _number(value: Any) -> float | None:
    """Return a number's value where a float holds it exactly; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if number == value else None
