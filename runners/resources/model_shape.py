"""The dimensions of a transformer that determine its memory, read from a config or guessed from a size.

:func:`read_shape` reads a transformers ``config.json``; :func:`typical_shape` derives a typical shape from a
parameter count. Imports no torch.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from rag.errors import BadInput

ALL_LINEAR = ("q", "k", "v", "o", "mlp")
"""Every linear layer of the blocks: the recommended targets of LoRA (Biderman et al., arXiv 2405.09673)."""
LORA_TARGETS = (*ALL_LINEAR, "lm_head", "embedding")
_FAMILIES = json.loads(Path(__file__).with_name("families.json").read_text("utf-8"))
UNGATED_FAMILIES = frozenset(_FAMILIES["ungated"])
"""Model types whose MLP has two matrices and whose norm is LayerNorm; all others: three, and RMSNorm."""

ADAPTED_EXPERT_FAMILIES = frozenset(_FAMILIES["adapted_expert"])
"""Model types whose experts PEFT 0.21 adapts with all linear layers, though they are 3-D parameters: those that
``_convert_peft_config_moe`` knows by transformers' table of converted weights. It adds the adapters' product to a copy of
the experts, which stays in memory until the backward pass."""
FOUR_NORM_FAMILIES = frozenset(_FAMILIES["four_norm"])
"""Model types with a norm before and after attention and MLP."""
HEAD_NORM_FAMILIES = frozenset(_FAMILIES["head_norm"])
"""Model types that normalise queries and keys."""
WINDOW_PATTERNS = {"gemma2": 2, "gemma3": 6, "gemma3_text": 6, "cohere2": 4}
"""Model types with windows whose configs may not say in which layers: each n-th sees all tokens (transformers' defaults)."""
RECURRENT_LAYERS = frozenset(("mamba", "linear_attention"))
"""Kinds of layers that hold a state of fixed size in place of keys and values (``layer_types``)."""
WHOLE_LOGITS_FAMILIES = frozenset(_FAMILIES["whole_logits"])
"""Model types that scale or cap their logits whatever their config says (transformers' defaults), or whose head has a bias:
the row-wise loss of :mod:`runners.training.loss` does not fit them."""
CAPPED_LOGITS_FAMILIES = frozenset(_FAMILIES["capped_logits"])
"""Those of them that cap logits by a tanh where their config does not say how."""
CAPPED_SCORES_FAMILIES = frozenset(_FAMILIES["capped_scores"])
"""Model types that cap attention's scores by a tanh where their config does not say how."""
LOGIT_CAPS = ("final_logit_softcapping", "logits_soft_cap")
"""Settings of a config that cap logits by a tanh; None and 0 do not."""
LOGIT_SCALES = ("logits_scaling", "logit_scale", "lm_head_multiplier", *LOGIT_CAPS)
"""Settings of a config that change logits; None, 0 and 1 change nothing."""
COMPOSED_ACTIVATIONS = frozenset(("gelu_new", "gelu_fast", "gelu_python", "quick_gelu"))
"""Activations that transformers composes of several operations, each of which saves its input."""


@dataclass(frozen=True, slots=True)
class ModelShape:
    """The dimensions of a transformer that determine its memory."""

    params: int
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    """Width of the MLP that one token passes through, summed over its active experts."""
    vocab: int
    gated: bool = True
    tied: bool = True
    experts: int = 1
    """MLPs of a block that a router chooses among; all of them are in memory."""
    active: int = 1
    """MLPs of a block that one token passes through."""
    shared: int = 0
    """Width of the MLPs beside the experts that every token passes through; part of ``intermediate``."""
    adapted_experts: bool = False
    """Whether PEFT adapts the experts (:data:`ADAPTED_EXPERT_FAMILIES`)."""
    norms: int = 2
    """Norms of a block."""
    head_norms: bool = False
    """Whether queries and keys are normalised."""
    dense_layers: int = 0
    """Blocks of a mixture of experts that have one MLP."""
    looked_up: int = 0
    """Parameters of tables beside the embedding that are looked up and not multiplied: per-layer embeddings (Gemma 3n)."""
    cache: tuple[tuple[int, int, int], ...] = ()
    """What layers hold of earlier tokens, as (layers, values of one token, most tokens; 0 for all). A state of fixed size
    counts as one token; layers that use the keys and values of others are left out. () for keys and values of all tokens
    in every layer."""
    composed_activation: bool = False
    """Whether the MLP's activation is composed of several operations (:data:`COMPOSED_ACTIVATIONS`)."""
    whole_logits: bool = False
    """Whether training holds the logits of all tokens, as the model changes them outside its head."""
    capped_logits: bool = False
    """Whether it caps them by a tanh, whose output is kept for the backward pass."""
    capped_scores: bool = False
    """Whether it caps attention's scores so, which no kernel does that does not store them."""
    assumed: bool = False
    """Whether the shape was derived from the parameter count alone."""

    @property
    def query(self) -> int:
        """Width of all query heads; grouped keys and values are repeated to it."""
        return self.heads * self.head_dim

    @property
    def llama_like(self) -> bool:
        """Whether a block is built like Llama's, as far as the shape tells: the CPU kernels cover such blocks."""
        return self.gated and self.norms == 2 and not self.head_norms and self.experts <= 1

    @property
    def embedding(self) -> int:
        """Parameters of the embedding and the head, which 4-bit quantisation does not change."""
        return self.vocab * self.hidden * (1 if self.tied else 2) + self.looked_up

    @property
    def active_params(self) -> int:
        """Parameters that a token uses, which set the speed: without idle experts and per-layer embeddings; all of a dense
        model's."""
        return (
            self.params - self.looked_up - self.expert_params * (self.experts - self.active) // self.experts
        )

    @property
    def table(self) -> int:
        """Parameters of the embedding alone, usually the largest single tensor."""
        return self.vocab * self.hidden

    @property
    def expert_params(self) -> int:
        """Parameters of the experts that a router chooses among; 0 for a model without."""
        if self.experts <= 1:
            return 0
        matrices = 3 if self.gated else 2
        layers = self.layers - self.dense_layers
        return min(self.blocks, layers * self.experts * matrices * self.hidden * self.expert_width)

    @property
    def expert_width(self) -> int:
        """Width of one expert's MLP; without experts, of the MLP."""
        return (self.intermediate - self.shared) // self.active

    @property
    def blocks(self) -> int:
        """Parameters of the blocks: everything but the embedding and the head."""
        return max(0, self.params - self.embedding)

    def cached_values(self, tokens: int) -> int:
        """Return the number of keys, values and states that are held after this many tokens of one sequence."""
        groups = self.cache or ((self.layers, 2 * self.kv_heads * self.head_dim, 0),)
        return sum(layers * values * min(tokens, most or tokens) for layers, values, most in groups)

    def matrices(self, targets: Iterable[str] = ALL_LINEAR) -> tuple[tuple[int, int], ...]:
        """Return (input, output) widths of one block's linear layers among ``targets``."""
        q, kv = self.query, self.kv_heads * self.head_dim
        attention = {
            "q": (self.hidden, q),
            "k": (self.hidden, kv),
            "v": (self.hidden, kv),
            "o": (q, self.hidden),
        }
        up, down = (self.hidden, self.intermediate), (self.intermediate, self.hidden)
        mlp = (up, up, down) if self.gated else (up, down)
        names = frozenset(targets)
        return tuple(size for name, size in attention.items() if name in names) + (
            mlp if "mlp" in names else ()
        )

    def adapted_matrices(self, targets: Iterable[str] = ALL_LINEAR) -> tuple[tuple[int, int], ...]:
        """Return (input, output) widths of one block's linear layers that get an adapter.

        Of a mixture of experts only the MLP that every token passes through, as experts are 3-D parameters.
        """
        names = frozenset(targets)
        if self.experts <= 1 or "mlp" not in names:
            return self.matrices(names)
        return self.matrices(names - {"mlp"}) + (
            replace(self, intermediate=self.shared, experts=1).matrices({"mlp"}) if self.shared else ()
        )

    def adapter(self, rank: int, targets: Iterable[str] = ALL_LINEAR) -> int:
        """Parameters of LoRA adapters: rank x (input + output width), summed over targets.

        Experts have one only where PEFT adapts their 3-D parameters, of twice the rank for gate and up together.
        """
        return rank * _adapted_widths(self, tuple(targets))


@lru_cache(maxsize=1024)
def _adapted_widths(shape: ModelShape, targets: tuple[str, ...]) -> int:
    """Return the sum of input and output widths of all layers of the model among ``targets``."""
    names = frozenset(targets)
    widths = sum(a + b for a, b in shape.adapted_matrices(names))
    if shape.experts > 1 and shape.adapted_experts and "mlp" in names:
        h, width = shape.hidden, shape.expert_width
        first = 2 * (h + 2 * width) if shape.gated else h + width
        widths += shape.experts * (first + h + width)
    # The head and the embedding occur once, not once in each layer.
    ends = len(names & {"lm_head", "embedding"}) * (shape.hidden + shape.vocab)
    return shape.layers * widths + ends


@lru_cache(maxsize=256)
def typical_shape(params_b: float) -> ModelShape:
    """Return a typical shape for a size in billions of parameters.

    Assumes 12·L·h² parameters in L blocks of width h = 128·L, heads of 128 and four query heads for each key/value
    head.
    """
    params = int(params_b * 1e9)
    # params = 12 * L * (128 * L)^2 = 12 * 128^2 * L^3, solved for L.
    layers = max(2, round((params / (12 * 128**2)) ** (1 / 3)))
    hidden = 128 * layers
    return ModelShape(
        params=params,
        layers=layers,
        hidden=hidden,
        heads=layers,
        kv_heads=max(1, layers // 4),
        head_dim=128,
        intermediate=round(hidden * 3.5),
        vocab=32_000 if params_b < 1 else 128_000,
        tied=params_b < 4,
        assumed=True,
    )


def lora_targets(given: str | list[str] | tuple[str, ...]) -> tuple[str, ...]:
    """Return the LoRA targets of "q,k,v,o,mlp,lm_head" (or a list); ValueError names an unknown one."""
    names = tuple(name.strip() for name in (given.split(",") if isinstance(given, str) else given))
    if names == ("all",) or names == ("all-linear",):
        return ALL_LINEAR
    if not names or (unknown := [name for name in names if name not in LORA_TARGETS]):
        raise ValueError(
            f"{', '.join(map(repr, unknown if names else ['']))} is none of {', '.join(LORA_TARGETS)}"
        )
    return names


def count_parameters(shape: ModelShape) -> int:
    """Return the number of parameters of a dense shape: matrices, two norms a block and one after them, embedding, head."""
    blocks = shape.layers * (sum(a * b for a, b in shape.matrices()) + 2 * shape.hidden)
    return blocks + shape.embedding + shape.hidden


def read_shape(config: Mapping[str, Any]) -> ModelShape:
    """Return the shape that a transformers ``config.json`` describes; BadInput names what is missing or wrong.

    For a model of images and text its ``text_config`` counts. For a mixture of experts ``params`` counts the weights
    of all experts, and ``intermediate`` is the summed width of the experts that one token passes through. Where MLPs differ
    in width it is their mean; layers without attention count with the matrices of attention, but for ``params`` and
    ``cache``. Biases are not counted.
    """
    nested = config.get("text_config")
    config = {**config, **nested} if isinstance(nested, Mapping) else config
    layers = _number(config, "num_hidden_layers", "n_layer", "n_layers")
    hidden = _number(config, "hidden_size", "n_embd", "d_model", "dim")
    heads = _number(config, "num_attention_heads", "n_head", "n_heads")
    experts = _optional(config, "num_local_experts", "num_experts", "n_routed_experts") or 1
    active = _number(config, "num_experts_per_tok", "top_k_experts", default=1) if experts > 1 else 1
    family = config.get("model_type")
    widths = _mlp_widths(config, layers, hidden, experts)
    width = _number(config, "moe_intermediate_size", default=widths[0])
    shared = _shared_width(config, width) if experts > 1 else 0
    dense = [widths[n] for n in range(layers) if experts == 1 or not _has_experts(config, n)]
    gated = family not in UNGATED_FAMILIES
    per_layer = _optional(config, "hidden_size_per_layer_input")
    shape = ModelShape(
        params=0,
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=_key_value_heads(config, heads),
        head_dim=_number(config, "head_dim", default=max(1, hidden // heads)),
        intermediate=round(sum(widths) / layers) if experts == 1 else width * active + shared,
        vocab=_number(config, "vocab_size"),
        gated=gated,
        tied=bool(config.get("tie_word_embeddings", True)),
        experts=experts,
        active=active,
        shared=shared,
        adapted_experts=experts > 1 and family in ADAPTED_EXPERT_FAMILIES,
        norms=4 if family in FOUR_NORM_FAMILIES else 2,
        head_norms=family in HEAD_NORM_FAMILIES,
        dense_layers=len(dense) if experts > 1 else 0,
        looked_up=_optional(config, "vocab_size_per_layer_input") * layers * per_layer,
        composed_activation=_activation(config) in COMPOSED_ACTIVATIONS,
        whole_logits=family in WHOLE_LOGITS_FAMILIES
        or any(config.get(name) not in (None, 0, 1) for name in LOGIT_SCALES)
        or config.get("dim_model_base") not in (None, hidden),  # MiniCPM divides by their ratio
        capped_logits=_is_capped(config, LOGIT_CAPS, CAPPED_LOGITS_FAMILIES),
        capped_scores=_is_capped(config, ("attn_logit_softcapping",), CAPPED_SCORES_FAMILIES),
    )
    mixers, cache = _mixers(config, shape)
    # An expert MLP's matrices, and the router's line for it.
    mlps = (3 if gated else 2) * hidden * (sum(dense) + (layers - len(dense)) * (experts * width + shared))
    routers = (layers - len(dense)) * experts * hidden
    extra = per_layer * layers * hidden * 3 + _altup_parameters(config, layers, hidden)
    norms = (2 * layers + 1) * hidden
    params = mixers + mlps + routers + extra + norms + shape.embedding
    plain = len(cache) == 1 and cache[0] == (layers, 2 * shape.kv_heads * shape.head_dim, 0)
    return replace(shape, params=params, cache=() if plain else cache)


def _mlp_widths(config: Mapping[str, Any], layers: int, hidden: int, experts: int) -> list[int]:
    """Return the width of each layer's MLP, that of Granite 4 being its shared one where there are no experts.

    Layers of Gemma 4 that use the keys and values of others may have one of twice the width.
    """
    given = config.get("intermediate_size")
    if isinstance(given, list):
        return [_number({"intermediate_size": each}, "intermediate_size") for each in given][:layers]
    only = _optional(config, "shared_intermediate_size") if experts == 1 else 0
    width = only or _number(
        config, "intermediate_size", "n_inner", "ffn_dim", "hidden_dim", default=4 * hidden
    )
    wide = _optional(config, "num_kv_shared_layers") if config.get("use_double_wide_mlp") else 0
    return [width] * (layers - wide) + [2 * width] * wide


def _has_experts(config: Mapping[str, Any], layer: int) -> bool:
    """Return whether this layer of a mixture of experts has them, or one MLP."""
    single = layer < _optional(config, "first_k_dense_replace") or layer in (
        config.get("mlp_only_layers") or ()
    )
    return not single and (layer + 1) % _number(config, "decoder_sparse_step", default=1) == 0


def _layer_kinds(config: Mapping[str, Any], layers: int) -> list[str]:
    """Return what mixes tokens in each layer, in the words of ``layer_types``."""
    given = config.get("layer_types") or config.get("layers_block_type")
    if isinstance(given, list) and len(given) == layers:
        return [str(kind) for kind in given]
    full, others = config.get("attn_layer_indices"), "mamba"
    if not isinstance(full, list):
        windowed = bool(config.get("sliding_window")) and bool(config.get("use_sliding_window", True))
        others = "sliding_attention" if windowed else "linear_attention"
        pattern = WINDOW_PATTERNS.get(str(config.get("model_type")), layers + 1)
        names = ("sliding_window_pattern",) if windowed else ("full_attention_interval",)
        each = _number(config, *names, default=pattern if windowed else 1)
        full = range(each - 1, layers, each)
    return ["full_attention" if layer in full else others for layer in range(layers)]


def _mixers(config: Mapping[str, Any], shape: ModelShape) -> tuple[int, tuple[tuple[int, int, int], ...]]:
    """Return the parameters of what mixes tokens, in all layers, and what it holds of earlier tokens (``cache``).

    Layers of full attention may have heads of their own (Gemma 4), a gate as wide as the queries (Qwen3-Next) and keys that
    are values too; the last layers may use the keys and values of earlier ones (Gemma 3n and 4).
    """
    h, params, cache = shape.hidden, 0, Counter[tuple[int, int]]()
    owners = shape.layers - _optional(config, "num_kv_shared_layers")
    gated = bool(config.get("attn_output_gate", config.get("model_type") == "qwen3_next"))
    for layer, kind in enumerate(_layer_kinds(config, shape.layers)):
        if kind in RECURRENT_LAYERS:
            weights, state = _recurrent(config, h, kind)
            params += weights
            cache[state, 1] += 1
            continue
        sliding = kind == "sliding_attention"
        size, pairs = shape.head_dim, shape.kv_heads
        if not sliding:
            size = _optional(config, "global_head_dim") or size
            pairs = _optional(config, "num_global_key_value_heads") or pairs
        keys = pairs * size
        params += h * shape.heads * size * (3 if gated else 2)
        if layer < owners:
            params += h * keys * (1 if config.get("attention_k_eq_v") and not sliding else 2)
            cache[2 * keys, _number(config, "sliding_window") if sliding else 0] += 1
    return params, tuple((layers, *group) for group, layers in cache.items())


def _recurrent(config: Mapping[str, Any], hidden: int, kind: str) -> tuple[int, int]:
    """Return the parameters of a Mamba-2 layer or a gated delta net, and the values of its state, fp32 ones counted twice.

    Both read a window of their convolution, and add the product of a key and a value to a matrix for each head.
    """
    if kind == "mamba":
        heads = _number(config, "mamba_n_heads")
        inner = _number(config, "mamba_expand", default=2) * hidden
        states = _number(config, "mamba_d_state")
        mixed = inner + 2 * _number(config, "mamba_n_groups", default=1) * states
        projected, kernel, matrix = (
            inner + mixed + heads,
            _number(config, "mamba_d_conv", default=4),
            inner * states,
        )
    else:
        heads, key = _number(config, "linear_num_value_heads"), _number(config, "linear_key_head_dim")
        inner = heads * _number(config, "linear_value_head_dim")
        mixed = inner + 2 * _number(config, "linear_num_key_heads") * key
        projected, kernel, matrix = (
            inner + mixed + 2 * heads,
            _number(config, "linear_conv_kernel_dim"),
            inner * key,
        )
    return hidden * (projected + inner) + mixed * kernel, 2 * matrix + mixed * kernel


def _altup_parameters(config: Mapping[str, Any], layers: int, hidden: int) -> int:
    """Return the parameters of Gemma 3n's alternating updates and low-rank residuals (LAuReL); 0 for all others."""
    inputs = _optional(config, "altup_num_inputs")
    residuals = 2 * layers * hidden * _optional(config, "laurel_rank")
    return 2 * max(0, inputs - 1) * hidden**2 + layers * inputs * hidden + residuals


def _is_capped(config: Mapping[str, Any], settings: tuple[str, ...], families: frozenset[str]) -> bool:
    """Return whether one of these settings of a config is on, or is by the family's default where the config is silent."""
    given = [config[name] for name in settings if name in config]
    return any(given) if given else config.get("model_type") in families


def _activation(config: Mapping[str, Any]) -> str:
    """Return the name of the MLP's activation, "" where the config does not say it; GPT-2's default is ``gelu_new``."""
    default = "gelu_new" if config.get("model_type") in ("gpt2", "gptj", "gpt_neo") else ""
    return str(config.get("hidden_act") or config.get("activation_function") or default)


def _shared_width(config: Mapping[str, Any], width: int) -> int:
    """Return the summed width of the MLPs that every token of a mixture of experts passes through, 0 without any."""
    given = _optional(config, "shared_expert_intermediate_size", "shared_intermediate_size")
    if config.get("enable_moe_block"):  # Gemma 4 adds its experts to an MLP
        given = _number(config, "intermediate_size")
    return given or _optional(config, "n_shared_experts", "num_shared_experts") * width


def _key_value_heads(config: Mapping[str, Any], heads: int) -> int:
    """Return the number of key/value heads; Falcon's ``multi_query`` means one only in its first architecture."""
    if config.get("multi_query") and not config.get("new_decoder_architecture"):
        return 1
    return _number(config, "num_key_value_heads", "num_kv_heads", default=heads)


def _number(config: Mapping[str, Any], *names: str, default: int | None = None) -> int:
    """Return the value of the first of these keys that is present, an int of 1 or more; BadInput otherwise."""
    name = next((n for n in names if config.get(n) is not None), None)
    if name is None:
        if default is None:
            raise BadInput(f"the model's config.json lacks {names[0]!r}, so its memory is unknown")
        return default
    value = config[name]
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise BadInput(
            f"the model's config.json says {name} = {value!r}, expected a whole number of 1 or more"
        )
    return value


def _optional(config: Mapping[str, Any], *names: str) -> int:
    """Return the first of these keys' values that is a whole number above 0; 0 without one."""
    values = (config.get(name) for name in names)
    return next((v for v in values if isinstance(v, int) and not isinstance(v, bool) and v > 0), 0)
