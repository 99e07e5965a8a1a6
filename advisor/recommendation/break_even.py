"""Break-even: at how many calls a month two methods cost the same, for every pair, or which one is always cheaper.

A month costs a fixed part (a GPU that serves a tuned model, training spread over the months between two
trainings) and its calls (:mod:`advisor.costs.hosting`). :func:`break_even` is the entry point.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date
from itertools import combinations
from typing import Any

from advisor.catalog import prices
from advisor.costs.call_prices import (
    call_cost_line,
    call_price_basis,
    calls_per_month,
    price_day,
    profile_price,
    stale_price_note,
)
from advisor.costs.estimate import MethodEstimate
from advisor.costs.hosting import (
    HOURS_PER_MONTH,
    MonthlyCost,
    break_even_calls,
    cheapest_serving,
    served_locally,
)
from advisor.costs.tokens import call_tokens, training_tokens
from advisor.methods.registry import methods_by_name
from advisor.questionnaire.profile import Profile
from runners.plan.train_config import TUNING_METHODS

TUNED_METHODS = (*TUNING_METHODS, "hybrid")
DEFAULT_MONTHS = 12.0
"""Months that one training is used for where no answer says how often it is repeated."""
DAYS_PER_MONTH = 365 / 12
WHOLE_CALLS = 1_000
"""Calls a month from which a break-even is a whole number; one of a few calls is given to four digits."""


@dataclass(frozen=True, slots=True)
class PricedMethod:
    """What a method costs: its calls and what serves them, its training, or why there is no price."""

    calls: MonthlyCost | None
    training_usd: float = 0.0
    months: float = DEFAULT_MONTHS
    """Months over which the training is spread."""
    why_not: str = ""

    @property
    def line(self) -> MonthlyCost | None:
        """USD a month including the share of the training."""
        # One training serves until the next: its price is a fixed cost of every month in between.
        spread = self.training_usd / self.months
        return self.calls and replace(self.calls, fixed=self.calls.fixed + spread)


def break_even(
    profile: Profile, estimates: Mapping[str, MethodEstimate], today: date | None = None
) -> dict[str, Any] | None:
    """Return where every pair of methods costs the same a month, and the headline pair in one sentence.

    The headline is few-shot (prompting where that is blocked) against the first tuning method that nothing
    blocks, in the order of ``estimates``; where all are blocked, against the first other method. None when
    there are not two methods to compare.
    """
    today = today or date.today()
    priced = {name: price_method(profile, name, estimate) for name, estimate in estimates.items()}
    feasible = [name for name in estimates if not methods_by_name()[name].blocked(profile)]
    shown = "few-shot" if "few-shot" in feasible else "prompting"
    rivals: list[str] = [name for name in feasible if name in TUNING_METHODS]
    rivals = rivals or [name for name in feasible if name != shown]
    if shown not in feasible or not rivals:
        return None
    calls, volume_source = calls_per_month(profile)
    # On hardware at hand no call is paid for, so the age of a provider's prices is beside the point.
    price_note = "" if served_locally(profile) else stale_price_note(profile_price(profile), today)
    return {
        **headline_pair(profile, priced, shown, rivals[0], f"; {price_note}" if price_note else ""),
        "calls_per_month": calls,
        "calls_known": volume_source,
        "hosted_equivalent": served_locally(profile),
        "pairs": [break_even_pair(priced, a, b, calls) for a, b in combinations(priced, 2)],
        "per_month": {
            name: {
                "per_call_usd": float(f"{line.per_call(calls):.3g}"),
                "usd": float(f"{line.month(calls):.4g}"),
                **line.to_json(),
                "open": name in feasible,
            }
            for name, method_cost in priced.items()
            if (line := method_cost.line)
        },
        "assumptions": [*call_price_basis(profile, today), *_break_even_assumptions(profile, priced, today)],
    }


def price_method(profile: Profile, method: str, estimate: MethodEstimate) -> PricedMethod:
    """Return what a method costs: its calls hosted or a rented GPU kept all month, and its training."""
    if estimate.per_call_usd is None:
        return PricedMethod(None, why_not=f"no price of a call of {method} is known")
    if estimate.per_call_usd == 0.0:
        return PricedMethod(MonthlyCost(0.0, 0.0, 0.0, 0.0))
    hosted = call_cost_line(profile, *call_tokens(profile, method))
    if method not in TUNED_METHODS:
        card = _card_for_every_method(profile)
        return PricedMethod(MonthlyCost(card, 0.0, 0.0, 0.0) if card else hosted)
    if profile.remote:
        return PricedMethod(
            None, why_not=f"tuning {profile_price(profile).model} is not offered, or has no known price"
        )
    if estimate.usd is None:
        return PricedMethod(
            None, why_not=f"{method} has no price: nothing to train on, or the model's size is unknown"
        )
    if served_locally(profile):
        return PricedMethod(hosted, estimate.usd.likely, _months(profile))
    served = cheapest_serving(profile)
    if served is None:
        return PricedMethod(
            None, why_not="no GPU that can be rented is known to have enough memory for this model"
        )
    return PricedMethod(MonthlyCost(served.month_usd, 0.0, 0.0, 0.0), estimate.usd.likely, _months(profile))


def headline_pair(
    profile: Profile, priced: Mapping[str, PricedMethod], shown: str, rival: str, price_note: str
) -> dict[str, Any]:
    """Return the pair that is printed: from how many calls a month the rival (with a rented GPU) is cheaper.

    On hardware at hand there is nothing to pay off, so ``calls`` is 0 where the rival's calls are shorter.

    Args:
        profile: the situation.
        priced: what each method costs.
        shown: the prompting method.
        rival: the method it is compared with.
        price_note: a note on old prices, appended to the text.
    """
    shown_cost = priced[shown].calls
    rival_cost = priced[rival].calls
    pair: dict[str, Any] = {"between": [shown, rival], "calls": None, "saved_per_call_usd": None}
    if shown_cost is None or rival_cost is None:
        return pair | {"text": f"no comparison: {priced[shown].why_not or priced[rival].why_not}"}
    calls, volume_source = calls_per_month(profile)
    saved = shown_cost.per_call(calls) - rival_cost.per_call(calls)
    pair["saved_per_call_usd"] = float(f"{saved:.3g}")
    if rival not in TUNED_METHODS or rival_cost.fixed > shown_cost.fixed:
        crossed = break_even_pair(priced, shown, rival, calls)
        where = crossed["calls_per_month"]
        yours = f" (yours: {calls:,.0f})" if volume_source == "yours" else ""
        text = f"{shown} against {rival}: {crossed['text']}{yours if where else ''}{price_note}"
        return pair | {"calls": where, "text": text}
    if saved <= 0:
        return pair | {
            "text": f"{shown} is cheaper at any number of calls: a call of {rival} costs no less{price_note}"
        }
    text = (
        f"on your own machine this costs time, not money. With a hosted provider, the shorter prompt of {rival} would save "
        f"about {1000 * saved:.2g} USD per 1,000 calls against {shown}"
    )
    return pair | {"calls": 0, "text": text + price_note}


def break_even_pair(priced: Mapping[str, PricedMethod], a: str, b: str, calls: float) -> dict[str, Any]:
    """Return one pair: the calls a month at which both cost the same, or null and why."""
    a_cost = priced[a]
    b_cost = priced[b]
    pair: dict[str, Any] = {"between": [a, b], "calls_per_month": None}
    if a_cost.line is None or b_cost.line is None:
        return pair | {"text": f"not compared: {a_cost.why_not or b_cost.why_not}"}
    where = break_even_calls(a_cost.line, b_cost.line)
    if where is None:
        return pair | {"text": _why_no_crossover(priced, a, b, calls)}
    # The cost curves cross for the last time at ``where``: twice as many calls are beyond it.
    above = b if b_cost.line.month(where * 2) < a_cost.line.month(where * 2) else a
    usd = a_cost.line.month(where)
    return pair | {
        "calls_per_month": round(where) if where >= WHOLE_CALLS else float(f"{where:.4g}"),
        "text": f"the same at about {_rounded_calls(where)} calls a month ({usd:,.2f} USD); above it {above} is cheaper",
    }


def _why_no_crossover(priced: Mapping[str, PricedMethod], a: str, b: str, calls: float) -> str:
    """Return why two methods never cost the same."""
    a_cost = priced[a].line
    b_cost = priced[b].line
    if a_cost is None or b_cost is None or a_cost == b_cost:
        return f"{a} and {b} cost the same at any number of calls"
    (cheap, low), (dear, high) = sorted(((a, a_cost), (b, b_cost)), key=lambda item: item[1].month(calls))
    if low.per_call(calls) == high.per_call(calls):
        return f"{cheap} is cheaper at any number of calls: calls cost the same, and {dear} costs more to train and run"
    if low.per_call(calls) > high.per_call(calls):
        return (
            f"{cheap} is cheaper below a billion calls a month: the cheaper calls of {dear} do not pay for its training "
            "and its server"
        )
    return f"{cheap} is cheaper at any number of calls"


def _card_for_every_method(profile: Profile) -> float:
    """Return USD a month of the rented GPU that every method needs; 0 where none is needed."""
    if (
        profile.remote
        or served_locally(profile)
        or not (profile.data_must_stay_local or profile.hosted_api_allowed is False)
    ):
        return 0.0
    served = cheapest_serving(profile)
    return served.month_usd if served else 0.0


def _months(profile: Profile) -> float:
    """Return the months over which one training is spread."""
    days = profile.can_retrain_every_days
    return max(days, 1.0) / DAYS_PER_MONTH if days else DEFAULT_MONTHS


def _break_even_assumptions(profile: Profile, priced: Mapping[str, PricedMethod], today: date) -> list[str]:
    """Return what the fixed part holds, and what tuning as a hosted service would cost."""
    if not any(priced[name].calls for name in TUNED_METHODS if name in priced):
        return []
    months = _months(profile)
    why = (
        "can_retrain_every_days"
        if profile.can_retrain_every_days
        else "how often you train again is not known"
    )
    lines = [f"training is spread over {months:.3g} months ({why})"]
    if not served_locally(profile) and (served := cheapest_serving(profile)):
        card = served.card
        shared = " (exported to vLLM, which shares it among them)" if served.count > 1 else ""
        lines.append(
            f"a fine-tuned model runs on {served.count} x {card.name}{shared}, always on: 730 h x "
            f"{served.month_usd / HOURS_PER_MONTH:.2f} USD ({price_day(card.day, today)}; {card.source}); it answers about "
            f"{_rounded_calls(served.capacity)} calls a month one at a time, more in batches; rented by the second a "
            f"call would cost about {served.per_call_usd:.2g} USD"
        )
    if profile.params_b and not profile.data_must_stay_local:
        hosted = prices.tuning_price(profile.params_b)
        usd = hosted.lora * training_tokens(profile) / 1e6
        lines.append(
            f"LoRA as a hosted service: about {usd:,.2f} USD at {hosted.lora:.2f} a million training tokens "
            f"({price_day(hosted.day, today)}; {hosted.source}); the result is served by the GPU-hour as well"
        )
    return lines


def _rounded_calls(calls: float) -> str:
    """Return a number of calls to two significant digits, with thousands separators."""
    return f"{float(f'{calls:.2g}'):,.0f}" if calls >= 10 else f"{calls:.1f}"
