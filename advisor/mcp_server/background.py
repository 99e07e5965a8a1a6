"""Work of a call in a thread, with progress for the client, and an end when the client cancels."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import anyio
import anyio.to_thread
from mcp.server.mcpserver import Context

Result = TypeVar("Result")
PROGRESS_SECONDS = 2.0
"""Seconds between two notifications of progress."""


class Cancelled(Exception):
    """The client has cancelled the call, or is gone."""


class CallProgress:
    """What a call is doing now, written by its thread and read by the event loop."""

    def __init__(self) -> None:
        """Start at "working"."""
        self.message = "working"
        self._cancelled = threading.Event()

    def on_event(self, event: dict[str, Any]) -> None:
        """Take the name of an event as the message; raises Cancelled when the call was cancelled."""
        parts = [str(event.get("event", "working")), str(event.get("model") or event.get("name") or "")]
        self.message = " ".join(filter(None, parts))
        self.check()

    def check(self) -> None:
        """Raise Cancelled when the call was cancelled."""
        if self._cancelled.is_set():
            raise Cancelled

    def cancel(self) -> None:
        """End the work at its next check."""
        self._cancelled.set()


async def in_thread(context: Context[Any, Any], work: Callable[[CallProgress], Result]) -> Result:
    """Return the result of work that is done in a thread, and report its progress every two seconds.

    A cancelled call returns at once; the thread ends at its next check.
    """
    progress = CallProgress()
    outcome: list[Result] = []
    errors: list[Exception] = []

    def carry_out() -> None:
        try:
            outcome.append(work(progress))
        except Exception as error:  # raised again below: a task group would wrap it
            errors.append(error)

    try:
        async with anyio.create_task_group() as group:
            group.start_soon(partial(_report, context, progress))
            await anyio.to_thread.run_sync(carry_out, abandon_on_cancel=True)
            group.cancel_scope.cancel()
    finally:
        progress.cancel()
    if errors:
        raise errors[0]
    return outcome[0]


async def _report(context: Context[Any, Any], progress: CallProgress) -> None:
    started = time.monotonic()
    while True:
        await anyio.sleep(PROGRESS_SECONDS)
        seconds = round(time.monotonic() - started, 1)
        await context.report_progress(seconds, None, progress.message)
