"""HTML: the main text with its headings, lists and tables; positions are those in the raw file."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any, NamedTuple

from rag.load.base import Unreadable, document, title_from
from rag.load.decode import decode
from rag.load.flow import Flow
from rag.load.matter import properties
from rag.load.offsets import Offsets
from rag.load.style import Sheet, hides, paints, parsed
from rag.types import Block, Document

_LEFT_OUT = {"script", "style", "template", "noscript", "svg", "iframe", "object", "select", "button", "head"}
_FRAME = {"nav", "footer", "aside", "header"}
_MAIN = {"main", "article"}
_CELL = {"td", "th"}
_IMPLIED_END = {"p", "li", "dt", "dd", "tr", "td", "th", "option"}
_DEEPEST = 500
_VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}
_KIND = {"li": "list", "dt": "list", "dd": "list", "pre": "code", "tr": "table"}
_BREAKS = {
    *("p", "div", "section", "ul", "ol", "dl", "table", "thead", "tbody", "tfoot", "caption", "blockquote"),
    *("body", "figure", "figcaption", "form", "fieldset", "details", "summary", "address", "hr", "html"),
    *_KIND, *_FRAME, *_MAIN,
}  # fmt: skip
_CHARSET = re.compile(
    rb"<(?:meta[^>]{0,200}charset|\?xml[^>]{0,200}encoding)\s*=\s*[\"']?([\w.:-]{1,40})", re.I
)


def read(id: str, data: bytes) -> Iterator[Document]:
    """Yield the page as one document; navigation and scripts are left out, hidden text is counted as well."""
    declared = _CHARSET.search(data[:2048])
    raw, meta = decode(data, declared.group(1).decode("ascii", "replace") if declared else "")
    page = parse(raw)
    blocks = page.main_blocks()
    top = next((b.text for b in blocks if b.kind == "heading"), "")
    title = " ".join(page.title.split()) or top or title_from(id)
    meta = {**properties(page.meta), **meta}
    yield document(id, title, raw, blocks, "html", meta, page.hidden)


def parse(raw: str) -> Page:
    """Return the parsed page of an HTML text; Unreadable when its tags are nested beyond reason."""
    page = Page(raw)
    page.feed(raw)
    page.close()
    page.end_block()
    return page


def _joined(blocks: list[Block]) -> Iterator[Block]:
    """Join the items of one list and the rows of one table, so that they are split only when too long."""
    held: list[Block] = []
    for block in blocks:
        same = held and (block.kind, block.heading) == (held[0].kind, held[0].heading)
        if held and not (same and block.kind in ("list", "table")):
            yield _one(held)
            held = []
        held.append(block)
    if held:
        yield _one(held)


def _one(blocks: list[Block]) -> Block:
    if len(blocks) == 1:
        return blocks[0]
    runs: list[tuple[int, int]] = []
    at = 0
    for block in blocks:
        if at:
            runs.append((at - 1, block.start))
        assert isinstance(block.offsets, Offsets)
        runs.extend((at + text, raw) for text, raw in block.offsets.runs)
        at += len(block.text) + 1
    text = "\n".join(block.text for block in blocks)
    first, last = blocks[0], blocks[-1]
    return Block(first.kind, text, first.start, last.end, first.heading, Offsets(runs, len(text)))


class _Open(NamedTuple):
    """An element that is open, with what it inherits."""

    tag: str
    out: bool
    """Not text: a script, the head, or anything inside them."""
    hidden: bool
    """Text that the page does not show."""
    ink: str
    paper: str


class Page(HTMLParser):
    """Collects text with its raw offsets into blocks as tags open and close."""

    def __init__(self, raw: str) -> None:
        """Take the text only to know its lines; ``feed`` parses it."""
        super().__init__(convert_charrefs=False)
        self.blocks: list[tuple[Block, bool]] = []
        self.title = ""
        self.meta: dict[str, Any] = {}
        self.hidden = 0
        self._line_starts = [0, *(match.end() for match in re.finditer("\n", raw))]
        self._sheet = Sheet()
        self._flow = Flow()
        self._open: list[_Open] = []
        self._path: list[tuple[int, str]] = []
        self._kind = "paragraph"

    def main_blocks(self) -> list[Block]:
        """Return the blocks of the main part, or all when none is marked, lists and tables joined."""
        return list(_joined([b for b, main in self.blocks if main] or [b for b, _ in self.blocks]))

    def _offset(self) -> int:
        line, column = self.getpos()
        return self._line_starts[line - 1] + column

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        here = self._offset()
        self._close_implied(tag)
        if tag == "br":
            self._flow.mark("\n", here)
        if tag in _CELL and self._flow:
            self._flow.mark(" | ", here)
        if tag in _BREAKS or _level(tag):
            self._break(tag)
            self._kind = _KIND.get(tag, "heading" if _level(tag) else self._kind)
        given = {name: value or "" for name, value in attrs}
        if tag not in _VOID:
            self._open.append(self._opened(tag, given))
        self._told(tag, given)
        if len(self._open) > _DEEPEST:
            raise Unreadable(f"tags nested more than {_DEEPEST} deep at line {self.getpos()[0]}")

    def _opened(self, tag: str, given: dict[str, str]) -> _Open:
        above = self._open[-1] if self._open else _Open("", False, False, "black", "white")
        style = {**self._sheet.of(tag, given), **parsed(given.get("style", ""))}
        ink, paper = paints(style, given, above.ink, above.paper)
        unseen = (
            "hidden" in given or hides(style) or (ink == paper and (above.ink, above.paper) != (ink, paper))
        )
        out = above.out or tag in _LEFT_OUT or given.get("aria-hidden") == "true"
        same_paint = (ink, paper) == (above.ink, above.paper)
        hidden = unseen or (above.hidden and (same_paint or above.ink != above.paper))
        return _Open(tag, out, hidden, ink, paper)

    def _told(self, tag: str, given: dict[str, str]) -> None:
        """Keep what the page says of itself."""
        if tag == "meta" and (name := given.get("name") or given.get("property")):
            self.meta.setdefault(name.lower(), given.get("content", "").strip())
        elif tag == "html" and given.get("lang"):
            self.meta.setdefault("language", given["lang"])
        elif tag == "time" and given.get("datetime"):
            self.meta.setdefault("date", given["datetime"])

    def _close_implied(self, tag: str) -> None:
        """Close what HTML lets authors leave open: a <head> before the body, a <p> before the next <p>."""
        last = self._open[-1].tag if self._open else ""
        if (last == tag and tag in _IMPLIED_END) or (last == "head" and (tag in _BREAKS or _level(tag))):
            self._open.pop()

    def _break(self, tag: str) -> None:
        if tag not in ("tr", "table") and any(item.tag in _CELL for item in self._open):
            self._flow.mark(" ", self._offset())
        else:
            self.end_block()

    def handle_endtag(self, tag: str) -> None:
        if tag in _BREAKS or _level(tag):
            self._break(tag)
        if tag in _KIND:
            self._kind = "paragraph"
        if any(item.tag == tag for item in self._open):
            while self._open.pop().tag != tag:
                pass

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in _VOID:
            self.handle_endtag(tag)

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1].tag == "style":
            self._sheet.read(data)
        self._keep(data, len(data))

    def handle_entityref(self, name: str) -> None:
        self._keep(html.unescape(f"&{name};"), 0)

    def handle_charref(self, name: str) -> None:
        self._keep(html.unescape(f"&#{name};"), 0)

    def handle_comment(self, data: str) -> None:
        self.hidden += sum(not char.isspace() for char in data)

    def _keep(self, text: str, verbatim: int) -> None:
        if any(item.tag == "title" for item in self._open[:3]):
            self.title += text
        elif self._open and self._open[-1].out:
            return
        elif self._open and self._open[-1].hidden:
            self.hidden += sum(not char.isspace() for char in text)
        elif verbatim:
            self._flow.text(text, self._offset())
        else:
            self._flow.mark(text, self._offset(), visible=True)

    def end_block(self) -> None:
        """Close the block in hand: collapse its white space, keep its offsets, follow the headings."""
        text, offsets = self._flow.taken(keep_space=self._kind == "code")
        kind, self._kind = self._kind, "paragraph"
        if not text.strip():
            self._kind = kind if kind in _KIND.values() else "paragraph"
            return
        names = {item.tag for item in self._open}
        level = next((_level(item.tag) for item in reversed(self._open) if _level(item.tag)), 0)
        if names & _FRAME and not names & _MAIN and not (level and "header" in names):
            return
        if level:
            self._path = [(depth, name) for depth, name in self._path if depth < level] + [(level, text)]
        kind = "heading" if level else "paragraph" if kind == "heading" else kind
        heading = " > ".join(name for _, name in self._path)
        block = Block(kind, text, offsets[0], offsets[-1] + 1, heading, offsets)
        self.blocks.append((block, bool(names & _MAIN)))


def _level(tag: str) -> int:
    return int(tag[1]) if len(tag) == 2 and tag[0] == "h" and tag[1] in "123456" else 0
