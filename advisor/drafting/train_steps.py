"""Settings of a drafted plan's train steps that follow from the rows: the batch size, and how often a hybrid refuses."""

from __future__ import annotations

from collections.abc import Sequence

from advisor.drafting.example_refusals import refusals_of_examples
from advisor.questionnaire.gather import Situation
from runners.data.examples import Example
from runners.data.questions import Question
from runners.data.sampling import split_questions
from runners.plan.data import PlanData
from runners.plan.schema import Plan, Step
from runners.plan.steps import TrainStep
from runners.tokenization.token_estimate import CHARS_PER_TOKEN

CHAT_TEMPLATE_TOKENS = 20
"""Tokens that the chat template adds to a row; nothing is tokenized here."""
WITHOUT_GOLD_WITH_REFUSALS = 0.15
"""Share of a hybrid's rows without the supporting passage where questions without an answer are expected."""
WITHOUT_GOLD_DEFAULT = 0.04
"""The same elsewhere. Measured on public data without unanswerable questions: .15 made a 135M model refuse 23
% of answerable ones (benchmarks/LOG.md).
"""


def with_smaller_batches(steps: Sequence[Step], rows: Sequence[Example], system: str) -> tuple[Step, ...]:
    """Give few short rows smaller batches, for more optimiser steps; rows with passages are long enough."""
    from runners.training.defaults import smaller_batch

    if not rows:
        return tuple(steps)
    chars = sum(len(row.question) + len(row.reply) for row in rows) / len(rows) + len(system)
    row_tokens = chars / CHARS_PER_TOKEN + CHAT_TEMPLATE_TOKENS

    def smaller(step: Step) -> Step:
        if not isinstance(step, TrainStep) or step.rows != "plain":
            return step
        choice = smaller_batch(len(rows), row_tokens, step.epochs, step.batch_tokens)
        if choice is None:
            return step
        reasons = {**step.reasons, "batch_tokens": choice[1]}
        return step.model_copy(update={"batch_tokens": choice[0], "reasons": reasons})

    return tuple(map(smaller, steps))


def with_passages_settings(steps: Sequence[Step], rows: int, params_b: float) -> tuple[Step, ...]:
    """Give the train steps whose rows hold passages the passes and the learning rate of such rows."""
    from runners.training.defaults import passages_settings

    def changed(step: Step) -> Step:
        if not isinstance(step, TrainStep) or step.rows != "retrieval":
            return step
        chosen = passages_settings(step.method, rows, params_b)
        if chosen is None:
            return step
        return step.model_copy(update={**chosen.values, "reasons": {**step.reasons, **chosen.reasons}})

    return tuple(map(changed, steps))


def with_refusal_share(steps: Sequence[Step], situation: Situation) -> tuple[Step, ...]:
    """Set how often a hybrid learns to refuse: more often where questions without an answer are expected.

    Only dev questions are read: what is trained must not depend on the test questions.
    """
    rows = situation.stats.examples.rows if situation.stats.examples else ()
    dev = dev_questions(situation.stats.questions or ())
    chats = [row for row in rows if not row.raw]
    expected = any(not question.answerable for question in dev) or bool(refusals_of_examples(chats).rows)
    share, why = (
        (WITHOUT_GOLD_WITH_REFUSALS, "some dev questions or examples have no answer in the documents")
        if expected
        else (
            WITHOUT_GOLD_DEFAULT,
            "no dev question or example is known whose answer the documents lack; more would teach to refuse",
        )
    )
    return tuple(
        step.model_copy(
            update={
                "without_gold": share,
                "reasons": {**step.reasons, "without_gold": f"{share} because {why}"},
            }
        )
        if isinstance(step, TrainStep) and step.rows == "retrieval"
        else step
        for step in steps
    )


def dev_questions(questions: Sequence[Question]) -> tuple[Question, ...]:
    """Return the questions that a run of a drafted plan takes for dev: by the plan's own share and seed."""
    share, seed = (
        model.model_fields[key].default for model, key in ((PlanData, "dev_share"), (Plan, "seed"))
    )
    return split_questions(questions, share, seed).dev
