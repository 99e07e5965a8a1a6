"""Memory of this project's losses by hand: Gemma-3-270M's vocabulary of 262,144 and width of 640."""

from __future__ import annotations

from dataclasses import replace

import pytest

from runners.resources import loss_memory, memory_terms
from runners.resources.memory_estimate import estimate_memory
from runners.resources.memory_terms import MemorySetup
from runners.resources.model_shape import ModelShape

V, H = 262_144, 640
GEMMA = ModelShape(268_000_000, 18, H, 4, 1, 256, 2048, V, norms=4, head_norms=True)


def test_logit_blocks_hold_64_mib_on_a_cpu_and_256_on_a_gpu() -> None:
    assert loss_memory.logit_block_rows(V, cuda=False) == 64
    assert loss_memory.logit_block_rows(V, cuda=True) == 256
    assert loss_memory.logit_block_rows(10**9, cuda=False) == 16, "never fewer"


def test_row_loss_holds_a_block_and_of_a_trained_head_its_gradients() -> None:
    """A frozen head: 6 bytes for each logit of a block. A trained one: fp32 sum, scaled copy, bf16 cast."""
    frozen = loss_memory.row_loss_bytes(GEMMA, 2, 400, trained_head=False, cuda=False)
    assert frozen == 6 * 64 * V + 2 * 400 * H
    trained = loss_memory.row_loss_bytes(GEMMA, 2, 400, trained_head=True, cuda=False)
    assert trained == 10 * V * H + 2 * 2 * 400 * H
    wide = loss_memory.row_loss_bytes(GEMMA, 4, 400, trained_head=True, cuda=False)
    assert wide == max(4 * 64 * V + 4 * 400 * H + 8 * V * H, 2 * 4 * 400 * H + 8 * V * H)


def test_plain_loss_holds_the_logits_of_all_tokens() -> None:
    """2 bytes a logit of all tokens, then 4 + 4 of the learnt ones; of all learnt three in fp32; of few the gradient of all
    logits twice; of a cap its output too; the head's gradient when the others are freed."""
    found = loss_memory.plain_loss_bytes(GEMMA, 2, 1024, 400, trained_head=False)
    assert found == max(2 * 1024 * V + 8 * 400 * V, 2 * 2 * 1024 * V + 2 * 400 * V)
    assert loss_memory.plain_loss_bytes(GEMMA, 2, 1024, 1024, trained_head=False) == 12 * 1024 * V
    few = loss_memory.plain_loss_bytes(GEMMA, 2, 1024, 10, trained_head=False)
    assert few == 2 * 2 * 1024 * V + 2 * 10 * V
    capped = replace(GEMMA, capped_logits=True)
    assert loss_memory.plain_loss_bytes(capped, 2, 1024, 10, trained_head=False) == few + 2 * 1024 * V
    assert loss_memory.plain_loss_bytes(GEMMA, 2, 64, 64, trained_head=True) == 2 * 64 * V + 2 * V * H


@pytest.mark.parametrize("vocabulary", [32_000, 131_072, 262_144])
@pytest.mark.parametrize("capped", [False, True])
def test_other_programs_hold_three_logits_in_fp32_beside_the_output(vocabulary: int, capped: bool) -> None:
    """14 bytes a logit, 16 where a tanh caps them or the output is in fp32; a trained head's gradient is made later."""
    shape = replace(GEMMA, vocab=vocabulary, capped_logits=capped)
    cap = 2 if capped else 0
    for use, adapters, each in (("full", "bf16", 14), ("lora", "bf16", 14), ("lora", "fp32", 16)):
        setup = MemorySetup(program="other", loss="full", batch=2, seq_len=512, adapter_dtype=adapters)  # type: ignore[arg-type]
        assert memory_terms.logits_bytes(shape, use, setup) == (each + cap) * 1024 * vocabulary  # type: ignore[arg-type]
    few = MemorySetup(program="other", loss="full", seq_len=8)
    table = 2 * vocabulary * H
    assert memory_terms.logits_bytes(shape, "full", few) == max(
        14 * 8 * vocabulary + cap * 8 * vocabulary, 4 * 8 * vocabulary + table
    )


@pytest.mark.parametrize(("loss", "least"), [("rows", 0.09), ("full", 1.25)])
def test_estimate_takes_the_loss_of_the_path(loss: str, least: float) -> None:
    """In GiB, on a CPU: a block of logits for the row-wise loss, those of all tokens for the plain one."""
    setup = MemorySetup(loss=loss, counter="process", target_tokens=400, checkpointing=False)  # type: ignore[arg-type]
    logits = estimate_memory(GEMMA, "lora", setup).terms["logits"]
    assert least < logits < 1.2 * least


def test_gradients_of_a_tied_embedding_and_their_sum_are_counted() -> None:
    """The head's and the input's gradients are made one after the other, then added into a third tensor."""
    tied, untied = (ModelShape(268_000_000, 18, H, 4, 1, 256, 2048, V, tied=tied) for tied in (True, False))
    setup = MemorySetup(program="other")
    end_tied, end_untied = (memory_terms.gradient_bytes(shape, "full", setup)[1] for shape in (tied, untied))
    assert end_tied - end_untied == 2 * 2 * V * H
