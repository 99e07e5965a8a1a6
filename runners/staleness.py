"""What happens to each arm when the documents change: the same questions before and after an update.

Retrieval follows the documents at once; weights repeat what they were taught. The questions are kept out of
the verdict. :mod:`runners.outdated` does all of it for a finished run and an update of its user's own.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rag.durable import append_line, write_json
from rag.errors import BadInput
from rag.facts import content_words, numbers, polarity
from runners.answer import Answer
from runners.bench import RunContext
from runners.opened import RunSession
from runners.rows import read_rows
from runners.rundir import INDEX, TRIAL, read_lines

JOURNAL, KEPT = "stale.jsonl", "staleness.json"
DOCUMENTS = "documents-updated"


@dataclass(frozen=True, slots=True)
class StaleQuestion:
    """A question whose answer the update flips."""

    id: str
    question: str
    new: tuple[str, ...]
    old: tuple[str, ...]
    taught: bool
    """Whether a training example teaches the old answer."""


def load_stale(path: Path) -> tuple[StaleQuestion, ...]:
    """Read the questions of an update; BadInput with file and line when a row is broken or lacks a part."""
    found = []
    for number, row in read_rows(path):
        missing = [key for key in ("id", "question", "answers", "old_answers") if not row.get(key)]
        if missing:
            raise BadInput(f"{path}:{number}: a question of an update needs {', '.join(missing)}")
        found.append(
            StaleQuestion(
                row["id"],
                row["question"],
                tuple(row["answers"]),
                tuple(row["old_answers"]),
                bool(row.get("taught")),
            )
        )
    return tuple(found)


def updated_documents(run: Path, documents: Path, update: Path) -> Path:
    """A copy of the documents with the changed files laid over it, inside the run folder.

    Documents that are one file are taken whole from the update, where it has the same name.
    """
    target = run / DOCUMENTS
    if target.exists():
        shutil.rmtree(target)
    if documents.is_file():
        target.mkdir(parents=True)
        shutil.copy(update / documents.name, target)
        return target / documents.name
    shutil.copytree(documents, target)
    shutil.copytree(update, target, dirs_exist_ok=True)
    return target


def update_index(bench: RunContext, documents: Path) -> dict[str, Any]:
    """Bring the run's index to the changed documents; later searches see them."""
    from rag.index import Index

    report = Index.update(bench.run.path / INDEX, documents, bench.embedder, bench.tell)
    for part in ("index", "retriever"):
        bench.__dict__.pop(part, None)
    return dict(report.to_json())


def ask_stale(
    session: RunSession,
    questions: Sequence[StaleQuestion],
    arms: Sequence[str],
    when: str,
    name: str = JOURNAL,
) -> None:
    """Answer the questions with each arm and keep the answers; what the journal holds is not asked again."""
    journal = session.folder.path / TRIAL / name
    have = {(row["when"], row["arm"], row["id"]) for row in read_lines(journal)}
    for arm in arms:
        todo = [q for q in questions if (when, arm, q.id) not in have]
        if not todo:
            continue
        answers: list[Answer] = session.ask([q.question for q in todo], session.arm(arm))
        for question, answer in zip(todo, answers, strict=True):
            append_line(journal, {"when": when, "id": question.id, **_row(answer, arm)})


def staleness(
    run: Path, questions: Sequence[StaleQuestion], arms: Sequence[str], name: str = JOURNAL
) -> dict[str, Any]:
    """Count, for each arm, how many answers state the new and the old fact, before and after the update.

    ``questions`` of the result say it one by one, ``line`` in a sentence.
    """
    rows = {(r["when"], r["arm"], r["id"]): r["answer"] for r in read_lines(run / TRIAL / name)}
    table = []
    for arm in arms:
        counts: dict[str, Any] = {"arm": arm, "n": len(questions)}
        for when in ("before", "after"):
            said = [(q, rows.get((when, arm, q.id), "")) for q in questions]
            counts[f"new_{when}"] = sum(states(answer, q.new, q.old) for q, answer in said)
            counts[f"old_{when}"] = sum(states(answer, q.old, q.new) for q, answer in said)
        table.append(counts)
    return {
        "text": f"{len(questions)} questions whose answers the update changed; the old answers were in the "
        "documents, and in the training examples where the question is about a taught fact.",
        "arms": table,
        "questions": [_one(q, arms, rows) for q in questions],
        "line": _line(table, len(questions)),
    }


def keep(run: Path, table: dict[str, Any]) -> None:
    """Keep the result with the run, for every later report."""
    write_json(run / TRIAL / KEPT, table)


def kept(run: Path) -> dict[str, Any] | None:
    """Return the result that a run keeps, None for one without."""
    path = run / TRIAL / KEPT
    return dict(json.loads(path.read_text("utf-8"))) if path.is_file() else None


def _one(q: StaleQuestion, arms: Sequence[str], rows: Mapping[tuple[str, str, str], str]) -> dict[str, Any]:
    """Return one question with what each arm states before and after: the new fact, the old, or neither."""

    def stated(when: str, arm: str) -> str:
        answer = rows.get((when, arm, q.id), "")
        return "new" if states(answer, q.new, q.old) else "old" if states(answer, q.old, q.new) else "neither"

    said = {arm: {when: stated(when, arm) for when in ("before", "after")} for arm in arms}
    return {
        "id": q.id,
        "question": q.question,
        "new": q.new[0],
        "old": q.old[0],
        "taught": q.taught,
        "arms": said,
    }


def _line(table: Sequence[Mapping[str, Any]], count: int) -> str:
    """Return what the update did to every arm in one sentence, the most up-to-date arm first."""
    ranked = sorted(table, key=lambda row: (row["old_after"] - row["new_after"], row["arm"]))
    said = ", ".join(f"{row['arm']} {row['new_after']} ({row['old_after']})" for row in ranked)
    return (
        f"After the update, of {count} changed facts the new one is stated (the old one still is) by: {said}"
    )


def states(answer: str, facts: Sequence[str], others: Sequence[str]) -> bool:
    """Whether an answer states one of these facts and not one of the others."""
    return any(_says(answer, f) for f in facts) and not any(_says(answer, o) for o in others)


def _says(answer: str, fact: str) -> bool:
    if fact.strip(". ").lower() in ("yes", "no"):
        return (polarity(answer) == "no") == (fact.strip(". ").lower() == "no")
    if wanted := numbers(fact):
        return wanted <= numbers(answer)
    words = set(content_words(fact))
    return bool(words) and words <= set(content_words(answer))


def _row(answer: Answer, arm: str) -> dict[str, Any]:
    return {
        "arm": arm, "question": answer.question.question, "answer": answer.text, "marked": answer.marked,
        "refused": answer.refused, "citations": [c.to_json() for c in answer.citations],
    }  # fmt: skip
