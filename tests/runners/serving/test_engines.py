"""A run served with two real llama-servers behind it: one is killed, one hangs, and no request is lost."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from rag.errors import BadInput
from runners.plan.schema import read_plan
from runners.serving.http.service import ServerLimits
from runners.trial.execute import run_plan
from tests.runners.export.conftest import build_model
from tests.support.limits import HANG_S, wait_until
from tests.support.llama_server import LlamaServer, server_binary, write_slow_model

pytestmark = pytest.mark.engines

QUESTION = "How many berths has the Amber Pier?"
TOKENS = 200
"""Tokens of a long answer: two to four seconds of these servers."""


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., LlamaServer]:
    """Start llama-servers with a slow model that never ends its answers early."""
    folder = tmp_path_factory.mktemp("engines")
    binary, model = server_binary(folder), write_slow_model(folder, build_model)

    def start_server(port: int | None = None) -> LlamaServer:
        return LlamaServer(binary, model, folder / "log.txt", port=port, flags=["--ignore-eos"])

    return start_server


@pytest.fixture
def engines(start: Callable[..., LlamaServer]) -> Iterator[list[LlamaServer]]:
    """Two of them; a test may put another in a place."""
    pair = [start(), start()]
    for server in pair:
        server.wait()
    yield pair
    for server in pair:
        server.close()


@pytest.fixture
def client(serve: Callable[..., Any], engines: list[LlamaServer]) -> Iterator[httpx.Client]:
    """A client of `tunewise serve` with both behind it."""
    urls = ",".join(server.url for server in engines)
    limits = ServerLimits(max_tokens=TOKENS)
    with serve(limits, backend=(f"openai:base@{urls}",), arm="rag").client() as http:
        yield http


def body_of(model: str = "model", **more: Any) -> dict[str, Any]:
    """A request for a long answer."""
    messages = [{"role": "user", "content": QUESTION}]
    return {"model": model, "messages": messages, "max_tokens": TOKENS, **more}


def ask(client: httpx.Client, **more: Any) -> tuple[int, int]:
    """Ask for an answer; return the status and its tokens."""
    answer = client.post("/v1/chat/completions", json=body_of(**more))
    usage = answer.json().get("usage") or {}
    return answer.status_code, usage.get("completion_tokens", 0)


def busy_engine(client: httpx.Client, engines: list[LlamaServer]) -> LlamaServer:
    """Wait until a server generates, and return it."""
    until = time.monotonic() + HANG_S
    while time.monotonic() < until:
        for state in client.get("/health").json()["servers"]:
            if state["in_flight"]:
                return next(engine for engine in engines if engine.url == state["server"])
        time.sleep(0.05)
    raise AssertionError("no server was asked")


def wait_for(client: httpx.Client, status: str) -> None:
    """Wait until /health says so."""
    until = time.monotonic() + HANG_S
    while client.get("/health").json()["status"] != status:
        assert time.monotonic() < until, client.get("/health").text
        time.sleep(0.1)


def lost_requests(client: httpx.Client) -> dict[str, int]:
    """Return how many requests each server has lost so far."""
    return {state["server"]: state["lost"] for state in client.get("/health").json()["servers"]}


def test_server_killed_in_the_middle_of_answers_loses_none(
    client: httpx.Client, engines: list[LlamaServer], start: Callable[..., LlamaServer]
) -> None:
    ask(client)
    with ThreadPoolExecutor(6) as pool:
        asked = [pool.submit(ask, client) for _ in range(6)]
        victim = busy_engine(client, engines)
        time.sleep(0.7)
        victim.kill()
        answers = [future.result(HANG_S) for future in asked]
    assert answers == [(200, TOKENS)] * 6
    health = client.get("/health").json()
    assert (health["status"], health["down"]) == ("degraded", [victim.url])
    assert ask(client) == (200, TOKENS), "the other goes on"
    place = engines.index(victim)
    engines[place] = start(victim.port).wait()
    wait_for(client, "ok")  # checked every 5 s, after a rest of 5 to 10 s
    assert all(ask(client) == (200, TOKENS) for _ in range(2))


def test_server_killed_in_the_middle_of_a_stream_ends_it_with_an_error(
    client: httpx.Client, engines: list[LlamaServer]
) -> None:
    events: list[dict[str, Any]] = []
    lines: list[str] = []

    def read() -> None:
        with client.stream("POST", "/v1/chat/completions", json=body_of(stream=True)) as answer:
            for line in answer.iter_lines():
                lines.append(line)
                if line.startswith("data: {"):
                    events.append(json.loads(line[6:]))

    reader = threading.Thread(target=read)
    reader.start()
    victim = busy_engine(client, engines)
    wait_until(lambda: len(events) >= 10)
    victim.kill()
    reader.join(HANG_S)
    assert not reader.is_alive()
    assert "a stream that has begun is not repeated" in events[-1]["error"]["message"]
    assert [line for line in lines if line][-1] == "data: [DONE]"
    states = {state["server"]: state for state in client.get("/health").json()["servers"]}
    assert [states[engine.url]["in_flight"] for engine in engines] == [0, 0], "no other server was asked"


def test_server_that_hangs_is_given_up(client: httpx.Client, engines: list[LlamaServer]) -> None:
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(ask, client)
        victim = busy_engine(client, engines)
        victim.pause()
        paused = time.monotonic()
        assert asked.result(HANG_S) == (200, TOKENS)
    assert time.monotonic() - paused > 5, "until its checks had timed out"
    assert client.get("/health").json()["down"] == [victim.url]
    lost = lost_requests(client)
    assert ask(client) == (200, TOKENS)
    assert lost_requests(client) == lost, "the one that hangs is not asked again"
    assert client.get("/health").json()["down"] == [victim.url]
    victim.resume()
    wait_for(client, "ok")


def test_no_server_answers_for_a_model_that_it_does_not_have(
    serve: Callable[..., Any], engines: list[LlamaServer]
) -> None:
    """llama-server answers to any name with the one model that it has."""
    answer = httpx.post(
        f"{engines[0].url}/chat/completions", json=body_of("lora", max_tokens=2), timeout=HANG_S
    )
    assert answer.status_code == 200
    with pytest.raises(BadInput, match=r"has no model 'lora'; it has: base"):
        serve(backend=(f"openai:base@{engines[0].url}",), arm="lora")


def test_arms_are_measured_by_the_servers(run: Path, engines: list[LlamaServer], tmp_path: Path) -> None:
    plan = read_plan(run / "plan.yaml")
    steps = tuple(step for step in plan.steps if getattr(step, "arm", "rag") in ("rag", "prompting"))
    urls = ",".join(server.url for server in engines)
    measured = run_plan(
        plan.model_copy(update={"steps": steps, "choice": "rag", "backend": (f"openai:base@{urls}",)}),
        tmp_path / "run",
    )
    rows = [json.loads(line) for line in (measured.path / "trial" / "answers.jsonl").read_text().splitlines()]
    generated = [row for row in rows if row["finish"] != "refused"]
    assert {row["arm"] for row in rows} == {"rag", "prompting"}
    settings = json.loads((measured.path / "trial" / "prompts.json").read_text())["settings"]
    limits = {arm: each["max_new_tokens"] for arm, each in settings.items()}
    assert "prompting" in {row["arm"] for row in generated}, "rag's gate may refuse all of them"
    assert all(row["completion_tokens"] == limits[row["arm"]] for row in generated), "--ignore-eos"
