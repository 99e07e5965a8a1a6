"""What happens to each arm when the documents change: the same questions before and after an update.

Retrieval follows the documents at once; weights repeat what they were trained on. The questions are kept out
of the verdict. :func:`try_update` does the whole test for a finished run and an update of its user; the
user's documents and the run's index are copied, the copies are changed and then deleted. :func:`ask_stale`
and :func:`staleness` are its parts.
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

from rag.backends.base import shown_url
from rag.backends.consent import stored_url
from rag.errors import BadInput
from rag.files import MANIFEST, append_line, sha256_file, sha256_text, write_json
from rag.quantities.reading import has_amounts, read_quantities
from rag.text.numbers import polarity
from rag.text.words import content_words, count_noun
from rag.types import OnEvent
from runners.arms.answer import Answer
from runners.data.tabular import read_rows
from runners.made_from import content_digest, data_files
from runners.plan.schema import Plan
from runners.run_folder import INDEX, TRIAL, TUNED_INDEX, RunFolder, read_journal, read_run_plan
from runners.runs.arm import shows_file
from runners.runs.opened import Opening, OpenRun
from runners.runs.retrieval import RunRetrieval, refused_arms

JOURNAL = "stale.jsonl"
STALENESS_FILE = "staleness.json"
UPDATED_DOCUMENTS = "documents-updated"
UPDATE_DOCUMENTS = "documents"
QUESTIONS = "stale.jsonl"
CURRENT_FILE = "CURRENT"


@dataclass(frozen=True, slots=True)
class StaleQuestion:
    """A question whose answer the update changes."""

    id: str
    question: str
    new: tuple[str, ...]
    old: tuple[str, ...]
    taught: bool
    """Whether a training example contains the old answer."""


def try_update(run: RunFolder, update: Path, on_event: OnEvent | None = None) -> dict[str, Any]:
    """Ask every question before and after the update; write the table into the run and return it.

    What an earlier test of the same update asked is not asked again. The run is left without a manifest; the
    report that is written next adds it.

    Raises:
        BadInput: as in :func:`check_update`.
    """
    plan = read_run_plan(run.path)
    session = OpenRun(run, plan, opening=Opening(on_event=on_event)).obtain()
    refused = refused_arms(run.path, plan)
    questions = check_update(plan, update)
    arms = [arm for arm in arms_with_knowledge(plan) if arm not in refused]
    weights_only = [arm for arm in arms if not session.arm(arm).retrieval]
    retrieving = [arm for arm in arms if arm not in weights_only]
    journal = f"stale-{_digest(run, plan, update)[:12]}.jsonl"
    run.unseal()
    ask_stale(session, questions, arms, "before", journal)
    _copy_answers(run.path / TRIAL / journal, weights_only)
    assert plan.data.documents is not None
    with _with_updated_index(session, plan.data.documents, update / UPDATE_DOCUMENTS) as updated:
        ask_stale(updated, questions, retrieving, "after", journal)
    table = staleness(run.path, questions, arms, journal)
    keep_staleness(run.path, table)
    return table


def check_update(plan: Plan, update: Path) -> tuple[StaleQuestion, ...]:
    """Return the update's questions.

    An update is a folder with `documents`, the changed files under the same names as in the documents, and
    `stale.jsonl`: rows of ``id``, ``question``, ``answers`` (the new fact) and ``old_answers``.

    Raises:
        BadInput: the plan or the update lacks what the test needs.
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
        raise BadInput("this plan retrieves nothing, so no update can reach it", "remove --stale-test")
    if documents.is_file() and not (update / UPDATE_DOCUMENTS / documents.name).is_file():
        raise BadInput(
            f"the documents are one file, {documents.name}, and {update / UPDATE_DOCUMENTS} has none of that name",
            "put the whole changed file there",
        )
    return load_stale(update / QUESTIONS)


def load_stale(path: Path) -> tuple[StaleQuestion, ...]:
    """Read the questions of an update; BadInput with file and line when a row is broken or lacks a key."""
    questions = []
    for number, row in read_rows(path):
        missing = [key for key in ("id", "question", "answers", "old_answers") if not row.get(key)]
        if missing:
            raise BadInput(f"{path}:{number}: a question of an update needs {', '.join(missing)}")
        questions.append(
            StaleQuestion(
                row["id"],
                row["question"],
                tuple(row["answers"]),
                tuple(row["old_answers"]),
                bool(row.get("taught")),
            )
        )
    return tuple(questions)


def arms_with_knowledge(plan: Plan) -> list[str]:
    """Return the arms that know the documents, by retrieval or by weights."""
    return [arm.arm for arm in plan.arms if arm.retrieval or arm.weights]


def updated_documents(run: Path, documents: Path, update: Path) -> Path:
    """Copy the documents into the run folder and overwrite the changed files; return the path of the copy.

    When the documents are a single file, the copy is the file of the same name in the update.
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


def ask_stale(
    session: OpenRun,
    questions: Sequence[StaleQuestion],
    arms: Sequence[str],
    when: str,
    name: str = JOURNAL,
) -> None:
    """Answer the questions with each arm and write the answers; what the journal holds is not asked again."""
    journal = session.folder.path / TRIAL / name
    answered = {(row["when"], row["arm"], row["id"]) for row in read_journal(journal)}
    for arm in arms:
        unanswered = [q for q in questions if (when, arm, q.id) not in answered]
        if not unanswered:
            continue
        answers: list[Answer] = session.ask([q.question for q in unanswered], session.arm(arm))
        for question, answer in zip(unanswered, answers, strict=True):
            append_line(journal, {"when": when, "id": question.id, **_answer_row(answer, arm)})


def staleness(
    run: Path, questions: Sequence[StaleQuestion], arms: Sequence[str], name: str = JOURNAL
) -> dict[str, Any]:
    """Count, for each arm, how many answers state the new and the old fact, before and after the update.

    Returns:
        ``arms`` holds the counts, ``questions`` what each arm stated question by question, ``line`` a summary
        sentence.
    """
    rows = {(r["when"], r["arm"], r["id"]): r["answer"] for r in read_journal(run / TRIAL / name)}
    table = []
    for arm in arms:
        counts: dict[str, Any] = {"arm": arm, "n": len(questions)}
        for when in ("before", "after"):
            answers = [(q, rows.get((when, arm, q.id), "")) for q in questions]
            counts[f"new_{when}"] = sum(states_fact(answer, q.new, q.old) for q, answer in answers)
            counts[f"old_{when}"] = sum(states_fact(answer, q.old, q.new) for q, answer in answers)
        table.append(counts)
    return {
        "text": f"{count_noun(len(questions), 'question')} whose answers the update changed; the old answers were in the "
        "documents, and in the training examples where the question is about a taught fact.",
        "arms": table,
        "questions": [_question_row(q, arms, rows) for q in questions],
        "line": _summary_line(table, len(questions)),
    }


def states_fact(answer: str, facts: Sequence[str], others: Sequence[str]) -> bool:
    """Return whether an answer states one of these facts and none of the others."""
    return any(_states(answer, fact) for fact in facts) and not any(
        _states(answer, other) for other in others
    )


def keep_staleness(run: Path, table: dict[str, Any]) -> None:
    """Write the result into the run, for every later report."""
    write_json(run / TRIAL / STALENESS_FILE, table)


def read_staleness(run: Path) -> dict[str, Any] | None:
    """Return the result that a run holds; None for one without."""
    path = run / TRIAL / STALENESS_FILE
    return dict(json.loads(path.read_text("utf-8"))) if path.is_file() else None


def _question_row(
    question: StaleQuestion, arms: Sequence[str], rows: Mapping[tuple[str, str, str], str]
) -> dict[str, Any]:
    """Return one question with what each arm states before and after: the new fact, the old one, or neither."""

    def stated(when: str, arm: str) -> str:
        answer = rows.get((when, arm, question.id), "")
        return (
            "new"
            if states_fact(answer, question.new, question.old)
            else "old"
            if states_fact(answer, question.old, question.new)
            else "neither"
        )

    by_arm = {arm: {when: stated(when, arm) for when in ("before", "after")} for arm in arms}
    return {
        "id": question.id,
        "question": question.question,
        "new": question.new[0],
        "old": question.old[0],
        "taught": question.taught,
        "arms": by_arm,
    }


def _summary_line(table: Sequence[Mapping[str, Any]], count: int) -> str:
    """Return the effect of the update on every arm in one sentence, the most up-to-date arm first."""
    ranked = sorted(table, key=lambda row: (row["old_after"] - row["new_after"], row["arm"]))
    parts = ", ".join(f"{row['arm']} {row['new_after']} ({row['old_after']})" for row in ranked)
    return (
        f"After the update, of {count} changed facts the new one is stated (the old one still is) by: {parts}"
    )


def _states(answer: str, fact: str) -> bool:
    """Return whether an answer states a fact: its yes or no, else all of its numbers, else all of its content words."""
    if fact.strip(". ").lower() in ("yes", "no"):
        return (polarity(answer) == "no") == (fact.strip(". ").lower() == "no")
    if read_quantities(fact):
        return has_amounts(fact, answer)
    words = set(content_words(fact))
    return bool(words) and words <= set(content_words(answer))


def _answer_row(answer: Answer, arm: str) -> dict[str, Any]:
    return {
        "arm": arm,
        "question": answer.question.question,
        "answer": answer.text,
        "marked": answer.marked,
        "refused": answer.refused,
        "citations": [c.to_json() for c in answer.citations],
    }


@contextmanager
def _with_updated_index(session: OpenRun, documents: Path, update: Path) -> Iterator[OpenRun]:
    """Yield the run as it answers from an updated copy of its indexes."""
    from rag.index import Index

    with tempfile.TemporaryDirectory() as folder:
        temporary, run = Path(folder), session.folder.path
        documents_after = updated_documents(temporary, documents, update)
        searched = RunRetrieval(session.models, temporary, documents=documents_after)
        if (run / TUNED_INDEX).is_dir():
            shutil.copytree(run / TUNED_INDEX, temporary / TUNED_INDEX)
        if stored_url(run / INDEX) is None:
            shutil.copytree(run / INDEX, temporary / INDEX)
            searched.update(documents_after)
        else:  # an index in a database is not touched: the changed documents are indexed here
            settings = session.retrieval.index.settings
            Index.build(temporary / INDEX, documents_after, session.models.embedder, settings)
            searched.update_tuned(documents_after)
        yield session.replace(retrieval=searched)


def _copy_answers(journal: Path, arms: list[str]) -> None:
    """Copy the answers "before" as "after" for arms without retrieval.

    Nothing that they read has changed, and decoding is greedy.
    """
    rows = read_journal(journal)
    answered = {(row["arm"], row["id"]) for row in rows if row["when"] == "after"}
    for row in rows:
        if row["when"] == "before" and row["arm"] in arms and (row["arm"], row["id"]) not in answered:
            append_line(journal, {**row, "when": "after", "repeated": True})


def _digest(run: RunFolder, plan: Plan, update: Path) -> str:
    """Return what identifies this test: the digests of the update, the documents, and the run's index, weights, examples."""
    from rag.index import newest_generation

    digests = [content_digest(path) for path in (update, plan.data.documents)]
    if any(shows_file(plan, arm) for arm in plan.arms):
        digests += data_files(plan, ("examples",)).values()
    digests += [sha256_file(p) for p in sorted(run.path.glob(f"adapters/*/{MANIFEST}"))]
    current = run.path / INDEX / CURRENT_FILE
    generation = current.read_text("utf-8") if current.is_file() else ""
    if url := stored_url(run.path / INDEX):
        generation = f"{shown_url(url)} {newest_generation(run.path / INDEX)}"
    return sha256_text("\n".join([generation, *digests]))
