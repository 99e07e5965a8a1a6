"""One arm to use, or none: the contradictions of a walk as a new user would make it, on planted scores."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from scipy import stats

from advisor.report.report import Report
from advisor.verdict.comparison import SIGNIFICANCE_LEVEL
from advisor.verdict.verdict import judge_trial
from advisor.workflows.run import check_gate
from benchmarks.simulated_use import BY, share_named, share_taken
from rag.errors import GateNotMet, UsageProblem
from runners.plan.schema import Plan, PlanGate, parse_plan
from runners.report.records import Verdict
from runners.runs.listing import summarise_run
from runners.runs.opened import OpenRun
from runners.trial.trial import ArmScores
from tests.support.planted_arms import ARMS, arm, first, plan
from tests.support.verdict_screens import KINDS, SCREENS, screen


def tickets_plan() -> Plan:
    """Return the plan of 300 tickets for seven teams: a classifier, examples in the prompt, and full fine-tuning."""
    return parse_plan(
        {
            "name": "tickets",
            "choice": "full",
            "model": {"name": "smollm2-135m-instruct"},
            "data": {"examples": "e", "questions": "q"},
            "steps": [
                {"kind": "train", "arm": "full", "method": "full"},
                {"kind": "evaluate", "arm": "prompting"},
                {"kind": "evaluate", "arm": "few-shot", "shots": 7},
                {"kind": "evaluate", "arm": "classifier", "classifier": True},
                {"kind": "evaluate", "arm": "full", "weights": "full"},
            ],
            "weights": {"label": 1},
            "gate": {"must_beat": ["prompting", "few-shot", "classifier"]},
            "answers": {"output_format": {"value": "labels", "source": "asked"}},
        }
    )


def tickets() -> list[ArmScores]:
    """Return what was measured: 35 of 35 in .12 s, 33 of 35 in 1.95 s, and the advised arm 21 of 35."""
    counts = {"prompting": (9, 0.4), "few-shot": (33, 1.953), "classifier": (35, 0.119), "full": (21, 0.35)}
    arms = []
    for name, (right, seconds) in counts.items():
        row = arm(name, first(right, 35), combined=1.0)
        arms.append(replace(row, seconds=(seconds,) * 35))
    return arms


def bakery() -> list[ArmScores]:
    """Return 24 questions, four of them without an answer: rag is right once, by a refusal, and no arm more than twice."""
    rag = arm("rag", [*first(0, 20), *first(1, 4)], unanswerable=4)
    tuned = arm("hybrid", [*first(2, 20), *first(0, 4)], unanswerable=4)
    return [arm("prompting", first(0), unanswerable=4), rag, tuned]


def judged(trial_plan: Plan, arms: list[ArmScores]) -> Verdict:
    return judge_trial(trial_plan, arms, "smollm2-135m-instruct")[0]


def test_better_and_faster_arm_is_used() -> None:
    """Few-shot, with 33 of 35 at sixteen times the seconds, was "the cheapest arm that is not clearly worse"."""
    verdict = judged(tickets_plan(), tickets())
    assert (verdict.use, verdict.winner) == ("classifier", "classifier")
    assert "use few-shot" not in verdict.text


def test_arm_that_answers_by_a_refusal_alone_is_not_used() -> None:
    verdict = judged(plan({"must_cite": "yes"}, gate={"must_beat": ["prompting", "rag"]}), bakery())
    assert verdict.use is None
    assert "use rag" not in verdict.text


def test_winner_and_use_are_the_same_arm_or_none() -> None:
    assert judged(plan({}, gate={"must_beat": ["prompting"]}), bakery()).winner is None
    cites = [
        arm("lora", first(50, 60), citation=[0.0] * 60),
        arm("hybrid", first(40, 60), citation=[1.0] * 60),
    ]
    verdict = judged(plan({"must_cite": "yes"}, gate={"must_beat": ["lora"]}), cites)
    assert (verdict.use, verdict.winner) == ("hybrid", "hybrid")


def answers_of(report_arms: list[ArmScores], **answers: object) -> Verdict:
    return judged(plan(answers, report_arms[0].arm, gate={"must_beat": []}), report_arms)


def test_threshold_counts_the_questions_with_an_answer_only() -> None:
    """30 of 60 right, but of the 40 that have an answer 10: an arm that refuses everything else is no use."""
    refusing = arm("hybrid", [*first(10, 40), *first(20, 20)], unanswerable=20)
    assert answers_of([refusing]).use is None
    assert answers_of([arm("hybrid", [*first(35, 40), *first(0, 20)], unanswerable=20)]).use == "hybrid"


@pytest.mark.parametrize(
    ("answers", "threshold"),
    [
        ({}, 0.5),
        ({"wrong_answer_cost": "low"}, 0.5),
        ({"wrong_answer_cost": "high"}, 0.8),
        ({"wrong_answer_cost": "high", "usable_from": 0.6}, 0.6),
        ({"usable_from": 0}, 0.0),
    ],
)
def test_threshold_is_what_was_answered_or_by_the_cost_of_a_wrong_answer(
    answers: dict[str, object], threshold: float
) -> None:
    verdict = answers_of([arm("hybrid", first(45, 60))], **answers)
    assert verdict.usable_from == threshold
    assert verdict.use == (None if threshold == 0.8 else "hybrid")
    assert bool(verdict.unusable) == (threshold == 0.8)


def test_none_usable_names_the_model_that_does_not_read_its_passages() -> None:
    rag = replace(arm("rag", first(2, 40), false_refusal=[0.0] * 38 + [1.0] * 2), hits=(1.0,) * 39 + (0.0,))
    verdict = answers_of([rag, arm("prompting", first(4, 40))])
    why = verdict.unusable
    assert why
    assert (why.arm, why.split, why.cause) == ("prompting", "rag", "model")
    assert verdict.use_reason == (
        "5 of 10 questions with an answer must be right, and the best, prompting, answers 4 of 40; measured on rag: the "
        "search finds the right document for 98%, smollm2-135m-instruct answers 5% right with it, and 5% are "
        "refused wrongly; the cause is the model and not the method, as smollm2-135m-instruct does not read its passages: "
        "try a larger model, or give more examples whose replies are taken from passages"
    )


@pytest.mark.parametrize(
    ("retrieved", "right", "refused", "cause"),
    [
        (10, 8, 0, "search"),
        (38, 12, 24, "refusals"),
        (38, 12, 4, "model"),
        (None, 12, 4, "arms"),
        (38, 22, 0, "few"),
    ],
)
def test_cause_is_what_alone_keeps_an_arm_below_the_threshold(
    retrieved: int | None, right: int, refused: int, cause: str
) -> None:
    row = arm("rag", first(right, 40), false_refusal=[0.0] * (40 - refused) + [1.0] * refused)
    hits = () if retrieved is None else tuple(float(n < retrieved) for n in range(40))
    verdict = answers_of([replace(row, hits=hits)])
    assert verdict.unusable
    assert verdict.unusable.cause == cause
    assert (verdict.unusable.retrieved is None) == (retrieved is None)
    if cause == "few":
        assert (
            f"about {verdict.unusable.more_questions_needed} more questions would show" in verdict.use_reason
        )


def test_refusals_of_an_arm_without_search_are_not_those_of_the_gate() -> None:
    verdict = answers_of([arm("prompting", first(12, 40), false_refusal=[0.0] * 16 + [1.0] * 24)])
    assert verdict.unusable
    assert verdict.unusable.cause == "arms"
    assert "60% are refused wrongly" in verdict.use_reason
    assert "gate" not in verdict.use_reason


def test_with_fewer_than_thirty_questions_it_is_a_tendency() -> None:
    verdict = answers_of([arm("hybrid", first(15, 24))])
    assert (verdict.use, verdict.tendency) == ("hybrid", True)
    assert "too few questions to say whether any arm can be used" in verdict.use_reason
    unsure = answers_of([arm("hybrid", first(10, 24))])
    assert unsure.use is None
    assert "too few questions to say whether any can be used" in unsure.use_reason
    surely = answers_of([arm("hybrid", first(1, 24))])
    assert surely.use is None
    assert "too few questions" not in surely.use_reason, "1 of 24 is surely below half"
    one_document = replace(arm("hybrid", first(30, 40)), documents=("a.md",) * 40)
    assert answers_of([one_document]).tendency


def test_rows_without_gold_have_no_threshold() -> None:
    styled = arm("hybrid", [True] * 40)
    without = replace(styled, scores=tuple({"style": 1.0} for _ in range(40)))
    verdict = answers_of([without])
    assert (verdict.use, verdict.usable_from, verdict.unusable) == ("hybrid", None, None)


def test_equal_arms_by_measured_cost_not_by_parts() -> None:
    """Both are right on the same questions; the classifier has a part more, and takes a sixteenth of the seconds."""
    arms = [replace(row, combined=(1.0,) * 35, scores=({"right": 1.0},) * 35) for row in tickets()[1:3]]
    body = tickets_plan().model_copy(update={"choice": "few-shot", "gate": PlanGate()})
    assert judged(body, arms).use == "classifier"
    alike = [replace(row, seconds=(seconds,) * 35) for row, seconds in zip(arms, (1.2, 1.0), strict=True)]
    assert judged(body, alike).use == "few-shot", (
        "seconds this near are the same, and it has no part to keep running"
    )


def test_cheaper_arm_that_is_not_worse_is_used_and_says_by_what() -> None:
    draw = [n % 10 != 0 for n in range(300)]
    slow = replace(arm("hybrid", draw), seconds=(2.0,) * 300)
    fast = replace(arm("rag", [right and n != 5 for n, right in enumerate(draw)]), seconds=(0.1,) * 300)
    verdict = answers_of([fast, slow], calls_per_month=36000)
    assert (verdict.use, verdict.in_place_of) == ("rag", "hybrid")
    assert verdict.use_reason == (
        "rag is not worse than hybrid by 0.1 or more, and costs less: an answer takes 0.1 s and not 2 "
        "(36,000 calls a month, yours: 1 and 20 hours)"
    )
    strict = judged(plan({}, gate={"must_beat": [], "not_worse_by": 0}), [fast, slow])
    assert (strict.use, strict.in_place_of) == ("hybrid", None)


def test_questions_that_would_show_an_arm_to_be_not_worse_are_stated() -> None:
    """Two lost and one won of 40 leave it open; five lost and none won are no ground to ask for more."""
    best, cheap = [n != 39 for n in range(40)], [n > 1 for n in range(40)]
    verdict = answers_of([arm("rag", cheap), arm("hybrid", best)], usable_from=0)
    assert verdict.use == "hybrid"
    assert verdict.cheaper
    assert verdict.cheaper.more_questions_needed == 77
    worse = answers_of([arm("rag", first(95, 100)), arm("hybrid", first(100, 100))], usable_from=0)
    assert worse.cheaper
    assert worse.cheaper.more_questions_needed is None


@pytest.mark.parametrize(("arms", "each"), [(1, 1), (5, 1), (5, 4)])
def test_arms_at_the_threshold_are_seldom_named(arms: int, each: int) -> None:
    trials = 120
    named = share_named([0.5] * arms, 60 * each, 0.5, each, trials)
    assert named * trials <= stats.binom.ppf(0.999, trials, SIGNIFICANCE_LEVEL)


def test_arm_above_the_threshold_is_found() -> None:
    assert share_named([0.4] * 4 + [0.75], 60, 0.5, trials=60) > 0.75


def test_arm_that_is_worse_by_the_margin_is_seldom_taken() -> None:
    trials = 40
    taken = share_taken([BY], 60, trials=trials, alike=0.9)
    assert taken * trials <= stats.binom.ppf(0.999, trials, SIGNIFICANCE_LEVEL)


def test_arm_that_beats_the_others_and_is_not_used_is_not_called_no_better() -> None:
    """It said "hybrid is not clearly better than rag (p 0.00)" where the gate was met and 8 of 10 were not reached."""
    arms = [arm("rag", first(20, 60)), arm("hybrid", first(42, 60))]
    verdict = judged(plan({"usable_from": 0.8}, gate={"must_beat": ["rag"]}), arms)
    assert (verdict.use, verdict.gate_met, verdict.outcome) == (None, True, "undecided")
    assert (
        "Not decided: hybrid is clearly better than the arms it must beat, but it is right on 42 of 60 answerable "
        "questions, below 8 of 10; none of these can be used yet." in verdict.text
    )
    assert verdict.none_reason == (
        "8 of 10 questions with an answer must be right, and the best, hybrid, answers 42 of 60"
    )


NAMED = {"use": "hybrid", "cheaper": "rag", "tendency": "hybrid", "none": None, "overturned": "rag"}


@pytest.fixture(scope="module", params=KINDS)
def shown(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, str]:
    """A kind of verdict, its run, and what the terminal shows of it."""
    folder = tmp_path_factory.mktemp("runs")
    return request.param, folder / request.param, screen(request.param, folder)


def test_every_view_names_the_same_arm(shown: tuple[str, Path, str]) -> None:
    kind, run, _ = shown
    use = NAMED[kind]
    verdict = json.loads((run / "report.json").read_text("utf-8"))["verdict"]
    assert (verdict["use"], verdict["winner"]) == (use, use)
    report = Report.read(run)
    headline = report.content.verdict.conclusion[0]
    assert headline.startswith(f"Use {use}" if use else "None of these can be used yet.")
    assert f"**{headline}**" in (run / "report.md").read_text("utf-8")
    page = (run / "report.html").read_text("utf-8")
    tile = re.search(r"<dt>arm to use</dt><dd>([a-z ]+?)(?: <small|</dd>)", page)
    assert tile
    assert tile[1] == (use or "none yet")
    assert use or "more questions to decide" not in page
    assert (report.use, report.winner, summarise_run(run).use) == (use, use, use)
    assert OpenRun.open(run).default_arm == use
    if use is None:
        with pytest.raises(GateNotMet, match="none of these can be used yet"):
            check_gate(report.content)
        with pytest.raises(UsageProblem, match="no arm is asked by default: 5 of 10") as refused:
            OpenRun.open(run).find_arm()
        assert len(str(refused.value).splitlines()) == 1
        assert refused.value.hint == "choose one yourself: --arm " + " or ".join(ARMS)


def test_screens_of_the_five_kinds_of_verdict(shown: tuple[str, Path, str]) -> None:
    """Write them anew by ``python -m tests.support.verdict_screens``, and read the headline against the table."""
    kind, _, text = shown
    assert text == (SCREENS / f"{kind}.txt").read_text("utf-8")
