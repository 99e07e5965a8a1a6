"""Load models and tokenizers from their folders, and tuned weights onto the base they were trained on.

:func:`load_for_inference` returns a model ready to generate with; :class:`SwitchableModel` holds one base in memory and
switches its tuned weights without loading it again. Imports torch. What takes seconds to import is imported where it is
needed: transformers' model classes for any model but a :class:`runners.inference.llama_step.StepModel`, PEFT for an adapter
that is more than plain LoRA, beside 4-bit weights, or to be trained.
"""

from __future__ import annotations

import gc
import math
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runners.models import hub

os.environ.update(hub.offline_variables())

import torch
from safetensors import safe_open
from torch import nn
from transformers import AutoTokenizer, BitsAndBytesConfig, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from rag.errors import BadInput, CannotRun
from rag.files import MANIFEST, check_manifest, sha256_file
from runners.inference.llama_step import StepModel, load_step_model
from runners.models.adapters import ADAPTER_CONFIG_FILE, ADAPTER_WEIGHTS, is_plain_adapter
from runners.models.cards import CARD_FILE
from runners.models.fingerprint import read_json, refuse_code, template_hash, tokenizer_hash
from runners.models.resolve import Model
from runners.resources import device
from runners.resources.gpu import MachineProbe
from runners.resources.machine import GIB, cpu_supports_bf16, free_ram
from runners.tokenization.chat_template import ChatTokenizer

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
FOUR_BIT_BLOCK = 64
"""Weights of a layer's row that share one nf4 scale."""
REPACKED_ROWS = 32
"""Rows of a 4-bit layer that bitsandbytes packs together on a CPU."""
_MUST_EQUAL = (
    ("tokenizer_sha256", "tokenizer"),
    ("template_sha256", "chat template"),
    ("fingerprint", "base"),
)
"""Facts of a base that must be those of the training, with their names in messages; the clearest difference first."""

transformers_logging.disable_progress_bar()  # progress is reported by events


def default_device() -> torch.device:
    """Return the device that models run on here (:mod:`runners.resources.device`)."""
    return device.torch_device()


def free_gib() -> float:
    """Return the free memory of the device in GiB."""
    return device.free_device_gib(lambda: float(free_ram(MachineProbe()).value))


def dtype_for(name: str = "auto") -> tuple[torch.dtype, str]:
    """Return the dtype a name means and why; "auto" is what the device computes in (:func:`device.choose_dtype`)."""
    if name != "auto":
        if name not in DTYPES:
            raise BadInput(f"dtype {name!r} is unknown", f"auto, {' or '.join(DTYPES)}")
        return DTYPES[name], "asked for"

    def cpu_bf16() -> tuple[bool | None, str]:
        bf16 = cpu_supports_bf16(MachineProbe())
        return bf16.value, bf16.how

    chosen, why = device.torch_dtype(cpu_bf16)
    return DTYPES[chosen], why


def load_base(
    base: Model, dtype: str = "auto", four_bit: bool = False, on_host: bool = False
) -> PreTrainedModel:
    """Return a causal model in evaluation mode.

    Args:
        base: The model to load.
        dtype: float32, bfloat16, float16 or auto.
        four_bit: Whether its linear layers are held as double-quantised nf4 (QLoRA).
        on_host: Whether it stays in the host's memory, to be sharded over devices that cannot hold it.

    Raises BadInput when the folder is no causal model, CannotRun when there is not enough memory.
    """
    compute_dtype, _ = dtype_for(dtype)
    extra = four_bit_arguments(compute_dtype, four_bit)
    if on_host:
        extra["device_map"] = {"": torch.device("cpu")}
    return load_model_folder(base.folder, compute_dtype, extra)


def four_bit_arguments(compute_dtype: torch.dtype, four_bit: bool = True) -> dict[str, Any]:
    """Return the arguments of ``from_pretrained`` that hold linear layers as double-quantised nf4; {} for 16 bits.

    ``compute_dtype`` is the dtype that the layers compute in.
    """
    if not four_bit:
        return {}
    return {
        "quantization_config": BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=compute_dtype,
        )
    }


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Return a folder's tokenizer; it pads with a token that is not an end token, where it has one."""
    refuse_code(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    chat = ChatTokenizer(folder)
    tokenizer.pad_token = chat.pad or tokenizer.eos_token
    if not tokenizer.chat_template:
        tokenizer.chat_template = chat.template
    return tokenizer


def load_model_folder(folder: Path, dtype: torch.dtype, extra: dict[str, Any]) -> PreTrainedModel:
    """Return the causal model of a folder in evaluation mode; safetensors only, no code from the folder is run.

    ``extra`` are more arguments of transformers' ``from_pretrained``.

    Raises BadInput when the folder is no causal model, CannotRun when there is not enough memory.
    """
    from transformers import AutoModelForCausalLM

    refuse_code(folder)
    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            **{"device_map": {"": default_device()}, **extra},
        )
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise CannotRun(
            f"not enough memory to load {folder}: {error}", "choose a smaller model or qlora"
        ) from error
    except (ValueError, OSError, KeyError) as error:
        raise BadInput(f"{folder} cannot be loaded as a causal language model: {error}") from error
    return in_evaluation_mode(model)


def in_evaluation_mode(model: PreTrainedModel, repack: bool = True) -> PreTrainedModel:
    """Switch a model to evaluation mode and return it, but for the 4-bit layers that may not be repacked.

    In evaluation mode bitsandbytes repacks 4-bit weights for inference on CPUs with AVX512-BF16, and fails where a
    layer's input is no multiple of its 64-weight block or its output none of 32. Layers in training mode dequantise
    instead; nothing else in them depends on the mode.

    Args:
        model: A model in 16 or in 4 bits.
        repack: Whether layers may be repacked; not where something else reads their weights, as DoRA does.
    """
    model.eval()
    for module in model.modules():
        if type(module).__name__ == "Linear4bit" and not (repack and _repackable(module)):
            module.train()
    return model


def _repackable(layer: nn.Module) -> bool:
    """Return whether bitsandbytes can repack a 4-bit layer (``_convert_weight_packed_for_cpu``)."""
    width, rows = int(layer.in_features), int(layer.out_features)  # type: ignore[arg-type]
    return width % FOUR_BIT_BLOCK == 0 and rows % REPACKED_ROWS == 0


def _repacked_states(model: PreTrainedModel) -> list[Any]:
    """Return the quantisation states of the 4-bit weights that bitsandbytes has repacked."""
    states = (getattr(parameter, "quant_state", None) for parameter in model.parameters())
    return [state for state in states if getattr(state, "packing_format_for_cpu", False)]


@contextmanager
def _packed_weights_kept(model: PreTrainedModel) -> Iterator[None]:
    """Leave repacked 4-bit weights as they are within the block, in which nothing may be computed.

    PEFT asks a model for its state dict when it loads an adapter. bitsandbytes then converts repacked weights back, with
    scales rounded anew, so that every switch would give a slightly different base.
    """
    states = _repacked_states(model)
    for state in states:
        state.packing_format_for_cpu = False
    try:
        yield
    finally:
        for state in states:
            state.packing_format_for_cpu = True


def base_facts(base: Model) -> dict[str, str]:
    """Return name, origin and hashes of a base, by which tuned weights are matched to it."""
    return {
        "name": base.name,
        "source": base.source,
        "revision": base.revision,
        "license": base.license,
        "fingerprint": base.fingerprint,
        "tokenizer_sha256": tokenizer_hash(base.folder),
        "template_sha256": template_hash(base.folder),
    }


def check_same_base(folder: Path, base: Model, kind: str) -> dict[str, Any]:
    """Verify a folder of tuned weights and that it was trained on exactly this base; return its manifest.

    Raises BadInput with both fingerprints when base, tokenizer or template differ.
    """
    manifest = check_manifest(folder, kind, (CARD_FILE,))
    made_on, here = manifest.get("base"), base_facts(base)
    if not isinstance(made_on, dict):
        raise BadInput(f"{folder} does not record which base model it was trained on")
    for key, name in _MUST_EQUAL:
        if made_on.get(key) != here[key]:
            raise BadInput(
                f"{folder} was made on another {name}: {made_on.get('name')} {str(made_on.get(key))[:16]}, "
                f"here {base.name} {here[key][:16]} (bases {str(made_on.get('fingerprint'))[:16]} "
                f"and {base.fingerprint[:16]})",
                "use the base it was made on, or train again on this one",
            )
    return manifest


def load_adapter(net: nn.Module, folder: Path, base: Model, dropout: float | None = None) -> PeftModel:
    """Return the model with an adapter that was trained on exactly this base; BadInput for any other.

    With ``dropout`` the adapter is trainable and has this dropout; with None it is for inference.
    """
    from peft import LoraConfig, PeftModel

    check_same_base(folder, base, "adapter")
    settings = LoraConfig.from_pretrained(str(folder), local_files_only=True)
    if dropout is not None:
        settings.lora_dropout = dropout
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return PeftModel.from_pretrained(
            net, folder, is_trainable=dropout is not None, config=settings, local_files_only=True
        )


def merged_for_inference(net: PeftModel) -> PreTrainedModel:
    """Return the base with its adapter merged into the weights: it decodes as fast as the base alone."""
    with torch.no_grad():
        model: PreTrainedModel = net.merge_and_unload()  # type: ignore[operator]
    return model.eval()


@torch.no_grad()
def merge_plain_lora(model: nn.Module, folder: Path) -> bool:
    """Merge a plain LoRA adapter into a 16- or 32-bit model, with the bits that PEFT's merge gives.

    Returns:
        Whether it was; False, and nothing is changed, where only PEFT knows what the adapter is.
    """
    settings = read_json(folder / ADAPTER_CONFIG_FILE)
    if not (is_plain_adapter(settings) and (folder / ADAPTER_WEIGHTS).is_file()):
        return False
    rank = int(settings["r"])
    scale = settings["lora_alpha"] / (math.sqrt(rank) if settings.get("use_rslora") else rank)
    layers = {f"base_model.model.{name}": layer for name, layer in model.named_modules()}
    with safe_open(str(folder / ADAPTER_WEIGHTS), "pt") as tensors:
        names = set(tensors.keys())
        adapted = {name.rpartition(".lora_")[0] for name in names}
        pairs = {f"{name}.lora_{side}.weight" for name in adapted for side in "AB"}
        if names != pairs:
            return False
        for name in adapted:
            layer = layers.get(name)
            shapes = [tensors.get_slice(f"{name}.lora_{side}.weight").get_shape() for side in "AB"]
            if type(layer) is not nn.Linear:
                return False
            if shapes != [[rank, layer.in_features], [layer.out_features, rank]]:
                return False
        for name in sorted(adapted):
            weight = layers[name].get_parameter("weight")
            a, b = (
                tensors.get_tensor(f"{name}.lora_{side}.weight").to(weight.device).float() for side in "AB"
            )
            weight.data += (b @ a) * scale
    return True


def load_for_inference(
    base: Model, weights: Path | None = None, dtype: str = "auto", four_bit: bool = False
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Return model and tokenizer ready to generate with.

    An adapter is merged in, as fast as the base alone; on a 4-bit base it stays beside it (:func:`attach_adapter`).

    Args:
        base: The base model.
        weights: An adapter or a tuned model that :func:`runners.train.fit` made on exactly this base (BadInput
            otherwise); None for the base itself.
        dtype: float32, bfloat16, float16 or auto.
        four_bit: Whether the linear layers are held as double-quantised nf4.
    """
    if weights is None:
        return load_base(base, dtype, four_bit), load_tokenizer(base.folder)
    if (weights / ADAPTER_CONFIG_FILE).is_file():
        check_same_base(weights, base, "adapter")
        model, _ = attach_adapter(load_base(base, dtype, four_bit), weights, base, four_bit)
    else:
        check_same_base(weights, base, "model")
        model = load_tuned_model(weights, dtype, four_bit)
    return model, load_tokenizer(weights)


def load_tuned_model(folder: Path, dtype: str, four_bit: bool) -> PreTrainedModel:
    """Return a model that was tuned in full; see :func:`load_base` for the arguments."""
    compute_dtype, _ = dtype_for(dtype)
    return load_model_folder(folder, compute_dtype, four_bit_arguments(compute_dtype, four_bit))


def attach_adapter(
    model: PreTrainedModel, folder: Path, base: Model, four_bit: bool
) -> tuple[PreTrainedModel, PeftModel | None]:
    """Return the model with an adapter: merged into 16-bit weights, beside 4-bit ones.

    Merging into nf4 would round the sum to 4 bits again, which is another model than was trained; unmerged, the
    answers are those of transformers, bitsandbytes and PEFT.

    Returns:
        The model, whose own layers hold the adapter, so that it generates as any model of transformers does; and
        PEFT's wrapper, whose ``unload`` takes the adapter away again, None for a merged one.
    """
    if not four_bit and merge_plain_lora(model, folder):
        return model, None
    with _packed_weights_kept(model):
        adapted = load_adapter(model, folder, base)
    if not four_bit:
        return merged_for_inference(adapted), None
    causal: PreTrainedModel = adapted.eval().get_base_model()  # type: ignore[assignment]
    settings = adapted.peft_config["default"]
    return in_evaluation_mode(causal, repack=not getattr(settings, "use_dora", False)), adapted


class SwitchableModel:
    """A base with at most one adapter; in 16 bits it is merged, and `model` decodes as fast as the base alone.

    With one set of weights from start to end, nothing but the model is in memory. From the first switch on, a copy of
    the base's weights is held where it fits, because unmerging an adapter by subtraction would not restore the same
    bits. Where it does not fit, the base is loaded again instead. A 4-bit base keeps its adapter beside it: its
    weights never change, so switching needs neither.
    """

    def __init__(
        self,
        base: Model,
        weights: Path | None,
        dtype: str,
        free: Callable[[], float] = free_gib,
        four_bit: bool = False,
        step_only: bool = False,
    ) -> None:
        """Load the base, with an adapter or as a tuned model trained on exactly this base.

        Args:
            base: The base model.
            weights: An adapter, or a tuned model folder; None for the base itself.
            dtype: float32, bfloat16, float16 or auto.
            free: Returns the free memory of the device in GiB.
            four_bit: Whether the linear layers are held as double-quantised nf4.
            step_only: Whether a :class:`runners.inference.llama_step.StepModel` will do, where there is one.
        """
        self.base = base
        self.dtype = dtype
        self.four_bit = four_bit
        self._step_only = step_only
        self._free = free
        self.model: Any = None
        self.weights: Path | None = None
        self._beside: PeftModel | None = None
        """PEFT's wrapper of a 4-bit model whose layers hold an adapter."""
        self._copy: dict[str, torch.Tensor] | None = None
        self._switch(weights, keep=False)
        self.tokenizer: Any = load_tokenizer(weights or base.folder)

    @property
    def owner(self) -> tuple[str, str, str]:
        """What a KV cache depends on: hash of the base, hash of the tuned weights ("" without), dtype and bits."""
        tuned = "" if self.weights is None else sha256_file(self.weights / MANIFEST)
        return self.base.fingerprint, tuned, f"{self.model.dtype}{' nf4' if self.four_bit else ''}"

    def use(self, weights: Path | None) -> None:
        """Switch to other tuned weights, or to none; a model tuned in full shares nothing with the base and is loaded.

        Raises BadInput for weights of another base, and then the current ones stay in use. After any other failure no
        model is in memory, and the next use loads it again.
        """
        if weights != self.weights or self.model is None:
            self._switch(weights)

    def load_whole(self) -> bool:
        """Load the model by transformers if it was loaded without; return whether it was."""
        if not isinstance(self.model, StepModel):
            return False
        self._step_only = False
        self._drop()
        self._switch(self.weights, keep=False)
        return True

    def _switch(self, weights: Path | None, keep: bool = True) -> None:
        """Load what is needed for other weights; with ``keep``, the base is copied where the copy fits."""
        adapter = weights is not None and (weights / ADAPTER_CONFIG_FILE).is_file()
        if weights is not None:
            check_same_base(weights, self.base, "adapter" if adapter else "model")
        try:
            if weights is not None and not adapter:
                self._drop()
                self.model = load_tuned_model(weights, self.dtype, self.four_bit)
            else:
                self._restore(keep)
                if (  # DoRA reads the base's weights to normalise them
                    weights is not None
                    and self.four_bit
                    and read_json(weights / ADAPTER_CONFIG_FILE).get("use_dora")
                    and _repacked_states(self.model)
                ):
                    self._drop()
                    self.model = self._load_base()
                if weights is not None and not self._merge(weights):
                    self.model, self._beside = attach_adapter(self.model, weights, self.base, self.four_bit)
        except BaseException:
            self._drop()  # a half switched model would answer in the name of other weights
            raise
        self.weights = weights

    def _merge(self, weights: Path) -> bool:
        """Merge an adapter into a step model; where only PEFT can, load the whole model, and return False."""
        if not isinstance(self.model, StepModel):
            return False
        if merge_plain_lora(self.model, weights):
            return True
        self._step_only = False
        self._drop()
        self.model = self._load_base()
        return False

    def _load_base(self) -> Any:
        """Return the base without tuned weights."""
        if self._step_only and (model := load_step_model(self.base.folder, dtype_for(self.dtype)[0])):
            return model
        return load_base(self.base, self.dtype, self.four_bit)

    def _restore(self, keep: bool) -> None:
        """Restore the base's own weights: detach the adapter, or take them from the copy or from the folder.

        With ``keep``, a 16-bit base is copied where the copy fits.
        """
        if self.model is None:
            self.model = self._load_base()
        elif self._beside is not None:
            with _packed_weights_kept(self.model):
                plain: PreTrainedModel = self._beside.unload()  # type: ignore[operator]
            self.model = in_evaluation_mode(plain)
            self._beside = None
        elif self._copy is not None and self.weights is not None:
            with torch.no_grad():
                for name, parameter in self.model.named_parameters():
                    parameter.copy_(self._copy[name])
        elif self.weights is not None:
            self._drop()
            self.model = self._load_base()
        self.weights = None
        if self.four_bit or not keep:
            return
        size = sum(parameter.nbytes for parameter in self.model.parameters())
        # At most half of the free memory is used for the copy.
        if self._copy is None and 2 * size < self._free() * GIB:
            self._copy = {
                name: parameter.detach().clone() for name, parameter in self.model.named_parameters()
            }

    def _drop(self) -> None:
        """Free the model's memory before another is loaded."""
        self.model = self._copy = self._beside = None
        gc.collect()
        device.free_device_cache()
