"""What the handlers share: the opened run with its worker, models, limits and metrics.

`Service` holds them. `EventLoopBridge` carries the results of a request from the worker's thread to the event loop;
`until_disconnected` notices when the client leaves meanwhile.
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
from runners.logs.question_log import QuestionLog
from runners.runs.opened import OpenRun
from runners.serving.http.errors import ApiError
from runners.serving.http.metrics import ServerMetrics
from runners.serving.request import RequestResult, RequestTimeout
from runners.serving.served_models import ServedModel
from runners.serving.worker import BatchingWorker

GRACE_PERIOD_SECONDS = 2.0
"""Seconds after a request's deadline in which the worker may still end its answer, at the next token."""

MAX_SCHEMA_CHECKS = 2
"""Schemas that are compiled at a time; each may take a processor for seconds."""


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """Limits of one request; an error names the limit that was exceeded."""

    body_bytes: int = 1 << 20
    messages: int = 256
    characters: int = 100_000
    """Of all messages together, of a prompt, of a question, or of all texts to embed."""
    max_tokens: int = 1024
    """Longest answer in tokens, whatever a request asks for."""
    inputs: int = 256
    """Texts in one embeddings request."""
    prompts: int = 16
    """Prompts in one completions request."""
    stops: int = 4
    """Stop texts in one request."""
    seconds: float = 120.0
    """Seconds from a request to the end of its answer, waiting included."""
    body_seconds: float = 10.0
    """Seconds for the body of a request to arrive."""
    per_minute: int = 0
    """Requests a minute from one address; 0 is no limit."""


class EventLoopBridge:
    """Carries a request's pieces and result, in order, from the worker's thread to the event loop it was made on.

    Args:
        seconds: the time limit of the request, from now on; `GRACE_PERIOD_SECONDS` are added.
    """

    def __init__(self, seconds: float = math.inf) -> None:
        """Start the time limit."""
        self._deadline = time.monotonic() + seconds + GRACE_PERIOD_SECONDS
        self._loop = asyncio.get_running_loop()
        self._items: asyncio.Queue[str | RequestResult | Exception | Any] = asyncio.Queue()

    def put(self, item: Any) -> None:
        """Add a piece, the result or the error; from any thread."""
        with suppress(RuntimeError):  # the event loop is closed, so nothing waits for the item
            self._loop.call_soon_threadsafe(self._items.put_nowait, item)

    async def next(self, seconds: float = math.inf) -> Any:
        """Return the next item.

        Args:
            seconds: how long to wait for it.

        Returns:
            The item; a `RequestTimeout` when the request's time limit is over.

        Raises:
            TimeoutError: nothing came within `seconds`.
        """
        if not self._items.empty():
            return self._items.get_nowait()
        left = self._deadline - time.monotonic()
        try:
            return await asyncio.wait_for(self._items.get(), min(seconds, left))
        except TimeoutError:
            if left <= seconds:
                return RequestTimeout()
            raise


class ClientDisconnected(Exception):
    """The client has closed the connection before it was answered."""


async def until_disconnected(
    awaitable: Awaitable[Any], receive: Callable[[], Awaitable[Any]], on_cancel: Callable[[], None]
) -> Any:
    """Await something for a client, for as long as the client is connected.

    Args:
        awaitable: what to wait for.
        receive: the request's ASGI `receive`, whose body has been read.
        on_cancel: called when the client disconnects first, and after any error.

    Raises:
        ClientDisconnected: the client disconnected first.
    """

    async def disconnect() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    result = asyncio.ensure_future(awaitable)
    disconnected = asyncio.ensure_future(disconnect())
    try:
        await asyncio.wait((result, disconnected), return_when=asyncio.FIRST_COMPLETED)
        if not result.done():
            raise ClientDisconnected
        return result.result()
    except BaseException:
        on_cancel()
        raise
    finally:
        for task in (result, disconnected):
            task.cancel()


@dataclass(frozen=True)
class Service:
    """One run that is being served."""

    session: OpenRun
    worker: BatchingWorker
    models: Mapping[str, ServedModel]
    """The models by the names that `model` may give, the default first."""
    limits: ServerLimits = field(default_factory=ServerLimits)
    metrics: ServerMetrics = field(default_factory=ServerMetrics)
    schema_checks: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MAX_SCHEMA_CHECKS))
    """Held while a client's schema is compiled."""
    fingerprint: str = ""
    """The run as it was loaded: see :func:`runners.serving.server_record.run_fingerprint`."""
    log: QuestionLog | None = None
    """Where requests are written; None where they are not."""

    @property
    def embedder(self) -> str | None:
        """The embedder's public id; None for a run without an embedder."""
        model = self.session.models.obtained.embedder
        if model is None:
            return None
        return model.folder.name if model.source == "path" else model.name

    def health(self) -> tuple[dict[str, Any], bool]:
        """Return the body of /health, and whether the default model can answer.

        ``status`` is ok; degraded where a server of the backend is down; down where none is left that has the default
        model; stopped where the worker has ended.
        """
        body: dict[str, Any] = {
            "status": "ok" if self.worker.alive else "stopped",
            "waiting": self.worker.waiting,
            "stale": bool(self.worker.stale_reason),
            "run": self.fingerprint,
        }
        if any(model.loaded for model in self.models.values()):
            body["models"] = {
                "on_demand": self.session.models.loads_on_demand,
                "loaded": self.loaded_models(),
            }
        servers = self.session.models.obtained.servers
        if servers is None:
            return body, self.worker.alive
        states = servers.states()
        able = servers.can_answer(next(iter(self.models.values())).step)
        if self.worker.alive and not all(state["up"] for state in states):
            body["status"] = "degraded" if able else "down"
        down = [state["server"] for state in states if not state["up"]]
        return {**body, "down": down, "servers": states}, self.worker.alive and able

    def loaded_models(self) -> list[str]:
        """Return the names of the base models that are in memory."""
        plan, loaded = self.session.plan, self.session.models.loaded
        roots = {plan.model_of(model.step): model.root for model in self.models.values() if model.raw}
        return sorted({roots[model] for model in loaded if model in roots})

    def find_model(self, name: str | None) -> ServedModel:
        """Return the model of a request; the default for None.

        Raises:
            ApiError: there is no model of this name (404).
        """
        if name is None:
            return next(iter(self.models.values()))
        if name not in self.models:
            raise unknown_served_model(name, ", ".join(self.models))
        return self.models[name]

    def models_body(self) -> dict[str, Any]:
        """Return the body of /v1/models."""
        rows = [
            {
                "id": model.id,
                "object": "model",
                "created": model.created,
                "owned_by": "tunewise",
                "root": model.root,
                "parent": model.parent,
                "x_tunewise": _description(model),
            }
            for model in self.models.values()
        ]
        if self.embedder:
            created = next(iter(self.models.values())).created
            rows.append(
                {
                    "id": self.embedder,
                    "object": "model",
                    "created": created,
                    "owned_by": "tunewise",
                    "root": self.embedder,
                    "parent": None,
                    "x_tunewise": {"kind": "embedder"},
                }
            )
        return {"object": "list", "data": rows}


def unknown_served_model(name: str, known: str) -> ApiError:
    """Return the error for a model that is not served."""
    return ApiError(
        404,
        f"there is no model {single_line(name)!r} here; there are: {known}",
        param="model",
        code="model_not_found",
    )


def _description(model: ServedModel) -> dict[str, Any]:
    loaded = {"loaded": model.loaded} if model.loaded else {}
    if model.raw:
        return {"kind": "adapter" if model.parent else "base", **loaded}
    step = model.step
    return {
        "kind": "arm",
        "retrieval": step.retrieval,
        "shots": step.shots,
        "weights": step.weights,
        **loaded,
    }
