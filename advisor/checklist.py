"""The preflight as people and programs see it: a line per check, green, yellow or red, and one verdict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from advisor.render import console
from runners.complaints import LEVELS, Check
from runners.preflight import Preflight

MARKS: Mapping[str, str] = {
    "ok": "[green]ok[/]",
    "warn": "[yellow]warn[/]",
    "stop": "[bold red]stop[/]",
}


def show(report: Preflight) -> None:
    """Print every check, what stands in the way last, and what it comes to; one line each for a program."""
    screen = console()
    ordered = sorted(report.checks, key=lambda check: LEVELS.index(check.level))
    if screen.is_terminal:
        drawn = Table.grid(padding=(0, 2, 0, 0))
        for check in ordered:
            drawn.add_row(MARKS[check.level], f"[dim]{check.code}[/]", check.title, _told(check))
        screen.print(drawn)
    else:
        for check in ordered:
            print(f"{check.level:<5} {check.code}  {check.title:<19} {check.sentence()}")
            if check.next and check.level != "ok":
                print(f"{'':<33}next: {check.next}")
    screen.print(verdict(report))


def verdict(report: Preflight) -> Text:
    """Return the last line: how many checks stand how, and whether a run would start."""
    counts = {level: sum(c.level == level for c in report.checks) for level in MARKS}
    told = f"{counts['ok']} ok, {counts['warn']} to know, {counts['stop']} in the way"
    if counts["stop"]:
        return Text.from_markup(f"[bold red]this run would not start[/] ({told})")
    return Text.from_markup(f"[bold green]nothing stands in the way[/] ({told})")


def to_json(report: Preflight, more: Mapping[str, Any]) -> dict[str, Any]:
    """Return what ``train --check --json`` prints."""
    return {"schema": 1, **report.to_json(), **more}


def warnings(report: Preflight) -> list[str]:
    """Return what is worth knowing before a run starts, one line each."""
    return [f"{c.code} {c.title}: {c.sentence()}" for c in report.checks if c.level == "warn"]


def _told(check: Check) -> str:
    told = escape(check.sentence())
    if check.level == "ok":
        return f"[dim]{told}[/]"
    return f"{told}\n[dim]→ {escape(check.next)}[/]" if check.next else told
