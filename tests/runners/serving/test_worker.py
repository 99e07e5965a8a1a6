"""The clerk: who is next, who joins, who is turned away, and what one request's trouble is to others."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from rag.errors import BadInput, CannotRun
from runners.plan.steps import EvaluateStep
from runners.serving import batch as clerks
from runners.serving.request import AnswerRequest, ModelJob, RequestTimeout
from runners.serving.served_models import ServedModel
from runners.serving.worker import BatchingWorker, BatchLimits, WorkerBusy


class Bench:
    """A bench whose index never moves."""

    def refresh_index(self) -> bool:
        """Nothing is new."""
        return False


class Window:
    """A clerk with a session without models: an errand holds the window, batches are noted."""

    def __init__(self, **hours: Any) -> None:
        self.clerk = BatchingWorker(SimpleNamespace(context=Bench()), BatchLimits(**{"window": 0.0, **hours}))
        self.ends: list[tuple[str, Any]] = []
        self.told = threading.Condition()
        self.free = threading.Event()

    def end(self, name: str, result: Any) -> None:
        with self.told:
            self.ends.append((name, result))
            self.told.notify_all()

    def ticket(self, name: str, key: str, **more: Any) -> AnswerRequest:
        choice = ServedModel(key, EvaluateStep(arm=key), "base")
        ticket = AnswerRequest(choice, (), lambda piece: None, lambda result: self.end(name, result), **more)
        self.clerk.put(ticket)
        return ticket

    def hold(self) -> None:
        """Keep the clerk busy until `free` is set."""
        begun = threading.Event()

        def work(session: Any) -> None:
            begun.set()
            self.free.wait(30)

        self.clerk.put(ModelJob(work, lambda result: None))
        assert begun.wait(30)

    def wait(self, count: int) -> list[tuple[str, Any]]:
        with self.told:
            assert self.told.wait_for(lambda: len(self.ends) >= count, 30)
        return self.ends


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The keys of each batch; a ticket for `bad` raises a bug, one for `wrong` a problem of its own."""
    seen: list[list[str]] = []

    def answered(session: Any, tickets: list[AnswerRequest], *others: Any) -> None:
        seen.append([ticket.key for ticket in tickets])
        if tickets[0].key == "bad":
            raise RuntimeError("broken")
        for ticket in tickets:
            ticket.end(BadInput("no") if ticket.key == "wrong" else ticket.key)

    monkeypatch.setattr(clerks, "answer_batch", answered)
    return seen


@pytest.fixture
def window() -> Iterator[Window]:
    """An open window."""
    opened = Window(room=8, rows=3)
    opened.clerk.start()
    yield opened
    opened.free.set()
    opened.clerk.stop()


def test_the_oldest_is_next_and_its_likes_join(window: Window, batches: list[list[str]]) -> None:
    window.hold()
    for number, key in enumerate("abacaab"):
        window.ticket(str(number), key)
    window.free.set()
    ends = window.wait(7)
    assert batches == [["a", "a", "a"], ["b", "b"], ["c"], ["a"]]
    assert [name for name, _ in ends] == ["0", "2", "4", "1", "6", "3", "5"]


def test_a_full_line_turns_away_and_says_when_to_come_again(window: Window, batches: list[list[str]]) -> None:
    window.hold()
    for number in range(8):
        window.ticket(str(number), "a")
    with pytest.raises(WorkerBusy, match="8 requests wait") as busy:
        window.ticket("late", "a")
    assert busy.value.seconds >= 1
    assert window.clerk.waiting == 8
    window.free.set()
    assert len(window.wait(8)) == 8


def test_who_has_gone_or_waited_too_long_is_not_answered(window: Window, batches: list[list[str]]) -> None:
    window.hold()
    gone = window.ticket("gone", "a")
    gone.left = True
    window.ticket("late", "a", seconds=-1.0)
    window.ticket("here", "a")
    window.free.set()
    ends = dict(window.wait(2))
    assert isinstance(ends["late"], RequestTimeout)
    assert ends["here"] == "a"
    assert "gone" not in ends
    assert batches == [["a"]]


def test_a_bug_ends_its_batch_and_not_the_clerk(window: Window, batches: list[list[str]]) -> None:
    told: list[dict[str, Any]] = []
    window.clerk._on_event = told.append
    window.ticket("1", "bad")
    window.wait(1)
    window.ticket("2", "wrong")
    window.ticket("3", "a")
    ends = dict(window.wait(3))
    assert isinstance(ends["1"], RuntimeError)
    assert isinstance(ends["2"], BadInput)
    assert ends["3"] == "a"
    assert [e["event"] for e in told if e["event"] != "serve.turn"] == ["serve.trouble"]
    assert "RuntimeError: broken" in next(e["reason"] for e in told if "reason" in e)


def test_nobody_waits_for_a_clerk_whose_log_is_closed(window: Window, batches: list[list[str]]) -> None:
    def closed(event: dict[str, Any]) -> None:
        raise BrokenPipeError("nobody reads the log")

    window.clerk._on_event = closed
    window.ticket("1", "bad")
    assert isinstance(dict(window.wait(1))["1"], RuntimeError)
    window.ticket("2", "a")
    assert dict(window.wait(2))["2"] == "a"
    assert window.clerk.alive


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_clerk_who_is_no_more_takes_nothing(window: Window, batches: list[list[str]]) -> None:
    def work(session: Any) -> None:
        raise SystemExit

    window.clerk.put(ModelJob(work, lambda result: None))
    window.clerk._thread.join(30)
    with pytest.raises(CannotRun, match="worker has ended"):
        window.ticket("1", "a")


def test_those_who_have_gone_take_no_room(window: Window, batches: list[list[str]]) -> None:
    window.hold()
    gone = [window.ticket(f"gone {number}", "a") for number in range(8)]
    for ticket in gone:
        ticket.left = True
    assert window.clerk.waiting == 0
    window.ticket("here", "a")
    window.free.set()
    assert window.wait(1) == [("here", "a")]


def test_when_to_come_again_counts_the_batch_under_way(window: Window, batches: list[list[str]]) -> None:
    window.clerk._pace = 10.0
    window.hold()
    for number in range(8):
        window.ticket(str(number), "a")
    with pytest.raises(WorkerBusy) as busy:
        window.ticket("late", "a")
    assert busy.value.seconds == 40


def test_going_home_turns_away_who_waits(window: Window, batches: list[list[str]]) -> None:
    window.hold()
    window.ticket("waiting", "a")
    stopping = threading.Thread(target=window.clerk.stop, args=(30.0,))
    stopping.start()
    assert isinstance(dict(window.wait(1))["waiting"], WorkerBusy)
    with pytest.raises(WorkerBusy, match="stopping"):
        window.ticket("too late", "a")
    window.free.set()
    stopping.join(30)
    assert not window.clerk.alive
