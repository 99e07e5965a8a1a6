"""What happens to each arm when the documents change: the same questions before and after an update.

Retrieval follows the documents at once; weights repeat what they were taught. The questions are kept out of
the verdict. :mod:`runners.trial.staleness` does all of it for a finished run and an update of its user's own.

A finished run asked what an update of its documents changes: in answers from the index, and in weights.

The user's documents and the run's index stay as they are: both are copied, changed and thrown away.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rag.errors import BadInput
from rag.files import MANIFEST, append_line, sha256_file, sha256_text, write_json
from rag.text.numbers import extract_numbers, polarity
from rag.text.words import content_words
from rag.types import OnEvent
from runners.arms.answer import Answer
from runners.data.tabular import read_rows
from runners.plan.schema import Plan
from runners.run_folder import INDEX, TRIAL, RunFolder, read_journal
from runners.runs.run import RunSession, open_session
from runners.runs.session import RunContext

JOURNAL, KEPT = "stale.jsonl", "staleness.json"
UPDATED_DOCUMENTS = "documents-updated"


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
    target = run / UPDATED_DOCUMENTS
    if target.exists():
        shutil.rmtree(target)
    if documents.is_file():
        target.mkdir(parents=True)
        shutil.copy(update / documents.name, target)
        return target / documents.name
    shutil.copytree(documents, target)
    shutil.copytree(update, target, dirs_exist_ok=True)
    return target


def update_index(context: RunContext, documents: Path) -> dict[str, Any]:
    """Bring the run's index to the changed documents; later searches see them."""
    from rag.index import Index

    report = Index.update(context.run.path / INDEX, documents, context.embedder, context.emit)
    for part in ("index", "retriever"):
        context.__dict__.pop(part, None)
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
    have = {(row["when"], row["arm"], row["id"]) for row in read_journal(journal)}
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
    rows = {(r["when"], r["arm"], r["id"]): r["answer"] for r in read_journal(run / TRIAL / name)}
    table = []
    for arm in arms:
        counts: dict[str, Any] = {"arm": arm, "n": len(questions)}
        for when in ("before", "after"):
            said = [(q, rows.get((when, arm, q.id), "")) for q in questions]
            counts[f"new_{when}"] = sum(states_fact(answer, q.new, q.old) for q, answer in said)
            counts[f"old_{when}"] = sum(states_fact(answer, q.old, q.new) for q, answer in said)
        table.append(counts)
    return {
        "text": f"{len(questions)} questions whose answers the update changed; the old answers were in the "
        "documents, and in the training examples where the question is about a taught fact.",
        "arms": table,
        "questions": [_one(q, arms, rows) for q in questions],
        "line": _line(table, len(questions)),
    }


def keep_staleness(run: Path, table: dict[str, Any]) -> None:
    """Keep the result with the run, for every later report."""
    write_json(run / TRIAL / KEPT, table)


def read_staleness(run: Path) -> dict[str, Any] | None:
    """Return the result that a run keeps, None for one without."""
    path = run / TRIAL / KEPT
    return dict(json.loads(path.read_text("utf-8"))) if path.is_file() else None


def _one(q: StaleQuestion, arms: Sequence[str], rows: Mapping[tuple[str, str, str], str]) -> dict[str, Any]:
    """Return one question with what each arm states before and after: the new fact, the old, or neither."""

    def stated(when: str, arm: str) -> str:
        answer = rows.get((when, arm, q.id), "")
        return (
            "new"
            if states_fact(answer, q.new, q.old)
            else "old"
            if states_fact(answer, q.old, q.new)
            else "neither"
        )

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


def states_fact(answer: str, facts: Sequence[str], others: Sequence[str]) -> bool:
    """Whether an answer states one of these facts and not one of the others."""
    return any(_says(answer, f) for f in facts) and not any(_says(answer, o) for o in others)


def _says(answer: str, fact: str) -> bool:
    if fact.strip(". ").lower() in ("yes", "no"):
        return (polarity(answer) == "no") == (fact.strip(". ").lower() == "no")
    if wanted := extract_numbers(fact):
        return wanted <= extract_numbers(answer)
    words = set(content_words(fact))
    return bool(words) and words <= set(content_words(answer))


def _row(answer: Answer, arm: str) -> dict[str, Any]:
    return {
        "arm": arm,
        "question": answer.question.question,
        "answer": answer.text,
        "marked": answer.marked,
        "refused": answer.refused,
        "citations": [c.to_json() for c in answer.citations],
    }


UPDATE_DOCUMENTS, QUESTIONS = "documents", "stale.jsonl"
CURRENT_FILE = "CURRENT"


def check_update(plan: Plan, update: Path) -> tuple[StaleQuestion, ...]:
    """Return the update's questions; BadInput when plan or update lack what the test needs.

    An update is a folder with `documents`, the changed files under the names they have in the documents, and
    `stale.jsonl`: rows of ``id``, ``question``, ``answers`` (the new fact) and ``old_answers``.
    """
    if not update.is_dir():
        raise BadInput(
            f"the update {update} is not a folder",
            f"it needs {UPDATE_DOCUMENTS}/ with the changed files and {QUESTIONS}",
        )
    if not (update / UPDATE_DOCUMENTS).is_dir() or not (update / QUESTIONS).is_file():
        raise BadInput(
            f"the update {update} lacks {UPDATE_DOCUMENTS}/ or {QUESTIONS}",
            "put the changed files into the one; rows of id, question, answers and old_answers into the other",
        )
    documents = plan.data.documents
    if documents is None or plan.index is None or not arms_with_knowledge(plan):
        raise BadInput("this plan retrieves nothing, so no update can reach it", "leave --stale-test out")
    if documents.is_file() and not (update / UPDATE_DOCUMENTS / documents.name).is_file():
        raise BadInput(
            f"the documents are one file, {documents.name}, and {update / UPDATE_DOCUMENTS} has none of that name",
            "put the whole changed file there",
        )
    return load_stale(update / QUESTIONS)


def arms_with_knowledge(plan: Plan) -> list[str]:
    """Return the arms that know anything of the documents: by retrieval or by weights."""
    return [arm.arm for arm in plan.arms if arm.retrieval or arm.weights]


def try_update(run: RunFolder, update: Path, on_event: OnEvent | None = None) -> dict[str, Any]:
    """Ask every question before and after the update, keep the table with the run and return it.

    What an earlier test of the same update asked is not asked again. BadInput as :func:`check`. The run is left
    unsealed: the report that is written next seals it.
    """
    session = open_session(run.path, on_event)
    plan = session.plan
    questions, asked = check_update(plan, update), arms_with_knowledge(plan)
    frozen = [arm for arm in asked if not session.arm(arm).retrieval]
    moving = [arm for arm in asked if arm not in frozen]
    journal = f"stale-{_digest(run, update)[:12]}.jsonl"
    run.unseal()
    ask_stale(session, questions, asked, "before", journal)
    _repeat(run.path / TRIAL / journal, frozen)
    assert plan.data.documents is not None
    with _updated(session.context, plan.data.documents, update / UPDATE_DOCUMENTS):
        ask_stale(session, questions, moving, "after", journal)
    table = staleness(run.path, questions, asked, journal)
    keep_staleness(run.path, table)
    return table


@contextmanager
def _updated(context: RunContext, documents: Path, update: Path) -> Iterator[None]:
    """Let the context search an updated copy of its index within the block."""
    from rag.index import Index

    parts = ("index", "retriever")
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        shutil.copytree(context.run.path / INDEX, scratch / INDEX)
        changed = updated_documents(scratch, documents, update)
        Index.update(scratch / INDEX, changed, context.embedder)
        for part in parts:
            context.__dict__.pop(part, None)
        context.__dict__["index"] = Index.open(scratch / INDEX, context.embedder)
        try:
            yield
        finally:
            for part in parts:
                context.__dict__.pop(part, None)


def _repeat(journal: Path, frozen: list[str]) -> None:
    """Answer "after" as "before" for arms that read nothing of what changed: decoding is greedy."""
    rows = read_journal(journal)
    have = {(row["arm"], row["id"]) for row in rows if row["when"] == "after"}
    for row in rows:
        if row["when"] == "before" and row["arm"] in frozen and (row["arm"], row["id"]) not in have:
            append_line(journal, {**row, "when": "after", "repeated": True})


def _digest(run: RunFolder, update: Path) -> str:
    """Return what tells this test from others: the update's files, the index and the weights that are there now."""
    files = sorted(p for p in update.rglob("*") if p.is_file())
    told = [f"{p.relative_to(update).as_posix()}\0{sha256_file(p)}" for p in files]
    told += [sha256_file(p) for p in sorted(run.path.glob(f"adapters/*/{MANIFEST}"))]
    current = run.path / INDEX / CURRENT_FILE
    return sha256_text("\n".join([current.read_text("utf-8") if current.is_file() else "", *told]))
