"""Which LoRA is trained: plain, rsLoRA, DoRA or PiSSA, on which layers, and PiSSA's way back. Heavy."""

from __future__ import annotations

from typing import Any

import torch
from peft import LoraConfig, PeftModel
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers import PreTrainedModel

from rag.errors import BadInput
from runners.tuning import ALL_LINEAR, TrainConfig

PISSA = "pissa_niter_16"
"""PiSSA by randomised SVD with 16 iterations: seconds where the exact one takes minutes, with the same loss
(Meng et al., arXiv 2404.02948, section 5.5)."""
BEGUN = "begun"
"""Name of the buffers that keep PiSSA's first A and B beside the layer."""


def settings(net: PreTrainedModel, config: TrainConfig) -> LoraConfig:
    """Return peft's settings for a variant; BadInput when the model lacks a target or is too narrow."""
    layers = _targets(net, config)
    if config.variant == "pissa":
        narrow = min(min(layer.weight.shape) for layer in layers.values())
        if config.rank > narrow:
            raise BadInput(
                f"variant 'pissa' of rank {config.rank} needs layers at least as wide, the narrowest has {narrow}",
                f"a rank of at most {narrow}",
            )
    return LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,  # type: ignore[arg-type]  # peft divides by it, any number will do
        lora_dropout=config.dropout,
        target_modules=ALL_LINEAR if config.targets == ALL_LINEAR else list(config.targets),
        use_rslora=config.variant == "rslora",
        use_dora=config.variant == "dora",
        init_lora_weights=PISSA if config.variant == "pissa" else True,  # type: ignore[arg-type]  # 16 iterations
        bias="none",
        task_type="CAUSAL_LM",
    )


def name_of(net: PeftModel) -> str:
    """Return which variant a net's adapter is."""
    made = _settings_of(net)
    if made.use_dora:
        return "dora"
    if made.use_rslora:
        return "rslora"
    return "pissa" if str(made.init_lora_weights).startswith("pissa") else "lora"


def remember(net: PeftModel) -> None:
    """Keep PiSSA's first A and B beside the layers: without them the untouched base cannot be served."""
    for layer in _layers(net).values():
        for which in ("A", "B"):
            layer.register_buffer(f"{BEGUN}_{which}", _matrix(layer, which).clone(), persistent=False)


def converted(net: PeftModel) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return a PiSSA net's adapter as a plain one of twice the rank: its tensors, and the settings that change.

    PiSSA takes ``s·B₀A₀`` out of the base, so trained it is ``W + s·(BA − B₀A₀)``: the plain adapter
    ``[B, −B₀]·[A; A₀]`` at the same scale. On a bf16 base the two differ by the rounding of what was left.
    """
    tensors = {}
    for name, layer in _layers(net).items():
        a, b = layer.get_buffer(f"{BEGUN}_A"), layer.get_buffer(f"{BEGUN}_B")
        tensors[f"{name}.lora_A.default.weight"] = torch.cat([_matrix(layer, "A"), a])
        tensors[f"{name}.lora_B.default.weight"] = torch.cat([_matrix(layer, "B"), -b], dim=1)
    made = _settings_of(net)
    return tensors, {"r": 2 * made.r, "lora_alpha": 2 * made.lora_alpha, "init_lora_weights": True}


def _settings_of(net: PeftModel) -> LoraConfig:
    made = net.peft_config["default"]
    assert isinstance(made, LoraConfig)
    return made


def _layers(net: PeftModel) -> dict[str, nn.Module]:
    return {n: m for n, m in net.named_modules() if isinstance(m, LoraLayer) and isinstance(m, nn.Module)}


def _matrix(layer: nn.Module, which: str) -> Tensor:
    """Return the layer's A or B as it is now."""
    return layer.get_parameter(f"lora_{which}.default.weight").detach()


def _targets(net: PreTrainedModel, config: TrainConfig) -> dict[str, nn.Linear]:
    """Return the layers that will get an adapter; BadInput naming endings that fit none."""
    head = net.get_output_embeddings()
    linear = {n: m for n, m in net.named_modules() if isinstance(m, nn.Linear) and m is not head}
    if config.targets == ALL_LINEAR:
        return linear
    chosen: dict[str, nn.Linear] = {}
    for ending in config.targets:
        found = {n: m for n, m in linear.items() if n == ending or n.endswith(f".{ending}")}
        if not found:
            known = sorted({n.rsplit(".", 1)[-1] for n in linear})
            raise BadInput(
                f"target {ending!r} is no linear layer of this model", f"one of: {', '.join(known)}"
            )
        chosen |= found
    return chosen
