"""Vectors for texts: kept where they are known, taken from the cache, else embedded in fixed units.

A unit is what an interrupted build loses at most. Units are cut from the texts that are still missing, by
length and then by hash, and each is kept whole as soon as it is embedded; so a build that goes on after a
crash embeds the same units as one that was never interrupted, whatever the embedder makes of a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rag.embedding.protocol import Encoder
from rag.stores.base import VectorStore, checked_vectors
from rag.stores.vector_cache import VectorCache
from rag.types import OnEvent

UNIT_CHARS = 300_000
"""Characters in a unit, about 70,000 tokens: three to five seconds of work on two cores. Short texts are many to a
unit, so that the embedder finds enough of equal length for full batches."""


@dataclass(frozen=True, slots=True)
class KnownVectors:
    """Vectors of a verified generation, by the hash of their text."""

    ids: Mapping[str, int]
    store: VectorStore | None

    def take(self, texts: Sequence[str]) -> dict[str, np.ndarray]:
        """Return the vectors of those text hashes that are known."""
        here = [text for text in texts if text in self.ids] if self.store is not None else []
        if not here or self.store is None:
            return {}
        found = self.store.vectors(np.array([self.ids[text] for text in here], dtype=np.int64))
        return dict(zip(here, found, strict=True))


@dataclass(frozen=True, slots=True)
class ResolvedVectors:
    """Vectors by text hash, and where they came from."""

    vectors: Mapping[str, np.ndarray]
    embedded: int
    cached: int


def resolve_vectors(
    texts: Mapping[str, str],
    known: KnownVectors,
    cache: VectorCache,
    encoder: Callable[[], Encoder],
    tell: OnEvent,
) -> ResolvedVectors:
    """Return a vector for every text (hash to text); only what nobody knows is embedded.

    ``encoder`` is called only when something must be embedded.
    """
    vectors = known.take(list(texts))
    cached = cache.get([text for text in texts if text not in vectors])
    vectors |= cached
    missing = sorted((text for text in texts if text not in vectors), key=lambda t: (len(texts[t]), t))
    done = 0
    for unit in _units(missing, texts):
        working = encoder()
        hear = _shifted(tell, done, len(unit), len(missing))
        fresh = checked_vectors(
            working.encode([texts[text] for text in unit], on_event=hear), working.dimension
        )
        cache.put(unit, fresh)
        vectors |= zip(unit, fresh, strict=True)
        done += len(unit)
    return ResolvedVectors(vectors, len(missing), len(cached))


def _units(missing: Sequence[str], texts: Mapping[str, str]) -> Iterator[list[str]]:
    """Yield runs of text hashes whose texts have about ``UNIT_CHARS`` characters together."""
    unit: list[str] = []
    size = 0
    for text in missing:
        unit.append(text)
        size += len(texts[text])
        if size >= UNIT_CHARS:
            yield unit
            unit, size = [], 0
    if unit:
        yield unit


def _shifted(tell: OnEvent, start: int, size: int, total: int) -> OnEvent:
    """Let the embedder's progress inside a unit of ``size`` texts count towards the whole."""

    def hear(event: dict[str, Any]) -> None:
        if event.get("event") == "embed.batch":
            inside = size * event["done"] // max(1, event["total"])
            event = {**event, "done": start + inside, "total": total}
        tell(event)

    return hear
