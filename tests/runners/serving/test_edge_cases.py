"""Unusual requests: lengths, token ids, methods, empty questions, and the errors they get."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from runners.inference.types import Completion
from runners.serving.http.service import ServerLimits

HERON = "How many berths has the Heron Pier?"
CHAT, TEXT = "/v1/chat/completions", "/v1/completions"


def chat_body(question: str = HERON, **fields: Any) -> dict[str, Any]:
    """The body of a chat request."""
    return {"messages": [{"role": "user", "content": question}], **fields}


def events(answer: httpx.Response) -> list[Any]:
    """Parse the events of a stream, without [DONE]."""
    blocks = answer.text.replace(": still here\n\n", "").split("\n\n")
    return [json.loads(block.removeprefix("data: ")) for block in blocks[:-2]]


def test_json_stream_sends_a_refusal_as_refusal(http: httpx.Client) -> None:
    body = chat_body("Who owns the moon?", model="rag", response_format={"type": "json_object"}, stream=True)
    deltas = [e["choices"][0]["delta"] for e in events(http.post(CHAT, json=body))]
    assert deltas[1:] == [{"refusal": "I could not find that in our documents."}, {}]


def test_server_token_limit_bounds_requests_and_is_reported(http: httpx.Client, serve: Any) -> None:
    raw = {"model": "lora-s0", "prompt": "How many berths has the"}
    for fields in ({"max_tokens": 4096}, {"max_completion_tokens": 65, "max_tokens": 2}):
        body = http.post(CHAT, json=chat_body(HERON, model="lora", **fields)).json()
        assert body["x_tunewise"]["max_tokens"] == 64
        assert body["usage"]["completion_tokens"] <= 64
    assert "max_tokens" not in http.post(TEXT, json={**raw, "max_tokens": 64}).json()["x_tunewise"]
    with serve(ServerLimits(max_tokens=8)).client() as short:
        for fields in ({}, {"max_tokens": 20}):
            body = short.post(TEXT, json={**raw, **fields}).json()
            assert body["usage"]["completion_tokens"] == body["x_tunewise"]["max_tokens"] == 8
            assert body["choices"][0]["finish_reason"] == "length"


def test_invented_citation_marks_are_removed_whole_and_streamed(served: Any, http: httpx.Client) -> None:
    generator = served.service.worker.session.models.generator(None, served.service.models["prompting"].step)

    def invented(*arguments: Any) -> Any:
        yield from ("Dogs are allowed", " [1", "]. Cats too [2].")
        return Completion("Dogs are allowed [1]. Cats too [2].", 1, 3, 0.0, "stop")

    generator.follow = invented
    try:
        (choice,) = http.post(CHAT, json=chat_body(model="prompting")).json()["choices"]
        stream = events(http.post(CHAT, json=chat_body(model="prompting", stream=True)))
    finally:
        del generator.follow
    assert choice["message"]["content"] == "Dogs are allowed. Cats too."
    assert (
        "".join(e["choices"][0]["delta"].get("content", "") for e in stream) == "Dogs are allowed. Cats too."
    )
    assert "answer" not in stream[-1]["x_tunewise"]


def test_client_mistake_counts_as_no_server_error(http: httpx.Client, capfd: Any) -> None:
    before = [line for line in http.get("/metrics").text.splitlines() if "troubles" in line]
    answer = http.post("/v1/embeddings", json={"input": "a", "dimensions": 3})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "dimensions")
    assert [line for line in http.get("/metrics").text.splitlines() if "troubles" in line] == before
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("path", "body", "status", "param", "message"),
    [
        ("/v1/embeddings", {"input": [[1, 2, 3]]}, 400, "input", "check_embedding_ctx_length=False"),
        ("/v1/embeddings", {"input": [1, 2, 3]}, 400, "input", "token ids are not read"),
        (TEXT, {"prompt": [1, 2]}, 400, "prompt", "token ids are not read, send texts"),
        (TEXT, {"prompt": [[1, 2]]}, 400, "prompt", "token ids are not read, send texts"),
        (TEXT, {"prompt": 3}, 422, "prompt", "prompt: Input should be a valid string"),
        (CHAT, chat_body(stop=3), 422, "stop", "stop: "),
        (CHAT, {"messages": [{"role": "user", "content": 3}]}, 422, "messages.0.content", "content: "),
        (CHAT, chat_body(" "), 400, "messages", "is empty"),
        (
            "/v1/search",
            {"query": "x", "as_of": "2026-13-40"},
            400,
            "as_of",
            "as_of: '2026-13-40' is not a day",
        ),
        (
            "/v1/search",
            {"query": "x", "where": ["nonsense"]},
            400,
            "where",
            "where: 'nonsense' is no condition",
        ),
        ("/v1/search", {"query": "x", "where": [" " * 60_000]}, 422, "where.0", "at most 500"),
    ],
)
def test_invalid_field_is_named_in_the_error(
    http: httpx.Client, path: str, body: dict[str, Any], status: int, param: str, message: str
) -> None:
    answer = http.post(path, json=body)
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert error["param"] == param
    assert message in error["message"]
    assert "--" not in error["message"]
    assert len(error["message"]) < 300


def test_top_p_zero_equals_greedy_decoding(http: httpx.Client) -> None:
    raw = {"model": "lora-s0", "prompt": "How many berths has the", "max_tokens": 8}
    sampling = {"temperature": 2, "top_p": 0, "seed": 3}
    texts = [
        http.post(TEXT, json={**raw, **fields}).json()["choices"][0]["text"] for fields in ({}, sampling)
    ]
    assert texts[0] == texts[1]


def test_head_requests_and_allow_header(http: httpx.Client) -> None:
    for path in ("/", "/health"):
        answer = http.head(path)
        assert (answer.status_code, answer.content) == (200, b"")
        refused = http.request("DELETE", path)
        assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD")
    assert http.get(CHAT).headers["allow"] == "POST"
    assert "GET" in http.post("/openapi.json", json={}).headers["allow"]
    assert "allow" not in http.get("/none").headers
