"""The questions about place, machine and models, one or several in one trial, and how names and aliases are read.

The answer ``models`` is one line, ``ALIAS=NAME, ALIAS=NAME``; an answers file may hold it as a mapping. Where it is given,
the answer ``model`` is not asked for: each of the models takes its place in turn
(:func:`advisor.questionnaire.gather.answers_of_model`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from itertools import chain, count
from typing import Any

from advisor.questionnaire.question_types import Choice, Condition, Question, both
from rag.errors import BadInput
from runners.catalog import models
from runners.plan.arm_names import ALIAS, ALIAS_RULE, CASE_RULE, written_alike

LIMITS = ("minutes", "usd")
"""The answers that limit the trial of several models."""
SEVERAL_KEYS = ("models", *LIMITS)
EXAMPLE = "small=smollm2-135m-instruct, big=openai:NAME@http://127.0.0.1:8000/v1"
_NEXT_ENTRY = re.compile(rf",(?=\s*{ALIAS.pattern}\s*=)|\n")
_COMPARED = Condition(("models",), lambda known: bool(known.get("models")))
_REMOTE = Condition(("model",), lambda known: str(known.get("model") or "").startswith("openai:"))
_ONE = Condition(("models",), lambda known: not known.get("models"))

_TUNING = Condition(
    ("behaviour_gap", "unlabelled_tokens", "model"),
    lambda known: (
        (known.get("behaviour_gap") != "none" or bool(known.get("unlabelled_tokens")))
        and not str(known.get("model") or "").startswith("openai:")
    ),
)
_GPU = both(_TUNING, Condition(("gpu_kind",), lambda known: known.get("gpu_kind") not in (None, "none")))
_CPU = both(_TUNING, Condition(("gpu_kind",), lambda known: known.get("gpu_kind") in (None, "none")))
_SIZED = Condition(
    ("models", "model"),
    lambda known: not known.get("models") and not str(known.get("model") or "").startswith("openai:"),
)
MACHINE_KEYS = ("gpu_kind", "gpu_count", "gpu_memory_gib", "ram_gib", "cpu_cores", "disk_gib")
"""The answers that describe the machine; they are asked for as parts of ``runs_on``."""

MODEL_QUESTIONS: tuple[Question, ...] = (
    Question(
        "runs_on",
        "Where will it run?",
        "choice",
        "machine",
        "It decides which models can be used, and whether they can be fine-tuned.",
        (
            Choice("here", "this machine"),
            Choice("other", "another machine: a server, a workstation, rented GPUs"),
            Choice("provider", "a provider, or a server of ours that has the model"),
        ),
        example="planning on a laptop for a server with two GPUs: other",
    ),
    Question(
        "models",
        "Which models should be compared?",
        "models",
        "machine",
        "Each gets a short alias. The advice is made for each, and the few methods and models that are worth it are "
        "measured on the same questions.",
        detail=True,
        example=EXAMPLE,
    ),
    Question(
        "minutes",
        "How many minutes may the trial of several models take on this machine?",
        "number",
        "machine",
        "Methods and models that do not fit are left out, the least promising first.",
        when=_COMPARED,
        detail=True,
        none_allowed=True,
        low=0.1,
        unit="min",
        tries=(10, 120),
        example="30, or none for no limit",
    ),
    Question(
        "usd",
        "What may the answers of hosted models cost in that trial, in USD?",
        "number",
        "machine",
        "What would cost more is left out, and a run stops asking when it has spent this much.",
        when=_COMPARED,
        detail=True,
        none_allowed=True,
        low=0.0001,
        unit="USD",
        tries=(1, 100),
        example="2.50, or none for no limit",
    ),
    Question(
        "model",
        "Which base model?",
        "text",
        "machine",
        "The advice and the test are about this model.",
        when=_ONE,
        example="larger models answer better, need more memory and are slower",
    ),
    Question(
        "model_calls_tools",
        "Can the model call tools?",
        "flag",
        "machine",
        "With tools it can search and read the documents itself. Of many models it is known; an endpoint is asked once "
        "when a run begins.",
        detail=True,
        example="yes, for an endpoint whose makers describe function calling for this model",
    ),
    *(
        Question(
            f"usd_per_million_{key}",
            f"What does the endpoint take for a million tokens that the model {verb}, in USD?",
            "number",
            "machine",
            "Prices of well-known models are listed; yours replaces the listed one.",
            when=_REMOTE,
            detail=True,
            tries=(0.1, 3),
            unit="USD",
            example="0.15; 0 for a server of your own",
        )
        for key, verb in (("input", "reads"), ("output", "writes"))
    ),
    Question(
        "model_params_b",
        "How many billion parameters has it?",
        "number",
        "machine",
        "The size decides what fits in memory.",
        when=_SIZED,
        measured_by="model",
        low=0.001,
        unit="B",
        # The sizes of the catalogue that one machine holds.
        tries=(0.2, 2, 8, 70),
        example='7 for a "7B" model',
    ),
    Question(
        "gpu_kind",
        "Which kind of GPU?",
        "choice",
        "machine",
        "The kind of GPU decides which ways of fine-tuning can run.",
        (
            Choice("cuda", "NVIDIA"),
            Choice("rocm", "AMD"),
            Choice("mps", "Apple"),
            Choice("xpu", "Intel"),
            Choice("none", "no GPU"),
        ),
        when=_TUNING,
        detail=True,
        measured_by="machine",
        example="a GeForce or RTX: cuda",
    ),
    Question(
        "gpu_count",
        "How many GPUs?",
        "count",
        "machine",
        "A training can use all of them (by a launcher, torchrun); answers come from one.",
        when=_GPU,
        detail=True,
        measured_by="machine",
        # The GPUs of one machine.
        tries=(1, 8),
        example="1",
    ),
    Question(
        "gpu_memory_gib",
        "How much memory has one GPU?",
        "number",
        "machine",
        "Its memory decides between full fine-tuning, LoRA and QLoRA.",
        when=_GPU,
        detail=True,
        measured_by="machine",
        unit="GiB",
        # From a laptop's GPU to an H100.
        tries=(8, 24, 80),
        example="24 for an RTX 4090",
    ),
    Question(
        "ram_gib",
        "How much main memory?",
        "number",
        "machine",
        "Without a GPU, training happens here.",
        when=_CPU,
        detail=True,
        measured_by="machine",
        unit="GiB",
        # From a laptop to a server.
        tries=(8, 64, 256),
        example="16",
    ),
    Question(
        "cpu_cores",
        "How many CPU cores?",
        "count",
        "machine",
        "Without a GPU, the cores decide how long training takes.",
        when=_CPU,
        detail=True,
        measured_by="machine",
        low=1,
        # From a laptop to a server.
        tries=(4, 64),
        example="8",
    ),
    Question(
        "disk_gib",
        "How much free disk?",
        "number",
        "machine",
        "Models, checkpoints and indexes need space.",
        detail=True,
        measured_by="machine",
        unit="GiB",
        # From a nearly full laptop to a server.
        tries=(10, 2_000),
        example="50",
    ),
)


def parse_models(value: str | Mapping[str, Any]) -> dict[str, str]:
    """Return the name of each model by its alias, in the order given.

    Raises:
        BadInput: an entry is not ALIAS=NAME, an alias is malformed or given twice, or two aliases name the same model.
    """
    if isinstance(value, str):
        entries = [part.strip() for part in _NEXT_ENTRY.split(value) if part.strip()]
        pairs = [tuple(part.strip() for part in entry.partition("=")) for entry in entries]
    else:
        pairs = [(str(alias), "=", str(name).strip()) for alias, name in value.items()]
    named: dict[str, str] = {}
    for alias, equals, name in pairs:
        if not equals or not alias or not name:
            raise BadInput(f"models: {alias or name!r} is not ALIAS=NAME", f"for instance: {EXAMPLE}")
        if not ALIAS.fullmatch(alias):
            raise BadInput(f"models: {alias!r} is no alias", ALIAS_RULE)
        if alias in named:
            raise BadInput(f"models: the alias {alias} is given twice", "give each model an alias of its own")
        if alias.lower() in map(str.lower, named):
            raise BadInput(f"models: {alias!r} differs from another alias in case alone", CASE_RULE)
        same = next((other for other, known in named.items() if _same_model(known, name)), None)
        if same is not None:
            raise BadInput(
                f"models: {same} and {alias} are the same model, {name}",
                "keep one; the same model at another precision is written in the plan: models.ALIAS.quantization",
            )
        named[alias] = name
    return named


def models_line(named: Mapping[str, str]) -> str:
    """Return models by alias as one line, which :func:`parse_models` reads."""
    return ", ".join(f"{alias}={name}" for alias, name in named.items())


def with_aliases(names: Iterable[str], before: Mapping[str, str]) -> dict[str, str]:
    """Return models after those that have an alias, each by one made of its name, with a number where that is taken."""
    named = dict(before)
    taken = set(map(str.lower, named))
    for name in names:
        last = name.removeprefix("openai:").rpartition("@")[0] if name.startswith("openai:") else name
        written = re.sub(r"[^A-Za-z0-9.-]+", "-", last.rstrip("/").rpartition("/")[2])
        plain = written.strip("-.")[:22] or "model"
        numbered = (f"{plain}{number}" for number in count(2))
        alias = next(alias for alias in chain([plain], numbered) if alias.lower() not in taken)
        taken.add(alias.lower())
        named[alias] = name
    return named


def _same_model(one: str, other: str) -> bool:
    """Return whether two names are the same model, as far as the names tell."""
    known = [models.find_model(name) for name in (one, other)]
    return written_alike(one) == written_alike(other) or (known[0] is not None and known[0] is known[1])
