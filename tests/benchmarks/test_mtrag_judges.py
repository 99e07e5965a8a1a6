"""MTRAG's ratings read as labels and judges, from a file of the same form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.mtrag_judges import ASPECTS, COMPUTED, FILE, JUDGES, pair_row, read_answers, rows_drawn


def rated(*ratings: int) -> dict[str, Any]:
    """Of people whose lowest rating is as given; the other aspects have 4."""
    people: dict[str, dict[str, Any]] = {
        aspect: {f"p{n}": {"value": "4"} for n in range(len(ratings))} for aspect in ASPECTS
    }
    for n, rating in enumerate(ratings):
        people[ASPECTS[n % 3]][f"p{n}"] = {"value": str(rating)}
    scores = {name: {"composite": {"value": 0.25 * min(ratings)}} for name in (*JUDGES, COMPUTED)}
    return people | scores


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    ratings = {"one": (4, 4, 3), "two": (3, 2, 1)}
    rows = [
        {"task_id": f"c{n // 4}<::>{n}", "model_id": model, "annotations": rated(*of_model[n % 3 :], 4)}
        for model, of_model in ratings.items()
        for n in range(40)
    ]
    path = tmp_path / FILE
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"evaluations": rows}), "utf-8")
    return tmp_path


def test_labels_are_the_mean_grade_of_people(folder: Path) -> None:
    conversations, values = read_answers(folder)
    assert len(set(conversations)) == 10
    assert values["one"][0][:3] == pytest.approx([(1 + 1 + 0.5 + 1) / 4, (1 + 0.5 + 1) / 3, (0.5 + 1) / 2])
    assert values["two"][0][0] == pytest.approx((0.5 + 1) / 4)
    rows, sources = rows_drawn(np.random.default_rng(1), conversations)
    assert len(rows) == len(sources) == 40
    assert len(set(sources)) == 10


def test_a_pair_is_compared(folder: Path) -> None:
    conversations, values = read_answers(folder)
    row = pair_row((values["one"], values["two"]), 1, 30, conversations, 20, fixed=True)
    assert row["coverage"] > 0.8
    assert row["width"] > 0
