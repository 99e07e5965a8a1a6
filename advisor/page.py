"""The page of a report: what the template of `report.html` is given, every value escaped."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from rag.links import unlinked
from runners.data import Question
from runners.plan import SCORES
from runners.rundir import TRIAL, RunFolder, read_lines
from runners.trial import ANSWERS

SHOWN = 12


def render(data: dict[str, Any], run: RunFolder, questions: Sequence[Question] = ()) -> str:
    """The page; every value is escaped by the template."""
    from jinja2 import Environment, StrictUndefined

    from advisor.charts import arms_chart, cost_chart, loss_chart

    source = (resources.files("advisor") / "templates" / "report.html.j2").read_text("utf-8")
    template = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True).from_string(source)
    curves = loss_curves(run)
    break_even = data["predicted"].get("break_even") or {}
    measured_names = {name for arm in data["arms"] for name in arm["scores"]}
    return template.render(
        data=data,
        questions=max((arm["n"] for arm in data["arms"]), default=0),
        score_names=[name for name in SCORES if name in measured_names],
        arms_chart=arms_chart(data["arms"], data["verdict"]["winner"]),
        loss_chart=loss_chart(curves) if curves else "",
        cost_chart=cost_chart(break_even),
        break_even=break_even,
        staleness=data["guards"]["staleness"],
        refusal=data["guards"].get("refusal"),
        reasons=_reasons(data),
        examples=side_by_side(run.path, questions),
    )


def loss_curves(run: RunFolder) -> dict[str, list[tuple[int, float]]]:
    """Loss by step for every arm that was trained, from the events."""
    curves: dict[str, list[tuple[int, float]]] = {}
    for event in run.events():
        if event.get("event") == "train.step" and "loss" in event:
            curves.setdefault(event.get("arm", "train"), []).append((event["step"], event["loss"]))
    return curves


def side_by_side(run: Path, questions: Sequence[Question]) -> list[dict[str, Any]]:
    """What every arm answered to the first test questions."""
    gold = {
        q.id: "; ".join(q.answers) or q.fact or ("" if q.answerable else "not in the documents")
        for q in questions
    }
    found: dict[str, dict[str, Any]] = {}
    for row in read_lines(run / TRIAL / ANSWERS):
        entry = found.setdefault(
            row["id"], {"question": unlinked(row["question"]), "gold": gold.get(row["id"], ""), "answers": []}
        )
        entry["answers"].append({"arm": row["arm"], "text": unlinked(row["marked"])})
    return [found[key] for key in sorted(found)][:SHOWN]


def _reasons(data: dict[str, Any]) -> list[dict[str, Any]]:
    ranked = data["predicted"].get("ranked", [])
    chosen: dict[str, Any] = next(
        (r for r in ranked if r.get("method") == data["verdict"]["recommended"]), {}
    )
    return list(chosen.get("reasons", []))
