"""DOCX through python-docx: headings, paragraphs, lists and tables of the body, notes at the end.

The paragraphs are found by walking the XML, because the library leaves out those in content controls and
tracked insertions.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from rag.loading.base import DocumentAssembler, UnreadableFile, visible_length
from rag.loading.formats.office import (
    broken_file,
    checked_archive,
    core_properties,
    heading_path,
    missing_reader,
)
from rag.types import Document

_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_CONTAINERS = {f"{_W}{name}" for name in ("sdt", "sdtContent", "ins", "customXml", "smartTag", "moveTo")}
_FALLBACK = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"
_MAX_DEPTH = 50
_WHITE_COLOURS = {"FFFFFF", "FEFEFE"}


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
        body.add_children(source.element.body)
        for part in _notes(source.part):
            body.add_children(part)
        properties = core_properties(source.core_properties)
    except (MemoryError, UnreadableFile):
        raise
    except Exception as error:  # the parser fails on broken files with many types of error
        raise broken_file("DOCX", error) from error
    title = str(properties.pop("title", "") or body.first_heading)
    yield body.assembler.document(id, title, "docx", properties, body.hidden)


def _styles(source: Any) -> dict[str, tuple[int, bool]]:
    """Return the heading level of every paragraph style (0 for none), and whether it is a list style."""
    styles = {}
    for style in source.styles:
        name = (style.name or "").lower()
        level = re.match(r"heading (\d)$", name)
        depth = int(level[1]) if level else 1 if name == "title" else 0
        styles[style.style_id] = depth, name.startswith("list ") and name != "list paragraph"
    return styles


class _Body:
    """Walks the XML of the body and collects its blocks."""

    def __init__(self, styles: dict[str, tuple[int, bool]]) -> None:
        self.assembler = DocumentAssembler()
        self.hidden = 0
        self.first_heading = ""
        self._styles = styles
        self._path: list[tuple[int, str]] = []
        self._items: list[str] = []

    def add_children(self, element: Any, depth: int = 0) -> None:
        """Add the paragraphs and tables below an element, in order."""
        if depth > _MAX_DEPTH:
            raise UnreadableFile(f"its content is nested more than {_MAX_DEPTH} deep")
        for child in element:
            if child.tag == f"{_W}p":
                self._paragraph(child)
            elif child.tag == f"{_W}tbl":
                self._end_list()
                self.assembler.add("table", "\n".join(self._rows(child)), self._heading())
            elif child.tag in _CONTAINERS:
                self.add_children(child, depth + 1)
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
            self.first_heading = self.first_heading or text
        self.assembler.add("heading" if level else "paragraph", text, self._heading())

    def _end_list(self) -> None:
        if self._items:
            self.assembler.add("list", "\n".join(self._items), self._heading())
            self._items = []

    def _heading(self) -> str:
        return " > ".join(name for _, name in self._path)

    def _kind(self, element: Any) -> tuple[int, bool]:
        """Return a paragraph's heading level (0 for none), and whether it is an item of a list."""
        style = element.find(f"{_W}pPr/{_W}pStyle")
        level, listed = self._styles.get(style.get(f"{_W}val") if style is not None else "", (0, False))
        outline = element.find(f"{_W}pPr/{_W}outlineLvl")
        if not level and outline is not None and (outline.get(f"{_W}val") or "").isdigit():
            # Outline levels 0 to 8 are headings, counted from 0 where heading levels count from 1; 9 is body text
            # (ECMA-376 part 1, 17.3.1.20).
            outline_level = int(outline.get(f"{_W}val"))
            level = outline_level + 1 if outline_level < 9 else 0
        return level, not level and (listed or element.find(f"{_W}pPr/{_W}numPr") is not None)

    def _rows(self, table: Any) -> Iterator[str]:
        """Yield the rows of a table, cells joined by a bar; empty rows are left out."""
        for row in _children(table, f"{_W}tr"):
            cells = [" ".join(self._text(cell).split()) for cell in _children(row, f"{_W}tc")]
            if any(cells):
                yield " | ".join(cells)

    def _text(self, element: Any) -> str:
        """Return the visible text below an element; deleted text is in ``delText`` and therefore not read."""
        parts: list[str] = []
        repeated = {run for other in element.iter(_FALLBACK) for run in other.iter(f"{_W}r")}
        for run in element.iter(f"{_W}r"):
            if run in repeated:  # the fallback form of a shape repeats the text of its first form
                continue
            text = "".join(_run_text(run))
            if _is_hidden(run):
                self.hidden += visible_length(text)
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


def _children(element: Any, tag: str) -> Iterator[Any]:
    """Yield the children with one tag, also those inside content controls and insertions."""
    for child in element:
        if child.tag == tag:
            yield child
        elif child.tag in _CONTAINERS:
            yield from _children(child, tag)


def _run_text(run: Any) -> Iterator[str]:
    for part in run:
        if part.tag == f"{_W}t":
            yield part.text or ""
        elif part.tag in (f"{_W}tab", f"{_W}br", f"{_W}cr"):
            yield "\t" if part.tag == f"{_W}tab" else "\n"
        elif part.tag == f"{_W}noBreakHyphen":
            yield "-"


def _is_hidden(run: Any) -> bool:
    """Return whether a run is marked hidden, white without a background of its own, or at most a point high."""
    format = run.find(f"{_W}rPr")
    if format is None:
        return False
    vanish, colour, size = (format.find(f"{_W}{name}") for name in ("vanish", "color", "sz"))
    has_background = any(format.find(f"{_W}{name}") is not None for name in ("shd", "highlight"))
    return bool(
        (vanish is not None and vanish.get(f"{_W}val") not in ("0", "false"))
        or (
            colour is not None
            and (colour.get(f"{_W}val") or "").upper() in _WHITE_COLOURS
            and not has_background
        )
        or (size is not None and (size.get(f"{_W}val") or "9") in ("0", "1", "2"))  # in half points
    )
