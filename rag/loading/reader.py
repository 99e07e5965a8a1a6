"""Documents in: every file found is loaded, or skipped with a reason, and nothing is done to it but reading.

One file's bytes to its documents: detect, read, and turn every failure into a reason.

What a file held when it was last read; of a ``.jsonl`` only the lines that are new are parsed again.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from rag.errors import BadInput
from rag.files import sha256_text
from rag.loading.base import Loader, Skipped, UnreadableFile, line_spans, printable
from rag.loading.encoding import decode_bytes
from rag.loading.registry import detect_loader, is_zip, known_suffixes, plugin_for
from rag.loading.sandbox import Limits, Sandbox
from rag.loading.scan import FoundFile, read_file, walk_files
from rag.types import Document


def parse_file(
    id: str, data: bytes, loader: Loader | None = None, most_text: int = 1 << 28
) -> list[Document | Skipped]:
    """Return what a file holds: its documents, its skipped rows, or the one reason why it is skipped.

    Whatever a loader raises becomes a reason, MemoryError excepted. ``most_text`` bounds the characters that
    the file may unpack to.
    """
    found: list[Document | Skipped] = []
    size = 0
    try:
        for item in (loader or detect_loader(id, data)).read(id, data):
            size += len(item.raw) if isinstance(item, Document) else 0
            if size > most_text:
                return [Skipped(id, f"it unpacks to more than {most_text:,} characters of text")]
            found.append(item)
    except UnreadableFile as error:
        return [Skipped(id, printable(str(error)))]
    except MemoryError:
        raise
    except RecursionError:
        return [Skipped(id, "its content is nested too deeply")]
    except Exception as error:  # a file that its loader did not foresee: named, never a traceback
        return [Skipped(id, printable(f"its loader failed: {type(error).__name__}: {error}"[:300]))]
    return found or [Skipped(id, "empty: it holds no text")]


LoadedItems = list[Document | Skipped]


class KnownFile(NamedTuple):
    """A file as it was read before."""

    sha256: str
    """Hash of its bytes."""
    rows: Mapping[str, tuple[str, str]] = MappingProxyType({})
    """Of a file of rows: the hash of each line that gave a document, to that document's id and content hash."""


def unchanged_document(id: str, sha256: str, source: str = "", source_sha256: str = "") -> Document:
    """Return a document that is in the index as it was, known by its hashes only."""
    return Document(id, "", "", (), sha256, "unread", {}, source, source_sha256)


def read_new_rows(
    data: bytes, known: Mapping[str, tuple[str, str]], parsed: Callable[[bytes], LoadedItems]
) -> tuple[LoadedItems, list[tuple[str, str]], dict[str, str]]:
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
    items: LoadedItems = []
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
        raw, said = decode_bytes(data)
    except UnreadableFile:
        return []
    lines = [] if said else [raw[start:end].rstrip("\r\n") for start, end in line_spans(raw)]
    return [line if line.strip() else "" for line in lines]


def _each(items: LoadedItems, lines: Sequence[int], taken: Collection[str] = ()) -> bool:
    """Return whether every line (counted from 0) gave one item, and none a document whose id is taken."""
    return len(items) == len(lines) and all(
        item.id not in taken if isinstance(item, Document) else item.path.endswith(f":{n + 1}")
        for item, n in zip(items, lines, strict=True)
    )


@dataclass(frozen=True, slots=True)
class LoadedDocuments:
    """What a documents path holds; every file or row found is in exactly one of documents and skipped.

    Files whose bytes were already known are in neither, only in ``unchanged``. A row whose line was known is a
    document without text (``known.unread``).
    """

    documents: tuple[Document, ...]
    skipped: tuple[Skipped, ...]
    unchanged: tuple[str, ...] = ()
    """Sources that hold the bytes the caller knew, and were therefore not parsed again."""
    remarks: tuple[str, ...] = field(default=(), compare=False)
    """What else the user should be told: hidden text, guessed encodings, a limit that does not hold here."""
    lines: Mapping[str, Mapping[str, str]] = field(default_factory=dict, compare=False)
    """Of each source of rows: the id of each document to the hash of the line that gave it."""

    @property
    def found(self) -> int:
        """The number of files and rows met; an unchanged file counts as one."""
        return len(self.documents) + len(self.skipped) + len(self.unchanged)


def load_documents(
    path: Path | str,
    limits: Limits | None = None,
    known: Mapping[str, KnownFile] | None = None,
    trusted: Collection[str] = (),
) -> LoadedDocuments:
    """Load a folder of files, one file, or a ``.jsonl`` of document rows, sorted by id.

    ``known`` maps sources to what they held before, which need not be parsed again; ``trusted`` names sources
    that need not even be read. In a folder an unreadable file or row is skipped with its reason; a single file
    that was named on purpose must be readable as a whole. Raises BadInput when the path is missing, when the one
    file or a row of it is broken, or when nothing can be loaded; CannotRun when no worker process can be started.
    """
    path = Path(path)
    require_documents(path)
    with Sandbox(limits) as sandbox:
        reader = _Reader(sandbox, known or {}, trusted)
        items = list(_folder(reader, path) if path.is_dir() else _single(reader, path))
        limited = sandbox.memory_limited
    documents, skipped = _unique(items)
    if not documents and not reader.unchanged:
        raise BadInput(
            f"{path} holds no document that can be loaded: {_why(skipped)}", f"loadable: {known_suffixes()}"
        )
    documents.sort(key=lambda document: document.id)
    skipped.sort(key=lambda item: item.path)
    remarks = tuple(_remarks(documents, limited))
    return LoadedDocuments(
        tuple(documents), tuple(skipped), tuple(sorted(reader.unchanged)), remarks, reader.lines
    )


def require_documents(path: Path) -> None:
    """Raise BadInput when a documents path is missing: worth asking before a model is loaded."""
    if not path.exists():
        raise BadInput(
            f"the documents path {path} does not exist", "give a folder, a file or a .jsonl of documents"
        )


class _Reader:
    """Reads file after file: bytes, hash, then documents, in this process or in the worker."""

    def __init__(self, sandbox: Sandbox, known: Mapping[str, KnownFile], trusted: Collection[str]) -> None:
        self.unchanged: list[str] = []
        self.lines: dict[str, Mapping[str, str]] = {}
        self._sandbox = sandbox
        self._known = known
        self._trusted = frozenset(trusted)

    def read(self, found: FoundFile) -> LoadedItems:
        if found.id in self._trusted:
            self.unchanged.append(found.id)
            return []
        try:
            data = read_file(found.path, self._sandbox.limits.file_bytes)
            sha256 = hashlib.sha256(data).hexdigest()
            before = self._known.get(found.id, KnownFile(""))
            if before.sha256 == sha256:
                self.unchanged.append(found.id)
                return []
            loader = None if is_zip(data) and not plugin_for(found.id) else detect_loader(found.id, data)
        except UnreadableFile as error:
            return [Skipped(found.id, str(error))]
        except OSError as error:
            return [Skipped(found.id, f"cannot be read: {error.strerror}")]
        if loader and loader.media == "row":
            parsed = partial(self._parsed, found.id, loader)
            items, kept, self.lines[found.id] = read_new_rows(data, before.rows, parsed)
        else:
            items, kept = self._parsed(found.id, loader, data), []
        placed: LoadedItems = [
            replace(item, source=found.id, source_sha256=sha256) if isinstance(item, Document) else item
            for item in items
        ]
        return placed + [unchanged_document(*row, found.id, sha256) for row in kept]

    def _parsed(self, id: str, loader: Loader | None, data: bytes) -> LoadedItems:
        if loader is None or loader.apart or len(data) > self._sandbox.limits.apart_from:
            return self._sandbox.parse(id, loader.media if loader else "", data)
        return parse_file(id, data, loader)


def _folder(reader: _Reader, path: Path) -> Iterator[Document | Skipped]:
    for item in walk_files(path):
        yield from [item] if isinstance(item, Skipped) else reader.read(item)


def _single(reader: _Reader, path: Path) -> Iterator[Document | Skipped]:
    found = FoundFile(printable(path.name), Path(os.path.realpath(path)))
    if not found.path.is_file():
        raise BadInput(f"cannot load {path}: not a regular file", "give a folder or a file")
    for item in reader.read(found):
        if isinstance(item, Skipped):
            raise BadInput(
                f"cannot load {path.parent / item.path}: {item.reason}", "mend it, or leave it out"
            )
        yield item


def _why(skipped: list[Skipped]) -> str:
    if not skipped:
        return "it is empty"
    first = f"{skipped[0].path}: {skipped[0].reason}"
    return first if len(skipped) == 1 else f"{first} (and {len(skipped) - 1} more)"


def _unique(items: Iterable[Document | Skipped]) -> tuple[list[Document], list[Skipped]]:
    documents: dict[str, Document] = {}
    skipped: list[Skipped] = []
    for item in items:
        if isinstance(item, Skipped):
            skipped.append(item)
        elif item.id in documents:
            other = documents[item.id].source
            skipped.append(Skipped(item.id, f"{item.source} repeats the id of a document in {other}"))
        else:
            documents[item.id] = item
    return list(documents.values()), skipped


def _remarks(documents: list[Document], limited: bool) -> Iterator[str]:
    hidden = [d for d in documents if isinstance(d.metadata.get("hidden_text"), int)]
    if hidden:
        count = sum(int(d.metadata["hidden_text"]) for d in hidden)
        yield f"{len(hidden)} documents hold hidden text, {count} characters left out: {_named(hidden)}"
    foreign = [d for d in documents if d.metadata.get("encoding") and d.media != "row"]
    if foreign:
        names = ", ".join(sorted({str(d.metadata["encoding"]) for d in foreign}))
        yield f"{len(foreign)} documents are not plain UTF-8 ({names}): {_named(foreign)}"
    attached = sum(len(d.metadata.get("attachments", ())) for d in documents if d.media == "mail")
    if attached:
        yield f"{attached} attachments of e-mail messages were named but not read: save them as files"
    if not limited:
        yield "this system cannot limit the parser's memory; only its time and the files' sizes are limited"


def _named(documents: list[Document]) -> str:
    first = ", ".join(document.id for document in documents[:3])
    return first if len(documents) <= 3 else f"{first}, ..."
