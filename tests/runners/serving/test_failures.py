"""Failures on the server's side: time limits, damaged files, bugs and shutdown; responses name no local path."""

from __future__ import annotations

import asyncio
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from rag.errors import BadInput
from rag.index import Index
from rag.types import Results
from runners.data.questions import Question
from runners.models.resolve import Model
from runners.runs.run import RunSession, open_session
from runners.serving.http.app import create_app
from runners.serving.http.metrics import ServerMetrics
from runners.serving.http.middleware import AccessRules
from runners.serving.http.server import RunServer, server_config
from runners.serving.http.service import ServerLimits, Service
from runners.serving.request import AnswerRequest, ModelJob, RequestResult
from runners.serving.served_models import served_models
from runners.serving.worker import BatchingWorker
from tests.support.limits import HANG_S, wait_until

CHAT, TEXT, SEARCH = "/v1/chat/completions", "/v1/completions", "/v1/search"
TURNS = [{"role": "user", "content": "How many berths has the Amber Pier?"}]


@pytest.fixture
def block() -> Iterator[Callable[[BatchingWorker], Callable[[], None]]]:
    """Return a function that blocks a worker and returns the function that unblocks it."""
    events: list[threading.Event] = []

    def block_worker(worker: BatchingWorker) -> Callable[[], None]:
        started, release = threading.Event(), threading.Event()
        events.append(release)

        def work(session: RunSession) -> None:
            started.set()
            release.wait(HANG_S)

        worker.submit(ModelJob(work, lambda result: None))
        assert started.wait(HANG_S)
        return release.set

    yield block_worker
    for event in events:
        event.set()


def test_queued_requests_end_at_the_time_limit(serve: Callable[..., Any], block: Any) -> None:
    server = serve(ServerLimits(seconds=0.5))
    release = block(server.service.worker)
    calls = (
        (CHAT, {"messages": TURNS}),
        (CHAT, {"messages": TURNS, "stream": True}),
        (TEXT, {"model": "model", "prompt": ["Aye", "No"]}),
        (SEARCH, {"query": "pier"}),
    )

    def ask(path: str, body: dict[str, Any]) -> httpx.Response:
        with server.client() as http:
            return http.post(path, json=body)

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda call: ask(*call), calls))
    assert [(a.status_code, a.json()["error"]["code"]) for a in answers] == [(503, "time_limit")] * 4
    assert server.service.worker.waiting == 0
    release()


def test_unreadable_weights_are_a_503_without_paths(
    served: Any, http: httpx.Client, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    body = {"model": "lora", "messages": TURNS, "max_tokens": 4}
    assert http.post(CHAT, json={**body, "model": "prompting"}).status_code == 200
    weights = run / "adapters" / "lora-s0"
    weights.rename(run / "elsewhere")
    try:
        response = http.post(CHAT, json=body)
    finally:
        (run / "elsewhere").rename(weights)
    assert (response.status_code, response.json()["error"]["code"]) == (503, "cannot_run")
    assert "'lora' cannot be used now" in response.text
    assert str(run) not in response.text
    assert "lora-s0 is missing" in capsys.readouterr().err
    config = weights / "adapter_config.json"
    original = config.read_bytes()
    config.write_bytes(original + b" ")
    try:
        damaged = http.post(CHAT, json={**body, "model": "lora-s0"})
    finally:
        config.write_bytes(original)
    assert damaged.status_code == 503
    assert str(run) not in damaged.text
    assert str(weights) in capsys.readouterr().err
    assert http.post(CHAT, json=body).status_code == 200


def test_refused_question_needs_no_language_model(run: Path, tiny: Model, tmp_path: Path) -> None:
    base = Path(shutil.copytree(tiny.folder, tmp_path / "base"))
    session = open_session(run, model=base)
    arm = session.arm("rag")
    assert session.context.base_of(arm)
    (base / "model.safetensors").unlink()
    (answer,) = session.ask(["Zyxwv?"], arm)
    assert (answer.refused, answer.completion.finish) == (True, "refused")
    with pytest.raises(BadInput, match="safetensors"):
        session.ask([TURNS[0]["content"]], arm)


def test_unreadable_index_is_a_503_without_paths(
    served: Any, http: httpx.Client, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hit = http.post(SEARCH, json={"query": "the Amber Pier", "k": 1}).json()
    span: dict[str, Any] = {"doc": "pier00.md", "start": 0, "end": 4, "generation": hit["generation"]}
    assert http.get("/v1/passages", params=span).status_code == 200
    text = run / "index" / "text.sqlite"
    text.rename(run / "elsewhere")
    try:
        response = http.get("/v1/passages", params=span)
    finally:
        (run / "elsewhere").rename(text)
    assert response.status_code == 503
    assert str(run) not in response.text
    assert str(run) in capsys.readouterr().err


def test_damaged_index_is_reported_stale_and_retried(
    serve: Callable[..., Any],
    run: Path,
    piers: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    server, index = serve(), run / "index"
    documents = tmp_path / "documents"
    shutil.copytree(piers, documents)
    with server.client() as http:

        def generation() -> int:
            return int(http.post(SEARCH, json={"query": "pier"}).json()["generation"])

        def stale() -> bool:
            reported = bool(http.get("/health").json()["stale"])
            assert f"tunewise_index_stale {float(reported)}" in http.get("/metrics").text
            return reported

        first = generation()
        assert not stale()
        (index / "CURRENT").rename(index / "CURRENT.away")
        assert (generation(), stale()) == (first, True)
        (index / "CURRENT.away").rename(index / "CURRENT")
        assert (generation(), stale()) == (first, False)
        (documents / "pier07.md").write_text("# Heron Pier\n\nThe Heron Pier is closed.\n", "utf-8")
        Index.update(index, documents, server.service.session.context.embedder)
        part = next(
            path
            for path in sorted((index / f"gen-{first + 1:06d}").iterdir())
            if path.is_file() and path.name != "manifest.json"
        )
        original = part.read_bytes()
        part.write_bytes(original + b"?")
        capsys.readouterr()
        assert [generation(), generation(), generation()] == [first] * 3
        assert capsys.readouterr().err.count(part.name) == 1
        assert stale()
        part.write_bytes(original)
        assert generation() == first
        server.service.session.context.retry_seconds = 0.0
        assert (generation(), stale()) == (first + 1, False)
        Index.update(index, piers, server.service.session.context.embedder)


def test_error_of_one_request_leaves_its_batch_alone(
    served: Any, block: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    worker, model = served.service.worker, served.service.models["lora"]
    results: dict[str, Any] = {}
    done = threading.Semaphore(0)

    def submit(pier: str, on_text: Callable[[str], None]) -> None:
        def end(result: Any) -> None:
            results[pier] = result
            done.release()
            if pier == "Birch":
                raise RuntimeError("no end")

        question = Question("q", f"How many berths has the {pier} Pier?")
        worker.submit(AnswerRequest(model, question, on_text, end, max_tokens=24, stream=True))

    def broken_callback(piece: str) -> None:
        raise RuntimeError("no callback")

    release, pieces = block(worker), list[str]()
    submit("Amber", broken_callback)
    submit("Birch", lambda piece: None)
    submit("Copper", pieces.append)
    release()
    for _ in range(3):
        assert done.acquire(timeout=HANG_S)
    assert str(results["Amber"]) == "no callback"
    assert isinstance(results["Birch"], RequestResult)
    assert isinstance(results["Copper"], RequestResult)
    assert results["Copper"].text == "".join(pieces)
    log = ""

    def both_logged() -> bool:
        nonlocal log
        log += capsys.readouterr().err
        return "RuntimeError: no callback" in log and "RuntimeError: no end" in log

    wait_until(both_logged)
    assert log.count("RuntimeError: no callback") == log.count("RuntimeError: no end") == 1


def test_shutdown_answers_unfinished_requests_with_503(run: Path) -> None:
    started, release = threading.Event(), threading.Event()

    class EndlessIndex(Index):
        """An index whose searches end when the test lets them."""

        def find_many(self, questions: Sequence[str], *arguments: Any) -> list[Results]:
            started.set()
            release.wait(HANG_S)
            return super().find_many(questions, *arguments)

    session, metrics = open_session(run), ServerMetrics()
    worker = BatchingWorker(session, None, metrics.on_event)
    service = Service(session, worker, served_models(session)[0], ServerLimits(), metrics)
    session.context.index = EndlessIndex.open(run / "index", session.context.embedder)
    config = server_config(create_app(service, AccessRules(service.limits)), drain_seconds=6)
    server = RunServer(config, "ready", worker, None)
    running = threading.Thread(target=lambda: asyncio.run(server.serve()), daemon=True)
    running.start()
    while not server.started:
        time.sleep(0.01)
    address = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    calls = ((SEARCH, {"query": "pier"}), (CHAT, {"messages": TURNS}))
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(httpx.post, address + calls[0][0], json=calls[0][1], timeout=HANG_S)
        assert started.wait(HANG_S)
        second = pool.submit(httpx.post, address + calls[1][0], json=calls[1][1], timeout=HANG_S)
        while worker.waiting == 0:
            time.sleep(0.01)
        server.should_exit = True
        responses = [first.result(), second.result()]
    release.set()
    running.join(HANG_S)
    for response in responses:
        assert response.status_code == 503
        assert "the server is stopping" in response.json()["error"]["message"]
