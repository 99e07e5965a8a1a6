"""What the verbs print for people: the table of arms, the verdict, an answer with its citations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from advisor import dots, sources
from rag.clean import visible

if TYPE_CHECKING:
    from runners.answer import Answer

COLUMNS = {
    "style": "style",
    "fact_recall": "facts",
    "agreement": "agree",
    "refusal": "refusal",
    "citation": "cited",
}
MARKS = {"confirmed": "green", "overturned": "red", "undecided": "yellow"}


def show_report(data: dict[str, Any], console: Console | None = None) -> None:
    """Print the table of arms, their scores as a drawing, the verdict line and the warnings."""
    console = console or Console()
    console.print(arms_table(data))
    console.print(dots.chart(data, console.width))
    verdict = data["verdict"]
    colour = MARKS[verdict["outcome"]]
    console.print(
        f"[{colour} bold]{verdict['outcome'].upper()}[/] ({verdict['strength']})  {escape(verdict['text'])}",
        highlight=False,
        soft_wrap=True,
    )
    for warning in data.get("warnings") or ():
        _say(console, f"  warning: {warning}", "yellow")


def arms_table(data: dict[str, Any]) -> Table:
    """Arms by combined score, with the scores behind it."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("arm")
    table.add_column("combined [dim]95 %[/]", justify="right")
    for name in COLUMNS.values():
        table.add_column(name, justify="right")
    table.add_column("F1", justify="right")
    table.add_column("s/answer", justify="right")
    for arm in data["arms"]:
        score = arm["score"]
        cells = [f"{score['mean']:.2f} [dim]{score['low']:.2f}–{score['high']:.2f}[/]"]
        cells += [_mean(arm, name) for name in (*COLUMNS, "token_f1")]
        best = arm["arm"] == data["verdict"]["winner"]
        name = f"[bold]{arm['arm']}[/]" if best else arm["arm"]
        table.add_row(name, *cells, f"{arm['seconds_per_answer']:.2f}")
    return table


def show_comparison(data: dict[str, Any], other: dict[str, Any]) -> None:
    """Print two runs' arms side by side."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("arm", data["name"], other["name"], "difference"):
        table.add_column(title, justify="left" if title == "arm" else "right")
    theirs = {arm["arm"]: arm["score"]["mean"] for arm in other["arms"]}
    for arm in data["arms"]:
        mean, their = arm["score"]["mean"], theirs.get(arm["arm"])
        both = (f"{their:.2f}", f"{mean - their:+.2f}") if their is not None else ("–", "–")
        table.add_row(arm["arm"], f"{mean:.2f}", *both)
    Console().print(table)


def show_answer(answer: Answer, arm: str, console: Console | None = None) -> None:
    """Print an answer and where each cited passage stands."""
    console = console or Console()
    _say(console, sources.marked(answer))
    show_sources(answer, arm, console)


def show_sources(answer: Answer, arm: str, console: Console | None = None) -> None:
    """Print what stands below an answer: its sources, what contradicts them, and what was searched in vain."""
    console = console or Console()
    for kind, text in sources.lines(answer):
        _say(console, f"  {text}", "yellow" if kind in ("doubt", "conflict") else "dim")
    note = "the documents do not hold an answer" if answer.refused else f"arm: {arm}"
    _say(console, f"  ({note})", "dim")


def answer_json(answer: Answer, arm: str) -> dict[str, Any]:
    """An answer as `ask --json` prints it."""
    decision = answer.found.decision.to_json() if answer.found else None
    return {
        "schema": 1, "answer": answer.marked, "refused": answer.refused, "arm": arm,
        "citations": [c.to_json() for c in answer.citations],
        "conflicts": [c.to_json() for c in answer.conflicts],
        "searched": sources.searched(answer), "nearest": sources.nearest(answer), "decision": decision,
        "notes": list(answer.found.notes) if answer.found else [],
        "usage": {
            "prompt_tokens": answer.completion.prompt_tokens,
            "completion_tokens": answer.completion.completion_tokens,
        },
        "seconds": round(answer.completion.seconds, 3),
    }  # fmt: skip


def show_models(rows: Sequence[dict[str, Any]]) -> None:
    """Print the known models."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    keys = [key for key in rows[0] if key not in ("schema",)] if rows else []
    for key in keys:
        table.add_column(key)
    for row in rows:
        table.add_row(*(str(row[key]) for key in keys))
    Console().print(table)


def _say(console: Console, text: str, style: str | None = None) -> None:
    """Print a text that somebody else wrote: nothing in it is markup, an emoji's name or a terminal's command."""
    console.print(visible(text), highlight=False, markup=False, emoji=False, soft_wrap=True, style=style)


def _mean(arm: dict[str, Any], name: str) -> str:
    return f"{arm['scores'][name]['mean']:.2f}" if name in arm["scores"] else "–"
