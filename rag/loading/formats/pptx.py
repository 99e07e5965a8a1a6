"""PPTX through python-pptx: a slide is a page; its title, texts, tables and speaker's notes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rag.loading.base import DocumentAssembler, UnreadableFile
from rag.loading.formats.office import broken_file, checked_archive, core_properties, missing_reader
from rag.types import Document

_A = "{http://schemas.openxmlformats.org/drawingml/2006/main}"
_P = "{http://schemas.openxmlformats.org/presentationml/2006/main}"
_DEEPEST = 20


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
            deck.slide(slide, number)
        properties = core_properties(source.core_properties)
    except (MemoryError, UnreadableFile):
        raise
    except Exception as error:  # a parser of foreign files fails in many ways; each is one reason to skip
        raise broken_file("PPTX", error) from error
    title = str(properties.pop("title", "") or deck.top)
    yield deck.made.document(id, title, "pptx", properties, deck.hidden)


class _Deck:
    """Puts the text of the slides together."""

    def __init__(self) -> None:
        self.made = DocumentAssembler()
        self.hidden = 0
        self.top = ""

    def slide(self, slide: Any, number: int) -> None:
        self.made.page()
        if slide._element.get("show") in ("0", "false"):
            self.hidden += sum(len((t.text or "").split()) for t in slide._element.iter(f"{_A}t"))
            return
        title = slide.shapes.title
        name = " ".join(self._text(title._element).split()) if title is not None else ""
        self.top = self.top or name
        path = name or f"Slide {number}"
        self.made.add("heading", name, path)
        for shape in slide.shapes:
            if title is None or shape.shape_id != title.shape_id:
                self._shape(shape, path)
        if slide.has_notes_slide and slide.notes_slide.notes_text_frame is not None:
            notes = slide.notes_slide.notes_text_frame
            self.made.add("paragraph", self._text(notes._element), f"{path} > Notes")

    def _shape(self, shape: Any, path: str, depth: int = 0) -> None:
        if depth > _DEEPEST:
            raise UnreadableFile(f"its shapes are nested more than {_DEEPEST} deep")
        inner = getattr(shape, "shapes", None)
        if inner is not None:
            for part in inner:
                self._shape(part, path, depth + 1)
        elif getattr(shape, "has_table", False):
            rows = [[self._text(cell._tc) for cell in row.cells] for row in shape.table.rows]
            lines = [" | ".join(" ".join(text.split()) for text in row) for row in rows if any(row)]
            self.made.add("table", "\n".join(lines), path)
        elif shape.has_text_frame:
            self.made.add("paragraph", self._text(shape.text_frame._element), path)

    def _text(self, element: Any) -> str:
        """Return the visible text below an element, a line for every paragraph."""
        lines = []
        for paragraph in element.iter(f"{_A}p"):
            parts = []
            for part in paragraph:
                written = part.find(f"{_A}t")
                text = (written.text or "") if written is not None else "\n" if part.tag == f"{_A}br" else ""
                if _white(part):
                    self.hidden += sum(not char.isspace() for char in text)
                else:
                    parts.append(text)
            lines.append("".join(parts))
        return "\n".join(lines).strip()


def _white(run: Any) -> bool:
    """Whether a run is written in white in a size that no dark slide would use: one point."""
    format = run.find(f"{_A}rPr")
    if format is None:
        return False
    size = format.get("sz") or "1800"
    return size.isdigit() and int(size) <= 100
