"""Names of arms where a plan compares several models: ``METHOD@ALIAS``, such as ``hybrid@small``.

The alias is a key of the plan's ``models``. Where a plan has one model, and for arms that ask none, the name is the method.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rag.errors import UsageProblem

if TYPE_CHECKING:
    from runners.plan.steps import PlanModel

ALIAS = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,23}")
"""What an alias may be: it is part of file names."""
ALIAS_RULE = (
    "an alias is 1 to 24 letters, digits, dots, hyphens or underscores, and starts with a letter or digit"
)

CASE_RULE = "let them differ in more, as some systems take file names that differ in case as one"


def written_alike(name: str) -> str:
    """Return a model's name as it is compared with others: without what changes neither a folder nor an address."""
    return name.rstrip("/") if name.startswith("openai:") else os.path.normpath(name)


def name_and_precision(name: str, quantization: str | None) -> str:
    """Return a model's name, with its precision behind it where that is not the one of its files."""
    return f"{name} ({quantization})" if quantization not in (None, "none") else name


def split_arm(name: str) -> tuple[str, str]:
    """Return the method and the alias of an arm's name; the alias is "" where it has none."""
    method, _, alias = name.partition("@")
    return method, alias


def arm_name(method: str, alias: str) -> str:
    """Return the name of an arm of a method with the model of an alias, "" for none."""
    return f"{method}@{alias}" if alias else method


def method_of(name: str) -> str:
    """Return the method of an arm's name."""
    return split_arm(name)[0]


def plain_name(name: str) -> str:
    """Return a name with an arm in it as other programs take names of models: ``-`` in place of ``@``."""
    return name.replace("@", "-")


def values_by_alias(given: Sequence[str], models: Mapping[str, PlanModel]) -> dict[str, str]:
    """Return the values of a repeatable ``--model``: ``ALIAS=VALUE`` of several models, by "" of a plan with one.

    Raises:
        UsageProblem: a value does not say which of several models it is for, or two are for the same one.
    """
    values: dict[str, str] = {}
    for each in given:
        alias, _, value = each.partition("=") if models else ("", "", each)
        if models and (alias not in models or not value):
            raise UsageProblem(
                f"--model {each} does not say which of the plan's models is meant: {', '.join(models)}",
                "name it by its alias: --model ALIAS=VALUE",
            )
        if alias in values:
            raise UsageProblem(f"--model {each} is the second one for the same model", "give one for each")
        values[alias] = value
    return values


def check_models(models: Mapping[str, PlanModel], model: PlanModel) -> None:
    """Raise ValueError for a malformed alias, a model that has two, and a plan's ``model`` that is none of several."""
    for alias in models:
        if not ALIAS.fullmatch(alias):
            raise ValueError(f"models: {alias!r} is no alias: {ALIAS_RULE}")
    seen: dict[tuple[str, str], str] = {}
    named: dict[str, str] = {}
    for alias, one in models.items():
        first = seen.setdefault((written_alike(one.name), one.quantization), alias)
        if first != alias:
            raise ValueError(f"models: {first} and {alias} are the same model, {one.name}: keep one of them")
        if (first := named.setdefault(alias.lower(), alias)) != alias:
            raise ValueError(f"models: the aliases {first} and {alias} differ in case alone: {CASE_RULE}")
    if models and model not in models.values():
        raise ValueError(f"model: {model.name} is none of the plan's models: {', '.join(models)}")


def check_arm_name(name: str, models: Mapping[str, PlanModel]) -> None:
    """Raise ValueError for an arm whose alias the plan's models lack."""
    _, alias = split_arm(name)
    if "@" in name and alias not in models:
        known = ", ".join(models) or "none"
        raise ValueError(f"{name!r} names the model {alias!r}, which is no key of models: {known}")
