"""What the verbs print for people: the table of arms, the verdict, the known models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from advisor import dots
from advisor.margins import show_margins
from advisor.output import format_interval, say

COLUMNS = {
    "label": "label",
    "slot_f1": "slots",
    "final_answer": "final",
    "style": "style",
    "fact_recall": "facts",
    "agreement": "agree",
    "refusal": "refusal",
    "citation": "cited",
    "spurious": "spurious",
    "house_style": "house",
    "token_f1": "F1",
}
"""Scores that the table of arms shows when they weigh anything, so that it fits a terminal; the report has them all."""
GAP = 2
"""Columns of a terminal between those of a table."""
MARKS = {"confirmed": "green", "overturned": "red", "undecided": "yellow"}


def show_report(data: dict[str, Any], console: Console | None = None) -> None:
    """Print the table of arms, their scores as a drawing, the verdict line and the warnings."""
    console = console or Console()
    console.print(*arms_tables(data, console.width))
    console.print(dots.chart(data, console.width))
    show_margins(data, console)
    for line in (weights_line(data), *judge_lines(data)):
        say(console, line, "dim")
    verdict = data["verdict"]
    colour = MARKS[verdict["outcome"]]
    console.print(
        f"[{colour} bold]{verdict['outcome'].upper()}[/] ({verdict['strength']})  {escape(verdict['text'])}",
        highlight=False,
        soft_wrap=True,
    )
    if lesson := verdict.get("taught"):
        say(console, f"  {lesson}")
    show_guards(data, console)


def show_guards(data: dict[str, Any], console: Console) -> None:
    """Print what the verdict's reader must know: each warning, and what an update of the documents changed."""
    for warning in data.get("warnings", ()):
        say(console, f"  warning: {warning}", "yellow")
    stale = data["guards"].get("staleness") or {}
    if stale.get("line"):
        say(console, f"  {stale['line']}")


def arms_tables(data: dict[str, Any], width: int) -> list[Table]:
    """Arms by combined score, with the scores behind it; columns for which ``width`` has no room follow in more tables."""
    best = (data["verdict"] or {}).get("winner")
    names = [f"[bold]{arm['arm']}[/]" if arm["arm"] == best else arm["arm"] for arm in data["arms"]]
    columns = _columns(data)
    # A score that is cut is worse than none: on the narrowest terminals the arm's name gives way.
    widest = max(_room(title, cells) for title, cells in columns.items())
    least = max(1, min(_room("arm", names), width - GAP - widest))
    tables: list[dict[str, list[str]]] = []
    left = 0
    for title, cells in columns.items():
        if not tables or left < GAP + _room(title, cells):
            tables.append({"arm": names})
            left = width - least
        tables[-1][title] = cells
        left -= GAP + _room(title, cells)
    return [_drawn(each, least) for each in tables]


def _columns(data: dict[str, Any]) -> dict[str, list[str]]:
    """The cells of each column by its title, without the arms' names; both are markup."""
    arms = data["arms"]
    measured = {name for arm in arms for name in arm["scores"]}
    weighed = {name for name, weight in data["weights"].items() if weight} & measured
    shown = {name: title for name, title in COLUMNS.items() if name in (weighed or measured)}
    scores = [arm["score"] for arm in arms]
    return {
        "combined [dim]95 %[/]": [f"{s['mean']:.2f} [dim]{format_interval(s)}[/]" for s in scores],
        **{title: [_mean(arm, name) for arm in arms] for name, title in shown.items()},
        "s/answer": [f"{arm['seconds_per_answer']:.2f}" for arm in arms],
    }


def _drawn(columns: dict[str, list[str]], names: int) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in columns:
        arm = title == "arm"
        table.add_column(
            title, justify="left" if arm else "right", no_wrap=True, max_width=names if arm else None
        )
    for row in zip(*columns.values(), strict=True):
        table.add_row(*row)
    return table


def _room(title: str, cells: Sequence[str]) -> int:
    return max(Text.from_markup(cell).cell_len for cell in (title, *cells))


def weights_line(data: dict[str, Any]) -> str:
    """What the combined score weighs, each with its reason where the plan gives one."""
    reasons = data.get("weight_reasons") or {}
    weighed = (
        f"{name} {weight:g}" + (f" ({reasons[name]})" if name in reasons else "")
        for name, weight in data["weights"].items()
        if weight
    )
    return f"combined: {'; '.join(weighed)}"


def judge_lines(data: dict[str, Any]) -> list[str]:
    """What the judge preferred, and how often it agrees with the combined score; nothing without a judge."""
    judge = data.get("judge")
    if not judge:
        return []
    lines = []
    for pair in judge["against"]:
        missing = f", {pair['of'] - pair['n']} not judged" if pair["of"] > pair["n"] else ""
        lines.append(
            f"judge {judge['model']}: {pair['a']} better than {pair['b']} on {pair['better']} of {pair['n']} questions, "
            f"worse on {pair['worse']} ({pair['inconsistent']} of the ties changed with the order{missing})"
        )
    if judge["same_sign"] is not None:
        kappa = "" if judge["kappa"] is None else f" (kappa {judge['kappa']:.2f})"
        lines.append(f"judge and combined score favour the same arm on {judge['same_sign']:.0%}{kappa}")
    return lines


def show_models(rows: Sequence[dict[str, Any]]) -> None:
    """Print the known models: what each is, whether it is here, how large, and below where it comes from."""
    console = Console()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("name", "kind", "state"):
        table.add_column(title, no_wrap=True)
    table.add_column("size", justify="right", no_wrap=True)
    for row in rows:
        table.add_row(row["name"], row["kind"], row["state"], f"{row['bytes'] / 1e6:,.0f} MB")
    console.print(table)
    for row in rows:
        told = f"{row['source']} of the package registry, or {row['hub']} of the model hub; {row['license']}"
        say(console, f"{row['name']}: {told}", "dim")


def _mean(arm: dict[str, Any], name: str) -> str:
    return f"{arm['scores'][name]['mean']:.2f}" if name in arm["scores"] else "–"
