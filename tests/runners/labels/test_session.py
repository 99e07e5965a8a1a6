"""A label session: every click is on the disk, answers are blind, people are kept apart, two sessions of one are refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rag.errors import BadInput, CannotRun, UsageProblem
from rag.files import check_manifest
from runners.labels.labels import read_labels
from runners.labels.records import LabelTask, Side
from runners.labels.session import ASKED_OF_ALL, LabelSession
from runners.run_folder import UNSEALED, RunFolder
from tests.support.labelled_run import REFUSAL, RIGHT, WRONG, PlantedRun, plant_run, question_rows

ROWS = 40


def grade_all(session: LabelSession, task: LabelTask) -> LabelTask:
    """Grade each answer of a task as it deserves."""
    sides: tuple[Side, ...] = ("first", "second")
    for side, answer in zip(sides, task.answers, strict=False):
        wrong = "00 berths" in answer or answer == REFUSAL
        task = session.grade(task.key, side, "wrong" if wrong else "right")
    return task


@pytest.fixture
def planted(tmp_path: Path) -> PlantedRun:
    """Three arms: rag always right, hybrid wrong on each third question, prompting wrong on the others."""
    arms: dict[str, Callable[[int], str]] = {
        "rag": lambda n: RIGHT.format(n=n),
        "hybrid": lambda n: (WRONG if n % 3 == 0 else RIGHT).format(n=n),
        "prompting": lambda n: WRONG.format(n=n),
    }
    return plant_run(tmp_path, question_rows(ROWS), arms)


def test_labels_survive_and_are_undone_across_sessions(planted: PlantedRun) -> None:
    with LabelSession.open(planted.questions, planted.run, "Anna") as session:
        first = session.task()
        assert first is not None
        assert first.grades == (None, None)
        done = grade_all(session, first)
        assert done.done
        assert sorted(map(str, done.grades)) == ["right", "wrong"]
        assert session.prefer(first.key, "first").better == "first"
        following = session.task()
        assert following is not None
        assert following.key != first.key
        session.set_gold(following.key, "12 berths")
    with LabelSession.open(planted.questions, planted.run, "anna") as session:
        again = session.task()
        assert again is not None
        assert (again.key, again.gold, again.gold_edited) == (
            following.key,
            "12 berths",
            True,
        )
        assert session.task(first.key) == session.prefer(first.key, "first")
        undone = [session.undo() for _ in range(6)]
        assert [task and task.key for task in undone] == [first.key, following.key, *[first.key] * 3, None]
        assert session.progress().clicks == 0
    rows = (planted.run / "trial" / "labels" / "anna.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(row).get("kind") for row in rows].count("undo") == 5


def test_a_torn_line_is_counted_and_the_next_label_does_not_touch_it(planted: PlantedRun) -> None:
    path = planted.run / "trial" / "labels" / "anna.jsonl"
    with LabelSession.open(planted.questions, planted.run, "anna") as session:
        task = session.task()
        assert task is not None
        grade_all(session, task)
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    with LabelSession.open(planted.questions, planted.run, "anna") as session:
        again = session.task(task.key)
        assert again is not None
        assert again.grades.count(None) == 1
        assert any("1 incomplete" in line for line in session.progress().notes)
        grade_all(session, task)
    labels = read_labels(planted.run)
    assert (labels.torn, len(labels.people[0].questions)) == (1, 1)


def test_answers_are_blind_and_their_order_differs_between_people(planted: PlantedRun) -> None:
    orders = []
    for name in ("anna", "bob", "carl", "dora", "emil", "fritz"):
        with LabelSession.open(planted.questions, planted.run, name) as session:
            task = session.task()
            assert task is not None
            orders.append(task.answers)
            assert not {"rag", "hybrid", "prompting"} & set(str(task).replace("'", " ").split())
    assert len(set(orders)) == 2


def test_two_sessions_of_one_person_are_refused_and_of_two_are_not(planted: PlantedRun) -> None:
    with LabelSession.open(planted.questions, planted.run, "anna"):
        with pytest.raises(BadInput, match="in another session"):
            LabelSession.open(planted.questions, planted.run, "ANNA")
        with LabelSession.open(planted.questions, planted.run, "bob") as other:
            assert other.task() is not None
    with LabelSession.open(planted.questions, planted.run, "anna"):
        pass


def test_people_agree_on_the_first_rows_and_share_the_others(planted: PlantedRun) -> None:
    with (
        LabelSession.open(planted.questions, planted.run, "anna", all_pairs=True) as anna,
        LabelSession.open(planted.questions, planted.run, "bob", all_pairs=True) as bob,
    ):
        seen: dict[str, list[str]] = {"anna": [], "bob": []}
        while True:
            tasks = [(session, session.task()) for session in (anna, bob)]
            if all(task is None for _, task in tasks):
                break
            for session, task in tasks:
                if task is not None:
                    seen[session.by].append(task.key)
                    grade_all(session, task)
        progress = bob.progress()
    assert progress.agreement is not None
    assert progress.agreement.same == progress.agreement.both >= 2 * ASKED_OF_ALL
    assert all(pair.labels == pair.of and pair.decided for pair in progress.pairs)
    assert max(map(len, seen.values())) < ROWS


def test_progress_says_what_more_labels_bring(planted: PlantedRun) -> None:
    with LabelSession.open(planted.questions, planted.run, "anna") as session:
        start = session.progress()
        assert (start.pairs[0].labels, start.pairs[0].more, start.pairs[0].decided) == (0, None, False)
        for _ in range(12):
            task = session.task()
            assert task is not None
            grade_all(session, task)
        progress = session.progress()
        assert progress.pages == 12
        pair = progress.pair
        assert (pair.labels, pair.a, pair.difference) == (12, "rag", 0.35)
        assert (
            progress.position
            == "comparison 1 of 2: 12 of 14 labels, by all people; so few that all are needed"
        )
        assert not {"rag", "hybrid", "better", "agree"} & set(progress.position.split())
        for _ in range(2):
            task = session.task()
            assert task is not None
            assert (task.page, task.notice) == (session.progress().pages + 1, "")
            grade_all(session, task)
        task = session.task()
        assert task is not None
        assert task.notice.startswith("Finished: rag against hybrid: 14 of 14 labels, by all people; ")
        assert "Now comparison 2 of 2: rag against prompting. Questions come again" in task.notice
        assert task.graded_before.count(True) == sum(grade is not None for grade in task.grades)
        assert session.task(task.key) == task  # as after a reload of the page
        assert session.progress().results[0].startswith("rag is better than hybrid: mean grade +0.35 [")


@pytest.mark.parametrize("name", ["", "../x", "a/b", "nul\0", "x" * 41, "-a"])
def test_a_name_that_is_no_file_is_refused(planted: PlantedRun, name: str) -> None:
    with pytest.raises(UsageProblem, match="cannot be the name of a file"):
        LabelSession.open(planted.questions, planted.run, name)


def test_labels_of_another_run_are_refused(planted: PlantedRun, tmp_path: Path) -> None:
    arms: dict[str, Callable[[int], str]] = {"rag": str, "hybrid": lambda n: str(n + 1)}
    other = plant_run(tmp_path / "other", question_rows(5), arms)
    with LabelSession.open(other.questions, other.run, "anna") as session:
        task = session.task()
        assert task is not None
        session.skip(task.key)
    with LabelSession.open(planted.questions, planted.run, "bob"):
        pass
    labels = planted.run / "trial" / "labels"
    shutil.copy(other.run / "trial" / "labels" / "anna.jsonl", labels)
    for read in (
        lambda: read_labels(planted.run),
        lambda: LabelSession.open(planted.questions, planted.run, "anna"),
    ):
        with pytest.raises(BadInput, match="labels of another run"):
            read()
    (labels / "anna.jsonl").unlink()
    shutil.copy(other.run / "trial" / "labels" / "order.json", labels)
    with pytest.raises(BadInput, match="order of another run"):
        LabelSession.open(planted.questions, planted.run, "bob")


def test_a_copy_of_a_journal_is_no_other_person(planted: PlantedRun) -> None:
    with LabelSession.open(planted.questions, planted.run, "anna") as session:
        task = session.task()
        assert task is not None
        session.grade(task.key, "first", "right")
    labels = planted.run / "trial" / "labels"
    shutil.copy(labels / "anna.jsonl", labels / "anna (conflicted copy).jsonl")
    with pytest.raises(BadInput, match="has the labels of anna"):
        read_labels(planted.run)


@pytest.mark.parametrize(
    "line",
    [
        "[1, 2]",
        "5",
        '{"kind": "grade", "question": "q001", "time": "t", "answers": ["d"], "grade": "great"}',
        '{"kind": "praise", "question": "q001", "time": "t"}',
        '{"kind": "sentence", "question": "q001", "time": "t", "sentence": {"doc_id": "a", "start": "x", "end": 5}}',
    ],
)
def test_a_row_that_is_no_label_is_named(planted: PlantedRun, line: str) -> None:
    with LabelSession.open(planted.questions, planted.run, "anna") as session:
        task = session.task()
        assert task is not None
        session.skip(task.key)
    with (planted.run / "trial" / "labels" / "anna.jsonl").open("a", encoding="utf-8") as journal:
        journal.write(line + "\n")
    with pytest.raises(BadInput, match=r"anna\.jsonl:3 is damaged"):
        read_labels(planted.run)


def test_no_order_is_drawn_again_for_rows_that_are_labelled(planted: PlantedRun) -> None:
    with LabelSession.open(planted.questions, planted.run, "anna") as session:
        task = session.task()
        assert task is not None
        session.skip(task.key)
    (planted.run / "trial" / "labels" / "order.json").unlink()
    for by in ("anna", "bob"):
        with pytest.raises(BadInput, match="is missing"):
            LabelSession.open(planted.questions, planted.run, by)


def test_rows_that_the_run_asked_later_are_counted(planted: PlantedRun) -> None:
    with LabelSession.open(planted.questions, planted.run, "anna"):
        pass
    path = planted.run / "trial" / "labels" / "order.json"
    order = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps(order | {"rows": order["rows"][3:]}), "utf-8")
    with LabelSession.open(planted.questions, planted.run, "anna") as session:
        assert "not labelled: 3 rows that the run asked after" in " ".join(session.progress().notes)


def test_bad_input_is_refused_in_one_line(planted: PlantedRun, tmp_path: Path) -> None:
    (tmp_path / "others.jsonl").write_text('{"question": "What is the tide?"}\n', "utf-8")
    with pytest.raises(BadInput, match="none of the 40 questions"):
        LabelSession.open(tmp_path / "others.jsonl", planted.run, "anna")
    with pytest.raises(BadInput, match="does not exist"):
        LabelSession.open(planted.questions, tmp_path / "nothing", "anna")
    report = planted.run / "report.json"
    report.rename(tmp_path / "report.json")
    with pytest.raises(BadInput, match="unfinished"):
        LabelSession.open(planted.questions, planted.run, "anna")
    (tmp_path / "report.json").rename(report)
    (planted.run / "trial" / "answers.jsonl").unlink()
    with pytest.raises(BadInput, match="no answers to label"):
        LabelSession.open(planted.questions, planted.run, "anna")
    alone = plant_run(tmp_path / "alone", question_rows(3), {"rag": str})
    with pytest.raises(BadInput, match="no two arms"):
        LabelSession.open(alone.questions, alone.run, "anna")


def test_a_run_folder_that_cannot_be_written_is_said(planted: PlantedRun) -> None:
    (planted.run / "trial" / "labels").write_text("a file in the way", "utf-8")
    with pytest.raises(CannotRun, match="cannot write"):
        LabelSession.open(planted.questions, planted.run, "anna")


def test_a_full_disk_changes_nothing(planted: PlantedRun) -> None:
    with LabelSession.open(planted.questions, planted.run, "anna") as session:
        task = session.task()
        assert task is not None
        session.grade(task.key, "first", "right")
        journal = planted.run / "trial" / "labels" / "anna.jsonl"
        kept = journal.read_bytes()
        journal.unlink()
        journal.mkdir()
        with pytest.raises(CannotRun, match="cannot write"):
            session.grade(task.key, "second", "wrong")
        journal.rmdir()
        journal.write_bytes(kept)
        assert session.task() == session.task(task.key)
        assert session.grade(task.key, "second", "wrong").done


def test_some_of_the_questions_are_enough(planted: PlantedRun) -> None:
    lines = planted.questions.read_text("utf-8").splitlines()
    planted.questions.write_text(
        "\n".join([*lines[:10], '{"question": "And the tide?", "id": "t"}']) + "\n", "utf-8"
    )
    with LabelSession.open(planted.questions, planted.run, "anna") as session:
        notes = " ".join(session.progress().notes)
        assert "30 questions of the run" in notes
        assert "1 question" in notes
        assert session.task() is not None


def test_passages_and_a_marked_sentence(tmp_path: Path, piers: Path, words: Any) -> None:
    arms: dict[str, Callable[[int], str]] = {"rag": lambda n: RIGHT.format(n=n), "hybrid": lambda n: ""}
    planted = plant_run(tmp_path, question_rows(8), arms, documents=piers, encoder=words)
    with LabelSession.open(planted.questions, planted.run, "anna") as session:
        task = session.task()
        assert task is not None
        assert len(task.passages) == 1
        assert "" in task.answers
        passage = task.passages[0]
        start, end = passage.sentences[-1]
        marked = session.mark_sentence(task.key, 0, start, end)
        assert marked.sentence is not None
        assert marked.sentence.doc_id == passage.doc_id
        raw = (piers / passage.doc_id).read_text("utf-8")
        assert raw[marked.sentence.start : marked.sentence.end] == passage.text[start:end]
        for place in ((1, 0, 5), (0, -1, 5), (0, 0, 10_000), (0, 3, 3)):
            with pytest.raises(UsageProblem):
                session.mark_sentence(task.key, *place)
        with pytest.raises(BadInput, match="no question"):
            session.skip("0123456789abcdef")
    shutil.rmtree(planted.run / "index")
    with LabelSession.open(planted.questions, planted.run, "anna") as session:
        task = session.task()
        assert task is not None
        assert task.passages == ()
        assert "not shown" in task.note


def test_labels_do_not_damage_a_sealed_run(planted: PlantedRun) -> None:
    RunFolder(planted.run).seal({})
    with LabelSession.open(planted.questions, planted.run, "anna") as session:
        task = session.task()
        assert task is not None
        grade_all(session, task)
        check_manifest(planted.run, "run", UNSEALED)
    RunFolder(planted.run).seal({})
    names = check_manifest(planted.run, "run", UNSEALED)["files"]
    assert "trial/answers.jsonl" in names
    assert not [name for name in names if "labels" in name]
