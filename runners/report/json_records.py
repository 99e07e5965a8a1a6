"""Records as JSON objects and back: :func:`to_json` and :func:`from_json`.

A record is a frozen dataclass whose fields are the keys of the object. A field without a default is always written; one with
a default is left out where it has that default.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from enum import Enum
from functools import cache
from types import NoneType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

Record = TypeVar("Record")
_PLAIN: Mapping[Any, tuple[type, ...]] = {str: (str,), int: (int,), float: (int, float), bool: (bool,)}


def to_json(value: Any) -> Any:
    """Return a record, or a container of records, as JSON values."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    if not is_dataclass(value):
        return value
    body: dict[str, Any] = {}
    for key in fields(value):
        item = getattr(value, key.name)
        if key.default is not MISSING and item == key.default:
            continue
        body[key.name] = to_json(item)
    return body


def from_json(kind: type[Record], value: Any) -> Record:
    """Return the record of this kind that an object holds; keys that it has no field for are left out.

    The messages of errors do not repeat what the object holds: it may be text of documents.

    Raises:
        KeyError: a key is missing that is not None or left out.
        TypeError: a value is of another type.
        ValueError: a value is none of those that its field may have.
    """
    record: Record = _convert(kind, value)
    return record


def _convert(kind: Any, value: Any) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if NoneType in arguments:
        return None if value is None else _convert(arguments[0], value)
    if is_dataclass(kind):
        return _record(kind, value)
    if origin is tuple:
        return tuple(_convert(arguments[0], item) for item in value)
    if origin is not None:
        return {key: _convert(arguments[1], item) for key, item in value.items()}
    if isinstance(kind, type) and issubclass(kind, Enum):
        if value not in [member.value for member in kind]:
            raise ValueError(f"a value is no {kind.__name__}")
        return kind(value)
    if kind in _PLAIN and (not isinstance(value, _PLAIN[kind]) or isinstance(value, bool) != (kind is bool)):
        raise TypeError(f"a value is no {kind.__name__}")
    return value


def _record(kind: Any, value: Any) -> Any:
    values: dict[str, Any] = {}
    for key, wanted in _fields_of(kind):
        if key.name in value:
            values[key.name] = _convert(wanted, value[key.name])
        elif key.default is MISSING:
            if NoneType not in get_args(wanted):
                raise KeyError(key.name)
            values[key.name] = None
    return kind(**values)


@cache
def _fields_of(kind: Any) -> tuple[tuple[Field[Any], Any], ...]:
    """Return the fields of a record with their types."""
    hints = get_type_hints(kind)
    return tuple((key, hints[key.name]) for key in fields(kind))
