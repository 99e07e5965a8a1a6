"""Python patterns of a check as patterns of the whole answer, in the syntax of Rust's regex crate.

:func:`whole_pattern` takes a pattern as :func:`re.search` applies it to an answer without white space around it, and returns
one that matches exactly the answers that pass, for a decoder that is held to it. Classes are written out because the two
engines differ in them: ``\\w`` of Python leaves out combining marks, ``\\s`` has the separators U+001C to U+001F.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from runners.plan.patterns import constants, parser

MAX_DIGITS = 15
"""Most digits that a repetition of digits without an upper bound may have: a model held to a number ends it."""
_SPACE = (
    r"\x{9}-\x{d}\x{1c}-\x{20}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}"
)
"""The characters that :meth:`str.strip` removes and ``\\s`` matches."""
_WORD = r"\p{L}\p{N}_"
_CATEGORIES = {
    constants.CATEGORY_DIGIT: r"\p{Nd}",
    constants.CATEGORY_NOT_DIGIT: r"\P{Nd}",
    constants.CATEGORY_WORD: _WORD,
    constants.CATEGORY_NOT_WORD: f"[^{_WORD}]",
    constants.CATEGORY_SPACE: _SPACE,
    constants.CATEGORY_NOT_SPACE: f"[^{_SPACE}]",
}
_WITH_SPACES = {
    constants.CATEGORY_SPACE,
    constants.CATEGORY_NOT_DIGIT,
    constants.CATEGORY_NOT_WORD,
}
_SPACE_CODES = tuple(code for code in range(0x3001) if chr(code).isspace())
_STARTS = (constants.AT_BEGINNING, constants.AT_BEGINNING_STRING)
_ENDS = (constants.AT_END, constants.AT_END_STRING)
_LINE_BREAK = 10


class NotWhole(ValueError):
    """A pattern that no pattern of the whole answer stands for; the message says why."""


@dataclass(frozen=True, slots=True)
class WholePattern:
    """A pattern of the whole answer."""

    pattern: str
    """In the syntax of Rust's regex crate."""
    tail: str = ""
    """Of a form of the last line: the line break before it and the fixed text it begins with."""
    opening: str = ""
    """The fixed text that every answer begins with."""


@dataclass(frozen=True, slots=True)
class _Char:
    """One character of a set."""

    text: str
    visible: str
    """The set without white space, the same text where it has none; "" where nothing is left."""
    literal: str = ""
    breaks: bool = False
    """Whether a line break is in it."""
    digits: bool = False
    """Whether it holds digits, commas and points alone."""


@dataclass(frozen=True, slots=True)
class _Sequence:
    parts: tuple[_Node, ...]


@dataclass(frozen=True, slots=True)
class _Choice:
    options: tuple[_Node, ...]


@dataclass(frozen=True, slots=True)
class _Repeat:
    part: _Node
    low: int
    high: int | None


_Node = _Char | _Sequence | _Choice | _Repeat
_ANY = _Char("(?s:.)", f"[^{_SPACE}]", breaks=True)


def whole_pattern(pattern: str) -> WholePattern:
    """Return the pattern of the answers that pass a check of this pattern.

    Repetitions of digits are bounded by MAX_DIGITS; apart from that, the patterns agree on every answer that is not empty,
    has no white space around it and no characters that are newer than Python's tables of them.

    Raises:
        NotWhole: the pattern is about a part of the answer or about the shape of free text, or has what cannot be followed
            from left to right: look-around, back references, flags.
    """
    parsed = parser.parse(pattern, re.DOTALL)
    if parsed.state.flags & ~(re.DOTALL | re.UNICODE | re.VERBOSE):
        raise NotWhole("it has flags, such as (?i)")
    tokens = list(parsed)
    last_line = _starts_at_line(tokens)
    started = tokens[1:] if last_line else _without_anchor(tokens, 0, _STARTS)
    whole = None if started is None else _without_anchor(started, -1, _ENDS)
    if whole is None:
        raise NotWhole("it is about a part of the answer")
    node = _sequence(whole)
    if _is_free_text(node):
        raise NotWhole("it is about the shape of free text")
    tail = ""
    if last_line:
        tail = "\n" + _fixed_beginning(node)
        before = _Sequence((_Repeat(_ANY, 0, None), _character(_LINE_BREAK)))
        node = _Sequence((_Repeat(before, 0, 1), node))
    opening = _fixed_beginning(node)
    for last in (True, False):
        edged = _visible_edge(node, last)
        if edged is None:
            raise NotWhole("no answer but white space passes it")
        node = edged
    return WholePattern(_text(node), tail, opening)


def _starts_at_line(tokens: list[Any]) -> bool:
    """Whether a pattern begins with ``(?:^|\\n)``."""
    if not tokens or tokens[0][0] is not constants.BRANCH:
        return False
    options = [list(option) for option in tokens[0][1][1]]
    return len(options) == 2 and all(
        option in ([(constants.AT, constants.AT_BEGINNING)], [(constants.LITERAL, _LINE_BREAK)])
        for option in options
    )


def _without_anchor(tokens: list[Any], place: int, anchors: tuple[Any, ...]) -> list[Any] | None:
    """Return the tokens without the anchors at one end, in each alternative; None where one lacks them."""
    if not tokens:
        return None
    operator, argument = tokens[place]
    if operator is constants.AT and argument in anchors:
        rest = tokens[1:] if place == 0 else tokens[:-1]
        again = _without_anchor(rest, place, anchors) if rest and rest[place][0] is constants.AT else None
        return rest if again is None else again
    if operator is constants.BRANCH:
        options = [_without_anchor(list(option), place, anchors) for option in argument[1]]
        changed: Any = None if None in options else (operator, (argument[0], options))
    elif operator is constants.SUBPATTERN:
        inner = _without_anchor(list(argument[-1]), place, anchors)
        changed = None if inner is None else (operator, (*argument[:-1], inner))
    else:
        return None
    if changed is None:
        return None
    return [changed, *tokens[1:]] if place == 0 else [*tokens[:-1], changed]


def _sequence(tokens: Iterable[Any]) -> _Node:
    return _Sequence(tuple(_node(operator, argument) for operator, argument in tokens))


def _node(operator: Any, argument: Any) -> _Node:
    """Return the node of one token of the parser; NotWhole for one that has none."""
    if operator is constants.LITERAL:
        return _character(argument)
    if operator is constants.NOT_LITERAL:
        return _set([(constants.NEGATE, None), (constants.LITERAL, argument)])
    if operator is constants.ANY:
        return _ANY
    if operator is constants.IN:
        return _set(argument)
    if operator in (constants.MAX_REPEAT, constants.MIN_REPEAT):
        low, high, inner = argument
        part = _sequence(inner)
        bound = None if high is constants.MAXREPEAT else int(high)
        if bound is None and _is_of_digits(part):
            bound = max(int(low), MAX_DIGITS)
        return _Repeat(part, int(low), bound)
    if operator is constants.SUBPATTERN:
        _, added, removed, inner = argument
        if added or removed:
            raise NotWhole("it has flags, such as (?i)")
        return _sequence(inner)
    if operator is constants.BRANCH:
        return _Choice(tuple(_sequence(option) for option in argument[1]))
    if operator in (constants.ASSERT, constants.ASSERT_NOT):
        raise NotWhole("it looks ahead or behind")
    if operator is constants.AT:
        raise NotWhole("it has an anchor or a word boundary inside")
    raise NotWhole("it refers back to a group or forbids to try again")


def _character(code: int) -> _Char:
    character = chr(code)
    text = character if character.isascii() and character.isalnum() else _code(code)
    return _Char(text, "" if character.isspace() else text, character, code == _LINE_BREAK)


def _code(code: int) -> str:
    if 0xD800 <= code < 0xE000:
        raise NotWhole("it has half of a surrogate pair")
    return rf"\x{{{code:x}}}"


def _set(members: Iterable[Any]) -> _Char:
    """Return a set of characters."""
    parts, negated, digits, blank = [], False, True, True
    spaces: set[int] = set()
    for operator, argument in members:
        if operator is constants.NEGATE:
            negated = True
        elif operator is constants.LITERAL:
            parts.append(_code(argument))
            spaces.update({argument}.intersection(_SPACE_CODES))
            blank &= argument in _SPACE_CODES
            digits &= chr(argument) in "0123456789,."
        elif operator is constants.RANGE:
            low, high = argument
            parts.append(f"{_code(low)}-{_code(high)}")
            spaces.update(code for code in _SPACE_CODES if low <= code <= high)
            blank = False
            digits &= ord("0") <= low and high <= ord("9")
        else:
            parts.append(_CATEGORIES[argument])
            spaces.update(_SPACE_CODES if argument in _WITH_SPACES else ())
            blank &= argument is constants.CATEGORY_SPACE
            digits &= argument is constants.CATEGORY_DIGIT
    blank &= not negated
    if negated:
        spaces = set(_SPACE_CODES) - spaces
    text = f"[{'^' * negated}{''.join(parts)}]"
    visible = "" if blank else f"[{text}&&[^{_SPACE}]]" if spaces else text
    return _Char(text, visible, breaks=_LINE_BREAK in spaces, digits=digits and not negated)


def _is_of_digits(node: _Node) -> bool:
    if isinstance(node, _Sequence) and len(node.parts) == 1:
        return _is_of_digits(node.parts[0])
    return isinstance(node, _Char) and node.digits


def _is_free_text(node: _Node) -> bool:
    """Whether a set with line breaks is repeated without end."""
    if isinstance(node, _Repeat):
        part = node.part
        while isinstance(part, _Sequence) and len(part.parts) == 1:
            part = part.parts[0]
        if node.high is None and isinstance(part, _Char) and not part.literal and part.breaks:
            return True
        return _is_free_text(part)
    return any(_is_free_text(part) for part in _inner(node))


def _inner(node: _Node) -> tuple[_Node, ...]:
    if isinstance(node, _Sequence):
        return node.parts
    return node.options if isinstance(node, _Choice) else ()


def _fixed_beginning(node: _Node) -> str:
    """Return the text that everything of a node begins with, as far as it is a sequence of single characters."""
    text = ""
    for part in _inner(node) if isinstance(node, _Sequence) else (node,):
        if not isinstance(part, _Char) or not part.literal:
            break
        text += part.literal
    return text


def _may_be_empty(node: _Node) -> bool:
    if isinstance(node, _Repeat):
        return node.low == 0 or _may_be_empty(node.part)
    combine: Callable[[Iterable[bool]], bool] = all if isinstance(node, _Sequence) else any
    return not isinstance(node, _Char) and combine(_may_be_empty(part) for part in _inner(node))


def _has_visible_edge(node: _Node, last: bool) -> bool:
    """Whether no text of a node ends (or begins) with white space."""
    if isinstance(node, _Char):
        return node.visible == node.text
    if isinstance(node, _Repeat):
        return _has_visible_edge(node.part, last)
    if isinstance(node, _Choice):
        return all(_has_visible_edge(option, last) for option in node.options)
    for part in reversed(node.parts) if last else node.parts:
        if not _has_visible_edge(part, last):
            return False
        if not _may_be_empty(part):
            break
    return True


def _visible_edge(node: _Node, last: bool) -> _Node | None:
    """Return the node of the texts that are not empty and end (or begin) without white space; None where there is none."""
    if not _may_be_empty(node) and _has_visible_edge(node, last):
        return node
    if isinstance(node, _Char):
        return _Char(node.visible, node.visible, node.literal) if node.visible else None
    if isinstance(node, _Choice):
        return _choice(_visible_edge(option, last) for option in node.options)
    if isinstance(node, _Repeat):
        edge = _visible_edge(node.part, last)
        if edge is None or node.high == 0:
            return None
        rest = _Repeat(node.part, max(node.low - 1, 0), None if node.high is None else node.high - 1)
        return _Sequence((rest, edge) if last else (edge, rest))
    options: list[_Node | None] = []
    parts = node.parts
    while parts:
        edge = _visible_edge(parts[-1] if last else parts[0], last)
        rest_parts = parts[:-1] if last else parts[1:]
        if edge is not None:
            options.append(_Sequence((*rest_parts, edge) if last else (edge, *rest_parts)))
        if not _may_be_empty(parts[-1] if last else parts[0]):
            break
        parts = rest_parts
    return _choice(options)


def _choice(options: Iterable[_Node | None]) -> _Node | None:
    left = tuple(option for option in options if option is not None)
    return left[0] if len(left) == 1 else _Choice(left) if left else None


def _text(node: _Node) -> str:
    """Return a node in Rust's syntax."""
    if isinstance(node, _Char):
        return node.text
    if isinstance(node, _Sequence):
        return "".join(map(_text, node.parts))
    if isinstance(node, _Choice):
        return f"(?:{'|'.join(map(_text, node.options))})"
    if node.high == 0:
        return ""
    part = _text(node.part)
    inner = node.part
    while isinstance(inner, _Sequence) and len(inner.parts) == 1:
        inner = inner.parts[0]
    single = part if isinstance(inner, _Char | _Choice) else f"(?:{part})"
    bounds = {(0, None): "*", (1, None): "+", (0, 1): "?", (1, 1): ""}
    exactly = f"{{{node.low}}}" if node.low == node.high else f"{{{node.low},{node.high or ''}}}"
    return single + bounds.get((node.low, node.high), exactly)
