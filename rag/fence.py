"""The mark that fences passages off: drawn for a request, and in none of its texts.

No document can hold the mark of its own request: not by luck, but by construction, since a mark that occurs in the
question or in any passage is not drawn. Who knows a whole request and writes its mark into a document has changed the
request. The same request draws the same mark, which keeps trials repeatable.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from hashlib import sha256
from itertools import count

from rag.clean import visible

_LETTERS = "bcdfghjklmnpqrstvwxz"
"""No vowels: a mark is no word, and costs a small model two or three tokens."""
_LENGTH = 4
_TRIES = 64
"""Marks drawn of one length before they get longer; a passage of all 160,000 would otherwise hold up a request."""


def mark(*texts: str) -> str:
    """Return the mark of a request: drawn from its texts, and not in any of them, however it is spelt there.

    Letters are compared without case, accents and whatever stands between them.
    """
    drawn = sha256("\0".join(texts).encode("utf-8", "surrogatepass")).digest()
    there = [_letters(text) for text in texts]
    return next(found for found in _marks(drawn) if not any(found in text for text in there))


def holds(text: str, fence: str) -> bool:
    """Return whether a text holds a mark, however it is spelt there."""
    return fence in _letters(text)


def _marks(drawn: bytes) -> Iterator[str]:
    """Yield marks in the order in which they are drawn, longer ones when many are taken."""
    for n in count():
        digest = sha256(drawn + n.to_bytes(4, "big")).digest()
        yield "".join(_LETTERS[byte % len(_LETTERS)] for byte in digest[: _LENGTH + n // _TRIES])


def _letters(text: str) -> str:
    plain = unicodedata.normalize("NFKD", visible(text)).casefold()
    return "".join(char for char in plain if char.isalpha())
