"""What `index tune` prints: the table, what was chosen and by how much, or all of it as JSON."""

from __future__ import annotations

from typing import Any

from rag.asked import KINDS, Ready
from rag.stats import Paired
from rag.tune import FEWEST, Measured, Outcome

SHOWN = 12
"""Candidates in the table; --json has all."""


def print_outcome(outcome: Outcome, questions: Ready, said: str, budget: int, generation: int) -> None:
    """Print which questions judged, the table, the choice, how many passages are enough, and what to do next."""
    print(said)
    for kind, number in questions.kinds.items():
        print(f"  {number} judged by {KINDS[kind]}")
    if questions.left_out:
        print(f"  left out: {reasons(questions)}")
    _print_table(outcome, budget)
    print(_verdict(outcome))
    enough, all_of_it = outcome.depths_by_k[outcome.enough], outcome.chosen
    print(
        f"{outcome.enough} passages are enough: {enough.mean:.3f} with {enough.tokens:.0f} tokens, "
        f"against {all_of_it.mean:.3f} with {all_of_it.tokens:.0f}"
    )
    if generation:
        print(f"the index was rebuilt with these settings: generation {generation}")
    elif outcome.changed:
        print("to rebuild the index with these settings: the same command with --apply")
    s = outcome.chosen.candidate.settings
    print(
        f"for a plan's index step: k: {outcome.enough}, max_chunk_tokens: {s.max_tokens}, overlap: {s.overlap:g}, "
        f"fusion: {s.fusion}, lexical_weight: {s.lexical_weight:g}, context_tokens: {budget}"
    )


def outcome_json(
    outcome: Outcome, questions: Ready, synthetic: bool, budget: int, generation: int
) -> dict[str, Any]:
    """Return the outcome as `index tune --json` prints it."""
    candidates = [
        {
            **_candidate(measured),
            "difference": lead.difference,
            "low": lead.low,
            "high": lead.high,
            "p": lead.p,
        }
        for measured, lead in zip(outcome.others, outcome.leads, strict=True)
    ]
    return {
        "schema": 1, "questions": len(questions.questions), "judged_by": questions.kinds,
        "left_out": dict(questions.left_out), "synthetic": synthetic, "budget": budget,
        "changed": outcome.changed, "baseline": _candidate(outcome.baseline), "chosen": _candidate(outcome.chosen),
        "best": None if outcome.best is None else candidates[outcome.best], "candidates": candidates,
        "passages": [{"k": k, "score": m.mean, "tokens": m.tokens} for k, m in outcome.depths_by_k.items()],
        "enough": outcome.enough, "generation": generation or None,
    }  # fmt: skip


def reasons(questions: Ready) -> str:
    """Say how many questions cannot be judged, and why."""
    return ", ".join(f"{number} {reason}" for reason, number in questions.left_out.items())


def _print_table(outcome: Outcome, budget: int) -> None:
    """Print the settings there are and the best of the others."""
    head = f"at most {budget} prompt tokens"
    print(f"\n{head:46} {'shown':>6} {'tokens':>7} {'score':>6}  difference, 95 %")
    print(f"{outcome.baseline.candidate!s:46} {_row(outcome.baseline)}  what the index has")
    order = sorted(range(len(outcome.others)), key=lambda n: -outcome.others[n].mean)
    for n in order[:SHOWN]:
        gain = _gain(outcome.leads[n])
        print(f"{outcome.others[n].candidate!s:46} {_row(outcome.others[n])}  {gain}")
    if len(order) > SHOWN:
        print(f"and {len(order) - SHOWN} more with lower scores")
    print()


def _row(measured: Measured) -> str:
    return f"{measured.passages:6.1f} {measured.tokens:7.0f} {measured.mean:6.3f}"


def _gain(lead: Paired) -> str:
    return f"{lead.difference:+.3f} [{lead.low:+.3f}, {lead.high:+.3f}]"


def _verdict(outcome: Outcome) -> str:
    """Say what was chosen, by how much, and how sure that is."""
    if outcome.best is None:
        return "kept: nothing else that was tried cuts or ranks these documents in another way"
    best, lead = outcome.others[outcome.best], outcome.leads[outcome.best]
    by = f"{_gain(lead)}, p {lead.p:.3f}, corrected for {len(outcome.others)} candidates"
    if outcome.changed:
        return f"chosen: {best.candidate}: {by}"
    if (asked := len(outcome.baseline.scores)) < FEWEST:
        return f"kept: {asked} questions are too few to change anything, {FEWEST} is the least"
    if outcome.baseline.mean == 1:
        return (
            "kept: every question gets all of its gold within this budget; a smaller --budget would tell more"
        )
    if lead.difference <= 0:
        return f"kept: none of {len(outcome.others)} candidates is better"
    return f"kept: nothing is better beyond noise; nearest is {best.candidate}: {by}"


def _candidate(measured: Measured) -> dict[str, Any]:
    s = measured.candidate.settings
    return {
        "max_tokens": s.max_tokens, "overlap": s.overlap, "fusion": s.fusion, "lexical_weight": s.lexical_weight,
        "reranked": measured.candidate.reranked, "chunks": measured.chunks, "passages": measured.passages,
        "tokens": measured.tokens, "score": measured.mean,
    }  # fmt: skip
