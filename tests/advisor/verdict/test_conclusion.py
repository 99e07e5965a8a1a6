"""The plain conclusion: sentences built from a report's content, with the right answers first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from advisor.drafting.draft import draft_with_notes
from advisor.questionnaire.gather import complete_situation, flag_answers
from advisor.recommendation.recommend import recommend_for_profile
from advisor.report.data import answers_alone, full_run, largest_batch, seconds_alone
from advisor.report.html import next_steps
from advisor.verdict.run_records import RunRecords
from advisor.verdict.sentences import FOUND_WITH_MORE, Conclusion, duration_text
from advisor.verdict.verdict import judge_trial
from advisor.workflows.run import ask_command, check_gate
from rag.errors import GateNotMet
from runners.report.records import SecondsAlone
from runners.report.trial_report import FullRun
from runners.resources.machine import Machine
from runners.run_folder import RunFolder
from runners.trial.execute import quick_plan
from runners.trial.trial import ArmScores
from tests.support.reports import records_of, report_from


def right(n: int, of: int = 65, refused: tuple[int, int] = (11, 12)) -> dict[str, Any]:
    """Return right answers as a report has them."""
    answered = {"n": n - refused[0], "of": of - refused[1]}
    return {
        "n": n,
        "of": of,
        "low": 0.6,
        "high": 0.8,
        "answered": answered,
        "refused": {"n": refused[0], "of": refused[1]},
    }


def row(name: str, n: int | None, **more: Any) -> dict[str, Any]:
    """Return an arm of a report."""
    score = {"mean": 0.5, "low": 0.4, "high": 0.6}
    return {
        "arm": name,
        "score": score,
        "scores": {"false_refusal": {"mean": 6 / 53, "low": 0.0, "high": 0.2, "n": 53}},
        "n": 65,
        "right": None if n is None else right(n),
        "seconds_per_answer": 0.28,
        "usd_per_1000": None,
        "alone": {"seconds": 8.1, "p95": 8.4, "n": 3},
        "batch": 32,
        "retrieval": name in ("rag", "hybrid"),
        "weights": name if name in ("lora", "hybrid") else None,
        **more,
    }


def conclude(data: dict[str, Any], prompt_in_use: bool) -> list[str]:
    whole = report_from(data)
    conclusion = Conclusion(report=whole, verdict=whole.verdict, prompt_in_use=prompt_in_use)
    return list(conclusion.sentences)


def report(**changes: Any) -> dict[str, Any]:
    """Return the content of a report in which hybrid is confirmed; ``changes`` are those of its verdict."""
    pair = {"difference": 0.3, "low": 0.2, "high": 0.4}
    verdict = {
        "outcome": "confirmed",
        "strength": "measured",
        "recommended": "hybrid",
        "advised": "hybrid",
        "winner": "hybrid",
        "use": "hybrid",
        "use_reason": "the trial confirms hybrid",
        "excluded": {},
        "model": "smollm2-135m-instruct",
        "margin": {"against": "rag", **pair},
        "gate_met": True,
        "more_questions_needed": None,
        "compared": {
            "today": {"arm": "prompting", "right": right(2), **pair},
            "alternative": {"arm": "rag", "right": right(35), **pair},
        },
    }
    return {
        "verdict": verdict | changes,
        "arms": [row("hybrid", 48), row("rag", 35), row("lora", 2), row("prompting", 2)],
        "measured": {
            "seconds": {"index": 4.8},
            "training": {"hybrid": [{"seconds": 1020.0, "peak_gib": 3.96}], "lora": [{"seconds": 900.0}]},
        },
        "guards": {"staleness": {"arms": [{"arm": "hybrid", "n": 16, "new_after": 10, "old_after": 0}]}},
    }


def test_confirmed_arm_is_named_with_its_right_answers_and_its_needs() -> None:
    assert conclude(report(), True) == [
        "Use hybrid. It answers 48 of 65 questions right; your prompt today answers 2, rag 35.",
        "hybrid was recommended, and the trial confirms it.",
        "Of 12 questions without an answer in the documents hybrid refuses 11; "
        "of the 53 with an answer it wrongly refuses 6.",
        "Training hybrid took 17 minutes and 4 GiB of memory on this machine. "
        "An answer takes 8.1 s when asked alone on this machine (0.28 s in a batch of 32).",
        "When documents change, update the index: building it again took 5 seconds here; no new training is needed. "
        "After a test update it gave the new fact on 10 of 16 questions, the old one on 0.",
    ]
    assert conclude(report(), False)[0].endswith("the model alone answers 2, rag 35.")


def test_overturned_recommendation_says_what_did_better() -> None:
    lines = conclude(
        report(outcome="overturned", use="rag", winner="rag", use_reason="rag did best", gate_met=False), True
    )
    assert lines[0].startswith("Use rag. It answers 35 of 65 questions right; your prompt today answers 2")
    assert lines[1] == "hybrid was recommended, but the trial speaks against it: it answers 48 right, rag 35."


def test_undecided_verdict_is_for_now() -> None:
    lines = conclude(report(outcome="undecided", strength="leaning"), True)
    assert lines[0].startswith("Use hybrid for now. It answers 48 of 65 questions right")
    assert (
        lines[1] == "The result is too close to call with 65 questions: hybrid and rag could be equally good."
    )
    assert lines[-1].startswith("The questions are about too few documents to say more than a tendency")
    data = report(outcome="undecided", strength="leaning")
    data["arms"] = [arm | {"n": 12} for arm in data["arms"]]
    assert conclude(data, True)[-1] == f"12 questions show a tendency only; {FOUND_WITH_MORE}."


def test_prompt_that_suffices_is_kept() -> None:
    compared = {"today": None, "alternative": None}
    lines = conclude(
        report(use="prompting", recommended="prompting", advised="prompting", compared=compared), True
    )
    assert lines[:2] == [
        "Stay with your prompt. It answers 2 of 65 questions right.",
        "That is fewer than half: have a person check its answers, or try a larger model first.",
    ]
    assert not any("index" in line or "Training" in line for line in lines)


def test_no_arm_to_use_says_why_and_what_to_do() -> None:
    reason = "answers must name their source, and no arm of this run does that: give the plan its documents"
    data = report(use=None, winner="lora", use_reason=reason, excluded={"lora": "names no sources"})
    data["arms"][2]["score"] = {"mean": 0.6, "low": 0.5, "high": 0.7}
    assert conclude(data, True)[:2] == [
        "None of these can be used yet: lora, the best by its score, answers 2 of 65 right, but it names no sources.",
        "Answers must name their source, and no arm of this run does that: give the plan its documents.",
    ]
    with pytest.raises(GateNotMet, match="none of these can be used yet: answers must name") as caught:
        check_gate(report_from(data))
    assert "--arm hybrid or rag or lora or prompting" in caught.value.hint
    assert caught.value.exit_code == 5
    data["arms"].sort(key=lambda row: row["arm"] != "lora")
    assert ask_command(Path("runs/shop"), report_from(data)) == "tunewise ask runs/shop --arm lora"
    assert (
        next_steps(report_from(data), Path("runs/shop"))[0][0]
        == 'tunewise ask runs/shop --arm lora "your question"'
    )


def test_exit_5_names_the_arm_to_use() -> None:
    with pytest.raises(GateNotMet) as caught:
        check_gate(report_from(report(gate_met=False, use="rag", winner="few-shot")))
    assert caught.value.hint.endswith("the arm to use is rag")
    check_gate(report_from(report()))


def test_run_without_judged_answers_names_the_score() -> None:
    data = report(compared={"today": None, "alternative": None})
    data["arms"] = [row("hybrid", None)]
    assert (
        conclude(data, True)[0]
        == "Use hybrid. It scored 0.50; which answers are right was not counted, so whether enough are is not known."
    )


def test_substitute_is_not_called_the_recommendation() -> None:
    lines = conclude(report(outcome="undecided", recommended="rag", use="rag", winner="rag"), True)
    assert lines[1] == (
        "hybrid was recommended but could not be measured, so whether it would do better is not known."
    )


def test_quick_run_points_to_the_full_one() -> None:
    data = report(outcome="undecided", strength="leaning", more_questions_needed=1065)
    data["full_run"] = {
        "quick": True,
        "command": "tunewise run plan.yaml --out runs/shop-full",
        "minutes": 17.2,
    }
    assert conclude(data, True)[-1] == (
        "This was a quick run, for a first impression: run it in full before you decide (about 17 minutes)."
    )
    steps = next_steps(report_from(data), Path("runs/shop"))
    assert steps[0] == (
        "tunewise run plan.yaml --out runs/shop-full",
        "the same plan in full, without --quick: this was a quick run (about 17 minutes)",
    )
    assert not any("1,065" in reason or "more test" in reason for _, reason in steps)
    data["full_run"] = None
    assert any(
        "about 1,065 more test questions" in reason
        for _, reason in next_steps(report_from(data), Path("runs/shop"))
    )
    data["verdict"]["more_questions_needed"] = 1
    assert any(
        "about 1 more test question to" in reason
        for _, reason in next_steps(report_from(data), Path("runs/shop"))
    )


def test_durations_in_words() -> None:
    assert [duration_text(s) for s in (0.2, 1.4, 30, 95, 5000, 6000)] == [
        "1 second",
        "1 second",
        "30 seconds",
        "2 minutes",
        "83 minutes",
        "1.7 hours",
    ]


def planted(counts: dict[str, int], of: int = 60) -> list[ArmScores]:
    """Return arms with this many right answers."""
    return [
        ArmScores(
            name,
            tuple(f"q{n}" for n in range(of)),
            tuple({"right": float(n < count), "citation": 1.0} for n in range(of)),
            tuple(0.9 * (n < count) for n in range(of)),
            (0.1,) * of,
            (20,) * of,
            (10,) * of,
        )
        for name, count in counts.items()
    ]


def test_drafted_plan_that_cannot_measure_the_recommendation(task_files: Any, laptop: Machine) -> None:
    """Hybrid is recommended for examples that exist but were not given: the plan tests rag."""
    answers = ("model=smollm2-135m-instruct", "behaviour_gap=high", "must_cite=yes", "labelled_examples=300")
    situation = complete_situation(
        flag_answers(answers, documents=task_files.documents, questions=task_files.questions), laptop
    )
    recommendation = recommend_for_profile(situation.profile)
    plan = draft_with_notes(recommendation, situation).plan
    assert (recommendation.choice, plan.predicted["choice"], plan.choice) == ("hybrid", "hybrid", "rag")
    counts = {step.arm: 5 for step in plan.arms} | {"rag": 40}
    verdict, _ = judge_trial(plan, planted(counts), plan.model.name)
    assert (verdict.outcome, verdict.recommended, verdict.advised, verdict.use) == (
        "undecided",
        "rag",
        "hybrid",
        "rag",
    )
    assert (
        "hybrid was recommended but not measured, because the plan has no file of examples." in verdict.text
    )
    assert "is confirmed" not in verdict.text
    own = plan.model_copy(update={"predicted": plan.predicted | {"choice": "rag"}})
    assert judge_trial(own, planted(counts), plan.model.name)[0].outcome == "confirmed"


def test_quick_plan_is_recognised_and_its_full_run_recorded(
    task_files: Any, laptop: Machine, tmp_path: Path
) -> None:
    situation = complete_situation(
        flag_answers((), documents=task_files.documents, questions=task_files.questions), laptop
    )
    plan = draft_with_notes(recommend_for_profile(situation.profile), situation).plan
    folder = RunFolder.create(tmp_path / "run", quick_plan(plan))
    assert full_run(RunRecords.read(folder, plan)) is None
    unknown = FullRun(quick=True, command=None, minutes=None)
    assert full_run(RunRecords.read(folder, quick_plan(plan))) == unknown, "no tuned arm"
    folder.write({"event": "run.full", "command": "tunewise run plan.yaml", "minutes": 3.5})
    known = FullRun(quick=True, command="tunewise run plan.yaml", minutes=3.5)
    assert full_run(RunRecords.read(folder, quick_plan(plan))) == known


def test_times_alone_and_batches_come_from_the_log(task_files: Any, laptop: Machine) -> None:
    situation = complete_situation(
        flag_answers(
            ("model=openai:gpt@https://api.example.com/v1",),
            documents=task_files.documents,
            questions=task_files.questions,
        ),
        laptop,
    )
    plan = draft_with_notes(recommend_for_profile(situation.profile), situation).plan
    done = {"event": "step.done", "step": "evaluate:rag", "result": {"seconds_alone": [2.0, 1.0, 4.0]}}
    batches = [{"event": "answers.batch", "arm": "rag", "done": n, "batch": b} for n, b in ((9, 0), (41, 32))]
    records = records_of(plan, done, *batches)
    assert answers_alone(records, "rag") == SecondsAlone(seconds=2.0, p95=4.0, n=3)
    assert largest_batch(records, "rag") == 32
    assert answers_alone(records_of(plan), "rag") is None
    assert largest_batch(records_of(plan), "rag") is None
    assert seconds_alone(records_of(plan), planted({"rag": 3})) == {"rag": 0.1}, (
        "requests of an endpoint are timed singly"
    )
