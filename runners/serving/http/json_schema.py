"""JSON that was asked for: the answer is checked against it when it is there. Nothing forces the model into it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from runners.serving.http.errors import ApiError

MOST_CHARACTERS, MOST_DEPTH, MOST_ITEMS, MOST_STEPS = 32_000, 32, 1_000, 50_000
_REFUSED = (
    "pattern",
    "patternProperties",
    "unevaluatedItems",
    "unevaluatedProperties",
    "$dynamicRef",
    "$recursiveRef",
    "$id",
    "id",
)
"""Patterns, and what looks for what others left, can take forever on a short text; the rest lead out of the schema."""
_NAMED = ("properties", "$defs", "definitions", "dependentSchemas")
"""Keywords whose value maps names of the writer's own to schemas."""
_DATA = ("const", "enum", "default", "examples")


class _TooMuch(Exception):
    """A schema that asks for more work than it pays to do."""


@dataclass(frozen=True, slots=True)
class ResponseFormat:
    """What an answer must be."""

    schema: dict[str, Any] | None = None
    """None: any JSON object."""
    strict: bool = False
    """Whether an answer of another form is an error, rather than said to be of another form."""

    def fault(self, text: str) -> str:
        """Say what is wrong with an answer; "" when nothing is."""
        import jsonschema

        try:
            said = json.loads(text)
        except (ValueError, RecursionError) as error:
            return f"it is no JSON ({error})"
        if self.schema is None:
            return "" if isinstance(said, dict) else "it is JSON, but no object"
        try:
            _validator(self.schema).validate(said)
        except jsonschema.ValidationError as error:
            return f"at {error.json_path}: {error.message[:300]}"
        except (_TooMuch, RecursionError, ArithmeticError):
            return "the schema asks for too much work, or refers to itself too often, to be checked"
        return ""


def response_format(wanted: dict[str, Any] | None) -> ResponseFormat | None:
    """Return the form that `response_format` asks for, None for plain text; Refusal when it cannot be checked."""
    kind = (wanted or {}).get("type", "text")
    if kind == "text":
        return None
    if kind == "json_object":
        return ResponseFormat()
    if kind != "json_schema":
        raise _refuse(
            f"response_format.type {str(kind)[:64]!r} is not supported (text, json_object, json_schema)"
        )
    held = (wanted or {}).get("json_schema")
    schema = held.get("schema") if isinstance(held, dict) else None
    if not isinstance(schema, dict):
        raise _refuse("response_format.json_schema.schema is missing or no object")
    _check(schema)
    return ResponseFormat(schema, strict=held.get("strict") is True)  # type: ignore[union-attr]


def _check(schema: dict[str, Any]) -> None:
    import jsonschema

    if _deeper_than(schema, MOST_DEPTH) or len(json.dumps(schema)) > MOST_CHARACTERS:
        raise _refuse(f"the schema is larger than {MOST_CHARACTERS:,} characters or {MOST_DEPTH} levels")
    if _longest(schema) > MOST_ITEMS:
        raise _refuse(f"a list in the schema has more than {MOST_ITEMS:,} items")
    for name, value in _keywords(schema):
        if name in _REFUSED:
            raise _refuse(f"the schema's {name} is not supported: it is not checked here")
        if name == "$ref" and isinstance(value, str) and not _resolves(schema, value):
            raise _refuse(f"the schema's reference {value[:100]!r} leads nowhere in it")
    try:
        _kind(schema).check_schema(schema)
    except jsonschema.SchemaError as error:
        raise _refuse(f"the schema is invalid at {error.json_path}: {error.message[:200]}") from None
    except (RecursionError, ArithmeticError) as error:
        raise _refuse(f"the schema cannot be read: {error}") from None


def _validator(schema: dict[str, Any]) -> Any:
    """A validator that does only so much work, every keyword weighed by what it and the instance hold."""
    from jsonschema.validators import extend

    kind, left = _kind(schema), MOST_STEPS
    weights: dict[int, int] = {}

    def weight(value: Any) -> int:
        if id(value) not in weights:
            weights[id(value)] = len(json.dumps(value)) // 20
        return weights[id(value)]

    def counted(name: str, inner: Any) -> Any:
        def count(validator: Any, value: Any, instance: Any, within: Any) -> Iterator[Any]:
            nonlocal left
            left -= 1 + weight(value) + weight(instance)
            if name == "uniqueItems" and isinstance(instance, list):  # each may be held against each
                left -= len(instance) ** 2 // 20
            if left < 0:
                raise _TooMuch
            yield from inner(validator, value, instance, within) or ()

        return count

    return extend(kind, {name: counted(name, inner) for name, inner in kind.VALIDATORS.items()})(schema)


def _kind(schema: dict[str, Any]) -> Any:
    from jsonschema import Draft202012Validator
    from jsonschema.validators import validator_for

    named = schema.get("$schema")
    return validator_for(schema if isinstance(named, str) else {}, default=Draft202012Validator)


def _keywords(value: Any) -> Iterator[tuple[str, Any]]:
    """Every keyword and its value, at any depth; names that the schema's writer gave are none."""
    if isinstance(value, list):
        for each in value:
            yield from _keywords(each)
    elif isinstance(value, dict):
        for name, inner in value.items():
            if name in _DATA:
                continue
            yield name, inner
            yield from _keywords(
                list(inner.values()) if name in _NAMED and isinstance(inner, dict) else inner
            )


def _resolves(schema: Any, ref: str) -> bool:
    if ref == "#":
        return True
    if not ref.startswith("#/"):
        return False
    at = schema
    for part in ref[2:].split("/"):
        name = unquote(part).replace("~1", "/").replace("~0", "~")
        if isinstance(at, dict) and name in at:
            at = at[name]
        elif isinstance(at, list) and name.isascii() and name.isdecimal() and int(name) < len(at):
            at = at[int(name)]
        else:
            return False
    return isinstance(at, dict | bool)


def _deeper_than(value: Any, levels: int) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels < 0 or any(_deeper_than(each, levels - 1) for each in inner)


def _longest(value: Any) -> int:
    """The length of the longest list: whether all its items differ may take its square."""
    inner = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    return max([len(value) if isinstance(value, list) else 0, *map(_longest, inner)])


def _refuse(message: str) -> ApiError:
    return ApiError(400, message, param="response_format", code="unsupported_response_format")
