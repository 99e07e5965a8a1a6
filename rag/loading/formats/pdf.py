"""PDF through pypdf: the text of each page, with ``page_starts`` in the metadata.

:class:`TextVisibility` finds text that a page draws invisibly: white on the bare page, or smaller than half a
point. Its strings are blanked before pypdf reads them. Text in rendering mode 3 is what text recognition puts
under a scanned page: it is the text of that page, and not hidden.
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
_IDENTITY: _Matrix = (1, 0, 0, 1, 0, 0)
_FILL_OPERATORS = {b"f", b"F", b"f*", b"B", b"B*", b"b", b"b*"}
_PATH_END_OPERATORS = {b"n", b"S", b"s"}
_TEXT_OPERATORS = {b"Tj", b"TJ", b"'", b'"'}
_MIN_POINTS = 0.5
_MAX_BACKGROUNDS = 5_000
_MARGIN_POINTS = 2.0

_INFO_NAMES = {"/Author": "author", "/Subject": "subject", "/Keywords": "tags", "/Title": "title"}


def read(id: str, data: bytes) -> Iterator[Document]:
    """Yield the file as one document; blocks never cross a page."""
    from pypdf.errors import PyPdfError

    logging.getLogger("pypdf").setLevel(logging.CRITICAL)
    try:
        info, pages, hidden = _read_pages(data)
    except (MemoryError, UnreadableFile):
        raise
    except (PyPdfError, Exception) as error:  # the parser fails on broken files with many types of error
        raise UnreadableFile(f"not a readable PDF: {type(error).__name__}: {error}"[:200]) from error
    assembler = DocumentAssembler()
    for page in pages:
        assembler.page()
        for block in paragraphs(page):
            assembler.add("paragraph", block.text)
    if not assembler.blocks:
        raise UnreadableFile(f"no text on its {len(pages)} pages: scanned pages need text recognition first")
    title = str(info.pop("title", ""))
    yield assembler.document(id, title, "pdf", info, hidden)


class TextVisibility:
    """Follows a page's drawing operations and blanks invisible text; its methods are pypdf's visitors."""

    def __init__(self) -> None:
        """Begin with black text on an empty page."""
        self.hidden = 0
        """Characters blanked so far; bytes in fonts whose characters take several."""
        self._white = False
        self._size = 1.0
        self._saved: list[tuple[bool, float]] = []
        """Colour and size at each ``q`` that is still open."""
        self._path: list[tuple[float, float]] = []
        self._backgrounds: list[tuple[float, float, float, float]] = []
        """Left, bottom, right and top of what is painted on the page: white text on it can be seen."""
        self._form_matrices: list[_Matrix] = [_IDENTITY]
        """Of the forms that are being drawn; inside a form pypdf counts from its own origin."""

    def before(self, operator: bytes, operands: Any, cm: Any, tm: Any) -> None:
        """Follow one operation; invisible text loses its characters.

        Args:
            operator: the operator of the PDF content stream.
            operands: its operands, changed in place.
            cm: the current transformation matrix.
            tm: the text matrix.
        """
        if operator in _TEXT_OPERATORS:
            self._show(operands, _multiply(_matrix(cm), self._form_matrices[-1]), _matrix(tm))
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
            self._draw(operator, operands, _multiply(_matrix(cm), self._form_matrices[-1]))

    def after(self, operator: bytes, *_: Any) -> None:
        """Leave a form when ``Do`` has drawn it."""
        if operator == b"Do" and len(self._form_matrices) > 1:
            self._form_matrices.pop()

    def _draw(self, operator: bytes, operands: Any, cm: _Matrix) -> None:
        """Follow the operators that build and fill a path, or draw an image or form."""
        if operator in (b"m", b"l", b"c", b"v", b"y"):
            pairs = [_number(value) for value in operands]
            self._path += [_transform(cm, x, y) for x, y in zip(pairs[::2], pairs[1::2], strict=False)]
        elif operator == b"re" and len(operands) >= 4:
            x, y, width, height = (_number(value) for value in operands[:4])
            self._path += [_transform(cm, x + a * width, y + b * height) for a in (0, 1) for b in (0, 1)]
        elif operator in _FILL_OPERATORS:
            # A white area is no background: white text on it stays invisible.
            self._add_background(self._path if not self._white else [])
            self._path = []
        elif operator in _PATH_END_OPERATORS:
            self._path = []
        elif operator == b"Do":  # an image or a form, which fills the unit square of its own coordinates
            self._add_background([_transform(cm, x, y) for x in (0, 1) for y in (0, 1)])
            self._form_matrices.append(cm)

    def _add_background(self, points: list[tuple[float, float]]) -> None:
        if points and len(self._backgrounds) < _MAX_BACKGROUNDS:
            xs = [x for x, _ in points]
            ys = [y for _, y in points]
            self._backgrounds.append((min(xs), min(ys), max(xs), max(ys)))

    def _show(self, operands: Any, cm: _Matrix, tm: _Matrix) -> None:
        """Blank the operands of a text operator when the text is tiny, or white on the bare page."""
        matrix = _multiply(tm, cm)
        scale = max(abs(value) for value in matrix[:4])
        tiny = abs(self._size) * scale < _MIN_POINTS
        if not tiny and not (self._white and not self._on_background(matrix[4], matrix[5])):
            return
        for at, value in enumerate(operands):
            if isinstance(value, list):
                value[:] = [self._blank(inner) for inner in value]
            else:
                operands[at] = self._blank(value)

    def _on_background(self, x: float, y: float) -> bool:
        return len(self._backgrounds) >= _MAX_BACKGROUNDS or any(
            left - _MARGIN_POINTS <= x <= right + _MARGIN_POINTS
            and low - _MARGIN_POINTS <= y <= high + _MARGIN_POINTS
            for left, low, right, high in self._backgrounds
        )

    def _blank(self, value: Any) -> Any:
        """Return an empty string for a string, anything else as it is, and count its characters."""
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


def _multiply(m: _Matrix, n: _Matrix) -> _Matrix:
    """Return the matrix that applies ``m`` first and ``n`` after it."""
    return (
        m[0] * n[0] + m[1] * n[2],
        m[0] * n[1] + m[1] * n[3],
        m[2] * n[0] + m[3] * n[2],
        m[2] * n[1] + m[3] * n[3],
        m[4] * n[0] + m[5] * n[2] + n[4],
        m[4] * n[1] + m[5] * n[3] + n[5],
    )


def _transform(m: _Matrix, x: float, y: float) -> tuple[float, float]:
    return m[0] * x + m[2] * y + m[4], m[1] * x + m[3] * y + m[5]


def _read_pages(data: bytes) -> tuple[dict[str, Any], list[str], int]:
    """Return the properties, the text of every page, and the characters drawn invisibly."""
    from pypdf import PdfReader

    reader = PdfReader(io.BytesIO(data))
    if reader.is_encrypted and not reader.decrypt(""):
        raise UnreadableFile("encrypted: it needs a password")
    pages = []
    hidden = 0
    for page in reader.pages:
        text, invisible = _page_text(page)
        pages.append(text)
        hidden += invisible
    return _properties(reader), pages, hidden


def _properties(reader: Any) -> dict[str, Any]:
    """Return author, subject, tags, title and dates; empty when they cannot be read."""
    try:
        info: Any = reader.metadata or {}
        values = {
            name: clean_text(str(info[key])).strip() for key, name in _INFO_NAMES.items() if info.get(key)
        }
        dates = {"date": info.creation_date, "updated": info.modification_date} if info else {}
    except Exception:  # broken properties are no reason to skip the pages
        return {}
    return properties({**values, **{name: day for name, day in dates.items() if day}})


def _page_text(page: Any) -> tuple[str, int]:
    """Return a page's text, and how many of its characters are invisible."""
    visibility = TextVisibility()
    text = page.extract_text(visitor_operand_before=visibility.before, visitor_operand_after=visibility.after)
    return clean_text(text), visibility.hidden
