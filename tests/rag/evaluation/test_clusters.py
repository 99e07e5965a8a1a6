"""Questions of one document are drawn, flipped and counted together; several tests are corrected together."""

from __future__ import annotations

import random

import numpy as np
import pytest
from scipy import stats

from rag.evaluation.clusters import MIN_CLUSTERS, cluster_by_document, mean_by_question
from rag.evaluation.statistics import bootstrap_interval, holm_correction, paired_test


def documents(count: int, questions_each: int) -> list[str]:
    return [f"d{n // questions_each}.md" for n in range(count * questions_each)]


def test_cluster_by_document_groups_questions() -> None:
    clusters = cluster_by_document(["a", "b", None, "a", "c", None, "d", "e"])
    assert clusters.index.tolist() == [0, 1, 2, 0, 3, 4, 5, 6]
    assert (clusters.documents, clusters.units, clusters.single, clusters.by_document) == (7, 7, False, True)
    assert cluster_by_document(["a", None, "b"]).single
    assert cluster_by_document([]).units == 0


def test_cluster_by_document_keeps_odd_names_apart() -> None:
    assert cluster_by_document(["#1", None, ""]).documents == 3


@pytest.mark.parametrize("names", [["a"] * 40, documents(2, 5), ["a"] * 50 + documents(10, 1)])
def test_two_documents_say_nothing_about_others(names: list[str]) -> None:
    clusters = cluster_by_document(names)
    assert clusters.single
    assert not clusters.by_document
    assert clusters.units == len(names)
    ones, none = [1.0] * len(names), [0.0] * len(names)
    assert paired_test("a", "b", ones, none, documents=names).p == 1
    assert paired_test("a", "b", ones, none, documents=[None] * len(names)).p < 0.01


@pytest.mark.parametrize(("count", "each"), [(3, 12), (5, 12), (9, 4)])
def test_few_documents_have_the_interval_of_student(count: int, each: int) -> None:
    """By hand: the mean of the documents' means and their standard error, with one degree of freedom less."""
    draw = np.random.default_rng(count)
    values = np.repeat(draw.normal(0, 0.1, count), each) + draw.normal(0, 0.1, count * each)
    names = documents(count, each)
    means = values.reshape(count, each).mean(axis=1)
    error = means.std(ddof=1) / count**0.5
    half = stats.t.ppf(0.975, count - 1) * error
    interval = bootstrap_interval(values.tolist(), documents=names)
    assert (interval.low, interval.high) == pytest.approx((means.mean() - half, means.mean() + half))
    pair = paired_test("a", "b", values.tolist(), [0.0] * len(values), documents=names)
    assert (pair.units, pair.error) == (count, pytest.approx(error))
    if count < MIN_CLUSTERS:
        assert pair.p == pytest.approx(stats.ttest_1samp(means, 0.0).pvalue)


def test_documents_whose_means_agree_by_luck_are_no_certainty() -> None:
    """Never narrower than single questions would be."""
    draw = np.random.default_rng(3)
    values = np.tile(draw.permutation(np.repeat([1.0, 0.0, -1.0], (5, 4, 3))), 3).tolist()
    interval = bootstrap_interval(values, documents=documents(3, 12))
    alone = bootstrap_interval(values)
    assert interval.high - interval.low > 1.5 * (alone.high - alone.low)


def test_single_question_clusters_equal_no_clusters() -> None:
    draw = np.random.default_rng(1)
    for count in (1, 5, 40):
        a, b = draw.random(count).tolist(), draw.random(count).round(1).tolist()
        names = [f"{n}.md" for n in range(count)]
        assert repr(paired_test("a", "b", a, b, 3)) == repr(paired_test("a", "b", a, b, 3, names))
        assert (
            bootstrap_interval(a, 2)
            == bootstrap_interval(a, 2, documents=names)
            == bootstrap_interval(a, 2, documents=[None] * count)
        )


def test_paired_test_ignores_document_names() -> None:
    draw = random.Random(3)
    rows = [(draw.random(), draw.random(), name) for name in documents(9, 4)]
    a, b, names = zip(*rows, strict=True)
    renamed = [f"x{n}" for n in names]
    assert paired_test("a", "b", a, b, documents=names) == paired_test("a", "b", a, b, documents=renamed)


def test_repeated_questions_do_not_narrow_the_interval() -> None:
    """Four copies of each question as one document each: the standard error stays the same."""
    draw = random.Random(5)
    a, b = [draw.random() for _ in range(30)], [draw.random() for _ in range(30)]
    once = paired_test("a", "b", a, b)
    four = paired_test(
        "a", "b", np.repeat(a, 4).tolist(), np.repeat(b, 4).tolist(), documents=documents(30, 4)
    )
    blind = paired_test("a", "b", np.repeat(a, 4).tolist(), np.repeat(b, 4).tolist())
    assert four.difference == pytest.approx(once.difference)
    assert four.p == pytest.approx(once.p, abs=0.02)
    assert four.error == pytest.approx(once.error)
    assert (four.questions, four.units) == (120, 30)
    assert four.high - four.low >= once.high - once.low
    assert blind.high - blind.low < 0.6 * (once.high - once.low)


def test_clustered_interval_coverage() -> None:
    draw = np.random.default_rng(7)
    names, inside, blind = documents(12, 4), 0, 0
    for trial in range(200):
        values = (0.5 + np.repeat(draw.normal(0, 0.2, 12), 4) + draw.normal(0, 0.2, 48)).tolist()
        interval = bootstrap_interval(values, trial, 800, names)
        alone = bootstrap_interval(values, trial, 800)
        inside += interval.low <= 0.5 <= interval.high
        blind += alone.low <= 0.5 <= alone.high
    assert 180 <= inside <= 199  # 95 % of 200 is 190, give or take three standard errors
    assert blind < 165  # what it would be if documents did not count


def test_equal_document_means_keep_the_interval_wide() -> None:
    values = [0.0, 1.0] * 10
    interval = bootstrap_interval(values, documents=documents(10, 2))
    assert interval.low < interval.mean < interval.high


def test_paired_test_of_a_nonzero_difference() -> None:
    b = [n / 40 for n in range(40)]
    a = [x + 0.1 + (n % 5 - 2) / 20 for n, x in enumerate(b)]
    assert paired_test("a", "b", a, b).p < 0.001
    assert paired_test("a", "b", a, b, above=0.1).p > 0.9
    assert paired_test("a", "b", a, b, above=0.5).p < 0.001


def test_interval_rejects_wrong_number_of_documents() -> None:
    with pytest.raises(ValueError, match="2 values of 1 document"):
        bootstrap_interval([0.0, 1.0], documents=["a"])


@pytest.mark.parametrize(
    ("given", "adjusted"),
    [
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),  # the worked example of R's p.adjust
        ([0.5, 0.9], [1.0, 1.0]),
        ([0.02], [0.02]),
        ([], []),
    ],
)
def test_holm_correction(given: list[float], adjusted: list[float]) -> None:
    assert holm_correction(given) == pytest.approx(adjusted)


def test_values_of_a_questions_wordings_are_one_value() -> None:
    assert mean_by_question([0.1, 0.2], ["a", "b"]) == [0.1, 0.2]
    assert mean_by_question([1.0, 0.0, 0.0, 0.0], ["a", "a", "b", "b"]) == [0.5, 0.0]
    unequal = mean_by_question([1.0, 1.0, 1.0, 0.0], ["a", "a", "a", "b"])
    assert sum(unequal) / 2 == pytest.approx(0.75)
    assert mean_by_question([], []) == []
