"""A difference estimated from labels of some rows and a judge's grades of all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

import numpy as np
import pytest
from scipy import stats

from rag.evaluation.prediction_powered import (
    GRADE_STEP,
    LOOKS,
    LabelledDifferences,
    any_time_level,
    label_chances,
    labels_needed,
    prediction_powered,
    priority_order,
    youden_j,
)
from rag.evaluation.statistics import paired_test

COUNT = 200


def planted(labelled: int = 40, lead: float = 0.0) -> LabelledDifferences:
    """Grades that differ in a regular way; the judge has a third of the rows wrong."""
    rows = np.arange(COUNT)
    people = np.clip(((rows * 7) % 5 - 2) / 2 + lead, -1, 1)
    judge = np.where(rows % 3 == 0, ((rows * 11) % 5 - 2) / 2, people)
    known = (rows * 37) % COUNT < labelled
    return LabelledDifferences(
        labels=[float(y) if is_known else None for y, is_known in zip(people, known, strict=True)],
        predicted=judge.tolist(),
        chances=[labelled / COUNT] * COUNT,
        questions=[f"q{n}" for n in rows],
        sources=[None] * COUNT,
        weights=[1.0] * COUNT,
    )


def known_labels(rows: LabelledDifferences) -> list[float]:
    return [label for label in rows.labels if label is not None]


def test_agrees_with_the_library() -> None:
    """Figures of ppi-python 0.2.3 (benchmarks/ppi_library.py), at our tuning and by its own; ours is for few labels."""
    found = prediction_powered(planted())
    share = 1 - 40 / COUNT  # the library has the judge on the other rows, ours on all
    assert found.tuning * share == pytest.approx(0.7)
    assert found.difference == pytest.approx(0.004374999999999991, abs=1e-12)
    assert found.tuning * share == pytest.approx(0.69653483, abs=0.01)
    low, high = -0.13205535159744572, 0.14076203693171244
    assert found.low < low
    assert found.high > high
    assert found.width < 1.1 * (high - low)
    assert high - low < found.alone < 1.1 * 2 * 0.21913063514414538


def test_looking_at_any_time_divides_the_level_until_all_rows_are_labelled() -> None:
    once, often = prediction_powered(planted(lead=0.3)), prediction_powered(planted(lead=0.3), any_time=True)
    assert often.p == pytest.approx(min(1.0, LOOKS * once.p))
    assert prediction_powered(planted(lead=0.3), level=any_time_level()).width == pytest.approx(often.width)
    assert often.error == pytest.approx(
        once.error * stats.norm.ppf(1 - 0.025 / LOOKS) / stats.norm.ppf(0.975)
    )
    assert prediction_powered(planted(COUNT), any_time=True) == prediction_powered(planted(COUNT))


def test_labels_alone_by_hand() -> None:
    rows = replace(planted(), predicted=[0.0] * COUNT)
    labels, found = np.array(known_labels(rows)), prediction_powered(rows)
    assert found.difference == pytest.approx(labels.mean())
    assert (found.tuning, found.labels, found.questions, found.units) == (0.0, 40, COUNT, COUNT)
    # each label's residual from the mean of the others, and one more label that is off by a grade
    spread = labels - labels.mean()
    values = np.zeros(COUNT)
    values[:40] = spread * 40 / 39 * COUNT / 40
    one_more = GRADE_STEP / 40 * np.sqrt(1 - 40 / COUNT)
    error = np.hypot(np.sqrt((values**2).sum() / (COUNT * (COUNT - 1))), one_more)
    assert found.error == pytest.approx(error)
    assert found.high - found.difference == pytest.approx(stats.t.ppf(0.975, 39) * error)
    assert found.p == pytest.approx(2 * stats.t.sf(abs(labels.mean()) / error, 39))
    assert found.width == pytest.approx(found.alone)


@pytest.mark.parametrize("documents", [None, 12, 4])
@pytest.mark.parametrize("weights", [(), (1.0, 2.0, 4.0, 1.0)])
def test_all_rows_labelled_is_the_paired_difference(documents: int | None, weights: Sequence[float]) -> None:
    rows = planted(COUNT)
    sources = [f"d{n % documents}" if documents else None for n in range(COUNT)]
    of_rows = [weights[n % 4] for n in range(COUNT)] if weights else [1.0] * COUNT
    rows = replace(rows, chances=[1.0] * COUNT, sources=sources, weights=of_rows)
    labels = known_labels(rows)
    pair = paired_test("a", "b", labels, [0.0] * COUNT, documents=sources, weights=of_rows if weights else ())
    found = prediction_powered(rows).paired("a", "b")
    assert found.difference == pytest.approx(pair.difference)
    assert (found.a, found.b, found.questions, found.units) == ("a", "b", COUNT, pair.units)
    if weights:
        assert 0.5 * pair.error < found.error < 1.05 * pair.error
    else:
        assert found.error == pytest.approx(pair.error)


def test_a_judge_that_favours_an_arm_changes_nothing() -> None:
    """What a judge adds to an arm on every row is taken off again by the labels of this pair."""
    rows = planted()
    favoured = replace(rows, predicted=[value + 0.4 for value in rows.predicted])
    found, shifted = prediction_powered(rows), prediction_powered(favoured)
    assert (shifted.difference, shifted.low, shifted.high) == pytest.approx(
        (found.difference, found.low, found.high)
    )


def test_tuning_is_cut() -> None:
    rows = planted()
    against = replace(rows, predicted=[-value for value in rows.predicted])
    assert prediction_powered(against).tuning == 0.0
    assert prediction_powered(against).difference == pytest.approx(fmean(known_labels(rows)))
    timid = replace(rows, predicted=[value / 4 for value in rows.predicted])
    assert prediction_powered(timid).tuning == 1.0


def test_equal_answers_need_no_label() -> None:
    """Rows that are known to be equal make the difference smaller, and are not counted as labels."""
    rows = planted()
    equal = 100
    more = replace(
        rows,
        labels=[*rows.labels, *[0.0] * equal],
        predicted=[*rows.predicted, *[0.0] * equal],
        chances=[*rows.chances, *[1.0] * equal],
        questions=[*rows.questions, *(f"e{n}" for n in range(equal))],
        sources=[None] * (COUNT + equal),
        weights=[1.0] * (COUNT + equal),
        same=[False] * COUNT + [True] * equal,
    )
    found, without = prediction_powered(more), prediction_powered(rows)
    assert found.labels == without.labels == 40
    assert found.difference == pytest.approx(without.difference * COUNT / (COUNT + equal))
    assert found.width < 0.8 * without.width


def test_wordings_and_documents_are_units() -> None:
    rows = planted(100)
    wordings = replace(rows, questions=[f"q{n // 2}" for n in range(COUNT)])
    assert prediction_powered(wordings).questions == 100
    assert prediction_powered(wordings).units == 100
    in_documents = replace(rows, sources=[f"d{n // 10}" for n in range(COUNT)])
    assert prediction_powered(in_documents).units == 20
    in_two = replace(rows, sources=[f"d{n % 2}" for n in range(COUNT)])
    assert prediction_powered(in_two).p == 1.0


def test_labels_drawn_by_importance_do_not_bias() -> None:
    """Rows on which the first arm is better come first; the labelled rows' own mean is far off."""
    draw = np.random.default_rng(5)
    people = draw.choice([-1.0, 0.0, 1.0], COUNT)
    priorities = (1 + 3 * (people > 0)).tolist()
    estimates, means = [], []
    for _ in range(400):
        numbers = (1 - draw.random(COUNT)).tolist()
        labelled = [False] * COUNT
        for row in priority_order(priorities, numbers)[:50]:
            labelled[row] = True
        chances, counts = label_chances(priorities, numbers, labelled)
        assert counts == labelled
        rows = replace(
            planted(),
            labels=[float(y) if known else None for y, known in zip(people, labelled, strict=True)],
            predicted=[0.0] * COUNT,
            chances=chances,
        )
        estimates.append(prediction_powered(rows).difference)
        means.append(fmean(known_labels(rows)))
    assert fmean(estimates) == pytest.approx(people.mean(), abs=0.02)
    assert fmean(means) > people.mean() + 0.3


def test_chances_of_the_labelled_rows() -> None:
    priorities, numbers = [1.0, 2.0, 1.0, 4.0], [0.9, 0.4, 0.1, 0.6]
    assert priority_order(priorities, numbers) == [2, 3, 1, 0]
    # rows 2 and 3 are before row 1, whose rank is .2; row 0 is behind that gap
    assert label_chances(priorities, numbers, [True, False, True, True]) == (
        pytest.approx([0.2, 0.4, 0.2, 0.8]),
        [False, False, True, True],
    )
    assert label_chances(priorities, numbers, [True] * 4) == ([1.0] * 4, [True] * 4)
    assert label_chances([], [], []) == ([], [])


def test_too_few_labels_say_nothing() -> None:
    found = prediction_powered(planted(2))
    assert (found.low, found.high, found.p, found.labels) == (-1.0, 1.0, 1.0, 2)
    assert labels_needed(planted(2)) is None


def test_labels_that_are_needed() -> None:
    decided = planted(60, lead=0.5)
    assert prediction_powered(decided).low > 0
    assert labels_needed(decided) == 0
    assert labels_needed(planted(COUNT)) is None
    assert labels_needed(planted(40)) is None
    small, large = (labels_needed(planted(10, lead=lead)) for lead in (0.2, 0.25))
    assert small is not None
    assert large is not None
    assert 0 < large < small <= COUNT - 10
    assert labels_needed(planted(60, lead=0.5), above=0.3) != 0


def test_youden_j_of_a_judge() -> None:
    people = [1.0, 1.0, 1.0, 0.75, 0.5, 0.5, 0.0, 0.0]
    assert youden_j(people, people) == 1.0
    assert youden_j(people, [1.0] * 8) == 0.0
    assert youden_j(people, [1.0, 1.0, 0.5, 0.0, 1.0, 0.5, 0.0, 0.0]) == pytest.approx(0.5 - 0.25)
    assert np.isnan(youden_j([1.0, 1.0], [1.0, 0.0]))
    with pytest.raises(ValueError, match="2 labels for 1 grade"):
        youden_j([1.0, 0.0], [1.0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": [1.0]}, "other entries"),
        ({"chances": [0.0] * COUNT}, "above 0"),
        ({"chances": [1.0] * COUNT}, "has no label"),
    ],
)
def test_damaged_rows_are_refused(change: dict[str, list[float]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        prediction_powered(replace(planted(), **change))  # type: ignore[arg-type]
