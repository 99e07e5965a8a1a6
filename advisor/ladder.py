"""When something forbids a better method: the smallest steps that would allow it, and what each costs."""

from __future__ import annotations

from typing import Any

from advisor.facts import gpus, models
from advisor.profile import Profile
from advisor.ranking import Ranking, rank
from runners.memory import Setup, Use, smallest

LARGE_CARD = {"gpu_kind": "cuda", "gpu_count": 1, "gpu_memory_gib": 288}
# For each blocker the changes to try, smallest first: does lifting it make a forbidden method the choice?
LIFTED: dict[str, tuple[dict[str, Any], ...]] = {
    "BL007": ({"labelled_examples": 5},),
    "BL001": tuple({"labelled_examples": n} for n in (50, 200, 1000)),
    "BL002": (LARGE_CARD,),
    "BL003": (LARGE_CARD,),
    "BL004": ({"model": None},),
    "BL005": ({"budget_usd": None},),
    "BL006": ({"corpus_tokens": None},),
}


def ladder(p: Profile, ranking: Ranking) -> tuple[dict[str, Any], ...]:
    """Return the relaxations that would make a forbidden method the choice, smallest first."""
    blocked = {s.method.name: {blocker.rule for blocker in s.blockers} for s in ranking.methods if s.blockers}
    found: list[dict[str, Any]] = []
    for rule, changes in LIFTED.items():
        if not any(rule in rules for rules in blocked.values()):
            continue
        for change in changes:
            becomes = _choose(p, change)
            if rule in blocked.get(becomes, ()):
                found += [rung for rung in _rungs(p, becomes, rule, change) if rung not in found]
                break
    return tuple(found)


def _choose(p: Profile, change: dict[str, Any]) -> str:
    for key, value in change.items():
        p = p.change(key, value)
    return rank(p).choice


def _rungs(p: Profile, name: str, rule: str, change: dict[str, Any]) -> list[dict[str, Any]]:
    if rule == "BL001":
        total = change["labelled_examples"]
        more = total - p.examples_known
        return [
            _rung(f"collect {more:,} more examples ({total:,} in all)", name, "writing or collecting them")
        ]
    if rule in ("BL002", "BL003"):
        return _smaller(p, name) + _rent(p, name)
    words = {
        "BL004": ("name a local base model", "its answers may be weaker than the hosted model's"),
        "BL005": ("raise budget_usd", "the money"),
        "BL006": ("bring documents", "collecting and cleaning them"),
        "BL007": ("write five examples by hand", "an hour"),
    }
    relax, cost = words[rule]
    return [_rung(relax, name, cost)]


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
