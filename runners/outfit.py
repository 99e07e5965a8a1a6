"""What an arm answers with besides its model: instructions, examples shown, passages. For the trial and for `ask`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rag.errors import BadInput
from runners.audition import Stage, audition, read_choice, with_instructions
from runners.bank import Candidate, Nearest, candidates
from runners.bench import RunContext, identity
from runners.data import Example, Question
from runners.models import Model
from runners.plan import EvaluateStep, Plan
from runners.prompting import Shots, choose_shots
from runners.retrieval import Finder, control_tokens
from runners.rundir import TRIAL


@dataclass(frozen=True, slots=True)
class PreparedArm:
    """An arm made ready to answer."""

    plan: Plan
    """The run's plan, with the arm's own instructions where it has any."""
    shots: Shots
    finder: Finder | None


def prepare(
    bench: RunContext, step: EvaluateStep, weights: Path | None, gold: Callable[[Question], str]
) -> PreparedArm:
    """Make an arm ready for the trial; a bank that is to be chosen is chosen now, on dev questions."""
    finder = passages(bench, step)
    if step.bank != "chosen":
        return PreparedArm(bench.plan, shown(bench, step, bench.examples), finder)
    dev = bench.split.dev
    own = bool(dev) and all(question.system for question in dev)
    stage = Stage(
        bench.plan, step, dev, lambda: bench.generator(weights, step), finder, gold,
        f"{identity(bench.base_of(step))} {step.weights or ''}", bench.run.path / TRIAL, bench.tell,
    )  # fmt: skip
    budget = min(step.budget, len(bench.split.test))
    found = audition(stage, candidates(bench.plan, bench.examples, step.shots, own), budget)
    return _chosen(bench.plan, found, finder)


def recall(bench: RunContext, step: EvaluateStep, examples: Callable[[], tuple[Example, ...]]) -> PreparedArm:
    """Make an arm ready as it was in the trial; `examples` reads them, where they are needed.

    BadInput when the arm's bank was to be chosen and the trial has not got that far.
    """
    finder = passages(bench, step)
    if step.bank != "chosen":
        return PreparedArm(bench.plan, shown(bench, step, examples()) if step.shots else (), finder)
    kept = read_choice(bench.run.path / TRIAL, step.arm)
    if kept is None:
        raise BadInput(
            f"the run has not chosen the examples of the arm {step.arm} yet",
            f"finish it with: tunewise run {bench.run.path} --resume",
        )
    return _chosen(bench.plan, Candidate.from_json(kept["chosen"]), finder)


def shown(bench: RunContext, step: EvaluateStep, examples: tuple[Example, ...]) -> Shots:
    """The examples of an arm whose bank is fixed, or that looks the nearest up."""
    if step.bank == "similar":
        return Nearest(examples, bench.embedder, step.shots)
    return choose_shots(examples, step.shots, bench.plan.seed)


def passages(bench: RunContext, step: EvaluateStep) -> Finder | None:
    """What brings an arm's passages: the run's retriever, or all of its index; None for an arm without."""
    if not step.retrieval:
        return None
    if step.passages == "found":
        return bench.retriever
    from runners.whole import Whole

    base = bench.base_of(step)
    return Whole(bench.index, control_tokens(base.folder if isinstance(base, Model) else None))


def _chosen(plan: Plan, found: Candidate, finder: Finder | None) -> PreparedArm:
    return PreparedArm(with_instructions(plan, found.system), found.shots, finder)
