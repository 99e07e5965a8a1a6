"""Costs of a plan's arms: USD per thousand answers, and an order of arms from cheap to costly.

:func:`cost_per_1000` prices the answers of a measured arm: tokens at a hosted model's list price, or the rent
of the GPU for the seconds they took. :func:`upkeep_costs` orders arms by what must be built and maintained
for them, then by tokens per answer: all that is known before a run, so gates use it. The order follows from the
plan's steps, so a new kind of arm is ordered without being named here. :func:`measured_ranks` orders arms that were
measured: by the price of an answer, where every arm has one, else by its seconds, and only arms that cost about the
same by :func:`upkeep_costs`. Verdicts use it, so that "costs less" is what was measured.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from advisor.catalog import gpus, prices
from advisor.costs.call_prices import calls_per_month
from advisor.questionnaire.profile import Profile
from rag.evaluation.statistics import WilsonShare, bootstrap_interval
from runners.models.endpoint import is_private
from runners.models.resolve import parse_remote
from runners.plan.arm_names import method_of
from runners.plan.schema import Plan, Step
from runners.plan.steps import EvaluateStep, PlanModel, TrainStep
from runners.plan.train_config import TUNING_METHODS
from runners.report.records import RoutedAnswers
from runners.selective.routes import ANSWERED_BY

if TYPE_CHECKING:  # the trial imports models and the index, which drafting a plan does not need
    from runners.trial.trial import ArmScores

HEAD_ARMS = ("classifier",)
"""Methods that are a small classifier over texts: trained in seconds, ten minutes at most; no language model is called."""
COMPARISON_ARMS = ("naive-stack",)
"""Methods of arms that are measured only to show what not to do; no arm has to beat them."""
SAME_COST = 1.5
"""Answers cost the same where the dearer one takes less than this many times the other: on a machine that also does other
work seconds vary so much."""
MAX_PARTS = 5
"""More parts than any arm has: of a router a classifier head, an index with its tuned embedder, and weights."""
NOTHING_ASKED = -1
"""Kind of the heaviest part of an arm that asks no model and trains nothing: it is cheaper than any prompt."""
UpkeepCost = tuple[int, int, int, float, int]
"""Number of parts, kind of the heaviest part, rows with passages, tokens per answer, position in the plan."""


@dataclass(frozen=True, slots=True)
class AnswerCost:
    """USD for a thousand answers, None where no price is known; ``basis`` says how it was computed."""

    usd: float | None
    basis: str


def only_explains(arm: str) -> bool:
    """Return whether an arm is measured only to show what not to do, whatever its model."""
    return method_of(arm) in COMPARISON_ARMS


def cost_per_1000(arm: ArmScores, plan: Plan, gpu: str = "") -> AnswerCost:
    """Return the cost of a thousand answers, from the tokens or seconds that the trial measured, reasoning included.

    A price that the plan sets for the model comes before all others: of its tokens, or of an hour of your machine. A
    hosted model is priced by its listed tokens. Answers generated on a GPU here are priced by what an hour
    of that GPU rents for, as the trial used it (one GPU, batches as they were): an estimate of what the work
    is worth, not a bill. Hours of a CPU or of a private server have no list price, so those are None.

    Args:
        arm: the measured arm.
        plan: the plan that was run.
        gpu: the GPU of this machine as its driver names it, "" for none.
    """
    price, basis = _price(arm.arm, plan, gpu)
    if price is None:
        return AnswerCost(None, basis)
    means = (rounded_mean(values) for values in (arm.prompt_tokens, arm.completion_tokens, arm.seconds))
    return AnswerCost(round(price(*means), 4), basis)


def costs_of_answers(arm: ArmScores, plan: Plan, gpu: str = "") -> list[float] | None:
    """Return USD of each answer of a measured arm, priced as in :func:`cost_per_1000`; None without a price.

    An arm that asks no model costs nothing.
    """
    step = next((step for step in plan.arms if step.arm == arm.arm), None)
    if step is not None and step.without_model:
        return [0.0] * len(arm.questions)
    price, _ = _price(arm.arm, plan, gpu)
    each = zip(arm.prompt_tokens, arm.completion_tokens, arm.seconds, strict=True)
    return None if price is None else [price(*values) / 1000 for values in each]


def asks_server(plan: Plan, step: EvaluateStep) -> bool:
    """Return whether an arm's answers come from an endpoint or from a server of the backend."""
    step = plan.routed(step)[1] if step.route else step
    if step.without_model:
        return False
    return plan.servers.model_of(step) is not None or parse_remote(plan.model_of(step).name) is not None


def monthly_calls(plan: Plan) -> tuple[float, str]:
    """Return the calls a month that a plan's answers say, and where that number is from."""
    keys = ("calls_per_month", "call_volume")
    return calls_per_month(Profile(**{key: plan.answers[key].value for key in keys if key in plan.answers}))


def routed_answers(
    arm: ArmScores, plan: Plan, answers: Sequence[Mapping[str, Any]], cut: float | None, gpu: str = ""
) -> RoutedAnswers | None:
    """Return how many answers of a router its first arm gave, and what 1,000 cost; None for another arm.

    Args:
        arm: the measured router.
        plan: the plan that was run.
        answers: the rows of the journal, of all arms.
        cut: how sure the first arm must be.
        gpu: the GPU of this machine as its driver names it, "" for none.
    """
    step = next((step for step in plan.arms if step.arm == arm.arm), None)
    own = [row for row in answers if row["arm"] == arm.arm and row.get(ANSWERED_BY)]
    if step is None or step.route is None or not own:
        return None
    share = WilsonShare.of(sum(row[ANSWERED_BY] == step.route.first for row in own), len(own))
    price, _ = _price(arm.arm, plan, gpu)
    usd = other = None
    if price is not None:
        each = zip(arm.prompt_tokens, arm.completion_tokens, arm.seconds, strict=True)
        usd = bootstrap_interval([price(*values) for values in each])
        rows = [row for row in answers if row["arm"] == step.route.otherwise]
        keys = ("prompt_tokens", "completion_tokens", "seconds")
        other = price(*(rounded_mean([float(row[key]) for row in rows]) for key in keys))
    return RoutedAnswers(
        first=step.route.first,
        otherwise=step.route.otherwise,
        hits=share.hits,
        n=share.n,
        low=round(share.low, 4),
        high=round(share.high, 4),
        cut=cut,
        usd_low=None if usd is None else round(max(0.0, usd.low), 4),
        usd_high=None if usd is None else round(usd.high, 4),
        usd_otherwise=None if other is None else round(other, 4),
    )


def _price(name: str, plan: Plan, gpu: str) -> tuple[Callable[[float, float, float], float] | None, str]:
    """Return USD of 1,000 answers by tokens read, tokens written and seconds; None without a price; and why."""
    step = next((step for step in plan.arms if step.arm == name), None)
    if step is not None and step.without_model:
        return (
            None,
            "a classifier asks no model" if step.classifier else "the reply of an example asks no model",
        )
    if step is not None and step.route:  # tokens and seconds of its answers are the blend already
        step = plan.routed(step)[1]
    model = plan.model_of(step) if step is not None else plan.model
    if model.usd_per_million_input is not None or model.usd_hour is not None:
        return _planned_price(model, asks_server(plan, step) if step is not None else False)
    if step is not None and (server := plan.servers.model_of(step)):
        return None, f"no price of an hour of {', '.join(server.urls)} is known"
    remote = parse_remote(model.name)
    if remote:
        price = None if is_private(remote.url) else prices.find_price(remote.name)
        if price is None:
            return None, "no price of this model is known"
        of_input, of_output = price.input, price.output  # USD of a million tokens
        basis = f"tokens at the list price of {price.day} ({price.source})"
        return lambda tokens, written, _: (tokens * of_input + written * of_output) / 1000, basis
    card = gpus.find_gpu(gpu) if gpu else None
    if card is None or card.usd_hour is None:
        return None, f"no price of an hour of {gpu or 'this machine'} is known"
    hour = card.usd_hour
    return (
        lambda _, __, seconds: seconds * 1000 / 3600 * hour,
        f"seconds measured here, at {hour:g} USD an hour for a rented {card.name} ({card.day}, {card.source})",
    )


def _planned_price(model: PlanModel, served: bool) -> tuple[Callable[[float, float, float], float], str]:
    """Return the price that the plan sets for a model, as :func:`_price` does.

    Requests that a server answers at the same time share its hour.
    """
    if model.usd_per_million_input is not None:
        of_input, of_output = model.usd_per_million_input, model.usd_per_million_output or 0.0
        basis = f"tokens at {of_input:g} USD a million read and {of_output:g} written, set in the plan"
        return lambda tokens, written, _: (tokens * of_input + written * of_output) / 1000, basis
    hour, at_once = model.usd_hour or 0.0, model.at_once if served else 1
    shared = f", {at_once} requests at once" if at_once > 1 else ""
    return (
        lambda _, __, seconds: seconds / at_once * 1000 / 3600 * hour,
        f"seconds measured{shared}, at {hour:g} USD an hour, set in the plan",
    )


def rounded_mean(values: Sequence[float]) -> float:
    """Return the mean to four decimal places; 0 for no values."""
    return round(sum(values) / len(values), 4) if values else 0.0


def measured_ranks(plan: Plan, arms: Sequence[ArmScores], gpu: str = "") -> dict[str, int]:
    """Return the rank of every measured arm from cheap (0) to costly.

    What counts is the price of an answer (tokens at the provider's list price) where every arm has one, else the mean
    seconds of an answer. Of the arms whose answers cost the same as the cheapest (:data:`SAME_COST`) the one with the
    fewest parts to keep running comes first; so on with the rest. Of several models arms in seconds and arms in USD
    are ranked each for themselves, those in seconds first: :func:`answers_in_usd` says which can be compared.
    """
    units = answers_in_usd(plan, arms, gpu)
    if len(plan.models) > 1 and len(set(units.values())) > 1:
        ranks: dict[str, int] = {}
        for unit in (False, True):
            part = [arm for arm in arms if units.get(arm.arm, False) == unit]
            ranks |= {name: len(ranks) + rank for name, rank in measured_ranks(plan, part, gpu).items()}
        return ranks
    each = answer_costs(plan, arms, gpu).each
    upkeep = upkeep_costs(plan.steps, {arm.arm: arm.tokens for arm in arms})
    ranks = {}
    left = set(each)
    while left:
        most = SAME_COST * min(each[name] for name in left)
        cheapest = min((name for name in left if each[name] <= most), key=lambda name: upkeep[name])
        ranks[cheapest] = len(ranks)
        left.remove(cheapest)
    return ranks


@dataclass(frozen=True, slots=True)
class AnswerCosts:
    """What one answer of each arm costs, in one unit for all arms."""

    each: Mapping[str, float]
    in_usd: bool
    """Whether these are prices; else they are seconds."""
    calls: float
    """Calls a month."""
    calls_from: str
    """Where that number is from: yours, for low volume, assumed."""

    def text(self, cheap: str, dear: str) -> str:
        """Return what answers of two arms cost, singly and in a month; "" where that is the same, to :data:`SAME_COST`."""
        one, other = self.each[cheap], self.each[dear]
        if other <= SAME_COST * one:
            return ""
        month = f"{self.calls:,.0f} calls a month, {self.calls_from}"
        if self.in_usd:
            return (
                f"1,000 answers cost {1000 * one:.2g} USD and not {1000 * other:.2g} "
                f"({month}: {self.calls * one:.2g} and {self.calls * other:.2g} USD)"
            )
        hours = (f"{self.calls * seconds / 3600:.2g}" for seconds in (one, other))
        return f"an answer takes {one:.2g} s and not {other:.2g} ({month}: {' and '.join(hours)} hours)"


def answers_in_usd(plan: Plan, arms: Sequence[ArmScores], gpu: str = "") -> dict[str, bool]:
    """Return whether the answers of each arm that asks a model have a price; arms in USD and in seconds are not compared."""
    heads = {step.arm for step in plan.arms if step.without_model}
    return {arm.arm: cost_per_1000(arm, plan, gpu).usd is not None for arm in arms if arm.arm not in heads}


def answer_costs(plan: Plan, arms: Sequence[ArmScores], gpu: str = "") -> AnswerCosts:
    """Return what an answer of each arm costs, in USD where all have a price, else in seconds; without a model nothing."""
    heads = {step.arm for step in plan.arms if step.without_model}
    usd = {arm.arm: 0.0 if arm.arm in heads else cost_per_1000(arm, plan, gpu).usd for arm in arms}
    known = {name: price / 1000 for name, price in usd.items() if price is not None}
    calls = monthly_calls(plan)
    if len(known) == len(arms) and any(known.values()):
        return AnswerCosts(known, True, *calls)
    return AnswerCosts({arm.arm: rounded_mean(arm.seconds) for arm in arms}, False, *calls)


def upkeep_costs(steps: Sequence[Step], tokens: Mapping[str, float] | None = None) -> dict[str, UpkeepCost]:
    """Return every arm's cost as a tuple that sorts from cheap to costly.

    Its items in order: how many parts are built and maintained (an index, its tuned embedder, a classifier head,
    weights; of a router those of both its arms); the heaviest kind of them, less than any for nearest replies, which ask
    nothing and train nothing; whether the training rows need passages too; tokens of prompt and answer together,
    where they were measured; the position in the plan. An arm that was measured but is not in the plan comes
    last.

    Args:
        steps: the plan's steps.
        tokens: measured tokens per answer by arm, None before a run.
    """
    arms = [step for step in steps if isinstance(step, EvaluateStep)]
    trained = {step.arm: step for step in steps if isinstance(step, TrainStep)}
    measured = tokens or {}
    not_planned = {name: (MAX_PARTS, 0, 0, count, 0) for name, count in measured.items()}
    costs: dict[str, UpkeepCost] = {}
    for index, arm in enumerate(arms):
        if arm.route:
            parts = [costs[name] for name in (arm.route.first, arm.route.otherwise)]
            count, heaviest = sum(cost[0] for cost in parts), max(cost[1] for cost in parts)
            passages = max(cost[2] for cost in parts)
            costs[arm.arm] = (count, heaviest, passages, measured.get(arm.arm, 0.0), index)
        else:
            costs[arm.arm] = _cost(arm, trained, measured, index)
    return not_planned | costs


def cheaper_arms(steps: Sequence[Step], arm: str) -> tuple[str, ...]:
    """Return the arms that cost less than this one, in the plan's order.

    What an answer costs is not known before a run, so the parts to make and keep decide, and not :func:`measured_ranks`.
    """
    costs = upkeep_costs(steps)
    return tuple(name for name, cost in costs.items() if cost < costs[arm])


def _cost(
    arm: EvaluateStep, trained: Mapping[str, TrainStep], tokens: Mapping[str, float], index: int
) -> UpkeepCost:
    """Return the cost of one arm that is no router; ``index`` is its position in the plan."""
    if arm.nearest_reply:
        return (0, NOTHING_ASKED, 0, 0.0, index)
    training = trained.get(arm.weights) if arm.weights else None
    head = arm.classifier or method_of(arm.arm) in HEAD_ARMS
    parts = arm.retrieval + head + bool(arm.weights) + (arm.retriever == "tuned")
    # 0 a classifier head, 1 an index, from 2 on weights in the order of TUNING_METHODS, full last.
    heaviest = 0 if head else 1
    if arm.weights:
        heaviest = 2 + TUNING_METHODS.index(training.method if training else TUNING_METHODS[0])
    passages = training is not None and training.rows == "retrieval"
    return (parts, heaviest if parts else 0, int(passages), tokens.get(arm.arm, 0.0), index)
