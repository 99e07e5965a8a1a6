"""What the tools share: the allowed folder, and models and indexes that stay loaded between calls."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from mcp.server.mcpserver import Context

from advisor.mcp_server.allowed_folder import AllowedFolder
from advisor.mcp_server.background import CallProgress
from rag.errors import BadInput, CannotRun
from rag.files import MANIFEST
from runners.plan.backend import LOCAL_BACKEND

if TYPE_CHECKING:
    from runners.arms.answer import Answer
    from runners.plan.schema import Plan
    from runners.plan.steps import EvaluateStep
    from runners.runs.run import Run

STOP_SECONDS = 20.0
"""Seconds that an interrupted process is given to keep its progress."""
MAX_LOADED = 2
"""Most runs, and most indexes, that stay loaded; the one that was not used for longest is let go."""


class Loaded:
    """Opened runs or indexes by key, the latest used last."""

    def __init__(self) -> None:
        """Start empty."""
        self._values: OrderedDict[Any, Any] = OrderedDict()

    def get(self, key: Any, make: Callable[[], Any]) -> Any:
        """Return what was made for a key, and make it where it is new."""
        if key not in self._values:
            value = make()
            self._values[key] = value
            while len(self._values) > MAX_LOADED:
                self._values.popitem(last=False)
        self._values.move_to_end(key)
        return self._values[key]


@dataclass(slots=True)
class Services:
    """The state of one server."""

    folder: AllowedFolder
    without_asking: bool = False
    """Whether the person who started the server agreed to every run and training that a client cannot ask about."""
    model_lock: threading.Lock = field(default_factory=threading.Lock)
    """Held while a model computes: one call at a time, in whatever thread it is."""
    run_lock: threading.Lock = field(default_factory=threading.Lock)
    """Held while a run or a training is at work."""
    child: subprocess.Popen[str] | None = None
    """Its process."""
    child_interrupted: bool = False
    """Whether it was asked to end: a second interruption would end it without its progress."""
    runs: Loaded = field(default_factory=Loaded)
    indexes: Loaded = field(default_factory=Loaded)
    embedders: Loaded = field(default_factory=Loaded)

    def open_run(self, path: Path, progress: CallProgress) -> Run:
        """Return an opened run; opened again when its files have changed. Raises as ``runners.load``.

        BadInput for a run that asks an endpoint, or loads models, shows examples or looks up documents from outside of the
        folder.
        """
        from runners.run_folder import INDEX, TUNED_INDEX
        from runners.runs.run import load

        sealed = path / MANIFEST
        changed = sealed.stat().st_mtime_ns if sealed.is_file() else 0

        def make() -> Run:
            run = load(path, self._event_sink)
            if not (run.plan.models or run.plan.teacher):
                refuse_endpoints(run.plan, f"tunewise ask {path}")
            for index in (path / INDEX, path / TUNED_INDEX):
                refuse_database(index, f"tunewise ask {path}")
            self.folder.require_models(run.plan, f"the plan of {self.folder.shown(path)}")
            shows = any(arm.shots or arm.chooses_prompt for arm in run.plan.arms)
            shown = [("data.examples", run.plan.data.examples)] if shows else []
            if any(arm.looks_up for arm in run.plan.arms):  # its tools read the files themselves
                shown.append(("data.documents", run.plan.data.documents))
            self.folder.require_files(shown, f"the plan of {self.folder.shown(path)}")
            return run

        self._event_sink.progress = progress
        return cast("Run", self.runs.get((path, changed), make))

    def answer(self, run: Run, question: str, arm: str | None, progress: CallProgress) -> tuple[Answer, str]:
        """Return the answer of a run and the arm's name; the call can be cancelled between two pieces of the answer.

        BadInput for an arm that asks an endpoint, in a run of several models or with a teacher.
        """
        step = run.arm(arm)
        name = step.arm
        if run.plan.models or run.plan.teacher:
            refuse_endpoints(run.plan, f"tunewise ask {run.path} --arm {name}", run.plan.with_routed([step]))
        pieces = run.stream(question, name)
        while True:
            try:
                next(pieces)
            except StopIteration as end:
                return end.value, name
            progress.message = "answering"
            progress.check()

    def open_index(self, path: Path, embedder: str) -> Any:
        """Return an opened index of the newest generation, with its embedder loaded; BadInput for one in a database."""
        from advisor.workflows.index_build import load_embedder
        from rag.index import Index, newest_generation

        refuse_database(path, f"tunewise index search {self.folder.shown(path)} QUESTION")
        generation = newest_generation(path)
        loaded = self.embedders.get(embedder, lambda: load_embedder(embedder))
        return self.indexes.get((path, generation, embedder), lambda: Index.open(path, loaded))

    def stop_child(self) -> None:
        """Interrupt the process as Ctrl-C does, so that it keeps its progress; kill it if it does not end in time."""
        process = self.child
        if process is None or process.poll() is not None:
            return
        if not self.child_interrupted:
            self.child_interrupted = True
            process.send_signal(signal.SIGINT if os.name != "nt" else signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    _event_sink: EventSink = field(default_factory=lambda: EventSink())


class EventSink:
    """Passes events of an opened run, whose sink is fixed, to the call that uses it now."""

    progress: CallProgress | None = None

    def __call__(self, event: dict[str, Any]) -> None:
        """Pass an event on."""
        if self.progress is not None:
            self.progress.on_event(event)


def services_of(context: Context[Any, Any]) -> Services:
    """Return the state of the server that a call came to."""
    services = getattr(context.mcp_server, "services", None)
    if not isinstance(services, Services):
        raise CannotRun("this tool belongs to the server of tunewise mcp")
    return services


def refuse_database(index: Path, command: str) -> None:
    """Raise BadInput for an index folder that stands for a URL, also where the user has allowed its host."""
    from rag.backends.base import shown_url
    from rag.backends.consent import stored_url

    if url := stored_url(index):
        raise _sends_nothing(shown_url(url), command)


def refuse_endpoints(plan: Plan, command: str, arms: Sequence[EvaluateStep] | None = None) -> None:
    """Raise BadInput for a plan, or arms, that ask endpoints or a database: the server sends nothing and reads no key."""
    from rag.backends.base import shown_url
    from runners.models.resolve import parse_remote
    from runners.runs.requirements import remote_models

    asked = remote_models(plan)
    if arms is not None:
        named = [plan.model_of(arm).name for arm in arms if not (arm.without_model or arm.route)]
        asked = tuple(remote for name in named if (remote := parse_remote(name)))
    hosts = {remote.url for remote in asked}
    hosts |= {entry for entry in plan.servers.entries if entry != LOCAL_BACKEND}
    if plan.index is not None and plan.index.backend:
        hosts.add(shown_url(plan.index.backend))
    if hosts:
        raise _sends_nothing(", ".join(sorted(hosts)), command)


def _sends_nothing(hosts: str, command: str) -> BadInput:
    return BadInput(
        f"this asks {hosts}, and the server sends nothing over the network and reads no key",
        f"run it yourself: {command}",
    )
