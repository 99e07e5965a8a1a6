"""The requests that wait in the worker's queue: what is asked of which model, the callbacks, and the deadline.

`AnswerRequest` is a request for an answer, `ModelJob` any other work with the run's models. `RunUnusable` and
`operator_message` separate what a client may know of an error from what the operator needs to know.
"""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from rag.errors import CannotRun, Problem
from runners.arms.answer import Answer
from runners.data.formats import Message
from runners.data.questions import Question
from runners.inference.constraints.constraint import OutputConstraint
from runners.inference.types import GREEDY, Completion, Sampling
from runners.plan.gate import Check
from runners.serving.served_models import ServedModel


class RequestTimeout(Problem):
    """A request waited for its turn longer than the whole request may take."""

    def __init__(self) -> None:
        """Set the message and the hint."""
        super().__init__("the request waited longer than it may take", "try again later")


class RunUnusable(CannotRun):
    """A part of the run, such as its index or its weights, cannot be used now.

    The message is safe for clients; `reason` may hold paths and addresses and is for the operator's log.
    """

    def __init__(self, subject: str, reason: str) -> None:
        """Store the reason for the operator."""
        super().__init__(f"{subject} cannot be used now", "the server's log says why")
        self.reason = f"{subject} cannot be used: {reason}"


@contextmanager
def run_errors_as_unusable(subject: str) -> Iterator[None]:
    """Turn errors of the run's own files and endpoints into `RunUnusable`: they are no fault of the request."""
    try:
        yield
    except (Problem, OSError) as problem:
        raise RunUnusable(subject, str(problem)) from problem


def operator_message(problem: Exception) -> str:
    """Return what the operator's log needs to hold about an error.

    Returns:
        The reason why a part of the run is unusable, the traceback of a bug, or "" for a client's mistake.
    """
    if isinstance(problem, RunUnusable):
        return problem.reason
    return "" if isinstance(problem, Problem) else "".join(traceback.format_exception(problem))


@dataclass(frozen=True, slots=True)
class RequestResult:
    """The answer to a request."""

    text: str
    """The text to show: for an arm with its citation marks, unless the request asked for plain text."""
    completion: Completion
    answer: Answer | None = None
    """The answer with its citations, for an arm; None for a raw model."""
    timed_out: bool = False
    """Whether the time limit cut the answer short."""
    streamed: str = ""
    """The streamed pieces, joined; it differs from `text` where later text changed the citation marks."""


class _Deadline:
    """The deadline of a queued request, and its one result; shared by both kinds of requests."""

    on_end: Callable[[Any], None]
    timeout_s: float
    finished: bool
    deadline: float

    def __post_init__(self) -> None:
        """Set the deadline, on the monotonic clock."""
        self.deadline = time.monotonic() + self.timeout_s

    def is_expired(self) -> bool:
        """Return whether the deadline has passed."""
        return time.monotonic() > self.deadline

    def finish(self, result: Any) -> None:
        """Pass the result or the error to `on_end`; only the first call has an effect."""
        if not self.finished:
            self.finished = True
            self.on_end(result)


@dataclass(eq=False)
class AnswerRequest(_Deadline):
    """A request for an answer. Its callbacks are called on the worker's thread."""

    model: ServedModel
    prompt: Question | tuple[Message, ...] | str
    """A question for an arm; for a raw model a chat, or a text to complete."""
    on_text: Callable[[str], None]
    """Called with each piece of the answer that may be shown."""
    on_end: Callable[[RequestResult | Exception], None]
    """Called once, with the result or the error."""
    max_tokens: int | None = None
    """Most tokens of the answer; None is the arm's."""
    most_tokens: int = sys.maxsize
    """The server's limit of both."""
    sampling: Sampling = GREEDY
    plain_text: bool = False
    """Leave citation marks out of the text, as for JSON."""
    constraint: OutputConstraint | None = None
    """What the answer may be, as the request asks; None where it asks for nothing."""
    check: Check | None = None
    """What becomes of an answer without support; None for what the trial settled."""
    stream: bool = False
    """Whether `on_text` is called."""
    timeout_s: float = 120.0
    """Most seconds from now to the end of the answer."""
    cancelled: bool = False
    """Whether the client has disconnected."""
    answered_by: str = ""
    """The arm of a router that answers; "" for a request to any other arm."""
    finished: bool = False
    deadline: float = field(init=False)

    @property
    def batch_key(self) -> str:
        """The key that requests of one batch share."""
        return self.model.batch_key or self.model.id

    def is_cancelled(self) -> bool:
        """Return whether the answer is no longer needed: cancelled, finished or past its deadline."""
        return self.cancelled or self.finished or self.is_expired()


@dataclass(eq=False)
class ModelJob(_Deadline):
    """Other work with the run's models, such as a search; it runs alone, in its turn."""

    work: Callable[[Any], Any]
    """Called with the session; what it returns is passed to `on_end`."""
    on_end: Callable[[Any], None]
    timeout_s: float = 30.0
    cancelled: bool = False
    finished: bool = False
    deadline: float = field(init=False)
