"""Confidence of the advice: from the margin, and from how many of the decisive answers are known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from advisor.questionnaire.profile import Profile
from advisor.recommendation.ranking import Ranking, ScoredMethod
from runners.plan.train_config import TUNING_METHODS

DECISIVE_ANSWERS = (
    "task_needs_facts",
    "facts_change",
    "must_cite",
    "behaviour_gap",
    "labelled_examples",
    "corpus_tokens",
    "call_volume",
    "model_params_b",
    "gpu_memory_gib",
)
"""The answers that move the ranking most."""
MANY_KNOWN = 6
"""Known decisive answers from which confidence can be high."""
FEW_KNOWN = 3
"""Known decisive answers up to which confidence is low."""
CLEAR_MARGIN = 0.8
"""Margin in weight from which confidence can be high: the strongest single rules weigh 2 to 3."""
CLOSE_MARGIN = 0.25
"""Margin in weight below which confidence is low: a tie-breaker weighs 0.1 to 0.5."""
METHOD_FAMILIES = (frozenset(TUNING_METHODS), frozenset({"prompting", "few-shot"}))
"""Methods that are no rivals of each other: tuning methods, and prompting methods."""


@dataclass(frozen=True, slots=True)
class Confidence:
    """A level, and the numbers that it comes from."""

    level: Literal["high", "medium", "low"]
    because: str


def confidence(profile: Profile, ranking: Ranking) -> Confidence:
    """Return high with a clear margin and most decisive answers known, low with neither, else medium.

    The margin is over the best feasible method of another kind: LoRA, QLoRA and full tuning do not count as
    rivals of each other, nor do prompts with and without examples. An answer that is only a default is not
    known. Without the gap in behaviour nothing is sure, and a choice that only replaces a better method that is
    blocked here is never high.
    """
    answered = [
        key for key in DECISIVE_ANSWERS if getattr(profile, key) is not None or _implied(profile, key)
    ]
    defaults = [
        key for key in answered if key in profile.sources and profile.sources[key].source == "default"
    ]
    known_count = len(answered) - len(defaults)
    first = ranking.methods[0]
    rivals = [
        scored for scored in ranking.methods[1:] if not scored.blockers and not same_family(first, scored)
    ]
    rival = max(rivals, key=lambda scored: scored.sum, default=None)
    margin = first.sum - (rival.sum if rival else 0.0)
    over = f" over {rival.method.name}" if rival else ""
    because = f"{known_count} of {len(DECISIVE_ANSWERS)} decisive answers known, margin {margin:.1f}{over}"
    forbidden = (
        scored for scored in ranking.methods if _forbidden(scored) and not same_family(first, scored)
    )
    better = max(forbidden, key=lambda scored: scored.sum, default=first)
    if better.sum > first.sum:
        because += f"; {better.method.name} would serve better but cannot be done here"
    if (
        known_count >= MANY_KNOWN
        and margin >= CLEAR_MARGIN
        and profile.behaviour_gap is not None
        and better.sum <= first.sum
    ):
        return Confidence("high", because)
    if known_count <= FEW_KNOWN or margin < CLOSE_MARGIN or profile.behaviour_gap is None:
        return Confidence("low", because)
    return Confidence("medium", because)


def _implied(profile: Profile, key: str) -> bool:
    """Return whether another answer implies this one: calls a month the volume, no GPU its memory, and so on."""
    if key == "call_volume":
        return profile.calls_per_month is not None
    if key in ("facts_change", "corpus_tokens", "must_cite"):
        return profile.task_needs_facts == "none"
    return key == "gpu_memory_gib" and profile.has_gpu is False


def _forbidden(scored: ScoredMethod) -> bool:
    """Return whether data, hardware, policy or money block a method, not that half of it has no use."""
    rules = {blocker.rule for blocker in scored.blockers}
    return bool(rules) and rules <= {"BL001", "BL002", "BL003", "BL004", "BL005"}


def same_family(a: ScoredMethod, b: ScoredMethod) -> bool:
    """Return whether two methods are of one family: two tuning methods, or two prompting methods."""
    return any({a.method.name, b.method.name} <= family for family in METHOD_FAMILIES)
