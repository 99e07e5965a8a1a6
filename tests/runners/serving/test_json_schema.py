"""The `response_format` field: checked answers, refused schemas, and schemas that would never end."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runners.serving.http.errors import ApiError
from runners.serving.http.json_schema import ResponseFormat, response_format


def schema_format(schema: Any, **fields: Any) -> dict[str, Any]:
    """The value of a `response_format` field with a schema."""
    return {"type": "json_schema", "json_schema": {"name": "n", "schema": schema, **fields}}


COUNT = {
    "type": "object",
    "properties": {"n": {"$ref": "#/$defs/pattern"}, "id": {"type": "string"}},
    "required": ["n"],
    "$defs": {"pattern": {"type": "integer", "minimum": 1}},
    "additionalProperties": False,
}


def test_fault_names_what_is_wrong_with_an_answer() -> None:
    parsed = response_format(schema_format(COUNT, strict=True))
    assert parsed is not None
    assert parsed.strict
    assert parsed.fault('{"n": 3, "id": "a"}') == ""
    assert "no JSON" in parsed.fault("three")
    assert "no JSON" in parsed.fault("[" * 100_000)
    assert "at $.n: 0 is less" in parsed.fault('{"n": 0}')
    assert "additional" in parsed.fault('{"n": 1, "m": 2}').lower()
    assert ResponseFormat().fault("{}") == ""
    assert "no object" in ResponseFormat().fault("[1]")
    assert response_format(None) is None
    assert response_format({"type": "text"}) is None
    assert response_format({"type": "json_object"}) == ResponseFormat()


@pytest.mark.parametrize(
    "schema",
    [
        {"pattern": "(?=a)"},
        {"items": {"patternProperties": {"a{2000}": {}}}},
        {"pattern": "a" * 1_001},
        {"x-guidance": {}},
        {"items": {"$id": "https://elsewhere.example/x"}},
        {"$ref": "https://elsewhere.example/x"},
        {"$ref": "#/$defs/none"},
        {"$ref": "#anchor"},
        {"$dynamicRef": "#a"},
        {"type": "nothing"},
        {"enum": "a"},
        {"minimum": "one"},
        {"a": ["x" * 40_000]},
        {"$ref": "file:///etc/passwd"},
        {"unevaluatedProperties": False},
        {"required": [1, "a"] * 501},
        json.loads('{"items":' * 40 + "{}" + "}" * 40),
    ],
    ids=str,
)
def test_schema_that_cannot_be_checked_is_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(ApiError) as refused:
        response_format(schema_format(schema))
    assert (refused.value.status, refused.value.param) == (400, "response_format")


def test_patterns_are_checked_in_linear_time_as_json_schema_means_them() -> None:
    slow = response_format(schema_format({"type": "string", "pattern": "^(a+)+$"}))
    assert slow is not None
    started = time.thread_time()
    assert "does not match" in slow.fault(json.dumps("a" * 5_000 + "b"))
    assert time.thread_time() - started < 1
    named = response_format(
        schema_format(
            {
                "patternProperties": {"^x-": {"type": "string", "pattern": "^\\s\\u00e9$"}},
                "properties": {"n": {"multipleOf": 0.1}},
                "additionalProperties": False,
            }
        )
    )
    assert named is not None
    assert named.fault('{"x-a": "\u00a0é", "n": 0.3}') == ""
    assert "does not match" in named.fault('{"x-a": "\u00a0é\\n"}')
    assert "not a multiple" in named.fault('{"n": 1e999}')
    assert "not allowed ('y')" in named.fault('{"y": 1}')


def test_recursive_schema_check_ends() -> None:
    recursive = response_format(schema_format({"$ref": "#"}))
    doubling = {f"a{n}": {"allOf": [{"$ref": f"#/$defs/a{n + 1}"}] * 2} for n in range(40)}
    exponential = response_format(schema_format({"$ref": "#/$defs/a0", "$defs": {**doubling, "a40": {}}}))
    for parsed in (recursive, exponential):
        assert parsed is not None
        assert "too often" in parsed.fault("{}")


REFS = [{"$ref": "#/b"}] * 44
LONG = "x" * 24_000


@pytest.mark.parametrize(
    ("schema", "answer"),
    [
        (
            {"a": {"allOf": [{"minimum": 0}] * 900}, "b": {"allOf": [{"$ref": "#/a"}] * 44}, "allOf": REFS},
            "1",
        ),
        ({"a": {"allOf": [{}] * 900}, "b": {"allOf": [{"$ref": "#/a"}] * 44}, "allOf": REFS}, "1"),
        ({"b": {"anyOf": [*[{"$ref": "#/c"}] * 44, {}]}, "c": {"enum": [LONG]}, "allOf": REFS}, "1"),
        (
            {"b": {"uniqueItems": True}, "allOf": REFS},
            json.dumps([n if n % 2 else str(n) for n in range(1_500)]),
        ),
        ({"items": {"pattern": "(.{0,900}a){1}.{0,90}b"}}, json.dumps(["a" * 3_999 + "b"] * 99)),
    ],
    ids=["keywords", "nothings", "long texts", "items", "patterns"],
)
def test_check_stops_when_a_schema_needs_too_much_work(schema: dict[str, Any], answer: str) -> None:
    if len(json.dumps(schema)) > 32_000:
        pytest.fail("the schema is refused before an answer is checked")
    parsed = response_format(schema_format(schema))
    assert parsed is not None
    started = time.thread_time()  # the load of the machine does not count
    assert "too much work" in parsed.fault(answer)
    assert time.thread_time() - started < 3


def test_ordinary_schema_over_many_rows_is_checked() -> None:
    row = {
        "type": "object",
        "properties": {f"p{n}": {"type": "integer"} for n in range(20)},
        "required": ["p1"],
    }
    parsed = response_format(
        schema_format({"type": "array", "items": {"$ref": "#/$defs/row"}, "$defs": {"row": row}})
    )
    assert parsed is not None
    assert parsed.fault(json.dumps([{f"p{n}": n for n in range(20)}] * 100)) == ""


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["type", "properties", "items", "$ref", "$defs", "allOf", "enum", "not", "if", "minimum", "a"]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=12,
)


@given(
    st.dictionaries(
        st.sampled_from(["type", "properties", "items", "$ref", "$defs", "allOf", "$schema"]), json_values
    ),
    json_values,
)
def test_any_schema_is_checked_or_refused(schema: dict[str, Any], answer: Any) -> None:
    try:
        parsed = response_format(schema_format(schema))
    except ApiError:
        return
    assert parsed is not None
    assert isinstance(parsed.fault(json.dumps(answer)), str)
