"""Confidence of the advice in a word: cuts of its probability, what lowers it, and what would raise it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Literal

from advisor.questionnaire.profile import Profile
from advisor.recommendation.probability import (
    COEFFICIENTS,
    AdviceDoubts,
    AdviceProbability,
    better_blocked,
    enough_examples,
    has_files,
    missing_answers,
    probability_of,
    rivals,
)
from advisor.recommendation.ranking import Ranking

HIGH_FROM = 0.90
"""Probability from which confidence is high. The cuts were chosen with the published decisions in view; on decisions that
no rule had seen the words did not separate right advice from wrong (docs/how-it-decides.md)."""
LOW_BELOW = 0.84
"""Probability below which confidence is low."""
UNSEEN_RIGHT, UNSEEN = 153, 215
"""Decisions that were scored before any rule had been written or changed with them in view, and how many of them the advice
got right, whatever its probability was."""
SMALL_DOUBT = 0.1
"""Log odds below which a doubt is not named: a tenth moves a probability by at most .025."""
Level = Literal["high", "medium", "low"]


@dataclass(frozen=True, slots=True)
class Confidence:
    """A level, and what it comes from."""

    level: Level
    because: str


def confidence(
    profile: Profile, ranking: Ranking, probability: AdviceProbability, also: Mapping[str, str]
) -> Confidence:
    """Return the level of a probability with its reasons: what lowers it, and what would raise it.

    A choice that only replaces a better method, which is blocked here, is never high: the probability is about what can
    be measured here.

    Args:
        profile: the situation.
        ranking: the methods, best first.
        probability: of the first of them.
        also: arms beside the methods that should be measured, with reasons.
    """
    lowers = tuple(_lowers(profile, ranking, probability.doubts))
    raises = tuple(_raises(profile, ranking, probability, also))
    parts = [
        f"on decisions that no rule had seen, the advice was right in {unseen_text()}",
        *([f"less sure because {', '.join(lowers)}"] if lowers else []),
        *([f"more sure with {', '.join(raises)}"] if raises else []),
    ]
    level = level_of(probability.value)
    return Confidence("medium" if level == "high" and better_blocked(ranking) else level, "; ".join(parts))


def unseen_text() -> str:
    """Return how often advice was right on decisions that no rule had seen, with the 95 % interval (Wilson 1927)."""
    return f"{UNSEEN_RIGHT} of {UNSEEN} (.71, .65 to .77)"


def level_of(probability: float) -> Level:
    """Return the word for a probability, 0 to 1."""
    return "high" if probability >= HIGH_FROM else "low" if probability < LOW_BELOW else "medium"


def _lowers(profile: Profile, ranking: Ranking, doubts: AdviceDoubts) -> Iterator[str]:
    """Yield what lowers the probability by more than :data:`SMALL_DOUBT`, the most first."""
    choice = ranking.methods[0].method.name
    missing = missing_answers(profile, choice)
    unknown, verb = " and ".join(missing), "is" if len(missing) == 1 else "are"
    texts = {
        "close_rival": f"{_closest(profile, ranking)} is close behind",
        "unknown_answers": "" if doubts.unknown_decides else f"{unknown} {verb} not known",
        "unknown_decides": f"the choice depends on {unknown}, which {verb} not known",
        "stable_facts": "facts that never change can also be put in the prompt or trained"
        if profile.facts_change
        else "it is not known whether the facts change",
        "few_examples": _few_text(profile),
        "unused_hardware": "there is a GPU that could train",
        "full_of_large_model": "LoRA usually does as well on a model of this size",
        "rival_classifier": "a classifier may do better",
        "rival_long_context": "all documents in one prompt may do better",
    }
    taken = [
        (getattr(COEFFICIENTS, part.name) * getattr(doubts, part.name), part.name)
        for part in fields(AdviceDoubts)
    ]
    for size, name in sorted(taken, reverse=True):
        if size >= SMALL_DOUBT and texts[name]:
            yield texts[name]
    if better := better_blocked(ranking):
        yield f"{better.method.name} would fit better but cannot be done here"


def _raises(
    profile: Profile, ranking: Ranking, probability: AdviceProbability, also: Mapping[str, str]
) -> Iterator[str]:
    """Yield what the user can do about it, each with the probability that it would give where that is known."""
    doubts, choice = probability.doubts, ranking.methods[0].method.name
    trial = has_files(profile)

    def with_less(**less: float) -> str:
        value = probability_of(replace(doubts, **less), trial)
        return f" ({value:.2f})" if value - probability.value >= 0.005 else ""

    if unknown := missing_answers(profile, choice):
        yield f"an answer to {' and '.join(unknown)}{with_less(unknown_answers=0.0, unknown_decides=0.0)}"
    if doubts.few_examples * COEFFICIENTS.few_examples >= SMALL_DOUBT:
        yield f"{enough_examples(profile):,} examples{with_less(few_examples=0.0)}"
    if also:
        yield f"measuring {' and '.join(also)}{with_less(rival_classifier=0.0, rival_long_context=0.0)}"
    close = math.exp(-1) <= doubts.close_rival
    if close or doubts.unused_hardware:
        yield f"measuring {choice} against {_closest(profile, ranking)}"


def _closest(profile: Profile, ranking: Ranking) -> str:
    """Return the name of the best rival of the first method; "another method" without one."""
    best = max(rivals(profile, ranking), key=lambda scored: scored.sum, default=None)
    return best.method.name if best else "another method"


def _few_text(profile: Profile) -> str:
    """Return how many examples there are, as a reason for doubt; "" where that is among the unknown answers."""
    n = profile.labelled_examples
    return "" if n is None else f"{n:,} examples are not many"
