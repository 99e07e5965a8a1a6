"""How often a trial of three models by four methods says something that is not so, simulated through what decides.

    python -m benchmarks.simulated_grids [--part equal|unequal|boundary|copies|sure] [--grids N]
    python -m benchmarks.simulated_grids --picture docs/pictures/right-cost.svg

A grid is 12 arms METHOD@ALIAS on 60 questions of 60, 20 or 12 documents, judged by the functions that judge a run:
:func:`advisor.verdict.verdict.judge_trial` (with :func:`advisor.verdict.arm_choice.choose_arm`) and
:func:`advisor.verdict.right_costs.most_right`. Arms answer as those of :mod:`benchmarks.simulated_costs` do: questions of
a document are alike, and each arm is good or bad at a document by luck. The plan sets prices of tokens for a small, a middle
and a big model.

``equal``: all arms are right on the same share, so every "clearly better", "beaten" and "clearly fewer right answers" is
wrong. ``unequal``: shares differ by model and method; wrong is what is said against the truth. ``boundary``: all arms of the
small and the middle model are worse than those of the big one by exactly ``not_worse_by``, so that calling one not worse
than a big one is wrong. ``copies``: the same, where they answer as the best arm does but for the right answers that they
lose, so that sixty questions can show something. ``sure``: right answers of all arms truly cost the same, so no arm gives
clearly most of them for the money. With each, the share of the intervals of the cost of a right answer that hold the truth.
Fixed seeds.
``--picture`` writes the picture of one unequal grid, as a report has it.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from advisor.costs.arm_costs import costs_of_answers
from advisor.report.markdown import RIGHT_COST_SVG
from advisor.report.report import write_report
from advisor.verdict.right_costs import cost_per_right, judged_answers, most_right
from advisor.verdict.verdict import judge_trial
from benchmarks.simulated_costs import documents_of, hardness, simulated_arm, true_ratio
from rag.files import write_text
from runners.plan.schema import Plan, parse_plan
from runners.report.records import Verdict
from runners.run_folder import SCORES, TRIAL, RunFolder
from runners.trial.remote_arms import INCOMPLETE_EVENT
from runners.trial.trial import ANSWERS, ArmScores, write_scores

PARTS = ("equal", "unequal", "boundary", "copies", "sure")
MODELS: Mapping[str, tuple[float, float]] = {"small": (0.1, 0.4), "middle": (1.0, 4.0), "big": (5.0, 20.0)}
"""USD of a million tokens read and written, by alias."""
METHODS = ("prompting", "few-shot", "rag", "hybrid")
ARMS = tuple(f"{method}@{alias}" for alias in MODELS for method in METHODS)
CHOICE = "hybrid@small"
ALIKE = {60: 0.3, 20: 0.3, 12: 1.0}
"""Documents, and how alike their questions are: as in :mod:`benchmarks.simulated_costs`."""
UNEQUAL = {"prompting": 0.35, "few-shot": 0.45, "rag": 0.6, "hybrid": 0.7}
"""Shares of right answers by method; a larger model has :data:`LARGER` more."""
LARGER = {"small": 0.0, "middle": 0.05, "big": 0.15}
NEAR = 2.75
BOUNDARY = (0.65, 0.75)
"""Share of right answers of the arms of the two cheaper models, and of the others."""


def grid_plan(prefer: str | None = None) -> Plan:
    """Return the plan of a grid, whose recommended arm must beat the prompts of its model."""
    steps: list[dict[str, Any]] = [{"kind": "index"}]
    trained = [{"kind": "train", "arm": f"hybrid@{alias}"} for alias in MODELS]
    for arm in ARMS:
        method = arm.partition("@")[0]
        step: dict[str, Any] = {"kind": "evaluate", "arm": arm, "retrieval": method in ("rag", "hybrid")}
        step |= {"shots": 3} if method == "few-shot" else {"weights": arm} if method == "hybrid" else {}
        steps.append(step)
    return parse_plan(
        {
            "name": "grid",
            "choice": CHOICE,
            "models": {
                alias: {
                    "name": f"openai:{alias}@http://127.0.0.1:1/v1",
                    "usd_per_million_input": of_input,
                    "usd_per_million_output": of_output,
                }
                for alias, (of_input, of_output) in MODELS.items()
            },
            "data": {"documents": "d", "examples": "e", "questions": "q"},
            "answers": {"usable_from": {"value": 0.0, "source": "asked"}},
            "steps": [steps[0], *trained, *steps[1:]],
            "gate": {
                "must_beat": [f"{method}@small" for method in METHODS[:-1]],
                **({"prefer": prefer} if prefer else {}),
            },
            "weights": {"right": 1},
        }
    )


def simulated_grid(
    draw: np.random.Generator, documents: int, shares: Mapping[str, float]
) -> dict[str, ArmScores]:
    """Return the scores of all arms on the same questions."""
    of_question = documents_of(draw, documents)
    alike = ALIKE[documents]
    hard = hardness(draw, of_question, alike)
    return {
        arm: simulated_arm(draw, of_question, hard, share, 1.0, alike, arm) for arm, share in shares.items()
    }


def copied_grid(draw: np.random.Generator, grid: Mapping[str, ArmScores]) -> dict[str, ArmScores]:
    """Return a grid in which all arms answer as the last one, but for the right answers that the cheaper ones lose."""
    worse, best = BOUNDARY
    right = np.array(grid[ARMS[-1]].combined)
    copied = {}
    for name, arm in grid.items():
        keep = 1.0 if name.endswith("@big") else worse / best
        values = right * (draw.random(right.size) < keep)
        rows = tuple({"right": float(value)} for value in values)
        copied[name] = replace(arm, combined=tuple(values.tolist()), scores=rows)
    return copied


def grid_folder(
    folder: Path, plan: Plan, grid: Mapping[str, ArmScores], incomplete: Mapping[str, str] | None = None
) -> RunFolder:
    """Return a run folder with the scores of a grid.

    Args:
        folder: where it is made.
        plan: of the grid.
        grid: the scores of all arms.
        incomplete: arms that answered five questions and have no scores, each with the reason.
    """
    incomplete = incomplete or {}
    run = RunFolder.create(folder, plan)
    run.write({"event": "run.start", "split": "abc", "overlap": 0})
    rows = []
    for name, arm in grid.items():
        asked = arm.questions[:5] if name in incomplete else arm.questions
        if name in incomplete:
            event = {"event": INCOMPLETE_EVENT, "arm": name, "reason": incomplete[name]}
            run.write({**event, "answered": len(asked), "questions": len(arm.questions)})
        blank = {"answer": "x", "marked": "x", "citations": [], "refused": False, "question": "?"}
        rows += [{"arm": name, "seed": 0, "id": id, **blank} for id in asked]
    scored = [arm for name, arm in grid.items() if name not in incomplete]
    write_scores(scored, run.path / TRIAL / SCORES)
    write_text(run.path / TRIAL / ANSWERS, "".join(json.dumps(row) + "\n" for row in rows))
    return run


def write_picture(file: Path) -> None:
    """Write the picture of an unequal grid, whose answers are made."""
    plan = grid_plan()
    grid = simulated_grid(np.random.default_rng(0), 60, shares_of("unequal"))
    with tempfile.TemporaryDirectory() as folder:
        run = grid_folder(Path(folder) / "grid", plan, grid)
        write_report(run, plan)
        write_text(file, (run.path / RIGHT_COST_SVG).read_text("utf-8"))


def said_wrongly(verdict: Verdict, pairs: Sequence[Any], shares: Mapping[str, float]) -> bool:
    """Return whether a verdict calls an arm clearly better or worse than another one that it is not."""
    choice = shares[CHOICE]
    for pair in pairs:
        if pair.p_holm > 0.05:
            continue
        if (pair.low > 0 and choice <= shares[pair.b]) or (pair.high < 0 and choice >= shares[pair.b]):
            return True
    beaten = [shares[name] for name, why in verdict.excluded.items() if why.startswith("answers ")]
    gate = verdict.gate_met and choice <= max(shares[f"{method}@small"] for method in METHODS[:-1])
    return bool(gate) or any(share >= max(shares.values()) for share in beaten)


def intervals_held(
    plan: Plan, grid: Mapping[str, ArmScores], shares: Mapping[str, float], scales: Mapping[str, float]
) -> list[bool]:
    """Return for each arm whether the interval of the cost of a right answer holds the true one."""
    held = []
    for name, arm in grid.items():
        true = scales[name] * true_ratio(shares[name], 1.0, *MODELS[name.partition("@")[2]])
        costs = [scales[name] * usd for usd in costs_of_answers(arm, plan) or ()]
        cost = cost_per_right(judged_answers(arm, costs), 1000.0)
        held.append(cost is not None and cost.low <= true <= (np.inf if cost.high is None else cost.high))
    return held


def grid_row(part: str, documents: int, grids: int, seed: int = 0) -> dict[str, Any]:
    """Return the shares of grids with a wrong statement, and of intervals that hold.

    Args:
        part: see the text of this module.
        documents: that the questions are from.
        grids: how many are simulated.
        seed: of the random draws.
    """
    draw = np.random.default_rng([seed, documents, PARTS.index(part)])
    plan = grid_plan()
    # With a wrong answer expensive, arms with clearly fewer right answers are excluded with these words.
    costly = {**plan.answers, "wrong_answer_cost": replace_answer(plan, "high")}
    plan = plan.model_copy(update={"answers": costly} if part in ("equal", "unequal") else {})
    shares = shares_of(part)
    scales = dict.fromkeys(ARMS, 1.0)
    if part == "sure":
        scales = {arm: 1 / true_ratio(shares[arm], 1.0, *MODELS[arm.partition("@")[2]]) for arm in ARMS}
    wrong, held, not_worse = 0, 0, 0
    for _ in range(grids):
        grid = simulated_grid(draw, documents, shares)
        if part == "copies":
            grid = copied_grid(draw, grid)
        held += sum(intervals_held(plan, grid, shares, scales))
        if part == "sure":
            wrong += told_apart(plan, grid, scales)
            continue
        if part == "equal" and not any_apart(grid):
            continue
        verdict, pairs = judge_trial(plan, list(grid.values()), "")
        if part in ("boundary", "copies"):
            best = shares[verdict.use] if verdict.use else 0.0
            cheapest = shares[verdict.not_worse] if verdict.not_worse else 1.0
            wrong += cheapest <= best - plan.gate.not_worse_by + 1e-9
            not_worse += verdict.not_worse is not None
        else:
            wrong += said_wrongly(verdict, pairs, shares)
    row = {"part": part, "documents": documents, "grids": grids, "wrong": wrong / grids}
    row |= {"any not worse": not_worse / grids} if part in ("boundary", "copies") else {}
    return row | {"held": held / (grids * len(ARMS))}


def any_apart(grid: Mapping[str, ArmScores]) -> bool:
    """Return whether the totals by document of any two arms have a paired t beyond :data:`NEAR`.

    A grid without is not judged, to save time: p must be below .05 / 66 for one to be called clearly better, where |t| is
    above 3.
    """
    documents = np.array(next(iter(grid.values())).documents).astype(int)
    totals = np.array([np.bincount(documents, arm.combined) for arm in grid.values()])
    apart = totals[:, None, :] - totals[None, :, :]
    spread = apart.std(axis=2, ddof=1)
    t = apart.mean(axis=2) / np.where(spread > 0, spread, np.inf) * np.sqrt(totals.shape[1])
    return bool(np.abs(t).max() > NEAR)


def replace_answer(plan: Plan, value: object) -> Any:
    """Return an answer of the plan with another value."""
    return plan.answers["usable_from"].model_copy(update={"value": value})


def shares_of(part: str) -> dict[str, float]:
    """Return the true share of right answers of each arm."""
    if part == "unequal":
        return {
            f"{method}@{alias}": share + LARGER[alias]
            for alias in MODELS
            for method, share in UNEQUAL.items()
        }
    if part in ("boundary", "copies"):
        return {arm: BOUNDARY[arm.endswith("@big")] for arm in ARMS}
    return dict.fromkeys(ARMS, 0.6)


def told_apart(plan: Plan, grid: Mapping[str, ArmScores], scales: Mapping[str, float]) -> bool:
    """Return whether of arms whose right answers cost the same some arm is called clearly dearer."""
    answers = {
        name: judged_answers(arm, [scales[name] * usd for usd in costs_of_answers(arm, plan) or ()])
        for name, arm in grid.items()
    }
    most = most_right(answers)
    return most is not None and len(most.perhaps) < len(answers) - 1


def main() -> None:
    """Print a row for each part and number of documents."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--part", choices=PARTS, action="append")
    parser.add_argument("--grids", type=int, default=500)
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    if options.picture:
        write_picture(options.picture)
        return
    for part in options.part or PARTS:
        for documents in ALIKE:
            print(json.dumps(grid_row(part, documents, options.grids)), flush=True)


if __name__ == "__main__":
    main()
