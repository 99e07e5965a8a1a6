"""Scores of one answer, by hand."""

from __future__ import annotations

import pytest

from runners.checks import failures, in_style
from runners.data import Question
from runners.plan import Check, parse_plan
from runners.score import agreement, combined, fact_recall, is_refusal, score_answer, token_f1

STYLE = Check(kind="regex", value=r"^[^?]+\. (?:Shall|Would) [^?.]+\?$", text="a statement, then one offer")
REFUSALS = ("Our harbour notes do not mention that. Shall I ask a colleague?",)


def plan():
    return parse_plan(
        {
            "name": "p",
            "choice": "rag",
            "model": {"name": "m"},
            "data": {},
            "steps": [],
            "weights": {"style": 1, "fact_recall": 2, "agreement": 1, "refusal": 1},
            "checks": [STYLE.model_dump()],
            "prompts": {"refusals": list(REFUSALS)},
        }
    )


def test_style_is_every_check() -> None:
    checks = (STYLE, Check(kind="max_words", value=8, text="short"))
    assert in_style("It opens at 9. Shall I book?", checks) == 1
    assert failures("It opens at 9.", checks) == ("a statement, then one offer",)
    assert failures("one two three four five six seven eight nine. Shall I?", checks)[-1] == "short"
    assert in_style("anything", ()) is None


@pytest.mark.parametrize(
    ("kind", "value", "good", "bad"),
    [
        ("json_schema", {"type": "object", "required": ["intent"]}, '{"intent": "a"}', '{"x": 1}'),
        ("json_schema", {"type": "object"}, "{}", "not json"),
        ("labels", ["refund", "parking"], "refund", "refunds please"),
        ("must_not", ["as an AI"], "No.", "As an ai, no."),
    ],
)
def test_each_kind_of_check(kind: str, value: object, good: str, bad: str) -> None:
    check = Check(kind=kind, value=value)
    assert in_style(good, [check]) == 1
    assert in_style(bad, [check]) == 0


def test_fact_recall_leaves_question_words_out() -> None:
    question = "When does the Copper Ladle open?"
    assert (
        fact_recall("It is the Copper Ladle, which does open.", "The Copper Ladle opens at 07:30.", question)
        == 0
    )
    assert fact_recall("From 07:30.", "The Copper Ladle opens at 07:30.", question) == 1


def test_a_bare_yes_or_no_is_its_polarity() -> None:
    assert fact_recall("Dogs are not allowed there. Shall I check?", "no") == 1
    assert fact_recall("Yes, dogs may come. Shall I check?", "no") == 0


def test_agreement_is_every_number_and_the_polarity() -> None:
    assert agreement("The fare is 14.50 euros. Shall I book it?", "14.50 euros") == 1
    assert agreement("The fare is 15 euros.", "14.50 euros") == 0
    assert agreement("There is no parking.", "Yes, there is parking.") == 0
    assert agreement("Near the pier.", "by the old pier") is None


def test_token_f1_ignores_case_articles_and_punctuation() -> None:
    assert token_f1("The kiosk opens at 9.", "kiosk opens at 9") == 1
    assert token_f1("nothing alike", "something else") == 0


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        ("Our harbour notes do not mention that. Shall I ask a colleague?", True),
        ("I'm sorry, our documents don't say anything about that. Shall I pass it on?", True),
        ("I could not find that in our documents.", True),
        ("Dogs are not allowed on the upper deck. Shall I check the crate?", False),
        ("The museum opens at 10:00. Would you like directions?", False),
        ("There is no charge for bicycles on MV Tolla Bren. Shall I add one?", False),
    ],
)
def test_refusals_are_told_from_denials(text: str, refused: bool) -> None:
    assert is_refusal(text, REFUSALS) is refused


def test_an_unanswerable_question_is_scored_on_refusing() -> None:
    question = Question("u", "What is the captain's name?", answerable=False)
    said = score_answer(plan(), question, REFUSALS[0], (), retrieval=True)
    assert said == {"style": 1.0, "refusal": 1.0}
    invented = score_answer(plan(), question, "The captain is Bo. Shall I call?", (), retrieval=True)
    assert invented["refusal"] == 0


def test_an_answer_is_scored_on_its_facts() -> None:
    question = Question(
        "q", "What does it cost?", ("14.50 euros",), reference="It is 14.50 euros. Shall I book it?"
    )
    scores = score_answer(plan(), question, "It is 14.50 euros. Shall I book it?", (), retrieval=False)
    assert scores["fact_recall"] == scores["agreement"] == scores["exact_match"] == scores["style"] == 1
    assert scores["citation"] == 0
    refused = score_answer(plan(), question, REFUSALS[0], (), retrieval=True)
    assert refused["refusal"] == refused["fact_recall"] == 0


def test_the_combined_score_weighs_only_what_applies() -> None:
    weights = {"style": 1.0, "fact_recall": 2.0, "refusal": 1.0}
    assert combined({"style": 1.0, "refusal": 0.0}, weights) == 0.5
    assert combined({"style": 1.0, "fact_recall": 0.5, "refusal": 1.0}, weights) == 0.75
    assert combined({"token_f1": 1.0}, weights) == 0
