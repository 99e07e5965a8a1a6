"""Every family trains by every method with plain transformers' and PEFT's loss and gradients, or is refused plainly."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from runners.plan.train_config import TrainConfig
from runners.tokenization.chat_template import EncodedRow
from runners.training import cpu_kernels, lora
from runners.training.cpu_kernels import CpuKernels, fuse
from runners.training.loss import choose_loss, evaluation_mode, restore_loss
from runners.training.packing import TokenBatch
from runners.training.path_probe import (
    MAX_LOSS_TOKENS,
    cut_row,
    head_difference,
    layers_difference,
    plain_hidden,
)
from tests.families import DEFAULT, FAMILIES, MISSING, Family, build, family_named, family_parameters
from tests.runners.families.contract import (
    FEW,
    TENSOR_TOLERANCE,
    TOLERANCE,
    TrainingRecord,
    family_rows,
    save_family,
    train_cells,
    training_contract,
)

WRONG_WHEN_PACKED = (
    *(
        "qwen3-next",
        "qwen3.5",
        "qwen3.5-moe",
        "olmo-hybrid",
        "granite-moe-hybrid",
        "falcon-h1",
        "falcon-mamba",
    ),
    *("bamba", "jamba", "nemotron-h", "mamba2", "lfm2", "lfm2-moe", "bloom", "gpt-neo", "minimax"),
)
"""Families of which packed rows would give wrong losses: recurrent states, convolutions, ALiBi, local attention."""


def each_family(function: Any) -> Any:
    """Run a test for each family, by its name."""
    return pytest.mark.parametrize("family", family_parameters())(function)


def assert_kept(family: Family, record: TrainingRecord) -> None:
    """Assert that a method trains with the reference's numbers, or is refused with the family's name."""
    if record.refused:
        assert family.model_type in record.refused
        assert len(record.refused.splitlines()) <= 3
        return
    assert not record.missing
    assert record.loss_error <= TOLERANCE
    # A delta net's chunks in fp32 make transformers differ from itself by more, when rows are padded otherwise.
    assert record.gradient_error <= max(TOLERANCE, min(record.rounding, TENSOR_TOLERANCE)), record.worst
    assert record.tensor_error <= TENSOR_TOLERANCE, record.worst
    assert record.reloaded_error <= TOLERANCE
    assert (record.reason == "") == (record.path == "fast")


@each_family
def test_one_step_of_each_method_equals_transformers_and_peft(
    family: Family, tmp_path: Path, root: Path
) -> None:
    records = training_contract(family, tmp_path)
    for record in records:
        assert_kept(family, record)
    lines = (root / "docs/models.md").read_text("utf-8").splitlines()
    row = next(line for line in lines if line.startswith(f"| {family.name} |"))
    assert tuple(cell.strip() for cell in row.split("|")[3:5]) == train_cells(records)


@pytest.mark.slow
@each_family
def test_every_path_equals_transformers_and_peft(family: Family, tmp_path: Path) -> None:
    for record in training_contract(family, tmp_path, every_path=True):
        assert_kept(family, record)


@pytest.mark.slow
@each_family
def test_gradient_checkpointing_leaves_gradients_unchanged(family: Family, tmp_path: Path) -> None:
    base, rows, results = save_family(family, tmp_path), family_rows(), []
    if not build(family).supports_gradient_checkpointing:
        return
    for recompute in (False, True):
        torch.manual_seed(0)
        net = lora.prepare_model(base, FEW, recompute, "float32")
        loss = choose_loss(net, rows)
        assert not (recompute and loss.path == "fast")
        net.train()
        for module in net.modules():  # two passes of one step draw different masks
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        restore_loss(net, "alone" if loss.path == "alone" else "plain")(rows).backward()
        results.append({n: p.grad for n, p in lora.trainable_parameters(net).items() if p.grad is not None})
    for name, gradient in results[0].items():
        torch.testing.assert_close(results[1][name], gradient, rtol=1e-3, atol=1e-4)


def test_missing_families_are_listed(root: Path) -> None:
    assert len(FAMILIES) >= 30
    assert {family.name for family in FAMILIES} >= DEFAULT
    text = (root / "docs/models.md").read_text("utf-8")
    assert all(f"`{name}`" in text for name in MISSING)


def adapted(name: str) -> tuple[Any, Any]:
    """Return a family's model with an adapter, and the model below it."""
    from peft import get_peft_model

    causal = build(name).requires_grad_(False)
    return get_peft_model(causal, lora.lora_config(causal, TrainConfig(rank=4, alpha=8.0))), causal


@pytest.mark.parametrize("name", WRONG_WHEN_PACKED)
def test_comparison_alone_rejects_packed_rows(name: str) -> None:
    """Without the knowledge of :func:`cpu_kernels.select`, which refuses these as well."""
    net, causal = adapted(name)
    kernels = fuse(net, causal)
    with evaluation_mode(net):
        assert "off by" in layers_difference(net, causal, family_rows(), kernels.hidden, True)
    assert cpu_kernels.select(net, causal, 48)[0] is None


def leaking(segments: Any) -> Any:
    """Return segments under which each row sees all the rows before it."""
    from runners.training.packing import RowSegments

    return RowSegments(0, (segments.prefix + sum(segments.lengths),), None, None)


class LeakingKernels(CpuKernels):
    """Kernels whose rows see the rows before them."""

    def hidden(self, batch: TokenBatch) -> torch.Tensor:
        return CpuKernels.hidden(self, replace(batch, segments=leaking(batch.segments)))


class SmallerGradient(torch.autograd.Function):
    """The identity, with nine tenths of its gradient."""

    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor) -> torch.Tensor:
        return hidden.clone()

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        return 0.9 * grad


class WrongGradientKernels(CpuKernels):
    """Kernels with the right hidden states and wrong gradients."""

    def hidden(self, batch: TokenBatch) -> torch.Tensor:
        return SmallerGradient.apply(CpuKernels.hidden(self, batch))


class InexactKernels(CpuKernels):
    """Kernels whose attention scores are too small by two hundredths."""

    def hidden(self, batch: TokenBatch) -> torch.Tensor:
        attentions: list[Any] = [module for module in self.causal.modules() if hasattr(module, "q_proj")]
        for attention in attentions:
            attention.scaling *= 0.98
        try:
            return CpuKernels.hidden(self, batch)
        finally:
            for attention in attentions:
                attention.scaling /= 0.98


def faulty(kind: type[CpuKernels]) -> Any:
    """Return a function that fuses a model as the package does, with the faults of a class."""

    def fuse_wrongly(net: Any, causal: Any, longest: int) -> tuple[CpuKernels | None, str]:
        kernels, reason = cpu_kernels.select(net, causal, longest)
        assert kernels is not None, reason
        return kind(kernels.causal, kernels.forwards, kernels.covers_blocks), ""

    return fuse_wrongly


@pytest.mark.parametrize("name", ["llama", "qwen3", "gemma", "olmoe"])
def test_comparison_rejects_leaking_mask(name: str) -> None:
    net, causal = adapted(name)
    kernels = fuse(net, causal)
    leaking_kernels = LeakingKernels(kernels.causal, kernels.forwards, kernels.covers_blocks)
    with evaluation_mode(net):
        assert layers_difference(net, causal, family_rows(), kernels.hidden, True) == ""
        assert layers_difference(net, causal, family_rows(), leaking_kernels.hidden, True)
    assert choose_loss(net, family_rows(), fuse=faulty(LeakingKernels)).path == "rows"


def test_comparison_rejects_wrong_gradient_of_right_loss() -> None:
    """A forward loss that agrees proves nothing about gradients."""
    net, _ = adapted("llama")
    chosen = choose_loss(net, family_rows(), fuse=faulty(WrongGradientKernels))
    assert chosen.path == "rows"
    assert chosen.reason.startswith("the gradient of ")


def test_comparison_sees_small_errors_in_bf16() -> None:
    """Two hundredths of a score are less than bf16's own rounding of the whole model, and are refused."""
    net, causal = adapted("llama")
    causal.bfloat16()
    assert choose_loss(net, family_rows()).path == "fast"
    assert choose_loss(net, family_rows(), fuse=faulty(InexactKernels)).path == "rows"


class DependentRows(nn.Module):
    """Adds the mean over the whole padded batch to every hidden state, as a batch statistic would."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x) + x.mean((0, 1))


def test_rows_that_depend_on_their_batch_are_computed_alone() -> None:
    net, causal = adapted("llama")
    causal.model.layers[0].input_layernorm = DependentRows(causal.model.layers[0].input_layernorm)
    rows = family_rows()
    chosen = choose_loss(net, rows)
    assert chosen.path == "alone"
    assert "not padded together" in chosen.reason
    with torch.no_grad():
        expected = sum(float(restore_loss(net, "plain")([row])) for row in rows)
        assert float(chosen(rows)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", ["llama", "jamba", "granite"])
def test_choosing_changes_no_bit(name: str) -> None:
    net, _ = adapted(name)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    random = torch.get_rng_state()
    choose_loss(net, family_rows())
    assert torch.equal(torch.get_rng_state(), random)
    after = net.state_dict()
    assert before.keys() == after.keys()
    assert all(
        torch.equal(value, after[key]) and value.dtype == after[key].dtype for key, value in before.items()
    )
    assert all(parameter.grad is None for parameter in net.parameters())


def test_dropout_is_off_in_evaluation_of_four_bit_layers(tmp_path: Path) -> None:
    base = save_family(family_named("llama"), tmp_path)
    net = lora.prepare_model(base, FEW.replace(method="qlora", dropout=0.5), dtype="float32")
    with evaluation_mode(net):
        assert not any(module.training for module in net.modules() if isinstance(module, nn.Dropout))


def test_rows_longer_than_dynamic_positions_are_computed_alone() -> None:
    """Frequencies that follow the longest row of a batch would make a row's loss depend on its neighbours."""
    net, causal = adapted("llama")
    causal.config.rope_parameters = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}
    causal.config.max_position_embeddings = 16
    causal.model.rotary_emb = type(causal.model.rotary_emb)(causal.config)
    chosen = choose_loss(net, family_rows())
    assert (chosen.path, chosen.reason[:31]) == ("alone", "rows are not padded together: d")
    with evaluation_mode(net):
        padded = layers_difference(net, causal, family_rows(), partial(plain_hidden, causal), False)
    assert padded


def test_resumed_run_that_packed_wrongly_is_refused() -> None:
    net, _ = adapted("qwen3.5")
    from rag.errors import BadInput

    with pytest.raises(BadInput, match="packed its rows"):
        restore_loss(net, "fast")


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("gpt-oss", ["down_proj, gate_up_proj"]),
        ("mixtral", []),
        ("bamba", ["Mamba"]),
        ("llama", []),
        ("jamba", ["Mamba", "three"]),
    ],
)
def test_adapter_note_names_what_stays_as_it_is(name: str, parts: list[str]) -> None:
    note = lora.adapter_note(adapted(name)[0])
    assert bool(note) == bool(parts)
    assert all(part in note for part in parts)
    assert lora.adapter_note(build(name)) == "", "the base itself is trained"


def test_router_and_mamba_output_projection_get_no_adapter() -> None:
    for name, ending in (("phimoe", "router"), ("falcon-h1", "out_proj"), ("jamba", "out_proj")):
        net, _ = adapted(name)
        adapted_layers = {key for key, _ in net.named_parameters() if "lora_" in key}
        assert adapted_layers
        assert not any(f".{ending}.lora_" in key for key in adapted_layers)


@pytest.mark.parametrize("name", ["granite", "gemma2", "cohere", "nanochat"])
def test_logits_changed_outside_the_head_take_the_plain_path(name: str) -> None:
    """Scaled or capped logits: the same hidden states give another loss."""
    net, causal = adapted(name)
    chosen = choose_loss(net, family_rows())
    assert chosen.path == "plain"
    assert "outside the head (" in chosen.reason
    causal.bfloat16()
    assert choose_loss(net, family_rows()).path == "plain"


@pytest.mark.parametrize("name", ["gemma2", "recurrent-gemma", "nanochat"])
def test_caps_are_known_by_the_config_while_logits_are_small(name: str) -> None:
    """Logits of 0.1 are changed by a cap of 15 or 30 less than by rounding; a trained model's are not so small."""
    net, causal = adapted(name)
    with torch.no_grad():
        causal.get_output_embeddings().weight.mul_(0.02)
    chosen = choose_loss(net, family_rows())
    assert chosen.path in ("plain", "alone")
    assert "logit" in head_difference(causal, family_rows()[0])


def test_losses_of_long_rows_are_compared_on_their_first_tokens() -> None:
    row = EncodedRow(tuple(range(300)), (250, 299), 1)
    short = cut_row(row, MAX_LOSS_TOKENS)
    assert (len(short.ids), short.learnt) == (
        MAX_LOSS_TOKENS,
        tuple(range(MAX_LOSS_TOKENS - 16, MAX_LOSS_TOKENS)),
    )
    assert cut_row(row, 260).learnt == (250,)
    assert cut_row(row, 300) is row
