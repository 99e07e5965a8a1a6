"""What an arm costs to have: the parts that must be made and kept for it, then the tokens of each answer.

The order decides which arm is the cheaper one, before a run (from its plan) and after it (with the tokens that were
measured). It follows from the plan's steps, so an arm that is new here has its place without being named.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from runners.plan import EvaluateStep, Step, TrainStep
from runners.tuning import TUNING_METHODS

HEADS = ("classifier",)
"""Arms that are a small head over embeddings: trained in seconds, asked without a language model."""
COMPARED_ONLY = ("naive-stack",)
"""Arms measured to show what not to do; nothing has to beat them."""
MOST_PARTS = 4
"""More than any arm has: an index, a head and weights."""

Cost = tuple[int, int, int, float, int]


def costs(steps: Sequence[Step], tokens: Mapping[str, float] | None = None) -> dict[str, Cost]:
    """Return every arm's cost, to be compared and sorted, smaller is cheaper.

    In this order: how many parts are made and kept (an index, a head, weights); the heaviest kind of them; whether
    the training rows need passages too; tokens per answer, prompt and answer, where they were measured; the place in
    the plan. An arm that was measured but is not in the plan comes last.
    """
    arms = [step for step in steps if isinstance(step, EvaluateStep)]
    trained = {step.arm: step for step in steps if isinstance(step, TrainStep)}
    measured = tokens or {}
    strangers = {name: (MOST_PARTS, 0, 0, count, 0) for name, count in measured.items()}
    return strangers | {arm.arm: _cost(arm, trained, measured, place) for place, arm in enumerate(arms)}


def cheaper(steps: Sequence[Step], arm: str) -> tuple[str, ...]:
    """Return the arms that cost less than this one, in the plan's order, as far as a plan can tell."""
    known = costs(steps)
    return tuple(name for name, cost in known.items() if cost < known[arm])


def _cost(
    arm: EvaluateStep, trained: Mapping[str, TrainStep], tokens: Mapping[str, float], place: int
) -> Cost:
    training = trained.get(arm.weights) if arm.weights else None
    head = arm.arm in HEADS
    parts = arm.retrieval + head + bool(arm.weights)
    heaviest = 0 if head else 1
    if arm.weights:
        heaviest = 2 + TUNING_METHODS.index(training.method if training else TUNING_METHODS[0])
    passages = training is not None and training.rows == "retrieval"
    return (parts, heaviest if parts else 0, int(passages), tokens.get(arm.arm, 0.0), place)
