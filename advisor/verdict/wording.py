"""The verdict in words: the margin with its interval, what follows from it, and its limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from advisor.verdict.comparison import ArmComparison, ArmStanding, QuestionsNeeded, mean_combined
from runners.trial.trial import ArmScores


@dataclass(frozen=True, slots=True)
class VerdictFacts:
    """Everything that a verdict's sentences state."""

    outcome: str
    winner: str
    standing: ArmStanding
    arms: Mapping[str, ArmScores]
    rival: ArmComparison | None
    """The comparison that decided, or that is still open; None when only one arm was measured."""
    missing: tuple[str, ...]
    """Arms of the gate that were not measured."""
    needed: QuestionsNeeded | None
    count: int
    model: str
    limits: tuple[str, ...]
    """What the numbers cannot say, a sentence each."""
    lost: frozenset[str] = frozenset()
    """Arms that were measured and left out, because they were not trained as planned."""


def verdict_text(facts: VerdictFacts) -> str:
    """Return the verdict's text: a margin with its interval, a conclusion, its limits."""
    choice = facts.standing.choice
    score = f"{choice} scored {mean_combined(facts.arms[choice]):.2f} on {facts.count} questions with {facts.model}"
    if facts.rival is None:
        return " ".join(
            (f"Only {choice} was measured: {score}, with nothing to hold against it.", *facts.limits)
        )
    return " ".join((f"{score}, {margin_text(facts.rival)}.", _conclusion(facts), *facts.limits))


def margin_text(comparison: ArmComparison) -> str:
    """Return the difference with its interval, such as +0.18 [+0.13, +0.24] against rag."""
    pair = comparison.pair
    if pair.low == pair.high == 0:
        return f"the same as {pair.b}"
    return f"{signed_number(pair.difference)} [{signed_number(pair.low)}, {signed_number(pair.high)}] against {pair.b}"


def signed_number(value: float) -> str:
    """Return a signed number of two decimals, or of as many as show that it is not zero (four at most)."""
    for decimals in (2, 3, 4):
        if float(f"{value:.{decimals}f}") or value == 0:
            return f"{value:+.{decimals}f}"
    return f"{value:+.0e}"


def rounded_up(count: int) -> str:
    """Return a count rounded up to two significant digits from a hundred on: 1,041 as 1,100."""
    step = 10 ** max(0, len(str(count)) - 2)
    return f"{-(-count // step) * step:,}"


def _conclusion(facts: VerdictFacts) -> str:
    """Return what follows for the recommendation."""
    assert facts.rival is not None
    other = facts.rival.pair.b
    if facts.outcome == "confirmed":
        return (
            "The recommendation holds."
            if other in facts.standing.beaten
            else (f"The recommendation holds: {other} costs more and is not surely better.")
        )
    if facts.outcome == "overturned":
        return f"The recommendation does not hold: {_overturned(facts, other)}."
    return f"Not decided: {_undecided(facts, other)}{_more_questions(facts.needed)}"


def _overturned(facts: VerdictFacts, other: str) -> str:
    """Return what to use instead of an overturned recommendation."""
    winner = facts.winner
    by = facts.rival.by if facts.rival else 0.0
    if facts.standing.better:
        return (
            f"use {winner}" if winner == other else f"use {winner}, the cheapest arm within noise of the best"
        )
    if by:
        return f"it had to be more than {by:g} above {other}; use {winner}"
    return f"use {winner}, no worse and cheaper" if winner == other else f"use {winner}"


def _undecided(facts: VerdictFacts, other: str) -> str:
    """Return what keeps the verdict open."""
    choice = facts.standing.choice
    winner = facts.winner
    if facts.missing:
        *most, last = facts.missing
        were = "were" if most else "was"
        compared = "compared" if facts.lost.intersection(facts.missing) else "measured"
        return f"{', '.join(most)}{' and ' if most else ''}{last}, which it must beat, {were} not {compared}."
    by = facts.rival.by if facts.rival else 0.0
    above = f"more than {by:g} above" if by else "above"
    if facts.rival and (facts.rival.pair.low > by or facts.rival.pair.high < by):
        other += f" (p {facts.rival.pair.p_holm:.2f}, corrected)"
    until = "stay with it" if winner == choice else f"the cheapest arm within noise is {winner}"
    return f"it is not surely {above} {other}; until then {until}."


def _more_questions(needed: QuestionsNeeded | None) -> str:
    """Return how many more questions would decide."""
    if needed is None:
        return ""
    documents = f" ({rounded_up(needed.documents)} more documents' worth)" if needed.documents else ""
    return f" About {rounded_up(needed.questions)} more questions{documents} would decide it."
