"""Between the clerk's thread and the event loop: what is said of one request, and whether its client is still there."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from runners.ticket import Late, Reply

GRACE = 2.0
"""Seconds after a request's time in which the clerk may still end its answer, at the next token."""


class Ear:
    """Hears a ticket's pieces and end, in order, on the event loop that it was made on."""

    def __init__(self, seconds: float = math.inf) -> None:
        """Listen from now on, for so many seconds and the grace."""
        self._until = time.monotonic() + seconds + GRACE
        self._loop = asyncio.get_running_loop()
        self._heard: asyncio.Queue[str | Reply | Exception | Any] = asyncio.Queue()

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
                return Late()
            raise


async def unless_gone(
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
            raise Gone
        return waiting.result()
    except BaseException:
        leave()
        raise
    finally:
        for task in (waiting, watching):
            task.cancel()


class Gone(Exception):
    """The client has closed the connection: nobody is there to be answered."""
