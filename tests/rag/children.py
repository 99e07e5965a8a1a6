"""Child processes that build and update an index and are killed, or run out of disk space, while they do.

One process imports what an index needs (never torch) and forks a child for every job, so that a job takes
milliseconds. A child can kill itself with SIGKILL at the n-th call of a kind: any call, or one that touches a file; or
its parent kills it after a time. Run as a script it answers one JSON job per line.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers

TOUCHING = {
    *("fsync", "rename", "replace", "unlink", "rmdir", "mkdir", "open", "write", "flush", "close", "chmod"),
    *("execute", "executemany", "connect", "write_index_fname", "tofile", "fdopen", "truncate"),
}


class Precomputed:
    """An encoder without a model: a text's vector is drawn from its hash."""

    name, dimension, max_tokens, fingerprint = "precomputed", 16, 60, "precomputed-1"

    def __init__(self) -> None:
        self.tokenizer = Tokenizer(models.WordLevel({"?": 0}, unk_token="?"))
        self.tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        self.encoded = 0

    def count_tokens(self, text: str) -> int:
        return len(self.tokenizer.encode(text).ids)

    def encode(
        self, texts: Sequence[str], *, query: bool = False, on_event: Callable[..., None] | None = None
    ) -> np.ndarray:
        self.encoded += 0 if query else len(texts)
        seeds = [int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) for text in texts]
        rows = [np.random.default_rng(seed).standard_normal(self.dimension) for seed in seeds]
        unit = np.array([row / np.linalg.norm(row) for row in rows], dtype=np.float32)
        return unit.reshape(len(texts), self.dimension)


def carry_out(index: Path, step: dict[str, Any]) -> None:
    """Run one step: ``{"do": "build"|"update"|"repair", "documents": path, "purge"?: true}``."""
    from rag.index import Index
    from rag.settings import IndexSettings

    if step["do"] == "build":
        settings = IndexSettings(large_chunks=1, added_share=10) if step.get("delta") else IndexSettings()
        Index.build(index, step["documents"], Precomputed(), settings)
    elif step["do"] == "repair":
        Index.repair(index, Precomputed)
    else:
        Index.update(index, step["documents"], Precomputed(), purge=bool(step.get("purge")))


def _counting(kind: str, kill_at: int | None) -> Callable[[], int]:
    """Count calls of a kind from here on, and kill this process at one of them."""
    count = 0

    def profile(frame: Any, event: str, arg: Any) -> None:
        nonlocal count
        if event in ("c_call", "c_return") or kind == "any":
            if kind == "touching" and getattr(arg, "__name__", "") not in TOUCHING:
                return
            count += 1
            if count == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(profile)
    return lambda: count


def _child(job: dict[str, Any], out: int) -> None:
    answer: dict[str, Any] = {"done": False}
    try:
        if (limit := job.get("limit")) is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        counted = _counting(job["kind"], job.get("kill_at")) if "kind" in job else lambda: 0
        try:
            carry_out(Path(job["index"]), job["step"])
        finally:
            sys.setprofile(None)
        answer = {"done": True, "calls": counted()}
    except Exception as error:
        answer = {"done": False, "type": type(error).__name__, "text": str(error)}
    os.write(out, json.dumps(answer).encode())
    os._exit(0)


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Fork a child for a job and return its answer; ``{"done": False, "killed": True}`` if it was killed before."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.close(read)
        _child(job, write)
    os.close(write)
    if (seconds := job.get("kill_after")) is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    with os.fdopen(read, "rb") as pipe:
        output = pipe.read()
    _, status = os.waitpid(child, 0)
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    answer: dict[str, Any] = json.loads(output) if output else {"done": False}
    return {**answer, "killed": killed, "seconds": 0.0}


def main() -> None:
    """Import everything a child needs, then answer jobs."""
    # imported here, before the forks, so that a child takes milliseconds and is killed at its work and not while importing
    import rag.index
    import rag.stores.exact
    import rag.stores.faiss  # noqa: F401

    for line in sys.stdin:
        print(json.dumps(run(json.loads(line))), flush=True)
        assert "torch" not in sys.modules


if __name__ == "__main__":
    main()
