"""The guards of a run, and the warnings they give."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from rich.console import Console

from advisor.costs.step_time import estimate_step_times
from advisor.display.trial_table import show_guards
from advisor.verdict.guards import LESS_FORGETTING, guard_warnings, run_guards
from advisor.verdict.run_records import RunRecords
from rag.files import append_line, write_json
from runners.data.questions import Question
from runners.plan.schema import parse_plan
from runners.report.json_records import to_json
from runners.run_folder import RunFolder
from tests.support.reports import report_from

PLAN = parse_plan(
    {
        "name": "p",
        "choice": "lora",
        "model": {"name": "m"},
        "data": {"examples": "e"},
        "weights": {"style": 1},
        "steps": [
            {"kind": "train", "arm": "lora"},
            {"kind": "evaluate", "arm": "prompting"},
            {"kind": "evaluate", "arm": "lora", "weights": "lora"},
        ],
    }
)


def warnings_of(guards: dict[str, Any]) -> list[str]:
    return guard_warnings(report_from({"guards": guards}).guards)


def test_unmeasured_run_has_no_guards_or_warnings(tmp_path: Path) -> None:
    guards = run_guards(RunRecords.read(RunFolder.create(tmp_path / "run", PLAN), PLAN))
    assert to_json(guards) == {
        "leakage": {"overlapping_questions": None, "split": None},
        "forgetting": None,
        "refusal_drift": None,
        "staleness": None,
        "refusal": None,
        "training_rows": None,
    }
    assert guard_warnings(guards) == []


def test_arm_that_lost_its_rows_gives_a_warning(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", PLAN)
    run.finish("train:lora", {}, {"trained": [{"rows": 1, "left_out": 149}]})
    guards = run_guards(RunRecords.read(run, PLAN))
    assert guards.training_rows
    assert not guards.training_rows[0].planned
    assert guard_warnings(guards) == [
        "lora was not trained as planned and does not count for the verdict: "
        "lora trains on 1 of 150 examples; 149 are longer than max_tokens"
    ]


def test_guards_with_findings_give_warnings(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", PLAN)
    leakage = {"exact": 0, "near": 0, "left_out": 2, "withheld": False}
    run.write({"event": "run.start", "split": "abc", "overlap": 0, "leakage": leakage})
    row = {"arm": "lora", "warned": True, "text": "lora has forgotten: something"}
    run.finish("forgetting", {}, {"arms": [row, {"arm": "hybrid", "warned": False, "text": ""}]})
    questions = [Question(f"q{n}", "?", answerable=False) for n in range(12)]
    for arm in ("prompting", "lora"):
        for q in questions:
            answer: dict[str, Any] = {"arm": arm, "seed": 0, "id": q.id, "refused": arm == "prompting"}
            append_line(run.path / "trial" / "answers.jsonl", answer)
    write_json(run.path / "trial" / "staleness.json", {"line": "After the update, rag 2 (0)", "arms": []})
    guards = run_guards(RunRecords.read(run, PLAN, questions))
    assert guards.leakage == {**leakage, "overlapping_questions": 0, "split": "abc"}
    assert guard_warnings(guards) == [
        "2 questions that nearly repeat training rows were not asked, as the plan says",
        f"lora has forgotten: something; {LESS_FORGETTING}",
        "lora refuses 0 of 12 questions without an answer, prompting 12 of 12",
    ]
    screen = Console(file=io.StringIO(), width=200)
    report = report_from({"warnings": ["[red]mind[/] this\x1b[31m"], "guards": to_json(guards)})
    show_guards(report, screen)
    said = screen.file.getvalue()  # type: ignore[attr-defined]
    assert "  warning: [red]mind[/] this" in said
    assert "\x1b[31m" not in said
    assert "  After the update, rag 2 (0)" in said


def test_leaking_questions_give_a_warning() -> None:
    (said,) = warnings_of({"leakage": {"withheld": True}})
    assert "its scores prove nothing" in said


def test_step_times_include_forgetting_guard() -> None:
    times = dict(estimate_step_times(PLAN, 100, 40))
    assert list(times) == ["train:lora", "evaluate:prompting", "evaluate:lora", "forgetting"]
    assert 0 < times["forgetting"] < 60
    off = PLAN.model_copy(update={"forgetting": PLAN.forgetting.model_copy(update={"prompts": 0})})
    assert "forgetting" not in dict(estimate_step_times(off, 100, 40))


def test_small_rise_of_the_loss_is_no_warning() -> None:
    """Beyond noise but small, a rise is shown with the guards; a larger one, or lost instructions, is warned of."""
    row = {"arm": "lora", "warned": True, "text": "lora has forgotten: something", "loss_before": 3.77}
    small = {**row, "loss_interval": {"difference": 0.04}, "followed_interval": {"high": 0.02}}
    assert warnings_of({"forgetting": {"arms": [small]}}) == []
    for more in ({"loss_interval": {"difference": 0.1}}, {"followed_interval": {"high": -0.1}}):
        (warning,) = warnings_of({"forgetting": {"arms": [{**small, **more}]}})
        assert "data.replay" in warning
