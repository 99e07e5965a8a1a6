"""Many clients at once: nobody gets another's answer, nothing grows, and who leaves stops costing at once."""

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
from runners.serving.http.chat import ParsedRequest, _Stream
from runners.serving.http.service import ServerLimits
from runners.serving.request import AnswerRequest
from runners.serving.worker import BatchLimits

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
Asked = tuple[str, dict[str, Any]]


def requests() -> list[Asked]:
    """Requests that all have answers of their own: each has a pier and a seed as its nonce."""
    found: list[Asked] = []
    for number, pier in enumerate(PIERS):
        turns = [{"role": "user", "content": f"How many berths has the {pier} Pier?"}]
        drawn = {"temperature": 1.5, "seed": number, "max_tokens": 12}
        found += [(CHAT, {"model": arm, "messages": turns, **drawn}) for arm in ("lora", "hybrid", "rag")]
        found.append(("/v1/completions", {"model": "lora-s0", "prompt": f"The {pier} Pier", **drawn}))
        found.append(("/v1/embeddings", {"input": [f"The {pier} Pier"]}))
        found.append(("/v1/search", {"query": f"the {pier} Pier", "k": 1}))
    return found


def gist(client: httpx.Client, asked: Asked, stream: bool = False) -> str:
    """The part of an answer that only this request can have: words, places, vectors and counts of tokens."""
    path, body = asked
    if stream and path == CHAT:
        text, tokens, docs = "", 0, []
        more = {"stream": True, "stream_options": {"include_usage": True}}
        with client.stream("POST", path, json={**body, **more}) as answer:
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
    said = answer.json()
    if path == CHAT:
        docs = [c["doc"] for c in said["x_tunewise"]["citations"]]
        return json.dumps([said["choices"][0]["message"]["content"], said["usage"]["prompt_tokens"], docs])
    kept = {k: v for k, v in said.items() if k in ("choices", "hits", "data")}
    return json.dumps(kept)


class Busy(Exception):
    """A designed 503."""


def load(served: Any, clients: int, seconds: float, expected: dict[int, str]) -> Counter[str]:
    """Ask from many threads until the time is over, each at least twice; count what came of it."""
    asked, counts, lock = requests(), Counter[str](), threading.Lock()
    until = time.monotonic() + seconds

    def client(number: int) -> None:
        source, done = random.Random(number), 0
        with served.client() as http:
            while time.monotonic() < until or done < 2:
                done += 1
                place = source.randrange(len(asked))
                try:
                    said = gist(http, asked[place], stream=source.random() < 0.5)
                    what = "right" if said == expected[place] else f"wrong: {asked[place]} {said}"
                except Busy:
                    what = "busy"
                except Exception as error:
                    what = f"failed: {error!r}"
                with lock:
                    counts[what] += 1

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return counts


@pytest.fixture(scope="module")
def expected(served: Any) -> dict[int, str]:
    """Every answer as it is when nobody else asks; no two alike."""
    with served.client() as http:
        found = {place: gist(http, asked) for place, asked in enumerate(requests())}
    assert len({(requests()[n][0], requests()[n][1].get("model"), said) for n, said in found.items()}) == len(
        found
    )
    return found


def measured(
    served: Any, expected: dict[int, str], clients: int, seconds: float, growth: float
) -> Counter[str]:
    """Put a warm server under load; memory and descriptors must be afterwards what they were."""
    process = psutil.Process()
    load(served, clients, seconds / 3, expected)
    gc.collect()
    memory, open_files = process.memory_info().rss, process.num_fds()
    counts = load(served, clients, seconds, expected)
    gc.collect()
    assert process.memory_info().rss < memory * (1 + growth)
    for _ in range(200):  # the server hears a moment later that a client has closed
        if process.num_fds() <= open_files + 2:
            break
        time.sleep(0.05)
    assert process.num_fds() <= open_files + 2
    assert {kind for kind in counts if kind not in ("right", "busy")} == set()
    return counts


def test_eight_clients_get_their_own_answers(served: Any, expected: dict[int, str]) -> None:
    counts = measured(served, expected, clients=8, seconds=4, growth=0.05)
    assert counts["right"] >= 16
    assert counts["busy"] == 0


@pytest.mark.slow
def test_sixteen_clients_for_ten_minutes(served: Any, expected: dict[int, str]) -> None:
    counts = measured(served, expected, clients=16, seconds=600, growth=0.05)
    print(counts)
    assert counts["right"] > 1000


def test_a_full_line_is_a_503_that_says_when(serve: Callable[..., Any]) -> None:
    small = serve(ServerLimits(max_tokens=400), BatchLimits(room=1, rows=1))
    found = Counter[int]()

    def ask() -> None:
        with small.client() as http:
            answer = http.post("/v1/completions", json={"model": "model", "prompt": "Aye", "max_tokens": 200})
            found[answer.status_code] += 1
            if answer.status_code == 503:
                assert int(answer.headers["retry-after"]) >= 1
                assert answer.json()["error"]["code"] == "queue_full"

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(found) == {200, 503}
    with small.client() as http:
        assert http.get("/health").json()["waiting"] == 0


@pytest.mark.parametrize("stream", [True, False])
def test_an_answer_stops_when_its_client_leaves(serve: Callable[..., Any], served: Any, stream: bool) -> None:
    made: list[int] = []
    inside = served.service.clerk.session.context.generator(None, served.service.choices["model"].step)
    pieces = inside.pieces

    def counted(*given: Any) -> Any:
        kept = pieces(*given)
        add = kept.add

        def adding(token: int) -> str:
            made.append(token)
            time.sleep(0.02)
            return str(add(token))

        kept.add = adding
        return kept

    inside.pieces = counted
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
                with pytest.raises(httpx.ReadTimeout):
                    http.post("/v1/completions", json=body, timeout=0.3)
        with served.client() as http:  # the next in line is answered when the clerk is free again
            http.post("/v1/search", json={"query": "pier"})
        count = len(made)
        assert count < 64
        time.sleep(0.2)
        assert len(made) == count
    finally:
        del inside.pieces


def test_who_leaves_before_the_first_event_is_not_answered_to_the_end() -> None:
    order, begun = (
        ParsedRequest(want=None, choice=None, asked=[], told={}, tickets=[AnswerRequest(*[None] * 4)]),
        [],
    )  # type: ignore[arg-type]

    async def events() -> AsyncIterator[dict[str, str]]:
        begun.append(True)
        yield {"data": "x"}

    async def gone(message: Any = None) -> Any:
        raise OSError("the client has gone")

    with pytest.raises((OSError, ExceptionGroup)):
        asyncio.run(_Stream(order, events())({"type": "http", "method": "POST"}, gone, gone))
    assert begun == []
    assert order.tickets[0].left


def test_an_update_of_the_index_is_answered_from_at_once(
    serve: Callable[..., Any], run: Path, piers: Path, tmp_path: Path
) -> None:
    mine = serve()
    documents = tmp_path / "documents"
    shutil.copytree(piers, documents)
    embedder = mine.service.session.context.embedder
    with mine.client() as http:

        def searched() -> tuple[int, str]:
            found = http.post("/v1/search", json={"query": "berths of the Heron Pier", "k": 12}).json()
            return found["generation"], " ".join(hit["text"] for hit in found["hits"])

        first, text = searched()
        assert "27 berths" in text
        heron = documents / "pier07.md"
        for number in range(3):
            heron.write_text(
                f"# Heron Pier\n\nThe Heron Pier has {500 + number} berths for visitors.\n", "utf-8"
            )
            Index.update(run / "index", documents, embedder)
            generation, text = searched()
            assert generation == first + 1 + number
            assert f"{500 + number} berths" in text
            assert "27 berths" not in text
            body = {
                "model": "rag",
                "messages": [{"role": "user", "content": "How many berths has the Heron Pier?"}],
            }
            assert http.post(CHAT, json=body).json()["x_tunewise"]["searched"]["generation"] == generation
        Index.update(run / "index", piers, embedder)
        damaged = run / "index" / "CURRENT"
        good = damaged.read_text("utf-8")
        damaged.write_text("gen-000099 " + "0" * 64 + "\n", "utf-8")
        assert searched()[0] == generation, "what cannot be opened does not take the place of what can"
        damaged.write_text(good, "utf-8")
        assert searched()[0] == generation + 1
        assert "27 berths" in searched()[1]
