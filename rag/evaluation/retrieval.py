"""Measure the retrieval of an index on questions with gold: ranks of the gold documents, and how much gold is shown.

:func:`evaluate` searches an index for every question and averages the metrics of :mod:`rag.evaluation.metrics`, each
with its bootstrap interval (:func:`rag.evaluation.statistics.bootstrap_interval`), in which questions about one
document are drawn together.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rag.errors import BadInput
from rag.evaluation import metrics
from rag.evaluation.gold_documents import match_documents
from rag.evaluation.labelled import QuestionRow, label_questions
from rag.evaluation.statistics import Interval, bootstrap_interval
from rag.grounding.context import select_passages
from rag.index import Index
from rag.types import Document


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrievalScores:
    """Retrieval metrics of an index over many questions, each a mean from 0 to 1 with its 95 % interval."""

    k: int
    """Hits searched for each question."""
    questions: int
    """Questions that could be scored."""
    left_out: Mapping[str, int]
    """How many questions could not be scored, by reason."""
    hit: Interval
    """Share of questions with a gold document among the first k documents (hit@k)."""
    mrr: Interval
    """Mean reciprocal rank of the gold document."""
    ndcg: Interval
    """Normalised discounted cumulative gain of the first k documents (nDCG@k)."""
    gold_shown: Interval
    """How much of the gold the hits show: the share of gold spans, else whether an answer occurs in them, else whether
    the gold document is among them."""

    def to_json(self) -> dict[str, Any]:
        """Return the scores as a JSON object."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class _Row:
    """A question given as a mapping."""

    question: str
    answers: tuple[str, ...]
    doc_id: str | None
    spans: tuple[tuple[int, int], ...]
    answerable: bool
    all_of: tuple[str, ...] = ()


def evaluate(
    index: Index, questions: Sequence[QuestionRow | Mapping[str, Any]], k: int = 5
) -> RetrievalScores:
    """Search an index for every question and measure how well the gold is retrieved.

    Args:
        index: opened with an embedder.
        questions: each a mapping with ``question`` and the gold there is, as in a questions file: ``doc_id`` (the gold
            document), ``spans`` (``{"start": 0, "end": 20}`` or pairs of character offsets in it), ``answers`` (short
            answers), ``all_of`` (parts that must all be there) and ``answerable`` (default true); or an object with these
            attributes.
        k: number of hits for each question.

    Returns:
        The metrics over all questions whose gold is in the index. ``hit``, ``mrr`` and ``ndcg`` are taken over those
        with a gold document, and nan if there are none.

    Raises:
        BadInput: if a question is malformed, or the index was opened without an embedder.
    """
    rows = [_row(question) for question in questions]
    labelled = label_questions(rows, gold_source_documents(index, rows))
    hits_of_questions = index.search_many([question.question for question in labelled.questions], k)
    shown: list[float] = []
    ranks: list[tuple[float, float, float]] = []
    for question, hits in zip(labelled.questions, hits_of_questions, strict=True):
        # no token budget: all that the hits show counts
        shown.append(question.score(select_passages(hits, sys.maxsize, len)))
        if question.doc:
            ranked = [hit.chunk.doc for hit in hits]
            gold = (question.doc,)
            ranks.append(
                (
                    metrics.hit_at_k(ranked, gold, k),
                    metrics.mrr(ranked, gold),
                    metrics.ndcg_at_k(ranked, gold, k),
                )
            )
    # "" marks a question without a gold document, which the bootstrap draws as its own unit
    documents = [question.doc for question in labelled.questions]
    ranked_documents = [doc for doc in documents if doc]
    hit, mrr, ndcg = (
        bootstrap_interval([row[column] for row in ranks], documents=ranked_documents) for column in range(3)
    )
    return RetrievalScores(
        k=k,
        questions=len(labelled.questions),
        left_out=labelled.left_out,
        hit=hit,
        mrr=mrr,
        ndcg=ndcg,
        gold_shown=bootstrap_interval(shown, documents=documents),
    )


def gold_source_documents(index: Index, rows: Sequence[QuestionRow]) -> list[Document]:
    """Return the documents of the index's generation, with the source texts that the gold of the questions is read from."""
    ids = index.backend.document_ids()
    names = [row.doc_id for row in rows if row.doc_id]
    # an answer without a gold document is looked for in all of them
    named = set(match_documents(names, ids).ids.values()) if len(names) == len(rows) else set(ids)
    return [Document(id, "", (index.backend.raw(id) or "") if id in named else "", (), "", "") for id in ids]


def _row(question: QuestionRow | Mapping[str, Any]) -> QuestionRow:
    """Return a question as an object; BadInput for a malformed mapping."""
    if not isinstance(question, Mapping):
        return question
    try:
        return _Row(
            str(question["question"]),
            tuple(str(answer) for answer in question.get("answers") or ()),
            question.get("doc_id"),
            tuple(_span(span) for span in question.get("spans") or ()),
            bool(question.get("answerable", True)),
            tuple(str(part) for part in question.get("all_of") or ()),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise BadInput(f"not a question with gold: {error!r}", "each needs the key question") from error


def _span(span: Mapping[str, int] | Sequence[int]) -> tuple[int, int]:
    """Return the (start, end) of a span in either form."""
    start, end = (span["start"], span["end"]) if isinstance(span, Mapping) else span
    return int(start), int(end)
