"""Questions about one document are not independent: which stand together, and whether there are enough groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

FEWEST = 6
"""Below six units no flip of whole signs can reach p = .05 (2 of 2**5 are .0625): they could never tell anything."""


@dataclass(frozen=True, slots=True)
class Clusters:
    """What is drawn and flipped as one: whole documents, or single questions where documents are too few."""

    index: np.ndarray
    """The unit of each question, [questions], counted from 0."""
    documents: int
    """How many documents the questions come from; a question without one counts as its own."""
    units: int
    single: bool
    """Every question is its own unit."""

    @property
    def by_document(self) -> bool:
        """False when there are documents, but too few to judge by: then nothing is said about other documents."""
        return self.units == self.documents


def clusters(documents: Sequence[str | None]) -> Clusters:
    """Group questions by their documents; a question of no document is its own group.

    The number that counts is the effective one, n² over the sum of squared group sizes (Kish 1965): forty questions
    about one document and ten about others are hardly eleven groups. Below :data:`FEWEST` the questions stand alone:
    an interval then holds for these documents and no others.
    """
    places: dict[str, int] = {}
    index = np.array(
        [places.setdefault(f"={d}" if d else f"#{n}", len(places)) for n, d in enumerate(documents)],
        dtype=int,
    )
    sizes = np.bincount(index) if index.size else np.zeros(0)
    count = len(places)
    if count == index.size:
        return Clusters(index, count, count, True)
    if index.size**2 / float((sizes**2).sum()) < FEWEST:
        return Clusters(np.arange(index.size), count, int(index.size), True)
    return Clusters(index, count, count, False)
