"""XLSX through openpyxl: a sheet is a page, its first full row names the columns, every other row is a block."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from datetime import date, datetime, time
from typing import Any

from rag.load.base import Assembly, Unreadable
from rag.load.office import broken, checked, core, missing
from rag.load.table import shown
from rag.types import Document

_MOST_CELLS = 5_000_000


def read(id: str, data: bytes) -> Iterator[Document]:
    """Yield the workbook as one document; hidden sheets, rows and columns are left out and counted."""
    file = checked(data)
    try:
        import openpyxl
    except ImportError as error:
        raise missing("openpyxl") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            book = openpyxl.load_workbook(file, data_only=True, keep_links=False)
        made, hidden = Assembly(), 0
        for sheet in book.worksheets:
            made.page()
            hidden += _sheet(made, sheet)
        properties = core(book.properties)
    except (MemoryError, Unreadable):
        raise
    except Exception as error:  # a parser of foreign files fails in many ways; each is one reason to skip
        raise broken("XLSX", error) from error
    title = str(properties.pop("title", ""))
    yield made.document(id, title, "xlsx", properties, hidden)


def _sheet(made: Assembly, sheet: Any) -> int:
    """Add a sheet's rows; return how many characters in it are hidden."""
    if sheet.max_row * sheet.max_column > _MOST_CELLS:
        raise Unreadable(f"its sheet {sheet.title!r} spans {sheet.max_row} x {sheet.max_column} cells")
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
            made.add("row", shown(headers, cells), sheet.title)
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
