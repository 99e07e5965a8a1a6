"""The arms' scores drawn with characters: a dot for the mean and a line for its interval, on a scale from 0 to 1."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.text import Text

LEAST, MOST = 20, 60
"""Columns of the scale; a terminal with less room than the least gets no drawing."""
_TICKS = ("0", ".25", ".5", ".75", "1")


def chart(data: Mapping[str, Any], width: int) -> Text:
    """Return a line for each arm, best first, the arm to use in colour; empty where ``width`` is too narrow."""
    arms = data["arms"]
    name = max((len(arm["arm"]) for arm in arms), default=0)
    columns = min(MOST, width - name - 2)
    if columns < LEAST:
        return Text()
    lines = []
    for arm in arms:
        best = arm["arm"] == (data["verdict"] or {}).get("winner")
        line = Text(f"{arm['arm']:<{name}}  ", style="bold" if best else "")
        score = arm["score"]
        line.append(
            row(score["mean"], score["low"], score["high"], columns, "bold cyan" if best else "default")
        )
        lines.append(line)
    lines.append(Text(" " * (name + 2) + scale(columns), style="dim"))
    return Text("\n").join(lines)


def row(mean: float, low: float, high: float, columns: int, style: str) -> Text:
    """Return one scale with its quarters dotted, the interval a line, the mean a dot."""
    quarters = {round(n * (columns - 1) / 4) for n in range(5)}
    left, dot, right = (round(max(0.0, min(1.0, v)) * (columns - 1)) for v in (low, mean, high))
    found = Text()
    for at in range(columns):
        if at == dot:
            found.append("●", style)
        elif left <= at <= right:
            found.append("━", style)
        else:
            found.append("┊" if at in quarters else " ", "dim")
    return found


def scale(columns: int) -> str:
    """Return the numbers under the scale, each under its quarter."""
    cells = [" "] * columns
    for n, text in enumerate(_TICKS):
        start = min(columns - len(text), round(n * (columns - 1) / 4))
        cells[start : start + len(text)] = text
    return "".join(cells)
