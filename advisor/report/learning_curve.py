"""Learning curves in a report: the chart, the section's rows, and the page of a curve that belongs to no run."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

from advisor.report.charts import Axis, draw_lines
from rag.errors import BadInput
from rag.files import check_schema
from rag.text.words import count_noun
from runners.run_folder import CURVES_FOLDER

CURVE_JSON = "curve.json"
MARGIN = 0.06
"""Share of an axis left empty at both ends."""
BESIDE_SHARE = 0.008
"""Distance of two arms at one size, as a share of the axis."""
VALIDATION_SERIES = "validation"
"""Series whose names end with this are drawn as dots."""
LEADER = "*"
LEADER_TEXT = f"{LEADER} clearly ahead of every other arm with so many rows"


@dataclass(frozen=True, slots=True)
class SizeAxis(Axis):
    """A logarithmic axis labelled at the sizes measured and forecast instead of powers of ten."""

    sizes: tuple[float, ...] = ()

    @property
    def ticks(self) -> list[float]:
        """The sizes, without those that would overlap the label of the one before."""
        kept_sizes: list[float] = []
        for size in self.sizes:
            if not kept_sizes or self.share(size) - self.share(kept_sizes[-1]) > 0.07:
                kept_sizes.append(size)
        return kept_sizes


def read_curves(run: Path) -> list[dict[str, Any]]:
    """Return the learning curves of a run's arms, by arm; [] without. BadInput for a damaged or newer file."""
    return [
        {**_read_curve(run, file), "folder": f"{CURVES_FOLDER}/{file.parent.name}"}
        for file in sorted((run / CURVES_FOLDER).glob(f"*/{CURVE_JSON}"))
    ]


def read_curve_of_arms(run: Path) -> dict[str, Any] | None:
    """Return what was measured of several arms together; None without. BadInput for a damaged or newer file."""
    file = run / CURVES_FOLDER / CURVE_JSON
    return {**_read_curve(run, file), "folder": CURVES_FOLDER} if file.exists() else None


def _read_curve(run: Path, file: Path) -> dict[str, Any]:
    try:
        return check_schema(json.loads(file.read_text("utf-8")), "curve", file)
    except (OSError, ValueError) as error:
        raise BadInput(
            f"{file} is damaged: {error!r}", f"write it again: tunewise curve {run} --resume"
        ) from None


def curve_chart(data: Mapping[str, Any]) -> str:
    """Draw the points with their 95 % intervals, and the fitted curve with its band, over the rows (logarithmic)."""
    points, fitted = data["points"], data["fitted"]
    values = [row[key] for row in (*points, *fitted) for key in ("low", "high")]
    low, high = min(values), max(values)
    space = MARGIN * max(high - low, 0.05)
    sizes = (
        *(row["n"] for row in points),
        *(row["n"] for row in data["forecast"] if row["n"] <= fitted[-1]["n"]),
    )
    x = SizeAxis("rows (logarithmic)", math.log10(fitted[0]["n"]), math.log10(fitted[-1]["n"]), True, sizes)
    y = Axis("combined score", max(0.0, low - space), min(1.0, high + space))
    measured = ", ".join(f"{row['score']:.2f} with {row['n']} rows" for row in points)
    description = f"{data['arm']}: {measured}. {data['text']}"
    return draw_lines(
        "Learning curve",
        description,
        {
            "fitted curve and its band": [(row["n"], row["median"]) for row in fitted],
            "measured, 95 % interval": [(row["n"], row["score"]) for row in points],
        },
        x,
        y,
        dot_suffix="interval",
        vertical_line=points[-1]["n"],
        colours={"fitted curve and its band": 0, "measured, 95 % interval": 0},
        band=[(row["n"], row["low"], row["high"]) for row in fitted],
        bars={"measured, 95 % interval": [(row["n"], row["low"], row["high"]) for row in points]},
    )


def arms_chart(data: Mapping[str, Any]) -> str:
    """Draw the measured points of several arms with their 95 % intervals over the rows (logarithmic).

    Arms differ by colour, line style and the shape of their points. Points of one size stand side by side.
    """
    curves = data["arms"]
    values = [row[key] for curve in curves for row in curve["points"] for key in ("low", "high")]
    low, high = min(values), max(values)
    space = MARGIN * max(high - low, 0.05)
    sizes = [float(row["n"]) for row in curves[0]["points"]]
    left, right = math.log10(sizes[0]), math.log10(sizes[-1])
    edge = MARGIN * (right - left)
    x = SizeAxis("rows (logarithmic)", left - edge, right + edge, True, tuple(sizes))
    y = Axis("combined score", max(0.0, low - space), min(1.0, high + space))
    lines: dict[str, list[tuple[float, float]]] = {}
    bars: dict[str, list[tuple[float, float, float]]] = {}
    for number, curve in enumerate(curves):
        beside = 10 ** ((number - (len(curves) - 1) / 2) * BESIDE_SHARE * (x.high - x.low))
        lines[curve["arm"]] = [(beside * row["n"], row["score"]) for row in curve["points"]]
        bars[curve["arm"]] = [(beside * row["n"], row["low"], row["high"]) for row in curve["points"]]
    measured = "; ".join(
        f"{curve['arm']}: " + ", ".join(f"{row['score']:.2f} at {row['n']}" for row in curve["points"])
        for curve in curves
    )
    return draw_lines("Learning curves by rows", f"{measured}. {data['text']}", lines, x, y, bars=bars)


def arms_table(data: Mapping[str, Any], pages: bool) -> str:
    """Return rows by arms as a table in HTML; an arm that is clearly ahead of every other at a size is marked.

    Args:
        data: what was measured of several arms.
        pages: whether the names are links to the pages of the arms.
    """
    asked = count_noun(data["questions"]["n"], f"{data['questions']['part']} question")
    seeds = len(data["seeds"])
    trained = (
        f"Each is the mean of {seeds} trainings, on other rows" if seeds > 1 else "One training of each size"
    )
    curves, leaders = data["arms"], {row["n"]: row["arm"] for row in data["crossings"]["leaders"]}
    names = ""
    for curve in curves:
        page = Path(os.path.relpath(curve["folder"], data["folder"]), "curve.html").as_posix()
        name = escape(curve["arm"])
        names += f'<th scope="col">{f"<a href={quoteattr(quote(page))}>{name}</a>" if pages else name}</th>'
    body = ""
    for position, row in enumerate(curves[0]["points"]):
        cells = ""
        for curve in curves:
            point = curve["points"][position]
            mark = LEADER if leaders[point["n"]] == curve["arm"] else ""
            right = "" if point["right"] is None else f"<br>{point['right']:g} of {point['of']} right"
            cells += (
                f'<td><span class="n">{point["score"]:.3f}{mark}</span><br>'
                f"<small>{point['low']:.2f}–{point['high']:.2f}{right}</small></td>"
            )
        body += f'<tr><th scope="row">{row["n"]:,}</th>{cells}</tr>'
    return (
        f'<div class="wide"><table><thead><tr><th scope="col">rows</th>{names}</tr></thead><tbody>{body}</tbody></table>'
        f'</div><p class="soft">Combined score with its 95 % interval over {asked}, the same for all. '
        f"{LEADER_TEXT}. {trained}.</p>"
    )


def arms_section(data: Mapping[str, Any], pages: bool = False) -> str:
    """Return the chart of several arms, what is decided between them, and their table, as HTML."""
    decided = "".join(f"<li>{escape(line)}</li>" for line in data["crossings"]["sentences"])
    warnings = "".join(f"<li>{escape(line)}</li>" for line in data["warnings"])
    noted = f"<details><summary>Notes</summary><ul>{warnings}</ul></details>" if warnings else ""
    return f"{arms_chart(data)}<ul>{decided}</ul>{arms_table(data, pages)}{noted}"


def arms_page(data: Mapping[str, Any]) -> str:
    """Return an HTML page of several arms on one axis, with the report's style and no script."""
    names = ", ".join(curve["arm"] for curve in data["arms"])
    return _page(data["name"], f"{data['name']}: learning curves of {names}", arms_section(data, True))


def _page(name: str, title: str, body: str) -> str:
    """Return an HTML page with a title and a body."""
    style = (resources.files("advisor") / "templates" / "report.css").read_text("utf-8")
    title = escape(title)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        '<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark">'
        f"<title>{title}</title><style>{style}</style></head><body>"
        '<header><p class="brand">tunewise '
        f'<span>learning curve</span></p><p class="run">{escape(name)}</p></header>'
        f'<main><section><h2>{title}</h2><div class="body">{body}</div></section></main></body></html>\n'
    )


def curve_page(data: Mapping[str, Any]) -> str:
    """Return an HTML page of one curve, with the report's style and no script."""
    from runners.scoring.learning_curve import BAND_TEXT

    rows = "".join(
        f'<tr><th scope="row">{row["n"]:,}</th><td>{row["score"]:.3f}</td><td>{row["low"]:.2f}–{row["high"]:.2f}</td>'
        "<td>measured</td></tr>"
        for row in data["points"]
    )
    rows += "".join(
        f'<tr><th scope="row">{row["n"]:,}</th><td>{row["median"]:.3f}</td><td>{row["low"]:.2f}–{row["high"]:.2f}</td>'
        "<td>forecast</td></tr>"
        for row in data["forecast"]
    )
    warnings = "".join(f"<li>{escape(line)}</li>" for line in data["warnings"])
    asked = f"{data['questions']['n']} {data['questions']['part']} questions"
    body = (
        f'<p class="sentence">{escape(data["text"])}</p>{curve_chart(data)}'
        f'<div class="wide"><table><thead><tr><th scope="col">rows</th><th scope="col">combined</th>'
        f'<th scope="col">interval</th><th scope="col"></th></tr></thead><tbody>{rows}</tbody></table></div>'
        f'<p class="soft">{escape(data["model"])}, scored on {asked}. Measured: 95 % interval over questions; forecast: '
        f"{BAND_TEXT}.</p><ul>{warnings}</ul>"
    )
    return _page(data["name"], f"{data['name']}: learning curve of {data['arm']}", body)


def loss_chart(
    curves: Mapping[str, Sequence[tuple[int, float]]],
    window: int = 1,
    colours: Mapping[str, int] | None = None,
) -> str:
    """Draw the loss by optimiser step, one line for each trained arm.

    Series whose names end with ``validation`` are drawn as dots. Lines are the running mean of ``window`` steps: with small
    batches the loss of single steps shows mostly noise.
    """
    curves = {
        name: points if name.endswith(VALIDATION_SERIES) else _running_mean(points, window)
        for name, points in curves.items()
    }
    steps = max(step for points in curves.values() for step, _ in points)
    highest = max(loss for points in curves.values() for _, loss in points)
    description = ", ".join(
        f"{name} from {points[0][1]:.2f} to {points[-1][1]:.2f}" for name, points in curves.items()
    )
    return draw_lines(
        "Training loss by step",
        description,
        {name: [(float(a), b) for a, b in points] for name, points in curves.items()},
        Axis("optimiser step", 0, max(steps, 1)),
        Axis("loss per label token", 0, highest * 1.05),
        dot_suffix=VALIDATION_SERIES,
        colours=_series_colours(curves, colours or {}),
    )


def smoothing_window(curves: Mapping[str, Sequence[tuple[int, float]]]) -> int:
    """Return the window of the running mean: a twentieth of the steps of the longest curve, at least 1."""
    return max(1, max((len(points) for points in curves.values()), default=0) // 20 if curves else 1)


def _running_mean(points: Sequence[tuple[int, float]], window: int) -> list[tuple[int, float]]:
    losses = [loss for _, loss in points]
    return [
        (step, sum(recent) / len(recent))
        for position, (step, _) in enumerate(points)
        if (recent := losses[max(0, position + 1 - window) : position + 1])
    ]


def _series_colours(names: Iterable[str], colours: Mapping[str, int]) -> dict[str, int]:
    """Return the colour of each series: its arm's where the arm has one line, else the next that is free.

    The validation losses of a series have its colour.
    """
    numbers: dict[str, int] = {}
    for name in names:
        base = name.removesuffix(f" {VALIDATION_SERIES}")
        wanted = colours.get(base.split()[0], 0)
        free = next((n for n in (wanted, *range(6)) if n not in numbers.values()), len(numbers))
        numbers[name] = numbers.get(base, free)
    return numbers
