"""The verdict in words: the margin with its interval, what follows, and how far it can be trusted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from advisor.verdict.comparison import ArmComparison, ArmStanding, QuestionsNeeded, mean_combined
from runners.trial.trial import ArmScores


@dataclass(frozen=True, slots=True)
class VerdictFacts:
    """Everything a verdict's sentences are made of."""

    outcome: str
    winner: str
    at: ArmStanding
    arms: Mapping[str, ArmScores]
    rival: ArmComparison | None
    """The contest that decided, or that is still open; None when only one arm was measured."""
    missing: tuple[str, ...]
    """Arms of the gate that were not measured."""
    needed: QuestionsNeeded | None
    count: int
    model: str
    limits: tuple[str, ...]
    """What the numbers cannot say, a sentence each."""


def verdict_text(judged: VerdictFacts) -> str:
    """Return the verdict's text: a margin with its interval, a conclusion, its limits."""
    choice = judged.at.choice
    score = f"{choice} scored {mean_combined(judged.arms[choice]):.2f} on {judged.count} questions with {judged.model}"
    if judged.rival is None:
        return " ".join(
            (f"Only {choice} was measured: {score}, with nothing to hold against it.", *judged.limits)
        )
    return " ".join((f"{score}, {margin_text(judged.rival)}.", _conclusion(judged), *judged.limits))


def margin_text(contest: ArmComparison) -> str:
    """Return the difference with its interval, as far as it tells zero from something: +0.18 [+0.13, +0.24] against rag."""
    pair = contest.pair
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
    """Return a count as a person says it: rounded up to two figures from a hundred on, 1,041 as 1,100."""
    step = 10 ** max(0, len(str(count)) - 2)
    return f"{-(-count // step) * step:,}"


def _conclusion(judged: VerdictFacts) -> str:
    assert judged.rival is not None
    other = judged.rival.pair.b
    if judged.outcome == "confirmed":
        return (
            "The recommendation holds."
            if other in judged.at.beaten
            else (f"The recommendation holds: {other} costs more and is not surely better.")
        )
    if judged.outcome == "overturned":
        return f"The recommendation does not hold: {_overturned(judged, other)}."
    return f"Not decided: {_undecided(judged, other)}{_more(judged.needed)}"


def _overturned(judged: VerdictFacts, other: str) -> str:
    winner = judged.winner
    by = judged.rival.by if judged.rival else 0.0
    if judged.at.better:
        return (
            f"use {winner}" if winner == other else f"use {winner}, the cheapest arm within noise of the best"
        )
    if by:
        return f"it had to be more than {by:g} above {other}; use {winner}"
    return f"use {winner}, no worse and cheaper" if winner == other else f"use {winner}"


def _undecided(judged: VerdictFacts, other: str) -> str:
    choice = judged.at.choice
    winner = judged.winner
    if judged.missing:
        *most, last = judged.missing
        were = "were" if most else "was"
        return f"{', '.join(most)}{' and ' if most else ''}{last}, which it must beat, {were} not measured."
    by = judged.rival.by if judged.rival else 0.0
    above = f"more than {by:g} above" if by else "above"
    if judged.rival and (judged.rival.pair.low > by or judged.rival.pair.high < by):
        other += f" (p {judged.rival.pair.p_holm:.2f}, corrected)"
    until = "stay with it" if winner == choice else f"the cheapest arm within noise is {winner}"
    return f"it is not surely {above} {other}; until then {until}."


def _more(needed: QuestionsNeeded | None) -> str:
    if needed is None:
        return ""
    documents = f" ({rounded_up(needed.documents)} more documents' worth)" if needed.documents else ""
    return f" About {rounded_up(needed.questions)} more questions{documents} would decide it."
