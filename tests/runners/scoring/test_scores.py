"""Scores of one answer, against values calculated by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag.types import Citation
from runners.data.examples import Example
from runners.data.questions import Question
from runners.data.refusals import is_refusal
from runners.plan.schema import Plan, StyleCheck, parse_plan
from runners.plan.score_names import SCORE_NAMES
from runners.scoring.scores import (
    asked_weights,
    citation_precision,
    citation_share,
    combined_score,
    fact_agreement,
    fact_recall,
    missing_form,
    question_weights,
    score_answer,
    token_f1,
)
from runners.scoring.style_checks import failed_checks, in_style

STYLE = StyleCheck(
    kind="regex", value=r"^[^?]+\. (?:Shall|Would) [^?.]+\?$", text="a statement, then one offer"
)
REFUSALS = ("Our harbour notes do not mention that. Shall I ask a colleague?",)


def plan() -> Plan:
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


def test_style_requires_every_check() -> None:
    checks = (STYLE, StyleCheck(kind="max_words", value=8, text="short"))
    assert in_style("It opens at 9. Shall I book?", checks) == 1
    assert failed_checks("It opens at 9.", checks) == ("a statement, then one offer",)
    assert failed_checks("one two three four five six seven eight nine. Shall I?", checks)[-1] == "short"
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
def test_style_check_kinds(kind: str, value: object, good: str, bad: str) -> None:
    check = StyleCheck(kind=kind, value=value)
    assert in_style(good, [check]) == 1
    assert in_style(bad, [check]) == 0


def test_fact_recall_ignores_question_words() -> None:
    question = "When does the Copper Ladle open?"
    assert (
        fact_recall("It is the Copper Ladle, which does open.", "The Copper Ladle opens at 07:30.", question)
        == 0
    )
    assert fact_recall("From 07:30.", "The Copper Ladle opens at 07:30.", question) == 1


def test_fact_recall_of_bare_yes_or_no_compares_polarity() -> None:
    assert fact_recall("Dogs are not allowed there. Shall I check?", "no") == 1
    assert fact_recall("Yes, dogs may come. Shall I check?", "no") == 0


def test_agreement_requires_every_number_and_the_polarity() -> None:
    assert fact_agreement("The fare is 14.50 euros. Shall I book it?", "14.50 euros") == 1
    assert fact_agreement("The fare is 15 euros.", "14.50 euros") == 0
    assert fact_agreement("There is no parking.", "Yes, there is parking.") == 0
    assert fact_agreement("Near the pier.", "by the old pier") is None


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
def test_refusals_are_distinguished_from_denials(text: str, refused: bool) -> None:
    assert is_refusal(text, REFUSALS) is refused


def test_formula_in_every_answer_is_no_refusal() -> None:
    """By its words alone a short answer would be near a short refusal that opens and closes alike."""
    frame = "Good day from Fern Hill! {} Happy digging."
    refusals, formulas = (
        (frame.format("Nobody has written it down."),),
        ("Good day from Fern Hill!", "Happy digging."),
    )
    replies = [
        frame.format(text)
        for text in (
            "Sprinklers are not allowed.",
            "3 hens.",
            "Somebody wrote it.",
            "Nobody has written it down.",
        )
    ]
    for known in (formulas, ()):
        assert [is_refusal(text, refusals, known) for text in replies] == [False, False, False, True]


def test_example_refuses_by_mark_or_by_its_words() -> None:
    """Rows of a spreadsheet have no marks; one that says what it is is taken at its word."""

    def row(reply: str, **meta: object) -> Example:
        return Example(({"role": "user", "content": "Well?"}, {"role": "assistant", "content": reply}), meta)

    silent = "Good day from Fern Hill! Our papers do not say. Happy digging."
    assert [row(silent).refuses, row(silent, refusal=False).refuses] == [True, False]
    assert [row("It is green.").refuses, row("It is green.", refusal=True).refuses] == [False, True]


def test_unanswerable_question_is_scored_on_refusal() -> None:
    question = Question("u", "What is the captain's name?", answerable=False)
    scores = score_answer(plan(), question, REFUSALS[0], (), retrieval=True)
    assert scores == {"right": 1.0, "style": 1.0, "refusal": 1.0, "correct_refusal": 1.0}
    invented = score_answer(plan(), question, "The captain is Bo. Shall I call?", (), retrieval=True)
    assert invented["right"] == invented["refusal"] == invented["correct_refusal"] == 0


def test_answer_is_scored_on_its_facts() -> None:
    question = Question(
        "q", "What does it cost?", ("14.50 euros",), reference="It is 14.50 euros. Shall I book it?"
    )
    scores = score_answer(plan(), question, "It is 14.50 euros. Shall I book it?", (), retrieval=False)
    assert scores["fact_recall"] == scores["agreement"] == scores["exact_match"] == scores["style"] == 1
    assert scores["right"] == 1
    assert "citation" not in scores, "no arm of the plan retrieves"
    refused = score_answer(plan(), question, REFUSALS[0], (), retrieval=True)
    assert refused["right"] == refused["refusal"] == refused["fact_recall"] == refused["citation"] == 0
    assert (scores["false_refusal"], refused["false_refusal"]) == (0, 1)
    assert scores["rouge_l"] == scores["chrf"] == 1
    assert "correct_refusal" not in scores
    assert "citation_precision" not in scores


def test_scores_without_gold_are_absent() -> None:
    scores = score_answer(plan(), Question("q", "What does it cost?"), "", (), retrieval=False)
    assert scores == {"style": 0.0, "refusal": 1.0, "false_refusal": 0.0}


def absent(answer: str, legal: object, **gold: Any) -> dict[str, float]:
    """Score an answer of a plan that was told whether "not stated" can be right."""
    answers = {"absence_is_legal": {"value": legal, "source": "flag"}}
    body = plan().model_dump(mode="json", by_alias=True) | {"answers": answers if legal is not None else {}}
    return score_answer(
        parse_plan(body), Question("q", "Who is the skipper?", **gold), answer, (), retrieval=True
    )


@pytest.mark.parametrize(
    ("answer", "spurious"),
    [
        ("Not stated.", 0),
        ("", 0),
        (REFUSALS[0], 0),
        ("Captain Bo.", 1),
        ("Not stated, but surely Captain Bo", 1),
    ],
)
def test_invented_value_is_spurious_when_absence_is_legal(answer: str, spurious: int) -> None:
    scores = absent(answer, True, reference="not stated")
    assert scores["spurious"] == spurious
    assert not {"refusal", "false_refusal", "fact_recall", "citation"} & set(scores)
    for legal in (None, False):
        assert "spurious" not in absent(answer, legal, reference="not stated")
    assert "spurious" not in absent(answer, True, reference="Captain Bo")
    assert "spurious" not in absent(answer, True)


def test_json_slots_are_scored_against_nearest_reference() -> None:
    gold = {"references": ('{"a": 1, "b": "x"}', '{"a": 2}'), "reference": '{"a": 1, "b": "x"}'}
    scores = absent('{"a": 2, "c": 3}', None, **gold)
    assert (scores["slot_f1"], scores["valid_json"]) == (pytest.approx(2 / 3), 1)
    assert scores["spurious"] == 0.5
    broken = absent('{"a": 2', None, **gold)
    assert (broken["slot_f1"], broken["valid_json"]) == (0, 0)
    assert "spurious" not in broken
    assert "spurious" not in absent('{"a": 2, "c": 3}', False, **gold)
    assert "slot_f1" not in absent('{"a": 2}', None, reference="5")


@pytest.mark.parametrize(
    ("answer", "right"),
    [("Card arrival.", 1), ("card_arrival", 1), ("the card arrival", 0), ("refund", 0), ("", 0)],
)
def test_labels_are_compared_without_case_and_separators(answer: str, right: int) -> None:
    labels = StyleCheck(kind="labels", value=["card_arrival", "refund"]).model_dump()
    labelled_plan = parse_plan(plan().model_dump(mode="json", by_alias=True) | {"checks": [labels]})
    question = Question("q", "Where is my card?", reference="card_arrival")
    assert score_answer(labelled_plan, question, answer, (), retrieval=False)["label"] == right
    assert "label" not in score_answer(plan(), question, answer, (), retrieval=False)


def cited(n: int, level: str, start: int) -> Citation:
    return Citation(
        n=n,
        doc="a.md",
        title="",
        page=None,
        line_start=1,
        line_end=1,
        char_start=0,
        char_end=5,
        quote="quote",
        supported=level == "supported",
        support=level,
        answer_start=start,
        answer_end=start + 5,
    )


def test_citation_recall_and_precision() -> None:
    """Three sentences: one borne out by two passages, one in part, one not at all."""
    rows = (
        cited(1, "supported", 0),
        cited(2, "supported", 0),
        cited(1, "partly", 9),
        cited(0, "unsupported", 20),
    )
    assert citation_share(rows, retrieval=True) == pytest.approx(1 / 3)
    assert citation_precision(rows) == pytest.approx(2 / 3)
    assert citation_precision(rows[3:]) is None
    # What a passage says beside the question is no support.
    beside = (cited(1, "beside", 0), *rows[2:])
    assert (citation_share(beside, retrieval=True), citation_precision(beside)) == (0, 0)
    assert citation_share((), retrieval=True) == citation_share(rows, retrieval=False) == 0


def test_combined_score_inverts_scores_where_less_is_better() -> None:
    weights = {"false_refusal": 1.0, "spurious": 1.0, "style": 2.0}
    assert combined_score({"false_refusal": 1.0, "spurious": 0.0, "style": 1.0}, weights) == 0.75
    assert combined_score({"false_refusal": 0.25}, weights) == 0.75


@given(st.text(max_size=60), st.text(max_size=60), st.booleans(), st.sampled_from([True, False, None]))
def test_scores_are_within_0_and_1_and_have_known_names(
    answer: str, reference: str, answerable: bool, legal: bool | None
) -> None:
    scores = absent(answer, legal, reference=reference or None, answerable=answerable)
    assert set(scores) <= set(SCORE_NAMES)
    assert all(0 <= value <= 1 + 1e-12 for value in scores.values())


def test_combined_score_weighs_only_present_scores() -> None:
    weights = {"style": 1.0, "fact_recall": 2.0, "refusal": 1.0}
    assert combined_score({"style": 1.0, "refusal": 0.0}, weights) == 0.5
    assert combined_score({"style": 1.0, "fact_recall": 0.5, "refusal": 1.0}, weights) == 0.75
    assert combined_score({"token_f1": 1.0}, weights) == 0


def test_combined_score_is_zero_unless_the_answer_is_right() -> None:
    weights = {"style": 1.0, "citation": 1.0, "fact_recall": 2.0, "agreement": 5.0}
    wrong = {"right": 0.0, "style": 1.0, "citation": 1.0, "fact_recall": 1.0, "agreement": 1.0}
    assert combined_score(wrong, weights) == 0
    assert combined_score({**wrong, "right": 1.0}, weights) == pytest.approx(1)
    graded = {"right": 1.0, "style": 1.0, "citation": 0.0, "fact_recall": 0.5, "agreement": 0.0}
    assert combined_score(graded, weights) == pytest.approx(0.8 + 0.2 * (1 + 0 + 2 * 0.5) / 4), (
        "agreement is part of right"
    )
    assert combined_score({"right": 1.0, "refusal": 1.0}, {"refusal": 1.0}) == 1, "nothing to grade"
    assert combined_score({"style": 1.0, "agreement": 0.0}, {"style": 1.0, "agreement": 3.0}) == 0.25, (
        "no gold"
    )


def questions_without_answer(count: int, of: int) -> list[Question]:
    return [Question(f"q{n}", "Who?", ("Bo",), answerable=n >= count) for n in range(of)]


def test_questions_without_answer_have_at_most_fifteen_percent_of_the_mean() -> None:
    weights = question_weights(plan(), questions_without_answer(4, 10))
    assert sum(weights.values()) == pytest.approx(10)
    assert sum(weights[f"q{n}"] for n in range(4)) == pytest.approx(0.15 * 10)
    assert set(question_weights(plan(), questions_without_answer(1, 10)).values()) == {1.0}
    assert set(question_weights(plan(), questions_without_answer(10, 10)).values()) == {1.0}, (
        "nothing else is asked"
    )
    assert question_weights(plan(), []) == {}


@pytest.mark.parametrize(
    ("texts", "kind", "value", "missing"),
    [
        (["2024-05-01"], "regex", r"^(?P<answer>\d{4}-\d\d-\d\d)$", False),
        (["yes"], "regex", r"^(?P<answer>\d{4}-\d\d-\d\d)$", True),
        (["yes", "2024-05-01"], "regex", r"^(?P<answer>\d{4}-\d\d-\d\d)$", False),
        (["yes"], "regex", r"^[^?]+\?$", False),  # a rule of wording
        (["Card lost."], "labels", ["card_lost", "other"], False),
        (["yes"], "labels", ["card_lost", "other"], True),
        (["one two three"], "max_words", 2, False),
        ([], "labels", ["card_lost"], False),
    ],
)
def test_gold_without_the_form_of_final_answers_is_named(
    texts: list[str], kind: str, value: object, missing: bool
) -> None:
    check = StyleCheck.model_validate(
        {"kind": kind, "value": value, "text": "only that (98 % of 200 examples)"}
    )
    assert missing_form(texts, [check]) == ("only that" if missing else "")


def test_weights_of_rows_multiply_those_of_questions_without_answer() -> None:
    weighted = [
        replace(q, weight=8.0 if n == 9 else 1.0) for n, q in enumerate(questions_without_answer(0, 10))
    ]
    weights = question_weights(plan(), weighted)
    assert sum(weights.values()) == pytest.approx(10)
    assert weights["q9"] == pytest.approx(8 * weights["q0"])
    unanswerable = [
        replace(q, weight=8.0 if n == 0 else 1.0) for n, q in enumerate(questions_without_answer(1, 10))
    ]
    weights = question_weights(plan(), unanswerable)
    assert weights["q0"] == pytest.approx(0.15 * 10), "one question, but nearly half of what is asked"
    assert asked_weights(unanswerable)["q0"] == pytest.approx(80 / 17)
    assert asked_weights([replace(q, weight=0.1) for q in weighted]) == {}, "all alike"
