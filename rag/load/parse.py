"""One file's bytes to its documents: detect, read, and turn every failure into a reason."""

from __future__ import annotations

from rag.load.base import Loader, Skipped, Unreadable, printable
from rag.load.detect import detect
from rag.types import Document


def parse(
    id: str, data: bytes, loader: Loader | None = None, most_text: int = 1 << 28
) -> list[Document | Skipped]:
    """Return what a file holds: its documents, its skipped rows, or the one reason why it is skipped.

    Whatever a loader raises becomes a reason, MemoryError excepted. ``most_text`` bounds the characters that
    the file may unpack to.
    """
    found: list[Document | Skipped] = []
    size = 0
    try:
        for item in (loader or detect(id, data)).read(id, data):
            size += len(item.raw) if isinstance(item, Document) else 0
            if size > most_text:
                return [Skipped(id, f"it unpacks to more than {most_text:,} characters of text")]
            found.append(item)
    except Unreadable as error:
        return [Skipped(id, printable(str(error)))]
    except MemoryError:
        raise
    except RecursionError:
        return [Skipped(id, "its content is nested too deeply")]
    except Exception as error:  # a file that its loader did not foresee: named, never a traceback
        return [Skipped(id, printable(f"its loader failed: {type(error).__name__}: {error}"[:300]))]
    return found or [Skipped(id, "empty: it holds no text")]
