"""The question browser, the charts and the next steps of a report."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from advisor.display import trial_table
from advisor.report import charts, question_browser
from advisor.report.charts import Axis
from advisor.report.html import next_steps
from advisor.verdict.run_records import RunRecords
from runners.data.questions import Question
from runners.plan.schema import parse_plan
from tests.support.reports import report_from

DATA: dict[str, Any] = {
    "verdict": {"winner": "rag", "recommended": "rag", "outcome": "confirmed", "strength": "measured"},
    "arms": [
        {"arm": "rag", "score": {"mean": 0.75, "low": 0.5, "high": 1.0}},
        {"arm": "few-shot", "score": {"mean": 0.0, "low": 0.0, "high": 0.1}},
    ],
    "measured": {"seconds": {"index": 2.0}},
}
REPORT = report_from(DATA)


def test_answer_pieces_mark_gold_and_unknown_words() -> None:
    answer = "The berth costs 15.50 euros a night. [1]"
    pieces = list(
        question_browser.answer_pieces(answer, ["3.65 euros"], ["What does the berth cost?", "3.65 euros"])
    )
    assert ("gold", "euros") in pieces
    assert ("odd", "15.50") in pieces
    assert ("odd", "night") in pieces
    assert ("cite", "[1]") in pieces
    assert "".join(text for _, text in pieces) == answer
    assert ("gold", "15.50") in question_browser.answer_pieces(answer, ["15.50"], [])
    assert list(question_browser.answer_pieces("Aye, 7 boats", [], [])) == [("plain", "Aye, 7 boats")]


def test_browser_counts_questions_left_out(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {
            "arm": arm,
            "id": f"q{n}",
            "seed": 0,
            "question": "?",
            "answer": "x" * 99,
            "marked": "x" * 99,
            "citations": [],
        }
        for n in range(5)
        for arm in ("rag", "few-shot")
    ]
    plan = parse_plan(
        {
            "name": "p",
            "choice": "rag",
            "model": {"name": "m"},
            "data": {},
            "weights": {"style": 1},
            "steps": [],
        }
    )
    records = RunRecords(
        path=tmp_path, plan=plan, events=[], answers=rows, questions=[Question("q0", "?", ("x",))]
    )
    browsed = question_browser.browse_questions(records, ["few-shot", "rag"], max_characters=500)
    assert (len(browsed.rows), browsed.left_out, browsed.seeds) == (2, 3, 1)
    assert [arm["arm"] for arm in browsed.rows[0]["answers"]] == ["few-shot", "rag"]
    assert browsed.rows[0]["gold"] == ["x"]


def test_score_chart_draws_arms_on_one_scale() -> None:
    rag, few, scale = trial_table.score_chart(REPORT.arms, "rag", 80).plain.split("\n")
    assert rag.index("●") - len("few-shot  ") == round(0.75 * 59)
    assert rag.rstrip().endswith("━")
    assert few.startswith("few-shot  ●━")
    assert scale.strip().startswith("0")
    assert scale.endswith("1")
    assert trial_table.score_chart(REPORT.arms, "rag", 25).plain == ""


def test_next_steps_follow_from_the_verdict() -> None:
    commands = [command for command, _ in next_steps(REPORT, Path("runs/a desk"))]
    assert commands[0] == "tunewise ask 'runs/a desk' \"your question\""
    assert any(command.startswith("tunewise index update 'runs/a desk'/index") for command in commands)
    undecided = {**DATA["verdict"], "outcome": "undecided", "more_questions_needed": 70}
    steps = next_steps(report_from({**DATA, "verdict": undecided}), Path("/somewhere/desk"))
    assert ("tunewise report desk-more --compare desk", "compares the two runs") in steps
    assert any("about 70 more" in why for _, why in steps)
    assert not any("/somewhere" in command for command, _ in steps)


def test_axis_ticks_are_round_numbers_within_range() -> None:
    assert Axis("", 0, 210).ticks == [0, 50, 100, 150, 200]
    assert [Axis("", 2, 6, log=True).label(v) for v in Axis("", 2, 6, log=True).ticks] == [
        "100",
        "1,000",
        "10,000",
        "100,000",
        "1 M",
    ]
    assert Axis("", 0, 1).y_percent(0.25) == "75.00%"
    assert Axis("", 2, 6, log=True).x_percent(10_000) == "50.00%"


def test_memory_bar_has_a_text_alternative() -> None:
    svg = charts.memory_bar(1.0, 1.2, 1.5, 1.4, 2.0, None, 2.2)
    assert 'aria-label="estimated 1.00 to 1.50 GiB, likely 1.20; measured 1.40 GiB"' in svg
    assert 'class="ring"' not in svg
    with_process_peak = charts.memory_bar(1.0, 1.2, 1.5, 1.4, 8.0, 4.0, 4.4)
    assert 'class="ring"' in with_process_peak
    assert "measured 1.40 GiB; the whole process 4.00 GiB" in with_process_peak
    assert 'class="room"' in svg
    assert "room" not in charts.memory_bar(1.0, 1.2, 1.5, None, 64.0, None, 2.2)


def test_memory_rows_share_one_scale_and_point_out_a_miss() -> None:
    """1.59 GiB is drawn left of 2.25 GiB, whatever their rows' estimates; both are over 1.5 times the estimate."""
    end = charts.memory_scale_end([2.25, 1.59, 1.3], 23.0)
    assert end == pytest.approx(1.1 * 2.25)
    dots = [
        re.findall(
            r'class="dot missed" cx="([\d.]+)%"',
            charts.memory_bar(low, likely, high, measured, 23.0, None, end),
        )
        for low, likely, high, measured in ((1.06, 1.18, 1.3, 2.25), (0.63, 0.7, 0.77, 1.59))
    ]
    assert float(dots[0][0]) > float(dots[1][0])
    assert 'class="dot best"' in charts.memory_bar(1.0, 1.2, 1.5, 1.4, None, None, end)
    assert charts.memory_scale_end([2.0], 4.0) == 4.2  # memory of the machine that is near is on the scale
    assert "2 GiB</text>" in charts.memory_scale(end)


def test_arm_letters_are_different() -> None:
    arms = ["hybrid", "rag", "raft", "prompting", "few-shot", "rr"]
    letters = question_browser.arm_letters(arms)
    assert list(letters.values()) == ["H", "R", "A", "P", "F", "6"]


def row(number: int, answerable: bool = True, **right: bool) -> dict[str, Any]:
    answers = [
        {"arm": arm, "score": 1.0, "right": value, "refused": not answerable} for arm, value in right.items()
    ]
    texts = {"question": f"q{number}", "gold": [f"g{number}"], "reference": ""}
    return {"number": number, "answerable": answerable, "answers": answers, **texts}


def test_examples_of_the_used_arm_come_first() -> None:
    """Three right and three wrong answers; one refusal among the right ones; opened: one that tells the arms apart."""
    rows = [row(1, rag=False, lora=False), row(2, rag=True, lora=True)]
    rows += [row(n, answerable=False, rag=True, lora=False) for n in (3, 4, 5)]
    rows += [row(n, rag=n < 9, lora=False) for n in range(6, 14)]
    browsed = question_browser.BrowsedQuestions(rows, 0, 0, 1)
    examples = question_browser.example_answers(browsed, "rag")
    assert [one["number"] for one in examples["right"]] == [2, 3, 6]
    assert [one["number"] for one in examples["wrong"]] == [1, 9, 10]
    assert examples["right"][0]["wanted"] == "g2"
    assert examples["right"][1]["wanted"] == "a refusal: the documents do not say"
    assert question_browser.first_opened(browsed, "rag") == 3
    assert question_browser.first_opened(browsed, "lora") == 2
    unanswerable = [row(n, answerable=False, rag=False) for n in (20, 21, 22)]
    mixed = question_browser.BrowsedQuestions([*unanswerable, *rows], 0, 0, 1)
    assert [one["number"] for one in question_browser.example_answers(mixed, "rag")["wrong"]] == [1, 9, 20]
    refusing = question_browser.BrowsedQuestions(rows[2:5], 0, 0, 1)
    assert len(question_browser.example_answers(refusing, "rag")["right"]) == 3
    assert question_browser.example_answers(refusing, "other") == {"right": [], "wrong": []}
