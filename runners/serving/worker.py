"""One thread that owns a run's models: requests queue at its window, those for the same arm are answered together."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rag.errors import CannotRun, Problem
from rag.types import OnEvent
from runners.serving.batch import answer_batch
from runners.serving.request import AnswerRequest, ModelJob, RequestTimeout, operator_message

if TYPE_CHECKING:
    from runners.runs.run import RunSession


class WorkerBusy(Problem):
    """The queue is full, or the clerk is going home; `seconds` says when to come again."""

    def __init__(self, message: str, seconds: int) -> None:
        """Keep when to come again."""
        super().__init__(message)
        self.seconds = seconds


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """How the clerk works."""

    room: int = 64
    """Most requests waiting."""
    rows: int = 16
    """Most requests answered together."""
    window: float = 0.01
    """Seconds that a request waits for others of its kind to come."""


class BatchingWorker:
    """Takes requests from any thread and answers them on its own, which alone touches the session's models.

    The oldest request decides who is next; others for the same arm join it and pass those that wait for another. So
    nobody waits for more than the batches before him, and weights are switched no more often than needed. What an
    endpoint answers is waited for on other threads.
    """

    def __init__(
        self, session: RunSession, hours: BatchLimits | None = None, on_event: OnEvent | None = None
    ) -> None:
        """Take an opened run; `start` opens the window."""
        self.session, self.hours, self._on_event = session, hours or BatchLimits(), on_event
        self._line: deque[AnswerRequest | ModelJob] = deque()
        self._bell = threading.Condition()
        self._closing = False
        self._pace = 1.0
        self.stale = ""
        """Why answers come from an older generation of the index than they should; "" where they do not."""
        self._current: list[AnswerRequest | ModelJob] = []
        self._out: set[AnswerRequest] = set()
        self._thread = threading.Thread(target=self._work, name="clerk", daemon=True)

    def start(self) -> None:
        """Open the window."""
        self._thread.start()

    @property
    def waiting(self) -> int:
        """How many requests wait whose clients are still there."""
        with self._bell:
            return sum(not request.left for request in self._line)

    @property
    def alive(self) -> bool:
        """Whether requests are answered."""
        return self._thread.is_alive()

    def put(self, request: AnswerRequest | ModelJob) -> None:
        """Queue a request; Busy when there is no room, or the clerk is closing, CannotRun when he is no more."""
        with self._bell:
            if self._closing:
                raise WorkerBusy("the server is stopping", 5)
            if self._thread.ident is not None and not self._thread.is_alive():
                raise CannotRun("the server's worker has ended", "it has to be started again")
            self._line = deque(waits for waits in self._line if not waits.left)
            if len(self._line) >= self.hours.room:
                batches = -(-len(self._line) // self.hours.rows) + bool(self._current)
                raise WorkerBusy(
                    f"{len(self._line)} requests wait already", max(1, round(batches * self._pace))
                )
            self._line.append(request)
            self._bell.notify()

    def stop(self, seconds: float = 2.0) -> None:
        """Close the window: what waits is turned away, what is being answered ends at its next token."""
        with self._bell:
            self._closing = True
            turned_away = list(self._line)
            self._line.clear()
            for request in (*self._current, *self._out):
                request.left = True
            self._bell.notify()
        for request in turned_away:
            request.end(WorkerBusy("the server is stopping", 5))
        if self._thread.ident is not None:
            self._thread.join(seconds)

    def abandon(self) -> None:
        """End what is being answered with Busy, whatever it is at; for after `stop`."""
        with self._bell:
            under_way = [*self._current, *self._out]
        for request in under_way:
            request.left = True
            request.end(WorkerBusy("the server is stopping", 5))

    def _work(self) -> None:
        while batch := self._next():
            started = time.monotonic()
            self._serve(batch)
            self._pace += 0.3 * (time.monotonic() - started - self._pace)
            self._current = []

    def _next(self) -> list[AnswerRequest | ModelJob]:
        """Wait for the next batch; [] when the window is closed."""
        with self._bell:
            while not self._line:
                if self._closing:
                    return []
                self._bell.wait()
            first = self._line.popleft()
            batch = [first]
            if isinstance(first, AnswerRequest):
                until = time.monotonic() + self.hours.window
                self._join(batch, first.key)
                while len(batch) < self.hours.rows and (left := until - time.monotonic()) > 0:
                    self._bell.wait(left)
                    self._join(batch, first.key)
            self._current = batch
            return batch

    def _join(self, batch: list[AnswerRequest | ModelJob], key: str) -> None:
        """Take those who want the same out of the line, the others keep their places."""
        stay: deque[AnswerRequest | ModelJob] = deque()
        for request in self._line:
            joins = isinstance(request, AnswerRequest) and request.key == key and len(batch) < self.hours.rows
            (batch if joins else stay).append(request)
        self._line = stay

    def _serve(self, batch: list[AnswerRequest | ModelJob]) -> None:
        open_ones = []
        for request in batch:
            if request.late() and not request.left:
                request.end(RequestTimeout())
            elif not request.left:
                open_ones.append(request)
        tickets = [request for request in open_ones if isinstance(request, AnswerRequest)]
        try:
            self._renew()
            if tickets:
                self._tell(event="serve.turn", key=tickets[0].key)
                answer_batch(self.session, tickets, self._tell, self._elsewhere)
            for errand in open_ones:
                if isinstance(errand, ModelJob):
                    errand.end(errand.work(self.session))
        except Exception as problem:  # the thread must outlive whatever a request brings about
            for request in open_ones:
                request.end(problem)
            if reason := operator_message(problem):
                self._tell(event="serve.trouble", reason=reason)

    def _elsewhere(self, ticket: AnswerRequest, work: Callable[[], None]) -> None:
        """Do what waits for an endpoint on a thread of its own: the clerk goes on with others meanwhile."""
        with self._bell:
            there = len(self._out)
            room = there < self.hours.room and not self._closing
            if room:
                self._out.add(ticket)
        if not room:
            ticket.end(WorkerBusy(f"{there} requests wait for endpoints already", 5))
            return

        def working() -> None:
            try:
                work()
            finally:
                with self._bell:
                    self._out.discard(ticket)

        threading.Thread(target=working, name="asking", daemon=True).start()

    def _renew(self) -> None:
        """Take a newer generation of the index; where that cannot be opened, the old one goes on answering."""
        try:
            if self.session.context.refresh_index():
                self._tell(event="serve.index", generation=self.session.context.index.generation)
            self.stale = ""
        except (Problem, OSError) as problem:
            known, self.stale = self.stale, str(problem)
            if known != self.stale:
                self._tell(event="serve.stale", reason=self.stale)

    def _tell(self, **event: Any) -> None:
        if self._on_event:
            with suppress(Exception):  # such as a log that nobody reads any more
                self._on_event(event)
