"""Prepare a model for training with LoRA, QLoRA or all weights, and save the tuned weights.

:func:`prepare_model` loads the base and attaches a plain LoRA, rsLoRA, DoRA or PiSSA adapter, or unfreezes the base;
:func:`save_weights` writes PEFT's adapter folder or a model folder, a PiSSA adapter converted to plain LoRA.
:func:`add_embedding_noise` is NEFTune (Jain et al., arXiv 2310.05914): uniform noise of size ``alpha / sqrt(length *
width)`` on the input embeddings, off by default. It helped instruction tuning on answers judged by other models;
whether it helps here is for the validation loss to show. Imports torch and peft.
"""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runners.models import hub

os.environ.update(hub.offline_variables())

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from rag.errors import BadInput
from rag.files import write_json, write_manifest
from runners.inference.weights import base_facts, load_adapter, load_base, load_tokenizer
from runners.models.cards import CARD_FILE, model_card
from runners.models.resolve import Model
from runners.plan.train_config import ALL_LINEAR, TrainConfig

PISSA_INIT = "pissa_niter_16"
"""PiSSA by randomised SVD with 16 iterations: seconds where the exact one takes minutes, with the same loss
(Meng et al., arXiv 2404.02948, section 5.5)."""
PISSA_INITIAL_ADAPTER = "begun"
"""Prefix of the buffers that hold PiSSA's initial A and B of a layer."""


def lora_config(net: PreTrainedModel, config: TrainConfig) -> LoraConfig:
    """Return PEFT's settings for a run; BadInput when the model lacks a target or is too narrow for PiSSA's rank."""
    layers = _targets(net, config)
    if config.variant == "pissa":
        narrow = min(min(layer.get_parameter("weight").shape) for layer in layers.values())
        if config.rank > narrow:
            raise BadInput(
                f"variant 'pissa' of rank {config.rank} needs layers at least as wide, the narrowest has {narrow}",
                f"a rank of at most {narrow}",
            )
    everything = config.targets == ALL_LINEAR
    return LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,  # type: ignore[arg-type]  # peft divides by it, any number will do
        lora_dropout=config.dropout,
        target_modules=ALL_LINEAR if everything else list(config.targets),
        exclude_modules=sorted(_left_out(net)) or None if everything else None,
        use_rslora=config.variant == "rslora",
        use_dora=config.variant == "dora",
        init_lora_weights=PISSA_INIT if config.variant == "pissa" else True,  # type: ignore[arg-type]  # 16 iterations
        bias="none",
        task_type="CAUSAL_LM",
    )


def adapter_note(net: nn.Module) -> str:
    """Return which weights of the layers no adapter reaches, "" where it reaches all or the base itself is trained.

    PEFT's all-linear means linear layers, and for some families the tensors of three dimensions that hold all experts of
    a layer as well. Convolutions and decay rates keep the base's values anyway; what :func:`_left_out` names is named.
    """
    if not isinstance(net, PeftModel):
        return ""
    causal = net.get_base_model()
    assert isinstance(causal, PreTrainedModel)
    layers = _lora_layers(net)
    reached = {getattr(layer, "parameter_name", None) for layer in layers.values()}
    # One dimension of a convolution's weight is 1.
    experts = {
        name.rsplit(".", 1)[-1]
        for name, p in causal.base_model.named_parameters()
        if p.ndim == 3
        and min(p.shape[1:]) > 1
        and not (".base_layer." in name and name.rsplit(".", 1)[-1] in reached)
    }
    notes = []
    if experts:
        notes.append(f"the weights of three dimensions, as experts are ({', '.join(sorted(experts))})")
    adapted = {name.rsplit(".", 1)[-1] for name in layers}
    if "out_proj" not in adapted and any(_is_mamba(module) for module in causal.modules()):
        notes.append(
            "the output projections of the Mamba layers, whose fused kernels would pass an adapter by"
        )
    return f"not changed by the adapter: {' and '.join(notes)}" if notes else ""


def variant_of(net: PeftModel) -> str:
    """Return the variant of a model's adapter: lora, rslora, dora or pissa."""
    settings = _adapter_settings(net)
    if settings.use_dora:
        return "dora"
    if settings.use_rslora:
        return "rslora"
    return "pissa" if str(settings.init_lora_weights).startswith("pissa") else "lora"


def keep_initial_adapter(net: PeftModel) -> None:
    """Save PiSSA's initial A and B as buffers of the layers: the conversion to plain LoRA needs them."""
    for layer in _lora_layers(net).values():
        for which in ("A", "B"):
            layer.register_buffer(
                f"{PISSA_INITIAL_ADAPTER}_{which}", _matrix(layer, which).clone(), persistent=False
            )


def pissa_as_lora(net: PeftModel) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return a PiSSA adapter as a plain LoRA adapter of twice the rank: its tensors, and the settings that change.

    PiSSA subtracts ``s·B₀A₀`` from the base, for the scale s and the initial A₀ [r, in] and B₀ [out, r]. Trained, the
    layer is ``W + s·(BA − B₀A₀)``, which is the plain adapter ``[B, −B₀]·[A; A₀]`` of rank 2r at the same scale. On a
    bf16 base the two differ by the rounding of the residual weights.
    """
    tensors = {}
    for name, layer in _lora_layers(net).items():
        a, b = layer.get_buffer(f"{PISSA_INITIAL_ADAPTER}_A"), layer.get_buffer(f"{PISSA_INITIAL_ADAPTER}_B")
        tensors[f"{name}.lora_A.default.weight"] = torch.cat([_matrix(layer, "A"), a])
        tensors[f"{name}.lora_B.default.weight"] = torch.cat([_matrix(layer, "B"), -b], dim=1)
    settings = _adapter_settings(net)
    # The scale is alpha / r, so alpha doubles with the rank.
    return tensors, {"r": 2 * settings.r, "lora_alpha": 2 * settings.lora_alpha, "init_lora_weights": True}


class EmbeddingNoise:
    """NEFTune as two hooks of a model: one reads the length of its rows, the other adds noise of that size."""

    def __init__(self, alpha: float) -> None:
        """Take NEFTune's alpha, above 0."""
        self.alpha = alpha
        self.length = 1

    def measure(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Record the mean length of a row in tokens; a packed batch holds all rows in one line of tokens."""
        total = kwargs["input_ids"].shape[-1]
        segments = kwargs.get("segments")
        prefix, rows = (segments.prefix, segments.rows) if segments else (0, 1)
        self.length = prefix + (total - prefix) // rows

    def add(self, module: nn.Module, args: tuple[Any, ...], embedded: Tensor) -> Tensor:
        """Return the embeddings [..., width] with noise in training mode, else unchanged."""
        if not module.training:
            return embedded
        size = self.alpha / (self.length * embedded.shape[-1]) ** 0.5
        return embedded + torch.empty_like(embedded).uniform_(-size, size)


def add_embedding_noise(causal: PreTrainedModel, alpha: float) -> None:
    """Make a model add NEFTune's noise to its input embeddings in training mode; an alpha of 0 does nothing.

    The noise is drawn from torch's own generator, so a checkpoint's random state reproduces it. A prefix that rows
    share gets the same noise in all of them.
    """
    if alpha == 0:
        return
    noise = EmbeddingNoise(alpha)
    causal.base_model.register_forward_pre_hook(noise.measure, with_kwargs=True)
    causal.get_input_embeddings().register_forward_hook(noise.add)


def prepare_model(
    base: Model,
    config: TrainConfig,
    recompute: bool = False,
    dtype: str = "auto",
    on_host: bool = False,
    skeleton: PreTrainedModel | None = None,
) -> nn.Module:
    """Load the base and return it with exactly the parameters that the method trains requiring gradients.

    qlora differs from lora only in the 4-bit weights of the base; full trains the base itself.

    Args:
        base: The base model.
        config: Settings of the run.
        recompute: Whether activations are recomputed in the backward pass
            (:mod:`runners.training.gradient_checkpointing`).
        dtype: Dtype the base computes in: float32, bfloat16, or auto.
        on_host: Whether the base is loaded into the host's memory instead of the device's.
        skeleton: The base without values, whose shards are read later; None loads it.

    Raises BadInput for a family whose layers get no adapter, or none of whose layers can be held in 4 bits.
    """
    causal = skeleton or load_base(base, dtype, config.method == "qlora", on_host)
    if config.method == "qlora" and not any(
        type(layer).__name__ == "Linear4bit" for layer in causal.modules()
    ):
        raise BadInput(
            f"bitsandbytes has no layer of the family {causal.config.model_type} in 4 bits, so qlora would be lora",
            "method lora",
        )
    add_embedding_noise(causal, config.neftune)
    if recompute:
        causal.gradient_checkpointing_enable({"use_reentrant": False})
        # The embedding is not trained, so the first block's input has no gradient; without one, recomputation would
        # give the adapters of that block none either.
        causal.enable_input_require_grads()
    return _unfrozen(causal) if config.method == "full" else _with_adapter(causal, config, base)


def trainable_parameters(net: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that are trained, by name, in the model's own order."""
    return {name: parameter for name, parameter in net.named_parameters() if parameter.requires_grad}


def save_tokenizer(base: Model, folder: Path) -> None:
    """Write the base's tokenizer and template, as every folder of tuned weights holds them.

    A training does this before it loads the model: of a vocabulary of 262 k tokens it takes .7 GiB for a moment.
    """
    load_tokenizer(base.folder).save_pretrained(folder)


def save_weights(
    net: nn.Module,
    folder: Path,
    base: Model,
    tokenizer: Path,
    facts: dict[str, Any],
    tensors: dict[str, Tensor] | None = None,
) -> None:
    """Write tuned weights with tokenizer, template, generation settings, model card and, last, the manifest.

    ``tokenizer`` is the folder that :func:`save_tokenizer` wrote.

    lora and qlora give PEFT's own folder layout, full a model folder; both are safetensors only. The card is not in the
    manifest, because users may edit it. ``facts`` are recorded in the manifest and in the card. ``tensors`` are the whole
    trained weights by name where the model holds only shards of them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    kind = "adapter" if isinstance(net, PeftModel) else "model"
    if isinstance(net, PeftModel):
        _save_adapter(net, folder, base, tensors)
    else:
        assert isinstance(net, PreTrainedModel)
        net.save_pretrained(folder, state_dict=tensors)
    shutil.copytree(tokenizer, folder, dirs_exist_ok=True)
    facts = {"base": base_facts(base), **facts}
    (folder / CARD_FILE).write_text(model_card(facts), encoding="utf-8")
    for file in folder.iterdir():
        file.chmod(0o644)
    write_manifest(folder, kind, facts, [file.name for file in folder.iterdir() if file.name != CARD_FILE])


def _unfrozen(net: PreTrainedModel) -> PreTrainedModel:
    """Return the base with all parameters trainable."""
    for parameter in net.parameters():
        parameter.requires_grad_(True)
    return net


def _with_adapter(net: PreTrainedModel, config: TrainConfig, base: Model) -> PeftModel:
    """Return the frozen base with a new adapter, or with the one that the run continues."""
    net.requires_grad_(False)
    if config.init_adapter is not None:
        return load_adapter(net, config.init_adapter, base, dropout=config.dropout)
    with warnings.catch_warnings():
        # PEFT reads an attribute of transformers by its deprecated name, and sets fan_in_fan_out for Conv1D by itself.
        warnings.simplefilter("ignore", FutureWarning)
        warnings.filterwarnings("ignore", "fan_in_fan_out is set", UserWarning)
        try:
            adapted = get_peft_model(net, lora_config(net, config))
        except (ValueError, TypeError, NotImplementedError) as error:
            raise BadInput(
                f"PEFT attaches no adapter to this model of the family {net.config.model_type}: {error}",
                "dropout 0, other targets, or method full",
            ) from error
    assert isinstance(adapted, PeftModel)
    if config.variant == "pissa":
        keep_initial_adapter(adapted)
    return adapted


def _save_adapter(
    net: PeftModel, folder: Path, base: Model, tensors: dict[str, torch.Tensor] | None = None
) -> None:
    """Write PEFT's folder; a PiSSA adapter as the equivalent plain LoRA adapter on the unchanged base."""
    changed: dict[str, Any] = {}
    if variant_of(net) == "pissa":
        tensors, changed = pissa_as_lora(net)
    net.save_pretrained(str(folder), safe_serialization=True, save_embedding_layers=False, state_dict=tensors)
    _normalise_adapter_config(folder / "adapter_config.json", base.name, changed)
    causal = net.get_base_model()
    assert isinstance(causal, PreTrainedModel)
    if causal.generation_config is not None:
        causal.generation_config.save_pretrained(folder)


def _normalise_adapter_config(path: Path, base_name: str, changed: Mapping[str, Any]) -> None:
    """Apply changed settings, sort what PEFT keeps as sets, and name the base instead of its path on this machine."""
    config = {**json.loads(path.read_text(encoding="utf-8")), **changed}
    config["base_model_name_or_path"] = base_name
    for key, value in config.items():
        if isinstance(value, list) and all(isinstance(v, str) for v in value):
            config[key] = sorted(value)
    write_json(path, dict(sorted(config.items())))


def _targets(net: PreTrainedModel, config: TrainConfig) -> dict[str, nn.Module]:
    """Return the layers that will get an adapter, by name; BadInput for a target that is no linear layer."""
    head, left_out = net.get_output_embeddings(), _left_out(net)
    linear: dict[str, nn.Module] = {
        name: module
        for name, module in net.named_modules()
        if isinstance(module, (nn.Linear, Conv1D)) and module is not head and name not in left_out
    }
    if not linear:
        raise BadInput(
            f"models of the family {net.config.model_type} have no linear layer for an adapter", "method full"
        )
    if config.targets == ALL_LINEAR:
        return linear
    chosen: dict[str, nn.Module] = {}
    for ending in config.targets:
        matching = {
            name: module for name, module in linear.items() if name == ending or name.endswith(f".{ending}")
        }
        if not matching:
            known = sorted({name.rsplit(".", 1)[-1] for name in linear})
            raise BadInput(
                f"target {ending!r} is no linear layer of this model", f"one of: {', '.join(known)}"
            )
        chosen |= matching
    return chosen


def _left_out(net: PreTrainedModel) -> set[str]:
    """Return the names of linear layers on which an adapter would break the model or have no effect.

    A router may be a linear layer that returns more than its product. A Mamba layer's fused CUDA kernel reads the
    weights of its output projection itself, so that an adapter there would be trained on a CPU and passed by on a GPU.
    """
    names = set()
    for name, module in net.named_modules():
        own = isinstance(module, nn.Linear) and type(module).forward is not nn.Linear.forward
        if own and not type(module).__module__.startswith("bitsandbytes") and not _gives_product(module):
            names.add(name)
        if _is_mamba(module):
            names.add(f"{name}.out_proj")
    return names


def _gives_product(layer: nn.Module) -> bool:
    """Return whether a layer gives one tensor of its output width for one token, as a linear layer does."""
    weight = layer.get_parameter("weight")
    with torch.no_grad():
        try:
            out = layer(torch.zeros(1, weight.shape[1], dtype=weight.dtype, device=weight.device))
        except (RuntimeError, TypeError, ValueError, IndexError):
            return False
    return isinstance(out, Tensor) and out.shape == (1, weight.shape[0])


def _is_mamba(module: nn.Module) -> bool:
    """Return whether a module is a Mamba layer of any version: decay rates, skip weights, and a convolution."""
    return all(hasattr(module, name) for name in ("A_log", "D", "conv1d", "out_proj"))


def _adapter_settings(net: PeftModel) -> LoraConfig:
    """Return PEFT's settings of a model's adapter."""
    settings = net.peft_config["default"]
    assert isinstance(settings, LoraConfig)
    return settings


def _lora_layers(net: PeftModel) -> dict[str, nn.Module]:
    """Return the layers that have an adapter, by name."""
    return {
        name: module
        for name, module in net.named_modules()
        if isinstance(module, LoraLayer) and isinstance(module, nn.Module)
    }


def _matrix(layer: nn.Module, which: str) -> Tensor:
    """Return a layer's current A [r, in] or B [out, r]."""
    return layer.get_parameter(f"lora_{which}.default.weight").detach()
