"""Between the clerk's thread and the event loop: what is said of one request, and whether its client is still there."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from runners.ticket import Reply


class Ear:
    """Hears a ticket's pieces and end, in order, on the event loop that it was made on."""

    def __init__(self) -> None:
        """Listen from now on."""
        self._loop = asyncio.get_running_loop()
        self._heard: asyncio.Queue[str | Reply | Exception | Any] = asyncio.Queue()

    def hear(self, what: Any) -> None:
        """Take a piece or the end; from any thread."""
        with suppress(RuntimeError):  # the loop has ended, and with it whoever listened
            self._loop.call_soon_threadsafe(self._heard.put_nowait, what)

    async def next(self, seconds: float | None = None) -> Any:
        """Return what was heard next; TimeoutError when nothing was."""
        return await asyncio.wait_for(self._heard.get(), seconds)


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
