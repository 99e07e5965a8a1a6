"""The `response_format` of a request: the JSON Schema that an answer is held to, and the check of the finished answer.

`response_format` reads the field and refuses schemas that are no schema, too large, or cannot be checked;
`ResponseFormat.enforced` refuses those that a local model cannot be held to while it generates, and gives the
constraint. `ResponseFormat.fault` checks a finished answer: a second net below the constraint, and the only one for
models that are not decoded here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

from runners.inference.constraints.constraint import OutputConstraint
from runners.plan.bounded_schema import (
    TooMuchWork,
    deeper_than,
    first_error,
    patterns_of,
    validator_class,
)
from runners.serving.http.errors import ApiError
from runners.serving.http.schema_check import enforcement_problem, schema_keywords

MAX_SCHEMA_CHARS = 32_000
MAX_SCHEMA_DEPTH = 32
MAX_LIST_ITEMS = 1_000
MAX_PATTERN_CHARS = 1_000
MAX_STEPS = 50_000
"""Work that the check of one answer may take, in units of one keyword or 20 characters."""
_UNSUPPORTED_KEYWORDS = (
    "unevaluatedItems",
    "unevaluatedProperties",
    "$dynamicRef",
    "$recursiveRef",
    "$id",
    "id",
)
"""`unevaluated*` can take forever to check on a short text; the other keywords lead out of the schema."""
_SPACES = "\\s\\x0b\\x{85}\\x{a0}\\x{feff}\\p{Z}"
"""What `\\s` means in a JSON Schema's patterns (ECMA-262), in the syntax of RE2, where it is ASCII alone."""


@dataclass(frozen=True, slots=True)
class ResponseFormat:
    """The form that an answer must have."""

    schema: dict[str, Any] | None = None
    """The JSON Schema; None for any JSON object."""
    strict: bool = False
    """Whether an answer of another form is an error, rather than reported as invalid."""

    def enforced(self, also: Sequence[str] = ()) -> OutputConstraint:
        """Return the constraint that holds a local model to this form.

        Args:
            also: whole answers that are allowed beside it: refusals.

        Raises:
            ApiError: no answer can be held to the schema.
        """
        constraint = OutputConstraint.of_schema(self.schema or {"type": "object"}, also)
        if self.schema is not None and (problem := enforcement_problem(str(constraint.value))):
            raise _refuse(problem)
        return constraint

    def fault(self, text: str) -> str:
        """Return what is wrong with an answer; "" when it has the form."""
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            return f"it is no JSON ({error})"
        if self.schema is None:
            return "" if isinstance(value, dict) else "it is JSON, but no object"
        try:
            fault = first_error(self.schema, value, _occurs, MAX_STEPS, _KEYWORDS)
        except (TooMuchWork, RecursionError, ArithmeticError):
            return "the schema asks for too much work, or refers to itself too often, to be checked"
        return f"at {fault.json_path}: {fault.message[:300]}" if fault else ""


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
    if "x-guidance" in schema:
        raise _refuse("the schema's x-guidance is not supported: it would change how the others are read")
    # The schema's own address: nothing in it can refer to that, because references are pointers inside it.
    schema = {name: value for name, value in schema.items() if name != "$id" or not isinstance(value, str)}
    _check_schema(schema)
    return ResponseFormat(schema, strict=json_schema.get("strict") is True)  # type: ignore[union-attr]


def _check_schema(schema: dict[str, Any]) -> None:
    """Raise `ApiError` for a schema that is too large, invalid, or cannot be checked here."""
    import jsonschema

    if deeper_than(schema, MAX_SCHEMA_DEPTH) or len(json.dumps(schema)) > MAX_SCHEMA_CHARS:
        raise _refuse(
            f"the schema is larger than {MAX_SCHEMA_CHARS:,} characters or {MAX_SCHEMA_DEPTH} levels"
        )
    if _longest_list(schema) > MAX_LIST_ITEMS:
        raise _refuse(f"a list in the schema has more than {MAX_LIST_ITEMS:,} items")
    for name, value in schema_keywords(schema):
        if name in _UNSUPPORTED_KEYWORDS:
            raise _refuse(f"the schema's {name} is not supported: it is not checked here")
        for pattern in patterns_of(name, value):
            if problem := _pattern_problem(pattern):
                raise _refuse(f"the schema's {name} {pattern[:100]!r} is not supported: {problem}")
        if name == "$ref" and isinstance(value, str) and not _resolves(schema, value):
            raise _refuse(f"the schema's reference {value[:100]!r} leads nowhere in it")
    try:
        validator_class(schema).check_schema(schema)
    except jsonschema.SchemaError as error:
        raise _refuse(f"the schema is invalid at {error.json_path}: {error.message[:200]}") from None
    except (RecursionError, ArithmeticError) as error:
        raise _refuse(f"the schema cannot be read: {error}") from None


def _pattern_problem(pattern: str) -> str:
    """Return why a text cannot be searched for a pattern in linear time; "" when it can."""
    if len(pattern) > MAX_PATTERN_CHARS:
        return f"it has more than {MAX_PATTERN_CHARS:,} characters"
    try:
        _occurs(pattern, "")
    except ValueError as error:
        return str(error).removeprefix("Invalid regular expression: ")[:200]
    return ""


def _occurs(pattern: str, text: str) -> bool:
    """Return whether a pattern matches anywhere in a text, in linear time: by RE2; ValueError for one it cannot read."""
    import pyarrow
    import pyarrow.compute

    return bool(
        pyarrow.compute.match_substring_regex(pyarrow.array([text]), _re2_pattern(pattern))[0].as_py()
    )


@lru_cache(maxsize=256)
def _re2_pattern(pattern: str) -> str:
    """Return a pattern of ECMA-262 in the syntax of RE2: white space and characters by number are spelled otherwise."""
    parts, inside, at = [], False, 0
    while at < len(pattern):
        char, escaped = pattern[at], pattern[at + 1 : at + 2]
        at += 1
        if char != "\\":
            inside = char == "[" or (inside and char != "]")
            parts.append(char)
        elif escaped in ("s", "S") and not (inside and escaped == "S"):
            parts.append(_SPACES if inside else f"[{'^' if escaped == 'S' else ''}{_SPACES}]")
            at += 1
        elif escaped == "u" and pattern[at + 1 : at + 2] != "{":
            parts.append(f"\\x{{{pattern[at + 1 : at + 5]}}}")
            at += 5
        else:
            parts.append("\\x" if escaped == "u" else char + escaped)
            at += 1
    return "".join(parts)


def _multiple_of(validator: Any, value: Any, instance: Any, within: Any) -> Iterator[Any]:
    """Check `multipleOf` of decimal numbers: .3 is a multiple of .1, though not in binary floating point."""
    from jsonschema import ValidationError

    if validator.is_type(instance, "number") and (
        not math.isfinite(instance) or Fraction(str(instance)) % Fraction(str(value))
    ):
        yield ValidationError(f"{instance!r} is not a multiple of {value!r}")


_KEYWORDS = (("multipleOf", _multiple_of),)


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


def _longest_list(value: Any) -> int:
    """Return the length of the longest list: checking that its items differ may take the square of it."""
    inner = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    return max([len(value) if isinstance(value, list) else 0, *map(_longest_list, inner)])


def _refuse(message: str) -> ApiError:
    return ApiError(400, message, param="response_format", code="unsupported_response_format")
