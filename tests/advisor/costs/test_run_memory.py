"""Advice and training describe one run: the same terms of memory, on a GPU and on a CPU."""

from __future__ import annotations

from typing import Any

import pytest

from advisor.costs.tokens import training_setup
from advisor.methods.registry import METHOD_BY_NAME
from advisor.questionnaire.profile import Profile
from runners.catalog import models
from runners.plan.train_config import TrainConfig
from runners.resources.machine import GIB
from runners.resources.memory_estimate import estimate_inference_memory, estimate_memory
from runners.resources.memory_terms import PROCESS_BYTES, MemoryUse
from runners.training.defaults import choose_defaults
from runners.training.gradient_checkpointing import run_setup

CARD: dict[str, Any] = {"gpu_kind": "cuda", "gpu_count": 1, "gpu_memory_gib": 80}
CPU: dict[str, Any] = {"gpu_kind": "none", "cpu_cores": 2, "ram_gib": 24}
LLAMA_3B = "llama-3.2-3b-instruct"


def profile_of(model: str, machine: dict[str, Any]) -> Profile:
    """Return the profile of a model on a machine."""
    return Profile.of({"model": model, "labelled_examples": 1000, "behaviour_gap": "high", **machine})


@pytest.mark.parametrize("use", ["full", "lora", "qlora"])
@pytest.mark.parametrize("machine", [CARD, CPU], ids=["GPU", "CPU"])
def test_advice_and_loop_hold_the_same_weights_masters_and_optimiser(
    use: MemoryUse, machine: dict[str, Any]
) -> None:
    profile = profile_of(LLAMA_3B, machine)
    shape = profile.model_shape
    assert shape is not None
    config = TrainConfig(method=use, optimizer="adamw_8bit" if use == "full" else "adamw")
    advised = estimate_memory(shape, use, training_setup(profile)).terms
    own = estimate_memory(shape, use, run_setup(config, 1, 1024, True, True, machine is CARD)).terms
    compared = ["weights", "masters", "adapters", "optimizer", *(["gradients"] if use == "full" else [])]
    for name in compared:
        assert advised.get(name) == pytest.approx(own.get(name)), name


def test_full_tuning_of_3b_holds_fp32_masters() -> None:
    """2 bytes of weight, 4 of master, 2 of 8-bit state and 4 of fp32 gradient a parameter; 23.9 GiB was said before."""
    profile = profile_of(LLAMA_3B, CARD)
    memory = METHOD_BY_NAME["full"].estimate(profile).memory
    shape = profile.model_shape
    assert memory is not None
    assert shape is not None
    assert memory.terms["masters"] == pytest.approx(4 * shape.params / GIB, abs=0.01)
    assert memory.likely > 12 * shape.params / GIB
    assert any("fp32 masters" in line for line in memory.assumptions)


def test_loop_and_estimate_choose_the_same_optimiser() -> None:
    """The settings of a run and its estimate take 8-bit AdamW from the same size on."""
    for name in ("smollm2-135m-instruct", LLAMA_3B):
        model = models.find_model(name)
        assert model is not None
        assert model.shape is not None
        settings = choose_defaults("full", rows=1000, params_b=model.shape.params / 1e9)
        chosen = settings.values["optimizer"]
        expected = "adamw_8bit" if model.shape.params >= 1e9 else "adamw"
        assert chosen == expected
        assumptions = estimate_memory(model.shape, "full").assumptions
        assert any(f"optimiser {expected.replace('_', ' ')}" in line for line in assumptions)


def test_estimate_on_a_cpu_is_that_of_the_whole_process() -> None:
    profile = profile_of("smollm2-135m-instruct", CPU)
    memory = METHOD_BY_NAME["lora"].estimate(profile).memory
    assert memory is not None
    assert memory.terms["overhead"] * GIB > PROCESS_BYTES
    assert "counts the whole process on a CPU" in memory.assumptions
    assert "gradient checkpointing off" in memory.assumptions, "it fits without"


def test_a_cpu_without_bf16_takes_fp32() -> None:
    shape = profile_of("smollm2-135m-instruct", CPU).model_shape
    half, wide = (
        Profile.of({"model": "smollm2-135m-instruct", **CPU}, shape=shape, cpu_bf16=native)
        for native in (True, False)
    )
    assert shape is not None
    weights = [estimate_memory(shape, "lora", training_setup(p)).terms["weights"] for p in (half, wide)]
    assert weights[1] == pytest.approx(2 * weights[0], abs=0.002)


def test_inference_counts_weights_cache_and_adapter() -> None:
    """8 B on 24 GiB: 15 GiB in 16 bits, 5.3 in 4; keys and values grow with rows; an unmerged adapter is held too."""
    model = models.find_model("llama-3.1-8b-instruct")
    assert model is not None
    shape = model.shape
    assert shape is not None
    wide = estimate_inference_memory(shape, 1000, 200)
    four_bit = estimate_inference_memory(shape, 1000, 200, weights="nf4-dq", adapter_rank=16)
    assert wide.terms["weights"] == pytest.approx(14.96, abs=0.05)
    assert four_bit.terms["weights"] == pytest.approx(5.31, abs=0.05)
    assert four_bit.terms["adapters"] == pytest.approx(4 * shape.adapter(16) / GIB, abs=0.001)
    many = estimate_inference_memory(shape, 1000, 200, rows=32)
    assert many.terms["kv_cache"] == pytest.approx(32 * wide.terms["kv_cache"], rel=0.02)
    on_cpu = estimate_inference_memory(shape, 1000, 200, counter="process")
    assert on_cpu.likely > wide.terms["weights"] + PROCESS_BYTES / GIB
