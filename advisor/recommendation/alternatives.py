"""Relaxations: the smallest changes that would allow a better method that is blocked, and their cost.

:func:`relaxations` is the entry point. A relaxation changes answers (another base model, rented GPUs, more
examples, a larger budget, documents) or settings of the training step that take less memory (4 bits, gradient
checkpointing, shorter rows, a smaller optimiser).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from advisor.costs.rental import cheapest_rental, memory_use_of, training_cost
from advisor.costs.tokens import device_plan, plan_group, training_setup
from advisor.costs.training_time import USUAL_CARD_GIB
from advisor.methods.base import Method
from advisor.methods.hybrid import Hybrid
from advisor.methods.tuning import Lora
from advisor.questionnaire.profile import Profile
from advisor.recommendation.confidence import same_family
from advisor.recommendation.ranking import Ranking, ScoredMethod, first_choice
from advisor.recommendation.thresholds import choice_spans
from runners.catalog import models
from runners.plan.train_config import TUNING_METHODS
from runners.resources.memory_estimate import estimate_memory, smallest_memory
from runners.resources.memory_terms import OptimizerKind

SHORT_ROWS = (4096, 2048, 1024, 512, 256)
"""Row lengths in tokens that are tried, longest first."""
SMALLER_OPTIMISERS: tuple[tuple[OptimizerKind, str, str], ...] = (
    ("adamw_8bit", "an 8-bit optimiser", "training is somewhat less exact"),
    ("adafactor", "Adafactor as optimiser", "it learns more slowly"),
)
"""Optimisers of full tuning that hold less, the one that costs least first; 8 bits are the default from 1 B on."""
MINUTES_PER_EXAMPLE = 5
"""Minutes to write and check one good example by hand; a guess to be replaced by your own."""


@dataclass(frozen=True, slots=True)
class Relaxation:
    """One relaxation: its description, the method it allows, its cost, and how to apply it."""

    relax: str
    then: str
    cost: str
    set: dict[str, Any] = field(default_factory=dict)
    """Answers to change; with these the engine chooses ``then``."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Settings of the training step that would make it fit, where no answer changes."""

    def to_json(self) -> dict[str, Any]:
        """Return the relaxation as the recommendation prints it."""
        return {
            "relax": self.relax,
            "then": self.then,
            "cost": self.cost,
            "set": self.set,
            "settings": self.settings,
        }


def checked_relaxation(
    profile: Profile, name: str, relax: str, cost: str, **change: Any
) -> Iterator[Relaxation]:
    """Yield the relaxation if the ranking really chooses the method after the change, or another way of tuning for one."""
    after = profile
    for key, value in change.items():
        after = after.change(key, value)
    choice = first_choice(after).choice
    if choice == name or {choice, name} <= set(TUNING_METHODS):
        yield Relaxation(relax, choice, cost, set=change)


def blocking_rules(scored: ScoredMethod) -> set[str]:
    """Return the codes of a method's blockers."""
    return {blocker.rule for blocker in scored.blockers}


def relax_by_other_base(profile: Profile, scored: ScoredMethod) -> Iterator[Relaxation]:
    """Yield the largest base with which the method would be chosen here: of the same family, else of any.

    It is smaller than the one that does not fit, or local instead of one behind an endpoint. Where the
    hardware is not known, it has to fit a usual GPU. No mixture of experts, which most adapters leave as they are.
    """
    name = scored.method.name
    blocked = blocking_rules(scored)
    remote = "BL004" in blocked
    if not remote and not blocked & {"BL002", "BL003"}:
        return
    current = models.find_model(profile.model) if profile.model else None
    max_params_b = math.inf if remote else profile.params_b or 0
    by_size = sorted(
        (candidate for candidate in models.known_models() if candidate.params_b < max_params_b),
        key=lambda candidate: -candidate.params_b,
    )
    available = profile.device_gib or USUAL_CARD_GIB
    for model in (*(models.smaller_siblings(current) if current else ()), *by_size):
        if model.shape is None or model.shape.experts > 1:
            continue
        _, need = plan_group(model.shape, memory_use_of(name), training_setup(profile), profile)
        if need.fits(available) == "no":
            continue
        relax = f"fine-tune a smaller model: {model.name}"
        cost = "a weaker model to begin with"
        if remote:
            relax = f"fine-tune a local model: {model.name}"
            cost = "its answers may be weaker than the hosted model's"
        elif profile.params_b:
            cost += f": {model.params_b:.2g} B instead of {profile.params_b:.3g} B"
        change = {"model": model.name, "model_params_b": round(model.params_b, 4)}
        if relaxation := next(checked_relaxation(profile, name, relax, cost, **change), None):
            yield relaxation
            return


def relax_by_renting(profile: Profile, scored: ScoredMethod) -> Iterator[Relaxation]:
    """Yield the rented machine that likely costs least, with hours; none where data must stay local."""
    if not blocking_rules(scored) & {"BL002", "BL003"}:
        return
    name = scored.method.name
    rental = (
        None if profile.data_must_stay_local else cheapest_rental(profile, memory_use_of(name), several=True)
    )
    if rental is None:
        return
    card = rental.card
    count = rental.count
    change = {"gpu_kind": "cuda", "gpu_count": count, "gpu_memory_gib": card.memory_gib}
    card_price = (
        f"{card.usd_hour:.2f} USD an hour each, as of {card.day:%Y-%m}" if card.usd_hour else "no price"
    )
    cost = f"about {rental.hours.likely:.2g} h, {rental.usd.likely:,.2f} USD with setting up ({card_price})"
    if count > 1:
        cost += f", sharded with --launcher torchrun --gpus-per-node {count}"
    yield from checked_relaxation(profile, name, f"rent {count} x {card.name}", cost, **change)


def memory_savings(profile: Profile, method: Method) -> Iterator[Relaxation]:
    """Yield the settings that the chosen tuning method needs to fit: 4 bits, gradient checkpointing."""
    tuned = _tuning_method(method, profile)
    shape = profile.model_shape
    available = profile.device_gib
    if tuned is None or shape is None or available is None:
        return
    use = memory_use_of(tuned)
    plan = device_plan(profile, use)
    checkpointed, lora = plan.memory, device_plan(profile, "lora").memory
    if use == "qlora" and lora.fits(available) != "yes":
        yield Relaxation(
            f"store the base model in 4 bits: {lora.likely:.1f} GiB become {checkpointed.likely:.1f}",
            method.name,
            "training is 2 to 105 % slower in published runs",
            settings={"method": "qlora"},
        )
    setup = replace(training_setup(profile), devices=profile.devices, parallel=plan.parallel)
    without_checkpointing = estimate_memory(shape, use, replace(setup, checkpointing=False))
    if without_checkpointing.fits(available) == "no" and checkpointed.fits(available) != "no":
        yield Relaxation(
            f"gradient checkpointing: {without_checkpointing.likely:.1f} GiB become {checkpointed.likely:.1f}",
            method.name,
            "about a third more time",
            settings={"checkpointing": True},
        )


def relax_by_shorter_rows(profile: Profile, scored: ScoredMethod) -> Iterator[Relaxation]:
    """Yield shorter rows, and for full tuning a smaller optimiser, where only memory blocks a method."""
    shape = profile.model_shape
    available = profile.device_gib
    name = scored.method.name
    if shape is None or available is None or blocking_rules(scored) != {"BL002"}:
        return
    use = memory_use_of(name)
    for tokens in (n for n in SHORT_ROWS if n < training_setup(profile).seq_len):
        _, need = plan_group(shape, use, replace(training_setup(profile), seq_len=tokens), profile)
        if need.fits(available) != "no":
            yield Relaxation(
                f"leave out rows over {tokens} tokens: {need.likely:.1f} GiB",
                name,
                "longer examples are not learnt from",
                settings={"max_tokens": tokens},
            )
            break
    # On one GPU: training refuses these optimisers where the weights are sharded.
    for optimizer, relax, cost in SMALLER_OPTIMISERS if use == "full" else ():
        need = smallest_memory(shape, use, replace(training_setup(profile), optimizer=optimizer))
        if need.fits(available) != "no":
            yield Relaxation(f"{relax}: {need.likely:.1f} GiB", name, cost, settings={"optimizer": optimizer})
            break


def relaxations(profile: Profile, ranking: Ranking) -> tuple[dict[str, Any], ...]:
    """Return the relaxations that would allow the best blocked method, smallest first.

    Each one that changes answers was tried: with them the engine chooses the method it names. A tuning method
    that only fits with gradient checkpointing has that named first. Relaxations of memory or time are listed
    only for methods that would be better than the choice; another base is named once, for the best method,
    and not to train a smaller model with a finer method. Methods that cannot give the wanted kind of answer have none.
    """
    first = ranking.methods[0]
    options = list(memory_savings(profile, first.method))
    for scored in sorted(
        (scored for scored in ranking.shown if scored.blockers), key=lambda scored: -scored.sum
    ):
        if scored.sum > first.sum:
            options += relax_by_shorter_rows(profile, scored)
            if not same_family(first, scored) and not any(
                "model" in relaxation.set for relaxation in options
            ):
                options += relax_by_other_base(profile, scored)
            rented = relax_by_renting(profile, scored)
            # Of several ways to tune that one rented machine allows, the engine chooses one.
            options += [
                way
                for way in rented
                if way.then != first.method.name and all(way.set != other.set for other in options)
            ]
        options += [relaxation for relaxation in _lift_blockers(profile, scored) if relaxation not in options]
    return tuple(relaxation.to_json() for relaxation in options)


def _tuning_method(method: Method, profile: Profile) -> str | None:
    """Return the tuning method behind a method, None for one that trains nothing."""
    if isinstance(method, Hybrid):
        by = method.tuned_by(profile)
        return by.name if by else None
    return method.name if isinstance(method, Lora) else None


def _lift_blockers(profile: Profile, scored: ScoredMethod) -> Iterator[Relaxation]:
    """Yield what would lift a method's blockers of data and money, for those that can be lifted."""
    name = scored.method.name
    rules = blocking_rules(scored)
    if rules & {"BL001", "BL007", "BL008"}:
        yield from _more_examples(profile, name)
    if "BL005" in rules and (usd := training_cost(profile, memory_use_of(name))):
        budget = math.ceil(usd.high)
        yield from checked_relaxation(
            profile, name, f"raise the budget to {budget:,} USD", "the money", budget_usd=budget
        )
    if "BL006" in rules:
        yield from checked_relaxation(
            profile, name, "bring documents", "collecting and cleaning them", corpus_tokens=None
        )


def _more_examples(profile: Profile, name: str) -> Iterator[Relaxation]:
    """Yield the smallest number of examples with which it would be chosen, written by hand or distilled."""
    for span in choice_spans(profile, "labelled_examples"):
        if span.choice == name and span.low > profile.examples_known:
            total = int(span.low)
            more = total - profile.examples_known
            hours = more * MINUTES_PER_EXAMPLE / 60
            cost = f"about {hours:,.1f} h of writing at {MINUTES_PER_EXAMPLE} minutes each"
            if not profile.data_must_stay_local and profile.hosted_api_allowed is not False and more > 20:
                cost += ", or let a larger model draft them and check a sample"
            relax = f"{more:,} more example{'s' if more > 1 else ''} ({total:,} in all)"
            yield Relaxation(relax, name, cost, set={"labelled_examples": total})
            return
