"""One request at the clerk's window: what is asked of which model, who listens, and whether they still do."""

from __future__ import annotations

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
from runners.inference.types import GREEDY, Completion, Sampling
from runners.serving.served_models import ServedModel


class RequestTimeout(Problem):
    """A request waited for its turn longer than it may take altogether."""

    def __init__(self) -> None:
        """Say so."""
        super().__init__("the request waited longer than it may take", "try again later")


class RunUnusable(CannotRun):
    """Something of the run's own cannot be used now; why is for the operator, not for who asks."""

    def __init__(self, what: str, reason: str) -> None:
        """Keep what the operator is told."""
        super().__init__(f"{what} cannot be used now", "the server's log says why")
        self.reason = f"{what} cannot be used: {reason}"


@contextmanager
def run_errors_as_unusable(what: str) -> Iterator[None]:
    """Turn what goes wrong with the run's own files and endpoints into Unusable: no request is to blame for it."""
    try:
        yield
    except (Problem, OSError) as problem:
        raise RunUnusable(what, str(problem)) from problem


def operator_message(problem: Exception) -> str:
    """What the operator is told of it: why something is unusable, a bug's traceback, nothing of a client's mistake."""
    if isinstance(problem, RunUnusable):
        return problem.reason
    return "" if isinstance(problem, Problem) else "".join(traceback.format_exception(problem))


@dataclass(frozen=True, slots=True)
class RequestResult:
    """What a request got."""

    text: str
    """What is shown: for an arm with its citation marks, unless the request wanted plain text."""
    completion: Completion
    answer: Answer | None = None
    """With its citations, for an arm; None for a model that was asked as it is."""
    cut: bool = False
    """Whether the time limit ended it."""
    streamed: str = ""
    """The pieces that were heard, joined; it differs from `text` where what came later changed the marks."""


@dataclass(eq=False)
class AnswerRequest:
    """A request for an answer. Its listeners are called on the clerk's thread."""

    choice: ServedModel
    asked: Question | tuple[Message, ...] | str
    """A question for an arm, a chat for a model as it is, or a text that it is to go on with."""
    on_piece: Callable[[str], None]
    on_end: Callable[[RequestResult | Exception], None]
    limit: int | None = None
    """Most tokens of the answer; None is the plan's."""
    sampling: Sampling = GREEDY
    plain: bool = False
    """Without citation marks in the text, as for JSON."""
    pieces: bool = False
    """Whether anybody listens to pieces."""
    seconds: float = 120.0
    """Most time from now to the end of the answer."""
    left: bool = False
    """Whether the client has gone."""
    ended: bool = False
    due: float = field(init=False)

    def __post_init__(self) -> None:
        """Note when its time is over."""
        self.due = time.monotonic() + self.seconds

    @property
    def key(self) -> str:
        """What requests must share to be answered together."""
        return self.choice.together or self.choice.id

    def late(self) -> bool:
        """Whether its time is over."""
        return time.monotonic() > self.due

    def wanted(self) -> bool:
        """Whether the answer is still waited for."""
        return not self.left and not self.ended and not self.late()

    def end(self, result: RequestResult | Exception) -> None:
        """Tell the listener what came of it, once."""
        if not self.ended:
            self.ended = True
            self.on_end(result)


@dataclass(eq=False)
class ModelJob:
    """Something else that is done with the run's models, such as a search; alone, in its turn."""

    work: Callable[[Any], Any]
    """Given the session, returns what `on_end` is told."""
    on_end: Callable[[Any], None]
    seconds: float = 30.0
    left: bool = False
    ended: bool = False
    due: float = field(init=False)

    def __post_init__(self) -> None:
        """Note when its time is over."""
        self.due = time.monotonic() + self.seconds

    def late(self) -> bool:
        """Whether its time is over."""
        return time.monotonic() > self.due

    def end(self, result: Any) -> None:
        """Tell the listener what came of it, once."""
        if not self.ended:
            self.ended = True
            self.on_end(result)
