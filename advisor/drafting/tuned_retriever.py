"""A plan's embedder step and the arm ``rag-tuned``, where the user asks for them: :func:`with_tuned_retriever`.

They are never drafted unasked: on few examples a tuned retriever is rarely surely better (benchmarks/LOG.md, tuned
retrieval), and what it costs is minutes of training and a second index.
"""

from __future__ import annotations

from importlib.util import find_spec

from advisor.questionnaire.profile import Profile
from rag.errors import BadInput, CannotRun
from rag.training.settings import INSTALL
from runners.plan.schema import Plan, Step
from runners.plan.steps import EmbedderStep, EvaluateStep, IndexStep

TUNED_ARM = "rag-tuned"
MIN_OFFERED_EXAMPLES = 100
"""Examples from which the wizard offers it: of the sets in benchmarks/LOG.md none gained surely with fewer."""


def tuning_obstacle(profile: Profile) -> str:
    """Return what a plan lacks for a tuned retriever; "" where it can be added."""
    if not profile.documents:
        return "there are no documents"
    return "" if profile.examples else "there are no examples to learn from"


def offers_tuned_retriever(profile: Profile) -> bool:
    """Return whether the wizard offers a tuned retriever: documents, enough examples, questions, and the extra installed."""
    return (
        not tuning_obstacle(profile)
        and (profile.labelled_examples or 0) >= MIN_OFFERED_EXAMPLES
        and find_spec("datasets") is not None
    )


def with_tuned_retriever(plan: Plan) -> Plan:
    """Return the plan with an embedder step after its index and the arm rag-tuned after rag.

    Raises:
        BadInput: the plan has no index, no examples, or no arm rag.
        CannotRun: the extra ``retriever`` is not installed.
    """
    if plan.index is None or not plan.data.examples:
        lacking = "documents" if plan.index is None else "examples"
        raise BadInput(f"--tune-retriever: the plan has no {lacking}", f"name them: --{lacking}")
    rag = next((arm for arm in plan.arms if arm.arm == "rag"), None)
    if rag is None:
        raise BadInput("--tune-retriever: the plan has no arm rag to compare with", "leave it out")
    if find_spec("datasets") is None:
        raise CannotRun("--tune-retriever needs the package datasets, which is not installed", INSTALL)
    steps: list[Step] = []
    for step in plan.steps:
        steps.append(step)
        if isinstance(step, IndexStep):
            steps.append(EmbedderStep())
        elif isinstance(step, EvaluateStep) and step.arm == "rag":
            steps.append(step.model_copy(update={"arm": TUNED_ARM, "retriever": "tuned"}))
    return plan.model_copy(update={"steps": tuple(steps)})
