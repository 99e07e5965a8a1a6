"""What people's labels say: the value of a text by all people, refusals, wordings, and the difference of two arms."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from rag.evaluation.prediction_powered import prediction_powered
from runners.labels.labels import read_labels
from runners.labels.session import LabelSession
from tests.support.labelled_run import REFUSAL, RIGHT, WRONG, PlantedRun, plant_run, question_rows


@pytest.fixture
def planted(tmp_path: Path) -> PlantedRun:
    """Twelve rows, the second a wording of the first; the last two answers of hybrid refuse, three are those of rag."""
    arms: dict[str, Callable[[int], str]] = {
        "rag": lambda n: RIGHT.format(n=n),
        "hybrid": lambda n: REFUSAL if n >= 10 else (RIGHT if n in (3, 4, 5) else WRONG).format(n=n),
    }
    return plant_run(
        tmp_path, question_rows(12), arms, wording_of={"q001": "q000"}, question_weights={"q002": 2.0}
    )


def label_all(planted: PlantedRun, by: str, grade: Callable[[str], str | None]) -> None:
    """Grade every answer by a person's rule; None says at last that the question is not answerable."""
    with LabelSession.open(planted.questions, planted.run, by) as session:
        while (task := session.task()) is not None:
            values = [grade(answer) for answer in task.answers]
            for side, value in zip(("first", "second"), values, strict=True):
                if value is not None:
                    session.grade(task.key, side, value)  # type: ignore[arg-type]
            if None in values:
                session.set_answerable(task.key, False)


def test_values_are_means_over_people_and_belong_to_texts(planted: PlantedRun) -> None:
    label_all(planted, "anna", lambda answer: "wrong" if "00 berths" in answer else "right")
    label_all(planted, "bob", lambda answer: "partly")
    labels = read_labels(planted.run)
    assert [person.by for person in labels.people] == ["anna", "bob"]
    right, wrong = RIGHT.format(n=0), WRONG.format(n=0)
    assert (labels.value("q000", f" {right}\n"), labels.value("q000", wrong)) == (0.75, 0.25)
    assert labels.value("q000", "It has none.") is None
    assert labels.value("q001", right) is None
    agreement = labels.agreement()
    assert agreement is not None
    assert (agreement.people, agreement.same, agreement.both) == (2, 0, 18)


def test_an_answer_to_a_question_without_one_counts_by_refusing(planted: PlantedRun) -> None:
    label_all(planted, "anna", lambda answer: None if answer == REFUSAL else "right")
    labels = read_labels(planted.run)
    assert (labels.value("q010", REFUSAL), labels.value("q010", RIGHT.format(n=10))) == (1.0, 0.0)


def test_the_difference_of_a_pair_is_that_of_all_rows(planted: PlantedRun) -> None:
    label_all(
        planted, "anna", lambda answer: "wrong" if "00 berths" in answer or answer == REFUSAL else "right"
    )
    labels = read_labels(planted.run)
    answers: dict[str, dict[str, str]] = {"rag": {}, "hybrid": {}}
    for n in range(12):
        answers["rag"][f"q{n:03}"] = RIGHT.format(n=n)
        answers["hybrid"][f"q{n:03}"] = (
            (RIGHT if n in (3, 4, 5) else WRONG).format(n=n) if n < 10 else REFUSAL
        )
    pair = labels.pair(answers["rag"], answers["hybrid"])
    assert (pair.counted, pair.differing, len(pair.rows), pair.skipped, pair.behind_gap) == (9, 9, 12, 0, 0)
    assert dict(zip(pair.rows, pair.questions, strict=True))["q001"] == "q000"
    assert dict(zip(pair.rows, pair.weights, strict=True))["q002"] == 2.0
    assert prediction_powered(pair.differences({})).difference == pytest.approx(10 / 13)
    with LabelSession.open(planted.questions, planted.run, "anna") as session:
        assert session.undo() is not None
        task = session.task()
        assert task is not None
        session.skip(task.key)
    fewer = read_labels(planted.run).pair(answers["rag"], answers["hybrid"])
    assert (fewer.skipped, len(fewer.rows)) in ((1, 11), (2, 10))
