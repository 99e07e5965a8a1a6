"""The models of a finished run, identified by the fingerprints in its log, wherever they are stored now.

:class:`RecordedModels` obtains them and refuses another model under the same name. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rag.errors import BadInput, CannotRun, UsageProblem
from rag.types import OnEvent
from runners.models import resolve
from runners.plan.schema import Plan
from runners.plan.steps import PlanModel
from runners.run_folder import RunFolder
from runners.runs.session import (
    BaseModel,
    model_identity,
    obtain_bases,
    obtain_model,
    obtain_reranker,
)

MOVED_BASE_HINT = (
    "if the run's base model was moved, give its folder to ask, chat, serve or export: --model FOLDER"
)


def recorded_fingerprints(
    plan: Plan,
    bases: Mapping[str, BaseModel],
    embedder: resolve.Model | None,
    reranker: resolve.Model | None = None,
) -> dict[str, str]:
    """Return what a run's log records of its models: the identity of each, by its name in the plan."""
    of_embedder = {plan.embedder.name: embedder.fingerprint} if embedder else {}
    if reranker and plan.index and plan.index.reranker:
        of_embedder[plan.index.reranker.name] = reranker.fingerprint
    return of_embedder | {name: model_identity(base) for name, base in bases.items()}


class RecordedModels:
    """The models that a run was made with; another one under the same name is refused."""

    def __init__(
        self, run: RunFolder, plan: Plan, folder: Path | None = None, on_event: OnEvent | None = None
    ) -> None:
        """Read the run's log.

        Args:
            run: the run folder.
            plan: its plan.
            folder: the folder of the run's base, when it is elsewhere than the plan says.
            on_event: receives the events of downloads.

        Raises:
            UsageProblem: ``folder`` is given, but the run's base is an endpoint.
        """
        if folder and resolve.parse_remote(plan.model.name):
            raise UsageProblem(
                f"the run's base is an endpoint, {plan.model.name}: it has no folder", "remove --model"
            )
        run_start: dict[str, Any] = next(
            (event for event in reversed(run.events()) if event.get("event") == "run.start"), {}
        )
        self._fingerprints = {**(run_start.get("models") or {}), plan.model.name: run_start.get("base")}
        self._plan = plan
        self._folder = folder
        self._on_event = on_event

    def bases(self) -> dict[str, BaseModel]:
        """Return every model that the arms answer with, by its name in the plan; the plan's own comes first."""
        return obtain_bases(self._plan, self._on_event, self.base)

    def base(self, wanted: PlanModel) -> resolve.Model:
        """Return a model with local weights, downloaded if necessary; BadInput when its fingerprint differs from the log."""
        folder = self._folder if wanted.name == self._plan.model.name else None
        wanted = self._with_fingerprint(wanted)
        if folder:
            if not wanted.fingerprint:
                raise BadInput(
                    f"the run does not say which weights {wanted.name} had, so {folder} cannot be checked against them",
                    "remove --model, and put the folder where the plan says",
                )
            wanted = wanted.model_copy(update={"name": str(folder.absolute())})
        try:
            return obtain_model(wanted, "base", self._on_event)
        except (BadInput, CannotRun) as problem:
            if folder:
                raise
            raise type(problem)(
                problem.message, "; ".join(filter(None, (problem.hint, MOVED_BASE_HINT)))
            ) from None

    def embedder(self) -> resolve.Model:
        """Return the plan's embedder, downloaded if necessary; BadInput when its fingerprint differs from the log."""
        return obtain_model(self._with_fingerprint(self._plan.embedder), "embedder", self._on_event)

    def reranker(self) -> resolve.Model | None:
        """Return the plan's reranker; None without one; BadInput when its fingerprint differs from the log."""
        wanted = self._plan.index.reranker if self._plan.index else None
        recorded = self._fingerprints.get(wanted.name) if wanted else None
        return obtain_reranker(self._plan, self._on_event, recorded or "")

    def _with_fingerprint(self, wanted: PlanModel) -> PlanModel:
        fingerprint = wanted.fingerprint or self._fingerprints.get(wanted.name)
        return wanted.model_copy(update={"fingerprint": fingerprint})
