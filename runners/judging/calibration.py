"""Whether a judge's grades may count: for each pair of arms by people's labels of that pair, never one for all.

A judge that favours one arm turns the sign of a comparison when it is corrected by labels of other arms (arXiv 2605.06939).
So each pair is calibrated by its own labels (:func:`rag.evaluation.prediction_powered.prediction_powered`), and its grades
count only with :data:`MIN_PAIR_LABELS` labelled rows on which its answers differ, and where the judge tells its right
answers from others better than chance: Youden's J of at least :data:`MIN_J` over the labelled answers of the pair. The mean
grade of an arm by itself, which the threshold of usable arms is compared with, is estimated alike on its best labelled pair.
:func:`calibrate_pairs` says of each pair what counts, or is missing.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

from rag.evaluation.prediction_powered import (
    RIGHT_FROM,
    any_time_level,
    labels_needed,
    prediction_powered,
    youden_j,
)
from rag.text.words import count_noun
from runners.judging.grades import GRADE_JOURNAL, AnswerGrades, read_grades
from runners.labels.journal import journal_paths
from runners.labels.labels import PairLabels, RunLabels, read_labels
from runners.plan.schema import Plan
from runners.report.arm_scores import ITSELF, ArmScores, GradedRows
from runners.report.graded import GradedAnswers, GradedPair, RuleAgainstPeople
from runners.report.records import Estimate
from runners.run_folder import TRIAL, read_journal

MIN_PAIR_LABELS = 30
"""Fewest labelled rows of a pair on which its answers differ."""
MIN_J = 0.2
"""Least Youden's J: sensitivity and specificity together above chance by so much."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibratedPairs:
    """What people's labels, and a judge's grades with them, say of the arms of a run."""

    pairs: tuple[GradedPair, ...]
    """Every pair of arms."""
    graded: Mapping[str, Mapping[str, GradedRows]]
    """By arm and other arm, where the grades count."""

    @property
    def mean_grades(self) -> dict[str, Estimate]:
        """The mean grade of each arm whose grades count."""
        means = {
            arm: prediction_powered(of[ITSELF].differences, any_time=True)
            for arm, of in self.graded.items()
            if ITSELF in of
        }
        return {
            arm: Estimate(mean=mean.difference, low=mean.low, high=mean.high) for arm, mean in means.items()
        }

    def attached(self, arms: Sequence[ArmScores]) -> list[ArmScores]:
        """Return the arms with the grades that count."""
        return [replace(arm, graded=self.graded.get(arm.arm, {})) for arm in arms]


def with_grades(
    run: Path, plan: Plan, arms: Sequence[ArmScores], rows: Sequence[Mapping[str, Any]]
) -> tuple[list[ArmScores], GradedAnswers | None]:
    """Return a trial's arms with the grades that count, and what labels and grades there are; None where there are neither.

    Args:
        run: the run folder.
        plan: its plan.
        arms: the scores of its arms.
        rows: of its journal of answers.
    """
    counts = plan.judge is not None and plan.judge.counts
    if not counts and not journal_paths(run):
        return list(arms), None
    labels = read_labels(run)
    grades = read_grades(read_journal(run / TRIAL / GRADE_JOURNAL)) if counts else None
    asked_by_people = [arm.of_origin(from_documents=False) for arm in arms]
    real = asked_by_people if any(arm.questions for arm in asked_by_people) else list(arms)
    real.sort(key=lambda arm: arm.arm != plan.choice)  # so that it is the first of its pairs
    calibration = calibrate_pairs(real, rows, labels, grades)
    shown = [
        pair for pair in calibration.pairs if pair.labels or (counts and plan.choice in (pair.a, pair.b))
    ]
    agreement = labels.agreement()
    notes = [f"{count_noun(labels.torn, 'line')} of labels left out: a crash left them incomplete."] * bool(
        labels.torn
    )
    if several := [arm.arm for arm in arms if len(arm.seeds) > 1]:
        notes.append(f"Labelled and graded are the answers of the first training seed: {', '.join(several)}.")
    graded = GradedAnswers(
        people=len(labels.people),
        judge=plan.judge.name if plan.judge and counts else None,
        graded=len(grades.grades) if grades else 0,
        unreadable=len(grades.unreadable) if grades else 0,
        thrown_away=len(grades.thrown_away) if grades else 0,
        pairs=tuple(shown),
        arms=calibration.mean_grades,
        rule=rule_against_people(real, rows, labels),
        agreement=agreement.text if agreement else "",
        notes=tuple(notes),
    )
    return calibration.attached(arms), graded


def rule_against_people(
    arms: Sequence[ArmScores], rows: Sequence[Mapping[str, Any]], labels: RunLabels
) -> RuleAgainstPeople | None:
    """Return how people grade what the score ``right`` says, each different answer to a question once."""
    placed: dict[tuple[str, str], tuple[bool, int]] = {}
    answers = _first_answers(arms, rows)
    for arm in arms:
        for row, scores in zip(arm.questions, arm.scores, strict=True):
            answer = answers[arm.arm].get(row)
            grade = None if answer is None or "right" not in scores else labels.value(row, answer)
            if answer is not None and grade is not None:
                place = 0 if grade >= RIGHT_FROM else 1 if grade > 0 else 2
                placed.setdefault((row, answer.strip()), (scores["right"] >= RIGHT_FROM, place))
    counts = Counter(placed.values())
    right, others = ([counts[rule, place] for place in range(3)] for rule in (True, False))
    if not placed:
        return None
    return RuleAgainstPeople(
        right=(right[0], right[1], right[2]), not_right=(others[0], others[1], others[2])
    )


def calibrate_pairs(
    arms: Sequence[ArmScores],
    rows: Sequence[Mapping[str, Any]],
    labels: RunLabels,
    grades: AnswerGrades | None,
) -> CalibratedPairs:
    """Compare every pair of arms by people's labels, and by a judge's grades where these may count.

    Args:
        arms: the arms, with the rows that the verdict rests on.
        rows: of the journal of answers; of an arm with several seeds the answers of the first one are taken.
        labels: people's labels.
        grades: the judge's; None where they may not count.
    """
    answers, scores = _first_answers(arms, rows), {arm.arm: arm for arm in arms}
    pairs: list[GradedPair] = []
    graded: dict[str, dict[str, GradedRows]] = {arm.arm: {} for arm in arms}
    for a, b in combinations(answers, 2):
        pair, rows_that_count = _pair(a, b, answers, labels, grades)
        pairs.append(pair)
        if rows_that_count is not None:
            graded[a][b], graded[b][a] = rows_that_count, rows_that_count.reversed()
    for pair in sorted(pairs, key=lambda pair: -pair.labels):
        for arm, other in ((pair.a, pair.b), (pair.b, pair.a)):
            if grades and pair.counts and ITSELF not in graded[arm]:
                graded[arm][ITSELF] = _own_grades(
                    graded[arm][other], scores[arm], answers[arm], labels, grades
                )
    return CalibratedPairs(pairs=tuple(pairs), graded=graded)


def _first_answers(arms: Sequence[ArmScores], rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    asked = {arm.arm: set(arm.questions) for arm in arms}
    answers: dict[str, dict[str, str]] = {arm.arm: {} for arm in arms}
    for row in rows:
        if row["id"] in asked.get(row["arm"], ()):
            answers[row["arm"]].setdefault(row["id"], str(row["answer"]))
    return answers


def _pair(
    a: str, b: str, answers: Mapping[str, Mapping[str, str]], labels: RunLabels, grades: AnswerGrades | None
) -> tuple[GradedPair, GradedRows | None]:
    """Return what is known of a pair of arms, and its rows where the judge's grades count."""
    of_a, of_b = answers[a], answers[b]
    known = labels.pair(of_a, of_b)
    pair = GradedPair(
        a=a,
        b=b,
        labels=known.counted,
        of=known.differing,
        least=MIN_PAIR_LABELS,
        behind_gap=known.behind_gap,
        skipped=known.skipped,
        unordered=known.unordered if labels.order.rows else 0,
    )
    if not known.rows:
        return replace(pair, missing=_too_few(pair, labels)), None
    alone = prediction_powered(known.differences({}), any_time=True)
    if known.counted:
        pair = replace(pair, by_labels=Estimate(mean=alone.difference, low=alone.low, high=alone.high))
    if grades is None:
        return pair, None
    open_rows = [
        row for row in known.rows if None in (grades.value(row, of_a[row]), grades.value(row, of_b[row]))
    ]
    informed = sum(any(grades.is_informed(row, of[row]) for of in (of_a, of_b)) for row in known.rows)
    pair = replace(
        pair,
        j=_tells_apart(known, (of_a, of_b), labels, grades),
        ungraded=len(open_rows),
        informed=informed,
    )
    if missing := _missing(pair, labels):
        return replace(pair, missing=missing), None
    predicted = {
        row: (grades.value(row, of_a[row]) or 0.0) - (grades.value(row, of_b[row]) or 0.0)
        for row in known.rows
    }
    differences = known.differences(predicted)
    powered = prediction_powered(differences, any_time=True)
    pair = replace(
        pair,
        counts=True,
        difference=Estimate(mean=powered.difference, low=powered.low, high=powered.high),
        p=powered.p,
        tuning=powered.tuning,
        more_labels_needed=labels_needed(differences, level=any_time_level()),
    )
    return pair, GradedRows(asked=known.rows, differences=differences)


def _tells_apart(
    known: PairLabels, sides: Sequence[Mapping[str, str]], labels: RunLabels, grades: AnswerGrades
) -> float | None:
    """Return Youden's J over the labelled answers of a pair; None where people found all of them right, or none."""
    rows = [
        row
        for row, label, same in zip(known.rows, known.labels, known.same, strict=True)
        if label is not None and not same
    ]
    both = [
        (labels.value(row, answers[row]), grades.value(row, answers[row]))
        for row in rows
        for answers in sides
    ]
    return _j([(label, grade) for label, grade in both if label is not None and grade is not None])


def _j(both: Sequence[tuple[float, float]]) -> float | None:
    value = youden_j([label for label, _ in both], [grade for _, grade in both]) if both else math.nan
    return None if math.isnan(value) else round(value, 4)


def _missing(pair: GradedPair, labels: RunLabels) -> str:
    """Return what keeps the grades of a pair from counting, as a clause; "" where they count."""
    if pair.labels < pair.least:
        return _too_few(pair, labels)
    if pair.j is None:
        return "people found all labelled answers right, or none, so whether the judge knows which are cannot be told"
    if pair.j < MIN_J:
        better = "hardly better" if pair.j > 0 else "no better"
        return f"the judge is {better} than chance on the labels: Youden's J {pair.j:.2f}, least {MIN_J:g}"
    if pair.informed:
        return (
            f"the judge graded {count_noun(pair.informed, 'row')} by gold that people wrote while labelling, so it knows "
            "labelled rows better than others: let the judge grade before gold is written"
        )
    if pair.ungraded:
        return f"the judge has not graded {count_noun(pair.ungraded, 'row')} yet"
    return ""


def _too_few(pair: GradedPair, labels: RunLabels) -> str:
    needed = count_noun(pair.least, "label")
    if labels.order.rows and pair.of < pair.least:
        return f"their answers differ on {count_noun(pair.of, 'row')} only, and {needed} are needed"
    text = f"{pair.labels} of {needed}"
    return f"{text} ({pair.behind_gap} more behind a gap in the order)" if pair.behind_gap else text


def _own_grades(
    rows: GradedRows, arm: ArmScores, answers: Mapping[str, str], labels: RunLabels, grades: AnswerGrades
) -> GradedRows:
    """Return an arm's own grades on the rows of a pair that counts.

    Rows on which the answers of the pair are equal were not to be labelled: they count by the score ``right``.
    """
    known = rows.differences
    right = dict(zip(arm.questions, (scores.get("right", 0.0) for scores in arm.scores), strict=True))
    same = known.same or (False,) * len(rows.asked)
    places = list(zip(rows.asked, same, known.labels, strict=True))
    own = replace(
        known,
        labels=[
            right[row] if equal else None if label is None else labels.value(row, answers[row])
            for row, equal, label in places
        ],
        predicted=[
            right[row] if equal else grades.value(row, answers[row]) or 0.0 for row, equal, _ in places
        ],
    )
    return replace(rows, differences=own)
