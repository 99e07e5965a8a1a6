"""The trial's comparisons as printed: the recommended arm against each other, seeds apart, two runs side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from advisor.output import format_interval


def show_margins(data: dict[str, Any], console: Console) -> None:
    """Print how far the recommended arm is above each other one, and how far the training seeds lie apart."""
    if data["paired"]:
        console.print("", pairs_table(data))
    for line in seed_lines(data):
        console.print(line, highlight=False, soft_wrap=True, markup=False, style="dim")


def pairs_table(data: dict[str, Any]) -> Table:
    """One line per other arm: difference, 95 % interval, p and p corrected for their number."""
    table = _table(f"{data['verdict']['recommended']} above", "by", "95 %", "p", "p (Holm)")
    for pair in data["paired"]:
        corrected = pair.get("p_holm")
        table.add_row(escape(pair["b"]), *_difference(pair), _chance(pair["p"]), _chance(corrected))
    return table


def seed_lines(data: dict[str, Any]) -> list[str]:
    """Say what each training seed scored, where there are several; where a tuned arm has one, that nothing is known."""
    several = [arm for arm in data["arms"] if len(arm.get("seeds", ())) > 1]
    if several:
        return [_apart(arm) for arm in several]
    trained = [name for name, runs in (data["measured"].get("training") or {}).items() if runs]
    if not trained:
        return []
    return [f"one training seed ({', '.join(trained)}): --seeds 2 would show how much training itself varies"]


def show_contrast(found: dict[str, Any], console: Console | None = None) -> None:
    """Print two runs side by side, as :func:`advisor.contrast.contrast` compared them."""
    console = console or Console()
    a, b = found["a"], found["b"]
    names = (a["name"], b["name"]) if a["name"] != b["name"] else (a["run"], b["run"])
    table = _table("arm", *(escape(name) for name in names), "difference", "95 %", "p (Holm)")
    rows = [(row["arm"], row) for row in found["arms"]]
    final = found["winners"]
    if final["a"] != final["b"] and "mean_a" in final:
        rows.append((f"winners: {final['a']}, {final['b']}", final))
    for name, row in rows:
        means = (f"{row['mean_a']:.2f}", f"{row['mean_b']:.2f}")
        table.add_row(escape(name), *means, *_difference(row), _chance(row["p_holm"]))
    console.print(table)
    lines = [_told(found["questions"]), *found["notes"]]
    for key, name in (("only_in_a", names[0]), ("only_in_b", names[1])):
        if found[key]:
            lines.append(f"only in {name}: {', '.join(found[key])}")
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True, markup=False, style="dim")


def _told(questions: Mapping[str, int]) -> str:
    """Return in words how many questions are compared, and how many are not."""
    left = [
        f"{questions[key]} only in {where}"
        for key, where in (("only_a", "the first"), ("only_b", "the second"))
        if questions[key]
    ]
    return f"{questions['common']} questions in both runs" + (f" ({', '.join(left)})" if left else "")


def _apart(arm: dict[str, Any]) -> str:
    means = [row["mean"] for row in arm["seeds"]]
    each = ", ".join(f"{row['mean']:.3f} (seed {row['seed']})" for row in arm["seeds"])
    return f"{arm['arm']}: {each}; training seeds are {max(means) - min(means):.3f} apart"


def _table(*titles: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, title in enumerate(titles):
        table.add_column(title, justify="right" if number else "left")
    return table


def _difference(row: dict[str, Any]) -> tuple[str, str]:
    return f"{row['difference']:+.3f}", format_interval(row, 3, signed=True)


def _chance(p: float | None) -> str:
    """A p-value as printed; a run of an earlier version has none that is corrected."""
    if p is None:
        return "–"
    return "<.001" if p < 0.001 else f"{p:.3f}".lstrip("0")
