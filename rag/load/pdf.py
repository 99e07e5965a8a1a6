"""PDF through pypdf: the text of each page, with ``page_starts`` in the metadata."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from typing import Any

from rag.load.base import Assembly, Unreadable, clean, paragraphs
from rag.load.ink import Ink
from rag.load.matter import properties
from rag.types import Document

_INFO = {"/Author": "author", "/Subject": "subject", "/Keywords": "tags", "/Title": "title"}


def read(id: str, data: bytes) -> Iterator[Document]:
    """Yield the file as one document; blocks never cross a page."""
    from pypdf.errors import PyPdfError

    logging.getLogger("pypdf").setLevel(logging.CRITICAL)
    try:
        info, pages, hidden = _read(data)
    except (MemoryError, Unreadable):
        raise
    except (PyPdfError, Exception) as error:  # a PDF parser meets every kind of broken file
        raise Unreadable(f"not a readable PDF: {type(error).__name__}: {error}"[:200]) from error
    made = Assembly()
    for page in pages:
        made.page()
        for block in paragraphs(page):
            made.add("paragraph", block.text)
    if not made.blocks:
        raise Unreadable(f"no text on its {len(pages)} pages: scanned pages need text recognition first")
    title = str(info.pop("title", ""))
    yield made.document(id, title, "pdf", info, hidden)


def _read(data: bytes) -> tuple[dict[str, Any], list[str], int]:
    """Return the properties, the text of every page, and the characters drawn invisibly."""
    from pypdf import PdfReader

    reader = PdfReader(io.BytesIO(data))
    if reader.is_encrypted and not reader.decrypt(""):
        raise Unreadable("encrypted: it needs a password")
    pages, hidden = [], 0
    for page in reader.pages:
        text, unseen = _page(page)
        pages.append(text)
        hidden += unseen
    return _properties(reader), pages, hidden


def _properties(reader: Any) -> dict[str, Any]:
    try:
        info: Any = reader.metadata or {}
        found = {name: clean(str(info[key])).strip() for key, name in _INFO.items() if info.get(key)}
        dates = {"date": info.creation_date, "updated": info.modification_date} if info else {}
    except Exception:  # broken properties are no reason to lose the pages
        return {}
    return properties({**found, **{name: day for name, day in dates.items() if day}})


def _page(page: Any) -> tuple[str, int]:
    """Return a page's text and how many characters on it are drawn unseen."""
    ink = Ink()
    text = page.extract_text(visitor_operand_before=ink.before, visitor_operand_after=ink.after)
    return clean(text), ink.hidden
