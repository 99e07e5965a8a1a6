"""Tables: CSV and TSV, and XLSX through openpyxl.

The first full row names the columns, every other row is a block "Header: value; Header: value". A sheet of a
workbook is a page.
"""

from __future__ import annotations

import csv
import warnings
from collections.abc import Iterator, Sequence
from datetime import date, datetime, time
from typing import Any

from rag.loading.base import (
    DocumentAssembler,
    UnreadableFile,
    line_spans,
    make_document,
    title_from,
    visible_length,
)
from rag.loading.encoding import decode_bytes
from rag.loading.formats.office import broken_file, checked_archive, core_properties, missing_reader
from rag.types import Block, Document

_DELIMITERS = ",;\t|"

_MAX_CELLS = 5_000_000


def read_csv(id: str, data: bytes) -> Iterator[Document]:
    """Yield the table as one document whose blocks are its rows; positions are those of the raw rows."""
    raw, meta = decode_bytes(data)
    lines = [raw[start:end] for start, end in line_spans(raw)]
    delimiter = "\t" if id.lower().endswith(".tsv") else _delimiter(lines)
    yield make_document(id, title_from(id), raw, _csv_blocks(raw, lines, delimiter), "csv", meta)


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
        assembler = DocumentAssembler()
        hidden = 0
        for sheet in book.worksheets:
            assembler.page()
            hidden += _add_sheet(assembler, sheet)
        properties = core_properties(book.properties)
    except (MemoryError, UnreadableFile):
        raise
    except Exception as error:  # the parser fails on broken files with many types of error
        raise broken_file("XLSX", error) from error
    title = str(properties.pop("title", ""))
    yield assembler.document(id, title, "xlsx", properties, hidden)


def format_row(headers: Sequence[str], cells: Sequence[str]) -> str:
    """Return a row as "Header: value; Header: value"; empty cells are left out, cells without a header are numbered."""
    names = [*headers, *[""] * (len(cells) - len(headers))]
    pairs = [
        (" ".join(name.split()) or f"column {n}", " ".join(cell.split()))
        for n, (name, cell) in enumerate(zip(names, cells, strict=False), 1)
    ]
    return "; ".join(f"{name}: {cell}" for name, cell in pairs if cell)


def broken_quote(record: str, delimiter: str, names: Sequence[str]) -> str:
    """Return where the quotes of a row are broken, with column and text; "" where they are not.

    Args:
        record: the lines of the row.
        delimiter: the delimiter of the table.
        names: the names of its columns.
    """
    column, opened, at = 0, -1, 0
    value_start = True
    while at < len(record):
        char = record[at]
        if opened >= 0 and char == '"':
            after = record[at + 1 : at + 2]
            if after == '"':
                at += 1
            elif after in ("", delimiter, "\r", "\n"):
                opened = -1
            else:
                near = record[max(opened, at - 20) : at + 20]
                return (
                    f"in {_column(names, column)} a quote inside a quoted value is not doubled, near {near!r}"
                )
        elif opened < 0:
            if char == '"' and value_start:
                opened = at
            value_start = char == delimiter
            column += char == delimiter
        at += 1
    if opened < 0:
        return ""
    return f"in {_column(names, column)} the quote is never closed that opens at {record[opened : opened + 40]!r}"


def _column(names: Sequence[str], column: int) -> str:
    name = f" {names[column]!r}" if column < len(names) else ""
    return f"column {column + 1}{name}"


def _delimiter(lines: list[str]) -> str:
    """Return the delimiter that is most frequent in the first full line; of equally frequent ones the first listed."""
    first = next((line for line in lines if line.strip()), "")
    return max(_DELIMITERS, key=lambda mark: (first.count(mark), -_DELIMITERS.index(mark)))


def _csv_blocks(raw: str, lines: list[str], delimiter: str) -> Iterator[Block]:
    """Yield a block for every row below the headers; UnreadableFile when the table is broken."""
    spans = line_spans(raw)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    headers: list[str] = []
    used = 0
    try:
        for cells in reader:
            # Quoted cells may hold newlines, so that a row takes several lines: those from ``first`` up to
            # ``used``.
            first, used = used, reader.line_num
            if not any(cell.strip() for cell in cells):
                continue
            if not headers:
                headers = [cell.strip() for cell in cells]
                continue
            start, end = spans[first][0], spans[used - 1][1]
            end = start + len(raw[start:end].rstrip("\r\n"))
            yield Block("row", format_row(headers, cells), start, end)
    except csv.Error as error:
        place = broken_quote("".join(lines[used : reader.line_num]), delimiter, headers)
        raise UnreadableFile(f"broken table at line {used + 1}: {place or error}") from error


def _add_sheet(assembler: DocumentAssembler, sheet: Any) -> int:
    """Add a sheet's rows, and return how many characters in it are hidden."""
    if sheet.max_row * sheet.max_column > _MAX_CELLS:
        raise UnreadableFile(f"its sheet {sheet.title!r} spans {sheet.max_row} x {sheet.max_column} cells")
    hidden_columns = {name for name, column in sheet.column_dimensions.items() if column.hidden}
    headers: list[str] = []
    hidden = 0
    for row in sheet.iter_rows():
        cells = []
        row_hidden = sheet.sheet_state != "visible" or sheet.row_dimensions[row[0].row].hidden
        for cell in row:
            text = _cell_text(cell.value)
            if row_hidden or getattr(cell, "column_letter", "") in hidden_columns:
                hidden += visible_length(text)
                text = ""
            cells.append(text)
        if not any(cells):
            continue
        if not headers:
            headers = cells
            assembler.add("heading", sheet.title, sheet.title)
        else:
            assembler.add("row", format_row(headers, cells), sheet.title)
    if headers and assembler.blocks[-1].kind == "heading":  # a sheet of one row: it is the content
        assembler.add("row", "; ".join(cell for cell in headers if cell), sheet.title)
    return hidden


def _cell_text(value: Any) -> str:
    """Return a cell's value as text: whole numbers without .0, dates as ISO 8601."""
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.date().isoformat() if value.time() == time() else value.isoformat(" ", "minutes")
    if isinstance(value, (date, time)):
        return value.isoformat()
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return f"{value:.15g}" if isinstance(value, float) else " ".join(str(value).split())
