"""Text that a reader of the page does not see but a model would: left out, and counted."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from rag.load.offsets import selected
from rag.types import Block

# Zero-width space, word joiner and its invisible kin, inner byte order marks, the Mongolian separator and
# Unicode tags. Joiners (U+200C, U+200D) are spelling in many scripts and in emoji, but hide between Latin
# letters. A flag's emoji ends in tags that belong to it.
INVISIBLE = re.compile(
    "[\u200b\u2060-\u2064\ufeff\u180e]+"
    "|(?<=[\\x00-\\x7f])[\u200c\u200d]+(?=[\\x00-\\x7f])"
    "|(?<![\U0001f3f4\U000e0020-\U000e007f])[\U000e0000-\U000e007f]+"
)
Spans = Iterable[tuple[int, int]]


def invisible(text: str) -> Iterator[tuple[int, int]]:
    """Yield the spans of invisible characters."""
    return (match.span() for match in INVISIBLE.finditer(text))


def comments(text: str) -> Iterator[tuple[int, int]]:
    """Yield the spans of HTML comments, which Markdown does not show either."""
    at = text.find("<!--")
    while at >= 0 and (end := text.find("-->", at + 4)) >= 0:
        yield at, end + 3
        at = text.find("<!--", end + 3)


def without(block: Block, gone: Spans) -> tuple[Block, int]:
    """Return the block without some spans of its text, its places kept, and how many characters that took."""
    spans = list(_kept(len(block.text), gone))
    if sum(end - start for start, end in spans) == len(block.text):
        return block, 0
    text = "".join(block.text[start:end] for start, end in spans)
    exact = len(block.text) == block.end - block.start
    offsets = selected(block.offsets, block.start, spans) if block.offsets or exact else ()
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
