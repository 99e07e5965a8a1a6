"""The families of models that are written as GGUF: their names there, their figures, and how rows are ordered. Light.

Facts of the format: ggml's docs/gguf.md; the order of rows and the factors of long rope are llama.cpp's conventions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from rag.errors import BadInput


@dataclass(frozen=True, slots=True)
class Family:
    """One family, as transformers and as GGUF call it."""

    name: str
    """transformers' ``model_type``."""
    arch: str
    """GGUF's ``general.architecture``."""
    paired: bool = False
    """Whether the rows of queries and keys are stored in rotating pairs, not in halves."""
    biased: bool = False
    """Whether queries, keys and values have biases that belong to the family."""
    headless: bool = False
    """Whether transformers' GGUF loader does not read how wide a head is, and must be given the model's settings."""


FAMILIES: tuple[Family, ...] = (
    Family("llama", "llama", paired=True),
    Family("qwen2", "qwen2", biased=True),
    Family("qwen3", "qwen3", headless=True),
)
"""What transformers' own GGUF loader reads back, so that every file can be checked."""
_ROPES = ("default", "llama3")


def family_of(config: Mapping[str, Any]) -> Family:
    """Return the family of a ``config.json``; BadInput names the family, or the setting that GGUF has no word for."""
    kind = str(config.get("model_type"))
    found = next((family for family in FAMILIES if family.name == kind), None)
    instead = "hand it on with --to merged, peft or vllm"
    if found is None:
        known = ", ".join(family.name for family in FAMILIES)
        raise BadInput(f"models of the family {kind!r} are not written as GGUF here, only {known}", instead)
    odd = {
        "attention_bias": bool(config.get("attention_bias")) and not found.biased,
        "mlp_bias": bool(config.get("mlp_bias")),
        "hidden_act": config.get("hidden_act", "silu") != "silu",
        "use_sliding_window": bool(config.get("use_sliding_window")),
        "rope_type": rope(config).get("rope_type", "default") not in _ROPES,
        "partial_rotary_factor": rope(config).get("partial_rotary_factor", 1) != 1,
    }
    if named := [key for key, is_odd in odd.items() if is_odd]:
        raise BadInput(f"this {kind} model sets {named[0]}, which is not written as GGUF here", instead)
    return found


def rope(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of rotary positions, wherever a version of transformers keeps them."""
    found = config.get("rope_parameters") or config.get("rope_scaling") or {}
    return {"rope_theta": config.get("rope_theta", 10_000.0), **found}


def figures(family: Family, config: Mapping[str, Any]) -> dict[str, int | float]:
    """Return the figures of a model under GGUF's keys, without the architecture before them."""
    heads, width = int(config["num_attention_heads"]), int(config["hidden_size"])
    size = int(config.get("head_dim") or width // heads)
    return {
        "vocab_size": int(config["vocab_size"]),
        "context_length": int(config["max_position_embeddings"]),
        "embedding_length": width,
        "block_count": int(config["num_hidden_layers"]),
        "feed_forward_length": int(config["intermediate_size"]),
        "attention.head_count": heads,
        "attention.head_count_kv": int(config.get("num_key_value_heads") or heads),
        "attention.key_length": size,
        "attention.value_length": size,
        "attention.layer_norm_rms_epsilon": float(config["rms_norm_eps"]),
        "rope.dimension_count": size,
        "rope.freq_base": float(rope(config)["rope_theta"]),
    }


def reordered(family: Family, config: Mapping[str, Any], name: str, values: np.ndarray) -> np.ndarray:
    """Return a tensor [rows, ...] as GGUF stores it: in some families each head's rows of queries and keys in pairs."""
    part = name.rsplit(".", 2)[-2]
    if not family.paired or part not in ("q_proj", "k_proj"):
        return values
    heads = int(config["num_attention_heads"])
    heads = heads if part == "q_proj" else int(config.get("num_key_value_heads") or heads)
    halves = values.reshape(heads, 2, len(values) // heads // 2, *values.shape[1:])
    return halves.swapaxes(1, 2).reshape(values.shape)


def rope_factors(config: Mapping[str, Any]) -> np.ndarray | None:
    """Return what each frequency is divided by, float32 [head_dim / 2], for Llama 3's long rope; None for plain rope.

    Short waves stay, long ones are stretched by ``factor``, those between are mixed (Llama 3.1's own rule).
    """
    how = rope(config)
    if how.get("rope_type", "default") != "llama3":
        return None
    size = int(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"])
    factor, old = float(how["factor"]), float(how["original_max_position_embeddings"])
    low, high = float(how["low_freq_factor"]), float(how["high_freq_factor"])
    found = []
    for place in range(0, size, 2):
        wave = 2 * math.pi * float(how["rope_theta"]) ** (place / size)
        mixed = min(1.0, max(0.0, (old / wave - low) / (high - low)))
        found.append(1 / ((1 - mixed) / factor + mixed))
    return np.array(found, dtype=np.float32)
