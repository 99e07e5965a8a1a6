"""The models that a run serves by name: its arms, its base model, and each of its tuned weights.

`served_models` lists them. A raw model (the base or an adapter) gets the chat as it came; an arm adds its
instructions, examples and passages.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rag.errors import BadInput, CannotRun
from runners.models.resolve import Model
from runners.plan.steps import EvaluateStep, TrainStep
from runners.run_folder import PLAN
from runners.runs.session import BaseModel

if TYPE_CHECKING:
    from runners.runs.run import RunSession
from runners.runs.tuned_retrieval import TunedRetrieval, refused_arms


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

    @property
    def answers_at_once(self) -> bool:
        """Whether an answer is a label that is chosen in this process, without decoding."""
        return not self.raw and (self.step.classifier or self.step.labels == "scored")


def served_models(session: RunSession, arm: str | None = None) -> tuple[dict[str, ServedModel], list[str]]:
    """List what a run can serve.

    Args:
        session: the opened run.
        arm: the arm that answers by default; None for the one that the verdict says to use.

    Returns:
        The models by name, the default first; and the arms that are left out because they lack weights.

    Raises:
        BadInput: the run has no such arm, or lacks its weights.
        UsageProblem: none was named, and the verdict says that no arm can be used.
    """
    offered = _offered_arms(session, arm)
    backend = session.backend
    default = arm or session.default_arm or session.arm().arm
    created = int((session.folder.path / PLAN).stat().st_mtime)
    arm_names = {arm.arm for arm in session.plan.arms}
    base = _public_name(session.context.base, arm_names)
    models: dict[str, ServedModel] = {}
    missing = []
    for step in sorted(offered, key=lambda step: step.arm != default):
        if step.weights and not _existing_weights(session, step) and not backend.model_of(step):
            missing.append(step.arm)
            continue
        root = _public_name(session.context.base_of(step), arm_names)
        parent = base if step.weights else None
        key = _batch_key(session, step)
        models[step.arm] = ServedModel(
            step.arm, step, root, parent, created=created, batch_key=key, local=_is_local(session, step)
        )
    base_step = EvaluateStep(arm=base)
    key, local = _batch_key(session, base_step), _is_local(session, base_step)
    models[base] = ServedModel(base, base_step, base, raw=True, created=created, batch_key=key, local=local)
    for train in (step for step in session.plan.steps if isinstance(step, TrainStep)):
        for seed in train.seeds:
            folder = session.folder.adapter(train.arm, seed)
            step = EvaluateStep(arm=folder.name, weights=train.arm)
            if backend.model_of(step) and seed != train.seeds[0]:
                continue  # a server has the weights of one seed under the arm's name
            if folder.exists() and folder.name not in models:
                key = _batch_key(session, step, folder)
                models[folder.name] = ServedModel(
                    folder.name,
                    step,
                    base,
                    base,
                    folder,
                    raw=True,
                    created=created,
                    batch_key=key,
                    local=session.context.generates_here(step),
                )
    return models, missing


def _offered_arms(session: RunSession, arm: str | None) -> list[EvaluateStep]:
    """Return the arms of a run without those whose tuned retriever was refused, unless one is named.

    Raises:
        BadInput: the run lacks the weights or the tuned retriever of the arm that is named.
    """
    if arm is not None:
        session.weights(step := session.arm(arm))
        if step.retriever == "tuned":
            TunedRetrieval(session.folder, session.plan).require(step)
    refused = refused_arms(session.folder.path, session.plan)
    return [step for step in session.plan.arms if step.arm == arm or step.arm not in refused]


def answerable_models(
    session: RunSession, models: dict[str, ServedModel]
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
    servers = session.context.backend
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


def _existing_weights(session: RunSession, step: EvaluateStep) -> Path | None:
    folder = session.weights_folder(step)
    return folder if folder and folder.exists() else None


def _is_local(session: RunSession, step: EvaluateStep) -> bool:
    """Return whether a step's answers are generated here: not by an endpoint, a classifier or scores of labels."""
    generates = not step.classifier and step.labels == "generated"
    return generates and session.context.generates_here(step)


def _batch_key(session: RunSession, step: EvaluateStep, weights: Path | None = None) -> str:
    base = session.context.base_of(step)
    here = isinstance(base, Model) and session.context.generates_here(step)
    if step.classifier or step.labels == "scored" or not here:
        return step.arm
    tuned = weights or _existing_weights(session, step)
    return f"{base.name} {tuned.name if tuned else ''}"


def _public_name(base: BaseModel, taken: set[str]) -> str:
    """Name a base without revealing where it is stored: by its folder's own name, with a prefix if that is taken."""
    name = Path(base.name).name if isinstance(base, Model) else base.name
    return f"base:{name}" if name in taken else name
