"""Attach LoRA or QLoRA adapters to a base or unfreeze it, and save tuned weights. Heavy: imports torch and peft.

Which LoRA is trained: plain, rsLoRA, DoRA or PiSSA, on which layers, and PiSSA's way back. Heavy.

NEFTune: noise on the input embeddings while training, off unless asked for. Heavy: imports torch.

Jain et al., arXiv 2310.05914: uniform noise of size ``alpha / sqrt(length * width)``. It helped instruction
tuning on answers judged by other models; whether it helps here is for the validation loss to say.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers import PreTrainedModel

from rag.errors import BadInput
from runners.models import hub
from runners.plan.train_config import ALL_LINEAR, TrainConfig

hub.block_hub()


from peft import get_peft_model  # noqa: E402

from rag.files import write_json, write_manifest  # noqa: E402
from runners.inference.weights import base_facts, load_adapter, load_base, load_tokenizer  # noqa: E402
from runners.models.cards import CARD_FILE, model_card  # noqa: E402
from runners.models.resolve import Model  # noqa: E402

PISSA_INIT = "pissa_niter_16"
"""PiSSA by randomised SVD with 16 iterations: seconds where the exact one takes minutes, with the same loss
(Meng et al., arXiv 2404.02948, section 5.5)."""
PISSA_INITIAL_ADAPTER = "begun"
"""Name of the buffers that keep PiSSA's first A and B beside the layer."""


def lora_config(net: PreTrainedModel, config: TrainConfig) -> LoraConfig:
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
        init_lora_weights=PISSA_INIT if config.variant == "pissa" else True,  # type: ignore[arg-type]  # 16 iterations
        bias="none",
        task_type="CAUSAL_LM",
    )


def variant_of(net: PeftModel) -> str:
    """Return which variant a net's adapter is."""
    made = _settings_of(net)
    if made.use_dora:
        return "dora"
    if made.use_rslora:
        return "rslora"
    return "pissa" if str(made.init_lora_weights).startswith("pissa") else "lora"


def keep_initial_adapter(net: PeftModel) -> None:
    """Keep PiSSA's first A and B beside the layers: without them the untouched base cannot be served."""
    for layer in _layers(net).values():
        for which in ("A", "B"):
            layer.register_buffer(
                f"{PISSA_INITIAL_ADAPTER}_{which}", _matrix(layer, which).clone(), persistent=False
            )


def pissa_as_lora(net: PeftModel) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return a PiSSA net's adapter as a plain one of twice the rank: its tensors, and the settings that change.

    PiSSA takes ``s·B₀A₀`` out of the base, so trained it is ``W + s·(BA − B₀A₀)``: the plain adapter
    ``[B, −B₀]·[A; A₀]`` at the same scale. On a bf16 base the two differ by the rounding of what was left.
    """
    tensors = {}
    for name, layer in _layers(net).items():
        a, b = layer.get_buffer(f"{PISSA_INITIAL_ADAPTER}_A"), layer.get_buffer(f"{PISSA_INITIAL_ADAPTER}_B")
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


class EmbeddingNoise:
    """The two hooks on a model: one sees how long its rows are, the other adds noise of that size."""

    def __init__(self, alpha: float) -> None:
        """Take NEFTune's alpha, above 0."""
        self.alpha, self.length = alpha, 1

    def measure(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Note the length of a row in tokens; a batch with a shared beginning holds all rows in one line."""
        total, segments = kwargs["input_ids"].shape[-1], kwargs.get("segments")
        prefix, rows = (segments.prefix, segments.rows) if segments else (0, 1)
        self.length = prefix + (total - prefix) // rows

    def add(self, module: nn.Module, args: tuple[Any, ...], embedded: Tensor) -> Tensor:
        """Return the embeddings with noise while training, else as they are."""
        if not module.training:
            return embedded
        size = self.alpha / (self.length * embedded.shape[-1]) ** 0.5
        return embedded + torch.empty_like(embedded).uniform_(-size, size)


def add_embedding_noise(causal: PreTrainedModel, alpha: float) -> None:
    """Let a model add noise to its input embeddings whenever it is in training mode; 0 does nothing.

    The noise is drawn from torch's own generator, so a checkpoint's random state brings it back. A beginning
    that rows share gets the same noise in all of them.
    """
    if alpha == 0:
        return
    noise = EmbeddingNoise(alpha)
    causal.base_model.register_forward_pre_hook(noise.measure, with_kwargs=True)
    causal.get_input_embeddings().register_forward_hook(noise.add)


def prepare_model(
    base: Model, config: TrainConfig, recompute: bool = False, dtype: str = "auto"
) -> nn.Module:
    """Load the base and return it with what the method trains requiring gradients, and nothing else.

    qlora differs from lora only in how the base is held; full trains the base itself. ``recompute`` computes
    activations again in the backward pass (:mod:`runners.training.gradient_checkpointing`); ``dtype`` is what the base computes in.
    """
    causal = load_base(base, dtype, four_bit=config.method == "qlora")
    add_embedding_noise(causal, config.neftune)
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
        made = get_peft_model(net, lora_config(net, config))
    assert isinstance(made, PeftModel)
    if config.variant == "pissa":
        keep_initial_adapter(made)
    return made


def trainable_parameters(net: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that are trained, by name, in the model's own order."""
    return {name: p for name, p in net.named_parameters() if p.requires_grad}


def save_weights(net: nn.Module, folder: Path, base: Model, facts: dict[str, Any]) -> None:
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
    (folder / CARD_FILE).write_text(model_card(facts), encoding="utf-8")
    for file in folder.iterdir():
        file.chmod(0o644)
    write_manifest(folder, kind, facts, [file.name for file in folder.iterdir() if file.name != CARD_FILE])


def _save_adapter(net: PeftModel, folder: Path, base: Model) -> None:
    """Write PEFT's folder; a PiSSA adapter as the plain one that does the same on the untouched base."""
    tensors: dict[str, torch.Tensor] | None = None
    changed: dict[str, Any] = {}
    if variant_of(net) == "pissa":
        tensors, changed = pissa_as_lora(net)
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
