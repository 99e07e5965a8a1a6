"""Counters of the server in Prometheus' format: requests, tokens, batches and the queue; never the text of a request."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from rag.refusal.drift import Drift
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
"""Paths with a label of their own; all others are counted as `other`, so that clients cannot add labels."""
_SECONDS_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
METRICS_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class ServerMetrics:
    """The metrics of one server, in a registry of their own."""

    def __init__(self) -> None:
        """Create the metrics."""
        self.registry = CollectorRegistry()
        shared: dict[str, Any] = {"registry": self.registry, "namespace": "tunewise"}
        self._requests = Counter("requests", "Requests by path and status.", ("path", "status"), **shared)
        self._seconds = Histogram(
            "request_seconds", "Time to a request's end.", ("path",), buckets=_SECONDS_BUCKETS, **shared
        )
        self._tokens = Counter("tokens", "Tokens read and made.", ("model", "kind"), **shared)
        self._batch_rows = Histogram(
            "batch_rows", "Requests decoded together.", buckets=(1, 2, 4, 8, 16), **shared
        )
        self._switches = Counter("switches", "Times that another model than before was asked.", **shared)
        self._index_swaps = Counter("index_swaps", "Newer generations of the index taken up.", **shared)
        self._troubles = Counter("troubles", "Errors that should not happen.", **shared)
        self._waiting = Gauge("waiting", "Requests waiting for their turn.", **shared)
        self._stale = Gauge("index_stale", "1 where a newer index cannot be opened.", **shared)
        self._server_up = Gauge(
            "server_up", "1 where a server of the backend answers.", ("server",), **shared
        )
        self._server_in_flight = Gauge(
            "server_in_flight", "Requests that a server of the backend is answering.", ("server",), **shared
        )
        self._server_lost = Gauge(
            "server_lost", "Requests that a server of the backend has lost.", ("server",), **shared
        )
        self._drift = Gauge(
            "question_drift",
            "Distance (0 to 1) of the questions asked from those that refusals were fitted on; 0 where not compared.",
            **shared,
        )
        self._drift_sure = Gauge("question_drift_sure", "1 where these questions clearly differ.", **shared)
        self._servers: Callable[[], Sequence[Mapping[str, Any]]] = tuple
        self._questions: Callable[[], Drift | None] = lambda: None
        self._last_key = ""

    def watch_worker(self, waiting: Callable[[], int], stale: Callable[[], bool]) -> None:
        """Read two gauges from callbacks: the length of the queue, and whether a newer index cannot be opened."""
        self._waiting.set_function(waiting)
        self._stale.set_function(stale)

    def watch_servers(self, states: Callable[[], Sequence[Mapping[str, Any]]]) -> None:
        """Read the state of the backend's servers from a callback whenever the metrics are rendered."""
        self._servers = states

    def watch_questions(self, drift: Callable[[], Drift | None]) -> None:
        """Read how the questions differ from those that refusals were fitted on whenever the metrics are rendered."""
        self._questions = drift

    def observe_request(self, path: str, status: int, seconds: float) -> None:
        """Count a request and its duration."""
        label = path if path in METRIC_PATHS else "other"
        self._requests.labels(label, str(status)).inc()
        self._seconds.labels(label).observe(seconds)

    def count_tokens(self, model: str, results: Sequence[RequestResult]) -> None:
        """Count the tokens of prompts and answers."""
        for result in results:
            self._tokens.labels(model, "prompt").inc(result.completion.prompt_tokens)
            self._tokens.labels(model, "completion").inc(result.completion.completion_tokens)

    def on_event(self, event: dict[str, Any]) -> None:
        """Count an event of the worker; errors, index swaps and drift are also printed to stderr."""
        kind = event["event"]
        if kind == "serve.batch":
            self._batch_rows.observe(event["rows"])
        elif kind == "serve.turn" and event["key"] != self._last_key:
            self._last_key = event["key"]
            self._switches.inc()
        elif kind == "serve.index":
            self._index_swaps.inc()
            _log(f"answers from generation {event['generation']} of the index now")
        elif kind == "serve.drift":
            _log(event["reason"])
        elif kind in ("serve.trouble", "serve.stale"):
            self._troubles.inc()
            _log(event["reason"])

    def render(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        for state in self._servers():
            self._server_up.labels(state["server"]).set(state["up"])
            self._server_in_flight.labels(state["server"]).set(state["in_flight"])
            self._server_lost.labels(state["server"]).set(state["lost"])
        drift = self._questions()
        self._drift.set(drift.distance if drift else 0)
        self._drift_sure.set(drift is not None and drift.sure)
        return generate_latest(self.registry)


def _log(text: str) -> None:
    with suppress(OSError):  # stderr may have been closed
        print(text, file=sys.stderr, flush=True)
