"""The trial: nothing is asked twice, refusals cost nothing, several seeds are one arm."""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rag.grounding.refusal import RefusalThreshold
from runners.data.formats import Message
from runners.data.questions import Question, with_wordings
from runners.inference.constraints.constraint import OutputConstraint
from runners.inference.types import Completion
from runners.plan.schema import parse_plan
from runners.plan.steps import EvaluateStep
from runners.run_folder import read_journal
from runners.trial.trial import (
    RunningScores,
    drop_outdated_answers,
    run_arm,
    score_trial,
    with_intervals,
    write_scores,
)
from tests.support.scripted import WholeAnswers

RAG = EvaluateStep(arm="rag", retrieval=True)
PLAIN = EvaluateStep(arm="prompting")
PLAN = parse_plan(
    {
        "name": "p",
        "choice": "rag",
        "model": {"name": "m"},
        "data": {"documents": "d", "questions": "q"},
        "steps": [{"kind": "index"}, PLAIN.model_dump(), RAG.model_dump()],
        "weights": {"fact_recall": 1, "refusal": 1},
        "prompts": {"refusals": ["Not in our papers."]},
    }
)
QUESTIONS = (
    Question("a", "How many berths has the Heron Pier?", ("27 berths",)),
    Question("b", "How many berths has the Kelp Pier?", ("30 berths",)),
    Question("c", "Who owns the moon?", answerable=False),
)


class Echo(WholeAnswers):
    """A model that answers with the text of its first passage, or with the question; one chat per batch."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.asked: list[str] = []
        self.stop_after = stop_after

    def generate(
        self,
        chats: Sequence[Sequence[Message]],
        max_new_tokens: int,
        on_batch: Callable[[list[int], list[Completion]], None] | None = None,
        *,
        known: Container[int] = (),
        constraint: OutputConstraint | None = None,
    ) -> list[Completion]:
        """Answer each chat by itself; KeyboardInterrupt is raised after ``stop_after`` of them."""
        completions = []
        for position, chat in enumerate(chats):
            if position in known:
                continue
            if position == self.stop_after:
                raise KeyboardInterrupt
            turn = chat[-1]["content"]
            self.asked.append(turn)
            lines = turn.splitlines()
            completions.append(Completion(lines[4] if len(lines) > 4 else turn, 9, 4, 0.25, "stop"))
            if on_batch:
                on_batch([position], completions[-1:])
        return completions


def test_interrupted_arm_asks_nothing_twice(tmp_path: Path) -> None:
    journal = tmp_path / "trial" / "answers.jsonl"
    with pytest.raises(KeyboardInterrupt):
        run_arm(PLAN, PLAIN, 0, QUESTIONS, Echo(stop_after=2), None, (), journal)
    assert [row["id"] for row in read_journal(journal)] == ["a", "b"]
    events: list[dict[str, Any]] = []
    again = Echo()
    assert run_arm(PLAN, PLAIN, 0, QUESTIONS, again, None, (), journal, events.append) == 1
    assert again.asked == ["Who owns the moon?"]
    assert events == [{"event": "answers.batch", "arm": "prompting", "done": 3, "total": 3, "batch": 1}]
    assert run_arm(PLAN, PLAIN, 0, QUESTIONS, again, None, (), journal) == 0
    assert run_arm(PLAN, PLAIN, 1, QUESTIONS, again, None, (), journal) == 3
    assert len(read_journal(journal)) == 6


def test_each_batch_says_what_was_right_so_far(tmp_path: Path) -> None:
    """After a resumption the answers of before count as well."""
    journal = tmp_path / "answers.jsonl"
    run_arm(PLAN, PLAIN, 0, QUESTIONS[:1], Echo(), None, (), journal)
    scores = RunningScores(PLAN, PLAIN, QUESTIONS, lambda question: "")
    scores.add(read_journal(journal))
    events: list[dict[str, Any]] = []
    run_arm(PLAN, PLAIN, 0, QUESTIONS, Echo(), None, (), journal, events.append, scores)
    assert [(event["right"], event["judged"]) for event in events] == [(0, 2), (0, 3)]
    (arm, _) = score_trial(PLAN, QUESTIONS, read_journal(journal), lambda question: "")
    assert events[-1]["score"] == pytest.approx(arm.mean_score)


def test_answer_is_cited_from_its_passages(make_retriever: Any, tmp_path: Path) -> None:
    run_arm(PLAN, RAG, 0, QUESTIONS[:1], Echo(), make_retriever(), (), tmp_path / "answers.jsonl")
    (row,) = read_journal(tmp_path / "answers.jsonl")
    assert row["answer"] == "The Heron Pier has 27 berths for visitors."
    assert row["marked"] == "The Heron Pier has 27 berths for visitors. [1]"
    (citation,) = row["citations"]
    assert (citation["doc"], citation["quote"], citation["supported"]) == ("pier07.md", row["answer"], True)
    assert row["context"][0]["doc"] == "pier07.md"


def test_refused_question_is_never_sent_to_model(make_retriever: Any, tmp_path: Path) -> None:
    always, echo = RefusalThreshold(weights={}, bias=-1.0, how="default"), Echo()
    assert run_arm(PLAN, RAG, 0, QUESTIONS, echo, make_retriever(always), (), tmp_path / "a.jsonl") == 3
    rows = read_journal(tmp_path / "a.jsonl")
    assert echo.asked == []
    assert {row["answer"] for row in rows} == {"Not in our papers."}
    assert all(row["refused"] and not row["citations"] and row["prompt_tokens"] == 0 for row in rows)


def answered(arm: str, seed: int, id: str, text: str, seconds: float = 1.0) -> dict[str, Any]:
    return {
        "arm": arm,
        "seed": seed,
        "id": id,
        "answer": text,
        "citations": [],
        "seconds": seconds,
        "prompt_tokens": 10,
        "completion_tokens": 5,
    }


def test_seeds_are_averaged_by_question_and_arms_keep_order() -> None:
    rows = [
        answered("rag", 0, "a", "It has 27 berths.", 1.0),
        answered("rag", 1, "a", "It has 9 beds.", 3.0),
        answered("prompting", 0, "a", "It has 27 berths."),
        answered("prompting", 0, "c", "Not in our papers."),
    ]
    plain, rag = score_trial(PLAN, QUESTIONS, rows, lambda question: "")
    assert (plain.arm, plain.questions) == ("prompting", ("a", "c"))
    assert plain.combined == (1.0, 1.0)
    assert (rag.arm, rag.questions, rag.seconds) == ("rag", ("a",), (2.0,))
    assert rag.scores[0]["fact_recall"] == pytest.approx(0.5)
    assert rag.of("refusal") == [1.0]
    assert (rag.of("right"), rag.combined) == ([0.5], (0.5,)), "one seed of two is right"
    assert rag.of("exact_match") != []
    assert (rag.seeds, rag.seed_spread) == (((0, 1.0), (1, 0.0)), 1.0)
    assert plain.seeds == ((0, 1.0),)
    assert (rag.tokens, plain.tokens) == (15.0, 15.0)
    assert score_trial(PLAN, QUESTIONS, [], lambda question: "")[0].combined == ()


def test_score_of_a_single_seed_is_kept() -> None:
    """Of two seeds one gave JSON, so the spurious slots are the mean of that seed alone."""
    asked = Question("j", "Where?", reference='{"place": "pier"}')
    rows = [answered("rag", 0, "j", "the pier"), answered("rag", 1, "j", '{"place": "pier", "hour": 3}')]
    scores = score_trial(PLAN, (asked,), rows, lambda question: "")[1].scores[0]
    assert (scores["spurious"], scores["slot_f1"], scores["valid_json"]) == (
        0.5,
        pytest.approx(2 / 3 / 2),
        0.5,
    )


def test_scores_are_written_for_each_question(tmp_path: Path) -> None:
    arms = score_trial(PLAN, QUESTIONS, [answered("rag", 0, "a", "It has 27 berths.")], lambda question: "")
    write_scores(arms, tmp_path / "scores.json")
    body = json.loads((tmp_path / "scores.json").read_text("utf-8"))
    assert body["schema"] == 1
    assert body["arms"]["prompting"] == {}
    assert (
        body["arms"]["rag"]["a"].items() >= {"combined": 1.0, "fact_recall": 1.0, "prompt_tokens": 10}.items()
    )


def test_scores_file_has_documents_and_seeds(tmp_path: Path) -> None:
    questions = (Question("a", "Berths?", ("27 berths",), doc_id="heron.md"), QUESTIONS[2])
    rows = [answered("rag", seed, q.id, "It has 27 berths.") for seed in (0, 1) for q in questions]
    arms = score_trial(PLAN, questions, rows, lambda question: "")
    assert arms[1].sources() == ["heron.md", None]
    assert arms[1].sources("fact_recall") == ["heron.md"]
    write_scores(arms, tmp_path / "scores.json")
    body = json.loads((tmp_path / "scores.json").read_text("utf-8"))
    assert body["documents"] == {"a": "heron.md"}
    assert body["seeds"] == {"prompting": [], "rag": [{"seed": 0, "mean": 0.85}, {"seed": 1, "mean": 0.85}]}
    assert body["question_weights"] == {"a": 1.7, "c": 0.3}, "the one without an answer has 15 % of the mean"
    assert (arms[1].combined, arms[1].weighted, arms[1].mean_score) == ((1.0, 0.0), (1.7, 0.0), 0.85)
    assert with_intervals(arms[1])["scores"]["combined"]["n"] == 2


def test_refusal_is_balanced_over_both_kinds_of_questions() -> None:
    """Ten questions, two without an answer: one that never refuses gets .5, not .8."""
    questions = [Question(f"q{n}", "Berths?", ("27",), answerable=n > 1) for n in range(10)]
    never = [answered("prompting", 0, q.id, "It has 27 berths.") for q in questions]
    once = [
        answered("rag", 0, q.id, "Not in our papers." if q.id in ("q0", "q9") else "27") for q in questions
    ]
    plain, rag = score_trial(PLAN, questions, never + once, lambda question: "")
    assert sum(plain.of("refusal")) / 10 == 0.8
    assert sum(plain.shown("refusal")) / 10 == pytest.approx(0.5)
    assert sum(rag.shown("refusal")) / 10 == pytest.approx((1 / 2 + 7 / 8) / 2)
    assert plain.shown("right") == plain.of("right")
    scores = with_intervals(plain)["scores"]
    assert scores["refusal"]["mean"] == pytest.approx(0.5)
    always = [
        answered("prompting", 0, q.id, "27" if q.answerable else "Not in our papers.") for q in questions
    ]
    (best, _) = score_trial(PLAN, questions, always, lambda question: "")
    assert best.shown("refusal") == best.shown("combined") == pytest.approx([1.0] * 10), (
        "equal values have no spread"
    )
    assert all(0 <= score["low"] <= score["mean"] <= score["high"] <= 1 for score in scores.values())


def test_answers_from_other_inputs_are_removed(tmp_path: Path, make_retriever: Any) -> None:
    journal = tmp_path / "answers.jsonl"
    assert drop_outdated_answers(tmp_path, "prompting", "a") == 0
    run_arm(PLAN, PLAIN, 0, QUESTIONS, Echo(), None, (), journal)
    run_arm(PLAN, RAG, 0, QUESTIONS, Echo(), make_retriever(), (), journal)
    assert drop_outdated_answers(tmp_path, PLAIN.arm, "a") == 0, "the same inputs keep their answers"
    assert drop_outdated_answers(tmp_path, PLAIN.arm, "b") == len(QUESTIONS)
    assert {row["arm"] for row in read_journal(journal)} == {RAG.arm}
    assert run_arm(PLAN, PLAIN, 0, QUESTIONS, Echo(), None, (), journal) == len(QUESTIONS)


def test_wordings_are_asked_and_scored_like_their_question(make_retriever: Any, tmp_path: Path) -> None:
    berths = Question("a", "How many berths has the Heron Pier?", ("27 berths",), doc_id="pier07.md")
    worded = replace(berths, wordings=("Heron Pier, number of berths?", "Amber Pier?"))
    asked = with_wordings([worded, QUESTIONS[2]])
    journal = tmp_path / "answers.jsonl"
    for arm, finder in ((RAG, make_retriever()), (PLAIN, None)):
        assert run_arm(PLAN, arm, 0, asked, Echo(), finder, (), journal) == 4
    plain, rag = score_trial(PLAN, asked, read_journal(journal), lambda q: "")
    assert rag.questions == ("a", "a~1", "a~2", "c")
    assert rag.wording_of == (None, "a", "a", None)
    assert [scores["right"] for scores in rag.scores] == [1.0, 1.0, 0.0, 0.0]
    found = [row["context"][0]["doc"] for row in read_journal(journal)[:3]]
    assert found == ["pier07.md", "pier07.md", "pier00.md"]
    shown = any(span["doc"] == "pier07.md" for span in read_journal(journal)[2]["context"])
    assert rag.hits == (1.0, 1.0, float(shown), None)
    assert plain.hits == ()
    assert (rag.question_count, rag.originals) == (2, ("a", "a", "a", "c"))
    assert rag.by_question("right") == pytest.approx([0.75, 0.25]), (
        "linearised: their mean is that of the rows, 1/2"
    )
    assert rag.sources("right") == ["pier07.md", None]
    assert with_intervals(rag)["scores"]["right"]["n"] == 4
    write_scores([plain, rag], tmp_path / "scores.json")
    written = json.loads((tmp_path / "scores.json").read_text("utf-8"))
    assert written["wording_of"] == {"a~1": "a", "a~2": "a"}
    assert written["hits"] == {"prompting": {}, "rag": {"a": 1.0, "a~1": 1.0, "a~2": float(shown)}}
