"""CSV and TSV: the first row names the columns, every other row is a block "Header: value; Header: value".

XLSX through openpyxl: a sheet is a page, its first full row names the columns, every other row is a block.
"""

from __future__ import annotations

import csv
import warnings
from collections.abc import Iterator, Sequence
from datetime import date, datetime, time
from typing import Any

from rag.loading.base import DocumentAssembler, UnreadableFile, line_spans, make_document, title_from
from rag.loading.encoding import decode_bytes
from rag.loading.formats.office import broken_file, checked_archive, core_properties, missing_reader
from rag.types import Block, Document

_DELIMITERS = ",;\t|"


def read_csv(id: str, data: bytes) -> Iterator[Document]:
    """Yield the table as one document whose blocks are its rows; positions are those of the raw rows."""
    raw, meta = decode_bytes(data)
    lines = [raw[start:end] for start, end in line_spans(raw)]
    delimiter = "\t" if id.lower().endswith(".tsv") else _delimiter(lines)
    yield make_document(id, title_from(id), raw, _rows(raw, lines, delimiter), "csv", meta)


def _delimiter(lines: list[str]) -> str:
    first = next((line for line in lines if line.strip()), "")
    return max(_DELIMITERS, key=lambda mark: (first.count(mark), -_DELIMITERS.index(mark)))


def _rows(raw: str, lines: list[str], delimiter: str) -> Iterator[Block]:
    places = line_spans(raw)
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
            yield Block("row", format_row(headers, cells), start, end)
    except csv.Error as error:
        raise UnreadableFile(f"broken table at line {reader.line_num}: {error}") from error


def format_row(headers: Sequence[str], cells: Sequence[str]) -> str:
    """Return a row as "Header: value; Header: value"; empty cells are left out, spare ones numbered."""
    names = [*headers, *[""] * (len(cells) - len(headers))]
    pairs = [
        (" ".join(name.split()) or f"column {n}", " ".join(cell.split()))
        for n, (name, cell) in enumerate(zip(names, cells, strict=False), 1)
    ]
    return "; ".join(f"{name}: {cell}" for name, cell in pairs if cell)


_MOST_CELLS = 5_000_000


def read_xlsx(id: str, data: bytes) -> Iterator[Document]:
    """Yield the workbook as one document; hidden sheets, rows and columns are left out and counted."""
    file = checked_archive(data)
    try:
        import openpyxl
    except ImportError as error:
        raise missing_reader("openpyxl") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            book = openpyxl.load_workbook(file, data_only=True, keep_links=False)
        made, hidden = DocumentAssembler(), 0
        for sheet in book.worksheets:
            made.page()
            hidden += _sheet(made, sheet)
        properties = core_properties(book.properties)
    except (MemoryError, UnreadableFile):
        raise
    except Exception as error:  # a parser of foreign files fails in many ways; each is one reason to skip
        raise broken_file("XLSX", error) from error
    title = str(properties.pop("title", ""))
    yield made.document(id, title, "xlsx", properties, hidden)


def _sheet(made: DocumentAssembler, sheet: Any) -> int:
    """Add a sheet's rows; return how many characters in it are hidden."""
    if sheet.max_row * sheet.max_column > _MOST_CELLS:
        raise UnreadableFile(f"its sheet {sheet.title!r} spans {sheet.max_row} x {sheet.max_column} cells")
    unseen = {name for name, column in sheet.column_dimensions.items() if column.hidden}
    headers: list[str] = []
    hidden = 0
    for row in sheet.iter_rows():
        cells = []
        gone = sheet.sheet_state != "visible" or sheet.row_dimensions[row[0].row].hidden
        for cell in row:
            text = _written(cell.value)
            if gone or getattr(cell, "column_letter", "") in unseen:
                hidden += sum(not char.isspace() for char in text)
                text = ""
            cells.append(text)
        if not any(cells):
            continue
        if not headers:
            headers = cells
            made.add("heading", sheet.title, sheet.title)
        else:
            made.add("row", format_row(headers, cells), sheet.title)
    if headers and made.blocks[-1].kind == "heading":
        made.add("row", "; ".join(cell for cell in headers if cell), sheet.title)
    return hidden


def _written(value: Any) -> str:
    """Return a cell as a person would read it: whole numbers without .0, dates as ISO 8601."""
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.date().isoformat() if value.time() == time() else value.isoformat(" ", "minutes")
    if isinstance(value, (date, time)):
        return value.isoformat()
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return f"{value:.15g}" if isinstance(value, float) else " ".join(str(value).split())
