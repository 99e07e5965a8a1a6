"""Runs that are opened on models of a test."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rag.types import OnEvent
from runners.data.examples import Example
from runners.data.questions import Question
from runners.data.sampling import QuestionSplit
from runners.models.resolve import Model
from runners.plan.schema import Plan
from runners.run_folder import RunFolder
from runners.runs.dataset import RunData
from runners.runs.opened import OpenRun
from runners.runs.plan_models import BaseModel, ObtainedModels


def data_of(
    examples: Sequence[Example] = (), dev: Sequence[Question] = (), test: Sequence[Question] = ()
) -> RunData:
    """Return data as it is read from files."""
    return RunData(examples=tuple(examples), split=QuestionSplit(tuple(dev), tuple(test)))


def opened_run(
    plan: Plan,
    folder: RunFolder,
    base: BaseModel,
    data: RunData | None = None,
    *,
    embedder: Any = None,
    embedder_model: Model | None = None,
    on_event: OnEvent | None = None,
) -> OpenRun:
    """Return a run of a plan that answers with a base, without data unless some is given.

    Args:
        plan: the plan.
        folder: the run folder.
        base: the model that stands for the plan's.
        data: examples and questions.
        embedder: a loaded embedder.
        embedder_model: the embedder that would be loaded.
        on_event: receives the run's events.
    """
    obtained = ObtainedModels(bases={plan.model.name: base}, embedder=embedder_model)
    return OpenRun(folder, plan, obtained, data=data or RunData(), on_event=on_event, embedder=embedder)
