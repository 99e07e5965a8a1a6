"""What can be asked of a run by name: its arms, its base as it is, and each of its tuned weights as they are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from runners.models.resolve import Model
from runners.plan.steps import EvaluateStep, TrainStep
from runners.run_folder import PLAN
from runners.runs.session import BaseModel

if TYPE_CHECKING:
    from runners.runs.run import RunSession


@dataclass(frozen=True, slots=True)
class ServedModel:
    """One name; an arm brings instructions, examples and passages, a model as it is nothing but its weights."""

    id: str
    step: EvaluateStep
    root: str
    """The base it runs on."""
    parent: str | None = None
    """The base that its tuned weights are put on, as vLLM names it; None where there are none."""
    weights: Path | None = None
    """For tuned weights as they are."""
    raw: bool = False
    """Whether a chat goes to the model as it came."""
    created: int = 0
    """When the run was made, in seconds since 1970."""
    together: str = ""
    """What requests must share to be decoded together: the weights, or the name where nothing is decoded here."""


def served_models(session: RunSession) -> tuple[dict[str, ServedModel], list[str]]:
    """Return what can be asked, the verdict's arm first, and the arms that are left out because they lack weights."""
    made = int((session.folder.path / PLAN).stat().st_mtime)
    names = {arm.arm for arm in session.plan.arms}
    base = _called(session.context.base, names)
    first = session.winner
    found: dict[str, ServedModel] = {}
    missing = []
    for step in sorted(session.plan.arms, key=lambda step: step.arm != first):
        if step.weights and not _weights(session, step):
            missing.append(step.arm)
            continue
        root = _called(session.context.base_of(step), names)
        parent = base if step.weights else None
        shared = _shared(session, step)
        found[step.arm] = ServedModel(step.arm, step, root, parent, created=made, together=shared)
    bare = EvaluateStep(arm=base)
    found[base] = ServedModel(base, bare, base, raw=True, created=made, together=_shared(session, bare))
    for train in (step for step in session.plan.steps if isinstance(step, TrainStep)):
        for seed in train.seeds:
            folder = session.folder.adapter(train.arm, seed)
            if folder.exists() and folder.name not in found:
                step = EvaluateStep(arm=folder.name)
                shared = _shared(session, step, folder)
                found[folder.name] = ServedModel(folder.name, step, base, base, folder, True, made, shared)
    return found, missing


def _weights(session: RunSession, step: EvaluateStep) -> Path | None:
    folder = session.weights_folder(step)
    return folder if folder and folder.exists() else None


def _shared(session: RunSession, step: EvaluateStep, weights: Path | None = None) -> str:
    base = session.context.base_of(step)
    if step.classifier or not isinstance(base, Model):
        return step.arm
    tuned = weights or _weights(session, step)
    return f"{base.name} {tuned.name if tuned else ''}"


def _called(base: BaseModel, taken: set[str]) -> str:
    """A base by a name that tells nothing of this machine: a folder's own name, not where it is."""
    name = Path(base.name).name if isinstance(base, Model) else base.name
    return f"base:{name}" if name in taken else name
