"""Arms that endpoints answer, asked while the other steps of a run work in this process: a thread for each host.

Only where a plan compares several models, and for its teacher. An arm whose host fails, or for which the money ends, is
incomplete: it keeps the answers that it has, the others are measured and judged, and a resumed run asks for the rest.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rag.errors import Problem
from rag.types import OnEvent
from runners.lookup.journal import LOOKUPS
from runners.models import resolve
from runners.models.endpoint import endpoint_host
from runners.plan.named_models import reference_arms
from runners.plan.schema import Plan, Step
from runners.plan.steps import EmbedderStep, EvaluateStep, IndexStep
from runners.run_folder import TRIAL, read_journal
from runners.runs.opened import OpenRun
from runners.trial.trial import ANSWERS

INCOMPLETE_EVENT = "arm.incomplete"
BESIDE = "beside"
"""Key of events of a step that runs beside the current one; its value is the step's name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedStep:
    """A step with its place in the run."""

    number: int
    name: str
    step: Step


RunStep = Callable[[OpenRun, PlannedStep], bool]
"""Runs a step unless it is finished; returns whether it ran."""


def host_of(plan: Plan, step: Step) -> str:
    """Return the host that answers an arm by an endpoint of the plan's models; "" for every other step."""
    if not isinstance(step, EvaluateStep) or step.without_model or step.route or step.weights:
        return ""
    remote = resolve.parse_remote(plan.model_of(step).name)
    return endpoint_host(remote.url) if remote and plan.servers.model_of(step) is None else ""


def first_after_shared(steps: Sequence[Step]) -> int:
    """Return the position of the first step after all that are shared: the index and the tuned embedder."""
    shared = [n for n, step in enumerate(steps) if isinstance(step, IndexStep | EmbedderStep)]
    return max(shared, default=-1) + 1


def complete_or_note(context: OpenRun, planned: PlannedStep, run_step: RunStep) -> tuple[bool, str]:
    """Run the step of a remote arm; return whether it ran, and why it is incomplete, "" where it is not.

    Only for arms beside which others are judged (:func:`is_one_of_several`); elsewhere the error is raised.
    """
    plan, step = context.plan, planned.step
    if (
        not isinstance(step, EvaluateStep)
        or not is_one_of_several(plan, step)
        or not asks_endpoint(plan, step)
    ):
        return run_step(context, planned), ""
    try:
        return run_step(context, planned), ""
    except Problem as problem:
        rows = read_journal(context.folder.path / TRIAL / ANSWERS)
        answered = sum(row["arm"] == step.arm for row in rows)
        event = {"arm": step.arm, "reason": problem.message, "answered": answered}
        context.emit({"event": INCOMPLETE_EVENT, **event, "questions": len(context.split.test)})
        return True, problem.message


def is_one_of_several(plan: Plan, step: EvaluateStep) -> bool:
    """Return whether others are worth judging without an arm: several models are compared, or it is a reference."""
    return len(plan.models) > 1 or step.arm in reference_arms(plan)


def asks_endpoint(plan: Plan, step: EvaluateStep) -> bool:
    """Return whether an arm, or an arm of a router, is answered by an endpoint of the plan's models."""
    return bool(host_of(plan, plan.routed(step)[1] if step.route else step))


def require_tool_models(context: OpenRun, steps: Sequence[Step]) -> None:
    """Ask endpoints whose model is to look things up whether they take tools, before anything is asked or trained.

    Where several models are compared, it is asked when the arm begins: without tools that arm alone is incomplete.
    """
    models = context.models
    for step in steps:
        if not isinstance(step, EvaluateStep) or not step.looks_up:
            continue
        if not (models.generates_here(step) or is_one_of_several(context.plan, step)):
            journal = context.folder.path / TRIAL / LOOKUPS
            context.retrieval.looking_up(step, models.generator(None, step), (journal,)).require_tools()


def one_at_a_time(on_event: OnEvent | None) -> OnEvent | None:
    """Return a handler that is called by one thread at a time: arms of endpoints run beside other steps."""
    if on_event is None:
        return None
    lock = threading.RLock()

    def locked(event: dict[str, Any]) -> None:
        with lock:
            on_event(event)

    return locked


class RemoteArms:
    """The remote arms of a run, asked host by host in threads of their own."""

    def __init__(self, context: OpenRun, steps: Sequence[PlannedStep], run_step: RunStep) -> None:
        """Prepare the threads, without starting them.

        Args:
            context: the run.
            steps: the steps of the run.
            run_step: runs one.
        """
        self._context, self._run_step = context, run_step
        self._hosts: dict[str, list[PlannedStep]] = {}
        for planned in steps:
            host = host_of(context.plan, planned.step)
            if (
                host
                and isinstance(planned.step, EvaluateStep)
                and is_one_of_several(context.plan, planned.step)
            ):
                self._hosts.setdefault(host, []).append(planned)
        gate = {f"evaluate:{arm}" for arm in (context.plan.choice, *context.plan.gate.must_beat)}
        for waiting in self._hosts.values():
            # where the money ends, the arms that the verdict is about are answered
            waiting.sort(key=lambda planned: planned.name not in gate)
        self._threads: list[threading.Thread] = []
        self._stop = threading.Event()
        self._ran: list[bool] = []
        self.incomplete: dict[str, str] = {}
        """Arms without all answers, each with the reason."""
        self._failures: list[BaseException] = []

    @property
    def names(self) -> frozenset[str]:
        """The names of the steps that run here."""
        return frozenset(planned.name for steps in self._hosts.values() for planned in steps)

    def start(self) -> None:
        """Ask the hosts from now on; only the first call does something."""
        if self._threads:
            return
        for host, steps in self._hosts.items():
            # Daemon threads: an interrupted run must not wait for an answer.
            thread = threading.Thread(target=self._ask, args=(steps,), daemon=True, name=f"arms of {host}")
            self._threads.append(thread)
            thread.start()

    def join(self) -> list[bool]:
        """Wait for all hosts; return of each step whether it ran. Raises what ended a thread unexpectedly."""
        self.start()
        for thread in self._threads:
            while thread.is_alive():
                thread.join(0.5)  # with a time-out, so that a signal is noticed
        if self._failures:
            raise self._failures[0]
        ran, self._ran = self._ran, []
        return ran

    def stop(self) -> None:
        """Ask nothing more: the answers under way are the last."""
        self._stop.set()

    def _ask(self, steps: Sequence[PlannedStep]) -> None:
        for planned in steps:
            beside = self._context.with_events({BESIDE: planned.name}, self._raise_if_stopped)
            try:
                ran, reason = complete_or_note(beside, planned, self._run_step)
            except _Stopped:
                return
            except BaseException as error:
                self._failures.append(error)
                return
            self._ran.append(ran)
            if reason and isinstance(planned.step, EvaluateStep):
                self.incomplete[planned.step.arm] = reason

    def _raise_if_stopped(self) -> None:
        if self._stop.is_set():
            raise _Stopped


class _Stopped(Exception):
    """The run ends: no further answer is waited for."""
