"""The drafted plan switches reasoning on where the examples hold it, and says what a known model does."""

from __future__ import annotations

import pytest

from advisor.drafting.draft import _thinking
from advisor.questionnaire.profile import Profile
from runners.data.examples import Example
from runners.plan.schema import Plan, parse_plan
from runners.plan.steps import Thinking

PLAN = {
    "schema": 1,
    "name": "pier",
    "choice": "prompting",
    "model": {"name": "smollm2-135m-instruct"},
    "data": {},
    "steps": [{"kind": "evaluate", "arm": "prompting"}],
    "weights": {"token_f1": 1.0},
}


def row(reply: str) -> Example:
    """Return an example with this reply."""
    return Example(({"role": "user", "content": "When?"}, {"role": "assistant", "content": reply}))


def test_rows_with_reasoning_switch_it_on_with_room_for_the_longest() -> None:
    rows = [row(f"<think>{'Hm. ' * 400}</think>At nine.")] * 3 + [row("At ten.")]
    thinking, note = _thinking(Profile.of({}), rows)
    assert thinking.enabled
    assert thinking.max_tokens >= 1600 / 4
    assert "3 of 4 examples have reasoning" in note


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("smollm2-135m-instruct", ""),
        ("qwen3-8b", "can reason before it answers: that is off"),
        ("deepseek-r1-distill-qwen-7b", "always reasons"),
        ("openai:o4-mini@https://api.openai.com/v1", "reasons before it answers"),
    ],
)
def test_note_on_what_the_model_does(model: str, words: str) -> None:
    thinking, note = _thinking(Profile.of({"model": model}), [row("At nine.")])
    assert thinking == Thinking()
    assert words in note
    assert bool(note) == bool(words)


def test_key_is_left_out_of_plans_at_its_default() -> None:
    plan = parse_plan(PLAN)
    assert "thinking" not in plan.model_dump(mode="json")
    on = parse_plan({**PLAN, "thinking": {"enabled": True}})
    assert on.model_dump(mode="json")["thinking"] == {"enabled": True, "max_tokens": 1024}
    assert Plan.model_validate(on.model_dump(mode="json", by_alias=True)) == on
    assert on.digest() != plan.digest()
