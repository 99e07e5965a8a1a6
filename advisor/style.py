"""Derive the house style's checks from the examples: only rules that at least 95 % of them meet."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from advisor.datastats import guess_format
from advisor.form import SHARE, form
from rag.words import sentences
from runners.labels import labels_of
from runners.plan import Check, Prompts

LEAST = 20
"""Fewer examples than this do not show a style."""
CLOSING_SHARE, MOST_CLOSINGS = 0.9, 4
"""Share of replies that end with a question for a refusal to end with one, and how many closings are taken over."""


def derive(replies: Sequence[str]) -> tuple[tuple[Check, ...], str]:
    """Return the checks that at least 95 % of replies meet, and a line that says how they were found."""
    texts = [reply.strip() for reply in replies]
    if len(texts) < LEAST:
        return (), f"no checks of style: {len(texts)} examples are too few to show one (at least {LEAST})"
    kind = guess_format(texts)
    if kind == "json":
        return (
            Check(kind="json_schema", value=_schema(texts), text="JSON with the examples' keys and types"),
        ), (f"style: the JSON shape of {len(texts)} examples")
    if labels := labels_of(texts):
        return (
            Check(kind="labels", value=list(labels), text=f"one of {len(labels)} labels, nothing else"),
        ), (f"style: the {len(labels)} labels of {len(texts)} examples")
    checks = form(texts)
    if not checks:
        return (), "no checks of style: the examples share no shape that code can judge"
    words = sorted(len(text.split()) for text in texts)
    limit = words[min(len(words) - 1, math.ceil(0.99 * len(words)) - 1)]
    checks.append(Check(kind="max_words", value=limit, text=f"at most {limit} words (99 % of the examples)"))
    return tuple(checks), "style: " + "; ".join(check.text for check in checks)


def formulas(replies: Sequence[str]) -> tuple[str, ...]:
    """The sentences, questions left out, that nearly all replies open or close with: manner, and no statement."""
    opening, closing = _opening(replies), _usual(_endings(replies), len(replies))
    return tuple(text for text in (*opening, *closing) if not text.endswith("?"))


def styled_refusals(replies: Sequence[str]) -> tuple[str, ...]:
    """Refusals for a house whose examples hold none: the default one, opened and closed as the house's replies are.

    A sentence that most replies begin or end with stands around it too. Where most end with a question, the most usual
    ones follow the refusal. So refusing is in style.
    """
    endings = _endings(replies)
    closings = _usual(endings, len(replies)) or _asking(endings, len(replies))
    begun = " ".join((*_opening(replies), Prompts().refusals[0]))
    return tuple(f"{begun} {closing}" for closing in closings) or (begun,)


def _opening(replies: Sequence[str]) -> tuple[str, ...]:
    return _usual([found[0] for reply in replies if len(found := sentences(reply)) > 1], len(replies))


def _endings(replies: Sequence[str]) -> list[str]:
    return [found[-1] for reply in replies if len(found := sentences(reply)) > 1]


def _usual(said: Sequence[str], of: int) -> tuple[str, ...]:
    """The one sentence that stands in most of so many replies; () without one."""
    most = Counter(said).most_common(1)
    return (most[0][0],) if most and most[0][1] >= max(LEAST, CLOSING_SHARE * of) else ()


def _asking(endings: Sequence[str], of: int) -> tuple[str, ...]:
    """The most usual closing questions, where most of so many replies have one."""
    closing = Counter(text for text in endings if text.endswith("?"))
    if closing.total() < max(LEAST, CLOSING_SHARE * of):
        return ()
    return tuple(sorted(closing, key=lambda text: (-closing[text], text))[:MOST_CLOSINGS])


def _schema(texts: Sequence[str]) -> dict[str, Any]:
    """Infer the JSON Schema of the values: types seen, keys that are (nearly) always there."""
    values = []
    for text in texts:
        try:
            values.append(json.loads(text))
        except ValueError:
            continue
    if not all(isinstance(value, dict) for value in values):
        return {"type": sorted({_type(value) for value in values})}
    counts = Counter(key for value in values for key in value)
    types: dict[str, set[str]] = {}
    for value in values:
        for key, inner in value.items():
            types.setdefault(key, set()).add(_type(inner))
    return {
        "type": "object",
        "required": sorted(key for key, n in counts.items() if n >= SHARE * len(values)),
        "properties": {key: {"type": sorted(types[key])} for key in sorted(types)},
        "additionalProperties": False,
    }


def _type(value: Any) -> str:
    names = {bool: "boolean", int: "number", float: "number", str: "string", list: "array", dict: "object"}
    return names.get(type(value), "null")
