"""Costs as pictures: USD a month against calls a month.

:func:`cost_chart` draws the cost lines of a recommendation as SVG; what a trial measured is drawn by
:mod:`advisor.report.plots.right_cost`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from advisor.costs.hosting import MonthlyCost

METHOD_LETTERS: Mapping[str, str] = {
    "prompting": "P",
    "few-shot": "F",
    "long-context": "X",
    "rag": "R",
    "agentic-search": "S",
    "lora": "L",
    "qlora": "Q",
    "full": "A",
    "hybrid": "H",
}
"""One letter for each method; A is full tuning, which trains *all* weights."""


def plotted_methods(break_even: Mapping[str, Any]) -> dict[str, MonthlyCost]:
    """Return the cost lines of the methods that nothing blocks and that cost something, best first."""
    rows = break_even.get("per_month", {})
    lines = {
        name: MonthlyCost.of_json(row) for name, row in rows.items() if row["open"] and name in METHOD_LETTERS
    }
    return {name: line for name, line in lines.items() if line.month(1.0) > 0}


def plotted_calls(break_even: Mapping[str, Any]) -> tuple[float, float]:
    """Return the lowest and highest power of ten of calls a month to show.

    They lie a decade around the user's calls and the crossing, and include at least 100 to 1,000,000.
    """
    crossing = crossing_point(break_even)
    shown = [float(break_even["calls_per_month"]), *([crossing[0]] if crossing else [])]
    return (
        max(0.0, min(2.0, math.floor(math.log10(max(1.0, min(shown)))) - 1.0)),
        max(6.0, math.ceil(math.log10(max(shown))) + 1.0),
    )


def plotted_usd(lines: Mapping[str, MonthlyCost], low: float, high: float) -> tuple[float, float]:
    """Return the lowest and highest power of ten of USD a month that hold all lines between ``low`` and ``high``."""
    costs = [line.month(10**end) for line in lines.values() for end in (low, high)]
    bottom = math.floor(math.log10(max(min(costs), 1e-6)))
    return bottom, max(bottom + 1, math.ceil(math.log10(max(costs))))


def crossing_point(break_even: Mapping[str, Any]) -> tuple[float, float] | None:
    """Return the calls and USD a month at which the two methods of the headline cost the same, None if they never do."""
    pair = set(break_even["between"])
    row = next((pair_row for pair_row in break_even["pairs"] if set(pair_row["between"]) == pair), None)
    if row is None or not row["calls_per_month"]:
        return None
    calls = float(row["calls_per_month"])
    return calls, MonthlyCost.of_json(break_even["per_month"][break_even["between"][0]]).month(calls)


def pairs_in_words(break_even: Mapping[str, Any], arms: Sequence[str]) -> list[tuple[str, str]]:
    """Return (pair, sentence) for each pair of ``arms``: where both cost the same, or which is cheaper at any volume."""
    rows = break_even.get("per_month", {})
    pairs = []
    for pair in break_even.get("pairs", ()):
        a, b = pair["between"]
        if a not in arms or b not in arms:
            continue
        sentence = str(pair["text"])
        if not pair["calls_per_month"] and a in rows and b in rows:
            usd = {name: rows[name]["usd"] for name in (a, b)}
            cheaper = min(usd, key=lambda name: usd[name])
            same = rows[a] == rows[b] or usd[a] == usd[b]
            sentence = (
                "cost the same at any number of calls"
                if same
                else f"{cheaper} is cheaper at any number of calls"
            )
        pairs.append((f"{a} and {b}", sentence))
    return pairs


def cost_chart(break_even: Mapping[str, Any], arms: Sequence[str], colours: Mapping[str, int]) -> str:
    """Draw USD a month of methods against calls a month on logarithmic axes; "" when none of them has a price.

    Methods whose lines coincide (to four digits) share one line and one name, which stands at its right end. A ring marks
    where the two methods compared in the headline cost the same, a vertical line the calls of the user.

    Args:
        break_even: ``break_even`` of a recommendation.
        arms: the methods to draw: those measured, and the recommended one.
        colours: number of the colour of each arm.
    """
    from advisor.report.charts import Axis, draw_lines  # numpy, which drawing a plan does not need

    priced = plotted_methods(break_even) if break_even else {}
    lines = {name: line for name, line in priced.items() if name in arms}
    if not lines:
        return ""
    low, high = plotted_calls(break_even)
    bottom, top = plotted_usd(lines, low, high)
    calls = [10 ** (low + (high - low) * n / 80) for n in range(81)]
    by_costs: dict[tuple[float, ...], list[str]] = {}
    for name, line in lines.items():
        by_costs.setdefault(tuple(float(f"{line.month(c):.4g}") for c in calls), []).append(name)
    first = sorted(by_costs.items(), key=lambda item: not set(item[1]) & set(break_even["between"]))
    series = {", ".join(names): list(zip(calls, usd, strict=True)) for usd, names in first}
    crossing = crossing_point(break_even) if set(break_even["between"]) <= set(lines) else None
    volume = float(break_even["calls_per_month"])
    return draw_lines(
        "USD a month by calls a month",
        str(break_even["text"]),
        series,
        Axis("calls a month", low, high, log=True),
        Axis("USD a month", bottom, top, log=True),
        [crossing] if crossing else [],
        volume,
        colours={", ".join(names): colours.get(names[0], len(colours)) for names in by_costs.values()},
        line_label=f"yours: {volume:,.0f} a month",
    )
