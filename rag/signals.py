"""What the hits of a question say about whether the documents hold its answer; cheap, and the same for every corpus."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields

import numpy as np

from rag.types import Hit
from rag.words import content_words, words

DEPTH = 50
"""Hits looked at: as many as either search contributes."""
_NEAR = 5
"""Of these, the ones that a prompt might show."""


@dataclass(frozen=True, slots=True)
class Signals:
    """Signals of one question. Chosen by cross-validation on 600 public questions (benchmarks/LOG.md)."""

    dense: float = 0.0
    """The best cosine."""
    lead: float = 0.0
    """The best cosine's lead over the mean of all hits looked at: how much it stands out of this corpus."""
    margin: float = 0.0
    """The best cosine's lead over the mean of the next four."""
    coverage: float = 0.0
    """The largest share of the question's content words that one of the first five hits holds, title included."""
    body: float = 0.0
    """The share of them in the first hit's own text."""
    subject: float = 0.0
    """The share of them in the first hit's title."""
    named: float = 0.0
    """The share of the first title's content words that the question holds."""
    length: float = 0.0
    """How many content words the question has: long ones ask for more than one thing."""

    def vector(self) -> np.ndarray:
        """Return the signals in the order of the fields."""
        return np.array(astuple(self), dtype=np.float64)


NAMES = tuple(field.name for field in fields(Signals))


def signals(question: str, hits: Sequence[Hit]) -> Signals:
    """Return the signals of a question's hits, best first; all 0 without hits."""
    if not hits:
        return Signals()
    cosines = sorted((hit.dense for hit in hits[:DEPTH]), reverse=True)
    asked = frozenset(content_words(question)) or frozenset(words(question))
    title = frozenset(content_words(hits[0].chunk.title))
    whole = [f"{hit.chunk.title} {hit.chunk.heading} {hit.chunk.text}" for hit in hits[:_NEAR]]
    return Signals(
        dense=cosines[0],
        lead=cosines[0] - float(np.mean(cosines)),
        margin=cosines[0] - float(np.mean(cosines[1:_NEAR])) if len(cosines) > 1 else 0.0,
        coverage=max(_share(asked, words(text)) for text in whole),
        body=_share(asked, words(hits[0].chunk.text)),
        subject=_share(asked, title),
        named=_share(title, asked),
        length=float(len(asked)),
    )


def _share(wanted: frozenset[str], there: Sequence[str] | frozenset[str]) -> float:
    return len(wanted.intersection(there)) / len(wanted) if wanted else 0.0
