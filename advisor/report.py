"""Write the report of a run: `report.json` for programs, `report.html` for people, `report.md` for a pull request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from advisor.markdown import markdown
from advisor.page import render
from advisor.provenance import data_used, environment
from advisor.results import report_json
from rag.durable import write_json, write_text
from runners.bench import named_models
from runners.data import Question
from runners.plan import Plan
from runners.rundir import REPORT, RunFolder

HTML, MARKDOWN = "report.html", "report.md"


def write_report(
    run: RunFolder, plan: Plan, questions: Sequence[Question] = (), staleness: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Write the three files, seal the run folder's manifest, and return the report's data.

    `questions` are the test questions (their gold is shown beside the answers); `staleness` is what was measured
    after the documents changed.
    """
    data = report_json(run, plan, questions, staleness)
    data |= {"environment": environment(run.events()), "data": data_used(run, plan)}
    run.unseal()
    write_json(run.path / REPORT, data)
    write_text(run.path / HTML, render(data, run, questions))
    write_text(run.path / MARKDOWN, markdown(data))
    run.seal(
        {
            "plan": plan.digest(),
            "split": data["guards"]["leakage"]["split"],
            "outcome": data["verdict"]["outcome"],
            "models": named_models(plan),
        }
    )
    return data
