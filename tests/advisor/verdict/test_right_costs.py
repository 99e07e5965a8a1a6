"""The cost of a right answer, its interval, and the arm that gives most right answers for the money."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from scipy import stats

from advisor.costs.arm_costs import costs_of_answers
from advisor.display.trial_table import show_report
from advisor.verdict.comparison import SIGNIFICANCE_LEVEL
from advisor.verdict.right_costs import cost_per_right, cost_text, judged_answers, most_right, right_cost_text
from benchmarks.simulated_costs import DOCUMENTS, EQUAL, SHARES, hosted_plan, share_covered, share_sure
from rag.evaluation.statistics import clustered_share
from runners.plan.schema import parse_plan
from runners.report.json_records import from_json
from runners.report.records import CostPerRight, MostRight
from runners.run_folder import RunFolder
from runners.trial.trial import ArmScores, write_scores
from tests.support.reports import report_from, written

HOSTED = "openai:{}@https://api.openai.com/v1"


def arm_of(
    right: list[float],
    tokens: list[int] | None = None,
    seconds: float = 0.5,
    name: str = "rag",
    **others: Any,
) -> ArmScores:
    """Return an arm with these right answers, a question of its own each."""
    count = len(right)
    ids = tuple(f"q{n}" for n in range(count))
    scores = tuple({"right": value} for value in right)
    written_tokens = tuple(tokens or [100] * count)
    return ArmScores(
        name, ids, scores, tuple(right), (seconds,) * count, (0,) * count, written_tokens, **others
    )


def cost_of(arm: ArmScores, costs: list[float], in_usd: bool = True) -> CostPerRight:
    cost = cost_per_right(judged_answers(arm, costs, in_usd), 10_000)
    assert cost is not None
    return cost


def test_cost_is_that_of_all_answers_by_the_right_ones() -> None:
    cost = cost_of(arm_of([1.0, 0.0, 1.0, 0.0]), [1.0, 2.0, 3.0, 4.0])
    assert cost.usd == 5.0
    assert cost.seconds is None
    assert cost.per_1000.mean == 2500
    assert cost.month == 25_000
    assert cost.low < 5.0 < (cost.high or 0.0)
    # answers that could not be judged are neither cost nor right
    arm = arm_of([1.0, 0.0, 1.0, 0.0, 0.0])
    part = replace(arm, scores=(*arm.scores[:4], {}))
    assert cost_of(part, [1.0, 2.0, 3.0, 4.0, 99.0]) == cost
    assert cost_per_right(judged_answers(replace(arm, scores=({},) * 5), [1.0] * 5), 1.0) is None


def test_equal_costs_leave_the_interval_of_the_share() -> None:
    right = [1.0] * 30 + [0.0] * 30
    cost, share = cost_of(arm_of(right), [2.0] * 60), clustered_share(right, [None] * 60)
    assert cost.usd == 4.0
    # Student's t over 60 questions is 2 % wider than the normal quantile of the share
    assert cost.low == pytest.approx(2 / share.high, rel=0.01)
    assert cost.high == pytest.approx(2 / share.low, rel=0.01)
    assert cost.low <= 2 / share.high


def test_no_right_answer_has_a_bound() -> None:
    cost = cost_of(arm_of([0.0] * 60), [0.5] * 60)
    assert (cost.usd, cost.high, cost.each) == (None, None, None)
    assert cost.low == pytest.approx(0.5 / clustered_share([0.0] * 60).high, rel=0.05)
    assert right_cost_text(cost).endswith("USD: none was right")
    few = cost_of(arm_of([0.0] * 60, documents=tuple(str(n // 10) for n in range(60))), [0.5] * 60)
    assert few.low < cost.low, "six documents say less than sixty"
    # such an arm of which one in 20 is right truly costs 20 times an answer: the bound is wrong in few trials
    draw = np.random.default_rng(0)
    trials = [draw.random(60) < 0.055 for _ in range(400)]
    wrong = [
        cost_of(arm_of(list(t.astype(float))), [1.0] * 60).low > 1 / 0.055 for t in trials if not t.any()
    ]
    assert sum(wrong) <= 0.05 * len(trials)


def test_wordings_of_a_question_are_one_value() -> None:
    right, costs = [1.0, 0.0] * 15, [float(n % 7 + 1) for n in range(30)]
    alone = cost_of(arm_of(right), costs)
    ids = tuple(f"q{n}" for n in range(30))
    twice = replace(
        arm_of(right * 2),
        questions=(*ids, *(f"{id}-b" for id in ids)),
        wording_of=(*(None,) * 30, *ids),
    )
    same = cost_of(twice, costs * 2)
    assert (same.usd, same.low, same.high) == (alone.usd, alone.low, alone.high)


def test_a_single_question_and_free_answers() -> None:
    one = cost_of(arm_of([1.0]), [3.0])
    assert one.usd == 3.0
    assert one.high is not None
    free = cost_of(arm_of([1.0, 0.0]), [0.0, 0.0])
    assert (free.usd, free.low, free.high) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("right", [[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0], [0.0, 0.0, 0.0]])
def test_two_questions_have_numbers(right: list[float]) -> None:
    cost = cost_of(arm_of(right), [float(n + 1) for n in range(len(right))])
    assert 0 <= cost.low < 1000
    assert cost.high is None or cost.low <= cost.high < float("inf")


def test_intervals_hold_in_two_thousand_simulated_trials() -> None:
    """Through tokens and list price; the seed is another than that of the table in benchmarks/LOG.md."""
    trials, held = 50, []
    for documents in DOCUMENTS:
        for share in SHARES:
            for longer, alike in ((0.6, 0.3), (1.7, 1.0)):
                held.append(share_covered(documents, share, longer, alike, trials, seed=1))
                assert held[-1] * trials >= stats.binom.ppf(1e-4, trials, 0.93), (documents, share, longer)
    assert len(held) * trials == 2000
    assert sum(held) / len(held) >= 0.93


@pytest.mark.parametrize("documents", [60, 12])
def test_equal_arms_are_seldom_told_apart(documents: int) -> None:
    trials = 150
    for shares in EQUAL:
        told = share_sure(documents, shares, 0.6, 0.3, trials, seed=1)
        assert told * trials <= stats.binom.ppf(0.999, trials, SIGNIFICANCE_LEVEL), shares


def test_an_arm_at_half_the_cost_is_found() -> None:
    """The bound on false alarms is not kept by never deciding."""
    assert share_sure(60, (0.7, 0.7), 1.0, 0.3, 50, cheaper=0.5, seed=1) > 0.8
    assert share_sure(60, (0.7,) * 4, 1.0, 0.3, 50, cheaper=0.5, seed=1) > 0.8


def test_what_is_sure_of_the_arm_with_most_right_for_the_money() -> None:
    right = [1.0, 1.0, 0.0] * 20
    cheap = judged_answers(arm_of(right), [1.0] * 60)
    dear = judged_answers(arm_of([1.0] * 60), [9.0] * 60)
    hours = judged_answers(arm_of(right), [0.1] * 60, in_usd=False)
    assert most_right({"dear": dear, "cheap": cheap}) == MostRight(
        arm="cheap", in_usd=True, sure=True, perhaps=()
    )
    mixed = most_right({"dear": dear, "hours": hours, "cheap": cheap})
    assert mixed == MostRight(arm="cheap", in_usd=True, sure=True, perhaps=(), no_price=("hours",))
    alone = most_right({"hours": hours})
    assert alone == MostRight(arm="hours", in_usd=False, sure=False, perhaps=()), "nothing to be sure against"
    same = most_right({"a": cheap, "b": judged_answers(arm_of(right[::-1]), [1.0] * 60)})
    assert same is not None
    assert (same.sure, len(same.perhaps)) == (False, 1)
    free = judged_answers(arm_of(right), [0.0] * 60)
    assert most_right({"cheap": cheap, "free": free}) == MostRight(
        arm="free", in_usd=True, sure=True, perhaps=()
    )
    assert most_right({"none": judged_answers(arm_of([0.0] * 60), [1.0] * 60)}) is None


@pytest.mark.parametrize("documents", [["a"] * 60, ["a", "b"] * 30, ["a", "b", "c"] * 20])
def test_few_documents_are_never_sure(documents: list[str]) -> None:
    arms = {
        name: judged_answers(arm_of([1.0, 0.0, 1.0] * 20, documents=tuple(documents)), [cost] * 60)
        for name, cost in (("a", 1.0), ("b", 99.0))
    }
    most = most_right(arms)
    assert most is not None
    assert (most.arm, most.sure) == ("a", False)


@pytest.mark.parametrize("share", [0.99, 0.97, 0.9])
def test_the_same_answers_so_far_are_no_proof(share: float) -> None:
    """One arm costs less by as much as it is right less often, mostly on the same questions: nothing is to be sure of."""
    draw, trials, sure = np.random.default_rng(0), 300, 0
    for _ in range(trials):
        common = draw.random(60) < 0.9
        dear = judged_answers(arm_of(list(common.astype(float))), [1.0] * 60)
        fewer = common & (draw.random(60) < share)
        cheap = judged_answers(arm_of(list(fewer.astype(float))), [share] * 60)
        most = most_right({"dear": dear, "cheap": cheap})
        sure += most is not None and most.sure
    assert sure <= stats.binom.ppf(0.999, trials, SIGNIFICANCE_LEVEL)


def test_answers_are_priced_one_by_one() -> None:
    plan = hosted_plan()  # 1 USD a million tokens in, 5 out
    arm = replace(arm_of([1.0, 0.0], [100, 300], name="prompting"), prompt_tokens=(1000, 3000))
    assert costs_of_answers(arm, plan) == pytest.approx([0.0015, 0.0045])
    local = parse_plan(
        {**plan.model_dump(mode="json", exclude_unset=True), "model": {"name": "smollm2-135m-instruct"}}
    )
    assert costs_of_answers(arm, local) is None


@pytest.mark.parametrize(
    ("amount", "in_usd", "text"),
    [
        (0.0000123, True, "0.000012 USD"),
        (0.0, True, "0 USD"),
        (1234.5, True, "1,234 USD"),
        (1.26, False, "1.3 s"),
        (600, False, "10 min"),
        (36_000, False, "10 h"),
    ],
)
def test_costs_in_words(amount: float, in_usd: bool, text: str) -> None:
    assert cost_text(amount, in_usd) == text


def run_of(folder: Path, hosted: tuple[str, ...]) -> tuple[RunFolder, dict[str, Any]]:
    """Return a run of three arms, some of them hosted, and its report.json: rag is right most often and costs most."""
    steps: list[dict[str, Any]] = [{"kind": "index"}]
    for arm, model in (("prompting", "gpt-6-luna"), ("few-shot", "gpt-6.1-terra"), ("rag", "gpt-6.1-sol")):
        step: dict[str, Any] = {"kind": "evaluate", "arm": arm, "retrieval": arm == "rag"}
        steps.append(step | ({"model": {"name": HOSTED.format(model)}} if arm in hosted else {}))
    plan = parse_plan(
        {
            "name": "costs",
            "choice": "rag",
            "model": {"name": "smollm2-135m-instruct"},
            "data": {"documents": "d", "questions": "q"},
            "answers": {"calls_per_month": {"value": 40_000, "source": "asked"}},
            "steps": steps,
            "weights": {"right": 1},
        }
    )
    run = RunFolder.create(folder / "run", plan)
    run.write({"event": "run.start", "split": "abc", "overlap": 0})
    arms = [
        arm_of([float(n % 20 < right) for n in range(60)], [tokens + n for n in range(60)], seconds, name)
        for name, right, tokens, seconds in (
            ("prompting", 8, 50, 0.2),
            ("few-shot", 15, 100, 0.5),
            ("rag", 19, 400, 2.0),
        )
    ]
    write_scores(arms, run.path / "trial" / "scores.json")
    rows = [
        {"arm": arm.arm, "seed": 0, "id": id, "question": "?", "answer": "x", "marked": "x", "citations": []}
        for arm in arms
        for id in arm.questions
    ]
    (run.path / "trial" / "answers.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in rows), "utf-8"
    )
    return run, written(run, plan)


def test_report_says_the_three_answers_everywhere(tmp_path: Path) -> None:
    run, data = run_of(tmp_path, ("prompting", "few-shot", "rag"))
    verdict, arms = data["verdict"], {arm["arm"]: arm for arm in data["arms"]}
    assert verdict["use"] == "rag"
    assert verdict["most_right_for_money"] == {
        "arm": "few-shot",
        "in_usd": True,
        "sure": True,
        "perhaps": [],
    }
    assert data["volume"] == {"calls": 40_000, "source": "yours"}
    cost = arms["few-shot"]["cost_per_right"]
    assert cost["usd"] == pytest.approx(arms["few-shot"]["usd_per_1000"] / 1000 / 0.75, rel=1e-3)
    assert cost["low"] < cost["usd"] < cost["high"]
    assert cost["month"] == pytest.approx(40 * cost["per_1000"]["mean"])
    assert arms["rag"]["requests"]["p95"] == 2.0
    best, cheapest, most = verdict["three_answers"]
    assert best == "Best: rag, 57 of 60 right."
    assert cheapest.startswith("Cheapest that is clearly not worse by 0.1 or more: rag itself")
    assert "few-shot, clearly. A right answer costs" in most
    assert "of rag 0.0" in most
    assert "though a right answer costs less: prompting, " in most
    assert "(it is right on 24 of 60" in most
    console = Console(file=io.StringIO(), width=120)
    show_report(from_json_report(data), console)
    shown = " ".join(console.file.getvalue().split())  # type: ignore[attr-defined]
    markdown = (run.path / "report.md").read_text("utf-8")
    page = (run.path / "report.html").read_text("utf-8")
    for text in (best, most):
        assert text in shown
        assert text in page
        assert text in markdown
    assert "![right answers against cost](right-cost.svg)" in markdown
    assert 'class="front"' in page
    picture = (run.path / "right-cost.svg").read_text("utf-8")
    assert "USD for 1,000 calls" in picture
    assert picture.count('class="error') == 6, "intervals both ways"
    assert "right-cost.svg" in json.loads((run.path / "manifest.json").read_text("utf-8"))["files"]


def test_arms_without_a_price_are_in_seconds_and_not_compared(tmp_path: Path) -> None:
    run, data = run_of(tmp_path, ("prompting", "few-shot"))
    arms = {arm["arm"]: arm["cost_per_right"] for arm in data["arms"]}
    assert arms["rag"]["seconds"] == pytest.approx(2.0 / 0.95, rel=1e-4)
    assert "usd" not in arms["rag"]
    assert data["verdict"]["most_right_for_money"]["no_price"] == ["rag"]
    assert "Not in the picture: rag (no price is known)." in (run.path / "report.html").read_text("utf-8")
    assert "rag" not in (run.path / "right-cost.svg").read_text("utf-8")


def test_a_trial_without_prices_is_judged_by_time(tmp_path: Path) -> None:
    run, data = run_of(tmp_path, ())
    assert data["verdict"]["most_right_for_money"]["in_usd"] is False
    assert data["verdict"]["three_answers"][2].startswith("Most right answers for the time")
    assert "seconds of an answer" in (run.path / "right-cost.svg").read_text("utf-8")


def test_reports_without_costs_show_none() -> None:
    report = report_from({"arms": [{"arm": "rag", "right": {"n": 20, "of": 40}}]})
    assert report.arms[0].cost_per_right is None
    console = Console(file=io.StringIO(), width=120)
    show_report(report, console)
    assert "right answer costs" not in console.file.getvalue()  # type: ignore[attr-defined]


def from_json_report(data: dict[str, Any]) -> Any:
    from runners.report.trial_report import TrialReport

    return from_json(TrialReport, data)
