"""The measured table: public trials of this program, one row each, read from ``trials.json`` beside this module.

``python -m benchmarks.trials --collect`` writes the file from the recorded trials (benchmarks/accuracy.json and
benchmarks/accuracy_gemma.json); it is not edited by hand. A row holds counts and scores, nothing of the data.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import cache, cached_property
from importlib.resources import files
from typing import Any

from advisor.questionnaire.data_facts import DataFacts
from advisor.questionnaire.profile import Profile
from advisor.questionnaire.questions import QUESTION_BY_ID

TABLE = "trials.json"
DATA_PREFIX = "data."
"""Features with this prefix are fields of :class:`DataFacts`; the others are answers of the questionnaire."""
HAS_DOCUMENTS = "has_documents"
"""Feature that is true where documents were given; their path is not recorded."""

TEXTS_AND_PATHS = ("documents", "examples", "questions", "goal", "prompt", "columns", "models")
"""Answers that are no features."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialArm:
    """One arm's mean combined score with its 95 % interval, 0 to 1.

    Attributes:
        right: answers judged right, None where that was not judged.
        minutes: of training and answering, None where not recorded.
    """

    arm: str
    mean: float
    low: float
    high: float
    n: int
    right: int | None = None
    minutes: float | None = None


@dataclass(frozen=True, slots=True)
class TrialDifference:
    """The mean difference ``first - second`` of two arms' combined scores, with its 95 % interval.

    Attributes:
        paired: from the same questions; else computed from the two arms' own intervals, which is wider.
    """

    first: str
    second: str
    difference: float
    low: float
    high: float
    paired: bool = True

    @property
    def sure(self) -> int:
        """1 when the first arm is surely ahead, -1 when the second is, 0 when the interval includes zero."""
        return 1 if self.low > 0 else -1 if self.high < 0 else 0


@dataclass(frozen=True)
class MeasuredTrial:
    """One trial: the situation, and what each arm scored.

    Attributes:
        name: of the data set.
        kind: kind of task, such as labels or "facts and style"; "" where it was not named.
        features: answers of the questionnaire, and facts counted in the files with the prefix ``data.``.
        questions: number of test questions.
        advised: the method that was advised before the trial.
        confidence: of that advice; "" where it was not recorded.
        probability: of that advice, 0 to 1; None where it was not recorded.
        outcome: confirmed, overturned or undecided.
        held_back: named as a test before any trial was run.
        own: a run of the user's history, not a public trial.
    """

    name: str
    model: str
    date: str
    questions: int
    advised: str
    outcome: str
    arms: tuple[TrialArm, ...]
    differences: tuple[TrialDifference, ...] = ()
    features: Mapping[str, Any] = field(default_factory=dict)
    kind: str = ""
    task: str = ""
    params_b: float | None = None
    confidence: str = ""
    probability: float | None = None
    commit: str = ""
    held_back: bool = False
    own: bool = False

    @cached_property
    def profile(self) -> Profile:
        """The situation as a profile, without paths; features that the questionnaire does not know are left out."""
        counted = {item.name for item in fields(DataFacts)}
        data = {
            key.removeprefix(DATA_PREFIX): value
            for key, value in self.features.items()
            if key.startswith(DATA_PREFIX) and key.removeprefix(DATA_PREFIX) in counted
        }
        answers = {key: value for key, value in self.features.items() if key in QUESTION_BY_ID}
        count = self.features.get("question_count")
        profile = Profile.of(answers, question_count=count)
        if self.features.get(HAS_DOCUMENTS):
            profile = profile.change("documents", "documents")
        return profile.change("data", DataFacts(**data)) if data else profile

    def arm(self, name: str) -> TrialArm | None:
        """Return an arm by name; None when it was not measured."""
        return next((arm for arm in self.arms if arm.arm == name), None)

    def best(self, names: Collection[str] = ()) -> TrialArm | None:
        """Return the arm with the highest mean, of these names only where some are given; None without any."""
        of = [arm for arm in self.arms if not names or arm.arm in names]
        return max(of, key=lambda arm: arm.mean, default=None)

    def difference(self, first: str, second: str) -> TrialDifference | None:
        """Return the difference of two arms; None when one was not measured.

        Where no paired difference is recorded it is the difference of the means; the half-widths of the two intervals
        are added in quadrature, as for independent samples. Scores of one question are positively correlated, so
        that interval is too wide and never calls an order sure that the paired one would leave open by much.
        """
        for pair in self.differences:
            if (pair.first, pair.second) == (first, second):
                return pair
            if (pair.first, pair.second) == (second, first):
                return TrialDifference(first, second, -pair.difference, -pair.high, -pair.low, pair.paired)
        a, b = self.arm(first), self.arm(second)
        if a is None or b is None:
            return None
        gap = a.mean - b.mean
        below = math.hypot(a.mean - a.low, b.high - b.mean)
        above = math.hypot(a.high - a.mean, b.mean - b.low)
        return TrialDifference(first, second, gap, gap - below, gap + above, paired=False)


def situation_features(answers: Mapping[str, Any], profile: Profile | None = None) -> dict[str, Any]:
    """Return the features of a situation: known answers but texts and paths, and what was counted in the files.

    Args:
        answers: the questionnaire's answers, or those that a plan records, each with its ``value``.
        profile: the profile of the same files, for the number of questions and the facts counted in them.
    """
    features = {
        key: answer.value
        for key, answer in answers.items()
        if key not in TEXTS_AND_PATHS and answer.value is not None
    }
    if "documents" in answers and answers["documents"].value:
        features[HAS_DOCUMENTS] = True
    if profile is not None:
        if profile.question_count is not None:
            features["question_count"] = profile.question_count
        features |= {
            DATA_PREFIX + item.name: value
            for item in fields(DataFacts)
            if (value := getattr(profile.data, item.name)) is not None
        }
    return features


def trial_of_row(row: Mapping[str, Any]) -> MeasuredTrial:
    """Return the trial of one row of the table; keys that are not known here are ignored.

    Raises:
        KeyError: when one of set, model, date, questions, advised, outcome or arms is missing.
    """
    return MeasuredTrial(
        name=row["set"],
        model=row["model"],
        date=row["date"],
        questions=row["questions"],
        advised=row["advised"],
        outcome=row["outcome"],
        arms=tuple(
            TrialArm(
                arm=arm["arm"],
                mean=arm["mean"],
                low=arm["low"],
                high=arm["high"],
                n=arm["n"],
                right=arm.get("right"),
                minutes=arm.get("minutes"),
            )
            for arm in row["arms"]
        ),
        differences=tuple(
            TrialDifference(pair["a"], pair["b"], pair["difference"], pair["low"], pair["high"])
            for pair in row.get("differences", ())
        ),
        features=row.get("features", {}),
        kind=row.get("kind", ""),
        task=row.get("task", ""),
        params_b=row.get("params_b"),
        confidence=row.get("confidence") or "",
        probability=row.get("probability"),
        commit=row.get("commit") or "",
        held_back=bool(row.get("held_back", False)),
    )


@cache
def measured_trials() -> tuple[MeasuredTrial, ...]:
    """Return the public trials that ship with the program, in the order of the file."""
    text = files("advisor.evidence").joinpath(TABLE).read_text("utf-8")
    return tuple(trial_of_row(row) for row in json.loads(text)["trials"])


def own_trials(runs: Iterable[Mapping[str, Any]]) -> tuple[MeasuredTrial, ...]:
    """Return the trials among the runs of a history that hold the scores of their arms.

    Runs without an outcome or without scores of arms (dry runs, the demo) are no trials.

    Args:
        runs: lines of the history as mappings. ``arms`` is a list of ``{"arm", "mean", "low", "high", "n"}``,
            ``features`` a mapping as in the table, ``differences`` as there; all else is as in every history.
    """
    return tuple(
        MeasuredTrial(
            name=str(run.get("id", "")),
            model=str(run.get("model", "")),
            date=str(run.get("day", "")),
            questions=int(run.get("questions") or 0),
            advised=str(run.get("choice", "")),
            outcome=str(run["outcome"]),
            arms=tuple(
                TrialArm(
                    arm=arm["arm"],
                    mean=arm["mean"],
                    low=arm["low"],
                    high=arm["high"],
                    n=arm.get("n") or run["questions"],
                )
                for arm in run["arms"]
            ),
            differences=tuple(
                TrialDifference(pair["a"], pair["b"], pair["difference"], pair["low"], pair["high"])
                for pair in run.get("differences") or ()
            ),
            features=run.get("features") or {},
            probability=run.get("probability"),
            confidence=run.get("confidence") or "",
            own=True,
        )
        for run in runs
        if run.get("outcome") and run.get("arms") and run.get("label", "run") == "run"
    )
