"""How results leave: for people, as JSON, or as plain lines for scripts; notes on stderr unless they are unwanted."""

from __future__ import annotations

import difflib
import json
import os
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rag.errors import UsageProblem
from rag.text.sanitize import strip_invisible

if TYPE_CHECKING:
    from rich.console import Console

FORMATS = ("human", "json", "plain")
FORMAT, QUIET = "TUNEWISE_FORMAT", "TUNEWISE_QUIET"
TRUE_WORDS = ("1", "true", "yes", "on")


@dataclass(slots=True)
class OutputSettings:
    """How this call of the command line speaks."""

    format: str = ""
    quiet: bool = False


OUTPUT_SETTINGS = OutputSettings()
"""Set by the command line for each call; what it leaves open, the environment says."""


def configure_output(format: str = "", quiet: bool = False) -> None:
    """Set how results leave; "" and False leave it to the environment. UsageProblem for an unknown format."""
    check_format(format or "human")
    OUTPUT_SETTINGS.format, OUTPUT_SETTINGS.quiet = format, quiet


def check_format(format: str, place: str = "--format") -> str:
    """Return the format; UsageProblem, with the closest one, when there is none of this name."""
    if format not in FORMATS:
        close = difflib.get_close_matches(format, FORMATS, n=1, cutoff=0.5)
        meant = f"did you mean {close[0]}? " if close else ""
        raise UsageProblem(f"{place} {format!r} is not known", f"{meant}known: {', '.join(FORMATS)}")
    return format


def output_format() -> str:
    """Return human, json or plain."""
    return OUTPUT_SETTINGS.format or check_format(os.environ.get(FORMAT) or "human", FORMAT)


def for_programs(json: bool) -> bool:
    """Whether a verb's result goes to a program, given its ``--json``, which is stronger than environment and settings.

    Raises UsageProblem when ``--json`` and another ``--format`` are given together.
    """
    if not json:
        return output_format() != "human"
    if OUTPUT_SETTINGS.format not in ("", "json"):
        raise UsageProblem(f"--json and --format {OUTPUT_SETTINGS.format} exclude each other", "choose one")
    OUTPUT_SETTINGS.format = "json"
    return True


def is_quiet() -> bool:
    """Whether progress and notes are unwanted; errors and results always come."""
    return OUTPUT_SETTINGS.quiet or os.environ.get(QUIET, "").lower() in TRUE_WORDS


def emit_result(found: Mapping[str, Any], ascii: bool = False) -> None:
    """Print a result for programs: one line of JSON, or with the format plain one line a value (or row).

    ``ascii`` escapes every other character, so that nothing a document holds can steer a terminal.
    """
    if output_format() == "plain":
        print("\n".join(plain_lines(found)), flush=True)
        return
    # In ASCII where the terminal cannot take more: escaped is the same value, a stand-in would not be.
    wide = (getattr(sys.stdout, "encoding", None) or "utf-8").lower().replace("-", "").startswith("utf")
    print(json.dumps(found, ensure_ascii=ascii or not wide), flush=True)


def command_line(*parts: object) -> str:
    """Return a command line of tunewise as a shell takes it, names with blanks quoted."""
    return shlex.join(["tunewise", *map(str, parts)])


def note(line: str) -> None:
    """Say something beside the result, on stderr, unless --quiet."""
    if not is_quiet():
        print(line, file=sys.stderr)


def format_interval(found: Mapping[str, Any], digits: int = 2, signed: bool = False) -> str:
    """Return the ends ``low`` and ``high`` of an interval: "0.61–0.72", or as a difference "-0.010 to +0.120"."""
    low, high = found["low"], found["high"]
    if signed:
        return f"{low:+.{digits}f} to {high:+.{digits}f}"
    return f"{low:.{digits}f}–{high:.{digits}f}"


def plain_lines(found: Mapping[str, Any]) -> list[str]:
    """Return a result as plain lines, without its schema number.

    Where all there is is one list of rows, a line of names and one line a row, cells separated by tabs. Otherwise one
    line a value: its dotted name, a tab, the value. Tabs and line ends in values are written \\t and \\n.
    """
    body = {key: value for key, value in found.items() if key != "schema"}
    tables = [value for value in body.values() if _is_rows(value)]
    if len(body) == 1 and tables:
        return list(_table(tables[0]))
    return ["\t".join((name, _cell(value))) for name, value in _leaves("", body)]


def _is_rows(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(row, Mapping) for row in value)


def _table(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    flat = [dict(_leaves("", row)) for row in rows]
    names = list(dict.fromkeys(name for row in flat for name in row))
    if names:
        yield "\t".join(names)
    for row in flat:
        yield "\t".join(_cell(row.get(name)) for name in names)


def _leaves(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(f"{name}.{key}" if name else str(key), inner)
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            yield from _leaves(f"{name}.{number}", inner)
    else:
        yield name, value


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    text = str(value)
    return text.replace("\\", "\\\\").replace("\t", "\\t").replace("\r", "\\r").replace("\n", "\\n")


def print_plain(console: Console, text: str, style: str | None = None) -> None:
    """Print a text that somebody else wrote: nothing in it is markup, an emoji's name or a terminal's command."""
    console.print(
        strip_invisible(text), highlight=False, markup=False, emoji=False, soft_wrap=True, style=style
    )
