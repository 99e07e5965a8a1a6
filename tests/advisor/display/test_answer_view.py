"""What stands below an answer on a terminal and in JSON: sources, doubts, contradictions, and what was searched."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from rich.console import Console

from advisor.display.answer_view import show_answer
from rag.grounding.conflicts import find_conflicts
from rag.grounding.refusal import default_threshold
from rag.types import Chunk, Hit
from runners.arms.answer import Answer, answer_all
from runners.arms.retriever import Retrieved
from runners.data.questions import Question
from runners.inference.types import Completion
from runners.plan.schema import Plan, parse_plan
from runners.plan.steps import EvaluateStep

ASKED = "What does an adult single cost?"


@pytest.fixture(scope="module")
def plan() -> Plan:
    return parse_plan(
        {
            "schema": 1,
            "name": "p",
            "choice": "rag",
            "model": {"name": "smollm2-135m-instruct"},
            "weights": {"style": 1},
            "steps": [{"kind": "index"}, {"kind": "evaluate", "arm": "rag", "retrieval": True}],
            "data": {"documents": "x"},
        }
    )


@pytest.fixture
def hits() -> tuple[Hit, ...]:
    texts = {
        "fares.md": ("An adult single costs 14.50 euros.\nChildren travel free.", {"date": "2026-03-01"}),
        "old.md": ("An adult single costs 12 euros.", {"date": "2025-03-01", "valid_until": "2026-02-28"}),
        "guide.pdf": ("Dogs :smile: [bold]pay[/] 3 euros at https://a.example \x1b[31m", {}),
    }
    return tuple(
        Hit(
            Chunk(
                n,
                doc,
                "Fares",
                0,
                text,
                0,
                len(text),
                line_start=4,
                line_end=5,
                page=2 if "pdf" in doc else None,
            ),
            0.5,
            0.6,
            1.0,
            metadata=metadata,
            expired="valid_until" in metadata,
        )
        for n, (doc, (text, metadata)) in enumerate(texts.items())
    )


class Scripted:
    """A retriever and a model that were told what to bring."""

    def __init__(self, hits: tuple[Hit, ...], said: str) -> None:
        self.hits, self.said = hits, said

    def find(self, questions: list[str]) -> list[Retrieved]:
        decision = default_threshold().decide(questions[0], self.hits)
        searched = {"documents": 3, "passages": 1234, "generation": 1}
        return [Retrieved(self.hits, "shown", decision, ("1 document has expired.",), searched)]

    def generate(self, chats: Any, limit: int, on_batch: Any = None, known: Any = ()) -> list[Completion]:
        said = [Completion(self.said, 9, 5, 0.25, "stop") for _ in chats]
        on_batch(list(range(len(said))), said)
        return said


def ask(plan: Plan, hits: tuple[Hit, ...], said: str) -> Answer:
    both: Any = Scripted(hits, said)
    arm = next(step for step in plan.steps if isinstance(step, EvaluateStep))
    return answer_all(plan, arm, [Question("q", ASKED)], both, both)[0]


def printed(answer: Answer) -> str:
    out = io.StringIO()
    show_answer(answer, "rag", Console(file=out, width=40))
    return out.getvalue()


def test_each_sentence_shows_what_bears_it_out(plan: Plan, hits: tuple[Hit, ...]) -> None:
    said = (
        "An adult single costs 14.50 euros. Cats sail for 9 euros. Children travel free and cats sleep below."
    )
    answer = ask(plan, hits, f"{said} Dogs :smile: pay 3 euros.")
    assert printed(answer).splitlines() == [
        "An adult single costs 14.50 euros. [1] Cats sail for 9 euros. [?] "
        "Children travel free and cats sleep below. [1?] Dogs :smile: pay 3 euros. [3]",
        '  [1] fares.md, line 4 (2026-03-01): "An adult single costs 14.50 euros."',
        '  [?] no passage says this (unsupported): "Cats sail for 9 euros."',
        '  [1] fares.md, line 5 (2026-03-01) bears out a part only: "Children travel free."',
        '  [3] guide.pdf, page 2: "Dogs :smile: [bold]pay[/] 3 euros at a.example"',
        "  the sources disagree (different numbers):",
        '    [1] fares.md, line 4 (2026-03-01), newer: "An adult single costs 14.50 euros."',
        '    [2] old.md, line 4 (2025-03-01, valid until 2026-02-28): "An adult single costs 12 euros."',
        "  1 document has expired.",
        "  (arm: rag)",
    ]
    told = json.loads(json.dumps(answer.reply_json("rag")))
    assert told["answer"].count("[1]") == 2
    assert [c["support"] for c in told["citations"]] == ["supported", "unsupported", "partly", "supported"]
    assert told["conflicts"] == [c.to_json() for c in find_conflicts(ASKED, hits)]
    assert (told["searched"]["passages"], told["nearest"], told["notes"]) == (
        1234,
        [],
        ["1 document has expired."],
    )
    assert told["decision"]["refuse"] is False


def test_a_refusal_says_what_was_searched_and_offers_the_nearest(plan: Plan, hits: tuple[Hit, ...]) -> None:
    far = tuple(Hit(hit.chunk, 0.1, 0.2, 0.0, metadata=hit.metadata, expired=hit.expired) for hit in hits)
    for answer in (ask(plan, far, "never asked"), ask(plan, hits, plan.prompts.refusals[0])):
        assert answer.refused
        shown = printed(answer).splitlines()
        assert shown[0] == plan.prompts.refusals[0]
        assert "  searched 3 documents, 1,234 passages; nearest:" in shown
        assert (
            '    [1] fares.md, lines 4–5 (2026-03-01): "An adult single costs 14.50 euros. Children travel free."'
            in shown
        )
        assert shown[-1] == "  (the documents do not hold an answer)"
        told = answer.reply_json("rag")
        assert [passage["doc"] for passage in told["nearest"]] == ["fares.md", "old.md", "guide.pdf"]
        assert told["citations"] == told["conflicts"] == []


def test_an_arm_without_retrieval_has_nothing_below(plan: Plan) -> None:
    arm = EvaluateStep(arm="prompting")
    answer = answer_all(
        plan, arm, [Question("q", ASKED)], Scripted((), "It costs \x1b[1m3\x1b[0m [1]."), None
    )[0]  # type: ignore[arg-type]
    assert printed(answer) == "It costs 3.\n  (arm: rag)\n"
    told = answer.reply_json("prompting")
    assert (told["searched"], told["decision"], told["nearest"], told["conflicts"]) == (None, None, [], [])
