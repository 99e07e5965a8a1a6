"""Terminals that cannot show a character: marks and drawings have plain stand-ins, and nothing crashes."""

from __future__ import annotations

import codecs
import os
import sys
import unicodedata
from typing import TextIO

NAME = "tunewise"
SHOWN = "TUNEWISE_SHOWN"
"""Set for a process that was begun again in UTF-8: the encoding that its terminal shows all the same."""
STAND_INS = {
    "–": "-", "—": "-", "−": "-", "‐": "-", "‑": "-", "…": "...", "•": "*", "·": ".", "→": "->", "←": "<-",
    "✓": "+", "✗": "x", "▶": ">", "●": "o", "▲": "^", "▼": "v", "×": "x", "±": "+-", "≥": ">=", "≤": "<=", "≈": "~",
    "─": "-", "━": "=", "╌": ".", "┊": ":", "│": "|", "├": "+", "└": "+", "⟦": "[", "⟧": "]",
    "█": "#", "▁": "_", "▂": ".", "▃": "-", "▄": "=", "▅": "+", "▆": "*", "▇": "%", "░": ".", "▒": ":", "▓": "#",
    "“": '"', "”": '"', "„": '"', "«": '"', "»": '"', "‘": "'", "’": "'", "€": "EUR", "£": "GBP", "ß": "ss", "Σ": "sum",
    "ø": "o", "Ø": "O", "æ": "ae", "Æ": "AE", "œ": "oe", "ł": "l", "Ł": "L", "đ": "d", "ı": "i", "µ": "u", "°": " deg",
}  # fmt: skip
"""What stands for a character where the terminal's encoding lacks it; letters lose their accents, the rest is ``?``."""


def plain(text: str) -> str:
    """Return a text in ASCII: marks as their stand-ins, letters without accents, ``?`` for what has neither."""
    return "".join(_plain(letter) for letter in text)


def in_utf8() -> None:
    """Begin this process again in Python's UTF-8 mode where names and arguments would be taken for ASCII.

    In such a locale (LC_ALL=C) "für" on the command line or in a name is no text, and libraries refuse it. What is
    shown stays ASCII. Where the mode cannot be had (python -I), things stay as they are.
    """
    if shown := os.environ.pop(SHOWN, ""):
        for stream in (sys.stdout, sys.stderr):
            if reconfigure := getattr(stream, "reconfigure", None):
                reconfigure(encoding=shown)
        return
    ascii = codecs.lookup(sys.getfilesystemencoding()).name == "ascii"
    given = sys.argv[1:]
    own = bool(sys.executable) and sys.orig_argv[len(sys.orig_argv) - len(given) :] == given
    if os.name == "nt" or not ascii or not own or os.environ.get("PYTHONUTF8") == "1":
        return
    environ = {**os.environ, "PYTHONUTF8": "1", SHOWN: getattr(sys.stdout, "encoding", None) or "ascii"}
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environ)  # noqa: S606


def fit(*streams: TextIO) -> None:
    """Let streams write stand-ins for what their encoding lacks, instead of raising."""
    codecs.register_error(NAME, _stand_in)
    for stream in streams:
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors=NAME)


def _plain(letter: str) -> str:
    if letter.isascii():
        return letter
    if letter in STAND_INS:
        return STAND_INS[letter]
    bare = "".join(part for part in unicodedata.normalize("NFKD", letter) if part.isascii())
    return bare or ("" if unicodedata.combining(letter) else "?")


def _stand_in(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return plain(error.object[error.start : error.end]), error.end
