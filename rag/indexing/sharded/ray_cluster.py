"""Tasks of a sharded build on Ray: actor pools of Ray Data on the CPUs or GPUs of this machine or of a running cluster.

A Ray that is started here listens on the loopback interface only, asks for a token that exists only in the environment of
its processes, shows no dashboard, sends no usage statistics, and puts its files into a temporary folder that is removed at
the end. Ray is imported when a cluster is entered.
"""

from __future__ import annotations

import inspect
import json
import logging
import math
import os
import secrets
import shutil
import signal
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import chdir, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any

from rag.errors import CannotRun, install_hint
from rag.indexing.sharded.worker import ShardWorker, WorkerSetup
from rag.text.words import count_noun

ACTOR_CPUS = 0.5
"""Ray's CPUs that an actor reserves by default. Ray gives an actor one thread in any case; half a CPU each lets one actor
for each core run, and leaves Ray something for its own tasks."""
OBJECT_STORE_BYTES = 256 << 20
"""Memory of the object store of a Ray that is started here: tasks are texts of some 100 kB each; more goes to disk."""
TASK_RETRIES = 3
"""How often a task is given out again when its process ended; each time the actor is started anew."""
_LONGEST_TEMPORARY = 40
"""Characters of a temporary folder in which Ray's sockets, 60 characters more, fit into the system's limit of 107."""
_SHORT_TEMPORARY = Path("/tmp")  # noqa: S108 - a new folder of its own is made in it
_LOCAL_ENVIRONMENT = {
    "RAY_AUTH_MODE": "token",
    # makes Ray take the loopback address for this machine's, on Linux too
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
}
_QUIET_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
}


@dataclass(frozen=True, slots=True)
class ActorOptions:
    """The actors of a build."""

    actors: int | None = None
    """How many; None takes one for each CPU of Ray, or where they have GPUs as many as those serve."""
    cpus: float = ACTOR_CPUS
    """Ray's CPUs that each reserves."""
    gpus: float = 0.0
    """Ray's GPUs that each reserves for embedding; a fraction shares one."""
    address: str = ""
    """Of a running cluster, or ``auto``; "" starts Ray here."""


def require_ray() -> None:
    """Raise CannotRun when Ray is not installed; it is not imported."""
    if any(find_spec(name) is None for name in ("ray", "pyarrow")):
        raise CannotRun("--engine ray needs the extra `ray`", install_hint("ray"))


def fitting_actors(options: ActorOptions, cpus: float, gpus: float) -> int:
    """Return how many actors to start.

    Actors that take all CPUs are refused: a Ray Data pipeline that reads files then stops without an error (Ray 2.60, two
    actors of one CPU on two CPUs, 190 s). The tasks here come from memory and did not stop in that test, but nothing in
    Ray promises so.

    Args:
        options: what was asked for.
        cpus: all CPUs of Ray.
        gpus: all GPUs of Ray.

    Raises:
        CannotRun: the actors would take all CPUs of Ray, or more GPUs than there are; it names the largest number that
            works.
    """
    by_cpus = math.ceil(cpus / options.cpus) - 1
    by_gpus = math.floor(gpus / options.gpus + 1e-9) if options.gpus else by_cpus
    if options.gpus and by_gpus < 1:
        raise CannotRun(
            f"an actor of {options.gpus:g} GPUs does not fit: Ray has {gpus:g}",
            "remove --actor-gpus, or give --ray-address of a cluster with GPUs",
        )
    if by_cpus < 1:
        raise CannotRun(
            f"one actor of {options.cpus:g} CPUs would take all {cpus:g} CPUs of Ray, whose own tasks need some",
            f"give fewer: --actor-cpus {min(ACTOR_CPUS, cpus / 2):g}",
        )
    most = min(by_cpus, by_gpus)
    if options.actors is None:
        return min(most, max(1, by_gpus if options.gpus else math.floor(cpus)))
    if options.actors > most:
        excess = (
            f"{options.cpus:g} CPUs would take all {cpus:g} CPUs of Ray, whose own tasks need some"
            if most == by_cpus
            else f"{options.gpus:g} GPUs would need more than the {gpus:g} GPUs of Ray"
        )
        raise CannotRun(
            f"{count_noun(options.actors, 'actor')} of {excess}", f"at most {most} work here: --actors {most}"
        )
    return options.actors


class RayCluster:
    """A Ray that this process started or joined; use it as a context manager. It is a runner of tasks."""

    def __init__(self, options: ActorOptions | None = None) -> None:
        """Store the options; nothing is started yet."""
        self._options = options or ActorOptions()
        self._temporary = ""
        self.actors = 0
        """How many actors carry out the tasks; known once the cluster was entered."""

    def __enter__(self) -> RayCluster:
        """Start or join Ray.

        Raises:
            CannotRun: Ray is not installed, does not start, is not at its address, or has too few CPUs or GPUs.
        """
        require_ray()
        for name, value in _QUIET_ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        if not self._options.address and "ray" not in sys.modules:  # read when Ray is imported
            os.environ.update(_LOCAL_ENVIRONMENT)
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        with _silent_start():
            self._quiet()
        try:
            with _own_handler(signal.SIGTERM):
                self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave Ray, and end it if it was started here."""
        self.close()

    def close(self) -> None:
        """Leave Ray, and remove the files of one that was started here."""
        import ray

        ray.shutdown()
        if self._temporary:
            shutil.rmtree(self._temporary, ignore_errors=True)

    def run(
        self, tasks: Sequence[dict[str, Any]], setup: WorkerSetup, *, embedding: bool
    ) -> Iterator[dict[str, Any]]:
        """Yield the result of every task as it is done; see :class:`rag.indexing.sharded.engine.TaskRunner`.

        Raises:
            CannotRun: Ray stopped, or a task ended its process again and again.
        """
        import ray

        rows = [{"task": json.dumps(task, ensure_ascii=True)} for task in tasks]
        actors = min(self.actors, len(rows))
        bounds: dict[str, Any] = {}
        if "ray_remote_args" in inspect.signature(ray.data.Dataset.map).parameters:
            # deprecated in Ray 2.60 without another way: its own default restarts an actor for ever
            bounds = {"max_restarts": TASK_RETRIES * actors, "max_task_retries": TASK_RETRIES}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
                _RayWorker,  # type: ignore[arg-type]  # a class that Ray makes an object of in each actor
                fn_constructor_args=(setup,),
                compute=ray.data.ActorPoolStrategy(size=actors),
                num_cpus=self._options.cpus,
                num_gpus=self._options.gpus if embedding and self._options.gpus else None,
                **bounds,
            )
        try:
            for row in dataset.iter_rows():
                yield json.loads(row["result"])
        except ray.exceptions.RayTaskError as error:
            cause = getattr(error, "cause", None)
            raise (cause if isinstance(cause, Exception) else error) from None
        except ray.exceptions.RayError as error:
            raise CannotRun(
                f"Ray stopped: {_first_line(error)}",
                "finished parts are kept: run the same command to continue",
            ) from error

    def _start(self) -> None:
        """Start or join Ray and count the actors that fit."""
        import ray

        self._temporary = _short_folder()
        try:
            # Ray puts the present folder before the installed packages of its workers: a folder `rag` of the user's in it
            # would be taken for this package.
            with chdir(self._temporary), _silent_start():
                ray.init(**self._start_options())
            resources = ray.cluster_resources()
        except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            if address := self._options.address:
                raise CannotRun(
                    f"Ray at {address} cannot be joined: {_first_line(error)}",
                    "check the address, and with `ray status` that it runs",
                ) from error
            raise CannotRun(
                f"Ray does not start: {_first_line(error)}", "build without it: remove --engine ray"
            ) from error
        self.actors = fitting_actors(self._options, resources.get("CPU", 0.0), resources.get("GPU", 0.0))

    def _start_options(self) -> dict[str, Any]:
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        if self._options.address:
            return {**options, "address": self._options.address}
        return {
            **options,
            "include_dashboard": False,
            "object_store_memory": OBJECT_STORE_BYTES,
            "_temp_dir": self._temporary,
        }

    def _quiet(self) -> None:
        """Let Ray Data print nothing: the build reports its own progress and raises what goes wrong."""
        import ray.data

        logging.getLogger("ray.data").setLevel(logging.CRITICAL)
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False


class _RayWorker:
    """A :class:`ShardWorker` as Ray Data calls it: with rows of one column of text."""

    def __init__(self, setup: WorkerSetup) -> None:
        self._worker = ShardWorker(setup)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        return {"result": json.dumps(self._worker(json.loads(row["task"])), ensure_ascii=True)}


def _short_folder() -> str:
    """Return a new folder for temporary files, whose path is short enough for Ray's sockets."""
    parent = tempfile.gettempdir()
    if len(parent) > _LONGEST_TEMPORARY and _SHORT_TEMPORARY.is_dir():
        parent = str(_SHORT_TEMPORARY)
    return tempfile.mkdtemp(prefix="ray-", dir=parent)


@contextmanager
def _silent_start() -> Iterator[None]:
    """Discard what Ray's native code writes to standard error while it starts; what goes wrong is raised as well."""
    sys.stderr.flush()
    try:
        saved = os.dup(2)
    except OSError:  # no standard error
        yield
        return
    null_device = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null_device, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(null_device)


@contextmanager
def _own_handler(number: signal.Signals) -> Iterator[None]:
    """Keep this process's handler of a signal where Ray sets its own, which exits with the signal's number."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(number)
    stopped = False
    try:
        yield
    except SystemExit as error:
        if error.code != number:
            raise
        stopped = True
    finally:
        signal.signal(number, before)
    if stopped:
        signal.raise_signal(number)
        raise KeyboardInterrupt


def _first_line(error: BaseException) -> str:
    """Return the first line of an error's text that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300]
