"""The cost lines as text: USD a month against calls a month, both logarithmic, one letter for each method."""

from __future__ import annotations

import math
from collections.abc import Mapping
from textwrap import wrap
from typing import Any

from advisor.costs.hosting import MonthlyCost

METHOD_LETTERS: Mapping[str, str] = {
    "prompting": "P",
    "few-shot": "F",
    "rag": "R",
    "lora": "L",
    "qlora": "Q",
    "full": "A",
    "hybrid": "H",
}
"""One letter a method; full tuning trains *all* weights."""
PLOT_HEIGHT = 18
LEAST_WIDTH, MOST_WIDTH = 40, 110
_MARGIN = 10


def plot_lines(break_even: Mapping[str, Any], width: int = 80) -> str:
    """Return the picture of a recommendation's ``break_even``: at most ``width`` columns, plain characters.

    Only methods that nothing blocks are drawn. ``+`` marks the crossing of the headline pair, ``:`` the calls
    of the user; a line that costs nothing cannot stand on a logarithmic axis and is named below.
    """
    drawn = plotted_methods(break_even)
    width = max(LEAST_WIDTH, min(width, MOST_WIDTH))
    if not drawn:
        return _free(break_even) or "no prices are known, so there are no lines to draw"
    columns = width - _MARGIN
    low, high = plotted_calls(break_even)
    calls = [10 ** (low + (high - low) * n / (columns - 1)) for n in range(columns)]
    floor, top = plotted_usd(drawn, low, high)
    grid = [[" "] * columns for _ in range(PLOT_HEIGHT)]

    def row(usd: float) -> int:
        share = (math.log10(max(usd, 1e-12)) - floor) / (top - floor)
        return PLOT_HEIGHT - 1 - round(max(0.0, min(1.0, share)) * (PLOT_HEIGHT - 1))

    yours = _column(break_even["calls_per_month"], low, high, columns)
    for cells in grid:
        cells[yours] = ":"
    for column, n in enumerate(calls):
        met: dict[int, list[str]] = {}
        for name, line in drawn.items():
            met.setdefault(row(line.month(n)), []).append(METHOD_LETTERS[name])
        for height, letters in met.items():  # where lines run together, their letters take turns
            grid[height][column] = letters[column % len(letters)]
    if crossed := crossing_point(break_even):
        grid[row(crossed[1])][_column(crossed[0], low, high, columns)] = "+"
    return "\n".join(
        [*_axes(grid, floor, top, low, high, columns), *_legend(break_even, drawn, crossed, width)]
    )


def plotted_methods(break_even: Mapping[str, Any]) -> dict[str, MonthlyCost]:
    """Return the lines of the methods that are open and cost something, best first."""
    rows = break_even.get("per_month", {})
    found = {
        name: MonthlyCost.of_json(row) for name, row in rows.items() if row["open"] and name in METHOD_LETTERS
    }
    return {name: line for name, line in found.items() if line.month(1.0) > 0}


def plotted_calls(break_even: Mapping[str, Any]) -> tuple[float, float]:
    """Return the powers of ten of calls a month that the picture shows: around the user's and the crossing."""
    crossed = crossing_point(break_even)
    shown = [float(break_even["calls_per_month"]), *([crossed[0]] if crossed else [])]
    return (
        max(0.0, min(2.0, math.floor(math.log10(max(1.0, min(shown)))) - 1.0)),
        max(6.0, math.ceil(math.log10(max(shown))) + 1.0),
    )


def plotted_usd(drawn: Mapping[str, MonthlyCost], low: float, high: float) -> tuple[float, float]:
    """Return the powers of ten of USD a month that hold all lines."""
    ends = [line.month(10**end) for line in drawn.values() for end in (low, high)]
    bottom = math.floor(math.log10(max(min(ends), 1e-6)))
    return bottom, max(bottom + 1, math.ceil(math.log10(max(ends))))


def right_edge_labels(drawn: Mapping[str, MonthlyCost], calls: float) -> list[tuple[float, list[str]]]:
    """Return USD a month at the right edge, lowest first, and the methods whose names can stand there together."""
    found: list[tuple[float, list[str]]] = []
    for name, line in sorted(drawn.items(), key=lambda item: item[1].month(calls)):
        usd = line.month(calls)
        if found and usd < found[-1][0] * 1.35:
            found[-1][1].append(name)
        else:
            found.append((usd, [name]))
    return found


def crossing_point(break_even: Mapping[str, Any]) -> tuple[float, float] | None:
    """Return calls and USD a month where the headline pair crosses, None where it never does."""
    pair = set(break_even["between"])
    row = next((x for x in break_even["pairs"] if set(x["between"]) == pair), None)
    if row is None or not row["calls_per_month"]:
        return None
    calls = float(row["calls_per_month"])
    return calls, MonthlyCost.of_json(break_even["per_month"][break_even["between"][0]]).month(calls)


def _axes(
    grid: list[list[str]], floor: float, top: float, low: float, high: float, columns: int
) -> list[str]:
    labels = {
        round((top - power) / (top - floor) * (PLOT_HEIGHT - 1)): _money(power)
        for power in range(round(floor), round(top) + 1)
    }
    out = ["USD a month"]
    out += [f"{labels.get(n, ''):>{_MARGIN - 2}} |{''.join(cells)}".rstrip() for n, cells in enumerate(grid)]
    out.append(" " * (_MARGIN - 1) + "+" + "-" * columns)
    ticks = [" "] * (columns + _MARGIN)
    for power in range(math.ceil(low), math.floor(high) + 1):
        text = (
            f"{10**power:,}"
            if power < 4
            else f"{10 ** (power - 3):,}k"
            if power < 6
            else f"{10 ** (power - 6):,}M"
        )
        at = _MARGIN + _column(10**power, low, high, columns)
        at = max(_MARGIN, min(at - len(text) // 2, len(ticks) - len(text)))
        if all(c == " " for c in ticks[max(0, at - 1) : at + len(text)]):
            ticks[at : at + len(text)] = text
    return [*out, "".join(ticks).rstrip(), f"{'calls a month':>{_MARGIN + columns}}"]


def _legend(
    break_even: Mapping[str, Any],
    drawn: Mapping[str, MonthlyCost],
    crossed: tuple[float, float] | None,
    width: int,
) -> list[str]:
    keys = [f"{METHOD_LETTERS[name]} {name}" for name in drawn]
    known = break_even.get("calls_known", "")
    keys.append(f": {break_even['calls_per_month']:,.0f} calls ({known})")
    if crossed:
        keys.append(f"+ {' and '.join(break_even['between'])} cost the same")
    out = [""]
    for key in keys:
        if out[-1] and len(out[-1]) + 3 + len(key) > width:
            out.append("")
        out[-1] += f"   {key}" if out[-1] else key
    if break_even.get("hosted_equivalent"):
        out += wrap(
            "calls on your own machine cost about nothing; drawn is what they would cost hosted", width
        )
    return out + wrap(_free(break_even), width)


def _free(break_even: Mapping[str, Any]) -> str:
    rows = break_even.get("per_month", {})
    names = [name for name, row in rows.items() if row["open"] and MonthlyCost.of_json(row).month(1.0) <= 0]
    return f"costs nothing: {', '.join(names)}" if names else ""


def _column(calls: float, low: float, high: float, columns: int) -> int:
    share = (math.log10(max(calls, 1.0)) - low) / (high - low)
    return round(max(0.0, min(1.0, share)) * (columns - 1))


def _money(power: int) -> str:
    return (
        f"{10**power:,}"
        if 0 <= power < 6
        else f"{10 ** (power - 6):,}M"
        if power >= 6
        else f"{10.0**power:g}"
    )
