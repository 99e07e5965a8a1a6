"""How the choice depends on each answer, all others unchanged.

:class:`Sensitivity` holds the choice for every value of every answer. From it follow the
:func:`counterfactuals` (JSON key ``flips``: single changes that make another method the choice), the
:func:`information_values` (unknown answers that are most worth finding out) and the :func:`review_triggers`
(when the advice is out of date).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from advisor.catalog.prices import STALE_DAYS, reference_price
from advisor.questionnaire.answers import format_answer
from advisor.questionnaire.profile import Profile
from advisor.questionnaire.questions import QUESTION_BY_ID
from advisor.recommendation.ranking import first_choice
from advisor.recommendation.thresholds import NUMERIC_KEYS, ChoiceSpan, choice_spans

GROWING_ANSWERS = ("labelled_examples", "corpus_tokens", "calls_per_month")
"""Amounts that grow by themselves while a product is in use."""
MAX_GROWTH = 1.0
"""Largest ``distance`` of a change that is worth watching for: a factor of about 40."""
CHOICE_KEYS: tuple[str, ...] = tuple(
    key for key, question in QUESTION_BY_ID.items() if question.kind in ("choice", "flag")
)
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
MAX_INFORMATION_VALUES = 2
MAX_OUTCOMES_SHOWN = 2


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """The choice for every value of every answer, changed alone."""

    numbers: Mapping[str, tuple[ChoiceSpan, ...]]
    """The spans of each numeric answer, ascending."""
    choices: Mapping[str, Mapping[str | bool, str]]
    """The choice for each value of each answer with fixed values."""

    @classmethod
    def of(cls, profile: Profile) -> Sensitivity:
        """Compute it for a profile: some hundred rankings."""
        return cls(
            {key: choice_spans(profile, key) for key in NUMERIC_KEYS},
            {key: choice_by_value(profile, key) for key in CHOICE_KEYS},
        )


@dataclass(frozen=True, slots=True)
class InformationValue:
    """An answer that is unknown, or only a default, and the choices it could lead to."""

    key: str
    text: str
    share: float
    """The share of its typical values that lead to another choice."""


def review_triggers(profile: Profile, changes: Iterable[Mapping[str, Any]], today: date) -> tuple[str, ...]:
    """Return the conditions after which this advice is out of date, soonest first."""
    conditions = []
    for change in changes:
        key = change["key"]
        now = getattr(profile, change["key"])
        if key in GROWING_ANSWERS and change["distance"] <= MAX_GROWTH and change["to"] > (now or 0):
            conditions.append(f"{key} >= {change['to']:,}")
        elif key == "facts_change" and now is not None and change["to"] != "static":
            conditions.append(
                f"the facts change {'daily' if change['to'] == 'fast' else 'monthly'} or faster"
            )
    age = reference_price().age_days(today)
    stale = f"prices are refreshed (these are {age} days old)"
    old = today + timedelta(days=STALE_DAYS - age)
    fresh = f"prices are older than {STALE_DAYS} days (after {old.day} {old:%B %Y})"
    conditions.append(stale if age > STALE_DAYS else fresh)
    return tuple(dict.fromkeys(conditions))


def choice_by_value(profile: Profile, key: str) -> dict[str | bool, str]:
    """Return, for an answer with fixed values, the choice that each value leads to."""
    values: list[str | bool] = [choice.value for choice in QUESTION_BY_ID[key].choices] or [True, False]
    return {value: first_choice(profile.change(key, value)).choice for value in values}


def counterfactuals(profile: Profile, choice: str, sensitivity: Sensitivity) -> tuple[dict[str, Any], ...]:
    """Return every single change of an answer that makes another method the choice, the most plausible first.

    Applying one (the answer ``key`` set to ``to``, all else as it is) makes ``choice_becomes`` the choice.
    For numbers ``from`` and ``below`` bound the span in which it does (null: no bound); the thresholds are
    those of :mod:`advisor.recommendation.thresholds`. ``distance`` orders them: unknown answers come before
    known ones (numbers that are seldom the answer after all others), small steps before large ones, growth
    before loss, answers of a person before measured ones, and questions that are always asked before seldom
    decisive ones.
    """
    changes = [
        change
        for key, spans in sensitivity.numbers.items()
        for change in _numeric_changes(profile, key, choice, spans)
    ]
    changes += [
        change
        for key, choice_of in sensitivity.choices.items()
        for change in _choice_changes(profile, key, choice, choice_of)
    ]
    return tuple(sorted(changes, key=lambda change: (change["distance"], change["key"], str(change["to"]))))


def information_values(
    profile: Profile, choice: str, sensitivity: Sensitivity
) -> tuple[InformationValue, ...]:
    """Return the one or two unknown answers most likely to change the choice; none when none could.

    Of a number only its typical values are tried (``tries`` of its question).
    """
    values = []
    for key, spans in sensitivity.numbers.items():
        if _unknown(profile, key) and QUESTION_BY_ID[key].tries:
            whole = QUESTION_BY_ID[key].kind == "count"
            # Each typical value is looked up in the span that holds it.
            spans_of_tries = (
                next(span for span in spans if value in span) for value in QUESTION_BY_ID[key].tries
            )
            values.append(
                _information_value(key, choice, ((span.words(whole), span.choice) for span in spans_of_tries))
            )
    for key, choice_of in sensitivity.choices.items():
        if _unknown(profile, key):
            values.append(
                _information_value(
                    key, choice, ((format_answer(value), becomes) for value, becomes in choice_of.items())
                )
            )
    # Answers that the wizard asks at once come before those it seldom needs.
    values.sort(key=lambda info: (-info.share, QUESTION_BY_ID[info.key].detail, info.key))
    return tuple(info for info in values if info.share > 0)[:MAX_INFORMATION_VALUES]


def _numeric_changes(
    profile: Profile, key: str, choice: str, spans: Sequence[ChoiceSpan]
) -> Iterator[dict[str, Any]]:
    """Yield the changes of a numeric answer, one for each span with another choice."""
    now = getattr(profile, key)
    whole = QUESTION_BY_ID[key].kind == "count"
    for span in spans:
        if span.choice == choice or (now is not None and now in span):
            continue
        falling = now is not None and span.high <= now
        to = span.most(whole) if falling else span.least(whole)
        # Unknown numbers: a span with a typical value is plausible, another one is put after all other changes.
        usual = any(value in span for value in QUESTION_BY_ID[key].tries)
        distance = (0.3 if usual else 1.3) if now is None else _distance(now, to) + 0.2
        if falling and key in SHRINKING_ANSWERS:
            distance *= 2
        change = _change(
            profile, key, int(to) if whole else to, span.choice, distance, f"were {span.words(whole)}"
        )
        change["from"] = span.low if span.low > QUESTION_BY_ID[key].low else None
        change["below"] = span.high if math.isfinite(span.high) else None
        yield change


def _choice_changes(
    profile: Profile, key: str, choice: str, choice_of: Mapping[Any, str]
) -> Iterator[dict[str, Any]]:
    """Yield the changes of an answer with fixed values, one for each value with another choice."""
    now = getattr(profile, key)
    order = [c.value for c in QUESTION_BY_ID[key].choices]
    for value, becomes in choice_of.items():
        if value == now or becomes == choice:
            continue
        # Choices are ordered (none, low, high), so the distance is the number of steps between two of them.
        steps = abs(order.index(value) - order.index(now)) if order and now in order else 1
        yield _change(
            profile, key, value, becomes, 0.2 if now is None else 0.5 * steps, f"were {format_answer(value)}"
        )


def _distance(now: float, to: float) -> float:
    """Return how far a number would move: half a point per power of ten (shares: their difference)."""
    # One is added on both sides of the ratio so that a change from or to 0 has a finite distance.
    if 0 <= now <= 1 and 0 <= to <= 1:
        return abs(to - now)
    return 0.5 * abs(math.log10((to + 1) / (now + 1)))


def _change(
    profile: Profile, key: str, to: Any, becomes: str, distance: float, condition: str
) -> dict[str, Any]:
    """Return one change as JSON values."""
    now = getattr(profile, key)
    # Seldom decisive questions, and answers that were measured here, are less likely to change.
    if now is None and QUESTION_BY_ID[key].detail:
        distance += 0.3
    if now is not None and key in profile.sources and profile.sources[key].source in MEASURED_SOURCES:
        distance += 0.3
    text = f"{becomes}, if {key} {condition} (now {format_answer(now)})"
    return {"key": key, "to": to, "choice_becomes": becomes, "text": text, "distance": round(distance, 3)}


def _unknown(profile: Profile, key: str) -> bool:
    """Return whether an answer is unknown or only a default."""
    if key == "call_volume" and profile.calls_per_month is not None:
        return False
    return getattr(profile, key) is None or (
        key in profile.sources and profile.sources[key].source == "default"
    )


def _information_value(key: str, choice: str, outcomes: Iterable[tuple[str, str]]) -> InformationValue:
    """Return the value of knowing an answer, from pairs of its possible values and the choice after each."""
    pairs = list(outcomes)
    others = [(value, becomes) for value, becomes in pairs if becomes != choice]
    values_of: dict[str, list[str]] = {}
    for value, becomes in dict.fromkeys(others):
        values_of.setdefault(becomes, []).append(value)
    outcomes_shown = list(values_of.items())[:MAX_OUTCOMES_SHOWN]
    text = ", ".join(f"{' or '.join(values)} would make it {becomes}" for becomes, values in outcomes_shown)
    return InformationValue(key, f"{key}: {text}", len(others) / len(pairs))
