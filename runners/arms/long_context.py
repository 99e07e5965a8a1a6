"""The long-context arm: all documents are in every prompt, in place of passages that a search returns.

:class:`AllPassages` gives the passages in one fixed order before the question, so that their keys and values
are computed once for all questions (:mod:`runners.inference.kv_cache`); an answer cites them like passages
that were searched for. Nothing is searched, so no question is refused before the model is asked.
:func:`check_long_context` refuses a plan whose prompt does not fit the model before anything runs.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag.errors import BadInput
from rag.files import sha256_text, write_text
from rag.grounding import context
from rag.grounding.refusal import RefusalDecision, RefusalSignals
from rag.search.query import Query
from rag.types import Chunk, Hit, OnEvent
from runners.arms import prompts
from runners.arms.answer import Answer
from runners.arms.retriever import Retrieved, index_settings
from runners.data.questions import Question
from runners.models.encoders import load_embedder
from runners.models.fingerprint import context_length, read_json
from runners.models.resolve import Model, RemoteModel
from runners.plan.schema import Plan
from runners.plan.steps import EvaluateStep
from runners.tokenization.chat_template import ChatTokenizer, control_token_breaker, neutralise_chat
from runners.tokenization.token_estimate import CHARS_PER_TOKEN

if TYPE_CHECKING:
    from rag.embedding.protocol import Encoder
    from rag.index import Index

PASSAGES_FOLDER = "passages"
_NEVER = RefusalDecision(False, 0.0, RefusalSignals())


class AllPassages:
    """All valid passages of an index, given to every question, ordered by document and position."""

    def __init__(self, index: Index, controls: Sequence[str] = ()) -> None:
        """Take an open index; ``controls`` are the answering model's control tokens, which are broken up in passages."""
        backend = index.backend
        selected = backend.select(Query(), date.today())
        chunks = backend.chunks(backend.allowed_ids(selected).tolist())
        self.hits = _hits(chunks, {chunk.doc: backend.metadata(chunk.doc) for chunk in chunks})
        self._notes = selected.notes
        self._searched = {
            "documents": len({chunk.doc for chunk in chunks}),
            "passages": len(chunks),
            "generation": index.generation,
        }
        self._break_controls = control_token_breaker(controls)
        self._shared_text = self._break_controls(delimited_passages(self.hits))

    def find(self, questions: Sequence[str]) -> list[Retrieved]:
        """Return the same passages for all questions; a question that contains their delimiter gets another delimiter."""
        return [
            Retrieved(self.hits, self._shown(question), _NEVER, self._notes, self._searched)
            for question in questions
        ]

    def _shown(self, question: str) -> str:
        collides = self.hits and context.contains_delimiter(question, self._shared_text.split("\n", 2)[1])
        return (
            self._break_controls(delimited_passages(self.hits, question)) if collides else self._shared_text
        )


def delimited_passages(hits: Sequence[Hit], question: str = "") -> str:
    """Return all passages between delimiters.

    The delimiter is derived from the passages, and from the question when one is given.
    """
    return context.format_passages(hits, sys.maxsize, len, question)


def check_long_context(
    plan: Plan,
    bases: Mapping[str, Model | RemoteModel],
    embedder: Model | None,
    questions: Sequence[Question],
    on_event: OnEvent | None = None,
) -> None:
    """Raise BadInput for a plan with an arm whose whole prompt its model cannot read; the documents are chunked first."""
    if embedder is not None and any(arm.passages == "all" for arm in plan.arms):
        from rag.indexing.encoding import configured_encoder

        assert plan.index is not None
        opened = load_embedder(embedder.folder, Path(plan.embedder.name).name)
        encoder = configured_encoder(opened, index_settings(plan.index))
        refuse_too_long_prompts(plan, bases, cut_documents(plan, encoder), questions, on_event)


def refuse_too_long_prompts(
    plan: Plan,
    bases: Mapping[str, Model | RemoteModel],
    hits: Sequence[Hit],
    questions: Sequence[Question],
    on_event: OnEvent | None = None,
) -> None:
    """Raise BadInput, with the numbers, when an arm's whole prompt is longer than its model's context.

    The prompt is counted with the longest question, in the model's own tokens. The context length of an
    endpoint is not known here: an event reports that, with an estimate of the prompt's tokens.
    """
    arms = [step for step in plan.arms if step.passages == "all"]
    longest = max(questions, key=lambda question: len(question.question), default=Question("", ""))
    for arm in arms:
        model = plan.model_of(arm)
        base = bases[model.name]
        if isinstance(base, Model):
            _check_fits(plan, arm, base, hits, longest)
        elif on_event:
            size = len(delimited_passages(hits)) // CHARS_PER_TOKEN
            reason = (
                f"{arm.arm} sends all documents with every question, about {size:,} tokens (estimated); how much "
                f"{base.name} reads is not known here"
            )
            on_event({"event": "remote.note", "reason": reason})


def store_passages_once(answer: Answer, row: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return a journal's row with its passages moved to a file of their own, written once for all rows that share them.

    The row's prompt then names them as "{passages/HASH.txt}", a file below the trial's folder.
    """
    text = answer.found.passages if answer.found else ""
    if not text or not row["prompt"]:
        return row
    name = f"{PASSAGES_FOLDER}/{sha256_text(text)[:16]}.txt"
    if not (folder / name).exists():
        (folder / PASSAGES_FOLDER).mkdir(parents=True, exist_ok=True)
        write_text(folder / name, text)
    *before, last = row["prompt"]
    shortened = {**last, "content": last["content"].replace(text, f"{{{name}}}")}
    return {**row, "prompt": [*before, shortened]}


def _check_fits(plan: Plan, arm: EvaluateStep, base: Model, hits: Sequence[Hit], longest: Question) -> None:
    """Raise BadInput when the prompt with the longest question and the answer exceed the context of the model."""
    readable = context_length(read_json(base.folder / "config.json"))
    chat = ChatTokenizer(base.folder, plan.thinking.enabled)
    messages = prompts.build_messages(
        plan.prompts,
        longest.question,
        delimited_passages(hits),
        system=longest.system,
        history=longest.history,
    )
    size = chat.count(
        chat.render(neutralise_chat(messages, control_token_breaker(chat.control_tokens)), prompt=True)
    )
    answer = plan.max_new_tokens if arm.weights else prompts.most_room(plan, readable)
    if readable and size + answer > readable:
        raise BadInput(
            f"the arm {arm.arm} puts all documents into the prompt: {size:,} tokens with the longest question, and "
            f"{answer:,} for the answer; {base.name} reads {readable:,}",
            f"take {arm.arm} out of the plan, search instead (passages: found), or name a model that reads more",
        )


def cut_documents(plan: Plan, encoder: Encoder) -> tuple[Hit, ...]:
    """Return all documents of a plan as the passages that its index step will make of them."""
    from rag.indexing.chunking import Chunker
    from rag.loading.reader import load_documents

    assert plan.data.documents is not None
    assert plan.index is not None
    documents = load_documents(plan.data.documents).documents
    chunker = Chunker(encoder, index_settings(plan.index))
    chunks = [chunk for document in documents for chunk in chunker.chunks(document)]
    return _hits(chunks, {document.id: document.metadata for document in documents})


def _hits(chunks: Sequence[Chunk], metadata: Mapping[str, Mapping[str, Any]]) -> tuple[Hit, ...]:
    """Return the chunks as hits, in an order that no update of another document changes."""
    ordered = sorted(chunks, key=lambda chunk: (chunk.doc, chunk.ordinal))
    return tuple(Hit(chunk, 0.0, 0.0, 0.0, metadata=metadata[chunk.doc]) for chunk in ordered)
