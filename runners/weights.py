"""Load a model's weights and tokenizer from its folder. Heavy: imports torch and transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from runners import hub

hub.close()

import torch  # noqa: E402
from transformers import (  # noqa: E402
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging  # noqa: E402

from rag.errors import BadInput, CannotRun  # noqa: E402
from runners.chat import PLAIN_TEMPLATE, Chat  # noqa: E402
from runners.fingerprint import refuse_code  # noqa: E402
from runners.machine import GIB, Probe, detect, free_ram  # noqa: E402
from runners.models import Model  # noqa: E402

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}

transformers_logging.disable_progress_bar()  # progress is told by events


def device() -> torch.device:
    """Return where models run here: the GPU torch sees, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def free_gib() -> float:
    """Return the memory in GiB that the device has free now."""
    if torch.cuda.is_available():
        return float(torch.cuda.mem_get_info()[0]) / GIB
    return float(free_ram(Probe()).value)


def dtype_for(name: str = "auto") -> tuple[torch.dtype, str]:
    """Return the dtype a name means and why: "auto" is bf16 where the hardware computes in it, else fp32."""
    if name != "auto":
        if name not in DTYPES:
            raise BadInput(f"dtype {name!r} is unknown", f"auto, {' or '.join(DTYPES)}")
        return DTYPES[name], "asked for"
    found = detect().bf16
    return (torch.bfloat16 if found.value else torch.float32), found.how


def load_base(base: Model, dtype: str = "auto", four_bit: bool = False) -> PreTrainedModel:
    """Return a causal model in evaluation mode; ``four_bit`` holds its linear layers as double-quantised nf4.

    Raises BadInput when the folder is no causal model, CannotRun when there is not enough memory.
    """
    kind, _ = dtype_for(dtype)
    extra: dict[str, Any] = {}
    if four_bit:
        extra["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=kind,
        )
    return from_folder(base.folder, kind, extra)


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Return a folder's tokenizer, padding with a token that is not an end token where it has one."""
    refuse_code(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    chat = Chat(folder)
    tokenizer.pad_token = chat.pad or tokenizer.eos_token
    if not tokenizer.chat_template:
        tokenizer.chat_template = PLAIN_TEMPLATE
    return tokenizer


def from_folder(folder: Path, dtype: torch.dtype, extra: dict[str, Any]) -> PreTrainedModel:
    """Return the causal model of a folder in evaluation mode; safetensors only, no code of the folder's own.

    Raises BadInput when the folder is no causal model, CannotRun when there is not enough memory.
    """
    refuse_code(folder)
    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, device_map={"": device()}, local_files_only=True, use_safetensors=True,
            trust_remote_code=False, **extra,
        )  # fmt: skip
    except (torch.OutOfMemoryError, MemoryError) as error:
        said = f"not enough memory to load {folder}: {error}"
        raise CannotRun(said, "choose a smaller model or qlora") from error
    except (ValueError, OSError, KeyError) as error:
        raise BadInput(f"{folder} cannot be loaded as a causal language model: {error}") from error
    return model.eval()
