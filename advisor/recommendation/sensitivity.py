"""How the choice depends on each answer, all others unchanged.

:class:`Sensitivity` holds the choice for every value of every answer. From it follow the
:func:`counterfactuals` (JSON key ``flips``: single changes that make another method the choice; people are
shown those that are ``plausible``), the :func:`information_values` (unknown answers that are most worth finding out)
and the :func:`review_triggers` (when the advice is out of date).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from advisor.catalog.prices import STALE_DAYS, reference_price
from advisor.questionnaire.answers import PERSON_SOURCES, format_answer
from advisor.questionnaire.profile import HIGH_VOLUME, Profile
from advisor.questionnaire.questions import QUESTION_BY_ID
from advisor.recommendation.confidence import is_unknown
from advisor.recommendation.ranking import first_choice
from advisor.recommendation.thresholds import NUMERIC_KEYS, ChoiceSpan, choice_spans

GROWING_ANSWERS = ("labelled_examples", "corpus_tokens", "calls_per_month")
"""Amounts that grow by themselves while a product is in use."""
LARGEST_GROWTH = 10
"""Factor up to which such an amount may grow: ten times as many examples are weeks of labelling, more is another job."""
JUDGED_CHOICES = ("behaviour_gap", "facts_change", "wrong_answer_cost")
"""Answers that a person judges, in steps: one step off is possible."""
JUDGED_SHARES = ("prompting_pass_rate", "answers_in_documents")
"""Shares that a person estimates: :data:`SHARE_ERROR` off is possible."""
SHARE_ERROR = 0.1
EXAMPLES_OF_DAYS = 100
"""Examples that can be written in some days, however few there are now."""
RAW_TEXT_OF_CORPUS = 10
"""Raw text to train on is at most this many times the documents, whose tokens are known: the archive behind them."""
CHOICE_KEYS: tuple[str, ...] = tuple(
    key for key, question in QUESTION_BY_ID.items() if question.kind in ("choice", "flag")
)
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
        if key in GROWING_ANSWERS and change["plausible"] and change["to"] > (now or 0):
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


def plausible_range(profile: Profile, key: str) -> tuple[float, float]:
    """Return the least and the largest value that a numeric answer may have in this job, as far as is known.

    What a person stated, or was counted, detected or probed, is certain: the range is that value (infinite for "no limit").
    But amounts that grow (:data:`GROWING_ANSWERS`) may become :data:`LARGEST_GROWTH` times as many, few examples
    :data:`EXAMPLES_OF_DAYS`, and shares that a person estimates (:data:`JUDGED_SHARES`) may be off by :data:`SHARE_ERROR`.
    Of an unknown answer, a default, or the size of a default model it is the range of the question, narrowed by what is
    known of the job: calls a month by the answer ``call_volume``, raw text by the size of the documents.
    """
    now = getattr(profile, key)
    default_model = key == "model_params_b" and profile.model is not None and is_unknown(profile, "model")
    if not (default_model or is_unknown(profile, key)):
        if now is not None and key in GROWING_ANSWERS:
            written = EXAMPLES_OF_DAYS if key == "labelled_examples" else 0
            return now, max(now * LARGEST_GROWTH, written)
        if now is not None and key in JUDGED_SHARES and _stated(profile, key):
            return round(now - SHARE_ERROR, 4), round(now + SHARE_ERROR, 4)
        return (math.inf, math.inf) if now is None else (now, now)
    low, high = QUESTION_BY_ID[key].plausible
    if key == "calls_per_month" and profile.call_volume is not None:
        return (HIGH_VOLUME, high) if profile.call_volume == "high" else (low, HIGH_VOLUME - 1)
    if key == "unlabelled_tokens" and profile.corpus_tokens is not None:
        high = min(high, RAW_TEXT_OF_CORPUS * profile.corpus_tokens)
    return low, high


def is_plausible_choice(profile: Profile, key: str, value: str | bool) -> bool:
    """Return whether an answer with fixed values may be this one: it is unknown, or judged by a person and a step off.

    What a person states, or was counted, detected or probed, is certain, and so is the kind of GPU where its memory or
    number is known. Of :data:`JUDGED_CHOICES` the values beside the one stated are possible too. What another answer rules
    out is not, nor are replies word for word where there are no examples to take them from, or no sentences are wanted.
    """
    if value in QUESTION_BY_ID[key].closed(vars(profile)):
        return False
    if is_unknown(profile, key):
        stored = bool(profile.labelled_examples) and profile.output_format in (None, "free")
        no_card = profile.gpu_memory_gib is None and profile.gpu_count is None
        return {"gpu_kind": no_card, "replies_verbatim": stored or value is False}.get(key, True)
    return key in JUDGED_CHOICES and _stated(profile, key) and _steps(profile, key, value) == 1


def counterfactuals(profile: Profile, choice: str, sensitivity: Sensitivity) -> tuple[dict[str, Any], ...]:
    """Return every single change of an answer that makes another method the choice, the most plausible first.

    Applying one (the answer ``key`` set to ``to``, all else as it is) makes ``choice_becomes`` the choice.
    For numbers ``from`` and ``below`` bound the span in which it does (null: no bound); the thresholds are
    those of :mod:`advisor.recommendation.thresholds`, and ``text`` leaves out an end beyond what is plausible.
    ``plausible`` says whether the answer may be so in this job: its question can matter, and a value of the span is in
    :func:`plausible_range`, or :func:`is_plausible_choice`. People are shown only these. ``distance`` orders the changes:
    plausible ones come first, unknown answers before known ones, small steps before large ones, and questions that are
    always asked before seldom decisive ones.
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

    Of a number only those of its typical values are tried (``tries`` of its question) that are plausible in this job.
    """
    values = []
    for key in (key for key in (*sensitivity.numbers, *sensitivity.choices) if is_unknown(profile, key)):
        question = QUESTION_BY_ID[key]
        if not question.when(vars(profile)):
            continue
        if spans := sensitivity.numbers.get(key):
            low, high = plausible_range(profile, key)
            # Each typical value is looked up in the span that holds it.
            held = [next(span for span in spans if n in span) for n in question.tries if low <= n <= high]
            outcomes = [
                (span.within(low, high).words(question.kind == "count"), span.choice) for span in held
            ]
        else:
            outcomes = [
                (format_answer(value), becomes)
                for value, becomes in sensitivity.choices[key].items()
                if is_plausible_choice(profile, key, value)
            ]
        values.append(_information_value(key, choice, outcomes))
    # Answers that the wizard asks at once come before those it seldom needs.
    values.sort(key=lambda info: (-info.share, QUESTION_BY_ID[info.key].detail, info.key))
    return tuple(info for info in values if info.share > 0)[:MAX_INFORMATION_VALUES]


def _numeric_changes(
    profile: Profile, key: str, choice: str, spans: Sequence[ChoiceSpan]
) -> Iterator[dict[str, Any]]:
    """Yield the changes of a numeric answer, one for each span with another choice."""
    now = getattr(profile, key)
    whole = QUESTION_BY_ID[key].kind == "count"
    lowest, highest = plausible_range(profile, key)
    for span in spans:
        if span.choice == choice or (now is not None and now in span):
            continue
        plausible = span.low <= highest and lowest < span.high
        falling = now is not None and span.high <= now
        to = span.last if falling else max(span.least(whole), lowest if plausible else 0)
        distance = 0.3 if now is None else _distance(now, to) + 0.2
        shown = span.within(lowest if falling or now is None else -1, highest) if plausible else span
        change = _change(
            profile,
            key,
            int(to) if whole else to,
            span.choice,
            distance,
            f"were {shown.words(whole)}",
            plausible,
        )
        change["from"] = span.low if span.low > QUESTION_BY_ID[key].low else None
        change["below"] = span.high if math.isfinite(span.high) else None
        yield change


def _choice_changes(
    profile: Profile, key: str, choice: str, choice_of: Mapping[Any, str]
) -> Iterator[dict[str, Any]]:
    """Yield the changes of an answer with fixed values, one for each value with another choice."""
    now = getattr(profile, key)
    for value, becomes in choice_of.items():
        if value != now and becomes != choice:
            distance = 0.2 if now is None else 0.5 * _steps(profile, key, value)
            plausible = is_plausible_choice(profile, key, value)
            yield _change(profile, key, value, becomes, distance, f"were {format_answer(value)}", plausible)


def _steps(profile: Profile, key: str, value: str | bool) -> int:
    """Return how many steps a value is from the answer: choices are ordered (none, low, high)."""
    order = [choice.value for choice in QUESTION_BY_ID[key].choices]
    return abs(order.index(str(value)) - order.index(getattr(profile, key))) if order else 1


def _stated(profile: Profile, key: str) -> bool:
    """Return whether an answer is what a person said, for this job or in the own settings."""
    return key not in profile.sources or profile.sources[key].source in (*PERSON_SOURCES, "config")


def _distance(now: float, to: float) -> float:
    """Return how far a number would move: half a point per power of ten (shares: their difference)."""
    # One is added on both sides of the ratio so that a change from or to 0 has a finite distance.
    if 0 <= now <= 1 and 0 <= to <= 1:
        return abs(to - now)
    return 0.5 * abs(math.log10((to + 1) / (now + 1)))


def _change(
    profile: Profile, key: str, to: Any, becomes: str, distance: float, condition: str, plausible: bool
) -> dict[str, Any]:
    """Return one change as JSON values."""
    question, now = QUESTION_BY_ID[key], getattr(profile, key)
    plausible = plausible and question.when(vars(profile))
    if now is None and question.detail:  # seldom decisive
        distance += 0.3
    return {
        "key": key,
        "to": to,
        "choice_becomes": becomes,
        "text": f"{becomes}, if {key} {condition} (now {format_answer(now)})",
        "plausible": plausible,
        "distance": round(distance + (not plausible), 3),
    }


def _information_value(key: str, choice: str, pairs: Sequence[tuple[str, str]]) -> InformationValue:
    """Return the value of knowing an answer, from pairs of its possible values and the choice after each."""
    others = [(value, becomes) for value, becomes in pairs if becomes != choice]
    values_of: dict[str, list[str]] = {}
    for value, becomes in dict.fromkeys(others):
        values_of.setdefault(becomes, []).append(value)
    outcomes_shown = list(values_of.items())[:MAX_OUTCOMES_SHOWN]
    text = ", ".join(f"{' or '.join(values)} would make it {becomes}" for becomes, values in outcomes_shown)
    return InformationValue(key, f"{key}: {text}", len(others) / max(1, len(pairs)))
