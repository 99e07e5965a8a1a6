"""Rungs that leave the model or the machine: another base, or rented cards.

A rung of the ladder: one relaxation, the method it opens, and what it costs.

Rungs that make a training run take less memory: 4 bits, checkpoints, shorter rows, a smaller optimiser.

When something forbids a better method: the smallest steps that would allow it, and what each costs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from advisor.catalog import models
from advisor.costs.rental import cheapest_rental, memory_use_of, training_cost
from advisor.costs.tokens import training_setup
from advisor.costs.training_time import USUAL_CARD_GIB
from advisor.methods.base import Method
from advisor.methods.hybrid import Hybrid
from advisor.methods.tuning import Lora
from advisor.questionnaire.profile import Profile
from advisor.recommendation.confidence import same_family
from advisor.recommendation.ranking import Ranking, ScoredMethod, rank_methods
from advisor.recommendation.thresholds import choice_spans
from runners.resources.memory_estimate import estimate_memory, smallest_memory


@dataclass(frozen=True, slots=True)
class Relaxation:
    """One relaxation: in words, the method it opens, its price, and how to apply it."""

    relax: str
    then: str
    cost: str
    set: dict[str, Any] = field(default_factory=dict)
    """Answers that would change; with these the engine chooses ``then``."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Settings of the training step that would make it fit, where no answer changes."""

    def to_json(self) -> dict[str, Any]:
        """Return the rung as the recommendation prints it."""
        return {
            "relax": self.relax,
            "then": self.then,
            "cost": self.cost,
            "set": self.set,
            "settings": self.settings,
        }


def checked_relaxation(p: Profile, name: str, relax: str, cost: str, **change: Any) -> Iterator[Relaxation]:
    """Yield the rung when the engine really chooses the method after the change."""
    after = p
    for key, value in change.items():
        after = after.change(key, value)
    if rank_methods(after).choice == name:
        yield Relaxation(relax, name, cost, set=change)


def blocking_rules(scored: ScoredMethod) -> set[str]:
    """Return the codes of what blocks a method."""
    return {blocker.rule for blocker in scored.blockers}


def relax_by_other_base(p: Profile, scored: ScoredMethod) -> Iterator[Relaxation]:
    """The largest base with which it would be chosen here: of the same family, else of any.

    Smaller than the one that does not fit, or local instead of one behind an endpoint; where the hardware is
    not known, one that a usual card holds.
    """
    name, blocked = scored.method.name, blocking_rules(scored)
    remote = "BL004" in blocked
    if not remote and not blocked & {"BL002", "BL003"}:
        return
    known = models.find_model(p.model) if p.model else None
    most = math.inf if remote else p.params_b or 0
    others = sorted((m for m in models.known_models() if m.params_b < most), key=lambda m: -m.params_b)
    room = p.device_gib or USUAL_CARD_GIB
    for model in (*(models.smaller_siblings(known) if known else ()), *others):
        if smallest_memory(model.shape, memory_use_of(name), training_setup(p)).fits(room) == "no":
            continue
        relax, cost = f"tune a smaller base: {model.name}", "a weaker model to begin with"
        if remote:
            relax, cost = (
                f"tune a local base: {model.name}",
                "its answers may be weaker than the hosted model's",
            )
        elif p.params_b:
            cost += f": {model.params_b:.2g} B instead of {p.params_b:.3g} B"
        change = {"model": model.name, "model_params_b": round(model.params_b, 4)}
        if rung := next(checked_relaxation(p, name, relax, cost, **change), None):
            yield rung
            return


def relax_by_renting(p: Profile, scored: ScoredMethod) -> Iterator[Relaxation]:
    """The rented machine on which it likely costs least, with hours and price; none where data must stay local."""
    if not blocking_rules(scored) & {"BL002", "BL003"}:
        return
    name = scored.method.name
    found = None if p.data_must_stay_local else cheapest_rental(p, memory_use_of(name))
    if found is None:
        return
    card, count = found.card, found.count
    change = {"gpu_kind": "cuda", "gpu_count": count, "gpu_memory_gib": card.memory_gib}
    each = f"{card.usd_hour:.2f} USD an hour each, as of {card.day:%Y-%m}" if card.usd_hour else "no price"
    cost = f"about {found.hours.likely:.2g} h, {found.usd.likely:,.2f} USD with setting up ({each})"
    yield from checked_relaxation(p, name, f"rent {count} x {card.name}", cost, **change)


SHORT_ROWS = (4096, 2048, 1024, 512, 256)


def memory_savings(p: Profile, method: Method) -> Iterator[Relaxation]:
    """Name what the chosen way of tuning fits only with: a base in 4 bits, gradient checkpointing."""
    tuned = _tuned(method, p)
    shape, room = p.model_shape, p.device_gib
    if tuned is None or shape is None or room is None:
        return
    way = memory_use_of(tuned)
    spare = smallest_memory(shape, way, training_setup(p))
    whole = smallest_memory(shape, "lora", training_setup(p))
    if way == "qlora" and whole.fits(room) != "yes":
        yield Relaxation(
            f"a base in 4 bits: {whole.likely:.1f} GiB become {spare.likely:.1f}",
            method.name,
            "steps that are 2 to 105 % slower in published runs",
            settings={"method": "qlora"},
        )
    plain = estimate_memory(shape, way, replace(training_setup(p), checkpointing=False))
    if plain.fits(room) == "no" and spare.fits(room) != "no":
        yield Relaxation(
            f"gradient checkpointing: {plain.likely:.1f} GiB become {spare.likely:.1f}",
            method.name,
            "about a third more time (6P+2P FLOPs a token)",
            settings={"checkpointing": True},
        )


def relax_by_shorter_rows(p: Profile, scored: ScoredMethod) -> Iterator[Relaxation]:
    """Shorter rows, and for full tuning an optimiser that keeps less, where memory is all that forbids it."""
    shape, room, name = p.model_shape, p.device_gib, scored.method.name
    if shape is None or room is None or blocking_rules(scored) != {"BL002"}:
        return
    way = memory_use_of(name)
    for tokens in (n for n in SHORT_ROWS if n < training_setup(p).seq_len):
        need = smallest_memory(shape, way, replace(training_setup(p), seq_len=tokens))
        if need.fits(room) != "no":
            yield Relaxation(
                f"cap rows at {tokens} tokens: {need.likely:.1f} GiB",
                name,
                "longer rows are cut or left out",
                settings={"max_tokens": tokens},
            )
            break
    if way == "full":
        need = smallest_memory(shape, way, replace(training_setup(p), optimizer="adamw_8bit"))
        if need.fits(room) != "no":
            yield Relaxation(
                f"an 8-bit optimiser: {need.likely:.1f} GiB",
                name,
                "somewhat noisier steps",
                settings={"optimizer": "adamw_8bit"},
            )


def _tuned(method: Method, p: Profile) -> str | None:
    if isinstance(method, Hybrid):
        by = method.tuned_by(p)
        return by.name if by else None
    return method.name if isinstance(method, Lora) else None


MINUTES_PER_EXAMPLE = 5
"""Writing and checking one good example by hand; a guess to be replaced by your own."""


def ladder(p: Profile, ranking: Ranking) -> tuple[dict[str, Any], ...]:
    """Return the relaxations that would open the best forbidden method, smallest first.

    Each rung that changes answers was tried: with them the engine chooses what the rung opens. A tuning method
    that only fits with gradient checkpointing has that named first. What memory or time forbids is worth a
    change only where it would be better than the choice; another base is named once, for the best method, and
    not to train a smaller one in a finer way.
    """
    first = ranking.methods[0]
    found = list(memory_savings(p, first.method))
    for scored in sorted((s for s in ranking.methods if s.blockers), key=lambda s: -s.sum):
        if scored.sum > first.sum:
            found += relax_by_shorter_rows(p, scored)
            if not same_family(first, scored) and not any("model" in rung.set for rung in found):
                found += relax_by_other_base(p, scored)
            found += relax_by_renting(p, scored)
        found += [rung for rung in _rungs(p, scored) if rung not in found]
    return tuple(rung.to_json() for rung in found)


def _rungs(p: Profile, scored: ScoredMethod) -> Iterator[Relaxation]:
    """Yield what would lift a method's blockers of data and money, for those that can be lifted."""
    name = scored.method.name
    rules = blocking_rules(scored)
    if rules & {"BL001", "BL007", "BL008"}:
        yield from _examples(p, name)
    if "BL005" in rules and (usd := training_cost(p, memory_use_of(name))):
        budget = math.ceil(usd.high)
        yield from checked_relaxation(
            p, name, f"raise the budget to {budget:,} USD", "the money", budget_usd=budget
        )
    if "BL006" in rules:
        yield from checked_relaxation(
            p, name, "bring documents", "collecting and cleaning them", corpus_tokens=None
        )


def _examples(p: Profile, name: str) -> Iterator[Relaxation]:
    """The smallest number of examples with which it would be chosen, written by hand or distilled."""
    for span in choice_spans(p, "labelled_examples"):
        if span.choice == name and span.low > p.examples_known:
            total = int(span.low)
            more = total - p.examples_known
            hours = more * MINUTES_PER_EXAMPLE / 60
            cost = f"about {hours:,.1f} h of writing at {MINUTES_PER_EXAMPLE} minutes each"
            if not p.data_must_stay_local and p.hosted_api_allowed is not False and more > 20:
                cost += ", or let a larger model draft them and check a sample"
            relax = f"{more:,} more example{'s' if more > 1 else ''} ({total:,} in all)"
            yield Relaxation(relax, name, cost, set={"labelled_examples": total})
            return
