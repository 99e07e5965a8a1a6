"""The work behind ``tunewise ask``: one answer, from a server that has the run loaded or from this process.

:class:`Answerer` chooses between the two; ``tunewise chat`` uses it too.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from advisor.display.answer_view import show_streaming
from advisor.display.events import print_event
from advisor.output import emit_result, note
from rag.errors import BadInput
from runners.data.formats import Message
from runners.data.questions import Question
from runners.plan.gate import Check
from runners.runs.opened import Opening, OpenRun
from runners.runs.plan_models import MovedModels
from runners.serving.client import RunningServer, ServerLost, usable_server

if TYPE_CHECKING:
    from runners.arms.answer import Answer

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class AskOptions:
    """How a run is asked."""

    arm: str | None = None
    """The arm to ask; None for the one the verdict says to use."""
    as_json: bool = False
    """Whether answers are printed as JSON."""
    model: MovedModels = None
    """Folder of the base model, where it has been moved; no server is asked then."""
    backend: Sequence[str] | None = None
    """The servers that generate, as the values of ``--backend``; None for those the run was measured with."""
    server: bool = True
    """Whether a server of this machine may answer that has the run loaded."""
    check: Check | None = None
    """What becomes of answers without support; None for what the trial settled."""


class Answerer:
    """Answers the questions of one run with one arm.

    A server of this machine is asked where one has the run loaded as it is on the disk. Everything else is answered
    in this process; where a server is running and is not asked, or does not answer, a line on stderr says why.
    """

    def __init__(self, path: Path, options: AskOptions) -> None:
        """Read the plan of a run, and look for its servers.

        Raises:
            BadInput: there is no run, or it has no such arm.
            UsageProblem: no arm was named, and the verdict says that none can be used.
        """
        model, backend, check = options.model, options.backend, options.check
        opening = Opening(on_event=print_event, model=model, backend=backend, check=check)
        self._session = OpenRun.open(path, opening)
        self.arm = self._session.find_arm(options.arm)
        self._server = usable_server(self._session, note, bool(model)) if options.server else None
        if self._server is not None:
            self._session.note_examples([self.arm])
        self._check = check
        self._announced = False
        self._opened = False

    def prepare(self) -> None:
        """Check the run and obtain its models, unless a server answers."""
        if self._server is None:
            self._open().obtain()

    def ask(self, question: str, history: tuple[Message, ...] = ()) -> Answer:
        """Return the answer to a question."""

        def read(server: RunningServer) -> Answer:
            pieces = server.stream(Question("ask-0", question, history=history), self.arm.arm, self._check)
            while True:
                try:
                    next(pieces)
                except StopIteration as stop:
                    answer: Answer = stop.value
                    return answer

        answer = self._by_server(read)
        return self._open().ask([question], self.arm, history)[0] if answer is None else answer

    def show(self, question: str, history: tuple[Message, ...] = ()) -> Answer:
        """Print the answer to a question as it is generated, with its sources; return it."""

        def stream(server: RunningServer) -> Generator[str, None, Answer]:
            return server.stream(Question("ask-0", question, history=history), self.arm.arm, self._check)

        name = self.arm.arm
        if (answer := self._by_server(lambda server: show_streaming(stream(server), name))) is not None:
            return answer
        # The models are loaded when the stream is read, so that the terminal shows meanwhile that something is going on.
        return show_streaming(self._open().stream(question, self.arm, history), name)

    def note_drift(self) -> None:
        """Say, once, that the questions answered in this process differ from those that refusals were fitted on."""
        if self._opened and (text := self._session.retrieval.drift_note()):
            note(text)

    def _by_server(self, request: Callable[[RunningServer], Result]) -> Result | None:
        """Return what the server gives; None when there is none, or it is lost, which is said."""
        if self._server is None:
            return None
        address = self._server.record.address
        try:
            result = request(self._server)
        except ServerLost as problem:
            note(f"the server at {address} did not answer: {problem}; answering in this process")
            self._server = None
            return None
        if not self._announced:
            note(f"answered by the server at {address}")
            self._announced = True
        return result

    def _open(self) -> OpenRun:
        """Return the session with the run's files checked."""
        if not self._opened:
            self._session.check()
            self._session.note_difference([self.arm])
            self._opened = True
        return self._session


def answer_question(path: Path, question: str, options: AskOptions) -> None:
    """Print the answer of a run to one question, with its citations.

    Raises:
        BadInput: the question is empty, there is no run, it is damaged, or it has no such arm.
    """
    if not question.strip():
        raise BadInput("the question is empty", 'ask something: tunewise ask RUN "When does it open?"')
    answerer = Answerer(path, options)
    if options.as_json:
        emit_result(answerer.ask(question).reply_json(answerer.arm.arm), ascii=True)
    else:
        answerer.show(question)
