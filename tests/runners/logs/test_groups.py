"""Clusters, samples whose weights are the log's, the comparison with other questions, and vectors that are kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from runners.logs.comparison import compare_with_log, energy_test
from runners.logs.distinct import DistinctQuestion
from runners.logs.groups import (
    group_count,
    group_questions,
    rows_by_group,
    sample_by_frequency,
    select_questions,
)
from runners.logs.log_import import BLOCK, embed_in_blocks

RNG = np.random.default_rng(0)
TOPICS = 6


def topics(count: int, only: Sequence[int] = tuple(range(TOPICS))) -> np.ndarray:
    """Return unit vectors near to axes, of which each is a topic."""
    axes = np.eye(16)[[only[n % len(only)] for n in range(count)]]
    vectors = axes + RNG.normal(0, 0.08, (count, 16))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def test_every_cluster_is_represented_and_weights_add_up() -> None:
    asked = [1_000.0 if n % TOPICS == 0 else 1.0 for n in range(120)]
    groups = group_questions(topics(120), asked, TOPICS)
    assert groups.count == TOPICS
    assert groups.shares[0] > 0.9, "the cluster that is asked most is first"
    chosen = select_questions(
        [DistinctQuestion(text=str(n), asked=times) for n, times in enumerate(asked)], groups, 20
    )
    assert len(chosen) == 20
    assert {int(groups.of[n]) for n, _ in chosen} == set(range(TOPICS))
    assert sum(weight for _, weight in chosen) == pytest.approx(sum(asked))
    assert sum(rows_by_group(groups, 20)) == 20
    assert rows_by_group(groups, 500) == [20] * TOPICS, "no more rows than questions"


def test_weighted_means_of_samples_are_those_of_the_log() -> None:
    asked = 1_000 / np.arange(1, 201)
    right = (np.arange(200) % 3 == 0).astype(float)
    truth = float((asked * right).sum() / asked.sum())
    means = []
    for seed in range(400):
        weights = sample_by_frequency(asked.tolist(), 30, seed)
        assert len(weights) == 30
        assert sum(weights.values()) == pytest.approx(asked.sum())
        means.append(sum(right[n] * weight for n, weight in weights.items()) / asked.sum())
    assert np.mean(means) == pytest.approx(truth, abs=3 * np.std(means) / 20)
    assert sample_by_frequency([3.0, 1.0], 5) == {0: 3.0, 1: 1.0}


def test_the_number_of_clusters() -> None:
    assert [group_count(n, 100) for n in (1, 3, 50, 1_000, 50_000)] == [1, 1, 5, 22, 50]
    assert group_count(50_000, 1) == 1
    assert group_questions(np.ones((4, 3), dtype=np.float32), [1.0] * 4, 3).count == 1, "equal vectors"


def test_a_log_of_other_questions_differs_and_one_of_the_same_does_not() -> None:
    log = topics(300)
    groups = group_questions(log, [1.0] * 300, TOPICS)
    same, other = compare_with_log(log, groups, topics(60)), compare_with_log(log, groups, topics(60, (0, 1)))
    assert not same.differs
    assert same.missed == ()
    assert other.differs
    assert len(other.missed) == TOPICS - 2
    assert other.missed_share == pytest.approx(4 / 6, abs=0.01)
    assert compare_with_log(log, groups, topics(40, (9,))).outside == 40
    few = compare_with_log(log, groups, topics(3))
    assert few.p is None
    assert few.distance is None


def test_the_test_keeps_its_level() -> None:
    def drawn(count: int) -> np.ndarray:
        return topics(count, RNG.integers(0, TOPICS, count).tolist())

    chances = [energy_test(drawn(30), drawn(20), np.random.default_rng(n))[1] for n in range(60)]
    assert np.mean(np.array(chances) <= 0.05) <= 0.15
    assert 0.3 < np.mean(chances) < 0.7


class CountingEncoder:
    """Gives each text the vector of its length, and counts the texts."""

    fingerprint = "counting"

    def __init__(self) -> None:
        self.texts = 0

    def encode(self, texts: Sequence[str], *, query: bool = False) -> np.ndarray:
        self.texts += len(texts)
        return np.array([[len(text), 1.0] for text in texts], dtype=np.float32)


def test_an_import_that_is_started_again_embeds_only_what_is_missing(tmp_path: Path) -> None:
    texts = ["x" * (n % 7) for n in range(2 * BLOCK + 10)]
    encoder = CountingEncoder()
    first = embed_in_blocks(encoder, texts, tmp_path)
    paths = sorted(tmp_path.glob("vectors-*.npy"))
    assert len(paths) == 3
    paths[0].write_bytes(paths[0].read_bytes()[:50])  # torn
    again = CountingEncoder()
    assert (embed_in_blocks(again, texts, tmp_path) == first).all()
    assert again.texts in (BLOCK, 10)
