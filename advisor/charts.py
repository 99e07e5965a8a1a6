"""The report's drawings as inline SVG, with no remote parts. Heavy: imports matplotlib."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from advisor import plot

INK, SOFT, CHOSEN = "#1f2933", "#9aa5b1", "#0b7285"
_DASHES = ("-", "--", "-.", (0, (1, 1)), (0, (5, 1, 1, 1, 1, 1)))
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


def cost_chart(break_even: Mapping[str, Any]) -> str:
    """USD a month of each open method against calls a month, logarithmic; empty when nothing has a price.

    ``break_even`` is the recommendation's. Lines that run together are named together at their end; a circle
    marks where the headline pair costs the same, a dashed line the user's calls.
    """
    drawn = plot.drawable(break_even) if break_even else {}
    if not drawn:
        return ""
    low, high = plot.span(break_even)
    calls = [10 ** (low + (high - low) * n / 120) for n in range(121)]
    with mpl.rc_context(_SETTINGS):
        figure = Figure(figsize=(7.2, 3.4))
        axes = figure.subplots()
        for n, (name, line) in enumerate(reversed(drawn.items())):
            colour = CHOSEN if name in break_even["between"] else SOFT
            axes.plot(
                calls, [line.month(x) for x in calls], color=colour, lw=1.8, ls=_DASHES[n % len(_DASHES)]
            )
        for height, names in plot.ends(drawn, 10**high):
            marked = any(name in break_even["between"] for name in names)
            axes.annotate(
                ", ".join(names), (10**high, height), (6, 0), textcoords="offset points", va="center",
                color=CHOSEN if marked else INK, fontsize=9, annotation_clip=False,
            )  # fmt: skip
        axes.axvline(break_even["calls_per_month"], color=SOFT, lw=1, ls=":")
        if met := plot.meeting(break_even):
            axes.plot([met[0]], [met[1]], "o", ms=8, mfc="none", mec=INK)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlim(10**low, 10**high)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}")
        axes.minorticks_off()
        axes.set_xlabel("calls a month (dotted: yours)")
        axes.set_ylabel("USD a month")
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
