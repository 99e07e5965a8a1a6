"""What the three Office formats share: a zip that is looked through before any parser opens it."""

from __future__ import annotations

import io
import zipfile
import zlib
from datetime import UTC, datetime
from typing import Any

from rag.loading.base import UnreadableFile
from rag.loading.metadata import properties

_PARTS = {"word/": "docx", "ppt/": "pptx", "xl/": "xlsx"}
_MOST_PARTS = 20_000
_LARGEST = 256 << 20
_STEEPEST = 500
"""Times a part may be larger than its compressed form; Office files reach about 100, bombs 1,000."""
INSTALL = "pip install 'tunewise[office]'"


def office_kind(data: bytes) -> str:
    """Return docx, pptx or xlsx for the bytes of a zip, empty for another zip; Unreadable when it is broken."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError, OverflowError) as error:
        raise UnreadableFile(f"a broken zip archive or Office file: {error}"[:200]) from error
    if "[Content_Types].xml" not in names:
        return ""
    return next((media for part, media in _PARTS.items() if any(n.startswith(part) for n in names)), "")


def checked_archive(data: bytes) -> io.BytesIO:
    """Return the archive as a file after refusing bombs: too much inside, or XML with a document type."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            parts = archive.infolist()
            size = sum(part.file_size for part in parts)
            steep = any(p.file_size > 1 << 20 and p.file_size > _STEEPEST * p.compress_size for p in parts)
            if size > _LARGEST or len(parts) > _MOST_PARTS or steep:
                raise UnreadableFile(
                    f"a zip bomb or close to one: {len(parts)} parts unpack to {size >> 20} MiB"
                )
            for part in parts:
                if part.filename.endswith((".xml", ".rels")):
                    _no_document_type(archive, part)
    except (
        zipfile.BadZipFile,
        ValueError,
        NotImplementedError,
        OSError,
        EOFError,
        RuntimeError,
        zlib.error,
    ) as error:
        raise UnreadableFile(f"a broken Office file: {error}"[:200]) from error
    return io.BytesIO(data)


def _no_document_type(archive: zipfile.ZipFile, part: zipfile.ZipInfo) -> None:
    """Refuse a DOCTYPE, which Office never writes: entities that expand without end begin there."""
    with archive.open(part) as file:
        head = file.read(4096).replace(b"\0", b"").upper()
    if b"<!DOCTYPE" in head or b"<!ENTITY" in head:
        raise UnreadableFile(f"{part.filename} declares XML entities, which no Office program writes")


def missing_reader(name: str) -> UnreadableFile:
    """Return the refusal of a file whose reader is not installed."""
    return UnreadableFile(f"reading it needs {name}: {INSTALL}")


def broken_file(what: str, error: Exception) -> UnreadableFile:
    """Return the refusal of a file that its reader could not understand."""
    return UnreadableFile(f"not a readable {what} file: {type(error).__name__}: {error}"[:200])


def core_properties(props: Any) -> dict[str, Any]:
    """Return an Office file's core properties: title, author, date, updated, tags."""
    names = {
        "title": "title",
        "author": "author",
        "creator": "author",
        "subject": "subject",
        "created": "date",
        "modified": "updated",
        "keywords": "tags",
        "category": "category",
        "language": "language",
    }
    found: dict[str, Any] = {}
    for attribute, name in names.items():
        try:
            value = getattr(props, attribute, None)
        except (ValueError, TypeError, KeyError):  # a property that is not what its name says
            continue
        if isinstance(value, datetime) and value.tzinfo is None:
            value = value.replace(tzinfo=UTC)  # Office keeps these moments in UTC and does not say so
        if value and value not in ("openpyxl", "python-docx", "PowerPoint Presentation"):
            found.setdefault(name, value)
    return properties(found)


def heading_path(path: list[tuple[int, str]], level: int, text: str) -> list[tuple[int, str]]:
    """Return the heading path after a heading of some level."""
    return [(depth, name) for depth, name in path if depth < level] + [(level, text)]
