"""As much of CSS as it takes to notice text that is hidden: display, size, and ink in the paper's colour."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

Style = Mapping[str, str]
_SIMPLE = re.compile(r"(\w+)?(?:([.#])([\w-]+))?$")
_MOST_RULES = 2_000
_KNOWN = {"display", "visibility", "opacity", "font-size", "color", "background", "background-color"}
_TINY = re.compile(r"(?:0*\.?0+|0*[01](?:\.\d+)?(?=px|pt))(?:px|pt|em|rem|%|vw|vh)?$")
_NAMED = {"white": "#ffffff", "black": "#000000", "transparent": ""}


class Sheet:
    """The rules of a page's <style> elements whose selector is one tag, class or id."""

    def __init__(self) -> None:
        """Begin without rules."""
        self._rules: dict[tuple[str, str], dict[str, str]] = {}

    def read(self, text: str) -> None:
        """Add the rules of a style sheet; what it does not understand it leaves."""
        text = re.sub(r"/\*.*?\*/", "", text[:500_000], flags=re.S)
        for selectors, declarations in _rules(text):
            style = parsed(declarations)
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


def parsed(text: str) -> dict[str, str]:
    """Return the declarations of a style attribute that matter here, in lower case."""
    pairs = (part.partition(":") for part in text[:5_000].lower().split(";"))
    return {
        name.strip(): value.replace("!important", "").strip()
        for name, _, value in pairs
        if name.strip() in _KNOWN
    }


def hides(style: Style) -> bool:
    """Whether an element with this style shows nothing, whatever it inherits."""
    return bool(
        style.get("display") == "none"
        or style.get("visibility") in ("hidden", "collapse")
        or (_number(style.get("opacity", "1")) < 0.05)
        or _TINY.match(style.get("font-size", "medium"))
    )


def paints(style: Style, attributes: Mapping[str, str], ink: str, paper: str) -> tuple[str, str]:
    """Return the element's text colour and background, inherited where it sets none."""
    given = style.get("color") or attributes.get("color", "")
    behind = style.get("background-color") or style.get("background", "") or attributes.get("bgcolor", "")
    return colour(given) or ink, colour(behind) or paper


def colour(text: str) -> str:
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
