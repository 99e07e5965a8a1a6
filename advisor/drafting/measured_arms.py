"""Which arms of which models a trial of several models measures, and why the others are left out.

The rule, which looks at no name: candidates are the arms of each model's own plan. They are taken in this order, in each
step first the model that is expected best, then the others as they were named.

1. what is advised for each model;
2. prompting with each model, by which every other arm is judged;
3. arms that ask no model: they are the same for all, and take seconds;
4. few-shot, and retrieval with what the documents hold, where there are examples and documents, the better fit first;
5. what the advice says to measure beside its choice.

An arm is taken with what it needs: the index, the weights that it answers with or starts from, both arms of a router. It is
left out where the whole trial would then take more minutes than allowed, or its answers more dollars; others may still fit.
Every other arm of the drafts, such as naive stacking, is left out because nothing speaks for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from advisor.drafting.merged_plan import needed_arms, with_arms_only
from rag.errors import UsageProblem
from rag.text.words import count_noun
from runners.plan.arm_names import arm_name, method_of, split_arm
from runners.plan.schema import Plan

LeftOutBecause = Literal["blocked", "ranked_low", "minutes", "usd", "no_price", "model", "files"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialLimits:
    """What a trial may take; None is no limit."""

    minutes: float | None = None
    usd: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedArm:
    """An arm that is measured, or left out, with the reason."""

    arm: str
    minutes: float | None = None
    """Of its own training and answers; None where it has no steps in a draft."""
    usd: float | None = None
    """The most that its answers probably cost; None where no price is known."""
    reason: str
    kind: LeftOutBecause | None = None
    """Why it is left out, as a word; None for an arm that is measured."""

    def to_json(self) -> dict[str, Any]:
        """Return the row of ``plan --json``."""
        row = {
            "arm": self.arm,
            "minutes": None if self.minutes is None else round(self.minutes, 1),
            "usd": None if self.usd is None else float(f"{self.usd:.3g}"),
            "reason": self.reason,
        }
        return row | ({"kind": self.kind} if self.kind else {})


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmSelection:
    """The arms that are measured, in the order in which they were taken, and those that are left out."""

    measured: tuple[ComparedArm, ...]
    left_out: tuple[ComparedArm, ...]
    minutes: float
    """Of the whole trial, the index and the memory checks of tuned models included."""

    @property
    def usd(self) -> float | None:
        """The most that all answers probably cost; None where an arm has no known price."""
        each = [arm.usd for arm in self.measured]
        return None if None in each else sum(usd for usd in each if usd)


@dataclass(frozen=True, slots=True, kw_only=True)
class WeighedModel:
    """What the advice says of one model, as far as the selection reads it."""

    choice: str
    """The arm of its plan that is advised."""
    also_measure: Mapping[str, str]
    fits: Mapping[str, float]
    """How well each method fits, from 0 to 1; of feasible ones."""


@dataclass(slots=True)
class ArmSelector:
    """Takes the arms of a plan one after another, as long as minutes and dollars last.

    Args:
        plan: the plan with every arm of every model.
        models: what the advice says of each model by its alias, the one that is expected best first.
        limits: minutes and dollars of the trial.
        seconds_of: the seconds of each step of a plan, by its name.
        usd_of: the most that an arm's answers probably cost; None without a known price.
    """

    plan: Plan
    models: Mapping[str, WeighedModel]
    limits: TrialLimits
    seconds_of: Callable[[Plan], Mapping[str, float]]
    usd_of: Callable[[str], float | None]
    taken: dict[str, ComparedArm] = field(default_factory=dict)
    left: dict[str, ComparedArm] = field(default_factory=dict)

    def select(self) -> tuple[str, ...]:
        """Return which arms are measured, in the order in which they were taken.

        Raises:
            UsageProblem: the dollars do not pay for one arm of any hosted model, or nothing fits the minutes.
        """
        self._require_affordable()
        for arm, reason in self._wanted():
            if arm not in self.taken and arm not in self.left:
                self._take(arm, reason)
        own = self._own_minutes(self.plan)
        for step in self.plan.arms:
            if step.arm not in self.taken and step.arm not in self.left:
                row = ComparedArm(
                    arm=step.arm,
                    minutes=own[step.arm],
                    usd=self.usd_of(step.arm),
                    reason=self._low(step.arm),
                    kind="ranked_low",
                )
                self.left[step.arm] = row
        if not self.taken:
            least = min(self.left.values(), key=lambda arm: arm.minutes or 0.0)
            raise UsageProblem(
                f"no arm fits: the shortest, {least.arm}, {least.reason}",
                "raise the limits, or name fewer models",
            )
        return tuple(self.taken)

    def selection_of(self, plan: Plan) -> ArmSelection:
        """Return what was selected, with the minutes in the plan of the selected arms as it is written."""
        minutes = self._own_minutes(plan)
        measured = tuple(
            ComparedArm(arm=arm.arm, minutes=minutes[arm.arm], usd=arm.usd, reason=arm.reason)
            for arm in self.taken.values()
        )
        whole = sum(self.seconds_of(plan).values()) / 60
        return ArmSelection(measured=measured, left_out=tuple(self.left.values()), minutes=whole)

    def fit_of(self, arm: str) -> float:
        """Return how well an arm's method fits, from 0 to 1; 0 for one that the advice does not weigh."""
        method, alias = split_arm(arm)
        model = self.models.get(alias) or next(iter(self.models.values()))
        return model.fits.get(method, 0.0)

    def _wanted(self) -> list[tuple[str, str]]:
        """Return the arms in the order in which they are taken, each with its reason."""
        known = {step.arm: step for step in self.plan.arms}
        named = [(alias, model) for alias, model in self.models.items()]
        wanted = [(self._arm(model.choice, alias), f"advised for {alias}") for alias, model in named]
        wanted += [
            (arm_name("prompting", alias), "the simplest: every other arm is judged by it")
            for alias, _ in named
        ]
        wanted += [(arm, "asks no model") for arm, step in known.items() if step.without_model]
        simple = [
            (arm_name(method, alias), reason, model.fits.get(method, 0.0))
            for method, reason in (
                ("rag", "what the documents add"),
                ("few-shot", "what examples in the prompt add"),
            )
            for alias, model in named
        ]
        wanted += [(arm, reason) for arm, reason, _ in sorted(simple, key=lambda row: -row[2])]
        wanted += [(arm_name("rag-tuned", alias), "asked for: --tune-retriever") for alias, _ in named]
        wanted += [
            (self._arm(method, alias), reason)
            for alias, model in named
            for method, reason in model.also_measure.items()
        ]
        return [(arm, reason) for arm, reason in wanted if arm in known]

    def _take(self, arm: str, reason: str) -> None:
        """Take an arm with the arms that it needs, or leave it out with the reason."""
        together = [name for name in needed_arms(self.plan, arm) if name not in self.taken]
        usd = {name: self.usd_of(name) for name in together}
        minutes = self.seconds_of(with_arms_only(self.plan, [*self.taken, *together]))
        own = self._own_minutes(self.plan)
        problem = self._over(usd, sum(minutes.values()) / 60)
        if problem is not None:
            kind, why = problem
            self.left[arm] = ComparedArm(arm=arm, minutes=own[arm], usd=usd[arm], reason=why, kind=kind)
            return
        for name in together:
            self.left.pop(name, None)
            why = reason if name == arm else f"needed by {arm}"
            self.taken[name] = ComparedArm(arm=name, minutes=own[name], usd=usd[name], reason=why)

    def _over(self, usd: Mapping[str, float | None], minutes: float) -> tuple[LeftOutBecause, str] | None:
        """Return why arms cannot be added to those taken, a word and a sentence; None where they can."""
        if self.limits.usd is not None:
            if None in usd.values():
                return "no_price", "no price of its model is known, and there is a limit of dollars"
            spent = sum(arm.usd or 0.0 for arm in self.taken.values())
            needed = sum(value for value in usd.values() if value)
            if spent + needed > self.limits.usd:
                left = max(0.0, self.limits.usd - spent)
                return "usd", f"does not fit the dollars: needs up to {needed:.2g} USD, {left:.2g} are left"
        if self.limits.minutes is not None and minutes > self.limits.minutes:
            return (
                "minutes",
                f"does not fit the minutes: the trial would take {minutes:.1f} of {self.limits.minutes:g}",
            )
        return None

    def _require_affordable(self) -> None:
        """Raise UsageProblem where the dollars do not pay for all test questions of one arm of any hosted model."""
        if self.limits.usd is None:
            return
        paid = {step.arm: usd for step in self.plan.arms if (usd := self.usd_of(step.arm))}
        if paid and min(paid.values()) > self.limits.usd:
            arm = min(paid, key=lambda name: paid[name])
            raise UsageProblem(
                f"{self.limits.usd:g} USD do not pay for the smallest useful trial: {arm} with all test questions costs up "
                f"to {paid[arm]:.2g}",
                "raise --usd, or leave the hosted models out",
            )

    def _low(self, arm: str) -> str:
        """Return what speaks against an arm that nothing asks for: how its method fits, beside what is advised."""
        method, alias = split_arm(arm)
        model = self.models.get(alias)
        if model is None or method not in model.fits:
            return "nothing in the advice asks for it"
        best = method_of(model.choice)
        other = f", {best} {model.fits[best]:.2f}" if best in model.fits else ""
        return f"ranked low: it fits {model.fits[method]:.2f}{other}"

    def _arm(self, method: str, alias: str) -> str:
        """Return the arm of a method with a model: without its alias where the method asks none."""
        alone = any(step.arm == method and step.without_model for step in self.plan.arms)
        return method if alone else arm_name(method, alias)

    def _own_minutes(self, plan: Plan) -> dict[str, float]:
        """Return the minutes of each arm's own steps: its answers, and the training of its weights."""
        seconds = self.seconds_of(plan)
        return {
            step.arm: (seconds.get(f"evaluate:{step.arm}", 0.0) + seconds.get(f"train:{step.weights}", 0.0))
            / 60
            for step in plan.arms
        }


def selection_line(selection: ArmSelection, limits: TrialLimits) -> str:
    """Return what the whole trial takes, in a sentence."""
    usd = selection.usd
    cost = "no price is known for some answers" if usd is None else f"the answers cost up to {usd:.2g} USD"
    cost = "the answers cost no money" if usd == 0 else cost
    caps = [f"{limits.minutes:g} min" if limits.minutes else "", f"{limits.usd:g} USD" if limits.usd else ""]
    allowed = f" (allowed: {' and '.join(filter(None, caps))})" if any(caps) else ""
    return (
        f"{count_noun(len(selection.measured), 'arm')} in about {selection.minutes:.0f} min, the index and memory checks "
        f"included; {cost}{allowed}"
    )
