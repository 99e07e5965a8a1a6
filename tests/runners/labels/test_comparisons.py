"""What is asked next and what is said of it: rows kept for who sees them, few comparisons, forecasts, gold of the file."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rag.files import write_json
from runners.labels.gold import gold_changes
from runners.labels.journal import SHOWN_SECONDS, shown_rows
from runners.labels.labels import PairLabels, read_labels
from runners.labels.pair_progress import ENOUGH_LABELS, STATED_FROM, pair_progress
from runners.labels.records import LabelTask, Side
from runners.labels.run_answers import BEST_OTHERS, match_questions, read_run_answers
from runners.labels.session import ASKED_OF_ALL, LabelSession
from tests.support.labelled_run import REFUSAL, RIGHT, WRONG, PlantedRun, plant_run, question_rows

ARMS: dict[str, Callable[[int], str]] = {
    "rag": lambda n: RIGHT.format(n=n),
    "hybrid": lambda n: WRONG.format(n=n),
}


def graded(session: LabelSession, task: LabelTask | None) -> LabelTask:
    """Call the first answer of a task right and the second one wrong."""
    assert task is not None
    session.grade(task.key, "first", "right")
    return session.grade(task.key, "second", "wrong")


def pair_labels(counted: int, of: int, behind_gap: int = 0, each: float = 0.0) -> PairLabels:
    """Return labels of a pair: so many differ by ``each``, every fourth by nothing."""
    labels = [each if n % 4 else 0.0 for n in range(counted)]
    every = counted == of
    return PairLabels(
        rows=tuple(f"q{n}" for n in range(of)),
        labels=(*labels, *[None] * (of - counted)),
        chances=(1.0 if every else counted / of,) * of,
        same=(False,) * of,
        questions=tuple(f"q{n}" for n in range(of)),
        sources=(None,) * of,
        weights=(1.0,) * of,
        counted=counted,
        behind_gap=behind_gap,
        skipped=0,
        unordered=0,
    )


def test_a_row_is_asked_of_nobody_else_while_somebody_sees_it(tmp_path: Path) -> None:
    planted = plant_run(tmp_path, question_rows(30), ARMS)
    with LabelSession.open(planted.questions, planted.run, "anna") as anna:
        for _ in range(ASKED_OF_ALL):
            graded(anna, anna.task())
        seen = anna.task()
        assert seen is not None
        with LabelSession.open(planted.questions, planted.run, "bob") as bob:
            for _ in range(ASKED_OF_ALL):
                task = bob.task()
                assert "asked of everybody" in graded(bob, task).note
            for labelled in range(5):  # quicker than anna: one row is open in front of all of them
                task = bob.task()
                assert task is not None
                assert task.question != seen.question
                assert bob.progress().pair.behind_gap == labelled
                graded(bob, task)
            pair = bob.progress().pair
            assert (pair.labels, pair.behind_gap) == (ASKED_OF_ALL, 5)
            assert pair.state.endswith(
                "5 more labels count once the question in front of them is labelled by anna"
            )
            assert anna.progress().pair.state.endswith("is labelled by you")
            assert anna.task() == seen
            row = planted.run / "trial" / "labels" / ".anna" / "row"
            left_alone = time.time() - SHOWN_SECONDS - 1
            os.utime(row, (left_alone, left_alone))
            taken = bob.task()
            assert taken is not None
            assert taken.question == seen.question
            anna.grade(seen.key, "first", "right")  # who comes back has the row again
            assert set(shown_rows(planted.run)) == {"anna", "bob"}
            graded(anna, seen)
            assert bob.progress().pair.labels == ASKED_OF_ALL + 6
        other = anna.task()
        assert other is not None
        assert list(shown_rows(planted.run)) == ["anna"]
    with LabelSession.open(planted.questions, planted.run, "bob") as bob:
        again = bob.task()
        assert again is not None
        assert again.question == other.question


def test_only_comparisons_that_can_change_the_verdict_are_asked(tmp_path: Path) -> None:
    names = ("hybrid", "rag", "prompting", "few-shot", "lora", "full", "qlora")

    def answer(arm: int) -> Callable[[int], str]:
        return lambda n: RIGHT.format(n=n) if n % 7 < arm else f"{arm} of {n}."

    planted = plant_run(tmp_path, question_rows(7), {name: answer(arm) for arm, name in enumerate(names)})
    report = json.loads((planted.run / "report.json").read_text("utf-8"))
    for place, pair in enumerate(report["paired"]):
        pair["difference"] = 0.1 * (place + 1)  # rag is the rival
    write_json(planted.run / "report.json", report)
    answers = read_run_answers(planted.run)
    assert [b for _, b in answers.pairs] == ["rag", "qlora", "full", "lora", "few-shot", "prompting"]
    assert answers.deciding == 1 + BEST_OTHERS
    with LabelSession.open(planted.questions, planted.run, "anna") as session:
        progress = session.progress()
        assert (len(progress.pairs), progress.others) == (1 + BEST_OTHERS, ("few-shot", "prompting"))
        notices = []
        while (task := session.task()) is not None:
            notices += [task.notice] * bool(task.notice)
            session.grade(task.key, "first", "right")
            if len(task.answers) > 1:
                session.grade(task.key, "second", "wrong")
        assert [notice.partition("Now ")[2].split(":")[0] for notice in notices] == [
            f"comparison {n} of 4" for n in (2, 3, 4)
        ]
        end = session.progress()
        assert (end.at_hand, end.position, end.more) == (None, "", True)
        assert end.finished.endswith("are finished. Not compared by people: few-shot, prompting.")
        session.ask_all_pairs()
        assert (len(session.progress().pairs), session.progress().others) == (6, ())
        assert session.task() is not None


def test_forecasts_are_late_round_and_of_what_counts() -> None:
    def state(*args: Any, **of: Any) -> str:
        progress = pair_progress("a", "b", pair_labels(*args, **of))
        assert progress.state.startswith(f"{args[0]} of {args[1]} labels, by all people; ")
        return progress.state.partition("; ")[2]

    for counted in (0, 3, 19):
        assert state(counted, 80, each=0.5) == f"how many more are needed is said after {STATED_FROM}"
    assert state(25, 80) == f"how many more are needed cannot be said before {ENOUGH_LABELS}"
    assert (
        state(22, 80, each=1.0) == "about 8 more, by all people together, decide"
    )  # nothing is decided before 30
    more = pair_progress("a", "b", pair_labels(30, 400, each=0.1)).more
    assert more is None or more % 5 == 0
    assert state(30, 80, each=1.0) == "they are told apart"
    assert state(30, 80) == "so close so far that all 50 others would rather not tell them apart"
    assert state(30, 30) == "all are labelled, and do not tell them apart"
    assert state(12, 16) == "so few that all are needed"
    assert state(22, 80, 1).endswith("1 more label counts once the question in front of it is labelled")


def test_results_say_which_is_better_by_how_much() -> None:
    few = pair_progress("a", "b", pair_labels(29, 80, each=1.0)).result
    assert (
        few
        == "a against b: too few labels to say which is better (29 of 80 labels, by all people; 30 are needed)"
    )
    worse = pair_progress("a", "b", pair_labels(40, 40, each=-1.0)).result
    assert worse.startswith("b is better than a: mean grade +0.75 [+0.")
    assert pair_progress("a", "b", pair_labels(40, 40)).result.startswith("a and b are not told apart: ")


def test_a_question_that_the_file_calls_unanswerable_needs_no_grades(tmp_path: Path) -> None:
    rows = question_rows(2)
    rows[0] |= {"answerable": False, "answers": [], "reference": "We hold nothing on that."}
    del rows[1]["answers"]
    rows[1]["answerable"] = False
    arms = {"rag": ARMS["rag"], "hybrid": lambda n: REFUSAL}
    planted = plant_run(tmp_path, rows, arms)
    with LabelSession.open(planted.questions, planted.run, "anna") as session:
        while (task := session.task()) is not None:
            assert (task.answerable, task.by_file, task.assumed, task.done) == (False, True, True, True)
            for letter, answer in zip("AB", task.answers, strict=True):
                counts = "right, as it refuses" if answer == REFUSAL else "wrong, as it does not refuse"
                assert f"{letter} counts as {counts}" in task.consequence
            assert not session.set_answerable(task.key, False).assumed
        labels = read_labels(planted.run)
        assert labels.value("q000", REFUSAL) == 1.0
        assert labels.value("q000", RIGHT.format(n=0)) == 0.0
        last = (
            session.undo()
        )  # the rule misses a refusal, or takes another answer for one: a person's grade counts
        assert last is not None
        side: Side = "second" if last.answers[0] == REFUSAL else "first"
        corrected = session.grade(last.key, side, "partly")
        assert (corrected.assumed, corrected.answerable, corrected.grades.count("partly")) == (
            False,
            False,
            1,
        )
        assert corrected.consequence.count("counts as") == 1
        values = session.labels()
        assert {values.value(row, RIGHT.format(n=n)) for n, row in enumerate(("q000", "q001"))} == {0.0, 0.5}
        assert session.set_answerable(last.key, False).grades == (None, None)
        assert session.set_answerable(last.key, True).grades.count("partly") == 1
    changes = gold_changes(labels, match_questions(planted.questions, read_run_answers(planted.run)))
    assert (changes.changes, changes.same) == ((), 2)
    with LabelSession.open(planted.questions, planted.run, "bob") as session:
        task = session.task()
        assert task is not None
        found = session.set_gold(task.key, "It has so many.")
        assert (found.answerable, found.by_file, found.done) == (None, True, False)


@pytest.fixture
def towns(tmp_path: Path, words: Any) -> PlantedRun:
    """A run with a table, of which the search found two rows, and a document that it did not find; an answer was cut."""
    documents = tmp_path / "documents"
    documents.mkdir()
    table = "| Pier | Berths |\n|---|---|\n| North | 12 |\n\n1. Ask first.\n\nThe South Pier has 44 berths.\n"
    (documents / "pier00.md").write_text(table, "utf-8")
    text = "# Tolls\n\nOpen all day.\n\nBoats pay at the gate. A toll costs £4.20. Dogs pay nothing.\n"
    (documents / "pier01.md").write_text(text, "utf-8")
    rows = question_rows(2)
    rows[0] |= {"doc_id": "pier01.md", "answers": ["£4.20"], "reference": "A toll costs £4.20."}
    start = table.index("The South")
    rows[1] |= {"doc_id": "pier00.md", "spans": [{"start": start, "end": len(table) - 1}]}
    planted = plant_run(tmp_path, rows, ARMS, documents=documents, encoder=words)
    journal = planted.run / "trial" / "answers.jsonl"
    answers = [json.loads(line) for line in journal.read_text("utf-8").splitlines()]
    for answer in answers:
        answer["finish"] = "length" if answer["arm"] == "hybrid" else "stop"
        answer["context"] = [{"doc": "pier00.md", "start": 0, "end": 60}]
    journal.write_text("".join(json.dumps(answer) + "\n" for answer in answers), "utf-8")
    return planted


def test_the_gold_passage_is_shown_and_cut_answers_are_said(towns: PlantedRun) -> None:
    shown = {}
    with LabelSession.open(towns.questions, towns.run, "anna") as session:
        while (task := session.task()) is not None:
            shown[task.question] = task
            session.skip(task.key)
    toll, south = (shown[f"How many berths has pier {n}?"] for n in (0, 1))
    for task in (toll, south):
        assert [answer for answer, cut in zip(task.answers, task.cut, strict=True) if cut] == [
            answer for answer in task.answers if "00 berths" in answer
        ]
        table, gold = task.passages
        sentences = [table.text[start:end] for start, end in table.sentences]
        assert sentences[:2] == ["| Pier | Berths |", "| North | 12 |"]
        assert "1." not in sentences
        assert (table.found, table.gold, gold.found) == (True, () if task is toll else table.gold, False)
    gold = toll.passages[1]
    assert gold.text == "Boats pay at the gate. A toll costs £4.20. Dogs pay nothing."
    assert [gold.text[start:end] for start, end in (gold.sentences[n] for n in gold.gold)] == [
        "A toll costs £4.20."
    ]
    assert south.passages[1].text == "The South Pier has 44 berths."
