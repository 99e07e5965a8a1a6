"""Prepare an arm to answer: its instructions, the examples it shows and what provides its passages.

:func:`prepare_arm` is for the trial and may choose the examples; :func:`recall_arm` restores the arm of a
finished trial, for `ask` and the server.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rag.errors import BadInput
from runners.arms.few_shot import (
    NearestExamples,
    PromptCandidate,
    SelectionContext,
    prompt_candidates,
    read_choice,
    select_prompt,
    with_instructions,
)
from runners.arms.prompts import FewShotExamples, choose_shots
from runners.arms.retriever import PassageFinder, control_tokens
from runners.data.examples import Example
from runners.data.questions import Question
from runners.models.resolve import Model
from runners.plan.schema import Plan
from runners.plan.steps import NO_QUANTIZATION, EvaluateStep
from runners.run_folder import TRIAL
from runners.runs.session import RunContext, model_identity


@dataclass(frozen=True, slots=True)
class PreparedArm:
    """An arm that is ready to answer."""

    plan: Plan
    """The run's plan, with the arm's own instructions if it has any."""
    shots: FewShotExamples
    finder: PassageFinder | None


def prepare_arm(
    context: RunContext, step: EvaluateStep, weights: Path | None, gold: Callable[[Question], str]
) -> PreparedArm:
    """Prepare an arm for the trial; a bank of examples that is to be chosen is chosen now, on dev questions.

    Args:
        context: the run.
        step: the arm's evaluate step.
        weights: the arm's adapter; None for the base model.
        gold: returns the text of a question's gold span.
    """
    step = choosing_step(context.plan, step)
    finder = passage_finder(context, step)
    if step.bank != "chosen":
        return PreparedArm(context.plan, shown_examples(context, step, context.examples), finder)
    dev = context.split.dev
    own_instructions = bool(dev) and all(question.system for question in dev)
    stage = SelectionContext(
        context.plan,
        step,
        dev,
        lambda: context.generator(weights, step),
        finder,
        gold,
        f"{_model_of_choice(context, step)} {step.weights or ''}",
        context.run.path / TRIAL,
        context.emit,
    )
    budget = min(step.budget, len(context.split.test))
    candidate = select_prompt(
        stage, prompt_candidates(context.plan, context.examples, step.shots, own_instructions), budget
    )
    return _with_candidate(context.plan, candidate, finder)


def recall_arm(
    context: RunContext, step: EvaluateStep, examples: Callable[[], tuple[Example, ...]]
) -> PreparedArm:
    """Prepare an arm as it was in the trial.

    Args:
        context: the run.
        step: the arm's evaluate step.
        examples: reads the training examples; called only when the arm shows some.

    Raises:
        BadInput: the arm's bank was to be chosen, and the trial has not chosen it yet.
    """
    step = choosing_step(context.plan, step)
    finder = passage_finder(context, step)
    if step.bank != "chosen":
        return PreparedArm(
            context.plan, shown_examples(context, step, examples()) if step.shots else (), finder
        )
    choice = read_choice(context.run.path / TRIAL, step.arm)
    if choice is None:
        raise BadInput(
            f"the run has not chosen the examples of the arm {step.arm} yet",
            f"finish it with: tunewise run {context.run.path} --resume",
        )
    return _with_candidate(context.plan, PromptCandidate.from_json(choice["chosen"]), finder)


def choosing_step(plan: Plan, step: EvaluateStep) -> EvaluateStep:
    """Return the step whose choice of a prompt an arm uses: its own, but for one that scores labels.

    That one shows what the arm shows that generates with the same settings, so that the two differ in the way of answering
    alone and no dev question is asked twice. Where the plan has no such arm, the prompt is chosen by generated answers.
    """
    if step.labels != "scored":
        return step
    generated = step.model_copy(update={"labels": "generated"})
    same = (arm for arm in plan.arms if arm.model_copy(update={"arm": step.arm}) == generated)
    return next(same, generated)


def shown_examples(context: RunContext, step: EvaluateStep, examples: tuple[Example, ...]) -> FewShotExamples:
    """Return the examples of an arm with a fixed bank, or the lookup of the nearest examples."""
    if step.bank == "similar":
        return NearestExamples(examples, context.embedder, step.shots)
    return choose_shots(examples, step.shots, context.plan.seed)


def passage_finder(context: RunContext, step: EvaluateStep) -> PassageFinder | None:
    """Return what provides an arm's passages: the run's retriever, or all passages; None for an arm without."""
    if not step.retrieval:
        return None
    if step.passages == "found":
        return context.retriever
    from runners.arms.long_context import AllPassages

    base = context.base_of(step)
    return AllPassages(context.index, control_tokens(base.folder if isinstance(base, Model) else None))


def _model_of_choice(context: RunContext, step: EvaluateStep) -> str:
    """Return what identifies the model that an arm's examples are chosen for: its fingerprint, and nf4 in 4 bits."""
    identity, quantization = model_identity(context.base_of(step)), context.settings_of(step).quantization
    return identity if quantization == NO_QUANTIZATION else f"{identity} {quantization}"


def _with_candidate(plan: Plan, candidate: PromptCandidate, finder: PassageFinder | None) -> PreparedArm:
    return PreparedArm(with_instructions(plan, candidate.system), candidate.shots, finder)
