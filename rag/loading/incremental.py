"""What each file held when it was last read, so that an unchanged file is not parsed again.

:class:`ScanState` loads a documents folder and writes ``sources.json`` next to the generations. The file only
saves work: a file is left unparsed only when its bytes have the recorded hash and all its documents are in
the index as they were. Size and modification time are trusted in place of the bytes only when that is asked
for.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from rag.errors import Problem
from rag.files import canonical_json, sha256_text, write_text
from rag.loading.base import CUT_VERSION, Skipped
from rag.loading.reader import KnownFile, LoadedDocuments, load_documents, unchanged_document
from rag.loading.scan import FoundFile, walk_files

SCAN_STATE_FILE = "sources.json"
_VERSION = 2
_ROOT = "documents_path"
"""Key of the documents path, absolute, in the scan state."""


class ScannedFile(NamedTuple):
    """One file as it was read."""

    sha256: str
    status: list[int]
    """Size and modification time in nanoseconds; empty where they were not read."""
    documents: list[list[str]]
    """Id and content hash of each of its documents, and the hash of its line where it was a row."""
    skipped: list[list[str]]
    """Path and reason of each of its rows that was skipped."""


class ScanState:
    """The files behind an index: as they were when last read, and as they are now."""

    def __init__(
        self, known: Mapping[str, ScannedFile], documents: Mapping[str, str], trust_mtime: bool
    ) -> None:
        """Compare what was read before with what the index holds.

        Args:
            known: the files as they were read before, by id.
            documents: content hash of each document that the index holds, by id.
            trust_mtime: whether a file of unchanged size and modification time counts as unchanged.
        """
        self._known = {
            id: source
            for id, source in known.items()
            if all(documents.get(doc) == sha256 for doc, sha256, *_ in source.documents)
        }
        self._trust_mtime = trust_mtime
        self._current: dict[str, ScannedFile] = {}
        self._root: Path | None = None

    def adopt(self, root: Path | None, loaded: LoadedDocuments) -> LoadedDocuments:
        """Take over documents that were all read elsewhere; ``root`` is their path, None where updates cannot read it."""
        self._root = root.resolve() if root else None
        self._current = _parsed_files(loaded)
        return loaded

    def load(self, path: Path) -> LoadedDocuments:
        """Load a documents path; documents of unchanged files come with their hashes but without text."""
        self._root = path.resolve()
        statuses = _statuses(path) if self._trust_mtime else {}
        trusted = {
            id for id, status in statuses.items() if id in self._known and self._known[id].status == status
        }
        known = {id: _known_file(source) for id, source in self._known.items()}
        loaded = load_documents(path, known=known, trusted=trusted)
        unchanged_files = {id: self._known[id] for id in loaded.unchanged}
        self._current = {
            id: source._replace(status=statuses.get(id, source.status))
            for id, source in {**unchanged_files, **_parsed_files(loaded)}.items()
        }
        unread = [
            unchanged_document(doc, sha256)
            for source in unchanged_files.values()
            for doc, sha256, *_ in source.documents
        ]
        skipped = [Skipped(*row) for source in unchanged_files.values() for row in source.skipped]
        return replace(
            loaded,
            documents=tuple(sorted((*loaded.documents, *unread), key=lambda document: document.id)),
            skipped=tuple(sorted((*loaded.skipped, *skipped), key=lambda item: item.path)),
            unchanged=(),
        )

    def save(self, folder: Path, made_by: str) -> None:
        """Write the files as they are now, and the documents path; files that no longer exist are dropped."""
        state = {"version": _VERSION, "cut": CUT_VERSION, "made_by": made_by, "files": self._current}
        body = canonical_json({**state, _ROOT: str(self._root)} if self._root else state)
        write_text(folder / SCAN_STATE_FILE, f"{sha256_text(body)}\n{body}\n")


def read_scan_state(folder: Path, made_by: str) -> dict[str, ScannedFile]:
    """Return what :meth:`ScanState.save` wrote; empty when it is missing, damaged, or by another version."""
    try:
        state = _read_state(folder)
        if (state["version"], state.get("cut"), state["made_by"]) != (_VERSION, CUT_VERSION, made_by):
            return {}
        return {id: ScannedFile(*values) for id, values in state["files"].items()}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def documents_path(folder: Path) -> Path | None:
    """Return the documents path that an index was last built or updated from; None when it is not recorded."""
    try:
        return Path(_read_state(folder)[_ROOT])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _read_state(folder: Path) -> dict[str, Any]:
    """Return the object of the scan state; ValueError when it differs from its hash."""
    sha256, _, body = (folder / SCAN_STATE_FILE).read_text(encoding="utf-8").partition("\n")
    body = body.removesuffix("\n")
    if sha256_text(body) != sha256:
        raise ValueError(f"{folder / SCAN_STATE_FILE} differs from its hash")
    state: dict[str, Any] = json.loads(body)
    return state


def _parsed_files(loaded: LoadedDocuments) -> dict[str, ScannedFile]:
    """Return each parsed file with its documents and skipped rows.

    Empty when it is not clear which file a skipped row belongs to (two files with one id, say): what the file
    would give then depends on the other files, and all are read again next time.
    """
    documents: defaultdict[str, list[list[str]]] = defaultdict(list)
    hashes: dict[str, str] = {}
    for document in loaded.documents:
        hashes[document.source] = document.source_sha256
        line = loaded.lines.get(document.source, {}).get(document.id)
        documents[document.source].append([document.id, document.sha256, *([line] if line else [])])
    ids = {document.id for document in loaded.documents}
    skipped: defaultdict[str, list[list[str]]] = defaultdict(list)
    for item in loaded.skipped:
        source = item.path.rpartition(":")[0]
        if source in hashes:
            skipped[source].append([item.path, item.reason])
        elif item.path in hashes or item.path in ids:
            return {}
    return {id: ScannedFile(sha256, [], documents[id], skipped[id]) for id, sha256 in hashes.items()}


def _known_file(source: ScannedFile) -> KnownFile:
    return KnownFile(source.sha256, {row[2]: (row[0], row[1]) for row in source.documents if len(row) > 2})


def _statuses(path: Path) -> dict[str, list[int]]:
    """Return size and modification time of every file, by source; empty when they cannot be read."""
    try:
        files = (
            [item for item in walk_files(path) if isinstance(item, FoundFile)]
            if path.is_dir()
            else [FoundFile(path.name, path)]
        )
        statuses = [(item.id, item.path.stat()) for item in files]
    except (OSError, Problem):
        return {}
    return {id: [status.st_size, status.st_mtime_ns] for id, status in statuses}
