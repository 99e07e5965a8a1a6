"""What can be asked of a run by name: its arms, its base as it is, and each of its tuned weights as they are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from runners.bench import Base
from runners.models import Model
from runners.plan import EvaluateStep, TrainStep
from runners.rundir import PLAN

if TYPE_CHECKING:
    from runners.desk import Desk


@dataclass(frozen=True, slots=True)
class Choice:
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


def catalogue(desk: Desk) -> tuple[dict[str, Choice], list[str]]:
    """Return what can be asked, the verdict's arm first, and the arms that are left out because they lack weights."""
    made = int((desk.bench.run.path / PLAN).stat().st_mtime)
    names = {arm.arm for arm in desk.plan.arms}
    base = _called(desk.bench.base, names)
    first = desk.winner()
    found: dict[str, Choice] = {}
    missing = []
    for step in sorted(desk.plan.arms, key=lambda step: step.arm != first):
        if step.weights and not _weights(desk, step.weights):
            missing.append(step.arm)
            continue
        root = _called(desk.bench.base_of(step), names)
        parent = base if step.weights else None
        shared = _shared(desk, step)
        found[step.arm] = Choice(step.arm, step, root, parent, created=made, together=shared)
    bare = EvaluateStep(arm=base)
    found[base] = Choice(base, bare, base, raw=True, created=made, together=_shared(desk, bare))
    for train in (step for step in desk.plan.steps if isinstance(step, TrainStep)):
        for seed in train.seeds:
            folder = desk.bench.run.adapter(train.arm, seed)
            if folder.exists() and folder.name not in found:
                step = EvaluateStep(arm=folder.name)
                shared = _shared(desk, step, folder)
                found[folder.name] = Choice(folder.name, step, base, base, folder, True, made, shared)
    return found, missing


def _weights(desk: Desk, arm: str) -> Path | None:
    folder = desk.bench.run.adapter(arm, desk.plan.train_step(arm).seeds[0])
    return folder if folder.exists() else None


def _shared(desk: Desk, step: EvaluateStep, weights: Path | None = None) -> str:
    base = desk.bench.base_of(step)
    if step.classifier or not isinstance(base, Model):
        return step.arm
    worn = weights or (_weights(desk, step.weights) if step.weights else None)
    return f"{base.name} {worn.name if worn else ''}"


def _called(base: Base, taken: set[str]) -> str:
    """A base by a name that tells nothing of this machine: a folder's own name, not where it is."""
    name = Path(base.name).name if isinstance(base, Model) else base.name
    return f"base:{name}" if name in taken else name
