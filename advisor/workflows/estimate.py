"""The work behind `tunewise estimate`: what is asked for, and the estimate with hours and money.

How `tunewise estimate` prints what it found: an estimate's parts, or its score on measured peaks.
"""

from __future__ import annotations

import difflib
import inspect
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

from advisor.catalog import gpus, models
from advisor.costs import training_time
from advisor.costs.rental import training_usd
from advisor.costs.tokens import Range, training_tokens
from advisor.costs.training_time import training_hours
from advisor.output import emit_result
from advisor.questionnaire.answers import Answers
from advisor.questionnaire.gather import closest_model, detected_hardware, with_machine
from advisor.questionnaire.profile import Profile
from rag.errors import BadInput, UsageProblem
from runners.resources import memory_scores, memory_terms
from runners.resources.machine import Machine, detect_machine
from runners.resources.memory_estimate import MemoryEstimate, estimate_memory
from runners.resources.memory_terms import MemorySetup, MemoryUse
from runners.resources.model_shape import ModelShape, read_shape, typical_shape

MEMORY_USES: Mapping[str, MemoryUse] = {
    "full": "full",
    "lora": "lora",
    "qlora": "qlora",
    "hybrid": "lora",
    "inference": "inference",
    "prompting": "inference",
    "few-shot": "inference",
    "rag": "inference",
}


@dataclass(frozen=True, slots=True)
class EstimateRequest:
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
class EstimateResult:
    """An estimate with what it was made for; hours and money are None where no data were named."""

    name: str
    method: str
    memory: MemoryEstimate
    device: str
    device_gib: float | None
    hours: Range | None
    usd: Range | None
    notes: tuple[str, ...]
    """What was assumed beyond the memory's own assumptions."""

    def to_json(self) -> dict[str, Any]:
        """Return the object of product.md, with what it was made for."""
        return {
            "schema": 1,
            "model": self.name,
            "method": self.method,
            "memory_gib": self.memory.to_json(self.device_gib),
            "hours": self.hours.to_json() if self.hours else None,
            "usd": self.usd.to_json() if self.usd else None,
            "device": self.device,
            "notes": list(self.notes),
            "device_gib": None if self.device_gib is None else round(self.device_gib, 2),
        }


def estimate_request(
    wanted: EstimateRequest, setup: Mapping[str, Any], machine: Machine | None = None
) -> EstimateResult:
    """Estimate memory, hours and money; ``machine`` is looked at when no card is named.

    Raises UsageProblem without a method or with two models, BadInput for a name or value that is not known.
    """
    if wanted.method is None:
        raise UsageProblem("estimate needs --method", f"one of {', '.join(MEMORY_USES)}; or --rows FILE")
    use = MEMORY_USES.get(wanted.method)
    if use is None:
        raise BadInput(f"unknown method {wanted.method!r}", _meant(wanted.method, MEMORY_USES))
    name, shape, notes = _shape(wanted)
    card = _card(wanted.gpu) if wanted.gpu else None
    p, device = _profile(wanted, shape, card, machine)
    asked = replace(_setup(setup), devices=p.devices, device_gib=p.device_gib)
    if use in ("full", "lora") and asked.weights in ("nf4", "nf4-dq"):
        raise BadInput(f"{wanted.method} cannot train on {asked.weights} weights", "use --method qlora")
    known = models.find_model(name)
    if known and asked.seq_len > known.context:
        notes += (f"{asked.seq_len} tokens are more than the {known.context:,} this model reads",)
    memory = estimate_memory(shape, use, asked)
    spent, usd = (None, None) if use == "inference" else _spent(p, shape, use, card)
    if spent:
        notes += (f"{training_tokens(p):,.0f} training tokens",)
    return EstimateResult(name, wanted.method, memory, device, p.device_gib, spent, usd, notes)


def _shape(wanted: EstimateRequest) -> tuple[str, ModelShape, tuple[str, ...]]:
    given = [x for x in (wanted.model, wanted.config, wanted.params_b) if x is not None]
    if len(given) > 1:
        raise UsageProblem("--model, --config and --params-b exclude each other", "give one of them")
    if wanted.params_b is not None:
        if not 0.001 <= wanted.params_b <= 10_000:
            raise BadInput(
                f"--params-b {wanted.params_b:g} is not between 0.001 and 10,000", "in billions: 7 is 7 B"
            )
        return f"{wanted.params_b:g} B", typical_shape(wanted.params_b), ()
    name = wanted.model or models.DEFAULT_MODEL
    known = models.find_model(name) if wanted.config is None else None
    if known:
        return known.name, known.shape, () if wanted.model else (f"{name} was assumed: no model was given",)
    place = wanted.config or Path(name).expanduser()
    file = place / "config.json" if place.is_dir() else place
    if wanted.config is None and not file.is_file():
        meant = closest_model(name)
        hint = f"did you mean {meant}? " if meant else ""
        raise BadInput(f"the shape of {name!r} is not known", f"{hint}give --config FILE or --params-b SIZE")
    return str(place), _read(file), ()


def _read(file: Path) -> ModelShape:
    try:
        found = json.loads(file.read_text("utf-8"))
    except OSError as error:
        raise BadInput(f"{file} cannot be read: {error.strerror}", "check --config") from None
    except ValueError:
        raise BadInput(f"{file} is not readable JSON", "give a model's config.json") from None
    if not isinstance(found, dict):
        raise BadInput(f"{file} is not a model's config", "give a model's config.json")
    return read_shape(found)


def _card(name: str) -> gpus.GpuFacts:
    """Return the card of this name, or the only one whose name holds all its words."""
    if found := gpus.find_gpu(name):
        return found
    words = set(name.casefold().split())
    alike = [gpu for gpu in gpus.known_gpus() if words and words <= set(gpu.name.casefold().split())]
    if len(alike) == 1:
        return alike[0]
    if alike:
        which = ", ".join(gpu.name for gpu in alike)
        raise BadInput(f"there are {len(alike)} cards called {name!r}", f"say which: {which}")
    raise BadInput(f"unknown card {name!r}", _meant(name, [gpu.name for gpu in gpus.known_gpus()]))


def _profile(
    wanted: EstimateRequest, shape: ModelShape, card: gpus.GpuFacts | None, machine: Machine | None
) -> tuple[Profile, str]:
    """Return the situation that hours and money are counted for, and the device's name."""
    given: dict[str, Any] = {
        "model_params_b": shape.params / 1e9,
        "labelled_examples": wanted.examples,
        "unlabelled_tokens": wanted.tokens,
        "gpu_count": wanted.devices,
    }
    memory = wanted.gpu_memory or (card.memory_gib if card else None)
    if memory:
        given |= {
            "gpu_kind": card.kind if card else "cuda",
            "gpu_memory_gib": memory,
            "gpu_count": wanted.devices or 1,
        }
    answers = Answers().put("flag", {key: str(value) for key, value in given.items() if value is not None})
    if memory:
        p = Profile.of(answers, None, shape)
    else:
        machine = machine or detect_machine(Path("runs"))
        answers = with_machine(answers, machine)
        p = Profile.of(answers, None, shape, *detected_hardware(answers, machine))
    if p.device_gib is None:
        return p, "unknown memory"
    here = card.name if card else "a GPU" if memory else "this machine"
    several = f"{p.devices} GPUs" if memory and not card else f"{p.devices} x {here}"
    each = several if p.devices > 1 else here
    return p, f"{each} ({p.device_gib:.3g} GiB{' each' if p.devices > 1 else ''})"


def _spent(
    p: Profile, shape: ModelShape, use: str, card: gpus.GpuFacts | None
) -> tuple[Range | None, Range | None]:
    """Return hours and USD of training: on the named card at its rent, else on the situation's hardware."""
    if not (p.examples_known or p.raw_text):
        return None, None
    if card is None:
        spent = training_hours(p, use)
        return spent, training_usd(p, spent)
    spent = training_time.hours_on(p, shape, use, training_time.candidate_cards_device((card,), p.devices))
    rent = None if card.usd_hour is None else card.usd_hour * p.devices
    return spent, None if rent is None else spent.times(rent, rent, rent)


def _setup(given: Mapping[str, Any]) -> MemorySetup:
    """Return the setup of the flags; BadInput names a value that is not allowed."""
    hints = get_type_hints(MemorySetup)
    values = dict(given)
    try:
        values["targets"] = memory_scores.lora_targets(values.get("targets") or "all")
    except ValueError as error:
        raise BadInput(f"--targets {given['targets']}: {error}") from None
    for key, value in values.items():
        allowed = [x for part in (hints[key], *get_args(hints[key])) for x in get_args(part)]
        names = [x for x in allowed if isinstance(x, str)]
        if names and value is not None and value not in names:
            raise BadInput(f"unknown --{key.replace('_', '-')} {value!r}", _meant(str(value), names))
    return MemorySetup(**values)


def _meant(name: str, known: Any) -> str:
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.4)
    return (f"did you mean {close[0]}? " if close else "") + f"known: {', '.join(known)}"


WORST_SHOWN = 5
"""Figures listed as the worst in the text view of a score."""
_VERDICTS = {"yes": "fits", "tight": "is tight on", "no": "does not fit"}


def show_estimate(found: EstimateResult, as_json: bool) -> None:
    """Print an estimate: as JSON, or as a headline, the parts, and what was assumed."""
    if as_json:
        emit_result(found.to_json())
        return
    from rich.markup import escape

    from advisor.display import console as display_console

    memory, console = found.memory, display_console.console()
    fits = memory.fits(found.device_gib)
    verdict = (
        ""
        if fits is None
        else f"  [{display_console.CONFIDENCE_COLOURS[fits]}]{_VERDICTS[fits]}[/] {escape(found.device)}"
    )
    console.print(
        f"[bold]{escape(found.name)}, {found.method}[/]  about [bold]{memory.likely:.1f} GiB[/] "
        f"({memory.low:.1f} to {memory.high:.1f}){verdict}"
    )
    rows = [
        (name.replace("_", " "), f"{gib:.2f}", _bar(gib, memory.likely), f"[dim]{escape(_what(name))}[/]")
        for name, gib in memory.terms.items()
    ]
    console.print(display_console.table(("part", "GiB", "", "what it is"), rows, right=(1,)))
    for label, span, unit in (("training", found.hours, "hours"), ("cost", found.usd, "USD")):
        if span:
            console.print(f"{label}: about {span.likely:,.2g} {unit} ({span.low:,.2g} to {span.high:,.2g})")
    for said in (*memory.assumptions, *found.notes):
        console.print(f"[dim]• {escape(said)}[/]")


def show_estimate_score(path: Path, as_json: bool) -> None:
    """Print how near the estimate comes to a file of measured peaks; BadInput names a broken row and key."""
    scored = memory_scores.score_estimates(memory_scores.read_measured_peaks(path))
    found = memory_scores.accuracy_report(scored)
    if as_json:
        emit_result(found)
        return
    from rich.markup import escape

    from advisor.display import console as display_console

    console = display_console.console()
    parts = {"all": found, **found["by_method"], **found["by_source"]}
    rows = [
        (
            escape(name),
            str(x["n"]),
            f"{x['mape']:.1f}",
            f"{x['worst']:+.1f}",
            f"{x['under_10']:.0%}",
            f"{x['inside']:.0%}",
        )
        for name, x in parts.items()
    ]
    columns = ("figures", "n", "mean error %", "worst %", "under by > 10 %", "inside the range")
    console.print(display_console.table(columns, rows, right=(1, 2, 3, 4, 5)))
    worst = sorted(scored, key=lambda s: -abs(s.error))[:WORST_SHOWN]
    lines = [
        (escape(s.figure.id), f"{s.figure.gib:.2f}", f"{s.memory.likely:.2f}", f"{100 * s.error:+.1f}")
        for s in worst
    ]
    console.print()
    console.print(
        display_console.table(("worst", "measured GiB", "estimated", "error %"), lines, right=(1, 2, 3))
    )
    for name, number in found["assumed"].items():
        console.print(f"[dim]• {number} figures leave out {escape(name)}: its default was assumed[/]")


def _what(term: str) -> str:
    """Return what a part is: how its function's docstring begins."""
    doc = " ".join((inspect.getdoc(getattr(memory_terms, term)) or "").split())
    return re.split(r"[.:;,(]", doc, maxsplit=1)[0].removeprefix("Bytes of ").strip()


def _bar(part: float, whole: float) -> str:
    return "█" * round(20 * part / whole) if whole else ""
