"""What goes wrong on the server's side: nobody waits longer than he must, no client is blamed, no place is named."""

from __future__ import annotations

import asyncio
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from rag.index import Index
from rag.types import Results
from runners.arms import answer
from runners.data.questions import Question
from runners.runs import session
from runners.runs.run import RunSession, open_session
from runners.serving.http import server as http_server
from runners.serving.http.app import create_app
from runners.serving.http.metrics import ServerMetrics
from runners.serving.http.middleware import AccessRules
from runners.serving.http.service import ServerLimits, Service
from runners.serving.request import AnswerRequest, ModelJob, RequestResult
from runners.serving.served_models import served_models
from runners.serving.worker import BatchingWorker

CHAT, TEXT, SEARCH = "/v1/chat/completions", "/v1/completions", "/v1/search"
TURNS = [{"role": "user", "content": "How many berths has the Amber Pier?"}]


@pytest.fixture
def held() -> Iterator[Callable[[BatchingWorker], Callable[[], None]]]:
    """Keep a clerk busy until told otherwise, or until the test is over."""
    ends: list[threading.Event] = []

    def hold(clerk: BatchingWorker) -> Callable[[], None]:
        begun, free = threading.Event(), threading.Event()
        ends.append(free)

        def work(session: RunSession) -> None:
            begun.set()
            free.wait(60)

        clerk.put(ModelJob(work, lambda result: None))
        assert begun.wait(60)
        return free.set

    yield hold
    for end in ends:
        end.set()


def test_nobody_waits_longer_than_the_time_limit(serve: Callable[..., Any], held: Any) -> None:
    hasty = serve(ServerLimits(seconds=0.5))
    free = held(hasty.service.clerk)
    asked = (
        (CHAT, {"messages": TURNS}),
        (CHAT, {"messages": TURNS, "stream": True}),
        (TEXT, {"model": "model", "prompt": ["Aye", "No"]}),
        (SEARCH, {"query": "pier"}),
    )

    def ask(path: str, body: dict[str, Any]) -> httpx.Response:
        with hasty.client() as http:
            return http.post(path, json=body)

    started = time.monotonic()
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda one: ask(*one), asked))
    assert time.monotonic() - started < 20
    assert [(a.status_code, a.json()["error"]["code"]) for a in found] == [(503, "time_limit")] * 4
    assert hasty.service.clerk.waiting == 0
    free()


def test_weights_that_cannot_be_read_are_not_the_clients_doing(
    served: Any, http: httpx.Client, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    body = {"model": "lora", "messages": TURNS, "max_tokens": 4}
    assert http.post(CHAT, json={**body, "model": "prompting"}).status_code == 200
    weights = run / "adapters" / "lora-s0"
    weights.rename(run / "elsewhere")
    try:
        lost = http.post(CHAT, json=body)
    finally:
        (run / "elsewhere").rename(weights)
    assert (lost.status_code, lost.json()["error"]["code"]) == (503, "cannot_run")
    assert "'lora' cannot be used now" in lost.text
    assert str(run) not in lost.text
    assert "lora-s0 is missing" in capsys.readouterr().err
    config = weights / "adapter_config.json"
    kept = config.read_bytes()
    config.write_bytes(kept + b" ")
    try:
        damaged = http.post(CHAT, json={**body, "model": "lora-s0"})
    finally:
        config.write_bytes(kept)
    assert damaged.status_code == 503
    assert str(run) not in damaged.text
    assert str(weights) in capsys.readouterr().err
    assert http.post(CHAT, json=body).status_code == 200


def test_an_index_that_cannot_be_read_is_not_the_clients_doing(
    served: Any, http: httpx.Client, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hit = http.post(SEARCH, json={"query": "the Amber Pier", "k": 1}).json()
    place: dict[str, Any] = {"doc": "pier00.md", "start": 0, "end": 4, "generation": hit["generation"]}
    assert http.get("/v1/passages", params=place).status_code == 200
    text = run / "index" / "text.sqlite"
    text.rename(run / "elsewhere")
    try:
        lost = http.get("/v1/passages", params=place)
    finally:
        (run / "elsewhere").rename(text)
    assert lost.status_code == 503
    assert str(run) not in lost.text
    assert str(run) in capsys.readouterr().err


def test_an_index_that_could_not_be_opened_is_tried_again(
    serve: Callable[..., Any],
    run: Path,
    piers: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    mine, index = serve(), run / "index"
    documents = tmp_path / "documents"
    shutil.copytree(piers, documents)
    with mine.client() as http:

        def generation() -> int:
            return int(http.post(SEARCH, json={"query": "pier"}).json()["generation"])

        def stale() -> bool:
            told = bool(http.get("/health").json()["stale"])
            assert f"tunewise_index_stale {float(told)}" in http.get("/metrics").text
            return told

        first = generation()
        assert not stale()
        (index / "CURRENT").rename(index / "CURRENT.away")
        assert (generation(), stale()) == (first, True)
        (index / "CURRENT.away").rename(index / "CURRENT")
        assert (generation(), stale()) == (first, False)
        (documents / "pier07.md").write_text("# Heron Pier\n\nThe Heron Pier is closed.\n", "utf-8")
        Index.update(index, documents, mine.service.session.context.embedder)
        part = next(
            p
            for p in sorted((index / f"gen-{first + 1:06d}").iterdir())
            if p.is_file() and p.name != "manifest.json"
        )
        kept = part.read_bytes()
        part.write_bytes(kept + b"?")
        capsys.readouterr()
        assert [generation(), generation(), generation()] == [first] * 3
        assert capsys.readouterr().err.count(part.name) == 1
        assert stale()
        part.write_bytes(kept)
        assert generation() == first
        monkeypatch.setattr(session, "RETRY_SECONDS", 0.0)
        assert (generation(), stale()) == (first + 1, False)
        Index.update(index, piers, mine.service.session.context.embedder)


def test_one_requests_bug_is_not_its_neighbours(
    served: Any, held: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clerk, choice = served.service.clerk, served.service.choices["lora"]
    concluded = answer.finish_answer

    def conclude(plan: Any, question: Question, *more: Any) -> Any:
        if "Birch" in question.question:
            raise RuntimeError("no end")
        return concluded(plan, question, *more)

    monkeypatch.setattr(answer, "finish_answer", conclude)
    ends: dict[str, Any] = {}
    done = threading.Semaphore(0)

    def put(pier: str, on_piece: Callable[[str], None]) -> None:
        def end(result: Any) -> None:
            ends[pier] = result
            done.release()

        question = Question("q", f"How many berths has the {pier} Pier?")
        clerk.put(AnswerRequest(choice, question, on_piece, end, limit=24, pieces=True))

    def deaf(piece: str) -> None:
        raise RuntimeError("no ear")

    free, pieces = held(clerk), list[str]()
    put("Amber", deaf)
    put("Birch", lambda piece: None)
    put("Copper", pieces.append)
    free()
    for _ in range(3):
        assert done.acquire(timeout=60)
    assert [str(ends["Amber"]), str(ends["Birch"])] == ["no ear", "no end"]
    assert isinstance(ends["Copper"], RequestResult)
    assert ends["Copper"].text == "".join(pieces)
    time.sleep(0.1)
    said = capsys.readouterr().err
    assert said.count("RuntimeError: no ear") == said.count("RuntimeError: no end") == 1


def test_who_cannot_be_answered_before_it_stops_is_told_so(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "DRAIN_SECONDS", 6)
    begun, free = threading.Event(), threading.Event()

    def endless(results: Any) -> Any:
        begun.set()
        free.wait(60)
        return {}

    monkeypatch.setattr(Results, "to_json", endless)
    session, meters = open_session(run), ServerMetrics()
    service = Service(
        session, BatchingWorker(session, None, meters.hear), served_models(session)[0], ServerLimits(), meters
    )
    config = uvicorn.Config(
        create_app(service, AccessRules(service.limits)),
        port=0,
        log_config=None,
        ws="none",
        timeout_graceful_shutdown=6,
    )
    server = http_server._Server(config, "ready", service.clerk)
    running = threading.Thread(target=lambda: asyncio.run(server.serve()), daemon=True)
    running.start()
    while not server.started:
        time.sleep(0.01)
    address = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    asked = ((SEARCH, {"query": "pier"}), (CHAT, {"messages": TURNS}))
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(httpx.post, address + asked[0][0], json=asked[0][1], timeout=60)
        assert begun.wait(60)
        second = pool.submit(httpx.post, address + asked[1][0], json=asked[1][1], timeout=60)
        while service.clerk.waiting == 0:
            time.sleep(0.01)
        server.should_exit = True
        found = [first.result(), second.result()]
    free.set()
    running.join(60)
    for response in found:
        assert response.status_code == 503
        assert "the server is stopping" in response.json()["error"]["message"]
