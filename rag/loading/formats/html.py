"""HTML: the main text with its headings, lists and tables; positions are those in the raw file.

Running text as HTML shows it: white space collapsed, every character's raw place kept.

As much of CSS as it takes to notice text that is hidden: display, size, and ink in the paper's colour.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Mapping
from html.parser import HTMLParser
from typing import Any, NamedTuple

from rag.loading.base import UnreadableFile, make_document, title_from
from rag.loading.encoding import decode_bytes
from rag.loading.metadata import properties
from rag.loading.offsets import OffsetRun, Offsets
from rag.types import Block, Document

_WORD = re.compile(r"\S+")


class _Piece(NamedTuple):
    text: str
    raw: int
    verbatim: bool
    """Whether the text stands so in the raw file; else all of it has one place."""


class TextFlow:
    """The text of the block in hand, piece by piece."""

    def __init__(self) -> None:
        """Begin empty."""
        self._pieces: list[_Piece] = []
        self._visible = False

    def __bool__(self) -> bool:
        """Whether any character was written that is not white space."""
        return self._visible

    def text(self, text: str, raw: int) -> None:
        """Add text that stands in the raw file at ``raw``."""
        self._pieces.append(_Piece(text, raw, True))
        self._visible = self._visible or not text.isspace()

    def mark(self, text: str, raw: int, visible: bool = False) -> None:
        """Add what stands for a tag or a character reference at ``raw``: a line break, a bar, a sign."""
        self._pieces.append(_Piece(text, raw, False))
        self._visible = self._visible or (visible and not text.isspace())

    def taken(self, keep_space: bool) -> tuple[str, Offsets]:
        """Return the text and its places, and begin anew.

        Runs of white space become one blank and ends are trimmed; a line break from a tag stays one.
        """
        pieces, self._pieces, self._visible = self._pieces, [], False
        made = _Made()
        for piece in pieces:
            if keep_space:
                made.add(piece.text, piece.raw, piece.verbatim)
            elif piece.text == "\n" and not piece.verbatim:
                made.line(piece.raw)
            else:
                made.words(piece)
        return "".join(made.parts), Offsets(made.runs, made.length)


class _Made:
    """The collapsed text as it grows."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.runs: list[OffsetRun] = []
        self.length = 0
        self._gap: OffsetRun | None = None  # due before the next word: 0 blank, 1 line break; its raw place

    def add(self, text: str, raw: int, verbatim: bool = True) -> None:
        if verbatim:
            self.runs.append((self.length, raw))
        else:
            self.runs.extend((self.length + n, raw) for n in range(len(text)))
        self.parts.append(text)
        self.length += len(text)

    def line(self, raw: int) -> None:
        if self.length:
            self._gap = self._gap if self._gap and self._gap[0] else (1, raw)

    def words(self, piece: _Piece) -> None:
        at = 0
        for match in _WORD.finditer(piece.text):
            if match.start() > at:
                self._blank(piece.raw + (at if piece.verbatim else 0))
            self._due()
            raw = piece.raw + (match.start() if piece.verbatim else 0)
            self.add(match.group(), raw, piece.verbatim)
            at = match.end()
        if at < len(piece.text):
            self._blank(piece.raw + (at if piece.verbatim else 0))

    def _blank(self, raw: int) -> None:
        if self.length and self._gap is None:
            self._gap = (0, raw)

    def _due(self) -> None:
        if self._gap is not None:
            self.add("\n" if self._gap[0] else " ", self._gap[1])
            self._gap = None


CssDeclarations = Mapping[str, str]
_SIMPLE = re.compile(r"(\w+)?(?:([.#])([\w-]+))?$")
_MOST_RULES = 2_000
_KNOWN = {"display", "visibility", "opacity", "font-size", "color", "background", "background-color"}
_TINY = re.compile(r"(?:0*\.?0+|0*[01](?:\.\d+)?(?=px|pt))(?:px|pt|em|rem|%|vw|vh)?$")
_NAMED = {"white": "#ffffff", "black": "#000000", "transparent": ""}


class StyleSheet:
    """The rules of a page's <style> elements whose selector is one tag, class or id."""

    def __init__(self) -> None:
        """Begin without rules."""
        self._rules: dict[tuple[str, str], dict[str, str]] = {}

    def read(self, text: str) -> None:
        """Add the rules of a style sheet; what it does not understand it leaves."""
        text = re.sub(r"/\*.*?\*/", "", text[:500_000], flags=re.S)
        for selectors, declarations in _rules(text):
            style = parse_declarations(declarations)
            for name in selectors.split(",") if style else ():
                simple = _SIMPLE.fullmatch(name.strip().lower())
                if simple and len(self._rules) < _MOST_RULES:
                    key = (simple[1] or "", f"{simple[2] or ''}{simple[3] or ''}")
                    self._rules.setdefault(key, {}).update(style)

    def of(self, tag: str, attributes: Mapping[str, str]) -> dict[str, str]:
        """Return the style that the rules give an element; the more exact rule wins."""
        if not self._rules:
            return {}
        marks = [f".{name}" for name in attributes.get("class", "").lower().split()[:50]]
        marks.append(f"#{attributes.get('id', '').lower()}")
        found: dict[str, str] = {}
        for key in [(tag, ""), *(("", mark) for mark in marks), *((tag, mark) for mark in marks)]:
            found.update(self._rules.get(key, {}))
        return found


def _rules(text: str) -> Iterator[tuple[str, str]]:
    """Yield selectors and declarations of the outermost rules; what stands inside @media is left."""
    depth, begin, selectors = 0, 0, ""
    for brace in re.finditer(r"[{}]", text):
        part = text[begin : brace.start()]
        if brace.group() == "{":
            selectors = part if depth == 0 else selectors
            depth += 1
        else:
            if depth == 1 and "@" not in selectors:
                yield selectors, part
            depth = max(0, depth - 1)
        begin = brace.end()


def parse_declarations(text: str) -> dict[str, str]:
    """Return the declarations of a style attribute that matter here, in lower case."""
    pairs = (part.partition(":") for part in text[:5_000].lower().split(";"))
    return {
        name.strip(): value.replace("!important", "").strip()
        for name, _, value in pairs
        if name.strip() in _KNOWN
    }


def hides_element(style: CssDeclarations) -> bool:
    """Whether an element with this style shows nothing, whatever it inherits."""
    return bool(
        style.get("display") == "none"
        or style.get("visibility") in ("hidden", "collapse")
        or (_number(style.get("opacity", "1")) < 0.05)
        or _TINY.match(style.get("font-size", "medium"))
    )


def text_and_background(
    style: CssDeclarations, attributes: Mapping[str, str], ink: str, paper: str
) -> tuple[str, str]:
    """Return the element's text colour and background, inherited where it sets none."""
    given = style.get("color") or attributes.get("color", "")
    behind = style.get("background-color") or style.get("background", "") or attributes.get("bgcolor", "")
    return normalise_colour(given) or ink, normalise_colour(behind) or paper


def normalise_colour(text: str) -> str:
    """Return a colour as one spelling, #rrggbb where that is easy; empty when there is none."""
    text = text.strip().lower()
    if text in _NAMED:
        return {"#ffffff": "white", "#000000": "black"}.get(_NAMED[text], "")
    if triple := re.fullmatch(r"rgba?\((\d+)[ ,]+(\d+)[ ,]+(\d+)(?:[ ,/]+([\d.]+%?))?\)", text):
        text = "#" + "".join(f"{min(255, int(part[:4])):02x}" for part in triple.groups()[:3])
    if re.fullmatch(r"#[0-9a-f]{3}", text):
        text = "#" + "".join(char * 2 for char in text[1:])
    if re.fullmatch(r"#[0-9a-f]{6}", text):
        red, green, blue = (int(text[at : at + 2], 16) for at in (1, 3, 5))
        if min(red, green, blue) >= 250:
            return "white"
        return "black" if max(red, green, blue) <= 5 else text
    return text if re.fullmatch(r"[a-z]{3,20}", text) and text not in ("inherit", "initial", "none") else ""


def _number(text: str) -> float:
    try:
        return float(text.rstrip("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        return 1.0


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
    *_KIND,
    *_FRAME,
    *_MAIN,
}
_CHARSET = re.compile(
    rb"<(?:meta[^>]{0,200}charset|\?xml[^>]{0,200}encoding)\s*=\s*[\"']?([\w.:-]{1,40})", re.I
)


def read(id: str, data: bytes) -> Iterator[Document]:
    """Yield the page as one document; navigation and scripts are left out, hidden text is counted as well."""
    declared = _CHARSET.search(data[:2048])
    raw, meta = decode_bytes(data, declared.group(1).decode("ascii", "replace") if declared else "")
    page = parse_html(raw)
    blocks = page.main_blocks()
    top = next((b.text for b in blocks if b.kind == "heading"), "")
    title = " ".join(page.title.split()) or top or title_from(id)
    meta = {**properties(page.meta), **meta}
    yield make_document(id, title, raw, blocks, "html", meta, page.hidden)


def parse_html(raw: str) -> HtmlParser:
    """Return the parsed page of an HTML text; Unreadable when its tags are nested beyond reason."""
    page = HtmlParser(raw)
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


class HtmlParser(HTMLParser):
    """Collects text with its raw offsets into blocks as tags open and close."""

    def __init__(self, raw: str) -> None:
        """Take the text only to know its lines; ``feed`` parses it."""
        super().__init__(convert_charrefs=False)
        self.blocks: list[tuple[Block, bool]] = []
        self.title = ""
        self.meta: dict[str, Any] = {}
        self.hidden = 0
        self._line_starts = [0, *(match.end() for match in re.finditer("\n", raw))]
        self._sheet = StyleSheet()
        self._flow = TextFlow()
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
            raise UnreadableFile(f"tags nested more than {_DEEPEST} deep at line {self.getpos()[0]}")

    def _opened(self, tag: str, given: dict[str, str]) -> _Open:
        above = self._open[-1] if self._open else _Open("", False, False, "black", "white")
        style = {**self._sheet.of(tag, given), **parse_declarations(given.get("style", ""))}
        ink, paper = text_and_background(style, given, above.ink, above.paper)
        unseen = (
            "hidden" in given
            or hides_element(style)
            or (ink == paper and (above.ink, above.paper) != (ink, paper))
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
