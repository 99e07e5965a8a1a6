"""How much of a plan's teacher is reached: the ratio with its interval, the report, and that a reference is never used."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from scipy import stats

from advisor.display.trial_table import show_report
from advisor.verdict.right_costs import right_ratio
from rag.files import write_json
from runners.plan.schema import parse_plan
from runners.report.json_records import from_json
from runners.report.trial_report import TrialReport
from runners.run_folder import RunFolder
from runners.trial.trial import ArmScores, write_scores
from tests.support.reports import written

TEACHER = "openai:big@https://api.example.com/v1"


def arm(name: str, right: list[float], documents: list[str] | None = None, tokens: int = 100) -> ArmScores:
    """Return an arm with these right answers, a question of its own each."""
    count = len(right)
    return ArmScores(
        name,
        tuple(f"q{n}" for n in range(count)),
        tuple({"right": float(value)} for value in right),
        tuple(map(float, right)),
        (0.5,) * count,
        (tokens,) * count,
        (10,) * count,
        tuple(documents) if documents else (),
    )


def test_ratio_is_paired() -> None:
    teacher = arm("rag@teacher", [1.0] * 45 + [0.0] * 15)
    same = right_ratio(arm("a", [1.0] * 36 + [0.0] * 24), teacher)
    other = right_ratio(arm("b", [0.0] * 15 + [1.0] * 36 + [0.0] * 9), teacher)
    assert same is not None
    assert other is not None
    assert same.mean == other.mean == 0.8
    assert same.low > other.low
    assert same.high < other.high, "right on the teacher's own questions, so the ratio is known better"
    none = right_ratio(arm("c", [0.0] * 60), teacher)
    assert none is not None
    assert (none.mean, none.low) == (0.0, 0.0)
    assert 0 < none.high < 0.2
    assert right_ratio(teacher, arm("d", [0.0] * 60)) is None
    alike = right_ratio(teacher, teacher)
    assert alike is not None
    assert alike.low < alike.mean == 1.0 < alike.high, "equal answers so far prove no equal arms"


@pytest.mark.parametrize(("documents", "together"), [(60, 0.0), (60, 0.6), (15, 0.3)])
def test_intervals_of_the_ratio_hold(documents: int, together: float) -> None:
    rng, trials = np.random.default_rng(5), 100
    for one, other in ((0.3, 0.5), (0.6, 0.8), (0.9, 0.95), (0.1, 0.9)):
        held = 0
        for _ in range(trials):
            of = np.arange(60) % documents
            shared = np.sqrt(together) * rng.normal(size=documents)[of]
            values = (shared + np.sqrt(1 - together) * rng.normal(size=60) for _ in range(2))
            rows = [
                list(map(float, v < stats.norm.ppf(p))) for v, p in zip(values, (one, other), strict=True)
            ]
            names = [f"d{n}" for n in of]
            ratio = right_ratio(arm("a", rows[0], names), arm("b", rows[1], names))
            held += ratio is not None and ratio.low <= one / other <= ratio.high
        assert held >= stats.binom.ppf(1e-4, trials, 0.95), (one, other, held)


def taught_run(folder: Path, **changes: Any) -> dict[str, Any]:
    """Return report.json of a run of a student tuned on its teacher's rows; the teacher is right most often."""
    plan = parse_plan(
        {
            "name": "taught",
            "choice": "lora",
            "model": {"name": "smollm2-135m-instruct"},
            "teacher": {"name": TEACHER, "usd_per_million_input": 2, "usd_per_million_output": 8},
            "data": {"documents": "d", "examples": "e", "questions": "q"},
            "steps": [
                {"kind": "index"},
                {"kind": "train", "arm": "lora"},
                {"kind": "evaluate", "arm": "prompting"},
                {"kind": "evaluate", "arm": "lora", "weights": "lora"},
            ],
            "weights": {"right": 1},
            **changes,
        }
    )
    run = RunFolder.create(folder / "run", plan)
    run.write({"event": "run.start", "split": "abc", "overlap": 0})
    weights = run.adapter("lora", 0)
    weights.mkdir(parents=True)
    by = {"name": "big", "host": "api.example.com", "license": "unknown", "rows": 300}
    write_json(weights / "manifest.json", {"data": {"rows": 400, "teachers": [by]}})
    arms = [
        arm(step.arm, [float(n % 20 < right) for n in range(60)])
        for step, right in zip(plan.arms, (6, 15, 17, 19), strict=False)
    ]
    write_scores(arms, run.path / "trial" / "scores.json")
    rows = [
        {"arm": one.arm, "seed": 0, "id": id, "question": "?", "answer": "x", "marked": "x", "citations": []}
        for one in arms
        for id in one.questions
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (run.path / "trial" / "answers.jsonl").write_text(lines, "utf-8")
    return written(run, plan)


def test_teacher_is_a_reference_in_the_verdict_and_the_report(tmp_path: Path) -> None:
    data = taught_run(tmp_path)
    verdict, teacher = data["verdict"], data["teacher"]
    assert {one["arm"] for one in data["arms"]} == {"prompting", "lora", "prompting@teacher", "rag@teacher"}
    assert (verdict["outcome"], verdict["use"]) == ("confirmed", "lora"), (
        "it is no rival of the recommendation"
    )
    assert verdict["excluded"]["rag@teacher"] == "is the teacher, measured for reference only"
    assert {pair["b"] for pair in data["paired"]} == {"prompting"}
    assert verdict["most_right_for_money"]["arm"] == "lora"
    assert (teacher["model"], teacher["arm"]) == ("big (api.example.com)", "rag@teacher")
    assert (teacher["reference"], teacher["license"]) == (True, "unknown")
    report = from_json(TrialReport, data)
    assert report.arms[0].arm == "rag@teacher"
    assert [one.arm for one in report.candidates] == ["lora", "prompting"], "what commands suggest"
    (student,) = teacher["students"]
    assert (student["arm"], student["rows"]) == ("lora", 300)
    assert student["ratio"]["mean"] == pytest.approx(45 / 57, abs=1e-4)
    assert student["ratio"]["low"] < 45 / 57 < student["ratio"]["high"] < 1
    line = teacher["line"]
    assert line.startswith("Teacher big (api.example.com): lora (tuned on 300 rows by the teacher): 79 % (")
    assert "of the teacher's right answers; a right answer costs " in line
    assert teacher["text"].endswith(
        "Does the teacher's licence allow training on its answers? Answered by those who made the rows, "
        "not checked: unknown."
    )
    page = (tmp_path / "run" / "report.html").read_text("utf-8")
    assert "How much of the teacher is reached" in page
    assert "rag@teacher: 57 of 60 right" in page
    assert "79 % (" in (tmp_path / "run" / "report.md").read_text("utf-8")
    console = Console(file=io.StringIO(), width=300)
    show_report(report, console)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert shown.count("Teacher big") == 1
    assert line in shown


def test_teacher_that_is_one_of_the_models_can_be_used(tmp_path: Path) -> None:
    data = taught_run(
        tmp_path,
        model={"name": "smollm2-135m-instruct"},
        models={"small": "smollm2-135m-instruct", "big": TEACHER},
        teacher="big",
        choice="lora@small",
        steps=[
            {"kind": "index"},
            {"kind": "train", "arm": "lora@small"},
            {"kind": "evaluate", "arm": "prompting@small"},
            {"kind": "evaluate", "arm": "lora@small", "weights": "lora@small"},
        ],
    )
    assert {pair["b"] for pair in data["paired"]} == {"prompting@small", "prompting@big", "rag@big"}
    assert data["teacher"]["reference"] is False
    assert data["verdict"]["use"] == "rag@big"
    assert [student["arm"] for student in data["teacher"]["students"]] == ["lora@small"]


def test_plan_without_a_teacher_has_no_such_part(tmp_path: Path) -> None:
    assert "teacher" not in taught_run(tmp_path, teacher=None)
