"""Validation by a JSON Schema from somebody else: the work is limited, and patterns are searched by a given function.

:mod:`jsonschema` searches for patterns by :mod:`re`, which can take hours, and follows references that double the work at
each step. :func:`first_error` counts the work; :func:`unbounded_part` names what it could not count.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jsonschema import ValidationError

PATTERN_STEPS = 8
"""Work of searching 20 characters for a pattern of 20: the worst ones found take 50 ms for 4,000 characters."""
MAX_DEPTH = 100
"""Most levels of a schema."""
MAX_REFERENCES = 20
"""Most references of a schema with `unevaluatedProperties`, which follows them without being counted."""
_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
_UNEVALUATED = ("unevaluatedProperties", "unevaluatedItems")

Keyword = Callable[[Any, Any, Any, Any], Any]
"""A check of a keyword, as :mod:`jsonschema` calls it: with validator, the keyword's value, the instance and the schema."""


class TooMuchWork(Exception):
    """The validation takes more steps than it may."""


@dataclass(slots=True)
class _Work:
    """What one validation may still do."""

    steps: int
    occurs: Callable[[str, str], bool]
    costs: dict[int, int] = field(default_factory=dict)
    """By id(): schema and instance live as long as the validation."""

    def cost(self, value: Any) -> int:
        if id(value) not in self.costs:
            self.costs[id(value)] = len(json.dumps(value)) // 20
        return self.costs[id(value)]


_WORK: ContextVar[_Work] = ContextVar("_WORK")


def first_error(
    schema: dict[str, Any],
    instance: Any,
    occurs: Callable[[str, str], bool],
    steps: int,
    keywords: tuple[tuple[str, Keyword], ...] = (),
) -> ValidationError | None:
    """Return the first reason why JSON does not fit a schema; None where it fits.

    Each keyword costs one step, plus the lengths of its value and of the instance as JSON, in units of 20 characters.

    Args:
        schema: the schema.
        instance: the JSON.
        occurs: returns whether a pattern occurs in a text.
        steps: most steps.
        keywords: keywords that are checked otherwise than :mod:`jsonschema` does, with their checks.

    Raises:
        TooMuchWork: more steps are needed.
    """
    token = _WORK.set(_Work(steps, occurs))
    try:
        errors: Iterator[ValidationError] = _counting(validator_class(schema), keywords)(schema).iter_errors(
            instance
        )
        return next(errors, None)
    finally:
        _WORK.reset(token)


@lru_cache(maxsize=32)
def _counting(dialect: Any, keywords: tuple[tuple[str, Keyword], ...]) -> Any:
    """Return the validator class that counts its work; making it takes longer than most validations."""
    from jsonschema.validators import extend

    checks = {**dialect.VALIDATORS, **_PATTERN_KEYWORDS, **dict(keywords)}
    return extend(dialect, {name: _counted(name, check) for name, check in checks.items()})


def _counted(name: str, check: Keyword) -> Keyword:
    def count(validator: Any, value: Any, instance: Any, within: Any) -> Iterator[Any]:
        work = _WORK.get()
        work.steps -= 1 + work.cost(value) + work.cost(instance)
        if name == "uniqueItems" and isinstance(instance, list):  # every pair may be compared
            work.steps -= len(instance) ** 2 // 20
        if patterns := _patterns_used(name, value, within):  # each of its states, at each character
            work.steps -= PATTERN_STEPS * (1 + len(patterns) // 20) * (1 + work.cost(instance))
        if work.steps < 0:
            raise TooMuchWork
        yield from check(validator, value, instance, within) or ()

    return count


def validator_class(schema: dict[str, Any]) -> Any:
    """Return the class for the schema's own `$schema`, Draft 2020-12 by default."""
    from jsonschema import Draft202012Validator
    from jsonschema.validators import validator_for

    dialect = schema.get("$schema")
    return validator_for(schema if isinstance(dialect, str) else {}, default=Draft202012Validator)


def patterns_of(name: str, value: Any) -> list[str]:
    """Return the patterns in a keyword's value."""
    if name == "pattern" and isinstance(value, str):
        return [value]
    return list(value) if name == "patternProperties" and isinstance(value, dict) else []


def deeper_than(value: Any, levels: int) -> bool:
    """Return whether JSON has more levels."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels < 0 or any(deeper_than(item, levels - 1) for item in inner)


def unbounded_part(schema: dict[str, Any]) -> str:
    """Return what of a schema leads out of it or cannot be counted, in words; "" where there is nothing."""
    if deeper_than(schema, MAX_DEPTH):
        return f"it has more than {MAX_DEPTH} levels"
    names = list(_keys(schema))
    references = [value for name, value in names if name in _REFERENCES and isinstance(value, str)]
    for reference in references:
        if not reference.startswith("#"):
            return f"its reference {reference[:100]!r} leads out of it, and nothing is fetched"
    if any(name in _UNEVALUATED for name, _ in names):
        if any(name == "patternProperties" for name, _ in names):
            return "unevaluatedProperties beside patternProperties cannot be checked in limited time"
        if len(references) > MAX_REFERENCES:
            return f"unevaluatedProperties with more than {MAX_REFERENCES} references cannot be checked in limited time"
    return ""


def _keys(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield every key of JSON with its value."""
    if isinstance(value, dict):
        yield from value.items()
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _keys(item)


def _patterns_used(name: str, value: Any, within: Any) -> str:
    """Return the patterns, joined, that the check of a keyword searches texts for; "" for none."""
    if name == "additionalProperties":
        name, value = "patternProperties", within.get("patternProperties")
    return "".join(patterns_of(name, value))


def _pattern(validator: Any, value: Any, instance: Any, within: Any) -> Iterator[Any]:
    from jsonschema import ValidationError

    if validator.is_type(instance, "string") and not _WORK.get().occurs(value, instance):
        yield ValidationError(f"the text does not match {value[:100]!r}: {instance[:100]!r}")


def _pattern_properties(validator: Any, value: Any, instance: Any, within: Any) -> Iterator[Any]:
    if validator.is_type(instance, "object"):
        for regex, schema in value.items():
            for name in instance:
                if _WORK.get().occurs(regex, name):
                    yield from validator.descend(instance[name], schema, path=name, schema_path=regex)


def _additional_properties(validator: Any, value: Any, instance: Any, within: Any) -> Iterator[Any]:
    from jsonschema import ValidationError

    if not validator.is_type(instance, "object"):
        return
    named, regexes = within.get("properties", {}), within.get("patternProperties", {})
    for name in instance:
        if name in named or any(_WORK.get().occurs(regex, name) for regex in regexes):
            continue
        if value is False:
            yield ValidationError(f"additional properties are not allowed ({name!r})")
        else:
            yield from validator.descend(instance[name], value, path=name)


_PATTERN_KEYWORDS: dict[str, Keyword] = {
    "pattern": _pattern,
    "patternProperties": _pattern_properties,
    "additionalProperties": _additional_properties,
}
"""The keywords that jsonschema checks by Python's `re`."""
