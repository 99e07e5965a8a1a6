"""Memory estimates: properties that hold for all of them, and published facts that they reproduce."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runners.resources.machine import GIB
from runners.resources.memory_estimate import (
    ESTIMATE_ACCURACY,
    FitVerdict,
    estimate_memory,
    fits,
    smallest_memory,
)
from runners.resources.memory_terms import CUDA_CONTEXT_BYTES, FittedConstants, MemorySetup, MemoryUse
from runners.resources.model_shape import ModelShape, typical_shape

LLAMA_7B = ModelShape(6_738_000_000, 32, 4096, 32, 32, 128, 11008, 32000, tied=False)
USES: tuple[MemoryUse, ...] = ("full", "lora", "qlora", "inference")


def test_peak_is_at_loss_or_at_end_of_backward() -> None:
    """Full tuning with checkpoints is highest when all gradients are there; without, when the loss is known."""
    late = estimate_memory(LLAMA_7B, "full", MemorySetup(program="other", checkpointing=True))
    assert late.terms["gradients"] == pytest.approx(2 * 6.738e9 / GIB, abs=0.01)
    assert "logits" not in late.terms
    early = estimate_memory(
        LLAMA_7B, "full", MemorySetup(program="other", batch=8, checkpointing=False, loss="full")
    )
    assert "gradients" not in early.terms, "the head's is made when the log-probabilities are freed"
    assert early.terms["logits"] == pytest.approx(14 * 8192 * 32000 / GIB, abs=0.01)


@pytest.mark.parametrize("use", USES)
def test_terms_add_up_and_accuracy_is_stated(use: MemoryUse) -> None:
    """The parts make the likely figure; the context of the device has no spread; the record is printed."""
    found = estimate_memory(LLAMA_7B, use)
    assert found.likely == pytest.approx(sum(found.terms.values()), abs=0.01)
    assert found.terms["overhead"] == pytest.approx(CUDA_CONTEXT_BYTES / GIB, abs=0.001)
    spread = found.likely - CUDA_CONTEXT_BYTES / GIB
    assert found.high - found.likely == pytest.approx((ESTIMATE_ACCURACY[use].high - 1) * spread, abs=0.01)
    assert found.assumptions[-1] == ESTIMATE_ACCURACY[use].text()


@pytest.mark.parametrize(
    ("params_b", "use", "devices", "gib", "verdicts"),
    [
        (65, "qlora", 1, 48, ("yes", "tight")),
        (33, "qlora", 1, 24, ("yes", "tight")),
        (70, "qlora", 2, 24, ("yes", "tight")),
        (8, "qlora", 1, 10, ("yes",)),
        (8, "lora", 1, 10, ("no",)),
        (7, "lora", 1, 24, ("yes", "tight")),
        (7, "full", 1, 24, ("no",)),
        (65, "full", 1, 80, ("no",)),
    ],
)
def test_estimates_match_published_facts(
    params_b: float, use: MemoryUse, devices: int, gib: float, verdicts: tuple[FitVerdict, ...]
) -> None:
    """What was run: QLoRA's 65 B on 48 GB and 33 B on 24 GB, Answer.AI's 70 B on two of 24 GB, and the like."""
    setup = MemorySetup(devices=devices, parallel="fsdp_4bit")
    assert smallest_memory(typical_shape(params_b), use, setup).fits(gib) in verdicts


def test_paged_optimizer_state_leaves_full_gpu() -> None:
    """torchtune's 8 B: the state stays on 48 GB and leaves 24 GB; an unknown card holds it."""
    shape = ModelShape(8_030_000_000, 32, 4096, 32, 8, 128, 14336, 128256, tied=False)
    setup = MemorySetup(
        program="other", optimizer="paged_adamw_8bit", optimizer_in_backward=True, device_gib=24
    )
    assert "optimizer" not in estimate_memory(shape, "full", setup).terms
    for room in (48.0, None):
        assert estimate_memory(shape, "full", replace(setup, device_gib=room)).terms["optimizer"] > 15


def test_fit_verdict_is_yes_tight_or_no() -> None:
    """Yes, tight, no; unknown memory is unknown."""
    found = estimate_memory(LLAMA_7B, "lora")
    rooms = (found.high, found.likely, found.low - 0.1, None)
    assert [found.fits(room) for room in rooms] == ["yes", "tight", "no", None]
    assert found.to_json(100)["fits"] == "yes"


def test_estimate_is_fast() -> None:
    """A cached estimate takes microseconds, a new one well under a millisecond."""
    shape = typical_shape(7)
    smallest_memory(shape, "lora")
    start = time.thread_time()
    for _ in range(1000):
        smallest_memory(shape, "lora")
    assert (time.thread_time() - start) / 1000 < 50e-6


SETUPS = st.builds(
    MemorySetup,
    batch=st.integers(1, 16),
    seq_len=st.integers(1, 8192),
    rank=st.integers(1, 256),
    checkpointing=st.booleans(),
    devices=st.integers(1, 8),
    parallel=st.sampled_from(["fsdp", "fsdp_4bit"]),
    compiled=st.booleans(),
    optimizer=st.sampled_from(["adamw", "adamw_fp32", "adamw_8bit", "lion", "adafactor", "sgd"]),
    loss=st.sampled_from(["full", "chunked", "fused", "rows"]),
    adapter_dtype=st.sampled_from(["bf16", "fp32"]),
    attention=st.sampled_from(["flash", "eager"]),
    offloading=st.booleans(),
    targets=st.sampled_from([("q", "v"), ("mlp",), ("q", "k", "v", "o", "mlp"), ("q", "lm_head")]),
    optimizer_in_backward=st.booleans(),
    accumulation=st.booleans(),
    percentile=st.booleans(),
    program=st.sampled_from(["tunewise", "other"]),
    counter=st.sampled_from(["allocated", "reserved", "device", "process"]),
)
LARGER: tuple[dict[str, Any], ...] = (
    {"batch": 2},
    {"seq_len": 2},
    {"rank": 2},
)
DEARER: tuple[dict[str, Any], ...] = (
    {"checkpointing": False},
    {"loss": "full"},
    {"attention": "eager"},
    {"offloading": False},
    {"optimizer_in_backward": False},
    {"accumulation": True, "optimizer_in_backward": False},
    {"optimizer": "adamw_fp32"},
    {"devices": 1},
    {"adapter_dtype": "fp32"},
    {"compiled": False},
    {"prepared": True},
    {"percentile": False},
    {"targets": ("q", "k", "v", "o", "mlp", "lm_head", "embedding")},
)


@settings(max_examples=200, deadline=None)
@given(use=st.sampled_from(USES), setup=SETUPS, size=st.floats(0.1, 400))
def test_larger_settings_never_lower_the_estimate(use: MemoryUse, setup: MemorySetup, size: float) -> None:
    """More tokens, more rank, and every saving switched off; `smallest` is never above."""
    shape = typical_shape(round(size, 2))
    usual = estimate_memory(shape, use, setup)
    assert 0 < usual.low <= usual.likely <= usual.high
    larger = [replace(setup, **{k: v * getattr(setup, k) for k, v in times.items()}) for times in LARGER]
    # A bf16 adapter's fp32 master can outweigh the gradients that an fp32 adapter adds later.
    dearer = [c for c in DEARER if setup.optimizer != "adamw_fp32" or "adapter_dtype" not in c]
    # This project's row-wise loss holds a trained head's gradient in fp32: on few tokens all logits at once take less.
    own_full = setup.program == "tunewise" and use == "full"
    dearer = [c for c in dearer if not own_full or "loss" not in c]
    for other in (*larger, *(replace(setup, **change) for change in dearer)):
        assert estimate_memory(shape, use, other).likely >= usual.likely - 0.002, other
    if not own_full or setup.loss != "full":
        assert smallest_memory(shape, use, setup).likely <= usual.likely + 0.002


@settings(max_examples=200, deadline=None)
@given(use=st.sampled_from(USES), setup=SETUPS, one=st.floats(0.05, 400), other=st.floats(0.05, 400))
def test_more_parameters_never_lower_the_estimate(
    use: MemoryUse, setup: MemorySetup, one: float, other: float
) -> None:
    """The estimate from a size grows with the size."""
    small, large = sorted((one, other))
    assert (
        estimate_memory(typical_shape(small), use, setup).likely
        <= estimate_memory(typical_shape(large), use, setup).likely
    )


def test_guessed_shape_allows_small_vocabulary() -> None:
    """Which stays in 16 bits: an 8 B model in 4 bits may fit 6 GiB, as Unsloth says, and Llama 3.1 does not."""
    llama_8b = replace(typical_shape(8.03), vocab=128_256, tied=False, assumed=False)
    guessed, known = smallest_memory(typical_shape(8), "qlora"), smallest_memory(llama_8b, "qlora")
    assert guessed.fits(6) == "tight"
    assert known.fits(6) == "no"
    assert any("32,000" in assumption for assumption in guessed.assumptions)
    assert not any("32,000" in assumption for assumption in known.assumptions)


def test_qlora_needs_less_than_lora_than_full() -> None:
    """At the same batch and without checkpoints: inference, qlora, lora, full is the order of weights held."""
    base = MemorySetup(batch=1)
    sizes = [estimate_memory(typical_shape(7), use, base).likely for use in ("qlora", "lora", "full")]
    assert sizes == sorted(sizes)


def test_fitted_constants_can_be_replaced() -> None:
    """The benchmark refits them: fewer copies, less memory."""
    setup = MemorySetup(checkpointing=False)
    few = estimate_memory(LLAMA_7B, "lora", setup, FittedConstants(copies=0))
    assert few.likely < estimate_memory(LLAMA_7B, "lora", setup).likely


@given(st.floats(0, 100), st.floats(0, 100), st.one_of(st.none(), st.floats(0, 100)))
def test_fits_compares_both_ends_of_the_range(a: float, b: float, free: float | None) -> None:
    """With all there is to take, every caller's decision follows from these four cases."""
    low, high = sorted((a, b))
    verdict = fits(low, high, free)
    assert (verdict is None) == (free is None)
    if free is not None:
        assert (verdict == "no") == (low > free)
        assert (verdict == "yes") == (high <= free)
        assert verdict != "tight" or low <= free < high
