"""What a run says on stderr: nothing that was left out goes unsaid."""

from __future__ import annotations

from io import StringIO

from rich.console import Console

from advisor.display.progress import ProgressWatcher


def told(*events: dict[str, object]) -> str:
    out = StringIO()
    watcher = ProgressWatcher(Console(file=out, width=200), None)
    for event in events:
        watcher(event)
    return out.getvalue()


def test_what_a_step_left_out_is_said() -> None:
    said = told(
        {"event": "step.start", "step": "index", "number": 1, "total": 2},
        {
            "event": "step.end",
            "step": "index",
            "skipped": [{"path": "a.bin", "reason": "not a known format"}],
            "refusal": {"note": "too few dev questions: the default is used"},
        },
    )
    assert "3 answers were cut" in told({"event": "step.end", "step": "evaluate:rag", "cut": 3})
    assert "cut" not in told({"event": "step.end", "step": "evaluate:rag", "cut": 0})
    assert "[1/2] index" in said
    assert "a.bin was left out: not a known format" in said
    assert "the default is used" in said


def test_rejected_rows_and_warnings_of_training_are_said() -> None:
    said = told(
        {"event": "row.rejected", "file": "e.jsonl", "line": 7, "reason": "no answer"},
        {"event": "train.start", "warnings": ["2 rows are longer than 64 tokens and left out"]},
        {
            "event": "rows.prepared",
            "rows": 9,
            "with_gold": 6,
            "without_gold": 1,
            "refusals": 2,
            "unsupported": 3,
            "quoted": 4,
        },
    )
    assert "e.jsonl, line 7 left out: no answer" in said
    assert "2 rows are longer" in said
    assert "3 examples left out" in said


def test_reasons_are_said_once_for_the_same_settings() -> None:
    plan = {"event": "train.plan", "reasons": {"rank": "16 because"}}
    assert told(plan, plan).count("rank: 16 because") == 1


def test_how_a_prompt_was_chosen_and_labels_were_learnt_is_said() -> None:
    tried = {"event": "prompt.tried", "prompt": "others, rules listed", "questions": 5, "score": 0.4}
    chosen = {"event": "prompt.chosen", "reason": "the fixed bank: a budget of 0 tries no other"}
    learnt = {
        "event": "classifier.trained",
        "labels": 3,
        "rows": 60,
        "left_out": 2,
        "accuracy": 0.915,
        "c": 10.0,
    }
    said = told(tried, chosen, learnt, {**learnt, "left_out": 0, "accuracy": None})
    assert "others, rules listed: 0.40 on 5 dev questions" in said
    assert "the fixed bank: a budget of 0 tries no other" in said
    assert "3 labels from 60 examples, cross-validated accuracy 0.92 (C 10); 2 left out" in said
    assert "3 labels from 60 examples (C 10)\n" in said
