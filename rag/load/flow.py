"""Running text as HTML shows it: white space collapsed, every character's raw place kept."""

from __future__ import annotations

import re
from typing import NamedTuple

from rag.load.offsets import Offsets, Run

_WORD = re.compile(r"\S+")


class _Piece(NamedTuple):
    text: str
    raw: int
    verbatim: bool
    """Whether the text stands so in the raw file; else all of it has one place."""


class Flow:
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
        self.runs: list[Run] = []
        self.length = 0
        self._gap: Run | None = None  # due before the next word: 0 blank, 1 line break; its raw place

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
