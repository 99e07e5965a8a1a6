"""The HTTP API: models, answers whole and streamed, citations, JSON, embeddings, searches and passages."""

from __future__ import annotations

import base64
import json
import struct
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from runners.runs.opened import OpenRun
from tests.support.limits import HANG_S

HERON = "How many berths has the Heron Pier?"
CHAT, TEXT = "/v1/chat/completions", "/v1/completions"


def chat_body(question: str = HERON, **fields: Any) -> dict[str, Any]:
    """The body of a chat request."""
    return {"messages": [{"role": "user", "content": question}], **fields}


def events(answer: httpx.Response) -> list[Any]:
    """Parse a stream of events and check its format; the last event, [DONE], is left out."""
    assert answer.headers["content-type"].startswith("text/event-stream")
    blocks = answer.text.replace(": still here\n\n", "").split("\n\n")
    assert blocks.pop() == ""
    assert all(block.startswith("data: ") and "\n" not in block for block in blocks)
    assert blocks.pop() == "data: [DONE]"
    return [json.loads(block.removeprefix("data: ")) for block in blocks]


def test_models_lists_arms_base_and_adapters(http: httpx.Client, run: Any) -> None:
    rows = {row["id"]: row for row in http.get("/v1/models").json()["data"]}
    winner = OpenRun.open(run).default_arm
    assert next(iter(rows)) == winner
    assert set(rows) == {"hybrid", "prompting", "few-shot", "rag", "lora", "model", "lora-s0", "embedder"}
    assert all(row["object"] == "model" and isinstance(row["created"], int) for row in rows.values())
    assert {name for name, row in rows.items() if row["parent"] == "model"} == {"hybrid", "lora", "lora-s0"}
    assert {row["root"] for row in rows.values()} == {"model", "embedder"}
    assert rows["lora-s0"]["x_tunewise"] == {"kind": "adapter"}
    assert http.get("/v1/models/rag").json() == rows["rag"]
    assert http.get("/v1/models/none").status_code == 404
    assert http.post(CHAT, json=chat_body()).json()["model"] == winner


@pytest.mark.parametrize("arm", ["hybrid", "rag", "prompting", "few-shot", "lora"])
def test_chat_answers_equal_those_of_session_ask(http: httpx.Client, run: Any, arm: str) -> None:
    session = OpenRun.open(run).obtain()
    answer = session.ask([HERON], session.arm(arm))[0]
    body = http.post(CHAT, json=chat_body(model=arm)).json()
    (choice,) = body["choices"]
    assert choice["message"] == {"role": "assistant", "content": answer.marked, "refusal": None}
    assert choice["finish_reason"] == answer.completion.finish
    assert body["usage"]["prompt_tokens"] == answer.completion.prompt_tokens
    assert (
        body["usage"]["total_tokens"] == answer.completion.prompt_tokens + answer.completion.completion_tokens
    )
    expected = answer.reply_json(arm)
    omitted = {"answer", "usage", "seconds"}
    extra = body["x_tunewise"]
    assert {k: v for k, v in extra.items() if k != "seconds"} == {
        k: v for k, v in json.loads(json.dumps(expected)).items() if k not in omitted
    }
    stream = events(http.post(CHAT, json=chat_body(model=arm, stream=True)))
    assert "".join(e["choices"][0]["delta"].get("content", "") for e in stream) == answer.marked
    assert stream[-1]["choices"][0]["finish_reason"] == choice["finish_reason"]
    assert {**stream[-1]["x_tunewise"], "seconds": 0} == {**extra, "seconds": 0}


def test_stream_sends_role_first_and_usage_last_under_one_id(http: httpx.Client) -> None:
    body = chat_body(model="lora", stream=True, stream_options={"include_usage": True})
    stream = events(http.post(CHAT, json=body))
    assert len({(e["id"], e["created"], e["model"], e["object"]) for e in stream}) == 1
    assert stream[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert stream[-1]["choices"] == []
    assert stream[-1]["usage"]["completion_tokens"] > 0
    assert all(e["usage"] is None for e in stream[:-1])
    assert [e["choices"][0]["finish_reason"] for e in stream[:-2]] == [None] * (len(stream) - 2)
    assert len(stream) > 5


def test_passages_returns_the_text_of_a_search_hit(http: httpx.Client) -> None:
    results = http.post("/v1/search", json={"query": HERON, "k": 1}).json()
    hit = results["hits"][0]
    assert "Heron" in hit["text"]
    query = {
        "doc": hit["doc"],
        "start": hit["char_start"],
        "end": hit["char_end"],
        "generation": results["generation"],
    }
    passage = http.get("/v1/passages", params=query).json()
    assert passage["text"] == hit["text"]
    assert http.get("/v1/passages", params={**query, "generation": 99}).json()["error"]["code"] == "moved_on"
    assert http.get("/v1/passages", params={**query, "doc": "../plan.yaml"}).status_code == 404
    assert http.get("/v1/passages", params={**query, "end": 10**9}).status_code == 400


def test_unanswerable_question_gets_the_configured_refusal(http: httpx.Client) -> None:
    as_json = chat_body("Who owns the moon?", model="rag", response_format={"type": "json_object"})
    for body in (chat_body("Who owns the moon?", model="rag"), as_json):
        (choice,) = http.post(CHAT, json=body).json()["choices"]
        assert choice["message"]["content"] == "I could not find that in our documents."
        assert choice["finish_reason"] == "stop"
    assert choice["message"]["refusal"] == choice["message"]["content"]
    stream = events(http.post(CHAT, json={**chat_body("Who owns the moon?", model="rag"), "stream": True}))
    assert stream[1]["choices"][0]["delta"]["content"] == "I could not find that in our documents."
    assert stream[-1]["x_tunewise"]["refused"] is True


def test_followup_is_rewritten_for_retrieval_and_history_shown_without(http: httpx.Client) -> None:
    later = [{"role": "assistant", "content": "27."}, {"role": "user", "content": "And when was it built?"}]
    turns = [*chat_body()["messages"], *later]
    extra = http.post(CHAT, json={"model": "rag", "messages": turns}).json()["x_tunewise"]
    assert extra["turns_not_shown"] == 2
    assert "Heron Pier" in extra["asked_as"]
    alone = http.post(CHAT, json=chat_body("And when was it built?", model="prompting")).json()["usage"]
    shown = http.post(CHAT, json={"model": "prompting", "messages": turns}).json()
    assert shown["usage"]["prompt_tokens"] > alone["prompt_tokens"]
    assert "asked_as" not in shown["x_tunewise"]
    system = {"role": "developer", "content": [{"type": "text", "text": "Be brief."}]}
    extra = http.post(CHAT, json={"model": "prompting", "messages": [system, turns[0]]}).json()["x_tunewise"]
    assert "instructions" in extra
    for wrong in (turns[:2], [system]):
        assert http.post(CHAT, json={"messages": wrong}).status_code == 400


def test_completions_honour_max_tokens_stop_and_seed(http: httpx.Client) -> None:
    raw = {"model": "lora-s0", "prompt": "How many berths has the", "max_tokens": 8}
    plain = http.post(TEXT, json=raw).json()
    (choice,) = plain["choices"]
    assert (plain["object"], choice["finish_reason"]) == ("text_completion", "length")
    assert plain["usage"]["completion_tokens"] == 8
    text = choice["text"]
    stop = text.strip()[2]
    stopped = http.post(TEXT, json={**raw, "stop": [stop]}).json()["choices"][0]
    assert (stopped["text"], stopped["finish_reason"]) == (text[: text.index(stop)], "stop")
    sampled = [http.post(TEXT, json={**raw, "temperature": 1.5, "seed": seed}).json() for seed in (7, 7, 8)]
    texts = [body["choices"][0]["text"] for body in sampled]
    assert texts[0] == texts[1] != texts[2]
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


def test_requests_on_equal_weights_share_a_batch_key_and_answers(served: Any, http: httpx.Client) -> None:
    keys = {name: model.batch_key for name, model in served.service.models.items()}
    assert (
        keys["lora"] == keys["hybrid"] == keys["lora-s0"] != keys["model"] == keys["rag"] == keys["prompting"]
    )
    models = ("lora", "hybrid", "lora-s0", "rag", "model", "lora")
    alone = [http.post(CHAT, json=chat_body(model=model, max_tokens=5)).json()["choices"] for model in models]
    with ThreadPoolExecutor(len(models)) as pool:
        bodies = [chat_body(model=model, max_tokens=5) for model in models]
        answers = list(
            pool.map(lambda body: httpx.post(f"{served.url}{CHAT}", json=body, timeout=HANG_S), bodies)
        )
    assert [answer.json()["choices"] for answer in answers] == alone


def test_switching_adapters_does_not_change_the_base_model(http: httpx.Client) -> None:
    def complete(model: str) -> str:
        return str(http.post(TEXT, json={"model": model, "prompt": "Aye", "max_tokens": 6}).json()["choices"])

    base, tuned = complete("model"), complete("lora-s0")
    assert base != tuned
    assert [complete("model"), complete("lora-s0"), complete("model")] == [base, tuned, base]


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
            {"response_format": {"type": "json_schema", "json_schema": {"schema": {"pattern": "(?=a)"}}}},
            400,
            "response_format",
        ),
        ({"model": "rag", "messages": [{"role": "user", "content": "Heron Pier berths " * 300}]}, 400, None),
        ({"messages": [{"role": "user", "content": "a"}] * 257}, 413, "messages"),
        ({"messages": [{"role": "user", "content": "a" * 100_001}]}, 413, None),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, 422, None),
    ],
)
def test_unsupported_field_is_refused_by_name(
    http: httpx.Client, fields: dict[str, Any], status: int, param: str | None
) -> None:
    for mode in ({}, {"stream": True}):
        body = json.dumps({**chat_body(), **mode, **fields})
        answer = http.post(CHAT, content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == status, answer.text
        error = answer.json()["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert error["message"]
        if param:
            assert error["param"] == param


def test_neutral_fields_pass_and_unknown_fields_are_listed(http: httpx.Client) -> None:
    neutral: dict[str, Any] = {
        "tools": [],
        "n": 1,
        "logprobs": False,
        "presence_penalty": 0,
        "logit_bias": {},
        "suffix": None,
    }
    answer = http.post(CHAT, json=chat_body(**neutral, top_k=40, user="u", max_tokens=2))
    assert answer.status_code == 200, answer.text
    assert answer.json()["x_tunewise"]["ignored"] == ["top_k", "user"]


def test_embeddings_are_equal_in_both_encodings(http: httpx.Client, served: Any) -> None:
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


def test_search_applies_conditions(http: httpx.Client) -> None:
    results = http.post("/v1/search", json={"query": "berths", "k": 3, "where": ["doc=pier07.md"]}).json()
    assert {hit["doc"] for hit in results["hits"]} == {"pier07.md"}
    for wrong in ({"where": ["nonsense"]}, {"as_of": "soon"}, {"query": "  "}):
        assert http.post("/v1/search", json={"query": "berths", **wrong}).status_code == 400


def test_metrics_hold_no_text_of_requests(http: httpx.Client) -> None:
    assert http.get("/health").json()["status"] == "ok"
    http.post(CHAT, json=chat_body("Is the zebra lounge open?"))
    text = http.get("/metrics").text
    assert 'tunewise_requests_total{path="/v1/chat/completions",status="200"}' in text
    assert "tunewise_batch_rows_bucket" in text
    assert "zebra" not in text


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/none", 404), ("GET", CHAT, 405), ("DELETE", "/", 405), ("GET", "/docs", 404)],
)
def test_unknown_path_or_method_has_the_error_shape(
    http: httpx.Client, method: str, path: str, status: int
) -> None:
    answer = http.request(method, path)
    assert answer.status_code == status
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


def test_body_that_is_not_json_is_refused(http: httpx.Client) -> None:
    for body in (b"{", b"\xff\xfe", b"[" * 100_000, b"1" * 5000, b'{"messages": NaN}', b"null", b""):
        answer = http.post(CHAT, content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code in (400, 422), (body[:20], answer.text)
        assert answer.json()["error"]["message"]
