r"""What all loaders share: the :class:`Loader` type, the error for unreadable files, and how a document is put together.

:func:`make_document` builds a document from blocks; :class:`DocumentAssembler` does so for formats whose file
is not text. Text that a reader of the page does not see, but a model would, is left out and counted
(:func:`without_spans`). Lines are found by character offset; newlines may be ``\n``, ``\r\n`` or ``\r``.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

from rag.files import canonical_json, sha256_text
from rag.loading.offsets import select_offsets
from rag.types import Block, Document

# Zero-width space, word joiner and the other invisible operators, inner byte order marks, the Mongolian
# separator and Unicode tags. Joiners (U+200C, U+200D) are spelling in many scripts and in emoji, but hide
# between Latin letters. A flag's emoji ends in tags that belong to it.
INVISIBLE = re.compile(
    "[\u200b\u2060-\u2064\ufeff\u180e]+"
    "|(?<=[\\x00-\\x7f])[\u200c\u200d]+(?=[\\x00-\\x7f])"
    "|(?<![\U0001f3f4\U000e0020-\U000e007f])[\U000e0000-\U000e007f]+"
)
Spans = Iterable[tuple[int, int]]

_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")

_UNPRINTABLE = re.compile(
    "[\\x00-\\x1f\\x7f-\\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)
MAX_BLOCK_CHARS = 20_000
"""A longer block (a text of one line) is cut at white space, so that later steps handle pieces of bounded size."""
MAX_TABLE_CHARS = 50 * MAX_BLOCK_CHARS
"""The same for tables, which may be longer, because their header row is repeated only within a block."""
MAX_TITLE_CHARS = 300
CUT_VERSION = 3
"""Version of the cutting. It is raised when the same bytes are cut into other blocks or chunks: the next
update then cuts every document anew."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file or row that was not loaded, and why."""

    path: str
    """POSIX path below the documents folder; ``path:line`` for a row."""
    reason: str

    def to_json(self) -> dict[str, str]:
        """Return the JSON object that ``index build --json`` lists."""
        return {"path": self.path, "reason": self.reason}


class UnreadableFile(Exception):
    """Raised by a loader with the reason why a file cannot become a document; the reader turns it into ``Skipped``."""


@dataclass(frozen=True, slots=True)
class Loader:
    """One file format: its file endings and the function that reads it."""

    media: str
    suffixes: tuple[str, ...]
    read: Callable[[str, bytes], Iterable[Document | Skipped]]
    """``read(id, data)`` yields documents (and skipped rows); raises UnreadableFile for the whole file."""
    in_worker: bool = False
    """Always parsed in the worker process: the parser is large, or its input can grow when unpacked."""


class DocumentAssembler:
    """Builds a document's text for formats whose file is not text; every block is an exact slice of that text."""

    def __init__(self) -> None:
        """Begin without text."""
        self._parts: list[str] = []
        self._length = 0
        self.blocks: list[Block] = []
        self.page_starts: list[int] = []

    def page(self) -> None:
        """Begin a page, slide or sheet."""
        self.page_starts.append(self._length)

    def add(self, kind: str, text: str, heading: str = "") -> None:
        """Add a block, and a blank line after it; a text without visible characters adds nothing."""
        text = clean_text(text).strip("\r\n")
        if text.strip():
            self.blocks.append(Block(kind, text, self._length, self._length + len(text), heading))
            self._parts += [text, "\n\n"]
            self._length += len(text) + 2

    def document(self, id: str, title: str, media: str, metadata: Mapping[str, Any], hidden: int) -> Document:
        """Return the document; its pages are in ``metadata["page_starts"]``."""
        meta = {**metadata, **({"page_starts": self.page_starts} if self.page_starts else {})}
        return make_document(
            id, title or title_from(id), "".join(self._parts), self.blocks, media, meta, hidden
        )


def make_document(
    id: str,
    title: str,
    raw: str,
    blocks: Iterable[Block],
    media: str,
    metadata: Mapping[str, Any] | None = None,
    hidden: int = 0,
) -> Document:
    """Put a document together and hash what decides its chunks.

    Invisible characters are left out of the blocks and counted in ``metadata["hidden_text"]``; blocks longer
    than ``MAX_BLOCK_CHARS`` are cut.

    Args:
        id: id of the document.
        title: its title.
        raw: the decoded text that the blocks' offsets refer to.
        blocks: its blocks, in order.
        media: name of the loader.
        metadata: plain JSON values.
        hidden: number of hidden characters that the loader left out itself.

    Raises:
        UnreadableFile: when it holds no text.
    """
    meta = dict(metadata or {})
    visible: list[Block] = []
    for block in blocks:
        shown, removed = without_spans(block, invisible_spans(block.text))
        hidden += removed
        visible.extend(part for part in split_block(shown) if part.text.strip())
    if not visible:
        raise UnreadableFile("empty: it has no text" + (" that can be seen" if hidden else ""))
    if hidden:
        meta["hidden_text"] = hidden
    title = " ".join(INVISIBLE.sub("", title).split())[:MAX_TITLE_CHARS]
    return Document(
        id,
        title,
        raw,
        tuple(visible),
        sha256_text(canonical_json([title, raw, media, meta, CUT_VERSION])),
        media,
        meta,
    )


def split_block(block: Block) -> Iterator[Block]:
    """Yield the block, or its parts of at most ``MAX_BLOCK_CHARS`` characters, cut after white space."""
    text = block.text
    at = 0
    longest = MAX_TABLE_CHARS if block.kind == "table" else MAX_BLOCK_CHARS
    if len(text) <= longest:
        yield block
        return
    exact = len(text) == block.end - block.start and not block.offsets
    while at < len(text):
        end = min(len(text), at + longest)
        if end < len(text):
            # Past the last white space of the second half; rfind gives -1 where there is none, and 0 means a
            # hard cut.
            end = 1 + max(text.rfind(mark, at + longest // 2, end) for mark in ("\n", " ")) or end
        if exact:
            yield replace(block, text=text[at:end], start=block.start + at, end=block.start + end)
        elif block.offsets:
            offsets = select_offsets(block.offsets, block.start, [(at, end)])
            raw_end = block.offsets[end] if end < len(text) else block.end
            yield replace(
                block, text=text[at:end], start=offsets[0], end=max(raw_end, offsets[0]), offsets=offsets
            )
        else:
            yield replace(block, text=text[at:end])
        at = end


def paragraphs(raw: str, start: int = 0, end: int | None = None, heading: str = "") -> Iterator[Block]:
    """Yield the paragraphs (runs of lines between blank lines) of ``raw[start:end]``."""
    region = raw[start:end]
    for match in re.finditer(r"\S[^\r\n]*(?:(?:\r\n|\r|\n)[^\S\r\n]*\S[^\r\n]*)*", region):
        text = match.group().rstrip()
        yield Block("paragraph", text, start + match.start(), start + match.start() + len(text), heading)


def title_from(id: str) -> str:
    """Return a readable title made from a file name: ``winter_fares.md`` gives "Winter fares"."""
    words = re.sub(r"[_\-\s]+", " ", PurePosixPath(id).stem).strip()
    return words[:1].upper() + words[1:]


def printable(name: str) -> str:
    """Return a name that can be printed anywhere: line breaks, escapes and broken bytes become ``\\x0a``."""
    return _UNPRINTABLE.sub(_escape, name)


def clean_text(text: str) -> str:
    """Return the text without NUL characters and halves of surrogate pairs, so that it can be stored."""
    return text.replace("\0", "").encode("utf-8", "replace").decode("utf-8")


def line_spans(text: str) -> list[tuple[int, int]]:
    """Return (start, end) of every line, the newline included in its line."""
    return [match.span() for match in _LINE.finditer(text)]


def line_starts(text: str) -> list[int]:
    """Return the offset at which each line begins; an empty text has one line."""
    return [start for start, _ in line_spans(text)] or [0]


def line_number(line_starts: list[int], offset: int) -> int:
    """Return the number, from 1, of the line that holds a character offset."""
    return max(1, bisect_right(line_starts, offset))


def invisible_spans(text: str) -> Iterator[tuple[int, int]]:
    """Yield the spans of invisible characters."""
    return (match.span() for match in INVISIBLE.finditer(text))


def visible_length(text: str) -> int:
    """Return the number of characters that are not white space."""
    return sum(not char.isspace() for char in text)


def comment_spans(text: str) -> Iterator[tuple[int, int]]:
    """Yield the spans of HTML comments, which a rendered Markdown page does not show either."""
    at = text.find("<!--")
    while at >= 0 and (end := text.find("-->", at + 4)) >= 0:
        yield at, end + 3
        at = text.find("<!--", end + 3)


def without_spans(block: Block, removed: Spans) -> tuple[Block, int]:
    """Return the block without some spans of its text, and the number of visible characters that were in them.

    Args:
        block: the block; its offsets into the raw text stay exact.
        removed: the spans to leave out, in order, as offsets into the block's text.
    """
    spans = list(_remaining_spans(len(block.text), removed))
    if sum(end - start for start, end in spans) == len(block.text):
        return block, 0
    text = "".join(block.text[start:end] for start, end in spans)
    exact = len(block.text) == block.end - block.start
    # A row or cleaned text without offsets has none afterwards either; an exact slice needs them from now on.
    offsets = select_offsets(block.offsets, block.start, spans) if block.offsets or exact else ()
    hidden = visible_length(block.text) - visible_length(text)
    return Block(block.kind, text, block.start, block.end, INVISIBLE.sub("", block.heading), offsets), hidden


def _remaining_spans(length: int, removed: Spans) -> Iterator[tuple[int, int]]:
    at = 0
    for start, end in removed:
        if start > at:
            yield at, start
        at = end
    if at < length:
        yield at, length


def _escape(match: re.Match[str]) -> str:
    code = ord(match.group())
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is not UTF-8, as os.fsdecode keeps it
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
