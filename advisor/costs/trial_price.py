"""What the answers of a trial cost in money, before it runs: tokens of each arm times the price of its model.

The tokens are those of the plan's files and steps. Stated is the high end of the range in which the tokens of recorded calls
lay (:data:`advisor.costs.call_prices.CALL_RANGES`), so that a cap holds. A model on this machine, and one on a private
address, costs time and no money.
"""

from __future__ import annotations

from advisor.catalog import prices
from advisor.costs.call_prices import CALL_RANGES
from advisor.costs.step_time import corpus_tokens, passage_tokens
from advisor.costs.tokens import PROMPT_TOKENS, output_tokens, row_tokens
from advisor.questionnaire.profile import Profile
from runners.inference.servers.spending import TokenPrice, token_price
from runners.models.endpoint import is_private
from runners.models.resolve import parse_remote
from runners.plan.schema import Plan
from runners.plan.steps import EvaluateStep, PlanModel

FREE = TokenPrice(read=0.0, written=0.0)


def is_hosted(model: PlanModel) -> bool:
    """Return whether a model answers at a public address."""
    remote = parse_remote(model.name)
    return remote is not None and not is_private(remote.url)


def price_of_tokens(model: PlanModel) -> TokenPrice | None:
    """Return what a model's tokens cost: its own prices, else the list price; nothing where none is known.

    A model of this machine or of a private address is free: what it costs is time.
    """
    if own := token_price(model):
        return own
    remote = parse_remote(model.name)
    if remote is None or is_private(remote.url):
        return FREE
    listed = prices.find_price(remote.name)
    return None if listed is None else TokenPrice(read=listed.input, written=listed.output)


def with_list_price(model: PlanModel) -> PlanModel:
    """Return a hosted model with its list price, so that a run can count money; any other as it is."""
    price = price_of_tokens(model)
    if not is_hosted(model) or price is None:
        return model
    return model.model_copy(
        update={"usd_per_million_input": price.read, "usd_per_million_output": price.written}
    )


def arm_usd(plan: Plan, step: EvaluateStep, profile: Profile, asked: int) -> float | None:
    """Return the most that an arm's answers probably cost in a trial, in USD; None where its model has no known price.

    Args:
        plan: the plan.
        step: the arm.
        profile: the situation with the arm's model.
        asked: test questions with their wordings. An arm that chooses its prompt, or the cut of a router, is asked as many
            dev questions besides, within its budget.
    """
    if step.without_model:
        return 0.0
    answers = min(step.budget, asked) if step.route or step.chooses_prompt else 0
    answers += plan.refusal.dev_answers(step)
    if step.route:  # its test answers are those of its arms
        step = plan.routed(step)[1]
    else:
        answers += asked
    price = price_of_tokens(plan.model_of(step))
    if price is None:
        return None
    if step.looks_up:  # at most: what it takes by itself is not known before
        return answers * price.usd(step.lookups.tokens, output_tokens(profile))
    read = (profile.prompt_tokens or PROMPT_TOKENS) + step.shots * row_tokens(profile)
    if step.retrieval:
        read += corpus_tokens(plan) if step.passages == "all" else passage_tokens(plan)
    like = "rag" if step.retrieval else "few-shot" if step.shots else "prompting"
    return answers * CALL_RANGES[like].high * price.usd(read, output_tokens(profile))
