"""Rungs that leave the model or the machine: another base, or rented cards."""

from __future__ import annotations

import math
from collections.abc import Iterator

from advisor.cost import rented
from advisor.facts import models
from advisor.profile import Profile
from advisor.ranking import Scored
from advisor.rental import use
from advisor.rung import Rung, checked, rules_of
from advisor.tokens import training_setup
from advisor.training_time import USUAL_CARD_GIB
from runners.memory import smallest


def other_base(p: Profile, scored: Scored) -> Iterator[Rung]:
    """The largest base with which it would be chosen here: of the same family, else of any.

    Smaller than the one that does not fit, or local instead of one behind an endpoint; where the hardware is
    not known, one that a usual card holds.
    """
    name, blocked = scored.method.name, rules_of(scored)
    remote = "BL004" in blocked
    if not remote and not blocked & {"BL002", "BL003"}:
        return
    known = models.find(p.model) if p.model else None
    most = math.inf if remote else p.params_b or 0
    others = sorted((m for m in models.models() if m.params_b < most), key=lambda m: -m.params_b)
    room = p.device_gib or USUAL_CARD_GIB
    for model in (*(models.siblings(known) if known else ()), *others):
        if smallest(model.shape, use(name), training_setup(p)).fits(room) == "no":
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
        if rung := next(checked(p, name, relax, cost, **change), None):
            yield rung
            return


def rented_cards(p: Profile, scored: Scored) -> Iterator[Rung]:
    """The rented machine on which it likely costs least, with hours and price; none where data must stay local."""
    if not rules_of(scored) & {"BL002", "BL003"}:
        return
    name = scored.method.name
    found = None if p.data_must_stay_local else rented(p, use(name))
    if found is None:
        return
    card, count = found.card, found.count
    change = {"gpu_kind": "cuda", "gpu_count": count, "gpu_memory_gib": card.memory_gib}
    each = f"{card.usd_hour:.2f} USD an hour each, as of {card.day:%Y-%m}" if card.usd_hour else "no price"
    cost = f"about {found.hours.likely:.2g} h, {found.usd.likely:,.2f} USD with setting up ({each})"
    yield from checked(p, name, f"rent {count} x {card.name}", cost, **change)
