"""The regular expressions of a plan's checks, searched as :mod:`re` searches them, but under a time limit.

A plan may come from somebody else, and :mod:`re` can take hours for 60 characters. :func:`compile_pattern` reads a pattern
by the parser of :mod:`re` and hands it to the package ``regex``, which takes a limit, in a form in which both agree: classes
are written out, because ``\\w`` there has combining marks too and ``\\s`` lacks U+001C to U+001F, and everything else is
escaped, because ``{e}`` and ``[[:alpha:]]`` mean something there. They differ in ``(?i)`` of the Turkish dotless i alone,
and in characters that one of them does not know yet.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import regex

from rag.errors import BadInput

try:  # The parser of `re` is the only one that reads a pattern just as `re` does; its name is another one per version.
    import re._constants as constants  # type: ignore[import-not-found, unused-ignore]
    import re._parser as parser  # type: ignore[import-not-found, unused-ignore]
except ImportError:  # pragma: no cover
    import sre_constants as constants
    import sre_parse as parser

SECONDS = 1.0
"""Longest search for one pattern in one text, in processor seconds of this process."""
_SHOWN = 100
"""Characters of a pattern that an error shows."""
_LAST = 0x10FFFF
_SPACES = (
    *((0x9, 0xD), (0x1C, 0x20), (0x85, 0x85), (0xA0, 0xA0), (0x1680, 0x1680), (0x2000, 0x200A)),
    *((0x2028, 0x2029), (0x202F, 0x202F), (0x205F, 0x205F), (0x3000, 0x3000)),
)
"""What `\\s` matches, as ranges."""
_ASCII_WORD = ((0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A))
_CONNECTORS = ((0x203F, 0x2040), (0x2054, 0x2054), (0xFE33, 0xFE34), (0xFE4D, 0xFE4F), (0xFF3F, 0xFF3F))
"""Of the category Pc without the underscore, as ranges."""


def _ranges(ranges: Iterable[tuple[int, int]]) -> str:
    return "".join(f"{_char(low)}-{_char(high)}" for low, high in ranges)


def _others(ranges: Iterable[tuple[int, int]]) -> str:
    """Return the ranges of all other characters."""
    begin, parts = 0, []
    for low, high in ranges:
        parts += [(begin, low - 1)] if begin < low else []
        begin = high + 1
    return _ranges([*parts, (begin, _LAST)])


def _char(code: int) -> str:
    return rf"\U{code:08x}"


_CATEGORIES = {
    constants.CATEGORY_DIGIT: r"\p{Nd}",
    constants.CATEGORY_NOT_DIGIT: r"\P{Nd}",
    constants.CATEGORY_WORD: r"\p{L}\p{N}_",
    constants.CATEGORY_NOT_WORD: r"\p{M}\p{S}\p{Z}\p{C}\p{Pd}\p{Ps}\p{Pe}\p{Pi}\p{Pf}\p{Po}"
    + _ranges(_CONNECTORS),
    constants.CATEGORY_SPACE: _ranges(_SPACES),
    constants.CATEGORY_NOT_SPACE: _others(_SPACES),
}
_ASCII_CATEGORIES = {
    constants.CATEGORY_DIGIT: "0-9",
    constants.CATEGORY_NOT_DIGIT: _others([(0x30, 0x39)]),
    constants.CATEGORY_WORD: _ranges(_ASCII_WORD),
    constants.CATEGORY_NOT_WORD: _others(_ASCII_WORD),
    constants.CATEGORY_SPACE: _ranges([(0x9, 0xD), (0x20, 0x20)]),
    constants.CATEGORY_NOT_SPACE: _others([(0x9, 0xD), (0x20, 0x20)]),
}
"""The members of a set that a class stands for, with the flag ``(?a)``."""
_ANCHORS = {
    constants.AT_BEGINNING: "^",
    constants.AT_BEGINNING_STRING: r"\A",
    constants.AT_END: "$",
    constants.AT_END_STRING: r"\Z",
}
_LOOKS = {
    (constants.ASSERT, 1): "?=",
    (constants.ASSERT, -1): "?<=",
    (constants.ASSERT_NOT, 1): "?!",
    (constants.ASSERT_NOT, -1): "?<!",
}
_REPEATS = {
    constants.MAX_REPEAT: "",
    constants.MIN_REPEAT: "?",
    getattr(constants, "POSSESSIVE_REPEAT", None): "+",
}
_NOT_EMPTY = "" if re.search(r"\B", "") else r"(?!\A\Z)"
"""An empty text has no place that is no boundary before Python 3.14."""
_SCOPED = ((re.IGNORECASE, "i"), (re.MULTILINE, "m"), (re.DOTALL, "s"))


@dataclass(frozen=True, slots=True)
class TimedPattern:
    """A compiled pattern whose searches end."""

    pattern: str
    compiled: regex.Pattern[str]

    @property
    def groups(self) -> frozenset[str]:
        """The names of its groups."""
        return frozenset(self.compiled.groupindex)

    def search(self, text: str, check: str = "") -> regex.Match[str] | None:
        """Return the first match in a text; None for none.

        Args:
            text: the text.
            check: name of the check that the pattern is of, for the error.

        Raises:
            BadInput: the search takes longer than `SECONDS`.
        """
        try:
            return self.compiled.search(text, timeout=SECONDS)
        except TimeoutError:
            shown = self.pattern if len(self.pattern) <= _SHOWN else f"{self.pattern[:_SHOWN]}..."
            named = f' of the check "{check}"' if check and check != self.pattern else ""
            raise BadInput(
                f"the pattern {shown!r}{named} takes longer than {SECONDS:g} s to search a text of {len(text)} characters",
                "write it without a repetition inside a repetition, such as (a+)+, in the plan's checks",
            ) from None


@lru_cache(maxsize=256)
def compile_pattern(pattern: str, flags: int = re.DOTALL) -> TimedPattern:
    """Compile a pattern as :func:`re.compile` does with these flags.

    Raises:
        ValueError: it is no regular expression of :mod:`re`.
    """
    try:
        parsed = parser.parse(pattern, flags)
        names = {number: name for name, number in parsed.state.groupdict.items()}
        translated = _Translation(names).sequence(parsed, parsed.state.flags)
        return TimedPattern(pattern, regex.compile(translated, regex.VERSION0))
    except (re.error, regex.error, OverflowError) as error:
        raise ValueError(f"not a regular expression: {error}") from None
    except RecursionError:
        raise ValueError("not a regular expression: it is nested too deep") from None


class _Translation:
    """The tokens of the parser of `re`, written as a pattern of the package `regex`."""

    def __init__(self, names: dict[int, str]) -> None:
        self._names = names

    def sequence(self, tokens: Iterable[Any], flags: int) -> str:
        """Return the pattern of tokens with the flags that hold there."""
        return "".join(self._token(operator, argument, flags) for operator, argument in tokens)

    def _token(self, operator: Any, argument: Any, flags: int) -> str:
        if operator in (constants.LITERAL, constants.NOT_LITERAL):
            negated = "^" if operator is constants.NOT_LITERAL else ""
            return self._scoped(f"[{negated}{_char(argument)}]", flags)
        if operator is constants.ANY:
            return self._scoped(".", flags)
        if operator is constants.IN:
            return self._scoped(f"[{self._members(argument, flags)}]", flags)
        if operator is constants.AT:
            return self._anchor(argument, flags)
        if operator in _REPEATS:
            low, high, inner = argument
            most = "" if high is constants.MAXREPEAT else int(high)
            return f"(?:{self.sequence(inner, flags)}){{{int(low)},{most}}}{_REPEATS[operator]}"
        if operator is constants.BRANCH:
            return f"(?:{'|'.join(self.sequence(option, flags) for option in argument[1])})"
        if operator is constants.SUBPATTERN:
            number, added, removed, inner = argument
            return f"({self._opening(number)}{self.sequence(inner, (flags | added) & ~removed)})"
        return self._other(operator, argument, flags)

    def _other(self, operator: Any, argument: Any, flags: int) -> str:
        if operator in (constants.ASSERT, constants.ASSERT_NOT):
            direction, inner = argument
            return f"({_LOOKS[operator, direction]}{self.sequence(inner, flags)})"
        if operator is constants.GROUPREF:
            return self._scoped(rf"\{argument}", flags)
        if operator is constants.GROUPREF_EXISTS:
            number, present, absent = argument
            otherwise = f"|{self.sequence(absent, flags)}" if absent is not None else ""
            return f"(?({number}){self.sequence(present, flags)}{otherwise})"
        if operator is getattr(constants, "ATOMIC_GROUP", None):
            return f"(?>{self.sequence(argument, flags)})"
        if operator is constants.FAILURE:
            return "(?!)"
        raise ValueError(f"{operator} is not known")

    def _opening(self, number: int | None) -> str:
        name = self._names.get(number or 0)
        return "?:" if number is None else f"?P<{name}>" if name else ""

    def _scoped(self, text: str, flags: int) -> str:
        """Return what a character stands for with the flags that hold at its place."""
        names = "".join(name for flag, name in _SCOPED if flags & flag)
        return f"(?{names}:{text})" if names else f"(?:{text})"

    def _members(self, members: Iterable[Any], flags: int) -> str:
        categories = _ASCII_CATEGORIES if flags & re.ASCII else _CATEGORIES
        parts = []
        for operator, argument in members:
            if operator is constants.NEGATE:
                parts.append("^")
            elif operator is constants.RANGE:
                parts.append(_ranges([argument]))
            else:
                parts.append(_char(argument) if operator is constants.LITERAL else categories[argument])
        return "".join(parts)

    def _anchor(self, anchor: Any, flags: int) -> str:
        if anchor in _ANCHORS:
            return self._scoped(_ANCHORS[anchor], flags)
        word = (_ASCII_CATEGORIES if flags & re.ASCII else _CATEGORIES)[constants.CATEGORY_WORD]
        here, there = (
            (f"(?<=[{word}])(?![{word}])", f"(?<![{word}])(?=[{word}])")
            if anchor is constants.AT_BOUNDARY
            else (f"(?<=[{word}])(?=[{word}])", f"{_NOT_EMPTY}(?<![{word}])(?![{word}])")
        )
        return f"(?:{here}|{there})"
