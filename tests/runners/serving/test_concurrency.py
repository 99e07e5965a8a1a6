"""Many clients at once: answers are not mixed up, memory does not grow, and a disconnect stops the work."""

from __future__ import annotations

import asyncio
import gc
import json
import random
import shutil
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from rag.index import Index
from runners.serving.http.chat import ParsedRequest, _EventStream
from runners.serving.http.service import ServerLimits
from runners.serving.request import AnswerRequest
from runners.serving.worker import BatchLimits
from tests.support.limits import HANG_S, wait_until

PIERS = (
    "Amber",
    "Birch",
    "Copper",
    "Dunlin",
    "Elder",
    "Falcon",
    "Garnet",
    "Heron",
    "Indigo",
    "Juniper",
    "Kelp",
)
CHAT = "/v1/chat/completions"
Call = tuple[str, dict[str, Any]]
"""Path and body of a request."""


class Busy(Exception):
    """The server answered 503."""


def make_calls() -> list[Call]:
    """Requests whose answers all differ: each has a pier and a seed of its own."""
    calls: list[Call] = []
    for number, pier in enumerate(PIERS):
        turns = [{"role": "user", "content": f"How many berths has the {pier} Pier?"}]
        sampling = {"temperature": 1.5, "seed": number, "max_tokens": 12}
        calls += [(CHAT, {"model": arm, "messages": turns, **sampling}) for arm in ("lora", "hybrid", "rag")]
        calls.append(("/v1/completions", {"model": "lora-s0", "prompt": f"The {pier} Pier", **sampling}))
        calls.append(("/v1/embeddings", {"input": [f"The {pier} Pier"]}))
        calls.append(("/v1/search", {"query": f"the {pier} Pier", "k": 1}))
    return calls


def fetch(client: httpx.Client, call: Call, stream: bool = False) -> str:
    """Send a request; return the part of its answer that differs between requests: texts, hits, vectors, tokens."""
    path, body = call
    if stream and path == CHAT:
        text, tokens, docs = "", 0, []
        options = {"stream": True, "stream_options": {"include_usage": True}}
        with client.stream("POST", path, json={**body, **options}) as answer:
            if answer.status_code == 503:
                raise Busy
            for line in answer.iter_lines():
                if not line.startswith("data: {"):
                    continue
                event = json.loads(line[6:])
                assert "error" not in event, event
                text += "".join(c["delta"].get("content") or "" for c in event["choices"])
                tokens = (event["usage"] or {}).get("prompt_tokens", tokens)
                docs += [c["doc"] for c in event.get("x_tunewise", {}).get("citations", [])]
        return json.dumps([text, tokens, docs])
    answer = client.post(path, json=body)
    if answer.status_code == 503:
        assert int(answer.headers["retry-after"]) >= 1
        raise Busy
    assert answer.status_code == 200, answer.text
    content = answer.json()
    if path == CHAT:
        docs = [c["doc"] for c in content["x_tunewise"]["citations"]]
        return json.dumps(
            [content["choices"][0]["message"]["content"], content["usage"]["prompt_tokens"], docs]
        )
    return json.dumps({k: v for k, v in content.items() if k in ("choices", "hits", "data")})


def load(served: Any, clients: int, seconds: float, expected: dict[int, str]) -> Counter[str]:
    """Send requests from many threads until the time is over, each at least two; count the outcomes."""
    calls, counts, lock = make_calls(), Counter[str](), threading.Lock()
    until = time.monotonic() + seconds

    def client(number: int) -> None:
        rng, sent = random.Random(number), 0
        with served.client() as http:
            while time.monotonic() < until or sent < 2:
                sent += 1
                index = rng.randrange(len(calls))
                try:
                    answer = fetch(http, calls[index], stream=rng.random() < 0.5)
                    outcome = "right" if answer == expected[index] else f"wrong: {calls[index]} {answer}"
                except Busy:
                    outcome = "busy"
                except Exception as error:
                    outcome = f"failed: {error!r}"
                with lock:
                    counts[outcome] += 1

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return counts


@pytest.fixture(scope="module")
def expected(served: Any) -> dict[int, str]:
    """The answer to each request when no other is sent; all are different."""
    calls = make_calls()
    with served.client() as http:
        answers = {index: fetch(http, call) for index, call in enumerate(calls)}
    assert len({(calls[n][0], calls[n][1].get("model"), text) for n, text in answers.items()}) == len(answers)
    return answers


def measure_load(
    served: Any, expected: dict[int, str], clients: int, seconds: float, growth: float
) -> Counter[str]:
    """Put a warm server under load, and check that memory and file descriptors return to what they were."""
    process = psutil.Process()
    load(served, clients, seconds / 3, expected)
    gc.collect()
    memory, open_files = process.memory_info().rss, process.num_fds()
    counts = load(served, clients, seconds, expected)
    gc.collect()
    assert process.memory_info().rss < memory * (1 + growth)
    # The server notices a moment later that a client has closed.
    wait_until(lambda: process.num_fds() <= open_files + 2)
    assert {kind for kind in counts if kind not in ("right", "busy")} == set()
    return counts


def test_eight_concurrent_clients_get_their_own_answers(served: Any, expected: dict[int, str]) -> None:
    counts = measure_load(served, expected, clients=8, seconds=4, growth=0.05)
    assert counts["right"] >= 16
    assert counts["busy"] == 0


@pytest.mark.slow
def test_sixteen_clients_for_ten_minutes(served: Any, expected: dict[int, str]) -> None:
    counts = measure_load(served, expected, clients=16, seconds=600, growth=0.05)
    print(counts)
    assert counts["right"] > 1000


def test_full_queue_is_a_503_with_retry_after(serve: Callable[..., Any]) -> None:
    small = serve(ServerLimits(max_tokens=400), BatchLimits(max_queue=1, max_batch=1))
    statuses = Counter[int]()

    def ask() -> None:
        with small.client() as http:
            answer = http.post("/v1/completions", json={"model": "model", "prompt": "Aye", "max_tokens": 200})
            statuses[answer.status_code] += 1
            if answer.status_code == 503:
                assert int(answer.headers["retry-after"]) >= 1
                assert answer.json()["error"]["code"] == "queue_full"

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(statuses) == {200, 503}
    with small.client() as http:
        assert http.get("/health").json()["waiting"] == 0


@pytest.mark.parametrize("stream", [True, False])
def test_decoding_stops_when_the_client_disconnects(
    serve: Callable[..., Any], served: Any, stream: bool
) -> None:
    tokens: list[int] = []
    left = threading.Event()
    generator = served.service.worker.session.models.generator(None, served.service.models["model"].step)
    pieces = generator.pieces

    def slow_pieces(*arguments: Any) -> Any:
        text_pieces = pieces(*arguments)
        add = text_pieces.add

        def slow_add(token: int) -> str:
            tokens.append(token)
            if len(tokens) > 4:  # the client has left by then; its server notices a moment later
                left.wait(HANG_S)
            time.sleep(0.05)
            return str(add(token))

        text_pieces.add = slow_add
        return text_pieces

    generator.pieces = slow_pieces
    try:
        body = {
            "model": "model",
            "prompt": "The",
            "max_tokens": 64,
            "stream": stream,
            "temperature": 2,
            "seed": 5,
        }
        with served.client() as http:
            if stream:
                with http.stream("POST", "/v1/completions", json=body) as answer:
                    next(answer.iter_lines())
            else:
                with pytest.raises(httpx.ReadTimeout):  # after which the client leaves
                    http.post("/v1/completions", json=body, timeout=0.3)
        left.set()
        with served.client() as http:  # answered as soon as the worker is free again
            http.post("/v1/search", json={"query": "pier"})
        count = len(tokens)
        assert count < 64
        time.sleep(0.2)
        assert len(tokens) == count
    finally:
        del generator.pieces


def test_disconnect_before_the_first_event_cancels_the_request() -> None:
    nothing: Any = None
    queued = AnswerRequest(nothing, nothing, nothing, nothing)
    parsed = ParsedRequest(nothing, nothing, prompts=[], notes={}, queued=[queued])
    started = []

    async def events() -> AsyncIterator[dict[str, str]]:
        started.append(True)
        yield {"data": "x"}

    async def disconnected(message: Any = None) -> Any:
        raise OSError("the client has disconnected")

    scope = {"type": "http", "method": "POST"}
    with pytest.raises((OSError, ExceptionGroup)):
        asyncio.run(_EventStream(parsed, events())(scope, disconnected, disconnected))
    assert started == []
    assert queued.cancelled


def test_index_update_is_served_at_once_and_damage_is_not(
    serve: Callable[..., Any], run: Path, piers: Path, tmp_path: Path
) -> None:
    server = serve()
    documents = tmp_path / "documents"
    shutil.copytree(piers, documents)
    embedder = server.service.session.models.embedder
    with server.client() as http:

        def search() -> tuple[int, str]:
            results = http.post("/v1/search", json={"query": "berths of the Heron Pier", "k": 12}).json()
            return results["generation"], " ".join(hit["text"] for hit in results["hits"])

        first, text = search()
        assert "27 berths" in text
        heron = documents / "pier07.md"
        for number in range(3):
            heron.write_text(
                f"# Heron Pier\n\nThe Heron Pier has {500 + number} berths for visitors.\n", "utf-8"
            )
            Index.update(run / "index", documents, embedder)
            generation, text = search()
            assert generation == first + 1 + number
            assert f"{500 + number} berths" in text
            assert "27 berths" not in text
            body = {
                "model": "rag",
                "messages": [{"role": "user", "content": "How many berths has the Heron Pier?"}],
            }
            assert http.post(CHAT, json=body).json()["x_tunewise"]["searched"]["generation"] == generation
        Index.update(run / "index", piers, embedder)
        current = run / "index" / "CURRENT"
        good = current.read_text("utf-8")
        current.write_text("gen-000099 " + "0" * 64 + "\n", "utf-8")
        assert search()[0] == generation, "a generation that cannot be opened does not replace the one in use"
        current.write_text(good, "utf-8")
        assert search()[0] == generation + 1
        assert "27 berths" in search()[1]
