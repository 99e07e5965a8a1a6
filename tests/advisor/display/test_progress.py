"""The lines of ProgressWatcher for events without a progress bar."""

from __future__ import annotations

from io import StringIO
from typing import Any

from rich.console import Console

from advisor.display.progress import ProgressWatcher
from advisor.output import configure_output


def watcher_output(*events: dict[str, Any]) -> str:
    """Return what a watcher prints of these events."""
    out = StringIO()
    watcher = ProgressWatcher(Console(file=out, width=200), None)
    for event in events:
        watcher(event)
    return out.getvalue()


def test_watcher_prints_what_a_step_left_out() -> None:
    output = watcher_output(
        {"event": "step.start", "step": "index", "number": 1, "total": 2},
        {
            "event": "step.end",
            "step": "index",
            "skipped": [{"path": "a.bin", "reason": "not a known format"}],
            "refusal": {"note": "too few dev questions: the default is used"},
        },
    )
    assert "3 answers cut" in watcher_output({"event": "step.end", "step": "evaluate:rag", "cut": 3})
    assert "cut" not in watcher_output({"event": "step.end", "step": "evaluate:rag", "cut": 0})
    assert "[1/2] index" in output
    assert "a.bin was skipped: not a known format" in output
    assert "the default is used" in output


def test_watcher_prints_rejected_rows_and_warnings() -> None:
    output = watcher_output(
        {"event": "row.rejected", "file": "e.jsonl", "line": 7, "reason": "no answer"},
        {"event": "train.start", "warnings": ["2 rows are longer than 64 tokens and skipped"]},
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
    assert "e.jsonl, line 7 skipped: no answer" in output
    assert "2 rows are longer" in output
    assert "3 with the passages that the search found, because none supports their reply" in output


def test_watcher_prints_why_transformers_decodes_and_what_it_follows() -> None:
    event = {
        "event": "decode.start",
        "path": "plain",
        "applied": {"repetition_penalty": 1.1},
        "ignored": ["top_k"],
    }
    output = watcher_output({**event, "reason": "it has layers with a sliding window"})
    assert "answers are decoded by transformers' generate: it has layers with a sliding window" in output
    assert "every answer follows the model's generation_config: repetition_penalty 1.1" in output
    assert "by transformers" not in watcher_output({**event, "reason": "kernels plain: asked for"})
    assert watcher_output({**event, "path": "fast", "reason": "", "applied": {}}) == ""


def test_watcher_prints_what_answers_are_held_to() -> None:
    event = {
        "event": "answers.constrained",
        "arm": "lora",
        "reason": "answers are constrained to the 2 labels of the plan",
    }
    assert "answers are constrained to the 2 labels of the plan" in watcher_output(event)


def test_watcher_prints_reasons_of_settings_only_when_verbose() -> None:
    """They are in the report; --verbose prints equal ones once."""
    plan = {"event": "train.plan", "reasons": {"rank": "16 because"}}
    assert watcher_output(plan, plan) == ""
    configure_output(verbose=True)
    try:
        assert watcher_output(plan, plan).count("rank: 16 because") == 1
    finally:
        configure_output()


def test_watcher_prints_prompt_choice_and_classifier() -> None:
    tried = {"event": "prompt.tried", "prompt": "others, rules listed", "questions": 5, "score": 0.4}
    chosen = {
        "event": "prompt.chosen",
        "reason": "the examples drawn by the seed: no others are tried in a quick run, or with a budget of 0",
    }
    learnt = {
        "event": "classifier.trained",
        "labels": 3,
        "rows": 60,
        "left_out": 2,
        "accuracy": 0.915,
        "c": 10.0,
    }
    output = watcher_output(tried, chosen, learnt, {**learnt, "left_out": 0, "accuracy": None})
    assert "others, rules listed: 0.40 on 5 dev questions" in output
    assert (
        "the examples drawn by the seed: no others are tried in a quick run, or with a budget of 0" in output
    )
    assert "3 labels from 60 examples, cross-validated accuracy 0.92 (C 10); 2 skipped" in output
    assert "3 labels from 60 examples (C 10)\n" in output
    tuned = {**learnt, "split_rows": 15, "compared": "a; b", "untried": ["c: left out"], "notes": ["d"]}
    output = watcher_output({"event": "classifier.tuning", "reason": "b: on 45 rows"}, tuned)
    assert "b: on 45 rows" in output
    assert "3 labels from 60 examples, accuracy on 15 held-out rows 0.92 (C 10)" in output
    assert [
        line for line in ("compared on held-out rows: a; b", "c: left out", "d") if line not in output
    ] == []


def test_lines_of_steps_that_run_at_once_name_their_arm() -> None:
    tried = {"event": "prompt.tried", "prompt": "fixed", "score": 0.5, "questions": 4}
    beside = {"beside": "evaluate:rag@b"}
    local = {"event": "step.start", "step": "evaluate:rag@a", "number": 1, "total": 2}
    before, _, after = watcher_output(
        local,
        tried,
        {"event": "step.start", "step": "evaluate:rag@b", "number": 2, "total": 2, **beside},
        tried,
        tried | beside,
        {"event": "step.end", "step": "evaluate:rag@b", **beside},
        tried,
    ).partition("[2/2]")
    assert "  fixed: 0.50 on 4 dev questions" in before
    lines = [line for line in after.splitlines() if "fixed" in line]
    assert [line.partition("fixed")[0] for line in lines] == ["  rag@a: ", "  rag@b: ", "  "]
