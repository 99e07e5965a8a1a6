"""HTML: the main text with its headings, lists and tables; positions are those in the raw file.

:class:`HtmlParser` collects blocks as tags open and close, :class:`TextFlow` collapses white space as a
browser does and keeps the raw offset of every character, and :class:`StyleSheet` reads as much CSS as it
takes to notice hidden text: display, size, and text in the colour of its background.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Mapping
from html.parser import HTMLParser
from typing import Any, NamedTuple

from rag.loading.base import UnreadableFile, make_document, title_from, visible_length
from rag.loading.encoding import decode_bytes
from rag.loading.metadata import properties
from rag.loading.offsets import OffsetRun, Offsets
from rag.types import Block, Document

_WORD = re.compile(r"\S+")

CssDeclarations = Mapping[str, str]
_SIMPLE_SELECTOR = re.compile(r"(\w+)?(?:([.#])([\w-]+))?$")
_MAX_RULES = 2_000
_READ_PROPERTIES = {
    *("display", "visibility", "opacity", "font-size"),
    *("color", "background", "background-color"),
}
_TINY_SIZE = re.compile(r"(?:0*\.?0+|0*[01](?:\.\d+)?(?=px|pt))(?:px|pt|em|rem|%|vw|vh)?$")
_NAMED_COLOURS = {"white": "#ffffff", "black": "#000000", "transparent": ""}

_SKIPPED_TAGS = {
    *("script", "style", "template", "noscript", "svg"),
    *("iframe", "object", "select", "button", "head"),
}
_PAGE_FRAME_TAGS = {"nav", "footer", "aside", "header"}
_MAIN_TAGS = {"main", "article"}
_CELL_TAGS = {"td", "th"}
_IMPLIED_END_TAGS = {"p", "li", "dt", "dd", "tr", "td", "th", "option"}
_MAX_DEPTH = 500
_VOID_TAGS = {
    *("area", "base", "br", "col", "embed", "hr", "img"),
    *("input", "link", "meta", "source", "track", "wbr"),
}
_KIND_OF_TAG = {"li": "list", "dt": "list", "dd": "list", "pre": "code", "tr": "table"}
_BLOCK_TAGS = {
    *("p", "div", "section", "ul", "ol", "dl", "table", "thead", "tbody", "tfoot", "caption", "blockquote"),
    *("body", "figure", "figcaption", "form", "fieldset", "details", "summary", "address", "hr", "html"),
    *_KIND_OF_TAG,
    *_PAGE_FRAME_TAGS,
    *_MAIN_TAGS,
}
_DECLARED_CHARSET = re.compile(
    rb"<(?:meta[^>]{0,200}charset|\?xml[^>]{0,200}encoding)\s*=\s*[\"']?([\w.:-]{1,40})", re.I
)


def read(id: str, data: bytes) -> Iterator[Document]:
    """Yield the page as one document; navigation and scripts are left out, hidden text is left out and counted."""
    declared = _DECLARED_CHARSET.search(data[:2048])
    raw, meta = decode_bytes(data, declared.group(1).decode("ascii", "replace") if declared else "")
    page = parse_html(raw)
    blocks = page.main_blocks()
    top = next((b.text for b in blocks if b.kind == "heading"), "")
    title = " ".join(page.title.split()) or top or title_from(id)
    meta = {**properties(page.meta), **meta}
    yield make_document(id, title, raw, blocks, "html", meta, page.hidden)


def parse_html(raw: str) -> HtmlParser:
    """Return the parsed page of an HTML text; UnreadableFile when its tags are nested too deeply."""
    page = HtmlParser(raw)
    page.feed(raw)
    page.close()
    page.end_block()
    return page


class HtmlParser(HTMLParser):
    """Collects text with its raw offsets into blocks as tags open and close."""

    def __init__(self, raw: str) -> None:
        """Index the lines of the text; ``feed`` parses it."""
        super().__init__(convert_charrefs=False)
        self.blocks: list[tuple[Block, bool]] = []
        self.title = ""
        self.meta: dict[str, Any] = {}
        self.hidden = 0
        self._line_starts = [0, *(match.end() for match in re.finditer("\n", raw))]
        self._sheet = StyleSheet()
        self._flow = TextFlow()
        self._open: list[_OpenElement] = []
        self._path: list[tuple[int, str]] = []
        self._kind = "paragraph"

    def main_blocks(self) -> list[Block]:
        """Return the blocks of the main part, or all when none is marked, lists and tables joined."""
        return list(
            _join_lists_and_tables([b for b, main in self.blocks if main] or [b for b, _ in self.blocks])
        )

    def _offset(self) -> int:
        """Return the raw offset of the current tag or text; HTMLParser only knows line and column."""
        line, column = self.getpos()
        return self._line_starts[line - 1] + column

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        offset = self._offset()
        self._close_implied(tag)
        if tag == "br":
            self._flow.mark("\n", offset)
        if tag in _CELL_TAGS and self._flow:
            self._flow.mark(" | ", offset)
        if tag in _BLOCK_TAGS or _level(tag):
            self._break(tag)
            self._kind = _KIND_OF_TAG.get(tag, "heading" if _level(tag) else self._kind)
        attributes = {name: value or "" for name, value in attrs}
        if tag not in _VOID_TAGS:
            self._open.append(self._open_element(tag, attributes))
        self._read_metadata(tag, attributes)
        if len(self._open) > _MAX_DEPTH:
            raise UnreadableFile(f"tags nested more than {_MAX_DEPTH} deep at line {self.getpos()[0]}")

    def _open_element(self, tag: str, attributes: dict[str, str]) -> _OpenElement:
        """Return a newly opened element with its style, inherited from the one around it."""
        above = self._open[-1] if self._open else _OpenElement("", False, False, "black", "white")
        style = {**self._sheet.style_of(tag, attributes), **parse_declarations(attributes.get("style", ""))}
        colour, background = text_and_background(style, attributes, above.colour, above.background)
        # Text in the colour of its background is hidden, unless the element only inherits both.
        invisible = (
            "hidden" in attributes
            or hides_element(style)
            or (colour == background and (above.colour, above.background) != (colour, background))
        )
        skipped = above.skipped or tag in _SKIPPED_TAGS or attributes.get("aria-hidden") == "true"
        # Inside a hidden element text is hidden as well, unless that one was hidden by its colours alone and
        # this one sets others.
        same_colours = (colour, background) == (above.colour, above.background)
        hidden = invisible or (above.hidden and (same_colours or above.colour != above.background))
        return _OpenElement(tag, skipped, hidden, colour, background)

    def _read_metadata(self, tag: str, attributes: dict[str, str]) -> None:
        """Collect the metadata in <meta>, <html lang> and <time>."""
        if tag == "meta" and (name := attributes.get("name") or attributes.get("property")):
            self.meta.setdefault(name.lower(), attributes.get("content", "").strip())
        elif tag == "html" and attributes.get("lang"):
            self.meta.setdefault("language", attributes["lang"])
        elif tag == "time" and attributes.get("datetime"):
            self.meta.setdefault("date", attributes["datetime"])

    def _close_implied(self, tag: str) -> None:
        """Close an element whose end tag HTML makes optional: a <head> before the body, a <p> before the next <p>."""
        last = self._open[-1].tag if self._open else ""
        if (last == tag and tag in _IMPLIED_END_TAGS) or (
            last == "head" and (tag in _BLOCK_TAGS or _level(tag))
        ):
            self._open.pop()

    def _break(self, tag: str) -> None:
        """End the current block, or write a blank inside a table cell, where a row stays one block."""
        if tag not in ("tr", "table") and any(item.tag in _CELL_TAGS for item in self._open):
            self._flow.mark(" ", self._offset())
        else:
            self.end_block()

    def handle_endtag(self, tag: str) -> None:
        if tag in _BLOCK_TAGS or _level(tag):
            self._break(tag)
        if tag in _KIND_OF_TAG:
            self._kind = "paragraph"
        if any(item.tag == tag for item in self._open):
            while self._open.pop().tag != tag:
                pass

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in _VOID_TAGS:
            self.handle_endtag(tag)

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1].tag == "style":
            self._sheet.read(data)
        self._add_text(data, verbatim=bool(data))

    def handle_entityref(self, name: str) -> None:
        self._add_text(html.unescape(f"&{name};"), verbatim=False)

    def handle_charref(self, name: str) -> None:
        self._add_text(html.unescape(f"&#{name};"), verbatim=False)

    def handle_comment(self, data: str) -> None:
        self.hidden += visible_length(data)

    def _add_text(self, text: str, *, verbatim: bool) -> None:
        """Add text to the title, the hidden characters or the current block.

        Args:
            text: the text.
            verbatim: whether it is literally in the raw file; a character reference is not.
        """
        if any(item.tag == "title" for item in self._open[:3]):
            self.title += text
        elif self._open and self._open[-1].skipped:
            return
        elif self._open and self._open[-1].hidden:
            self.hidden += visible_length(text)
        elif verbatim:
            self._flow.text(text, self._offset())
        else:
            self._flow.mark(text, self._offset(), visible=True)

    def end_block(self) -> None:
        """Close the current block: collapse its white space, keep its offsets, and update the path of headings."""
        text, offsets = self._flow.take(keep_space=self._kind == "code")
        kind = self._kind
        self._kind = "paragraph"
        if not text.strip():
            self._kind = kind if kind in _KIND_OF_TAG.values() else "paragraph"
            return
        names = {item.tag for item in self._open}
        level = next((_level(item.tag) for item in reversed(self._open) if _level(item.tag)), 0)
        if names & _PAGE_FRAME_TAGS and not names & _MAIN_TAGS and not (level and "header" in names):
            return
        if level:
            self._path = [(depth, name) for depth, name in self._path if depth < level] + [(level, text)]
        kind = "heading" if level else "paragraph" if kind == "heading" else kind
        heading = " > ".join(name for _, name in self._path)
        block = Block(kind, text, offsets[0], offsets[-1] + 1, heading, offsets)
        self.blocks.append((block, bool(names & _MAIN_TAGS)))


class TextFlow:
    """The text of the current block, collected piece by piece."""

    def __init__(self) -> None:
        """Begin empty."""
        self._pieces: list[_TextPiece] = []
        self._visible = False

    def __bool__(self) -> bool:
        """Whether any character was written that is not white space."""
        return self._visible

    def text(self, text: str, raw: int) -> None:
        """Add text that is literally in the raw file at offset ``raw``."""
        self._pieces.append(_TextPiece(text, raw, True))
        self._visible = self._visible or not text.isspace()

    def mark(self, text: str, raw: int, visible: bool = False) -> None:
        """Add the text that replaces a tag or a character reference at ``raw``: a line break, a bar, a character."""
        self._pieces.append(_TextPiece(text, raw, False))
        self._visible = self._visible or (visible and not text.isspace())

    def take(self, keep_space: bool) -> tuple[str, Offsets]:
        """Return the text and the raw offsets of its characters, and begin a new block.

        Unless ``keep_space``, runs of white space become one blank and ends are trimmed; a line break from a
        tag stays.
        """
        pieces = self._pieces
        self._pieces = []
        self._visible = False
        collapsed = _CollapsedText()
        for piece in pieces:
            if keep_space:
                collapsed.add(piece.text, piece.raw, piece.verbatim)
            elif piece.text == "\n" and not piece.verbatim:
                collapsed.line(piece.raw)
            else:
                collapsed.words(piece)
        return "".join(collapsed.parts), Offsets(collapsed.runs, collapsed.length)


class StyleSheet:
    """The rules of a page's <style> elements whose selector is a single tag, class or id."""

    def __init__(self) -> None:
        """Begin without rules."""
        self._rules: dict[tuple[str, str], dict[str, str]] = {}

    def read(self, text: str) -> None:
        """Add the rules of a style sheet; other selectors and properties are ignored."""
        text = re.sub(r"/\*.*?\*/", "", text[:500_000], flags=re.S)
        for selectors, declarations in _rules(text):
            style = parse_declarations(declarations)
            for name in selectors.split(",") if style else ():
                simple = _SIMPLE_SELECTOR.fullmatch(name.strip().lower())
                if simple and len(self._rules) < _MAX_RULES:
                    key = (simple[1] or "", f"{simple[2] or ''}{simple[3] or ''}")
                    self._rules.setdefault(key, {}).update(style)

    def style_of(self, tag: str, attributes: Mapping[str, str]) -> dict[str, str]:
        """Return the style that the rules give an element; the more specific rule takes precedence."""
        if not self._rules:
            return {}
        selectors = [f".{name}" for name in attributes.get("class", "").lower().split()[:50]]
        selectors.append(f"#{attributes.get('id', '').lower()}")
        style: dict[str, str] = {}
        for key in [
            (tag, ""),
            *(("", selector) for selector in selectors),
            *((tag, selector) for selector in selectors),
        ]:
            style.update(self._rules.get(key, {}))
        return style


class _TextPiece(NamedTuple):
    text: str
    raw: int
    verbatim: bool
    """Whether the text is literally in the raw file; otherwise all its characters have one raw offset."""


class _CollapsedText:
    """Text with collapsed white space, and its runs of raw offsets."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.runs: list[OffsetRun] = []
        self.length = 0
        # What is due before the next word, and its raw offset: (0, raw) is a blank, (1, raw) a line break.
        self._gap: OffsetRun | None = None

    def add(self, text: str, raw: int, verbatim: bool = True) -> None:
        if verbatim:
            self.runs.append((self.length, raw))
        else:
            self.runs.extend((self.length + n, raw) for n in range(len(text)))
        self.parts.append(text)
        self.length += len(text)

    def line(self, raw: int) -> None:
        if self.length:
            self._gap = self._gap if self._gap and self._gap[0] else (1, raw)  # a line break replaces a blank

    def words(self, piece: _TextPiece) -> None:
        at = 0
        for match in _WORD.finditer(piece.text):
            if match.start() > at:
                self._blank(piece.raw + (at if piece.verbatim else 0))
            self._add_gap()
            raw = piece.raw + (match.start() if piece.verbatim else 0)
            self.add(match.group(), raw, piece.verbatim)
            at = match.end()
        if at < len(piece.text):
            self._blank(piece.raw + (at if piece.verbatim else 0))

    def _blank(self, raw: int) -> None:
        if self.length and self._gap is None:
            self._gap = (0, raw)

    def _add_gap(self) -> None:
        if self._gap is not None:
            self.add("\n" if self._gap[0] else " ", self._gap[1])
            self._gap = None


def _rules(text: str) -> Iterator[tuple[str, str]]:
    """Yield selectors and declarations of the outermost rules; rules inside @media are left out."""
    depth = 0
    begin = 0
    selectors = ""
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
    """Return the declarations of a style attribute that this module reads, in lower case."""
    pairs = (part.partition(":") for part in text[:5_000].lower().split(";"))
    return {
        name.strip(): value.replace("!important", "").strip()
        for name, _, value in pairs
        if name.strip() in _READ_PROPERTIES
    }


def hides_element(style: CssDeclarations) -> bool:
    """Return whether an element with this style shows nothing, whatever it inherits."""
    return bool(
        style.get("display") == "none"
        or style.get("visibility") in ("hidden", "collapse")
        or (_number(style.get("opacity", "1")) < 0.05)
        or _TINY_SIZE.match(style.get("font-size", "medium"))
    )


def text_and_background(
    style: CssDeclarations, attributes: Mapping[str, str], colour: str, background: str
) -> tuple[str, str]:
    """Return the element's text colour and background, inherited where it sets none."""
    own_colour = style.get("color") or attributes.get("color", "")
    own_background = (
        style.get("background-color") or style.get("background", "") or attributes.get("bgcolor", "")
    )
    return normalise_colour(own_colour) or colour, normalise_colour(own_background) or background


def normalise_colour(text: str) -> str:
    """Return a colour in one spelling: white, black, #rrggbb or its name; empty when there is none.

    Colours within five steps of white or black count as these.
    """
    text = text.strip().lower()
    if text in _NAMED_COLOURS:
        return {"#ffffff": "white", "#000000": "black"}.get(_NAMED_COLOURS[text], "")
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
    """Return an opacity as a share; 1 when it is not a number."""
    try:
        return float(text.rstrip("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        return 1.0


def _join_lists_and_tables(blocks: list[Block]) -> Iterator[Block]:
    """Join the items of one list and the rows of one table, so that they are split only when too long."""
    group: list[Block] = []
    for block in blocks:
        same = group and (block.kind, block.heading) == (group[0].kind, group[0].heading)
        if group and not (same and block.kind in ("list", "table")):
            yield _join(group)
            group = []
        group.append(block)
    if group:
        yield _join(group)


def _join(blocks: list[Block]) -> Block:
    """Return blocks as one, a line each; the newline between two has the raw offset of the second."""
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


class _OpenElement(NamedTuple):
    """An open element, with what its children inherit."""

    tag: str
    skipped: bool
    """Whether its text is left out without being counted: a script, the head, or anything inside them."""
    hidden: bool
    """Whether its text is not shown by the page."""
    colour: str
    background: str


def _level(tag: str) -> int:
    """Return the level of a heading tag, 0 for another tag."""
    return int(tag[1]) if len(tag) == 2 and tag[0] == "h" and tag[1] in "123456" else 0
