"""A finished run asked what an update of its documents changes: in answers from the index, and in weights.

The user's documents and the run's index stay as they are: both are copied, changed and thrown away.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rag.durable import MANIFEST, append_line, sha256_file, sha256_text
from rag.errors import BadInput
from rag.types import OnEvent
from runners.bench import RunContext
from runners.opened import open_session
from runners.plan import Plan
from runners.rundir import INDEX, TRIAL, RunFolder, read_lines
from runners.staleness import (
    StaleQuestion,
    ask_stale,
    keep,
    load_stale,
    staleness,
    updated_documents,
)

DOCUMENTS, QUESTIONS = "documents", "stale.jsonl"
CURRENT = "CURRENT"


def check(plan: Plan, update: Path) -> tuple[StaleQuestion, ...]:
    """Return the update's questions; BadInput when plan or update lack what the test needs.

    An update is a folder with `documents`, the changed files under the names they have in the documents, and
    `stale.jsonl`: rows of ``id``, ``question``, ``answers`` (the new fact) and ``old_answers``.
    """
    if not update.is_dir():
        raise BadInput(
            f"the update {update} is not a folder",
            f"it needs {DOCUMENTS}/ with the changed files and {QUESTIONS}",
        )
    if not (update / DOCUMENTS).is_dir() or not (update / QUESTIONS).is_file():
        raise BadInput(
            f"the update {update} lacks {DOCUMENTS}/ or {QUESTIONS}",
            "put the changed files into the one; rows of id, question, answers and old_answers into the other",
        )
    documents = plan.data.documents
    if documents is None or plan.index is None or not arms(plan):
        raise BadInput("this plan retrieves nothing, so no update can reach it", "leave --stale-test out")
    if documents.is_file() and not (update / DOCUMENTS / documents.name).is_file():
        raise BadInput(
            f"the documents are one file, {documents.name}, and {update / DOCUMENTS} has none of that name",
            "put the whole changed file there",
        )
    return load_stale(update / QUESTIONS)


def arms(plan: Plan) -> list[str]:
    """Return the arms that know anything of the documents: by retrieval or by weights."""
    return [arm.arm for arm in plan.arms if arm.retrieval or arm.weights]


def try_update(run: RunFolder, update: Path, on_event: OnEvent | None = None) -> dict[str, Any]:
    """Ask every question before and after the update, keep the table with the run and return it.

    What an earlier test of the same update asked is not asked again. BadInput as :func:`check`. The run is left
    unsealed: the report that is written next seals it.
    """
    session = open_session(run.path, on_event)
    plan = session.plan
    questions, asked = check(plan, update), arms(plan)
    frozen = [arm for arm in asked if not session.arm(arm).retrieval]
    moving = [arm for arm in asked if arm not in frozen]
    journal = f"stale-{_digest(run, update)[:12]}.jsonl"
    run.unseal()
    ask_stale(session, questions, asked, "before", journal)
    _repeat(run.path / TRIAL / journal, frozen)
    assert plan.data.documents is not None
    with _updated(session.context, plan.data.documents, update / DOCUMENTS):
        ask_stale(session, questions, moving, "after", journal)
    table = staleness(run.path, questions, asked, journal)
    keep(run.path, table)
    return table


@contextmanager
def _updated(bench: RunContext, documents: Path, update: Path) -> Iterator[None]:
    """Let the bench search an updated copy of its index within the block."""
    from rag.index import Index

    parts = ("index", "retriever")
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        shutil.copytree(bench.run.path / INDEX, scratch / INDEX)
        changed = updated_documents(scratch, documents, update)
        Index.update(scratch / INDEX, changed, bench.embedder)
        for part in parts:
            bench.__dict__.pop(part, None)
        bench.__dict__["index"] = Index.open(scratch / INDEX, bench.embedder)
        try:
            yield
        finally:
            for part in parts:
                bench.__dict__.pop(part, None)


def _repeat(journal: Path, frozen: list[str]) -> None:
    """Answer "after" as "before" for arms that read nothing of what changed: decoding is greedy."""
    rows = read_lines(journal)
    have = {(row["arm"], row["id"]) for row in rows if row["when"] == "after"}
    for row in rows:
        if row["when"] == "before" and row["arm"] in frozen and (row["arm"], row["id"]) not in have:
            append_line(journal, {**row, "when": "after", "repeated": True})


def _digest(run: RunFolder, update: Path) -> str:
    """Return what tells this test from others: the update's files, the index and the weights that are there now."""
    files = sorted(p for p in update.rglob("*") if p.is_file())
    told = [f"{p.relative_to(update).as_posix()}\0{sha256_file(p)}" for p in files]
    told += [sha256_file(p) for p in sorted(run.path.glob(f"adapters/*/{MANIFEST}"))]
    current = run.path / INDEX / CURRENT
    return sha256_text("\n".join([current.read_text("utf-8") if current.is_file() else "", *told]))
