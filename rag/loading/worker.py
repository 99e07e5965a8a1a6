"""The process that parses untrusted files: ``python -P -m rag.loading.worker MEMORY_BYTES MOST_TEXT``.

It is given bytes on its standard input and answers with JSON lines; it opens no file and writes none. Before
every file it sets an alarm, so that it ends even when the process that started it is gone.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any, BinaryIO

from rag.loading.base import Skipped
from rag.loading.reader import parse_file
from rag.loading.registry import loader_for_media
from rag.loading.sandbox import to_wire


def main(memory: int, most_text: int) -> None:
    """Answer requests until the standard input ends.

    A request is a line ``{"id", "media", "size", "seconds"}`` followed by ``size`` bytes, an empty medium being
    looked for in them; the answer is one line ``{"items": [...], "spent": false}``. A spent worker ends by itself.
    """
    requests, answers = sys.stdin.buffer, _private_output()
    _say(answers, _line({"limited": _confine(memory)}))
    _quiet()
    while line := requests.readline():
        asked = json.loads(line)
        data = requests.read(asked["size"])
        _alarm(asked["seconds"] + 5)
        if not _answered(answers, asked, data, most_text, memory):
            return
        _alarm(0)


def _answered(answers: BinaryIO, asked: dict[str, Any], data: bytes, most_text: int, memory: int) -> bool:
    """Parse and answer; False when memory ran out, after which the process is not to be trusted."""
    line = b""
    try:
        loader = loader_for_media(asked["media"]) if asked["media"] else None
        items = parse_file(asked["id"], data, loader, most_text)
        line = _line({"items": [to_wire(item) for item in items], "spent": False})
        items = []
    except MemoryError:  # answered below, where the exception no longer holds what filled the memory
        pass
    if line:
        _say(answers, line)
        return True
    reason = f"parsing it needs more than {memory >> 20} MiB of memory"
    _say(answers, _line({"items": [to_wire(Skipped(asked["id"], reason))], "spent": True}))
    return False


def _private_output() -> BinaryIO:
    """Return the standard output under another number, so that a library that prints does not answer."""
    private = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return private


def _quiet() -> None:
    """Send what libraries print to nowhere; nobody reads it."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)


def _line(obj: dict[str, Any]) -> bytes:
    return json.dumps(obj, ensure_ascii=True, separators=(",", ":")).encode() + b"\n"


def _say(answers: BinaryIO, line: bytes) -> None:
    answers.write(line)
    answers.flush()


def _confine(memory: int) -> bool:
    """Limit memory, written files and core dumps; False where the system does not limit memory."""
    try:
        import resource
    except ImportError:  # Windows
        return False
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    if sys.platform == "darwin":  # accepts RLIMIT_AS and does not enforce it
        return False
    try:
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    except (ValueError, OSError):
        return False
    return True


def _alarm(seconds: float) -> None:
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
