"""What each arm was given on dev questions to choose its prompt, what it tried and what it took: ``dev_budget`` of a report.

Arms are compared fairly when each may look at the same amount of other questions before the test. :func:`dev_budget`
collects it from the plan and from `trial/prompts.json`, :func:`dev_budget_line` says it in a sentence.
"""

from __future__ import annotations

from collections.abc import Sequence

from advisor.verdict.run_records import RunRecords
from rag.text.words import count_noun
from runners.arms.prompt_selection import read_stored_prompts
from runners.plan.steps import EvaluateStep
from runners.report.trial_report import DevBudget
from runners.run_folder import TRIAL
from runners.runs.arm import choosing_step
from runners.selective.routes import StoredRoute, read_routes


def dev_budget(records: RunRecords, test_questions: int) -> tuple[DevBudget, ...]:
    """Return one row for each arm of a plan, in the plan's order; the number of test questions bounds every budget."""
    plan = records.plan
    choices = read_stored_prompts(records.path / TRIAL).choices
    common = max((step.budget for step in plan.arms if step.chooses_prompt), default=0)
    routes = read_routes(records.path / TRIAL)
    rows = []
    for step in plan.arms:
        if route := routes.get(step.arm):
            rows.append(_of_router(step, route, test_questions))
            continue
        choice = choices.get(step.arm) or {}
        rows.append(
            DevBudget(
                arm=step.arm,
                allowed=min(step.budget if step.chooses_prompt else common, test_questions),
                used=choice.get("used", None if choice.get("tried") else 0),
                tried=tuple(
                    {"prompt": one["name"], "questions": one["questions"], "score": one["score"]}
                    for one in choice.get("tried", ())
                ),
                untried=tuple(choice.get("untried", ())),
                chosen=choice["chosen"]["name"] if choice else None,
                lead=choice.get("lead"),
                how=choice["reason"] if choice else _without_choice(step, records),
            )
        )
    return tuple(rows)


def _of_router(step: EvaluateStep, route: StoredRoute, test_questions: int) -> DevBudget:
    """Return what a router was given to choose its cut."""
    known = f"; {route.otherwise} had answered {route.questions - route.asked} of them to choose its prompt"
    return DevBudget(
        arm=step.arm,
        allowed=min(step.budget, test_questions),
        used=route.asked,
        tried=(),
        untried=(),
        chosen=None,
        lead=None,
        how=f"{route.reason}{known * (route.asked < route.questions)}",
    )


def _without_choice(step: EvaluateStep, records: RunRecords) -> str:
    """Return how the settings of an arm came about that chose no prompt on dev questions."""
    if step.classifier:
        trained = records.last("classifier.trained", arm=step.arm)
        if trained.get("accuracy") is None:
            return (
                "no dev question: a fixed strength of regularisation, too few examples for a cross-validation"
            )
        chosen = "its features and strength" if trained.get("compared") else "its strength"
        compared = f": {trained['compared']}" if trained.get("compared") else ""
        notes = "".join(f"; {note}" for key in ("untried", "notes") for note in trained.get(key, ()))
        split = trained.get("split_rows")
        how = f"on {count_noun(split, 'held-out row')} of" if split else "by cross-validation on"
        return (
            f"no dev question: {chosen} of regularisation {how} {trained['rows']} examples "
            f"(accuracy {trained['accuracy']:.2f}{compared}){notes}"
        )
    if step.nearest_reply:
        fitted = records.last("replies.fitted", arm=step.arm)
        return f"asks no model: {'; '.join(fitted.get('notes', ())) or 'it was not fitted'}"
    if step.labels == "scored":
        return _scored_labels(step, records)
    if step.weights:
        train = records.plan.train_step(step.weights)
        trainings = records.result(f"train:{train.arm}").get("trained", ())
        losses = [run["valid_loss"] for run in trainings if run.get("valid_loss") is not None]
        stopped = (
            f"the weights with the lowest loss on validation rows ({losses[0]:.3f})"
            if losses
            else "no validation rows, no early stopping"
        )
        return (
            f"no dev question: settings by rule from the number of rows, {train.epochs:g} epochs, {stopped}"
        )
    return "no dev question: the plan fixes its prompt"


def _scored_labels(step: EvaluateStep, records: RunRecords) -> str:
    """Return whose prompt an arm shows that scores labels, and of what the prior of its labels is the mean."""
    chooser = choosing_step(records.plan, step)
    prompt = (
        f"no answer of its own: the prompt that {chooser.arm} chose"
        if chooser.chooses_prompt
        else "no answer: the plan fixes its prompt"
    )
    prior = records.last("labels.prior", arm=step.arm)
    return (
        f"{prompt}; the prior of its labels from {prior['reference']}, without their answers"
        if prior
        else prompt
    )


def dev_budget_line(rows: Sequence[DevBudget]) -> str:
    """Return a sentence on what a report's arms were allowed and used; "" where there was nothing to choose."""
    choosing = [row for row in rows if row.chosen is not None]
    if not choosing:
        return ""
    amounts = sorted({row.allowed for row in choosing})
    if not amounts[-1]:
        return "No prompt was chosen on dev questions, as in every quick run: each arm uses its first one"
    used = ", ".join(f"{row.arm} {'?' if row.used is None else row.used}" for row in choosing)
    allowed = f"up to {amounts[-1]}" if len(amounts) == 1 else f"{amounts[0]} to {amounts[-1]}"
    others = "; the other arms used none" if len(choosing) < len(rows) else ""
    return (
        f"Prompts were chosen on dev questions, which are not in the test: {allowed} answers for every arm; "
        f"used: {used}{others}"
    )
