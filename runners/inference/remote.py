"""Generation by an OpenAI-compatible server: concurrent requests, streaming, counts of tokens."""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Callable, Container, Mapping, Sequence
from collections.abc import Generator as Running
from dataclasses import replace
from typing import Any, Protocol

from rag.errors import CannotRun
from runners.data.formats import Message
from runners.data.reasoning import TAGS, ReasoningSplitter
from runners.inference.constraints.constraint import OutputConstraint
from runners.inference.http_client import (
    NO_DEADLINE,
    HttpClient,
    OnNote,
    RequestCaller,
    RequestLimits,
)
from runners.inference.servers.dialect import FORM_FIELD
from runners.inference.servers.pool import ServerPool
from runners.inference.streaming import TextStream
from runners.inference.types import (
    GREEDY,
    Completion,
    CompletionStream,
    Sampling,
    ToolCall,
    check_max_new_tokens,
)
from runners.models import endpoint
from runners.plan.steps import Thinking
from runners.tokenization.token_estimate import estimate_tokens

REASONING_FIELDS = ("reasoning_content", "reasoning")
"""Fields of a message that hold its reasoning; they are never part of the answer."""


class RequestMeter(Protocol):
    """Counts paid requests: each is reserved, then settled by the tokens of its answer, or released."""

    def reserve(self, prompt_tokens: int, most_tokens: int) -> float:
        """Return the USD that a request can cost at most; SpendingLimit where that is more than is left."""
        ...

    def settle(self, reserved: float, prompt_tokens: int, completion_tokens: int) -> None:
        """Count an answer."""
        ...

    def release(self, reserved: float) -> None:
        """Free what was reserved for a request without an answer."""
        ...


class RemoteGenerator:
    """A model behind an OpenAI-compatible ``URL/chat/completions``.

    Greedy means temperature 0 with the seed sent, which is as much as can be requested: whether the same question gets
    the same answer is up to the server. Errors are those of :class:`runners.inference.http_client.HttpClient`.
    """

    def __init__(
        self,
        url: str,
        name: str,
        limits: RequestLimits | None = None,
        seed: int = 0,
        key: str | None = None,
        on_note: OnNote = None,
        thinking: Thinking = Thinking(),
        pool: ServerPool | None = None,
    ) -> None:
        """Prepare a generator that connects at the first request.

        Args:
            url: Address of the API, without ``/chat/completions``.
            name: Name of the model.
            limits: Concurrency, rate, timeouts and retries; None for the defaults.
            seed: Seed that is sent with greedy requests.
            key: API key; None for the one in the environment that belongs to the host of the URL.
            on_note: Called for each retry, and for each parameter that the server does not accept.
            thinking: How many tokens a model that reasons before it answers may use for that.
            pool: Several servers that have the model, asked in place of the URL.
        """
        self.thinking = thinking
        self._reasons = endpoint.reasons_by_name(name)
        self._on_note = on_note
        self._noted_form = False
        self.name = name
        self.seed = seed
        self.limits = limits or RequestLimits()
        self.meter: RequestMeter | None = None
        """Counts what answers cost, and keeps a limit; None where they are not paid for. Streams are not counted."""
        self._client: HttpClient | ServerPool
        if pool is not None:
            self._client = pool
            return
        secret = endpoint.api_key(url).value if key is None else key
        if key is None and on_note and (unused := endpoint.unused_key_note(url)):
            on_note(unused)
        self._client = HttpClient(url, name, self.limits, secret, on_note)

    @property
    def retries(self) -> int:
        """Number of requests sent again so far."""
        return self._client.retries

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def count_tokens(self, text: str) -> int:
        """Return the estimated tokens of a text: servers have no common call that counts them."""
        return estimate_tokens(text)

    def generate(
        self,
        chats: Sequence[Sequence[Message]],
        max_new_tokens: int,
        on_batch: Callable[[list[int], list[Completion]], None] | None = None,
        sampling: Sampling = GREEDY,
        *,
        known: Container[int] = (),
        constraint: OutputConstraint | None = None,
    ) -> list[Completion]:
        """Answer every chat whose index is not `known`, several at a time; `on_batch` is called with each answer.

        A server is asked for JSON of a schema by ``response_format``; it is held to no other ``constraint``. After a failure
        nothing more is sent; requests in progress are completed and reported, then the failure is raised.
        """
        check_max_new_tokens(max_new_tokens)
        form = self._form_of(constraint)
        positions = [position for position in range(len(chats)) if position not in known]
        return answer_at_once(
            positions,
            lambda position: self._answer(chats[position], max_new_tokens, sampling, form),
            self.limits.at_once,
            on_batch,
        )

    def answer_or_call(
        self,
        chat: Sequence[Message],
        max_new_tokens: int,
        tools: Sequence[Mapping[str, Any]],
        caller: RequestCaller = NO_DEADLINE,
        constraint: OutputConstraint | None = None,
    ) -> Completion:
        """Answer one chat, or with tools ask for calls of them, which are in ``calls`` of what is returned.

        Args:
            chat: the turns; those of calls and results as OpenAI's format has them.
            max_new_tokens: most tokens of the answer, or of what asks for calls.
            tools: the definitions of the tools, of which the model has to call one; () for an answer.
            caller: who waits for it.
            constraint: what the text may be.
        """
        check_max_new_tokens(max_new_tokens)
        form = self._form_of(constraint)
        if tools:
            form |= {"tools": list(tools), "tool_choice": "required"}
        return self._answer(chat, max_new_tokens, GREEDY, form, caller)

    def stream(
        self,
        chat: Sequence[Message],
        max_new_tokens: int,
        sampling: Sampling = GREEDY,
        caller: RequestCaller = NO_DEADLINE,
        *,
        constraint: OutputConstraint | None = None,
    ) -> CompletionStream:
        """Answer one chat piece by piece; nothing is sent, or sent again, once the caller no longer waits."""
        check_max_new_tokens(max_new_tokens)
        form = self._form_of(constraint)
        return CompletionStream(self._stream(chat, max_new_tokens, sampling, caller, form))

    def _answer(
        self,
        chat: Sequence[Message],
        limit: int,
        sampling: Sampling,
        form: dict[str, Any],
        caller: RequestCaller = NO_DEADLINE,
    ) -> Completion:
        """Send a chat and return the answer; once more, with room for it, where reasoning used up all tokens."""
        answer, reasoned = self._metered(chat, limit, sampling, form, caller)
        if answer.reasoning_cut and reasoned and not self._reasons:
            self._learn_that_it_reasons()
            again, _ = self._metered(chat, limit, sampling, form, caller)
            return replace(
                again,
                completion_tokens=answer.completion_tokens + again.completion_tokens,
                reasoning_tokens=answer.reasoning_tokens + again.reasoning_tokens,
                seconds=answer.seconds + again.seconds,
            )
        return answer

    def _metered(
        self,
        chat: Sequence[Message],
        limit: int,
        sampling: Sampling,
        form: dict[str, Any],
        caller: RequestCaller,
    ) -> tuple[Completion, bool]:
        """Send a chat once and return what :meth:`_read` does; a paid request is counted, and not sent beyond the limit."""
        request = {**self._body(chat, limit, sampling), **form}
        meter = self.meter
        if meter is None:
            return self._read(*self._client.object(request, caller), chat)
        most = int(request.get("max_completion_tokens") or request["max_tokens"])
        more = [turn["tool_calls"] for turn in chat if "tool_calls" in turn] + [form.get("tools", "")]
        texts = [*(turn["content"] for turn in chat), *map(str, more)]
        reserved = meter.reserve(sum(map(estimate_tokens, texts)), most)
        try:
            answer, reasoned = self._read(*self._client.object(request, caller), chat)
        except BaseException:
            meter.release(reserved)
            raise
        meter.settle(reserved, answer.prompt_tokens, answer.completion_tokens)
        return answer, reasoned

    def _read(self, body: dict[str, Any], seconds: float, chat: Sequence[Message]) -> tuple[Completion, bool]:
        """Return the answer in a response, and whether the server sent reasoning."""
        choice = self._choice(body)
        message = choice.get("message")
        fields = message if isinstance(message, dict) else {}
        pieces = self._pieces()
        if any(fields.get(name) for name in REASONING_FIELDS):
            pieces.assume_answer()
        pieces.write(str(fields.get("content") or ""))
        finish = choice.get("finish_reason")
        answer, reasoned = self._finished(pieces, fields, chat, body.get("usage"), seconds, finish)
        calls = _calls(fields.get("tool_calls"))
        return (replace(answer, calls=calls) if calls else answer), reasoned

    def _stream(
        self,
        chat: Sequence[Message],
        limit: int,
        sampling: Sampling,
        caller: RequestCaller,
        form: dict[str, Any],
    ) -> Running[str, None, Completion]:
        """Send a chat and yield the pieces of the answer; return the whole answer."""
        started = time.perf_counter()
        more = {**form, "stream": True, "stream_options": {"include_usage": True}}
        pieces = self._pieces()
        usage, finish = None, None
        fields: dict[str, Any] = {}
        for event in self._client.events({**self._body(chat, limit, sampling), **more}, caller):
            usage = event.get("usage") or usage
            if not event.get("choices"):
                continue
            choice = self._choice(event)
            finish = choice.get("finish_reason") or finish
            delta = choice.get("delta")
            part = delta if isinstance(delta, dict) else {}
            if any(part.get(name) for name in REASONING_FIELDS):
                fields = part
                pieces.assume_answer()
            if piece := pieces.write(str(part.get("content") or "")):
                yield piece
        before = len(pieces.text)
        seconds = time.perf_counter() - started
        answer, reasoned = self._finished(pieces, fields, chat, usage, seconds, finish)
        if rest := answer.text[before:]:
            yield rest
        if answer.reasoning_cut and reasoned and not self._reasons:
            self._learn_that_it_reasons()  # nothing was shown yet
            return (yield from self._stream(chat, limit, sampling, caller, form))
        return answer

    def _form_of(self, constraint: OutputConstraint | None) -> dict[str, Any]:
        """Return the parameter that asks for a form, {} without one; what cannot be asked for is noted once."""
        if constraint is None:
            return {}
        if constraint.kind == "json_schema" and not constraint.also:
            # Spaces and escapes are settings of the local decoder.
            schema = {key: value for key, value in constraint.schema.items() if key != "x-guidance"}
            form = {"name": "answer", "schema": schema, "strict": False}
            return {FORM_FIELD: {"type": "json_schema", "json_schema": form}}
        if self._on_note and not self._noted_form:
            what = {"labels": "labels", "regex": "a pattern"}.get(constraint.kind, "JSON or a refusal")
            self._on_note(
                f"{self.name} is not constrained to the form of the plan's checks: an endpoint is not asked for {what}"
            )
        self._noted_form = True
        return {}

    def _pieces(self) -> TextStream:
        """Return the stream that cuts the reasoning from a text; no token is ever decoded: the server sends text."""
        # A server without a parser for it sends the reasoning in the text, where the prompt may have opened it.
        closing = TAGS[0].closing if self._reasons == "open" else ""
        return TextStream(lambda tokens: "", reasoning=ReasoningSplitter(closing, maybe=True))

    def _learn_that_it_reasons(self) -> None:
        """Give the following requests room for reasoning."""
        self._reasons = "hosted"
        if self._on_note:
            self._on_note(
                f"{self.name} reasons before it answers: it gets {self.thinking.max_tokens} more tokens, "
                "the plan's thinking.max_tokens"
            )

    def _finished(
        self,
        pieces: TextStream,
        fields: dict[str, Any],
        chat: Sequence[Message],
        usage: Any,
        seconds: float,
        finish: Any,
    ) -> tuple[Completion, bool]:
        """Return the whole answer, and whether the server sent reasoning.

        Args:
            pieces: the text so far.
            fields: the fields of the message, which may hold the reasoning.
            chat: the chat that was sent.
            usage: the server's counts.
            seconds: time of the request.
            finish: the server's reason for the end.
        """
        if finish == "length" and pieces.inside_reasoning:
            pieces.drop_reasoning()  # cut inside what is most likely reasoning: it must not become the answer
        unfinished = pieces.inside_reasoning
        pieces.rest()
        answer = self._completion(pieces.text, chat, usage, seconds, finish)
        apart = any(fields.get(name) for name in REASONING_FIELDS)
        reasoned = apart or unfinished or pieces.has_reasoning or answer.reasoning_tokens > 0
        cut = not answer.text and answer.finish == "length" and reasoned
        return replace(answer, reasoning_cut=cut), reasoned

    def _body(self, chat: Sequence[Message], limit: int, sampling: Sampling) -> dict[str, Any]:
        """Return the body of a request for chat completions."""
        # The limit of a model that reasons counts its reasoning too; OpenAI's take it by the newer name alone.
        room = self.thinking.max_tokens if self._reasons else 0
        body: dict[str, Any] = {
            "model": self.name,
            "messages": [dict(message) for message in chat],
            "max_completion_tokens" if self._reasons else "max_tokens": limit + room,
            "temperature": sampling.temperature,
            "seed": self.seed if sampling.greedy else sampling.seed,
        }
        if sampling.top_p < 1:
            body["top_p"] = sampling.top_p
        return {**body, "stop": list(sampling.stop)} if sampling.stop else body

    def _choice(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return the first choice of an answer or of an event; CannotRun without one."""
        choices = body.get("choices")
        if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
            raise CannotRun(
                f"{self._client.server} sent an answer without choices", "is it an OpenAI-compatible server?"
            )
        return choices[0]

    def _completion(
        self, text: str, chat: Sequence[Message], usage: Any, seconds: float, finish: Any
    ) -> Completion:
        """Return an answer with the server's counts of tokens, estimated where it gives none."""
        counts = usage if isinstance(usage, dict) else {}
        prompt_tokens, completion_tokens = counts.get("prompt_tokens"), counts.get("completion_tokens")
        estimated = not (isinstance(prompt_tokens, int) and isinstance(completion_tokens, int))
        if estimated:
            prompt_tokens = sum(self.count_tokens(str(message["content"])) for message in chat)
            completion_tokens = self.count_tokens(text)
        details = counts.get("completion_tokens_details")
        reasoning = details.get("reasoning_tokens") if isinstance(details, dict) else None
        reasoning_tokens = reasoning if isinstance(reasoning, int) else 0
        completion = int(completion_tokens or 0)
        # Some servers (xAI) count the reasoning apart from the completion; it is charged like the answer.
        if counts.get("total_tokens") == int(prompt_tokens or 0) + completion + reasoning_tokens:
            completion += reasoning_tokens
        return Completion(
            text,
            int(prompt_tokens or 0),
            completion,
            seconds,
            str(finish or "stop"),
            estimated,
            reasoning_tokens=reasoning_tokens,
        )


def answer_at_once(
    positions: Sequence[int],
    answer: Callable[[int], Completion],
    at_once: int,
    on_batch: Callable[[list[int], list[Completion]], None] | None = None,
) -> list[Completion]:
    """Return the answers at some positions, several asked for at a time; `on_batch` is called with each.

    After a failure nothing more is asked for; what is in progress is completed and reported, then the failure is raised.

    Args:
        positions: the positions.
        answer: returns the answer at one; called on threads.
        at_once: most calls in progress.
        on_batch: as of :meth:`runners.inference.types.Generator.generate`; called on this thread.
    """
    todo: queue.SimpleQueue[int] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[int, Completion | BaseException | None]] = queue.SimpleQueue()
    stop = threading.Event()

    def work() -> None:
        while True:
            try:
                position = todo.get_nowait()
            except queue.Empty:
                return
            try:
                # After a failure the remaining ones are skipped.
                done.put((position, None if stop.is_set() else answer(position)))
            except BaseException as error:
                stop.set()
                done.put((position, error))

    for position in positions:
        todo.put(position)
    for _ in range(min(at_once, len(positions))):
        # Daemon threads, because an interrupted run must not wait for a server's answers.
        threading.Thread(target=work, daemon=True, name="ask").start()
    answers: dict[int, Completion] = {}
    failure: BaseException | None = None
    try:
        for _ in positions:
            position, outcome = done.get()
            if isinstance(outcome, Completion):
                answers[position] = outcome
                if on_batch:
                    on_batch([position], [outcome])
            else:
                failure = failure or outcome
        if failure is not None:
            raise failure
        return [answers[position] for position in positions]
    except KeyboardInterrupt:
        while on_batch and not done.empty():  # answered before it was interrupted, and paid for
            position, outcome = done.get()
            if isinstance(outcome, Completion):
                on_batch([position], [outcome])
        raise
    finally:
        stop.set()


def _calls(sent: Any) -> tuple[ToolCall, ...]:
    """Return the calls of a message's ``tool_calls``; what is none of OpenAI's format becomes a call without a name."""
    calls = []
    for entry in sent if isinstance(sent, list) else ():
        fields = entry if isinstance(entry, dict) else {}
        function = fields.get("function")
        function = function if isinstance(function, dict) else {}
        arguments = function.get("arguments")
        text = arguments if isinstance(arguments, str) else json.dumps(arguments)
        calls.append(ToolCall(str(fields.get("id") or ""), str(function.get("name") or ""), text))
    return tuple(calls)
