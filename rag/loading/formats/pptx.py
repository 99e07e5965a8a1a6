"""PPTX through python-pptx: each slide is a page with its title, texts, tables and speaker's notes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rag.loading.base import DocumentAssembler, UnreadableFile, visible_length
from rag.loading.formats.office import broken_file, checked_archive, core_properties, missing_reader
from rag.types import Document

_A = "{http://schemas.openxmlformats.org/drawingml/2006/main}"
_P = "{http://schemas.openxmlformats.org/presentationml/2006/main}"
_MAX_DEPTH = 20


def read(id: str, data: bytes) -> Iterator[Document]:
    """Yield the deck as one document; hidden slides and white text are left out and counted."""
    file = checked_archive(data)
    try:
        import pptx
    except ImportError as error:
        raise missing_reader("python-pptx") from error
    deck = _Deck()
    try:
        source = pptx.Presentation(file)
        for number, slide in enumerate(source.slides, 1):
            deck.add_slide(slide, number)
        properties = core_properties(source.core_properties)
    except (MemoryError, UnreadableFile):
        raise
    except Exception as error:  # the parser fails on broken files with many types of error
        raise broken_file("PPTX", error) from error
    title = str(properties.pop("title", "") or deck.first_title)
    yield deck.assembler.document(id, title, "pptx", properties, deck.hidden)


class _Deck:
    """Collects the text of the slides."""

    def __init__(self) -> None:
        self.assembler = DocumentAssembler()
        self.hidden = 0
        self.first_title = ""

    def add_slide(self, slide: Any, number: int) -> None:
        self.assembler.page()
        if slide._element.get("show") in ("0", "false"):
            self.hidden += sum(len((text.text or "").split()) for text in slide._element.iter(f"{_A}text"))
            return
        title = slide.shapes.title
        name = " ".join(self._text(title._element).split()) if title is not None else ""
        self.first_title = self.first_title or name
        path = name or f"Slide {number}"
        self.assembler.add("heading", name, path)
        for shape in slide.shapes:
            if title is None or shape.shape_id != title.shape_id:
                self._add_shape(shape, path)
        if slide.has_notes_slide and slide.notes_slide.notes_text_frame is not None:
            notes = slide.notes_slide.notes_text_frame
            self.assembler.add("paragraph", self._text(notes._element), f"{path} > Notes")

    def _add_shape(self, shape: Any, path: str, depth: int = 0) -> None:
        if depth > _MAX_DEPTH:
            raise UnreadableFile(f"its shapes are nested more than {_MAX_DEPTH} deep")
        inner = getattr(shape, "shapes", None)
        if inner is not None:
            for part in inner:
                self._add_shape(part, path, depth + 1)
        elif getattr(shape, "has_table", False):
            rows = [[self._text(cell._tc) for cell in row.cells] for row in shape.table.rows]
            lines = [" | ".join(" ".join(text.split()) for text in row) for row in rows if any(row)]
            self.assembler.add("table", "\n".join(lines), path)
        elif shape.has_text_frame:
            self.assembler.add("paragraph", self._text(shape.text_frame._element), path)

    def _text(self, element: Any) -> str:
        """Return the visible text below an element, a line for every paragraph."""
        lines = []
        for paragraph in element.iter(f"{_A}p"):
            parts = []
            for part in paragraph:
                text_element = part.find(f"{_A}t")
                text = (
                    (text_element.text or "")
                    if text_element is not None
                    else "\n"
                    if part.tag == f"{_A}br"
                    else ""
                )
                if _is_tiny(part):
                    self.hidden += visible_length(text)
                else:
                    parts.append(text)
            lines.append("".join(parts))
        return "\n".join(lines).strip()


def _is_tiny(run: Any) -> bool:
    """Return whether a run is at most one point high, which a reader does not see."""
    format = run.find(f"{_A}rPr")
    if format is None:
        return False
    size = format.get("sz") or "1800"  # in hundredths of a point
    return size.isdigit() and int(size) <= 100
