"""Tiny causal models of many families, built from a config: every kind of layer of the family, two to four layers.

``FAMILIES`` is what the contract tests of training and decoding run over, by default those in ``DEFAULT`` (one of each kind
of layer, positions and cache), with ``--deep`` all; ``MISSING`` names the families that the
installed transformers does not have. :func:`build` gives a model with random weights large enough that a wrong mask, a
wrong position or a leaking row shows in the loss and in the tokens. Imports transformers; torch only in functions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig

if TYPE_CHECKING:
    import torch
    from _pytest.mark import ParameterSet
    from transformers import PreTrainedModel

VOCABULARY = 256
"""Tokens of every family's vocabulary; 0 pads, 1 begins, 2 ends."""
LEFT_OUT = object()
"""In place of a common setting's value: the family's config does not get it."""
_COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_HEADS_OF_16 = {"head_dim": 16}
_SLIDING = ["sliding_attention", "full_attention"]
_LINEAR = ["linear_attention", "full_attention", "linear_attention"]
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
_LOCAL_EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
_DELTA_NET = {
    "num_hidden_layers": 3,
    "layer_types": _LINEAR,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
}
_MAMBA2 = {
    "num_hidden_layers": 3,
    "mamba_n_heads": 8,
    "mamba_d_head": 16,
    "mamba_d_state": 16,
    "mamba_chunk_size": 16,
}
_LATENT_ATTENTION = {
    "num_key_value_heads": 4,
    "q_lora_rank": 24,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 16,
    "v_head_dim": 16,
}


@dataclass(frozen=True)
class Family:
    """A family of causal language models, and the config of a tiny model of it."""

    name: str
    model_type: str
    """transformers' ``model_type`` of the text model."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What the config has besides, or instead of, the common widths."""
    remarks: str = ""
    """What sets the family apart: kinds of layers, positions, head."""

    def config(self) -> PreTrainedConfig:
        """Return the config of the tiny model; settings that are LEFT_OUT are left to the family's default."""
        settings = {**_COMMON, **self.settings}
        return AutoConfig.for_model(
            self.model_type, **{key: value for key, value in settings.items() if value is not LEFT_OUT}
        )


_WANTED = (
    Family("llama", "llama"),
    Family("llama-tied", "llama", {"tie_word_embeddings": True}, "tied head"),
    Family("mistral", "mistral", {"sliding_window": 8}, "sliding window"),
    Family("mistral-full", "mistral", {"sliding_window": None}, "no window"),
    Family("ministral3", "ministral3", _HEADS_OF_16),
    Family("mixtral", "mixtral", _LOCAL_EXPERTS, "experts"),
    Family("qwen2", "qwen2", {}, "bias in q, k, v"),
    Family("qwen2-moe", "qwen2_moe", {**_EXPERTS, "shared_expert_intermediate_size": 32}, "experts"),
    Family("qwen3", "qwen3", _HEADS_OF_16, "norms of q and k"),
    Family("qwen3-moe", "qwen3_moe", {**_HEADS_OF_16, **_EXPERTS}, "experts"),
    Family(
        "qwen3-next",
        "qwen3_next",
        {**_HEADS_OF_16, **_EXPERTS, **_DELTA_NET, "shared_expert_intermediate_size": 32},
        "gated delta net, gated attention, experts",
    ),
    Family("qwen3.5", "qwen3_5_text", {**_HEADS_OF_16, **_DELTA_NET}, "gated delta net, gated attention"),
    Family(
        "qwen3.5-moe",
        "qwen3_5_moe_text",
        {**_HEADS_OF_16, **_EXPERTS, **_DELTA_NET, "shared_expert_intermediate_size": 32},
        "gated delta net, gated attention, experts",
    ),
    Family("gemma", "gemma", _HEADS_OF_16, "tied head"),
    Family(
        "gemma2",
        "gemma2",
        {**_HEADS_OF_16, "query_pre_attn_scalar": 16, "sliding_window": 8, "layer_types": _SLIDING},
        "sliding window, capped scores and logits, tied head",
    ),
    Family(
        "gemma3",
        "gemma3_text",
        {**_HEADS_OF_16, "query_pre_attn_scalar": 16, "sliding_window": 8, "layer_types": _SLIDING},
        "sliding window, two bases of rotary positions, tied head",
    ),
    Family("phi", "phi", {}, "parallel blocks, partly rotary, biased head"),
    Family("phi3", "phi3", {"sliding_window": None}, "q, k, v in one matrix"),
    Family(
        "phimoe",
        "phimoe",
        {**_LOCAL_EXPERTS, "lm_head_bias": True, "sliding_window": None},
        "experts, biased head",
    ),
    Family("olmo", "olmo", {}, "norms without weights"),
    Family("olmo2", "olmo2", {}, "norms after the layers"),
    Family(
        "olmo3",
        "olmo3",
        {"sliding_window": 8, "layer_types": _SLIDING},
        "sliding window, norms after the layers",
    ),
    Family("olmoe", "olmoe", _EXPERTS, "experts"),
    Family("olmo-hybrid", "olmo_hybrid", _DELTA_NET, "gated delta net"),
    Family(
        "smollm3",
        "smollm3",
        {"no_rope_layers": [1, 0], "layer_types": ["full_attention"] * 2},
        "every second layer without positions",
    ),
    Family("glm", "glm", _HEADS_OF_16, "partly rotary positions"),
    Family("glm4", "glm4", _HEADS_OF_16, "partly rotary positions, norms around the layers"),
    Family(
        "glm4-moe",
        "glm4_moe",
        {**_HEADS_OF_16, "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
        | {"n_group": 1, "topk_group": 1, "first_k_dense_replace": 1},
        "experts",
    ),
    Family("granite", "granite", {"attention_multiplier": 0.2, "logits_scaling": 2.0}, "scaled logits"),
    Family("granite-moe", "granitemoe", {**_LOCAL_EXPERTS, "intermediate_size": 32}, "experts"),
    Family(
        "granite-moe-hybrid",
        "granitemoehybrid",
        {**_MAMBA2, **_LOCAL_EXPERTS, "layer_types": _LINEAR, "intermediate_size": 32}
        | {"shared_intermediate_size": 32, "attention_multiplier": 0.25},
        "Mamba-2, experts, no positions",
    ),
    Family("falcon-h1", "falcon_h1", {**_MAMBA2, "mamba_d_ssm": 128}, "Mamba-2 beside attention"),
    Family("falcon-mamba", "falcon_mamba", {"state_size": 8, "num_hidden_layers": 2}, "Mamba, no attention"),
    Family("bamba", "bamba", {**_MAMBA2, "attn_layer_indices": [1]}, "Mamba-2"),
    Family(
        "jamba",
        "jamba",
        {**_LOCAL_EXPERTS, "num_experts": 4, "num_local_experts": LEFT_OUT, "mamba_d_state": 8}
        | {"num_hidden_layers": 4, "attn_layer_period": 4, "attn_layer_offset": 2},
        "Mamba, experts, no positions",
    ),
    Family(
        "nemotron-h",
        "nemotron_h",
        {
            "num_hidden_layers": LEFT_OUT,
            "layers_block_type": ["linear_attention", "moe", "full_attention", "mlp"],
        }
        | {"mamba_num_heads": 8, "mamba_head_dim": 16, "ssm_state_size": 16, "n_groups": 2, "chunk_size": 16}
        | {"n_routed_experts": 4, "moe_intermediate_size": 32, "moe_shared_expert_intermediate_size": 32}
        | {"head_dim": 16},
        "Mamba-2, experts",
    ),
    Family(
        "mamba2",
        "mamba2",
        {"num_heads": 8, "head_dim": 16, "state_size": 16, "chunk_size": 16},
        "no attention",
    ),
    Family(
        "recurrent-gemma",
        "recurrent_gemma",
        {"num_hidden_layers": 3, "lru_width": 64, "attention_window_size": 8},
        "gated linear recurrence, sliding window, tied head",
    ),
    Family(
        "lfm2",
        "lfm2",
        {"num_hidden_layers": 3, "layer_types": ["conv", "full_attention", "conv"], "block_multiple_of": 32},
        "short convolutions, tied head",
    ),
    Family(
        "lfm2-moe",
        "lfm2_moe",
        {**_EXPERTS, "num_hidden_layers": 3, "layer_types": ["conv", "full_attention", "conv"]}
        | {"num_dense_layers": 1},
        "short convolutions, experts, tied head",
    ),
    Family("stablelm", "stablelm", {}, "LayerNorm, partly rotary positions"),
    Family(
        "stablelm-parallel",
        "stablelm",
        {"use_parallel_residual": True, "qk_layernorm": True, "use_qkv_bias": True},
        "parallel blocks, norms of q and k",
    ),
    Family("gpt-neox", "gpt_neox", {}, "parallel blocks, q, k, v in one matrix"),
    Family("gpt2", "gpt2", {}, "Conv1D layers, learned positions, tied head"),
    Family(
        "gpt-neo",
        "gpt_neo",
        {"num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]], "window_size": 8}
        | {"num_hidden_layers": LEFT_OUT, "num_attention_heads": LEFT_OUT},
        "sliding window, learned positions, tied head",
    ),
    Family("gptj", "gptj", {"rotary_dim": 8}, "parallel blocks, biased head"),
    Family("gpt-bigcode", "gpt_bigcode", {}, "one key/value head, learned positions, tied head"),
    Family("opt", "opt", {"ffn_dim": 96, "word_embed_proj_dim": 64}, "learned positions, tied head"),
    Family("bloom", "bloom", {"n_layer": 2, "n_head": 4}, "ALiBi, tied head"),
    Family("mpt", "mpt", {"d_model": 64, "n_heads": 4, "n_layers": 2}, "ALiBi, tied head"),
    Family("falcon", "falcon", {"multi_query": True, "ffn_hidden_size": 96}, "one key/value head"),
    Family("falcon-alibi", "falcon", {"alibi": True, "multi_query": False, "ffn_hidden_size": 96}, "ALiBi"),
    Family("starcoder2", "starcoder2", {"sliding_window": 8}, "sliding window, biases, tied head"),
    Family("cohere", "cohere", {}, "parallel blocks, scaled logits, tied head"),
    Family(
        "cohere2",
        "cohere2",
        {"sliding_window": 8, "layer_types": _SLIDING},
        "sliding window with positions, full layers without, scaled logits, tied head",
    ),
    Family(
        "gpt-oss",
        "gpt_oss",
        {**_HEADS_OF_16, **_LOCAL_EXPERTS, "sliding_window": 8, "layer_types": _SLIDING},
        "attention sinks, sliding window, experts",
    ),
    Family("nemotron", "nemotron", {}, "LayerNorm of weight plus one, squared ReLU"),
    Family(
        "exaone4",
        "exaone4",
        {"sliding_window": 8, "layer_types": _SLIDING},
        "sliding window with positions, full layers without",
    ),
    Family("ernie4.5", "ernie4_5", _HEADS_OF_16, "interleaved rotary positions, tied head"),
    Family(
        "ernie4.5-moe",
        "ernie4_5_moe",
        {"moe_num_experts": 4, "moe_k": 2, "moe_intermediate_size": 32, "moe_num_shared_experts": 1},
        "experts, tied head",
    ),
    Family(
        "minimax",
        "minimax",
        {
            **_HEADS_OF_16,
            **_LOCAL_EXPERTS,
            "layer_types": ["linear_attention", "full_attention"],
            "block_size": 8,
        },
        "lightning attention, experts",
    ),
    Family(
        "deepseek-v2",
        "deepseek_v2",
        {**_LATENT_ATTENTION, "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
        | {"first_k_dense_replace": 1, "topk_method": "greedy", "n_group": 1, "topk_group": 1},
        "latent attention, experts",
    ),
    Family(
        "deepseek-v3",
        "deepseek_v3",
        {**_LATENT_ATTENTION, "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
        | {"first_k_dense_replace": 1, "n_group": 1, "topk_group": 1, "n_shared_experts": 1},
        "latent attention, experts",
    ),
    Family("minicpm3", "minicpm3", {**_LATENT_ATTENTION, "dim_model_base": 64}, "latent attention"),
    Family("seed-oss", "seed_oss", _HEADS_OF_16, "bias in q, k, v"),
    Family("helium", "helium", _HEADS_OF_16),
    Family("arcee", "arcee", {}, "squared ReLU without a gate"),
    Family("apertus", "apertus", {}, "xIELU activation, norms of q and k"),
    Family("hunyuan-dense", "hunyuan_v1_dense", _HEADS_OF_16, "norms of q and k"),
    Family("diffllama", "diffllama", {}, "differential attention"),
    Family("persimmon", "persimmon", {}, "q, k, v in one matrix, norms of q and k"),
    Family("nanochat", "nanochat", {}, "norms without weights, capped logits"),
    # Families with weights on the Hub whose code is in their own repositories, or that came out later.
    Family("internlm2", "internlm2"),
    Family("baichuan", "baichuan"),
    Family("chatglm", "chatglm"),
    Family("minicpm", "minicpm"),
    Family("qwen", "qwen"),
    Family("rwkv7", "rwkv7"),
    Family("deepseek", "deepseek"),
    Family("orion", "orion"),
)

DEFAULT = frozenset(
    (
        *(
            "llama",
            "qwen3",
            "gemma3",
            "mistral",
            "olmoe",
            "mamba2",
            "falcon-h1",
            "bloom",
            "gpt-neo",
            "gpt-oss",
        ),
        *("deepseek-v3", "starcoder2", "granite"),
    )
)
"""Names of the families that are tested by default."""
FAMILIES: tuple[Family, ...] = tuple(family for family in _WANTED if family.model_type in CONFIG_MAPPING)
"""The families that the installed transformers has."""
MISSING: tuple[str, ...] = tuple(family.name for family in _WANTED if family.model_type not in CONFIG_MAPPING)
"""Names of the families that it lacks."""


def family_parameters() -> list[ParameterSet]:
    """Return the families as parameters of a test; those outside of ``DEFAULT`` are marked slow."""
    return [
        pytest.param(family, id=family.name, marks=() if family.name in DEFAULT else pytest.mark.slow)
        for family in FAMILIES
    ]


def family_named(name: str) -> Family:
    """Return the family of this name; StopIteration when there is none."""
    return next(family for family in FAMILIES if family.name == name)


def build(family: Family | str, seed: int = 0, dtype: torch.dtype | None = None) -> PreTrainedModel:
    """Return a family's tiny model in evaluation mode with random weights; fp32 unless ``dtype`` says otherwise.

    Matrices are drawn with the deviation 1 / sqrt(last dimension); vectors (norms, biases, decay rates) keep what the
    family starts them with, plus noise of 0.2: activations and logits stay of order 1 and no layer is idle.
    """
    import torch
    from transformers import AutoModelForCausalLM

    chosen = family_named(family) if isinstance(family, str) else family
    torch.manual_seed(seed)
    model: Any = AutoModelForCausalLM.from_config(chosen.config())
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape)
            if parameter.ndim >= 2:
                parameter.copy_(noise / parameter.shape[-1] ** 0.5)
            else:
                parameter.add_(0.2 * noise)
    return model.to(dtype or torch.float32).eval()
