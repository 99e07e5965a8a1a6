"""Plans and runs with a score that is no longer computed still run, open and report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from advisor.report.data import read_report, read_scores
from runners.data.questions import load_questions
from runners.plan.schema import parse_plan
from runners.report.report_file import report_json
from runners.runs.run import load
from runners.trial.evaluate import evaluate
from runners.trial.execute import quick_plan, run_plan
from tests.support.reports import written


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    """Write JSON lines and return the path."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return str(path)


@pytest.fixture
def old_plan(tmp_path: Path, server: Any) -> dict[str, Any]:
    """A plan of before that weighs house_style, with one arm behind a server."""
    server.answer = lambda body: "It sails at noon."
    pairs = [{"prompt": f"When does boat {n} sail?", "completion": "At noon. May I?"} for n in range(16)]
    asked = [{"question": f"When does ship {n} sail?", "reference": "At noon."} for n in range(4)]
    return {
        "name": "desk",
        "choice": "prompting",
        "model": {"name": f"openai:tern-2@{server.url}"},
        "data": {
            "examples": write(tmp_path / "pairs.jsonl", pairs),
            "test_questions": write(tmp_path / "test.jsonl", asked),
        },
        "steps": [{"kind": "evaluate", "arm": "prompting"}],
        "weights": {"token_f1": 1, "house_style": 1},
        "house_style": True,
    }


def test_an_old_plan_runs_and_says_what_is_ignored(old_plan: Any, server: Any, tmp_path: Path) -> None:
    events: list[dict[str, Any]] = []
    plan = parse_plan(old_plan)
    run = run_plan(plan, tmp_path / "run", on_event=events.append)
    assert len(server.seen) == 4, "no question of an example is asked for a score that is not computed"
    (noted,) = [event for event in events if event["event"] == "plan.note"]
    assert "house_style is no longer scored" in noted["reason"]
    (arm,) = read_scores(run.path)
    assert "house_style" not in arm.scores[0]
    assert arm.combined == pytest.approx(
        [scores["right"] * (0.8 + 0.2 * scores["token_f1"]) for scores in arm.scores]
    )
    assert (
        quick_plan(plan).digest()
        == parse_plan(quick_plan(plan).model_dump(mode="json", by_alias=True)).digest()
    )


def test_an_old_run_with_the_score_opens_and_reports(old_plan: Any, server: Any, tmp_path: Path) -> None:
    """A run of before: its scores hold house_style, and its combined scores count it."""
    plan = parse_plan(old_plan)
    run = run_plan(plan, tmp_path / "run")
    path = run.path / "trial" / "scores.json"
    body = json.loads(path.read_text("utf-8"))
    for scores in body["arms"]["prompting"].values():
        scores |= {"house_style": 0.25, "combined": (scores["token_f1"] + 0.25) / 2}
    path.write_text(json.dumps(body), "utf-8")
    before = path.read_bytes()
    data = written(run, plan, load_questions(tmp_path / "test.jsonl"))
    (arm,) = data["arms"]
    assert arm["scores"]["house_style"]["mean"] == 0.25
    assert arm["score"]["mean"] == pytest.approx((arm["scores"]["token_f1"]["mean"] + 0.25) / 2)
    assert report_json(read_report(run.path)) == data
    assert load(run.path).scores()["prompting"] == pytest.approx(arm["score"]["mean"])
    run_plan(plan, tmp_path / "run", resume=True)
    assert path.read_bytes() == before, "a finished trial is not scored again"
    assert len(server.seen) == 4
    more = write(tmp_path / "more.jsonl", [{"question": "When does the tug sail?", "reference": "At noon."}])
    found = evaluate(run.path, Path(more))
    assert "house_style" not in found.arms[0].scores[0]
