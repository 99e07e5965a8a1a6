"""The documents that a model looks things up in, by name and by lines: what rag's loader reads, and no file besides.

:class:`LookupDocuments` loads a plan's documents, and loads them again when a file changed; :class:`DocumentSet` is one
state of them, which an answer keeps until it is finished. :class:`ShownLines` remembers which lines a model was shown, and
makes passages of them, which citations refer to.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import date
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

from rag.loading import base
from rag.loading.reader import list_files, load_documents
from rag.loading.scan import FoundFile
from rag.search.documents import DocumentIndex
from rag.search.query import Query
from rag.text.sanitize import single_line
from rag.text.words import count_noun
from rag.types import Block, Chunk, Document, Hit

LINE_CHARS = 1000
"""Longer lines are shown as several, so that every part of a document can be read."""
PASSAGE_CHARS = 1200
"""About the longest passage that lines shown in a row are joined to; it ends where a block of the document ends."""


@dataclass(frozen=True, slots=True)
class DocumentLine:
    """A line of a document as a model sees it."""

    number: int
    text: str
    start: int
    """Its offsets in the raw text."""
    end: int
    block: int
    """Position of the block that it is of."""


class DocumentLines:
    """One document by its visible lines.

    Lines have the numbers that they have in the source. Where several are on one line of the source, because it is very
    long or has markup, all are numbered from 1.
    """

    def __init__(self, document: Document) -> None:
        """Take the lines from the document's blocks: what these leave out, such as hidden text, is not shown."""
        self.document = document
        starts = base.line_starts(document.raw)
        lines: list[DocumentLine] = []
        for position, block in enumerate(document.blocks):
            for text, start, end in _visible_lines(block):
                line = DocumentLine(base.line_number(starts, start), text, start, end, position)
                before = lines[-1] if lines else line
                # A loader may end a long block within a line.
                parts = before.number == line.number and before.end == start
                if parts and len(before.text) + len(text) <= LINE_CHARS:
                    lines[-1] = replace(before, text=before.text + text, end=end)
                else:
                    lines.append(line)
        in_source = all(before.number < line.number for before, line in pairwise(lines))
        if not in_source:
            lines = [replace(line, number=number) for number, line in enumerate(lines, start=1)]
        self.lines = tuple(lines)
        self.total = (len(starts) if in_source else len(lines)) if lines else 0
        """The number of its lines, blank ones included where lines have the numbers of the source."""
        self._line_starts = starts

    def between(self, first: int, last: int) -> range:
        """Return the positions of the lines with the numbers from ``first`` to ``last``."""
        numbers = [line.number for line in self.lines]
        return range(bisect_left(numbers, first), bisect_left(numbers, last + 1))

    def overlapping(self, start: int, end: int) -> range:
        """Return the positions of the lines that begin within these offsets of the raw text, or go on there."""
        touching = [n for n, line in enumerate(self.lines) if line.start < end and start < line.end]
        return range(touching[0], touching[-1] + 1) if touching else range(0)

    @cached_property
    def column(self) -> Any:
        """The texts of the lines as a column of pyarrow, whose search of patterns is RE2's."""
        import pyarrow

        return pyarrow.array([line.text.encode("utf-8", "replace").decode("utf-8") for line in self.lines])

    def passages(self, positions: Sequence[int]) -> list[Chunk]:
        """Return the passages that some lines are, given by their positions in rising order."""
        runs: list[list[int]] = []
        size = 0
        for position in positions:
            line = self.lines[position]
            follows = bool(runs) and runs[-1][-1] == position - 1
            new_block = not runs or self.lines[runs[-1][-1]].block != line.block
            if not follows or (new_block and size + len(line.text) > PASSAGE_CHARS):
                runs.append([])
                size = 0
            runs[-1].append(position)
            size += len(line.text)
        return [self._passage(run) for run in runs]

    def _passage(self, run: Sequence[int]) -> Chunk:
        """Return neighbouring lines as a passage: the slice of the source that they are, else their texts."""
        document, lines = self.document, [self.lines[position] for position in run]
        start, end = lines[0].start, max(line.end for line in lines)
        text = lines[0].text
        for before, line in pairwise(lines):  # the parts of a long line follow each other without a gap
            text += line.text if line.start == before.end else f"\n{line.text}"
        source = document.raw[start:end]
        if text.split() == source.split():
            text = source
        pages = document.page_starts
        return Chunk(
            id=0,
            doc=document.id,
            title=document.title,
            ordinal=run[0],
            text=text,
            start=start,
            end=end,
            heading=document.blocks[lines[0].block].heading,
            line_start=base.line_number(self._line_starts, start),
            line_end=base.line_number(self._line_starts, max(start, end - 1)),
            page=bisect_left(pages, start + 1) if pages else None,
        )


@dataclass(frozen=True, slots=True)
class DocumentSet:
    """One state of the documents."""

    by_name: Mapping[str, DocumentLines]
    """By id, sorted."""
    notes: tuple[str, ...] = ()
    """What was left out of it, one sentence each."""


@dataclass
class ShownLines:
    """The lines of documents that a model was shown while it looked things up, in the order of the documents' first."""

    documents: DocumentSet
    _positions: dict[str, set[int]] = field(default_factory=dict)

    def add(self, name: str, positions: Sequence[int]) -> None:
        """Remember that lines of a document were shown."""
        self._positions.setdefault(name, set()).update(positions)

    def hits(self) -> tuple[Hit, ...]:
        """Return what was shown as passages, which citations number from 1."""
        return tuple(
            Hit(chunk, 0.0, 0.0, 0.0, metadata=lines.document.metadata)
            for name, positions in self._positions.items()
            for lines in (self.documents.by_name[name],)
            for chunk in lines.passages(sorted(positions))
        )


class LookupDocuments:
    """The documents of a path, loaded when they are first looked at; safe to share between threads."""

    def __init__(self, path: Path) -> None:
        """Take the folder or file; nothing is read yet."""
        self.path = path
        self._state: tuple[object, DocumentSet] | None = None
        self._lock = threading.Lock()

    def current(self) -> DocumentSet:
        """Return the documents of now: those that have expired are left out, as in a search.

        Raises:
            BadInput: the path is missing, or nothing there can be loaded.
        """
        with self._lock:
            key = _file_times(self.path), date.today()
            if self._state is None or self._state[0] != key:
                self._state = key, _load(self.path, key[1])
            return self._state[1]


def _load(path: Path, today: date) -> DocumentSet:
    """Load the documents that are valid on a day."""
    loaded = load_documents(path)
    fields = {
        d.id: {"title": d.title, "media": d.media, "source": d.source, "metadata": d.metadata}
        for d in loaded.documents
    }
    selected = DocumentIndex(fields).select(Query(), today)
    documents = {
        document.id: DocumentLines(document)
        for document in loaded.documents
        if selected.allowed is None or document.id in selected.allowed
    }
    notes = selected.notes
    if loaded.skipped:
        first = loaded.skipped[0]
        count = count_noun(len(loaded.skipped), "document")
        notes += (f"{count} cannot be read, such as {single_line(first.path)}: {single_line(first.reason)}",)
    return DocumentSet(documents, notes)


def _file_times(path: Path) -> tuple[tuple[str, int, int], ...]:
    """Return what tells that a file was changed, added or removed, without reading any."""
    times = []
    for item in list_files(path):
        if isinstance(item, FoundFile):
            with suppress(OSError):  # one that is removed just now
                status = item.path.stat()
                times.append((item.id, status.st_mtime_ns, status.st_size))
    return tuple(times)


def _visible_lines(block: Block) -> list[tuple[str, int, int]]:
    """Return the lines of a block that are not blank, each with its offsets in the raw text; long ones in parts."""
    lines = []
    at = 0
    for text in block.text.split("\n"):
        for begin in range(0, len(text), LINE_CHARS):
            part = text[begin : begin + LINE_CHARS]
            if part.strip():
                lines.append((part, *_raw_span(block, at + begin, at + begin + len(part))))
        at += len(text) + 1
    return lines


def _raw_span(block: Block, start: int, end: int) -> tuple[int, int]:
    """Return the offsets in the raw text of a part of a block's text; those of the block where they are not known."""
    if block.offsets:
        return block.offsets[start], block.offsets[end] if end < len(block.offsets) else block.end
    if len(block.text) == block.end - block.start:
        return block.start + start, block.start + end
    return block.start, block.end
