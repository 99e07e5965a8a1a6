"""What a plan works on: its files (:class:`PlanData`) and the words that its models are given (:class:`Prompts`)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from runners.plan.steps import StrictModel
from runners.plan.train_config import implied

PATH_KEYS = ("documents", "examples", "replay", "questions", "test_questions", "wordings")
"""Keys of :class:`PlanData` that name a file or a folder."""
PLACEHOLDERS = ("{passages}", "{question}")
"""What ``prompts.context`` holds once or more each."""
NOT_NAMED = "<{key}>"
"""What stands for a path that a plan needs and nobody has named yet."""


class PlanData(StrictModel):
    """The files the plan works on; relative paths start at the plan's own folder."""

    documents: Path | None = Field(None, description="A folder, a file, or a .jsonl of document rows.")
    examples: Path | None = Field(None, description="Prompt/response pairs or chats for tuning.")
    columns: dict[str, str] | None = Field(
        None, description="Which column of the examples is what, as {prompt: a, reply: b}; null guesses."
    )
    replay: Path | None = Field(
        None, description="General examples that a train step may mix in against forgetting."
    )
    questions: Path | None = Field(None, description="Held-out questions; divided once into dev and test.")
    test_questions: Path | None = Field(None, description="Your own test half; then `questions` is all dev.")
    wordings: Path | None = implied(
        None,
        description="Questions of a log, without answers: the words of those who ask, for fitting when to refuse.",
    )
    max_examples: int | None = Field(
        None, ge=1, description="Use only this many examples, drawn by the seed."
    )
    max_dev: int | None = Field(None, ge=1, description="Use only this many dev questions.")
    max_test: int | None = Field(None, ge=1, description="Use only this many test questions.")
    dev_share: float = Field(1 / 3, gt=0, lt=1, description="Share of the questions that is dev.")
    near_repeats: Literal["refuse", "leave_out"] = Field(
        "refuse",
        description="What to do with questions that nearly repeat a training row: stop, or not ask them.",
    )
    lost_rows: Literal["refuse", "accept"] = implied(
        "refuse",
        description="What to do when under two thirds of an arm's examples are trained on, or have their passage in a "
        "hybrid: stop, or go on.",
    )

    @property
    def not_named(self) -> tuple[str, ...]:
        """The keys whose path is still to be named."""
        paths = {key: getattr(self, key) for key in PATH_KEYS}
        return tuple(key for key, path in paths.items() if path and path.name == NOT_NAMED.format(key=key))


class Prompts(StrictModel):
    """The words the model is given; every arm gets the same instructions, so that none is a straw man."""

    system: str = Field("", description="The instructions used today (with the style of answers in words).")
    refusals: tuple[str, ...] = Field(
        ("I could not find that in our documents.",),
        description="How replies say that the documents do not have the answer.",
        min_length=1,
    )
    context: str = Field(
        "Passages:\n{passages}\n\nQuestion: {question}",
        description="The user turn of an arm with retrieval; {passages} and {question} are filled in.",
    )

    formulas: tuple[str, ...] = implied(
        (),
        description="Sentences that replies open or close with, a greeting for instance: they need no citation.",
    )

    @model_validator(mode="after")
    def _placeholders(self) -> Prompts:
        for name in PLACEHOLDERS:
            if name not in self.context:
                raise ValueError(f"prompts.context lacks {name}")
        return self
