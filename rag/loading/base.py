"""What every loader shares: its type, its way to refuse, and how a document is put together.

Text that a reader of the page does not see but a model would: left out, and counted.

Lines of a text by character offset; newlines may be ``\n``, ``\r\n`` or ``\r``.
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

# Zero-width space, word joiner and its invisible kin, inner byte order marks, the Mongolian separator and
# Unicode tags. Joiners (U+200C, U+200D) are spelling in many scripts and in emoji, but hide between Latin
# letters. A flag's emoji ends in tags that belong to it.
INVISIBLE = re.compile(
    "[\u200b\u2060-\u2064\ufeff\u180e]+"
    "|(?<=[\\x00-\\x7f])[\u200c\u200d]+(?=[\\x00-\\x7f])"
    "|(?<![\U0001f3f4\U000e0020-\U000e007f])[\U000e0000-\U000e007f]+"
)
Spans = Iterable[tuple[int, int]]


def invisible_spans(text: str) -> Iterator[tuple[int, int]]:
    """Yield the spans of invisible characters."""
    return (match.span() for match in INVISIBLE.finditer(text))


def comment_spans(text: str) -> Iterator[tuple[int, int]]:
    """Yield the spans of HTML comments, which Markdown does not show either."""
    at = text.find("<!--")
    while at >= 0 and (end := text.find("-->", at + 4)) >= 0:
        yield at, end + 3
        at = text.find("<!--", end + 3)


def without_spans(block: Block, gone: Spans) -> tuple[Block, int]:
    """Return the block without some spans of its text, its places kept, and how many characters that took."""
    spans = list(_kept(len(block.text), gone))
    if sum(end - start for start, end in spans) == len(block.text):
        return block, 0
    text = "".join(block.text[start:end] for start, end in spans)
    exact = len(block.text) == block.end - block.start
    offsets = select_offsets(block.offsets, block.start, spans) if block.offsets or exact else ()
    hidden = sum(not char.isspace() for char in block.text) - sum(not char.isspace() for char in text)
    return Block(block.kind, text, block.start, block.end, INVISIBLE.sub("", block.heading), offsets), hidden


def _kept(length: int, gone: Spans) -> Iterator[tuple[int, int]]:
    at = 0
    for start, end in gone:
        if start > at:
            yield at, start
        at = end
    if at < length:
        yield at, length


_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")


def line_spans(text: str) -> list[tuple[int, int]]:
    """Return (start, end) of every line, the newline included in its line."""
    return [match.span() for match in _LINE.finditer(text)]


def line_starts(text: str) -> list[int]:
    """Return the offset at which each line begins; an empty text has one line."""
    return [start for start, _ in line_spans(text)] or [0]


def line_number(line_starts: list[int], offset: int) -> int:
    """Return the line number, from 1, that holds a character offset."""
    return max(1, bisect_right(line_starts, offset))


_UNSAFE = re.compile("[\\x00-\\x1f\\x7f-\\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")
MAX_BLOCK_CHARS = 20_000
"""Characters; a longer block (a text of one line) is cut at white space, so that no step meets a giant."""
MAX_TABLE_CHARS = 50 * MAX_BLOCK_CHARS
"""Tables are cut later, because their header row is repeated only within a block."""
MAX_TITLE_CHARS = 300
CUT_SHARE = 3
"""Raised when the same bytes are cut into other blocks or chunks: then the next update cuts every document anew."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file or row that was found but not loaded, and why."""

    path: str
    """POSIX path below the documents folder; ``path:line`` for a row."""
    reason: str

    def to_json(self) -> dict[str, str]:
        """Return the JSON object that ``index build --json`` lists."""
        return {"path": self.path, "reason": self.reason}


class UnreadableFile(Exception):
    """A loader's way to say why a file cannot become a document; the walk turns it into ``Skipped``."""


@dataclass(frozen=True, slots=True)
class Loader:
    """One file format: the endings it answers to and the function that reads it."""

    media: str
    suffixes: tuple[str, ...]
    read: Callable[[str, bytes], Iterable[Document | Skipped]]
    """``read(id, data)`` yields documents (and skipped rows); raises Unreadable for the whole file."""
    apart: bool = False
    """Always parsed in the worker: its parser is large, or its input can grow when unpacked."""


def printable(name: str) -> str:
    """Return a name that can be printed anywhere: line breaks, escapes and broken bytes become ``\\x0a``."""
    return _UNSAFE.sub(_escape, name)


def _escape(match: re.Match[str]) -> str:
    code = ord(match.group())
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is no UTF-8, as os.fsdecode keeps it
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def title_from(id: str) -> str:
    """Return a readable title made from a file name: ``winter_fares.md`` gives "Winter fares"."""
    words = re.sub(r"[_\-\s]+", " ", PurePosixPath(id).stem).strip()
    return words[:1].upper() + words[1:]


def make_document(
    id: str,
    title: str,
    raw: str,
    blocks: Iterable[Block],
    media: str,
    metadata: Mapping[str, Any] | None = None,
    hidden: int = 0,
) -> Document:
    """Put a document together and hash what decides its chunks; Unreadable when it holds no text.

    Invisible characters are left out of the blocks and counted in ``metadata["hidden_text"]`` together with
    the ``hidden`` ones that the loader left out itself; blocks longer than ``LONGEST_BLOCK`` are cut.
    """
    meta = dict(metadata or {})
    kept: list[Block] = []
    for block in blocks:
        shown, gone = without_spans(block, invisible_spans(block.text))
        hidden += gone
        kept.extend(part for part in split_block(shown) if part.text.strip())
    if not kept:
        raise UnreadableFile("empty: it holds no text" + (" that can be seen" if hidden else ""))
    if hidden:
        meta["hidden_text"] = hidden
    title = " ".join(INVISIBLE.sub("", title).split())[:MAX_TITLE_CHARS]
    return Document(
        id,
        title,
        raw,
        tuple(kept),
        sha256_text(canonical_json([title, raw, media, meta, CUT_SHARE])),
        media,
        meta,
    )


def split_block(block: Block) -> Iterator[Block]:
    """Yield the block, or its parts of at most ``LONGEST_BLOCK`` characters, cut after white space."""
    text, at = block.text, 0
    longest = MAX_TABLE_CHARS if block.kind == "table" else MAX_BLOCK_CHARS
    if len(text) <= longest:
        yield block
        return
    exact = len(text) == block.end - block.start and not block.offsets
    while at < len(text):
        end = min(len(text), at + longest)
        if end < len(text):
            end = 1 + max(text.rfind(mark, at + longest // 2, end) for mark in ("\n", " ")) or end
        if exact:
            yield replace(block, text=text[at:end], start=block.start + at, end=block.start + end)
        elif block.offsets:
            places = select_offsets(block.offsets, block.start, [(at, end)])
            close = block.offsets[end] if end < len(text) else block.end
            yield replace(
                block, text=text[at:end], start=places[0], end=max(close, places[0]), offsets=places
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


class DocumentAssembler:
    """Puts a document's text together for formats whose file is not text: every block an exact slice."""

    def __init__(self) -> None:
        """Begin with no text."""
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


def clean_text(text: str) -> str:
    """Return the text without NUL and without halves of surrogate pairs, so that it can be stored."""
    return text.replace("\0", "").encode("utf-8", "replace").decode("utf-8")
