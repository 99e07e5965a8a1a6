"""Which pairs of arms a judge may decide: by labels of each pair, counted in the order of labelling, and by Youden's J."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from runners.judging.calibration import (
    MIN_PAIR_LABELS,
    CalibratedPairs,
    calibrate_pairs,
    rule_against_people,
)
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


def grades_of(run: Path, judged: Callable[[str, str], str]) -> AnswerGrades:
    """Return the grades of a judge of arm and answer."""
    rows = read_journal(run / "trial" / "answers.jsonl")
    return AnswerGrades(
        grades={(row["id"], answer_digest(row["answer"])): judged(row["arm"], row["answer"]) for row in rows}
    )


def honest(arm: str, answer: str) -> str:
    return "right" if is_right(answer) else "wrong"


def arms_of(run: Path) -> list[ArmScores]:
    """Return the scores, with right answers in place of what the planted file leaves out."""
    rows = read_journal(run / "trial" / "answers.jsonl")
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
    rows = read_journal(planted.run / "trial" / "answers.jsonl")
    return calibrate_pairs(arms_of(planted.run), rows, read_labels(planted.run), grades)


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
    of_one_arm = pair(
        calibrated(planted, grades_of(planted.run, lambda arm, answer: "right")), first.a, first.b
    )
    assert of_one_arm.j == 0.0


def test_rows_that_do_not_count_are_said(planted: PlantedRun) -> None:
    """Labels behind an open row of the order wait for it; skipped rows are no part of the difference."""
    one = GradedPair(a="rag", b="hybrid", labels=3, of=20, least=30, behind_gap=2, skipped=1)
    assert one.left_out == (
        "rag against hybrid, not counted: 2 labelled rows behind a gap in the order of labelling, 1 row skipped."
    )
    assert GradedPair(a="rag", b="hybrid", labels=3, of=20, least=30).left_out == ""
    with LabelSession.open(planted.questions, planted.run, "anna") as session:
        task = session.task()
        assert task is not None
        session.skip(task.key)
    assert any(pair.skipped for pair in calibrated(planted, None).pairs)


def test_how_people_grade_what_the_rule_calls_right(tmp_path: Path) -> None:
    """The computed score calls every answer with a number right; people do not, and every different answer counts once."""
    planted = plant_run(tmp_path, question_rows(12), ARMS)
    with LabelSession.open(planted.questions, planted.run, "anna") as session:
        graded: dict[str, str] = {}
        while len(graded) < 8 and (task := session.task()):
            for side, answer in zip(("first", "second"), task.answers, strict=False):
                grade = "right" if is_right(answer) else "partly" if "300" in answer else "wrong"
                session.grade(task.key, side, grade)  # type: ignore[arg-type]
                graded[f"{task.question} {answer}"] = grade
    lenient = [
        replace(arm, scores=tuple({"right": 1.0} for _ in arm.questions)) for arm in arms_of(planted.run)
    ]
    rows = read_journal(planted.run / "trial" / "answers.jsonl")
    found = rule_against_people(lenient, rows, read_labels(planted.run))
    assert found is not None
    counts = Counter(graded.values())
    assert found.right == (counts["right"], counts["partly"], counts["wrong"])
    assert sum(found.not_right) == 0
    assert f"people call {counts['right']} right, {counts['partly']} partly" in found.text
    assert (
        rule_against_people(lenient, rows, read_labels(plant_run(tmp_path / "b", question_rows(3), ARMS).run))
        is None
    )
