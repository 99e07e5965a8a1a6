"""Arms compared on the same questions: which surely does better than which.

**The rule.** One arm is surely above another when both of two things hold on the questions both answered: the 95 %
paired interval lies above, and the Holm-corrected p of the sign-flip test is at most .05. The interval says by how
much, the p keeps the promise: of 1,000 trials of two equal arms with 12 to 60 questions the interval alone excluded
zero in 5.7 to 8.7 %, most with few questions, both together in 4.0 to 5.3 % (benchmarks/LOG.md).

**What is corrected together.** Two questions are asked of the recommendation, and each gets its own correction: does
it beat the arms of its gate, and is there another arm that does better? All of the gate's pairs must hold, and the
last of Holm's steps tests at the full 5 %, so the correction costs the gate little (no more than 5 % would be wrong
even without it: Berger 1982); but it makes each single sentence "above rag" hold beside the others, and the p that
is shown is the p that decides. An arm of the other family overturns as soon as one of them is better, which is what
needs the correction. When the best arm is not the recommended one, its comparisons with cheaper arms are corrected
among themselves in the same way.

An interval that touches the line still holds it: neither above nor below.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from advisor.upkeep import Cost
from rag.clusters import FEWEST
from rag.holm import holm
from rag.stats import Paired, paired
from runners.trial import ArmScores

SURE = 0.05
"""Largest Holm-corrected p that still counts."""


@dataclass(frozen=True, slots=True)
class Contest:
    """One arm against another, and what the difference must exceed; the pair's p is a test of that."""

    pair: Paired
    by: float = 0.0

    @property
    def above(self) -> bool:
        """Surely more than ``by`` above the other arm."""
        return self.pair.low > self.by and self.pair.p_holm <= SURE

    @property
    def below(self) -> bool:
        """Surely less than ``by`` above it, or the same on every question."""
        return self.same or (self.pair.high < self.by and self.pair.p_holm <= SURE)

    @property
    def same(self) -> bool:
        """The same score on every question (or ``by`` apart on each), and questions enough to say so."""
        return self.pair.low == self.pair.high == self.by and self.pair.units >= FEWEST


def compare(a: ArmScores, b: ArmScores, seed: int, above: float = 0.0) -> Paired:
    """Paired difference of two arms over the questions both have answered, by source document."""
    of_b = dict(zip(b.questions, b.combined, strict=True))
    both = [
        (x, of_b[q], document)
        for q, x, document in zip(a.questions, a.combined, a.sources(), strict=True)
        if q in of_b
    ]
    return paired(
        a.arm, b.arm, [x for x, _, _ in both], [y for _, y, _ in both], seed, [d for _, _, d in both], above
    )


def contests(pairs: Iterable[Paired], by: float = 0.0) -> dict[str, Contest]:
    """Correct the pairs together; by the name of the other arm."""
    rows = list(pairs)
    adjusted = holm([pair.p for pair in rows])
    return {pair.b: Contest(replace(pair, p_holm=p), by) for pair, p in zip(rows, adjusted, strict=True)}


@dataclass(frozen=True, slots=True)
class Standing:
    """Where the recommended arm stands among the others."""

    choice: str
    shown: Mapping[str, Contest]
    """Against every other arm, as reported: is there any difference?"""
    gate: Mapping[str, Contest]
    """Against the arms of the gate: is the difference larger than the plan's ``by``?"""

    @property
    def gate_met(self) -> bool | None:
        """True when every arm of the gate is surely beaten, False when one surely is not, None in between."""
        if all(contest.above for contest in self.gate.values()):
            return True
        lost = any(contest.below or name in self.better for name, contest in self.gate.items())
        return False if lost else None

    @property
    def better(self) -> tuple[str, ...]:
        """Arms that surely did better than the recommended one, the furthest above first."""
        found = [name for name, c in self.shown.items() if c.pair.high < 0 and c.pair.p_holm <= SURE]
        return tuple(sorted(found, key=lambda name: self.shown[name].pair.difference))

    @property
    def beaten(self) -> frozenset[str]:
        """Arms that the recommended one surely beats, by what the gate asks where it asks for more."""
        both = {**self.shown, **self.gate}
        return frozenset(name for name, contest in both.items() if contest.above)


def standing(
    choice: str, arms: Mapping[str, ArmScores], must_beat: Sequence[str], by: float, seed: int
) -> Standing:
    """Compare the recommended arm with every other; the gate's pairs and the others are corrected apart."""
    others = [name for name in arms if name != choice]
    named = [name for name in others if name in must_beat]
    rest = [name for name in others if name not in must_beat]
    in_gate = contests(compare(arms[choice], arms[name], seed) for name in named)
    outside = contests(compare(arms[choice], arms[name], seed) for name in rest)
    gate = contests((compare(arms[choice], arms[name], seed, by) for name in named), by) if by else in_gate
    found = {**in_gate, **outside}
    return Standing(choice, {name: found[name] for name in others}, gate)


def cheapest_within_noise(
    arms: Mapping[str, ArmScores], costs: Mapping[str, Cost], at: Standing, seed: int
) -> str:
    """The cheapest arm that neither the best arm nor the recommended one surely beats.

    The recommended arm is out when another is surely better, or when it surely misses its gate.
    """
    best = min(arms, key=lambda name: (-round(mean(arms[name]), 9), costs[name]))
    beaten = set(at.beaten)
    if best != at.choice:
        rest = [name for name in arms if costs[name] < costs[best] and name != at.choice]
        found = contests(compare(arms[best], arms[name], seed) for name in rest)
        beaten = (beaten | {name for name, contest in found.items() if contest.above}) - {best}
    if at.better or at.gate_met is False:
        beaten.add(at.choice)
    return min((name for name in arms if name not in beaten), key=lambda name: costs[name])


def mean(arm: ArmScores) -> float:
    """The arm's combined score over its questions."""
    return sum(arm.combined) / len(arm.combined)
