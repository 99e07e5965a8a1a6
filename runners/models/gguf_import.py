"""Convert a quantised GGUF file to a bf16 safetensors model folder. Imports torch and transformers."""

from __future__ import annotations

import io
import os
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

from runners.models import hub

os.environ.update(hub.offline_variables())

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from transformers.utils import logging

from rag.errors import BadInput

# Progress is reported by events.
logging.disable_progress_bar()


def unpack_gguf(file: Path, folder: Path, pad: str, eos: str) -> None:
    """Write a GGUF file's model and tokenizer to ``folder``.

    Args:
        file: the GGUF file.
        folder: where config, weights and tokenizer are saved.
        pad: the padding token. The tokenizer inside such files often pads with its end token, which would mask that
            token in training.
        eos: the token that ends turns.

    Raises:
        BadInput: the vocabulary lacks one of the tokens.
    """
    tokenizer = gguf_tokenizer(file)
    for token in (pad, eos):
        if token not in tokenizer.get_vocab():
            raise BadInput(f"{file.name} has no token {token!r}")
    tokenizer.pad_token = pad
    tokenizer.eos_token = eos
    model = load_gguf(file)
    eos_id = tokenizer.eos_token_id
    pad_id = tokenizer.pad_token_id
    model.config.eos_token_id = eos_id
    model.config.pad_token_id = pad_id
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id, eos_token_id=eos_id, pad_token_id=pad_id
    )
    # The saved weights are not quantised, and the path of this machine does not belong into the file.
    for attribute in ("quantization_config", "_model_name_or_path"):
        if hasattr(model.config, attribute):
            delattr(model.config, attribute)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    for path in folder.iterdir():
        path.chmod(0o644)


def load_gguf(
    file: Path, dtype: str = "bfloat16", settings: Path | None = None
) -> transformers.PreTrainedModel:
    """Return a GGUF file's model with dequantised weights, in evaluation mode.

    Args:
        file: the GGUF file.
        dtype: torch dtype of the weights.
        settings: model folder whose config is used instead of the file's own; None is the file's own.
    """
    # transformers 5.2x keeps GGUF blocks packed unless dequantize is set; earlier releases always unpack.
    gguf_config = getattr(transformers, "GgufConfig", None)
    extra: dict[str, Any] = {"quantization_config": gguf_config(dequantize=True)} if gguf_config else {}
    if settings is not None:
        extra["config"] = transformers.AutoConfig.from_pretrained(settings, local_files_only=True)
    # The GGUF reader draws a progress bar of its own, which no setting switches off.
    with redirect_stderr(io.StringIO()):
        model: transformers.PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            file.parent, gguf_file=file.name, dtype=getattr(torch, dtype), local_files_only=True, **extra
        )
    return model.eval()


def gguf_tokenizer(file: Path) -> Any:
    """Return a GGUF file's tokenizer."""
    return AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name, local_files_only=True)
