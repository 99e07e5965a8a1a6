"""`plan`, `train --check` and `run` find the same leaking questions in the same files."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from advisor.questionnaire.data_stats import measure_files, token_counting
from rag.errors import BadInput
from runners.data.examples import load_examples
from runners.data.leakage import LEAKING, find_leaks
from runners.data.questions import load_questions
from runners.plan.schema import Plan, parse_plan
from runners.preflight.data_checks import check_held_out_questions
from runners.runs.dataset import read_data

LONG = "which of the two early ferries to the outer island takes bicycles on a sunday morning in the winter season"
SYSTEM = "Answer in one sentence.\nQ: Who is the captain of the Schoolbell?\nA: Petra."
BAR = {"doc_id": "bar.md", "fact": "The bar opens at six."}
ROWS: list[dict[str, Any]] = [
    {
        "messages": [
            {"role": "system", "content": SYSTEM},
            {"role": "user", "content": question},
            {"role": "assistant", "content": answer},
        ],
        "meta": meta,
    }
    for question, answer, meta in (
        ("When does the bar open?", "At six.", BAR),
        (LONG, "The second one.", {}),
    )
]
HARMLESS: list[dict[str, Any]] = [
    {"question": f"What is the number of berth {n}, counted from the north?", "answers": ["x"]}
    for n in range(6)
]
LEAKS: dict[str, dict[str, Any]] = {
    "word for word": {"question": "When does the bar open?"},
    "other spelling": {"question": "when does THE bar open"},
    "near": {"question": f"{LONG} really"},
    "same fact": {"question": "From when on can I drink?", **BAR},
    "near, and the same fact": {"question": f"{LONG} really", **BAR},
    "in the prompt": {"question": "Who is the captain of the Schoolbell?"},
}
NO_LEAKS: dict[str, dict[str, Any]] = {
    "another fact of the document": {"question": "Is smoking allowed?", "doc_id": "bar.md"},
    "the same words about another document": {"question": "When does the bar open?", "doc_id": "cafe.md"},
    "a few words of the prompt": {"question": "The captain?"},
    "another question": {"question": "Where is the pier?"},
}


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write JSON lines and return the path."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


@pytest.fixture
def examples(tmp_path: Path) -> Path:
    """Two training rows with a system turn."""
    return write(tmp_path / "examples.jsonl", ROWS)


def plan_of(examples: Path, questions: Path, system: str = SYSTEM) -> Plan:
    """A plan that trains on the examples and asks the questions, near repeats refused."""
    data = {"examples": str(examples), "questions": str(questions)}
    return parse_plan(
        {
            "name": "p",
            "choice": "lora",
            "model": {"name": "m"},
            "data": data,
            "weights": {"style": 1},
            "prompts": {"system": system},
            "steps": [
                {"kind": "train", "arm": "lora"},
                {"kind": "evaluate", "arm": "lora", "weights": "lora"},
            ],
        }
    )


def lines(text: str) -> set[int]:
    """The question lines that a message names."""
    return {int(number) for number in re.findall(r"(?:question line |(?:questions|left)\.jsonl:)(\d+)", text)}


def refused_by_plan(examples: Path, questions: Path, system: str = SYSTEM) -> set[int]:
    """Lines that `tunewise plan` refuses or warns of."""
    try:
        stats = measure_files(None, examples, questions, token_counting(None), system)
    except BadInput as refusal:
        return lines(refusal.message)
    return lines(" ".join(stats.warnings))


def refused_by_run(examples: Path, questions: Path, system: str = SYSTEM) -> set[int]:
    """Lines that `tunewise run` refuses before its first step."""
    try:
        read_data(plan_of(examples, questions, system))
    except BadInput as refusal:
        return lines(refusal.message)
    return set()


def stopped_by_check(examples: Path, questions: Path) -> set[int]:
    """Lines that `tunewise train --check` stops for."""
    check = check_held_out_questions(load_examples(examples).rows, load_questions(questions))
    return {int(str(row).split(" = ")[0]) for row in check.rows} if check.level == "stop" else set()


@pytest.mark.parametrize("name", LEAKS)
def test_every_verb_refuses_the_leaking_question(tmp_path: Path, examples: Path, name: str) -> None:
    questions = write(tmp_path / "questions.jsonl", [*HARMLESS[:3], LEAKS[name], *HARMLESS[3:]])
    assert refused_by_plan(examples, questions) == {4}
    assert refused_by_run(examples, questions) == {4}
    assert stopped_by_check(examples, questions) == {4}


@pytest.mark.parametrize("name", NO_LEAKS)
def test_no_verb_refuses_a_harmless_question(tmp_path: Path, examples: Path, name: str) -> None:
    questions = write(tmp_path / "questions.jsonl", [*HARMLESS, NO_LEAKS[name]])
    assert refused_by_plan(examples, questions) == set()
    assert refused_by_run(examples, questions) == set()
    assert stopped_by_check(examples, questions) == set()


def test_what_is_found_is_what_is_refused_when_refused_rows_are_taken_out(
    tmp_path: Path, examples: Path
) -> None:
    """Questions are taken out as they are refused: each verb ends with the set that the finder names at once."""
    rows = [*LEAKS.values(), *NO_LEAKS.values(), *HARMLESS]
    questions = write(tmp_path / "questions.jsonl", rows)
    found = find_leaks(load_examples(examples).rows, load_questions(questions))
    expected = {int(leak.held_out) for leak in found if leak.kind in LEAKING}
    assert len(expected) == len(LEAKS)
    for refused in (refused_by_plan, refused_by_run, stopped_by_check):
        left = dict(enumerate(rows, 1))
        while taken := refused(examples, write(tmp_path / "left.jsonl", list(left.values()))):
            numbers = list(left)
            for at in taken:
                del left[numbers[at - 1]]
        assert set(range(1, len(rows) + 1)) - set(left) == expected


def test_a_question_in_todays_prompt_is_refused_by_plan_and_run(tmp_path: Path) -> None:
    """The prompt is no part of the training rows here, so `train` knows nothing of it."""
    plain = [{"messages": row["messages"][1:]} for row in ROWS]
    examples = write(tmp_path / "examples.jsonl", plain)
    questions = write(tmp_path / "questions.jsonl", [LEAKS["in the prompt"], *HARMLESS])
    assert refused_by_plan(examples, questions) == refused_by_run(examples, questions) == {1}
    assert refused_by_plan(examples, questions, "") == refused_by_run(examples, questions, "") == set()


def test_a_near_repeat_of_the_same_fact_is_not_excused_by_leave_out(tmp_path: Path, examples: Path) -> None:
    questions = write(tmp_path / "questions.jsonl", [LEAKS["near, and the same fact"], *HARMLESS])
    plan = plan_of(examples, questions)
    lenient = plan.model_copy(update={"data": plan.data.model_copy(update={"near_repeats": "leave_out"})})
    with pytest.raises(BadInput, match="question line 1 = example line 1"):
        read_data(lenient)
