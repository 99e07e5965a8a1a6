"""The work behind `tunewise estimate`: what is asked for, and the estimate with hours and money."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

from advisor import training_time
from advisor.answers import Answers
from advisor.cost import Range, training_hours, training_tokens, training_usd
from advisor.facts import gpus, models
from advisor.gather import detected_hardware, with_machine
from advisor.naming import closest
from advisor.profile import Profile
from rag.errors import BadInput, UsageProblem
from runners import figures
from runners.footprint import Setup, Use
from runners.machine import Machine, detect
from runners.memory import Memory, Shape
from runners.memory import estimate as estimate_memory
from runners.shape import read_shape, shape_of

USES: Mapping[str, Use] = {
    "full": "full", "lora": "lora", "qlora": "qlora", "hybrid": "lora", "inference": "inference",
    "prompting": "inference", "few-shot": "inference", "rag": "inference",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to estimate and on what; everything about the run itself is a :class:`Setup`."""

    model: str | None = None
    config: Path | None = None
    params_b: float | None = None
    method: str | None = None
    devices: int | None = None
    gpu: str | None = None
    gpu_memory: float | None = None
    examples: int | None = None
    tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Estimated:
    """An estimate with what it was made for; hours and money are None where no data were named."""

    name: str
    method: str
    memory: Memory
    device: str
    device_gib: float | None
    hours: Range | None
    usd: Range | None
    notes: tuple[str, ...]
    """What was assumed beyond the memory's own assumptions."""

    def to_json(self) -> dict[str, Any]:
        """Return the object of product.md, with what it was made for."""
        return {
            "schema": 1, "model": self.name, "method": self.method,
            "memory_gib": self.memory.to_json(self.device_gib),
            "hours": self.hours.to_json() if self.hours else None,
            "usd": self.usd.to_json() if self.usd else None,
            "device": self.device, "notes": list(self.notes),
            "device_gib": None if self.device_gib is None else round(self.device_gib, 2),
        }  # fmt: skip


def estimate(wanted: Wanted, setup: Mapping[str, Any], machine: Machine | None = None) -> Estimated:
    """Estimate memory, hours and money; ``machine`` is looked at when no card is named.

    Raises UsageProblem without a method or with two models, BadInput for a name or value that is not known.
    """
    if wanted.method is None:
        raise UsageProblem("estimate needs --method", f"one of {', '.join(USES)}; or --rows FILE")
    use = USES.get(wanted.method)
    if use is None:
        raise BadInput(f"unknown method {wanted.method!r}", _meant(wanted.method, USES))
    name, shape, notes = _shape(wanted)
    card = _card(wanted.gpu) if wanted.gpu else None
    p, device = _profile(wanted, shape, card, machine)
    asked = replace(_setup(setup), devices=p.devices, device_gib=p.device_gib)
    if use in ("full", "lora") and asked.weights in ("nf4", "nf4-dq"):
        raise BadInput(f"{wanted.method} cannot train on {asked.weights} weights", "use --method qlora")
    known = models.find(name)
    if known and asked.seq_len > known.context:
        notes += (f"{asked.seq_len} tokens are more than the {known.context:,} this model reads",)
    memory = estimate_memory(shape, use, asked)
    spent, usd = (None, None) if use == "inference" else _spent(p, shape, use, card)
    if spent:
        notes += (f"{training_tokens(p):,.0f} training tokens",)
    return Estimated(name, wanted.method, memory, device, p.device_gib, spent, usd, notes)


def _shape(wanted: Wanted) -> tuple[str, Shape, tuple[str, ...]]:
    given = [x for x in (wanted.model, wanted.config, wanted.params_b) if x is not None]
    if len(given) > 1:
        raise UsageProblem("--model, --config and --params-b exclude each other", "give one of them")
    if wanted.params_b is not None:
        if not 0.001 <= wanted.params_b <= 10_000:
            raise BadInput(
                f"--params-b {wanted.params_b:g} is not between 0.001 and 10,000", "in billions: 7 is 7 B"
            )
        return f"{wanted.params_b:g} B", shape_of(wanted.params_b), ()
    name = wanted.model or models.DEFAULT
    known = models.find(name) if wanted.config is None else None
    if known:
        return known.name, known.shape, () if wanted.model else (f"{name} was assumed: no model was given",)
    place = wanted.config or Path(name).expanduser()
    file = place / "config.json" if place.is_dir() else place
    if wanted.config is None and not file.is_file():
        meant = closest(name)
        hint = f"did you mean {meant}? " if meant else ""
        raise BadInput(f"the shape of {name!r} is not known", f"{hint}give --config FILE or --params-b SIZE")
    return str(place), _read(file), ()


def _read(file: Path) -> Shape:
    try:
        found = json.loads(file.read_text("utf-8"))
    except OSError as error:
        raise BadInput(f"{file} cannot be read: {error.strerror}", "check --config") from None
    except ValueError:
        raise BadInput(f"{file} is not readable JSON", "give a model's config.json") from None
    if not isinstance(found, dict):
        raise BadInput(f"{file} is not a model's config", "give a model's config.json")
    return read_shape(found)


def _card(name: str) -> gpus.Gpu:
    """Return the card of this name, or the only one whose name holds all its words."""
    if found := gpus.find(name):
        return found
    words = set(name.casefold().split())
    alike = [gpu for gpu in gpus.gpus() if words and words <= set(gpu.name.casefold().split())]
    if len(alike) == 1:
        return alike[0]
    if alike:
        which = ", ".join(gpu.name for gpu in alike)
        raise BadInput(f"there are {len(alike)} cards called {name!r}", f"say which: {which}")
    raise BadInput(f"unknown card {name!r}", _meant(name, [gpu.name for gpu in gpus.gpus()]))


def _profile(
    wanted: Wanted, shape: Shape, card: gpus.Gpu | None, machine: Machine | None
) -> tuple[Profile, str]:
    """Return the situation that hours and money are counted for, and the device's name."""
    given: dict[str, Any] = {"model_params_b": shape.params / 1e9, "labelled_examples": wanted.examples,
                             "unlabelled_tokens": wanted.tokens, "gpu_count": wanted.devices}  # fmt: skip
    memory = wanted.gpu_memory or (card.memory_gib if card else None)
    if memory:
        given |= {"gpu_kind": card.kind if card else "cuda", "gpu_memory_gib": memory,
                  "gpu_count": wanted.devices or 1}  # fmt: skip
    answers = Answers().put("flag", {key: str(value) for key, value in given.items() if value is not None})
    if memory:
        p = Profile.of(answers, None, shape)
    else:
        machine = machine or detect(Path("runs"))
        answers = with_machine(answers, machine)
        p = Profile.of(answers, None, shape, *detected_hardware(answers, machine))
    if p.device_gib is None:
        return p, "unknown memory"
    here = card.name if card else "a GPU" if memory else "this machine"
    several = f"{p.devices} GPUs" if memory and not card else f"{p.devices} x {here}"
    each = several if p.devices > 1 else here
    return p, f"{each} ({p.device_gib:.3g} GiB{' each' if p.devices > 1 else ''})"


def _spent(p: Profile, shape: Shape, use: str, card: gpus.Gpu | None) -> tuple[Range | None, Range | None]:
    """Return hours and USD of training: on the named card at its rent, else on the situation's hardware."""
    if not (p.examples_known or p.raw_text):
        return None, None
    if card is None:
        spent = training_hours(p, use)
        return spent, training_usd(p, spent)
    spent = training_time.hours_on(p, shape, use, training_time.of_cards((card,), p.devices))
    rent = None if card.usd_hour is None else card.usd_hour * p.devices
    return spent, None if rent is None else spent.times(rent, rent, rent)


def _setup(given: Mapping[str, Any]) -> Setup:
    """Return the setup of the flags; BadInput names a value that is not allowed."""
    hints = get_type_hints(Setup)
    values = dict(given)
    try:
        values["targets"] = figures.targets(values.get("targets") or "all")
    except ValueError as error:
        raise BadInput(f"--targets {given['targets']}: {error}") from None
    for key, value in values.items():
        allowed = [x for part in (hints[key], *get_args(hints[key])) for x in get_args(part)]
        names = [x for x in allowed if isinstance(x, str)]
        if names and value is not None and value not in names:
            raise BadInput(f"unknown --{key.replace('_', '-')} {value!r}", _meant(str(value), names))
    return Setup(**values)


def _meant(name: str, known: Any) -> str:
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.4)
    return (f"did you mean {close[0]}? " if close else "") + f"known: {', '.join(known)}"
