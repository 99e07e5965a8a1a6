"""The CPU kernels against the layers they replace: equal outputs and gradients."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import Qwen2Config, Qwen2ForCausalLM
from transformers.models.llama.modeling_llama import LlamaRMSNorm, apply_rotary_pos_emb

from runners.data.examples import Example
from runners.inference import weights
from runners.models import resolve
from runners.models.fingerprint import read_json
from runners.models.resolve import Model
from runners.plan.train_config import TrainConfig
from runners.resources import memory_terms
from runners.resources.memory_terms import MemorySetup, MemoryUse, WeightKind
from runners.resources.model_shape import read_shape
from runners.tokenization.chat_template import ChatTokenizer
from runners.training import cpu_kernels, lora
from runners.training.cpu_kernels import GatherRows, LoraLinearFunction, RMSNorm, RotaryPositions, select
from runners.training.loss import choose_loss, restore_loss
from runners.training.packing import collate


@pytest.mark.parametrize(
    ("dtype", "weight"),
    [(torch.float32, torch.float32), (torch.bfloat16, torch.bfloat16), (torch.bfloat16, torch.float32)],
)
def test_rms_norm_equals_transformers_forward_and_backward(dtype: torch.dtype, weight: torch.dtype) -> None:
    torch.manual_seed(0)
    module = LlamaRMSNorm(48, eps=1e-6).to(weight)
    nn.init.uniform_(module.weight, 0.5, 1.5)
    x, slope = torch.randn(2, 7, 48).to(dtype), torch.randn(2, 7, 48).to(weight)
    theirs, ours = x.clone().requires_grad_(), x.clone().requires_grad_()
    expected, computed = module(theirs), RMSNorm.apply(ours, module.weight, 1e-6)
    assert torch.equal(expected, computed)
    by_weight = torch.autograd.grad(expected, (theirs, module.weight), slope)
    again = torch.autograd.grad(computed, (ours, module.weight), slope)
    rtol, atol = (1e-4, 1e-5) if dtype == torch.float32 else (0.05, 0.05)
    for a, b in zip(again, by_weight, strict=True):
        assert a.dtype == b.dtype
        torch.testing.assert_close(a, b, rtol=rtol, atol=atol)


def test_lora_linear_function_equals_autograd() -> None:
    torch.manual_seed(0)
    x, a, b = torch.randn(9, 6, requires_grad=True), torch.randn(2, 6), torch.randn(5, 2)
    weight = torch.randn(5, 6, requires_grad=True)
    leaves = (x, weight, a.requires_grad_(), b.requires_grad_())
    expected = x @ weight.t() + 0.5 * (x @ a.t() @ b.t())
    computed = LoraLinearFunction.apply(x @ weight.t(), x, a, b, 0.5)
    torch.testing.assert_close(computed, expected)
    slope = torch.randn(9, 5)
    for ours, theirs in zip(
        torch.autograd.grad(computed, leaves, slope),
        torch.autograd.grad(expected, leaves, slope),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("trained", [True, False])
def test_joint_lora_linears_equal_separate_layers(tiny: Model, trained: bool) -> None:
    """Outputs, gradients of the adapters, and the gradient of the input where it needs one."""
    net = lora.prepare_model(tiny, TrainConfig(rank=4, alpha=8.0)).float()
    torch.manual_seed(0)
    for name, p in lora.trainable_parameters(net).items():
        if "lora_B" in name:
            nn.init.normal_(p)
    own: Any = net.get_base_model().model.layers[0].self_attn  # type: ignore[operator]
    apart = [own.q_proj, own.k_proj, own.v_proj]
    assert all(map(cpu_kernels.is_plain_lora, apart))
    x = torch.randn(7, apart[0].in_features, requires_grad=trained)
    leaves = [p for layer in apart for p in layer.parameters() if p.requires_grad] + [x] * trained
    expected, computed = [layer(x) for layer in apart], cpu_kernels.lora_linears(apart, x)
    slopes = [torch.randn_like(y) for y in expected]
    for a, b in zip(computed, expected, strict=True):
        torch.testing.assert_close(a, b)
    assert len(leaves) == 6 + trained
    for a, b in zip(
        torch.autograd.grad(computed, leaves, slopes),
        torch.autograd.grad(expected, leaves, slopes),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_lora_dropout_mask_is_drawn_per_layer(tiny: Model) -> None:
    net = lora.prepare_model(tiny, TrainConfig(rank=4, dropout=0.5)).float().train()
    own: Any = net.get_base_model().model.layers[0].mlp  # type: ignore[operator]
    both = [own.gate_proj, own.up_proj]
    for layer in both:
        nn.init.ones_(layer.lora_B["default"].weight)
    x = torch.ones(64, own.gate_proj.in_features)
    gate, up = (
        y - layer.base_layer(x) for layer, y in zip(both, cpu_kernels.lora_linears(both, x), strict=True)
    )
    assert len({round(float(v), 4) for v in gate[:, 0].detach()}) > 8
    assert not torch.allclose(gate[:, 0], up[:, 0])


def test_rotary_positions_equal_transformers_forward_and_backward() -> None:
    torch.manual_seed(0)
    angles = torch.rand(7, 4)
    cos, sin = (torch.cat([t, t], dim=-1)[None] for t in (angles.cos(), angles.sin()))
    x = torch.randn(7, 3, 8, requires_grad=True)
    expected, _ = apply_rotary_pos_emb(x.transpose(0, 1)[None], x.transpose(0, 1)[None], cos, sin)
    expected = expected[0].transpose(0, 1)
    computed = RotaryPositions.apply(x, *(t[0, :, None, :4] for t in (cos, sin)))
    torch.testing.assert_close(computed, expected)
    slope = torch.randn(7, 3, 8)
    (a,), (b,) = (torch.autograd.grad(y, x, slope) for y in (computed, expected))
    torch.testing.assert_close(a, b)


def test_gather_rows_pads_and_unpads_with_gradient() -> None:
    x = torch.arange(5.0)[:, None].requires_grad_()
    pad, unpad = torch.tensor([0, 1, 2, 3, 4, 4]), torch.tensor([0, 1, 2, 3, 4])
    table = GatherRows.apply(x, pad, unpad, True)
    assert table.flatten().tolist() == [0, 1, 2, 3, 4, 4]
    out = GatherRows.apply(table, unpad, pad, False)
    assert torch.equal(out, x)
    (grad,) = torch.autograd.grad(out, x, torch.ones_like(out) * 2)
    assert grad.flatten().tolist() == [2.0] * 5


def test_fast_path_supports_layers_with_bias(
    tiny: Model, examples: Sequence[Example], tmp_path: Path
) -> None:
    config = Qwen2Config(
        vocab_size=weights.load_base(tiny).config.vocab_size,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        eos_token_id=2,
        pad_token_id=0,
        use_sliding_window=False,
    )
    folder = tmp_path / "qwen"
    weights.load_tokenizer(tiny.folder).save_pretrained(folder)
    torch.manual_seed(0)
    Qwen2ForCausalLM(config).save_pretrained(folder)
    net = lora.prepare_model(resolve.resolve_model(str(folder)), TrainConfig(rank=4)).float()
    rows = [ChatTokenizer(folder).example(e) for e in examples[:4]]
    assert choose_loss(net, rows).choice()["path"] == "fast"
    computed = []
    for path in ("plain", "fast"):
        net.zero_grad()
        restore_loss(net, path)(rows).backward()
        computed.append(
            {name: p.grad.clone() for name, p in lora.trainable_parameters(net).items() if p.grad is not None}
        )
    for name, grad in computed[0].items():
        torch.testing.assert_close(computed[1][name], grad, rtol=1e-3, atol=1e-5)


def test_different_norm_is_not_fused(tiny: Model) -> None:
    class ShiftedRMSNorm(LlamaRMSNorm):
        """As Gemma's: 1 is added to the weight."""

        def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
            return super().forward(hidden_states) + hidden_states

    net = weights.load_base(tiny, "float32")
    net.model.norm = ShiftedRMSNorm(32)
    kernels, _ = select(net, net, 0)
    assert kernels is not None
    with kernels.active():
        assert "forward" in vars(net.model.layers[0].input_layernorm)
        assert "forward" not in vars(net.model.norm)
    assert not any("forward" in vars(module) for module in net.modules())


@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_memory_estimate_matches_tensors_saved_by_autograd(
    tiny: Model, examples: Sequence[Example], method: MemoryUse
) -> None:
    """Bytes that autograd saves for the blocks, against :func:`memory_terms.block_bytes` for a token of a block."""
    config = TrainConfig(method=method, rank=1, alpha=2)
    net = lora.prepare_model(tiny, config)
    rows = [ChatTokenizer(tiny.folder).example(row) for row in examples[:8]]
    loss = choose_loss(net, rows)
    assert loss.path == "fast"
    assert loss.fuses_blocks
    batch = collate(rows, packed=True)
    parameters = {p.untyped_storage().data_ptr() for p in net.parameters()}
    saved: dict[int, int] = {}

    def save(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    net.train()
    with torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
        hidden = loss.hidden(batch)
    tokens, longest = batch.ids.numel(), max(len(row.ids) for row in rows)
    shape = read_shape(read_json(tiny.folder / "config.json"))
    wide = loss.causal.dtype == torch.float32  # as on a processor without bf16
    weights: WeightKind | None = "fp32" if wide and method == "lora" else None
    setup = MemorySetup(rank=1, seq_len=longest, fused=True, weights=weights, fp32_compute=wide)
    estimated = shape.layers * tokens * memory_terms.block_bytes(shape, method, setup)
    assert hidden.requires_grad
    assert sum(saved.values()) == pytest.approx(estimated, rel=0.15)


def fuses_blocks(net: Any) -> bool:
    """Whether the kernels of a model cover every block."""
    kernels, _ = select(net, getattr(net, "get_base_model", lambda: net)(), 0)
    assert kernels is not None
    return kernels.covers_blocks


def test_covers_blocks_is_false_for_dropout_partial_targets_and_full(tiny: Model) -> None:
    assert not fuses_blocks(lora.prepare_model(tiny, TrainConfig(rank=4, alpha=8, dropout=0.1)))
    assert not fuses_blocks(lora.prepare_model(tiny, TrainConfig(rank=4, alpha=8, targets=("q_proj",))))
    assert not fuses_blocks(lora.prepare_model(tiny, TrainConfig(method="full")))
