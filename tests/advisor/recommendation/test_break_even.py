"""Break-even of every pair of methods, and which one is cheaper at any number of calls where costs never meet."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date
from itertools import combinations
from typing import Any

import pytest

from advisor.costs.hosting import MonthlyCost
from advisor.methods.registry import METHOD_BY_NAME
from advisor.questionnaire.profile import Profile
from advisor.recommendation.break_even import TUNED_METHODS, break_even

TODAY = date(2026, 11, 25)
WORK = {
    "labelled_examples": 1500,
    "behaviour_gap": "high",
    "calls_per_month": 40_000,
    "prompt_tokens": 200,
    "answer_tokens": 100,
    "task_needs_facts": "new",
    "corpus_tokens": 400_000,
}
HOSTED = {**WORK, "model_params_b": 8}
OWN = {**HOSTED, "gpu_kind": "cuda", "gpu_memory_gib": 24, "gpu_count": 1}
REMOTE = {**WORK, "model": "openai:claude-haiku-5.5@http://x/v1"}


def break_even_of(answers: Mapping[str, Any], today: date = TODAY) -> dict[str, Any]:
    """Return the break-even of these answers."""
    profile = Profile.of(answers)
    result = break_even(
        profile, {name: method.estimate(profile) for name, method in METHOD_BY_NAME.items()}, today
    )
    assert result is not None
    return result


def pair(result: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """Return one pair of a break-even."""
    return next(row for row in result["pairs"] if set(row["between"]) == set(names))


@pytest.mark.parametrize("answers", [HOSTED, OWN, REMOTE, {}], ids=["hosted", "own", "remote", "nothing"])
def test_break_even_has_every_pair(answers: dict[str, Any]) -> None:
    result = break_even_of(answers)
    assert {frozenset(row["between"]) for row in result["pairs"]} == {
        frozenset(two) for two in combinations(METHOD_BY_NAME, 2)
    }
    assert len(result["pairs"]) == len(METHOD_BY_NAME) * (len(METHOD_BY_NAME) - 1) // 2
    assert all(row["text"] for row in result["pairs"])
    assert result["text"]
    assert {"between", "calls", "saved_per_call_usd", "per_month", "assumptions"} <= set(result)
    assert result == json.loads(json.dumps(result, allow_nan=False))


@pytest.mark.parametrize("answers", [HOSTED, OWN, REMOTE], ids=["hosted", "own", "remote"])
def test_months_cost_the_same_at_break_even(answers: dict[str, Any]) -> None:
    result = break_even_of(answers)
    crossed = 0
    for row in result["pairs"]:
        a, b = (result["per_month"].get(name) for name in row["between"])
        if row["calls_per_month"] is None:
            assert any(
                text in row["text"] for text in ("any number of calls", "below a billion", "not compared")
            )
            continue
        crossed += 1
        one, two = (MonthlyCost.of_json(x).month(row["calls_per_month"]) for x in (a, b))
        assert one == pytest.approx(two, rel=1e-3)
    assert crossed or answers is OWN


def test_hosted_tuned_model_pays_for_its_own_gpu() -> None:
    result = break_even_of(HOSTED)
    assert result["between"] == ["few-shot", "lora"]
    assert 100_000 < result["calls"] < 10_000_000
    assert "above it lora is cheaper (yours: 40,000)" in result["text"]
    lora = result["per_month"]["lora"]
    assert lora["hit_usd"] == lora["fresh_usd"] == 0
    assert lora["fixed_usd"] > 100
    assert any("always on: 730 h" in line for line in result["assumptions"])
    assert any("spread over 12 months" in line for line in result["assumptions"])
    assert any("LoRA as a hosted service: about 0.45 USD" in line for line in result["assumptions"])


def test_break_even_on_own_gpu_rents_nothing() -> None:
    result = break_even_of(OWN)
    assert result["hosted_equivalent"]
    assert result["calls"] == 0
    assert "costs time, not money" in result["text"]
    assert result["per_month"]["lora"]["fixed_usd"] == 0
    assert (
        pair(result, "lora", "prompting")["text"] == "prompting and lora cost the same at any number of calls"
    )
    assert not result["per_month"]["full"]["open"], "it does not fit"


def test_training_cost_is_spread_over_retraining_interval() -> None:
    yearly, monthly = break_even_of(HOSTED), break_even_of({**HOSTED, "can_retrain_every_days": 30})
    kept = [row["per_month"]["lora"]["fixed_usd"] for row in (yearly, monthly)]
    assert kept[0] < kept[1]
    assert any("can_retrain_every_days" in line for line in monthly["assumptions"])


def test_endpoint_model_has_no_tuning_price() -> None:
    result = break_even_of(REMOTE)
    assert not set(TUNED_METHODS) & set(result["per_month"])
    assert "tuning claude-haiku-5.5 is not offered" in pair(result, "rag", "lora")["text"]
    cached = pair(result, "few-shot", "rag")
    assert cached["calls_per_month"], "the bank is cached only when calls are frequent, passages never"
    assert "above it few-shot is cheaper" in cached["text"]


def test_local_data_makes_all_methods_share_one_gpu() -> None:
    result = break_even_of({**HOSTED, "data_must_stay_local": True})
    assert pair(result, "few-shot", "rag")["text"].endswith("at any number of calls")
    assert {row["fresh_usd"] for row in result["per_month"].values()} == {0}
    assert "at any number of calls" in result["text"]


def test_break_even_notes_age_of_old_prices() -> None:
    later = break_even_of(REMOTE, date(2027, 6, 1))
    assert "are from 2026-10-24, 220 days old" in later["text"]
    assert any("220 days old" in line for line in later["assumptions"])
    assert "days old" not in break_even_of(REMOTE)["text"]
    assert "days old" not in break_even_of(OWN, date(2027, 6, 1))["text"], "no call is paid for"
    served = next(
        line for line in break_even_of(HOSTED, date(2027, 6, 1))["assumptions"] if "always on" in line
    )
    assert "days old" in served


def test_break_even_uses_prompting_without_examples() -> None:
    assert break_even_of({**HOSTED, "labelled_examples": 0})["between"][0] == "prompting"
