"""Bytes to text: the encoding is taken from the bytes themselves and said whenever it is not plain UTF-8."""

from __future__ import annotations

import codecs
import re
from typing import Any

from rag.loading.base import UnreadableFile

_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_CONTROL = re.compile(r"[\x00-\x06\x0e-\x1a\x1c-\x1f\x7f]")
_MOST_CONTROLS = 0.001
_SAMPLE = 32_768
_FEW_FOREIGN = 0.3
"""Western European text in cp1252 has one accented letter in ten at most; more means another script."""


def decode_bytes(data: bytes, declared: str = "") -> tuple[str, dict[str, Any]]:
    """Return the text without its byte order mark, newlines untouched, and what must be said of it.

    The metadata holds ``encoding`` when it is not UTF-8 and ``undecoded``, the number of damaged places
    (U+FFFD in the text), when UTF-8 is broken here and there. ``declared`` is an encoding that the format
    names inside. Raises Unreadable when the bytes are not text.
    """
    text, meta = _decoded(data, declared)
    controls = len(_CONTROL.findall(text))
    if "\0" in text:
        raise UnreadableFile("not text: it holds NUL characters")
    if controls > max(2, len(text) * _MOST_CONTROLS):
        raise UnreadableFile(f"not text: it holds {controls} control characters")
    return text, meta


def _decoded(data: bytes, declared: str) -> tuple[str, dict[str, Any]]:
    for mark, name in _BOMS:
        if data.startswith(mark):
            return _strict(data[len(mark) :], name)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return _foreign(data, declared)
    if name := _unmarked_utf16(data):
        return _strict(data, name)
    return text, {}


def _strict(data: bytes, name: str) -> tuple[str, dict[str, Any]]:
    try:
        text = data.decode(name)
    except UnicodeDecodeError as error:
        raise UnreadableFile(
            f"not text: it begins like {name.upper()} but byte {error.start} does not fit"
        ) from error
    return text, {} if name == "utf-8" else {"encoding": name}


def _unmarked_utf16(data: bytes) -> str:
    """Return UTF-16's name when every second byte of the beginning is NUL and the others are not."""
    head = data[:400]
    even, odd = head[::2], head[1::2]
    if len(head) < 4 or len(data) % 2:
        return ""
    if odd.count(0) > 0.7 * len(odd) and not even.count(0):
        return "utf-16-le"
    return "utf-16-be" if even.count(0) > 0.7 * len(even) and not odd.count(0) else ""


def _foreign(data: bytes, declared: str) -> tuple[str, dict[str, Any]]:
    """Decode what is not UTF-8: as declared, as damaged UTF-8, as UTF-16, as cp1252, or by statistics."""
    if name := _unmarked_utf16(data):
        return _strict(data, name)
    if declared and (found := _as_declared(data, declared)):
        return found
    text = data.decode("utf-8", "replace")
    broken = text.count("\ufffd")
    letters = sum(not char.isascii() for char in text) - broken
    if letters > 4 * broken:
        return text, {"encoding": "utf-8", "undecoded": broken}
    if b"\0" in data:
        raise UnreadableFile("not text: it holds NUL bytes")
    high = sum(byte > 127 for byte in data[:_SAMPLE])
    plain = sum(bytes([byte]).isalpha() for byte in data[:_SAMPLE])
    name = "cp1252" if high < _FEW_FOREIGN * (high + plain) else _guessed(data[:_SAMPLE])
    try:
        return data.decode(name), {"encoding": name}
    except UnicodeDecodeError:
        name = "latin-1" if name == "cp1252" else name
        return data.decode(name, "replace"), {"encoding": name}


def _as_declared(data: bytes, declared: str) -> tuple[str, dict[str, Any]] | None:
    try:
        name = codecs.lookup(declared).name
        if name.startswith(("utf", "iso8859-1")) or name in ("ascii", "punycode", "idna"):
            return None
        return data.decode(name), {"encoding": name}
    except (LookupError, ValueError):  # a codec that is no text encoding, or one the bytes do not fit
        return None


def _guessed(sample: bytes) -> str:
    from charset_normalizer import from_bytes

    best = from_bytes(sample).best()
    if best is None:
        raise UnreadableFile("not text: its bytes fit no known encoding")
    return str(best.encoding)
