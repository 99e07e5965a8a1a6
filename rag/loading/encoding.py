"""From bytes to text: the encoding is detected from the bytes, and reported whenever it is not plain UTF-8."""

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
_CONTROL_CHARACTER = re.compile(r"[\x00-\x06\x0e-\x1a\x1c-\x1f\x7f]")
_MAX_CONTROL_SHARE = 0.001
_SAMPLE_BYTES = 32_768
_MAX_ACCENTED_SHARE = 0.3
"""Western European text in cp1252 has one accented letter in ten at most; more means another script."""

_LATIN_ENCODINGS = ("cp1252", "cp1250", "iso8859_2", "cp1254", "cp1257", "mac_roman", "cp850", "cp852")
"""Encodings of Latin letters in a byte each, the most frequent first: Windows, Macs and DOS."""
_LATIN_LETTERS = (
    "äöüß",
    "àâæçéèêëîïôœùûüÿ",
    "áéíñóúü¿¡ºª",
    "áàâãçéêíóôõúü",
    "àèéìíîòóùú",
    "áäéèëêïíóöúü",
    "åäöé",
    "æøåéü",
    "áðéíóúýþæö",
    "ąćęłńóśźż",
    "áčďéěíňóřšťúůýž",
    "áäčďéíĺľňóôŕšťúýž",
    "áéíóöőúüű",
    "ăâîșşțţ",
    "čćđšž",
    "âçğıiöşüû",
    "ąčęėįšųūž",
    "āčēģīķļņšūž",
    "äõöüšž",
)
"""The letters beyond a to z of each language."""
_SYMBOLS = frozenset("€£¥§°²³½¼¾·–—‘’“”„‚«»‹›…•©®™´×÷±\u00a0\u00ad")
_INSIDE_WORDS = frozenset("’‘·–—´\u00ad")
"""Symbols that can stand between two letters."""
_OTHER_SCRIPTS = (
    *("cp1251", "koi8_r", "cp866", "cp1253", "cp1255", "cp1256"),
    *("cp932", "euc_jp", "gb18030", "big5", "cp949"),
)
_MIN_EXPLAINED = 0.7
"""Share of what is not ASCII that Latin letters must explain; else the text may be in another script."""
_BETTER = 0.2
"""How much more of what is not ASCII another encoding must explain than cp1252 to be taken."""


def decode_bytes(data: bytes, declared: str = "") -> tuple[str, dict[str, Any]]:
    """Decode a file's bytes.

    Args:
        data: the bytes.
        declared: an encoding that the file itself names, or empty.

    Returns:
        The text without its byte order mark, newlines untouched; and metadata: ``encoding`` when it is not
        UTF-8, and ``undecoded``, the number of damaged bytes (U+FFFD in the text), when a few bytes are not
        valid UTF-8.

    Raises:
        UnreadableFile: when the bytes are not text.
    """
    text, meta = _decode(data, declared)
    controls = len(_CONTROL_CHARACTER.findall(text))
    if "\0" in text:
        raise UnreadableFile("not text: it contains NUL characters")
    if controls > max(2, len(text) * _MAX_CONTROL_SHARE):
        raise UnreadableFile(f"not text: it contains {controls} control characters")
    return text, meta


def _decode(data: bytes, declared: str) -> tuple[str, dict[str, Any]]:
    for mark, name in _BOMS:
        if data.startswith(mark):
            return _decode_strictly(data[len(mark) :], name)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return _decode_other(data, declared)
    if name := _unmarked_utf16(data):
        return _decode_strictly(data, name)
    return text, {}


def _decode_strictly(data: bytes, name: str) -> tuple[str, dict[str, Any]]:
    """Decode without replacement; UnreadableFile at the first byte that does not fit."""
    try:
        text = data.decode(name)
    except UnicodeDecodeError as error:
        raise UnreadableFile(
            f"not text: it begins like {name.upper()} but byte {error.start} does not fit"
        ) from error
    return text, {} if name == "utf-8" else {"encoding": name}


def _unmarked_utf16(data: bytes) -> str:
    """Return UTF-16's name when most of every second byte at the beginning are NUL and the others are not, else ""."""
    head = data[:400]
    even, odd = head[::2], head[1::2]
    if len(head) < 4 or len(data) % 2:
        return ""
    if odd.count(0) > 0.7 * len(odd) and not even.count(0):
        return "utf-16-le"
    return "utf-16-be" if even.count(0) > 0.7 * len(even) and not odd.count(0) else ""


def _decode_other(data: bytes, declared: str) -> tuple[str, dict[str, Any]]:
    """Decode what is not valid UTF-8: as UTF-16, as declared, as damaged UTF-8, as cp1252, or by statistics."""
    if name := _unmarked_utf16(data):
        return _decode_strictly(data, name)
    if declared and (decoded := _decode_as_declared(data, declared)):
        return decoded
    text = data.decode("utf-8", "replace")
    broken = text.count("\ufffd")
    letters = sum(not char.isascii() for char in text) - broken
    if letters > 4 * broken:  # another encoding would rarely give so many valid sequences
        return text, {"encoding": "utf-8", "undecoded": broken}
    if b"\0" in data:
        raise UnreadableFile("not text: it contains NUL bytes")
    high = sum(byte > 127 for byte in data[:_SAMPLE_BYTES])
    plain = sum(bytes([byte]).isalpha() for byte in data[:_SAMPLE_BYTES])
    latin = high < _MAX_ACCENTED_SHARE * (high + plain)
    name = _latin_encoding(data) if latin else _guess_encoding(data[:_SAMPLE_BYTES])
    try:
        return data.decode(name), {"encoding": name}
    except UnicodeDecodeError:  # cp1252 leaves five bytes undefined, latin-1 none
        name = "latin-1" if name == "cp1252" else name
        return data.decode(name, "replace"), {"encoding": name}


def _decode_as_declared(data: bytes, declared: str) -> tuple[str, dict[str, Any]] | None:
    """Decode by the declared encoding; None for one that was tried already, is unknown, or does not fit."""
    try:
        name = codecs.lookup(declared).name
        if name.startswith(("utf", "iso8859-1")) or name in ("ascii", "punycode", "idna"):
            return None
        return data.decode(name), {"encoding": name}
    except (LookupError, ValueError):  # a codec that is not a text encoding, or that the bytes do not fit
        return None


def _latin_encoding(data: bytes) -> str:
    """Return the encoding whose letters and symbols are most nearly those of one language, cp1252 unless one clearly is.

    Statistics alone (charset-normalizer) take French in cp1252 for cp1250, in which the letters of other languages stand.
    """
    lines = [line for line in data.split(b"\n") if not line.isascii()]
    sample = b"\n".join(lines)[:_SAMPLE_BYTES]
    explained = {name: _explained_share(sample, name) for name in _LATIN_ENCODINGS}
    best = max(_LATIN_ENCODINGS, key=lambda name: explained[name])
    if explained[best] < _MIN_EXPLAINED and (other := _other_script(sample)):
        return other
    return best if explained[best] > explained["cp1252"] + _BETTER else "cp1252"


def _other_script(sample: bytes) -> str:
    """Return the encoding of lines that are mostly in another script, between words of ASCII; "" where they are not."""
    try:
        name = _guess_encoding(sample)
    except UnreadableFile:
        return ""
    letters = [char for char in sample.decode(name, "replace") if char.isalpha() and not char.isascii()]
    return name if sum(char >= "\u0370" for char in letters) > len(letters) / 2 else ""


def _explained_share(sample: bytes, encoding: str) -> float:
    """Return the largest share, over languages, of the characters beyond ASCII that are its letters or usual symbols."""
    text = sample.decode(encoding, "replace")
    counts = dict.fromkeys(_LATIN_LETTERS, 0)
    total = 0
    for before, char, after in zip(" " + text, text, text[1:] + " ", strict=False):
        if char.isascii():
            continue
        total += 1
        inside = before.isalpha() and after.isalpha()
        if (char.isupper() and before.islower()) or (
            inside and not char.isalpha() and char not in _INSIDE_WORDS
        ):
            continue
        for letters in _LATIN_LETTERS:
            counts[letters] += char.lower() in letters or char in _SYMBOLS
    return max(counts.values()) / total if total else 0.0


def _guess_encoding(sample: bytes) -> str:
    from charset_normalizer import from_bytes

    best = from_bytes(sample, cp_isolation=list(_OTHER_SCRIPTS)).best() or from_bytes(sample).best()
    if best is None:
        raise UnreadableFile("not text: its bytes fit no known encoding")
    return str(best.encoding)
