"""What the recommended arm of a plan must beat, and when arms with retrieval refuse."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from runners.plan.steps import EvaluateStep, StrictModel
from runners.plan.train_config import implied

Check = Literal["refuse", "mark"]
CHECK_ANSWERS = 40
"""Most dev answers for the check of an arm that cites."""
MIN_ANSWERS = 10
"""Dev answers for the limit of tokens of an arm that chose no prompt, or with fewer answers."""


class PlanGate(StrictModel):
    """What the recommended arm must beat before it is advised."""

    must_beat: tuple[str, ...] = Field((), description="Arms the chosen one must beat on the combined score.")
    by: float = Field(
        0.0, ge=0, le=1, description="By at least this much on the paired difference's low end."
    )
    prefer: Literal["best", "cheapest"] | None = implied(
        None,
        description="best: the arm that scored best is used; cheapest: a cheaper one that is clearly not worse, where there "
        "is one; null is cheapest with one model, and best where several are compared.",
    )
    not_worse_by: float = implied(
        0.1,
        ge=0,
        le=1,
        description="A cheaper arm is used in place of the best one where its combined score is clearly worse by less than "
        "this; 0: only where it scored the same.",
    )


class RefusalSettings(StrictModel):
    """When an arm with retrieval refuses: before its model is asked, and after it has answered."""

    gate: Literal["fitted", "lenient", "off"] = Field(
        "fitted",
        description="fitted: a threshold fitted on the dev questions; lenient: only what is clearly outside the documents "
        "in any wording; off: the model is always asked.",
    )
    most_wrong: float = Field(
        0.05,
        gt=0,
        lt=1,
        description="Largest share of answerable dev questions that may be refused, in the worst of their wordings.",
    )
    check: Check = Field(
        "mark",
        description="What becomes of an answer that the passages do not support: refuse gives the refusal and the nearest "
        "passage instead, in arms that lose at most 8 % of their right answers on dev questions by it; mark shows it "
        "with a mark.",
    )
    least_support: float | None = implied(
        None,
        description="Least support of an answer that is given: the log odds that a sentence it cites answers the question. "
        "null: 1.",
    )
    reasons: dict[str, str] = Field(
        default_factory=dict,
        description="Why each setting has its value: read from the comment behind it.",
    )

    def checks(self, step: EvaluateStep) -> bool:
        """Return whether dev answers decide if an arm refuses what no passage supports."""
        return self.check == "refuse" and step.retrieval and not (step.looks_up or step.route)

    def dev_answers(self, step: EvaluateStep) -> int:
        """Return the most dev answers that an arm's check or limit takes, beside those that chose its prompt."""
        grows = not (
            step.weights or (step.chooses_prompt and step.budget) or step.looks_up or step.without_model
        )
        return CHECK_ANSWERS if self.checks(step) else MIN_ANSWERS if grows and step.labels != "scored" else 0
