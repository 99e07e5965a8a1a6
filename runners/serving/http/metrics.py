"""What is counted while serving, in Prometheus' format: requests, tokens, batches, the queue; never what was asked."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from runners.serving.request import RequestResult

METRIC_PATHS = (
    "/",
    "/health",
    "/metrics",
    "/openapi.json",
    "/v1/models",
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/search",
    "/v1/passages",
)
_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
METRICS_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class ServerMetrics:
    """The counters of one server, in a registry of their own."""

    def __init__(self) -> None:
        """Begin at zero."""
        self.registry = CollectorRegistry()
        kept: dict[str, Any] = {"registry": self.registry, "namespace": "tunewise"}
        self._requests = Counter("requests", "Requests by path and status.", ("path", "status"), **kept)
        self._seconds = Histogram(
            "request_seconds", "Time to a request's end.", ("path",), buckets=_SECONDS, **kept
        )
        self._tokens = Counter("tokens", "Tokens read and made.", ("model", "kind"), **kept)
        self._rows = Histogram("batch_rows", "Requests decoded together.", buckets=(1, 2, 4, 8, 16), **kept)
        self._turns = Counter("switches", "Times that another model than before was asked.", **kept)
        self._swaps = Counter("index_swaps", "Newer generations of the index taken up.", **kept)
        self._troubles = Counter("troubles", "Errors that should not happen.", **kept)
        self._waiting = Gauge("waiting", "Requests waiting for their turn.", **kept)
        self._stale = Gauge("index_stale", "1 where a newer index cannot be opened.", **kept)
        self._last = ""

    def watch(self, waiting: Callable[[], int], stale: Callable[[], bool]) -> None:
        """Read from here the length of the queue, and whether the index is older than it should be."""
        self._waiting.set_function(waiting)
        self._stale.set_function(stale)

    def request(self, path: str, status: int, seconds: float) -> None:
        """Count a request."""
        known = path if path in METRIC_PATHS else "other"
        self._requests.labels(known, str(status)).inc()
        self._seconds.labels(known).observe(seconds)

    def counted(self, model: str, replies: Sequence[RequestResult]) -> None:
        """Count the tokens of answers."""
        for reply in replies:
            self._tokens.labels(model, "prompt").inc(reply.completion.prompt_tokens)
            self._tokens.labels(model, "completion").inc(reply.completion.completion_tokens)

    def hear(self, event: dict[str, Any]) -> None:
        """Take an event of the clerk; what should not happen is also said on stderr."""
        kind = event["event"]
        if kind == "serve.batch":
            self._rows.observe(event["rows"])
        elif kind == "serve.turn" and event["key"] != self._last:
            self._last = event["key"]
            self._turns.inc()
        elif kind == "serve.index":
            self._swaps.inc()
            _say(f"answers from generation {event['generation']} of the index now")
        elif kind in ("serve.trouble", "serve.stale"):
            self._troubles.inc()
            _say(event["reason"])

    def text(self) -> bytes:
        """Everything counted so far."""
        return generate_latest(self.registry)


def _say(text: str) -> None:
    with suppress(OSError):  # whoever read it may have gone
        print(text, file=sys.stderr, flush=True)
