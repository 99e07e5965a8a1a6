"""Start a run's server: what could be refused is refused first, then models are loaded, then it listens."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn

from rag.errors import CannotRun
from rag.types import OnEvent
from runners.runs.run import open_session
from runners.serving.http import auth
from runners.serving.http.app import create_app
from runners.serving.http.metrics import ServerMetrics
from runners.serving.http.middleware import AccessRules
from runners.serving.http.service import ServerLimits, Service
from runners.serving.served_models import served_models
from runners.serving.worker import BatchingWorker, BatchLimits

DRAIN_SECONDS = 60
"""Seconds that what was asked is given when the server is told to stop."""
TURN_AWAY, HANG_UP = 5.0, 2.0
"""Seconds before their end: what waits is turned away and answers end where they are; what is left is given up."""


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """What is served, where and to whom."""

    run: Path
    host: str = "127.0.0.1"
    port: int = 8000
    token: Path | None = None
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    model: Path | None = None
    """The folder of the run's base, where that lies elsewhere than the plan says."""


def serve(wish: ServeOptions, limits: ServerLimits, queue: int, on_event: OnEvent | None = None) -> None:
    """Serve until told to stop; what is being answered then is finished first.

    ``on_event`` is called with the events of opening the run, such as a model that is fetched.

    Raises UsageProblem for an open address without a token, BadInput for a damaged run or a readable token's file,
    CannotRun when the address is taken.
    """
    auth.check_token(wish.host, wish.token)
    session = open_session(wish.run, on_event, wish.model)
    choices, missing = served_models(session)
    opener = None
    if wish.token is not None:
        opener, made = auth.read_token(wish.token)
        if made:
            _say(f"made a fresh token in {wish.token}; requests bring it as Authorization: Bearer")
    meters = ServerMetrics()
    service = Service(
        session, BatchingWorker(session, BatchLimits(room=queue), meters.hear), choices, limits, meters
    )
    house = AccessRules(
        limits, opener, (*wish.hosts, wish.host), wish.origins, open=not auth.is_loopback(wish.host)
    )
    config = uvicorn.Config(
        create_app(service, house),
        host=wish.host,
        port=wish.port,
        access_log=False,
        log_config=None,
        ws="none",
        timeout_graceful_shutdown=DRAIN_SECONDS,
        server_header=False,
        # Anybody here could give himself another address with X-Forwarded-For, and be counted anew each time.
        proxy_headers=False,
    )
    listening = _bind(config)
    if missing:
        _say(
            f"without {', '.join(missing)}: the run has no weights for them (tunewise run {wish.run} --resume)"
        )
    session.prepare(next(iter(choices.values())).step)
    where = f"[{wish.host}]" if ":" in wish.host else wish.host
    address = f"http://{where}:{listening.getsockname()[1]}"
    ready = f"serving {wish.run} on {address}  (models: {', '.join(choices)})"
    _until_told(_Server(config, ready, service.clerk), listening)
    _leave(service.clerk)


class _Server(uvicorn.Server):
    """A server that says where it is once it can be asked, and answers what was asked before it stops."""

    def __init__(self, config: uvicorn.Config, ready: str, clerk: BatchingWorker) -> None:
        super().__init__(config)
        self._ready, self._clerk = ready, clerk

    async def startup(self, sockets: Any = None) -> None:
        """Listen, then say so."""
        await super().startup(sockets)
        _say(self._ready)

    async def shutdown(self, sockets: Any = None) -> None:
        """Wait for answers; before uvicorn breaks them off they are ended, so that everybody is told."""
        loop = asyncio.get_running_loop()
        endings = (
            loop.call_later(max(0.0, DRAIN_SECONDS - TURN_AWAY), self._clerk.stop, 0.0),
            loop.call_later(max(0.0, DRAIN_SECONDS - HANG_UP), self._clerk.abandon),
        )
        await super().shutdown(sockets)
        for ending in endings:
            ending.cancel()


def _bind(config: uvicorn.Config) -> Any:
    try:
        return config.bind_socket()
    except SystemExit:  # uvicorn has said why
        raise CannotRun(
            f"cannot listen on {config.host} port {config.port}", "choose another with --port, or --port 0"
        ) from None


def _until_told(server: uvicorn.Server, listening: Any) -> None:
    """Run until a signal; afterwards it is not raised again: having stopped when told to is a success."""
    told: list[int] = []
    signals = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda number, frame: told.append(number)) for number in signals}
    try:
        server.run(sockets=[listening])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if told:
        _say("stopped")


def _leave(clerk: BatchingWorker) -> None:
    """End the process at once where the clerk reads a prompt still: torch aborts when Python ends under it."""
    if clerk.alive:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError):
                stream.flush()
        os._exit(0)


def _say(text: str) -> None:
    with suppress(OSError):  # whoever read it may have gone
        print(text, file=sys.stderr, flush=True)
