"""Retrieval metrics of one question: the ranks of its documents, and how much of its gold text a prompt shows.

Every function returns a number from 0 to 1 for one question;
:func:`rag.evaluation.statistics.bootstrap_interval` turns the numbers of many questions into a mean with its interval,
and :func:`rag.evaluation.statistics.paired_test` compares two searches on the same questions.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from rag.grounding.context import Passage


def hit_at_k(ranked: Sequence[str], gold: Collection[str], k: int) -> float:
    """Return 1 if one of the first k documents of ``ranked`` is gold, else 0."""
    return float(any(doc in gold for doc in ranked[:k]))


def recall_at_k(ranked: Sequence[str], gold: Collection[str], k: int) -> float:
    """Return the share of gold documents among the first k of ``ranked``; 0 without gold."""
    wanted = set(gold)
    return len(wanted & set(ranked[:k])) / len(wanted) if wanted else 0.0


def mrr(ranked: Sequence[str], gold: Collection[str]) -> float:
    """Return the reciprocal rank, 1 / rank of the first gold document; 0 if there is none in ``ranked``."""
    return next((1 / rank for rank, doc in enumerate(ranked, start=1) if doc in gold), 0.0)


def ndcg_at_k(ranked: Sequence[str], gold: Collection[str], k: int) -> float:
    """Return the normalised discounted cumulative gain of the first k (Järvelin and Kekäläinen 2002); 0 without gold.

    Relevance is binary, so the gain of a gold document is 1 / log2(rank + 1). A document that is listed several times
    counts once, at its first rank.
    """
    wanted = set(gold)
    # the best possible list has all gold documents first
    best = sum(1 / math.log2(rank + 1) for rank in range(1, min(k, len(wanted)) + 1))
    gain = 0.0
    for rank, doc in enumerate(ranked[:k], start=1):
        if doc in wanted:
            gain += 1 / math.log2(rank + 1)
            wanted.remove(doc)
    return gain / best if best else 0.0


@dataclass(frozen=True, slots=True)
class EvidenceShown:
    """How much of a question's gold text the passages of a prompt show, in characters without white space."""

    gold: int
    """Characters of the gold spans."""
    gold_shown: int
    """Characters of the gold spans that are shown."""
    shown: int
    """Characters of all passages together."""

    @property
    def recall(self) -> float:
        """The share of the gold text that is shown; 0 without gold."""
        return self.gold_shown / self.gold if self.gold else 0.0

    @property
    def full(self) -> float:
        """1 if all of the gold text is shown, else 0."""
        return float(0 < self.gold == self.gold_shown)

    @property
    def precision(self) -> float:
        """The share of the shown text that is gold; 0 if nothing is shown."""
        return self.gold_shown / self.shown if self.shown else 0.0

    @property
    def iou(self) -> float:
        """Intersection over union of the shown text and the gold text."""
        union = self.gold + self.shown - self.gold_shown
        return self.gold_shown / union if union else 0.0


def measure_evidence(
    passages: Sequence[Passage], doc: str, raw: str, spans: Sequence[tuple[int, int]]
) -> EvidenceShown:
    """Compare the passages of a prompt with the gold spans of one document.

    White space does not count: chunks are cut at it, so a span that runs over a blank line would never be shown
    completely.

    Args:
        passages: what the prompt shows.
        doc: id of the gold document.
        raw: its source text.
        spans: (start, end) character offsets of the gold text in ``raw``; overlapping spans count once.
    """
    gold = {
        offset
        for start, end in spans
        for offset in range(start, min(end, len(raw)))
        if not raw[offset].isspace()
    }
    gold_shown: set[int] = set()
    for passage in passages:
        if passage.hit.chunk.doc == doc:
            start, end = _shown_span(passage)
            gold_shown.update(offset for offset in gold if start <= offset < end)
    return EvidenceShown(
        len(gold), len(gold_shown), sum(len("".join(passage.text.split())) for passage in passages)
    )


def _shown_span(passage: Passage) -> tuple[int, int]:
    """Return the (start, end) of the source that a passage, together with those before it, shows.

    Text that a passage leaves out because an earlier one shows it belongs to the span, since the union over all passages
    is counted. Text that was cut off at the end to fit the budget does not.
    """
    chunk, text = passage.hit.chunk, passage.text
    if not chunk.text.startswith(text):
        # the beginning was left out as repeated, or the text was cleaned for display: take the chunk's whole span
        return chunk.start, chunk.end
    # the shown share of the chunk's text, in source characters: exact where the text is a slice of the source
    return chunk.start, chunk.start + (chunk.end - chunk.start) * len(text) // max(1, len(chunk.text))
