"""No question is measured that rows, shown examples or instructions give away: refused by kind, or left out when said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rag.errors import BadInput
from runners.plan.schema import Plan, parse_plan
from runners.runs.dataset import count_leaks, guard_questions, read_data, read_guarded

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
    """A plan that trains on the rows and asks these questions beside harmless ones."""
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
    ("question", "said"),
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
            {"question": NEAR},
            r"1 held-out questions nearly repeat examples \(question line 1 = example line 2\)",
        ),
    ],
)
def test_what_rows_give_away_is_refused_by_row(tmp_path: Path, question: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput, match=said) as refused:
        read_data(plan(tmp_path, question))
    assert refused.value.exit_code == 3


def test_near_repeats_are_left_out_and_told_when_the_plan_says_so(tmp_path: Path) -> None:
    made = plan(tmp_path, {"id": "near", "question": NEAR}, near_repeats="leave_out")
    told: list[dict[str, Any]] = []
    examples, split, left_out = read_guarded(made, told.append)
    asked = (*split.dev, *split.test)
    assert left_out == 1
    assert len(asked) == len(FINE)
    assert "near" not in {q.id for q in asked}
    assert told[-1]["event"] == "questions.left_out"
    assert (told[-1]["near"], told[-1]["rows"]) == (1, ["1 = 2"])
    counted = count_leaks(made, examples, asked, left_out)
    assert (counted["near"], counted["left_out"], counted["withheld"]) == (0, 1, False)


def test_leaving_out_does_not_excuse_the_same_question(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="also occur"):
        read_data(plan(tmp_path, {"question": "When does the bar open?"}, near_repeats="leave_out"))


def test_a_question_in_the_instructions_is_refused(tmp_path: Path) -> None:
    question = {"question": "Who is the captain of the Schoolbell?"}
    shown = "Be short.\nQ: who is the captain of the Schoolbell\nA: Petra."
    with pytest.raises(BadInput, match=r"stand in the instructions, prompts\.system \(question line 1\)"):
        read_data(plan(tmp_path, question, system=shown))
    read_data(plan(tmp_path, question, system="Say who is the captain of a ship when asked."))


def test_another_fact_of_the_same_document_is_counted_and_no_leak(tmp_path: Path) -> None:
    made = plan(tmp_path, {"question": "Is smoking allowed at the counter?", "doc_id": "bar.md"})
    examples, split, _ = read_guarded(made)
    counted = count_leaks(made, examples, (*split.dev, *split.test), 0)
    assert (counted["same_document"], counted["withheld"]) == (1, False)
    assert (counted["rows"], counted["questions"]) == (2, 7)


def test_what_leaks_nevertheless_withholds_the_scores(tmp_path: Path) -> None:
    made = plan(tmp_path)
    examples, split, _ = read_guarded(made)
    (asked, *_) = split.test
    from dataclasses import replace

    for text, kind in (
        ("When does the bar open?", "exact"),
        ("when does the bar open", "normalised"),
        (NEAR, "near"),
    ):
        counted = count_leaks(made, examples, [replace(asked, question=text)], 0)
        assert (counted[kind], counted["withheld"]) == (1, True)
    assert guard_questions(made, examples, split.test, tmp_path).left_out == ()
