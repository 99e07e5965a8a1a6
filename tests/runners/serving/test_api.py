"""The endpoint: its models, answers whole and streamed, citations, JSON, embeddings, searches and passages."""

from __future__ import annotations

import base64
import json
import struct
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from runners.runs.run import open_session

HERON = "How many berths has the Heron Pier?"
CHAT, TEXT = "/v1/chat/completions", "/v1/completions"


def ask(question: str = HERON, **more: Any) -> dict[str, Any]:
    """The body of a request."""
    return {"messages": [{"role": "user", "content": question}], **more}


def events(answer: httpx.Response) -> list[Any]:
    """The events of a stream, whose grammar is checked; the last is [DONE]."""
    assert answer.headers["content-type"].startswith("text/event-stream")
    blocks = answer.text.replace(": still here\n\n", "").split("\n\n")
    assert blocks.pop() == ""
    assert all(block.startswith("data: ") and "\n" not in block for block in blocks)
    assert blocks.pop() == "data: [DONE]"
    return [json.loads(block.removeprefix("data: ")) for block in blocks]


def test_models_are_the_arms_the_base_and_the_weights(http: httpx.Client, run: Any) -> None:
    rows = {row["id"]: row for row in http.get("/v1/models").json()["data"]}
    first = open_session(run).winner
    assert next(iter(rows)) == first
    assert set(rows) == {"hybrid", "prompting", "few-shot", "rag", "lora", "model", "lora-s0", "embedder"}
    assert all(row["object"] == "model" and isinstance(row["created"], int) for row in rows.values())
    assert {name for name, row in rows.items() if row["parent"] == "model"} == {"hybrid", "lora", "lora-s0"}
    assert {row["root"] for row in rows.values()} == {"model", "embedder"}
    assert rows["lora-s0"]["x_tunewise"] == {"kind": "adapter"}
    assert http.get("/v1/models/rag").json() == rows["rag"]
    assert http.get("/v1/models/none").status_code == 404
    assert http.post(CHAT, json=ask()).json()["model"] == first


@pytest.mark.parametrize("arm", ["hybrid", "rag", "prompting", "few-shot", "lora"])
def test_an_arm_answers_as_ask_does(http: httpx.Client, run: Any, arm: str) -> None:
    session = open_session(run)
    answer = session.ask([HERON], session.arm(arm))[0]
    said = http.post(CHAT, json=ask(model=arm)).json()
    (choice,) = said["choices"]
    assert choice["message"] == {"role": "assistant", "content": answer.marked, "refusal": None}
    assert choice["finish_reason"] == answer.completion.finish
    assert said["usage"]["prompt_tokens"] == answer.completion.prompt_tokens
    assert (
        said["usage"]["total_tokens"] == answer.completion.prompt_tokens + answer.completion.completion_tokens
    )
    expected = answer.reply_json(arm)
    left_away = {"answer", "usage", "seconds"}
    ours = said["x_tunewise"]
    assert {k: v for k, v in ours.items() if k != "seconds"} == {
        k: v for k, v in json.loads(json.dumps(expected)).items() if k not in left_away
    }
    stream = events(http.post(CHAT, json=ask(model=arm, stream=True)))
    assert "".join(e["choices"][0]["delta"].get("content", "") for e in stream) == answer.marked
    assert stream[-1]["choices"][0]["finish_reason"] == choice["finish_reason"]
    assert {**stream[-1]["x_tunewise"], "seconds": 0} == {**ours, "seconds": 0}


def test_a_stream_has_one_name_a_role_first_and_its_usage_last(http: httpx.Client) -> None:
    body = ask(model="lora", stream=True, stream_options={"include_usage": True})
    stream = events(http.post(CHAT, json=body))
    assert len({(e["id"], e["created"], e["model"], e["object"]) for e in stream}) == 1
    assert stream[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert stream[-1]["choices"] == []
    assert stream[-1]["usage"]["completion_tokens"] > 0
    assert all(e["usage"] is None for e in stream[:-1])
    assert [e["choices"][0]["finish_reason"] for e in stream[:-2]] == [None] * (len(stream) - 2)
    assert len(stream) > 5


def test_a_cited_sentence_has_its_mark_in_the_text_and_its_place_beside_it(http: httpx.Client) -> None:
    found = http.post("/v1/search", json={"query": HERON, "k": 1}).json()
    hit = found["hits"][0]
    assert "Heron" in hit["text"]
    query = {
        "doc": hit["doc"],
        "start": hit["char_start"],
        "end": hit["char_end"],
        "generation": found["generation"],
    }
    opened = http.get("/v1/passages", params=query).json()
    assert opened["text"] == hit["text"]
    assert http.get("/v1/passages", params={**query, "generation": 99}).json()["error"]["code"] == "moved_on"
    assert http.get("/v1/passages", params={**query, "doc": "../plan.yaml"}).status_code == 404
    assert http.get("/v1/passages", params={**query, "end": 10**9}).status_code == 400


def test_what_the_documents_do_not_hold_is_refused_in_the_houses_words(http: httpx.Client) -> None:
    body = ask("Who owns the moon?", model="rag", response_format={"type": "json_object"})
    for said in (ask("Who owns the moon?", model="rag"), body):
        (choice,) = http.post(CHAT, json=said).json()["choices"]
        assert choice["message"]["content"] == "I could not find that in our documents."
        assert choice["finish_reason"] == "stop"
    assert choice["message"]["refusal"] == choice["message"]["content"]
    stream = events(http.post(CHAT, json={**ask("Who owns the moon?", model="rag"), "stream": True}))
    assert stream[1]["choices"][0]["delta"]["content"] == "I could not find that in our documents."
    assert stream[-1]["x_tunewise"]["refused"] is True


def test_a_conversation_is_made_to_stand_alone_for_retrieval_and_shown_to_others(http: httpx.Client) -> None:
    later = [{"role": "assistant", "content": "27."}, {"role": "user", "content": "And when was it built?"}]
    turns = [*ask()["messages"], *later]
    ours = http.post(CHAT, json={"model": "rag", "messages": turns}).json()["x_tunewise"]
    assert ours["turns_not_shown"] == 2
    assert "Heron Pier" in ours["asked_as"]
    alone = http.post(CHAT, json=ask("And when was it built?", model="prompting")).json()["usage"]
    shown = http.post(CHAT, json={"model": "prompting", "messages": turns}).json()
    assert shown["usage"]["prompt_tokens"] > alone["prompt_tokens"]
    assert "asked_as" not in shown["x_tunewise"]
    system = {"role": "developer", "content": [{"type": "text", "text": "Be brief."}]}
    told = http.post(CHAT, json={"model": "prompting", "messages": [system, turns[0]]}).json()["x_tunewise"]
    assert "instructions" in told
    for wrong in (turns[:2], [system]):
        assert http.post(CHAT, json={"messages": wrong}).status_code == 400


def test_lengths_stops_and_draws(http: httpx.Client) -> None:
    raw = {"model": "lora-s0", "prompt": "How many berths has the", "max_tokens": 8}
    plain = http.post(TEXT, json=raw).json()
    (choice,) = plain["choices"]
    assert (plain["object"], choice["finish_reason"]) == ("text_completion", "length")
    assert plain["usage"]["completion_tokens"] == 8
    text = choice["text"]
    stop = text.strip()[2]
    stopped = http.post(TEXT, json={**raw, "stop": [stop]}).json()["choices"][0]
    assert (stopped["text"], stopped["finish_reason"]) == (text[: text.index(stop)], "stop")
    drawn = [http.post(TEXT, json={**raw, "temperature": 1.5, "seed": seed}).json() for seed in (7, 7, 8)]
    draws = [each["choices"][0]["text"] for each in drawn]
    assert draws[0] == draws[1] != draws[2]
    near_zero = http.post(TEXT, json={**raw, "temperature": 1e-300, "top_p": 1e-300}).json()
    assert near_zero["choices"][0]["text"] == text
    several = http.post(TEXT, json={**raw, "prompt": [raw["prompt"], "Yes"]}).json()
    assert [c["index"] for c in several["choices"]] == [0, 1]
    assert len(several["x_tunewise"]["choices"]) == 2
    streamed = events(http.post(TEXT, json={**raw, "stream": True}))
    assert "".join(e["choices"][0]["text"] for e in streamed) == text
    assert http.post(TEXT, json={**raw, "prompt": ["a", "b"], "stream": True}).status_code == 400
    answered = http.post(TEXT, json={"model": "rag", "prompt": HERON}).json()
    assert answered["x_tunewise"]["arm"] == "rag"


def test_arms_on_the_same_weights_are_decoded_together(served: Any, http: httpx.Client) -> None:
    kinds = {name: choice.together for name, choice in served.service.choices.items()}
    assert (
        kinds["lora"]
        == kinds["hybrid"]
        == kinds["lora-s0"]
        != kinds["model"]
        == kinds["rag"]
        == kinds["prompting"]
    )
    models = ("lora", "hybrid", "lora-s0", "rag", "model", "lora")
    alone = [http.post(CHAT, json=ask(model=model, max_tokens=5)).json()["choices"] for model in models]
    with ThreadPoolExecutor(len(models)) as pool:
        asked = [ask(model=model, max_tokens=5) for model in models]
        found = list(pool.map(lambda body: httpx.post(f"{served.url}{CHAT}", json=body, timeout=60), asked))
    assert [answer.json()["choices"] for answer in found] == alone


def test_weights_are_switched_by_name_and_leave_no_trace(http: httpx.Client) -> None:
    def said(model: str) -> str:
        return str(http.post(TEXT, json={"model": model, "prompt": "Aye", "max_tokens": 6}).json()["choices"])

    base, tuned = said("model"), said("lora-s0")
    assert base != tuned
    assert [said("model"), said("lora-s0"), said("model")] == [base, tuned, base]


SCHEMA = {
    "type": "object",
    "properties": {"n": {"$ref": "#/$defs/count"}},
    "$defs": {"count": {"type": "integer"}},
}


def test_json_is_checked_when_it_is_there(http: httpx.Client) -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}
    said = http.post(CHAT, json=ask(model="lora", response_format=wanted)).json()
    assert said["x_tunewise"]["response_format"]["valid"] is False
    assert "no JSON" in said["x_tunewise"]["response_format"]["fault"]
    wanted["json_schema"]["strict"] = True
    refused = http.post(CHAT, json=ask(model="lora", response_format=wanted))
    assert refused.status_code == 422
    assert refused.json()["error"]["code"] == "response_format_not_met"
    assert refused.json()["x_tunewise"]["answer"] == said["choices"][0]["message"]["content"]
    opening, last = events(http.post(CHAT, json=ask(model="lora", response_format=wanted, stream=True)))
    assert opening["choices"][0]["delta"]["content"] == ""
    assert last["error"]["code"] == "response_format_not_met"
    assert last["x_tunewise"]["answer"] == refused.json()["x_tunewise"]["answer"]
    wanted["json_schema"]["strict"] = False
    whole = events(http.post(CHAT, json=ask(model="lora", response_format=wanted, stream=True)))
    assert [e["choices"][0]["delta"].get("content") for e in whole] == [
        "",
        said["choices"][0]["message"]["content"],
        None,
    ]
    assert whole[-1]["x_tunewise"]["response_format"]["valid"] is False


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({"tools": [{"type": "function"}]}, 400, "tools"),
        ({"n": 2}, 400, "n"),
        ({"logprobs": True}, 400, "logprobs"),
        ({"presence_penalty": 0.5}, 400, "presence_penalty"),
        ({"audio": {}}, 400, "audio"),
        ({"stop": ["a"] * 5}, 400, "stop"),
        ({"stop": ""}, 400, None),
        ({"max_tokens": 0}, 422, "max_tokens"),
        ({"temperature": 2.5}, 422, "temperature"),
        ({"temperature": "hot"}, 422, "temperature"),
        ({"stream": "yes"}, 422, "stream"),
        ({"model": "gpt-4"}, 404, "model"),
        ({"messages": []}, 422, "messages"),
        ({"messages": [{"role": "user"}]}, 400, "messages[0].content"),
        ({"messages": [{"role": "tool", "content": "x"}]}, 400, "messages[0].role"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, "messages[0].content[0]"),
        ({"response_format": {"type": "grammar"}}, 400, "response_format"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": {"pattern": "(a+)+$"}}}},
            400,
            "response_format",
        ),
        ({"model": "rag", "messages": [{"role": "user", "content": "Heron Pier berths " * 300}]}, 400, None),
        ({"messages": [{"role": "user", "content": "a"}] * 257}, 413, "messages"),
        ({"messages": [{"role": "user", "content": "a" * 100_001}]}, 413, None),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, 422, None),
    ],
)
def test_what_cannot_be_is_refused_by_name(
    http: httpx.Client, fields: dict[str, Any], status: int, param: str | None
) -> None:
    for more in ({}, {"stream": True}):
        body = json.dumps({**ask(), **more, **fields})
        answer = http.post(CHAT, content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == status, answer.text
        error = answer.json()["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert error["message"]
        if param:
            assert error["param"] == param


def test_what_asks_for_nothing_is_fine_and_the_unknown_is_named(http: httpx.Client) -> None:
    neutral = {
        "tools": [],
        "n": 1,
        "logprobs": False,
        "presence_penalty": 0,
        "logit_bias": {},
        "suffix": None,
    }
    said = http.post(CHAT, json=ask(**neutral, top_k=40, user="u", max_tokens=2))
    assert said.status_code == 200, said.text
    assert said.json()["x_tunewise"]["ignored"] == ["top_k", "user"]


def test_embeddings_in_both_encodings(http: httpx.Client, served: Any) -> None:
    texts = ["The Heron Pier", "berths"]
    plain = http.post("/v1/embeddings", json={"input": texts, "model": "embedder"}).json()
    packed = http.post("/v1/embeddings", json={"input": texts, "encoding_format": "base64"}).json()
    for row, other in zip(plain["data"], packed["data"], strict=True):
        raw = base64.b64decode(other["embedding"])
        assert list(struct.unpack(f"<{len(raw) // 4}f", raw)) == pytest.approx(row["embedding"], abs=0)
    assert plain["usage"] == {"prompt_tokens": 4, "total_tokens": 4}
    for wrong, status in (
        ({"input": []}, 400),
        ({"input": [[1]]}, 400),
        ({"input": "a", "dimensions": 3}, 400),
        ({"input": "a", "model": "rag"}, 404),
    ):
        assert http.post("/v1/embeddings", json=wrong).status_code == status


def test_searches_take_conditions(http: httpx.Client) -> None:
    found = http.post("/v1/search", json={"query": "berths", "k": 3, "where": ["doc=pier07.md"]}).json()
    assert {hit["doc"] for hit in found["hits"]} == {"pier07.md"}
    for wrong in ({"where": ["nonsense"]}, {"as_of": "soon"}, {"query": "  "}):
        assert http.post("/v1/search", json={"query": "berths", **wrong}).status_code == 400


def test_health_and_meters_tell_numbers_and_no_words(http: httpx.Client) -> None:
    assert http.get("/health").json()["status"] == "ok"
    http.post(CHAT, json=ask("Is the zebra lounge open?"))
    text = http.get("/metrics").text
    assert 'tunewise_requests_total{path="/v1/chat/completions",status="200"}' in text
    assert "tunewise_batch_rows_bucket" in text
    assert "zebra" not in text


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/none", 404), ("GET", CHAT, 405), ("DELETE", "/", 405), ("GET", "/docs", 404)],
)
def test_other_paths_fail_in_the_same_shape(http: httpx.Client, method: str, path: str, status: int) -> None:
    answer = http.request(method, path)
    assert answer.status_code == status
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


def test_a_body_that_is_no_json_is_refused(http: httpx.Client) -> None:
    for body in (b"{", b"\xff\xfe", b"[" * 100_000, b"1" * 5000, b'{"messages": NaN}', b"null", b""):
        answer = http.post(CHAT, content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code in (400, 422), (body[:20], answer.text)
        assert answer.json()["error"]["message"]
