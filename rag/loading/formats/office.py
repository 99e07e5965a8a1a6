"""What the three Office formats share: their zip archive is checked before a parser opens it.

A converter to Markdown (markitdown) does not serve: citations would name lines of its Markdown in place of the heading,
slide or row of the document.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from datetime import UTC, datetime
from typing import Any

from rag.errors import install_hint
from rag.loading.base import UnreadableFile
from rag.loading.metadata import properties

_MEDIA_BY_FOLDER = {"word/": "docx", "ppt/": "pptx", "xl/": "xlsx"}
_MAX_PARTS = 20_000
_MAX_UNPACKED_BYTES = 256 << 20
_MAX_COMPRESSION = 500
"""How many times larger than its compressed form a part may be; Office files reach about 100, zip bombs 1,000."""


def office_kind(data: bytes) -> str:
    """Return docx, pptx or xlsx for the bytes of a zip, empty for another zip; UnreadableFile when it is broken."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError, OverflowError) as error:
        raise UnreadableFile(f"a broken zip archive or Office file: {error}"[:200]) from error
    if "[Content_Types].xml" not in names:
        return ""
    return next(
        (
            media
            for folder, media in _MEDIA_BY_FOLDER.items()
            if any(name.startswith(folder) for name in names)
        ),
        "",
    )


def checked_archive(data: bytes) -> io.BytesIO:
    """Return the archive as a file object.

    Raises:
        UnreadableFile: for a zip bomb (too many or too large parts), XML with a document type, or a broken
            archive.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            parts = archive.infolist()
            size = sum(part.file_size for part in parts)
            suspicious = any(
                part.file_size > 1 << 20 and part.file_size > _MAX_COMPRESSION * part.compress_size
                for part in parts
            )
            if size > _MAX_UNPACKED_BYTES or len(parts) > _MAX_PARTS or suspicious:
                raise UnreadableFile(
                    f"a zip bomb or close to one: {len(parts)} parts unpack to {size >> 20} MiB"
                )
            for part in parts:
                if part.filename.endswith((".xml", ".rels")):
                    _refuse_document_type(archive, part)
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


def _refuse_document_type(archive: zipfile.ZipFile, part: zipfile.ZipInfo) -> None:
    """Raise UnreadableFile for a DOCTYPE: Office writes none, and entities that expand without limit begin there."""
    with archive.open(part) as file:
        head = file.read(4096).replace(b"\0", b"").upper()
    if b"<!DOCTYPE" in head or b"<!ENTITY" in head:
        raise UnreadableFile(f"{part.filename} declares XML entities, which no Office program writes")


def missing_reader(name: str) -> UnreadableFile:
    """Return the error for a file whose parser is not installed."""
    return UnreadableFile(f"reading it needs {name}: {install_hint('office')}")


def broken_file(format: str, error: Exception) -> UnreadableFile:
    """Return the error for a file that its parser could not read."""
    return UnreadableFile(f"not a readable {format} file: {type(error).__name__}: {error}"[:200])


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
    values: dict[str, Any] = {}
    for attribute, name in names.items():
        try:
            value = getattr(props, attribute, None)
        except (ValueError, TypeError, KeyError):  # a property of an invalid type or value
            continue
        if isinstance(value, datetime) and value.tzinfo is None:
            value = value.replace(tzinfo=UTC)  # Office stores these times in UTC without saying so
        if value and value not in ("openpyxl", "python-docx", "PowerPoint Presentation"):
            values.setdefault(name, value)
    return properties(values)


def heading_path(path: list[tuple[int, str]], level: int, text: str) -> list[tuple[int, str]]:
    """Return the path of headings, as (level, text), after a new heading of a level."""
    return [(depth, name) for depth, name in path if depth < level] + [(level, text)]
