"""The work behind ``tunewise estimate``: memory, hours and cost of a way of running a model.

:func:`estimate_request` computes an estimate, :func:`show_estimate` prints it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

from advisor.catalog import gpus
from advisor.costs import training_time
from advisor.costs.communication import DeviceGroup
from advisor.costs.estimate import with_coverage
from advisor.costs.hosting import answering_quantization
from advisor.costs.rental import RENT_RANGE, training_usd
from advisor.costs.tokens import Range, training_setup, training_tokens
from advisor.costs.training_time import training_hours_alone
from advisor.flags.estimate import EstimateRequest
from advisor.methods.blockers import Blocker, blocked_by, no_memory, too_slow
from advisor.methods.registry import METHOD_BY_NAME
from advisor.output import emit_result
from advisor.questionnaire.answers import Answers
from advisor.questionnaire.gather import (
    HUB_ID,
    closest_model,
    detected_hardware,
    flag_answers,
    model_shape,
    read_config,
    with_machine,
)
from advisor.questionnaire.profile import Profile
from advisor.workflows.estimate_devices import (
    SharedRequest,
    group_of_request,
    known_names_hint,
    memory_of_each,
    sharing_facts,
)
from rag.errors import BadInput, UsageProblem
from runners.catalog import models
from runners.plan.steps import NO_QUANTIZATION
from runners.resources.machine import Machine, detect_machine
from runners.resources.memory_estimate import MemoryEstimate
from runners.resources.memory_terms import MemorySetup, MemoryUse
from runners.resources.model_shape import ModelShape, lora_targets, typical_shape

MEMORY_USES: Mapping[str, MemoryUse] = {
    "full": "full",
    "lora": "lora",
    "qlora": "qlora",
    "hybrid": "lora",
    "inference": "inference",
    "prompting": "inference",
    "few-shot": "inference",
    "rag": "inference",
    "rag-few-shot": "inference",
}
"""The memory formula of each method; retrieval and prompting need only inference."""


TERM_TEXTS: Mapping[str, str] = {
    "weights": "weights of the base model",
    "masters": "copies of trained weights in fp32",
    "adapters": "weights of the adapters",
    "gradients": "gradients in memory at once",
    "optimizer": "state of the optimiser",
    "activations": "values stored for the backward pass",
    "logits": "logits and their gradients",
    "kv_cache": "keys and values of every token so far",
    "buckets": "gradients being averaged over the devices (ddp)",
    "gathered": "sharded weights that are whole for a moment (fsdp)",
    "buffers": "weights made whole for a moment",
    "overhead": "other memory of the process or GPU",
}
"""What each term of a memory estimate is."""
ANSWER_FIELDS: Mapping[str, tuple[str, str]] = {
    "model": ("model", "--model"),
    "model_params_b": ("params_b", "--params-b"),
    "gpu_count": ("devices", "--devices"),
    "gpu_memory_gib": ("gpu_memory", "--gpu-memory"),
    "labelled_examples": ("examples", "--examples"),
    "unlabelled_tokens": ("tokens", "--tokens"),
}
"""Answers of the questionnaire that are also a field of the request, and their flag."""
OTHER_ANSWERS = ("gpu_kind", "ram_gib", "cpu_cores", "prompt_tokens", "answer_tokens")
"""Answers that an estimate uses and that have no flag of their own."""
ASSUMED_EXAMPLES = 1000
"""Examples that are trained on where none were given."""
HOURS_OF_A_WEEK = 168.0
"""A training that is likely to take longer is said to."""
_VERDICTS = {"yes": "fits", "tight": "is tight on", "no": "does not fit"}


@dataclass(frozen=True, slots=True, kw_only=True)
class EstimateResult:
    """An estimate with what it was made for.

    Attributes:
        name: the model.
        method: the method.
        memory: memory in GiB with its terms.
        device: the device, in words.
        device_gib: its memory in GiB; None if unknown.
        hours: hours of training; None where no data were given.
        usd: cost of training; None where no data were given or no price is known.
        notes: assumptions beyond those of the memory estimate.
        sharing: the keys of ``estimate --json`` about several devices, empty for one.
        blockers: why a plan rules the training out on such hardware: its memory, its time.
    """

    name: str
    method: str
    memory: MemoryEstimate
    device: str
    device_gib: float | None
    hours: Range | None
    usd: Range | None
    notes: tuple[str, ...]
    sharing: Mapping[str, Any] = field(default_factory=dict)
    blockers: tuple[Blocker, ...] = ()

    @property
    def within_a_week(self) -> bool | None:
        """Whether training is likely to end within a week; None where nothing is trained."""
        return None if self.hours is None else self.hours.likely <= HOURS_OF_A_WEEK

    @property
    def verdict(self) -> str:
        """Whether it can be done on the device, in words; "" where its memory is not known."""
        fits = self.memory.fits(self.device_gib)
        if fits is None:
            return ""
        if self.blockers and fits != "no":
            return f"not on {self.device}: {self.blockers[0].text}"
        long = self.hours is not None and fits != "no" and not self.within_a_week
        days = f", but trains for about {self.hours.likely / 24:,.0f} days" if self.hours and long else ""
        return f"{_VERDICTS[fits]} {self.device}{days}"

    def to_json(self) -> dict[str, Any]:
        """Return what ``estimate --json`` prints; the memory is that of each device."""
        return {
            "schema": 1,
            "model": self.name,
            "method": self.method,
            "memory_gib": self.memory.to_json(self.device_gib),
            "hours": with_coverage(self.hours),
            "usd": with_coverage(self.usd),
            "device": self.device,
            "notes": list(self.notes),
            "device_gib": None if self.device_gib is None else round(self.device_gib, 2),
            "within_a_week": self.within_a_week,
            "verdict": self.verdict,
            "blockers": [blocker.to_json() for blocker in self.blockers],
            **self.sharing,
        }


def setup_flags(flags: EstimateRequest) -> dict[str, Any]:
    """Return the flags that are settings of the run, as :class:`MemorySetup` takes them."""
    names = {each.name for each in fields(MemorySetup)} - {"devices", "parallel"}
    given = {each.name: getattr(flags, each.name) for each in fields(flags) if each.name in names}
    return {**given, "compiled": flags.compile}


def estimate_request(
    request: EstimateRequest, setup: Mapping[str, Any], machine: Machine | None = None
) -> EstimateResult:
    """Estimate memory, hours and cost.

    Args:
        request: what to estimate.
        setup: the settings of the run, as :class:`MemorySetup` takes them.
        machine: the machine to use when no card is named; detected by default.

    Raises:
        UsageProblem: without a method, or with two models.
        BadInput: for a name or value that is not known.
    """
    request, others = _with_set_answers(request)
    method, use = _method(request)
    name, shape, notes = _shape(request)
    request, assumed = _with_assumed_data(request, use)
    card = _card(request.gpu) if request.gpu else None
    profile, device = _profile(request, shape, card, machine, others)
    devices = request.devices or 1
    memory_setup = replace(_setup(setup, profile, use), devices=devices)
    if use in ("full", "lora") and memory_setup.weights in ("nf4", "nf4-dq"):
        raise BadInput(f"{method} cannot train on {memory_setup.weights} weights", "use --method qlora")
    known_model = models.find_model(name)
    if known_model and memory_setup.seq_len > known_model.context:
        notes += (
            f"{memory_setup.seq_len} tokens are more than the {known_model.context:,} this model reads",
        )
    wanted = SharedRequest(devices, request.nodes, request.parallel)
    shared = memory_of_each(wanted, shape, use, memory_setup)
    memory = shared.memory
    if use == "inference" and devices == 1 and setup.get("weights") is None:
        memory, why = _held_as_planned(profile, memory)
        notes += why
    sharing: dict[str, Any] = {}
    group = None
    if devices > 1:
        cards = (card,) if card else training_time.candidate_cards(profile)
        group = None if use == "inference" else group_of_request(wanted, profile, use, cards, shared)
        sharing, more = sharing_facts(wanted, shape, use, shared.parallel, group)
        notes += more
    hours, usd = (None, None) if use == "inference" else _hours_and_usd(profile, shape, use, card, group)
    notes += tuple(note for note in (profile.devices_note, profile.dtype_note) if note and devices == 1)
    notes += assumed
    if hours:
        notes += (f"{training_tokens(profile):,.0f} training tokens",)
    return EstimateResult(
        name=name,
        method=method,
        memory=memory,
        device=device,
        device_gib=profile.device_gib,
        hours=hours,
        usd=usd,
        notes=notes,
        sharing=sharing,
        blockers=() if use == "inference" else blocked_by(profile, use, no_memory, too_slow),
    )


def _held_as_planned(profile: Profile, memory: MemoryEstimate) -> tuple[MemoryEstimate, tuple[str, ...]]:
    """Return the memory of answering as a plan holds the model, in 4 bits where 16 do not fit; then a note says so."""
    held, why = answering_quantization(profile)
    planned = METHOD_BY_NAME["prompting"].estimate(profile).memory
    return (memory, ()) if held == NO_QUANTIZATION or planned is None else (planned, (why,))


def _with_assumed_data(request: EstimateRequest, use: str) -> tuple[EstimateRequest, tuple[str, ...]]:
    """Return the request with data to train on, and a note where they were not given: hours are said all the same."""
    if use == "inference" or request.examples is not None or request.tokens is not None:
        return request, ()
    note = f"{ASSUMED_EXAMPLES:,} examples were assumed: give yours with --examples or --tokens"
    return replace(request, examples=ASSUMED_EXAMPLES), (note,)


def _method(request: EstimateRequest) -> tuple[str, MemoryUse]:
    """Return the method and what it uses memory for; UsageProblem without one, BadInput for an unknown one."""
    if request.method is None:
        raise UsageProblem("estimate needs --method", f"one of {', '.join(MEMORY_USES)}; or --rows FILE")
    use = MEMORY_USES.get(request.method)
    if use is None:
        raise BadInput(
            f"unknown method {request.method!r}", known_names_hint(request.method, tuple(MEMORY_USES))
        )
    return request.method, use


def with_fit(rows: Iterable[Mapping[str, Any]], machine: Machine | None = None) -> list[dict[str, Any]]:
    """Return rows of models with ``fits_here``: whether this machine can ask the model, yes, tight or no.

    Rows of models that the catalogue does not hold, such as embedders, stay as they are.
    """
    machine = machine or detect_machine(Path("runs"))
    full = []
    for row in rows:
        fits = None
        known = models.find_model(row["name"]) if row.get("params_b") else None
        if known and known.shape:
            profile, _ = _profile(EstimateRequest(model=known.name), known.shape, None, machine, {})
            memory = METHOD_BY_NAME["prompting"].estimate(profile).memory
            fits = memory.fits(profile.device_gib) if memory else None
        full.append({**row, **({"fits_here": fits} if fits else {})})
    return full


def show_estimate(estimate: EstimateResult, as_json: bool) -> None:
    """Print an estimate: as JSON, or as a headline, the parts, and the assumptions."""
    if as_json:
        emit_result(estimate.to_json())
        return
    from rich.markup import escape

    from advisor.display import console as display_console

    memory, console = estimate.memory, display_console.console()
    fits = "no" if estimate.blockers else memory.fits(estimate.device_gib)
    colour = display_console.FIT_COLOURS[fits] if fits else ""
    verdict = f"  [{colour}]{escape(estimate.verdict)}[/]" if fits else ""
    console.print(
        f"[bold]{escape(estimate.name)}, {estimate.method}[/]  about [bold]{memory.likely:.1f} GiB[/] "
        f"({memory.low:.1f} to {memory.high:.1f}){' on each GPU' if estimate.sharing else ''}{verdict}"
    )
    rows = [
        (
            name.replace("_", " "),
            f"{gib:.2f}",
            _bar(gib, memory.likely),
            f"[dim]{escape(TERM_TEXTS[name])}[/]",
        )
        for name, gib in memory.terms.items()
    ]
    console.print(display_console.table(("part", "GiB", "", "what it is"), rows, right=(1,)))
    if estimate.hours:
        console.print(f"training: about {hours_text(estimate.hours)} on {escape(estimate.device)}")
    if estimate.usd:
        console.print(f"cost: about {_range_text(estimate.usd, 1.0, 'USD')}")
    for assumption in (*memory.assumptions, *estimate.notes):
        console.print(f"[dim]• {escape(assumption)}[/]")


def hours_text(hours: Range) -> str:
    """Return hours with their range in the unit that suits the likely value: 7 minutes (2 to 52)."""
    for unit, in_an_hour in (("hours", 1), ("minutes", 60)):
        if hours.likely * in_an_hour >= 1:
            return _range_text(hours, in_an_hour, unit)
    return _range_text(hours, 3600, "seconds")


def _range_text(amount: Range, factor: float, unit: str) -> str:
    """Return a range times a factor: likely, unit, and low to high in brackets."""
    likely, low, high = (
        f"{value:,.0f}" if value >= 10 or unit in ("minutes", "seconds") else f"{value:.2g}"
        for value in (amount.likely * factor, amount.low * factor, amount.high * factor)
    )
    return f"{likely} {unit.removesuffix('s') if likely == '1' else unit} ({low} to {high})"


def _with_set_answers(request: EstimateRequest) -> tuple[EstimateRequest, dict[str, Any]]:
    """Return the request with the answers of ``--set`` in its fields, and the answers that have no field.

    Raises:
        UsageProblem: for an answer that changes no estimate, or that a flag gives too.
        BadInput: for an unknown key or an invalid value.
    """
    answers = flag_answers(request.sets or ())
    filled: dict[str, Any] = {}
    others: dict[str, Any] = {}
    for key in answers:
        value = answers[key].value
        if key in ANSWER_FIELDS:
            field, flag = ANSWER_FIELDS[key]
            if getattr(request, field) is not None:
                raise UsageProblem(f"--set {key} and {flag} exclude each other", "give one of them")
            filled[field] = value
        elif key in OTHER_ANSWERS:
            others[key] = value
        else:
            known = ", ".join((*ANSWER_FIELDS, *OTHER_ANSWERS))
            raise UsageProblem(f"--set {key} changes no estimate", f"these do: {known}")
    return replace(request, **filled), others


def _shape(request: EstimateRequest) -> tuple[str, ModelShape, tuple[str, ...]]:
    """Return the model's name, its shape, and notes on what was assumed."""
    given = [value for value in (request.model, request.config, request.params_b) if value is not None]
    if len(given) > 1:
        raise UsageProblem("--model, --config and --params-b exclude each other", "give one of them")
    if request.params_b is not None:
        if not 0.001 <= request.params_b <= 10_000:
            raise BadInput(
                f"--params-b {request.params_b:g} is not between 0.001 and 10,000", "in billions: 7 is 7 B"
            )
        return f"{request.params_b:g} B", typical_shape(request.params_b), ()
    if request.config is not None:
        file = request.config / "config.json" if request.config.is_dir() else request.config
        return str(request.config), read_config(file), ()
    name = request.model or models.DEFAULT_MODEL
    known = models.find_model(name)
    shape = (known and known.shape) or model_shape(name)[0]
    if shape is None:
        closest = closest_model(name)
        hint = "give a folder with it as --model, --config FILE, or --allow-hub to read it from the hub"
        if not known and not HUB_ID.match(name):
            hint = f"{f'did you mean {closest}? ' if closest else ''}give --config FILE or --params-b SIZE"
        raise BadInput(f"the shape of {name!r} is not known here", hint)
    notes = () if request.model else (f"{name} was assumed: no model was given",)
    return known.name if known else name, shape, notes


def _card(name: str) -> gpus.GpuFacts:
    """Return the card of this name, or the only one whose name contains all words of it."""
    if exact := gpus.find_gpu(name):
        return exact
    words = set(name.casefold().split())
    candidates = [gpu for gpu in gpus.known_gpus() if words and words <= set(gpu.name.casefold().split())]
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        names = ", ".join(gpu.name for gpu in candidates)
        raise BadInput(f"there are {len(candidates)} GPUs called {name!r}", f"say which: {names}")
    if name.replace(".", "", 1).isdecimal():
        raise BadInput(f"--gpu {name} is not the name of a GPU", f"for a size in GiB: --gpu-memory {name}")
    raise BadInput(f"unknown GPU {name!r}", known_names_hint(name, [gpu.name for gpu in gpus.known_gpus()]))


def _profile(
    request: EstimateRequest,
    shape: ModelShape,
    card: gpus.GpuFacts | None,
    machine: Machine | None,
    others: Mapping[str, Any],
) -> tuple[Profile, str]:
    """Return the situation for which hours and cost are computed, and the device in words.

    ``others`` are the answers that are no field of the request.
    """
    given: dict[str, Any] = {
        **others,
        "model_params_b": shape.params / 1e9,
        "labelled_examples": request.examples,
        "unlabelled_tokens": request.tokens,
        "gpu_count": request.devices,
    }
    memory = request.gpu_memory or (card.memory_gib if card else None)
    if memory:
        given |= {
            "gpu_kind": card.kind if card else others.get("gpu_kind") or "cuda",
            "gpu_memory_gib": memory,
            "gpu_count": request.devices or 1,
        }
    answers = Answers().put("flag", {key: str(value) for key, value in given.items() if value is not None})
    if memory:
        profile = Profile.of(answers, None, shape)
    else:
        machine = machine or detect_machine(Path("runs"))
        answers = with_machine(answers, machine)
        profile = Profile.of(answers, None, shape, *detected_hardware(answers, machine))
    if profile.device_gib is None:
        return profile, "unknown memory"
    device_name = card.name if card else "a GPU" if memory else "this machine"
    devices = request.devices or 1
    devices_name = f"{devices} GPUs" if memory and not card else f"{devices} x {device_name}"
    device = devices_name if devices > 1 else device_name
    return profile, f"{device} ({profile.device_gib:.3g} GiB{' each' if devices > 1 else ''})"


def _hours_and_usd(
    profile: Profile,
    shape: ModelShape,
    use: str,
    card: gpus.GpuFacts | None,
    group: DeviceGroup | None,
) -> tuple[Range | None, Range | None]:
    """Return hours and USD of training: on the named card at its rent, else on the hardware of the profile."""
    if not (profile.examples_known or profile.raw_text):
        return None, None
    devices = group.devices if group else 1
    if card is None and group is None:
        hours = training_hours_alone(profile, use)
        return hours, training_usd(profile, hours)
    cards = (card,) if card else training_time.candidate_cards(profile)
    device = training_time.candidate_cards_device(cards, devices, group)
    hours = training_time.hours_on(profile, shape, use, device)
    if card is None:
        return hours, training_usd(profile, hours, devices)
    rent = None if card.usd_hour is None else card.usd_hour * devices
    return hours, None if rent is None else hours.times(rent, rent, rent).times_independent(RENT_RANGE)


def _setup(given: Mapping[str, Any], profile: Profile, use: MemoryUse) -> MemorySetup:
    """Return the memory setup of the flags, else as a plan trains there; BadInput names a value that is not allowed."""
    hints = get_type_hints(MemorySetup)
    planned = training_setup(profile)
    values = {**given, "counter": given.get("counter") or planned.counter, "device_gib": profile.device_gib}
    values |= {} if use == "inference" else {"fused": planned.fused, "fp32_compute": planned.fp32_compute}
    if use != "qlora":
        values["weights"] = given.get("weights") or planned.weights
    try:
        values["targets"] = lora_targets(values.get("targets") or "all")
    except ValueError as error:
        raise BadInput(f"--targets {given['targets']}: {error}") from None
    for key, value in values.items():
        allowed = [choice for part in (hints[key], *get_args(hints[key])) for choice in get_args(part)]
        names = [choice for choice in allowed if isinstance(choice, str)]
        if names and value is not None and value not in names:
            raise BadInput(
                f"unknown --{key.replace('_', '-')} {value!r}", known_names_hint(str(value), names)
            )
    return MemorySetup(**values)


def _bar(part: float, whole: float) -> str:
    return "█" * round(20 * part / whole) if whole else ""
