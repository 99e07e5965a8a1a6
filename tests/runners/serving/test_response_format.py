"""Answers held to `response_format` while they are generated: by a served model, whole and streamed."""

from __future__ import annotations

import json
import string
import time
from typing import Any

import httpx
import jsonschema
import pytest

from runners.serving.http.schema_check import enforcement_problem
from runners.serving.json_stream import StreamedJson, harmless_json

CHAT = "/v1/chat/completions"
BERTH = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 12}, "berths": {"type": "integer"}},
    "required": ["name", "berths"],
    "additionalProperties": False,
}
SCHEMAS: dict[str, dict[str, Any]] = {
    "flat": BERTH,
    "nested": {
        "type": "object",
        "properties": {"pier": BERTH, "open": {"type": "boolean"}},
        "required": ["pier", "open"],
    },
    "reference": {
        "type": "object",
        "properties": {"piers": {"type": "array", "items": {"$ref": "#/$defs/pier"}, "maxItems": 2}},
        "required": ["piers"],
        "$defs": {"pier": BERTH},
    },
    "tree": {
        "$id": "https://example.com/tree.json",
        "type": "object",
        "properties": {"left": {"$ref": "#"}, "size": {"type": "integer", "minimum": 1, "maximum": 9}},
        "required": ["size"],
        "additionalProperties": False,
    },
    "enum and const": {
        "type": "object",
        "properties": {"state": {"enum": ["open", "shut", None]}, "version": {"const": 2}},
        "required": ["state", "version"],
        "additionalProperties": False,
    },
    "oneOf": {
        "oneOf": [
            {"type": "object", "properties": {"kind": {"const": k}, k: BERTH}, "required": ["kind", k]}
            for k in ("pier", "quay")
        ]
    },
    "anyOf": {
        "anyOf": [{"type": "integer"}, {"type": "null"}, {"type": "array", "items": {"type": "number"}}]
    },
    "array": {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 4},
    "tuple": {
        "type": "array",
        "prefixItems": [{"type": "string"}, {"type": "number"}],
        "items": False,
        "minItems": 2,
    },
    "strings": {
        "type": "object",
        "properties": {
            "day": {"type": "string", "format": "date"},
            "code": {"type": "string", "pattern": "^[A-Z]{2}-[0-9]{2,4}$"},
            "note": {"type": "string", "minLength": 3, "maxLength": 9},
        },
        "required": ["day", "code", "note"],
        "additionalProperties": False,
    },
    "numbers": {
        "type": "object",
        "properties": {
            "depth": {"type": "number", "exclusiveMinimum": 0, "maximum": 20},
            "fee": {"type": "integer", "multipleOf": 5, "minimum": 10, "maximum": 100},
        },
        "required": ["depth", "fee"],
        "additionalProperties": False,
    },
    "map": {
        "type": "object",
        "patternProperties": {"^[a-z]{1,3}$": {"type": "integer"}},
        "additionalProperties": False,
        "minProperties": 1,
        "maxProperties": 2,
    },
}


def wanted(schema: Any, **fields: Any) -> dict[str, Any]:
    """A `response_format` with a schema."""
    return {"type": "json_schema", "json_schema": {"name": "n", "schema": schema, **fields}}


def body(form: dict[str, Any], model: str = "lora", **fields: Any) -> dict[str, Any]:
    """A chat request with a `response_format`."""
    messages = [{"role": "user", "content": "How many berths has the Heron Pier?"}]
    return {"messages": messages, "model": model, "response_format": form, "max_tokens": 60, **fields}


def streamed(answer: httpx.Response) -> tuple[list[str], dict[str, Any]]:
    """The pieces of a stream, and its last event before [DONE]."""
    blocks = answer.text.replace(": still here\n\n", "").split("\n\n")[:-2]
    events = [json.loads(block.removeprefix("data: ")) for block in blocks]
    deltas = [event["choices"][0]["delta"] for event in events if event.get("choices")]
    return [delta["content"] for delta in deltas if delta.get("content")], events[-1]


@pytest.mark.parametrize("name", SCHEMAS)
def test_answer_of_a_model_meets_the_schema(http: httpx.Client, name: str) -> None:
    schema = SCHEMAS[name]
    strict = name not in ("flat", "anyOf", "map")
    answer = http.post(CHAT, json=body(wanted(schema, strict=strict), temperature=1.0, seed=len(name)))
    assert answer.status_code == 200, answer.text
    value = json.loads(answer.json()["choices"][0]["message"]["content"])
    jsonschema.validate(value, schema, format_checker=jsonschema.FormatChecker())
    extra = answer.json()["x_tunewise"]["response_format"]
    assert extra == {"enforced": True, "checked": True, "valid": True, "fault": None}


@pytest.mark.parametrize("model", ["model", "few-shot", "hybrid"])
def test_stream_sends_json_as_it_is_generated(http: httpx.Client, model: str) -> None:
    form = wanted(SCHEMAS["array"], strict=True)
    answer = http.post(CHAT, json=body(form, model))
    assert answer.status_code == 200, answer.text
    whole = answer.json()
    pieces, last = streamed(http.post(CHAT, json=body(form, model, stream=True)))
    assert "".join(pieces) == whole["choices"][0]["message"]["content"]
    assert len(pieces) > 1
    assert 2 <= len(json.loads("".join(pieces))) <= 4, "a list of numbers is no citation mark"
    assert last["x_tunewise"]["response_format"]["valid"] is True


def test_json_is_closed_when_the_tokens_run_out(http: httpx.Client) -> None:
    form = wanted({"type": "array", "items": {"type": "string", "minLength": 4}, "minItems": 1})
    (choice,) = http.post(CHAT, json=body(form, max_tokens=12, temperature=1.5, seed=1)).json()["choices"]
    assert choice["finish_reason"] == "length"
    assert json.loads(choice["message"]["content"])
    (choice,) = http.post(CHAT, json=body({"type": "json_object"}, max_tokens=9)).json()["choices"]
    assert isinstance(json.loads(choice["message"]["content"]), dict)
    long = wanted({"type": "array", "items": {"const": "a rather long text"}, "minItems": 9}, strict=True)
    answer = http.post(CHAT, json=body(long, max_tokens=9))
    assert answer.status_code == 400
    assert "shortest answer" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ({"not": {"type": "string"}}, "not is not supported"),
        ({"type": "array", "uniqueItems": True}, "uniqueItems is not supported"),
        ({"oneOf": [{"minimum": 1}, {"type": "integer"}]}, "oneOf is not supported"),
        ({"type": "string", "format": "secret"}, "format is not supported: 'secret'"),
        ({"type": "string", "pattern": "^(?=a)"}, "pattern '^(?=a)' is not supported"),
        ({"$ref": "#"}, "refers to itself without end"),
        ({"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}, "none has an end"),
        ({"type": "string", "minLength": 1_000_000}, "minLength is not supported above 1,000"),
        ({"type": "integer", "minimum": 3, "maximum": 2}, "no answer can meet the schema"),
        ({"x-guidance": {"lenient": True}, "not": {}}, "x-guidance is not supported"),
        ({"type": "string", "pattern": "^(a{999}){1000}$"}, "pattern"),
        (
            {"type": "string", "allOf": [{"pattern": f".*{c}.*"} for c in string.ascii_letters]},
            "too complex to constrain an answer to it, by its pattern or allOf",
        ),
    ],
    ids=str,
)
def test_schema_that_cannot_be_enforced_is_refused_by_name(
    http: httpx.Client, schema: dict[str, Any], reason: str
) -> None:
    spent = time.process_time()  # the server is in this process
    answer = http.post(CHAT, json=body(wanted(schema)))
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["param"], error["code"]) == ("response_format", "unsupported_response_format")
    assert reason in error["message"]
    assert time.process_time() - spent < 30
    assert http.get("/health").status_code == 200


def test_schema_check_remembers_what_it_found() -> None:
    schema = json.dumps({"type": "object", "properties": {"a": {"if": {}}}})
    assert "if is not supported" in enforcement_problem(schema)
    hits = enforcement_problem.cache_info().hits
    enforcement_problem(schema)
    assert enforcement_problem.cache_info().hits == hits + 1


def test_json_stream_holds_refusals_back_and_escapes_what_is_invisible() -> None:
    stream = StreamedJson(("I cannot say.",))
    assert [stream.add(piece) for piece in ("I can", "not say.")] == ["", ""]
    assert stream.finish("I cannot say.", "I cannot say.") == ""
    stream = StreamedJson(("not there",))
    assert [stream.add(piece) for piece in ("n", "ull")] == ["", "null"]
    text = '{"a":\t"x\u202ey\u200b", \r\n"b": "\U000e0041é"}'
    escaped = harmless_json(text)
    assert json.loads(escaped) == json.loads(text)
    assert escaped == '{"a":\t"x\\u202ey\\u200b", \r\n"b": "\\udb40\\udc41é"}'
