"""All documents in every prompt, in place of passages that a search found: the long-context arm.

The passages stand in one order before the question, so that their keys and values are computed once for all questions
(:mod:`runners.prefix`), and an answer cites them as it cites what was found. Nothing is searched, so nothing is
refused before the model is asked. An arm whose prompt does not fit the model is refused before anything runs.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag import context, fence
from rag.durable import sha256_text, write_text
from rag.errors import BadInput
from rag.query import Query
from rag.signals import Signals
from rag.threshold import Decision
from rag.types import Chunk, Hit, OnEvent
from runners import prompting
from runners.answer import Answer
from runners.chat import Chat
from runners.data import Question
from runners.guard import breaker, guarded
from runners.models import Model, Remote
from runners.plan import EvaluateStep, Plan
from runners.retrieval import Found, index_settings
from runners.token_estimate import CHARS_PER_TOKEN

if TYPE_CHECKING:
    from rag.encoder import Encoder
    from rag.index import Index

PASSAGES = "passages"
_NEVER = Decision(False, 0.0, Signals())


class Whole:
    """An index whose every valid passage is given to every question, by document and place."""

    def __init__(self, index: Index, controls: Sequence[str] = ()) -> None:
        """Take an open index; `controls` are the tokens that mean turns to the answering model."""
        selected = index.documents.select(Query(), date.today())
        chunks = [c for n, c in enumerate(index.chunks) if selected.rows is None or selected.rows[n]]
        self.hits = _hits(chunks, {c.doc: index.documents.metadata(c.doc) for c in chunks})
        self._notes = selected.notes
        self._searched = {
            "documents": len({c.doc for c in chunks}), "passages": len(chunks), "generation": index.generation
        }  # fmt: skip
        self._broken = breaker(controls)
        self._same = self._broken(fenced(self.hits))

    def find(self, questions: Sequence[str]) -> list[Found]:
        """Return the same for all questions; only one that holds the passages' mark gets another mark."""
        return [
            Found(self.hits, self._shown(question), _NEVER, self._notes, self._searched)
            for question in questions
        ]

    def _shown(self, question: str) -> str:
        taken = self.hits and fence.holds(question, _mark(self._same))
        return self._broken(fenced(self.hits, question)) if taken else self._same


def fenced(hits: Sequence[Hit], question: str = "") -> str:
    """Return all passages, fenced as those of a search are; the mark is drawn from them, and from a question given."""
    return context.passages(hits, sys.maxsize, len, question)


def check(
    plan: Plan,
    bases: Mapping[str, Model | Remote],
    embedder: Model | None,
    questions: Sequence[Question],
    on_event: OnEvent | None = None,
) -> None:
    """Refuse a plan with an arm whose whole prompt its model cannot read; the documents are cut for it first."""
    if embedder is not None and any(arm.passages == "all" for arm in plan.arms):
        from rag.embed import Embedder

        refuse_misfits(plan, bases, cut(plan, Embedder(embedder.folder)), questions, on_event)


def refuse_misfits(
    plan: Plan,
    bases: Mapping[str, Model | Remote],
    hits: Sequence[Hit],
    questions: Sequence[Question],
    on_event: OnEvent | None = None,
) -> None:
    """Raise BadInput, with the numbers, when an arm's whole prompt is more than its model reads.

    It is counted with the longest question, in the model's own tokens. What an endpoint reads is not known here: that
    is told, with an estimate of the prompt.
    """
    arms = [step for step in plan.arms if step.passages == "all"]
    longest = max(questions, key=lambda q: len(q.question), default=Question("", ""))
    for arm in arms:
        named = arm.model or plan.model
        base = bases[named.name]
        if isinstance(base, Model):
            _fits(plan, arm, base, hits, longest)
        elif on_event:
            size = len(fenced(hits)) // CHARS_PER_TOKEN
            reason = (
                f"{arm.arm} sends all documents with every question, about {size:,} tokens (estimated); how much "
                f"{base.name} reads is not known here"
            )
            on_event({"event": "remote.note", "reason": reason})


def set_apart(answer: Answer, row: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return a journal's row with its passages in a file of their own, written once for all rows that share them.

    In the row's prompt they are then named, as "{passages/HASH.txt}", a file below the trial's folder.
    """
    text = answer.found.passages if answer.found else ""
    if not text or not row["prompt"]:
        return row
    name = f"{PASSAGES}/{sha256_text(text)[:16]}.txt"
    if not (folder / name).exists():
        (folder / PASSAGES).mkdir(parents=True, exist_ok=True)
        write_text(folder / name, text)
    *before, last = row["prompt"]
    told = {**last, "content": last["content"].replace(text, f"{{{name}}}")}
    return {**row, "prompt": [*before, told]}


def _fits(plan: Plan, arm: EvaluateStep, base: Model, hits: Sequence[Hit], longest: Question) -> None:
    config = json.loads((base.folder / "config.json").read_text("utf-8"))
    room = (config.get("text_config") or config).get("max_position_embeddings")
    chat = Chat(base.folder)
    asked = prompting.ask(
        plan.prompts, longest.question, fenced(hits), system=longest.system, history=longest.history
    )
    size = chat.count(chat.render(guarded(asked, breaker(chat.control_tokens)), prompt=True))
    if room and size + plan.max_new_tokens > room:
        raise BadInput(
            f"the arm {arm.arm} puts all documents into the prompt: {size:,} tokens with the longest question, and "
            f"{plan.max_new_tokens:,} for the answer; {base.name} reads {room:,}",
            f"take {arm.arm} out of the plan, search instead (passages: found), or name a model that reads more",
        )


def cut(plan: Plan, encoder: Encoder) -> tuple[Hit, ...]:
    """Return all documents of a plan as the passages that its index step will make of them."""
    from rag.chunk import Chunker
    from rag.load.walk import load_documents

    assert plan.data.documents is not None
    assert plan.index is not None
    documents = load_documents(plan.data.documents).documents
    chunker = Chunker(encoder, index_settings(plan.index))
    chunks = [chunk for document in documents for chunk in chunker.chunks(document)]
    return _hits(chunks, {document.id: document.metadata for document in documents})


def _hits(chunks: Sequence[Chunk], metadata: Mapping[str, Mapping[str, Any]]) -> tuple[Hit, ...]:
    """Return the chunks as hits, in an order that no update of another document changes."""
    ordered = sorted(chunks, key=lambda c: (c.doc, c.ordinal))
    return tuple(Hit(chunk, 0.0, 0.0, 0.0, metadata=metadata[chunk.doc]) for chunk in ordered)


def _mark(passages: str) -> str:
    """Return the mark that the passages are fenced with: the second line's first word."""
    return passages.splitlines()[1].split()[0]
