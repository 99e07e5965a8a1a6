"""Chat completions and completions: requests are read, queued, and answered whole or as server-sent events.

`chat_completion` and `text_completion` are the handlers. `messages_for_model` turns the messages of a request into
the question of an arm, or into the chat of a raw model.
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
from runners.inference.constraints.constraint import OutputConstraint
from runners.logs.question_log import QuestionLog
from runners.serving.http.errors import ApiError, as_api_error
from runners.serving.http.json_schema import ResponseFormat, response_format
from runners.serving.http.request_models import ChatRequest, CompletionRequest, RequestMessage, SamplingFields
from runners.serving.http.responses import ResponseIdentity, x_tunewise_body
from runners.serving.http.service import EventLoopBridge, ServerLimits, Service, until_disconnected
from runners.serving.request import AnswerRequest, RequestResult
from runners.serving.served_models import ServedModel

ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
"""The roles that a message may have, and what they are to a model."""
FIRST_PIECE_SECONDS = 5.0
"""Seconds to wait for the first text before the status is sent: until then an error has its own status."""
KEEPALIVE_SECONDS = 15
"""Seconds between keep-alive comments of a stream that has no text to send."""
SLOW_SECONDS = 30.0
"""Seconds that a client may take to read an event."""


@dataclass
class ParsedRequest:
    """A request after validation: what the model is asked, and the form of the response."""

    body: SamplingFields
    model: ServedModel
    prompts: list[Question | tuple[Message, ...] | str]
    notes: dict[str, Any]
    """Keys for `x_tunewise`, such as the fields that were ignored."""
    response_format: ResponseFormat | None = None
    constraint: OutputConstraint | None = None
    """What a model of this process is held to; None where the response has no form, or is only checked."""
    chat: bool = True
    chat_turns: list[Message] = field(default_factory=list)
    """The messages of a chat as they came; [] where prompts are texts."""
    results: list[RequestResult] = field(default_factory=list)
    """The answers that came, in the order of the prompts."""
    log: QuestionLog | None = None
    """Where the request is still to be written."""
    bridges: list[EventLoopBridge] = field(default_factory=list)
    """Where the results of the queued requests arrive, one for each prompt."""
    queued: list[AnswerRequest] = field(default_factory=list)

    def cancel(self) -> None:
        """Tell the worker that the answers are no longer needed."""
        for request in self.queued:
            request.cancelled = True


async def chat_completion(service: Service, body: ChatRequest, request: Request) -> Response:
    """Answer a chat completion."""
    body.refuse_unsupported()
    model = service.find_model(body.model)
    messages = read_messages(body.messages, service.limits)
    prompt, notes = messages_for_model(messages, model)
    # The cost of checking a client's schema is bounded, but too high to block the event loop for.
    form = await asyncio.to_thread(response_format, body.response_format) if body.response_format else None
    constraint = await _constraint(service, form, model) if form else None
    parsed = ParsedRequest(body, model, [prompt], notes, form, constraint, chat_turns=messages)
    return await _answer(service, parsed, request)


async def text_completion(service: Service, body: CompletionRequest, request: Request) -> Response:
    """Answer a completion: a raw model continues the text, an arm answers it as a question."""
    body.refuse_unsupported()
    model = service.find_model(body.model)
    texts = [body.prompt] if isinstance(body.prompt, str) else body.prompt
    if not 1 <= len(texts) <= service.limits.prompts or not all(text.strip() for text in texts):
        raise ApiError(400, f"prompt takes 1 to {service.limits.prompts} texts, none empty", param="prompt")
    if body.stream and len(texts) > 1:
        raise ApiError(400, "a stream answers one prompt", param="stream", code="unsupported_parameter")
    check_length([{"role": "user", "content": text} for text in texts], service.limits)
    prompts: list[Any] = texts if model.raw else [Question("served", text) for text in texts]
    return await _answer(service, ParsedRequest(body, model, prompts, {}, chat=False), request)


async def _constraint(service: Service, form: ResponseFormat, model: ServedModel) -> OutputConstraint | None:
    """Return what a model is held to; None for one that is not decoded here, whose answers are only checked."""
    if not model.local:
        return None
    refusals = service.session.plan.prompts.refusals if model.step.retrieval and not model.raw else ()
    async with service.schema_checks:
        return await asyncio.to_thread(form.enforced, refusals)


def read_messages(messages: Sequence[RequestMessage], limits: ServerLimits) -> list[Message]:
    """Convert a request's messages to plain messages.

    Raises:
        ApiError: too many or too long messages, an unknown role, or content that is no text; it names the field.
    """
    if len(messages) > limits.messages:
        raise ApiError(
            413,
            f"{len(messages)} messages; at most {limits.messages} are read",
            param="messages",
            code="too_many_messages",
        )
    plain: list[Message] = []
    for number, message in enumerate(messages):
        param = f"messages[{number}]"
        role = ROLES.get(message.role)
        if role is None:
            raise ApiError(400, f"{param}: the role {message.role!r} is not supported", param=f"{param}.role")
        for name in ("tool_calls", "function_call"):
            if (message.model_extra or {}).get(name):
                raise ApiError(400, f"{param}: {name} are not supported", param=f"{param}.{name}")
        plain.append({"role": role, "content": _text_content(message, param)})
    return check_length(plain, limits)


def check_length(messages: list[Message], limits: ServerLimits) -> list[Message]:
    """Return the messages; raise `ApiError` when their total length is over the limit."""
    size = sum(len(message["content"]) for message in messages)
    if size > limits.characters:
        raise ApiError(
            413, f"{size:,} characters; at most {limits.characters:,} are read", code="message_too_long"
        )
    return messages


def messages_for_model(
    messages: Sequence[Message], model: ServedModel
) -> tuple[Question | tuple[Message, ...], dict[str, Any]]:
    """Return what the model is asked, and notes on it for the client.

    A raw model gets the chat as it came. An arm gets the last user message as its question; a system message replaces
    the plan's instructions. With retrieval the passages are the context: earlier messages are not shown, but a
    follow-up question is rewritten to stand alone, as in `tunewise chat`. A model that looks things up itself is shown them.

    Raises:
        ApiError: the last message is empty or not the user's.
    """
    if model.raw:
        return tuple(messages), {}
    notes: dict[str, Any] = {}
    system = "\n\n".join(m["content"] for m in messages if m["role"] == "system").strip()
    turns = [m for m in messages if m["role"] != "system"]
    if turns and turns[-1]["role"] == "user" and not turns[-1]["content"].strip():
        raise ApiError(400, "the last message, which is the question, is empty", param="messages")
    if not turns or turns[-1]["role"] != "user":
        raise ApiError(
            400, f"{model.id} answers a question: the last message must be the user's", param="messages"
        )
    if system:
        notes["instructions"] = "the request's system message was used in place of the plan's"
    question, history = turns[-1]["content"], tuple(turns[:-1])
    if model.step.retrieval and not model.looks_up and history:
        standalone = ""
        for turn in turns:
            if turn["role"] == "user":
                standalone = stand_alone(turn["content"], standalone)
        notes |= {"asked_as": standalone, "turns_not_shown": len(history)}
        question, history = standalone, ()
    return Question("served", question, system=system or None, history=history), notes


def _text_content(message: RequestMessage, param: str) -> str:
    if message.content is None:
        raise ApiError(400, f"{param} has no content", param=f"{param}.content")
    if isinstance(message.content, str):
        return message.content
    for number, part in enumerate(message.content):
        if part.type != "text" or part.text is None:
            part_param = f"{param}.content[{number}]"
            raise ApiError(400, f"{part_param}: only text is read, not {part.type!r}", param=part_param)
    return "".join(part.text or "" for part in message.content)


async def _answer(service: Service, parsed: ParsedRequest, request: Request) -> Response:
    if ignored := parsed.body.ignored():
        parsed.notes["ignored"] = ignored
    _submit(service, parsed)
    if parsed.body.stream:
        return await _stream_response(service, parsed, request)
    results = parsed.results
    try:
        for bridge in parsed.bridges:
            results.append(_result(await until_disconnected(bridge.next(), request.receive, parsed.cancel)))
    except ApiError:
        parsed.cancel()
        raise
    finally:
        await _write_log(parsed)
    service.metrics.count_tokens(parsed.model.id, results)
    extra = [await _x_tunewise(parsed, result) for result in results]
    if error := _format_error(parsed, results[0], extra[0]):
        raise error
    return JSONResponse(ResponseIdentity.new(parsed.model, parsed.chat).full_body(results, extra))


def _submit(service: Service, parsed: ParsedRequest) -> None:
    """Queue a request for each prompt; when one is refused, those before it are cancelled."""
    sampling = parsed.body.sampling(service.limits)
    limit = service.limits.max_tokens
    # editors ask for thousands by default: the response reports the limit
    if (parsed.body.length or service.session.plan.max_new_tokens) > limit:
        parsed.notes["max_tokens"] = limit
    for prompt in parsed.prompts:
        bridge = EventLoopBridge(service.limits.seconds)
        queued = AnswerRequest(
            parsed.model,
            prompt,
            on_text=bridge.put,
            on_end=bridge.put,
            max_tokens=parsed.body.length,
            most_tokens=limit,
            sampling=sampling,
            plain_text=parsed.response_format is not None,
            constraint=parsed.constraint,
            check=parsed.body.check,
            # JSON that is only checked is sent whole, once it is: clients parse it while it arrives.
            stream=bool(parsed.body.stream)
            and (parsed.response_format is None or parsed.constraint is not None),
            timeout_s=service.limits.seconds,
        )
        try:
            service.worker.submit(queued)
        except Exception:
            parsed.cancel()
            raise
        parsed.bridges.append(bridge)
        parsed.queued.append(queued)
    parsed.log = service.log


async def _write_log(parsed: ParsedRequest) -> None:
    """Write what was asked into the server's log, once, with the answers that came; a full disk stops no answer."""
    if parsed.log is None:
        return
    log, parsed.log = parsed.log, None
    model = parsed.model.id
    for number, prompt in enumerate(parsed.prompts):
        answer = parsed.results[number].text if number < len(parsed.results) else None
        turns = parsed.chat_turns or prompt_turns(prompt)
        # shielded: a client that leaves cancels the handler, and was told that its question is written
        await asyncio.shield(asyncio.to_thread(log.add_or_warn, model, turns, answer))


def prompt_turns(prompt: Question | Sequence[Message] | str) -> list[Message]:
    """Return a prompt as the turns of a chat."""
    if isinstance(prompt, str):
        return [{"role": "user", "content": prompt}]
    if isinstance(prompt, Question):
        return [*prompt.history, {"role": "user", "content": prompt.question}]
    return list(prompt)


async def _stream_response(service: Service, parsed: ParsedRequest, request: Request) -> Response:
    """Begin a stream at its first text; an error before that has a status of its own."""
    try:
        first = await until_disconnected(
            parsed.bridges[0].next(FIRST_PIECE_SECONDS), request.receive, lambda: None
        )
    except TimeoutError:
        first = ""
    except BaseException:
        parsed.cancel()
        await _write_log(parsed)
        raise
    if isinstance(first, Exception):
        parsed.cancel()
        await _write_log(parsed)
        raise as_api_error(first)
    return _EventStream(
        parsed,
        _events(service, parsed, first),
        ping=KEEPALIVE_SECONDS,
        send_timeout=SLOW_SECONDS,
        sep="\n",
        ping_message_factory=lambda: ServerSentEvent(comment="still here"),
    )


class _EventStream(EventSourceResponse):
    """A stream that cancels its request when it is over, also when the client leaves before the first event."""

    def __init__(self, parsed: ParsedRequest, events: AsyncIterator[dict[str, str]], **options: Any) -> None:
        super().__init__(events, **options)
        self._parsed = parsed

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Send the events for as long as the client is connected."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._parsed.cancel()
            await _write_log(self._parsed)


async def _events(service: Service, parsed: ParsedRequest, first: Any) -> AsyncIterator[dict[str, str]]:
    """Yield the events of a stream, from its first text, result or error to `[DONE]`."""
    identity = ResponseIdentity.new(parsed.model, parsed.chat)
    yield _event(identity.first_chunk(), parsed)
    received, sent = first, False
    while isinstance(received, str):
        if received:
            sent = True
            yield _event(identity.text_chunk(received), parsed)
        received = await parsed.bridges[0].next()
    if isinstance(received, Exception):
        yield {"data": json.dumps(as_api_error(received).body)}
    else:
        parsed.results.append(received)
        service.metrics.count_tokens(parsed.model.id, [received])
        extra = await _x_tunewise(parsed, received)
        if error := _format_error(parsed, received, extra):
            yield {"data": json.dumps(error.body)}
        else:
            if parsed.response_format and not sent:  # a refusal, or an answer that was only checked
                yield _event(identity.answer_chunk(received), parsed)
            yield _event(identity.last_chunk(received, extra), parsed)
            if parsed.body.with_usage:
                yield {"data": json.dumps(identity.usage_chunk(received))}
    yield {"data": "[DONE]"}


def _event(body: dict[str, Any], parsed: ParsedRequest) -> dict[str, str]:
    return {"data": json.dumps({**body, "usage": None} if parsed.body.with_usage else body)}


def _result(received: Any) -> RequestResult:
    if isinstance(received, Exception):
        raise as_api_error(received)
    assert isinstance(received, RequestResult)
    return received


async def _x_tunewise(parsed: ParsedRequest, result: RequestResult) -> dict[str, Any]:
    """Build `x_tunewise`, and check the answer against the requested form."""
    body = x_tunewise_body(result, parsed.model, parsed.notes)
    if parsed.response_format:
        fault = await asyncio.to_thread(parsed.response_format.fault, result.text)
        body["response_format"] = {
            "enforced": parsed.constraint is not None,
            "checked": True,
            "valid": not fault,
            "fault": fault or None,
        }
    return body


def _format_error(parsed: ParsedRequest, result: RequestResult, extra: dict[str, Any]) -> ApiError | None:
    """Return the error for an answer that breaks a strict form; a refusal need not have the form."""
    strict = parsed.response_format and parsed.response_format.strict
    fault = extra["response_format"]["fault"] if strict else None
    if not fault or extra.get("refused"):
        return None
    return ApiError(
        422,
        f"the answer is not the JSON that was asked for: {fault}",
        param="response_format",
        code="response_format_not_met",
        extra={"x_tunewise": {**extra, "answer": result.text}},
    )
