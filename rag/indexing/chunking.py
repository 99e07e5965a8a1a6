"""Cut documents into chunks that follow their structure and always fit the embedder, in its own tokens.

Blocks under one heading are packed together up to the limit, never across headings or pages; a row of a
table file is a chunk of its own; only a block that is too long by itself is split, at sentence ends where
possible, with overlap, and a table's header row goes with every part. What is embedded is "title > heading
path. text", and that whole never exceeds the embedder's window. No part is longer than ``MAX_CHARS_PER_TOKEN``
characters for each of its tokens either: an endless word is one unknown token to an embedder.

The full stop matters: on 1,078 questions over 11,113 short documents all-MiniLM alone found the right one
first in 88.5 % with it, 86.7 % with a colon, 81.1 % with a bare line break, and 61.1 % without the title.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise

from semantic_text_splitter import TextSplitter

from rag.embedding.protocol import Encoder
from rag.loading import base
from rag.settings import IndexSettings
from rag.types import Block, Chunk, Document

PREFIX_SHARE = 0.25
"""The prefix may take this share of the embedder's window; longer heading paths lose their outer parts."""
MAX_HEADER_CHARS = 300
"""Characters of a table's header row that are repeated."""
MAX_CHARS_PER_TOKEN = 20
"""A text counts as one token for this many characters at least; prose has four or five, wide tables about ten."""


@dataclass(frozen=True, slots=True)
class _Piece:
    text: str
    start: int
    end: int
    heading: str


def chunk_prefix(title: str, heading: str) -> str:
    """Return "title > heading path", without repeating a title that the path begins with."""
    parts = [part for part in heading.split(" > ") if part]
    if parts and parts[0].casefold() == title.casefold():
        parts = parts[1:]
    return " > ".join(" ".join(part.split()) for part in [title, *parts] if part.strip())


class Chunker:
    """Cuts documents for one embedder and one set of settings."""

    def __init__(self, encoder: Encoder, settings: IndexSettings) -> None:
        """Keep the counter; splitters are made for the room each prefix leaves."""
        self._encoder = encoder
        self._settings = settings
        self._splitters: dict[int, TextSplitter] = {}
        self._prefixed = lru_cache(maxsize=1024)(self._prefix)

    def chunks(self, document: Document) -> list[Chunk]:
        """Return the document's chunks in order, with ids still 0."""
        line_starts = base.line_starts(document.raw)
        pages = document.page_starts
        return [
            Chunk(
                id=0,
                doc=document.id,
                title=document.title,
                ordinal=ordinal,
                text=piece.text,
                start=piece.start,
                end=piece.end,
                heading=piece.heading,
                line_start=base.line_number(line_starts, piece.start),
                line_end=base.line_number(line_starts, max(piece.start, piece.end - 1)),
                page=bisect_right(pages, piece.start) if pages else None,
            )
            for ordinal, piece in enumerate(self._pieces(document))
        ]

    def embedded_text(self, chunk: Chunk) -> str:
        """Return what is embedded and searched for a chunk: its prefix as a sentence, then its text."""
        return self._prefixed(chunk.title, chunk.heading)[0] + chunk.text

    def _prefix(self, title: str, heading: str) -> tuple[str, int]:
        """Return the prefix as a sentence, shortened from the outside to its share of the window, and its tokens."""
        room = int(self._encoder.max_tokens * PREFIX_SHARE)
        text = chunk_prefix(title, heading)
        size = self._encoder.count_tokens(_sentence(text))
        if size <= room:
            return _sentence(text), size
        parts = [part for part in heading.split(" > ") if part]
        while parts and self._encoder.count_tokens(text) > room:
            parts = parts[1:]
            text = chunk_prefix(title, " > ".join(parts))
        while self._encoder.count_tokens(text) > room:
            text = text[: len(text) * 3 // 4].rstrip()
        return _sentence(text), self._encoder.count_tokens(_sentence(text))

    def _size(self, text: str) -> int:
        """Return what a text takes of a chunk's room, in tokens."""
        return max(self._encoder.count_tokens(text), -(-len(text) // MAX_CHARS_PER_TOKEN))

    def _pieces(self, document: Document) -> Iterator[_Piece]:
        for section in _sections(document.blocks, document.page_starts):
            taken = self._prefixed(document.title, section[0].heading)[1]
            room = min(self._settings.max_tokens, self._encoder.max_tokens - taken)
            for group, used in self._packed(document.raw, section, room):
                yield from self._fitted(document, group, used, room)

    def _packed(self, raw: str, section: list[Block], room: int) -> Iterator[tuple[list[Block], int]]:
        """Group neighbouring blocks while they fit and nothing left out stands between; a row stays alone.

        Yields each group with the tokens of its blocks.
        """
        group: list[Block] = []
        used = 0
        for block in section:
            size = self._size(block.text)
            full = used + size + len(group) + 1 > room
            if group and (full or block.kind == "row" or not _adjacent(raw, group[-1], block)):
                yield group, used
                group, used = [], 0
            group.append(block)
            used += size
        if group:
            yield group, used

    def _fitted(self, document: Document, group: list[Block], used: int, room: int) -> Iterator[_Piece]:
        """Yield the group as one piece, or its parts when it does not fit after all."""
        first, last = group[0], group[-1]
        exact = all(document.raw[b.start : b.end] == b.text for b in group) and all(
            _touching(document.raw, *pair) for pair in pairwise(group)
        )
        text = document.raw[first.start : last.end] if exact else "\n".join(b.text for b in group)
        if (used if len(group) == 1 else self._size(text)) <= room:
            yield _Piece(text, first.start, last.end, first.heading)
        elif len(group) > 1:
            for block in group:
                yield from self._fitted(document, [block], self._size(block.text), room)
        elif header := _header(first):
            yield from self._table(document, first, header)
        else:
            yield from self._parts(first, first.heading, room)

    def _table(self, document: Document, table: Block, header: str) -> Iterator[_Piece]:
        """Yield a long table in parts; the header row ends the heading path of each part after the first.

        So it is embedded and shown with every part, and the part's text stays an exact slice.
        """
        heading = f"{table.heading} > {header}".removeprefix(" > ")
        taken = self._prefixed(document.title, heading)[1]
        room = min(self._settings.max_tokens, self._encoder.max_tokens - taken)
        for piece in self._parts(table, heading, room):
            yield replace(piece, heading=table.heading) if piece.start == table.start else piece

    def _parts(self, block: Block, heading: str, room: int) -> Iterator[_Piece]:
        for at, part in self._splitter(room).chunk_indices(block.text):
            for inner, text in self._bounded(part, room):
                yield _Piece(text, *_place(block, at + inner, at + inner + len(text)), heading)

    def _bounded(self, part: str, room: int) -> Iterator[tuple[int, str]]:
        """Yield the part, or its pieces of at most ``room * MAX_CHARS_PER_TOKEN`` characters, with their places."""
        most = room * MAX_CHARS_PER_TOKEN
        if len(part) <= most:
            yield 0, part
        else:
            yield from TextSplitter(most, overlap=int(most * self._settings.overlap)).chunk_indices(part)

    def _splitter(self, room: int) -> TextSplitter:
        if room not in self._splitters:
            overlap = int(room * self._settings.overlap)
            self._splitters[room] = TextSplitter.from_huggingface_tokenizer(
                self._encoder.tokenizer, room, overlap=overlap
            )
        return self._splitters[room]


def _sentence(text: str) -> str:
    """Return a prefix closed by a full stop and a line break; nothing stays nothing."""
    end = "" if text[-1:] in (".", "!", "?", ":") else "."
    return f"{text}{end}\n" if text else ""


def _adjacent(raw: str, before: Block, after: Block) -> bool:
    """Whether two blocks may stand in one chunk: comments must not come back in a slice, and with offsets none is taken."""
    return _touching(raw, before, after) or bool(before.offsets or after.offsets)


def _touching(raw: str, before: Block, after: Block) -> bool:
    """Whether only white space and rules stand between two blocks: no markup, nothing hidden."""
    return not raw[before.end : after.start].strip(" \t\r\n-*_=")


def _header(block: Block) -> str:
    """Return the cells of a table's first row as one line; nothing when it is no table or has one row."""
    first, newline, _ = block.text.partition("\n")
    if block.kind != "table" or not newline or set(first.strip()) <= set("+-=| "):
        return ""
    return " | ".join(cell for part in first.split("|") if (cell := " ".join(part.split())))[
        :MAX_HEADER_CHARS
    ]


def _place(block: Block, start: int, end: int) -> tuple[int, int]:
    """Return the raw span of ``block.text[start:end]``."""
    if block.offsets:
        return block.offsets[start], block.offsets[end] if end < len(block.offsets) else block.end
    if len(block.text) == block.end - block.start:
        return block.start + start, block.start + end
    return block.start, block.end


def _sections(blocks: tuple[Block, ...], page_starts: list[int]) -> Iterator[list[Block]]:
    """Yield runs of blocks under one heading and page; a heading stays only when nothing is below it."""
    run: list[Block] = []
    place: tuple[str, int] | None = None
    for at, block in enumerate(blocks):
        if block.kind == "heading":
            below = blocks[at + 1].heading if at + 1 < len(blocks) else ""
            if below == block.heading or below.startswith(f"{block.heading} > "):
                continue
        here = (block.heading, bisect_right(page_starts, block.start))
        if run and here != place:
            yield run
            run = []
        run.append(block)
        place = here
    if run:
        yield run
