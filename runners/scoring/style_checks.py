"""The style checks of a plan, applied to one reply by rule: patterns, lengths, labels, forbidden texts, JSON schemas."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from runners.plan.schema import StyleCheck

_SHARE = re.compile(r" \(\d+ % of [\d,]+ examples\)$")


def failed_checks(reply: str, checks: Sequence[StyleCheck]) -> tuple[str, ...]:
    """Return the text of each check that a reply does not meet; empty when all are met.

    A check without a text is described as "kind: value".
    """
    text = reply.strip()
    return tuple(check.text or f"{check.kind}: {check.value}" for check in checks if not _passes(text, check))


def in_style(reply: str, checks: Sequence[StyleCheck]) -> float | None:
    """Return 1.0 when every check is met and 0.0 otherwise; None when the plan has no checks."""
    if not checks:
        return None
    return float(not failed_checks(reply, checks))


def rule_text(check: StyleCheck) -> str:
    """Return what a check demands, without the share of the examples that meets it ("... (97 % of 934 examples)")."""
    return _SHARE.sub("", check.text)


def _passes(text: str, check: StyleCheck) -> bool:
    if check.kind == "regex":
        return re.search(check.value, text, re.DOTALL) is not None
    if check.kind == "max_words":
        return len(text.split()) <= check.value
    if check.kind == "labels":
        return text.rstrip(".") in set(check.value)
    if check.kind == "must_not":
        return not any(part.casefold() in text.casefold() for part in check.value)
    return _matches_schema(text, check.value)


def _matches_schema(text: str, schema: dict[str, object]) -> bool:
    import jsonschema

    try:
        jsonschema.validate(json.loads(text), schema)
    except (ValueError, RecursionError, jsonschema.ValidationError):
        return False
    return True
