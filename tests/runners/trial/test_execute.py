"""The running score of an arm equals the final one for the same answers."""

from __future__ import annotations

import pytest

from runners.data.questions import Question
from runners.plan.schema import parse_plan
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
