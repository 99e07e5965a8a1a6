"""The models that a plan names, obtained: local weights, endpoints, and the servers of a backend. Imports no torch.

:class:`ModelSource` obtains them, of a finished run only those that it was made with; :class:`ObtainedModels` has them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag.backends.base import url_hosts
from rag.errors import BadInput, CannotRun, Problem, UsageProblem
from rag.types import OnEvent
from runners.arms.scored_labels import require_local
from runners.models import endpoint, resolve
from runners.plan.arm_names import values_by_alias
from runners.plan.named_models import local_judge
from runners.plan.schema import Plan
from runners.plan.steps import PlanModel, TrainStep
from runners.run_folder import RunFolder
from runners.runs.requirements import needs_embedder, tries_nearest_examples

if TYPE_CHECKING:
    from runners.runs.backend_servers import BackendServers

BaseModel = resolve.Model | resolve.RemoteModel
"""A model that arms answer with: local weights, or an endpoint."""
MovedModels = Path | str | Sequence[Path | str] | None
"""The folder of a run's base model that is elsewhere than its plan says; of several models ``ALIAS=FOLDER`` each."""


def obtain_model(wanted: PlanModel, kind: str, on_event: OnEvent | None = None) -> resolve.Model:
    """Return the model that a plan names, downloaded if necessary.

    Args:
        wanted: the plan's entry, with the fingerprint that the model must have, if any.
        kind: "base" or "embedder".
        on_event: receives the events of a download.

    Raises:
        BadInput: the model is of another kind or has another fingerprint.
    """
    model = resolve.resolve_model(wanted.name, wanted.allow_hub, on_event, recorded=wanted.fingerprint or "")
    if model.kind != kind:
        role = "model" if kind == "base" else "embedder"
        raise BadInput(
            f"the plan's {role} {wanted.name!r} is not of the kind it must be: {model.kind}, not {kind}",
            "see: tunewise models list",
        )
    return model


@dataclass(frozen=True, slots=True, kw_only=True)
class ObtainedModels:
    """What the arms of a run answer and search with; nothing is loaded yet."""

    bases: Mapping[str, BaseModel]
    """The models that arms answer with, by their name in the plan; the plan's own comes first."""
    missing: Mapping[str, Problem] = field(default_factory=dict)
    """Those of a finished run with several models or a teacher that cannot be had here, with the reason."""
    embedder: resolve.Model | None = None
    reranker: resolve.Model | None = None
    """The cross-encoder of the plan's index step; None when it names none."""
    judge: resolve.Model | None = None
    """The plan's judge while the plan is carried out; None for an endpoint and without one."""
    servers: BackendServers | None = None
    """The servers that generate in place of this process; None where none do."""

    @property
    def base(self) -> BaseModel:
        """The plan's own model."""
        return next(iter(self.bases.values()))

    def folders(self, plan: Plan) -> dict[str, Path]:
        """Return the folders of the models with local weights, by their name in the plan."""
        folders = {name: base.folder for name, base in self.bases.items() if isinstance(base, resolve.Model)}
        folders |= {plan.judge.name: self.judge.folder} if plan.judge and self.judge else {}
        return folders | ({plan.embedder.name: self.embedder.folder} if self.embedder else {})

    def fingerprints(self, plan: Plan) -> dict[str, str]:
        """Return what a run's log records: the identity of each model, by its name in the plan."""
        known = {plan.embedder.name: self.embedder.fingerprint} if self.embedder else {}
        if self.reranker and plan.index and plan.index.reranker:
            known[plan.index.reranker.name] = self.reranker.fingerprint
        if self.judge and plan.judge:
            known[plan.judge.name] = self.judge.fingerprint
        return known | {name: model_identity(base) for name, base in self.bases.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSource:
    """Where the models of a plan come from; of a run that was carried out, another one under the same name is refused."""

    plan: Plan
    on_event: OnEvent | None = None
    """Receives the events of downloads."""
    recorded: Mapping[str, str] | None = None
    """The fingerprints in the run's log by name; None for a plan that is yet to be carried out."""
    folders: Mapping[str, Path] = field(default_factory=dict)
    """The folders of base models that are elsewhere than the plan says, by their name in it."""

    @classmethod
    def of_run(
        cls, run: RunFolder, plan: Plan, moved: MovedModels = None, on_event: OnEvent | None = None
    ) -> ModelSource:
        """Read the fingerprints in a run's log; UsageProblem as of :func:`moved_folders`."""
        folders = moved_folders(plan, moved)
        start: dict[str, Any] = next((e for e in reversed(run.events()) if e.get("event") == "run.start"), {})
        recorded = {**(start.get("models") or {}), plan.model.name: start.get("base")}
        return cls(plan=plan, on_event=on_event, recorded=recorded, folders=folders)

    def bases(self, missing: dict[str, Problem] | None = None) -> dict[str, BaseModel]:
        """Return every model that the plan's arms answer with, by its name in the plan; the plan's own comes first.

        Nothing is sent to an endpoint here.

        Args:
            missing: receives the local models that cannot be obtained, with the reason; None raises it.

        Raises:
            BadInput: an endpoint may not be contacted, is to be tuned, or is to score labels.
        """
        plan, bases = self.plan, dict[str, BaseModel]()
        for wanted in plan.base_models:
            remote = resolve.parse_remote(wanted.name)
            if remote:
                endpoint.check_may_contact(remote.name, remote.url, must_stay_local(plan))
            try:
                bases[wanted.name] = remote or self.base(wanted)
            except (BadInput, CannotRun) as problem:
                if missing is None:
                    raise
                missing[wanted.name] = problem
        for step in plan.arms:
            if step.labels == "scored" and plan.model_of(step).name in bases:
                require_local(step, bases[plan.model_of(step).name])
        if plan.judge and (judge := resolve.parse_remote(plan.judge.name)):
            endpoint.check_may_contact(judge.name, judge.url, must_stay_local(plan))
        steps = [step for step in plan.steps if isinstance(step, TrainStep)]
        remote_steps = [s for s in steps if isinstance(bases.get(plan.model_of(s).name), resolve.RemoteModel)]
        if remote_steps:
            names = ", ".join(dict.fromkeys(plan.model_of(step).name for step in remote_steps))
            tuned = ", ".join(step.arm for step in remote_steps)
            raise BadInput(
                f"{names} is an endpoint: its weights are not here, so {tuned} cannot be trained",
                "take the train steps and their arms out of the plan, or name a local model",
            )
        return bases

    def base(self, wanted: PlanModel) -> resolve.Model:
        """Return a model with local weights, downloaded if necessary; BadInput when its fingerprint differs from the log."""
        folder = self.folders.get(wanted.name)
        wanted = self._with_fingerprint(wanted)
        if folder:
            if not wanted.fingerprint:
                raise BadInput(
                    f"the run does not say which weights {wanted.name} had, so {folder} cannot be checked against them",
                    "remove --model, and put the folder where the plan says",
                )
            wanted = wanted.model_copy(update={"name": str(folder.absolute())})
        try:
            return obtain_model(wanted, "base", self.on_event)
        except (BadInput, CannotRun) as problem:
            if folder or self.recorded is None:
                raise
            flag = "--model ALIAS=FOLDER" if self.plan.models else "--model FOLDER"
            moved = (
                f"if the run's base model was moved, give its folder to ask, chat, serve or export: {flag}"
            )
            hint = "; ".join(filter(None, (problem.hint, moved)))
            raise type(problem)(problem.message, hint) from None

    def embedder(self, needed: bool = False) -> resolve.Model | None:
        """Return the plan's embedder, downloaded if necessary; None where nothing is embedded.

        Where only the nearest of the examples are to be tried with it, None also where it cannot be obtained: the arm says
        so, and tries the other examples.

        Args:
            needed: whether something needs it that the plan does not say: nearest examples that a trial has chosen.
        """
        plan = self.plan
        if not (needed or needs_embedder(plan) or (self.recorded is None and tries_nearest_examples(plan))):
            return None
        try:
            return obtain_model(self._with_fingerprint(plan.embedder), "embedder", self.on_event)
        except CannotRun:
            if needed or needs_embedder(plan):
                raise
            return None

    def reranker(self) -> resolve.Model | None:
        """Return the cross-encoder that the plan's index step names, downloaded if necessary; None when it names none."""
        if self.plan.index is None or self.plan.index.reranker is None:
            return None
        wanted = self._with_fingerprint(self.plan.index.reranker)
        return resolve.resolve_model(
            wanted.name, wanted.allow_hub, self.on_event, recorded=wanted.fingerprint or ""
        )

    def judge(self) -> resolve.Model | None:
        """Return the plan's judge, downloaded if necessary; None for an endpoint and without one."""
        return next(map(self.base, local_judge(self.plan)), None)

    def obtained(self) -> ObtainedModels:
        """Return all models of the plan."""
        return ObtainedModels(bases=self.bases(), embedder=self.embedder(), reranker=self.reranker())

    def _with_fingerprint(self, wanted: PlanModel) -> PlanModel:
        fingerprint = wanted.fingerprint or (self.recorded or {}).get(wanted.name)
        return wanted.model_copy(update={"fingerprint": fingerprint})


def moved_folders(plan: Plan, moved: MovedModels) -> dict[str, Path]:
    """Return the folders of base models that are elsewhere than a plan says, by the models' names in the plan.

    Raises:
        UsageProblem: a model is an endpoint, or as of :func:`runners.plan.arm_names.values_by_alias`.
    """
    given = [moved] if isinstance(moved, Path | str) else moved or ()
    folders: dict[str, Path] = {}
    for alias, folder in values_by_alias([str(each) for each in given], plan.models).items():
        model = plan.models[alias] if alias else plan.model
        if resolve.parse_remote(model.name):
            raise UsageProblem(
                f"the run's base is an endpoint, {model.name}: it has no folder", "remove --model"
            )
        folders[model.name] = Path(folder)
    return folders


def must_stay_local(plan: Plan) -> bool:
    """Return whether the plan's answers forbid sending data elsewhere."""
    local, hosted = (plan.answers.get(key) for key in ("data_must_stay_local", "hosted_api_allowed"))
    return (local is not None and local.value in (True, "yes")) or (
        hosted is not None and hosted.value in (False, "no")
    )


def model_identity(base: BaseModel) -> str:
    """Return what identifies a model: its fingerprint, or an endpoint's model name and host, the only things it shows."""
    if isinstance(base, resolve.Model):
        return base.fingerprint
    return f"openai:{base.name}@{endpoint.endpoint_host(base.url)}"


def named_models(plan: Plan) -> list[dict[str, str]]:
    """Return the models of a plan as manifests list them: the name of each, and the host of an endpoint."""
    rows = []
    for name in dict.fromkeys(model.name for model in plan.base_models):
        remote = resolve.parse_remote(name)
        rows.append(
            {"model": remote.name, "endpoint": endpoint.endpoint_host(remote.url)}
            if remote
            else {"model": name}
        )
    for server in plan.servers.models:
        rows += [
            {"model": server.name, "endpoint": endpoint.endpoint_host(url), "as": "backend"}
            for url in server.urls
        ]
    if plan.judge and (judge := resolve.parse_remote(plan.judge.name)):
        rows.append({"model": judge.name, "endpoint": endpoint.endpoint_host(judge.url), "as": "judge"})
    elif plan.judge:
        rows.append({"model": plan.judge.name, "as": "judge"})
    rows += [{"model": plan.embedder.name, "endpoint": host, "as": "index"} for host in index_hosts(plan)]
    return rows


def index_hosts(plan: Plan) -> list[str]:
    """Return the hosts of the database that holds a plan's index; none where no database does, or by a socket."""
    url = plan.index.backend if plan.index else None
    return url_hosts(url) if url else []
