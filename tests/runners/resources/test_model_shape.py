"""Model shapes: read from configs of several families, derived from a size, and refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from rag.errors import BadInput
from runners.resources import memory_terms
from runners.resources.memory_terms import MemorySetup
from runners.resources.model_shape import ModelShape, count_parameters, read_shape, typical_shape

SMOLLM2 = {
    "model_type": "llama",
    "num_hidden_layers": 30,
    "hidden_size": 576,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "intermediate_size": 1536,
    "vocab_size": 49152,
    "tie_word_embeddings": True,
}
MIXTRAL = {
    "model_type": "mixtral",
    "num_hidden_layers": 32,
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "vocab_size": 32000,
    "num_local_experts": 8,
    "num_experts_per_tok": 2,
    "tie_word_embeddings": False,
}
GPT2 = {"model_type": "gpt2", "n_layer": 12, "n_embd": 768, "n_head": 12, "vocab_size": 50257}


DISTILBERT = {
    "model_type": "distilbert",
    "n_layers": 6,
    "dim": 768,
    "n_heads": 12,
    "hidden_dim": 3072,
    "vocab_size": 30522,
}
FALCON_40B = {
    "model_type": "falcon",
    "num_hidden_layers": 60,
    "hidden_size": 8192,
    "num_attention_heads": 128,
    "num_kv_heads": 8,
    "new_decoder_architecture": True,
    "multi_query": True,
    "vocab_size": 65024,
}


@pytest.mark.parametrize(
    ("config", "params"),
    [
        (SMOLLM2, 134.5e6),
        (MIXTRAL, 46.7e9),
        (GPT2, 124e6 - 1024 * 768),
        (DISTILBERT, 66.4e6 - 512 * 768),
        (FALCON_40B, 41.3e9),
    ],
)
def test_parameter_counts_match_published_sizes(config: dict[str, Any], params: float) -> None:
    """SmolLM2, a mixture of experts (all of them count), an encoder and others (without their positions)."""
    assert read_shape(config).params == pytest.approx(params, rel=0.005)


def test_config_keys_of_other_families_are_read() -> None:
    """Experts that a token passes through, plain MLPs, nested text models."""
    assert read_shape(MIXTRAL).intermediate == 2 * 14336
    assert not read_shape(GPT2).gated
    assert read_shape({"model_type": "llava", "text_config": SMOLLM2}) == read_shape(SMOLLM2)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"hidden_size": None}, "lacks 'hidden_size'"),
        ({"num_attention_heads": 0}, "num_attention_heads = 0"),
        ({"vocab_size": "many"}, "vocab_size = 'many'"),
        ({"num_hidden_layers": True}, "num_hidden_layers = True"),
    ],
)
def test_invalid_config_is_refused_by_key(changed: dict[str, Any], message: str) -> None:
    """Missing, zero, text: the key and the value."""
    with pytest.raises(BadInput, match=message):
        read_shape(SMOLLM2 | changed)


@pytest.mark.parametrize("params_b", [0.001, 0.135, 1, 7, 13, 70, 405])
def test_typical_shape_has_about_the_given_size(params_b: float) -> None:
    """A typical shape says that it was guessed, and from a billion on its numbers add up to the size."""
    shape = typical_shape(params_b)
    assert shape.assumed
    if params_b >= 1:
        assert count_parameters(shape) == pytest.approx(shape.params, rel=0.35)


def test_adapter_parameters_match_formula() -> None:
    """Rank times the widths of every target: 20.0 M for Llama-2-7B at rank 8; a head adds its own."""
    llama = ModelShape(6_738_000_000, 32, 4096, 32, 32, 128, 11008, 32000, tied=False)
    assert llama.adapter(8) == 8 * 32 * (8 * 4096 + 3 * (4096 + 11008))
    assert llama.adapter(8, ("q", "v")) == 8 * 32 * 4 * 4096
    assert llama.adapter(8, ("q", "v", "lm_head")) == 8 * (32 * 4 * 4096 + 4096 + 32000)


def test_experts_are_held_in_16_bits_and_get_no_adapter() -> None:
    """transformers holds experts as 3-D parameters: neither PEFT's nor bitsandbytes' linear layers replace them."""
    mixtral = read_shape(MIXTRAL)
    one = 3 * 4096 * 14336
    assert (mixtral.experts, mixtral.active) == (8, 2)
    assert mixtral.expert_params == 32 * 8 * one
    assert mixtral.adapter(16, ("mlp",)) == 0
    assert mixtral.adapter(16) == 16 * 32 * (2 * (4096 + 4096) + 2 * (4096 + 1024))
    # A model of 46.7e9 parameters in 4 bits: 45.1e9 of them are experts, and stay in 16 bits.
    held = memory_terms.weight_bytes(mixtral, "qlora", MemorySetup())
    assert held > 2 * mixtral.expert_params
    shared = read_shape({**MIXTRAL, "model_type": "qwen2_moe", "shared_expert_intermediate_size": 5632})
    assert shared.intermediate == 2 * 14336 + 5632
    assert shared.params - mixtral.params == 32 * 3 * 4096 * 5632
    assert shared.adapter(16, ("mlp",)) == 16 * 32 * 3 * (4096 + 5632)


def test_grouped_query_attention_narrows_keys_and_values() -> None:
    """Of Llama-3.1-8B's keys, a quarter of the query's width."""
    llama = ModelShape(8_030_000_000, 32, 4096, 32, 8, 128, 14336, 128256, tied=False)
    assert llama.matrices(("q", "k")) == ((4096, 4096), (4096, 1024))
    assert len(llama.matrices()) == 7


@pytest.mark.parametrize(
    ("changed", "logits", "scores"),
    [
        ({"model_type": "gemma2"}, True, True),
        ({"model_type": "gemma2", "attn_logit_softcapping": None}, True, False),
        ({"model_type": "gemma3_text", "final_logit_softcapping": 30.0}, True, False),
        ({"model_type": "gemma3_text", "final_logit_softcapping": None}, False, False),
        ({"model_type": "granite", "logits_scaling": 8.0}, False, False),
    ],
)
def test_caps_are_read_from_the_config_and_by_family(
    changed: dict[str, Any], logits: bool, scores: bool
) -> None:
    """A scale keeps nothing for the backward pass; a cap keeps the tanh's output, that of scores for every head and key."""
    shape = read_shape(SMOLLM2 | changed)
    assert (shape.capped_logits, shape.capped_scores) == (logits, scores)
    setup = MemorySetup(seq_len=512)
    uncapped = replace(shape, capped_scores=False)
    more = memory_terms.block_bytes(shape, "full", setup) - memory_terms.block_bytes(uncapped, "full", setup)
    assert more == (8 * shape.heads * 512 if scores else 0)


@pytest.mark.parametrize(
    ("changed", "whole"),
    [
        ({"model_type": "gemma2"}, True),
        ({"model_type": "gemma3_text", "final_logit_softcapping": None}, False),
        ({"model_type": "granite", "logits_scaling": 8.0}, True),
        ({"model_type": "granite", "logits_scaling": 1.0}, False),
        ({"model_type": "phi"}, True),
        ({"model_type": "minicpm3"}, True),
    ],
)
def test_models_that_change_their_logits_are_trained_on_whole_logits(
    changed: dict[str, Any], whole: bool
) -> None:
    """So their estimate counts the logits of every token, whatever loss the rest of the run would take."""
    shape = read_shape(SMOLLM2 | changed)
    rows = replace(shape, whole_logits=False)
    setup = MemorySetup(batch=4, seq_len=512, counter="allocated")
    assert shape.whole_logits == whole
    more = memory_terms.logits_bytes(shape, "lora", setup) - memory_terms.logits_bytes(rows, "lora", setup)
    assert more > 4 * 512 * shape.vocab if whole else more == 0


GPT_OSS = {
    **{"model_type": "gpt_oss", "num_hidden_layers": 24, "hidden_size": 2880, "intermediate_size": 2880},
    **{"num_attention_heads": 64, "num_key_value_heads": 8, "head_dim": 64, "vocab_size": 201088},
    **{
        "num_local_experts": 32,
        "num_experts_per_tok": 4,
        "tie_word_embeddings": False,
        "sliding_window": 128,
    },
    "layer_types": ["sliding_attention", "full_attention"] * 12,
}
DELTA_NET = {
    **{"linear_num_key_heads": 16, "linear_key_head_dim": 128, "linear_num_value_heads": 32},
    **{"linear_value_head_dim": 128, "linear_conv_kernel_dim": 4, "full_attention_interval": 3},
}
MAMBA = {"mamba_n_heads": 18, "mamba_d_state": 128, "attn_layer_indices": [9, 19, 29], "mamba_d_conv": 4}


@pytest.mark.parametrize(
    ("config", "tokens"),
    [
        (SMOLLM2, 30 * 1000),
        ({**SMOLLM2, "sliding_window": 256}, 30 * 256),
        ({**SMOLLM2, "sliding_window": 256, "use_sliding_window": False}, 30 * 1000),
        ({**SMOLLM2, "model_type": "gemma3_text", "sliding_window": 256}, 25 * 256 + 5 * 1000),
        ({**SMOLLM2, "sliding_window": 256, "sliding_window_pattern": 3}, 20 * 256 + 10 * 1000),
        ({**SMOLLM2, "layer_types": ["full_attention"] * 30, "num_kv_shared_layers": 10}, 20 * 1000),
        ({**SMOLLM2, **DELTA_NET}, 10 * 1000),
        ({**SMOLLM2, **MAMBA}, 3 * 1000),
    ],
)
def test_cache_counts_windows_shared_and_recurrent_layers(config: dict[str, Any], tokens: int) -> None:
    """Keys and values of 1,000 tokens; a recurrent state has the same size after any number of them."""
    shape = read_shape(config)
    state = sum(layers * values for layers, values, most in shape.cache if most == 1)
    assert shape.cached_values(1000) - state == 2 * 192 * tokens
    assert shape.cached_values(2000) <= 2 * shape.cached_values(1000)
    assert (state > 0) == ("mamba_n_heads" in config or "linear_num_key_heads" in config)
    setup = MemorySetup(seq_len=1000, batch=4)
    assert memory_terms.kv_cache_bytes(shape, "inference", setup) == 4 * 2 * shape.cached_values(1000)


def test_experts_count_whole_in_memory_and_in_part_for_speed() -> None:
    """gpt-oss-20b: 20.91e9 parameters of which 3.61e9 are multiplied with (its model card), the input embedding aside."""
    shape = read_shape(GPT_OSS)
    assert shape.params == pytest.approx(20.91e9, rel=0.001)
    assert shape.active_params - shape.table == pytest.approx(3.61e9, rel=0.005)
    assert memory_terms.weight_bytes(shape, "inference", MemorySetup()) == 2 * shape.params
    dense = read_shape({**MIXTRAL, "num_local_experts": 1})
    assert dense.active_params == dense.params
    assert shape.adapter(16) == 16 * 24 * (2 * (2880 + 4096) + 2 * (2880 + 512)), "experts get no adapter"
    first = read_shape({**MIXTRAL, "first_k_dense_replace": 2, "moe_intermediate_size": 1024})
    assert (first.dense_layers, first.expert_params) == (2, 30 * 8 * 3 * 4096 * 1024)
    assert read_shape({**MIXTRAL, "decoder_sparse_step": 2}).dense_layers == 16


def test_per_layer_embeddings_are_held_and_not_multiplied() -> None:
    """They stay in 16 bits as the embedding does, and a token reads one row of each."""
    more = {"hidden_size_per_layer_input": 64, "vocab_size_per_layer_input": 49152}
    shape, plain = read_shape({**SMOLLM2, **more}), read_shape(SMOLLM2)
    assert shape.looked_up == 30 * 64 * 49152
    assert shape.embedding - plain.embedding == shape.looked_up
    assert shape.params - shape.active_params == shape.looked_up
    assert shape.active_params - plain.params == 3 * 64 * 30 * 576
