"""The page of two runs: their differences, right answers against cost in one picture, and the table of both."""

from __future__ import annotations

import base64
import hashlib
import sys
from collections.abc import Mapping
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

from advisor.report.plots.right_cost import runs_chart, sortable_table
from advisor.report.statements import p_text
from rag.files import write_text
from rag.text.words import count_noun
from runners.report.trial_report import TrialReport
from runners.run_folder import COMPARISONS


def write_comparison(
    run: Path, comparison: Mapping[str, Any], report: TrialReport, other: TrialReport
) -> Path | None:
    """Write the page into the folder of the first run and return its path; say why where that is not possible.

    Args:
        run: the folder of the first run.
        comparison: of both, by :func:`advisor.report.compare_runs.compare_runs`.
        report: of the first.
        other: of the second.
    """
    names = run_names(comparison)
    file = run / COMPARISONS / f"{Path(comparison['b']['run']).resolve().name}.html"
    try:
        file.parent.mkdir(exist_ok=True)
        write_text(file, comparison_page(comparison, dict(zip(names, (report, other), strict=True))))
    except OSError as error:
        print(f"  the page of both runs is not written: {error.strerror}: {file}", file=sys.stderr)
        return None
    return file


def run_names(comparison: Mapping[str, Any]) -> tuple[str, str]:
    """Return the names of both runs: of their plans, else of their folders, else with a and b before them."""
    a, b = comparison["a"], comparison["b"]
    folders = tuple(Path(side["run"]).resolve().name for side in (a, b))
    for one, other in ((a["name"], b["name"]), folders):
        if one != other:
            return str(one), str(other)
    return f"a {a['name']}", f"b {b['name']}"


def comparison_page(comparison: Mapping[str, Any], runs: Mapping[str, TrialReport]) -> str:
    """Return the page: one file that loads nothing, with its only style and script allowed by their hashes.

    Args:
        comparison: of both runs.
        runs: their reports by the names that are shown.
    """
    style, script = (
        (resources.files("advisor") / "templates" / name).read_text("utf-8")
        for name in ("report.css", "report.js")
    )
    policy = (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    title = escape(" and ".join(runs))
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark">'
        f"<title>{title} – tunewise</title><style>{style}</style></head><body>"
        f'<header><p class="brand">tunewise <span>two runs</span></p><p class="run">{title}</p></header>'
        f'<main>{_differences(comparison, runs)}<section id="cost"><h2>Cost of right answers</h2><div class="body">'
        f"{_costs(runs)}</div></section></main><script>{script}</script></body></html>\n"
    )


def _differences(comparison: Mapping[str, Any], runs: Mapping[str, TrialReport]) -> str:
    """Return the arms of both runs with their differences on the common questions."""
    heads = "".join(
        f'<th scope="col">{escape(title)}</th>' for title in ("arm", *runs, "difference (95 %)", "p")
    )
    rows = "".join(
        f'<tr><th scope="row">{escape(row["arm"])}</th><td>{row["mean_a"]:.2f}</td><td>{row["mean_b"]:.2f}</td>'
        f"<td>{row['difference']:+.2f} ({row['low']:+.2f} to {row['high']:+.2f})</td><td>{p_text(row['p_holm'])}</td></tr>"
        for row in comparison["arms"]
    )
    table = f'<div class="wide"><table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>'
    lines = [*comparison["notes"]]
    for key, name in zip(("only_in_a", "only_in_b"), runs, strict=True):
        lines += [f"only in {name}: {', '.join(comparison[key])}"] if comparison[key] else []
    notes = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return (
        '<section id="arms"><h2>The arms</h2><div class="body">'
        f"<p>Combined scores on {count_noun(comparison['questions']['common'], 'question')} of both runs.</p>"
        f"{table if rows else '<p>No arm is in both runs.</p>'}<ul>{notes}</ul></div></section>"
    )


def _costs(runs: Mapping[str, TrialReport]) -> str:
    """Return the picture and the table of both runs; a sentence where none has a cost."""
    table = sortable_table(runs)
    if not table:
        return '<p class="soft">No cost of a right answer is known of these runs.</p>'
    chart = runs_chart(runs)
    front = (
        "Bars: 95 % both ways. The dashed line joins the arms that no other one both costs less than and is more "
        "often right."
    )
    return (
        f'{chart}<p class="soft">{front if chart else ""} Each run by all of its own questions. '
        f"Costs in USD and in time are not compared with each other.</p>{table}"
    )


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
