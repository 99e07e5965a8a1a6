"""The servers that generate a run's answers: which arm is asked from which, under which name, and what is down.

:class:`BackendServers` holds them for one opened run. Nothing is taken on trust: an arm is asked by a name that
its servers list, because some servers answer to any name with the one model they have.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rag.errors import BadInput, CannotRun
from runners.inference.http_client import OnNote, RequestLimits
from runners.inference.remote import RemoteGenerator
from runners.inference.servers.health import HealthTimes, Server
from runners.inference.servers.pool import ServerPool
from runners.models import digests, endpoint
from runners.models.adapters import ADAPTER_WEIGHTS
from runners.plan.backend import Backend, ServerModel
from runners.plan.schema import Plan
from runners.plan.steps import EvaluateStep
from runners.runs.endpoint_consent import check_endpoint_allowed, sent_by_plan


class BackendServers:
    """The servers of a run's backend; servers are shared between the arms that are asked there."""

    def __init__(
        self,
        plan: Plan,
        backend: Backend,
        must_stay_local: bool,
        on_note: OnNote = None,
        imported: Path | None = None,
        times: HealthTimes | None = None,
    ) -> None:
        """Check every address; nothing is sent yet.

        Args:
            plan: the run's plan.
            backend: the servers to ask, which need not be those of the plan.
            must_stay_local: whether data may only be sent to this machine or a private network.
            on_note: called with a sentence for each server that goes down or is back, and each request sent again.
            imported: the run folder where its own plan names the servers, which a bundle's may not until they are allowed.
            times: when servers are checked and given up.

        Raises:
            BadInput: an address may not be contacted, or a key would be sent unencrypted.
        """
        self.backend = backend
        self._plan = plan
        self._on_note = on_note
        self._generators: dict[ServerModel, RemoteGenerator] = {}
        self._lock = threading.Lock()
        for url in backend.urls:
            endpoint.check_may_contact(f"the backend's server {url}", url, must_stay_local)
            if imported is not None:
                check_endpoint_allowed(imported, endpoint.endpoint_host(url), sent_by_plan(plan))
        limits = RequestLimits(per_minute=plan.model.per_minute)
        self._servers = {url: Server(url, limits, times, on_note) for url in backend.urls}

    @property
    def servers(self) -> tuple[Server, ...]:
        """All servers, in the order they are named."""
        return tuple(self._servers.values())

    def close(self) -> None:
        """End the checks and the connections."""
        for generator in self._generators.values():
            generator.close()
        for server in self.servers:
            server.close()

    def watch(self) -> None:
        """Check every server from now on, also before it is asked anything."""
        for server in self.servers:
            server.watch()

    def generator(
        self, arm: EvaluateStep, seed: int | None = None, weights: Path | None = None
    ) -> RemoteGenerator | None:
        """Return what generates an arm's answers; None for an arm that answers in this process or at its own endpoint.

        Args:
            arm: the arm.
            seed: the seed of its weights, None for the first.
            weights: the folder of its weights, compared with the server's where both can be read here.

        Raises:
            BadInput, CannotRun: as :meth:`require` raises them, when the arm is first asked.
        """
        model = self.backend.model_of(arm, seed)
        if model is None:
            return None
        with self._lock:
            generator = self._generators.get(model)
        if generator is None:
            self.require(arm, seed)
            for url in model.urls:
                self._check_weights(self._servers[url], model.name, weights)
            with self._lock:
                generator = self._generators.setdefault(model, self._connect(model, arm))
        return generator

    def require(self, arm: EvaluateStep, seed: int | None = None) -> None:
        """Check that every server of an arm that is up has its model.

        Raises:
            BadInput: a server has no model of that name; the message lists those it has.
            CannotRun: no server of the arm is up.
        """
        model = self.backend.model_of(arm, seed)
        if model is None:
            return
        servers = [self._servers[url] for url in model.urls]
        for server in servers:
            # Its models may have changed since it was checked: an adapter is loaded once it is trained.
            if not server.has(model.name):
                server.check()
        for server in servers:
            if server.up and not server.has(model.name):
                raise BadInput(
                    f"{server.why_not(model.name)}; the arm {arm.arm} is not answered by another model",
                    _hint(arm),
                )
        if not any(server.up for server in servers):
            reasons = "; ".join(dict.fromkeys(server.reason for server in servers))
            raise CannotRun(
                f"no server of the backend answers for the arm {arm.arm}: {reasons}",
                "start it, or generate in this process: --backend local",
            )

    def _check_weights(self, server: Server, name: str, weights: Path | None) -> None:
        """Raise BadInput where a server says that an adapter is in a folder of this machine, and it is another one."""
        folder = Path((server.models or {}).get(name) or "-")
        theirs, ours = folder / ADAPTER_WEIGHTS, (weights or Path("-")) / ADAPTER_WEIGHTS
        if not (theirs.is_file() and ours.is_file()):
            return
        if digests.file_sha256(theirs) != digests.file_sha256(ours):
            raise BadInput(
                f"{server.url} has other weights under the name {name!r}: {folder}, not {weights}",
                "load those of this run by that name",
            )

    def adapters_note(self) -> str:
        """Return which adapters the servers must be given before their arms are asked; "" for none."""
        names: dict[str, None] = {}
        for arm in (arm for arm in self._plan.arms if arm.weights):
            first, *later = self._plan.train_step(str(arm.weights)).seeds
            for seed in (None, *later):
                if model := self.backend.model_of(arm, seed):
                    names[f"{arm.weights}-s{first if seed is None else seed} as {model.name!r}"] = None
        if not names:
            return ""
        return (
            f"once trained, weights must be loaded at the backend before their arms are asked: {', '.join(names)} "
            "(the run stops there until they are, and continues with --resume)"
        )

    def names(self) -> dict[str, str]:
        """Return how each arm is asked, for the run's log: by arm, the entry of its model."""
        models = {arm.arm: self.backend.model_of(arm) for arm in self._plan.arms}
        return {arm: model.entry for arm, model in models.items() if model}

    def states(self) -> list[dict[str, Any]]:
        """Return the state of every server, for ``/health``."""
        return [server.to_json() for server in self.servers]

    def can_answer(self, arm: EvaluateStep) -> bool:
        """Return whether an arm can be asked now: its backend has a server that is up and has its model, or needs none."""
        model = self.backend.model_of(arm)
        return model is None or any(self._servers[url].has(model.name) for url in model.urls)

    def _connect(self, model: ServerModel, arm: EvaluateStep) -> RemoteGenerator:
        settings = self._plan.model_of(arm)
        servers = [self._servers[url] for url in model.urls]
        for server in servers:
            server.watch()
        limits = RequestLimits(at_once=settings.at_once * len(servers), per_minute=settings.per_minute)
        return RemoteGenerator(
            model.urls[0],
            model.name,
            limits,
            self._plan.seed,
            on_note=self._on_note,
            thinking=self._plan.thinking,
            pool=ServerPool(model.name, servers, limits, self._on_note),
        )


def _hint(arm: EvaluateStep) -> str:
    """Return how to give a server the model of an arm."""
    if arm.weights:
        return (
            f"load its adapter by this name (vLLM: --lora-modules {arm.weights}=FOLDER), or name its own server: "
            f"--backend {arm.arm}=openai:NAME@URL"
        )
    return "give the name that the server lists: openai:NAME@URL"


def backend_difference(plan: Plan, backend: Backend, arms: Sequence[EvaluateStep]) -> str:
    """Return a sentence where arms are answered by other servers than those that the verdict was measured with; "" else."""
    measured = plan.servers
    changed = [arm for arm in arms if measured.model_of(arm) != backend.model_of(arm)]
    if not changed:
        return ""
    before, now = [b.model_of(changed[0]) for b in (measured, backend)]
    names = ", ".join(arm.arm for arm in changed)
    return (
        f"{names}: measured with {_in_words(before)}, answered by {_in_words(now)} now: answers may differ from those of "
        "the verdict"
    )


def _in_words(model: ServerModel | None) -> str:
    return model.entry if model else "the model in this process"
