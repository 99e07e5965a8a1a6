"""What a run takes in memory, from a model's shape: weights, gradients, optimiser, activations, logits.

Formulas and their checks: the "Memory" part of docs/how-it-decides.md. Sizes are bytes inside, GiB at the
border; the figure predicted is what a framework counts as allocated on one device, plus a fixed overhead.
Imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any, Literal

from rag.errors import BadInput

GIB = 2**30
OVERHEAD = 0.6e9
"""Bytes of context, workspaces and fragments that no term covers (litgpt, PEFT and torchtune peaks)."""
ERROR = {"full": (0.88, 1.20), "lora": (0.88, 1.15), "qlora": (0.85, 1.15), "inference": (0.90, 1.15)}
"""Low and high as shares of likely: the spread of the formula over published peaks of each method."""
Use = Literal["full", "lora", "qlora", "inference"]
Verdict = Literal["yes", "tight", "no"]


@dataclass(frozen=True, slots=True)
class Shape:
    """The numbers of a transformer that decide its memory."""

    params: int
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    gated: bool = True
    tied: bool = True
    assumed: bool = False
    """Whether the shape was derived from the parameter count alone."""

    @property
    def embedding(self) -> int:
        """Parameters of the embedding and the head, which 4-bit quantisation leaves alone."""
        return self.vocab * self.hidden * (1 if self.tied else 2)

    def adapter(self, rank: int) -> int:
        """Parameters of LoRA adapters of this rank on every linear layer of the blocks."""
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        attention = 2 * (self.hidden + q) + 2 * (self.hidden + kv)
        mlp = (3 if self.gated else 2) * (self.hidden + self.intermediate)
        return rank * self.layers * (attention + mlp)


@dataclass(frozen=True, slots=True)
class Setup:
    """How the run is set up; the defaults are what tunewise's own training does on a GPU."""

    batch: int = 1
    seq_len: int = 1024
    rank: int = 16
    checkpointing: bool = True
    optimizer: Literal["adamw", "adamw_8bit"] = "adamw"
    loss: Literal["full", "chunked"] = "chunked"
    devices: int = 1
    """Devices that weights, gradients and optimiser state are sharded over."""


@dataclass(frozen=True, slots=True)
class Memory:
    """GiB on one device: a range, its terms and what was assumed."""

    low: float
    likely: float
    high: float
    terms: Mapping[str, float]
    assumptions: tuple[str, ...]

    def fits(self, gib: float | None) -> Verdict | None:
        """Say whether it fits in ``gib``: yes (even the high end), tight, or no (not even the low end)."""
        if gib is None:
            return None
        return "yes" if self.high <= gib else "tight" if self.low <= gib else "no"

    def to_json(self, gib: float | None = None) -> dict[str, Any]:
        """Return the JSON object that recommendation and estimate print."""
        return {**asdict(self), "assumptions": list(self.assumptions), "fits": self.fits(gib)}


@lru_cache(maxsize=256)
def shape_of(params_b: float) -> Shape:
    """Return a typical shape for a size in billions: 12·L·h² parameters with h = 128·L, grouped heads."""
    params = int(params_b * 1e9)
    layers = max(2, round((params / (12 * 128**2)) ** (1 / 3)))
    hidden = 128 * layers
    heads = max(1, hidden // 128)
    return Shape(
        params=params, layers=layers, hidden=hidden, heads=heads, kv_heads=max(1, heads // 4), head_dim=128,
        intermediate=round(hidden * 3.5), vocab=32_000 if params_b < 1 else 128_000, tied=params_b < 4,
        assumed=True,
    )  # fmt: skip


def read_shape(config: Mapping[str, Any]) -> Shape:
    """Return the shape that a transformers ``config.json`` describes; BadInput names what is missing."""
    try:
        layers, hidden = int(config["num_hidden_layers"]), int(config["hidden_size"])
        heads, vocab = int(config["num_attention_heads"]), int(config["vocab_size"])
    except KeyError as error:
        raise BadInput(f"the model's config.json lacks {error.args[0]!r}, so its memory is unknown") from None
    intermediate = int(config.get("intermediate_size") or 4 * hidden)
    head_dim = int(config.get("head_dim") or hidden // heads)
    kv_heads = int(config.get("num_key_value_heads") or heads)
    gated = config.get("model_type") not in ("gpt2", "gpt_neox", "phi", "falcon", "opt", "bert")
    tied = bool(config.get("tie_word_embeddings", True))
    block = 2 * hidden * (heads + kv_heads) * head_dim + (3 if gated else 2) * hidden * intermediate
    params = layers * (block + 2 * hidden) + vocab * hidden * (1 if tied else 2) + hidden
    return Shape(params, layers, hidden, heads, kv_heads, head_dim, intermediate, vocab, gated, tied)


def weights_bytes(shape: Shape, use: Use) -> float:
    """Bytes of weights: bf16, or nf4 with double quantisation beside a bf16 embedding and head (QLoRA)."""
    if use != "qlora":
        return 2.0 * shape.params
    return 0.516 * (shape.params - shape.embedding) + 2.0 * shape.embedding


def state_bytes(shape: Shape, use: Use, setup: Setup) -> float:
    """Bytes of gradients and optimiser: bf16 pair of moments for full, fp32 for adapters (~14 B)."""
    if use == "inference":
        return 0.0
    if use == "full":
        return shape.params * (2.0 + (2.0 if setup.optimizer == "adamw_8bit" else 4.0))
    return 14.0 * shape.adapter(setup.rank)


def activation_bytes(shape: Shape, use: Use, setup: Setup) -> float:
    """Bytes kept for the backward pass: 42 per token, layer and hidden unit (35 without a gated MLP).

    With checkpointing only each layer's input (2) stays, and one layer's 42 at a time.
    """
    per = 42 if shape.gated else 35
    tokens = setup.seq_len * setup.batch
    if use == "inference":
        return 2.0 * shape.layers * shape.kv_heads * shape.head_dim * tokens * 2 + 4.0 * tokens * shape.hidden
    if setup.checkpointing:
        return tokens * shape.hidden * (2.0 * shape.layers + per)
    return float(per) * tokens * shape.hidden * shape.layers


def logits_bytes(shape: Shape, use: Use, setup: Setup) -> float:
    """Bytes of logits: bf16, fp32 copy, gradient (10 per entry), a tenth in chunks; one row to decode."""
    if use == "inference":
        return 6.0 * setup.batch * shape.vocab
    return 10.0 * setup.seq_len * setup.batch * shape.vocab * (0.1 if setup.loss == "chunked" else 1.0)


@lru_cache(maxsize=4096)
def estimate(shape: Shape, use: Use, setup: Setup = Setup()) -> Memory:
    """Estimate the peak of one device.

    QLoRA carries a surcharge of 10 % on weights, activations and logits for dequantisation buffers and fp32
    copies (bitsandbytes: 15-25 % over the plain sum without it).
    """
    extra = 1.1 if use == "qlora" else 1.0
    shard = max(1, setup.devices)
    parts = {
        "weights": weights_bytes(shape, use) / shard * extra,
        "gradients_optimizer": state_bytes(shape, use, setup) / shard,
        "activations": activation_bytes(shape, use, setup) * extra,
        "logits": logits_bytes(shape, use, setup) * extra,
        "overhead": OVERHEAD,
    }
    likely = sum(parts.values()) / GIB
    low, high = ERROR[use]
    return Memory(
        round(likely * low, 3),
        round(likely, 3),
        round(likely * high, 3),
        {name: round(size / GIB, 3) for name, size in parts.items()},
        _assumptions(shape, use, setup),
    )


def smallest(shape: Shape, use: Use, setup: Setup = Setup()) -> Memory:
    """Estimate with every free saving on: one row at a time, checkpointing, the loss in chunks."""
    return estimate(shape, use, replace(setup, batch=1, checkpointing=True, loss="chunked"))


def _assumptions(shape: Shape, use: Use, setup: Setup) -> tuple[str, ...]:
    said = [f"{setup.batch} x {setup.seq_len} tokens at a time"]
    if use != "inference":
        said.append(f"gradient checkpointing {'on' if setup.checkpointing else 'off'}")
        said.append(f"loss {'in chunks' if setup.loss == 'chunked' else 'on all logits at once'}")
        said.append(
            f"rank {setup.rank} on all linear layers" if use != "full" else f"optimiser {setup.optimizer}"
        )
    if setup.devices > 1:
        said.append(f"weights and optimiser sharded over {setup.devices} devices")
    if shape.assumed:
        said.append("shape guessed from the parameter count")
    return tuple(said)
