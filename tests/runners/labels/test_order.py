"""The order of labelling: its chances are known, so that labels drawn by priority do not bias a mean."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import fmean

import pytest

from rag.errors import BadInput
from runners.labels.labels import ORDER_FILE, read_labels, read_order, write_order
from runners.labels.order import LabelOrder, OrderedRow, RowSignals, RowStatus, make_order
from runners.labels.session import LabelSession
from tests.support.labelled_run import RIGHT, WRONG, plant_run, question_rows


def test_mean_over_the_labelled_prefix_is_unbiased() -> None:
    """Rows of high priority have other values than the rest; the plain mean of the labelled rows is far off."""
    signals = [RowSignals(id=f"q{n}", disagreement=float(n % 3 == 0), weight=1 + n % 2) for n in range(60)]
    values = {row.id: row.disagreement for row in signals}
    truth, estimates, plain = fmean(values.values()), [], []
    for seed in range(1000):
        order = make_order(signals, "run", seed)
        labelled = {row.id for row in order.rows[:20]}
        prefix = order.prefix(lambda row: "labelled" if row in labelled else "open")  # noqa: B023
        assert prefix.counted == labelled
        estimates.append(sum(values[row] / prefix.chances[row] for row in labelled) / 60)
        plain.append(fmean(values[row] for row in labelled))
    assert abs(fmean(estimates) - truth) < 0.015
    assert fmean(plain) > truth + 0.1


def test_gaps_skipped_and_equal_rows() -> None:
    order = LabelOrder(
        run="r",
        seed=0,
        rows=tuple(OrderedRow(id=f"q{n}", priority=1.0, number=(n + 1) / 10) for n in range(6)),
    )
    states: list[RowStatus] = ["labelled", "equal", "skipped", "labelled", "open", "labelled"]
    prefix = order.prefix(lambda row: states[int(row[1:])])
    assert (prefix.counted, prefix.behind_gap, prefix.skipped) == ({"q0", "q3"}, {"q5"}, 1)
    assert prefix.chances == {"q0": 0.5, "q1": 1.0, "q3": 0.5, "q4": 0.5, "q5": 0.5}
    states[4] = "labelled"
    whole = order.prefix(lambda row: states[int(row[1:])])
    assert set(whole.chances.values()) == {1.0}
    assert whole.counted == {"q0", "q3", "q4", "q5"}


def test_small_clusters_come_early_and_no_row_is_pushed_too_far() -> None:
    rows = [
        RowSignals(id=f"q{n}", group="small" if n < 2 else "large", disagreement=1.0, unsure=1.0)
        for n in range(99)
    ]
    order = make_order(rows, "run", 0)
    priorities = {row.id: row.priority for row in order.rows}
    assert (priorities["q0"], priorities["q9"]) == (4.0, 3.0)
    assert make_order(list(reversed(rows)), "run", 0) == order


def test_the_order_is_made_once_and_damage_is_said(tmp_path: Path) -> None:
    arms: dict[str, Callable[[int], str]] = {
        "rag": lambda n: RIGHT.format(n=n),
        "hybrid": lambda n: WRONG.format(n=n),
    }
    planted = plant_run(tmp_path, question_rows(9), arms)
    assert read_labels(planted.run).order.rows == ()
    with LabelSession.open(planted.questions, planted.run, "anna") as session:
        order = session.labels().order
        assert len(order.rows) == 9
        task = session.task()
        assert task is not None
        session.skip(task.key)
    path = planted.run / "trial" / "labels" / ORDER_FILE
    kept = path.read_bytes()
    with LabelSession.open(planted.questions, planted.run, "bob") as session:
        assert session.labels().order == order == read_order(planted.run, order.run)
    assert path.read_bytes() == kept
    path.write_bytes(kept.replace(b'"number": 0', b'"number": 7', 1))
    with pytest.raises(BadInput, match="damaged"):
        read_labels(planted.run)
    path.unlink()
    with pytest.raises(BadInput, match="is missing"):
        read_labels(planted.run)
    write_order(planted.run, order)
    labels = read_labels(planted.run)
    rag = {row.id: RIGHT.format(n=int(row.id[1:])) for row in order.rows}
    pair = labels.pair(rag, {**rag, "q004": "else"})
    skipped = int("q004" not in pair.rows)
    assert (pair.differing, pair.counted, pair.skipped) == (1 - skipped, 0, skipped)
    assert pair.differences({"q004": 1.0}).predicted.count(0.0) >= 7
