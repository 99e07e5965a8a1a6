"""Learning curves in a report: the chart, the section's rows, and the page of a curve that belongs to no run."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

from advisor.report.charts import Axis, draw_lines
from rag.errors import BadInput
from rag.files import check_schema
from runners.run_folder import CURVES_FOLDER

CURVE_JSON = "curve.json"
MARGIN = 0.06
"""Share of the scores' range left empty above and below."""


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
    curves = []
    for file in sorted((run / CURVES_FOLDER).glob(f"*/{CURVE_JSON}")):
        try:
            data = check_schema(json.loads(file.read_text("utf-8")), "curve", file)
            curves.append({**data, "folder": f"{CURVES_FOLDER}/{file.parent.name}"})
        except (OSError, ValueError) as error:
            raise BadInput(
                f"{file} is damaged: {error!r}", f"write it again: tunewise curve {run} --resume"
            ) from None
    return curves


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
        bars=[(row["n"], row["low"], row["high"]) for row in points],
    )


def curve_page(data: Mapping[str, Any]) -> str:
    """Return an HTML page of one curve, with the report's style and no script."""
    from runners.scoring.learning_curve import BAND_TEXT

    style = (resources.files("advisor") / "templates" / "report.css").read_text("utf-8")
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
    title = f"{escape(data['name'])}: learning curve of {escape(data['arm'])}"
    asked = f"{data['questions']['n']} {data['questions']['part']} questions"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        '<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark">'
        f"<title>{title}</title><style>{style}</style></head><body>"
        '<header><p class="brand">tunewise '
        f'<span>learning curve</span></p><p class="run">{escape(data["name"])}</p></header>'
        f"<main><section><h2>{title}</h2>"
        f'<div class="body"><p class="sentence">{escape(data["text"])}</p>{curve_chart(data)}'
        f'<div class="wide"><table><thead><tr><th scope="col">rows</th><th scope="col">combined</th>'
        f'<th scope="col">interval</th><th scope="col"></th></tr></thead><tbody>{rows}</tbody></table></div>'
        f'<p class="soft">{escape(data["model"])}, scored on {asked}. Measured: 95 % interval over questions; forecast: '
        f"{BAND_TEXT}.</p><ul>{warnings}</ul></div></section></main></body></html>\n"
    )
