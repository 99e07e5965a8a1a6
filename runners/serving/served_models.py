"""The models that a run serves by name: its arms, its base models, and each of its tuned weights.

`served_models` lists them. A raw model (the base or an adapter) gets the chat as it came; an arm adds its
instructions, examples and passages.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rag.errors import BadInput, CannotRun
from runners.models.resolve import Model
from runners.plan.arm_names import arm_name, plain_name, split_arm
from runners.plan.schema import Plan
from runners.plan.steps import NO_QUANTIZATION, EvaluateStep, PlanModel, TrainStep
from runners.run_folder import PLAN
from runners.runs.plan_models import BaseModel
from runners.runs.retrieval import refused_arms

if TYPE_CHECKING:
    from runners.runs.opened import OpenRun


_LOADED = {False: "kept", True: "on demand"}


@dataclass(frozen=True, slots=True)
class ServedModel:
    """One name that a request's `model` may give."""

    id: str
    step: EvaluateStep
    root: str
    """The name of the base model."""
    parent: str | None = None
    """The base that the tuned weights are applied to, named as vLLM does; None without tuned weights."""
    weights: Path | None = None
    """The folder of the tuned weights, for an adapter served raw."""
    raw: bool = False
    """Whether a chat is passed to the model unchanged."""
    created: int = 0
    """When the run was made, in seconds since 1970."""
    batch_key: str = ""
    """Requests of equal keys are decoded together: the weights, or the name where nothing is decoded here."""
    local: bool = False
    """Whether its answers are generated in this process, token by token, so that they can be held to a form."""

    loaded: str = ""
    """Where several language models of this process answer: ``kept`` in memory, or loaded ``on demand``; "" elsewhere."""
    routes: tuple[ServedModel, ServedModel] | None = None
    """Of a router: the arm that answers where it is sure, and the other one."""

    looks_up_here: bool = False
    """Whether its model is one of this process and looks things up, in several generations for an answer."""

    @property
    def answers_at_once(self) -> bool:
        """Whether an answer comes whole from this process: a label, a reply that is chosen, or one that was looked up."""
        return not self.raw and (
            self.step.without_model or self.step.labels == "scored" or self.looks_up_here
        )

    @property
    def looks_up(self) -> bool:
        """Whether its model looks things up before it answers: nothing can be streamed before that."""
        return not self.raw and self.step.looks_up


def served_models(session: OpenRun, arm: str | None = None) -> tuple[dict[str, ServedModel], list[str]]:
    """List what a run can serve.

    Args:
        session: the opened run.
        arm: the arm that answers by default; None for the one that the verdict says to use.

    Returns:
        The models by name, the default first; and the arms that are left out because they lack weights.

    Raises:
        BadInput: the run has no such arm, or lacks its weights.
        BadInput, CannotRun: the model of the default arm cannot be had here; arms of other such models are left out.
        UsageProblem: none was named, and the verdict says that no arm can be used.
    """
    offered = _offered_arms(session, arm)
    default = arm or session.default_arm or session.arm().arm
    arm_names = {arm.arm for arm in session.plan.arms}
    bases = _base_names(session, arm_names)
    models: dict[str, ServedModel] = {}
    missing = []
    for step in sorted(offered, key=lambda step: step.arm != default):
        asks = session.plan.routed(step)[1] if step.route else step
        model = session.plan.model_of(asks)
        if not asks.without_model and model.name in session.models.obtained.missing and step.arm != default:
            continue
        if asks.weights and not _existing_weights(session, asks) and not session.backend.model_of(asks):
            missing.append(step.arm)
            continue
        root = bases.get(model) or _public_name(session.models.base_of(asks), arm_names)
        models[step.arm] = _served(session, step, root, root if step.weights else None)
    for model, base in bases.items():
        # Its step is of the model, whatever characters the name has.
        step = EvaluateStep(arm=arm_name(plain_name(base), _alias(session.plan, model)))
        models[base] = _served(session, step, base, raw=True, id=base)
    for train in (step for step in session.plan.steps if isinstance(step, TrainStep)):
        for seed in train.seeds:
            folder = session.folder.adapter(train.arm, seed)
            method, alias = split_arm(train.arm)
            step = EvaluateStep(arm=arm_name(f"{method}-s{seed}", alias), weights=train.arm)
            base = bases.get(session.plan.model_of(train), "")
            if session.backend.model_of(step) and seed != train.seeds[0]:
                continue  # a server has the weights of one seed under the arm's name
            if base and folder.exists() and folder.name not in models:
                models[folder.name] = _served(session, step, base, base, folder, raw=True, id=folder.name)
    return models, missing


def _served(
    session: OpenRun,
    step: EvaluateStep,
    root: str,
    parent: str | None = None,
    weights: Path | None = None,
    *,
    raw: bool = False,
    id: str = "",
) -> ServedModel:
    """Return a model that is served under the name of its step, or under another one."""
    models = session.models
    routed = () if raw or step.route is None else session.plan.routed(step)
    first, other = (_served(session, part, root) for part in routed) if routed else (None, None)
    here = not step.without_model and models.generates_here(step)
    several = here and len(models.local_models) > 1
    return ServedModel(
        id or step.arm,
        step,
        root,
        parent,
        weights,
        raw=raw,
        created=int((session.folder.path / PLAN).stat().st_mtime),
        batch_key=_batch_key(session, step, weights),
        local=here and step.labels == "generated" and (raw or not step.looks_up),
        looks_up_here=here and not raw and step.looks_up,
        loaded=other.loaded if other else (_LOADED[models.loads_on_demand] if several else ""),
        routes=(first, other) if first and other else None,
    )


def _offered_arms(session: OpenRun, arm: str | None) -> list[EvaluateStep]:
    """Return the arms of a run without those whose tuned retriever was refused, unless one is named.

    Raises:
        BadInput: the run lacks the weights or the tuned retriever of the arm that is named.
    """
    if arm is not None:
        session.weights(step := session.arm(arm))
        if step.retriever == "tuned":
            session.retrieval.tuned.require(step)
    refused = refused_arms(session.folder.path, session.plan)
    return [step for step in session.plan.arms if step.arm == arm or step.arm not in refused]


def answerable_models(
    session: OpenRun, models: dict[str, ServedModel]
) -> tuple[dict[str, ServedModel], dict[str, str]]:
    """Ask the backend's servers which models they have; without a backend nothing is asked.

    Args:
        session: the opened run.
        models: what it could serve, the default first.

    Returns:
        The models that the servers have, the default first; and the others with the reason why they are left out.

    Raises:
        BadInput: a server lacks the model of the default arm; the message lists what it has.
        CannotRun: no server of the default arm is up.
    """
    servers = session.models.obtained.servers
    if servers is None:
        return models, {}
    left_out: dict[str, str] = {}
    for position, model in enumerate(models.values()):
        try:
            servers.require(model.step)
        except (BadInput, CannotRun) as problem:
            if position == 0:
                raise
            left_out[model.id] = problem.message
    return {name: model for name, model in models.items() if name not in left_out}, left_out


def _existing_weights(session: OpenRun, step: EvaluateStep) -> Path | None:
    folder = session.weights_folder(step)
    return folder if folder and folder.exists() else None


def _batch_key(session: OpenRun, step: EvaluateStep, weights: Path | None = None) -> str:
    """Return what the requests have in common that are decoded together: the model and its weights, else the arm."""
    base = session.models.base_of(step)
    here = isinstance(base, Model) and session.models.generates_here(step)
    if step.without_model or step.labels == "scored" or step.looks_up or not here:
        return step.arm
    tuned = weights or _existing_weights(session, step)
    quantization = session.plan.model_of(step).quantization
    held = base.name if quantization == NO_QUANTIZATION else f"{base.name} {quantization}"
    return f"{held} {tuned.name if tuned else ''}"


def _base_names(session: OpenRun, taken: set[str]) -> dict[PlanModel, str]:
    """Return the names of the base models that are served as they are: with its alias where two would have the same."""
    plan, bases = session.plan, session.models.obtained.bases
    asked = plan.models.values() if plan.models else (plan.model,)
    named = {model: _public_name(bases[model.name], taken) for model in asked if model.name in bases}
    names = list(named.values())
    return {
        model: name if names.count(name) == 1 else f"{name}@{_alias(plan, model)}"
        for model, name in named.items()
    }


def _alias(plan: Plan, model: PlanModel) -> str:
    """Return the alias of one of a plan's models; "" where it has none."""
    return next((alias for alias, one in plan.models.items() if one == model), "")


def _public_name(base: BaseModel, taken: set[str]) -> str:
    """Name a base without revealing where it is stored: by its folder's own name, with a prefix if that is taken."""
    name = Path(base.name).name if isinstance(base, Model) else base.name
    return f"base:{name}" if name in taken else name
