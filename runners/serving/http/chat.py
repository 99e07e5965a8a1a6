"""Chat completions and completions: queue what is asked, answer it whole or as it is made.

From a request's messages to what an arm, or a model as it is, is asked.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse, Response
from sse_starlette import EventSourceResponse, ServerSentEvent

from runners.arms.followup import stand_alone
from runners.data.formats import Message
from runners.data.questions import Question
from runners.serving.http.errors import ApiError, as_api_error
from runners.serving.http.json_schema import ResponseFormat, response_format
from runners.serving.http.request_models import ChatRequest, CompletionRequest, RequestMessage, SamplingFields
from runners.serving.http.responses import ResponseIdentity, x_tunewise_body
from runners.serving.http.service import EventLoopBridge, ServerLimits, Service, until_disconnected
from runners.serving.request import AnswerRequest, RequestResult
from runners.serving.served_models import ServedModel

ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}


def read_messages(turns: Sequence[RequestMessage], limits: ServerLimits) -> list[Message]:
    """Return the messages as plain turns; Refusal for what is no text, by its place."""
    if len(turns) > limits.messages:
        raise ApiError(
            413,
            f"{len(turns)} messages; at most {limits.messages} are read",
            param="messages",
            code="too_many_messages",
        )
    found: list[Message] = []
    for number, turn in enumerate(turns):
        place = f"messages[{number}]"
        role = ROLES.get(turn.role)
        if role is None:
            raise ApiError(400, f"{place}: the role {turn.role!r} is not supported", param=f"{place}.role")
        for name in ("tool_calls", "function_call"):
            if (turn.model_extra or {}).get(name):
                raise ApiError(400, f"{place}: {name} are not supported", param=f"{place}.{name}")
        found.append({"role": role, "content": _text(turn, place)})
    return within_limits(found, limits)


def within_limits(messages: list[Message], limits: ServerLimits) -> list[Message]:
    """Return the messages; Refusal when they are longer together than is read."""
    size = sum(len(message["content"]) for message in messages)
    if size > limits.characters:
        raise ApiError(
            413, f"{size:,} characters; at most {limits.characters:,} are read", code="message_too_long"
        )
    return messages


def messages_for_model(
    messages: Sequence[Message], choice: ServedModel
) -> tuple[Question | tuple[Message, ...], dict[str, Any]]:
    """Return what the choice is asked, and what its caller should know of that.

    A model as it is gets the chat as it came. An arm gets the last user's turn as its question; a system message
    stands in for the plan's instructions. With retrieval the passages carry the context: earlier turns are not
    shown, but a follow-up is made to stand alone, as in `tunewise chat`.
    """
    if choice.raw:
        return tuple(messages), {}
    told: dict[str, Any] = {}
    system = "\n\n".join(m["content"] for m in messages if m["role"] == "system").strip()
    turns = [m for m in messages if m["role"] != "system"]
    if turns and turns[-1]["role"] == "user" and not turns[-1]["content"].strip():
        raise ApiError(400, "the last message, which is the question, is empty", param="messages")
    if not turns or turns[-1]["role"] != "user":
        raise ApiError(
            400, f"{choice.id} answers a question: the last message must be the user's", param="messages"
        )
    if system:
        told["instructions"] = "the request's system message stood in for the plan's"
    question, history = turns[-1]["content"], tuple(turns[:-1])
    if choice.step.retrieval and history:
        previous = ""
        for turn in turns:
            if turn["role"] == "user":
                previous = stand_alone(turn["content"], previous)
        told |= {"asked_as": previous, "turns_not_shown": len(history)}
        question, history = previous, ()
    return Question("served", question, system=system or None, history=history), told


def _text(turn: RequestMessage, place: str) -> str:
    if turn.content is None:
        raise ApiError(400, f"{place} has no content", param=f"{place}.content")
    if isinstance(turn.content, str):
        return turn.content
    for number, part in enumerate(turn.content):
        if part.type != "text" or part.text is None:
            where = f"{place}.content[{number}]"
            raise ApiError(400, f"{where}: only text is read, not {part.type!r}", param=where)
    return "".join(part.text or "" for part in turn.content)


FIRST_PIECE_SECONDS = 5.0
"""Seconds to wait for the first words before the answer's head is sent: until then an error has its own status."""
KEEPALIVE_SECONDS = 15
"""Seconds between heartbeats of a stream that has nothing to say."""
SLOW_SECONDS = 30.0
"""Seconds that a client may take to read a piece."""


@dataclass
class ParsedRequest:
    """A request that was read: what is asked, and how its answer is to be."""

    want: SamplingFields
    choice: ServedModel
    asked: list[Question | tuple[Message, ...] | str]
    told: dict[str, Any]
    form: ResponseFormat | None = None
    chat: bool = True
    ears: list[EventLoopBridge] = field(default_factory=list)
    tickets: list[AnswerRequest] = field(default_factory=list)

    def leave(self) -> None:
        """Tell the clerk that nobody waits any more."""
        for ticket in self.tickets:
            ticket.left = True


async def chat_completion(service: Service, want: ChatRequest, request: Request) -> Response:
    """Answer a chat completion."""
    want.refuse_unsupported()
    choice = service.choice(want.model)
    asked, told = messages_for_model(read_messages(want.messages, service.limits), choice)
    # What a stranger's schema costs is bounded, yet too much for the event loop to stand still meanwhile.
    wanted = await asyncio.to_thread(response_format, want.response_format) if want.response_format else None
    return await _answer(service, ParsedRequest(want, choice, [asked], told, wanted), request)


async def text_completion(service: Service, want: CompletionRequest, request: Request) -> Response:
    """Answer a completion: a model as it is goes on with the text, an arm answers it as a question."""
    want.refuse_unsupported()
    choice = service.choice(want.model)
    texts = [want.prompt] if isinstance(want.prompt, str) else want.prompt
    if not 1 <= len(texts) <= service.limits.prompts or not all(text.strip() for text in texts):
        raise ApiError(400, f"prompt takes 1 to {service.limits.prompts} texts, none empty", param="prompt")
    if want.stream and len(texts) > 1:
        raise ApiError(400, "a stream answers one prompt", param="stream", code="unsupported_parameter")
    within_limits([{"role": "user", "content": text} for text in texts], service.limits)
    asked: list[Any] = texts if choice.raw else [Question("served", text) for text in texts]
    return await _answer(service, ParsedRequest(want, choice, asked, {}, chat=False), request)


async def _answer(service: Service, order: ParsedRequest, request: Request) -> Response:
    if ignored := order.want.ignored():
        order.told["ignored"] = ignored
    _queue(service, order)
    if order.want.stream:
        return await _streamed(service, order, request)
    try:
        replies = [
            _reply(await until_disconnected(ear.next(), request.receive, order.leave)) for ear in order.ears
        ]
    except ApiError:
        order.leave()
        raise
    service.meters.counted(order.choice.id, replies)
    extra = [await _ours(order, reply) for reply in replies]
    if broken := _broken(order, replies[0], extra[0]):
        raise broken
    return JSONResponse(ResponseIdentity.fresh(order.choice, order.chat).whole(replies, extra))


def _queue(service: Service, order: ParsedRequest) -> None:
    """Give the clerk a ticket for each thing asked; Busy takes back those that found room."""
    sampling, limit = order.want.sampling(service.limits), service.limits.max_tokens
    wanted = order.want.length or service.session.plan.max_new_tokens
    if wanted > limit:  # editors ask for thousands by default: they are told what they get
        order.told["max_tokens"] = limit
    for asked in order.asked:
        ear = EventLoopBridge(service.limits.seconds)
        ticket = AnswerRequest(
            order.choice,
            asked,
            ear.hear,
            ear.hear,
            min(wanted, limit),
            sampling,
            plain=order.form is not None,
            pieces=bool(order.want.stream) and order.form is None,
            seconds=service.limits.seconds,
        )
        try:
            service.clerk.put(ticket)
        except Exception:
            order.leave()
            raise
        order.ears.append(ear)
        order.tickets.append(ticket)


async def _streamed(service: Service, order: ParsedRequest, request: Request) -> Response:
    """Begin a stream at its first words; what goes wrong before them has a status of its own."""
    try:
        first = await until_disconnected(
            order.ears[0].next(FIRST_PIECE_SECONDS), request.receive, lambda: None
        )
    except TimeoutError:
        first = ""
    except BaseException:
        order.leave()
        raise
    if isinstance(first, Exception):
        order.leave()
        raise as_api_error(first)
    return _Stream(
        order,
        _events(service, order, first),
        ping=KEEPALIVE_SECONDS,
        send_timeout=SLOW_SECONDS,
        sep="\n",
        ping_message_factory=lambda: ServerSentEvent(comment="still here"),
    )


class _Stream(EventSourceResponse):
    """A stream that tells the clerk when it is over: also where its client leaves before the first event."""

    def __init__(self, order: ParsedRequest, events: AsyncIterator[dict[str, str]], **more: Any) -> None:
        super().__init__(events, **more)
        self._order = order

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Send the events, for as long as the client is there."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._order.leave()


async def _events(service: Service, order: ParsedRequest, first: Any) -> AsyncIterator[dict[str, str]]:
    shape = ResponseIdentity.fresh(order.choice, order.chat)
    yield _data(shape.opening(), order)
    heard = first
    while isinstance(heard, str):
        if heard:
            yield _data(shape.piece(heard), order)
        heard = await order.ears[0].next()
    if isinstance(heard, Exception):
        yield {"data": json.dumps(as_api_error(heard).body)}
    else:
        service.meters.counted(order.choice.id, [heard])
        extra = await _ours(order, heard)
        if broken := _broken(order, heard, extra):
            yield {"data": json.dumps(broken.body)}
        else:
            if order.form:
                # Clients read a part of JSON as it comes: nothing goes out before it is known what it is.
                yield _data(shape.said(heard), order)
            yield _data(shape.closing(heard, extra), order)
            if order.want.with_usage:
                yield {"data": json.dumps(shape.counted(heard))}
    yield {"data": "[DONE]"}


def _data(body: dict[str, Any], order: ParsedRequest) -> dict[str, str]:
    return {"data": json.dumps({**body, "usage": None} if order.want.with_usage else body)}


def _reply(heard: Any) -> RequestResult:
    if isinstance(heard, Exception):
        raise as_api_error(heard)
    assert isinstance(heard, RequestResult)
    return heard


async def _ours(order: ParsedRequest, reply: RequestResult) -> dict[str, Any]:
    found = x_tunewise_body(reply, order.choice, order.told)
    if order.form:
        fault = await asyncio.to_thread(order.form.fault, reply.text)
        found["response_format"] = {"checked": True, "valid": not fault, "fault": fault or None}
    return found


def _broken(order: ParsedRequest, reply: RequestResult, extra: dict[str, Any]) -> ApiError | None:
    """What is said of an answer that had to be of a form and is not; a refusal need not be of any."""
    fault = extra["response_format"]["fault"] if order.form and order.form.strict else None
    if not fault or extra.get("refused"):
        return None
    return ApiError(
        422,
        f"the answer is not the JSON that was asked for: {fault}",
        param="response_format",
        code="response_format_not_met",
        more={"x_tunewise": {**extra, "answer": reply.text}},
    )
