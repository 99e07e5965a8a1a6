"""Retrieval metrics of one question: where its documents stand in a list, how much of its evidence is shown.

Every function returns a number from 0 to 1 for one question; ``stats.interval`` turns the numbers of many
questions into a mean with its interval, and ``stats.paired`` compares two searches on the same questions.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from rag.grounding.context import Passage


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


def ndcg_at_k(found: Sequence[str], gold: Collection[str], k: int) -> float:
    """Return the discounted gain of the first k found over the best possible one (Järvelin and Kekäläinen 2002).

    Every gold document is worth the same, and only where it stands first; 0 without gold.
    """
    wanted = set(gold)
    best = sum(1 / math.log2(rank + 1) for rank in range(1, min(k, len(wanted)) + 1))
    gain = 0.0
    for rank, doc in enumerate(found[:k], start=1):
        if doc in wanted:
            gain += 1 / math.log2(rank + 1)
            wanted.remove(doc)
    return gain / best if best else 0.0


@dataclass(frozen=True, slots=True)
class EvidenceShown:
    """How much of a question's gold text the passages of a prompt show, in characters without white space."""

    gold: int
    """Characters of the gold spans."""
    found: int
    """Those of them that are shown."""
    shown: int
    """Characters of all passages together."""

    @property
    def recall(self) -> float:
        """The share of the gold that is shown; 0 without gold."""
        return self.found / self.gold if self.gold else 0.0

    @property
    def full(self) -> float:
        """1 when all of the gold is shown, else 0."""
        return float(0 < self.gold == self.found)

    @property
    def precision(self) -> float:
        """The share of what is shown that is gold; 0 when nothing is shown."""
        return self.found / self.shown if self.shown else 0.0

    @property
    def iou(self) -> float:
        """Intersection over union of what is shown and what is gold."""
        union = self.gold + self.shown - self.found
        return self.found / union if union else 0.0


def measure_evidence(
    passages: Sequence[Passage], doc: str, raw: str, spans: Sequence[tuple[int, int]]
) -> EvidenceShown:
    """Compare the passages of a prompt with the gold spans of one document, whose source text is ``raw``.

    White space is no evidence: chunks are cut at it, so a span that runs over a blank line would never be
    shown completely.
    """
    gold = {at for start, end in spans for at in range(start, min(end, len(raw))) if not raw[at].isspace()}
    found: set[int] = set()
    for passage in passages:
        if passage.hit.chunk.doc == doc:
            start, end = _place(passage)
            found.update(at for at in gold if start <= at < end)
    return EvidenceShown(len(gold), len(found), sum(len("".join(p.text.split())) for p in passages))


def _place(passage: Passage) -> tuple[int, int]:
    """Return the span of the source that a passage, with those before it, shows.

    What a passage leaves out because an earlier one shows it is counted twice at most; what was cut off its end
    for want of room is not counted.
    """
    chunk, text = passage.hit.chunk, passage.text
    if not chunk.text.startswith(text):
        return chunk.start, chunk.end
    return chunk.start, chunk.start + (chunk.end - chunk.start) * len(text) // max(1, len(chunk.text))
