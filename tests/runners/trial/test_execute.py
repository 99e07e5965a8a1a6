"""The running score of an arm equals the final one for the same answers, or says what is missing."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from advisor.display.live_scores import LiveScores
from advisor.display.progress import ProgressBoard
from rag.index import Index
from runners.data.questions import Question
from runners.plan.schema import parse_plan
from runners.trial.trial import score_trial


def test_running_score_equals_final_with_gold_spans_and_seeds(tmp_path: Path, words: Any) -> None:
    """Scores of the answers so far; rows from before the index are scored once it exists."""
    text = "Pier 4 has seven berths. It closes at ten."
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "pier.md").write_text(text, "utf-8")
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
    (tmp_path / "trial").mkdir()
    (tmp_path / "trial" / "answers.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in rows), "utf-8"
    )
    running = LiveScores(plan, tmp_path, questions)
    assert running.mean("rag") is None
    Index.build(tmp_path / "index", tmp_path / "docs", words)
    raw = Index.open(tmp_path / "index", words).raw("pier.md")
    assert raw is not None
    gold = {name: raw[slice(*q.spans[0])] for name, q in questions.items()}
    (final,) = score_trial(plan, tuple(questions.values()), rows, lambda q: gold[q.id])
    without = score_trial(plan, tuple(questions.values()), rows, lambda q: "")[0]
    assert running.mean("rag") == pytest.approx(sum(final.combined) / 2)
    assert final.combined != without.combined
    board = ProgressBoard("desk", ["evaluate:rag"], scorer=running.summary)
    board.update({"event": "step.start", "step": "evaluate:rag"})
    board.update({"event": "answers.batch", "arm": "rag", "done": 1, "total": 2})
    out = io.StringIO()
    Console(file=out, width=120).print(board.draw())
    assert f"score so far {sum(final.combined) / 2:.2f}" in out.getvalue()
