"""The probability that a trial would not put another arm surely ahead of the advised one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from advisor.questionnaire.profile import Profile
from advisor.recommendation.ranking import Ranking

STEEPNESS = 1.0
"""Log odds for each unit of weight between two methods."""


@dataclass(frozen=True, slots=True)
class AdviceProbability:
    """How sure the advice is.

    Attributes:
        value: probability, 0 to 1, that a trial of at least 200 questions, or a published comparison, does not put
            another arm surely ahead of the advised one.
        shares: probability that an arm comes out best, by name: the feasible methods and the arms that should also be
            measured; they sum to 1.
    """

    value: float
    shares: Mapping[str, float]


def advice_probability(profile: Profile, ranking: Ranking, also: Mapping[str, str]) -> AdviceProbability:
    """Return how sure the first method of a ranking is.

    Args:
        profile: the situation.
        ranking: the methods, best first.
        also: arms beside the methods that should be measured, with reasons.
    """
    feasible = [scored for scored in ranking.methods if not scored.blockers]
    best = feasible[0].sum
    odds = {scored.method.name: math.exp(STEEPNESS * (scored.sum - best)) for scored in feasible}
    odds |= dict.fromkeys(also, math.exp(-STEEPNESS))
    total = sum(odds.values())
    shares = {name: value / total for name, value in odds.items()}
    return AdviceProbability(shares[ranking.choice], shares)
