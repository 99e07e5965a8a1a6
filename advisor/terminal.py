"""Terminals and early endings of a command.

Replacement characters where the terminal's encoding lacks some (:func:`install_stand_ins`), a restart in UTF-8 where the
locale is ASCII, closed pipes, full disks and Ctrl-C, and the check for packages of an optional extra.

Python's ``errors="replace"`` and rich's ``safe_box`` are not enough: every bar, arrow and sign of comparison would become
"?". Typer and rich end with 1 on a closed pipe, which here means a bug.
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

from rag.errors import CannotRun, install_hint
from runners.distributed.environment import RESUME_LINE_ENV

NAME = "tunewise"
SHOWN_VARIABLE = "TUNEWISE_SHOWN"
"""Set for a process that was restarted in UTF-8: the encoding that its terminal can show."""
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
"""Replacements for characters that the terminal's encoding lacks; others lose their accents or become ``?``."""


DISK_FULL_ERRORS = (errno.ENOSPC, errno.EDQUOT)
DISK_FULL_MESSAGE = "there is no space left on the disk that is written to"


def to_ascii(text: str) -> str:
    """Return a text in ASCII: replacements from STAND_INS, letters without accents, ``?`` for the rest."""
    return "".join(_plain(letter) for letter in text)


def restart_in_utf8() -> None:
    """Restart this process in Python's UTF-8 mode where file names and arguments would be decoded as ASCII.

    With LC_ALL=C, "für" in an argument or a file name is not valid text, and libraries reject it. The output stays ASCII.
    Where the mode is not available (python -I), nothing changes.
    """
    if shown_encoding := os.environ.pop(SHOWN_VARIABLE, ""):
        for stream in (sys.stdout, sys.stderr):
            if reconfigure := getattr(stream, "reconfigure", None):
                reconfigure(encoding=shown_encoding)
        return
    is_ascii = codecs.lookup(sys.getfilesystemencoding()).name == "ascii"
    arguments = sys.argv[1:]
    restartable = bool(sys.executable) and sys.orig_argv[len(sys.orig_argv) - len(arguments) :] == arguments
    if os.name == "nt" or not is_ascii or not restartable or os.environ.get("PYTHONUTF8") == "1":
        return
    environ = {
        **os.environ,
        "PYTHONUTF8": "1",
        SHOWN_VARIABLE: getattr(sys.stdout, "encoding", None) or "ascii",
    }
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environ)  # noqa: S606


def install_stand_ins(*streams: TextIO) -> None:
    """Let streams write replacements for characters that their encoding lacks, instead of raising."""
    codecs.register_error(NAME, _stand_in)
    for stream in streams:
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors=NAME)


def exit_on_closed_pipe() -> None:
    """End the process with exit code 0 and no message, because the reader of the pipe has read enough."""
    discard_output()
    raise SystemExit(0)


def patch_rich_broken_pipe() -> None:
    """Let rich end the process in the same way; by default it exits with 1, which here means a bug."""
    from rich.console import Console

    Console.on_broken_pipe = lambda self: exit_on_closed_pipe()  # type: ignore[method-assign]


def discard_output() -> None:
    """Drop output that is still buffered: Python would try to write it at exit, fail, and print an error."""
    null_device = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null_device, sys.stdout.fileno())
    os.close(null_device)


def flush_output() -> None:
    """Write buffered output while an error can still be reported; a closed pipe is not an error."""
    try:
        if sys.stdout is not None and not sys.stdout.closed:
            sys.stdout.flush()
    except BrokenPipeError:
        discard_output()


@contextmanager
def resume_hint(line: str, kept_work: str = "finished steps") -> Iterator[None]:
    """On Ctrl-C, print that progress is kept and the command that continues.

    A launcher names the command in TUNEWISE_RESUME_LINE: its own, or nothing where it prints it itself.

    Args:
        line: the command, without a launcher.
        kept_work: what is kept, in words.
    """
    try:
        yield
    except KeyboardInterrupt:
        if command := os.environ.get(RESUME_LINE_ENV, line):
            print(f"\ninterrupted; {kept_work} are saved. Continue with:\n  {command}", file=sys.stderr)
        raise


def require_extra(extra: str, *modules: str) -> None:
    """Raise CannotRun when a module of an extra, or of what was one and is part of the base, is not installed."""
    missing = [name for name in modules if find_spec(name) is None]
    if missing:
        raise CannotRun(
            f"this needs {', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed here",
            install_hint(extra),
        )


def _plain(letter: str) -> str:
    """Return the ASCII replacement of one character."""
    if letter.isascii():
        return letter
    if letter in STAND_INS:
        return STAND_INS[letter]
    bare = "".join(part for part in unicodedata.normalize("NFKD", letter) if part.isascii())
    return bare or ("" if unicodedata.combining(letter) else "?")


def _stand_in(error: UnicodeError) -> tuple[str, int]:
    """Return the replacement for the characters of an encoding error; the handler that is registered with codecs."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return to_ascii(error.object[error.start : error.end]), error.end
