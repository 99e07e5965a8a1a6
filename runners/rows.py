"""Rows of a JSON, JSON lines, CSV, TSV or Parquet file, each with its place; a broken row names it."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from rag.errors import BadInput
from runners import parquet
from runners.encodings import encoding_of, read_text, text_lines

Row = tuple[int, dict[str, Any]]
"""A 1-based line (in a .json list or Parquet: the row's number) and the row's keys and values."""

DELIMITERS = ",;\t|"
MOST_FIELD = 2**31 - 1
"""Longest CSV field; the library's own limit of 131,072 characters is too short for documents."""


def read_rows(path: Path, most: int | None = None) -> list[Row]:
    """Return the rows of a file, at most ``most``; BadInput names file, line and reason when one is broken."""
    if path.is_dir():
        raise BadInput(f"{path} is a folder, expected a .jsonl, .json, .csv, .tsv or .parquet file")
    if not path.is_file():
        raise BadInput(f"{path} does not exist")
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        known = ", ".join(READERS)
        raise BadInput(
            f"{path}: {path.suffix or 'a file without ending'} is not read", f"write it as {known}"
        )
    rows = list(islice(reader(path), most))
    if not rows:
        raise BadInput(f"{path} holds no rows")
    return rows


def count_rows(path: Path) -> int:
    """Count a file's rows without keeping them; broken ones are counted, or end the count, not refused."""
    kind = path.suffix.lower()
    if kind == ".parquet":
        return parquet.count(path)
    if kind in (".jsonl", ".ndjson"):
        return sum(bool(line.strip()) for line in text_lines(path))
    return sum(1 for _ in READERS[kind](path))


def remarks(path: Path) -> tuple[str, ...]:
    """Say what was detected about a file beyond its ending: its encoding, and what parts its columns."""
    kind = path.suffix.lower()
    if kind == ".parquet":
        unread = parquet.unread(path)
        return (f"columns left unread (bytes or vectors): {', '.join(unread)}",) if unread else ()
    said = []
    if (encoding := encoding_of(path)) in ("utf-16", "utf-32"):
        said.append(f"read as {encoding.upper()}, as its byte order mark says")
    if kind == ".csv" and (parted := delimiter(path)) != ",":
        said.append(f"columns are parted by {'a tab' if parted == chr(9) else repr(parted)}")
    return tuple(said)


def delimiter(path: Path) -> str:
    """Return what parts the columns of a table: of ``, ; tab |`` the one that parts its header into most."""
    if path.suffix.lower() == ".tsv":
        return "\t"
    header = next(text_lines(path), "")
    return max(DELIMITERS, key=lambda mark: len(next(csv.reader([header], delimiter=mark), [])))


def _jsonl(path: Path) -> Iterator[Row]:
    for number, line in enumerate(text_lines(path), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise BadInput(f"{path}:{number}: broken JSON: {_why(error)}", "fix or remove the line") from None
        yield number, _object(path, number, row)


def _json(path: Path) -> Iterator[Row]:
    try:
        value = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        if error.msg == "Extra data" and error.lineno > 1:  # JSON lines under the name .json
            yield from _jsonl(path)
            return
        raise BadInput(f"{path}:{error.lineno}: broken JSON: {error.msg}") from None
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path}: broken JSON: {_why(error)}") from None
    if isinstance(value, dict):
        lists = {k: v for k, v in value.items() if isinstance(v, list)}
        if len(lists) != 1:
            found = f"lists under {', '.join(lists)}" if lists else "no list in it"
            raise BadInput(
                f"{path} is an object with {found}, expected a list of rows (or an object that holds one list)",
                "write the rows as one list, or as JSON lines",
            )
        (value,) = lists.values()
    if not isinstance(value, list):
        raise BadInput(f"{path} holds {_kind(value)}, expected a list of rows")
    for number, row in enumerate(value, start=1):
        yield number, _object(path, number, row)


def _table(path: Path) -> Iterator[Row]:
    csv.field_size_limit(MOST_FIELD)
    reader = csv.reader(text_lines(path), delimiter=delimiter(path), strict=True)
    try:
        names = [name.strip() for name in next(reader, [])]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise BadInput(f"{path}:1: the column {twice[0]!r} occurs twice", "rename one of them")
        start = reader.line_num + 1
        for values in reader:
            if values and len(values) != len(names):
                raise BadInput(
                    f"{path}:{start}: the row does not have one value per column "
                    f"({len(values)} values, {len(names)} columns)"
                )
            if values:
                yield start, dict(zip(names, values, strict=True))
            start = reader.line_num + 1
    except csv.Error as error:
        raise BadInput(f"{path}:{reader.line_num}: broken CSV: {error}") from None


def _object(path: Path, number: int, row: object) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise BadInput(f"{path}:{number}: a row must be an object, found {_kind(row)}")
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except (UnicodeEncodeError, RecursionError) as error:
        raise BadInput(f"{path}:{number}: {_why(error)}", "fix or remove the row") from None
    return row


def _why(error: Exception) -> str:
    """Return what is wrong with a row; its place in the file is told beside it."""
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at character {error.pos + 1}"
    if isinstance(error, UnicodeEncodeError):
        return "it holds half a surrogate pair, which is no character"
    return "it is nested too deeply" if isinstance(error, RecursionError) else str(error)


def _kind(value: object) -> str:
    """Return what JSON calls a value that is no object."""
    names = {list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


READERS = {
    ".jsonl": _jsonl, ".ndjson": _jsonl, ".json": _json, ".csv": _table, ".tsv": _table,
    ".parquet": parquet.rows,
}  # fmt: skip
"""How each ending is read."""
