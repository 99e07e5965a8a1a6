"""PDF through pypdf: the text of each page, with ``page_starts`` in the metadata.

Text that a PDF page draws unseen: white on the bare page, or smaller than half a point.

The strings are blanked before pypdf reads them. Text in mode 3 is what text recognition lays under a scanned
page: it is that page's text, not hidden.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from typing import Any

from rag.loading.base import DocumentAssembler, UnreadableFile, clean_text, paragraphs
from rag.loading.metadata import properties
from rag.types import Document

_Matrix = tuple[float, float, float, float, float, float]
_SAME: _Matrix = (1, 0, 0, 1, 0, 0)
_FILLS = {b"f", b"F", b"f*", b"B", b"B*", b"b", b"b*"}
_ENDS = {b"n", b"S", b"s"}
_SHOWS = {b"Tj", b"TJ", b"'", b'"'}
_TINY = 0.5
_MOST_GROUNDS = 5_000
_MARGIN = 2.0


class TextVisibility:
    """Follows a page's drawing operations, as pypdf's visitors before and after each."""

    def __init__(self) -> None:
        """Begin with black ink on an empty page."""
        self.hidden = 0
        """Characters blanked so far; bytes where the font's characters take more."""
        self._white = False
        self._size = 1.0
        self._saved: list[tuple[bool, float]] = []
        self._path: list[tuple[float, float]] = []
        self._grounds: list[tuple[float, float, float, float]] = []
        self._outer: list[_Matrix] = [_SAME]

    def before(self, operator: bytes, operands: Any, cm: Any, tm: Any) -> None:
        """Take one operation; unseen text loses its letters."""
        if operator in _SHOWS:
            self._show(operands, _times(_matrix(cm), self._outer[-1]), _matrix(tm))
        elif operator == b"q":
            self._saved.append((self._white, self._size))
        elif operator == b"Q" and self._saved:
            self._white, self._size = self._saved.pop()
        elif operator in (b"g", b"rg", b"sc", b"scn", b"cs"):
            self._white = bool(operands) and all(_near(value, 1.0) for value in operands)
        elif operator == b"k":
            self._white = bool(operands) and all(_near(value, 0.0) for value in operands)
        elif operator == b"Tf" and len(operands) > 1:
            self._size = _number(operands[1])
        else:
            self._draw(operator, operands, _times(_matrix(cm), self._outer[-1]))

    def after(self, operator: bytes, *_: Any) -> None:
        """Leave a form that ``Do`` drew."""
        if operator == b"Do" and len(self._outer) > 1:
            self._outer.pop()

    def _draw(self, operator: bytes, operands: Any, cm: _Matrix) -> None:
        if operator in (b"m", b"l", b"c", b"v", b"y"):
            pairs = [_number(value) for value in operands]
            self._path += [_at(cm, x, y) for x, y in zip(pairs[::2], pairs[1::2], strict=False)]
        elif operator == b"re" and len(operands) >= 4:
            x, y, wide, high = (_number(value) for value in operands[:4])
            self._path += [_at(cm, x + a * wide, y + b * high) for a in (0, 1) for b in (0, 1)]
        elif operator in _FILLS:
            self._ground(self._path if not self._white else [])
            self._path = []
        elif operator in _ENDS:
            self._path = []
        elif operator == b"Do":
            self._ground([_at(cm, x, y) for x in (0, 1) for y in (0, 1)])
            self._outer.append(cm)

    def _ground(self, points: list[tuple[float, float]]) -> None:
        if points and len(self._grounds) < _MOST_GROUNDS:
            across, along = [x for x, _ in points], [y for _, y in points]
            self._grounds.append((min(across), min(along), max(across), max(along)))

    def _show(self, operands: Any, cm: _Matrix, tm: _Matrix) -> None:
        place = _times(tm, cm)
        scale = max(abs(value) for value in place[:4])
        if abs(self._size) * scale >= _TINY and not (self._white and not self._on_ground(place[4], place[5])):
            return
        for at, value in enumerate(operands):
            if isinstance(value, list):
                value[:] = [self._blank(inner) for inner in value]
            else:
                operands[at] = self._blank(value)

    def _on_ground(self, x: float, y: float) -> bool:
        return len(self._grounds) >= _MOST_GROUNDS or any(
            left - _MARGIN <= x <= right + _MARGIN and low - _MARGIN <= y <= high + _MARGIN
            for left, low, right, high in self._grounds
        )

    def _blank(self, value: Any) -> Any:
        """Return a shown string without its letters, anything else as it is."""
        if not isinstance(value, (str, bytes)):
            return value
        self.hidden += sum(len(part) for part in value.split())
        return type(value)()


def _near(value: Any, target: float) -> bool:
    return isinstance(value, (int, float)) and abs(float(value) - target) < 0.02


def _number(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) and abs(value) < 1e9 else 0.0


def _matrix(values: Any) -> _Matrix:
    a, b, c, d, e, f = (_number(value) for value in values)
    return a, b, c, d, e, f


def _times(m: _Matrix, n: _Matrix) -> _Matrix:
    """Return the matrix that applies ``m`` first and ``n`` after it."""
    return (
        m[0] * n[0] + m[1] * n[2],
        m[0] * n[1] + m[1] * n[3],
        m[2] * n[0] + m[3] * n[2],
        m[2] * n[1] + m[3] * n[3],
        m[4] * n[0] + m[5] * n[2] + n[4],
        m[4] * n[1] + m[5] * n[3] + n[5],
    )


def _at(m: _Matrix, x: float, y: float) -> tuple[float, float]:
    return m[0] * x + m[2] * y + m[4], m[1] * x + m[3] * y + m[5]


_INFO = {"/Author": "author", "/Subject": "subject", "/Keywords": "tags", "/Title": "title"}


def read(id: str, data: bytes) -> Iterator[Document]:
    """Yield the file as one document; blocks never cross a page."""
    from pypdf.errors import PyPdfError

    logging.getLogger("pypdf").setLevel(logging.CRITICAL)
    try:
        info, pages, hidden = _read(data)
    except (MemoryError, UnreadableFile):
        raise
    except (PyPdfError, Exception) as error:  # a PDF parser meets every kind of broken file
        raise UnreadableFile(f"not a readable PDF: {type(error).__name__}: {error}"[:200]) from error
    made = DocumentAssembler()
    for page in pages:
        made.page()
        for block in paragraphs(page):
            made.add("paragraph", block.text)
    if not made.blocks:
        raise UnreadableFile(f"no text on its {len(pages)} pages: scanned pages need text recognition first")
    title = str(info.pop("title", ""))
    yield made.document(id, title, "pdf", info, hidden)


def _read(data: bytes) -> tuple[dict[str, Any], list[str], int]:
    """Return the properties, the text of every page, and the characters drawn invisibly."""
    from pypdf import PdfReader

    reader = PdfReader(io.BytesIO(data))
    if reader.is_encrypted and not reader.decrypt(""):
        raise UnreadableFile("encrypted: it needs a password")
    pages, hidden = [], 0
    for page in reader.pages:
        text, unseen = _page(page)
        pages.append(text)
        hidden += unseen
    return _properties(reader), pages, hidden


def _properties(reader: Any) -> dict[str, Any]:
    try:
        info: Any = reader.metadata or {}
        found = {name: clean_text(str(info[key])).strip() for key, name in _INFO.items() if info.get(key)}
        dates = {"date": info.creation_date, "updated": info.modification_date} if info else {}
    except Exception:  # broken properties are no reason to lose the pages
        return {}
    return properties({**found, **{name: day for name, day in dates.items() if day}})


def _page(page: Any) -> tuple[str, int]:
    """Return a page's text and how many characters on it are drawn unseen."""
    ink = TextVisibility()
    text = page.extract_text(visitor_operand_before=ink.before, visitor_operand_after=ink.after)
    return clean_text(text), ink.hidden
