"""From answers to a recommendation in one call: what the verbs use, and what Python calls ``advisor.recommend``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import date
from pathlib import Path
from typing import Any

from advisor.drafting.draft import draft_plan
from advisor.questionnaire.answers import Answers
from advisor.questionnaire.gather import Situation, check_model, complete_situation, with_answers_of
from advisor.questionnaire.profile import Profile
from advisor.recommendation import recommend as recommendation_recommend
from runners.plan.schema import Plan
from runners.resources.machine import Machine


@dataclass(frozen=True, slots=True)
class Recommendation(recommendation_recommend.BaseRecommendation):
    """The ranking with everything a person needs to judge it, which can become a plan."""

    def plan(self, name: str = "") -> Plan:
        """Return the plan that measures this recommendation: :func:`advisor.draft_plan`."""
        return draft_plan(self, name)


def recommend(
    answers: Mapping[str, Any] | Path | str | Profile,
    *,
    machine: Machine | None = None,
    today: date | None = None,
) -> Recommendation:
    """Recommend a method for answers: a mapping of question ids to values, an answers file, or a plan.

    Files that the answers name are counted and the machine is detected (``machine`` describes another one), as
    ``tunewise plan --yes`` does; a ready-made profile is taken as it is. ``today`` decides how old prices are
    said to be. Raises BadInput for an unknown question, an impossible value, or files that are missing or broken.
    """
    if isinstance(answers, Profile):
        return _with_plan(recommendation_recommend.recommend_for_profile(answers, today))
    if isinstance(answers, str | Path):
        answers = with_answers_of(Answers(), Path(answers))
    if not isinstance(answers, Answers):
        plain = {key: str(value) if isinstance(value, Path) else value for key, value in answers.items()}
        answers = Answers().put("flag", plain)
        if "model" in answers:
            check_model(answers["model"].value)
    situation = complete_situation(answers, machine)
    return _with_plan(recommendation_recommend.recommend_for_profile(situation.profile, today), situation)


def _with_plan(
    recommendation: recommendation_recommend.BaseRecommendation, situation: Situation | None = None
) -> Recommendation:
    """Return the recommendation, made from a situation, as the class that has `plan`: the engine knows no plans."""
    values = {field.name: getattr(recommendation, field.name) for field in fields(recommendation)}
    return Recommendation(**{**values, "situation": situation})
