"""Load models and tokenizers from their folders, and tuned weights onto the base they were trained on.

:func:`load_for_inference` returns a model ready to generate with; :class:`SwitchableModel` holds one base in memory and
switches its tuned weights without loading it again. Imports torch, transformers and peft.
"""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from runners.models import hub

hub.block_hub()

import torch  # noqa: E402
from peft import LoraConfig, PeftModel  # noqa: E402
from torch import nn  # noqa: E402
from transformers import (  # noqa: E402
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging  # noqa: E402

from rag.errors import BadInput, CannotRun  # noqa: E402
from rag.files import (  # noqa: E402
    MANIFEST,
    check_manifest,
    sha256_file,
)
from runners.models.cards import CARD_FILE  # noqa: E402
from runners.models.fingerprint import refuse_code, template_hash, tokenizer_hash  # noqa: E402
from runners.models.resolve import Model  # noqa: E402
from runners.resources.gpu import MachineProbe  # noqa: E402
from runners.resources.machine import GIB, detect_machine, free_ram  # noqa: E402
from runners.tokenization.chat_template import ChatTokenizer  # noqa: E402

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_MUST_EQUAL = (
    ("tokenizer_sha256", "tokenizer"),
    ("template_sha256", "chat template"),
    ("fingerprint", "base"),
)
"""Facts of a base that must be those of the training, with their names in messages; the clearest difference first."""

transformers_logging.disable_progress_bar()  # progress is reported by events


def default_device() -> torch.device:
    """Return the device that models run on here: the GPU if torch sees one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def free_gib() -> float:
    """Return the free memory of the device in GiB."""
    if torch.cuda.is_available():
        return float(torch.cuda.mem_get_info()[0]) / GIB
    return float(free_ram(MachineProbe()).value)


def dtype_for(name: str = "auto") -> tuple[torch.dtype, str]:
    """Return the dtype a name means and why: "auto" is bf16 where the hardware computes in it, else fp32."""
    if name != "auto":
        if name not in DTYPES:
            raise BadInput(f"dtype {name!r} is unknown", f"auto, {' or '.join(DTYPES)}")
        return DTYPES[name], "asked for"
    bf16 = detect_machine().bf16
    return (torch.bfloat16 if bf16.value else torch.float32), bf16.how


def load_base(base: Model, dtype: str = "auto", four_bit: bool = False) -> PreTrainedModel:
    """Return a causal model in evaluation mode.

    Args:
        base: The model to load.
        dtype: float32, bfloat16 or auto.
        four_bit: Whether its linear layers are held as double-quantised nf4 (QLoRA).

    Raises BadInput when the folder is no causal model, CannotRun when there is not enough memory.
    """
    compute_dtype, _ = dtype_for(dtype)
    extra: dict[str, Any] = {}
    if four_bit:
        extra["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=compute_dtype,
        )
    return load_model_folder(base.folder, compute_dtype, extra)


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
    refuse_code(folder)
    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            device_map={"": default_device()},
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            **extra,
        )
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise CannotRun(
            f"not enough memory to load {folder}: {error}", "choose a smaller model or qlora"
        ) from error
    except (ValueError, OSError, KeyError) as error:
        raise BadInput(f"{folder} cannot be loaded as a causal language model: {error}") from error
    return model.eval()


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
        raise BadInput(f"{folder} does not say which base it was made on")
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


def load_for_inference(
    base: Model, weights: Path | None = None, dtype: str = "auto"
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Return model and tokenizer ready to generate with, an adapter merged in: as fast as the base alone.

    Args:
        base: The base model.
        weights: An adapter or a tuned model that :func:`runners.train.fit` made on exactly this base (BadInput
            otherwise); None for the base itself.
        dtype: float32, bfloat16 or auto.
    """
    if weights is None:
        return load_base(base, dtype), load_tokenizer(base.folder)
    if (weights / "adapter_config.json").is_file():
        model = merged_for_inference(load_adapter(load_base(base, dtype), weights, base))
    else:
        check_same_base(weights, base, "model")
        model = load_model_folder(weights, dtype_for(dtype)[0], {})
    return model.eval(), load_tokenizer(weights)


class SwitchableModel:
    """A base with at most one adapter merged into it; `model` decodes as fast as the base alone either way.

    With one set of weights from start to end, nothing but the model is in memory. From the first switch on, a copy of
    the base's weights is held where it fits, because unmerging an adapter by subtraction would not restore the same
    bits. Where it does not fit, the base is loaded again instead.
    """

    def __init__(
        self, base: Model, weights: Path | None, dtype: str, free: Callable[[], float] = free_gib
    ) -> None:
        """Load the base, with an adapter or as a tuned model trained on exactly this base.

        Args:
            base: The base model.
            weights: An adapter, or a tuned model folder; None for the base itself.
            dtype: float32, bfloat16 or auto.
            free: Returns the free memory of the device in GiB.
        """
        self.base = base
        self.dtype = dtype
        self._free = free
        self.model: Any
        self.tokenizer: Any
        self.model, self.tokenizer = load_for_inference(base, weights, dtype)
        self.weights = weights
        self._copy: dict[str, torch.Tensor] | None = None

    @property
    def owner(self) -> tuple[str, str, str]:
        """What a KV cache depends on: hash of the base, hash of the tuned weights ("" without), dtype."""
        tuned = "" if self.weights is None else sha256_file(self.weights / MANIFEST)
        return self.base.fingerprint, tuned, str(self.model.dtype)

    def use(self, weights: Path | None) -> None:
        """Switch to other tuned weights, or to none; a model tuned in full shares nothing with the base and is loaded.

        Raises BadInput for weights of another base, and then the current ones stay in use. After any other failure no
        model is in memory, and the next use loads it again.
        """
        if weights == self.weights and self.model is not None:
            return
        adapter = weights is not None and (weights / "adapter_config.json").is_file()
        if weights is not None:
            check_same_base(weights, self.base, "adapter" if adapter else "model")
        try:
            if weights is not None and not adapter:
                self._drop()
                self.model = load_model_folder(weights, dtype_for(self.dtype)[0], {})
            else:
                self._restore()
                if weights is not None:
                    self.model = merged_for_inference(load_adapter(self.model, weights, self.base))
        except BaseException:
            self._drop()  # a half switched model would answer in the name of other weights
            raise
        self.weights = weights

    def _restore(self) -> None:
        """Restore the base's own weights, from the copy or from its folder, and make the copy where it fits."""
        if self.model is None:
            self.model = load_base(self.base, self.dtype)
        elif self._copy is not None and self.weights is not None:
            with torch.no_grad():
                for name, parameter in self.model.named_parameters():
                    parameter.copy_(self._copy[name])
        elif self.weights is not None:
            self._drop()
            self.model = load_base(self.base, self.dtype)
        self.weights = None
        size = sum(parameter.nbytes for parameter in self.model.parameters())
        # At most half of the free memory is used for the copy.
        if self._copy is None and 2 * size < self._free() * GIB:
            self._copy = {
                name: parameter.detach().clone() for name, parameter in self.model.named_parameters()
            }

    def _drop(self) -> None:
        """Free the model's memory before another is loaded."""
        self.model = self._copy = None
        gc.collect()
