"""From answers to a recommendation in one call: used by the commands, and public as ``advisor.recommend``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from advisor.drafting.draft import draft_plan
from advisor.history import own_decided_trials
from advisor.questionnaire.answers import Answers
from advisor.questionnaire.gather import check_model, complete_situation, with_answers_of
from advisor.questionnaire.profile import Profile
from advisor.recommendation.recommend import BaseRecommendation
from runners.plan.schema import Plan
from runners.resources.machine import Machine


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommendation(BaseRecommendation):
    """The ranking with reasons, estimates and what would change it; it can become a plan."""

    def plan(self, name: str = "") -> Plan:
        """Return the plan that measures this recommendation: :func:`advisor.draft_plan`."""
        return draft_plan(self, name)


def recommend(
    answers: Mapping[str, Any] | Path | str | Profile,
    *,
    machine: Machine | None = None,
    today: date | None = None,
) -> Recommendation:
    """Recommend a method for answers.

    Files that the answers name are counted and the machine is detected, as ``tunewise plan --yes`` does. The rate of right
    advice is moved by the decided trials of the history.

    Args:
        answers: a mapping of question ids to values, an answers file or a plan, or a profile, which is taken
            as it is.
        machine: the machine to plan for; by default this one is detected.
        today: the day from which the age of prices is counted.

    Raises:
        BadInput: for an unknown question, an invalid value, or files that are missing or broken.
    """
    own = own_decided_trials()
    if isinstance(answers, Profile):
        return Recommendation.of(answers, today, own=own)
    if isinstance(answers, str | Path):
        answers = with_answers_of(Answers(), Path(answers))
    if not isinstance(answers, Answers):
        plain = {key: str(value) if isinstance(value, Path) else value for key, value in answers.items()}
        answers = Answers().put("flag", plain)
        if "model" in answers:
            check_model(answers["model"].value)
    situation = complete_situation(answers, machine)
    return Recommendation.of(situation.profile, today, situation, own)
