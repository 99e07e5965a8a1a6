"""Answer the requests of one batch: passages are searched together, prompts decoded together.

`answer_batch` is the entry point. Each request gets its own text and its own end; an error of one request ends that
request alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from rag.errors import BadInput
from rag.text.sanitize import strip_invisible
from runners.arms.answer import (
    Answer,
    StreamedAnswer,
    build_chat,
    finish_answer,
    make_refusal,
    stream_of,
    with_check,
)
from runners.arms.answer_constraint import answer_constraint
from runners.arms.retriever import Retrieved
from runners.data.formats import Message
from runners.data.questions import Question
from runners.inference.constraints.constraint import OutputConstraint
from runners.inference.http_client import BrokenStream, RequestCaller
from runners.inference.servers.pool import NoServerAnswers
from runners.inference.types import Completion, Generator
from runners.models.endpoint import EndpointRefused
from runners.plan.schema import Plan
from runners.runs.routing import sure_answers
from runners.serving.json_stream import StreamedJson, harmless_json, is_json
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
    from runners.runs.opened import OpenRun
    from runners.serving.served_models import ServedModel

MOST_BROKEN_STREAMS = 4
"""How often a server's stream may break until its request is lost, where the client waits for the whole answer."""
RunInBackground = Callable[[AnswerRequest, Callable[[], None]], None]
"""Runs, on another thread, work for a request that only waits for a remote endpoint."""
EmitEvent = Callable[..., None]
"""Called with the fields of an event: the size of each batch, or an error that the operator should know of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingRequest:
    """A request whose prompt is ready for the model."""

    request: AnswerRequest
    prompt: Sequence[Message] | str
    plan: Plan
    stream: StreamedAnswer | StreamedJson
    """Decides which part of the text generated so far may be shown."""
    emit: EmitEvent
    retrieved: Retrieved | None = None
    own_constraint: OutputConstraint | None = None
    """What an arm's answers may be by its plan, where the request asks for no form."""

    @property
    def constraint(self) -> OutputConstraint | None:
        """What the answer may be; None for any text."""
        return self.own_constraint if self.request.constraint is None else self.request.constraint

    @property
    def max_tokens(self) -> int:
        """Most tokens of the answer."""
        return min(self.request.max_tokens or self.plan.max_new_tokens, self.request.most_tokens)

    def on_text(self, piece: str) -> None:
        """Pass on what may be shown after this piece of generated text."""
        # Which lines an answer can cite is known when everything is looked up, and whether they support it when it has
        # ended: nothing is shown before.
        step = self.request.model.step
        late = self.request.model.looks_up or (
            step and not self.request.plain_text and self.plan.refusal.checks(step)
        )
        if self.request.finished or not self.request.stream or late:
            return
        try:
            if shown := self.stream.add(piece):
                self.request.on_text(shown)
        except Exception as problem:
            self.fail(problem)

    def finish(self, completion: Completion) -> None:
        """Finish the request with the answer that the completion gives."""
        if self.request.finished:
            return
        try:
            self._finish(completion)
        except Exception as problem:
            self.fail(problem)

    def fail(self, problem: Exception) -> None:
        """Finish this request, and no other, with an error."""
        _fail([self.request], problem, self.emit)

    def _finish(self, completion: Completion) -> None:
        request = self.request
        answer = None
        if completion.finish == "length" and not completion.text and request.is_expired():
            raise RequestTimeout
        shown = unmarked = strip_invisible(completion.text)
        if isinstance(request.prompt, Question):
            chat = [] if isinstance(self.prompt, str) else self.prompt
            citer = None if isinstance(self.stream, StreamedJson) else self.stream.citer
            answer = finish_answer(self.plan, request.prompt, self.retrieved, chat, completion, citer)
            if request.plain_text:  # a client that asks for a form gets it, whatever supports it
                answer = answer.withheld or answer
            unmarked = strip_invisible(answer.text)
            shown = unmarked if request.plain_text else answer.marked
        if request.plain_text and is_json(completion.text):
            # Lists of numbers are no citation marks, and a text in JSON keeps every character.
            shown = unmarked = harmless_json(completion.text)
            answer = answer and replace(answer, refused=False)
        _finish(request, self.stream, shown, unmarked, completion, answer)


def answer_batch(
    session: OpenRun,
    requests: Sequence[AnswerRequest],
    emit: EmitEvent,
    run_in_background: RunInBackground,
) -> None:
    """Answer requests of one batch key; each gets its own text and its own end.

    Args:
        session: the opened run.
        requests: requests that can be decoded together.
        emit: called with the fields of each event.
        run_in_background: takes the requests that a remote endpoint answers, once their passages are retrieved.

    Raises:
        Exception: an error that concerns all requests that have not finished. An error of one request ends that
            one alone and is not raised.
    """
    if requests[0].model.routes:
        for group in _routed(session, requests, emit):
            answer_batch(session, group, emit, run_in_background)
        return
    pending: list[PendingRequest] = []
    generator: Generator | None = None
    for model_id in dict.fromkeys(request.model.id for request in requests):
        of_model = [request for request in requests if request.model.id == model_id]
        try:
            prepare = _prepare_raw if of_model[0].model.raw else _prepare_arm
            if prepared := prepare(session, of_model, emit):
                generator = _generator(session, of_model[0].model)
            pending += prepared
        except Exception as problem:
            _fail(of_model, problem, emit)
    if not pending:
        return
    if requests[0].model.answers_at_once:
        for item in pending:
            _generate(item, generator)
    elif not hasattr(generator, "follow"):
        for item in pending:
            run_in_background(item.request, partial(_generate, item, generator))
    else:
        _decode_together(pending, cast("LocalGenerator", generator), emit)


def _routed(
    session: OpenRun, requests: Sequence[AnswerRequest], emit: EmitEvent
) -> list[list[AnswerRequest]]:
    """Give the requests to a router to one of its arms each: the first where it is sure of the answer, else the other."""
    routes = requests[0].model.routes
    assert routes is not None
    questions = [cast(Question, request.prompt) for request in requests]
    try:
        with run_errors_as_unusable(f"the model {requests[0].model.id!r}"):
            sure = sure_answers(session, requests[0].model.step, questions)
    except Exception as problem:
        _fail(requests, problem, emit)
        return []
    for request, answer in zip(requests, sure, strict=True):
        request.model = routes[0] if answer is not None else routes[1]
        request.answered_by = request.model.id
    return [own for model in routes if (own := [r for r in requests if r.model is model])]


def _fail(requests: Sequence[AnswerRequest], problem: Exception, emit: EmitEvent) -> None:
    """Report an error to the operator unless it is a client's mistake, then finish the requests with it.

    Reported first, so that the log holds the reason by the time that a client sees the error.
    """
    if reason := operator_message(problem):
        emit(event="serve.trouble", reason=reason)
    for request in requests:
        request.finish(problem)


def _generator(session: OpenRun, model: ServedModel) -> Generator:
    with run_errors_as_unusable(f"the model {model.id!r}"):
        if model.raw:
            return session.models.generator(model.weights, model.step)
        return session.generator(model.step)


def _prepare_raw(
    session: OpenRun, requests: Sequence[AnswerRequest], emit: EmitEvent
) -> list[PendingRequest]:
    """Prepare requests to a raw model: chats and texts are passed on unchanged."""
    return [
        PendingRequest(
            request=request,
            prompt=cast("Sequence[Message] | str", request.prompt),
            plan=session.plan,
            stream=StreamedAnswer() if request.constraint is None else StreamedJson(),
            emit=emit,
        )
        for request in requests
    ]


def _prepare_arm(
    session: OpenRun, requests: Sequence[AnswerRequest], emit: EmitEvent
) -> list[PendingRequest]:
    """Retrieve the passages of each question and build its prompt; refusals finish at once."""
    step = requests[0].model.step
    with run_errors_as_unusable(f"the model {requests[0].model.id!r}"):
        prepared = session.prepare(step)
    questions = [cast(Question, request.prompt) for request in requests]
    retrieved: list[Retrieved | None] = [None] * len(questions)
    if step.retrieval and prepared.finder is not None:
        with run_errors_as_unusable("the index"):
            retrieved = list(prepared.finder.find([question.question for question in questions]))
        if text := session.retrieval.drift_note():
            emit(event="serve.drift", reason=text)
    pending = []
    for request, question, passages in zip(requests, questions, retrieved, strict=True):
        plan = with_check(prepared.plan, request.check)
        stream: StreamedAnswer | StreamedJson
        if request.constraint is None:
            stream = stream_of(plan, question, passages, request.plain_text)
        else:
            stream = StreamedJson(prepared.plan.prompts.refusals)
        if passages is not None and passages.refuse:
            answer = make_refusal(prepared.plan, question, passages)
            _finish(request, stream, answer.marked, answer.text, answer.completion, answer)
        else:
            chat = build_chat(prepared.plan, question, passages, prepared.shots)
            own = answer_constraint(prepared.plan)
            pending.append(
                PendingRequest(
                    request=request,
                    prompt=chat,
                    plan=plan,
                    stream=stream,
                    emit=emit,
                    retrieved=passages,
                    own_constraint=own,
                )
            )
    return pending


def _decode_together(pending: Sequence[PendingRequest], generator: LocalGenerator, emit: EmitEvent) -> None:
    """Decode the requests in one batch with a model of this process."""
    from runners.inference.batched import generate_batch

    rows: list[BatchRow] = []
    in_batch = []
    for item in pending:
        try:
            rows.append(_batch_row(item, generator))
            in_batch.append(item)
        except Exception as problem:
            item.fail(problem)
    completions = generate_batch(generator, rows, lambda count: emit(event="serve.batch", rows=count))
    for item, completion in zip(in_batch, completions, strict=True):
        item.finish(completion)


def _batch_row(item: PendingRequest, generator: LocalGenerator) -> BatchRow:
    from runners.inference.batched import BatchRow

    request, constraint = item.request, item.constraint
    try:
        limit = generator.forms.answer_tokens(constraint, item.max_tokens)
    except BadInput:
        if request.constraint is not None or request.max_tokens is None:
            raise
        # The plan's own form does not fit into the few tokens that the client wants: the answer is cut, as it asked.
        limit, constraint = item.max_tokens, None
    prompt = generator.prompt(item.prompt, limit)
    trim = not isinstance(item.prompt, str)
    return BatchRow(
        prompt=prompt,
        limit=limit,
        sampling=request.sampling,
        on_text=item.on_text,
        is_cancelled=request.is_cancelled,
        trim=trim,
        constraint=constraint,
    )


def _generate(item: PendingRequest, generator: Any) -> None:
    """Answer a request with a generator that decodes nothing in this process: an endpoint, a classifier, scored labels."""
    try:
        item.finish(_stream_completion(item, generator))
    except (
        EndpointRefused,
        NoServerAnswers,
    ) as problem:  # the operator's key, settings or servers: not the client's
        item.fail(RunUnusable(f"the model {item.request.model.id!r}", str(problem)))
    except Exception as problem:
        item.fail(RequestTimeout() if item.request.is_expired() else problem)


def _stream_completion(item: PendingRequest, generator: Any) -> Completion:
    """Read a generator's stream to its end; where it breaks and the client has seen none of it, once more from the start."""
    if isinstance(item.prompt, str):
        raise BadInput("only a model on this machine can continue a text", "send a chat")
    for _ in range(MOST_BROKEN_STREAMS):
        try:
            return _read_completion(item, generator)
        except BrokenStream:
            if item.request.stream:
                raise
    return _read_completion(item, generator)


def _read_completion(item: PendingRequest, generator: Any) -> Completion:
    """Read a generator's stream to its end, or until the request is cancelled."""
    request = item.request
    assert not isinstance(item.prompt, str)
    if request.model.answers_at_once and not request.model.looks_up:
        stream = generator.stream(item.prompt, item.max_tokens)
    else:
        caller = RequestCaller(request.deadline, lambda: not request.is_cancelled())
        # As in the trial; a form that the client asks for instead is only checked.
        own = None if request.plain_text else item.own_constraint
        stream = generator.stream(item.prompt, item.max_tokens, request.sampling, caller, constraint=own)
    text = ""
    for piece in stream:
        item.on_text(piece)
        text += piece
        if request.is_cancelled():
            stream.close()
            return Completion(text, 0, 0, 0.0, "length", estimated=True)
    completion: Completion = stream.completion
    return completion


def _finish(
    request: AnswerRequest,
    stream: StreamedAnswer | StreamedJson,
    shown: str,
    unmarked: str,
    completion: Completion,
    answer: Answer | None,
) -> None:
    """Send what is left of the stream, then the result.

    Args:
        request: the request to finish.
        stream: what was streamed of it so far.
        shown: the whole text to show.
        unmarked: the same without citation marks.
        completion: the model's completion.
        answer: the answer with its citations; None for a raw model.
    """
    if request.stream and (rest := stream.finish(shown, unmarked)):
        request.on_text(rest)
    timed_out = request.is_expired() and completion.finish == "length"
    streamed = stream.shown if request.stream else shown
    answer = answer and replace(answer, arm=request.answered_by)
    request.finish(RequestResult(shown, completion, answer, timed_out, streamed))
