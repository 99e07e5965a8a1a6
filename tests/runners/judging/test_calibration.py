"""Which pairs of arms a judge may decide: by labels of each pair, counted in the order of labelling, and by Youden's J."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runners.judging.calibration import MIN_PAIR_LABELS, CalibratedPairs, calibrate_pairs
from runners.judging.grades import AnswerGrades
from runners.labels.labels import answer_digest, read_labels
from runners.labels.session import LabelSession
from runners.report.arm_scores import ITSELF, ArmScores
from runners.report.graded import GradedPair
from runners.run_folder import read_journal
from tests.support.labelled_run import RIGHT, WRONG, PlantedRun, plant_run, question_rows

ROWS = 60
ARMS: dict[str, Callable[[int], str]] = {
    "rag": lambda n: RIGHT.format(n=n),
    "hybrid": lambda n: (WRONG if n % 3 == 0 else "{n} berths, I think.").format(n=n),
    "prompting": lambda n: (WRONG if n % 4 else RIGHT).format(n=n),
}


def is_right(answer: str) -> bool:
    return "00 berths" not in answer


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> PlantedRun:
    """A run that two arms of three differ in on every row."""
    return plant_run(tmp_path_factory.mktemp("labels"), question_rows(ROWS), ARMS)


def rows_of(run: Path) -> list[dict[str, Any]]:
    return read_journal(run / "trial" / "answers.jsonl")


def grades_of(run: Path, judged: Callable[[str, str], str]) -> AnswerGrades:
    """Return the grades of a judge of arm and answer."""
    return AnswerGrades(
        grades={
            (row["id"], answer_digest(row["answer"])): judged(row["arm"], row["answer"])
            for row in rows_of(run)
        }
    )


def honest(arm: str, answer: str) -> str:
    return "right" if is_right(answer) else "wrong"


def arms_of(run: Path) -> list[ArmScores]:
    """Return the scores, with right answers in place of what the planted file leaves out."""
    rows = rows_of(run)
    ids = tuple(dict.fromkeys(row["id"] for row in rows))
    count = len(ids)
    right = {(row["arm"], row["id"]): float(is_right(row["answer"])) for row in rows}
    return [
        ArmScores(
            name,
            ids,
            tuple({"right": right[name, id]} for id in ids),
            tuple(right[name, id] for id in ids),
            *((0.1,) * count, (1,) * count, (1,) * count),
        )
        for name in ARMS
    ]


def calibrated(planted: PlantedRun, grades: AnswerGrades | None) -> CalibratedPairs:
    return calibrate_pairs(arms_of(planted.run), rows_of(planted.run), read_labels(planted.run), grades)


def pair(result: CalibratedPairs, a: str, b: str) -> GradedPair:
    return next(one for one in result.pairs if (one.a, one.b) == (a, b))


def test_before_labels_nothing_counts(planted: PlantedRun) -> None:
    result = calibrated(planted, grades_of(planted.run, honest))
    assert [one.missing for one in result.pairs] == ["0 of 30 labels"] * 3
    assert all(one.by_labels is None and not one.counts for one in result.pairs)
    assert not any(result.graded.values())


def test_each_pair_counts_by_its_own_labels(planted: PlantedRun) -> None:
    """Labels of one pair are shared with others where these have the same answers, and never count for answers not seen."""
    with LabelSession.open(planted.questions, planted.run, "anna") as session:
        for _ in range(36):
            task = session.task()
            assert task is not None
            for side, answer in zip(("first", "second"), task.answers, strict=False):
                session.grade(task.key, side, "right" if is_right(answer) else "wrong")  # type: ignore[arg-type]
    result = calibrated(planted, grades_of(planted.run, honest))
    counting = [one for one in result.pairs if one.counts]
    assert counting
    for one in result.pairs:
        assert one.counts == (one.labels >= MIN_PAIR_LABELS)
        assert bool(one.missing) != one.counts
        assert (one.b in result.graded[one.a]) == (one.a in result.graded[one.b]) == one.counts
    first = counting[0]
    assert first.j == 1.0
    assert first.difference is not None
    assert first.by_labels is not None
    assert first.difference.high - first.difference.low <= first.by_labels.high - first.by_labels.low + 1e-9
    assert ITSELF in result.graded[first.a]
    for arm, mean in result.mean_grades.items():
        truth = sum(is_right(ARMS[arm](n)) for n in range(ROWS)) / ROWS
        assert mean.low <= truth <= mean.high
    without = calibrated(planted, None)
    assert [one.missing for one in without.pairs] == [""] * 3
    assert pair(without, first.a, first.b).by_labels == first.by_labels
    assert not any(without.graded.values())


def test_judges_below_chance_or_unfinished_do_not_count(planted: PlantedRun) -> None:
    first = next(one for one in calibrated(planted, grades_of(planted.run, honest)).pairs if one.counts)
    worse = pair(
        calibrated(
            planted, grades_of(planted.run, lambda arm, answer: "wrong" if is_right(answer) else "right")
        ),
        first.a,
        first.b,
    )
    assert (worse.counts, worse.j) == (False, -1.0)
    assert worse.missing.startswith("the judge is no better than chance on the labels: Youden's J -1.00")
    every = grades_of(planted.run, honest)
    some = AnswerGrades(
        grades={key: grade for key, grade in every.grades.items() if key[0] not in ("q001", "q002")}
    )
    unfinished = calibrated(planted, some)
    assert any(one.missing.startswith("the judge has not graded") for one in unfinished.pairs)
    digests = {(row["id"], answer_digest(row["answer"])): row for row in rows_of(planted.run)}
    always_right = AnswerGrades(
        grades={key: honest("", row["answer"]) for key, row in digests.items() if key[0] < "q020"},
        by_rule=frozenset(key for key in digests if key[0] < "q020"),
        thrown_away={key: "right" for key in digests if key[0] >= "q020"},
    )
    with_rules = pair(calibrated(planted, always_right), first.a, first.b)
    assert (with_rules.counts, with_rules.j) == (False, 0.0)
    of_one_arm = pair(
        calibrated(planted, grades_of(planted.run, lambda arm, answer: "right")), first.a, first.b
    )
    assert of_one_arm.j == 0.0
