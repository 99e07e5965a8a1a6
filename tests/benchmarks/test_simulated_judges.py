"""The simulation of judges that count: its kinds of trials, and that a short run of it holds what the long one shows."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.simulated_judges import (
    PARTS,
    Cell,
    looks_row,
    measured,
    needed_row,
    reversal_row,
    simulated_trial,
)


def test_trials_have_what_their_kind_says() -> None:
    trial = simulated_trial(np.random.default_rng(1), Cell(documents=8, wordings=2, same=0.5, accuracy=0.9))
    assert trial.people.shape == trial.judge.shape == (2, 400)
    assert len(set(trial.questions)) == 200
    assert len(set(trial.sources)) == 8
    assert (trial.people[0] == trial.people[1])[trial.same].all()
    assert 0.85 < (trial.people == trial.judge).mean() < 0.95
    rows = trial.rows(60)
    labelled = np.array([label is not None for label in rows.labels])
    assert labelled[trial.same].all()
    assert labelled[~trial.same].sum() == 60


@pytest.mark.parametrize(
    "cell", [Cell(labels=30), Cell(bias="arm", weighted=True), Cell(lift=0.7, documents=20)]
)
def test_intervals_hold_the_truth(cell: Cell) -> None:
    row = measured(cell, 200, 7)
    assert row["coverage"] > 0.9
    assert abs(row["off"]) < 0.03


def test_one_calibration_turns_the_sign_and_ours_does_not() -> None:
    row = reversal_row(Cell(accuracy=0.85, bias="arm", lift=-0.6), 60, 7)
    assert row["true"] < 0
    assert row["one: above"] > 0.5
    assert row["ours: surely"] == 0


def test_rows_of_labelling_until_it_is_decided() -> None:
    looks = looks_row(Cell(labels=60), 20, 7)
    assert looks["once"]["apart"] <= looks["every ten"]["apart"] <= looks["every five from ten"]["apart"]
    assert len(needed_row(Cell(lift=1.0, labels=30), 40, 7)["named"]) == 3


def test_every_part_has_cells() -> None:
    assert all(list(cells()) for _, cells, _ in PARTS.values())
