"""The dimensions of a transformer that determine its memory, read from a config or guessed from a size.

:func:`read_shape` reads a transformers ``config.json``; :func:`typical_shape` derives a typical shape from a
parameter count. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from rag.errors import BadInput

ALL_LINEAR = ("q", "k", "v", "o", "mlp")
"""Every linear layer of the blocks: the recommended targets of LoRA (Biderman et al., arXiv 2405.09673)."""
LORA_TARGETS = (*ALL_LINEAR, "lm_head", "embedding")
UNGATED_FAMILIES = frozenset(
    (
        "gpt2",
        "gpt_neo",
        "gpt_neox",
        "gptj",
        "gpt_bigcode",
        "starcoder2",
        "phi",
        "falcon",
        "opt",
        "bloom",
        "mpt",
        "bert",
        "distilbert",
        "roberta",
        "xlm-roberta",
        "deberta-v2",
        "electra",
    )
)
"""Model types whose MLP has two matrices and whose norm is LayerNorm; all others: three, and RMSNorm."""

ADAPTED_EXPERT_FAMILIES = frozenset(
    (
        "afmoe",
        "beam",
        "cohere2_moe",
        "deepseek_v2",
        "deepseek_v3",
        "deepseek_v32",
        "dots1",
        "ernie4_5_moe",
        "exaone_moe",
        "flex_olmo",
        "glm4_moe",
        "glm4_moe_lite",
        "glm_moe_dsa",
        "hunyuan_v1_moe",
        "longcat_flash",
        "mellum",
        "minimax",
        "minimax_m2",
        "olmoe",
        "qwen3_moe",
        "qwen3_next",
        "sarvam_mla",
        "solar_open",
    )
)
"""Model types whose experts PEFT 0.21 adapts with all linear layers, though they are 3-D parameters: those that
``_convert_peft_config_moe`` knows by transformers' table of converted weights. It adds the adapters' product to a copy of
the experts, which stays in memory until the backward pass."""
FOUR_NORM_FAMILIES = frozenset(("gemma2", "gemma3", "gemma3_text", "gemma3n_text", "glm4"))
"""Model types with a norm before and after attention and MLP."""
HEAD_NORM_FAMILIES = frozenset(
    ("gemma3", "gemma3_text", "qwen3", "qwen3_moe", "qwen3_next", "olmo2", "olmo3", "olmoe")
)
"""Model types that normalise queries and keys."""
WHOLE_LOGITS_FAMILIES = frozenset(
    (
        "beam",
        "codegen",
        "cohere",
        "cohere2",
        "cohere2_moe",
        "gemma2",
        "gemma3n_text",
        "gptj",
        "inkling",
        "inkling2",
        "inkling2_loop",
        "minicpm3",
        "nanochat",
        "phi",
        "recurrent_gemma",
        "vaultgemma",
    )
)
"""Model types that scale or cap their logits whatever their config says (transformers' defaults), or whose head has a bias:
the row-wise loss of :mod:`runners.training.loss` does not fit them."""
CAPPED_LOGITS_FAMILIES = frozenset(
    (
        "beam",
        "gemma2",
        "gemma3n_text",
        "inkling2",
        "inkling2_loop",
        "nanochat",
        "recurrent_gemma",
        "vaultgemma",
    )
)
"""Those of them that cap logits by a tanh where their config does not say how."""
CAPPED_SCORES_FAMILIES = frozenset(("gemma2", "vaultgemma"))
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
        return self.vocab * self.hidden * (1 if self.tied else 2)

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
        return min(self.blocks, self.layers * self.experts * matrices * self.hidden * self.expert_width)

    @property
    def expert_width(self) -> int:
        """Width of one expert's MLP; without experts, of the MLP."""
        return (self.intermediate - self.shared) // self.active

    @property
    def blocks(self) -> int:
        """Parameters of the blocks: everything but the embedding and the head."""
        return max(0, self.params - self.embedding)

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


def count_parameters(shape: ModelShape, experts: int = 1) -> int:
    """Return the number of parameters of a shape: matrices, norms, embedding and head.

    Args:
        shape: the shape; with ``experts`` above 1, its ``intermediate`` is the width of one expert.
        experts: number of MLPs in each block.
    """
    mlp = (3 if shape.gated else 2) * shape.hidden * shape.intermediate
    attention = sum(a * b for a, b in shape.matrices(("q", "k", "v", "o")))
    # Two norms of width `hidden` in each block, and one after the last block.
    shared = (3 if shape.gated else 2) * shape.hidden * shape.shared
    blocks = shape.layers * (attention + experts * mlp + shared + 2 * shape.hidden)
    return blocks + shape.embedding + shape.hidden


def read_shape(config: Mapping[str, Any]) -> ModelShape:
    """Return the shape that a transformers ``config.json`` describes; BadInput names what is missing or wrong.

    For a model of images and text its ``text_config`` counts. For a mixture of experts ``params`` counts the weights
    of all experts, and ``intermediate`` is the summed width of the experts that one token passes through.
    """
    nested = config.get("text_config")
    config = {**config, **nested} if isinstance(nested, Mapping) else config
    layers = _number(config, "num_hidden_layers", "n_layer", "n_layers")
    hidden = _number(config, "hidden_size", "n_embd", "d_model", "dim")
    heads = _number(config, "num_attention_heads", "n_head", "n_heads")
    vocab = _number(config, "vocab_size")
    experts = _number(config, "num_local_experts", "num_experts", "n_routed_experts", default=1)
    width = _number(config, "intermediate_size", "n_inner", "ffn_dim", "hidden_dim", default=4 * hidden)
    if experts > 1:
        width = _number(config, "moe_intermediate_size", default=width)
    family = config.get("model_type")
    single_expert = ModelShape(
        params=0,
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=_key_value_heads(config, heads),
        head_dim=_number(config, "head_dim", default=max(1, hidden // heads)),
        intermediate=width,
        vocab=vocab,
        gated=family not in UNGATED_FAMILIES,
        tied=bool(config.get("tie_word_embeddings", True)),
        norms=4 if family in FOUR_NORM_FAMILIES else 2,
        head_norms=family in HEAD_NORM_FAMILIES,
        composed_activation=_activation(config) in COMPOSED_ACTIVATIONS,
        whole_logits=family in WHOLE_LOGITS_FAMILIES
        or any(config.get(name) not in (None, 0, 1) for name in LOGIT_SCALES)
        or config.get("dim_model_base") not in (None, hidden),  # MiniCPM divides by their ratio
        capped_logits=_is_capped(config, LOGIT_CAPS, CAPPED_LOGITS_FAMILIES),
        capped_scores=_is_capped(config, ("attn_logit_softcapping",), CAPPED_SCORES_FAMILIES),
    )
    if experts == 1:
        return replace(single_expert, params=count_parameters(single_expert))
    active = _number(config, "num_experts_per_tok", "num_experts_per_token", "top_k_experts", default=1)
    shared = _shared_width(config, width)
    return replace(
        single_expert,
        params=count_parameters(replace(single_expert, shared=shared), experts),
        intermediate=width * active + shared,
        experts=experts,
        active=active,
        shared=shared,
        adapted_experts=family in ADAPTED_EXPERT_FAMILIES,
    )


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
    given = config.get("shared_expert_intermediate_size") or config.get("shared_intermediate_size")
    if isinstance(given, int) and not isinstance(given, bool) and given > 0:
        return given
    number = config.get("n_shared_experts") or config.get("num_shared_experts")
    return number * width if isinstance(number, int) and not isinstance(number, bool) and number > 0 else 0


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
