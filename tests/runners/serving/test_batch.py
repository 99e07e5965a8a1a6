"""Arms whose model is a classifier or a remote endpoint are served by the same worker."""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rag.errors import BadInput
from runners.data.questions import Question
from runners.inference.types import Sampling
from runners.plan.schema import parse_plan
from runners.runs.opened import OpenRun
from runners.serving.request import AnswerRequest, RequestResult, RequestTimeout, RunUnusable
from runners.serving.served_models import served_models
from runners.serving.worker import BatchingWorker, BatchLimits, WorkerBusy
from runners.trial.execute import run_plan
from tests.support.limits import HANG_S

LABELS = {
    "refund": ("I want my money back.", "Please refund me."),
    "lost": ("I left my bag.", "My coat is gone."),
}


@pytest.fixture
def session(tmp_path: Path, server: Any, little_bert: Callable[..., Path]) -> OpenRun:
    """A run with a classifier, and a model at a remote endpoint."""
    from tokenizers import Tokenizer, pre_tokenizers
    from tokenizers.models import WordLevel

    words = sorted({word for texts in LABELS.values() for text in texts for word in text.rstrip(".").split()})
    tokenizer = Tokenizer(WordLevel({w: n for n, w in enumerate(["?", *words])}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    (tmp_path / "embedder").mkdir()
    rows = [{"prompt": text, "completion": label} for label, texts in LABELS.items() for text in texts]
    asked = ("Give me back what I paid.", "I want my money back for this.")
    questions = [{"question": text, "reference": "refund"} for text in asked]
    for name, body in (("examples", rows), ("questions", questions)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in body), "utf-8")
    plan = parse_plan(
        {
            "name": "p",
            "choice": "prompting",
            "model": {"name": f"openai:tern-2@{server.url}"},
            "embedder": {"name": str(little_bert(tmp_path / "embedder", tokenizer))},
            "data": {"examples": tmp_path / "examples.jsonl", "test_questions": tmp_path / "questions.jsonl"},
            "steps": [
                {"kind": "evaluate", "arm": "prompting"},
                {"kind": "evaluate", "arm": "classifier", "classifier": True},
            ],
            "weights": {"exact_match": 1},
        }
    )
    return OpenRun.open(run_plan(plan, tmp_path / "run").path).obtain()


@pytest.fixture
def hang(server: Any) -> Iterator[Callable[[], Callable[[], None]]]:
    """Return a function that blocks the endpoint and returns the function that unblocks it."""
    release = threading.Event()

    def answer(body: dict[str, Any]) -> str:
        release.wait(HANG_S)
        return "Aye."

    def block() -> Callable[[], None]:
        server.answer = answer
        server.seen.clear()
        return release.set

    yield block
    release.set()


def test_waiting_for_an_endpoint_does_not_block_other_requests(
    session: OpenRun, server: Any, hang: Callable[[], Callable[[], None]]
) -> None:
    worker = BatchingWorker(session, BatchLimits(max_queue=1))
    models, _ = served_models(session)
    worker.start()
    ends: queue.Queue[tuple[str, Any]] = queue.Queue()

    def submit(name: str, question: str) -> None:
        worker.submit(
            AnswerRequest(
                models[name],
                Question("q", question),
                lambda piece: None,
                lambda result: ends.put((question, result)),
            )
        )

    def next_end() -> tuple[str, Any]:
        return ends.get(timeout=HANG_S)

    release = hang()
    try:
        submit("prompting", "When?")
        while not server.seen:
            time.sleep(0.01)
        submit("classifier", "Please refund me.")
        question, result = next_end()
        assert (question, result.text) == ("Please refund me.", "refund")
        submit("prompting", "And now?")
        question, busy = next_end()
        assert question == "And now?"
        assert isinstance(busy, WorkerBusy)
        release()
        question, result = next_end()
        assert (question, result.text) == ("When?", "Aye.")
    finally:
        worker.stop()


def test_endpoint_request_ends_at_the_time_limit(
    ask: Callable[..., Any], server: Any, hang: Callable[[], Callable[[], None]]
) -> None:
    hang()
    result, _ = ask("prompting", Question("q", "When?"), timeout_s=1.0)
    assert isinstance(result, RequestTimeout)
    assert len(server.seen) == 1


@pytest.fixture
def ask(session: OpenRun) -> Iterator[Callable[..., tuple[Any, list[str]]]]:
    """Return a function that asks a running worker, and returns the result and the streamed pieces."""
    worker = BatchingWorker(session)
    worker.start()
    models, _ = served_models(session)

    def answer(name: str, prompt: Any, **fields: Any) -> tuple[Any, list[str]]:
        pieces: list[str] = []
        results: list[Any] = []
        done = threading.Event()

        def end(result: Any) -> None:
            results.append(result)
            done.set()

        worker.submit(AnswerRequest(models[name], prompt, pieces.append, end, stream=True, **fields))
        assert done.wait(HANG_S)
        return results[0], pieces

    yield answer
    worker.stop()


def test_endpoint_and_classifier_answer(ask: Callable[..., Any], server: Any) -> None:
    server.answer = lambda body: "Aye, on Monday. Shall I book?"
    sampling = Sampling(0.7, 0.9, 11)
    result, pieces = ask("prompting", Question("q", "When?"), sampling=sampling, max_tokens=9)
    assert isinstance(result, RequestResult)
    assert result.text == "".join(pieces) == "Aye, on Monday. Shall I book?"
    assert len(pieces) > 1
    sent = server.seen[-1]
    assert (sent["temperature"], sent["top_p"], sent["seed"], sent["max_tokens"]) == (0.7, 0.9, 11, 9)
    label, pieces = ask("classifier", Question("q", "Please refund me."))
    assert (label.text, pieces) == ("refund", ["refund"])
    raw, _ = ask("tern-2", ({"role": "user", "content": "When?"},))
    assert (raw.text, raw.answer) == ("Aye, on Monday. Shall I book?", None)
    assert server.seen[-1]["messages"] == [{"role": "user", "content": "When?"}]


def test_endpoint_errors_name_the_fault_and_not_the_address(ask: Callable[..., Any], server: Any) -> None:
    result, _ = ask("tern-2", "Once upon a")
    assert isinstance(result, BadInput)
    server.faults = [lambda handler: handler.reply(401, {"error": {"message": "no"}})]
    refused, _ = ask("prompting", Question("q", "When?"))
    assert isinstance(refused, RunUnusable), "the server's own key: the client cannot mend it"
    assert "127.0.0.1" not in str(refused)
