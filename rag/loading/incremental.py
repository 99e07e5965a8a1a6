"""What each file held when it was last read, so that an unchanged file need not be parsed again.

``sources.json`` lies beside the generations. It only ever saves work: a file is left unparsed only when its
bytes have the hash written down here and all its documents are in the index as they were. Size and time of a
file stand for its bytes only when that was asked for.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from rag.errors import Problem
from rag.files import canonical_json, sha256_text, write_text
from rag.loading.base import CUT_SHARE, Skipped
from rag.loading.reader import KnownFile, LoadedDocuments, load_documents, unchanged_document
from rag.loading.scan import FoundFile, walk_files

SCAN_STATE_FILE = "sources.json"
_VERSION = 2


class ScannedFile(NamedTuple):
    """One file as it was read."""

    sha256: str
    status: list[int]
    """Size and modification time in nanoseconds; empty where they were not looked at."""
    documents: list[list[str]]
    """Id and content hash of each document it gave, and the hash of its line where it was a row."""
    skipped: list[list[str]]
    """Path and reason of each of its rows that was skipped."""


class ScanState:
    """The files behind an index: known from before, and as they are now."""

    def __init__(
        self, known: Mapping[str, ScannedFile], documents: Mapping[str, str], trust_mtime: bool
    ) -> None:
        """Take what was read before, and the documents (id to content hash) that the index holds."""
        self._known = {
            id: source
            for id, source in known.items()
            if all(documents.get(doc) == sha256 for doc, sha256, *_ in source.documents)
        }
        self._trust = trust_mtime
        self._now: dict[str, ScannedFile] = {}

    def load(self, path: Path) -> LoadedDocuments:
        """Load a documents path; documents of unchanged files come with their hashes but without text."""
        statuses = _statuses(path) if self._trust else {}
        trusted = {
            id for id, status in statuses.items() if id in self._known and self._known[id].status == status
        }
        known = {id: _known(source) for id, source in self._known.items()}
        loaded = load_documents(path, known=known, trusted=trusted)
        kept = {id: self._known[id] for id in loaded.unchanged}
        self._now = {
            id: source._replace(status=statuses.get(id, source.status))
            for id, source in {**kept, **_read(loaded)}.items()
        }
        untouched = [
            unchanged_document(doc, sha256)
            for source in kept.values()
            for doc, sha256, *_ in source.documents
        ]
        skipped = [Skipped(*row) for source in kept.values() for row in source.skipped]
        return replace(
            loaded,
            documents=tuple(sorted((*loaded.documents, *untouched), key=lambda d: d.id)),
            skipped=tuple(sorted((*loaded.skipped, *skipped), key=lambda s: s.path)),
            unchanged=(),
        )

    def save(self, folder: Path, made_by: str) -> None:
        """Write down the files as they are now; those that are gone are forgotten."""
        body = canonical_json({"version": _VERSION, "cut": CUT_SHARE, "made_by": made_by, "files": self._now})
        write_text(folder / SCAN_STATE_FILE, f"{sha256_text(body)}\n{body}\n")


def read_scan_state(folder: Path, made_by: str) -> dict[str, ScannedFile]:
    """Return what ``Sources.save`` wrote; nothing when it is missing, damaged, or by another version."""
    try:
        sha256, _, body = (folder / SCAN_STATE_FILE).read_text(encoding="utf-8").partition("\n")
        body = body.removesuffix("\n")
        if sha256_text(body) != sha256:
            return {}
        found = json.loads(body)
        if (found["version"], found.get("cut"), found["made_by"]) != (_VERSION, CUT_SHARE, made_by):
            return {}
        return {id: ScannedFile(*values) for id, values in found["files"].items()}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _read(loaded: LoadedDocuments) -> dict[str, ScannedFile]:
    """Return what each parsed file gave.

    Nothing when a skipped row cannot be told to belong to one of them (two files with one id, say): then
    what it would give depends on the other files, and all are read again next time.
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


def _known(source: ScannedFile) -> KnownFile:
    return KnownFile(source.sha256, {row[2]: (row[0], row[1]) for row in source.documents if len(row) > 2})


def _statuses(path: Path) -> dict[str, list[int]]:
    """Return size and time of every file, by source."""
    try:
        found = (
            [item for item in walk_files(path) if isinstance(item, FoundFile)]
            if path.is_dir()
            else [FoundFile(path.name, path)]
        )
        statuses = [(item.id, item.path.stat()) for item in found]
    except (OSError, Problem):
        return {}
    return {id: [status.st_size, status.st_mtime_ns] for id, status in statuses}
