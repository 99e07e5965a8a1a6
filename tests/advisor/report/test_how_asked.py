"""The report says how chats were written for a model, and how many answers had reasoning before them."""

from __future__ import annotations

from advisor.report.data import _how_asked
from runners.plan.schema import parse_plan

PLAN = parse_plan(
    {
        "schema": 1,
        "name": "pier",
        "choice": "prompting",
        "model": {"name": "qwen3-8b"},
        "data": {},
        "steps": [{"kind": "evaluate", "arm": "prompting"}],
        "weights": {"token_f1": 1.0},
        "thinking": {"enabled": True, "max_tokens": 200},
    }
)


def test_notes_are_listed_once_and_reasoning_is_counted_by_arm() -> None:
    note = {"event": "model.note", "reason": "qwen3-8b: the model can reason"}
    result = {"arm": "prompting", "reasoned": 12, "reasoning_cut": 3}
    done = {"event": "step.done", "step": "evaluate:prompting", "inputs": "x", "result": result}
    assert _how_asked([note, note, done], PLAN) == {
        "how_asked": ("qwen3-8b: the model can reason",),
        "reasoning": (
            "prompting: reasoning cut from 12 answers, 3 of them empty because it reached 200 tokens",
        ),
    }
    assert _how_asked([{"event": "step.done", "step": "index", "result": {}}], PLAN) == {}


def test_the_form_that_answers_were_held_to() -> None:
    held = {
        "event": "answers.constrained",
        "arm": "lora",
        "reason": "answers are constrained to the 2 labels of the plan",
    }
    assert _how_asked([held, {**held, "arm": "hybrid"}], PLAN) == {"held_to_a_form": (held["reason"],)}
