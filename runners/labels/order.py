"""The order in which rows are labelled: a random draw with known chances, made once for a run and stored in it.

Rows are sorted by u / p with u uniform and p their priority (sequential Poisson sampling: Ohlsson 1998; priority sampling:
Duffield, Lund and Thorup 2007). Each row is among the first m by the chance min(1, p * tau), where tau is u / p of the row
after them, so that labels of what matters most do not bias an estimate (Zrnic and Candès 2024, arXiv 2403.03208).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from rag.evaluation.prediction_powered import label_chances, priority_order

RowStatus = Literal["labelled", "skipped", "equal", "open"]
"""Of a row for a pair of arms: both answers labelled, left out by people, both answers equal, or still to be labelled."""
REACHED = 30
"""Labels within which a cluster of questions should be reached once; rows of a smaller one come earlier."""
DIGITS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class RowSignals:
    """What makes a row worth labelling early."""

    id: str
    weight: float = 1.0
    """How often it is asked."""
    disagreement: float = 0.0
    """How far the arms' computed scores are apart, 0 to 1."""
    unsure: float = 0.0
    """How near the refusal gate was to the other decision, 0 to 1."""
    group: str | None = None
    """Its cluster of questions, where the file names one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderedRow:
    """A row with what was drawn for it."""

    id: str
    priority: float
    """p, above 0; up to a common factor its chance to be labelled early."""
    number: float
    """u, above 0 and at most 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledPrefix:
    """The rows of an order that are labelled without a gap, and the chance that each row had to be."""

    chances: Mapping[str, float]
    """Of every row but the skipped ones, in the order of labelling."""
    counted: frozenset[str]
    """Labelled rows whose labels count."""
    behind_gap: frozenset[str]
    """Labelled rows that do not, since an earlier one is open."""
    skipped: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelOrder:
    """The order of a run, the same for all people, pairs of arms and sessions."""

    run: str
    """Identity of the run."""
    seed: int
    rows: tuple[OrderedRow, ...]

    def prefix(self, status: Callable[[str], RowStatus]) -> LabelledPrefix:
        """Return which labels of a pair of arms count, and with which chances.

        Rows with equal answers need no label: their difference is known, so that their chance is 1. Skipped rows are no
        part of what is estimated.
        """
        states = {row.id: status(row.id) for row in self.rows}
        drawn = [row for row in self.rows if states[row.id] in ("labelled", "open")]
        chances, counts = label_chances(
            [row.priority for row in drawn],
            [row.number for row in drawn],
            [states[row.id] == "labelled" for row in drawn],
        )
        of = {row.id: chance for row, chance in zip(drawn, chances, strict=True)}
        counted = {row.id for row, counts_it in zip(drawn, counts, strict=True) if counts_it}
        labelled = {row.id for row in drawn if states[row.id] == "labelled"}
        return LabelledPrefix(
            chances={row.id: of.get(row.id, 1.0) for row in self.rows if states[row.id] != "skipped"},
            counted=frozenset(counted),
            behind_gap=frozenset(labelled - counted),
            skipped=sum(state == "skipped" for state in states.values()),
        )


def make_order(rows: Sequence[RowSignals], run: str, seed: int) -> LabelOrder:
    """Draw the order of rows; the same rows and seed give the same order.

    The priority is the weight times 1 + disagreement + how unsure the gate was + 1 for rows of clusters that the order by
    weight alone would reach late, so at most 4 times that of another row of the same weight. It does not depend on what is
    drawn.
    """
    late = _late_groups(rows)
    drawn = [
        OrderedRow(
            id=row.id,
            priority=round(row.weight * (1 + row.disagreement + row.unsure + (row.group in late)), DIGITS),
            number=1 - random.Random(f"{seed}\0{row.id}").random(),
        )
        for row in rows
    ]
    places = priority_order([row.priority for row in drawn], [row.number for row in drawn])
    return LabelOrder(run=run, seed=seed, rows=tuple(drawn[place] for place in places))


def _late_groups(rows: Sequence[RowSignals]) -> set[str | None]:
    """Return the clusters of which :data:`REACHED` labels drawn by weight would have less than one on average."""
    weights: dict[str, float] = {}
    for row in rows:
        if row.group is not None:
            weights[row.group] = weights.get(row.group, 0.0) + row.weight
    total = sum(row.weight for row in rows)
    return {group for group, weight in weights.items() if REACHED * weight < total}
