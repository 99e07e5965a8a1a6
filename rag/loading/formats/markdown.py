"""Markdown: headings, paragraphs, lists, tables and code, each an exact slice of the file."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator

from rag.loading.base import comment_spans, line_spans, make_document, title_from, without_spans
from rag.loading.encoding import decode_bytes
from rag.loading.metadata import front_matter
from rag.types import Block, Document

_ATX = re.compile(r" {0,3}(#{1,6})(?=[ \t]|$)")
_SETEXT = re.compile(r" {0,3}(=+|-{2,})[ \t]*$")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_LIST_ITEM = re.compile(r" {0,3}(?:[-*+]|\d{1,9}[.)])[ \t]+\S")
_THEMATIC_BREAK = re.compile(r" {0,3}(?:(?:-[ \t]*){3,}|(?:\*[ \t]*){3,}|(?:_[ \t]*){3,})$")
_MAX_HEADING_CHARS = 1_000
"""A longer line is text, whatever it begins with."""

_Lines = list[tuple[int, int, str]]


def read(id: str, data: bytes) -> Iterator[Document]:
    """Yield the file as one document; its title is that of the front matter, the first top heading, or the file's name.

    HTML comments, which a rendered page does not show, are left out and counted as hidden text.
    """
    raw, meta = decode_bytes(data)
    fields, begin = front_matter(raw)
    blocks = []
    hidden = 0
    for block in _blocks(raw, begin):
        removed = 0
        if block.kind != "code" and "<!--" in block.text:
            block, removed = without_spans(block, comment_spans(block.text))
        hidden += removed
        blocks.append(block)
    top = next(
        (block.heading for block in blocks if block.kind == "heading" and " > " not in block.heading), ""
    )
    title = str(fields.pop("title", "") or top or title_from(id))
    yield make_document(id, title, raw, blocks, "markdown", {**fields, **meta}, hidden)


def _blocks(raw: str, start: int) -> Iterator[Block]:
    """Yield the blocks of a file line by line; a block ends where another kind or a blank line begins."""
    path: list[tuple[int, str]] = []
    lines = [
        (first, last, raw[first:last].rstrip("\r\n")) for first, last in line_spans(raw) if first >= start
    ]
    comment_ends = [n for n, (_, _, line) in enumerate(lines) if "-->" in line]
    at = 0
    while at < len(lines):
        line = lines[at][2]
        if not line.strip() or _THEMATIC_BREAK.match(line):
            at += 1
            continue
        level, name, size = _heading(lines, at)
        if level:
            path = [(depth, text) for depth, text in path if depth < level] + [(level, name)]
            kind = "heading"
        else:
            kind, size = _extent(lines, at, comment_ends)
        begin, end = lines[at][0], lines[at + size - 1][1]
        end = begin + len(raw[begin:end].rstrip())
        yield Block(kind, raw[begin:end], begin, end, " > ".join(text for _, text in path if text))
        at += size


def _heading(lines: _Lines, at: int) -> tuple[int, str, int]:
    """Return (level, text, number of lines) of the heading that begins at line ``at``; level 0 when none does."""
    line = lines[at][2]
    if len(line) > _MAX_HEADING_CHARS:
        return 0, "", 0
    if atx := _ATX.match(line):
        return len(atx.group(1)), _without_closing_marks(line[atx.end() :].strip()), 1
    underline = lines[at + 1][2] if at + 1 < len(lines) else ""
    if _SETEXT.match(underline) and not _LIST_ITEM.match(line) and not line.lstrip().startswith(("|", ">")):
        return (1 if "=" in underline else 2), line.strip(), 2
    return 0, "", 0


def _without_closing_marks(name: str) -> str:
    """Return a heading's text without the number signs that may close it."""
    bare = name.rstrip("#")
    return bare.rstrip() if not bare or bare[-1:].isspace() else name


def _extent(lines: _Lines, at: int, comment_ends: list[int]) -> tuple[str, int]:
    """Return the kind of the block that begins at line ``at``, and its number of lines."""
    first = lines[at][2]
    if fence := _FENCE.match(first):
        return "code", _fence_size(lines, at, fence.group(1))
    if first.lstrip().startswith("<!--"):
        return "paragraph", _comment_size(comment_ends, at)
    kind = "table" if first.lstrip().startswith("|") else "list" if _LIST_ITEM.match(first) else "paragraph"
    size = 1
    while at + size < len(lines):
        line = lines[at + size][2]
        if not line.strip():
            if kind != "list" or not _continues_list(lines, at + size + 1):
                break
        elif _heading(lines, at + size)[0] or _begins_another(line, kind):
            break
        size += 1
    return kind, size


def _begins_another(line: str, kind: str) -> bool:
    """Return whether a line ends a block of this kind, because a block of another kind begins."""
    starts_table = kind != "table" and line.lstrip().startswith("|")
    return bool(starts_table or _FENCE.match(line) or (kind == "paragraph" and _LIST_ITEM.match(line)))


def _fence_size(lines: _Lines, at: int, mark: str) -> int:
    """Return the lines of a fenced code block; one that is not closed reaches to the end of the file."""
    closing = re.compile(r" {0,3}" + re.escape(mark) + re.escape(mark[0]) + r"*[ \t]*$")
    for next_at in range(at + 1, len(lines)):
        if closing.match(lines[next_at][2]):
            return next_at - at + 1
    return len(lines) - at


def _comment_size(comment_ends: list[int], at: int) -> int:
    """Return the lines of a comment, blank ones included; one that is not closed is a line of text.

    Args:
        comment_ends: the lines with ``-->``, ascending.
        at: the line at which the comment begins.
    """
    closing = bisect_left(comment_ends, at)
    return comment_ends[closing] - at + 1 if closing < len(comment_ends) else 1


def _continues_list(lines: _Lines, at: int) -> bool:
    """Return whether the line after a blank one still belongs to the list: another item or an indented line."""
    return at < len(lines) and bool(
        _LIST_ITEM.match(lines[at][2]) or re.match(r"(?: {2,}|\t)\S", lines[at][2])
    )
