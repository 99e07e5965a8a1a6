"""What an arm answers with besides its model: instructions, examples shown, passages. For the trial and for `ask`."""

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
from runners.plan.steps import EvaluateStep
from runners.run_folder import TRIAL
from runners.runs.session import RunContext, model_identity


@dataclass(frozen=True, slots=True)
class PreparedArm:
    """An arm made ready to answer."""

    plan: Plan
    """The run's plan, with the arm's own instructions where it has any."""
    shots: FewShotExamples
    finder: PassageFinder | None


def prepare_arm(
    context: RunContext, step: EvaluateStep, weights: Path | None, gold: Callable[[Question], str]
) -> PreparedArm:
    """Make an arm ready for the trial; a bank that is to be chosen is chosen now, on dev questions."""
    finder = passage_finder(context, step)
    if step.bank != "chosen":
        return PreparedArm(context.plan, shown_examples(context, step, context.examples), finder)
    dev = context.split.dev
    own = bool(dev) and all(question.system for question in dev)
    stage = SelectionContext(
        context.plan,
        step,
        dev,
        lambda: context.generator(weights, step),
        finder,
        gold,
        f"{model_identity(context.base_of(step))} {step.weights or ''}",
        context.run.path / TRIAL,
        context.emit,
    )
    budget = min(step.budget, len(context.split.test))
    found = select_prompt(stage, prompt_candidates(context.plan, context.examples, step.shots, own), budget)
    return _chosen(context.plan, found, finder)


def recall_arm(
    context: RunContext, step: EvaluateStep, examples: Callable[[], tuple[Example, ...]]
) -> PreparedArm:
    """Make an arm ready as it was in the trial; `examples` reads them, where they are needed.

    BadInput when the arm's bank was to be chosen and the trial has not got that far.
    """
    finder = passage_finder(context, step)
    if step.bank != "chosen":
        return PreparedArm(context.plan, shown_examples(context, step, examples()) if step.shots else (), finder)
    kept = read_choice(context.run.path / TRIAL, step.arm)
    if kept is None:
        raise BadInput(
            f"the run has not chosen the examples of the arm {step.arm} yet",
            f"finish it with: tunewise run {context.run.path} --resume",
        )
    return _chosen(context.plan, PromptCandidate.from_json(kept["chosen"]), finder)


def shown_examples(context: RunContext, step: EvaluateStep, examples: tuple[Example, ...]) -> FewShotExamples:
    """The examples of an arm whose bank is fixed, or that looks the nearest up."""
    if step.bank == "similar":
        return NearestExamples(examples, context.embedder, step.shots)
    return choose_shots(examples, step.shots, context.plan.seed)


def passage_finder(context: RunContext, step: EvaluateStep) -> PassageFinder | None:
    """What brings an arm's passages: the run's retriever, or all of its index; None for an arm without."""
    if not step.retrieval:
        return None
    if step.passages == "found":
        return context.retriever
    from runners.arms.long_context import AllPassages

    base = context.base_of(step)
    return AllPassages(context.index, control_tokens(base.folder if isinstance(base, Model) else None))


def _chosen(plan: Plan, found: PromptCandidate, finder: PassageFinder | None) -> PreparedArm:
    return PreparedArm(with_instructions(plan, found.system), found.shots, finder)
