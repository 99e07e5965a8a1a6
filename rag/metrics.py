"""Retrieval metrics: hit@k, recall@k, reciprocal rank and span recall."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from rag.types import Chunk


def hit_at_k(found: Sequence[str], gold: Collection[str], k: int) -> float:
    """Return 1 when one of the first k found documents is gold, else 0."""
    return float(any(doc in gold for doc in found[:k]))


def recall_at_k(found: Sequence[str], gold: Collection[str], k: int) -> float:
    """Return the share of gold documents among the first k found; 0 without gold."""
    wanted = set(gold)
    return len(wanted & set(found[:k])) / len(wanted) if wanted else 0.0


def mrr(found: Sequence[str], gold: Collection[str]) -> float:
    """Return 1 / rank of the first gold document, 0 when none was found."""
    return next((1 / rank for rank, doc in enumerate(found, start=1) if doc in gold), 0.0)


def span_recall(chunks: Sequence[Chunk], doc: str, spans: Sequence[tuple[int, int]]) -> float:
    """Return the share of the gold characters of a document that the chunks cover; 0 without spans."""
    gold = {at for start, end in spans for at in range(start, end)}
    covered = {at for c in chunks if c.doc == doc for at in gold if c.start <= at < c.end}
    return len(covered) / len(gold) if gold else 0.0
