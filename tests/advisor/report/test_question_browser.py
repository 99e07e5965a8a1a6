"""The questions of a report: what is right, which words are marked, what is left out, and the arms as characters."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from advisor.display import trial_table
from advisor.report import charts, question_browser
from advisor.report.charts import Axis
from advisor.report.html import next_steps
from runners.data.questions import Question

DATA = {
    "verdict": {"winner": "rag", "recommended": "rag", "outcome": "confirmed", "strength": "measured"},
    "arms": [
        {"arm": "rag", "score": {"mean": 0.75, "low": 0.5, "high": 1.0}},
        {"arm": "few-shot", "score": {"mean": 0.0, "low": 0.0, "high": 0.1}},
    ],
    "measured": {"seconds": {"index": 2.0}},
}


def test_words_of_the_gold_and_words_of_nowhere_are_told_apart() -> None:
    said = "The berth costs 15.50 euros a night. [1]"
    found = list(
        question_browser.answer_pieces(said, ["3.65 euros"], ["What does the berth cost?", "3.65 euros"])
    )
    assert ("gold", "euros") in found
    assert ("odd", "15.50") in found
    assert ("odd", "night") in found
    assert ("cite", "[1]") in found
    assert "".join(text for _, text in found) == said
    assert ("gold", "15.50") in question_browser.answer_pieces(said, ["15.50"], [])
    assert list(question_browser.answer_pieces("Aye, 7 boats", [], [])) == [("plain", "Aye, 7 boats")]


@pytest.mark.parametrize(
    ("scores", "answerable", "right"),
    [
        ({"refusal": 1.0, "agreement": 1.0, "fact_recall": 0.5, "combined": 0.1}, True, True),
        ({"refusal": 1.0, "agreement": 0.0, "fact_recall": 1.0, "style": 1.0, "combined": 0.9}, True, False),
        ({"refusal": 0.0, "combined": 0.9}, False, False),
        ({"refusal": 1.0, "style": 0.0, "combined": 0.4}, False, True),
        ({"refusal": 1.0, "token_f1": 0.0, "combined": 0.4}, True, False),
        ({"style": 1.0, "combined": 0.6}, True, True),
    ],
)
def test_manner_does_not_make_a_wrong_fact_right(
    scores: dict[str, float], answerable: bool, right: bool
) -> None:
    assert question_browser.is_right(scores, answerable) is right


def test_what_does_not_fit_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "trial").mkdir()
    rows = [
        {
            "arm": a,
            "id": f"q{n}",
            "seed": 0,
            "question": "?",
            "answer": "x" * 99,
            "marked": "x" * 99,
            "citations": [],
        }
        for n in range(5)
        for a in ("rag", "few-shot")
    ]
    (tmp_path / "trial" / "answers.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows), "utf-8")
    monkeypatch.setattr(question_browser, "MAX_CHARACTERS", 500)
    found = question_browser.browse_questions(tmp_path, ["few-shot", "rag"], [Question("q0", "?", ("x",))])
    assert (len(found.rows), found.left_out, found.seeds) == (2, 3, 1)
    assert [a["arm"] for a in found.rows[0]["answers"]] == ["few-shot", "rag"]
    assert found.rows[0]["gold"] == ["x"]


def test_arms_are_drawn_with_characters_on_one_scale() -> None:
    rag, few, scale = trial_table.score_chart(DATA, 80).plain.split("\n")
    assert rag.index("●") - len("few-shot  ") == round(0.75 * 59)
    assert rag.rstrip().endswith("━")
    assert few.startswith("few-shot  ●━")
    assert scale.strip().startswith("0")
    assert scale.endswith("1")
    assert trial_table.score_chart(DATA, 25).plain == ""


def test_next_steps_follow_from_the_verdict() -> None:
    commands = [command for command, _ in next_steps(DATA, Path("runs/a desk"))]
    assert commands[0] == "tunewise ask 'runs/a desk' \"your question\""
    assert any(c.startswith("tunewise index update 'runs/a desk'/index") for c in commands)
    undecided = {**DATA["verdict"], "outcome": "undecided", "more_questions_needed": 70}
    told = next_steps({**DATA, "verdict": undecided}, Path("/somewhere/desk"))
    assert ("tunewise report desk-more --compare desk", "sets the two runs side by side") in told
    assert any("about 70 more" in why for _, why in told)
    assert not any("/somewhere" in command for command, _ in told)


def test_axes_name_round_numbers_within_their_ends() -> None:
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


def test_a_bar_of_memory_says_what_it_draws() -> None:
    drawn = charts.memory_bar(1.0, 1.2, 1.5, 1.4, 2.0)
    assert 'aria-label="estimated 1.00 to 1.50 GiB, likely 1.20; measured 1.40 GiB"' in drawn
    assert 'class="ring"' not in drawn
    whole = charts.memory_bar(1.0, 1.2, 1.5, 1.4, 8.0, 4.0)
    assert 'class="ring"' in whole
    assert "measured 1.40 GiB; the whole process 4.00 GiB" in whole
    assert 'class="room"' in drawn
    assert "room" not in charts.memory_bar(1.0, 1.2, 1.5, None, 64.0)
