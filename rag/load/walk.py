"""Documents in: every file found is loaded, or skipped with a reason, and nothing is done to it but reading."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from rag.errors import BadInput
from rag.load.base import Loader, Skipped, Unreadable, printable
from rag.load.detect import detect, is_zip
from rag.load.folder import Found, files, read_file
from rag.load.known import Items, Known, read_rows, unread
from rag.load.limits import Limits
from rag.load.parse import parse
from rag.load.registry import endings, plugin_for
from rag.load.sandbox import Sandbox
from rag.types import Document


@dataclass(frozen=True, slots=True)
class Loaded:
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
    known: Mapping[str, Known] | None = None,
    trusted: Collection[str] = (),
) -> Loaded:
    """Load a folder of files, one file, or a ``.jsonl`` of document rows, sorted by id.

    ``known`` maps sources to what they held before, which need not be parsed again; ``trusted`` names sources
    that need not even be read. In a folder an unreadable file or row is skipped with its reason; a single file
    that was named on purpose must be readable as a whole. Raises BadInput when the path is missing, when the one
    file or a row of it is broken, or when nothing can be loaded; CannotRun when no worker process can be started.
    """
    path = Path(path)
    need(path)
    with Sandbox(limits) as sandbox:
        reader = _Reader(sandbox, known or {}, trusted)
        items = list(_folder(reader, path) if path.is_dir() else _single(reader, path))
        limited = sandbox.memory_limited
    documents, skipped = _unique(items)
    if not documents and not reader.unchanged:
        raise BadInput(
            f"{path} holds no document that can be loaded: {_why(skipped)}", f"loadable: {endings()}"
        )
    documents.sort(key=lambda document: document.id)
    skipped.sort(key=lambda item: item.path)
    remarks = tuple(_remarks(documents, limited))
    return Loaded(tuple(documents), tuple(skipped), tuple(sorted(reader.unchanged)), remarks, reader.lines)


def need(path: Path) -> None:
    """Raise BadInput when a documents path is missing: worth asking before a model is loaded."""
    if not path.exists():
        raise BadInput(
            f"the documents path {path} does not exist", "give a folder, a file or a .jsonl of documents"
        )


class _Reader:
    """Reads file after file: bytes, hash, then documents, in this process or in the worker."""

    def __init__(self, sandbox: Sandbox, known: Mapping[str, Known], trusted: Collection[str]) -> None:
        self.unchanged: list[str] = []
        self.lines: dict[str, Mapping[str, str]] = {}
        self._sandbox = sandbox
        self._known = known
        self._trusted = frozenset(trusted)

    def read(self, found: Found) -> Items:
        if found.id in self._trusted:
            self.unchanged.append(found.id)
            return []
        try:
            data = read_file(found.path, self._sandbox.limits.file_bytes)
            sha256 = hashlib.sha256(data).hexdigest()
            before = self._known.get(found.id, Known(""))
            if before.sha256 == sha256:
                self.unchanged.append(found.id)
                return []
            loader = None if is_zip(data) and not plugin_for(found.id) else detect(found.id, data)
        except Unreadable as error:
            return [Skipped(found.id, str(error))]
        except OSError as error:
            return [Skipped(found.id, f"cannot be read: {error.strerror}")]
        if loader and loader.media == "row":
            parsed = partial(self._parsed, found.id, loader)
            items, kept, self.lines[found.id] = read_rows(data, before.rows, parsed)
        else:
            items, kept = self._parsed(found.id, loader, data), []
        placed: Items = [
            replace(item, source=found.id, source_sha256=sha256) if isinstance(item, Document) else item
            for item in items
        ]
        return placed + [unread(*row, found.id, sha256) for row in kept]

    def _parsed(self, id: str, loader: Loader | None, data: bytes) -> Items:
        if loader is None or loader.apart or len(data) > self._sandbox.limits.apart_from:
            return self._sandbox.parse(id, loader.media if loader else "", data)
        return parse(id, data, loader)


def _folder(reader: _Reader, path: Path) -> Iterator[Document | Skipped]:
    for item in files(path):
        yield from [item] if isinstance(item, Skipped) else reader.read(item)


def _single(reader: _Reader, path: Path) -> Iterator[Document | Skipped]:
    found = Found(printable(path.name), Path(os.path.realpath(path)))
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
