"""Which base models the wizard offers, what each can do on this machine, and which packages a method is missing here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec

from advisor.catalog import prices
from advisor.methods.registry import METHOD_BY_NAME
from advisor.questionnaire.answers import Answers
from advisor.questionnaire.profile import Profile
from runners.catalog import models
from runners.catalog.models import ModelFacts
from runners.models.availability import ModelAvailability, find_availability
from runners.models.endpoint import PROVIDERS, api_key
from runners.models.registry import find_known_model
from runners.plan.train_config import TUNING_METHODS
from runners.resources.machine import Machine

MOST_ON_CPU_B = 9.0
"""Billions of parameters that a CPU reads for each token; a larger model takes seconds for one and is not listed."""
MOST_TUNED, MOST_ASKED, MOST_CLOSED = 5, 2, 2
_SIZE_BLOCKERS = ("BL002", "BL003")
"""Blockers caused by the size of the model: memory, and days of training without a GPU."""


NEEDED_PACKAGES: Mapping[str, tuple[str, ...]] = {
    "lora": ("torch", "peft"),
    "qlora": ("torch", "peft", "bitsandbytes"),
    "full": ("torch",),
    "hybrid": ("torch", "peft"),
}
"""The packages without which a method cannot be run."""


@dataclass(frozen=True, slots=True)
class ModelOffer:
    """One model of the list: what can be done with it, or why it cannot be chosen (``closed``)."""

    name: str
    text: str
    closed: str = ""
    tunable: bool = False
    availability: ModelAvailability | None = None

    @property
    def rank(self) -> int:
        """Order by where the model would come from: here, then what can be fetched, then the rest."""
        if self.availability is None or not self.availability.obtainable:
            return 2
        return 0 if self.availability.state == "here" else 1


def model_offers(profile: Profile, lacking: Mapping[str, str]) -> tuple[ModelOffer, ...]:
    """Return the models to offer: the current one, those that can be tuned here, some to ask only, and closed ones.

    In each group those on this machine come first, then those that can be fetched, then those that cannot; within that the
    largest. Any other model can be typed instead.

    Args:
        profile: the situation.
        lacking: the methods for which a package is missing.
    """
    known = sorted(
        (model for model in models.known_models() if model.name in {*models.OFFERED_MODELS, profile.model}),
        key=lambda model: -model.params_b,
    )
    profiles = [(replace_model(profile, model), model) for model in known]
    offers = [
        _offer(each, model, lacking)
        for each, model in profiles
        if model.name == profile.model
        or each.has_gpu is not False
        or (each.active_params_b or 0) <= MOST_ON_CPU_B
    ]
    current = [
        offer
        for offer in offers
        if offer.name == (profile.model or models.DEFAULT_MODEL) and not offer.closed
    ]
    others = sorted(
        (offer for offer in offers if not offer.closed and offer not in current), key=lambda offer: offer.rank
    )
    tunable = [offer for offer in others if offer.tunable][:MOST_TUNED]
    ask_only = [offer for offer in others if not offer.tunable][:MOST_ASKED]
    closed = [offer for offer in offers if offer.closed][-MOST_CLOSED:]
    return (*current, *tunable, *ask_only, *reversed(closed))


def replace_model(profile: Profile, model: ModelFacts) -> Profile:
    """Return the same situation with another model, whose own size counts."""
    return replace(profile, model=model.name, model_params_b=round(model.params_b, 4), shape=model.shape)


def is_installed(package: str) -> bool:
    """Return whether a package could be imported; it is not imported."""
    return find_spec(package) is not None


def missing_packages(answers: Answers, have: Callable[[str], bool] = is_installed) -> dict[str, str]:
    """Return, for each method that is missing a package, what it needs; {} when the answers describe another machine.

    Args:
        answers: the answers.
        have: whether a package is installed.
    """
    described = any(answers.from_person(key) for key in ("gpu_kind", "gpu_count", "gpu_memory_gib"))
    if answers.value("runs_on") not in (None, "here") or described:
        return {}
    missing = {
        method: [name for name in names if not have(name)] for method, names in NEEDED_PACKAGES.items()
    }
    return {method: f"needs {', '.join(names)}, missing" for method, names in missing.items() if names}


def _offer(profile: Profile, model: ModelFacts, lacking: Mapping[str, str]) -> ModelOffer:
    size = f"{model.params_b:.3g} B"
    memory = METHOD_BY_NAME["prompting"].estimate(profile).memory
    needs = f"{memory.likely:.0f} GiB, " if memory else ""
    if memory and profile.device_gib and memory.fits(profile.device_gib) == "no":
        memory_kind = "RAM" if profile.has_gpu is False else "GPU"
        return ModelOffer(
            model.name, size, f"needs {memory.low:.1f} GiB, the {memory_kind} gives {profile.device_gib:.1f}"
        )
    fitting = [
        name
        for name in sorted(TUNING_METHODS)
        if not any(blocker.rule in _SIZE_BLOCKERS for blocker in METHOD_BY_NAME[name].blocked(profile))
        and name not in lacking
    ]
    verb = "fits" if len(fitting) == 1 else "fit"
    abilities = f"{', '.join(fitting)} {verb}" if fitting else "too large to tune"
    if len(fitting) == len(TUNING_METHODS):
        abilities = "any tuning fits"
    where = find_availability(model.name)
    return ModelOffer(
        model.name,
        f"{size:<8} {needs}{model.licence}, {where.text}; {abilities}",
        tunable=bool(fitting),
        availability=where,
    )


def hosted_offers(profile: Profile) -> tuple[ModelOffer, ...]:
    """Return the hosted models with a known price, those first whose key is in the environment.

    Args:
        profile: the situation; a provider's models are closed where data must stay local.
    """
    offers = []
    for price in prices.known_prices():
        for start, address, variable in PROVIDERS:
            if not price.model.startswith(start) or "shuts down" in price.source:
                continue
            key = api_key(address)
            key_text = f"key in {key.variable}" if key.value else f"no key: set {variable}"
            text = f"{price.input:.2f} / {price.output:.2f} USD per million tokens in / out; {key_text}"
            closed = "the data must stay on your own machines" if profile.data_must_stay_local else ""
            offers.append((not key.value, ModelOffer(f"openai:{price.model}@{address}", text, closed)))
    return tuple(offer for _, offer in sorted(offers, key=lambda pair: pair[0]))


def machine_text(machine: Machine) -> str:
    """Return what was found on a machine, in a line: cores, memory, GPUs and free disk."""
    cores, ram, disk = machine.cpu_cores.value, machine.ram_gib.value, machine.disk_gib.value
    gpu = "no GPU"
    if machine.gpu_count.value:
        memory = machine.gpu_memory_gib.value
        gpu = f"{machine.gpu_count.value} x {machine.gpu_name.value or machine.gpu_kind.value}"
        gpu += f" with {memory:.0f} GiB" if memory else ""
    parts = [f"{cores} cores" if cores else "", f"{ram:.0f} GiB memory" if ram else "", gpu]
    return ", ".join(filter(None, [*parts, f"{disk:.0f} GiB free disk" if disk else ""]))


def doubt_about(name: str) -> str:
    """Return why a plan on a model cannot be run here as things are, with the way out; "" when it can, or is unknown."""
    where = find_availability(name)
    if where.state == "blocked":
        size = f" ({where.size})" if where.size else ""
        return (
            f"{name} is not on this machine: it is {where.hub}{size} of the model hub, which is not allowed"
        )
    if where.state == "hub" and find_known_model(name) is None:
        return f"{name} is not on this machine: a run first fetches {where.size or 'it'} from the model hub"
    return ""
