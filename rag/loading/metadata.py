"""Front matter and file properties as plain, typed values: dates as ISO 8601, tags as a list."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime
from typing import Any

_FRONT_MATTER_START = re.compile(r"(---|\+\+\+)[ \t]*\r?\n")
_MAX_FRONT_MATTER_CHARS = 16_384
_MAX_BRACKETS = 500
"""PyYAML takes quadratic time on deep nesting; real front matter has far fewer."""
_DATE_NAMES = ("date", "updated", "valid_from", "valid_until")
_CANONICAL_NAMES = {
    **dict.fromkeys(("date", "published", "pubdate", "created", "article:published_time", "dc.date"), "date"),
    **dict.fromkeys(
        ("updated", "modified", "lastmod", "article:modified_time", "og:updated_time"), "updated"
    ),
    **dict.fromkeys(("valid_from", "valid-from", "effective", "effective_date"), "valid_from"),
    **dict.fromkeys(("valid_until", "valid-until", "expires", "expiry", "expirydate"), "valid_until"),
    **dict.fromkeys(("tags", "keywords", "article:tag"), "tags"),
    **dict.fromkeys(("author", "authors", "dc.creator"), "author"),
}
_DATE_FORMATS = ("%d.%m.%Y", "%Y/%m/%d", "%d %B %Y", "%B %d, %Y", "%d %b %Y", "%b %d, %Y")


def front_matter(raw: str) -> tuple[dict[str, Any], int]:
    """Return the fields between ``---`` (YAML) or ``+++`` (TOML) lines at the top, and where the text begins.

    Front matter that is not a mapping is treated as text: the result is ``({}, 0)``.
    """
    opening = _FRONT_MATTER_START.match(raw)
    if not opening:
        return {}, 0
    mark = opening.group(1)
    head = raw[opening.end() : opening.end() + _MAX_FRONT_MATTER_CHARS]
    closing = re.search(
        rf"^(?:{re.escape(mark)}{'|[.]{3}' if mark == '---' else ''})[ \t]*(?:\r?\n|\Z)", head, re.M
    )
    if not closing:
        return {}, 0
    fields = _yaml(head[: closing.start()]) if mark == "---" else _toml(head[: closing.start()])
    if not isinstance(fields, dict) or not fields:
        return {}, 0
    return properties(fields), opening.end() + closing.end()


def properties(fields: Mapping[Any, Any] | Iterable[tuple[Any, Any]]) -> dict[str, Any]:
    """Return fields under the names that search knows (``published`` is ``date``), with typed plain values."""
    named: dict[str, Any] = {}
    for key, value in dict(fields).items():
        name = str(key).strip()
        name = _CANONICAL_NAMES.get(name.lower(), name)
        value = plain_value(value)
        if value in (None, "", [], {}) or name in ("page_starts", "hidden_text", "encoding"):
            continue
        if name in _DATE_NAMES:
            value = iso_date(value)
        elif name == "tags" and isinstance(value, str):
            value = [tag.strip() for tag in re.split(r"[,;]", value) if tag.strip()]
        named.setdefault(name, value)
    return named


def plain_value(value: Any, depth: int = 0) -> Any:
    """Return a value as JSON can hold it: dates as ISO 8601, keys as strings, other types as their string."""
    if depth > 20:
        return str(value)[:200]
    if isinstance(value, dict):
        return {str(key): plain_value(inner, depth + 1) for key, inner in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [plain_value(inner, depth + 1) for inner in value]
    if isinstance(value, datetime):
        return _utc_timestamp(value)
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int):  # SQLite and JavaScript hold 64 bits; float() fails beyond 2**1024
        return value if abs(value) < 2**63 else str(float(value)) if abs(value) < 2**1000 else "very large"
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    return str(value).encode("utf-8", "replace").decode("utf-8").replace("\0", "")


def iso_date(value: Any) -> Any:
    """Return a date written in one of the usual unambiguous ways as ISO 8601, anything else as it is."""
    text = str(value).strip()
    if not isinstance(value, str) or not any(char.isdigit() for char in text):
        return value
    try:
        return (
            _utc_timestamp(datetime.fromisoformat(text))
            if len(text) > 10
            else date.fromisoformat(text).isoformat()
        )
    except ValueError:
        pass
    for format in _DATE_FORMATS:
        try:
            return datetime.strptime(text, format).date().isoformat()
        except ValueError:
            continue
    return value


def _yaml(text: str) -> Any:
    """Parse YAML; None when it is invalid or has aliases, a few of which can expand to gigabytes."""
    import yaml

    from rag.text.bounded_yaml import load_yaml

    if text.count("[") + text.count("{") > _MAX_BRACKETS:
        return None
    try:
        return load_yaml(text, aliases=False)
    except (yaml.YAMLError, ValueError, RecursionError, TypeError, OverflowError):
        return None


def _toml(text: str) -> Any:
    import tomllib

    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError, ValueError):
        return None


def _utc_timestamp(value: datetime) -> str:
    """Return the time in UTC to the second; without a time zone it is kept without one."""
    try:
        if value.tzinfo is not None:
            value = value.astimezone(UTC)
        return value.replace(microsecond=0).isoformat().replace("+00:00", "Z")
    except (
        OverflowError,
        ValueError,
    ):  # a time zone that moves the date before the first day of the calendar
        return str(value)
