"""Rungs that make a training run take less memory: 4 bits, checkpoints, shorter rows, a smaller optimiser."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from advisor.methods.base import Method
from advisor.methods.hybrid import Hybrid
from advisor.methods.lora import Lora
from advisor.profile import Profile
from advisor.ranking import Scored
from advisor.rental import use
from advisor.rung import Rung, rules_of
from advisor.tokens import training_setup
from runners.memory import estimate, smallest

SHORT_ROWS = (4096, 2048, 1024, 512, 256)


def savings(p: Profile, method: Method) -> Iterator[Rung]:
    """Name what the chosen way of tuning fits only with: a base in 4 bits, gradient checkpointing."""
    tuned = _tuned(method, p)
    shape, room = p.model_shape, p.device_gib
    if tuned is None or shape is None or room is None:
        return
    way = use(tuned)
    spare = smallest(shape, way, training_setup(p))
    whole = smallest(shape, "lora", training_setup(p))
    if way == "qlora" and whole.fits(room) != "yes":
        yield Rung(
            f"a base in 4 bits: {whole.likely:.1f} GiB become {spare.likely:.1f}", method.name,
            "steps that are 2 to 105 % slower in published runs", settings={"method": "qlora"},
        )  # fmt: skip
    plain = estimate(shape, way, replace(training_setup(p), checkpointing=False))
    if plain.fits(room) == "no" and spare.fits(room) != "no":
        yield Rung(
            f"gradient checkpointing: {plain.likely:.1f} GiB become {spare.likely:.1f}", method.name,
            "about a third more time (6P+2P FLOPs a token)", settings={"checkpointing": True},
        )  # fmt: skip


def shorter(p: Profile, scored: Scored) -> Iterator[Rung]:
    """Shorter rows, and for full tuning an optimiser that keeps less, where memory is all that forbids it."""
    shape, room, name = p.model_shape, p.device_gib, scored.method.name
    if shape is None or room is None or rules_of(scored) != {"BL002"}:
        return
    way = use(name)
    for tokens in (n for n in SHORT_ROWS if n < training_setup(p).seq_len):
        need = smallest(shape, way, replace(training_setup(p), seq_len=tokens))
        if need.fits(room) != "no":
            yield Rung(
                f"cap rows at {tokens} tokens: {need.likely:.1f} GiB", name,
                "longer rows are cut or left out", settings={"max_tokens": tokens},
            )  # fmt: skip
            break
    if way == "full":
        need = smallest(shape, way, replace(training_setup(p), optimizer="adamw_8bit"))
        if need.fits(room) != "no":
            yield Rung(
                f"an 8-bit optimiser: {need.likely:.1f} GiB", name, "somewhat noisier steps",
                settings={"optimizer": "adamw_8bit"},
            )  # fmt: skip


def _tuned(method: Method, p: Profile) -> str | None:
    if isinstance(method, Hybrid):
        by = method.tuned_by(p)
        return by.name if by else None
    return method.name if isinstance(method, Lora) else None
