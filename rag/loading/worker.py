"""The process that parses untrusted files: ``python -P -m rag.loading.worker MEMORY_BYTES MAX_TEXT``.

It receives bytes on standard input and answers with JSON lines; it opens no file and writes none. Before
every file it sets an alarm, so that it ends even when the process that started it no longer exists.
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


def main(memory: int, max_text: int) -> None:
    """Answer requests until standard input ends.

    A request is a line ``{"id", "media", "size", "seconds"}`` followed by ``size`` bytes; with an empty
    medium the format is detected from them. The answer is one line ``{"items": [...], "spent": false}``. A
    spent worker ends by itself.

    Args:
        memory: address space in bytes.
        max_text: characters that one file may unpack to.
    """
    requests = sys.stdin.buffer
    answers = _private_output()
    _send(answers, _line({"limited": _limit_resources(memory)}))
    _discard_output()
    while line := requests.readline():
        request = json.loads(line)
        data = requests.read(request["size"])
        _set_alarm(request["seconds"] + 5)
        if not _answer(answers, request, data, max_text, memory):
            return
        _set_alarm(0)


def _answer(answers: BinaryIO, request: dict[str, Any], data: bytes, max_text: int, memory: int) -> bool:
    """Parse a file and send the answer; False when memory ran out, after which the process must end."""
    line = b""
    try:
        loader = loader_for_media(request["media"]) if request["media"] else None
        items = parse_file(request["id"], data, loader, max_text)
        line = _line({"items": [to_wire(item) for item in items], "spent": False})
        items = []
    except MemoryError:  # answered below: here the exception still holds the objects that filled the memory
        pass
    if line:
        _send(answers, line)
        return True
    reason = f"parsing it needs more than {memory >> 20} MiB of memory"
    _send(answers, _line({"items": [to_wire(Skipped(request["id"], reason))], "spent": True}))
    return False


def _private_output() -> BinaryIO:
    """Return standard output under another descriptor, so that what a library prints is not taken for an answer."""
    private = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return private


def _discard_output() -> None:
    """Discard what libraries print; the pipes are not read, so that it would block."""
    null_device = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null_device, 1)
    os.dup2(null_device, 2)


def _line(obj: dict[str, Any]) -> bytes:
    return json.dumps(obj, ensure_ascii=True, separators=(",", ":")).encode() + b"\n"


def _send(answers: BinaryIO, line: bytes) -> None:
    answers.write(line)
    answers.flush()


def _limit_resources(memory: int) -> bool:
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


def _set_alarm(seconds: float) -> None:
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
