"""The verdict in words: the margin with its interval, what follows from it, and its limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from advisor.verdict.arm_choice import ArmToUse
from advisor.verdict.comparison import ArmComparison, ArmStanding, QuestionsNeeded, mean_combined
from advisor.verdict.right_answers import right_answers
from rag.text.words import count_noun
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
    use: ArmToUse
    lost: frozenset[str] = frozenset()
    """Arms that were measured and left out, because they were not trained as planned."""
    substitute: str = ""
    """A sentence on the recommended arm, where the plan holds another one to account."""
    quick: bool = False
    """Whether the run was shortened by ``--quick``."""


def verdict_text(facts: VerdictFacts) -> str:
    """Return the verdict's text: right answers, the margin with its interval, a conclusion, its limits."""
    choice = facts.standing.choice
    if facts.rival is None:
        score = f"{_score_text(facts, choice)} on {count_noun(facts.count, 'question')} with {facts.model}"
        return " ".join(
            (
                f"Only {choice} was measured: {score}; there was no other arm to compare it with.",
                *facts.limits,
            )
        )
    other = facts.rival.pair.b
    counts = {name: right_answers(facts.arms[name]) for name in (choice, other)}
    mine, theirs = counts[choice], counts[other]
    score = f"{_score_text(facts, choice)} on {count_noun(facts.count, 'question')} with {facts.model}"
    if mine and theirs:
        beside = f"{theirs.total.n}" if theirs.total.of == mine.total.of else theirs.text
        score = (
            f"{choice} answers {mine.text} right with {facts.model}, {other} {beside}; "
            f"combined score {mean_combined(facts.arms[choice]):.2f}"
        )
    return " ".join((f"{score}, {margin_text(facts.rival)}.", _conclusion(facts), *facts.limits))


def unverdicted_text(
    choice: str,
    model: str,
    rows: str,
    left_out: Sequence[str],
    use: ArmToUse,
    others: Mapping[str, ArmScores],
) -> str:
    """Return the text where the recommended arm was not trained as planned, so that there is no verdict on it.

    Args:
        choice: the recommended arm.
        model: the name of the base model.
        rows: the count of its rows in words.
        left_out: sentences on other arms that are left out.
        use: the arm to use until then.
        others: the arms that were compared.
    """
    until = ""
    if use.arm:
        right = right_answers(others[use.arm])
        until = f"Until then use {use.arm}" + (f", which answers {right.text} right." if right else ".")
    elif others:
        until = f"No other arm can be used: {use.reason}."
    first = f"No verdict on {choice} with {model}: it was not trained as planned: {rows}."
    return " ".join(filter(None, (first, *left_out, until)))


def _score_text(facts: VerdictFacts, arm: str) -> str:
    """Return an arm's combined score, after its right answers where they are known."""
    right = right_answers(facts.arms[arm])
    answers = f"{arm} answers {right.text} right and" if right else arm
    return f"{answers} scored {mean_combined(facts.arms[arm]):.2f}"


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
    if facts.substitute:
        beats = "clearly" if facts.standing.gate_met else "not clearly"
        gate = (
            f"{facts.standing.choice} is {beats} better than the arms it must beat; "
            if facts.standing.gate
            else ""
        )
        return f"{facts.substitute} Of the arms measured: {gate}{_use_clause(facts)}."
    if facts.outcome == "confirmed":
        holds = (
            "The recommendation is confirmed"
            if other in facts.standing.beaten
            else f"The recommendation is confirmed: {other} costs more and is not clearly better"
        )
        return (
            f"{holds}." if facts.use.arm == facts.standing.choice else f"{holds}; but {_use_clause(facts)}."
        )
    if facts.outcome == "overturned":
        return f"The trial speaks against the recommendation: {_overturned(facts, other)}."
    return f"Not decided: {_undecided(facts, other)}{_more_questions(facts)}"


def _overturned(facts: VerdictFacts, other: str) -> str:
    """Return what to use instead of an overturned recommendation."""
    use = facts.use.arm
    by = facts.rival.by if facts.rival else 0.0
    clause = _use_clause(facts)
    if facts.standing.better:
        within_noise = use == facts.winner and use != other
        return (
            f"{clause}, the cheapest arm that is not clearly worse than the best" if within_noise else clause
        )
    if by:
        return f"{facts.standing.choice} had to be more than {by:g} better than {other}; {clause}"
    return f"{clause}, no worse and cheaper" if use == other else clause


def _use_clause(facts: VerdictFacts) -> str:
    """Return which arm to use, and why not the one that scored best; or that none can be used."""
    if facts.use.arm is None:
        return f"no arm can be used: {facts.use.reason}"
    best = max(facts.arms, key=lambda name: mean_combined(facts.arms[name]))
    why = facts.use.excluded.get(best)
    return f"use {facts.use.arm}" + (f" ({best} {why})" if why and best not in facts.lost else "")


def _undecided(facts: VerdictFacts, other: str) -> str:
    """Return what keeps the verdict open."""
    choice = facts.standing.choice
    until = f"stay with {choice}" if facts.use.arm == choice else _use_clause(facts)
    if facts.missing:
        *most, last = facts.missing
        were = "were" if most else "was"
        compared = "compared" if facts.lost.intersection(facts.missing) else "measured"
        names = f"{', '.join(most)}{' and ' if most else ''}{last}"
        return f"{names}, which {choice} must beat, {were} not {compared}; until then {until}."
    by = facts.rival.by if facts.rival else 0.0
    better = f"more than {by:g} better" if by else "better"
    if facts.rival and (facts.rival.pair.low > by or facts.rival.pair.high < by):
        other += f" (p {facts.rival.pair.p_holm:.2f}, corrected for the number of arms)"
    return f"{choice} is not clearly {better} than {other}; until then {until}."


def _more_questions(facts: VerdictFacts) -> str:
    """Return what would decide: the full run after a quick one, else how many more questions."""
    if facts.quick:
        return " This was a quick run; the full one is the next step."
    if facts.needed is None:
        return ""
    needed = facts.needed
    documents = f", from about {rounded_up(needed.documents)} more documents," if needed.documents else ""
    return f" About {rounded_up(needed.questions)} more question{'s' * (needed.questions != 1)}{documents} would decide it."
