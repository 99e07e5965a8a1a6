"""Verdicts where a judge counts: gate, better arms, arm to use, margin and table go by the same grades, or by none."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import permutations

import pytest

from advisor.verdict.comparison import best_combined, compare_arms, compare_on_score
from advisor.verdict.usable import check_usable, why_none
from advisor.verdict.verdict import judge_trial
from rag.evaluation.prediction_powered import LabelledDifferences, prediction_powered
from runners.report.arm_scores import ITSELF, ArmScores, GradedRows
from runners.report.records import Outcome, Verdict
from tests.support.planted_arms import arm, first, plan

COUNT = 60


def graded_rows(a: Sequence[float], b: Sequence[float], labelled: int = 45) -> GradedRows:
    """Return the rows of two arms with these grades: a judge that is right nine times in ten, and so many labels."""
    drawn = random.Random(7)
    wrong = [drawn.random() < 0.1 for _ in a]
    order = list(range(len(a)))
    drawn.shuffle(order)
    known = set(order[:labelled])
    truth = [x - y for x, y in zip(a, b, strict=True)]
    return GradedRows(
        asked=tuple(f"q{n}" for n in range(len(a))),
        differences=LabelledDifferences(
            labels=[value if n in known else None for n, value in enumerate(truth)],
            predicted=[0.0 if flipped else value for flipped, value in zip(wrong, truth, strict=True)],
            chances=[labelled / len(a)] * len(a) if labelled < len(a) else [1.0] * len(a),
            questions=[f"q{n}" for n in range(len(a))],
            sources=[None] * len(a),
            weights=[1.0] * len(a),
        ),
    )


def with_grades(
    arms: Sequence[ArmScores],
    grades: Mapping[str, Sequence[float]],
    pairs: Sequence[tuple[str, str]] | None = None,
) -> list[ArmScores]:
    """Attach grades for all pairs of arms, or for these."""
    wanted = {frozenset(pair) for pair in pairs} if pairs is not None else None
    attached = {one.arm: dict[str, GradedRows]() for one in arms}
    for a, b in permutations(grades, 2):
        if a < b and (wanted is None or frozenset((a, b)) in wanted):
            rows = graded_rows(grades[a], grades[b])
            attached[a][b], attached[b][a] = rows, rows.reversed()
    for name, of in attached.items():
        if of:
            of[ITSELF] = graded_rows(grades[name], [0.0] * COUNT)
    return [replace(one, graded=attached[one.arm]) for one in arms]


def mixed(share: float, seed: int = 0) -> list[float]:
    """Return grades, right with this share."""
    drawn = random.Random(seed)
    return [float(drawn.random() < share) for _ in range(COUNT)]


def judged(arms: Sequence[ArmScores], choice: str = "hybrid") -> Verdict:
    measured = [one.arm for one in arms]
    return judge_trial(plan({}, choice, gate={"must_beat": [n for n in measured if n != choice]}), arms, "m")[
        0
    ]


def test_grades_stand_for_the_combined_score_and_for_right_in_either_order() -> None:
    a, b = with_grades(
        [arm("hybrid", first(50, COUNT)), arm("rag", first(10, COUNT))],
        {"hybrid": mixed(0.2), "rag": mixed(0.8, 1)},
    )
    one, other = compare_arms(a, b, 0), compare_arms(b, a, 0)
    assert one.difference == pytest.approx(-other.difference)
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low))
    assert one.high < 0
    assert one.labels == other.labels == 45
    assert compare_on_score(a, b, "right", 0) == one
    styled = [replace(x, scores=({"style": 1.0},) * COUNT) for x in (a, b)]
    by_style = compare_on_score(styled[0], styled[1], "style", 0)
    assert by_style is not None
    assert (by_style.difference, by_style.labels) == (0, None)
    assert best_combined({"hybrid": a, "rag": b}, {"hybrid": 0, "rag": 1}) == "rag"
    part = a.part([n < 30 for n in range(COUNT)])
    assert len(part.graded["rag"].asked) == 30
    assert a.of_origin(from_documents=True).graded == {}


def test_an_arm_that_is_ahead_by_rule_and_behind_by_grade_loses_everywhere() -> None:
    arms = with_grades(
        [arm("hybrid", first(50, COUNT)), arm("rag", first(20, COUNT))],
        {"hybrid": mixed(0.3), "rag": mixed(0.9, 1)},
    )
    verdict = judged(arms)
    assert (verdict.outcome, verdict.use, verdict.gate_met) == (Outcome.OVERTURNED, "rag", False)
    assert verdict.margin is not None
    assert (verdict.margin.against, verdict.margin.high < 0, verdict.margin.labels) == ("rag", True, 45)
    assert verdict.judged_labels == 45
    assert verdict.text.startswith("hybrid has a mean grade of 0.")
    assert "calibrated judge, 45 labels" in verdict.text
    assert verdict.compared.alternative is None or verdict.compared.alternative.difference > 0


def test_prose_that_no_rule_finds_right_is_usable_by_grade() -> None:
    nothing = [arm("hybrid", first(0, COUNT)), arm("rag", first(0, COUNT))]
    assert judged(nothing).use is None
    verdict = judged(with_grades(nothing, {"hybrid": mixed(0.95), "rag": mixed(0.4, 1)}))
    assert (verdict.outcome, verdict.use) == (Outcome.CONFIRMED, "hybrid")
    assert "has a mean grade of 0." in verdict.excluded["rag"]
    weak = judged(with_grades(nothing, {"hybrid": mixed(0.3), "rag": mixed(0.1, 1)}))
    assert weak.use is None
    assert weak.unusable is not None


def test_the_threshold_is_compared_with_the_grades_of_questions_without_gold_too() -> None:
    """Of 60 questions 15 have gold: by these alone nothing would be sure."""
    some_gold = [
        replace(
            one,
            scores=tuple(
                scores if n < 15 else {name: score for name, score in scores.items() if name != "right"}
                for n, scores in enumerate(one.scores)
            ),
        )
        for one in (arm("hybrid", first(10, COUNT)), arm("rag", first(5, COUNT)))
    ]
    arms = with_grades(some_gold, {"hybrid": mixed(0.9), "rag": mixed(0.1, 1)})
    check = check_usable(plan({}), {one.arm: one for one in arms})
    assert check is not None
    assert (check.usable, check.tendency) == ({"hybrid"}, False)
    assert "by 45 labels and the judge, below 5 of 10" in check.failing["rag"]
    assert check.counts["hybrid"].of == 15
    close = with_grades(some_gold, {"hybrid": mixed(0.55), "rag": mixed(0.1, 1)})
    check = check_usable(plan({}), {one.arm: one for one in close})
    assert check is not None
    why = why_none(check, (), {"hybrid": "m", "rag": "m"})
    assert why.next.startswith("more labels would show whether hybrid can be used")
    all_labelled = [
        replace(one, graded={ITSELF: graded_rows(first(33, COUNT), [0.0] * COUNT, COUNT)})
        for one in some_gold
    ]
    check = check_usable(plan({}), {one.arm: one for one in all_labelled})
    assert check is not None
    assert why_none(check, (), {"hybrid": "m", "rag": "m"}).next.startswith("more questions would show")


def test_a_mean_grade_and_its_interval_lie_between_0_and_1() -> None:
    few = graded_rows([0.0] * 58 + [1.0, 1.0], [0.0] * COUNT, 30).mean_grade()
    assert 0 <= few.low <= few.difference <= few.high <= 1
    assert prediction_powered(graded_rows([0.0] * 58 + [1.0] * 2, [0.0] * COUNT, 30).differences).low < 0


def test_an_open_pair_asks_for_labels_and_not_for_questions() -> None:
    verdict = judged(
        with_grades(
            [arm("hybrid", first(40, COUNT)), arm("rag", first(40, COUNT))],
            {"hybrid": mixed(0.8), "rag": mixed(0.68, 1)},
        )
    )
    assert verdict.outcome is Outcome.UNDECIDED
    assert verdict.more_questions_needed is None
    if verdict.more_labels_needed:
        assert f"About {verdict.more_labels_needed} more label" in verdict.text


def test_pairs_without_grades_are_compared_by_rule() -> None:
    """Only hybrid against rag counts: prompting is beaten by the combined score."""
    arms = with_grades(
        [arm("hybrid", first(50, COUNT)), arm("rag", first(48, COUNT)), arm("prompting", first(5, COUNT))],
        {"hybrid": mixed(0.95), "rag": mixed(0.4, 1)},
    )
    verdict, pairs = judge_trial(plan({}, gate={"must_beat": ["prompting", "rag"]}), arms, "m")
    assert {pair.b: pair.labels for pair in pairs} == {"rag": 45, "prompting": None}
    assert (verdict.outcome, verdict.use) == (Outcome.CONFIRMED, "hybrid")


@pytest.mark.parametrize("seed", range(40))
def test_nothing_in_a_verdict_contradicts_the_grades(seed: int) -> None:
    """Whatever the computed scores are: random ones of three arms, all pairs by grade."""
    drawn = random.Random(seed)
    names = ("hybrid", "rag", "prompting")
    grades = {name: mixed(drawn.random(), seed * 10 + n) for n, name in enumerate(names)}
    arms = with_grades([arm(name, first(drawn.randrange(COUNT), COUNT)) for name in names], grades)
    verdict, pairs = judge_trial(plan({}, gate={"must_beat": ["rag", "prompting"]}), arms, "m")
    by_name = {one.arm: one for one in arms}
    against = {pair.b: pair for pair in pairs}
    surely_better = {name for name, pair in against.items() if pair.high < 0 and pair.p_holm <= 0.05}
    surely_beaten = {name for name, pair in against.items() if pair.low > 0 and pair.p_holm <= 0.05}
    if surely_better:
        assert verdict.outcome is Outcome.OVERTURNED
        assert verdict.use != "hybrid"
    if surely_beaten == set(against):
        assert verdict.gate_met is True
        assert verdict.use in ("hybrid", None)
    if verdict.outcome is Outcome.CONFIRMED:
        assert verdict.use == "hybrid"
    if verdict.use:
        assert verdict.use not in verdict.excluded
        for other in set(names) - {verdict.use} - set(verdict.excluded):
            pair = compare_arms(by_name[other], by_name[verdict.use], 0)
            assert not (pair.low > 0 and pair.p <= 0.01), (other, verdict.use)
    if verdict.margin:
        assert verdict.margin.difference == pytest.approx(against[verdict.margin.against].difference)
