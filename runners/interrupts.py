"""Ctrl-C and SIGTERM while something is at work: the first lets it be kept, a second does not wait."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

GRACE_SECONDS = 3.0
"""How long a forward and backward pass may still take before it is broken off; its gradients are lost anyway."""
RETRY_SECONDS = 0.5
_ASKING = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """Whether someone asked to stop, and how urgently."""

    def __init__(self) -> None:
        """Begin unasked."""
        self.asked = 0
        """The signal's number; 0 when there was none."""
        self.urgent = False
        """Asked twice: nothing more is to be written."""
        self._open = False

    def check(self) -> None:
        """Raise KeyboardInterrupt when someone asked; the place is one where work can stop."""
        if self.asked:
            raise KeyboardInterrupt

    @contextmanager
    def open(self) -> Iterator[None]:
        """Allow the block to be broken off anywhere when it takes longer than the grace after the signal."""
        self._open = True
        try:
            yield
        finally:
            self._open = False

    def _broken_off(self, number: int, frame: object) -> None:
        if self._open:
            raise KeyboardInterrupt


@contextmanager
def deferred_signals(grace: float = GRACE_SECONDS) -> Iterator[StopRequest]:
    """Hold SIGINT and SIGTERM back while the block runs; afterwards they do what they would have done.

    The block asks the Stop it is given. A second signal does at once what it would have done without us. Only
    the main thread can catch signals; in another the Stop is never asked. A signal that is ignored stays so.
    """
    stop = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before: dict[int, Any] = {
        n: h for n in _ASKING if (h := signal.getsignal(n)) not in (None, signal.SIG_IGN)
    }
    alarm = signal.SIGALRM if hasattr(signal, "SIGALRM") else None

    def release() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)
        if alarm and alarm in before:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def catch(number: int, frame: object) -> None:
        if stop.asked:
            stop.urgent = True
            release()
            signal.raise_signal(number)
            return
        stop.asked = number
        if alarm:
            before[alarm] = signal.signal(alarm, stop._broken_off)
            signal.setitimer(signal.ITIMER_REAL, grace, RETRY_SECONDS)

    for number in tuple(before):
        signal.signal(number, catch)
    broken = False
    try:
        yield stop
    except KeyboardInterrupt:
        if stop.urgent or not stop.asked:
            raise
        broken = True
    finally:
        release()
    if stop.asked:
        signal.raise_signal(stop.asked)
    if broken:  # whoever catches the signal did not raise, but the block was not finished
        raise KeyboardInterrupt
