"""Chat completions and completions: queue what is asked, answer it whole or as it is made."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse, Response
from sse_starlette import EventSourceResponse, ServerSentEvent

from advisor.server import messages as turns
from advisor.server.bodies import Shape, ours
from advisor.server.ear import Ear, unless_gone
from advisor.server.refusals import Refusal, refusal
from advisor.server.schema import Form, form
from advisor.server.service import Service
from advisor.server.wants import ChatWant, CompletionWant, Sampled
from runners.catalogue import Choice
from runners.data import Question
from runners.shapes import Message
from runners.ticket import Reply, Ticket

FIRST = 5.0
"""Seconds to wait for the first words before the answer's head is sent: until then an error has its own status."""
BEAT = 15
"""Seconds between heartbeats of a stream that has nothing to say."""
SLOW = 30.0
"""Seconds that a client may take to read a piece."""


@dataclass
class Order:
    """A request that was read: what is asked, and how its answer is to be."""

    want: Sampled
    choice: Choice
    asked: list[Question | tuple[Message, ...] | str]
    told: dict[str, Any]
    form: Form | None = None
    chat: bool = True
    ears: list[Ear] = field(default_factory=list)
    tickets: list[Ticket] = field(default_factory=list)

    def leave(self) -> None:
        """Tell the clerk that nobody waits any more."""
        for ticket in self.tickets:
            ticket.left = True


async def chat(service: Service, want: ChatWant, request: Request) -> Response:
    """Answer a chat completion."""
    want.refuse_unsupported()
    choice = service.choice(want.model)
    asked, told = turns.asked(turns.read(want.messages, service.limits), choice)
    # What a stranger's schema costs is bounded, yet too much for the event loop to stand still meanwhile.
    wanted = await asyncio.to_thread(form, want.response_format) if want.response_format else None
    return await _answer(service, Order(want, choice, [asked], told, wanted), request)


async def complete(service: Service, want: CompletionWant, request: Request) -> Response:
    """Answer a completion: a model as it is goes on with the text, an arm answers it as a question."""
    want.refuse_unsupported()
    choice = service.choice(want.model)
    texts = [want.prompt] if isinstance(want.prompt, str) else want.prompt
    if not 1 <= len(texts) <= service.limits.prompts or not all(text.strip() for text in texts):
        raise Refusal(400, f"prompt takes 1 to {service.limits.prompts} texts, none empty", param="prompt")
    if want.stream and len(texts) > 1:
        raise Refusal(400, "a stream answers one prompt", param="stream", code="unsupported_parameter")
    turns.within([{"role": "user", "content": text} for text in texts], service.limits)
    asked: list[Any] = texts if choice.raw else [Question("served", text) for text in texts]
    return await _answer(service, Order(want, choice, asked, {}, chat=False), request)


async def _answer(service: Service, order: Order, request: Request) -> Response:
    if ignored := order.want.ignored():
        order.told["ignored"] = ignored
    _queue(service, order)
    if order.want.stream:
        return await _streamed(service, order, request)
    try:
        replies = [
            _reply(await unless_gone(ear.next(), request.receive, order.leave)) for ear in order.ears
        ]  # fmt: skip
    except Refusal:
        order.leave()
        raise
    service.meters.counted(order.choice.id, replies)
    extra = [await _ours(order, reply) for reply in replies]
    if broken := _broken(order, replies[0], extra[0]):
        raise broken
    return JSONResponse(Shape.fresh(order.choice, order.chat).whole(replies, extra))


def _queue(service: Service, order: Order) -> None:
    """Give the clerk a ticket for each thing asked; Busy takes back those that found room."""
    sampling, limit = order.want.sampling(service.limits), service.limits.max_tokens
    wanted = order.want.length or service.session.plan.max_new_tokens
    if wanted > limit:  # editors ask for thousands by default: they are told what they get
        order.told["max_tokens"] = limit
    for asked in order.asked:
        ear = Ear(service.limits.seconds)
        ticket = Ticket(
            order.choice, asked, ear.hear, ear.hear, min(wanted, limit), sampling, plain=order.form is not None,
            pieces=bool(order.want.stream) and order.form is None, seconds=service.limits.seconds,
        )  # fmt: skip
        try:
            service.clerk.put(ticket)
        except Exception:
            order.leave()
            raise
        order.ears.append(ear)
        order.tickets.append(ticket)


async def _streamed(service: Service, order: Order, request: Request) -> Response:
    """Begin a stream at its first words; what goes wrong before them has a status of its own."""
    try:
        first = await unless_gone(order.ears[0].next(FIRST), request.receive, lambda: None)
    except TimeoutError:
        first = ""
    except BaseException:
        order.leave()
        raise
    if isinstance(first, Exception):
        order.leave()
        raise refusal(first)
    return _Stream(
        order, _events(service, order, first), ping=BEAT, send_timeout=SLOW, sep="\n",
        ping_message_factory=lambda: ServerSentEvent(comment="still here"),
    )  # fmt: skip


class _Stream(EventSourceResponse):
    """A stream that tells the clerk when it is over: also where its client leaves before the first event."""

    def __init__(self, order: Order, events: AsyncIterator[dict[str, str]], **more: Any) -> None:
        super().__init__(events, **more)
        self._order = order

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Send the events, for as long as the client is there."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._order.leave()


async def _events(service: Service, order: Order, first: Any) -> AsyncIterator[dict[str, str]]:
    shape = Shape.fresh(order.choice, order.chat)
    yield _data(shape.opening(), order)
    heard = first
    while isinstance(heard, str):
        if heard:
            yield _data(shape.piece(heard), order)
        heard = await order.ears[0].next()
    if isinstance(heard, Exception):
        yield {"data": json.dumps(refusal(heard).body)}
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


def _data(body: dict[str, Any], order: Order) -> dict[str, str]:
    return {"data": json.dumps({**body, "usage": None} if order.want.with_usage else body)}


def _reply(heard: Any) -> Reply:
    if isinstance(heard, Exception):
        raise refusal(heard)
    assert isinstance(heard, Reply)
    return heard


async def _ours(order: Order, reply: Reply) -> dict[str, Any]:
    found = ours(reply, order.choice, order.told)
    if order.form:
        fault = await asyncio.to_thread(order.form.fault, reply.text)
        found["response_format"] = {"checked": True, "valid": not fault, "fault": fault or None}
    return found


def _broken(order: Order, reply: Reply, extra: dict[str, Any]) -> Refusal | None:
    """What is said of an answer that had to be of a form and is not; a refusal need not be of any."""
    fault = extra["response_format"]["fault"] if order.form and order.form.strict else None
    if not fault or extra.get("refused"):
        return None
    return Refusal(
        422, f"the answer is not the JSON that was asked for: {fault}", param="response_format",
        code="response_format_not_met", more={"x_tunewise": {**extra, "answer": reply.text}},
    )  # fmt: skip
