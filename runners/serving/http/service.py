"""What the handlers share: the opened run, the clerk, the names that can be asked, limits and meters.

How much one request may ask for, and how long it may take.

Between the clerk's thread and the event loop: what is said of one request, and whether its client is still there.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from rag.text.sanitize import single_line
from runners.runs.run import RunSession
from runners.serving.http.errors import ApiError
from runners.serving.http.metrics import ServerMetrics
from runners.serving.request import RequestResult, RequestTimeout
from runners.serving.served_models import ServedModel
from runners.serving.worker import BatchingWorker


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """What is refused beyond; every refusal names the limit."""

    body_bytes: int = 1 << 20
    messages: int = 256
    characters: int = 100_000
    """Of all messages together, of a prompt, of a question, or of all texts to embed."""
    max_tokens: int = 1024
    """Longest answer that is made, whatever is asked for."""
    inputs: int = 256
    """Texts in one embeddings request."""
    prompts: int = 16
    """Prompts in one completions request."""
    stops: int = 4
    seconds: float = 120.0
    """From the request to the end of its answer, waiting included."""
    body_seconds: float = 10.0
    """For a request's body to arrive."""
    per_minute: int = 0
    """Requests a minute from one address; 0 is no limit."""


GRACE_PERIOD_SECONDS = 2.0
"""Seconds after a request's time in which the clerk may still end its answer, at the next token."""


class EventLoopBridge:
    """Hears a ticket's pieces and end, in order, on the event loop that it was made on."""

    def __init__(self, seconds: float = math.inf) -> None:
        """Listen from now on, for so many seconds and the grace."""
        self._until = time.monotonic() + seconds + GRACE_PERIOD_SECONDS
        self._loop = asyncio.get_running_loop()
        self._heard: asyncio.Queue[str | RequestResult | Exception | Any] = asyncio.Queue()

    def hear(self, what: Any) -> None:
        """Take a piece or the end; from any thread."""
        with suppress(RuntimeError):  # the loop has ended, and with it whoever listened
            self._loop.call_soon_threadsafe(self._heard.put_nowait, what)

    async def next(self, seconds: float = math.inf) -> Any:
        """Return what was heard next, Late when all the time is over; TimeoutError when nothing was heard."""
        if not self._heard.empty():
            return self._heard.get_nowait()
        left = self._until - time.monotonic()
        try:
            return await asyncio.wait_for(self._heard.get(), min(seconds, left))
        except TimeoutError:
            if left <= seconds:
                return RequestTimeout()
            raise


async def until_disconnected(
    wanted: Awaitable[Any], receive: Callable[[], Awaitable[Any]], leave: Callable[[], None]
) -> Any:
    """Await something for a client; when the client goes before it is there, call `leave` and raise Gone."""

    async def gone() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    waiting, watching = asyncio.ensure_future(wanted), asyncio.ensure_future(gone())
    try:
        await asyncio.wait((waiting, watching), return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            raise ClientDisconnected
        return waiting.result()
    except BaseException:
        leave()
        raise
    finally:
        for task in (waiting, watching):
            task.cancel()


class ClientDisconnected(Exception):
    """The client has closed the connection: nobody is there to be answered."""


@dataclass(frozen=True)
class Service:
    """One run, being served."""

    session: RunSession
    clerk: BatchingWorker
    choices: Mapping[str, ServedModel]
    """What `model` may name, the default first."""
    limits: ServerLimits = field(default_factory=ServerLimits)
    meters: ServerMetrics = field(default_factory=ServerMetrics)

    @property
    def embedder(self) -> str | None:
        """The embedder's id, None for a run without."""
        model = self.session.context.embedder_model
        if model is None:
            return None
        return model.folder.name if model.source == "path" else model.name

    def choice(self, name: str | None) -> ServedModel:
        """What a request's `model` means; by default the verdict's arm."""
        if name is None:
            return next(iter(self.choices.values()))
        if name not in self.choices:
            raise unknown_served_model(name, ", ".join(self.choices))
        return self.choices[name]

    def models(self) -> dict[str, Any]:
        """The body of /v1/models."""
        rows = [
            {
                "id": choice.id,
                "object": "model",
                "created": choice.created,
                "owned_by": "tunewise",
                "root": choice.root,
                "parent": choice.parent,
                "x_tunewise": self._about(choice),
            }
            for choice in self.choices.values()
        ]
        if self.embedder:
            made = next(iter(self.choices.values())).created
            rows.append(
                {
                    "id": self.embedder,
                    "object": "model",
                    "created": made,
                    "owned_by": "tunewise",
                    "root": self.embedder,
                    "parent": None,
                    "x_tunewise": {"kind": "embedder"},
                }
            )
        return {"object": "list", "data": rows}

    def _about(self, choice: ServedModel) -> dict[str, Any]:
        if choice.raw:
            return {"kind": "adapter" if choice.parent else "base"}
        step = choice.step
        return {"kind": "arm", "retrieval": step.retrieval, "shots": step.shots, "weights": step.weights}


def unknown_served_model(name: str, known: str) -> ApiError:
    """A model that nobody here has."""
    return ApiError(
        404,
        f"there is no model {single_line(name)!r} here; there are: {known}",
        param="model",
        code="model_not_found",
    )
