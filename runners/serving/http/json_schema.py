"""The `response_format` of a request: the finished answer is checked against its JSON Schema.

`response_format` reads the field and refuses schemas that cannot be checked; `ResponseFormat.fault` checks an answer.
The check comes after generation: decoding is not constrained to the schema.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from runners.serving.http.errors import ApiError

MAX_SCHEMA_CHARS = 32_000
MAX_SCHEMA_DEPTH = 32
MAX_LIST_ITEMS = 1_000
MAX_STEPS = 50_000
"""Work that the check of one answer may take, in units of one keyword or 20 characters."""
_UNSUPPORTED_KEYWORDS = (
    "pattern",
    "patternProperties",
    "unevaluatedItems",
    "unevaluatedProperties",
    "$dynamicRef",
    "$recursiveRef",
    "$id",
    "id",
)
"""Patterns and `unevaluated*` can take forever on a short text; the other keywords lead out of the schema."""
_NAME_MAPS = ("properties", "$defs", "definitions", "dependentSchemas")
"""Keywords whose value maps names chosen by the schema's author to schemas."""
_DATA_KEYWORDS = ("const", "enum", "default", "examples")
"""Keywords whose value is data and holds no keywords."""


class _TooMuchWork(Exception):
    """The check of an answer takes more than `MAX_STEPS`."""


@dataclass(frozen=True, slots=True)
class ResponseFormat:
    """The form that an answer must have."""

    schema: dict[str, Any] | None = None
    """The JSON Schema; None for any JSON object."""
    strict: bool = False
    """Whether an answer of another form is an error, rather than reported as invalid."""

    def fault(self, text: str) -> str:
        """Return what is wrong with an answer; "" when it has the form."""
        import jsonschema

        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            return f"it is no JSON ({error})"
        if self.schema is None:
            return "" if isinstance(value, dict) else "it is JSON, but no object"
        try:
            _validator(self.schema).validate(value)
        except jsonschema.ValidationError as error:
            return f"at {error.json_path}: {error.message[:300]}"
        except (_TooMuchWork, RecursionError, ArithmeticError):
            return "the schema asks for too much work, or refers to itself too often, to be checked"
        return ""


def response_format(field: dict[str, Any] | None) -> ResponseFormat | None:
    """Read the field `response_format`.

    Returns:
        The form that it asks for; None for plain text.

    Raises:
        ApiError: the schema cannot be checked here.
    """
    kind = (field or {}).get("type", "text")
    if kind == "text":
        return None
    if kind == "json_object":
        return ResponseFormat()
    if kind != "json_schema":
        raise _refuse(
            f"response_format.type {str(kind)[:64]!r} is not supported (text, json_object, json_schema)"
        )
    json_schema = (field or {}).get("json_schema")
    schema = json_schema.get("schema") if isinstance(json_schema, dict) else None
    if not isinstance(schema, dict):
        raise _refuse("response_format.json_schema.schema is missing or no object")
    _check_schema(schema)
    return ResponseFormat(schema, strict=json_schema.get("strict") is True)  # type: ignore[union-attr]


def _check_schema(schema: dict[str, Any]) -> None:
    """Raise `ApiError` for a schema that is too large, invalid, or cannot be checked here."""
    import jsonschema

    if _deeper_than(schema, MAX_SCHEMA_DEPTH) or len(json.dumps(schema)) > MAX_SCHEMA_CHARS:
        raise _refuse(
            f"the schema is larger than {MAX_SCHEMA_CHARS:,} characters or {MAX_SCHEMA_DEPTH} levels"
        )
    if _longest_list(schema) > MAX_LIST_ITEMS:
        raise _refuse(f"a list in the schema has more than {MAX_LIST_ITEMS:,} items")
    for name, value in _keywords(schema):
        if name in _UNSUPPORTED_KEYWORDS:
            raise _refuse(f"the schema's {name} is not supported: it is not checked here")
        if name == "$ref" and isinstance(value, str) and not _resolves(schema, value):
            raise _refuse(f"the schema's reference {value[:100]!r} leads nowhere in it")
    try:
        _validator_class(schema).check_schema(schema)
    except jsonschema.SchemaError as error:
        raise _refuse(f"the schema is invalid at {error.json_path}: {error.message[:200]}") from None
    except (RecursionError, ArithmeticError) as error:
        raise _refuse(f"the schema cannot be read: {error}") from None


def _validator(schema: dict[str, Any]) -> Any:
    """Return a validator that raises `_TooMuchWork` after `MAX_STEPS`.

    Each keyword costs one step, plus the lengths of its value and of the instance as JSON, in units of 20 characters.
    """
    from jsonschema.validators import extend

    validator_class = _validator_class(schema)
    steps_left = MAX_STEPS
    costs: dict[int, int] = {}  # by id(): the values live as long as this validator

    def cost(value: Any) -> int:
        if id(value) not in costs:
            costs[id(value)] = len(json.dumps(value)) // 20
        return costs[id(value)]

    def counted(name: str, inner: Any) -> Any:
        def count(validator: Any, value: Any, instance: Any, within: Any) -> Iterator[Any]:
            nonlocal steps_left
            steps_left -= 1 + cost(value) + cost(instance)
            if name == "uniqueItems" and isinstance(instance, list):  # every pair may be compared
                steps_left -= len(instance) ** 2 // 20
            if steps_left < 0:
                raise _TooMuchWork
            yield from inner(validator, value, instance, within) or ()

        return count

    keywords = {name: counted(name, inner) for name, inner in validator_class.VALIDATORS.items()}
    return extend(validator_class, keywords)(schema)


def _validator_class(schema: dict[str, Any]) -> Any:
    """Return the class for the schema's own `$schema`, Draft 2020-12 by default."""
    from jsonschema import Draft202012Validator
    from jsonschema.validators import validator_for

    dialect = schema.get("$schema")
    return validator_for(schema if isinstance(dialect, str) else {}, default=Draft202012Validator)


def _keywords(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield every keyword and its value, at any depth; names chosen by the schema's author are no keywords."""
    if isinstance(value, list):
        for item in value:
            yield from _keywords(item)
    elif isinstance(value, dict):
        for name, inner in value.items():
            if name in _DATA_KEYWORDS:
                continue
            yield name, inner
            yield from _keywords(
                list(inner.values()) if name in _NAME_MAPS and isinstance(inner, dict) else inner
            )


def _resolves(schema: Any, ref: str) -> bool:
    """Return whether a reference, a JSON pointer (RFC 6901), leads to a schema inside this one."""
    if ref == "#":
        return True
    if not ref.startswith("#/"):
        return False
    target = schema
    for part in ref[2:].split("/"):
        name = unquote(part).replace("~1", "/").replace("~0", "~")
        if isinstance(target, dict) and name in target:
            target = target[name]
        elif isinstance(target, list) and name.isascii() and name.isdecimal() and int(name) < len(target):
            target = target[int(name)]
        else:
            return False
    return isinstance(target, dict | bool)


def _deeper_than(value: Any, levels: int) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels < 0 or any(_deeper_than(item, levels - 1) for item in inner)


def _longest_list(value: Any) -> int:
    """Return the length of the longest list: checking that its items differ may take the square of it."""
    inner = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    return max([len(value) if isinstance(value, list) else 0, *map(_longest_list, inner)])


def _refuse(message: str) -> ApiError:
    return ApiError(400, message, param="response_format", code="unsupported_response_format")
