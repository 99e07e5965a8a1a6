"""Gold that people wrote reaches the file of questions and the scores, and moves no question between dev and test."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from rag.errors import BadInput, UsageProblem
from runners.data.examples import Example
from runners.data.questions import load_questions, with_document_ids
from runners.data.sampling import split_questions
from runners.labels.gold import GoldChanges, gold_changes, write_gold
from runners.labels.labels import read_labels
from runners.labels.run_answers import match_questions, read_run_answers
from runners.labels.session import LabelSession
from runners.models.resolve import Model
from runners.plan.schema import parse_plan
from runners.trial.execute import run_plan
from runners.trial.trial import ANSWERS
from tests.support.labelled_run import RIGHT, PlantedRun, plant_run, question_rows
from tests.support.reports import written

ARMS: dict[str, Callable[[int], str]] = {
    "rag": lambda n: RIGHT.format(n=n),
    "hybrid": lambda n: f"{n} perhaps",
}


def label(planted: PlantedRun, by: str, labels: dict[str, list[tuple[str, Any]]]) -> None:
    """Store labels of a person: the question's text -> calls of the session with one value each."""
    with LabelSession.open(planted.questions, planted.run, by) as session:
        left = dict(labels)
        while (task := session.task()) is not None:
            for name, value in left.pop(task.question, []):
                getattr(session, name)(task.key, *(value if isinstance(value, tuple) else (value,)))
            session.skip(task.key)
            session.undo()
            for side in ("first", "second"):
                session.grade(task.key, side, "right")  # type: ignore[arg-type]
        assert not left


def changes_of(planted: PlantedRun) -> GoldChanges:
    """Return what the labels change in the file."""
    return gold_changes(
        read_labels(planted.run), match_questions(planted.questions, read_run_answers(planted.run))
    )


def rows_of(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a file."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_gold_replaces_what_it_contradicts_and_keeps_what_it_states(tmp_path: Path) -> None:
    rows = question_rows(5)
    rows[0] |= {
        "answers": ["0 berths", "none"],
        "all_of": ["0", "berths"],
        "fact": "none",
        "spans": [{"start": 1, "end": 9}],
    }
    rows[1] |= {"meta": {"answers": ["1"], "doc_id": "a.md"}}
    rows[2] |= {"references": ["Two."], "reference": "Two.", "wordings": ["Pier 2: berths?"]}
    planted = plant_run(tmp_path, rows, ARMS)
    before = planted.questions.read_bytes()
    texts = [row["question"] for row in rows]
    label(
        planted,
        "anna",
        {
            texts[0]: [("set_gold", "It has 0 berths.")],
            texts[1]: [("set_gold", "It has eleven.")],
            texts[2]: [("set_gold", "Two berths.")],
            texts[3]: [("set_answerable", False)],
        },
    )
    changes = changes_of(planted)
    assert (len(changes.changes), changes.unlabelled, changes.disagree) == (4, 1, ())
    backup = write_gold(changes)
    assert backup is not None
    assert backup.read_bytes() == before
    after = rows_of(planted.questions)
    assert {key: after[0][key] for key in ("answers", "all_of", "spans", "reference")} == {
        "answers": ["0 berths"],
        "all_of": ["0", "berths"],
        "spans": [{"start": 1, "end": 9}],
        "reference": "It has 0 berths.",
    }
    assert "fact" not in after[0]
    assert after[1]["meta"] == {"doc_id": "a.md"}
    assert (after[2]["reference"], after[2].get("references"), after[2]["wordings"]) == (
        "Two berths.",
        None,
        ["Pier 2: berths?"],
    )
    assert after[3]["answerable"] is False
    assert "answers" not in after[3]
    assert after[3]["split_by"] == {"doc_id": None, "answerable": True}
    assert {row.get("labelled_by") for row in after} == {"anna", None}
    assert after[4] == rows[4]
    again = changes_of(planted)
    assert (again.changes, again.same) == ((), 4)


def test_a_sentence_names_document_and_place_and_the_split_stays(
    tmp_path: Path, piers: Path, words: Any
) -> None:
    planted = plant_run(tmp_path, question_rows(10), ARMS, documents=piers, encoder=words)
    split = split_questions(load_questions(planted.questions), 0.4, 0)
    texts = [row["question"] for row in rows_of(planted.questions)]
    label(planted, "anna", {text: [("mark_sentence", (0, 0, 9))] for text in texts[:6]})
    label(planted, "bob", {texts[0]: [("mark_sentence", (0, 3, 12))], texts[7]: [("set_answerable", False)]})
    write_gold(changes_of(planted))
    questions = load_questions(planted.questions)
    assert [len(question.spans) for question in questions] == [2, 1, 1, 1, 1, 1, 0, 0, 0, 0]
    assert questions[3].doc_id == "pier03.md"
    now = split_questions(questions, 0.4, 0)
    assert now.digest == split.digest
    renamed = with_document_ids(questions, {"pier03.md": "other.md"})
    assert (renamed[3].doc_id, renamed[3].drawn_by) == ("other.md", (None, True))


def test_what_people_disagree_on_is_not_written(tmp_path: Path) -> None:
    planted = plant_run(tmp_path, question_rows(3), ARMS)
    texts = [row["question"] for row in rows_of(planted.questions)]
    label(planted, "anna", {texts[0]: [("set_gold", "Zero.")], texts[1]: [("set_gold", "One.")]})
    label(planted, "bob", {texts[0]: [("set_gold", "None.")], texts[1]: [("set_gold", "One.")]})
    changes = changes_of(planted)
    assert [change.id for change in changes.changes] == ["q001"]
    assert changes.disagree == ("q000 (gold answer)",)
    assert changes.changes[0].row["labelled_by"] == "anna, bob"
    assert any("different gold" in line for line in changes.notes())


def test_chats_tables_and_bytes_around_the_rows(tmp_path: Path) -> None:
    chats: list[dict[str, Any]] = [
        {
            "messages": [
                {"role": "user", "content": "Where is 0?"},
                {"role": "assistant", "content": "There."},
            ]
        },
        {"messages": [{"role": "user", "content": "Where is 1?"}]},
        {"prompt": "Where is 2?", "completion": "There."},
    ]
    rows = [{"question": f"Where is {n}?"} for n in range(3)]
    planted = plant_run(tmp_path, rows, ARMS)
    text = "\ufeff" + "\r\n".join(json.dumps(chat) for chat in chats) + "\r\n\r\n"
    planted.questions.write_bytes(text.encode())
    label(planted, "anna", {f"Where is {n}?": [("set_gold", f"Here, {n}.")] for n in range(3)})
    changes = changes_of(planted)
    assert (len(changes.changes), changes.unwritable) == (3, ())
    out = tmp_path / "out.jsonl"
    out.write_text("of somebody else\n", "utf-8")
    kept = write_gold(changes, out)
    assert kept is not None
    assert kept.read_text("utf-8") == "of somebody else\n"
    assert planted.questions.read_bytes() == text.encode()
    write_gold(changes)
    for file in (out, planted.questions):
        assert [question.reference for question in load_questions(file)] == [f"Here, {n}." for n in range(3)]
    assert planted.questions.read_bytes().count(b"\r\n") == 4
    table = tmp_path / "questions.csv"
    table.write_text(
        "id,question,answer\n" + "".join(f"q{n + 1},Where is {n}?,x\n" for n in range(3)), "utf-8"
    )
    changes = changes_of(PlantedRun(planted.run, table))
    with pytest.raises(UsageProblem, match="JSON lines"):
        write_gold(changes)
    write_gold(changes, out)
    assert [question.reference for question in load_questions(out)] == [f"Here, {n}." for n in range(3)]


def test_columns_that_the_plan_declares_are_those_of_its_questions(tmp_path: Path) -> None:
    columns = {"prompt": "frage", "reply": "soll"}
    planted = plant_run(tmp_path, question_rows(4), ARMS, columns=columns)
    table = planted.questions.with_suffix(".csv")
    rows = [f"q{n:03},How many berths has pier {n}?,{n} berths\n" for n in range(4)]
    table.write_text("id,frage,soll\n" + "".join(rows), "utf-8")
    table_run = PlantedRun(planted.run, table)
    label(table_run, "anna", {"How many berths has pier 2?": [("set_gold", "Just 2 of them.")]})
    changes = changes_of(table_run)
    write_gold(changes, out := tmp_path / "out.jsonl")
    assert [question.reference for question in load_questions(out, columns)] == [
        *("0 berths", "1 berths", "Just 2 of them.", "3 berths")
    ]


def test_a_file_that_changed_since_it_was_shown_is_not_written(tmp_path: Path) -> None:
    planted = plant_run(tmp_path, question_rows(4), ARMS)
    label(planted, "anna", {"How many berths has pier 2?": [("set_gold", "Just 2 of them.")]})
    changes = changes_of(planted)
    text = '{"id": "new", "question": "Is there a tide?"}\n' + planted.questions.read_text("utf-8")
    planted.questions.write_text(text, "utf-8")
    for out in (None, tmp_path / "out.jsonl"):
        with pytest.raises(BadInput, match="was changed since"):
            write_gold(changes, out)
    assert planted.questions.read_text("utf-8") == text
    write_gold(changes_of(planted))
    assert [question.reference for question in load_questions(planted.questions)].index(
        "Just 2 of them."
    ) == 3


def test_scores_follow_the_gold_and_no_answer_is_asked_again(
    tiny: Model, examples: Sequence[Example], tmp_path: Path
) -> None:
    rows = [{"messages": list(e.messages)} for e in examples[:8]]
    asked = [{"question": f"Is gate number {n} shut when the fog horn sounds?"} for n in range(9)]
    files = {name: str(tmp_path / f"{name}.jsonl") for name in ("examples", "questions")}
    for name, body in (("examples", rows), ("questions", asked)):
        Path(files[name]).write_text("".join(json.dumps(row) + "\n" for row in body), "utf-8")
    plan = parse_plan(
        {
            "name": "p",
            "choice": "prompting",
            "model": {"name": str(tiny.folder)},
            "data": files,
            "max_new_tokens": 4,
            "steps": [
                {"kind": "evaluate", "arm": "prompting"},
                {"kind": "evaluate", "arm": "few-shot", "shots": 2},
            ],
            "weights": {"token_f1": 1},
        }
    )
    run = run_plan(plan, tmp_path / "run")
    journal = run.path / "trial" / ANSWERS
    lines = [
        {**row, "answer": f"{row['answer']} {row['arm']}"} for row in rows_of(journal)
    ]  # the model says nothing
    journal.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    written(run, plan)
    answers = journal.read_bytes()
    planted = PlantedRun(run.path, Path(files["questions"]))
    with LabelSession.open(planted.questions, planted.run, "anna") as session:
        task = session.task()
        assert task is not None
        session.set_answerable(task.key, False)
        following = session.task()
        assert following is not None
        session.set_gold(following.key, "Yes, it is shut.")
    assert write_gold(changes_of(planted)) is not None
    events: list[dict[str, Any]] = []
    run_plan(plan, run.path, resume=True, on_event=events.append)
    kinds = [event["event"] for event in events]
    assert (kinds.count("trial.judged_again"), kinds.count("step.skip"), kinds.count("answers.batch")) == (
        1,
        2,
        0,
    )
    assert journal.read_bytes() == answers
    scores = json.loads((run.path / "trial" / "scores.json").read_text("utf-8"))["arms"]["prompting"]
    assert sum("correct_refusal" in row for row in scores.values()) == 1
    assert sum("token_f1" in row for row in scores.values()) == 1
    assert len(read_labels(run.path).people[0].questions) == 2
