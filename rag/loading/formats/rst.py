"""reStructuredText: sections, paragraphs, lists, tables and code, each an exact slice of the file.

It is read line by line rather than with docutils, whose tree knows lines but no characters, and whose
directives open files.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from rag.loading.base import line_spans, make_document, title_from, visible_length
from rag.loading.encoding import decode_bytes
from rag.loading.metadata import properties
from rag.types import Block, Document

_UNDERLINE = re.compile(r"([!-/:-@\[-`{-~])\1{2,}[ \t]*$")
_LIST_ITEM = re.compile(r"[ \t]*(?:[-*+•]|(?:\d{1,4}|[a-zA-Z#])[.)])[ \t]+\S")
_FIELD = re.compile(r":([\w -]{1,40}):[ \t]+(\S.*)$")
_DIRECTIVE = re.compile(r"\.\.[ \t]+(?:\|[^|]{1,80}\|[ \t]+)?([\w:.+-]{1,40})::")
_INVISIBLE_MARKUP = re.compile(r"\.\.[ \t]+_|__[ \t]")
_KIND_OF_DIRECTIVE = {
    **dict.fromkeys(("code", "code-block", "sourcecode", "literalinclude", "parsed-literal", "math"), "code"),
    **dict.fromkeys(("table", "list-table", "csv-table"), "table"),
}
_MAX_HEADING_CHARS = 1_000

_Lines = list[tuple[int, int, str]]


def read(id: str, data: bytes) -> Iterator[Document]:
    """Yield the file as one document; comments are left out and counted as hidden text."""
    raw, meta = decode_bytes(data)
    lines = [(start, end, raw[start:end].rstrip()) for start, end in line_spans(raw)]
    walk = _RstWalk(raw, lines)
    blocks = list(walk.blocks())
    fields = properties(walk.fields)
    top = next((block.heading for block in blocks if block.kind == "heading"), "")
    title = str(fields.pop("title", "") or top or title_from(id))
    yield make_document(id, title, raw, blocks, "rst", {**fields, **meta}, walk.hidden)


class _RstWalk:
    """Reads the lines block by block."""

    def __init__(self, raw: str, lines: _Lines) -> None:
        self.hidden = 0
        self._text_begun = False
        self.fields: dict[str, str] = {}
        self._raw = raw
        self._lines = lines
        self._path: list[tuple[int, str]] = []
        self._styles: list[str] = []

    def blocks(self) -> Iterator[Block]:
        """Yield the blocks; fields and hidden characters are collected on the way."""
        at = 0
        literal = False  # whether the paragraph before ended with "::", so that an indented block is code
        while at < len(self._lines):
            line = self._lines[at][2]
            if not line:
                at += 1
                continue
            indented = line[0] in " \t"
            if not indented and (size := self._section(at)):
                yield self._block("heading", at, size)
                at += size
                literal = False
                continue
            kind, size = ("code", self._indented_size(at)) if literal and indented else self._extent(at)
            if kind == "comment":
                text = "".join(self._lines[n][2] for n in range(at, at + size))
                self.hidden += max(0, visible_length(text) - 2)  # without the two dots
            elif kind and not self._take_fields(at, size):
                self._text_begun = True
                yield self._block(kind, at, size)
            literal = kind == "paragraph" and self._lines[at + size - 1][2].endswith("::")
            at += size

    def _block(self, kind: str, at: int, size: int) -> Block:
        start, end = self._lines[at][0], self._lines[at + size - 1][1]
        end = start + len(self._raw[start:end].rstrip())
        heading = " > ".join(name for _, name in self._path)
        return Block(kind, self._raw[start:end], start, end, heading)

    def _section(self, at: int) -> int:
        """Add the section title that begins at line ``at`` to the path, and return its number of lines; 0 when none does."""
        first, second, third = (self._line_at(at + n) for n in range(3))
        if _UNDERLINE.match(first) and second.strip() and third == first and not _UNDERLINE.match(second):
            style, name, size = f"={first[0]}", second.strip(), 3
        elif (
            first
            and _UNDERLINE.match(second)
            and len(second) >= min(len(first), 4)
            and not _UNDERLINE.match(first)
        ):
            style, name, size = second[0], first.strip(), 2
        else:
            return 0
        if len(name) > _MAX_HEADING_CHARS:
            return 0
        # A style of underline has the level at which it first occurs.
        if style not in self._styles:
            self._styles.append(style)
        level = self._styles.index(style)
        self._path = [(depth, text) for depth, text in self._path if depth < level] + [(level, name)]
        return size

    def _line_at(self, at: int) -> str:
        return self._lines[at][2] if at < len(self._lines) else ""

    def _extent(self, at: int) -> tuple[str, int]:
        """Return the kind of the block that begins at line ``at`` (empty: not shown), and its number of lines."""
        line = self._lines[at][2]
        if line == ".." or line.startswith(".. "):
            size = 1 + self._indented_size(at + 1)
            if directive := _DIRECTIVE.match(line):
                return _KIND_OF_DIRECTIVE.get(directive[1].lower(), "paragraph"), size
            if line.startswith((".. [", ".. |")):
                return "paragraph", size
            return ("" if _INVISIBLE_MARKUP.match(line) else "comment"), size
        if _INVISIBLE_MARKUP.match(line) or (_UNDERLINE.match(line) and not self._line_at(at + 1)):
            return "", 1
        if line.lstrip().startswith("+-"):
            return "table", self._paragraph_size(at)
        if re.match(r"=+(?: +=+)+$", line):
            return "table", self._simple_table_size(at)
        return (
            ("list", self._list_size(at))
            if _LIST_ITEM.match(line)
            else ("paragraph", self._paragraph_size(at))
        )

    def _paragraph_size(self, at: int) -> int:
        """Count the lines up to the next blank one or the next section title."""
        size = 1
        while self._line_at(at + size) and not (_UNDERLINE.match(self._line_at(at + size + 1)) and size):
            size += 1
        return size

    def _simple_table_size(self, at: int) -> int:
        """Count the lines of a simple table, which ends with a line of "=" before a blank line."""
        size = 1
        while at + size < len(self._lines):
            if not self._line_at(at + size) and self._line_at(at + size - 1)[:2] == "==" and size > 2:
                break
            size += 1
        return size

    def _indented_size(self, at: int) -> int:
        """Count the indented lines from here, blank ones between them included."""
        size = last = 0  # ``last`` is the size without blank lines at the end
        while at + size < len(self._lines) and (
            not self._line_at(at + size) or self._line_at(at + size)[0] in " \t"
        ):
            size += 1
            last = size if self._line_at(at + size - 1) else last
        return last

    def _list_size(self, at: int) -> int:
        """Count the lines of a list; a blank line ends it unless an item or an indented line follows."""
        size = 1
        while at + size < len(self._lines):
            line, after = self._line_at(at + size), self._line_at(at + size + 1)
            continues = bool(after) and (bool(_LIST_ITEM.match(after)) or after[0] in " \t")
            if not line and not continues:
                break
            size += 1
        return size

    def _take_fields(self, at: int, size: int) -> bool:
        """Return whether the lines are a list of fields above all text (``:date: 2026-05-01``); it becomes metadata."""
        matches = [_FIELD.match(self._lines[n][2]) for n in range(at, at + size)]
        if self._text_begun or not all(matches):
            return False
        self.fields.update({match[1].lower(): match[2] for match in matches if match})
        return True
