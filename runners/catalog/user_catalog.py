"""The user's own facts: a YAML file whose rows correct or extend the shipped models, GPUs and prices.

::

    gpus:
      - {name: RTX 4090, usd_hour: 0.29}             # known: only what differs
    prices:
      - {model: our-model, input: 0.2, output: 0.8}  # new: all that has no default
    models:
      - {hub: acme/Our-7B, params_b: 7.2, layers: 32, hidden: 4096, heads: 32, ..., kind: base, languages: [en, de]}

``TUNEWISE_FACTS`` names the file (empty: no file is read); by default it is ``facts.yaml`` in the user's
configuration folder and may be missing. Each :class:`CatalogTable` defines the keys of its rows; the
``source`` of a row that was changed then names this file. :func:`merge_catalog` is the entry point.
"""

from __future__ import annotations

import difflib
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, Generic, TypeVar

from rag.errors import BadInput

CATALOG_VARIABLE = "TUNEWISE_FACTS"
SECTIONS = ("models", "gpus", "prices")
MAX_CATALOG_BYTES = 1_000_000
T = TypeVar("T")
Check = Callable[[Any], Any]
"""Returns the value as the table holds it; the text of its ValueError completes "should be ..."."""


@dataclass(frozen=True, slots=True)
class CatalogFile:
    """The path of the user's file and its modification time in nanoseconds, which together key the caches."""

    path: Path
    changed: int


@dataclass(frozen=True, slots=True)
class CatalogTable(Generic[T]):
    """How rows of one section are read, and how they become entries of the shipped list."""

    section: str
    key: str
    """The field that names an entry."""
    fields: Mapping[str, Check]
    defaults: Mapping[str, Any]
    """Fields that a new entry may omit; ``source`` and ``day`` are never required."""
    flat: Callable[[T], dict[str, Any]]
    build: Callable[[dict[str, Any]], T]


def catalog_file() -> CatalogFile | None:
    """Return the user's file, None when there is none; BadInput when TUNEWISE_FACTS names a missing one."""
    named = os.environ.get(CATALOG_VARIABLE)
    if named == "":
        return None
    path = Path(named).expanduser() if named else _default_path()
    try:
        return CatalogFile(path, path.stat().st_mtime_ns)
    except OSError as error:
        if named:
            raise BadInput(
                f"{CATALOG_VARIABLE} names {path}, which cannot be read: {error.strerror}",
                "correct it, or unset it",
            ) from None
        return None


def merge_catalog(table: CatalogTable[T], shipped: Sequence[T], own: CatalogFile) -> tuple[T, ...]:
    """Return the shipped entries with the user's corrections, followed by the rows that are new.

    Raises:
        BadInput: naming file, row and key, for an unknown key, an invalid value or an incomplete new row.
    """
    entries = {_same(table.flat(entry)[table.key]): table.flat(entry) for entry in shipped}
    for where, row in _rows(own, table.section):
        if table.key not in row:
            raise BadInput(f"{where}: {table.key} is missing", f"each row names one of the {table.section}")
        where = f"{where} {row[table.key]!r}"
        values = {key: _checked(table, where, key, value) for key, value in row.items()}
        shipped_values = entries.get(_same(values[table.key]))
        corrected = ", ".join(key for key in values if key != table.key)
        if shipped_values is not None:
            values = {**shipped_values, **values, table.key: shipped_values[table.key]}
            values["source"] = f"your {own.path.name} ({corrected}); else {shipped_values['source']}"
        else:
            missing = [k for k in table.fields if k not in values and k not in {*table.defaults, "day"}]
            if missing:
                raise BadInput(
                    f"{where}: new, but without {', '.join(missing)}", "give them, or a known name"
                )
            values = {**table.defaults, **values, "source": f"your {own.path.name}"}
        if "day" in table.fields and "day" not in row:
            values["day"] = datetime.fromtimestamp(own.changed / 1e9).date()
        entries[_same(values[table.key])] = values
    return tuple(table.build(values) for values in entries.values())


def read_text_value(value: Any) -> str:
    """Accept a non-empty text."""
    if isinstance(value, str) and value.strip():
        return value.strip()
    raise ValueError("a text")


def read_number(value: Any) -> float:
    """Accept a number of at least 0."""
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf:
        return float(value)
    raise ValueError("a number, 0 or more")


def read_number_or_none(value: Any) -> float | None:
    """Accept a number of at least 0, or null."""
    return None if value is None else read_number(value)


def read_count(value: Any) -> int:
    """Accept a whole number above 0."""
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    raise ValueError("a whole number above 0")


def read_flag(value: Any) -> bool:
    """Accept true or false."""
    if isinstance(value, bool):
        return value
    raise ValueError("true or false")


def read_day(value: Any) -> date:
    """Accept a date as YAML reads it: 2026-11-25."""
    if isinstance(value, date) and not isinstance(value, datetime):
        return value
    raise ValueError("a day such as 2026-11-25")


def one_of_words(*allowed: str) -> Check:
    """Return a check that accepts only these words."""

    def check(value: Any) -> str:
        if value in allowed:
            return str(value)
        raise ValueError(f"one of {', '.join(allowed)}")

    return check


def _checked(table: CatalogTable[Any], where: str, key: Any, value: Any) -> Any:
    """Return the value of a row's key as its check reads it; BadInput for an unknown key or bad value."""
    if key not in table.fields:
        close = difflib.get_close_matches(str(key), table.fields, n=1)
        hint = f"known: {', '.join(table.fields)}"
        raise BadInput(f"{where}: unknown key {key!r}", f"did you mean {close[0]}?" if close else hint)
    try:
        return table.fields[key](value)
    except ValueError as allowed:
        raise BadInput(f"{where}: {key} is {value!r}", f"it should be {allowed}") from None


def _rows(own: CatalogFile, section: str) -> list[tuple[str, dict[Any, Any]]]:
    """Return the rows of a section, each with a description of its position for error messages."""
    rows = _loaded(own).get(section) or []
    if not isinstance(rows, list):
        raise BadInput(
            f"{own.path}: {section} is no list", f"write {section}: and under it rows that begin with -"
        )
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise BadInput(
                f"{own.path}: {section} row {number} is {row!r}", "a row is a mapping of key: value"
            )
    return [(f"{own.path}: {section} row {number}", row) for number, row in enumerate(rows, 1)]


@lru_cache(maxsize=2)
def _loaded(own: CatalogFile) -> dict[str, Any]:
    """Return the parsed file; BadInput when it is too large, not YAML, or holds unknown sections."""
    import yaml

    from rag.text.bounded_yaml import load_yaml

    try:
        if own.path.stat().st_size > MAX_CATALOG_BYTES:
            raise BadInput(
                f"{own.path} is over {MAX_CATALOG_BYTES:,} bytes", "a file of facts has a few dozen rows"
            )
        loaded = load_yaml(own.path.read_text("utf-8")) or {}
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise BadInput(
            f"{own.path} is not readable YAML: {reason}", f"correct it, or set {CATALOG_VARIABLE} to nothing"
        ) from None
    if not isinstance(loaded, dict):
        raise BadInput(f"{own.path} is no mapping", f"write {', '.join(SECTIONS)} and under them rows")
    for key in loaded:
        if key not in SECTIONS:
            close = difflib.get_close_matches(str(key), SECTIONS, n=1)
            hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(SECTIONS)}"
            raise BadInput(f"{own.path}: unknown key {key!r}", hint)
    return loaded


@lru_cache(maxsize=1)
def _default_path() -> Path:
    """Return the path of the file in the user's configuration folder."""
    from platformdirs import user_config_path

    return user_config_path("tunewise") / "facts.yaml"


def _same(name: str) -> str:
    """Return the form of a name in which two spellings are compared."""
    return name.strip().casefold()
