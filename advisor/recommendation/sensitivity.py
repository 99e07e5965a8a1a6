"""When to ask again: the changes to be expected that would change the advice, and the age of prices.

How the choice depends on one answer, all others staying as they are: a line cut into spans.

What would change the advice: for numbers the threshold, for other answers the single change.

Which unknown answers are most worth finding out: those that could change the choice.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from advisor.catalog.prices import STALE_DAYS, reference_price
from advisor.questionnaire.answers import format_answer
from advisor.questionnaire.profile import Profile
from advisor.questionnaire.questions import QUESTION_BY_ID
from advisor.recommendation.ranking import rank_methods
from advisor.recommendation.thresholds import NUMERIC_KEYS, ChoiceSpan, choice_spans

GROWING_ANSWERS = ("labelled_examples", "corpus_tokens", "calls_per_month")
"""Amounts that grow by themselves while a product is in use."""
MAX_GROWTH = 1.0
"""How far a flip may be (in its ``distance``) to be worth watching for: a factor of about 40."""


def ask_again(profile: Profile, flips: Iterable[Mapping[str, Any]], today: date) -> tuple[str, ...]:
    """Return the conditions after which this advice is out of date, soonest first."""
    conditions = []
    for flip in flips:
        key = flip["key"]
        now = getattr(profile, flip["key"])
        if key in GROWING_ANSWERS and flip["distance"] <= MAX_GROWTH and flip["to"] > (now or 0):
            conditions.append(f"{key} >= {flip['to']:,}")
        elif key == "facts_change" and now is not None and flip["to"] != "static":
            conditions.append(f"the facts change {'daily' if flip['to'] == 'fast' else 'monthly'} or faster")
    age = reference_price().age_days(today)
    stale = f"prices are refreshed (these are {age} days old)"
    conditions.append(stale if age > STALE_DAYS else f"prices are older than {STALE_DAYS} days")
    return tuple(dict.fromkeys(conditions))


CHOICE_KEYS: tuple[str, ...] = tuple(
    key for key, question in QUESTION_BY_ID.items() if question.kind in ("choice", "flag")
)


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """Where every answer, changed alone, leads."""

    numbers: Mapping[str, tuple[ChoiceSpan, ...]]
    """For each numeric answer its spans, ascending."""
    choices: Mapping[str, Mapping[str | bool, str]]
    """For each answer to choose from what each value leads to."""

    @classmethod
    def of(cls, profile: Profile) -> Sensitivity:
        """Work it out for a profile: some hundred rankings."""
        return cls(
            {key: choice_spans(profile, key) for key in NUMERIC_KEYS},
            {key: choice_by_value(profile, key) for key in CHOICE_KEYS},
        )


def choice_by_value(profile: Profile, key: str) -> dict[str | bool, str]:
    """Return the choice that each possible value of an answer to choose from leads to."""
    values: list[str | bool] = [choice.value for choice in QUESTION_BY_ID[key].choices] or [True, False]
    return {value: rank_methods(profile.change(key, value)).choice for value in values}


MEASURED_SOURCES = ("detected", "counted", "probed")
SHRINKING_ANSWERS = (
    "labelled_examples",
    "unlabelled_tokens",
    "corpus_tokens",
    "gpu_count",
    "gpu_memory_gib",
    "ram_gib",
    "cpu_cores",
    "budget_usd",
)
"""Numbers that seldom fall: examples are not lost, and machines are not taken away."""


def counterfactuals(profile: Profile, choice: str, outlook: Sensitivity) -> tuple[dict[str, Any], ...]:
    """Return every single change of an answer that makes another method first, the most plausible first.

    Applying one (the answer ``key`` set to ``to``, all else as it is) makes ``choice_becomes`` the choice.
    For numbers ``from`` and ``below`` bound the span in which it does (null: no bound); the thresholds are
    those of :mod:`advisor.recommendation.thresholds`. ``distance`` orders them: unknown answers come before known
    ones (numbers that are seldom the answer after all others), small steps before large ones, growth before
    loss, what a person said before what was measured, and what everybody is asked before what is seldom
    decisive.
    """
    changes = [
        flip for key, spans in outlook.numbers.items() for flip in _numeric(profile, key, choice, spans)
    ]
    changes += [
        flip for key, leads in outlook.choices.items() for flip in _single(profile, key, choice, leads)
    ]
    return tuple(sorted(changes, key=lambda flip: (flip["distance"], flip["key"], str(flip["to"]))))


def _numeric(
    profile: Profile, key: str, choice: str, spans: Sequence[ChoiceSpan]
) -> Iterator[dict[str, Any]]:
    now = getattr(profile, key)
    whole = QUESTION_BY_ID[key].kind == "count"
    for span in spans:
        if span.choice == choice or (now is not None and now in span):
            continue
        falling = now is not None and span.high <= now
        to = span.most(whole) if falling else span.least(whole)
        usual = any(value in span for value in QUESTION_BY_ID[key].tries)
        distance = (0.3 if usual else 1.3) if now is None else _steps(now, to) + 0.2
        if falling and key in SHRINKING_ANSWERS:
            distance *= 2
        flip = _flip(
            profile, key, int(to) if whole else to, span.choice, distance, f"were {span.words(whole)}"
        )
        flip["from"] = span.low if span.low > QUESTION_BY_ID[key].low else None
        flip["below"] = span.high if math.isfinite(span.high) else None
        yield flip


def _single(profile: Profile, key: str, choice: str, leads: Mapping[Any, str]) -> Iterator[dict[str, Any]]:
    now = getattr(profile, key)
    order = [c.value for c in QUESTION_BY_ID[key].choices]
    for value, becomes in leads.items():
        if value == now or becomes == choice:
            continue
        steps = abs(order.index(value) - order.index(now)) if order and now in order else 1
        yield _flip(
            profile, key, value, becomes, 0.2 if now is None else 0.5 * steps, f"were {format_answer(value)}"
        )


def _steps(now: float, to: float) -> float:
    """How far a number would have to move: half a point per power of ten (a share counts as it is)."""
    if 0 <= now <= 1 and 0 <= to <= 1:
        return abs(to - now)
    return 0.5 * abs(math.log10((to + 1) / (now + 1)))


def _flip(
    profile: Profile, key: str, to: Any, becomes: str, distance: float, condition: str
) -> dict[str, Any]:
    now = getattr(profile, key)
    if now is None and QUESTION_BY_ID[key].detail:
        distance += 0.3
    if now is not None and key in profile.sources and profile.sources[key].source in MEASURED_SOURCES:
        distance += 0.3
    text = f"{becomes}, if {key} {condition} (now {format_answer(now)})"
    return {"key": key, "to": to, "choice_becomes": becomes, "text": text, "distance": round(distance, 3)}


MAX_WORTH_FINDING = 2


@dataclass(frozen=True, slots=True)
class InformationValue:
    """An answer that is not known, or only by default, and where it could lead."""

    key: str
    text: str
    share: float
    """The share of its possible values that lead to another choice."""


def worth_finding(profile: Profile, choice: str, outlook: Sensitivity) -> tuple[InformationValue, ...]:
    """Return the one or two unknown answers most likely to change the choice; none when none could.

    A number is tried at the few values that stand for what it usually is (``tries`` of its question).
    """
    values = []
    for key, spans in outlook.numbers.items():
        if _unknown(profile, key) and QUESTION_BY_ID[key].tries:
            whole = QUESTION_BY_ID[key].kind == "count"
            met = (next(span for span in spans if value in span) for value in QUESTION_BY_ID[key].tries)
            values.append(_worth(key, choice, ((span.words(whole), span.choice) for span in met)))
    for key, leads in outlook.choices.items():
        if _unknown(profile, key):
            values.append(
                _worth(key, choice, ((format_answer(value), becomes) for value, becomes in leads.items()))
            )
    # Answers that the wizard asks at once come before those it seldom needs.
    values.sort(key=lambda info: (-info.share, QUESTION_BY_ID[info.key].detail, info.key))
    return tuple(info for info in values if info.share > 0)[:MAX_WORTH_FINDING]


def _unknown(profile: Profile, key: str) -> bool:
    if key == "call_volume" and profile.calls_per_month is not None:
        return False
    return getattr(profile, key) is None or (
        key in profile.sources and profile.sources[key].source == "default"
    )


def _worth(key: str, choice: str, leads: Iterable[tuple[str, str]]) -> InformationValue:
    pairs = list(leads)
    others = [(value, becomes) for value, becomes in pairs if becomes != choice]
    different = list(dict.fromkeys(others))
    text = ", ".join(f"{value} would make it {becomes}" for value, becomes in different[:2])
    return InformationValue(key, f"{key}: {text}", len(others) / len(pairs))
