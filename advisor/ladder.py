"""When something forbids a better method: the smallest steps that would allow it, and what each costs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from advisor.facts import gpus, models
from advisor.profile import Profile
from runners.memory import Setup, Use, smallest

if TYPE_CHECKING:
    from advisor.engine import Ranking, Scored


def ladder(p: Profile, ranking: Ranking) -> tuple[dict[str, Any], ...]:
    """Return the relaxations, smallest first, for the forbidden method that would have been chosen."""
    first = ranking.methods[0]
    better = [s for s in ranking.methods if s.blockers and s.sum > first.sum]
    if not better:
        return ()
    best = max(better, key=lambda s: s.sum)
    found: list[dict[str, Any]] = []
    for blocker in best.blockers:
        found += _relax(p, best, blocker.rule)
    return tuple(found)


def _relax(p: Profile, best: Scored, rule: str) -> list[dict[str, Any]]:
    name = best.method.name
    if rule == "BL001":
        n = p.labelled_examples or 0
        return [
            _rung(
                f"collect {50 - n} more examples (50 in all)", name, "some days of writing; gains begin at 50"
            )
        ]
    if rule in ("BL002", "BL003"):
        return _smaller(p, name) + _rent(p, name)
    if rule == "BL004":
        return [_rung("name a local base model", name, "its answers may be weaker than the hosted model's")]
    if rule == "BL005":
        return [_rung("raise budget_usd", name, best.blockers[0].text)]
    if rule == "BL006":
        return [_rung("bring documents", name, "collecting and cleaning them")]
    return [_rung("write three to five examples by hand", name, "an hour")]


def _smaller(p: Profile, name: str) -> list[dict[str, Any]]:
    """Offer the largest known model that would fit where this one does not."""
    use = _use(name)
    room = p.device_gib
    if room is None:
        return []
    fitting = [
        m for m in models.MODELS
        if m.params_b < (p.params_b or 0)
        and smallest(m.shape, use, Setup(devices=p.devices)).fits(room) == "yes"
    ]  # fmt: skip
    if not fitting or (p.has_gpu is False and min(m.params_b for m in fitting) > 3):
        return []
    limit = 3.0 if p.has_gpu is False else float("inf")
    largest = max((m for m in fitting if m.params_b <= limit), key=lambda m: m.params_b)
    return [
        _rung(
            f"tune a smaller base: {largest.name} ({largest.params_b:.2g} B)",
            name,
            "a weaker model to begin with",
        )
    ]


def _rent(p: Profile, name: str) -> list[dict[str, Any]]:
    """Offer the cheapest card on which it would fit, by the hour."""
    shape = p.model_shape
    if shape is None or p.data_must_stay_local:
        return []
    need = smallest(shape, _use(name), Setup()).high
    cards = sorted((g for g in gpus.GPUS if g.memory_gib >= need), key=lambda g: g.usd_hour)
    if not cards:
        return []
    card = cards[0]
    return [
        _rung(f"rent one {card.name}", name, f"about {card.usd_hour:.2f} USD an hour ({gpus.DATE} prices)")
    ]


def _use(name: str) -> Use:
    return "full" if name == "full" else "qlora" if name == "qlora" else "lora"


def _rung(relax: str, then: str, cost: str) -> dict[str, Any]:
    return {"relax": relax, "then": then, "cost": cost}
