"""Vectors for texts: from the previous generation, from the cache, else embedded in fixed units.

An interrupted build loses one unit at most. Units are cut from the texts that are still missing, by length and then by
hash, and each is stored as soon as it is embedded. So a build that continues after a crash embeds the same units as
one that was never interrupted, and gets the same vectors even if an embedder's results depend on the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rag.embedding.protocol import Encoder
from rag.stores.base import VectorStore, checked_vectors
from rag.stores.vector_cache import VectorCache
from rag.types import OnEvent


@dataclass(frozen=True, slots=True)
class KnownVectors:
    """Vectors of a verified generation, by the hash of their text."""

    ids: Mapping[str, int]
    store: VectorStore | None

    def take(self, texts: Sequence[str]) -> dict[str, np.ndarray]:
        """Return the vectors of those text hashes that are known, by hash."""
        known = [text for text in texts if text in self.ids] if self.store is not None else []
        if not known or self.store is None:
            return {}
        vectors = self.store.vectors(np.array([self.ids[text] for text in known], dtype=np.int64))
        return dict(zip(known, vectors, strict=True))


@dataclass(frozen=True, slots=True)
class ResolvedVectors:
    """Vectors by text hash, and how many were embedded or came from the cache."""

    vectors: Mapping[str, np.ndarray]
    embedded: int
    cached: int


UnitEmbedder = Callable[[Encoder, Sequence[Sequence[str]], OnEvent], Iterable[np.ndarray]]
"""Function from an embedder and units of texts to the vectors of each unit, float32 [texts, dimension], in order."""


def embed_units(encoder: Encoder, units: Sequence[Sequence[str]], on_event: OnEvent) -> Iterator[np.ndarray]:
    """Embed units one after the other in this process; ``on_event`` receives the embedder's progress over all units."""
    done, total = 0, sum(map(len, units))
    for unit in units:
        yield encoder.encode(unit, on_event=_overall_progress(on_event, done, len(unit), total))
        done += len(unit)


def resolve_vectors(
    texts: Mapping[str, str],
    known: KnownVectors,
    cache: VectorCache,
    encoder: Callable[[], Encoder],
    on_event: OnEvent,
    embed: UnitEmbedder = embed_units,
    *,
    unit_chars: int,
) -> ResolvedVectors:
    """Return a vector for every text; only texts that are in neither place are embedded.

    Args:
        texts: the texts by hash.
        known: vectors of the previous generation.
        cache: looked up next; new vectors are stored in it unit by unit.
        encoder: called only if something must be embedded.
        on_event: receives the embedder's progress over all units.
        embed: embeds units of texts, by default in this process.
        unit_chars: about the characters of a unit, :attr:`rag.settings.IndexSettings.unit_chars`.
    """
    vectors = known.take(list(texts))
    cached = cache.get([text for text in texts if text not in vectors])
    vectors |= cached
    missing = sorted((text for text in texts if text not in vectors), key=lambda t: (len(texts[t]), t))
    units = list(_units(missing, texts, unit_chars))
    if units:
        loaded_encoder = encoder()
        embedded = embed(loaded_encoder, [[texts[text] for text in unit] for unit in units], on_event)
        for unit, rows in zip(units, embedded, strict=True):
            fresh = checked_vectors(rows, loaded_encoder.dimension)
            cache.put(unit, fresh)
            vectors |= zip(unit, fresh, strict=True)
    return ResolvedVectors(vectors, len(missing), len(cached))


def _units(missing: Sequence[str], texts: Mapping[str, str], unit_chars: int) -> Iterator[list[str]]:
    """Yield runs of text hashes whose texts have about so many characters together."""
    unit: list[str] = []
    chars = 0
    for text in missing:
        unit.append(text)
        chars += len(texts[text])
        if chars >= unit_chars:
            yield unit
            unit, chars = [], 0
    if unit:
        yield unit


def _overall_progress(on_event: OnEvent, start: int, size: int, total: int) -> OnEvent:
    """Convert the embedder's progress within a unit of ``size`` texts to progress over all ``total`` texts."""

    def forward(event: dict[str, Any]) -> None:
        if event.get("event") == "embed.batch":
            inside = size * event["done"] // max(1, event["total"])
            event = {**event, "done": start + inside, "total": total}
        on_event(event)

    return forward
