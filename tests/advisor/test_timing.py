"""Rough times of steps: what asks more takes longer."""

from __future__ import annotations

from typing import Any

from advisor.timing import schedule
from runners.plan import parse_plan


def times(corpus: int = 3_000, **few: Any) -> dict[str, float]:
    """Seconds of each arm, with 60 test questions and 200 examples."""
    steps = [
        {"kind": "index"},
        {"kind": "evaluate", "arm": "few-shot", "shots": 3, **few},
        {"kind": "evaluate", "arm": "rag", "retrieval": True},
        {"kind": "evaluate", "arm": "long-context", "retrieval": True, "passages": "all"},
        {"kind": "evaluate", "arm": "classifier", "classifier": True},
    ]
    body = {
        "name": "p", "choice": "rag", "model": {"name": "m"}, "data": {"documents": "d", "examples": "e", "questions": "q"},
        "steps": steps, "weights": {"style": 1}, "answers": {"corpus_tokens": {"value": corpus, "source": "counted"}},
    }  # fmt: skip
    return {name.partition(":")[2]: seconds for name, seconds in schedule(parse_plan(body), 200, 60)}


def test_trying_banks_and_reading_all_documents_takes_time() -> None:
    plain, chosen = times(), times(bank="chosen")
    assert chosen["few-shot"] > 1.5 * plain["few-shot"]
    assert times(bank="chosen", budget=0) == plain
    assert plain["long-context"] > plain["rag"]
    assert times(corpus=6_000)["long-context"] > plain["long-context"]
    assert plain["classifier"] < plain["rag"] + 5
