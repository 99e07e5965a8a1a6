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
_ITEM = re.compile(r" {0,3}(?:[-*+]|\d{1,9}[.)])[ \t]+\S")
_RULE = re.compile(r" {0,3}(?:(?:-[ \t]*){3,}|(?:\*[ \t]*){3,}|(?:_[ \t]*){3,})$")
_LONGEST_HEADING = 1_000
"""Characters; a longer line is text, whatever it begins with."""


def read(id: str, data: bytes) -> Iterator[Document]:
    """Yield the file as one document; its title is the front matter's, the first top heading or the name.

    HTML comments, which no reader of the page sees, are left out and counted as hidden text.
    """
    raw, meta = decode_bytes(data)
    fields, begin = front_matter(raw)
    blocks, hidden = [], 0
    for block in _blocks(raw, begin):
        gone = 0
        if block.kind != "code" and "<!--" in block.text:
            block, gone = without_spans(block, comment_spans(block.text))
        hidden += gone
        blocks.append(block)
    top = next((b.heading for b in blocks if b.kind == "heading" and " > " not in b.heading), "")
    title = str(fields.pop("title", "") or top or title_from(id))
    yield make_document(id, title, raw, blocks, "markdown", {**fields, **meta}, hidden)


def _blocks(raw: str, start: int) -> Iterator[Block]:
    """Yield the blocks of a file line by line; a block ends where another kind or a blank line begins."""
    path: list[tuple[int, str]] = []
    lines = [(a, b, raw[a:b].rstrip("\r\n")) for a, b in line_spans(raw) if a >= start]
    closes = [n for n, (_, _, line) in enumerate(lines) if "-->" in line]
    at = 0
    while at < len(lines):
        line = lines[at][2]
        if not line.strip() or _RULE.match(line):
            at += 1
            continue
        level, name, size = _heading(lines, at)
        if level:
            path = [(depth, text) for depth, text in path if depth < level] + [(level, name)]
            kind = "heading"
        else:
            kind, size = _extent(lines, at, closes)
        begin, end = lines[at][0], lines[at + size - 1][1]
        end = begin + len(raw[begin:end].rstrip())
        yield Block(kind, raw[begin:end], begin, end, " > ".join(text for _, text in path if text))
        at += size


_Lines = list[tuple[int, int, str]]


def _heading(lines: _Lines, at: int) -> tuple[int, str, int]:
    """Return (level, name, number of lines) of the heading that begins here; level 0 when none does."""
    line = lines[at][2]
    if len(line) > _LONGEST_HEADING:
        return 0, "", 0
    if atx := _ATX.match(line):
        return len(atx.group(1)), _closed(line[atx.end() :].strip()), 1
    under = lines[at + 1][2] if at + 1 < len(lines) else ""
    if _SETEXT.match(under) and not _ITEM.match(line) and not line.lstrip().startswith(("|", ">")):
        return (1 if "=" in under else 2), line.strip(), 2
    return 0, "", 0


def _closed(name: str) -> str:
    """Return a heading's text without the marks that may close it."""
    bare = name.rstrip("#")
    return bare.rstrip() if not bare or bare[-1:].isspace() else name


def _extent(lines: _Lines, at: int, closes: list[int]) -> tuple[str, int]:
    """Return the kind of the block that begins here and how many lines it takes."""
    first = lines[at][2]
    if fence := _FENCE.match(first):
        return "code", _fenced(lines, at, fence.group(1))
    if first.lstrip().startswith("<!--"):
        return "paragraph", _commented(closes, at)
    kind = "table" if first.lstrip().startswith("|") else "list" if _ITEM.match(first) else "paragraph"
    size = 1
    while at + size < len(lines):
        line = lines[at + size][2]
        if not line.strip():
            if kind != "list" or not _continues(lines, at + size + 1):
                break
        elif _heading(lines, at + size)[0] or _begins_another(line, kind):
            break
        size += 1
    return kind, size


def _begins_another(line: str, kind: str) -> bool:
    starts_table = kind != "table" and line.lstrip().startswith("|")
    return bool(starts_table or _FENCE.match(line) or (kind == "paragraph" and _ITEM.match(line)))


def _fenced(lines: _Lines, at: int, mark: str) -> int:
    closing = re.compile(r" {0,3}" + re.escape(mark) + re.escape(mark[0]) + r"*[ \t]*$")
    for next_at in range(at + 1, len(lines)):
        if closing.match(lines[next_at][2]):
            return next_at - at + 1
    return len(lines) - at


def _commented(closes: list[int], at: int) -> int:
    """Return the lines of a comment, blank ones among them; one that is never closed is a line of text."""
    closing = bisect_left(closes, at)
    return closes[closing] - at + 1 if closing < len(closes) else 1


def _continues(lines: _Lines, at: int) -> bool:
    """Whether the line after a blank one still belongs to the list: another item or an indented line."""
    return at < len(lines) and bool(_ITEM.match(lines[at][2]) or re.match(r"(?: {2,}|\t)\S", lines[at][2]))
