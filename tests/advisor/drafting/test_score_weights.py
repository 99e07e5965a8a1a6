"""Weights of the combined score with their reasons, and how a report shows them."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from advisor.catalog import gpus
from advisor.costs.arm_costs import cost_per_1000
from advisor.display.trial_table import SCORE_COLUMNS, arms_tables, judge_lines, weights_line
from advisor.drafting.score_weights import score_weights
from advisor.questionnaire.profile import Profile
from runners.data.questions import Question
from runners.plan.schema import SCORES, Plan, StyleCheck, parse_plan
from runners.plan.score_names import SCORE_BY_NAME, SCORE_DEFINITIONS
from runners.trial.trial import ArmScores
from tests.support.reports import report_from

PROSE = (StyleCheck(kind="max_words", value=20),)
LABELS = (StyleCheck(kind="labels", value=["a", "b"]),)
RECORDS = (StyleCheck(kind="json_schema", value={"type": "object"}),)
SUMS = (StyleCheck(kind="regex", value=r"#### (?P<answer>\d+)$"),)
OPEN = Question("u", "Who owns the moon?", answerable=False)
ASKED = Question("q", "When?", fact="at noon")


def weights_of(checks: tuple[StyleCheck, ...], *questions: Question, **answers: Any) -> dict[str, float]:
    weights = score_weights(Profile.of(answers), checks, questions)
    assert all(weight.name in SCORES and weight.weight > 0 and len(weight.reason) > 10 for weight in weights)
    assert len({weight.name for weight in weights}) == len(weights)
    return {weight.name: weight.weight for weight in weights}


@pytest.mark.parametrize(
    ("checks", "answers", "expected"),
    [
        ((), {}, {"token_f1": 0.5}),
        (PROSE, {}, {"style": 1.0, "token_f1": 0.5}),
        (LABELS, {"absence_is_legal": True}, {"style": 0.5, "label": 1.0}),
        (SUMS, {}, {"style": 1.0, "final_answer": 1.0}),
        (RECORDS, {}, {"style": 0.5, "slot_f1": 1.0}),
        (RECORDS, {"absence_is_legal": True}, {"style": 0.5, "slot_f1": 1.0, "spurious": 0.5}),
        (
            RECORDS,
            {"absence_is_legal": True, "wrong_answer_cost": "high"},
            {"style": 0.5, "slot_f1": 1.0, "spurious": 1.0},
        ),
        (
            (),
            {"must_cite": True, "task_needs_facts": "new"},
            {"fact_recall": 1.0, "agreement": 0.5, "token_f1": 0.5, "citation": 0.5},
        ),
    ],
)
def test_score_weights_follow_answers_and_checks(
    checks: Any, answers: dict[str, Any], expected: dict[str, float]
) -> None:
    assert weights_of(checks, **answers) == expected


def test_score_weights_follow_questions() -> None:
    assert weights_of((), ASKED) == {"fact_recall": 1.0, "agreement": 0.5, "token_f1": 0.5}
    assert weights_of((), OPEN)["refusal"] == 0.5
    costly = score_weights(Profile.of({"wrong_answer_cost": "high"}), (), [OPEN])[-1]
    assert (costly.name, costly.weight) == ("refusal", 1.0)
    assert "a wrong answer is expensive" in costly.reason


def test_score_definitions_have_unique_names() -> None:
    assert len(SCORE_BY_NAME) == len(SCORE_DEFINITIONS) == len(SCORES)
    assert {score.name for score in SCORE_DEFINITIONS if score.lower} == {"false_refusal", "spurious"}
    assert SCORE_BY_NAME["spurious"].gain(0.25) == 0.75
    assert SCORE_BY_NAME["style"].gain(0.25) == 0.25


def report(**more: Any) -> dict[str, Any]:
    score = {"mean": 0.5, "low": 0.4, "high": 0.6}
    arm = {
        "arm": "rag",
        "score": score,
        "scores": {"slot_f1": {**score, "n": 9}, "chrf": {**score, "n": 9}},
        "seconds_per_answer": 0.1,
    }
    return {"arms": [arm], "verdict": {"winner": "rag"}, "weights": {"slot_f1": 1.0, "style": 0}, **more}


def test_arms_table_shows_weights_and_scored_columns() -> None:
    mean = "The combined score of an answer is the weighted mean of its scores. Weights:"
    assert weights_line(report_from(report())) == f"{mean} slot f1 1"
    text = weights_line(report_from(report(weight_reasons={"slot_f1": "the slots are the answer"})))
    assert text == f"{mean} slot f1 1 (the slots are the answer)"
    (table,) = arms_tables(report_from(report()), 80)
    titles = [str(column.header) for column in table.columns]
    assert titles[:2] == ["arm", "right"]
    assert titles[3:] == ["slot\nf1", "ms\nin batches"]


def test_weights_line_says_that_wrong_answers_score_nothing() -> None:
    data = report(weights={"slot_f1": 1.0, "style": 2.0, "citation": 0.5})
    data["arms"][0]["scores"] |= {"right": {"mean": 0.5, "low": 0.4, "high": 0.6, "n": 9}}
    assert weights_line(report_from(data)) == (
        "The combined score of an answer is 0 if the answer is not right; if it is right, 0.8 and up to 0.2 more by the "
        "weighted mean of style and citation. Weights: style 2; citation 0.5"
    )
    assert weights_line(report_from({**data, "weights": {"slot_f1": 1.0}})).endswith(
        "is 1 if the answer is right, else 0."
    )


def test_rows_without_gold_are_counted() -> None:
    data = report()
    data["arms"][0]["scores"] |= {"right": {"mean": 0.5, "low": 0.4, "high": 0.6, "n": 9}}
    data["arms"][0] |= {"n": 40, "right": {"n": 4, "of": 9}}
    line = weights_line(report_from(data))
    assert "31 of 40 rows have no gold" in line
    assert "tunewise label QUESTIONS --run RUN" in line
    data["arms"][0]["n"] = 9
    assert "gold" not in weights_line(report_from(data))


def test_arms_table_splits_on_narrow_terminals() -> None:
    """Columns that do not fit beside the combined score follow in a second table; no value is cut."""
    data = report(weights=dict.fromkeys(SCORE_COLUMNS, 1.0))
    scores = {
        name: {"mean": 0.111 * n, "low": 0.0, "high": 1.0, "n": 9} for n, name in enumerate(SCORE_COLUMNS, 1)
    }
    data["arms"] = [
        {**data["arms"][0], "arm": arm, "scores": scores} for arm in ("rag", "hybrid-of-everything")
    ]
    for width in (36, 60, 80, 200):
        out = io.StringIO()
        Console(file=out, width=width).print(*arms_tables(report_from(data), width))
        text = out.getvalue()
        assert "…" not in text, (width, text)
        assert all(len(line) <= width for line in text.splitlines()), (width, text)
        rows = [line.split() for line in text.splitlines() if line.startswith("rag ")]
        values = [cell for row in rows for cell in row if "." in cell]
        assert values[:2] == ["0.50", "0.40–0.60"]
        assert {f"{0.111 * n:.2f}" for n in range(1, len(SCORE_COLUMNS) + 1)} < set(values), (width, text)
    cut = io.StringIO()
    Console(file=cut, width=26).print(*arms_tables(report_from(data), 26))
    assert "0.50 0.40–0.60" in cut.getvalue()


def test_judge_lines() -> None:
    assert judge_lines(None) == []
    pair = {
        "a": "hybrid",
        "b": "rag",
        "n": 9,
        "of": 10,
        "better": 5,
        "worse": 1,
        "ties": 3,
        "inconsistent": 2,
    }
    judge = {"model": "openai:j@http://127.0.0.1/v1", "same_sign": 0.75, "kappa": 0.5, "against": [pair]}
    line, agrees = judge_lines(judge)
    assert "hybrid better than rag on 5 of 9 questions, worse on 1" in line
    assert "1 not judged" in line
    assert agrees.endswith("on 75% (kappa 0.50)")


def local() -> Plan:
    return parse_plan(
        {
            "name": "p",
            "choice": "prompting",
            "model": {"name": "smollm2-135m-instruct"},
            "data": {"questions": "q"},
            "steps": [{"kind": "evaluate", "arm": "prompting"}],
            "weights": {"token_f1": 1},
        }
    )


def test_local_answers_are_priced_by_gpu_rent() -> None:
    arm = ArmScores("prompting", ("a", "b"), ({}, {}), (1.0, 0.0), (1.0, 2.0), (9, 9), (5, 5))
    card = gpus.find_gpu("NVIDIA L4")
    assert card is not None
    assert card.usd_hour is not None
    cost = cost_per_1000(arm, local(), "NVIDIA L4")
    assert cost.usd == pytest.approx(1.5 * 1000 / 3600 * card.usd_hour, abs=1e-4)
    assert str(card.day) in cost.basis
    assert card.source in cost.basis
    for gpu in ("", "NVIDIA GeForce RTX 3070"):
        unknown = cost_per_1000(arm, local(), gpu)
        assert unknown.usd is None
        assert unknown.basis.startswith("no price of an hour of")
