"""The reasoning of models that write it before every answer is counted and priced."""

from __future__ import annotations

import pytest

from advisor.costs.call_prices import call_cost_line, profile_price
from advisor.costs.tokens import REASONING_TOKENS, assumed_token_counts, output_tokens
from advisor.questionnaire.profile import Profile
from runners.catalog.models import MODELS, REASONING_MODELS, find_model

HOSTED = "openai:{}@https://api.openai.com/v1"


def test_table_knows_the_models_that_reason_by_default() -> None:
    assert len(REASONING_MODELS) == 23
    assert set(REASONING_MODELS) <= {model.name for model in MODELS}
    kinds = {
        name: model.reasons
        for name in ("qwen3-8b", "Qwen/Qwen3-4B-Instruct-2507")
        if (model := find_model(name))
    }
    assert kinds == {"qwen3-8b": "switch", "Qwen/Qwen3-4B-Instruct-2507": ""}


@pytest.mark.parametrize(
    ("model", "reasons"),
    [
        (HOSTED.format("o4-mini"), True),
        (HOSTED.format("gpt-5-mini"), True),
        (HOSTED.format("deepseek-reasoner"), True),
        (HOSTED.format("gpt-4o-mini"), False),
        ("deepseek-r1-distill-qwen-7b", True),
        ("qwen3-8b", False),
        ("smollm2-135m-instruct", False),
    ],
)
def test_calls_pay_for_reasoning_that_cannot_be_switched_off(model: str, reasons: bool) -> None:
    profile = Profile.of({"model": model, "prompt_tokens": 200, "answer_tokens": 100})
    assert output_tokens(profile) == 100 + (REASONING_TOKENS if reasons else 0)
    price = profile_price(profile)
    expected = (200 * price.input + output_tokens(profile) * price.output) / 1e6
    assert call_cost_line(profile).per_call(1000) == pytest.approx(expected)
    assert any("reasoning" in line for line in assumed_token_counts(profile)) == reasons
