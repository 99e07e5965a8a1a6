"""Gather the answers: flags, an answers file, what the files hold, what the machine has.

:func:`complete_situation` measures everything that answers name and returns a :class:`Situation`.
:func:`profile_of_plan` rebuilds the profile from a plan's recorded answers. :func:`check_model` decides
whether the name of a base model is valid: a known model, a folder, an endpoint, or an id of the model hub.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from advisor import output
from advisor.catalog import prices
from advisor.questionnaire.answers import SOURCES, Answer, Answers, names_a_path, question_of
from advisor.questionnaire.answers_files import read_answers, with_answers_file
from advisor.questionnaire.data_stats import DataStats, TokenCounting, measure_files, token_counting
from advisor.questionnaire.model_questions import MACHINE_KEYS, SEVERAL_KEYS, parse_models
from advisor.questionnaire.profile import Profile
from advisor.questionnaire.questions import QUESTION_BY_ID
from rag.errors import BadInput, CannotRun
from runners.catalog import models
from runners.data.formats import parse_columns
from runners.models import hub
from runners.models.availability import find_availability
from runners.models.registry import planned_model
from runners.models.resolve import parse_remote
from runners.paths import cache_folder
from runners.plan.schema import Plan
from runners.resources.machine import Machine, detect_machine
from runners.resources.model_shape import ModelShape, read_shape

HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$")
ALLOWED_NAMES = "allowed: a known name, a folder, openai:NAME@URL, or a hub id OWNER/NAME"
GPU_KEYS = ("gpu_kind", "gpu_count", "gpu_memory_gib")
ESTIMATE_KEYS = (
    *GPU_KEYS,
    "ram_gib",
    "cpu_cores",
    "model_params_b",
    "prompt_tokens",
    "answer_tokens",
    "unlabelled_tokens",
)
"""The recorded answers of a plan, beside its model, that time estimates use."""


@dataclass(frozen=True, slots=True)
class Situation:
    """The answers with everything measured for them."""

    answers: Answers
    stats: DataStats
    profile: Profile


def check_model(name: str | None, sized: bool = False) -> str:
    """Return a note about a model's name, "" when there is none.

    Args:
        name: the answer to the question ``model``.
        sized: whether the model's size was answered.

    Raises:
        BadInput: with the closest known name, for a name that is neither a known model nor a folder, an
            endpoint or a hub id.
    """
    if not name or names_a_path(name):
        return ""
    if name.startswith("openai:"):
        parse_remote(name)
        return ""
    if models.find_model(name) or HUB_ID.match(name):
        return "" if sized or model_shape(name)[0] else unknown_shape(name)
    raise BadInput(f"unknown model {name!r}", _model_hint(name))


def unknown_shape(name: str) -> str:
    """Return that the shape of a model is not known, and what would make it known."""
    return (
        f"the size of {name} is not known here: name a folder with its config.json, let plan or estimate read that from the "
        "hub (--allow-hub), or give the size with --set model_params_b=NUMBER"
    )


def closest_model(name: str) -> str | None:
    """Return the most similar known model name, None when none is similar."""
    close = difflib.get_close_matches(
        name.lower(), [model.name for model in models.known_models()], n=1, cutoff=0.5
    )
    return close[0] if close else None


def flag_answers(sets: Iterable[str], **flags: Any) -> Answers:
    """Return the flags of a command line as answers: ``--set key=value`` and the flags named like questions.

    Raises:
        BadInput: for an unknown key, an invalid value, or a ``--set`` without an equals sign.
    """
    values: dict[str, Any] = {}
    for item in sets:
        key, equals, value = item.partition("=")
        if not equals:
            raise BadInput(f"--set {item!r} is not key=value", "for instance: --set must_cite=yes")
        values[question_of(key.strip()).id] = value.strip()
    values |= {key: str(value) for key, value in flags.items() if value is not None}
    return Answers().put("flag", values)


def with_answers_of(answers: Answers, path: Path | None) -> Answers:
    """Add the answers of an answers file, a plan or a run folder.

    Relative paths in it are resolved from its folder where they exist there, else from the current one.
    """
    if path is None:
        return answers
    path = inside if (inside := path / "plan.yaml").is_file() else path
    loaded = read_answers(path)
    for key in ("documents", "examples", "questions", "prompt"):
        value = loaded[key].value if key in loaded else None
        if value and not Path(value).is_absolute() and names_a_path(str(path.parent / value)):
            loaded[key] = replace(loaded[key], value=str(path.parent / value))
    return with_answers_file(answers, loaded)


def compared_models(answers: Answers) -> dict[str, str]:
    """Return the models that answers compare, by alias; {} where they are about one model.

    A model that was named in a stronger source (a flag beside an answers file) is the only one.

    Raises:
        BadInput: ``model`` and ``models`` are answered by the same source, or the size of one model is given for all.
    """
    line = answers.value("models")
    if line and answers.from_person("model"):
        one, several = (SOURCES.index(answers[key].source) for key in ("model", "models"))
        if one == several:
            raise BadInput("model and models are both given", "keep one of them")
        line = line if several < one else None
    if line and answers.from_person("model_params_b"):
        raise BadInput(
            "model_params_b is the size of one model, and there are several", "leave it out: each has its own"
        )
    return parse_models(line) if line else {}


def answers_of_model(answers: Answers, alias: str, name: str) -> Answers:
    """Return answers about one of several models: it is their ``model``, and nothing is said of the others."""
    source = answers["models"].source
    for layer in answers.layers:
        answers = answers.drop(layer, [*SEVERAL_KEYS, "model"])
    return answers.add(source, {"model": Answer(name, source, f"the model {alias}" if alias else "")})


def with_machine(answers: Answers, machine: Machine) -> Answers:
    """Add what was detected, and where it will run if no answer says so.

    Nothing of this machine counts where it will run elsewhere, and nothing of its GPUs where a person described another GPU.
    """
    place = answers.value("runs_on")
    described = any(answers.from_person(key) for key in GPU_KEYS)
    if place is None:
        named = str(answers.value("model") or "")
        place = "provider" if named.startswith("openai:") else "other" if described else "here"
        note = {"provider": "the model is behind an endpoint", "other": "a GPU was described"}.get(place, "")
        answers = answers.add("default", {"runs_on": Answer(place, "default", note)})
    elif place != "here":
        return replace(answers, layers={**answers.layers, "detected": {}})
    detected = {
        key: Answer(value.value, "detected", value.how)
        for key in MACHINE_KEYS
        if (value := getattr(machine, key)).value is not None
    }
    if described:
        detected = {key: answer for key, answer in detected.items() if key not in GPU_KEYS}
    return replace(answers, layers={**answers.layers, "detected": {}}).add("detected", detected)


def with_model(answers: Answers) -> tuple[Answers, ModelShape | None]:
    """Add a model that suits the device when neither model nor size is given, and the size from the model's config.

    Of a provider none is assumed. Returns the answers and the model's shape, None when its config is unknown.
    """
    detected: dict[str, Answer] = {}
    unnamed = answers.value("model") is None and answers.value("model_params_b") is None
    if named := parse_models(answers.value("models") or "") if unnamed else {}:
        first = Answer(next(iter(named.values())), "default", "the first of the models that are compared")
        answers = answers.add("default", {"model": first})
    elif unnamed and answers.value("runs_on") != "provider":
        place = Profile.of(answers)
        on_cpu = place.has_gpu is False
        model = models.suggested_model(place.device_gib, on_cpu)
        device = "a CPU" if on_cpu else "the GPU" if place.device_gib else "a usual GPU"
        note = f"none was named; of the usual sizes the largest that suits {device}"
        answers = answers.add("default", {"model": Answer(model.name, "default", note)})
    name = answers["model"].value if "model" in answers else None
    shape, how = model_shape(name)
    if shape:
        detected["model_params_b"] = Answer(round(shape.params / 1e9, 4), "detected", how)
    return answers.add("detected", detected), shape


def complete_situation(answers: Answers, machine: Machine | None = None) -> Situation:
    """Measure what the answers name (files, model, machine) and return the whole situation.

    Args:
        answers: what is answered so far; earlier counts and defaults are replaced.
        machine: the machine to plan for; by default this one is detected.

    Raises:
        BadInput: for files that are missing, broken or leak held-out questions.
    """
    answers = replace(
        answers, layers={k: v for k, v in answers.layers.items() if k not in ("counted", "default")}
    )
    machine = machine or detect_machine(Path("runs"))
    answers = with_machine(answers, machine)
    answers, shape = with_model(answers)
    path = {key: _existing_path(answers, key) for key in ("documents", "examples", "questions")}
    stats = measure_files(
        path["documents"],
        path["examples"],
        path["questions"],
        _token_counting(answers),
        prompt_text(answers),
        columns_of(answers),
        answers.value("output_format"),
    )
    counted = {
        key: Answer(value, "counted", stats.notes.get(key, "")) for key, value in stats.counted.items()
    }
    answers = with_no_examples(answers.add("counted", counted))
    count = None if stats.questions is None else len(stats.questions)
    detected_shape = shape if shape and answers["model_params_b"].source == "detected" else None
    profile = Profile.of(answers, count, detected_shape, *detected_hardware(answers, machine))
    return Situation(answers, stats, replace(profile, data=stats.facts))


def with_no_examples(answers: Answers) -> Answers:
    """Add the default of 0 examples where questions are the only file, and no answer gives their number.

    Tuning would be advised otherwise though nothing could be tuned on. It stays what is asked first, and it is shown: a
    person who has examples elsewhere gives their number. With documents there is something to retrieve from, and what more
    examples would make of it is worth saying, so their number stays unknown.
    """
    others = any(answers.value(key) for key in ("documents", "examples"))
    if others or not answers.value("questions") or answers.value("labelled_examples") is not None:
        return answers
    note = "no file of examples is named; if you have some: --examples, or --set labelled_examples=N"
    return answers.add("default", {"labelled_examples": Answer(0, "default", note)})


def profile_of_plan(plan: Plan, machine: Machine | None = None, model: str = "") -> Profile:
    """Return the profile of a plan's recorded answers and model, for time estimates.

    Hardware that a person described counts as described; detected hardware is detected again here, where the
    plan runs.

    Args:
        plan: the plan.
        machine: the machine; by default this one is detected.
        model: another model of the plan, by its name; by default the plan's own.

    Raises:
        BadInput: for a recorded answer that is invalid.
    """
    name = model or plan.model.name
    recorded = Answers().put("file", {"model": name})
    elsewhere = (*MACHINE_KEYS, "model_params_b") if planned_model(plan) else ()
    for key in ESTIMATE_KEYS:
        answer = None if key in elsewhere else plan.answers.get(key)
        if answer is not None and answer.source != "detected":
            source = answer.source if answer.source in SOURCES else "file"
            recorded = recorded.put(source, {key: answer.value}, {key: answer.note})
    machine = machine or detect_machine(Path("runs"))
    answers = with_machine(recorded, machine)
    size, planned = (plan.answers.get(key) for key in ("model_params_b", "model"))
    same_model = name == plan.model.name and (planned is None or planned.value == name)
    # A size that was detected is rounded to 100,000 parameters, and that of a tiny model is below what an answer may be.
    smallest = QUESTION_BY_ID["model_params_b"].low or 0
    usable = size is not None and size.source == "detected" and (size.value or 0) >= smallest
    if size is not None and usable and same_model:
        answers = answers.put("detected", {"model_params_b": size.value}, {"model_params_b": size.note})
    answers, shape = with_model(answers)
    detected_shape = shape if shape and answers["model_params_b"].source == "detected" else None
    return Profile.of(answers, None, detected_shape, *detected_hardware(answers, machine))


def on_this_machine(profile: Profile, machine: Machine) -> Profile:
    """Return the profile with the hardware of this machine, whatever machine is planned for."""
    detected = {key: getattr(machine, key).value for key in (*MACHINE_KEYS, "gpu_name")}
    return replace(profile, **detected, cpu_bf16=bool(machine.bf16.value), runs_on="here")


def for_trial(profile: Profile, machine: Machine | None = None) -> tuple[Profile, str]:
    """Return the situation as a trial on this machine has it, and why it asks another model than the planned one, or "".

    A model that a person named is measured itself, and a suggested one where it is on this machine and there is a GPU. Else
    the built-in model stands in for it, as for an unnamed model of a provider or of a given size.

    Args:
        profile: the situation that was advised on.
        machine: this machine; detected by default.
    """
    source = profile.sources.get("model")
    chosen = profile.model and (source is None or source.source != "default")
    planned = profile.model or ("a provider's model" if profile.remote else "")
    if not planned and profile.model_params_b:
        planned = f"a model of {profile.model_params_b:g} B"
    if chosen or not planned:
        return profile, ""
    on_own_gpu = profile.runs_on == "here" and profile.has_gpu
    if profile.model and on_own_gpu and find_availability(profile.model).state == "here":
        return profile, ""
    known = models.find_model(models.DEFAULT_MODEL) or models.MODELS[0]
    here = profile
    if profile.runs_on != "here":
        here = on_this_machine(profile, machine or detect_machine(Path("runs")))
    name = profile.model or ("openai:NAME@URL" if profile.remote else "NAME")
    small = replace(here, model=known.name, model_params_b=round(known.params_b, 4), shape=known.shape)
    return small, (
        f"the advice is for {planned}; the trial here asks {known.name} in its place, so its verdict is a hint: to measure "
        f"the model itself, name it: --model {name}"
    )


def prompt_text(answers: Answers) -> str:
    """Return the instructions: the text itself, or the content of the file it names."""
    prompt = answers["prompt"].value if "prompt" in answers else None
    if not prompt:
        return ""
    path = Path(prompt).expanduser()
    try:
        if names_a_path(prompt) and path.is_file():
            return path.read_text("utf-8").strip()
    except UnicodeDecodeError:
        raise BadInput(f"the prompt file {path} is not UTF-8 text", "save it as UTF-8") from None
    except OSError as error:
        raise BadInput(f"the prompt file {path} cannot be read: {error.strerror}") from None
    if "\n" not in prompt and path.suffix in (".txt", ".md") and " " not in prompt:
        raise BadInput(f"there is no prompt file {path}", "give the instructions, or a file with them")
    return str(prompt)


def columns_of(answers: Answers) -> dict[str, str] | None:
    """Return which column of the examples has which role, as answered; None to guess them by their names."""
    text = answers.value("columns")
    return parse_columns(text) if text else None


def detected_hardware(answers: Answers, machine: Machine) -> tuple[str | None, bool | None]:
    """Return the GPU's name and whether the CPU multiplies in bf16, which estimates use and no question asks.

    Each is None where a person plans for another machine.
    """
    return _gpu_name(answers, machine), _cpu_bf16(answers, machine)


def refuse_unknown_model(answers: Answers) -> None:
    """Raise BadInput for an invalid model name; print a note when the model's size is unknown."""
    sized = "model_params_b" in answers and answers["model_params_b"].value is not None
    if "model" in answers and (note := check_model(answers["model"].value, sized)):
        output.note(note)


def _model_hint(name: str) -> str:
    """Return what to do about an unknown model name."""
    if prices.find_price(name):
        return f"it is a hosted model: say where, as in openai:{name}@https://HOST/v1"
    if name.startswith((".", "/", "~")):
        return f"there is no such folder; {ALLOWED_NAMES}"
    meant = closest_model(name)
    return f"did you mean {meant}? ({ALLOWED_NAMES})" if meant else ALLOWED_NAMES


def _gpu_name(answers: Answers, machine: Machine) -> str | None:
    """Return the name of the detected GPU, unless a person plans for another one."""
    all_detected = all(answers[key].source == "detected" for key in GPU_KEYS if key in answers)
    return str(machine.gpu_name.value) if all_detected and machine.gpu_name.value else None


def _cpu_bf16(answers: Answers, machine: Machine) -> bool | None:
    """Return whether the detected CPU multiplies in bf16; None with a GPU or a described machine."""
    detected = all(key in answers and answers[key].source == "detected" for key in ("gpu_kind", "cpu_cores"))
    return bool(machine.bf16.value) if detected and answers["gpu_kind"].value == "none" else None


def _existing_path(answers: Answers, key: str) -> Path | None:
    """Return the path in an answer, None without one; BadInput when it does not exist."""
    value = answers[key].value if key in answers else None
    if not value:
        return None
    path = Path(value)
    if not names_a_path(value):
        raise BadInput(f"the {key} path {path} does not exist", f"check --{key}, or the answers file")
    return path.expanduser()


def _token_counting(answers: Answers) -> TokenCounting:
    """Return how tokens are counted for the answered model: with its tokenizer where that is stored here."""
    name = answers["model"].value if "model" in answers else None
    model = models.find_model(name) if name else None
    if name and names_a_path(name):
        return token_counting(Path(name))
    if model and hub.has_folder(model.hub) and (folder := hub.cached_snapshot(model.hub)):
        return token_counting(folder)
    return token_counting(cache_folder() / "models" / (model.name if model else models.DEFAULT_MODEL))


def model_shape(name: str | None) -> tuple[ModelShape | None, str]:
    """Return the shape of a model and where it is from; None for an endpoint, or where no config of it is here.

    A folder's config.json counts, then the table of known models, then the config that is kept from the hub, or fetched
    where the hub is allowed.
    """
    if not name or name.startswith("openai:"):
        return None, ""
    config = Path(name).expanduser() / "config.json"
    if names_a_path(str(config)):
        return read_config(config), f"counted from {config}"
    model = models.find_model(name)
    if model and model.shape:
        return model.shape, f"the published config of {model.hub}"
    repo = model.hub if model else name
    file = _hub_config(repo) if HUB_ID.match(repo) else None
    return (read_config(file), f"counted from the config.json of {repo} on the hub") if file else (None, "")


def read_config(file: Path) -> ModelShape:
    """Return the shape that a config.json describes; BadInput where it cannot be read."""
    try:
        config = json.loads(file.read_text("utf-8"))
    except OSError as error:
        raise BadInput(f"{file} cannot be read: {error.strerror}", "check its path") from None
    except ValueError:
        raise BadInput(f"{file} is not readable JSON", "give a model's config.json") from None
    if not isinstance(config, dict):
        raise BadInput(f"{file} is not a model's config", "give a model's config.json")
    return read_shape(config)


@lru_cache(maxsize=64)
def _hub_config(repo: str) -> Path | None:
    """Return the config.json of a repository of the hub, None without one; why it could not be fetched is said once."""
    try:
        return hub.find_config(repo)
    except CannotRun as problem:
        output.note(problem.message)
        return None
