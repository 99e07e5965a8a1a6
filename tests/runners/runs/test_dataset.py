"""Held-out questions that rows, shown examples or instructions contain are refused by kind, or left out on request."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rag.errors import BadInput
from runners.data.questions import load_questions
from runners.data.sampling import split_questions
from runners.plan.schema import Plan, parse_plan
from runners.runs.dataset import (
    count_leaks,
    guard_questions,
    read_data,
    require_gold_documents,
)

LONG = "which of the two early ferries to the outer island takes bicycles on a sunday morning in the winter season"
NEAR = f"{LONG} really"
ROWS = [
    {"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}], "meta": meta}
    for q, a, meta in (
        ("When does the bar open?", "At six.", {"doc_id": "bar.md", "fact": "The bar opens at six."}),
        (LONG, "The second one.", {}),
    )
]
FINE = [
    {"question": f"What is the number of berth {n}, counted from the north?", "answers": ["x"]}
    for n in range(6)
]


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    """Write JSON lines and return the path."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return str(path)


def plan(folder: Path, *asked: dict[str, Any], system: str = "", **data: Any) -> Plan:
    """Return a plan that trains on the rows and asks these questions besides harmless ones."""
    files = {
        "examples": write(folder / "examples.jsonl", ROWS),
        "questions": write(folder / "questions.jsonl", [*asked, *FINE]),
    }
    return parse_plan(
        {
            "name": "p",
            "choice": "lora",
            "model": {"name": "m"},
            "data": {**files, **data},
            "weights": {"style": 1},
            "steps": [
                {"kind": "train", "arm": "lora"},
                {"kind": "evaluate", "arm": "lora", "weights": "lora"},
            ],
            "prompts": {"system": system},
        }
    )


@pytest.mark.parametrize(
    ("question", "message"),
    [
        (
            {"question": "When does the bar open?"},
            r"1 held-out questions also occur .* line 1 = example line 1",
        ),
        ({"question": "when does THE bar open"}, r"also occur in the examples"),
        (
            {"question": "From when on can I drink?", "doc_id": "bar.md", "fact": "The bar opens at six."},
            "also occur",
        ),
        (
            {"question": "What of the bar?", "wordings": ["when does THE bar open"]},
            "1 held-out questions also",
        ),
        (
            {"question": NEAR},
            r"1 held-out questions nearly repeat examples \(question line 1 = example line 2\)",
        ),
    ],
)
def test_leaking_question_is_refused_naming_rows(
    tmp_path: Path, question: dict[str, Any], message: str
) -> None:
    with pytest.raises(BadInput, match=message) as refused:
        read_data(plan(tmp_path, question))
    assert refused.value.exit_code == 3


def test_near_repeats_are_left_out_and_reported_on_request(tmp_path: Path) -> None:
    leaky_plan = plan(tmp_path, {"id": "near", "question": NEAR}, near_repeats="leave_out")
    events: list[dict[str, Any]] = []
    data = read_data(leaky_plan, events.append)
    asked = (*data.split.dev, *data.split.test)
    assert data.left_out == 1
    assert len(asked) == len(FINE)
    assert "near" not in {q.id for q in asked}
    assert events[-1]["event"] == "questions.left_out"
    assert (events[-1]["near"], events[-1]["rows"]) == (1, ["1 = 2"])
    leaks = count_leaks(leaky_plan, data.examples, asked, data.left_out)
    assert (leaks["near"], leaks["left_out"], leaks["withheld"]) == (0, 1, False)


def test_a_question_whose_wording_nearly_repeats_a_row_is_left_out_whole(tmp_path: Path) -> None:
    worded = {"id": "near", "question": "Which ferry?", "wordings": [NEAR, "What ferry?"]}
    leaky_plan = plan(tmp_path, worded, near_repeats="leave_out")
    events: list[dict[str, Any]] = []
    data = read_data(leaky_plan, events.append)
    asked = (*data.split.dev, *data.split.test)
    assert (data.left_out, events[-1]["near"], len(asked)) == (1, 1, len(FINE))


def test_leaks_of_wordings_are_counted_once_for_each_question(tmp_path: Path) -> None:
    worded = {"question": "What of the counter?", "wordings": ["May one smoke at it?"], "doc_id": "bar.md"}
    for seed in (0, 1):  # in dev and in test
        leaky_plan = plan(tmp_path, worded).model_copy(update={"seed": seed})
        data = read_data(leaky_plan)
        examples, split = data.examples, data.split
        leaks = count_leaks(leaky_plan, examples, (*split.dev, *split.test), 0)
        assert (leaks["same_document"], leaks["questions"]) == (1, 7)
    asked = split_questions(load_questions(tmp_path / "questions.jsonl"), 0.0, 0).test
    worse = [replace(q, question="When does the bar open?") if q.wording_of else q for q in asked]
    leaks = count_leaks(leaky_plan, examples, worse, 0)
    assert (leaks["exact"], leaks["same_document"], leaks["questions"]) == (1, 0, 7)


def test_a_repeated_wording_is_reported(tmp_path: Path) -> None:
    rows = [{"question": "Berth 1, its number?", "wordings": [FINE[0]["question"]], "answers": ["x"]}]
    events: list[dict[str, Any]] = []
    read_data(plan(tmp_path, *rows), events.append)
    assert "1 wording dropped (line 1)" in next(e for e in events if e["event"] == "plan.note")["reason"]


def test_exact_repeat_is_refused_despite_leave_out(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="also occur"):
        read_data(plan(tmp_path, {"question": "When does the bar open?"}, near_repeats="leave_out"))


def test_question_in_instructions_is_refused(tmp_path: Path) -> None:
    question = {"question": "Who is the captain of the Schoolbell?"}
    shown = "Be short.\nQ: who is the captain of the Schoolbell\nA: Petra."
    with pytest.raises(BadInput, match=r"are in the instructions, prompts\.system \(question line 1\)"):
        read_data(plan(tmp_path, question, system=shown))
    read_data(plan(tmp_path, question, system="Say who is the captain of a ship when asked."))


def test_other_fact_of_same_document_is_counted_not_refused(tmp_path: Path) -> None:
    leaky_plan = plan(tmp_path, {"question": "Is smoking allowed at the counter?", "doc_id": "bar.md"})
    data = read_data(leaky_plan)
    examples, split = data.examples, data.split
    leaks = count_leaks(leaky_plan, examples, (*split.dev, *split.test), 0)
    assert (leaks["same_document"], leaks["withheld"]) == (1, False)
    assert (leaks["rows"], leaks["questions"]) == (2, 7)


def test_remaining_leak_withholds_scores(tmp_path: Path) -> None:
    leaky_plan = plan(tmp_path)
    data = read_data(leaky_plan)
    examples, split = data.examples, data.split
    (asked, *_) = split.test
    from dataclasses import replace

    for text, kind in (
        ("When does the bar open?", "exact"),
        ("when does the bar open", "normalised"),
        (NEAR, "near"),
    ):
        leaks = count_leaks(leaky_plan, examples, [replace(asked, question=text)], 0)
        assert (leaks[kind], leaks["withheld"]) == (1, True)
    assert guard_questions(leaky_plan, examples, split.test, tmp_path).left_out == ()


def plan_with_documents(folder: Path, names: list[str], row_name: str = "") -> Plan:
    """Return a plan with three documents, whose questions name these documents and whose first row names one."""
    (folder / "documents" / "guest").mkdir(parents=True)
    for name in ("bar.md", "berths.md", "guest/wifi.md"):
        (folder / "documents" / name).write_text(f"# {name}\n\nText of {name}.\n", "utf-8")
    rows = [{**ROWS[0], "meta": {"doc_id": row_name}}] if row_name else ROWS
    asked = [
        {"question": f"What is the number of berth {n}?", "answers": ["x"], "doc_id": name}
        for n, name in enumerate(names)
    ]
    body = {
        "name": "p",
        "choice": "rag",
        "model": {"name": "m"},
        "data": {
            "documents": str(folder / "documents"),
            "examples": write(folder / "examples.jsonl", rows),
            "questions": write(folder / "questions.jsonl", asked),
        },
        "weights": {"token_f1": 1},
        "steps": [{"kind": "index"}, {"kind": "evaluate", "arm": "rag", "retrieval": True}],
    }
    return parse_plan(body)


def test_gold_documents_get_the_ids_of_the_documents(tmp_path: Path) -> None:
    """Questions and rows alike, so that they can still be compared; what was changed is reported."""
    names = ["files/bar.md", "files/guest/wifi.md", "berths", "gone.md"]
    named = plan_with_documents(tmp_path, names, "files/bar.md")
    events: list[dict[str, Any]] = []
    data = read_data(named, events.append)
    examples, split = data.examples, data.split
    ids = {question.doc_id for question in (*split.dev, *split.test)}
    assert ids == {"bar.md", "guest/wifi.md", "berths.md", "gone.md"}
    assert examples[0].meta["doc_id"] == "bar.md"
    (event,) = [event for event in events if event["event"] == "doc_ids.matched"]
    assert event["unmatched"] == 1
    assert "3 of 4 doc_ids are written differently" in event["lines"][0]
    require_gold_documents(named)


def test_gold_documents_of_which_none_exists_are_refused(tmp_path: Path) -> None:
    """Before a run; reading the data of a finished run again goes on."""
    named = plan_with_documents(tmp_path, ["p1", "p2", "p3"])
    read_data(named)
    with pytest.raises(BadInput, match="none of 3 doc_ids is among the documents"):
        require_gold_documents(named)


def test_one_test_question_is_refused(tmp_path: Path) -> None:
    """Arms cannot be compared on one question."""
    with pytest.raises(BadInput, match="there is one test question") as refused:
        read_data(plan_with_documents(tmp_path, ["bar.md"]))
    assert "at least 3" in refused.value.hint
