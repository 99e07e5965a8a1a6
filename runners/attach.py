"""Attach LoRA or QLoRA adapters to a base or unfreeze it, and save tuned weights. Heavy: imports torch and peft."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runners import hub

hub.close()

import torch  # noqa: E402
from peft import PeftModel, get_peft_model  # noqa: E402
from torch import nn  # noqa: E402
from transformers import PreTrainedModel  # noqa: E402

from rag.durable import write_json, write_manifest  # noqa: E402
from runners import neftune, variant  # noqa: E402
from runners.card import CARD, card  # noqa: E402
from runners.models import Model  # noqa: E402
from runners.tuning import TrainConfig  # noqa: E402
from runners.weights import base_facts, load_adapter, load_base, load_tokenizer  # noqa: E402


def attach(base: Model, config: TrainConfig, recompute: bool = False, dtype: str = "auto") -> nn.Module:
    """Load the base and return it with what the method trains requiring gradients, and nothing else.

    qlora differs from lora only in how the base is held; full trains the base itself. ``recompute`` computes
    activations again in the backward pass (:mod:`runners.recompute`); ``dtype`` is what the base computes in.
    """
    causal = load_base(base, dtype, four_bit=config.method == "qlora")
    neftune.attach(causal, config.neftune)
    if recompute:
        causal.gradient_checkpointing_enable({"use_reentrant": False})
        # Without a trained embedding the first block's input needs a gradient for its adapters to get one.
        causal.enable_input_require_grads()
    return _full(causal) if config.method == "full" else _lora(causal, config, base)


def _full(net: PreTrainedModel) -> PreTrainedModel:
    for parameter in net.parameters():
        parameter.requires_grad_(True)
    return net


def _lora(net: PreTrainedModel, config: TrainConfig, base: Model) -> PeftModel:
    net.requires_grad_(False)
    if config.init_adapter is not None:
        return load_adapter(net, config.init_adapter, base, dropout=config.dropout)
    with warnings.catch_warnings():
        # peft asks transformers for an attribute by its older name.
        warnings.simplefilter("ignore", FutureWarning)
        made = get_peft_model(net, variant.settings(net, config))
    assert isinstance(made, PeftModel)
    if config.variant == "pissa":
        variant.remember(made)
    return made


def trained(net: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that are trained, by name, in the model's own order."""
    return {name: p for name, p in net.named_parameters() if p.requires_grad}


def save(net: nn.Module, folder: Path, base: Model, facts: dict[str, Any]) -> None:
    """Write tuned weights with tokenizer, template, generation settings, card and, last, the manifest.

    lora and qlora give PEFT's own folder, full a model folder; both are safetensors only. The manifest leaves
    the card out: it is a text to go on writing in.
    """
    folder.mkdir(parents=True, exist_ok=True)
    kind = "adapter" if isinstance(net, PeftModel) else "model"
    if isinstance(net, PeftModel):
        _save_adapter(net, folder, base)
    else:
        assert isinstance(net, PreTrainedModel)
        net.save_pretrained(folder)
    load_tokenizer(base.folder).save_pretrained(folder)
    facts = {"base": base_facts(base), **facts}
    (folder / CARD).write_text(card(facts), encoding="utf-8")
    for file in folder.iterdir():
        file.chmod(0o644)
    write_manifest(folder, kind, facts, [file.name for file in folder.iterdir() if file.name != CARD])


def _save_adapter(net: PeftModel, folder: Path, base: Model) -> None:
    """Write PEFT's folder; a PiSSA adapter as the plain one that does the same on the untouched base."""
    tensors: dict[str, torch.Tensor] | None = None
    changed: dict[str, Any] = {}
    if variant.name_of(net) == "pissa":
        tensors, changed = variant.converted(net)
    net.save_pretrained(str(folder), safe_serialization=True, save_embedding_layers=False, state_dict=tensors)
    _steady(folder / "adapter_config.json", base.name, changed)
    causal = net.get_base_model()
    assert isinstance(causal, PreTrainedModel)
    if causal.generation_config is not None:
        causal.generation_config.save_pretrained(folder)


def _steady(path: Path, base_name: str, changed: Mapping[str, Any]) -> None:
    """Sort what PEFT keeps as sets, and name the base instead of its path on this machine."""
    config = {**json.loads(path.read_text(encoding="utf-8")), **changed}
    config["base_model_name_or_path"] = base_name
    for key, value in config.items():
        if isinstance(value, list) and all(isinstance(v, str) for v in value):
            config[key] = sorted(value)
    write_json(path, dict(sorted(config.items())))
