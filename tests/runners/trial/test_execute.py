"""The running score of an arm equals the final one for the same answers; in whose words the questions of a trial are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from runners.data.questions import Question, load_questions, with_wordings
from runners.plan.schema import parse_plan
from runners.trial.execute import question_words
from runners.trial.trial import RunningScores, score_trial


def test_running_score_equals_final_with_gold_spans_and_seeds() -> None:
    """Scores of the answers so far, those of a resumed run first."""
    text = "Pier 4 has seven berths. It closes at ten."
    plan = parse_plan(
        {
            "name": "desk",
            "choice": "rag",
            "model": {"name": "smollm2-135m-instruct"},
            "data": {"questions": "q.jsonl", "documents": "docs", "examples": "e.jsonl"},
            "steps": [{"kind": "index"}, {"kind": "evaluate", "arm": "rag", "retrieval": True}],
            "weights": {"fact_recall": 2, "agreement": 1},
        }
    )
    spans = ((0, 24), (25, 42))
    questions = {
        f"q{n}": Question(f"q{n}", "Tell me?", doc_id="pier.md", spans=(span,))
        for n, span in enumerate(spans)
    }
    answers = (("q0", 0, "It has seven berths."), ("q0", 1, "It has three."), ("q1", 0, "It closes at ten."))
    rows = [
        {
            "arm": "rag",
            "seed": seed,
            "id": name,
            "answer": answer,
            "citations": [],
            "seconds": 1.0,
            "prompt_tokens": 1,
            "completion_tokens": 1,
        }
        for name, seed, answer in answers
    ]
    gold = {name: text[slice(*q.spans[0])] for name, q in questions.items()}
    running = RunningScores(plan, plan.arms[0], tuple(questions.values()), lambda q: gold[q.id])
    assert running.add([{**rows[0], "arm": "prompting"}]) == {}
    running.add(rows[:1])
    scored = running.add(rows[1:])
    (final,) = score_trial(plan, tuple(questions.values()), rows, lambda q: gold[q.id])
    without = score_trial(plan, tuple(questions.values()), rows, lambda q: "")[0]
    assert scored["score"] == pytest.approx(sum(final.combined) / 2)
    assert (scored["right"], scored["judged"]) == (
        pytest.approx(sum(final.of("right"))),
        len(final.of("right")),
    )
    assert final.combined != without.combined


def test_the_shipped_questions_are_in_the_documents_words_and_those_of_customers_are_not(
    example: Path, root: Path
) -> None:
    def text_of(name: str) -> str:
        return (example / "documents" / name).read_text("utf-8")

    shipped = load_questions(example / "questions.jsonl")
    words = question_words(shipped, text_of)
    customers = question_words(load_questions(root / "benchmarks" / "harbor_desk_held_out.jsonl"), text_of)
    assert words is not None
    assert customers is not None
    assert (words.documents_words, customers.documents_words) == (True, False)
    assert words.n == sum(question.answerable for question in shipped)
    worded = with_wordings([replace(question, wordings=("how much, and when?",)) for question in shipped])
    assert question_words(worded, text_of) == words, "other wordings do not count"
    for change in (
        {"made": True},
        {"doc_id": None},
        {"spans": (), "answers": (), "references": (), "reference": None},
    ):
        assert question_words([replace(q, **change) for q in shipped], text_of) is None, change  # type: ignore[arg-type]
    assert question_words(shipped, lambda name: None) is None
    assert question_words(shipped[:4], text_of) is None


@pytest.mark.parametrize(
    ("sentence", "question"),
    [
        ("La llave nueva de la taquilla cuesta 12 euros.", "¿Cuánto cuesta la llave nueva de la taquilla?"),
        (
            "Der neue Schlüssel für das Schließfach kostet 12 Euro.",
            "Was kostet der neue Schlüssel für das Schließfach?",
        ),
    ],
)
def test_nothing_is_said_of_questions_in_other_languages(sentence: str, question: str) -> None:
    """The share was compared on English sets only, and its stop words are English."""
    asked = [Question(f"q{n}", question, answers=("12",), doc_id="keys.md") for n in range(30)]
    assert question_words(asked, lambda name: sentence) is None
