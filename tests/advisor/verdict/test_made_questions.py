"""Made questions never decide a verdict: real ones are judged, and on made ones alone nothing is confirmed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from advisor.report.data import read_scores
from advisor.verdict.made_questions import (
    judge_on_real_questions,
    made_column,
    made_questions,
    origin_note,
    split_by_origin,
)
from advisor.verdict.verdict import judge_trial
from runners.data.questions import load_questions
from runners.report.arm_scores import rows_without_gold
from runners.report.json_records import to_json
from runners.trial.trial import ArmScores, write_scores
from tests.advisor.verdict.test_verdict import arms, plan
from tests.support.reports import report_from


def marked(measured: list[ArmScores], made: int) -> list[ArmScores]:
    """The same scores, with the last questions marked as made."""
    return [
        replace(arm, made=tuple(n >= len(arm.questions) - made for n in range(len(arm.questions))))
        for arm in measured
    ]


SCORES = {"prompting": 0.2, "rag": 0.4, "lora": 0.5, "hybrid": 0.8}


def test_without_made_questions_nothing_changes() -> None:
    measured = arms(60, **SCORES)
    judged = judge_on_real_questions(plan(), measured, "m")
    assert judged.verdict == judge_trial(plan(), measured, "m")[0]
    assert judged.beside == ()
    assert made_questions(measured) is None
    assert origin_note(None) == ""


def test_the_verdict_is_that_on_the_real_questions() -> None:
    # on the made questions the other arms are the best, by far
    real, other = arms(60, **SCORES), arms(60, prompting=0.9, rag=0.9, lora=0.9, hybrid=0.1)
    names = [f"m{n}" for n in range(60)]
    both = [
        replace(
            a,
            questions=(*a.questions, *names),
            scores=(*a.scores, *b.scores),
            combined=(*a.combined, *b.combined),
            seconds=(*a.seconds, *b.seconds),
            prompt_tokens=(*a.prompt_tokens, *b.prompt_tokens),
            completion_tokens=(*a.completion_tokens, *b.completion_tokens),
            documents=(*a.sources(), *b.sources()),
            made=(False,) * 60 + (True,) * 60,
        )
        for a, b in zip(real, other, strict=True)
    ]
    judged = judge_on_real_questions(plan(), both, "m")
    alone = judge_on_real_questions(plan(), real, "m").verdict
    assert (
        (judged.verdict.outcome, judged.verdict.strength)
        == (alone.outcome, alone.strength)
        == ("confirmed", "measured")
    )
    assert judged.verdict.text == alone.text
    assert [len(arm.combined) for arm in judged.arms] == [60] * 4
    column = made_column(next(arm for arm in judged.beside if arm.arm == "rag"))
    assert column.n == 60
    assert column.score is not None
    assert column.score.mean > 0.8
    rag, lora = report_from({"arms": [{"arm": "rag", "made": to_json(column)}, {"arm": "lora"}]}).arms
    assert rag.made_cells[1] == f"{column.score.mean:.2f}"
    assert lora.made_cells == ("–", "–")
    counts = made_questions(both, {"dev": 3, "dev_of": 20, "rows": 0, "rows_of": 9})
    assert to_json(counts) == {"test": 60, "test_of": 120, "dev": 3, "dev_of": 20, "rows": 0, "rows_of": 9}
    note = origin_note(counts)
    assert "60 of 120 test questions were made" in note
    assert "60 real ones" in note
    assert "3 of 20 dev questions" in note


def test_rows_that_nothing_can_judge_are_left_out_of_scores_and_differences() -> None:
    """Rows of a log without gold would count 0 for every arm; differences are those of the rows with gold."""
    with_gold = [
        replace(arm, scores=tuple({"right": value} for value in arm.combined)) for arm in arms(60, **SCORES)
    ]
    names = [f"log{n}" for n in range(90)]
    both = [
        replace(
            arm,
            questions=(*arm.questions, *names),
            scores=(*arm.scores, *({} for _ in names)),
            combined=(*arm.combined, *(0.0 for _ in names)),
            seconds=(*arm.seconds, *(0.1 for _ in names)),
            prompt_tokens=(*arm.prompt_tokens, *(1 for _ in names)),
            completion_tokens=(*arm.completion_tokens, *(1 for _ in names)),
            documents=(*arm.sources(), *(None for _ in names)),
        )
        for arm in with_gold
    ]
    judged, alone = (judge_on_real_questions(plan(), scored, "m") for scored in (both, with_gold))
    assert judged.pairs == alone.pairs
    assert judged.verdict == alone.verdict
    assert rows_without_gold(both) == 90
    none_has_gold = [replace(arm, scores=tuple({} for _ in arm.questions)) for arm in both]
    assert rows_without_gold(none_has_gold) == 0, "then the plan's other scores decide"


@pytest.mark.parametrize("scores", [SCORES, {**SCORES, "hybrid": 0.1}])
def test_made_questions_alone_confirm_and_overturn_nothing(scores: dict[str, float]) -> None:
    measured = marked(arms(60, **scores), 60)
    verdict = judge_on_real_questions(plan(), measured, "m").verdict
    assert (verdict.outcome, verdict.strength, verdict.gate_met) == ("undecided", "made", None)
    assert verdict.use
    assert "nothing is confirmed or overturned" in verdict.text
    assert "tunewise eval RUN --questions FILE" in verdict.text
    assert split_by_origin(measured)[1] == ()
    assert "none was asked by anybody" in origin_note(made_questions(measured))


def test_the_mark_is_in_scores_and_question_files(tmp_path: Path) -> None:
    (tmp_path / "trial").mkdir()
    measured = marked(arms(5, **SCORES), 2)
    write_scores(measured, tmp_path / "trial" / "scores.json")
    assert read_scores(tmp_path)[0].made == (False, False, False, True, True)
    write_scores(arms(5, **SCORES), tmp_path / "trial" / "scores.json")
    assert "made" not in json.loads((tmp_path / "trial" / "scores.json").read_text("utf-8"))
    assert read_scores(tmp_path)[0].made == ()
    rows = [{"question": "A b?"}, {"question": "C d?", "made": True}, {"question": "E f?", "synthetic": True}]
    rows.append({"question": "G h?", "meta": {"made": True}})
    file = tmp_path / "q.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    assert [question.made for question in load_questions(file)] == [False, True, True, True]
