"""The points of a learning curve: which arms have one, how many rows each size has and which, and the plan that trains them.

Each point is an arm of the curve's own plan, ``METHOD-nROWS-sSEED``, with ``@ALIAS`` behind it where the arm has that
(:class:`CurvePointName`), so training resumes from its checkpoints and no question is asked twice.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rag.errors import BadInput, Problem, UsageProblem
from rag.text.words import count_noun
from runners.arms.prompts import training_row
from runners.data.examples import Example
from runners.models.resolve import parse_remote
from runners.plan.arm_names import arm_name, method_of, plain_name, split_arm
from runners.plan.gate import PlanGate
from runners.plan.schema import Plan, Step
from runners.plan.steps import EvaluateStep, TrainStep
from runners.tokenization.token_estimate import CHARS_PER_TOKEN

ALL_ARMS = "all"
"""The name that stands for every arm that learns from rows."""
SHARES = (1 / 8, 1 / 4, 1 / 2, 1.0)
"""Sizes by default, as shares of the rows: together 1.875 trainings on all."""
MIN_ROWS = 8
"""Fewest rows of a size: fewer teach a model nothing that a prompt with them would not."""
CHAT_TOKENS = 20
"""Tokens that a chat template adds to a row; as in a drafted plan."""


@dataclass(frozen=True, slots=True)
class CurvePointName:
    """One training of a curve: how many rows, drawn and trained with which seed."""

    arm: str
    rows: int
    seed: int

    @property
    def name(self) -> str:
        """Its name as an arm of the curve's plan."""
        method, alias = split_arm(self.arm)
        return arm_name(f"{method}-n{self.rows}-s{self.seed}", alias)

    def name_before(self, arm: str) -> str:
        """Return the name in the curve's plan of an arm whose weights this point's start from."""
        method, alias = split_arm(self.name)
        return arm_name(f"{method}-{method_of(arm)}", alias)

    def owns(self, arm: str) -> bool:
        """Whether a step of the curve's plan, by its arm, belongs to this point."""
        (own, alias), (method, of) = split_arm(self.name), split_arm(arm)
        return of == alias and (method == own or method.startswith(f"{own}-"))


def nested_rows(rows: Sequence[Example], size: int, seed: int) -> tuple[Example, ...]:
    """Return ``size`` rows drawn by the seed, in their order; a smaller draw with the same seed is part of a larger one."""
    drawn = random.Random(seed).sample(range(len(rows)), len(rows))[:size]
    return tuple(rows[position] for position in sorted(drawn))


def curve_sizes(rows: int, wanted: Sequence[int] = ()) -> tuple[int, ...]:
    """Return the sizes of a curve, ascending: those wanted, or 1/8, 1/4, 1/2 and all rows.

    Raises:
        UsageProblem: a wanted size is out of range, or there are fewer than two.
        BadInput: there are too few rows for two sizes.
    """
    if wanted:
        for size in wanted:
            if not MIN_ROWS <= size <= rows:
                raise UsageProblem(
                    f"--sizes {size}: there are {count_noun(rows, 'row')}, and a size has at least {MIN_ROWS}",
                    f"choose from {MIN_ROWS} to {rows}",
                )
        sizes = sorted(set(wanted))
        if len(sizes) < 2:
            raise UsageProblem("--sizes names one size: a curve needs two", "for example --sizes 50,100,200")
        return tuple(sizes)
    sizes = sorted({round(rows * share) for share in SHARES if round(rows * share) >= MIN_ROWS})
    if len(sizes) < 2:
        raise BadInput(
            f"{rows} rows are too few for a curve: two sizes of at least {MIN_ROWS} are needed",
            "collect more first",
        )
    return tuple(sizes)


def curve_seeds(plan: Plan, arms: Sequence[EvaluateStep], count: int) -> tuple[int, ...]:
    """Return the seeds: from that of the first trained arm on, the same for all, so that all are drawn the same rows."""
    trained = next((arm.weights for arm in arms if arm.weights), None)
    first = plan.train_step(trained).seeds[0] if trained else plan.seed
    return tuple(range(first, first + count))


def curve_arm(plan: Plan, name: str | None, preferred: str | None = None) -> EvaluateStep:
    """Return the arm whose curve is measured: the one named, else the preferred if it is trained, else the first that is.

    Raises:
        BadInput: the plan has no such arm, or no arm that learns from rows, or its model is an endpoint.
    """
    arm = _find_arm(plan, name, preferred)
    name_of_model = plan.model_of(arm).name
    if arm.weights and parse_remote(name_of_model):
        raise BadInput(
            f"{name_of_model} is an endpoint: its weights are not here, so {arm.arm} cannot be trained on parts",
            "name a local model, or an arm that is not trained, such as few-shot: --arm",
        )
    return arm


def _find_arm(plan: Plan, name: str | None, preferred: str | None) -> EvaluateStep:
    """Return the arm of :func:`curve_arm`, whatever its model is."""
    learning = [arm for arm in plan.arms if arm.learns_from_rows]
    if any(arm.arm == name and arm.retriever == "tuned" for arm in plan.arms):
        raise BadInput(
            f"the arm {name!r} searches with the tuned retriever, which a curve does not train at each size",
            "name an arm that searches with the plan's own",
        )
    learning = [arm for arm in learning if arm.retriever == "plan"]
    if name:
        for arm in learning:
            if arm.arm == name:
                return arm
        known = ", ".join(arm.arm for arm in learning) or "none"
        which = "does not learn from rows" if name in {arm.arm for arm in plan.arms} else "is not in the plan"
        raise BadInput(f"the arm {name!r} {which}, so it has no learning curve", f"arms that do: {known}")
    trained = [arm for arm in learning if arm.weights]
    for arm in trained:
        if arm.arm == preferred:
            return arm
    if trained or learning:
        return (trained or learning)[0]
    raise _nothing_learns()


def _nothing_learns() -> BadInput:
    return BadInput(
        "the plan has no arm that learns from rows", "add a tuned arm, lora for example, and its training"
    )


def curve_arms(
    plan: Plan, names: Sequence[str], preferred: str | None = None
) -> tuple[list[EvaluateStep], dict[str, Problem]]:
    """Return the arms whose curves are measured, and those of ``all`` that cannot be, each with the reason.

    Args:
        plan: the plan.
        names: the arms; ``all`` are those that learn from rows, none the one of :func:`curve_arm`.
        preferred: the arm to take where none is named.

    Raises:
        BadInput: a named arm has no curve, or no arm of the plan has.
    """
    if ALL_ARMS not in names:
        named = [curve_arm(plan, name, preferred) for name in dict.fromkeys(names)]
        return named or [curve_arm(plan, None, preferred)], {}
    arms, left_out = list[EvaluateStep](), dict[str, Problem]()
    for arm in plan.arms:
        if arm.learns_from_rows:
            try:
                arms.append(curve_arm(plan, arm.arm))
            except BadInput as problem:
                left_out[arm.arm] = problem
    if not arms:
        raise next(iter(left_out.values()), _nothing_learns())
    return arms, left_out


def curve_plan(plan: Plan, arm: EvaluateStep, names: Sequence[CurvePointName], row_tokens: float) -> Plan:
    """Return the plan of a curve: the index if the arm needs one, and a training and an evaluation for each point.

    The prediction, the judge, the gate and the measurement of forgetting are left out: a curve has no verdict.

    Args:
        plan: the plan that has the arm.
        arm: the arm.
        names: the points.
        row_tokens: estimated tokens of a row without passages.
    """
    steps: list[Step] = [plan.index] if plan.index and _retrieves(plan, arm) else []
    for name in names:
        chain = _training_chain(plan, arm.weights) if arm.weights else []
        steps += [_step_of_point(step, name, row_tokens, step.arm == arm.weights) for step in chain]
        weights = name.name if arm.weights else None
        steps.append(arm.model_copy(update={"arm": name.name, "weights": weights}))
    return plan.model_copy(
        update={
            "name": f"{plan.name}-{plain_name(arm.arm)}-curve",
            "steps": tuple(steps),
            "gate": PlanGate(),
            "judge": None,
            "backend": (),
            "forgetting": plan.forgetting.model_copy(update={"prompts": 0}),
            "predicted": {},
        }
    )


def _training_chain(plan: Plan, weights: str) -> list[TrainStep]:
    """Return the train steps that lead to an arm's weights, the first one first."""
    step = plan.train_step(weights)
    return [*(_training_chain(plan, step.start_from) if step.start_from else []), step]


def _step_of_point(step: TrainStep, name: CurvePointName, row_tokens: float, own: bool) -> TrainStep:
    """Return a train step for the rows of a point: its seed, its name, and a smaller batch where steps would be too few.

    ``own`` is the training of the arm's weights, the others are those that it starts from.
    """
    from runners.training.defaults import smaller_batch

    renamed = name.name if own else name.name_before(step.arm)
    changed: dict[str, Any] = {"arm": renamed, "seeds": (name.seed,)}
    if step.start_from:
        changed["start_from"] = name.name_before(step.start_from)
    choice = (
        smaller_batch(name.rows, row_tokens, step.epochs, step.batch_tokens) if step.rows == "plain" else None
    )
    if choice:
        changed["batch_tokens"] = choice[0]
        changed["reasons"] = {**step.reasons, "batch_tokens": choice[1]}
    return step.model_copy(update=changed)


def _retrieves(plan: Plan, arm: EvaluateStep) -> bool:
    """Return whether an arm or its training needs the index."""
    trained = _training_chain(plan, arm.weights) if arm.weights else []
    return arm.retrieval or any(step.rows == "retrieval" for step in trained)


def mean_row_tokens(plan: Plan, rows: Sequence[Example]) -> float:
    """Return the estimated mean tokens of the rows as they are trained on, without passages; nothing is tokenized."""
    texts = [training_row(plan.prompts, row) for row in rows]
    chars = sum(len(str(turn.get("content") or "")) for row in texts for turn in row.messages)
    return chars / max(1, len(rows)) / CHARS_PER_TOKEN + CHAT_TOKENS
