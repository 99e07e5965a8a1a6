"""Fixtures: a finished run of tiny models, and its server on a free port of the loopback interface."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from runners.data.examples import Example
from runners.logs.question_log import QuestionLog
from runners.models.resolve import Model
from runners.plan.schema import parse_plan
from runners.runs.opened import Opening, OpenRun
from runners.serving.http.app import create_app
from runners.serving.http.metrics import ServerMetrics
from runners.serving.http.middleware import AccessRules
from runners.serving.http.service import ServerLimits, Service
from runners.serving.served_models import answerable_models, served_models
from runners.serving.worker import BatchingWorker, BatchLimits
from runners.trial.execute import run_plan
from tests.support.limits import HANG_S


@dataclass(frozen=True)
class Served:
    """A running server: its address and its service."""

    url: str
    service: Service

    def client(self, **options: Any) -> httpx.Client:
        """Return an HTTP client of the server."""
        return httpx.Client(base_url=self.url, timeout=HANG_S, **options)


@pytest.fixture(scope="session")
def run(
    tiny: Model,
    piers: Path,
    pier_examples: tuple[Example, ...],
    little_bert: Callable[..., Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A finished run: five arms, one of them tuned, one tuned and with retrieval."""
    from tokenizers import Tokenizer, pre_tokenizers
    from tokenizers.models import WordLevel

    folder = tmp_path_factory.mktemp("served")
    texts = [path.read_text("utf-8") for path in piers.iterdir()]
    words = sorted({word for text in texts for word in text.replace(".", " ").split()})
    tokenizer = Tokenizer(WordLevel({w: n for n, w in enumerate(["?", *words])}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    (folder / "embedder").mkdir()
    embedder = little_bert(folder / "embedder", tokenizer)
    rows = [{"messages": list(e.messages)} for e in pier_examples]
    questions = [
        {"question": f"Is the {n}th berth free tonight, please?", "answers": ["Aye."]} for n in range(6)
    ]
    for name, body in (("examples", rows), ("questions", questions)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in body), "utf-8")
    training = {"epochs": 6, "rank": 4, "alpha": 8, "learning_rate": 2e-2, "batch_tokens": 400}
    plan = parse_plan(
        {
            "name": "piers",
            "choice": "hybrid",
            "model": {"name": str(tiny.folder)},
            "embedder": {"name": str(embedder)},
            "max_new_tokens": 24,
            "data": {
                "documents": str(piers),
                "examples": str(folder / "examples.jsonl"),
                "questions": str(folder / "questions.jsonl"),
            },
            "steps": [
                {"kind": "index", "k": 2},
                {"kind": "train", "arm": "lora", **training},
                {"kind": "evaluate", "arm": "hybrid", "weights": "lora", "retrieval": True},
                {"kind": "evaluate", "arm": "prompting"},
                {"kind": "evaluate", "arm": "few-shot", "shots": 2},
                {"kind": "evaluate", "arm": "rag", "retrieval": True},
                {"kind": "evaluate", "arm": "lora", "weights": "lora"},
            ],
            "weights": {"token_f1": 1},
            "forgetting": {"prompts": 0},
        }
    )
    path = run_plan(plan, folder / "run").path
    # The tiny embedder's cosines mean nothing: refuse where the passages lack the words of the question.
    refusal = {
        **json.loads((path / "refusal.json").read_text("utf-8")),
        "weights": {"coverage": 1.0},
        "bias": -0.3,
    }
    (path / "refusal.json").write_text(json.dumps(refusal), "utf-8")
    (path / "manifest.json").unlink(missing_ok=True)
    return path


@pytest.fixture(scope="session")
def serve(run: Path) -> Iterator[Callable[..., Served]]:
    """Start servers of the run, which stop with the test session."""
    started: list[tuple[uvicorn.Server, threading.Thread]] = []

    def start(
        limits: ServerLimits | None = None,
        batches: BatchLimits | None = None,
        backend: tuple[str, ...] | None = None,
        arm: str | None = None,
        log: QuestionLog | None = None,
    ) -> Served:
        # With fewer digits a sampled token could differ between a batch and a request alone.
        session = OpenRun.open(run, Opening(backend=backend, dtype="float32")).obtain()
        metrics = ServerMetrics()
        limits = limits or ServerLimits(max_tokens=64)
        models, _ = answerable_models(session, served_models(session, arm)[0])
        worker = BatchingWorker(session, batches or BatchLimits(), metrics.on_event)
        service = Service(session, worker, models, limits, metrics, log=log)
        app = create_app(service, AccessRules(limits))
        step = next(iter(models.values())).step
        session.prepare(step)
        session.generator(step)
        server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, access_log=False, ws="none"))
        thread = threading.Thread(target=lambda: asyncio.run(server.serve()), daemon=True)
        thread.start()
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        started.append((server, thread))
        port = server.servers[0].sockets[0].getsockname()[1]
        return Served(f"http://127.0.0.1:{port}", service)

    yield start
    for server, _ in started:
        server.should_exit = True
    for _, thread in started:
        thread.join(HANG_S)


@pytest.fixture(scope="session")
def served(serve: Callable[..., Served]) -> Served:
    """The server that most tests use."""
    return serve()


@pytest.fixture
def http(served: Served) -> Iterator[httpx.Client]:
    """A client of the server `served`."""
    with served.client() as client:
        yield client
