"""Output of results: for people, as JSON, or as plain lines for scripts; notes go to stderr unless --quiet is given."""

from __future__ import annotations

import difflib
import json
import os
import re
import shlex
import shutil
import sys
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rag.errors import UsageProblem
from rag.text.sanitize import strip_invisible

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

FORMATS = ("human", "json")
FORMAT, QUIET = "TUNEWISE_FORMAT", "TUNEWISE_QUIET"
TRUE_WORDS = ("1", "true", "yes", "on")
REDIRECTED_COLUMNS = 1000
"""Columns of an output that is no terminal: more than any table has."""
_UNBROKEN = re.compile(r"(?:\[[-+.\d]+, [-+.\d]+\][^ \t]*|[^ \t]+)[ \t]*")
"""A word, or an interval such as "[-0.12, +0.19]", with the spaces after it."""


@dataclass(slots=True)
class OutputSettings:
    """Output settings of the current command."""

    format: str = ""
    quiet: bool = False
    verbose: bool = False


OUTPUT_SETTINGS = OutputSettings()
"""Set by the command line; values that are not set come from the environment."""


def configure_output(format: str = "", quiet: bool = False, verbose: bool = False) -> None:
    """Set format, quietness and verbosity; "" and a quiet of False leave them to the environment.

    Raises UsageProblem for an unknown format.
    """
    check_format(format or "human")
    OUTPUT_SETTINGS.format = format
    OUTPUT_SETTINGS.quiet = quiet
    OUTPUT_SETTINGS.verbose = verbose


def check_format(format: str, source: str = "--format") -> str:
    """Return the format; UsageProblem with the closest one when it is unknown. ``source`` names its flag or variable."""
    if format not in FORMATS:
        matches = difflib.get_close_matches(format, FORMATS, n=1, cutoff=0.5)
        suggestion = f"did you mean {matches[0]}? " if matches else ""
        raise UsageProblem(f"{source} {format!r} is not known", f"{suggestion}known: {', '.join(FORMATS)}")
    return format


def output_format() -> str:
    """Return human or json."""
    return OUTPUT_SETTINGS.format or check_format(os.environ.get(FORMAT) or "human", FORMAT)


def for_programs(json: bool) -> bool:
    """Return whether the result of a verb is for a program.

    Args:
        json: whether ``--json`` was given; it wins over environment and settings.

    Raises:
        UsageProblem: when ``--json`` and another ``--format`` are given together.
    """
    if not json:
        return output_format() != "human"
    if OUTPUT_SETTINGS.format not in ("", "json"):
        raise UsageProblem(f"--json and --format {OUTPUT_SETTINGS.format} exclude each other", "choose one")
    OUTPUT_SETTINGS.format = "json"
    return True


def is_quiet() -> bool:
    """Return whether progress and notes are turned off; errors and results are always printed."""
    return OUTPUT_SETTINGS.quiet or os.environ.get(QUIET, "").lower() in TRUE_WORDS


def is_verbose() -> bool:
    """Return whether more is said than a usual run needs, such as the reason for each setting of a training."""
    return OUTPUT_SETTINGS.verbose


def emit_result(result: Mapping[str, Any], ascii: bool = False) -> None:
    """Print a result for programs, as one line of JSON.

    Args:
        result: the result.
        ascii: whether to escape all other characters, so that text from documents cannot control a terminal.
    """
    # Where the terminal's encoding is not UTF, characters are escaped: the value stays the same, unlike with a
    # replacement character.
    is_utf = (getattr(sys.stdout, "encoding", None) or "utf-8").lower().replace("-", "").startswith("utf")
    print(json.dumps(result, ensure_ascii=ascii or not is_utf), flush=True)


def command_line(*parts: object) -> str:
    """Return a tunewise command as the shell reads it, with quotes where needed."""
    return shlex.join(["tunewise", *map(str, parts)])


def note(line: str) -> None:
    """Print a line beside the result, on stderr, unless --quiet is given; on a terminal it breaks between words.

    Lines that hold a command stay whole, so that it can be copied.
    """
    if is_quiet():
        return
    if sys.stderr.isatty() and "tunewise " not in line:
        width = shutil.get_terminal_size().columns - 1
        margin = line[: len(line) - len(line.lstrip(" "))]
        for part in line.splitlines():
            wrapped = textwrap.wrap(
                part, width, subsequent_indent=margin, break_long_words=False, break_on_hyphens=False
            )
            print("\n".join(wrapped), file=sys.stderr)
        return
    print(line, file=sys.stderr)


def open_console(*, stderr: bool = False, quiet: bool = False, highlight: bool = True) -> Console:
    """Return rich's console for an output. One that is redirected is as wide as its tables: nothing in them is cut.

    COLUMNS gives it a width all the same.
    """
    from rich.console import Console as RichConsole

    console = RichConsole(stderr=stderr, quiet=quiet, highlight=highlight)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = REDIRECTED_COLUMNS
    return console


def print_plain(console: Console, text: str, style: str | None = None) -> None:
    """Print a text from data: nothing in it is read as markup, an emoji's name or a terminal escape.

    On a terminal it breaks between words, as by :func:`print_wrapped`.
    """
    print_wrapped(console, strip_invisible(text), style)


def print_wrapped(console: Console, text: str | Text, style: str | None = None) -> None:
    """Print a text whose lines break between words on a terminal, and which stays as it is where the output is piped.

    Continued lines are indented as their first one. A word longer than the terminal is wide, such as a path, is left
    whole. Nothing in a string is read as markup or an emoji's name; for a styled text pass rich's ``Text``.
    """
    from rich.text import Text

    whole = Text(text) if isinstance(text, str) else text
    lines = wrapped_lines(whole, console.width) if console.is_terminal else [whole]
    for line in lines:
        console.print(line, highlight=False, markup=False, emoji=False, soft_wrap=True, style=style)


def wrapped_lines(text: Text, width: int) -> list[Text]:
    """Return a text as lines of at most ``width`` terminal cells that break between words.

    Styles are kept, continued lines are indented as their first one, and a word longer than ``width`` has a line of its
    own.
    """
    lines: list[Text] = []
    for whole in text.split("\n", allow_blank=True):
        margin = whole.plain[: len(whole.plain) - len(whole.plain.lstrip(" "))]
        parts = whole.divide(_word_breaks(whole.plain, width, len(margin)))
        for part in parts:
            part.rstrip()
        lines += [parts[0], *(_indented(part, margin) for part in parts[1:])]
    return lines


def _indented(line: Text, margin: str) -> Text:
    from rich.text import Text

    return Text(margin).append_text(line)


def _word_breaks(line: str, width: int, margin: int) -> list[int]:
    """Return the offsets in a line at which a new one begins; continued lines have ``margin`` fewer cells."""
    from rich.cells import cell_len

    breaks: list[int] = []
    used = margin
    for word in _UNBROKEN.finditer(line):
        cells = cell_len(word.group().rstrip(" \t"))
        if used + cells > width and used > margin:
            breaks.append(word.start())
            used = margin
        used += cell_len(word.group())
    return breaks
