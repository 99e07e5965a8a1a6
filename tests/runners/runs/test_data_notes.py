"""What is noticed in the files of a plan: one list, the same before a plan is written, in a run and in its report."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runners.plan.schema import Plan, parse_plan
from runners.runs.data_notes import MAX_READ_BYTES, check_data, notes_event, with_notes
from runners.runs.dataset import DataNote, RunData, read_data

MakePlan = Callable[..., Plan]
ASKED = [
    {
        "question": f"Which of the {n} piers has the ferry to the outer island?",
        "reference": f"Pier {n} has the ferry.",
    }
    for n in range(3, 9)
]
ROWS = [{"prompt": f"Is berth {n} nice?", "completion": "It is, come and see it."} for n in range(4)]


@pytest.fixture
def make_plan(tmp_path: Path) -> MakePlan:
    """Return a function that writes documents, rows and questions and returns the plan of a search on them."""

    def make(rows: list[dict[str, Any]] = ROWS, asked: list[dict[str, Any]] = ASKED) -> Plan:
        documents = tmp_path / "documents"
        documents.mkdir(exist_ok=True)
        (documents / "piers.md").write_text("# Piers\n\nPier 3 has the ferry.\n", "utf-8")
        (documents / "menu.pdf").write_bytes(b"")
        for name, lines in (("examples", rows), ("questions", asked)):
            text = "".join(json.dumps(row) + "\n" for row in lines)
            (tmp_path / f"{name}.jsonl").write_text(text, "utf-8")
        body = {
            "name": "p",
            "choice": "rag",
            "model": {"name": "m"},
            "data": {"documents": str(documents)}
            | {name: str(tmp_path / f"{name}.jsonl") for name in ("examples", "questions")},
            "weights": {"token_f1": 1},
            "steps": [{"kind": "index"}, {"kind": "evaluate", "arm": "rag", "retrieval": True}],
        }
        return parse_plan(body)

    return make


def notes(plan: Plan) -> dict[str, DataNote]:
    """Return the notes of a plan by their kind, of which each occurs once."""
    found = check_data(plan, read_data(plan))
    assert len({note.kind for note in found}) == len(found)
    return {note.kind: note for note in found}


def test_nothing_is_noticed_in_good_files(make_plan: MakePlan) -> None:
    asked = [{**row, "doc_id": "piers.md"} for row in ASKED]
    assert notes(make_plan([{**row, "meta": {"doc_id": "piers.md"}} for row in ROWS], asked)) == {}


def test_documents_that_an_index_will_not_have(make_plan: MakePlan) -> None:
    """One that is not there, and one that cannot be read: a question about either counts as wrong in every arm."""
    names = ["piers.md", "gone.md", "menu.pdf", "piers.md", "piers.md", "piers.md"]
    found = notes(make_plan(asked=[{**row, "doc_id": name} for row, name in zip(ASKED, names, strict=True)]))
    assert set(found) == {"missing_documents", "skipped_documents"}
    assert "1 of 3 doc_ids are not among the documents" in found["missing_documents"].text
    assert (found["missing_documents"].count, found["skipped_documents"].count) == (1, 1)
    assert found["skipped_documents"].text.startswith(
        "questions.jsonl: 1 question of documents that cannot be read (line 3): menu.pdf: the file is empty; "
    )
    rows = [
        {**row, "meta": {"doc_id": name}}
        for row, name in zip(ROWS, ["a.md", "piers", "b.md", "b.md"], strict=True)
    ]
    note = notes(make_plan(rows))["missing_documents"]
    assert note.text.startswith(
        "examples.jsonl: 3 examples of documents that are not there (lines 1, 3, 4; such as a.md)"
    )


def test_empty_files_are_found_in_large_folders(make_plan: MakePlan, tmp_path: Path) -> None:
    plan = make_plan(asked=[{**row, "doc_id": "menu.pdf"} for row in ASKED])
    with (tmp_path / "documents" / "large.md").open("wb") as file:
        file.truncate(MAX_READ_BYTES + 1)
    assert "menu.pdf: the file is empty" in notes(plan)["skipped_documents"].text


def test_personal_data_is_counted_by_kind_and_never_shown(make_plan: MakePlan) -> None:
    rows = [
        {"prompt": "Who is asking?", "completion": "Write to ann.lee@harbour-mail.net, please."},
        {"prompt": "Who else?", "completion": "Call 0451 2207733 or bo@harbour-mail.net."},
        *ROWS,
    ]
    note = notes(make_plan(rows))["personal_data"]
    assert note.count == 2
    assert note.text.startswith(
        "examples.jsonl: 2 of 6 examples hold personal data (e-mail address 2, phone number 1; lines 1, 2)"
    )
    assert "harbour-mail" not in note.text
    key = {"prompt": "Which key?", "completion": "Use sk-proj-a8Fk29dKq03mZx71LwQe."}
    assert "hold keys or personal data" in notes(make_plan([key, *ROWS]))["personal_data"].text


def test_references_that_the_rule_refuses(make_plan: MakePlan) -> None:
    """A refusal as the reference of a question that has an answer: no answer like it can be right."""
    asked = [
        *ASKED,
        {"question": "When does the bar open?", "reference": "Our documents do not say when the bar opens."},
    ]
    plan = make_plan(asked=asked)
    note = notes(plan)["references"]
    assert (note.count, ":7: " in note.text) == (1, True)
    assert "has a reference that would not count as a right answer" in note.text
    marked = make_plan(asked=[*ASKED, {**asked[-1], "answerable": False}])
    assert "references" not in notes(marked)


def test_questions_in_another_language(make_plan: MakePlan) -> None:
    other = {
        "question": "Um wie viel Uhr fährt heute Abend die letzte Fähre zur Insel?",
        "reference": "Um 22:40 Uhr.",
    }
    note = notes(make_plan(asked=[*ASKED, other]))["language"]
    assert note.count == 1
    assert "1 question in another language than the others (English): German 1 (line 7)" in note.text
    rows = [
        {"prompt": f"{other['question']} Nummer {n}", "completion": "Das weiß ich leider nicht genau."}
        for n in range(5)
    ]
    note = notes(make_plan(rows))["language"]
    assert "the questions are in English, the examples in German" in note.text


def test_notes_are_kept_with_the_data_and_recorded(make_plan: MakePlan) -> None:
    plan = make_plan(asked=[{**row, "doc_id": "piers.md"} for row in ASKED])
    data = with_notes(plan, read_data(plan))
    assert data.notes == ()
    noticed = DataNote(kind="language", text="a sentence", count=1)
    kept = with_notes(plan, RunData(notes=(noticed,)))
    assert kept.notes == (noticed,)
    assert notes_event(kept.notes) == {
        "event": "data.notes",
        "lines": ["a sentence"],
        "notes": [{"kind": "language", "text": "a sentence", "count": 1}],
    }
