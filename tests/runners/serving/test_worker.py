"""The batching worker: order, batches, full queues, disconnected clients, errors and shutdown."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from rag.errors import BadInput, CannotRun
from runners.plan.steps import EvaluateStep
from runners.serving.request import AnswerRequest, ModelJob, RequestTimeout
from runners.serving.served_models import ServedModel
from runners.serving.worker import BatchingWorker, BatchLimits, WorkerBusy
from tests.support.limits import HANG_S


class StaticRetrieval:
    """What a run searches whose index never changes."""

    def refresh(self) -> bool:
        """Return that there is no newer generation."""
        return False


class Harness:
    """A worker on a session without models, which can be blocked, and the results of its requests."""

    def __init__(self, **limits: Any) -> None:
        session: Any = SimpleNamespace(retrieval=StaticRetrieval())
        self.batches: list[list[str]] = []
        self.on_event: Callable[[dict[str, Any]], None] = lambda event: None
        self.worker = BatchingWorker(
            session,
            BatchLimits(batch_window_s=0.0, **limits),
            lambda event: self.on_event(event),
            self.answer_batch,
        )
        self.results: list[tuple[str, Any]] = []
        self.condition = threading.Condition()
        self.release = threading.Event()

    def answer_batch(self, session: Any, requests: Sequence[AnswerRequest], *callbacks: Any) -> None:
        """Give the key as the answer; the key `bad` raises a bug, `wrong` gives its request an error of its own."""
        self.batches.append([request.batch_key for request in requests])
        if requests[0].batch_key == "bad":
            raise RuntimeError("broken")
        for request in requests:
            request.finish(BadInput("no") if request.batch_key == "wrong" else request.batch_key)

    def add_result(self, name: str, result: Any) -> None:
        with self.condition:
            self.results.append((name, result))
            self.condition.notify_all()

    def submit(self, name: str, key: str, **fields: Any) -> AnswerRequest:
        model = ServedModel(key, EvaluateStep(arm=key), "base")
        request = AnswerRequest(
            model, (), lambda piece: None, lambda result: self.add_result(name, result), **fields
        )
        self.worker.submit(request)
        return request

    def block(self) -> None:
        """Keep the worker busy until `release` is set."""
        started = threading.Event()

        def work(session: Any) -> None:
            started.set()
            self.release.wait(HANG_S)

        self.worker.submit(ModelJob(work, lambda result: None))
        assert started.wait(HANG_S)

    def wait_for(self, count: int) -> list[tuple[str, Any]]:
        """Wait until `count` requests have ended; return all results so far."""
        with self.condition:
            assert self.condition.wait_for(lambda: len(self.results) >= count, HANG_S)
        return self.results


@pytest.fixture
def start() -> Iterator[Callable[..., Harness]]:
    """Return a function that starts workers with a queue of 8 and batches of 3."""
    running: list[Harness] = []

    def start_one(**limits: Any) -> Harness:
        running.append(Harness(max_queue=8, max_batch=3, **limits))
        running[-1].worker.start()
        return running[-1]

    yield start_one
    for each in running:
        each.release.set()
        each.worker.stop()


@pytest.fixture
def harness(start: Callable[..., Harness]) -> Harness:
    """A running worker."""
    return start()


def test_oldest_request_is_next_and_equal_keys_join_its_batch(harness: Harness) -> None:
    harness.block()
    for number, key in enumerate("abacaab"):
        harness.submit(str(number), key)
    harness.release.set()
    results = harness.wait_for(7)
    assert harness.batches == [["a", "a", "a"], ["b", "b"], ["c"], ["a"]]
    assert [name for name, _ in results] == ["0", "2", "4", "1", "6", "3", "5"]


def test_full_queue_raises_busy_with_retry_after(harness: Harness) -> None:
    harness.block()
    for number in range(8):
        harness.submit(str(number), "a")
    with pytest.raises(WorkerBusy, match="8 requests wait") as busy:
        harness.submit("late", "a")
    assert busy.value.retry_after >= 1
    assert harness.worker.waiting == 8
    harness.release.set()
    assert len(harness.wait_for(8)) == 8


def test_cancelled_and_expired_requests_are_not_answered(harness: Harness) -> None:
    harness.block()
    harness.submit("cancelled", "a").cancelled = True
    harness.submit("expired", "a", timeout_s=-1.0)
    harness.submit("open", "a")
    harness.release.set()
    results = dict(harness.wait_for(2))
    assert isinstance(results["expired"], RequestTimeout)
    assert results["open"] == "a"
    assert "cancelled" not in results
    assert harness.batches == [["a"]]


def test_bug_ends_its_batch_and_not_the_worker(harness: Harness) -> None:
    events: list[dict[str, Any]] = []
    harness.on_event = events.append
    harness.submit("1", "bad")
    harness.wait_for(1)
    harness.submit("2", "wrong")
    harness.submit("3", "a")
    results = dict(harness.wait_for(3))
    assert isinstance(results["1"], RuntimeError)
    assert isinstance(results["2"], BadInput)
    assert results["3"] == "a"
    assert [e["event"] for e in events if e["event"] != "serve.turn"] == ["serve.trouble"]
    assert "RuntimeError: broken" in next(e["reason"] for e in events if "reason" in e)


def test_worker_survives_a_failing_event_callback(harness: Harness) -> None:
    def closed(event: dict[str, Any]) -> None:
        raise BrokenPipeError("the log is closed")

    harness.on_event = closed
    harness.submit("1", "bad")
    assert isinstance(dict(harness.wait_for(1))["1"], RuntimeError)
    harness.submit("2", "a")
    assert dict(harness.wait_for(2))["2"] == "a"
    assert harness.worker.alive


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_ended_worker_refuses_requests(harness: Harness) -> None:
    def work(session: Any) -> None:
        raise SystemExit

    harness.worker.submit(ModelJob(work, lambda result: None))
    harness.worker._thread.join(HANG_S)
    with pytest.raises(CannotRun, match="worker has ended"):
        harness.submit("1", "a")


def test_cancelled_requests_take_no_space_in_the_queue(harness: Harness) -> None:
    harness.block()
    for number in range(8):
        harness.submit(f"cancelled {number}", "a").cancelled = True
    assert harness.worker.waiting == 0
    harness.submit("open", "a")
    harness.release.set()
    assert harness.wait_for(1) == [("open", "a")]


def test_retry_after_counts_the_running_batch(start: Callable[..., Harness]) -> None:
    harness = start(batch_seconds=10.0)
    harness.block()
    for number in range(8):
        harness.submit(str(number), "a")
    with pytest.raises(WorkerBusy) as busy:
        harness.submit("late", "a")
    assert busy.value.retry_after == 40


def test_stop_rejects_queued_requests(harness: Harness) -> None:
    harness.block()
    harness.submit("waiting", "a")
    stopping = threading.Thread(target=harness.worker.stop, args=(HANG_S,))
    stopping.start()
    assert isinstance(dict(harness.wait_for(1))["waiting"], WorkerBusy)
    with pytest.raises(WorkerBusy, match="stopping"):
        harness.submit("too late", "a")
    harness.release.set()
    stopping.join(HANG_S)
    assert not harness.worker.alive
