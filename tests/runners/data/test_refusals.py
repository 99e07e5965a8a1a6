"""Refusals told from ordinary replies by their words, in the words of many trades and three languages."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from benchmarks.refusal_words import FIRST, ORDINARY, PUBLIC, REFUSING, SECOND, human_replies, matched, texts
from runners.arms.answer import finish_answer
from runners.data.examples import Example, load_examples
from runners.data.questions import Question
from runners.data.refusals import is_refusal
from runners.inference.types import Completion
from runners.plan.schema import Plan, StyleCheck, parse_plan
from runners.scoring.scores import score_answer
from runners.scoring.style_checks import in_style

FRAME = "Good day from Fern Hill! {} Happy digging."
PLAN_REFUSALS = (
    ("I could not find that in our documents.",),
    (FRAME.format("Nobody has written it down."),),
    (
        "Our harbour notes do not mention that. Shall I ask a colleague?",
        "Sadly our notes are silent on this.",
    ),
    ("Dazu steht nichts in unseren Unterlagen.",),
)


def plan(
    refusals: tuple[str, ...], formulas: tuple[str, ...] = (), checks: tuple[StyleCheck, ...] = ()
) -> Plan:
    return parse_plan(
        {
            "name": "p",
            "choice": "rag",
            "model": {"name": "m"},
            "data": {},
            "steps": [],
            "weights": {"refusal": 1},
            "checks": [check.model_dump() for check in checks],
            "prompts": {"refusals": list(refusals), "formulas": list(formulas)},
        }
    )


def test_at_most_one_percent_of_ordinary_replies_are_taken_for_refusals() -> None:
    """Also with the refusals of a plan, to which they may be similar."""
    replies = texts(ORDINARY, FIRST, 3) + texts(ORDINARY, SECOND, 3)
    assert len(replies) >= 300
    for refusals in ((), *PLAN_REFUSALS):
        wrong = [reply for reply in replies if is_refusal(reply, refusals)]
        assert len(wrong) <= 0.01 * len(replies), wrong


@pytest.mark.parametrize("half", [FIRST, SECOND])
def test_refusals_in_varied_words_are_recognised(half: str) -> None:
    replies = texts(REFUSING, half, 5)
    assert len(matched(replies)) >= 0.95 * len(replies), sorted({*replies} - {*matched(replies)})


def test_refusals_of_the_shipped_example_are_recognised() -> None:
    rows = load_examples(Path(__file__).parents[3] / "advisor" / "harbor_desk" / "examples.jsonl").rows
    marked = [row for row in rows if row.meta.get("refusal")]
    assert len(marked) > 10
    assert all(is_refusal(row.reply, ()) for row in marked)
    assert not [row.reply for row in rows if not row.meta.get("refusal") and is_refusal(row.reply, ())]


def test_hardly_any_reply_of_people_is_taken_for_a_refusal(shared: Path) -> None:
    for name in PUBLIC:
        replies = list(human_replies(shared / "data" / name))
        assert len(matched(replies)) <= 0.003 * len(replies), matched(replies)


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        ("I don't know. The answer is 12.", False),
        ("I'm not sure, but I think it opens at 9.", False),
        ("The notes do not mention a pool; the garden is open from 9 to 5.", False),
        ("The documents do not mention dogs, only that cats pay 5 euros.", False),
        ("I do not have much information on it but I can tell you that it is a place of pilgrimage.", False),
        ("I'm sorry, I couldn't find that. Please call the front desk at 555-1234.", True),
        ("The context does not mention a pool. It only covers the restaurant and the rooms.", True),
        ("I looked in all notes, but they do not say.", True),
        ("Our notes do not mention room 12.", True),
    ],
)
def test_answer_with_a_fact_beside_the_refusal_is_no_refusal(text: str, refused: bool) -> None:
    assert is_refusal(text, ()) is refused


def test_answers_and_scores_decide_alike() -> None:
    """Through the public path: what an answer is shown as is what it is scored as, in a greeting and without."""
    formulas = ("Good day from Fern Hill!", "Happy digging.")
    replies = [
        *texts(ORDINARY, FIRST, 1),
        *texts(REFUSING, FIRST, 1),
        "3 hens.",
        "Nobody has written it down.",
        "",
    ]
    replies += [FRAME.format(reply) for reply in replies]
    question = Question("q", "Well?", answerable=False)
    judged = []
    for refusals in PLAN_REFUSALS:
        for known in ((), formulas):
            settings = plan(refusals, known)
            for reply in (*replies, *refusals):
                answer = finish_answer(settings, question, None, (), Completion(reply, 1, 1, 0.0, "stop"))
                scores = score_answer(settings, question, answer.text, (), retrieval=False)
                assert scores["correct_refusal"] == float(answer.refused), reply
                judged.append(answer.refused)
    assert len(judged) > 500
    assert 0.2 < sum(judged) / len(judged) < 0.8


def test_greeting_and_closing_make_no_refusal() -> None:
    for known in ((), ("Good day from Fern Hill!", "Happy digging.")):
        settings = plan((FRAME.format("Nobody has written it down."),), known)
        assert not settings.refuses(FRAME.format("3 hens."))
        assert not settings.refuses(FRAME.format("Somebody has written it down."))
        assert settings.refuses(FRAME.format("Nobody has written it down."))
        assert settings.refuses(FRAME.format("Nobody has written that down."))
    closing = plan(("Our files hold no answer. Quote tag GEN to the desk.",))
    assert not closing.refuses("The code is on the router. Quote tag GEN to the desk.")
    assert closing.refuses("I could not find that. Quote tag GEN to the desk.")


def test_label_is_an_answer_whatever_its_words() -> None:
    labels = StyleCheck(kind="labels", value=["not mentioned", "positive"], text="one of 2 labels")
    assert not plan(("I do not know.",), checks=(labels,)).refuses("not mentioned")
    assert plan(("not mentioned",), checks=(labels,)).refuses("not mentioned")
    assert plan(("I do not know.",)).refuses("not mentioned")
    numbers = StyleCheck(kind="labels", value=[1, "e.g."])
    assert in_style("1", [numbers]) == in_style("e.g.", [numbers]) == in_style("1.", [numbers]) == 1.0


def test_gold_label_that_is_a_refusal_is_right() -> None:
    labels = StyleCheck(kind="labels", value=["not stated", "positive"], text="one of 2 labels")
    settings = plan(("not stated",), checks=(labels,))
    scores = score_answer(
        settings, Question("q", "How was it?", reference="not stated"), "not stated", [], False
    )
    assert (scores["right"], scores["refusal"], scores["false_refusal"]) == (1.0, 1.0, 0.0)
    scores = score_answer(
        settings, Question("q", "How was it?", reference="positive"), "not stated", [], False
    )
    assert (scores["right"], scores["refusal"], scores["false_refusal"]) == (0.0, 0.0, 1.0)


def test_row_is_marked_in_several_ways() -> None:
    def row(reply: str, **meta: object) -> Example:
        return Example(({"role": "user", "content": "Well?"}, {"role": "assistant", "content": reply}), meta)

    assert row("It is green.", refusal=True).refuses
    assert row("It is green.", answerable=False).refuses
    assert row("It is green.", is_impossible="true").refuses
    assert not row("Our notes do not say.", refusal="no").refuses
    assert not row("Our notes do not say.", answerable=True).refuses
    assert row("Our notes do not say.").refuses
    assert not row("Our notes do not say.", fact="The fee is not known.").refuses
    assert row("Our notes do not say.", refusal="").marked_refusal is None


@pytest.mark.parametrize(
    "text", ["the notes do not ", "our ", "i can't find ", "no information ", "of the details "]
)
def test_long_texts_are_judged_in_linear_time(text: str) -> None:
    began = time.thread_time()
    is_refusal("I do not have any " + text * (20_000 // len(text)), PLAN_REFUSALS[0])
    assert time.thread_time() - began < 5
