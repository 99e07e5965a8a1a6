"""Generation by an OpenAI-compatible server: concurrent requests, streaming, counts of tokens."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Container, Sequence
from collections.abc import Generator as Running
from typing import Any

from rag.errors import CannotRun
from runners.data.formats import Message
from runners.inference.http_client import NO_DEADLINE, HttpClient, OnNote, RequestCaller, RequestLimits
from runners.inference.streaming import TextStream
from runners.inference.types import GREEDY, Completion, CompletionStream, Sampling, check_max_new_tokens
from runners.models import endpoint
from runners.tokenization.token_estimate import estimate_tokens


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
    ) -> None:
        """Prepare a generator that connects at the first request.

        Args:
            url: Address of the API, without ``/chat/completions``.
            name: Name of the model.
            limits: Concurrency, rate, timeouts and retries; None for the defaults.
            seed: Seed that is sent with greedy requests.
            key: API key; None for the one in the environment that belongs to the host of the URL.
            on_note: Called for each retry, and for each parameter that the server does not accept.
        """
        self.name = name
        self.seed = seed
        self.limits = limits or RequestLimits()
        secret = endpoint.api_key(url).value if key is None else key
        if key is None and on_note and (unused := endpoint.unused_key_note(url)):
            on_note(unused)
        self._client = HttpClient(f"{url.rstrip('/')}/chat/completions", name, self.limits, secret, on_note)

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
    ) -> list[Completion]:
        """Answer every chat whose index is not `known`, several at a time; `on_batch` is called with each answer.

        After a failure nothing more is sent; requests in progress are completed and reported, then the failure is raised.
        """
        check_max_new_tokens(max_new_tokens)
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
                    # After a failure the remaining chats are skipped.
                    skipped = stop.is_set()
                    answer = None if skipped else self._answer(chats[position], max_new_tokens, sampling)
                    done.put((position, answer))
                except BaseException as error:
                    stop.set()
                    done.put((position, error))

        positions = [position for position in range(len(chats)) if position not in known]
        for position in positions:
            todo.put(position)
        for _ in range(min(self.limits.at_once, len(positions))):
            # Daemon threads, because an interrupted run must not wait for a server's answers.
            threading.Thread(target=work, daemon=True, name=f"ask-{self.name}").start()
        try:
            return self._collect(done, positions, on_batch)
        finally:
            stop.set()

    def stream(
        self,
        chat: Sequence[Message],
        max_new_tokens: int,
        sampling: Sampling = GREEDY,
        caller: RequestCaller = NO_DEADLINE,
    ) -> CompletionStream:
        """Answer one chat piece by piece; nothing is sent, or sent again, once the caller no longer waits."""
        check_max_new_tokens(max_new_tokens)
        return CompletionStream(self._stream(chat, max_new_tokens, sampling, caller))

    def _collect(
        self,
        done: queue.SimpleQueue[tuple[int, Completion | BaseException | None]],
        positions: Sequence[int],
        on_batch: Callable[[list[int], list[Completion]], None] | None,
    ) -> list[Completion]:
        """Return the answers in order as the threads finish them; raise the first failure when all have ended."""
        answers: dict[int, Completion] = {}
        failure: BaseException | None = None
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

    def _answer(self, chat: Sequence[Message], limit: int, sampling: Sampling) -> Completion:
        """Send a chat and return the answer."""
        body, seconds = self._client.object(self._body(chat, limit, sampling))
        choice = self._choice(body)
        message = choice.get("message")
        text = str((message.get("content") if isinstance(message, dict) else None) or "").strip()
        return self._completion(text, chat, body.get("usage"), seconds, choice.get("finish_reason"))

    def _stream(
        self, chat: Sequence[Message], limit: int, sampling: Sampling, caller: RequestCaller
    ) -> Running[str, None, Completion]:
        """Send a chat and yield the pieces of the answer; return the whole answer."""
        started = time.perf_counter()
        more = {"stream": True, "stream_options": {"include_usage": True}}
        pieces = TextStream(lambda tokens: "")  # the server sends text, so no token is ever decoded
        usage, finish = None, None
        for event in self._client.events({**self._body(chat, limit, sampling), **more}, caller):
            usage = event.get("usage") or usage
            if not event.get("choices"):
                continue
            choice = self._choice(event)
            finish = choice.get("finish_reason") or finish
            delta = choice.get("delta")
            text = str((delta.get("content") if isinstance(delta, dict) else None) or "")
            if piece := pieces.write(text):
                yield piece
        if piece := pieces.rest():
            yield piece
        return self._completion(pieces.text, chat, usage, time.perf_counter() - started, finish)

    def _body(self, chat: Sequence[Message], limit: int, sampling: Sampling) -> dict[str, Any]:
        """Return the body of a request for chat completions."""
        body: dict[str, Any] = {
            "model": self.name,
            "messages": [dict(message) for message in chat],
            "max_tokens": limit,
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
        finish_reason = str(finish or "stop")
        return Completion(
            text, int(prompt_tokens or 0), int(completion_tokens or 0), seconds, finish_reason, estimated
        )
