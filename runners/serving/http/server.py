"""Start and stop the HTTP server of a run.

`serve` checks what can be refused first, then binds the port, loads the default arm's models, and listens until a
signal.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn

from rag.errors import CannotRun, system_reason
from rag.types import OnEvent
from runners.logs.question_log import KEPT_FILES, ROTATE_BYTES, QuestionLog
from runners.plan.steps import EvaluateStep
from runners.resources.machine import detect_machine
from runners.runs.loaded_models import LoadedLimit
from runners.runs.opened import Opening, OpenRun
from runners.runs.plan_models import MovedModels
from runners.serving.http import auth
from runners.serving.http.app import create_app
from runners.serving.http.metrics import ServerMetrics
from runners.serving.http.middleware import AccessRules, AsgiApp
from runners.serving.http.service import ServerLimits, Service
from runners.serving.served_models import ServedModel, answerable_models, served_models
from runners.serving.server_record import ServerRecord, own_record, recorded_server, run_fingerprint
from runners.serving.worker import BatchingWorker, BatchLimits

DRAIN_SECONDS = 60
"""Seconds that open requests are given when the server stops."""
STOP_BEFORE_SECONDS = 5.0
"""Seconds before the end of the drain when queued requests are rejected and answers end at their next token."""
ABORT_BEFORE_SECONDS = 2.0
"""Seconds before the end of the drain when the remaining requests end without an answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions:
    """What is served, at which address, and for which hosts and origins."""

    run: Path
    """The run's folder."""
    host: str = "127.0.0.1"
    port: int = 8000
    """0 lets the system choose."""
    token: Path | None = None
    """The file with the access token; created when it does not exist."""
    hosts: tuple[str, ...] = ()
    """Further names that a Host header may give."""
    origins: tuple[str, ...] = ()
    """Origins of pages that may send requests."""
    model: MovedModels = None
    """The folder of the run's base model, where it is not at the path in the plan."""
    arm: str | None = None
    """The arm that answers by default; None for the one that the verdict says to use."""
    backend: tuple[str, ...] | None = None
    """The servers that generate, as the values of ``--backend``; None for those that the run was measured with, if any."""
    words: Mapping[str, str] = field(default_factory=dict)
    """What the names of arms mean, shown on the page."""
    log: QuestionLog | None = None
    """Where requests are written; None where they are not."""


def serve(
    options: ServeOptions, limits: ServerLimits, max_queue: int, on_event: OnEvent | None = None
) -> None:
    """Serve a run until a signal; open requests are finished first, within `DRAIN_SECONDS`.

    Args:
        options: what is served, and where.
        limits: limits of each request.
        max_queue: most requests waiting.
        on_event: called with the events of opening the run, such as a model that is fetched.

    Raises:
        UsageProblem: other machines can reach the address, and there is no token; or no arm can be used by default.
        BadInput: the run is damaged, others can read the token's file, or a backend's server lacks the default model.
        CannotRun: the address is in use, the log cannot be written, or no server of the backend answers for the default arm.
    """
    auth.check_token(options.host, options.token)
    _check_log(options.log)
    opening = Opening(on_event=on_event, model=options.model, backend=options.backend)
    session = OpenRun.open(options.run, opening).obtain()
    fingerprint = run_fingerprint(session.folder.path, session.plan)
    _limit_loaded_models(session)
    models, missing = served_models(session, options.arm)
    models, left_out = answerable_models(session, models)
    token = _access_token(options.token)
    metrics = ServerMetrics()
    worker = BatchingWorker(session, BatchLimits(max_queue=max_queue), metrics.on_event)
    service = Service(session, worker, models, limits, metrics, fingerprint=fingerprint, log=options.log)
    access = AccessRules(
        limits,
        token,
        (*options.hosts, options.host),
        options.origins,
        any_address=not auth.is_loopback(options.host),
    )
    config = server_config(create_app(service, access, options.words), options.host, options.port)
    listening = bind_address(config)
    if missing:
        _log(
            f"without {', '.join(missing)}: the run has no weights for them (tunewise run {options.run} --resume)"
        )
    for name, problem in session.models.obtained.missing.items():
        _log(f"without the arms of {Path(name).name}: {problem.message}")
    _report_backend(session, models, left_out)
    _report_memory(session, models)
    step = next(iter(models.values())).step
    if parts := _parts_to_load(session, step):
        _log(f"loading {', '.join(parts)}")
    if step.route:  # the model of the other arm is loaded with the first question that needs it
        step = session.plan.routed(step)[0]
    session.prepare(step)
    session.generator(step)
    ready = _ready_text(options, listening.getsockname()[1], models)
    backend = session.backend.entries
    bound = listening.getsockname()[:2]
    record = own_record(bound, options.run, fingerprint, options.token, backend, limits.max_tokens)
    run_until_signal(RunServer(config, ready, worker, record), listening)
    _exit_if_busy(worker)


def server_config(
    app: AsgiApp, host: str = "127.0.0.1", port: int = 0, drain_seconds: int = DRAIN_SECONDS
) -> uvicorn.Config:
    """Return how uvicorn serves an app; ``drain_seconds`` are given to open requests when the server stops."""
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        access_log=False,
        log_config=None,
        ws="none",
        timeout_graceful_shutdown=drain_seconds,
        server_header=False,
        # A client could claim another address in X-Forwarded-For with each request, and escape the rate limit.
        proxy_headers=False,
    )


def _check_log(log: QuestionLog | None) -> None:
    """Raise CannotRun where the log of requests cannot be written."""
    if log is None:
        return
    try:
        log.check()
    except OSError as error:
        raise CannotRun(
            f"cannot write {log.path}: {system_reason(error)}", "name another file: --log"
        ) from None


def _ready_text(options: ServeOptions, port: int, models: Iterable[str]) -> str:
    """Return what is said once the server listens: its address, its models, and where requests are written."""
    host = f"[{options.host}]" if ":" in options.host else options.host
    address = f"http://{host}:{port}"
    lines = [f"serving {options.run} on {address}  (models: {', '.join(models)})"]
    lines.append(f"open {address}/ in a browser to ask; programs use {address}/v1")
    lines += [log_line(options.log)] if options.log else []
    return "\n".join(lines)


def log_line(log: QuestionLog) -> str:
    """Return what is written into the log of requests, and what is kept of it."""
    what = "questions and answers" if log.answers else "questions, without answers,"
    most = f"the last {KEPT_FILES + 1} parts of {ROTATE_BYTES // 2**20} MB"
    return f"{what} are written to {log.path} ({most}); remove a person's: tunewise questions forget {log.path} TEXT"


def _access_token(path: Path | None) -> auth.AccessToken | None:
    """Return the token of a file, which is made with a fresh one where it is absent; None without a file."""
    if path is None:
        return None
    token, created = auth.read_token(path)
    if created:
        _log(f"made a fresh token in {path}; requests bring it as Authorization: Bearer")
    return token


def _report_backend(session: OpenRun, models: Mapping[str, ServedModel], left_out: Mapping[str, str]) -> None:
    """Say which models the servers of a backend lack, where answers are generated, and what the verdict measured."""
    for name, reason in left_out.items():
        _log(f"without {name}: {reason}")
    session.note_difference([model.step for model in models.values() if not model.raw])
    if session.models.obtained.servers is not None:
        session.models.obtained.servers.watch()
        local = [model.id for model in models.values() if session.models.generates_here(model.step)]
        here = f"in this process: {', '.join(local)}" if local else "no model is loaded here"
        _log(f"generated by {', '.join(session.backend.entries)}; {here}")


def _limit_loaded_models(session: OpenRun) -> None:
    """Let the models of a run stay in memory together as far as the memory of this machine allows."""
    models = session.models
    if len(models.local_models) > 1:  # of a single model nothing is estimated
        folders = models.obtained.folders(session.plan)
        models.limit = LoadedLimit.of(session.plan, folders, detect_machine(session.folder.path))


def _report_memory(session: OpenRun, models: Mapping[str, ServedModel]) -> None:
    """Say which language models share the memory of this process, and whether they are loaded on demand."""
    limit, held = session.models.limit, [model for model in models.values() if model.loaded]
    if limit is None or not held:
        return
    names = ", ".join(dict.fromkeys(model.root for model in held))
    gib = sum(limit.sizes.values())
    estimate = f"an estimated {gib:.1f} of {limit.gib:.1f} GiB"
    if session.models.loads_on_demand:
        _log(
            f"loaded on demand: {names} take {estimate} together, so a request for one of them may wait until it is loaded "
            "in place of the one used longest ago"
        )
    else:
        _log(f"kept in memory, each from its first request on: {names}, together {estimate}")


def _parts_to_load(session: OpenRun, step: EvaluateStep) -> list[str]:
    """Return the names of what an arm needs in the memory of this process."""
    models = session.models
    if step.route:
        step = session.plan.routed(step)[0]
    searches = (
        step.retrieval and not step.looks_up
    )  # a model that looks things up opens the index when it searches
    embeds = models.obtained.embedder if searches or step.without_model else None
    parts = [Path(embeds.name).name] if embeds else []
    parts += ["the index"] if searches else []
    if models.generates_here(step) and not step.without_model:
        weights = session.weights(step)
        parts.append(Path(models.base_of(step).name).name + (f" with {weights.name}" if weights else ""))
    return parts


class RunServer(uvicorn.Server):
    """A server that prints its address once it listens, and ends open requests before it stops.

    While it takes requests, its record lets `ask` and `chat` find it.
    """

    def __init__(
        self, config: uvicorn.Config, ready: str, worker: BatchingWorker, record: ServerRecord | None
    ) -> None:
        super().__init__(config)
        self._ready = ready
        self._worker = worker
        self._record = record
        self._recorded = ExitStack()

    async def startup(self, sockets: Any = None) -> None:
        """Listen, record the server, then print the address."""
        await super().startup(sockets)
        if self._record is not None:
            try:
                self._recorded.enter_context(recorded_server(self._record))
            except OSError as error:
                _log(f"tunewise ask and chat will not find this server: {system_reason(error)}")
        _log(self._ready)

    async def shutdown(self, sockets: Any = None) -> None:
        """Wait for open requests; end them before uvicorn closes their connections, so that each gets a response."""
        self._recorded.close()
        loop, drain = asyncio.get_running_loop(), self.config.timeout_graceful_shutdown or 0
        timers = (
            loop.call_later(max(0.0, drain - STOP_BEFORE_SECONDS), self._worker.stop, 0.0),
            loop.call_later(max(0.0, drain - ABORT_BEFORE_SECONDS), self._worker.abort),
        )
        await super().shutdown(sockets)
        for timer in timers:
            timer.cancel()


def bind_address(config: uvicorn.Config) -> socket.socket:
    """Return a socket bound to the address; uvicorn's own function prints the system's error and exits.

    Raises:
        CannotRun: the address is in use, or not one of this machine.
    """
    listening = socket.socket(socket.AF_INET6 if ":" in config.host else socket.AF_INET)
    # On Windows SO_REUSEADDR would let another process take over a port that is in use.
    reuse = getattr(socket, "SO_EXCLUSIVEADDRUSE", socket.SO_REUSEADDR)
    listening.setsockopt(socket.SOL_SOCKET, reuse, 1)
    try:
        listening.bind((config.host, config.port))
    except OSError as error:
        listening.close()
        raise CannotRun(
            f"cannot listen on {config.host} port {config.port}: {system_reason(error)}",
            "choose another with --port, or --port 0",
        ) from None
    listening.set_inheritable(True)
    return listening


def run_until_signal(server: uvicorn.Server, listening: Any) -> None:
    """Run until a signal. uvicorn raises it again afterwards, which is swallowed: a clean stop exits with 0."""
    received: list[int] = []
    signals = (signal.SIGINT, signal.SIGTERM)
    handlers = {
        number: signal.signal(number, lambda number, frame: received.append(number)) for number in signals
    }
    try:
        server.run(sockets=[listening])
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    if received:
        _log("stopped")


def _exit_if_busy(worker: BatchingWorker) -> None:
    """End the process at once where the worker still computes: torch aborts when Python shuts down under it."""
    if worker.alive:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError):
                stream.flush()
        os._exit(0)


def _log(text: str) -> None:
    with suppress(OSError):  # stderr may have been closed
        print(text, file=sys.stderr, flush=True)
