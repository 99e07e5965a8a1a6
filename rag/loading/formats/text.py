"""Plain text: paragraphs between blank lines."""

from __future__ import annotations

from collections.abc import Iterator

from rag.loading.base import make_document, paragraphs, title_from
from rag.loading.encoding import decode_bytes
from rag.loading.metadata import front_matter
from rag.types import Document


def read(id: str, data: bytes) -> Iterator[Document]:
    """Yield the file as one document titled by its front matter or its name."""
    raw, meta = decode_bytes(data)
    fields, begin = front_matter(raw)
    title = str(fields.pop("title", "") or title_from(id))
    yield make_document(id, title, raw, paragraphs(raw, begin), "text", {**fields, **meta})
