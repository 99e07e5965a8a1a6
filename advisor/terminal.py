"""Terminals that cannot show a character: marks and drawings have plain stand-ins, and nothing crashes.

How a command ends early: interrupted, or its output cannot be written (`| head`, a full disk).

Parts of tunewise that need more than its base install: said before they are imported, with the line that helps.
"""

from __future__ import annotations

import codecs
import errno
import os
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TextIO

from rag.errors import CannotRun

NAME = "tunewise"
SHOWN_VARIABLE = "TUNEWISE_SHOWN"
"""Set for a process that was begun again in UTF-8: the encoding that its terminal shows all the same."""
STAND_INS = {
    "–": "-",
    "—": "-",
    "−": "-",
    "‐": "-",
    "‑": "-",
    "…": "...",
    "•": "*",
    "·": ".",
    "→": "->",
    "←": "<-",
    "✓": "+",
    "✗": "x",
    "▶": ">",
    "●": "o",
    "▲": "^",
    "▼": "v",
    "×": "x",
    "±": "+-",
    "≥": ">=",
    "≤": "<=",
    "≈": "~",
    "─": "-",
    "━": "=",
    "╌": ".",
    "┊": ":",
    "│": "|",
    "├": "+",
    "└": "+",
    "⟦": "[",
    "⟧": "]",
    "█": "#",
    "▁": "_",
    "▂": ".",
    "▃": "-",
    "▄": "=",
    "▅": "+",
    "▆": "*",
    "▇": "%",
    "░": ".",
    "▒": ":",
    "▓": "#",
    "“": '"',
    "”": '"',
    "„": '"',
    "«": '"',
    "»": '"',
    "‘": "'",
    "’": "'",
    "€": "EUR",
    "£": "GBP",
    "ß": "ss",
    "Σ": "sum",
    "ø": "o",
    "Ø": "O",
    "æ": "ae",
    "Æ": "AE",
    "œ": "oe",
    "ł": "l",
    "Ł": "L",
    "đ": "d",
    "ı": "i",
    "µ": "u",
    "°": " deg",
}
"""What stands for a character where the terminal's encoding lacks it; letters lose their accents, the rest is ``?``."""


def to_ascii(text: str) -> str:
    """Return a text in ASCII: marks as their stand-ins, letters without accents, ``?`` for what has neither."""
    return "".join(_plain(letter) for letter in text)


def restart_in_utf8() -> None:
    """Begin this process again in Python's UTF-8 mode where names and arguments would be taken for ASCII.

    In such a locale (LC_ALL=C) "für" on the command line or in a name is no text, and libraries refuse it. What is
    shown stays ASCII. Where the mode cannot be had (python -I), things stay as they are.
    """
    if shown := os.environ.pop(SHOWN_VARIABLE, ""):
        for stream in (sys.stdout, sys.stderr):
            if reconfigure := getattr(stream, "reconfigure", None):
                reconfigure(encoding=shown)
        return
    ascii = codecs.lookup(sys.getfilesystemencoding()).name == "ascii"
    given = sys.argv[1:]
    own = bool(sys.executable) and sys.orig_argv[len(sys.orig_argv) - len(given) :] == given
    if os.name == "nt" or not ascii or not own or os.environ.get("PYTHONUTF8") == "1":
        return
    environ = {
        **os.environ,
        "PYTHONUTF8": "1",
        SHOWN_VARIABLE: getattr(sys.stdout, "encoding", None) or "ascii",
    }
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environ)  # noqa: S606


def install_stand_ins(*streams: TextIO) -> None:
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
    return to_ascii(error.object[error.start : error.end]), error.end


DISK_FULL_ERRORS = (errno.ENOSPC, errno.EDQUOT)
DISK_FULL_MESSAGE = "there is no space left on the disk that is written to"


def exit_on_closed_pipe() -> None:
    """End the process well, as a pipe's writer does whose reader has read enough: exit 0, and nothing is said."""
    discard_output()
    raise SystemExit(0)


def patch_rich_broken_pipe() -> None:
    """Let what rich draws end in that way too; its own is exit 1, which here means a bug."""
    from rich.console import Console

    Console.on_broken_pipe = lambda self: exit_on_closed_pipe()  # type: ignore[method-assign]


def discard_output() -> None:
    """Drop what waits to be printed: Python would try once more at its end, fail, and say so."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def flush_output() -> None:
    """Print what waits, while an error can still be told; the reader's going is none."""
    try:
        if sys.stdout is not None and not sys.stdout.closed:
            sys.stdout.flush()
    except BrokenPipeError:
        discard_output()


@contextmanager
def resume_hint(line: str, what: str = "finished steps") -> Iterator[None]:
    """When interrupted, say that progress is kept and how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        print(f"\ninterrupted; {what} are kept. Go on with:\n  {line}", file=sys.stderr)
        raise


def require_extra(extra: str, *modules: str) -> None:
    """Raise CannotRun when one of an extra's modules is not installed."""
    absent = [name for name in modules if find_spec(name) is None]
    if absent:
        raise CannotRun(
            f"this needs {', '.join(absent)}, which the base install does not bring",
            f'pip install "tunewise[{extra}]"',
        )
