"""reStructuredText: sections, paragraphs, lists, tables and code, each an exact slice of the file.

Read line by line rather than with docutils, whose tree knows lines but no characters, and whose directives
open files.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from rag.loading.base import line_spans, make_document, title_from
from rag.loading.encoding import decode_bytes
from rag.loading.metadata import properties
from rag.types import Block, Document

_RULER = re.compile(r"([!-/:-@\[-`{-~])\1{2,}[ \t]*$")
_ITEM = re.compile(r"[ \t]*(?:[-*+•]|(?:\d{1,4}|[a-zA-Z#])[.)])[ \t]+\S")
_FIELD = re.compile(r":([\w -]{1,40}):[ \t]+(\S.*)$")
_DIRECTIVE = re.compile(r"\.\.[ \t]+(?:\|[^|]{1,80}\|[ \t]+)?([\w:.+-]{1,40})::")
_SILENT = re.compile(r"\.\.[ \t]+_|__[ \t]")
_KINDS = {
    **dict.fromkeys(("code", "code-block", "sourcecode", "literalinclude", "parsed-literal", "math"), "code"),
    **dict.fromkeys(("table", "list-table", "csv-table"), "table"),
}
_LONGEST_HEADING = 1_000

_Lines = list[tuple[int, int, str]]


def read(id: str, data: bytes) -> Iterator[Document]:
    """Yield the file as one document; comments are left out and counted as hidden text."""
    raw, meta = decode_bytes(data)
    lines = [(a, b, raw[a:b].rstrip()) for a, b in line_spans(raw)]
    walk = _Walk(raw, lines)
    blocks = list(walk.blocks())
    fields = properties(walk.fields)
    top = next((b.heading for b in blocks if b.kind == "heading"), "")
    title = str(fields.pop("title", "") or top or title_from(id))
    yield make_document(id, title, raw, blocks, "rst", {**fields, **meta}, walk.hidden)


class _Walk:
    """Goes through the lines, one block at a time."""

    def __init__(self, raw: str, lines: _Lines) -> None:
        self.hidden = 0
        self._begun = False
        self.fields: dict[str, str] = {}
        self._raw = raw
        self._lines = lines
        self._path: list[tuple[int, str]] = []
        self._styles: list[str] = []

    def blocks(self) -> Iterator[Block]:
        at, literal = 0, False
        while at < len(self._lines):
            line = self._lines[at][2]
            if not line:
                at += 1
                continue
            indented = line[0] in " \t"
            if not indented and (size := self._section(at)):
                yield self._block("heading", at, size)
                at, literal = at + size, False
                continue
            kind, size = ("code", self._indented(at)) if literal and indented else self._extent(at)
            if kind == "comment":
                text = "".join(self._lines[n][2] for n in range(at, at + size))
                self.hidden += max(0, sum(not char.isspace() for char in text) - 2)
            elif kind and not self._info(at, size):
                self._begun = True
                yield self._block(kind, at, size)
            literal = kind == "paragraph" and self._lines[at + size - 1][2].endswith("::")
            at += size

    def _block(self, kind: str, at: int, size: int) -> Block:
        start, end = self._lines[at][0], self._lines[at + size - 1][1]
        end = start + len(self._raw[start:end].rstrip())
        heading = " > ".join(name for _, name in self._path)
        return Block(kind, self._raw[start:end], start, end, heading)

    def _section(self, at: int) -> int:
        """Follow the section title that begins here and return its number of lines; 0 when none does."""
        first, second, third = (self._line(at + n) for n in range(3))
        if _RULER.match(first) and second.strip() and third == first and not _RULER.match(second):
            style, name, size = f"={first[0]}", second.strip(), 3
        elif first and _RULER.match(second) and len(second) >= min(len(first), 4) and not _RULER.match(first):
            style, name, size = second[0], first.strip(), 2
        else:
            return 0
        if len(name) > _LONGEST_HEADING:
            return 0
        if style not in self._styles:
            self._styles.append(style)
        level = self._styles.index(style)
        self._path = [(depth, text) for depth, text in self._path if depth < level] + [(level, name)]
        return size

    def _line(self, at: int) -> str:
        return self._lines[at][2] if at < len(self._lines) else ""

    def _extent(self, at: int) -> tuple[str, int]:
        """Return the kind of the block that begins here (empty: nothing to show) and its number of lines."""
        line = self._lines[at][2]
        if line == ".." or line.startswith(".. "):
            size = 1 + self._indented(at + 1)
            if directive := _DIRECTIVE.match(line):
                return _KINDS.get(directive[1].lower(), "paragraph"), size
            if line.startswith((".. [", ".. |")):
                return "paragraph", size
            return ("" if _SILENT.match(line) else "comment"), size
        if _SILENT.match(line) or (_RULER.match(line) and not self._line(at + 1)):
            return "", 1
        if line.lstrip().startswith("+-"):
            return "table", self._run(at)
        if re.match(r"=+(?: +=+)+$", line):
            return "table", self._ruled(at)
        return ("list", self._listed(at)) if _ITEM.match(line) else ("paragraph", self._run(at))

    def _run(self, at: int) -> int:
        """Count the lines up to the next blank one or the next section title."""
        size = 1
        while self._line(at + size) and not (_RULER.match(self._line(at + size + 1)) and size):
            size += 1
        return size

    def _ruled(self, at: int) -> int:
        """Count the lines of a simple table, which ends with a ruler before a blank line."""
        size = 1
        while at + size < len(self._lines):
            if not self._line(at + size) and self._line(at + size - 1)[:2] == "==" and size > 2:
                break
            size += 1
        return size

    def _indented(self, at: int) -> int:
        """Count the indented lines from here, blank ones between them included."""
        size = last = 0
        while at + size < len(self._lines) and (
            not self._line(at + size) or self._line(at + size)[0] in " \t"
        ):
            size += 1
            last = size if self._line(at + size - 1) else last
        return last

    def _listed(self, at: int) -> int:
        size = 1
        while at + size < len(self._lines):
            line, after = self._line(at + size), self._line(at + size + 1)
            goes_on = bool(after) and (bool(_ITEM.match(after)) or after[0] in " \t")
            if not line and not goes_on:
                break
            size += 1
        return size

    def _info(self, at: int, size: int) -> bool:
        """Take a list of fields above all text (``:date: 2026-05-01``) as metadata."""
        matches = [_FIELD.match(self._lines[n][2]) for n in range(at, at + size)]
        if self._begun or not all(matches):
            return False
        self.fields.update({m[1].lower(): m[2] for m in matches if m})
        return True
