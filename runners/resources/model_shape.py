"""Shape: the numbers of a transformer that decide its memory, read from a config or guessed from a size."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from rag.errors import BadInput

ALL_LINEAR = ("q", "k", "v", "o", "mlp")
"""Every linear layer of the blocks: what LoRA should be put on (Biderman et al., arXiv 2405.09673)."""
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


@dataclass(frozen=True, slots=True)
class ModelShape:
    """The numbers of a transformer that decide its memory."""

    params: int
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    """Width of the MLP that one token passes through (of all its experts together)."""
    vocab: int
    gated: bool = True
    tied: bool = True
    experts: int = 1
    """MLPs of a block that a router chooses among; all are held."""
    active: int = 1
    """MLPs of a block that one token passes through."""
    assumed: bool = False
    """Whether the shape was derived from the parameter count alone."""

    @property
    def query(self) -> int:
        """Width of all query heads, which keys and values are repeated to as well."""
        return self.heads * self.head_dim

    @property
    def embedding(self) -> int:
        """Parameters of the embedding and the head, which 4-bit quantisation leaves alone."""
        return self.vocab * self.hidden * (1 if self.tied else 2)

    @property
    def table(self) -> int:
        """Parameters of the embedding alone, usually the largest single tensor."""
        return self.vocab * self.hidden

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
        wanted = frozenset(targets)
        return tuple(size for name, size in attention.items() if name in wanted) + (
            mlp if "mlp" in wanted else ()
        )

    def adapter(self, rank: int, targets: Iterable[str] = ALL_LINEAR) -> int:
        """Parameters of LoRA adapters: the rank times both widths of every target, in every expert."""
        return rank * _adapted(self, tuple(targets))


@lru_cache(maxsize=1024)
def _adapted(shape: ModelShape, targets: tuple[str, ...]) -> int:
    """Return the widths of all layers among ``targets``, added up."""
    wanted = frozenset(targets)
    widths = sum(a + b for a, b in shape.matrices(wanted))
    if shape.experts > 1 and "mlp" in wanted:
        number, one = 3 if shape.gated else 2, shape.intermediate // shape.active
        widths += number * (shape.experts * (shape.hidden + one) - (shape.hidden + shape.intermediate))
    ends = len(wanted & {"lm_head", "embedding"}) * (shape.hidden + shape.vocab)
    return shape.layers * widths + ends


@lru_cache(maxsize=256)
def typical_shape(params_b: float) -> ModelShape:
    """Return a typical shape for a size in billions: 12·L·h² parameters with h = 128·L, grouped heads."""
    params = int(params_b * 1e9)
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


def count_parameters(shape: ModelShape, experts: int = 1) -> int:
    """Return the parameters that these numbers add up to: matrices, norms, embedding and head.

    ``experts`` multiplies the MLP, whose width is then one expert's.
    """
    mlp = (3 if shape.gated else 2) * shape.hidden * shape.intermediate
    attention = sum(a * b for a, b in shape.matrices(("q", "k", "v", "o")))
    return shape.layers * (attention + experts * mlp + 2 * shape.hidden) + shape.embedding + shape.hidden


def read_shape(config: Mapping[str, Any]) -> ModelShape:
    """Return the shape that a transformers ``config.json`` describes; BadInput names what is missing or wrong.

    A picture-and-text model's ``text_config`` counts. Of a mixture of experts all weights count, and as
    MLP width that of the experts one token passes through.
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
    one = ModelShape(
        params=0,
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=_key_value_heads(config, heads),
        head_dim=_number(config, "head_dim", default=max(1, hidden // heads)),
        intermediate=width,
        vocab=vocab,
        gated=config.get("model_type") not in UNGATED_FAMILIES,
        tied=bool(config.get("tie_word_embeddings", True)),
    )
    active = _number(config, "num_experts_per_tok", default=1) if experts > 1 else 1
    return replace(
        one,
        params=count_parameters(one, experts),
        intermediate=width * active,
        experts=experts,
        active=active,
    )


def _key_value_heads(config: Mapping[str, Any], heads: int) -> int:
    """Return the heads of keys and values; Falcon's ``multi_query`` means one of them only in its first form."""
    if config.get("multi_query") and not config.get("new_decoder_architecture"):
        return 1
    return _number(config, "num_key_value_heads", "num_kv_heads", default=heads)


def _number(config: Mapping[str, Any], *names: str, default: int | None = None) -> int:
    """Return the first of these keys that is given, a whole number of 1 or more; BadInput otherwise."""
    name = next((n for n in names if config.get(n) is not None), None)
    if name is None:
        if default is None:
            raise BadInput(f"the model's config.json lacks {names[0]!r}, so its memory is unknown")
        return default
    value = config[name]
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise BadInput(
            f"the model's config.json says {name} = {value!r}, which is no whole number of 1 or more"
        )
    return value
