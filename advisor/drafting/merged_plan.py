"""One plan that compares several models, made of the plans that each of them would have by itself.

What the models share is there once: data, prompts, checks, weights, the index with its embedder, and arms that ask no model.
An arm that asks one is named METHOD@ALIAS. Local models come one after another, the smallest first, so that each is loaded
once; then endpoints.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from advisor.costs.arm_costs import cheaper_arms, only_explains
from advisor.costs.trial_price import with_list_price
from runners.plan.arm_names import arm_name, split_arm
from runners.plan.schema import Plan, PlanGate, Step, parse_plan, with_seeds
from runners.plan.steps import EvaluateStep, TrainStep


def merge_plans(plans: Mapping[str, Plan], chosen: str, most_usd: float | None = None) -> Plan:
    """Return the plan with all arms of several plans, each tuned arm with one seed.

    Answers may be as long as in the plan that allows most, and have as much reasoning before them.

    Args:
        plans: the plan of each model by its alias, in the order in which the models are to be asked.
        chosen: the alias whose plan gives what is shared, and the choice.
        most_usd: what a run may spend.
    """
    models = {alias: with_list_price(plan.model) for alias, plan in plans.items()}
    own = plans[chosen]
    shared: dict[Any, Step] = {}
    arms: list[Step] = []
    for alias, plan in plans.items():
        for step in _one_seed(plan).steps:
            if isinstance(step, TrainStep) or (isinstance(step, EvaluateStep) and not step.without_model):
                arms.append(_renamed(step, alias, plan))
            else:
                shared.setdefault((step.kind, getattr(step, "arm", "")), step)
    thinking = max((plan.thinking for plan in plans.values()), key=lambda t: (t.enabled, t.max_tokens))
    return own.model_copy(
        update={
            "models": models,
            "model": models[chosen],
            "most_usd": most_usd,
            "choice": _name(own.choice, chosen, own),
            "steps": (*shared.values(), *arms),
            "max_new_tokens": max(plan.max_new_tokens for plan in plans.values()),
            "thinking": thinking,
        }
    )


def needed_arms(plan: Plan, arm: str) -> tuple[str, ...]:
    """Return an arm with those that it needs asked too: both arms of a router."""
    step = next(step for step in plan.arms if step.arm == arm)
    return tuple(part.arm for part in plan.with_routed([step]))


def with_arms_only(plan: Plan, arms: Collection[str]) -> Plan:
    """Return a plan with these arms and what they need: the index, its tuned embedder, weights and those started from."""
    answering = plan.with_routed([step for step in plan.arms if step.arm in arms])
    weights = {step.weights for step in answering if step.weights}
    for step in reversed(plan.steps):
        if isinstance(step, TrainStep) and step.arm in weights and step.start_from:
            weights.add(step.start_from)
    trained = [step for step in plan.steps if isinstance(step, TrainStep) and step.arm in weights]
    kinds = (
        {"index"}
        if any(s.retrieval for s in answering) or any(s.rows == "retrieval" for s in trained)
        else set()
    )
    kinds |= {"embedder"} if any(step.retriever == "tuned" for step in answering) else set()
    steps = tuple(step for step in plan.steps if step.kind in kinds or step in trained or step in answering)
    return plan.model_copy(update={"steps": steps})


def with_choice(plan: Plan, choice: str, predicted: Mapping[str, Any], answers: Mapping[str, Any]) -> Plan:
    """Return a checked plan with its choice, the gate for it, the prediction and the answers that it records.

    The gate: the choice must beat every arm that costs less: one with fewer parts to make and keep
    (:func:`advisor.costs.arm_costs.cheaper_arms`) whose model is the same, or stands before it in the plan.
    """
    order = list(plan.models)
    _, alias = split_arm(choice)
    last = order.index(alias) if alias else -1
    cheaper = [
        arm
        for arm in cheaper_arms(plan.steps, choice)
        if not only_explains(arm) and ("@" not in arm or order.index(split_arm(arm)[1]) <= last)
    ]
    models = {"model": plan.models[alias]} if alias else {}
    changed = plan.model_copy(
        update={
            "choice": choice,
            "gate": PlanGate(must_beat=tuple(cheaper)),
            "predicted": dict(predicted),
            **models,
        }
    )
    body = changed.model_dump(mode="json", by_alias=True) | {"answers": dict(answers)}
    return parse_plan(body, "the drafted plan")


def _one_seed(plan: Plan) -> Plan:
    """Return a plan that trains each arm once; a second seed is decided for the arms of all models together."""
    return with_seeds(plan, 1) if any(isinstance(step, TrainStep) for step in plan.steps) else plan


def _renamed(step: TrainStep | EvaluateStep, alias: str, plan: Plan) -> Step:
    """Return a step of one model's plan under its name in the plan of several."""
    changes: dict[str, Any] = {"arm": _name(step.arm, alias, plan)}
    if isinstance(step, TrainStep):
        changes |= {"start_from": _name(step.start_from, alias, plan)}
    else:
        changes |= {"weights": _name(step.weights, alias, plan)}
        if step.route:
            otherwise = _name(step.route.otherwise, alias, plan)
            changes |= {"route": step.route.model_copy(update={"otherwise": otherwise})}
    return step.model_copy(update=changes)


def _name(arm: str | None, alias: str, plan: Plan) -> str | None:
    """Return the name of an arm of one model's plan in the plan of several: one that asks no model keeps its own."""
    if arm is None or any(step.arm == arm and step.without_model for step in plan.arms):
        return arm
    return arm_name(arm, alias)
