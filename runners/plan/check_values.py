"""What the value of a style check may be, by its kind."""

from __future__ import annotations

import re
from typing import Any

_TYPES: dict[str, type | tuple[type, ...]] = {
    "regex": str,
    "json_schema": dict,
    "labels": (list, tuple),
    "max_words": int,
    "must_not": (list, tuple),
}


def check_value_problem(kind: str, value: Any) -> str:
    """Return why a check of this kind cannot have this value; "" when it can."""
    if not isinstance(value, _TYPES[kind]):
        return f"a {kind} check cannot have the value {value!r}"
    if kind == "regex":
        try:
            re.compile(str(value))
        except re.error as error:
            return f"not a regular expression: {error}"
    if kind == "labels":
        return _labels_problem(value)
    if kind == "json_schema":
        return _schema_problem(value)
    return ""


def _labels_problem(labels: list[Any] | tuple[Any, ...]) -> str:
    """Return which label is none: no text or number, or blank. No answer could ever be one of these."""
    for label in labels:
        if isinstance(label, bool):
            return (
                f"the label {label} is no text: YAML reads yes, no, on, off, true and false without quotes as true or "
                'false, so write it in quotes, such as "yes"'
            )
        if not isinstance(label, (str, int, float)) or not str(label).strip():
            return f"the label {label!r} is no text: take it out, or write it in quotes"
    return ""


def _schema_problem(schema: dict[str, Any]) -> str:
    import jsonschema

    try:
        jsonschema.validators.validator_for(schema).check_schema(schema)
    except jsonschema.SchemaError as error:
        place = "".join(f".{part}" for part in error.absolute_path)
        return f"not a JSON Schema: {place.lstrip('.') + ': ' if place else ''}{error.message[:200]}"
    return ""
