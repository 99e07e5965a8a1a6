"""Rows of a JSON, JSONL or CSV file, each with the line it stands on; a broken row names its place."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rag.errors import BadInput

Row = tuple[int, dict[str, Any]]
"""A 1-based line (in a .json list: the row's number) and the row's keys and values."""


def read_rows(path: Path) -> list[Row]:
    """Return all rows of a file; BadInput names file, line and reason when one cannot be read."""
    if path.is_dir():
        raise BadInput(f"{path} is a folder, expected a .jsonl, .json or .csv file")
    if not path.is_file():
        raise BadInput(f"{path} does not exist")
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        known = ", ".join(_READERS)
        raise BadInput(
            f"{path}: {path.suffix or 'a file without ending'} is not read", f"write it as {known}"
        )
    rows = list(reader(path, _text(path)))
    if not rows:
        raise BadInput(f"{path} holds no rows")
    return rows


def _text(path: Path) -> str:
    data = path.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise BadInput(
            f"{path}:{line}: not UTF-8 (byte {data[error.start]:#04x})", "save it as UTF-8"
        ) from None


def _jsonl(path: Path, text: str) -> Iterator[Row]:
    # Only "\n" ends a line: str.splitlines would also cut at U+2028, which is legal inside JSON strings.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise BadInput(f"{path}:{number}: broken JSON: {error}", "fix or remove the line") from None
        yield number, _object(path, number, row)


def _json(path: Path, text: str) -> Iterator[Row]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise BadInput(f"{path}:{error.lineno}: broken JSON: {error.msg}") from None
    if isinstance(value, dict):
        lists = [v for v in value.values() if isinstance(v, list)]
        if len(lists) != 1:
            raise BadInput(f"{path} is an object, expected a list of rows (or an object that holds one list)")
        value = lists[0]
    if not isinstance(value, list):
        raise BadInput(f"{path} holds a {type(value).__name__}, expected a list of rows")
    for number, row in enumerate(value, start=1):
        yield number, _object(path, number, row)


def _csv(path: Path, text: str) -> Iterator[Row]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        for row in reader:
            if None in row or None in row.values():
                raise BadInput(f"{path}:{reader.line_num}: the row does not have one value per column")
            yield reader.line_num, {k.strip(): v for k, v in row.items()}
    except csv.Error as error:
        raise BadInput(f"{path}:{reader.line_num}: broken CSV: {error}") from None


def _object(path: Path, number: int, row: object) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise BadInput(f"{path}:{number}: a row must be an object, found {type(row).__name__}")
    return row


_READERS = {".jsonl": _jsonl, ".ndjson": _jsonl, ".json": _json, ".csv": _csv}
