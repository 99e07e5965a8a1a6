"""PDF through pypdf: the text of each page, with ``page_starts`` in the metadata."""

from __future__ import annotations

import io
from collections.abc import Iterator

from rag.load.base import Unreadable, document, paragraphs, title_from
from rag.types import Block, Document

_BETWEEN = "\n\n"


def read(id: str, data: bytes) -> Iterator[Document]:
    """Yield the file as one document; blocks never cross a page."""
    title, pages = _pages(data)
    starts: list[int] = []
    blocks: list[Block] = []
    raw = ""
    for page in pages:
        starts.append(len(raw))
        raw += page + _BETWEEN
        blocks.extend(paragraphs(raw, starts[-1]))
    if not blocks:
        raise Unreadable(f"no text on its {len(pages)} pages: scanned pages need text recognition first")
    yield document(id, title or title_from(id), raw, blocks, "pdf", {"page_starts": starts})


def _pages(data: bytes) -> tuple[str, list[str]]:
    from pypdf import PdfReader

    try:
        reader = PdfReader(io.BytesIO(data))
        if reader.is_encrypted and not reader.decrypt(""):
            raise Unreadable("encrypted: it needs a password")
        title = str((reader.metadata and reader.metadata.title) or "").strip()
        return title, [_clean(page.extract_text()) for page in reader.pages]
    except Unreadable:
        raise
    except (
        Exception
    ) as error:  # a PDF parser meets every kind of broken file; any failure is one reason to skip
        raise Unreadable(f"not a readable PDF: {type(error).__name__}: {error}"[:200]) from error


def _clean(text: str) -> str:
    return text.replace("\0", "").encode("utf-8", "replace").decode("utf-8")
