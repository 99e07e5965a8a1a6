"""When something forbids a better method: the smallest steps that would allow it, and what each costs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from advisor.cost import out_of_pocket, rented
from advisor.facts import models
from advisor.methods.base import Method
from advisor.methods.hybrid import Hybrid
from advisor.methods.lora import Lora
from advisor.outlook import spans
from advisor.profile import Profile
from advisor.ranking import Ranking, Scored, rank
from runners.memory import Setup, Use, estimate, smallest

SHORT_ROWS = (512, 256)
MINUTES_PER_EXAMPLE = 5
"""Writing and checking one good example by hand; a guess to be replaced by your own."""


@dataclass(frozen=True, slots=True)
class Rung:
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
        return {"relax": self.relax, "then": self.then, "cost": self.cost, "set": self.set,
                "settings": self.settings}  # fmt: skip


def ladder(p: Profile, ranking: Ranking) -> tuple[dict[str, Any], ...]:
    """Return the relaxations that would open the best forbidden method, smallest first.

    Each rung that changes answers was tried: with them the engine chooses what the rung opens. A tuning method
    that only fits with gradient checkpointing has that named first.
    """
    first = ranking.methods[0]
    found = list(_savings(p, first.method))
    blocked = sorted((s for s in ranking.methods if s.blockers), key=lambda s: -s.sum)
    for scored in blocked:
        if scored.sum > first.sum:
            found += _shorter(p, scored)
        found += [rung for rung in _rungs(p, scored) if rung not in found]
    return tuple(rung.to_json() for rung in found)


def _savings(p: Profile, method: Method) -> Iterator[Rung]:
    """Name gradient checkpointing where the chosen way of tuning fits only with it."""
    tuned = _tuned(method, p)
    shape, room = p.model_shape, p.device_gib
    if tuned is None or shape is None or room is None:
        return
    use = _use(tuned)
    spare = smallest(shape, use, Setup(devices=p.devices))
    plain = estimate(shape, use, Setup(devices=p.devices, checkpointing=False))
    if plain.fits(room) == "no" and spare.fits(room) != "no":
        yield Rung(
            f"gradient checkpointing: {plain.likely:.1f} GiB become {spare.likely:.1f}", method.name,
            "about a third more time (6P+2P FLOPs a token)", settings={"checkpointing": True},
        )  # fmt: skip


def _rungs(p: Profile, scored: Scored) -> Iterator[Rung]:
    """Yield what would lift a method's blockers, for those that can be lifted."""
    name = scored.method.name
    rules = {blocker.rule for blocker in scored.blockers}
    if rules & {"BL002", "BL003"}:
        yield from _smaller(p, name)
        yield from _rent(p, name)
    if rules & {"BL001", "BL007", "BL008"}:
        yield from _examples(p, name)
    if "BL004" in rules:
        yield from _local(p, name)
    if "BL005" in rules and (usd := out_of_pocket(p, _use(name))):
        yield from _checked(
            p, name, f"raise the budget to {usd.high:,.0f} USD", "the money", budget_usd=usd.high
        )
    if "BL006" in rules:
        yield from _checked(p, name, "bring documents", "collecting and cleaning them", corpus_tokens=None)


def _checked(p: Profile, name: str, relax: str, cost: str, **change: Any) -> Iterator[Rung]:
    """Yield the rung when the engine really chooses the method after the change."""
    after = p
    for key, value in change.items():
        after = after.change(key, value)
    if rank(after).choice == name:
        yield Rung(relax, name, cost, set=change)


def _shorter(p: Profile, scored: Scored) -> Iterator[Rung]:
    """Shorter rows, and for full tuning an optimiser that keeps less."""
    shape, room, name = p.model_shape, p.device_gib, scored.method.name
    if shape is None or room is None or "BL002" not in {blocker.rule for blocker in scored.blockers}:
        return
    use = _use(name)
    for tokens in SHORT_ROWS:
        need = smallest(shape, use, Setup(devices=p.devices, seq_len=tokens))
        if need.fits(room) != "no":
            yield Rung(
                f"cap rows at {tokens} tokens: {need.likely:.1f} GiB", name,
                "longer rows are cut or left out", settings={"max_tokens": tokens},
            )  # fmt: skip
            break
    if use == "full":
        need = smallest(shape, use, Setup(devices=p.devices, optimizer="adamw_8bit"))
        if need.fits(room) != "no":
            yield Rung(
                f"an 8-bit optimiser: {need.likely:.1f} GiB", name, "somewhat noisier steps",
                settings={"optimizer": "adamw_8bit"},
            )  # fmt: skip


def _smaller(p: Profile, name: str) -> Iterator[Rung]:
    """The largest smaller base with which it would be chosen: of the same family, else of any."""
    known = models.find(p.model) if p.model else None
    family = models.siblings(known) if known else ()
    others = sorted((m for m in models.models() if m.params_b < (p.params_b or 0)), key=lambda m: -m.params_b)
    for model in (*family, *others):
        cost = f"a weaker model to begin with: {model.params_b:.2g} B instead of {p.params_b:.3g} B"
        change = {"model": model.name, "model_params_b": round(model.params_b, 4)}
        if rungs := list(_checked(p, name, f"tune a smaller base: {model.name}", cost, **change)):
            yield from rungs
            return


def _rent(p: Profile, name: str) -> Iterator[Rung]:
    """The rented machine on which it likely costs least, with its hours and their price."""
    found = None if p.data_must_stay_local else rented(p, _use(name))
    if found is None:
        return
    card, count = found.card, found.count
    change = {"gpu_kind": "cuda", "gpu_count": count, "gpu_memory_gib": card.memory_gib}
    each = f"{card.usd_hour:.2f} USD an hour each, as of {card.day:%Y-%m}" if card.usd_hour else "no price"
    cost = f"about {found.hours.likely:.2g} h, {found.usd.likely:,.2f} USD with setting up ({each})"
    yield from _checked(p, name, f"rent {count} x {card.name}", cost, **change)


def _examples(p: Profile, name: str) -> Iterator[Rung]:
    """The smallest number of examples with which it would be chosen, written by hand or distilled."""
    for span in spans(p, "labelled_examples"):
        if span.choice == name and span.low > p.examples_known:
            total = int(span.low)
            more = total - p.examples_known
            hours = more * MINUTES_PER_EXAMPLE / 60
            cost = f"about {hours:,.1f} h of writing at {MINUTES_PER_EXAMPLE} minutes each"
            if not p.data_must_stay_local and p.hosted_api_allowed is not False and more > 20:
                cost += ", or let a larger model draft them and check a sample"
            yield Rung(
                f"{more:,} more examples ({total:,} in all)", name, cost, set={"labelled_examples": total}
            )
            return


def _local(p: Profile, name: str) -> Iterator[Rung]:
    """The largest known base that can be tuned here instead of a remote model."""
    cost = "its answers may be weaker than the hosted model's"
    for model in sorted(models.models(), key=lambda m: -m.params_b):
        change = {"model": model.name, "model_params_b": round(model.params_b, 4)}
        if rungs := list(_checked(p, name, f"tune a local base: {model.name}", cost, **change)):
            yield from rungs
            return


def _tuned(method: Method, p: Profile) -> str | None:
    if isinstance(method, Hybrid):
        by = method.tuned_by(p)
        return by.name if by else None
    return method.name if isinstance(method, Lora) else None


def _use(name: str) -> Use:
    return "full" if name == "full" else "qlora" if name == "qlora" else "lora"
