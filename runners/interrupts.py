"""Handle Ctrl-C and SIGTERM during long work: the first signal lets the work be saved, a second acts at once.

:func:`deferred_signals` holds signals back while a block runs and gives it a :class:`StopRequest` to check.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

GRACE_SECONDS = 3.0
"""Time that a forward and backward pass may still take after the signal before it is interrupted; its gradients are lost
anyway."""
RETRY_SECONDS = 0.5
"""Time between attempts to interrupt after the grace period."""
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """Whether a stop was requested, and how urgently."""

    def __init__(self) -> None:
        """Start without a request."""
        self.asked = 0
        """Number of the signal that requested the stop; 0 for none."""
        self.urgent = False
        """Whether it was requested twice: nothing more may be written."""
        self._interruptible = False

    def check(self) -> None:
        """Raise KeyboardInterrupt when a stop was requested; call it where work can stop."""
        if self.asked:
            raise KeyboardInterrupt

    @contextmanager
    def open(self) -> Iterator[None]:
        """Allow the block to be interrupted anywhere when it takes longer than the grace period after the signal."""
        self._interruptible = True
        try:
            yield
        finally:
            self._interruptible = False

    def _on_alarm(self, number: int, frame: object) -> None:
        if self._interruptible:
            raise KeyboardInterrupt


@contextmanager
def deferred_signals(grace: float = GRACE_SECONDS, in_group: bool = False) -> Iterator[StopRequest]:
    """Hold SIGINT and SIGTERM back while the block runs; afterwards they have their usual effect.

    The block is given a StopRequest to check. A second signal has its usual effect at once. Only the main thread can
    catch signals: in other threads a stop is never requested. A signal that is ignored stays ignored.

    Args:
        grace: seconds after the first signal until blocks under :meth:`StopRequest.open` are interrupted.
        in_group: whether this is one of several processes that work together. Then nothing is interrupted, because
            the others would wait for it, and more signals are ignored: scheduler and launcher each send one, and the
            launcher ends a process that takes too long.
    """
    stop = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    handlers: dict[int, Any] = {
        number: handler
        for number in _STOP_SIGNALS
        if (handler := signal.getsignal(number)) not in (None, signal.SIG_IGN)
    }
    # Windows has no SIGALRM: there, work is only stopped where it checks.
    alarm = signal.SIGALRM if hasattr(signal, "SIGALRM") else None

    def restore_handlers() -> None:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if alarm and alarm in handlers:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def catch(number: int, frame: object) -> None:
        if stop.asked and in_group:
            return
        if stop.asked:
            stop.urgent = True
            restore_handlers()
            signal.raise_signal(number)
            return
        stop.asked = number
        if alarm and not in_group:
            handlers[alarm] = signal.signal(alarm, stop._on_alarm)
            signal.setitimer(signal.ITIMER_REAL, grace, RETRY_SECONDS)

    for number in tuple(handlers):
        signal.signal(number, catch)
    interrupted = False
    try:
        yield stop
    except KeyboardInterrupt:
        if stop.urgent or not stop.asked:
            raise
        interrupted = True
    finally:
        restore_handlers()
    if stop.asked:
        signal.raise_signal(stop.asked)
    if interrupted:  # the signal's own handler did not raise, but the block did not finish
        raise KeyboardInterrupt
