"""When something forbids a better method: the smallest steps that would allow it, and what each costs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from advisor.confidence import siblings
from advisor.cost import out_of_pocket, rented
from advisor.facts import models
from advisor.hours import USUAL_CARD_GIB
from advisor.methods.base import Method
from advisor.methods.hybrid import Hybrid
from advisor.methods.lora import Lora
from advisor.outlook import spans
from advisor.profile import Profile
from advisor.ranking import Ranking, Scored, rank
from advisor.tokens import training_setup
from runners.memory import Use, estimate, smallest

SHORT_ROWS = (4096, 2048, 1024, 512, 256)
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
    that only fits with gradient checkpointing has that named first. What memory or time forbids is worth a
    change only where it would be better than the choice; another base is named once, for the best method, and
    not to train a smaller one in a finer way.
    """
    first = ranking.methods[0]
    found = list(_savings(p, first.method))
    for scored in sorted((s for s in ranking.methods if s.blockers), key=lambda s: -s.sum):
        if scored.sum > first.sum:
            found += _shorter(p, scored)
            if not siblings(first, scored) and not any("model" in rung.set for rung in found):
                found += _other_base(p, scored)
            found += _rented_cards(p, scored)
        found += [rung for rung in _rungs(p, scored) if rung not in found]
    return tuple(rung.to_json() for rung in found)


def _savings(p: Profile, method: Method) -> Iterator[Rung]:
    """Name what the chosen way of tuning fits only with: a base in 4 bits, gradient checkpointing."""
    tuned = _tuned(method, p)
    shape, room = p.model_shape, p.device_gib
    if tuned is None or shape is None or room is None:
        return
    use = _use(tuned)
    spare = smallest(shape, use, training_setup(p))
    whole = smallest(shape, "lora", training_setup(p))
    if use == "qlora" and whole.fits(room) != "yes":
        yield Rung(
            f"a base in 4 bits: {whole.likely:.1f} GiB become {spare.likely:.1f}", method.name,
            "steps that are 2 to 105 % slower in published runs", settings={"method": "qlora"},
        )  # fmt: skip
    plain = estimate(shape, use, replace(training_setup(p), checkpointing=False))
    if plain.fits(room) == "no" and spare.fits(room) != "no":
        yield Rung(
            f"gradient checkpointing: {plain.likely:.1f} GiB become {spare.likely:.1f}", method.name,
            "about a third more time (6P+2P FLOPs a token)", settings={"checkpointing": True},
        )  # fmt: skip


def _rungs(p: Profile, scored: Scored) -> Iterator[Rung]:
    """Yield what would lift a method's blockers of data and money, for those that can be lifted."""
    name = scored.method.name
    rules = _rules(scored)
    if rules & {"BL001", "BL007", "BL008"}:
        yield from _examples(p, name)
    if "BL005" in rules and (usd := out_of_pocket(p, _use(name))):
        budget = math.ceil(usd.high)
        yield from _checked(p, name, f"raise the budget to {budget:,} USD", "the money", budget_usd=budget)
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
    """Shorter rows, and for full tuning an optimiser that keeps less, where memory is all that forbids it."""
    shape, room, name = p.model_shape, p.device_gib, scored.method.name
    if shape is None or room is None or _rules(scored) != {"BL002"}:
        return
    use = _use(name)
    for tokens in (n for n in SHORT_ROWS if n < training_setup(p).seq_len):
        need = smallest(shape, use, replace(training_setup(p), seq_len=tokens))
        if need.fits(room) != "no":
            yield Rung(
                f"cap rows at {tokens} tokens: {need.likely:.1f} GiB", name,
                "longer rows are cut or left out", settings={"max_tokens": tokens},
            )  # fmt: skip
            break
    if use == "full":
        need = smallest(shape, use, replace(training_setup(p), optimizer="adamw_8bit"))
        if need.fits(room) != "no":
            yield Rung(
                f"an 8-bit optimiser: {need.likely:.1f} GiB", name, "somewhat noisier steps",
                settings={"optimizer": "adamw_8bit"},
            )  # fmt: skip


def _other_base(p: Profile, scored: Scored) -> Iterator[Rung]:
    """The largest base with which it would be chosen here: of the same family, else of any.

    Smaller than the one that does not fit, or local instead of one behind an endpoint; where the hardware is
    not known, one that a usual card holds.
    """
    name, blocked = scored.method.name, _rules(scored)
    remote = "BL004" in blocked
    if not remote and not blocked & {"BL002", "BL003"}:
        return
    known = models.find(p.model) if p.model else None
    most = math.inf if remote else p.params_b or 0
    others = sorted((m for m in models.models() if m.params_b < most), key=lambda m: -m.params_b)
    room = p.device_gib or USUAL_CARD_GIB
    for model in (*(models.siblings(known) if known else ()), *others):
        if smallest(model.shape, _use(name), training_setup(p)).fits(room) == "no":
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
        if rung := next(_checked(p, name, relax, cost, **change), None):
            yield rung
            return


def _rented_cards(p: Profile, scored: Scored) -> Iterator[Rung]:
    """The fewest rented cards that hold it, with their hours and price; none where the data must stay local."""
    if not _rules(scored) & {"BL002", "BL003"}:
        return
    name = scored.method.name
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
            relax = f"{more:,} more example{'s' if more > 1 else ''} ({total:,} in all)"
            yield Rung(relax, name, cost, set={"labelled_examples": total})
            return


def _rules(scored: Scored) -> set[str]:
    return {blocker.rule for blocker in scored.blockers}


def _tuned(method: Method, p: Profile) -> str | None:
    if isinstance(method, Hybrid):
        by = method.tuned_by(p)
        return by.name if by else None
    return method.name if isinstance(method, Lora) else None


def _use(name: str) -> Use:
    return "full" if name == "full" else "qlora" if name == "qlora" else "lora"
