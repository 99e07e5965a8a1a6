"""Write the report of a run: `report.json` for programs, `report.html` for people (one file, nothing remote)."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from advisor.results import report_json
from rag.durable import write_json, write_text
from rag.links import unlinked
from runners.bench import named_models
from runners.data import Question
from runners.plan import SCORES, Plan
from runners.rundir import REPORT, TRIAL, RunFolder, read_lines
from runners.trial import ANSWERS

HTML = "report.html"
SHOWN = 12


def write_report(
    run: RunFolder, plan: Plan, questions: Sequence[Question] = (), staleness: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Write both files, seal the run folder's manifest, and return the report's data.

    `questions` are the test questions (their gold is shown beside the answers); `staleness` is what was measured
    after the documents changed.
    """
    data = report_json(run, plan)
    data["guards"]["staleness"] = staleness
    run.unseal()
    write_json(run.path / REPORT, data)
    write_text(run.path / HTML, render(data, run, questions))
    run.seal(
        {
            "plan": plan.digest(),
            "split": data["guards"]["leakage"]["split"],
            "outcome": data["verdict"]["outcome"],
            "models": named_models(plan),
        }
    )
    return data


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
