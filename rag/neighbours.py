"""Join a hit with the chunks around it in its document."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from itertools import pairwise

from rag.types import Chunk


def around(middle: Chunk, chunks: Sequence[Chunk], neighbours: int, shown: Collection[int]) -> list[Chunk]:
    """Return a chunk with up to ``neighbours`` chunks before and after it.

    ``chunks`` are all chunks of its document in order. The run ends before a chunk whose id is ``shown``, for
    a hit above holds it, and at the end of the page.
    """
    first = last = next(n for n, chunk in enumerate(chunks) if chunk.id == middle.id)
    least, most = max(0, first - neighbours), min(len(chunks) - 1, last + neighbours)
    while first > least and _belongs(chunks[first - 1], middle, shown):
        first -= 1
    while last < most and _belongs(chunks[last + 1], middle, shown):
        last += 1
    return list(chunks[first : last + 1])


def joined(run: Sequence[Chunk], middle: Chunk, raw: str) -> Chunk:
    """Return neighbouring chunks as one, with the id, the heading and the ordinal of ``middle``.

    Its span covers them all. Its text is the exact slice of the document where all of theirs are and only
    white space stands between them; else their texts, each under its heading where that changes, and then the
    length differs from the span's, by which an inexact text is known.
    """
    start, end = min(c.start for c in run), max(c.end for c in run)
    text = _slice(run, start, end, raw) or _stacked(run)
    if len(text) == end - start and text != raw[start:end]:
        text += "\n"
    return replace(
        middle, text=text, start=start, end=end, line_start=run[0].line_start, line_end=run[-1].line_end
    )


def _belongs(chunk: Chunk, middle: Chunk, shown: Collection[int]) -> bool:
    return chunk.id not in shown and chunk.page == middle.page


def _slice(run: Sequence[Chunk], start: int, end: int, raw: str) -> str:
    """Return ``raw[start:end]``, or nothing where something that no chunk shows would come with it."""
    if any(raw[chunk.start : chunk.end] != chunk.text for chunk in run):
        return ""
    reached = start
    for chunk in run:
        if raw[reached : max(reached, chunk.start)].strip():
            return ""
        reached = max(reached, chunk.end)
    return raw[start:end]


def _stacked(run: Sequence[Chunk]) -> str:
    """Return the texts one below the other, what a text repeats of the one before left out."""
    parts = [run[0].text]
    for before, chunk in pairwise(run):
        if chunk.heading != before.heading and (head := chunk.heading.rpartition(" > ")[2]):
            parts.append(head)
        parts.append(_unrepeated(before.text, chunk.text) if chunk.start < before.end else chunk.text)
    return "\n\n".join(part for part in parts if part)


def _unrepeated(before: str, text: str) -> str:
    """Return the text without the longest beginning that the text before ends with."""
    most = min(len(before), len(text))
    return next((text[n:] for n in range(most, 0, -1) if before.endswith(text[:n])), text).strip()
