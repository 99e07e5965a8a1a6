"""Several models side by side: which can be used here at all, which is expected best, and in which order they are asked."""

from __future__ import annotations

from collections.abc import Mapping

from advisor.costs.hosting import answering_memory_of, served_locally
from advisor.costs.tokens import PROMPT_TOKENS
from advisor.costs.trial_price import is_hosted, price_of_tokens
from advisor.questionnaire.profile import Profile
from advisor.recommendation.recommend import BaseRecommendation
from advisor.verdict.trial_forecast import asked_in_trial, expected_right
from rag.errors import BadInput
from runners.models.endpoint import api_key, endpoint_host, key_hint
from runners.models.resolve import parse_remote
from runners.plan.data import PlanData
from runners.plan.steps import PlanModel


def best_model(usable: Mapping[str, BaseRecommendation]) -> str:
    """Return the alias of the model that is expected best.

    It is the one whose advised arm has the largest expected share of right answers, where a probe or trials of the like give
    one for every model; else the largest model. An endpoint of unknown size counts as larger than all models here, and of
    several such the one with the highest list price. Of equals it is the first named.
    """
    likely: dict[str, float] = {}
    for alias, advice in usable.items():
        questions = advice.profile.question_count or 0
        right = expected_right([advice.choice], advice.profile, asked_in_trial(questions, 0, PlanData())[0])[
            advice.choice
        ]
        if right:
            likely[alias] = float(right["likely"])
    if len(likely) == len(usable):
        return max(usable, key=lambda alias: likely[alias])
    return max(usable, key=lambda alias: _size_rank(usable[alias].profile))


def _size_rank(profile: Profile) -> tuple[bool, float, float]:
    """Return what sorts models by size: endpoints of unknown size last, by their price."""
    unknown = profile.remote and not _params_b(profile)
    price = price_of_tokens(PlanModel(name=str(profile.model))) if unknown else None
    return unknown, _params_b(profile), price.written if price else 0.0


def _params_b(profile: Profile) -> float:
    """Return the parameters of a model in billions, behind an endpoint as its name has them; 0 where unknown."""
    facts = profile.model_facts
    return profile.params_b or (facts.params_b if facts else 0.0)


def asking_order(profile: Profile) -> tuple[bool, bool, float]:
    """Return what sorts models as they are asked: local ones by size, those of unknown size after them, then endpoints."""
    price = price_of_tokens(PlanModel(name=str(profile.model))) if profile.remote else None
    size = _params_b(profile)
    return profile.remote, not profile.remote and not size, price.written if price else size


def unusable_because(profile: Profile) -> str:
    """Return why a model cannot be used in any way, as the end of a sentence about it; "" where it can, or is not known."""
    remote = parse_remote(str(profile.model))
    if remote is not None:
        host = endpoint_host(remote.url)
        if is_hosted(PlanModel(name=str(profile.model))):
            if profile.data_must_stay_local:
                return f"would send the data to {host}, and they must stay on your own machines"
            if profile.hosted_api_allowed is False:
                return f"is at {host}, and no model of a provider may be called"
        return ""
    memory = answering_memory_of(profile, "none", int(profile.prompt_tokens or PROMPT_TOKENS))
    if memory is None or profile.device_gib is None or served_locally(profile):
        return ""
    return f"does not fit here: to answer it needs {memory.low:.1f} GiB or more, and there are {profile.device_gib:.1f}"


def key_note(name: str) -> str:
    """Return that no key is set for the host of a model at a public address, and how to set it; "" where none is missing."""
    remote = parse_remote(name)
    if remote is None:
        return ""
    try:
        missing = is_hosted(PlanModel(name=name)) and not api_key(remote.url).value
    except BadInput as problem:
        return f"{problem.message}; {problem.hint}"
    return f"no key is set for {endpoint_host(remote.url)}: {key_hint(remote.url)}" if missing else ""
