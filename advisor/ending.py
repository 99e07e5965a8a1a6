"""How a command ends early: interrupted, or its output cannot be written (`| head`, a full disk)."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

FULL = (errno.ENOSPC, errno.EDQUOT)
NO_ROOM = "there is no space left on the disk that is written to"


def reader_gone() -> None:
    """End the process well, as a pipe's writer does whose reader has read enough: exit 0, and nothing is said."""
    discard()
    raise SystemExit(0)


def calm_rich() -> None:
    """Let what rich draws end in that way too; its own is exit 1, which here means a bug."""
    from rich.console import Console

    Console.on_broken_pipe = lambda self: reader_gone()  # type: ignore[method-assign]


def discard() -> None:
    """Drop what waits to be printed: Python would try once more at its end, fail, and say so."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def flush() -> None:
    """Print what waits, while an error can still be told; the reader's going is none."""
    try:
        if sys.stdout is not None and not sys.stdout.closed:
            sys.stdout.flush()
    except BrokenPipeError:
        discard()


@contextmanager
def resumable(line: str, what: str = "finished steps") -> Iterator[None]:
    """When interrupted, say that progress is kept and how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        print(f"\ninterrupted; {what} are kept. Go on with:\n  {line}", file=sys.stderr)
        raise
