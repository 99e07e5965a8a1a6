"""Which base models the wizard offers, and what each can be here: tuned, only asked, or too large.

The packages that a method needs and this machine lacks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec

from advisor.catalog import models
from advisor.catalog.models import ModelFacts
from advisor.methods.registry import METHOD_BY_NAME
from advisor.questionnaire.answers import Answers
from advisor.questionnaire.profile import Profile
from runners.plan.train_config import TUNING_METHODS

MOST_TUNED, MOST_ASKED, MOST_CLOSED = 5, 2, 2
_ROOM = ("BL002", "BL003")
"""Blockers that a model's size brings about: memory, and days without a GPU."""


@dataclass(frozen=True, slots=True)
class ModelOffer:
    """One model to choose: what can be done with it, or why it cannot be chosen."""

    name: str
    text: str
    closed: str = ""
    tunable: bool = False


def model_offers(p: Profile, lacking: Mapping[str, str]) -> tuple[ModelOffer, ...]:
    """Return the present model, the largest that can be tuned here, then only asked; the next ones are closed.

    ``lacking`` says which methods miss a package. Any other model can be typed.
    """
    known = sorted(models.known_models(), key=lambda model: -model.params_b)
    judged = [_judge(replace_model(p, model), model, lacking) for model in known]
    current = [
        offer for offer in judged if offer.name == (p.model or models.DEFAULT_MODEL) and not offer.closed
    ]
    others = [offer for offer in judged if not offer.closed and offer not in current]
    tuned = [offer for offer in others if offer.tunable][:MOST_TUNED]
    asked = [offer for offer in others if not offer.tunable][:MOST_ASKED]
    closed = [offer for offer in judged if offer.closed][-MOST_CLOSED:]
    return (*current, *tuned, *asked, *reversed(closed))


def replace_model(p: Profile, model: ModelFacts) -> Profile:
    """Return the same situation with another model, whose own size counts."""
    return replace(p, model=model.name, model_params_b=round(model.params_b, 4), shape=model.shape)


def _judge(p: Profile, model: ModelFacts, lacking: Mapping[str, str]) -> ModelOffer:
    size = f"{model.params_b:.3g} B"
    memory = METHOD_BY_NAME["prompting"].estimate(p).memory
    if memory and p.device_gib and memory.fits(p.device_gib) == "no":
        place = "RAM" if p.has_gpu is False else "GPU"
        return ModelOffer(
            model.name, size, f"needs {memory.low:.1f} GiB, the {place} gives {p.device_gib:.1f}"
        )
    fitting = [
        name
        for name in sorted(TUNING_METHODS)
        if not any(blocker.rule in _ROOM for blocker in METHOD_BY_NAME[name].blocked(p))
        and name not in lacking
    ]
    verb = "fits" if len(fitting) == 1 else "fit"
    can = f"{', '.join(fitting)} {verb}" if fitting else "too large to tune here"
    return ModelOffer(model.name, f"{size:<7} {model.licence:<11} {can}", tunable=bool(fitting))


NEEDED_PACKAGES: Mapping[str, tuple[str, ...]] = {
    "lora": ("torch", "peft"),
    "qlora": ("torch", "peft", "bitsandbytes"),
    "full": ("torch",),
    "hybrid": ("torch", "peft"),
}
"""The packages without which a method cannot be run here."""


def is_installed(package: str) -> bool:
    """Say whether a package could be imported; it is not imported."""
    return find_spec(package) is not None


def missing_packages(answers: Answers, have: Callable[[str], bool] = is_installed) -> dict[str, str]:
    """Return for each method that lacks a package what it needs; nothing when another machine is planned for."""
    elsewhere = ("gpu_kind", "gpu_count", "gpu_memory_gib")
    if any(
        key in answers and answers[key].source in ("flag", "file", "asked", "config") for key in elsewhere
    ):
        return {}
    lacks = {method: [name for name in names if not have(name)] for method, names in NEEDED_PACKAGES.items()}
    return {method: f"needs {', '.join(names)}, missing" for method, names in lacks.items() if names}
