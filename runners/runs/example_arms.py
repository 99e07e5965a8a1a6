"""What an arm without a language model answers with, made from the examples of a run: a classifier, or nearest replies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runners.arms import classifier
from runners.plan.steps import EvaluateStep
from runners.selective import replies

if TYPE_CHECKING:
    from runners.runs.opened import OpenRun


def fit_on_examples(context: OpenRun, step: EvaluateStep, made_from: str) -> dict[str, Any]:
    """Make it in the run's folder, unless it was made from the same there; return the event that says what came out.

    Args:
        context: the run.
        step: the arm.
        made_from: digest of everything that it depends on.
    """
    plan, folder, embedder = context.plan, context.folder.path, context.models.embedder
    examples, split = context.examples, context.split
    if step.nearest_reply:
        facts = replies.fit_replies(plan, step.arm, examples, split.dev, embedder, folder, made_from)
        return {"event": "replies.fitted", "arm": step.arm, **facts}
    trained = classifier.train_classifier(
        plan, step.arm, examples, embedder, folder, made_from, split.test, context.emit
    )
    return {"event": "classifier.trained", "arm": step.arm, **trained}
