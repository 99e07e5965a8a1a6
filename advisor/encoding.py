"""Terminals that cannot show a character: marks and drawings have plain stand-ins, and nothing crashes."""

from __future__ import annotations

import codecs
import unicodedata
from typing import TextIO

NAME = "tunewise"
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
