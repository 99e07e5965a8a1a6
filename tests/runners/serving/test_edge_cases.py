"""What clients send in their own ways: lengths, token ids, methods, empty questions, and what they are told of it."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from runners.inference.types import Completion
from runners.serving.http.service import ServerLimits

HERON = "How many berths has the Heron Pier?"
CHAT, TEXT = "/v1/chat/completions", "/v1/completions"


def ask(question: str = HERON, **more: Any) -> dict[str, Any]:
    """The body of a request."""
    return {"messages": [{"role": "user", "content": question}], **more}


def events(answer: httpx.Response) -> list[Any]:
    """The events of a stream but for [DONE]."""
    blocks = answer.text.replace(": still here\n\n", "").split("\n\n")
    return [json.loads(block.removeprefix("data: ")) for block in blocks[:-2]]


def test_a_stream_of_json_tells_the_houses_refusal_from_an_answer(http: httpx.Client) -> None:
    body = ask("Who owns the moon?", model="rag", response_format={"type": "json_object"}, stream=True)
    deltas = [e["choices"][0]["delta"] for e in events(http.post(CHAT, json=body))]
    assert deltas[1:] == [{"refusal": "I could not find that in our documents."}, {}]


def test_the_servers_limit_bounds_what_is_asked_for_and_what_is_not(http: httpx.Client, serve: Any) -> None:
    raw = {"model": "lora-s0", "prompt": "How many berths has the"}
    for fields in ({"max_tokens": 4096}, {"max_completion_tokens": 65, "max_tokens": 2}):
        said = http.post(CHAT, json=ask(model="lora", **fields)).json()
        assert said["x_tunewise"]["max_tokens"] == 64
        assert said["usage"]["completion_tokens"] <= 64
    assert "max_tokens" not in http.post(TEXT, json={**raw, "max_tokens": 64}).json()["x_tunewise"]
    with serve(ServerLimits(max_tokens=8)).client() as short:
        for fields in ({}, {"max_tokens": 20}):
            said = short.post(TEXT, json={**raw, **fields}).json()
            assert said["usage"]["completion_tokens"] == said["x_tunewise"]["max_tokens"] == 8
            assert said["choices"][0]["finish_reason"] == "length"


def test_marks_that_a_model_makes_up_are_shown_neither_whole_nor_streamed(
    served: Any, http: httpx.Client
) -> None:
    inside = served.service.clerk.session.context.generator(None, served.service.choices["prompting"].step)

    def invented(*given: Any) -> Any:
        yield from ("Dogs are allowed", " [1", "]. Cats too [2].")
        return Completion("Dogs are allowed [1]. Cats too [2].", 1, 3, 0.0, "stop")

    inside.follow = invented
    try:
        (choice,) = http.post(CHAT, json=ask(model="prompting")).json()["choices"]
        stream = events(http.post(CHAT, json=ask(model="prompting", stream=True)))
    finally:
        del inside.follow
    assert choice["message"]["content"] == "Dogs are allowed. Cats too."
    assert (
        "".join(e["choices"][0]["delta"].get("content", "") for e in stream) == "Dogs are allowed. Cats too."
    )
    assert "answer" not in stream[-1]["x_tunewise"]


def test_a_clients_mistake_is_no_trouble_of_ours(http: httpx.Client, capfd: Any) -> None:
    before = [line for line in http.get("/metrics").text.splitlines() if "troubles" in line]
    answer = http.post("/v1/embeddings", json={"input": "a", "dimensions": 3})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "dimensions")
    assert [line for line in http.get("/metrics").text.splitlines() if "troubles" in line] == before
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("path", "body", "status", "param", "said"),
    [
        ("/v1/embeddings", {"input": [[1, 2, 3]]}, 400, "input", "check_embedding_ctx_length=False"),
        ("/v1/embeddings", {"input": [1, 2, 3]}, 400, "input", "token ids are not read"),
        (TEXT, {"prompt": [1, 2]}, 400, "prompt", "token ids are not read, send texts"),
        (TEXT, {"prompt": [[1, 2]]}, 400, "prompt", "token ids are not read, send texts"),
        (TEXT, {"prompt": 3}, 422, "prompt", "prompt: Input should be a valid string"),
        (CHAT, ask(stop=3), 422, "stop", "stop: "),
        (CHAT, {"messages": [{"role": "user", "content": 3}]}, 422, "messages.0.content", "content: "),
        (CHAT, ask(" "), 400, "messages", "is empty"),
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
def test_a_mistake_is_named_by_its_field(
    http: httpx.Client, path: str, body: dict[str, Any], status: int, param: str, said: str
) -> None:
    answer = http.post(path, json=body)
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert error["param"] == param
    assert said in error["message"]
    assert "--" not in error["message"]
    assert len(error["message"]) < 300


def test_a_draw_from_the_likeliest_alone_is_the_likeliest(http: httpx.Client) -> None:
    raw = {"model": "lora-s0", "prompt": "How many berths has the", "max_tokens": 8}
    drawn = {"temperature": 2, "top_p": 0, "seed": 3}
    texts = [http.post(TEXT, json={**raw, **more}).json()["choices"][0]["text"] for more in ({}, drawn)]
    assert texts[0] == texts[1]


def test_probes_and_methods(http: httpx.Client) -> None:
    for path in ("/", "/health"):
        answer = http.head(path)
        assert (answer.status_code, answer.content) == (200, b"")
        refused = http.request("DELETE", path)
        assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD")
    assert http.get(CHAT).headers["allow"] == "POST"
    assert "GET" in http.post("/openapi.json", json={}).headers["allow"]
    assert "allow" not in http.get("/none").headers
