"""A JSON Schema inferred from replies: the check of their form, and what decoding is held to.

:func:`reply_schema` infers keys, their order, types and closed sets of values from parsed replies. :func:`reply_layout`
reads how the replies are spaced. A decoder that follows the schema generates ``properties`` in the order in which they
stand (llguidance, docs/json_schema.md, "Property order"), so that order is the examples'; where the examples have none,
the keys stand in ``patternProperties``, which may come in any.

A set is closed only where hardly anything new will come: the probability that the next value is new is about the share of
values seen once among all occurrences (Good 1953, The population frequencies of species and the estimation of
population parameters, Biometrika 40, 237-264).
"""

from __future__ import annotations

import heapq
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from runners.data.labels import MAX_LABELS

MAX_NEW_SHARE = 0.01
"""Estimated probability of a new key or value up to which a set is closed."""
MIN_OCCURRENCES = 50
"""Occurrences from which a set of values is closed, and from which numbers without a fraction are integers: with none new
among n, the next is new with a probability of about 1 / (n + 2) (Laplace's rule of succession)."""
MIN_OBJECTS = 10
"""Objects from which the keys of a place are listed; of fewer the schema says no more than that they are objects."""
MIN_BOUND = 100
"""Objects, or arrays, of one size from which that size is demanded: the next has another with a probability of about
1 / (n + 2)."""
ALWAYS = 0.995
"""Share of the objects that must have a key, or must have it at its place, for that to be demanded of all."""
HELD_OUT = 3
"""Every how many-th object tests the order of keys that the others show."""
MAX_VALUE_LENGTH, MAX_VALUE_WORDS = 60, 6
"""Characters and words of a value of a closed set, as of a label."""
MAX_PATTERN = 700
"""Characters of one pattern of keys: YAML reads keys of up to 1,024."""
MAX_DEPTH = 32
"""Levels of nesting that are described; anything may stand below."""
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_ESCAPED = re.compile(r"(?<!\\)(?:\\\\)*\\u(?!00[01])")
_TYPES = ("object", "array", "string", "integer", "number", "boolean", "null")


def reply_schema(values: Sequence[Any]) -> dict[str, Any]:
    """Return a JSON Schema (Draft 2020-12) that the values meet, all but outliers of up to 0.5 % at each place.

    Objects get ``properties`` in the values' order, or ``patternProperties`` where they have none; strings and keys are
    closed sets where the module's text says so. Values of keys that may be missing stay open: they are taken from the
    input more often than chosen from a set.

    Args:
        values: parsed replies, in any number and of any types.
    """
    return _schema(values, True, 0)


def reply_layout(texts: Sequence[str]) -> dict[str, Any]:
    """Return the value of the key ``x-guidance`` of a schema: how JSON texts are spaced and escaped; {} where unknown.

    The names are llguidance's (docs/json_schema.md, "Whitespace handling"); a validator ignores them. Where all texts put
    the same spaces after commas and colons and nothing else, nothing else is generated; where they have line breaks, there
    may be one with an indent as deep as theirs.
    """
    layout: dict[str, Any] = {}
    bare = [_STRING.sub('""', text.strip()) for text in texts]
    for comma, colon in (", ", ": "), (",", ":"), (",", ": "):
        pattern = re.compile(rf"(?:[^\s,:]|{comma}(?!\s)|{colon}(?!\s))*")
        if bare and sum(bool(pattern.fullmatch(text)) for text in bare) >= ALWAYS * len(bare):
            layout = {"whitespace_pattern": "", "item_separator": comma, "key_separator": colon}
            break
    else:
        indent = max((len(part) for text in bare for part in re.findall(r"\n([ \t]*)", text)), default=0)
        pattern = re.compile(rf"(?:\S|(?<!\s) (?!\s)|\n[ \t]{{0,{indent}}}(?!\s))*")
        if bare and all(pattern.fullmatch(text) for text in bare):
            layout = {"whitespace_pattern": rf" |\n[ \t]{{0,{indent}}}"}
    if any(_ESCAPED.search(text) for text in texts):
        layout["json_allow_general_unicode_escapes"] = True
    return layout


def _schema(values: Sequence[Any], closable: bool, depth: int) -> dict[str, Any]:
    """Return the schema of the values at one place.

    Args:
        values: the values.
        closable: whether strings may be a closed set: not below a key that may be missing.
        depth: number of objects and arrays around them.
    """
    kinds: dict[str, list[Any]] = {}
    for value in values:
        kinds.setdefault(_kind(value), []).append(value)
    if not values or depth > MAX_DEPTH:
        return {}
    whole = kinds.get("integer", [])
    if whole and ("number" in kinds or len(whole) < MIN_OCCURRENCES):
        kinds["number"] = kinds.pop("integer") + kinds.get("number", [])
    texts = kinds.get("string", [])
    if closable and texts and kinds.keys() <= {"string", "null"} and _is_closed_set(texts):
        return {"enum": [*sorted(set(texts)), *([None] if "null" in kinds else [])]}
    types = [kind for kind in _TYPES if kind in kinds]
    schema: dict[str, Any] = {"type": types[0] if len(types) == 1 else types}
    if objects := kinds.get("object"):
        schema |= _object_keywords(objects, closable, depth)
    if arrays := kinds.get("array"):
        schema |= _array_keywords(arrays, closable, depth)
    return schema


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    kinds = {int: "integer", float: "number", str: "string", list: "array", dict: "object"}
    return kinds.get(type(value), "null")


def _is_closed_set(texts: Sequence[str]) -> bool:
    """Whether hardly any other text will come, and each is as short as a label."""
    counts = Counter(texts)
    short = all(len(text) <= MAX_VALUE_LENGTH and len(text.split()) <= MAX_VALUE_WORDS for text in counts)
    few = len(counts) <= MAX_LABELS and len(texts) >= max(MIN_OCCURRENCES, 3 * len(counts))
    return short and few and _new_share(counts) <= MAX_NEW_SHARE


def _new_share(counts: Counter[str]) -> float:
    """Return Good's estimate of the probability that the next occurrence is of something not seen."""
    return sum(n == 1 for n in counts.values()) / counts.total()


def _array_keywords(arrays: Sequence[list[Any]], closable: bool, depth: int) -> dict[str, Any]:
    """Return the keywords of arrays: the schema of their items, and their length where it is always the same."""
    items = [item for array in arrays for item in array]
    keywords: dict[str, Any] = {"items": _schema(items, closable, depth + 1)} if items else {}
    lengths = {len(array) for array in arrays}
    if len(lengths) == 1 and len(arrays) >= MIN_BOUND and (length := lengths.pop()) > 1:
        keywords |= {"minItems": length, "maxItems": length}
    return keywords


def _object_keywords(objects: Sequence[dict[str, Any]], closable: bool, depth: int) -> dict[str, Any]:
    """Return the keywords of objects: their keys in the examples' order or in any, each with the schema of its values."""
    if len(objects) < MIN_OBJECTS:
        return {}
    counts = Counter(key for row in objects for key in row)
    if not counts:
        return {"additionalProperties": False} if len(objects) >= MIN_BOUND else {}
    always = [key for key, n in counts.items() if n >= ALWAYS * len(objects)]
    closed = _new_share(counts) <= MAX_NEW_SHARE
    # Keys that are as rare as new ones tell nothing of their own.
    listed = set(counts) if closed else {key for key, n in counts.items() if n >= max(3, 0.01 * len(objects))}
    order = _fixed_order(objects, listed)
    first = order if order is not None else _first_keys(objects, always)
    rest = [key for key in sorted(listed) if key not in first]

    def of_keys(keys: Iterable[str]) -> dict[str, Any]:
        names = set(keys)
        inner = [value for row in objects for key, value in row.items() if key in names]
        return _schema(inner, closable and names <= set(always), depth + 1)

    keywords: dict[str, Any] = {}
    if first:
        keywords["properties"] = {key: of_keys([key]) for key in first}
    if required := [key for key in first if key in always]:
        keywords["required"] = required
    if not closed:
        keywords["additionalProperties"] = of_keys(key for key in counts if key not in first)
        return keywords
    if rest:
        keywords["patternProperties"] = _pattern_properties({key: of_keys([key]) for key in rest})
        # A decoder does not keep such keys from being repeated: their number is bounded, so that no loop goes on to the end.
        if len(objects) >= MIN_BOUND and len(required) == len(first):
            fewest, most = min(map(len, objects)), max(map(len, objects))
            same = fewest == most
            keywords |= (
                {"minProperties": fewest, "maxProperties": most} if same else {"maxProperties": 2 * most}
            )
    return {**keywords, "additionalProperties": False}


def _pattern_properties(schemas: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Return patterns of all keys with the same schema, the largest group first; disjoint, as decoders demand."""
    groups: dict[str, list[str]] = {}
    for key, schema in schemas.items():
        groups.setdefault(json.dumps(schema, sort_keys=True), []).append(key)
    patterns: dict[str, Any] = {}
    for keys in sorted(groups.values(), key=lambda keys: (-len(keys), keys)):
        parts: list[list[str]] = [[]]
        for name in map(re.escape, keys):
            if parts[-1] and sum(len(other) + 1 for other in parts[-1]) + len(name) > MAX_PATTERN:
                parts.append([])
            parts[-1].append(name)
        patterns |= {f"^(?:{'|'.join(part)})$": schemas[keys[0]] for part in parts}
    return patterns


def _first_keys(objects: Sequence[dict[str, Any]], always: Sequence[str]) -> list[str]:
    """Return the keys with which (nearly) all objects begin, in this order."""
    first: list[str] = []
    rows = [list(row) for row in objects]
    while len(first) < len(always):
        at = Counter(row[len(first)] for row in rows if len(row) > len(first))
        key, count = at.most_common(1)[0] if at else ("", 0)
        if count < ALWAYS * len(rows):
            break
        first.append(key)
    return first


def _fixed_order(objects: Sequence[dict[str, Any]], listed: set[str]) -> list[str] | None:
    """Return the one order in which the objects have the listed keys, others behind them; None without one.

    An order that two thirds of the objects show must hold for the last third too: pairs of keys that are seldom in one
    object may come in an order that was not seen.
    """
    if not listed:
        return None
    rows = [list(row) for row in objects]
    if len(rows) >= HELD_OUT * MIN_OBJECTS:
        held_out = rows[::HELD_OUT]
        tried = _order_of([row for n, row in enumerate(rows) if n % HELD_OUT], listed)
        if tried is None or _share_in_order(held_out, tried) < 1 - MAX_NEW_SHARE:
            return None
    order = _order_of(rows, listed)
    return order if order is not None and _share_in_order(rows, order) >= ALWAYS else None


def _order_of(rows: Sequence[Sequence[str]], listed: set[str]) -> list[str] | None:
    """Return an order of the listed keys that the rows have, alphabetical where they allow it; None where they disagree."""
    orders = [[key for key in row if key in listed] for row in rows]
    alphabetical = sorted(listed)
    if _share_in_order(rows, alphabetical) == 1:
        return alphabetical
    followed: Counter[tuple[str, str]] = Counter(pair for row in orders for pair in pairwise(row))
    after: dict[str, set[str]] = {key: set() for row in orders for key in row}
    waiting = dict.fromkeys(after, 0)
    for (a, b), n in followed.items():
        # Outliers against the usual order of two keys do not make it one without an order.
        if n > (1 - ALWAYS) * (n + followed[b, a]):
            after[a].add(b)
            waiting[b] += 1
    place = {key: n for n, key in enumerate(after)}
    ready = [(place[key], key) for key, n in waiting.items() if not n]
    heapq.heapify(ready)
    order = []
    while ready:
        _, key = heapq.heappop(ready)
        order.append(key)
        for later in after[key]:
            waiting[later] -= 1
            if not waiting[later]:
                heapq.heappush(ready, (place[later], later))
    return order if len(order) == len(after) else None


def _share_in_order(rows: Sequence[Sequence[str]], order: Sequence[str]) -> float:
    """Return the share of rows whose keys of the order come in it, and before all their other keys."""
    place = {key: n for n, key in enumerate(order)}
    ordered = 0
    for row in rows:
        places = [place.get(key, len(place)) for key in row]
        ordered += all(a <= b for a, b in pairwise(places))
    return ordered / len(rows)
