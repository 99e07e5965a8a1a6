"""A worker thread that owns the models and batches queued requests of the same arm.

`BatchingWorker.submit` takes an `AnswerRequest` or a `ModelJob` from any thread; the results come through their
callbacks. Imports torch only through the session that is passed in.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rag.errors import CannotRun, Problem
from rag.types import OnEvent
from runners.serving.batch import EmitEvent, RunInBackground, answer_batch
from runners.serving.request import AnswerRequest, ModelJob, RequestTimeout, operator_message

if TYPE_CHECKING:
    from runners.runs.opened import OpenRun

    AnswerBatch = Callable[[OpenRun, Sequence[AnswerRequest], EmitEvent, RunInBackground], None]

SMOOTHING = 0.3
"""Weight of the newest batch in the moving average of the seconds per batch."""
RETRY_SECONDS = 5
"""Retry-After where it cannot be estimated: on shutdown, or when too many requests wait for endpoints."""


class WorkerBusy(Problem):
    """The queue is full or the server is shutting down; `retry_after` is in seconds."""

    def __init__(self, message: str, retry_after: int) -> None:
        """Store when the client may retry."""
        super().__init__(message)
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """The limits of a worker's queue and batches."""

    max_queue: int = 64
    """Requests waiting before `WorkerBusy` is raised."""
    max_batch: int = 16
    """Requests answered in one batch."""
    batch_window_s: float = 0.01
    """Seconds that a request waits for others of its batch key."""
    batch_seconds: float = 1.0
    """Seconds that a batch is expected to take before any has been answered, for Retry-After."""


class BatchingWorker:
    """Worker thread that owns the models and batches queued requests of one arm.

    The oldest request decides which batch is next; later requests of the same batch key join it ahead of requests of
    other keys. So a request waits at most for the batches of the requests before it, and weights are switched no more
    often than needed. Requests that a remote endpoint answers wait on threads of their own.

    Args:
        session: the opened run; its models are used on the worker's thread only.
        limits: sizes of the queue and the batches.
        on_event: called with each event (`serve.batch`, `serve.turn`, `serve.index`, `serve.drift`,
            `serve.trouble`, `serve.stale`), on the worker's thread.
        answer: answers the requests of one batch, as :func:`runners.serving.batch.answer_batch` does.
    """

    def __init__(
        self,
        session: OpenRun,
        limits: BatchLimits | None = None,
        on_event: OnEvent | None = None,
        answer: AnswerBatch = answer_batch,
    ) -> None:
        """Prepare the queue; `start` starts the thread."""
        self.session = session
        self.limits = limits or BatchLimits()
        self._on_event = on_event
        self._answer = answer
        self.stale_reason = ""
        """Why the newest generation of the index cannot be opened; "" when answers come from the newest."""
        self._queue: deque[AnswerRequest | ModelJob] = deque()
        self._condition = threading.Condition()
        self._closing = False
        self._batch_seconds = self.limits.batch_seconds  # moving average, for Retry-After
        self._current: list[AnswerRequest | ModelJob] = []
        self._in_background: set[AnswerRequest] = set()
        self._thread = threading.Thread(target=self._run, name="batching-worker", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    @property
    def waiting(self) -> int:
        """The number of queued requests whose clients are still connected."""
        with self._condition:
            return sum(not request.cancelled for request in self._queue)

    @property
    def alive(self) -> bool:
        """Whether the thread is running."""
        return self._thread.is_alive()

    def submit(self, request: AnswerRequest | ModelJob) -> None:
        """Queue a request.

        Raises:
            WorkerBusy: the queue is full, or the worker is stopping.
            CannotRun: the thread has ended.
        """
        with self._condition:
            if self._closing:
                raise _stopping()
            if self._thread.ident is not None and not self._thread.is_alive():
                raise CannotRun("the server's worker has ended", "it has to be started again")
            self._queue = deque(queued for queued in self._queue if not queued.cancelled)
            if len(self._queue) >= self.limits.max_queue:
                batches = -(-len(self._queue) // self.limits.max_batch) + bool(self._current)
                raise WorkerBusy(
                    f"{len(self._queue)} requests wait already", max(1, round(batches * self._batch_seconds))
                )
            self._queue.append(request)
            self._condition.notify()

    def stop(self, seconds: float = 2.0) -> None:
        """Stop taking requests and wait for the thread.

        Queued requests end with `WorkerBusy`; those being answered end at their next token.

        Args:
            seconds: how long to wait for the thread.
        """
        with self._condition:
            self._closing = True
            rejected = list(self._queue)
            self._queue.clear()
            for request in (*self._current, *self._in_background):
                request.cancelled = True
            self._condition.notify()
        for request in rejected:
            request.finish(_stopping())
        if self._thread.ident is not None:
            self._thread.join(seconds)

    def abort(self) -> None:
        """End the requests being answered with `WorkerBusy`, without waiting for their next token; after `stop`."""
        with self._condition:
            unfinished = [*self._current, *self._in_background]
        for request in unfinished:
            request.cancelled = True
            request.finish(_stopping())

    def _run(self) -> None:
        while batch := self._next_batch():
            started = time.monotonic()
            self._serve(batch)
            self._batch_seconds += SMOOTHING * (time.monotonic() - started - self._batch_seconds)
            self._current = []

    def _next_batch(self) -> list[AnswerRequest | ModelJob]:
        """Wait for the next batch; an empty list when the worker is stopping."""
        with self._condition:
            while not self._queue:
                if self._closing:
                    return []
                self._condition.wait()
            first = self._queue.popleft()
            batch = [first]
            if isinstance(first, AnswerRequest):
                until = time.monotonic() + self.limits.batch_window_s
                self._fill(batch, first.batch_key)
                while len(batch) < self.limits.max_batch and (left := until - time.monotonic()) > 0:
                    self._condition.wait(left)
                    self._fill(batch, first.batch_key)
            self._current = batch
            return batch

    def _fill(self, batch: list[AnswerRequest | ModelJob], batch_key: str) -> None:
        """Move queued requests of the key into the batch; the others stay in their order."""
        remaining: deque[AnswerRequest | ModelJob] = deque()
        for request in self._queue:
            joins = (
                isinstance(request, AnswerRequest)
                and request.batch_key == batch_key
                and len(batch) < self.limits.max_batch
            )
            (batch if joins else remaining).append(request)
        self._queue = remaining

    def _serve(self, batch: list[AnswerRequest | ModelJob]) -> None:
        open_requests = []
        for request in batch:
            if request.is_expired() and not request.cancelled:
                request.finish(RequestTimeout())
            elif not request.cancelled:
                open_requests.append(request)
        to_answer = [request for request in open_requests if isinstance(request, AnswerRequest)]
        try:
            self._refresh_index()
            if to_answer:
                self._emit(event="serve.turn", key=to_answer[0].batch_key)
                self._answer(self.session, to_answer, self._emit, self._run_in_background)
            for request in open_requests:
                if isinstance(request, ModelJob):
                    request.finish(request.work(self.session))
        except Exception as problem:  # the thread must outlive any error that a request causes
            if reason := operator_message(problem):
                self._emit(event="serve.trouble", reason=reason)
            for request in open_requests:
                request.finish(problem)

    def _run_in_background(self, request: AnswerRequest, work: Callable[[], None]) -> None:
        """Run work that waits for an endpoint on a thread of its own, so that the worker can go on."""
        with self._condition:
            running = len(self._in_background)
            accepted = running < self.limits.max_queue and not self._closing
            if accepted:
                self._in_background.add(request)
        if not accepted:
            request.finish(WorkerBusy(f"{running} requests wait for endpoints already", RETRY_SECONDS))
            return

        def run() -> None:
            try:
                work()
            finally:
                with self._condition:
                    self._in_background.discard(request)

        threading.Thread(target=run, name="endpoint-request", daemon=True).start()

    def _refresh_index(self) -> None:
        """Open a newer generation of the index; where that fails, the old one goes on answering."""
        try:
            if self.session.retrieval.refresh():
                self._emit(event="serve.index", generation=self._generation())
            self.stale_reason = ""
        except (Problem, OSError) as problem:
            previous, self.stale_reason = self.stale_reason, str(problem)
            if previous != self.stale_reason:
                self._emit(event="serve.stale", reason=self.stale_reason)

    def _generation(self) -> int:
        """Return the generation of the index that the default arm searches."""
        return self.session.retrieval.of(self.session.searched_arm).index.generation

    def _emit(self, **event: Any) -> None:
        if self._on_event:
            with suppress(Exception):  # such as a log whose reader has closed it
                self._on_event(event)


def _stopping() -> WorkerBusy:
    return WorkerBusy("the server is stopping", RETRY_SECONDS)
