"""Load a documents path: every file is loaded, or skipped with a reason.

:func:`load_documents` is the entry point. :func:`parse_file` turns one file's bytes into documents: it
detects the format, reads, and turns every failure into a reason. :func:`read_new_rows` remembers which lines
of a ``.jsonl`` file were read before, so that only the new ones are parsed.
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
from rag.loading.formats.json import row_ids
from rag.loading.registry import detect_loader, is_zip, known_suffixes, loader_for, plugin_for
from rag.loading.sandbox import Limits, Sandbox
from rag.loading.scan import FoundFile, read_file, walk_files
from rag.text.words import count_noun
from rag.types import Document

LoadedItems = list[Document | Skipped]
UNREADABLE = "unreadable: "
"""Begins the identity of a file whose bytes cannot be read; see :func:`file_identity`."""


class KnownFile(NamedTuple):
    """A file as it was read before."""

    sha256: str
    """Hash of its bytes."""
    rows: Mapping[str, tuple[str, str]] = MappingProxyType({})
    """Of a file of rows: the hash of each line with a document -> id and content hash of that document."""


@dataclass(frozen=True, slots=True)
class LoadedDocuments:
    """What a documents path holds; every file or row is in exactly one of documents and skipped.

    Files whose bytes were already known are in neither, only in ``unchanged``. A row whose line was known is
    a document without text (:func:`unchanged_document`).
    """

    documents: tuple[Document, ...]
    skipped: tuple[Skipped, ...]
    unchanged: tuple[str, ...] = ()
    """Sources that hold the bytes the caller knew, and were therefore not parsed again."""
    remarks: tuple[str, ...] = field(default=(), compare=False)
    """Notes for the user: hidden text, guessed encodings, a limit that this system cannot enforce."""
    lines: Mapping[str, Mapping[str, str]] = field(default_factory=dict, compare=False)
    """By source of rows: id of each document -> hash of its line."""

    @property
    def total(self) -> int:
        """The number of files and rows; an unchanged file counts as one."""
        return len(self.documents) + len(self.skipped) + len(self.unchanged)


def load_documents(
    path: Path | str,
    limits: Limits | None = None,
    known: Mapping[str, KnownFile] | None = None,
    trusted: Collection[str] = (),
) -> LoadedDocuments:
    """Load a folder of files, one file, or a ``.jsonl`` of document rows, sorted by id.

    In a folder an unreadable file or row is skipped with its reason; a single file, which was named on
    purpose, must be readable as a whole.

    Args:
        path: the folder or file.
        limits: limits of parsing one file; None takes the defaults.
        known: what sources held before; those whose bytes are unchanged are not parsed again.
        trusted: sources that are not even read, and count as unchanged.

    Raises:
        BadInput: when the path is missing, when the one file or a row of it is broken, or when nothing can be
            loaded.
        CannotRun: when no worker process can be started.
    """
    path = Path(path)
    require_documents(path)
    with Sandbox(limits) as sandbox:
        reader = _Reader(sandbox, known or {}, trusted)
        items = list(_read_folder(reader, path) if path.is_dir() else _read_single(reader, path))
        run = ReadFiles(items, reader.lines, reader.hashes, sandbox.memory_limited)
    return join_documents(path, items, [run], reader.unchanged)


@dataclass(frozen=True, slots=True)
class ReadFiles:
    """What some files hold, in their order, with what is known of them besides."""

    items: LoadedItems
    lines: Mapping[str, Mapping[str, str]]
    """See :attr:`LoadedDocuments.lines`."""
    hashes: Mapping[str, str]
    """By file id: SHA-256 of the bytes that were parsed, or why they could not be read (:func:`file_identity`)."""
    memory_limited: bool = True
    """Whether the worker's memory was limited."""


def read_files(files: Iterable[FoundFile], limits: Limits | None = None) -> ReadFiles:
    """Read files one after the other, each loaded or skipped with its reason; CannotRun as in :func:`load_documents`."""
    with Sandbox(limits) as sandbox:
        reader = _Reader(sandbox, {}, ())
        items = [item for file in files for item in reader.read(file)]
        return ReadFiles(items, reader.lines, reader.hashes, sandbox.memory_limited)


def join_documents(
    path: Path | str,
    items: Iterable[Document | Skipped],
    runs: Sequence[ReadFiles],
    unchanged: Sequence[str] = (),
) -> LoadedDocuments:
    """Return what a documents path holds, sorted by id; of documents with one id the first stays.

    Args:
        path: for messages.
        items: of all runs, and those that the listing skipped, in the order of the listing.
        runs: what is known of the files besides.
        unchanged: see :attr:`LoadedDocuments.unchanged`.

    Raises:
        BadInput: when nothing could be loaded.
    """
    documents, skipped = _without_repeated_ids(items)
    if not documents and not unchanged:
        raise BadInput(
            f"{path} has no document that can be loaded: {_first_reason(skipped)}",
            f"loadable: {known_suffixes()}",
        )
    documents.sort(key=lambda document: document.id)
    skipped.sort(key=lambda item: item.path)
    remarks = tuple(_remarks(documents, all(run.memory_limited for run in runs)))
    lines = {source: rows for run in runs for source, rows in run.lines.items()}
    return LoadedDocuments(tuple(documents), tuple(skipped), tuple(sorted(unchanged)), remarks, lines)


def list_files(path: Path) -> list[FoundFile | Skipped]:
    """Return what a documents path names, in the order of reading: files, and what is skipped; BadInput as there."""
    require_documents(path)
    return list(walk_files(path)) if path.is_dir() else [_single_file(path)]


def file_identity(file: FoundFile, limits: Limits | None = None) -> str:
    """Return the SHA-256 of a file's bytes; where they cannot be read :data:`UNREADABLE` and the reason."""
    try:
        return hashlib.sha256(read_file(file.path, (limits or Limits()).file_bytes)).hexdigest()
    except (UnreadableFile, OSError) as error:
        return f"{UNREADABLE}{error}"


def require_readable(path: Path, items: Iterable[Document | Skipped]) -> None:
    """Raise BadInput when something of a single file, which was named on purpose, was skipped."""
    for item in items:
        if isinstance(item, Skipped):
            raise BadInput(
                f"cannot load {path.parent / item.path}: {item.reason}", "correct it, or remove it"
            )


def require_documents(path: Path) -> None:
    """Raise BadInput when a documents path is missing; called before a model is loaded, to fail early."""
    if not path.exists():
        raise BadInput(
            f"the documents path {path} does not exist", "give a folder, a file or a .jsonl of documents"
        )


def list_document_ids(path: Path) -> tuple[str, ...]:
    """Return the ids that the documents of a path have, without parsing files: a file's id is its path in the folder.

    Rows of ``.jsonl`` files are read for their ids. Files that turn out to be unreadable when they are parsed are included.

    Raises:
        BadInput: the path is missing or cannot be listed.
    """
    require_documents(path)
    if path.is_dir():
        files = [item for item in walk_files(path) if isinstance(item, FoundFile)]
    else:
        files = [FoundFile(printable(path.name), Path(os.path.realpath(path)))]
    ids: list[str] = []
    for file in files:
        loader = loader_for(file.id)
        ids += row_ids(file.path) if loader is not None and loader.media == "row" else [file.id]
    return tuple(dict.fromkeys(ids))


def parse_file(
    id: str, data: bytes, loader: Loader | None = None, max_text: int = 1 << 28
) -> list[Document | Skipped]:
    """Return what a file holds: its documents, its skipped rows, or the one reason why it is skipped.

    Any error of a loader becomes a reason, except MemoryError.

    Args:
        id: the file's id.
        data: its bytes.
        loader: the loader; None detects it.
        max_text: limit of the characters that the file may unpack to.
    """
    items: list[Document | Skipped] = []
    size = 0
    try:
        for item in (loader or detect_loader(id, data)).read(id, data):
            size += len(item.raw) if isinstance(item, Document) else 0
            if size > max_text:
                return [Skipped(id, f"it unpacks to more than {max_text:,} characters of text")]
            items.append(item)
    except UnreadableFile as error:
        return [Skipped(id, printable(str(error)))]
    except MemoryError:
        raise
    except RecursionError:
        return [Skipped(id, "its content is nested too deeply")]
    except Exception as error:  # a file that its loader did not foresee: named, never a traceback
        return [Skipped(id, printable(f"its loader failed: {type(error).__name__}: {error}"[:300]))]
    return items or [Skipped(id, "empty: it has no text")]


def unchanged_document(id: str, sha256: str, source: str = "", source_sha256: str = "") -> Document:
    """Return a document that is unchanged in the index: it has hashes, but no text."""
    return Document(id, "", "", (), sha256, "unread", {}, source, source_sha256)


def read_new_rows(
    data: bytes, known: Mapping[str, tuple[str, str]], parse: Callable[[bytes], LoadedItems]
) -> tuple[LoadedItems, list[tuple[str, str]], dict[str, str]]:
    """Parse the new lines of a file of rows.

    The known lines are blanked, so that the others keep their numbers. A file whose rows cannot be matched to
    lines (another encoding, an id or a line that occurs twice) is parsed as a whole, and its lines are not
    remembered.

    Args:
        data: the file's bytes.
        known: see ``KnownFile.rows``.
        parse: parses the bytes of a file of rows.

    Returns:
        The items of the new lines; id and content hash of the documents of the known lines; and the hash of
        the line of each document, by the document's id.
    """
    lines = _lines(data)
    hashes = [sha256_text(line) if line else "" for line in lines]
    occurrences = Counter(hashes)
    unchanged = {n for n, key in enumerate(hashes) if key in known and occurrences[key] == 1}
    new = [n for n, line in enumerate(lines) if line and n not in unchanged]
    old = [known[hashes[n]] for n in sorted(unchanged)]
    items: LoadedItems = []
    if new and unchanged:
        items = parse("\n".join("" if n in unchanged else line for n, line in enumerate(lines)).encode())
    if not unchanged or not _one_item_per_line(items, new, {id for id, _ in old}):
        items, old, unchanged = parse(data), [], set()
        new = [n for n, line in enumerate(lines) if line]
    if not _one_item_per_line(items, new):
        return items, [], {}
    line_hashes = {
        item.id: hashes[n] for n, item in zip(new, items, strict=True) if isinstance(item, Document)
    }
    line_hashes |= {known[hashes[n]][0]: hashes[n] for n in unchanged}
    return items, old, line_hashes


def _lines(data: bytes) -> list[str]:
    """Return the lines without their ends, blank ones empty; no lines when the text is not plain UTF-8."""
    try:
        raw, metadata = decode_bytes(data)
    except UnreadableFile:
        return []
    lines = [] if metadata else [raw[start:end].rstrip("\r\n") for start, end in line_spans(raw)]
    return [line if line.strip() else "" for line in lines]


def _one_item_per_line(items: LoadedItems, lines: Sequence[int], used_ids: Collection[str] = ()) -> bool:
    """Return whether every line (counted from 0) gave one item, and none a document whose id is among the used ones."""
    return len(items) == len(lines) and all(
        item.id not in used_ids if isinstance(item, Document) else item.path.endswith(f":{n + 1}")
        for item, n in zip(items, lines, strict=True)
    )


class _Reader:
    """Reads files one after the other: bytes, hash, then documents, in this process or in the worker."""

    def __init__(self, sandbox: Sandbox, known: Mapping[str, KnownFile], trusted: Collection[str]) -> None:
        self.unchanged: list[str] = []
        self.lines: dict[str, Mapping[str, str]] = {}
        self.hashes: dict[str, str] = {}
        self._sandbox = sandbox
        self._known = known
        self._trusted = frozenset(trusted)

    def read(self, file: FoundFile) -> LoadedItems:
        """Return the items of one file; none when it is unchanged, which is then recorded."""
        if file.id in self._trusted:
            self.unchanged.append(file.id)
            return []
        try:
            data = read_file(file.path, self._sandbox.limits.file_bytes)
            self.hashes[file.id] = sha256 = hashlib.sha256(data).hexdigest()
            before = self._known.get(file.id, KnownFile(""))
            if before.sha256 == sha256:
                self.unchanged.append(file.id)
                return []
            # The contents of a zip are listed only in the worker, which detects the format there.
            loader = None if is_zip(data) and not plugin_for(file.id) else detect_loader(file.id, data)
        except UnreadableFile as error:
            self.hashes.setdefault(file.id, f"{UNREADABLE}{error}")
            return [Skipped(file.id, str(error))]
        except OSError as error:
            self.hashes.setdefault(file.id, f"{UNREADABLE}{error}")
            return [Skipped(file.id, f"cannot be read: {error.strerror}")]
        if loader and loader.media == "row":
            parse = partial(self._parse, file.id, loader)
            items, old, self.lines[file.id] = read_new_rows(data, before.rows, parse)
        else:
            items, old = self._parse(file.id, loader, data), []
        with_source: LoadedItems = [
            replace(item, source=file.id, source_sha256=sha256) if isinstance(item, Document) else item
            for item in items
        ]
        return with_source + [unchanged_document(*row, file.id, sha256) for row in old]

    def _parse(self, id: str, loader: Loader | None, data: bytes) -> LoadedItems:
        if loader is None or loader.in_worker or len(data) > self._sandbox.limits.max_in_process_bytes:
            return self._sandbox.parse(id, loader.media if loader else "", data)
        return parse_file(id, data, loader)


def _read_folder(reader: _Reader, path: Path) -> Iterator[Document | Skipped]:
    for item in walk_files(path):
        yield from [item] if isinstance(item, Skipped) else reader.read(item)


def _read_single(reader: _Reader, path: Path) -> Iterator[Document | Skipped]:
    for item in reader.read(_single_file(path)):
        require_readable(path, [item])
        yield item


def _single_file(path: Path) -> FoundFile:
    """Return a documents path that is no folder as a file; BadInput when it is not a regular one."""
    file = FoundFile(printable(path.name), Path(os.path.realpath(path)))
    if not file.path.is_file():
        raise BadInput(f"cannot load {path}: not a regular file", "give a folder or a file")
    return file


def _first_reason(skipped: list[Skipped]) -> str:
    if not skipped:
        return "it is empty"
    first = f"{skipped[0].path}: {skipped[0].reason}"
    return first if len(skipped) == 1 else f"{first} (and {len(skipped) - 1} more)"


def _without_repeated_ids(items: Iterable[Document | Skipped]) -> tuple[list[Document], list[Skipped]]:
    """Return documents and skipped items; of documents with one id the first stays."""
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
    """Yield the notes for the user; ``limited`` says whether the worker's memory is limited."""
    hidden = [document for document in documents if isinstance(document.metadata.get("hidden_text"), int)]
    if hidden:
        count = sum(int(document.metadata["hidden_text"]) for document in hidden)
        yield f"hidden text in {count_noun(len(hidden), 'document')}, {count} characters not indexed: {_first_ids(hidden)}"
    foreign = [
        document for document in documents if document.metadata.get("encoding") and document.media != "row"
    ]
    if foreign:
        names = ", ".join(sorted({str(document.metadata["encoding"]) for document in foreign}))
        yield f"not plain UTF-8 ({names}): {count_noun(len(foreign), 'document')}: {_first_ids(foreign)}"
    attached = sum(
        len(document.metadata.get("attachments", ())) for document in documents if document.media == "mail"
    )
    if attached:
        which = count_noun(attached, "e-mail attachment")
        yield f"named but not read: {which}; save them as files"
    if not limited:
        yield "this system cannot limit the parser's memory; only its time and the files' sizes are limited"


def _first_ids(documents: list[Document]) -> str:
    first = ", ".join(document.id for document in documents[:3])
    return first if len(documents) <= 3 else f"{first}, ..."
