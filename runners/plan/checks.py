"""The style checks of a plan, and what the value of each kind may be."""

from __future__ import annotations

from typing import Any, Literal, cast

from pydantic import Field, model_validator

from runners.plan.bounded_schema import unbounded_part, validator_class
from runners.plan.patterns import compile_pattern
from runners.plan.steps import StrictModel

_TYPES: dict[str, type | tuple[type, ...]] = {
    "regex": str,
    "json_schema": dict,
    "labels": (list, tuple),
    "max_words": int,
    "must_not": (list, tuple),
}


class StyleCheck(StrictModel):
    """One deterministic rule of the house style; a reply is in style when it passes every check."""

    kind: Literal["regex", "json_schema", "labels", "max_words", "must_not"]
    value: Any = Field(
        description="Pattern, schema, list of labels, number of words, or list of forbidden texts."
    )
    text: str = Field("", description="What the rule means, in words.")

    @model_validator(mode="after")
    def _value_fits_kind(self) -> StyleCheck:
        if problem := _value_problem(self.kind, self.value):
            raise ValueError(problem)
        return self


def _value_problem(kind: str, value: Any) -> str:
    """Return why a check of this kind cannot have this value; "" when it can."""
    if not isinstance(value, _TYPES[kind]):
        return f"a {kind} check cannot have the value {value!r}"
    value = cast(Any, value)  # of the kind's type
    if kind == "regex":
        try:
            compile_pattern(str(value))
        except ValueError as error:
            return str(error)
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

    if problem := unbounded_part(schema):
        return f"a JSON Schema that is not followed: {problem}"
    try:
        validator_class(schema).check_schema(schema)
    except (OverflowError, RecursionError) as error:  # of a pattern
        return f"not a JSON Schema: {error}"
    except jsonschema.SchemaError as error:
        place = "".join(f".{part}" for part in error.absolute_path)
        return f"not a JSON Schema: {place.lstrip('.') + ': ' if place else ''}{error.message[:200]}"
    return ""
