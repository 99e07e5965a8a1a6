"""The text of a file and the encoding it is in: UTF-8, or what a byte order mark says; nothing is guessed."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from pathlib import Path

from rag.errors import BadInput

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip
"""Byte order marks, the longer before those they begin with."""


def encoding_of(path: Path) -> str:
    """Return ``utf-8``, or ``utf-8-sig``, ``utf-16`` or ``utf-32`` when the file begins with their mark."""
    with path.open("rb") as file:
        start = file.read(4)
    return next((name for mark, name in _MARKS if start.startswith(mark)), "utf-8")


def read_text(path: Path) -> str:
    """Return a file's text; BadInput names line, byte and offset where it is not in its encoding."""
    return "".join(text_lines(path))


def text_lines(path: Path) -> Iterator[str]:
    r"""Yield a file's lines with their ends, reading as it goes.

    Only ``\n`` ends a line: ``str.splitlines`` would also cut at U+2028, which is legal inside JSON strings.
    """
    encoding = encoding_of(path)
    if encoding in ("utf-16", "utf-32"):
        yield from _whole(path, encoding)
        return
    offset = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                text = line.decode("utf-8")
            except UnicodeDecodeError as error:
                raise _refusal(path, number, offset + error.start, line[error.start]) from None
            if b"\0" in line:
                raise _refusal(path, number, offset + line.index(b"\0"), 0)
            yield text.removeprefix("\ufeff") if number == 1 else text
            offset += len(line)


def _whole(path: Path, encoding: str) -> Iterator[str]:
    try:
        text = path.read_bytes().decode(encoding)
    except UnicodeDecodeError as error:
        raise BadInput(
            f"{path}: begins as {encoding.upper()}, but byte {error.start} is not ({error.reason})",
            "save it as UTF-8",
        ) from None
    yield from (line + "\n" for line in text.split("\n")[:-1])
    yield text.rsplit("\n", 1)[-1]


def _refusal(path: Path, line: int, offset: int, byte: int) -> BadInput:
    likely = "UTF-16 without a mark, or no text at all" if byte == 0 else "often Windows-1252 or Latin-1"
    return BadInput(
        f"{path}:{line}: not UTF-8 (byte {byte:#04x} at offset {offset}; {likely})",
        "save it as UTF-8, for instance with: iconv -f WINDOWS-1252 -t UTF-8",
    )
