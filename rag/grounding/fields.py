"""The fields of a structured reply: lines of ``KEY: value``, JSON, tables and lists, each value to be supported by itself.

A card or a table is no sentence: its keys are words of a schema that no passage contains, and one value that was derived
(a priority, a yes) says nothing against the others. :func:`structured_fields` takes such a reply apart.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

MIN_FIELD_LINES = 2
"""Fewer lines of ``KEY: value`` are prose: "Note: the office is closed"."""
MIN_FIELD_SHARE = 0.6
"""Share of a reply's lines that must have the form of a field or list item."""
MAX_CELL_WORDS = 6
"""Mean words of a cell up to which lines with equally many commas are a table and not sentences."""
_FENCE = re.compile(r"\A\s*```[\w-]*\n(.*?)\n?```\s*\Z", re.S)
_BULLET = re.compile(r"^\s*(?:[-*+•–]|\d+[.)])\s+")
_KEY_VALUE = re.compile(r"^\s*(?P<key>[^\W_][^:=：|?!.;]{0,39}?)\s*[:=：]\s*(?P<value>\S.*)$")
_EMPHASIS = re.compile(r"\*\*|__|`")
_ELEMENT = re.compile(r"<([A-Za-z][\w.-]*)(?:\s[^<>]*)?>([^<>]+)</\1>")
_RULE = re.compile(r"^[\s|:+-]+$")


@dataclass(frozen=True, slots=True)
class Field:
    """One value of a structured reply."""

    key: str
    """The name before it, or the heading of its column; "" for an item of a list."""
    value: str


def structured_fields(reply: str) -> tuple[Field, ...]:
    """Return the fields of a structured reply in their order; () for prose, and for a single value."""
    fenced = _FENCE.match(reply)
    text = fenced[1] if fenced else reply
    for read in (_of_json, _of_elements, _of_table, _of_lines, _of_delimited, _of_list):
        if fields := tuple(Field(key.strip(), value) for key, raw in read(text) if (value := _plain(raw))):
            return fields
    return ()


def _plain(value: str) -> str:
    """Return a value without marks of emphasis and code."""
    return _EMPHASIS.sub("", value).strip()


def _of_json(text: str) -> Iterator[tuple[str, str]]:
    if text.lstrip()[:1] in ("{", "["):
        try:
            yield from _leaves("", json.loads(text))
        except (ValueError, RecursionError):
            return


def _leaves(key: str, value: Any) -> Iterator[tuple[str, str]]:
    """Yield the texts and numbers of a JSON value with the key nearest above each."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _leaves(str(name), inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _leaves(key, inner)
    elif isinstance(value, str | int | float) and not isinstance(value, bool):
        yield key, str(value)


def _of_elements(text: str) -> Iterator[tuple[str, str]]:
    elements = _ELEMENT.findall(text)
    if len(elements) >= MIN_FIELD_LINES:
        yield from elements


def _of_table(text: str) -> Iterator[tuple[str, str]]:
    """Yield the cells of a Markdown table under their headings."""
    lines = [line.strip() for line in text.splitlines() if line.strip().startswith("|")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if not _RULE.match(line)]
    if len(rows) >= MIN_FIELD_LINES:
        yield from _cells(rows)


def _cells(rows: list[list[str]]) -> Iterator[tuple[str, str]]:
    """Yield the cells below the first row, which holds the headings."""
    for row in rows[1:]:
        yield from zip(rows[0], row, strict=False)


def _of_lines(text: str) -> Iterator[tuple[str, str]]:
    """Yield lines of ``KEY: value``; other lines among them are values without a key."""
    lines = [_EMPHASIS.sub("", _BULLET.sub("", line)) for line in text.splitlines() if line.strip()]
    matches = [_KEY_VALUE.match(line) for line in lines]
    count = sum(match is not None for match in matches)
    if count >= MIN_FIELD_LINES and count >= MIN_FIELD_SHARE * len(lines):
        for line, match in zip(lines, matches, strict=True):
            yield (match["key"], match["value"]) if match else ("", line)


def _of_delimited(text: str) -> Iterator[tuple[str, str]]:
    """Yield the cells of CSV or TSV; lines with equally many delimiters and short cells."""
    lines = [line for line in text.splitlines() if line.strip()]
    for delimiter in ("\t", ";", ","):
        try:
            rows = list(csv.reader(io.StringIO("\n".join(lines)), delimiter=delimiter))
        except csv.Error:  # a quotation mark that is not closed for 131,072 characters
            continue
        widths = {len(row) for row in rows}
        cells = [cell for row in rows for cell in row]
        sentences = any(line.rstrip().endswith((".", "!", "?")) for line in lines)
        if len(rows) < MIN_FIELD_LINES or len(widths) != 1 or widths == {1} or sentences:
            continue
        if sum(len(cell.split()) for cell in cells) <= MAX_CELL_WORDS * len(cells):
            yield from _cells(rows)
            return


def _of_list(text: str) -> Iterator[tuple[str, str]]:
    """Yield the items of a list of bullets or numbers."""
    lines = [line for line in text.splitlines() if line.strip()]
    items = [line for line in lines if _BULLET.match(line)]
    if len(items) >= MIN_FIELD_LINES and len(items) >= MIN_FIELD_SHARE * len(lines):
        yield from (("", _BULLET.sub("", item)) for item in items)
