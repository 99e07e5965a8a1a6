"""What a router decides by: how sure an answer's arm is of it, and the cut that the trial chose and stored.

How sure is the probability of a classifier's label, calibrated on rows that it was not trained on, or the similarity of the
nearest question; an arm of nearest replies that refuses is not sure at all. ``trial/routes.json`` holds the cuts by arm.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rag.errors import BadInput
from rag.files import parse_json, write_json
from runners.inference.types import Completion
from runners.plan.schema import Plan
from runners.plan.steps import EvaluateStep
from runners.selective.cuts import RouteCut, most_wrong_of

ROUTES = "routes.json"
ANSWERED_BY = "answered_by"
"""Key of an answer's row, and of its JSON: the arm of a router that gave it."""


def sureness(completion: Completion) -> float | None:
    """Return how sure an arm without a language model is of its answer, 0 to 1; None where it gives none."""
    if completion.labels:
        return completion.labels[0].probability
    return completion.nearest.similarity if completion.nearest and completion.nearest.given else None


def recorded_sureness(row: Mapping[str, Any]) -> float | None:
    """Return the same of a row of the journal."""
    if row.get("labels"):
        return float(row["labels"][0]["probability"])
    nearest = row.get("example")
    return float(nearest["similarity"]) if nearest and nearest["given"] else None


def is_sure(sure: float | None, cut: float | None) -> bool:
    """Return whether an arm that is so sure answers where the cut is this one; None: not sure at all, and never."""
    return sure is not None and cut is not None and sure >= cut


def cut_without_dev(plan: Plan, first: EvaluateStep) -> float:
    """Return how sure the first arm must be where there are too few dev questions to say.

    Of a classifier a label is as likely right as its probability says; nearest replies have a cut of their own.
    """
    return 1 - most_wrong_of(plan) if first.classifier else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRoute:
    """The cut of a router, as a trial chose it."""

    first: str
    otherwise: str
    cut: float | None
    questions: int
    routed: int
    asked: int
    """Dev questions that the other arm was asked for the choice; the others it had answered already."""
    scores: tuple[float, float, float]
    reason: str
    made_from: str


def read_routes(trial: Path) -> dict[str, StoredRoute]:
    """Return the cuts that a trial's folder holds, by router; BadInput when they are damaged."""
    path = trial / ROUTES
    if not path.is_file():
        return {}
    try:
        arms = parse_json(path.read_text("utf-8"))["arms"]
        return {
            str(name): StoredRoute(**{**row, "scores": tuple(map(float, row["scores"]))})
            for name, row in arms.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInput(
            f"{path} is damaged: {error!r}",
            f"remove it, and choose again: tunewise run {trial.parent} --resume",
        ) from None


def store_route(trial: Path, step: EvaluateStep, cut: RouteCut, asked: int, made_from: str) -> None:
    """Write the cut of a router into the trial's folder, beside those of others."""
    assert step.route is not None
    body = parse_json((trial / ROUTES).read_text("utf-8")) if (trial / ROUTES).is_file() else {"arms": {}}
    names = {"first": step.route.first, "otherwise": step.route.otherwise}
    arms = {**body["arms"], step.arm: {**names, **cut.to_json(), "asked": asked, "made_from": made_from}}
    write_json(trial / ROUTES, {"schema": 1, "arms": arms})


def require_route(run: Path, trial: Path, step: EvaluateStep) -> StoredRoute:
    """Return the cut of a router; BadInput where the trial has not chosen it yet."""
    route = read_routes(trial).get(step.arm)
    if route is None:
        raise BadInput(
            f"the run has not chosen the cut of the arm {step.arm} yet",
            f"finish it with: tunewise run {run} --resume",
        )
    return route


def routed_rows(
    step: EvaluateStep, rows: Sequence[Mapping[str, Any]], seeds: Sequence[int], cut: float | None
) -> list[dict[str, Any]]:
    """Return the rows of a router: of each question and seed the answer of one of its two arms, which asks nothing again.

    Tokens are those of a language model, so an answer of the first arm has none: it is not paid for. The seconds of the
    other arm's answers include those in which the first one answered.

    Args:
        step: the router.
        rows: the journal with the answers of both arms.
        seeds: of the other arm; the first one has one.
        cut: how sure the first arm must be.
    """
    assert step.route is not None
    first = {row["id"]: row for row in rows if row["arm"] == step.route.first}
    other = {(row["seed"], row["id"]): row for row in rows if row["arm"] == step.route.otherwise}
    routed: list[dict[str, Any]] = []
    for seed in seeds:
        for question, row in first.items():
            own = {"arm": step.arm, "seed": seed}
            if is_sure(recorded_sureness(row), cut):
                no_model = {"prompt_tokens": 0, "completion_tokens": 0, ANSWERED_BY: step.route.first}
                routed.append({**row, **own, **no_model})
            elif (seed, question) in other:
                asked = other[seed, question]
                seconds = round(asked["seconds"] + row["seconds"], 4)
                routed.append({**asked, **own, "seconds": seconds, ANSWERED_BY: step.route.otherwise})
    return routed
