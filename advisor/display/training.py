"""What ``tunewise train`` shows: the preflight checks with their verdict, and training rows as the model sees them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from advisor.display.console import console
from advisor.output import open_console
from runners.preflight.report import CHECK_LEVELS, PreflightCheck
from runners.preflight.run_checks import PreflightReport
from runners.tokenization.chat_template import ChatTokenizer, EncodedRow
from runners.tokenization.preview import PreviewRow, PreviewSegment, preview_rows

CHECK_MARKS: Mapping[str, str] = {
    "ok": "[green]ok[/]",
    "warn": "[yellow]warn[/]",
    "stop": "[bold red]stop[/]",
}


TARGET_START = "⟦"
TARGET_END = "⟧"
"""Marks around target tokens where there is no colour."""


def show_checks_report(report: PreflightReport) -> None:
    """Print every check, the failed ones last, and the verdict; without a terminal, one line for each."""
    screen = console()
    ordered = sorted(report.checks, key=lambda check: CHECK_LEVELS.index(check.level))
    if screen.is_terminal:
        grid = Table.grid(padding=(0, 2, 0, 0))
        for check in ordered:
            grid.add_row(CHECK_MARKS[check.level], f"[dim]{check.code}[/]", check.title, _check_text(check))
        screen.print(grid)
    else:
        for check in ordered:
            print(f"{check.level:<5} {check.code}  {check.title:<19} {check.sentence()}")
            if check.next and check.level != "ok":
                print(f"{'':<33}next: {check.next}")
    screen.print(checks_verdict(report))


def checks_verdict(report: PreflightReport) -> Text:
    """Return the last line: how many checks passed, warned or failed, and whether a run would start."""
    counts = {level: sum(check.level == level for check in report.checks) for level in CHECK_MARKS}
    summary = f"{counts['ok']} ok, {counts['warn']} to know, {counts['stop']} to correct first"
    if counts["stop"]:
        return Text.from_markup(f"[bold red]this run would not start[/] ({summary})")
    return Text.from_markup(f"[bold green]ready to train[/] ({summary})")


def checks_json(report: PreflightReport, more: Mapping[str, Any]) -> dict[str, Any]:
    """Return what ``train --check --json`` prints."""
    return {"schema": 1, **report.to_json(), **more}


def check_warnings(report: PreflightReport) -> list[str]:
    """Return the warnings of the checks, one line each."""
    return [
        f"{check.code} {check.title}: {check.sentence()}" for check in report.checks if check.level == "warn"
    ]


def show_training_rows(
    rows: Sequence[EncodedRow],
    chat: ChatTokenizer,
    n: int,
    max_tokens: int | None = None,
    console: Console | None = None,
) -> None:
    """Print training rows with their target tokens green, other tokens dim and special tokens in reverse.

    Without a terminal, or with NO_COLOR, target tokens are put in ⟦ ⟧ and nothing else is added.

    Args:
        rows: encoded rows.
        chat: the tokenizer with its chat template.
        n: number of rows to print.
        max_tokens: rows over this length are marked as left out; None for no limit.
        console: where to print.
    """
    console = console or open_console(highlight=False)
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
    """Return the text with its runs of target tokens in ⟦ ⟧."""
    text, inside = "", False
    for segment in segments:
        if segment.learnt != inside:
            text += TARGET_START if segment.learnt else TARGET_END
            inside = segment.learnt
        text += segment.text
    return text + (TARGET_END if inside else "")


def _check_text(check: PreflightCheck) -> str:
    text = escape(check.sentence())
    if check.level == "ok":
        return f"[dim]{text}[/]"
    return f"{text}\n[dim]→ {escape(check.next)}[/]" if check.next else text


def _coloured(segments: Sequence[PreviewSegment]) -> Text:
    text = Text()
    for segment in segments:
        colour = "green" if segment.learnt else "dim"
        text.append(segment.text, style=f"{colour} reverse" if segment.special else colour)
    return text


def _title(row: PreviewRow) -> str:
    note = f" ({row.note})" if row.note else ""
    return f"--- {row.place}: {row.tokens:,} tokens, {row.learnt:,} learnt{note}"
