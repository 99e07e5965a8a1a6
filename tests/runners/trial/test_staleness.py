"""What happens to each arm when the documents change."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rag.errors import BadInput
from rag.files import append_line
from runners.arms.answer import Answer
from runners.data.questions import Question
from runners.inference.types import Completion
from runners.run_folder import TRIAL, read_journal
from runners.trial.staleness import (
    JOURNAL,
    StaleQuestion,
    ask_stale,
    load_stale,
    staleness,
    states_fact,
    updated_documents,
)

QUESTIONS = (
    StaleQuestion("s1", "How long may a boat stay?", ("40 minutes",), ("25 minutes",), True),
    StaleQuestion("s2", "Are dogs allowed?", ("no",), ("yes",), False),
)


class ScriptedSession:
    """A session whose arms give one fixed answer each, and which counts what it was asked."""

    def __init__(self, run: Path, replies: dict[str, str]) -> None:
        self.folder = SimpleNamespace(path=run)
        self.replies = replies
        self.asked: list[str] = []

    def arm(self, name: str) -> str:
        """Return the arm, which is its name."""
        return name

    def ask(self, questions: list[str], arm: str) -> list[Answer]:
        """Answer every question with the arm's fixed text."""
        self.asked += questions
        text = self.replies[arm]
        done = Completion(text, 1, 1, 0.0, "stop")
        return [Answer(Question("x", q), text, text, (), False, None, (), done) for q in questions]


@pytest.mark.parametrize(
    ("answer", "fact", "other", "expected"),
    [
        ("At most 40 minutes. Shall I book?", "40 minutes", "25 minutes", True),
        ("Between 25 and 40 minutes.", "40 minutes", "25 minutes", False),
        ("The Slate Desk has them.", "the Slate Desk", "the Brass Desk", True),
        ("No, dogs may not board.", "no", "yes", True),
        ("Yes, dogs may board.", "no", "yes", False),
        ("Ask the office.", "40 minutes", "25 minutes", False),
    ],
)
def test_answer_states_fact_only_without_the_other_fact(
    answer: str, fact: str, other: str, expected: bool
) -> None:
    assert states_fact(answer, (fact,), (other,)) is expected


def test_shipped_update_is_read_completely(example: Path) -> None:
    questions = load_stale(example / "update" / "stale.jsonl")
    assert len(questions) >= 40
    assert sum(q.taught for q in questions) >= 20
    assert all(set(q.new).isdisjoint(q.old) for q in questions)


@pytest.mark.parametrize(
    "bad", ['{"id": "s", "question": "q", "answers": ["a"]}', '{"id": "s"', '{"answers": ["a"]}']
)
def test_broken_update_error_names_its_line(tmp_path: Path, bad: str) -> None:
    good = {"id": "r", "question": "q", "answers": ["a"], "old_answers": ["b"]}
    (tmp_path / "stale.jsonl").write_text(f"{json.dumps(good)}\n{bad}\n", "utf-8")
    with pytest.raises(BadInput, match=r"stale\.jsonl:2"):
        load_stale(tmp_path / "stale.jsonl")


def test_update_overwrites_files_in_a_copy(piers: Path, tmp_path: Path) -> None:
    update = tmp_path / "update"
    update.mkdir()
    (update / "pier00.md").write_text("# New\n", "utf-8")
    run = tmp_path / "run"
    for _ in range(2):
        copy = updated_documents(run, piers, update)
    assert (copy / "pier00.md").read_text("utf-8") == "# New\n"
    assert (piers / "pier00.md").read_text("utf-8") != "# New\n"
    assert len(list(copy.iterdir())) == len(list(piers.iterdir()))


def test_ask_stale_asks_nothing_twice(tmp_path: Path) -> None:
    session: Any = ScriptedSession(tmp_path, {"rag": "40 minutes.", "lora": "25 minutes."})
    ask_stale(session, QUESTIONS[:1], ("rag",), "before")
    ask_stale(session, QUESTIONS, ("rag", "lora"), "before")
    ask_stale(session, QUESTIONS, ("rag", "lora"), "before")
    assert len(session.asked) == 4
    ask_stale(session, QUESTIONS, ("rag",), "after")
    rows = read_journal(tmp_path / TRIAL / JOURNAL)
    assert len({(r["when"], r["arm"], r["id"]) for r in rows}) == len(rows) == 6


def test_table_counts_new_and_old_facts_before_and_after(tmp_path: Path) -> None:
    replies = [
        ("before", "rag", "25 minutes."),
        ("after", "rag", "40 minutes."),
        ("before", "lora", "25 minutes."),
        ("after", "lora", "25 minutes."),
    ]
    for when, arm, answer in replies:
        append_line(tmp_path / TRIAL / JOURNAL, {"when": when, "arm": arm, "id": "s1", "answer": answer})
    rag, lora = staleness(tmp_path, QUESTIONS[:1], ("rag", "lora"))["arms"]
    assert rag == {"arm": "rag", "n": 1, "new_before": 0, "old_before": 1, "new_after": 1, "old_after": 0}
    assert lora == {"arm": "lora", "n": 1, "new_before": 0, "old_before": 1, "new_after": 0, "old_after": 1}
