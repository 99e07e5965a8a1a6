"""The preflight as people and programs see it: a line per check, green, yellow or red, and one verdict.

Training rows as the model sees them, drawn for a person: what is learnt, what is not, and the special tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from advisor.display.console import console
from runners.preflight.report import CHECK_LEVELS, PreflightCheck
from runners.preflight.run_checks import PreflightReport
from runners.tokenization.chat_template import ChatTokenizer, EncodedRow
from runners.tokenization.preview import PreviewRow, PreviewSegment, preview_rows

CHECK_MARKS: Mapping[str, str] = {
    "ok": "[green]ok[/]",
    "warn": "[yellow]warn[/]",
    "stop": "[bold red]stop[/]",
}


def show_checks_report(report: PreflightReport) -> None:
    """Print every check, what stands in the way last, and what it comes to; one line each for a program."""
    screen = console()
    ordered = sorted(report.checks, key=lambda check: CHECK_LEVELS.index(check.level))
    if screen.is_terminal:
        drawn = Table.grid(padding=(0, 2, 0, 0))
        for check in ordered:
            drawn.add_row(CHECK_MARKS[check.level], f"[dim]{check.code}[/]", check.title, _told(check))
        screen.print(drawn)
    else:
        for check in ordered:
            print(f"{check.level:<5} {check.code}  {check.title:<19} {check.sentence()}")
            if check.next and check.level != "ok":
                print(f"{'':<33}next: {check.next}")
    screen.print(checks_verdict(report))


def checks_verdict(report: PreflightReport) -> Text:
    """Return the last line: how many checks stand how, and whether a run would start."""
    counts = {level: sum(c.level == level for c in report.checks) for level in CHECK_MARKS}
    told = f"{counts['ok']} ok, {counts['warn']} to know, {counts['stop']} in the way"
    if counts["stop"]:
        return Text.from_markup(f"[bold red]this run would not start[/] ({told})")
    return Text.from_markup(f"[bold green]nothing stands in the way[/] ({told})")


def checks_json(report: PreflightReport, more: Mapping[str, Any]) -> dict[str, Any]:
    """Return what ``train --check --json`` prints."""
    return {"schema": 1, **report.to_json(), **more}


def check_warnings(report: PreflightReport) -> list[str]:
    """Return what is worth knowing before a run starts, one line each."""
    return [f"{c.code} {c.title}: {c.sentence()}" for c in report.checks if c.level == "warn"]


def _told(check: PreflightCheck) -> str:
    told = escape(check.sentence())
    if check.level == "ok":
        return f"[dim]{told}[/]"
    return f"{told}\n[dim]→ {escape(check.next)}[/]" if check.next else told


OPEN, CLOSE = "⟦", "⟧"
"""Around what is learnt, where there is no colour."""


def show_training_rows(
    rows: Sequence[EncodedRow],
    chat: ChatTokenizer,
    n: int,
    max_tokens: int | None = None,
    console: Console | None = None,
) -> None:
    """Print the first ``n`` rows: green is learnt, dim is not, special tokens are framed in reverse.

    Without a terminal, or with NO_COLOR, the learnt parts stand in ⟦ ⟧ and nothing else is added. ``max_tokens``
    marks the rows that are too long, and therefore left out.
    """
    console = console or Console(highlight=False)
    coloured = console.is_terminal and not console.no_color and console.color_system is not None
    for row in preview_rows(rows, chat, n, max_tokens):
        console.print(Text(_title(row), style="bold" if coloured else ""), soft_wrap=True)
        body = _coloured(row.segments) if coloured else Text(mark_targets(row.segments))
        console.print(body, soft_wrap=True)
    if coloured and n and rows:
        console.print(
            Text.assemble(
                ("learnt", "green"), "  ", ("not learnt", "dim"), "  ", ("special token", "reverse dim")
            )
        )


def mark_targets(segments: Sequence[PreviewSegment]) -> str:
    """Return the text with its learnt runs in ⟦ ⟧."""
    text, inside = "", False
    for segment in segments:
        if segment.learnt != inside:
            text += OPEN if segment.learnt else CLOSE
            inside = segment.learnt
        text += segment.text
    return text + (CLOSE if inside else "")


def _coloured(segments: Sequence[PreviewSegment]) -> Text:
    text = Text()
    for segment in segments:
        colour = "green" if segment.learnt else "dim"
        text.append(segment.text, style=f"{colour} reverse" if segment.special else colour)
    return text


def _title(row: PreviewRow) -> str:
    note = f" ({row.note})" if row.note else ""
    return f"--- {row.place}: {row.tokens:,} tokens, {row.learnt:,} learnt{note}"
