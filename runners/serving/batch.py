"""Answer the requests of one batch: passages looked up together, prompts decoded together, each heard by its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from rag.errors import BadInput
from rag.text.sanitize import strip_invisible
from runners.arms.answer import Answer, StreamedAnswer, build_chat, finish_answer, make_refusal, stream_of
from runners.arms.retriever import Retrieved
from runners.data.formats import Message
from runners.data.questions import Question
from runners.inference.types import Completion, Generator
from runners.models.endpoint import EndpointRefused
from runners.plan.schema import Plan
from runners.serving.request import (
    AnswerRequest,
    RequestResult,
    RequestTimeout,
    RunUnusable,
    operator_message,
    run_errors_as_unusable,
)

if TYPE_CHECKING:
    from runners.inference.batched import BatchRow
    from runners.inference.local import LocalGenerator
    from runners.runs.run import RunSession

RunElsewhere = Callable[[AnswerRequest, Callable[[], None]], None]
"""Does for a ticket what only waits for an answer of somebody else."""
Tell = Callable[..., None]
"""Told of each batch, and of what the operator should know, as an event's fields."""


@dataclass(frozen=True, slots=True)
class PendingRequest:
    """A request that the model is asked."""

    ticket: AnswerRequest
    prompt: Sequence[Message] | str
    plan: Plan
    streamed: StreamedAnswer
    tell: Tell
    found: Retrieved | None = None

    @property
    def limit(self) -> int:
        """Most tokens of the answer."""
        return self.ticket.limit or self.plan.max_new_tokens

    def hear(self, piece: str) -> None:
        """Pass on what may be shown after this piece."""
        if self.ticket.ended or not self.ticket.pieces:
            return
        try:
            if shown := self.streamed.add(piece):
                self.ticket.on_piece(shown)
        except Exception as problem:
            self.fail(problem)

    def end(self, completion: Completion) -> None:
        """Tell the ticket what the model's words come to."""
        if self.ticket.ended:
            return
        try:
            self._end(completion)
        except Exception as problem:
            self.fail(problem)

    def fail(self, problem: Exception) -> None:
        """End this ticket, and no other, with what went wrong."""
        _fail([self.ticket], problem, self.tell)

    def _end(self, completion: Completion) -> None:
        ticket, answer = self.ticket, None
        if completion.finish == "length" and not completion.text and ticket.late():
            raise RequestTimeout
        whole = words = strip_invisible(completion.text)
        if isinstance(ticket.asked, Question):
            chat = [] if isinstance(self.prompt, str) else self.prompt
            answer = finish_answer(self.plan, ticket.asked, self.found, chat, completion, self.streamed.citer)
            words = strip_invisible(answer.text)
            whole = words if ticket.plain else answer.marked
        _end(ticket, self.streamed, whole, words, completion, answer)


def answer_batch(
    session: RunSession, tickets: Sequence[AnswerRequest], tell: Tell, elsewhere: RunElsewhere
) -> None:
    """Answer tickets that can be decoded together; each hears its pieces and its end.

    Those that an endpoint answers are handed over to `elsewhere` once their passages are found. What is wrong with
    one request ends that one alone; what is raised from here concerns all that have not ended.
    """
    due: list[PendingRequest] = []
    generator: Generator | None = None
    for name in dict.fromkeys(ticket.choice.id for ticket in tickets):
        alike = [ticket for ticket in tickets if ticket.choice.id == name]
        try:
            more, generator = (_as_it_is if alike[0].choice.raw else _of_arm)(session, alike, tell)
            due += more
        except Exception as problem:
            _fail(alike, problem, tell)
    if not due:
        return
    if tickets[0].choice.step.classifier:
        for one in due:
            _ask(one, generator)
    elif not hasattr(generator, "follow"):
        for one in due:
            elsewhere(one.ticket, partial(_ask, one, generator))
    else:
        _local(due, cast("LocalGenerator", generator), tell)


def _fail(tickets: Sequence[AnswerRequest], problem: Exception, tell: Tell) -> None:
    """End tickets with what went wrong, and tell the operator what is not the clients' doing."""
    for ticket in tickets:
        ticket.end(problem)
    if reason := operator_message(problem):
        tell(event="serve.trouble", reason=reason)


def _as_it_is(
    session: RunSession, tickets: Sequence[AnswerRequest], tell: Tell
) -> tuple[list[PendingRequest], Generator]:
    """Chats and texts go to the model as they came."""
    choice = tickets[0].choice
    with run_errors_as_unusable(f"the model {choice.id!r}"):
        generator = session.context.generator(choice.weights, choice.step)
    asked = [cast("Sequence[Message] | str", ticket.asked) for ticket in tickets]
    due = [
        PendingRequest(t, a, session.plan, StreamedAnswer(), tell)
        for t, a in zip(tickets, asked, strict=True)
    ]
    return due, generator


def _of_arm(
    session: RunSession, tickets: Sequence[AnswerRequest], tell: Tell
) -> tuple[list[PendingRequest], Generator]:
    """Look up what each question is given; those that the documents do not answer are refused now."""
    step = tickets[0].choice.step
    with run_errors_as_unusable(f"the model {tickets[0].choice.id!r}"):
        prepared, generator = session.prepare(step)
    asked = [cast(Question, ticket.asked) for ticket in tickets]
    found: list[Retrieved | None] = [None] * len(asked)
    if step.retrieval and prepared.finder is not None:
        with run_errors_as_unusable("the index"):
            found = list(prepared.finder.find([question.question for question in asked]))
    due = []
    for ticket, question, brought in zip(tickets, asked, found, strict=True):
        streamed = stream_of(prepared.plan, question, brought, ticket.plain)
        if brought is not None and brought.refuse:
            answer = make_refusal(prepared.plan, question, brought)
            _end(ticket, streamed, answer.marked, answer.text, answer.completion, answer)
        else:
            chat = build_chat(prepared.plan, question, brought, prepared.shots)
            due.append(PendingRequest(ticket, chat, prepared.plan, streamed, tell, brought))
    return due, generator


def _local(due: Sequence[PendingRequest], generator: LocalGenerator, tell: Tell) -> None:
    from runners.inference.batched import generate_batch

    rows: list[BatchRow] = []
    asked = []
    for one in due:
        try:
            rows.append(_row(one, generator))
            asked.append(one)
        except Exception as problem:
            one.fail(problem)
    made = generate_batch(generator, rows, lambda count: tell(event="serve.batch", rows=count))
    for one, completion in zip(asked, made, strict=True):
        one.end(completion)


def _row(one: PendingRequest, generator: LocalGenerator) -> BatchRow:
    from jinja2 import TemplateError

    from runners.inference.batched import BatchRow

    try:
        prompt = generator.prompt(one.prompt, one.limit)
    except TemplateError as error:  # a template's own rules, such as that turns alternate
        raise BadInput(f"the model's chat template refuses these messages: {error}") from None
    trim = not isinstance(one.prompt, str)
    return BatchRow(prompt, one.limit, one.ticket.sampling, one.hear, lambda: not one.ticket.wanted(), trim)


def _ask(one: PendingRequest, generator: Any) -> None:
    """Ask what is not a model in this process: an endpoint, or a classifier, which draws nothing."""
    try:
        one.end(_followed(one, generator))
    except EndpointRefused as problem:  # whoever keeps the key can mend it, not who asks
        one.fail(RunUnusable(f"the model {one.ticket.choice.id!r}", str(problem)))
    except Exception as problem:
        one.fail(RequestTimeout() if one.ticket.late() else problem)


def _followed(one: PendingRequest, generator: Any) -> Completion:
    if isinstance(one.prompt, str):
        raise BadInput("a text is gone on with only by a model that is here", "send a chat")
    if one.ticket.choice.step.classifier:
        stream = generator.stream(one.prompt, one.limit)
    else:
        from runners.inference.http_client import RequestCaller

        asker = RequestCaller(one.ticket.due, one.ticket.wanted)
        stream = generator.stream(one.prompt, one.limit, one.ticket.sampling, asker)
    said = ""
    for piece in stream:
        one.hear(piece)
        said += piece
        if not one.ticket.wanted():
            stream.close()
            return Completion(said, 0, 0, 0.0, "length", estimated=True)
    completion: Completion = stream.completion
    return completion


def _end(
    ticket: AnswerRequest,
    streamed: StreamedAnswer,
    whole: str,
    words: str,
    completion: Completion,
    answer: Answer | None,
) -> None:
    if ticket.pieces and (rest := streamed.finish(whole, words)):
        ticket.on_piece(rest)
    cut = ticket.late() and completion.finish == "length"
    ticket.end(RequestResult(whole, completion, answer, cut, streamed.shown if ticket.pieces else whole))
