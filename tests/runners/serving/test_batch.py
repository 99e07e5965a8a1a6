"""Arms whose model is not in this process, a classifier or an endpoint, are served by the same clerk."""

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
from runners.runs.run import RunSession, open_session
from runners.serving.request import AnswerRequest, RequestResult, RequestTimeout, RunUnusable
from runners.serving.served_models import served_models
from runners.serving.worker import BatchingWorker, BatchLimits, WorkerBusy
from runners.trial.execute import run_plan

LABELS = {
    "refund": ("I want my money back.", "Please refund me."),
    "lost": ("I left my bag.", "My coat is gone."),
}


@pytest.fixture
def session(tmp_path: Path, server: Any, little_bert: Callable[..., Path]) -> RunSession:
    """A run with a classifier beside a model by URL."""
    from tokenizers import Tokenizer, pre_tokenizers
    from tokenizers.models import WordLevel

    words = sorted({word for texts in LABELS.values() for text in texts for word in text.rstrip(".").split()})
    tokenizer = Tokenizer(WordLevel({w: n for n, w in enumerate(["?", *words])}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    (tmp_path / "embedder").mkdir()
    rows = [{"prompt": text, "completion": label} for label, texts in LABELS.items() for text in texts]
    asked = [{"question": "Give me back what I paid.", "reference": "refund"}]
    for name, body in (("examples", rows), ("questions", asked)):
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
    return open_session(run_plan(plan, tmp_path / "run").path)


@pytest.fixture
def hang(server: Any) -> Iterator[Callable[[], None]]:
    """Keep the endpoint from answering until told to, or until the test is over."""
    free = threading.Event()

    def answer(body: dict[str, Any]) -> str:
        free.wait(60)
        return "Aye."

    def hanging() -> Callable[[], None]:
        server.answer = answer
        server.seen.clear()
        return free.set

    yield hanging
    free.set()


def test_who_waits_for_an_endpoint_keeps_nobody_waiting(
    session: RunSession, server: Any, hang: Callable[[], Callable[[], None]]
) -> None:
    clerk, (choices, _) = BatchingWorker(session, BatchLimits(room=1)), served_models(session)
    clerk.start()
    ends: queue.Queue[tuple[str, Any]] = queue.Queue()

    def put(name: str, asked: str, **more: Any) -> AnswerRequest:
        ticket = AnswerRequest(choices[name], Question("q", asked), lambda piece: None, None, **more)  # type: ignore[arg-type]
        ticket.on_end = lambda result: ends.put((asked, result))
        clerk.put(ticket)
        return ticket

    def next_end() -> tuple[str, Any]:
        return ends.get(timeout=60)

    answered = hang()
    try:
        put("prompting", "When?")
        while not server.seen:
            time.sleep(0.01)
        put("classifier", "Please refund me.")
        asked, reply = next_end()
        assert (asked, reply.text) == ("Please refund me.", "refund")
        put("prompting", "And now?")
        asked, busy = next_end()
        assert asked == "And now?"
        assert isinstance(busy, WorkerBusy)
        answered()
        asked, reply = next_end()
        assert (asked, reply.text) == ("When?", "Aye.")
    finally:
        clerk.stop()


def test_an_endpoint_is_not_waited_for_beyond_the_time_limit(
    ask: Callable[..., Any], server: Any, hang: Callable[[], Callable[[], None]]
) -> None:
    hang()
    started = time.monotonic()
    late, _ = ask("prompting", Question("q", "When?"), seconds=1.0)
    assert isinstance(late, RequestTimeout)
    assert time.monotonic() - started < 10
    assert len(server.seen) == 1


@pytest.fixture
def ask(session: RunSession) -> Iterator[Callable[..., tuple[Any, list[str]]]]:
    """Ask a running clerk; return what came of it, and the pieces."""
    clerk = BatchingWorker(session)
    clerk.start()
    choices, _ = served_models(session)

    def asking(name: str, asked: Any, **more: Any) -> tuple[Any, list[str]]:
        pieces: list[str] = []
        ended: list[Any] = []
        done = threading.Event()

        def end(result: Any) -> None:
            ended.append(result)
            done.set()

        clerk.put(AnswerRequest(choices[name], asked, pieces.append, end, pieces=True, **more))
        assert done.wait(60)
        return ended[0], pieces

    yield asking
    clerk.stop()


def test_an_endpoint_and_a_classifier_answer(ask: Callable[..., Any], server: Any) -> None:
    server.answer = lambda body: "Aye, on Monday. Shall I book?"
    drawn = Sampling(0.7, 0.9, 11)
    reply, pieces = ask("prompting", Question("q", "When?"), sampling=drawn, limit=9)
    assert isinstance(reply, RequestResult)
    assert reply.text == "".join(pieces) == "Aye, on Monday. Shall I book?"
    assert len(pieces) > 1
    sent = server.seen[-1]
    assert (sent["temperature"], sent["top_p"], sent["seed"], sent["max_tokens"]) == (0.7, 0.9, 11, 9)
    label, pieces = ask("classifier", Question("q", "Please refund me."))
    assert (label.text, pieces) == ("refund", ["refund"])
    raw, _ = ask("tern-2", ({"role": "user", "content": "When?"},))
    assert (raw.text, raw.answer) == ("Aye, on Monday. Shall I book?", None)
    assert server.seen[-1]["messages"] == [{"role": "user", "content": "When?"}]


def test_what_an_endpoint_cannot_do_is_said(ask: Callable[..., Any], server: Any) -> None:
    text, _ = ask("tern-2", "Once upon a")
    assert isinstance(text, BadInput)
    server.faults = [lambda handler: handler.reply(401, {"error": {"message": "no"}})]
    refused, _ = ask("prompting", Question("q", "When?"))
    assert isinstance(refused, RunUnusable), "our own key: nothing that the client could mend"
    assert "127.0.0.1" not in str(refused)
