"""Plain text: paragraphs between blank lines."""

from __future__ import annotations

from collections.abc import Iterator

from rag.load.base import decode, document, paragraphs, title_from
from rag.types import Document


def read(id: str, data: bytes) -> Iterator[Document]:
    """Yield the file as one document titled by its name."""
    raw = decode(data)
    yield document(id, title_from(id), raw, paragraphs(raw), "text")
