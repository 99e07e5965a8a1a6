"""What a file held when it was last read; of a ``.jsonl`` only the lines that are new are parsed again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from rag.durable import sha256_text
from rag.lines import spans
from rag.load.base import Skipped, Unreadable
from rag.load.decode import decode
from rag.types import Document

Items = list[Document | Skipped]


class Known(NamedTuple):
    """A file as it was read before."""

    sha256: str
    """Hash of its bytes."""
    rows: Mapping[str, tuple[str, str]] = MappingProxyType({})
    """Of a file of rows: the hash of each line that gave a document, to that document's id and content hash."""


def unread(id: str, sha256: str, source: str = "", source_sha256: str = "") -> Document:
    """Return a document that is in the index as it was, known by its hashes only."""
    return Document(id, "", "", (), sha256, "unread", {}, source, source_sha256)


def read_rows(
    data: bytes, known: Mapping[str, tuple[str, str]], parsed: Callable[[bytes], Items]
) -> tuple[Items, list[tuple[str, str]], dict[str, str]]:
    """Return what the new lines hold, id and content hash of what the ``known`` ones hold, and each id's line hash.

    The known lines are emptied, so that the others keep their numbers. What cannot be told apart line by line
    (another encoding, an id or a line that occurs twice) is parsed as a whole, and its lines are not remembered.
    """
    lines = _lines(data)
    hashes = [sha256_text(line) if line else "" for line in lines]
    often = Counter(hashes)
    kept = {n for n, key in enumerate(hashes) if key in known and often[key] == 1}
    new = [n for n, line in enumerate(lines) if line and n not in kept]
    old = [known[hashes[n]] for n in sorted(kept)]
    items: Items = []
    if new and kept:
        items = parsed("\n".join("" if n in kept else line for n, line in enumerate(lines)).encode())
    if not kept or not _each(items, new, {id for id, _ in old}):
        items, old, kept = parsed(data), [], set()
        new = [n for n, line in enumerate(lines) if line]
    if not _each(items, new):
        return items, [], {}
    places = {item.id: hashes[n] for n, item in zip(new, items, strict=True) if isinstance(item, Document)}
    places |= {known[hashes[n]][0]: hashes[n] for n in kept}
    return items, old, places


def _lines(data: bytes) -> list[str]:
    """Return the lines without their ends, blank ones empty; no lines when the text is not plain UTF-8."""
    try:
        raw, said = decode(data)
    except Unreadable:
        return []
    lines = [] if said else [raw[start:end].rstrip("\r\n") for start, end in spans(raw)]
    return [line if line.strip() else "" for line in lines]


def _each(items: Items, lines: Sequence[int], taken: Collection[str] = ()) -> bool:
    """Return whether every line (counted from 0) gave one item, and none a document whose id is taken."""
    return len(items) == len(lines) and all(
        item.id not in taken if isinstance(item, Document) else item.path.endswith(f":{n + 1}")
        for item, n in zip(items, lines, strict=True)
    )
