"""Cut documents into chunks that follow their structure and always fit the embedder, counted in its own tokens.

Blocks under one heading are packed together up to the limit, never across headings or pages; a row of a table file is
a chunk of its own; only a block that is too long by itself is split, at sentence ends where possible, with overlap,
and a table's header row is repeated with every part. The embedded text is "title > heading path. text", and that whole
never exceeds the embedder's window. No part is longer than :data:`MAX_CHARS_PER_TOKEN` characters for each of its
tokens either, because a very long word is one unknown token to an embedder.

The full stop matters: on 1,078 questions over 11,113 short documents all-MiniLM alone ranked the right one first in
88.5 % with it, 86.7 % with a colon, 81.1 % with a bare line break, and 61.1 % without the title.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Protocol

from semantic_text_splitter import TextSplitter

from rag.loading import base
from rag.settings import IndexSettings
from rag.types import Block, Chunk, Document

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PREFIX_SHARE = 0.25
"""The prefix may take this share of the embedder's window; longer heading paths lose their outer parts."""
MAX_HEADER_CHARS = 300
"""Most characters of a table's header row that are repeated."""
MAX_CHARS_PER_TOKEN = 20
"""A text counts as one token for this many characters at least; prose has four or five, wide tables about ten."""


@dataclass(frozen=True, slots=True)
class _Piece:
    """The text of a chunk, its span in the source and its heading path."""

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


class TokenCounter(Protocol):
    """What cutting asks of an embedder; an :class:`rag.embedding.protocol.Encoder` is one."""

    @property
    def max_tokens(self) -> int:
        """Tokens of one text that the model sees at once, without special tokens and prefix."""

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer, with truncation and padding off."""

    def count_tokens(self, text: str) -> int:
        """Return the text's length in the model's tokens, without special tokens."""


class Chunker:
    """Cuts documents for one embedder and one set of settings."""

    def __init__(self, encoder: TokenCounter, settings: IndexSettings) -> None:
        """Store the parts; a splitter is created for each size that the prefixes leave."""
        self._encoder = encoder
        self._settings = settings
        self._splitters: dict[int, TextSplitter] = {}
        self._cached_prefix = lru_cache(maxsize=1024)(self._prefix)

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
        """Return the text that is embedded and searched for a chunk: its prefix as a sentence, then its text."""
        return self._cached_prefix(chunk.title, chunk.heading)[0] + chunk.text

    def _prefix(self, title: str, heading: str) -> tuple[str, int]:
        """Return the prefix as a sentence, and its number of tokens.

        Outer parts of the heading path are dropped until it fits into its share of the window.
        """
        limit = int(self._encoder.max_tokens * PREFIX_SHARE)
        text = chunk_prefix(title, heading)
        size = self._encoder.count_tokens(_sentence(text))
        if size <= limit:
            return _sentence(text), size
        parts = [part for part in heading.split(" > ") if part]
        while parts and self._encoder.count_tokens(text) > limit:
            parts = parts[1:]
            text = chunk_prefix(title, " > ".join(parts))
        while self._encoder.count_tokens(text) > limit:
            text = text[: len(text) * 3 // 4].rstrip()
        return _sentence(text), self._encoder.count_tokens(_sentence(text))

    def _size(self, text: str) -> int:
        """Return the tokens that a text counts as: at least one for :data:`MAX_CHARS_PER_TOKEN` characters."""
        # -(-a // b) rounds up
        return max(self._encoder.count_tokens(text), -(-len(text) // MAX_CHARS_PER_TOKEN))

    def _pieces(self, document: Document) -> Iterator[_Piece]:
        for section in _sections(document.blocks, document.page_starts):
            prefix_tokens = self._cached_prefix(document.title, section[0].heading)[1]
            limit = min(self._settings.max_tokens, self._encoder.max_tokens - prefix_tokens)
            for group, used in self._packed(document.raw, section, limit):
                yield from self._fitted(document, group, used, limit)

    def _packed(self, raw: str, section: list[Block], limit: int) -> Iterator[tuple[list[Block], int]]:
        """Group neighbouring blocks as long as they fit and nothing was left out between them; a row stays alone.

        Yields each group with the tokens of its blocks.
        """
        group: list[Block] = []
        used = 0
        for block in section:
            size = self._size(block.text)
            # joining n blocks adds up to n line breaks, counted as one token each
            full = used + size + len(group) + 1 > limit
            if group and (full or block.kind == "row" or not _adjacent(raw, group[-1], block)):
                yield group, used
                group, used = [], 0
            group.append(block)
            used += size
        if group:
            yield group, used

    def _fitted(self, document: Document, group: list[Block], used: int, limit: int) -> Iterator[_Piece]:
        """Yield the group as one piece, or in parts if it does not fit after all."""
        first = group[0]
        last = group[-1]
        exact = all(document.raw[block.start : block.end] == block.text for block in group) and all(
            _touching(document.raw, *pair) for pair in pairwise(group)
        )
        text = document.raw[first.start : last.end] if exact else "\n".join(block.text for block in group)
        if (used if len(group) == 1 else self._size(text)) <= limit:
            yield _Piece(text, first.start, last.end, first.heading)
        elif len(group) > 1:
            for block in group:
                yield from self._fitted(document, [block], self._size(block.text), limit)
        elif header := _header(first):
            yield from self._table(document, first, header)
        else:
            yield from self._parts(first, first.heading, limit)

    def _table(self, document: Document, table: Block, header: str) -> Iterator[_Piece]:
        """Yield a long table in parts; the header row is appended to the heading path of each part after the first.

        So it is embedded and shown with every part, and the part's text remains an exact slice of the source.
        """
        heading = f"{table.heading} > {header}".removeprefix(" > ")
        prefix_tokens = self._cached_prefix(document.title, heading)[1]
        limit = min(self._settings.max_tokens, self._encoder.max_tokens - prefix_tokens)
        for piece in self._parts(table, heading, limit):
            yield replace(piece, heading=table.heading) if piece.start == table.start else piece

    def _parts(self, block: Block, heading: str, limit: int) -> Iterator[_Piece]:
        """Yield a long block in overlapping parts, split at sentence ends where possible."""
        for offset, part in self._splitter(limit).chunk_indices(block.text):
            for inner_offset, text in self._bounded(part, limit):
                yield _Piece(
                    text,
                    *_source_span(block, offset + inner_offset, offset + inner_offset + len(text)),
                    heading,
                )

    def _bounded(self, part: str, limit: int) -> Iterator[tuple[int, str]]:
        """Yield pieces of at most ``limit * MAX_CHARS_PER_TOKEN`` characters, each with its offset in the part."""
        max_chars = limit * MAX_CHARS_PER_TOKEN
        if len(part) <= max_chars:
            yield 0, part
        else:
            yield from TextSplitter(max_chars, overlap=int(max_chars * self._settings.overlap)).chunk_indices(
                part
            )

    def _splitter(self, limit: int) -> TextSplitter:
        """Return the splitter for parts of at most ``limit`` tokens."""
        if limit not in self._splitters:
            overlap = int(limit * self._settings.overlap)
            self._splitters[limit] = TextSplitter.from_huggingface_tokenizer(
                self._encoder.tokenizer, limit, overlap=overlap
            )
        return self._splitters[limit]


def _sentence(text: str) -> str:
    """Return a prefix closed by a full stop and a line break; "" stays ""."""
    end = "" if text[-1:] in (".", "!", "?", ":") else "."
    return f"{text}{end}\n" if text else ""


def _adjacent(raw: str, before: Block, after: Block) -> bool:
    """Return whether two blocks may be in one chunk.

    A slice of the source must not bring comments back; with offsets no slice is taken.
    """
    return _touching(raw, before, after) or bool(before.offsets or after.offsets)


def _touching(raw: str, before: Block, after: Block) -> bool:
    """Return whether only white space and rules (``---``) are between two blocks: no markup, nothing hidden."""
    return not raw[before.end : after.start].strip(" \t\r\n-*_=")


def _header(block: Block) -> str:
    """Return the cells of a table's first row as one line; "" if it is not a table or has one row."""
    first, newline, _ = block.text.partition("\n")
    if block.kind != "table" or not newline or set(first.strip()) <= set("+-=| "):
        return ""
    return " | ".join(cell for part in first.split("|") if (cell := " ".join(part.split())))[
        :MAX_HEADER_CHARS
    ]


def _source_span(block: Block, start: int, end: int) -> tuple[int, int]:
    """Return the (start, end) in the source of ``block.text[start:end]``."""
    if block.offsets:
        return block.offsets[start], block.offsets[end] if end < len(block.offsets) else block.end
    if len(block.text) == block.end - block.start:
        return block.start + start, block.start + end
    return block.start, block.end


def _sections(blocks: tuple[Block, ...], page_starts: list[int]) -> Iterator[list[Block]]:
    """Yield runs of blocks under one heading and page; a heading is dropped if text or headings follow below it."""
    run: list[Block] = []
    key: tuple[str, int] | None = None
    for position, block in enumerate(blocks):
        if block.kind == "heading":
            below = blocks[position + 1].heading if position + 1 < len(blocks) else ""
            if below == block.heading or below.startswith(f"{block.heading} > "):
                continue
        block_key = (block.heading, bisect_right(page_starts, block.start))
        if run and block_key != key:
            yield run
            run = []
        run.append(block)
        key = block_key
    if run:
        yield run
