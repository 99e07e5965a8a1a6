"""Each term of the memory estimate against arithmetic by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import pytest

from runners.resources import memory_terms
from runners.resources.memory_terms import FITTED, FittedConstants, MemorySetup
from runners.resources.model_shape import ModelShape

P, L, H, Q, KV, FF, V = 8_030_000_000, 32, 4096, 4096, 1024, 14336, 128256
LLAMA = ModelShape(P, L, H, 32, 8, 128, FF, V, tied=False)
NEOX = ModelShape(3_640_000_000, 16, 4096, 32, 32, 128, 16384, 50688, gated=False, tied=False)
COUNT = FittedConstants(copies=0, four_bit=1, reserved=1, filled=1)
ATTENTION = 8 * Q
BASE = MemorySetup(program="other", adapter_dtype="bf16", targets=("q", "v"))


def test_weight_bytes() -> None:
    """bf16, fp32, and 4 bits for the matrices only: one scale in fp32 for 64 weights, or scales in 8 bits."""
    ends = 2 * V * H
    assert memory_terms.weight_bytes(LLAMA, "lora", BASE) == 2 * P
    assert memory_terms.weight_bytes(LLAMA, "full", replace(BASE, weights="fp32")) == 4 * P
    assert (
        memory_terms.weight_bytes(LLAMA, "qlora", replace(BASE, weights="nf4"))
        == 0.5625 * (P - ends) + 2 * ends
    )
    double = memory_terms.weight_bytes(LLAMA, "qlora", BASE)
    assert double == pytest.approx(0.51587 * (P - ends) + 2 * ends, rel=1e-4)
    assert memory_terms.weight_bytes(LLAMA, "qlora", replace(BASE, prepared=True)) == double + 2 * ends


@pytest.mark.parametrize(
    ("name", "each"), [("adamw", 4), ("lion", 2), ("adafactor", 0), ("sgd", 0), ("adamw_fp32", 12)]
)
def test_optimizer_bytes_of_full_tuning(name: memory_terms.OptimizerKind, each: int) -> None:
    """Bytes per parameter beside bf16 weights."""
    assert (
        memory_terms.optimizer_bytes(LLAMA, "full", MemorySetup(program="other", optimizer=name)) == each * P
    )


def test_eight_bit_optimizer_keeps_embedding_in_fp32() -> None:
    """Two bytes and two scales of 1/64 byte each; the embedding's moments stay in fp32."""
    table = V * H
    found = memory_terms.optimizer_bytes(LLAMA, "full", MemorySetup(optimizer="adamw_8bit"))
    assert found == 2 * (1 + 4 / 256) * (P - table) + 8 * table


def test_adapter_and_optimizer_bytes_of_lora() -> None:
    """fp32 adapters take 16 bytes a parameter in all, bf16 ones 8."""
    n = 16 * 32 * (H + Q + H + KV)
    cases: tuple[tuple[Literal["bf16", "fp32"], int], ...] = (("fp32", 16), ("bf16", 8))
    for dtype, each in cases:
        setup = replace(BASE, adapter_dtype=dtype)
        parts = memory_terms.adapter_bytes(LLAMA, "lora", setup) + memory_terms.optimizer_bytes(
            LLAMA, "lora", setup
        )
        assert parts + memory_terms.gradient_bytes(LLAMA, "lora", setup)[1] == each * n


def test_gradient_bytes_at_loss_and_at_end() -> None:
    """None but the head's at the loss, which is among the logits; at the end all; in the backward pass only the largest;
    accumulated all, and the largest once more."""
    assert memory_terms.gradient_bytes(LLAMA, "full", BASE) == (0, 2 * P)
    inside = replace(BASE, optimizer_in_backward=True)
    assert memory_terms.gradient_bytes(LLAMA, "full", inside) == (0, 2 * V * H)
    accumulated = memory_terms.gradient_bytes(LLAMA, "full", replace(BASE, accumulation=True))
    assert accumulated == (2 * P, 2 * P + 2 * V * H)
    assert memory_terms.gradient_bytes(LLAMA, "inference", BASE) == (0, 0)


def test_block_bytes_of_full_tuning() -> None:
    """Two RMSNorms (4h fp32, 2h normalised, 2h out), attention 8q, gate, activation, up and product 8I."""
    assert memory_terms.block_bytes(LLAMA, "full", BASE, COUNT) == 16 * H + ATTENTION + 8 * FF
    assert memory_terms.block_bytes(LLAMA, "full", BASE) == 16 * H + ATTENTION + 8 * FF + FITTED.copies * H
    compiled = replace(BASE, compiled=True)
    assert memory_terms.block_bytes(LLAMA, "full", compiled) == 8 * H + ATTENTION + 6 * FF


def test_block_bytes_with_adapters() -> None:
    """Frozen layers keep no input; bf16 adapters drop out of their own (with a mask), of q and v of one they
    share; fp32 adapters cast each its own; compiled ones share; r per adapter."""
    frozen = 8 * H + ATTENTION + 6 * FF
    assert memory_terms.block_bytes(LLAMA, "lora", BASE, COUNT) == frozen + 2 * H + 2 * 16 * 2
    apart = replace(BASE, adapter_dtype="fp32")
    assert memory_terms.block_bytes(LLAMA, "lora", apart, COUNT) == frozen + 4 * 2 * H + 4 * 16 * 2
    mlp = replace(BASE, targets=("mlp",))
    assert memory_terms.block_bytes(LLAMA, "lora", mlp, COUNT) == frozen + 3 * (2 * H + FF) + 2 * 16 * 3
    both = replace(BASE, targets=("q", "v", "o", "mlp"))
    assert memory_terms.linear_input_bytes(LLAMA, "lora", both, COUNT) == 2 * H + 3 * (H + 2 * H + FF)
    assert memory_terms.linear_input_bytes(
        LLAMA, "lora", replace(both, compiled=True), COUNT
    ) == 2 * H + 2 * (H + FF)
    four_bits = 2 * (2 * H + H + FF)
    assert memory_terms.linear_input_bytes(LLAMA, "qlora", both, COUNT) == four_bits + 3 * (H + 2 * H + FF)
    assert memory_terms.linear_input_bytes(LLAMA, "full", BASE, COUNT) == 2 * (2 * H + FF)
    assert memory_terms.linear_input_bytes(LLAMA, "inference", BASE, COUNT) == 0


def test_four_bit_block_saves_every_input() -> None:
    """bitsandbytes keeps the input of each product: query, key and value share one, so do gate and up."""
    found = memory_terms.block_bytes(LLAMA, "qlora", BASE, COUNT)
    assert found == 8 * H + ATTENTION + 6 * FF + 2 * (2 * H + Q + FF) + 2 * 16 * 2


def test_block_bytes_of_ungated_mlp_and_eager_attention() -> None:
    """LayerNorm keeps its bf16 input, a plain MLP one pre-activation; scores are 6 bytes a head and key."""
    plain = memory_terms.block_bytes(NEOX, "lora", BASE, COUNT)
    assert plain == 4 * 4096 + 8 * 4096 + 2 * 16384 + 2 * 4096 + 2 * 16 * 2
    eager = memory_terms.block_bytes(NEOX, "lora", replace(BASE, attention="eager", seq_len=512), COUNT)
    assert eager == plain + 6 * 32 * 512


def test_activation_bytes_by_checkpointing() -> None:
    """All blocks; with checkpoints one input a block and one block made again; offloaded, two inputs."""
    setup = replace(BASE, batch=2, seq_len=512, checkpointing=False)
    one = 1024 * memory_terms.block_bytes(LLAMA, "lora", setup)
    assert memory_terms.activation_bytes(LLAMA, "lora", setup) == (L * one, one)
    saved = replace(setup, checkpointing=True)
    assert memory_terms.activation_bytes(LLAMA, "lora", saved) == (1024 * 2 * H * L, one)
    assert memory_terms.activation_bytes(LLAMA, "lora", replace(saved, offloading=True)) == (
        1024 * 2 * H * 2,
        one,
    )
    wide = replace(saved, prepared=True)
    assert memory_terms.activation_bytes(LLAMA, "qlora", wide)[0] == 1024 * 4 * H * L


@pytest.mark.parametrize(
    ("path", "compiled", "each"),
    [("full", False, 14), ("full", True, 12), ("chunked", False, 8), ("chunked", True, 2)],
)
def test_logits_bytes_by_loss(path: memory_terms.LossKind, compiled: bool, each: int) -> None:
    """Bytes per token and vocabulary entry."""
    setup = replace(BASE, batch=2, loss=path, compiled=compiled)
    assert memory_terms.logits_bytes(LLAMA, "lora", setup) == each * 2048 * V
    fp32_output = 2 if (path, compiled) == ("full", False) else 0
    head_cast = 0 if compiled else 2 * V * H
    assert (
        memory_terms.logits_bytes(LLAMA, "qlora", replace(setup, prepared=True))
        == (each + fp32_output) * 2048 * V + head_cast
    )


def test_logits_bytes_of_rows_and_inference() -> None:
    """128 label rows at 10 bytes and the hidden gradient; one row a sequence to decode."""
    assert memory_terms.logits_bytes(LLAMA, "lora", BASE) == 10 * 128 * V + 2 * 1024 * H
    assert memory_terms.logits_bytes(LLAMA, "inference", replace(BASE, batch=3)) == 6 * 3 * V


def test_kv_cache_buffer_and_overhead_bytes() -> None:
    """Keys and values of all tokens; a dequantised matrix; what counters add."""
    assert memory_terms.kv_cache_bytes(LLAMA, "inference", BASE) == 2 * L * KV * 1024 * 2
    assert memory_terms.kv_cache_bytes(LLAMA, "lora", BASE) == 0
    assert memory_terms.buffer_bytes(LLAMA, "qlora", BASE) == 2 * H * FF
    assert memory_terms.buffer_bytes(LLAMA, "full", replace(BASE, devices=4)) == 0
    assert memory_terms.overhead_bytes(1e9, replace(BASE, counter="allocated")) == 0
    assert memory_terms.overhead_bytes(1e9, replace(BASE, counter="reserved")) == pytest.approx(0.2e9)
    assert memory_terms.overhead_bytes(1e9, BASE) == memory_terms.CUDA_CONTEXT_BYTES


def test_percentile_counts_fewer_tokens() -> None:
    """Only a percentile over steps of uneven rows is less than batch x longest, however it was counted."""
    for counter in ("reserved", "allocated"):
        assert (
            memory_terms.step_tokens(replace(BASE, percentile=True, counter=counter)) == 1024 * FITTED.filled
        )
        assert memory_terms.step_tokens(replace(BASE, counter=counter)) == 1024


def test_block_bytes_of_cpu_kernels() -> None:
    """What they save, by hand: two norms, attention written out for rows of 100, four widths of the MLP, seven ranks."""
    setup = MemorySetup(seq_len=100, rank=8, fused=True)
    norms, attention, mlp, low = 8 * H + 8, 2 * (2 * Q + 2 * KV + 32 * 100), 8 * FF, 2 * 8 * 7
    assert memory_terms.block_bytes(LLAMA, "lora", setup) == norms + attention + mlp + low
    assert memory_terms.block_bytes(LLAMA, "full", setup) == memory_terms.block_bytes(
        LLAMA, "full", replace(setup, fused=False)
    )
    assert memory_terms.block_bytes(LLAMA, "lora", setup) < memory_terms.block_bytes(
        LLAMA, "lora", replace(setup, fused=False)
    )
