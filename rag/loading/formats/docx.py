"""DOCX through python-docx: headings, paragraphs, lists and tables of the body, notes at the end.

The paragraphs are found by walking the XML, because the library passes over what stands in content controls
and tracked insertions.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from rag.loading.base import DocumentAssembler, UnreadableFile
from rag.loading.formats.office import (
    broken_file,
    checked_archive,
    core_properties,
    heading_path,
    missing_reader,
)
from rag.types import Document

_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_TRANSPARENT = {f"{_W}{name}" for name in ("sdt", "sdtContent", "ins", "customXml", "smartTag", "moveTo")}
_FALLBACK = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"
_DEEPEST = 50
_WHITE = {"FFFFFF", "FEFEFE"}


def read(id: str, data: bytes) -> Iterator[Document]:
    """Yield the file as one document; hidden and white text is left out and counted."""
    file = checked_archive(data)
    try:
        import docx
    except ImportError as error:
        raise missing_reader("python-docx") from error
    try:
        source = docx.Document(file)
        body = _Body(_styles(source))
        body.take(source.element.body)
        for part in _notes(source.part):
            body.take(part)
        properties = core_properties(source.core_properties)
    except (MemoryError, UnreadableFile):
        raise
    except Exception as error:  # a parser of foreign files fails in many ways; each is one reason to skip
        raise broken_file("DOCX", error) from error
    title = str(properties.pop("title", "") or body.top)
    yield body.made.document(id, title, "docx", properties, body.hidden)


def _styles(source: Any) -> dict[str, tuple[int, bool]]:
    """Return the heading level (0: none) of every paragraph style, and whether it is a list's."""
    found = {}
    for style in source.styles:
        name = (style.name or "").lower()
        level = re.match(r"heading (\d)$", name)
        depth = int(level[1]) if level else 1 if name == "title" else 0
        found[style.style_id] = depth, name.startswith("list ") and name != "list paragraph"
    return found


class _Body:
    """Walks the body and puts its text together."""

    def __init__(self, styles: dict[str, tuple[int, bool]]) -> None:
        self.made = DocumentAssembler()
        self.hidden = 0
        self.top = ""
        self._styles = styles
        self._path: list[tuple[int, str]] = []
        self._items: list[str] = []

    def take(self, element: Any, depth: int = 0) -> None:
        """Take the paragraphs and tables below an element, in order."""
        if depth > _DEEPEST:
            raise UnreadableFile(f"its content is nested more than {_DEEPEST} deep")
        for child in element:
            if child.tag == f"{_W}p":
                self._paragraph(child)
            elif child.tag == f"{_W}tbl":
                self._end_list()
                self.made.add("table", "\n".join(self._rows(child)), self._heading())
            elif child.tag in _TRANSPARENT:
                self.take(child, depth + 1)
        if not depth:
            self._end_list()

    def _paragraph(self, element: Any) -> None:
        text = self._text(element).strip()
        if not text:
            return
        level, listed = self._kind(element)
        if listed:
            self._items.append(f"- {text}")
            return
        self._end_list()
        if level:
            self._path = heading_path(self._path, level, " ".join(text.split()))
            self.top = self.top or text
        self.made.add("heading" if level else "paragraph", text, self._heading())

    def _end_list(self) -> None:
        if self._items:
            self.made.add("list", "\n".join(self._items), self._heading())
            self._items = []

    def _heading(self) -> str:
        return " > ".join(name for _, name in self._path)

    def _kind(self, element: Any) -> tuple[int, bool]:
        style = element.find(f"{_W}pPr/{_W}pStyle")
        level, listed = self._styles.get(style.get(f"{_W}val") if style is not None else "", (0, False))
        outline = element.find(f"{_W}pPr/{_W}outlineLvl")
        if not level and outline is not None and (outline.get(f"{_W}val") or "").isdigit():
            level = min(9, int(outline.get(f"{_W}val")) + 1) % 10
        return level, not level and (listed or element.find(f"{_W}pPr/{_W}numPr") is not None)

    def _rows(self, table: Any) -> Iterator[str]:
        for row in _below(table, f"{_W}tr"):
            cells = [" ".join(self._text(cell).split()) for cell in _below(row, f"{_W}tc")]
            if any(cells):
                yield " | ".join(cells)

    def _text(self, element: Any) -> str:
        """Return the visible text below an element; deletions hold ``delText``, so they stay out."""
        parts: list[str] = []
        twice = {run for other in element.iter(_FALLBACK) for run in other.iter(f"{_W}r")}
        for run in element.iter(f"{_W}r"):
            if run in twice:
                continue
            text = "".join(_written(run))
            if _unseen(run):
                self.hidden += sum(not char.isspace() for char in text)
            else:
                parts.append(text)
            if run.getparent() is not None and run.getnext() is None and run.getparent().tag == f"{_W}p":
                parts.append("\n")
        return "".join(parts)


def _notes(main: Any) -> Iterator[Any]:
    """Yield every footnote and endnote."""
    from docx.oxml import parse_xml

    for relation in main.rels.values():
        if relation.reltype.endswith(("/footnotes", "/endnotes")) and not relation.is_external:
            yield from parse_xml(relation.target_part.blob)


def _below(element: Any, tag: str) -> Iterator[Any]:
    """Yield the children of one kind, content controls and insertions looked through."""
    for child in element:
        if child.tag == tag:
            yield child
        elif child.tag in _TRANSPARENT:
            yield from _below(child, tag)


def _written(run: Any) -> Iterator[str]:
    for part in run:
        if part.tag == f"{_W}t":
            yield part.text or ""
        elif part.tag in (f"{_W}tab", f"{_W}br", f"{_W}cr"):
            yield "\t" if part.tag == f"{_W}tab" else "\n"
        elif part.tag == f"{_W}noBreakHyphen":
            yield "-"


def _unseen(run: Any) -> bool:
    """Whether a run is marked hidden, white without a ground of its own, or about a point high."""
    format = run.find(f"{_W}rPr")
    if format is None:
        return False
    vanish, ink, size = (format.find(f"{_W}{name}") for name in ("vanish", "color", "sz"))
    grounded = any(format.find(f"{_W}{name}") is not None for name in ("shd", "highlight"))
    return bool(
        (vanish is not None and vanish.get(f"{_W}val") not in ("0", "false"))
        or (ink is not None and (ink.get(f"{_W}val") or "").upper() in _WHITE and not grounded)
        or (size is not None and (size.get(f"{_W}val") or "9") in ("0", "1", "2"))
    )
