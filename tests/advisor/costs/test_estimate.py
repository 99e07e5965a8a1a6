"""Training time, training cost and call prices: published runs are inside the ranges, limits behave as they
must.
"""

from __future__ import annotations

import math
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from advisor.catalog import gpus
from advisor.costs import call_prices, hosting, rental, tokens, training_time
from advisor.costs.call_prices import usd_per_call
from advisor.costs.estimate import MethodEstimate, estimate_basis
from advisor.costs.hosting import MonthlyCost, break_even_calls, cache_hit_rate
from advisor.costs.rental import training_cost, training_usd
from advisor.costs.tokens import ASSUMED_CORPUS_TOKENS, Range, call_tokens, device_plan, training_tokens
from advisor.costs.training_time import training_device, training_hours
from advisor.methods.registry import METHOD_BY_NAME
from advisor.questionnaire.answers import Answer
from advisor.questionnaire.gather import check_model
from advisor.questionnaire.profile import Profile
from runners.catalog import models
from runners.resources.calibration import Calibration, MatrixSpeed, StoredCalibration
from runners.resources.model_shape import ModelShape, typical_shape

LLAMA_3B, LLAMA_8B, LLAMA_70B, MISTRAL_7B, SMOL = (
    "llama-3.2-3b-instruct",
    "llama-3.1-8b-instruct",
    "llama-3.1-70b-instruct",
    "mistral-7b-instruct-v0.3",
    "smollm2-135m-instruct",
)
# Tokens a second: torchtune README (8B, 3B, 70B), fms-acceleration (Mistral), PEFT MetaMathQA (L40S).
PUBLISHED = (
    (LLAMA_8B, "lora", "RTX 4090", 1, 2048, 3083),
    (LLAMA_8B, "qlora", "RTX 4090", 1, 2048, 2413),
    (LLAMA_8B, "full", "RTX 4090", 1, 2048, 1650),
    (LLAMA_8B, "full", "A6000", 1, 2048, 2579),
    (LLAMA_3B, "full", "A100 80GB", 1, 4096, 7075),
    (LLAMA_3B, "full", "A100 80GB", 1, 4096, 9174),
    (LLAMA_3B, "lora", "A100 80GB", 1, 4096, 8210),
    (LLAMA_3B, "qlora", "A100 80GB", 1, 4096, 8035),
    (LLAMA_3B, "lora", "L40S", 1, 210, 7194),
    (LLAMA_3B, "full", "L40S", 1, 210, 2315),
    (MISTRAL_7B, "lora", "A100 80GB", 1, 2048, 3597),
    (MISTRAL_7B, "qlora", "A100 80GB", 1, 2048, 3428),
    (LLAMA_70B, "lora", "A100 80GB", 8, 2048, 3497),
)


def shape(name: str) -> ModelShape:
    found = models.find_model(name)
    assert found is not None
    assert found.shape is not None
    return found.shape


@pytest.mark.parametrize("row", PUBLISHED, ids=lambda row: f"{row[0]}-{row[1]}-{row[2]}x{row[3]}-{row[5]}")
def test_published_training_speeds_are_in_range(row: tuple[Any, ...]) -> None:
    model, method, card, count, sequence, measured = row
    found = gpus.find_gpu(card)
    assert found is not None
    rate = training_time.tokens_per_second(
        shape(model), method, sequence, training_time.card_device(found, count)
    )
    assert rate.low / 1.15 <= measured <= rate.high * 1.15, "the range is for most runs, not for all"
    assert rate.likely / 2.6 <= measured <= rate.likely * 2.6


@pytest.mark.parametrize("measured", [567, 1020, 1490])
def test_recorded_cpu_training_speeds_are_in_range(measured: float) -> None:
    """benchmarks/LOG.md, training speed: SmolLM2-135M, LoRA, rows of 82 tokens."""
    plain = training_time.tokens_per_second(shape(SMOL), "lora", 82, training_time.cpu_device(2))
    assert plain.low <= measured <= plain.high
    here = MatrixSpeed("cpu", "AMD EPYC", {"fp32": 204e9, "bf16": 880e9}, threads=2)
    rate = training_time.tokens_per_second(
        shape(SMOL), "lora", 82, training_time.measured_device(here, "2026-11-25")
    )
    assert rate.low <= measured <= rate.high
    assert rate.likely == pytest.approx(1020, rel=0.1)


def test_flops_per_token_match_literature() -> None:
    """6 FLOPs per parameter for full tuning, about 4 for LoRA, 2 more with checkpointing."""
    tied = typical_shape(1.0)
    each = {
        (method, again): training_time.flops_per_token(tied, method, 0, again) / tied.params
        for method in ("full", "lora", "qlora")
        for again in (False, True)
    }
    assert each == {
        ("full", False): 6,
        ("full", True): 8,
        ("lora", False): 4,
        ("lora", True): 6,
        ("qlora", False): 4,
        ("qlora", True): 6,
    }
    seven = shape(MISTRAL_7B)
    short, long = (training_time.flops_per_token(seven, "lora", n, False) for n in (0, 8192))
    assert 1.2 < long / short < 1.3


@pytest.mark.parametrize("method", ["lora", "full"])
def test_speed_of_several_gpus_is_between_one_and_count_times(method: str) -> None:
    card = gpus.find_gpu("A100 80GB")
    assert card is not None
    one, eight = (
        training_time.tokens_per_second(shape(MISTRAL_7B), method, 2048, training_time.card_device(card, n))
        for n in (1, 8)
    )
    assert one.likely < eight.likely < 8 * one.likely
    assert one.high < eight.high <= 8 * one.high
    assert eight.likely / eight.low > one.likely / one.low, "sharding makes it less certain"


def test_training_tokens_count_raw_text_once_examples_twice() -> None:
    profile = Profile.of(
        {"labelled_examples": 100, "prompt_tokens": 60, "answer_tokens": 40, "unlabelled_tokens": 5}
    )
    assert training_tokens(profile) == 100 * 100 * 2 + 5
    sized = {"model_params_b": 1, "gpu_kind": "cuda", "gpu_memory_gib": 24}
    examples = Profile.of({**sized, "labelled_examples": 1000})
    both = Profile.of({**sized, "labelled_examples": 1000, "unlabelled_tokens": 10**6})
    a, b = training_hours(examples, "lora"), training_hours(both, "lora")
    assert a
    assert b
    assert a.likely < b.likely


@given(
    st.sampled_from(["lora", "qlora", "full"]),
    st.floats(0.1, 400),
    st.floats(1, 300),
    st.floats(1, 100),
    st.one_of(st.none(), st.floats(1, 512)),
    st.integers(1, 8),
)
@settings(max_examples=150, deadline=None)
def test_training_cost_never_rises_with_gpu_memory(
    method: str, params: float, gib: float, more: float, ram: float | None, count: int
) -> None:
    answers = {
        "model_params_b": params,
        "labelled_examples": 1000,
        "gpu_kind": "cuda",
        "gpu_count": count,
        "ram_gib": ram,
    }
    small, large = (
        training_cost(Profile.of({**answers, "gpu_memory_gib": size}), method) for size in (gib, gib + more)
    )
    assert small is None or (large is not None and large.low <= small.low and large.high <= small.high)


@pytest.mark.parametrize("method", ["lora", "qlora", "full"])
def test_training_cost_never_falls_with_model_size(method: str) -> None:
    sizes = [0.1 * 1.12**n for n in range(70)]
    found = [
        training_cost(Profile.of({"model_params_b": b, "labelled_examples": 5000}), method) for b in sizes
    ]
    known = [usd for usd in found if usd]
    assert found[: len(known)] == known, "once nothing holds it, nothing larger is held"
    assert all(a.low <= b.low and a.likely <= b.likely for a, b in pairwise(known))


def test_training_cost_is_zero_on_hardware_that_fits() -> None:
    work = {"model_params_b": 8, "labelled_examples": 1000}
    held = Profile.of({**work, "gpu_kind": "cuda", "gpu_memory_gib": 24})
    assert training_cost(held, "lora") == tokens.ZERO_RANGE
    too_large = training_cost(held, "full")
    nothing_said = training_cost(Profile.of(work), "full")
    assert too_large
    assert too_large == nothing_said
    unknown = training_cost(Profile.of({**work, "gpu_kind": "cuda"}), "lora")
    assert unknown
    assert unknown.low == 0 < unknown.likely
    assert training_cost(Profile.of({**work, "gpu_kind": "none", "ram_gib": 64}), "lora") == tokens.ZERO_RANGE
    assert training_cost(Profile.of({"model": "openai:gpt-4o-mini@http://x/v1"}), "lora") is None
    assert training_cost(Profile.of({}), "lora") is None
    lines = estimate_basis(held, "lora")
    assert any("costs no money; rented" in line for line in lines)
    assert training_usd(held, training_hours(held, "lora")) == tokens.ZERO_RANGE


def test_cheapest_rental_fits_and_has_bf16() -> None:
    profile = Profile.of({"model_params_b": 70, "labelled_examples": 1000})
    offer = rental.cheapest_rental(profile, "lora")
    assert offer
    assert offer.card.memory_gib * offer.count > 140
    assert not offer.card.name.startswith(rental.NO_BF16)
    assert (
        rental.cheapest_rental(Profile.of({"model_params_b": 90_000, "labelled_examples": 1}), "full") is None
    )


def detected(**values: Any) -> Profile:
    answers = {key: Answer(value, "detected") for key, value in values.items()}
    return Profile(**values, sources=answers)


def test_calibration_is_used_only_for_detected_hardware() -> None:
    cpu = MatrixSpeed("cpu", "a CPU", {"fp32": 200e9, "bf16": 800e9}, threads=2)
    card = MatrixSpeed("cuda", "a GPU", {"fp32": 50e12, "bf16": 300e12}, memory_gib=79.1)
    stored = StoredCalibration(Calibration(date(2026, 11, 25), "2.13.0", cpu, card))
    here = {"gpu_kind": "none", "gpu_count": 0, "gpu_memory_gib": 0.0, "cpu_cores": 2}
    assert (
        "measured here on 2026-11-25: 800 GFLOP/s bf16"
        in training_device(detected(**here), stored).description
    )
    told = Profile.of(here)
    assert training_device(told, stored) == training_time.cpu_device(2), (
        "written answers never depend on this machine"
    )
    assert "measured" not in training_device(detected(**{**here, "cpu_cores": 4}), stored).description
    assert (
        "it measured 2 threads"
        in training_time.training_time_assumptions(detected(**{**here, "cpu_cores": 4}), stored)[1]
    )
    changed = detected(**here).change("cpu_cores", 8)
    assert training_device(changed, stored).flops.likely == pytest.approx(0.6 * 800e9 * 4)
    gpu = {"gpu_kind": "cuda", "gpu_count": 1, "gpu_memory_gib": 79.1, "cpu_cores": 2}
    assert "300.0 TFLOP/s bf16" in training_device(detected(**gpu), stored).description
    assert "measured" not in training_device(detected(**{**gpu, "gpu_memory_gib": 24.0}), stored).description
    broken = StoredCalibration(ignored="the calibration x is damaged")
    assert training_device(detected(**here), broken) == training_time.cpu_device(2)
    assert "the calibration x is damaged" in training_time.training_time_assumptions(detected(**here), broken)


def test_prompt_cache_pays_from_second_call() -> None:
    """1.25 + 0.1 (n - 1) < n from n = 2 on: one write and then reads, against uncached tokens every time."""
    price = 1.25, 0.1
    assert [price[0] + price[1] * (n - 1) < n for n in (1, 2, 3)] == [False, True, True]
    line = MonthlyCost(0.0, fresh=1.0, hit=0.1, write=1.25)
    assert line.per_call(1) == 1.0, "calls too rare to find the cache do not use it"
    assert line.per_call(1e7) == pytest.approx(0.1)
    assert line.per_call(30_000) == pytest.approx(
        0.1 * cache_hit_rate(30_000) + 1.25 * (1 - cache_hit_rate(30_000))
    )
    assert cache_hit_rate(8760) == pytest.approx(1 - math.exp(-1)), "one call in five minutes on average"


def test_call_cost_caches_only_long_fixed_prefixes() -> None:
    haiku = {"model": "openai:claude-haiku-5.5@http://x/v1", "calls_per_month": 100_000}
    profile = Profile.of(haiku)
    assert call_prices.call_cost_line(profile, fixed=1000).straight, "under 1,024 tokens nothing is cached"
    bank = call_prices.call_cost_line(profile, fixed=3000)
    plain = call_prices.call_cost_line(profile)
    assert bank.hit - plain.fresh == pytest.approx(0.1 * (bank.fresh - plain.fresh)), "3,000 cost like 300"
    assert bank.write - plain.fresh == pytest.approx(1.25 * (bank.fresh - plain.fresh))
    assert call_prices.call_cost_line(profile, fresh=3000).straight, "passages differ each time"
    assert plain.fresh < usd_per_call(profile, fixed=3000) < usd_per_call(profile, fresh=3000)
    rare = Profile.of({**haiku, "calls_per_month": 100})
    assert usd_per_call(rare, fixed=3000) == usd_per_call(rare, fresh=3000)


def test_call_tokens_of_each_method() -> None:
    profile = Profile.of({"task_needs_facts": "new", "corpus_tokens": 30_000, "model_params_b": 8})
    assert call_tokens(profile, "long-context") == (30_000, 0, 0), "a cache can hold all documents"
    assert call_tokens(Profile.of({}), "long-context") == (ASSUMED_CORPUS_TOKENS, 0, 0)
    assert call_tokens(profile, "prompting") == (0, 0, 0)
    assert call_tokens(profile, "few-shot") == (8 * 300, 0, 0)
    assert call_tokens(profile, "rag") == call_tokens(profile, "hybrid") == (0, 1024, 0)
    assert call_tokens(profile, "lora") == (0, 0, 0)


def test_profile_price_is_own_else_by_size_else_reference() -> None:
    assert call_prices.profile_price(Profile.of({"model": "openai:gpt-4o-mini@http://x/v1"})).input == 0.15
    assert call_prices.profile_price(Profile.of({"model_params_b": 8})).input == pytest.approx(0.08)
    assert call_prices.profile_price(Profile.of({"model_params_b": 0.1})).input == 0.01
    assert call_prices.profile_price(Profile.of({})) == call_prices.prices.reference_price()
    old = call_prices.call_price_basis(
        Profile.of({"model": "openai:gpt-4o-mini@http://x/v1"}), date(2027, 6, 1)
    )
    assert any("2026-05-07, 390 days old" in line for line in old)


def test_call_price_basis_names_defaults_and_own_machine() -> None:
    basis = call_prices.call_price_basis(Profile.of({"model_params_b": 1, "gpu_kind": "none", "ram_gib": 32}))
    assert "electricity only" in basis[0]
    assert any("assumed: prompt_tokens is unknown" in line for line in basis)
    counted = Profile.of({"model_params_b": 1, "prompt_tokens": 9, "answer_tokens": 9, "calls_per_month": 5})
    assert not any(
        "assumed" in line or "electricity" in line for line in call_prices.call_price_basis(counted)
    )


def test_cheapest_serving_fits_the_model() -> None:
    served = hosting.cheapest_serving(Profile.of({"model_params_b": 8}))
    assert served
    assert served.card.memory_gib >= 16
    assert served.month_usd == pytest.approx(730 * (served.card.usd_hour or 0) * served.count)
    assert served.per_call_usd * served.capacity == pytest.approx(served.month_usd)
    assert hosting.cheapest_serving(Profile.of({"model": "openai:x@http://x/v1"})) is None


def test_break_even_calls_is_where_costs_are_equal() -> None:
    hosted, card = MonthlyCost(0.0, 0.001, 0.001, 0.001), MonthlyCost(500.0, 0.0, 0.0, 0.0)
    assert break_even_calls(hosted, card) == break_even_calls(card, hosted) == pytest.approx(500_000)
    assert break_even_calls(hosted, hosted) is None
    assert (
        break_even_calls(MonthlyCost(0.0, 0.001, 0.001, 0.001), MonthlyCost(1.0, 0.002, 0.002, 0.002)) is None
    )
    cached = MonthlyCost(0.0, 0.01, 0.001, 0.0125)
    met = break_even_calls(cached, card)
    assert met is not None
    assert cached.month(met) == pytest.approx(500, rel=1e-4)
    assert MonthlyCost.of_json(cached.to_json()) == cached


def test_method_estimate_json_matches_contract(tmp_path: Path) -> None:
    row = MethodEstimate(hours=Range(1, 2, 3), usd=tokens.ZERO_RANGE, per_call_usd=0.001234).to_json()
    assert row["hours"] == {"low": 1.0, "likely": 2.0, "high": 3.0, "coverage": training_time.HOURS_COVERAGE}
    assert row["usd"] == {"low": 0.0, "likely": 0.0, "high": 0.0}, "nothing is uncertain"
    assert row["per_call_usd"] == 0.00123


def test_prices_of_a_long_prompt_name_both_lives_of_a_cache() -> None:
    """At 50 calls a day a cache of five minutes is mostly lost, one of an hour mostly found."""
    asked = Profile.of({"model": "openai:claude-sonnet-5.5@https://h/v1", "calls_per_month": 1_500})
    (text,) = call_prices.cache_prices(asked, 40_000)
    assert "0.081 USD a call without" in text
    assert "16% of 1,500 calls a month find it" in text
    assert "87% of 1,500 calls a month find it" in text
    assert call_prices.cache_prices(asked, 1_000) == (), "too short for a cache"
    assert call_prices.cache_prices(Profile.of({"model_params_b": 1, "gpu_memory_gib": 24}), 40_000) == ()


def test_experts_in_use_set_speed_and_price_and_all_of_them_memory() -> None:
    """Of 30.5 billion parameters a token uses 3.35: a tenth of a dense model's time, and a lower price."""
    sparse, dense = (
        Profile.of({"model": name, "prompt_tokens": 500}) for name in ("qwen3-30b-a3b", "qwen3-32b")
    )
    card = gpus.find_gpu("A100 80GB")
    assert card is not None
    assert sparse.model_shape is not None
    assert dense.model_shape is not None
    ratio = sparse.model_shape.active_params / dense.model_shape.params
    assert ratio == pytest.approx(3.353 / 32.762, rel=0.001)
    seconds = [
        hosting.seconds_per_call(each, each.model_shape, card) for each in (sparse, dense) if each.model_shape
    ]
    assert seconds[0] / seconds[1] == pytest.approx(ratio)
    assert call_prices.profile_price(sparse).input < call_prices.profile_price(dense).input
    assert device_plan(sparse, "inference").alone.likely > 0.9 * device_plan(dense, "inference").alone.likely


@pytest.mark.parametrize("method", sorted(METHOD_BY_NAME))
def test_a_known_model_without_a_shape_has_no_memory_estimate(method: str) -> None:
    """It is estimated from a folder or its config on the hub; nothing is guessed from the size in its name."""
    profile = Profile.of(
        {"model": "qwen3.5-2b", "labelled_examples": 500, "gpu_memory_gib": 24, "gpu_kind": "cuda"}
    )
    assert profile.model_shape is None
    assert METHOD_BY_NAME[method].estimate(profile).memory is None
    assert "the size of qwen3.5-2b is not known here" in check_model("qwen3.5-2b")
