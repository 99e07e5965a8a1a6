"""The questions about models, one or several in one trial, and how their names and aliases are read.

The answer ``models`` is one line, ``ALIAS=NAME, ALIAS=NAME``; an answers file may hold it as a mapping. Where it is given,
the answer ``model`` is not asked for: each of the models takes its place in turn
(:func:`advisor.questionnaire.gather.answers_of_model`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from itertools import chain, count
from typing import Any

from advisor.questionnaire.question_types import Condition, Question
from rag.errors import BadInput
from runners.catalog import models
from runners.plan.arm_names import ALIAS, ALIAS_RULE, CASE_RULE, written_alike

LIMITS = ("minutes", "usd")
"""The answers that limit the trial of several models."""
SEVERAL_KEYS = ("models", *LIMITS)
EXAMPLE = "small=smollm2-135m-instruct, big=openai:NAME@http://127.0.0.1:8000/v1"
_NEXT_ENTRY = re.compile(rf",(?=\s*{ALIAS.pattern}\s*=)|\n")
_COMPARED = Condition(("models",), lambda known: bool(known.get("models")))
_NAMED = Condition(("model",), lambda known: bool(known.get("model")))
_REMOTE = Condition(("model",), lambda known: str(known.get("model") or "").startswith("openai:"))
_ONE = Condition(("models",), lambda known: not known.get("models"))

MODEL_QUESTIONS: tuple[Question, ...] = (
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
        when=_NAMED,
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
