"""JSON Schemas inferred from replies: valid for them, and every reply can be generated under them, byte by byte."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from llguidance import LLMatcher, LLTokenizer

from advisor.drafting.form_checks import derive_checks
from advisor.drafting.reply_schemas import reply_layout, reply_schema
from runners.plan.schema import parse_plan, read_plan, write_plan

ODD_KEYS = ["a.b", 'q"uote', "back\\slash", "sp ace", "(p)", "[x]", "a|b", "$end", "^s", "ü", "new\nline", ""]
SLOTS = ["city", "date", "time", "artist", "genre", "year"]


def _tree(depth: int, n: int) -> dict[str, Any]:
    return {"v": n, "c": [_tree(depth - 1, n)] * 2 if depth else []}


def _shuffled(draw: random.Random, pairs: list[tuple[str, Any]], count: int) -> dict[str, Any]:
    return dict(draw.sample(pairs, count))


def _intent(draw: random.Random, n: int) -> dict[str, Any]:
    slots = {slot: f"{slot} {n}" for slot in draw.sample(SLOTS, draw.randint(1, 4))}
    return {"intent": draw.choice(["Play", "Book", "Rate"]), "slots": slots}


SHAPES: dict[str, Callable[[random.Random, int], Any]] = {
    "intent and slots in any order": _intent,
    "top-level array": lambda draw, n: [{"n": f"x{n}", "v": n * 1.5}] * draw.randint(0, 3),
    "numbers as ids": lambda draw, n: {"id": draw.choice([n, str(n), f"A{n}", None]), "n": n},
    "heterogeneous": lambda draw, n: draw.choice([{"a": n}, [n], {"b": [{"c": n}]}, {"a": "x"}]),
    "tree": lambda draw, n: _tree(draw.randint(0, 4), n),
    "forty levels": lambda draw, n: json.loads('{"n": ' * 40 + str(n) + "}" * 40),
    "odd keys in one order": lambda draw, n: dict.fromkeys(ODD_KEYS, f"v{n}"),
    "odd keys in any order": lambda draw, n: _shuffled(draw, [(key, f"v{n}") for key in ODD_KEYS], 5),
    "all keys in any order": lambda draw, n: _shuffled(draw, [("a", 1), ("b", "x"), ("c", [n])], 3),
    "names as keys": lambda draw, n: {"total": n, **{f"w{draw.random()}": n for _ in range(3)}},
    "names before a fixed key": lambda draw, n: {**{f"w{draw.random()}": n for _ in range(3)}, "total": n},
    "pairs": lambda draw, n: [n * 0.1, n * 0.2],
    "numbers": lambda draw, n: {"p": draw.choice([1, 2.5, 1e-7, 1e22, -3]), "big": 10**25, "ok": n % 2 == 0},
    "empty": lambda draw, n: draw.choice([{}, [], {"a": {}}, {"a": []}]),
}
LAYOUTS: tuple[dict[str, Any], ...] = (
    {"ensure_ascii": False},
    {"separators": (",", ":"), "ensure_ascii": False},
    {"indent": 2, "ensure_ascii": False},
    {"indent": "\t", "ensure_ascii": False},
)


def _replies(shape: str, count: int = 120, **layout: Any) -> list[str]:
    draw = random.Random(1)
    return [json.dumps(SHAPES[shape](draw, n), **layout) for n in range(count)]


def _schema(replies: list[str]) -> dict[str, Any]:
    check = derive_checks(replies)[0][0]
    assert check.kind == "json_schema"
    return dict(check.value)


def _not_producible(schema: dict[str, Any], replies: list[str]) -> list[str]:
    """Return the replies that a decoder held to the schema cannot write."""
    grammar = LLMatcher.grammar_from_json_schema(json.dumps(schema, ensure_ascii=False))
    tokenizer = LLTokenizer("byte")
    assert LLMatcher.validate_grammar_with_warnings(grammar, tokenizer) == (False, [])
    matcher = LLMatcher(tokenizer, grammar)
    left = []
    for reply in replies:
        tokens = tokenizer.tokenize_str(reply)
        if matcher.try_consume_tokens(tokens) < len(tokens) or not matcher.is_accepting():
            left.append(reply)
        matcher.reset()
    return left


@pytest.mark.parametrize(
    ("shape", "layout"),
    [(shape, LAYOUTS[0]) for shape in SHAPES] + [("heterogeneous", layout) for layout in LAYOUTS[1:]],
    ids=lambda value: value if isinstance(value, str) else "-".join(value),
)
def test_replies_meet_their_schema_and_can_be_generated_under_it(shape: str, layout: dict[str, Any]) -> None:
    replies = _replies(shape, 20 if shape == "forty levels" else 120, **layout)
    schema = _schema(replies)
    validator = jsonschema.Draft202012Validator(schema)
    assert [reply for reply in replies if not validator.is_valid(json.loads(reply))] == []
    assert _not_producible(schema, replies) == []


def test_order_is_the_examples() -> None:
    """Properties in the order of the replies, also where keys may be missing; in any order where they disagree."""
    optional = [{"z": 1, **({"m": 2} if n % 3 else {}), **({"a": 3} if n % 2 else {})} for n in range(60)]
    schema = reply_schema(optional)
    assert list(schema["properties"]) == ["z", "m", "a"]
    assert schema["required"] == ["z"]
    assert schema["additionalProperties"] is False
    varied = reply_schema([_intent(random.Random(n), n) for n in range(200)])
    assert list(varied["properties"]) == ["intent", "slots"]
    slots = varied["properties"]["slots"]
    assert slots["patternProperties"] == {"^(?:artist|city|date|genre|time|year)$": {"type": "string"}}
    assert (slots["maxProperties"], slots["additionalProperties"]) == (8, False)


def test_alphabetical_order_holds_for_pairs_that_were_not_seen() -> None:
    pairs = [("a", "c"), ("b", "d"), ("c", "e"), ("a", "e")]
    rows = [dict.fromkeys(pairs[n % 4], "x") for n in range(60)]
    assert list(reply_schema(rows)["properties"]) == ["a", "b", "c", "d", "e"]


def test_sets_are_closed_only_where_hardly_anything_new_will_come() -> None:
    """An intent of three is a closed set; names of which many occur once, long texts and optional values are not."""
    draw = random.Random(3)
    rows = [
        {
            "intent": draw.choice("abc"),
            "name": draw.choice("xyz") if n % 20 else f"new {n}",
            "text": draw.choice(["one two three four five six seven", "word " * 20]),
            **({"beds": draw.choice("12")} if n % 2 else {}),
        }
        for n in range(200)
    ]
    properties = reply_schema(rows)["properties"]
    assert properties == {
        "intent": {"enum": ["a", "b", "c"]},
        "name": {"type": "string"},
        "text": {"type": "string"},
        "beds": {"type": "string"},
    }
    assert reply_schema(rows[:40])["properties"]["intent"] == {"type": "string"}
    names = [{f"n{draw.random()}": 1.5} for _ in range(60)]
    assert reply_schema(names) == {"type": "object", "additionalProperties": {"type": "number"}}


def test_types() -> None:
    """Whole numbers are integers once they are many; null is one type of several, and one value of a closed set."""
    rows = [
        {"n": n, "x": n if n % 2 else n / 2, "a": None if n % 9 else "b", "p": [n, 1]} for n in range(120)
    ]
    properties = reply_schema(rows)["properties"]
    assert properties["n"] == {"type": "integer"}
    assert properties["x"] == {"type": "number"}
    assert properties["a"] == {"type": ["string", "null"]}
    assert properties["p"] == {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 2}
    assert reply_schema(rows[:30])["properties"]["n"] == {"type": "number"}
    closed = reply_schema([{"a": None if n % 3 else "b"} for n in range(300)])
    assert closed["properties"]["a"] == {"enum": ["b", None]}
    assert reply_schema([]) == {}


def test_spacing_and_escapes_are_the_examples() -> None:
    """Only the replies' spaces are generated; characters may be escaped where the replies escape them."""
    spaced = _schema([json.dumps({"a": [n, 2], "b": "x: y, z"}) for n in range(40)])
    assert spaced["x-guidance"] == {
        "whitespace_pattern": "",
        "item_separator": ", ",
        "key_separator": ": ",
    }
    assert _not_producible(spaced, ['{"a": [1,  2], "b": "x"}', '{"a":[1, 2], "b": "x"}']) != []
    escaped = [json.dumps({"name": f"é{n}😀"}) for n in range(40)]
    assert _not_producible(_schema(escaped), escaped) == []
    assert reply_layout(['{"a" :  1}', '{"a": 1}']) == {}
    assert reply_layout([]) == {}


def test_few_replies_that_are_not_json_do_not_open_the_schema() -> None:
    replies = [json.dumps({"a": n}) for n in range(97)] + ["I could not find that."] * 3
    assert _schema(replies)["properties"] == {"a": {"type": "integer"}}


def test_schemas_are_read_back_from_the_plan_in_their_order(tmp_path: Path) -> None:
    """Also one of so many names that a single pattern of them would be too long for a key of YAML."""
    draw = random.Random(2)
    many = [(f"a rather long name of a slot, {n}", "x") for n in range(80)]
    replies = [json.dumps(_shuffled(draw, many, 20)) for n in range(200)]
    odd = _replies("odd keys in one order")
    values = [_schema(replies), _schema(odd), _schema(_replies("intent and slots in any order"))]
    checks = [{"kind": "json_schema", "value": value} for value in values]
    plan = parse_plan(
        {
            "schema": 1,
            "name": "p",
            "choice": "prompting",
            "model": {"name": "m"},
            "data": {},
            "steps": [],
            "weights": {"style": 1},
            "checks": checks,
        }
    )
    write_plan(plan, tmp_path / "plan.yaml")
    read = read_plan(tmp_path / "plan.yaml")
    assert [json.dumps(check.value) for check in read.checks] == [json.dumps(value) for value in values]
    assert _not_producible(values[0], replies[:20]) == []
