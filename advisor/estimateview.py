"""How `tunewise estimate` prints what it found: an estimate's parts, or its score on measured peaks."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from advisor.estimating import Estimated
from advisor.output import emit
from runners import figures, footprint

WORST = 5
"""Figures listed as the worst in the text view of a score."""
_VERDICTS = {"yes": "fits", "tight": "is tight on", "no": "does not fit"}


def show(found: Estimated, as_json: bool) -> None:
    """Print an estimate: as JSON, or as a headline, the parts, and what was assumed."""
    if as_json:
        emit(found.to_json())
        return
    from rich.markup import escape

    from advisor import render

    memory, console = found.memory, render.console()
    fits = memory.fits(found.device_gib)
    verdict = "" if fits is None else f"  [{render.COLOURS[fits]}]{_VERDICTS[fits]}[/] {escape(found.device)}"
    console.print(
        f"[bold]{escape(found.name)}, {found.method}[/]  about [bold]{memory.likely:.1f} GiB[/] "
        f"({memory.low:.1f} to {memory.high:.1f}){verdict}"
    )
    rows = [
        (name.replace("_", " "), f"{gib:.2f}", _bar(gib, memory.likely), f"[dim]{escape(_what(name))}[/]")
        for name, gib in memory.terms.items()
    ]
    console.print(render.table(("part", "GiB", "", "what it is"), rows, right=(1,)))
    for label, span, unit in (("training", found.hours, "hours"), ("cost", found.usd, "USD")):
        if span:
            console.print(f"{label}: about {span.likely:,.2g} {unit} ({span.low:,.2g} to {span.high:,.2g})")
    for said in (*memory.assumptions, *found.notes):
        console.print(f"[dim]• {escape(said)}[/]")


def show_score(path: Path, as_json: bool) -> None:
    """Print how near the estimate comes to a file of measured peaks; BadInput names a broken row and key."""
    scored = figures.score(figures.read_figures(path))
    found = figures.report(scored)
    if as_json:
        emit(found)
        return
    from rich.markup import escape

    from advisor import render

    console = render.console()
    parts = {"all": found, **found["by_method"], **found["by_source"]}
    rows = [
        (escape(name), str(x["n"]), f"{x['mape']:.1f}", f"{x['worst']:+.1f}", f"{x['under_10']:.0%}",
         f"{x['inside']:.0%}") for name, x in parts.items()
    ]  # fmt: skip
    columns = ("figures", "n", "mean error %", "worst %", "under by > 10 %", "inside the range")
    console.print(render.table(columns, rows, right=(1, 2, 3, 4, 5)))
    worst = sorted(scored, key=lambda s: -abs(s.error))[:WORST]
    lines = [
        (escape(s.figure.id), f"{s.figure.gib:.2f}", f"{s.memory.likely:.2f}", f"{100 * s.error:+.1f}")
        for s in worst
    ]
    console.print()
    console.print(render.table(("worst", "measured GiB", "estimated", "error %"), lines, right=(1, 2, 3)))
    for name, number in found["assumed"].items():
        console.print(f"[dim]• {number} figures leave out {escape(name)}: its default was assumed[/]")


def _what(term: str) -> str:
    """Return what a part is: how its function's docstring begins."""
    doc = " ".join((inspect.getdoc(getattr(footprint, term)) or "").split())
    return re.split(r"[.:;,(]", doc, maxsplit=1)[0].removeprefix("Bytes of ").strip()


def _bar(part: float, whole: float) -> str:
    return "█" * round(20 * part / whole) if whole else ""
