"""The report's drawings as inline SVG, with no remote parts. Heavy: imports matplotlib."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

INK, SOFT, CHOSEN = "#1f2933", "#9aa5b1", "#0b7285"
# Fixed salt and no date: the same numbers draw the same bytes.
_SETTINGS: Any = {
    "svg.hashsalt": "tunewise",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
}


def arms_chart(arms: Sequence[dict[str, Any]], choice: str) -> str:
    """Combined score of each arm with its 95 % interval, best on top."""
    rows = list(reversed(arms))
    with mpl.rc_context(_SETTINGS):
        figure = Figure(figsize=(7.2, 0.42 * len(rows) + 0.7))
        axes = figure.subplots()
        for height, arm in enumerate(rows):
            score = arm["score"]
            colour = CHOSEN if arm["arm"] == choice else INK
            axes.plot([score["low"], score["high"]], [height, height], color=colour, lw=2, alpha=0.55)
            axes.plot([score["mean"]], [height], "o", color=colour, ms=7)
            axes.annotate(
                f"{score['mean']:.2f}", (score["mean"], height), (0, 7), textcoords="offset points", ha="center",
                color=colour, fontsize=9,
            )  # fmt: skip
        axes.set_yticks(range(len(rows)), [arm["arm"] for arm in rows])
        axes.set_ylim(-0.6, len(rows) - 0.25)
        axes.set_xlim(0, 1)
        axes.set_xlabel("combined score, mean and 95 % interval")
        return _svg(figure, axes)


def loss_chart(curves: dict[str, list[tuple[int, float]]]) -> str:
    """Training loss by step, one line per arm."""
    with mpl.rc_context(_SETTINGS):
        figure = Figure(figsize=(7.2, 2.6))
        axes = figure.subplots()
        for name, points in curves.items():
            axes.plot([step for step, _ in points], [loss for _, loss in points], lw=1.6, label=name)
        axes.set_xlabel("optimiser step")
        axes.set_ylabel("loss per label token")
        axes.set_ylim(bottom=0)
        axes.legend(frameon=False)
        return _svg(figure, axes)


def _svg(figure: Figure, axes: Any) -> str:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("bottom", "left"):
        axes.spines[side].set_color(SOFT)
    axes.tick_params(colors=INK, length=0)
    axes.grid(axis="x", color="#e4e7eb", lw=0.8)
    axes.set_axisbelow(True)
    out = io.StringIO()
    figure.savefig(out, format="svg", bbox_inches="tight", transparent=True, metadata={"Date": None})
    text = out.getvalue()
    return text[text.index("<svg") :]
