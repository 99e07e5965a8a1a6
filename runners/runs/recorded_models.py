"""The models of a finished run, known by the fingerprints in its log, wherever they lie now. Light."""

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
from runners.runs.session import BaseModel, model_identity, obtain_bases, obtain_model

MOVED_BASE_HINT = (
    "where the run's base lies elsewhere, ask, chat, serve and export take its folder: --model FOLDER"
)


def recorded_fingerprints(
    plan: Plan, bases: Mapping[str, BaseModel], embedder: resolve.Model | None
) -> dict[str, str]:
    """Return what a run's log keeps of its models: what tells each from every other, by the plan's name for it."""
    vectors = {plan.embedder.name: embedder.fingerprint} if embedder else {}
    return vectors | {name: model_identity(base) for name, base in bases.items()}


class RecordedModels:
    """The models that a run was made with; another one under the same name is refused.

    Logs of before kept only the fingerprint of the base: the other models of such a run are taken as they are.
    """

    def __init__(
        self, run: RunFolder, plan: Plan, folder: Path | None = None, tell: OnEvent | None = None
    ) -> None:
        """Read the log; ``folder`` is where the base lies now. UsageProblem when the run's base has no folder."""
        if folder and resolve.parse_remote(plan.model.name):
            raise UsageProblem(
                f"the run's base is an endpoint, {plan.model.name}: it has no folder", "leave out --model"
            )
        start: dict[str, Any] = next((e for e in reversed(run.events()) if e.get("event") == "run.start"), {})
        self._prints = {**(start.get("models") or {}), plan.model.name: start.get("base")}
        self._plan, self._folder, self._tell = plan, folder, tell

    def bases(self) -> dict[str, BaseModel]:
        """Return every model that the arms answer with, by the plan's name for it, the plan's own first."""
        return obtain_bases(self._plan, self._tell, self.base)

    def base(self, wanted: PlanModel) -> resolve.Model:
        """Return one of them that has its weights here, obtained if need be; BadInput when it is another one."""
        folder = self._folder if wanted.name == self._plan.model.name else None
        wanted = self._printed(wanted)
        if folder:
            if not wanted.fingerprint:
                raise BadInput(
                    f"the run does not say which weights {wanted.name} had, so {folder} cannot be known as them",
                    "leave out --model, and put the folder where the plan says",
                )
            wanted = wanted.model_copy(update={"name": str(folder.absolute())})
        try:
            return obtain_model(wanted, "base", self._tell)
        except (BadInput, CannotRun) as problem:
            if folder:
                raise
            raise type(problem)(
                problem.message, "; ".join(filter(None, (problem.hint, MOVED_BASE_HINT)))
            ) from None

    def embedder(self) -> resolve.Model:
        """Return the plan's embedder, obtained if need be; BadInput when it is another one."""
        return obtain_model(self._printed(self._plan.embedder), "embedder", self._tell)

    def _printed(self, wanted: PlanModel) -> PlanModel:
        known = wanted.fingerprint or self._prints.get(wanted.name)
        return wanted.model_copy(update={"fingerprint": known})
