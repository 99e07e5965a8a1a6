"""HTML: the main text with its headings, lists and tables; positions are those in the raw file."""

from __future__ import annotations

import html
from collections.abc import Iterator
from html.parser import HTMLParser

from rag.load.base import Unreadable, decode, document, title_from
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


def read(id: str, data: bytes) -> Iterator[Document]:
    """Yield the page as one document; navigation, scripts and hidden parts are left out."""
    raw = decode(data)
    page = _Page(raw)
    page.feed(raw)
    page.close()
    page.end_block()
    blocks = [block for block, main in page.blocks if main] or [block for block, _ in page.blocks]
    top = next((b.text for b in blocks if b.kind == "heading"), "")
    yield document(id, " ".join(page.title.split()) or top or title_from(id), raw, _joined(blocks), "html")


def _joined(blocks: list[Block]) -> Iterator[Block]:
    """Join the items of one list and the rows of one table, so that they are split only when too long."""
    held: Block | None = None
    for block in blocks:
        same = held and block.kind == held.kind and block.heading == held.heading
        if held and same and block.kind in ("list", "table"):
            offsets = (*held.offsets, block.start, *block.offsets)
            held = Block(
                held.kind, f"{held.text}\n{block.text}", held.start, block.end, held.heading, offsets
            )
            continue
        if held:
            yield held
        held = block
    if held:
        yield held


class _Page(HTMLParser):
    """Collects characters with their raw offsets into blocks as tags open and close."""

    def __init__(self, raw: str) -> None:
        super().__init__(convert_charrefs=False)
        self.blocks: list[tuple[Block, bool]] = []
        self.title = ""
        self._line_starts = [0, *(i + 1 for i, c in enumerate(raw) if c == "\n")]
        self._chars: list[tuple[str, int, int]] = []
        self._open: list[tuple[str, bool]] = []
        self._path: list[tuple[int, str]] = []
        self._kind = "paragraph"

    def _offset(self) -> int:
        line, column = self.getpos()
        return self._line_starts[line - 1] + column

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        here = self._offset()
        self._close_implied(tag)
        if tag == "br":
            self._chars.append(("\n", here, here))
        if tag in _CELL and any(not char.isspace() for char, _, _ in self._chars):
            self._chars.extend((char, here, here) for char in " | ")
        if tag in _BREAKS or _level(tag):
            self._break(tag)
            self._kind = _KIND.get(tag, "heading" if _level(tag) else self._kind)
        if tag not in _VOID:
            given = dict(attrs)
            hidden = "hidden" in given or given.get("aria-hidden") == "true"
            self._open.append((tag, hidden or tag in _LEFT_OUT))
        if len(self._open) > _DEEPEST:
            raise Unreadable(f"tags nested more than {_DEEPEST} deep at line {self.getpos()[0]}")

    def _close_implied(self, tag: str) -> None:
        """Close what HTML lets authors leave open: a <head> before the body, a <p> before the next <p>."""
        last = self._open[-1][0] if self._open else ""
        if (last == tag and tag in _IMPLIED_END) or (last == "head" and (tag in _BREAKS or _level(tag))):
            self._open.pop()

    def _break(self, tag: str) -> None:
        if tag not in ("tr", "table") and any(name in _CELL for name, _ in self._open):
            self._chars.append((" ", self._offset(), self._offset()))
        else:
            self.end_block()

    def handle_endtag(self, tag: str) -> None:
        if tag in _BREAKS or _level(tag):
            self._break(tag)
        if tag in _KIND:
            self._kind = "paragraph"
        if any(name == tag for name, _ in self._open):
            while self._open.pop()[0] != tag:
                pass

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in _VOID:
            self.handle_endtag(tag)

    def handle_data(self, data: str) -> None:
        start = self._offset()
        self._keep((char, start + i, start + i + 1) for i, char in enumerate(data))

    def handle_entityref(self, name: str) -> None:
        self._reference(f"&{name};")

    def handle_charref(self, name: str) -> None:
        self._reference(f"&#{name};")

    def _reference(self, mark: str) -> None:
        start = self._offset()
        self._keep((char, start, start + len(mark)) for char in html.unescape(mark))

    def _keep(self, chars: Iterator[tuple[str, int, int]]) -> None:
        if any(name == "title" for name, _ in self._open[:3]):
            self.title += "".join(char for char, _, _ in chars)
        elif not any(hidden for _, hidden in self._open):
            self._chars.extend(chars)

    def end_block(self) -> None:
        """Close the block in hand: collapse its white space, keep its offsets, follow the headings."""
        chars = self._chars if self._kind == "code" else _collapsed(self._chars)
        self._chars = []
        text = "".join(char for char, _, _ in chars)
        kind, self._kind = self._kind, "paragraph"
        if not text.strip():
            self._kind = kind if kind in _KIND.values() else "paragraph"
            return
        names = {name for name, _ in self._open}
        level = next((_level(name) for name, _ in reversed(self._open) if _level(name)), 0)
        if names & _FRAME and not names & _MAIN and not (level and "header" in names):
            return
        if level:
            self._path = [(depth, name) for depth, name in self._path if depth < level] + [(level, text)]
        kind = "heading" if level else "paragraph" if kind == "heading" else kind
        heading = " > ".join(name for _, name in self._path)
        offsets = tuple(start for _, start, _ in chars)
        block = Block(kind, text, chars[0][1], chars[-1][2], heading, offsets)
        self.blocks.append((block, bool(names & _MAIN)))


def _collapsed(chars: list[tuple[str, int, int]]) -> list[tuple[str, int, int]]:
    """Turn runs of white space into one blank and trim the ends; a line break from <br> stays one."""
    kept: list[tuple[str, int, int]] = []
    for char, start, end in chars:
        if not char.isspace():
            kept.append((char, start, end))
        elif char == "\n" and start == end and kept:
            kept = kept[:-1] if kept[-1][0] == " " else kept
            kept.append(("\n", start, end))
        elif kept and not kept[-1][0].isspace():
            kept.append((" ", start, end))
    while kept and kept[-1][0].isspace():
        kept.pop()
    return kept


def _level(tag: str) -> int:
    return int(tag[1]) if len(tag) == 2 and tag[0] == "h" and tag[1] in "123456" else 0
