"""CSV and TSV: the first row names the columns, every other row is a block "Header: value; Header: value"."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence

from rag.lines import spans
from rag.load.base import Unreadable, document, title_from
from rag.load.decode import decode
from rag.types import Block, Document

_DELIMITERS = ",;\t|"


def read(id: str, data: bytes) -> Iterator[Document]:
    """Yield the table as one document whose blocks are its rows; positions are those of the raw rows."""
    raw, meta = decode(data)
    lines = [raw[start:end] for start, end in spans(raw)]
    delimiter = "\t" if id.lower().endswith(".tsv") else _delimiter(lines)
    yield document(id, title_from(id), raw, _rows(raw, lines, delimiter), "csv", meta)


def _delimiter(lines: list[str]) -> str:
    first = next((line for line in lines if line.strip()), "")
    return max(_DELIMITERS, key=lambda mark: (first.count(mark), -_DELIMITERS.index(mark)))


def _rows(raw: str, lines: list[str], delimiter: str) -> Iterator[Block]:
    places = spans(raw)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    headers: list[str] = []
    used = 0
    try:
        for cells in reader:
            first, used = used, reader.line_num
            if not any(cell.strip() for cell in cells):
                continue
            if not headers:
                headers = [cell.strip() for cell in cells]
                continue
            start, end = places[first][0], places[used - 1][1]
            end = start + len(raw[start:end].rstrip("\r\n"))
            yield Block("row", shown(headers, cells), start, end)
    except csv.Error as error:
        raise Unreadable(f"broken table at line {reader.line_num}: {error}") from error


def shown(headers: Sequence[str], cells: Sequence[str]) -> str:
    """Return a row as "Header: value; Header: value"; empty cells are left out, spare ones numbered."""
    names = [*headers, *[""] * (len(cells) - len(headers))]
    pairs = [
        (" ".join(name.split()) or f"column {n}", " ".join(cell.split()))
        for n, (name, cell) in enumerate(zip(names, cells, strict=False), 1)
    ]
    return "; ".join(f"{name}: {cell}" for name, cell in pairs if cell)
