"""Turn a quantised GGUF file into a plain bf16 safetensors model folder, once. Heavy."""

from __future__ import annotations

import io
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

from runners.models import hub

hub.block_hub()

import torch  # noqa: E402
import transformers  # noqa: E402
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig  # noqa: E402
from transformers.utils import logging  # noqa: E402

from rag.errors import BadInput  # noqa: E402

# Progress is told by events.
logging.disable_progress_bar()


def unpack_gguf(file: Path, folder: Path, pad: str, eos: str) -> None:
    """Write a GGUF file's model and tokenizer to ``folder``; ``pad`` pads and ``eos`` ends turns.

    The tokenizer inside such files often pads with its end token, which would hide that token from
    training; the quantisation entry leaves the config, because the saved weights are not quantised.
    """
    tokenizer = gguf_tokenizer(file)
    for token in (pad, eos):
        if token not in tokenizer.get_vocab():
            raise BadInput(f"{file.name} has no token {token!r}")
    tokenizer.pad_token, tokenizer.eos_token = pad, eos
    model = load_gguf(file)
    end, padding = tokenizer.eos_token_id, tokenizer.pad_token_id
    model.config.eos_token_id, model.config.pad_token_id = end, padding
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id, eos_token_id=end, pad_token_id=padding
    )
    for leftover in ("quantization_config", "_model_name_or_path"):
        if hasattr(model.config, leftover):
            delattr(model.config, leftover)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    for saved in folder.iterdir():
        saved.chmod(0o644)


def load_gguf(
    file: Path, dtype: str = "bfloat16", settings: Path | None = None
) -> transformers.PreTrainedModel:
    """Return a GGUF file's model with its weights unpacked into a number type.

    ``settings`` is a model folder whose config is taken instead of the file's own figures.
    """
    # transformers 5.2x keeps GGUF blocks packed unless told otherwise; earlier releases always unpack.
    packing = getattr(transformers, "GgufConfig", None)
    extra: dict[str, Any] = {"quantization_config": packing(dequantize=True)} if packing else {}
    if settings is not None:
        extra["config"] = transformers.AutoConfig.from_pretrained(settings, local_files_only=True)
    # The reader of such files draws a bar of its own that no setting reaches.
    with redirect_stderr(io.StringIO()):
        model: transformers.PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            file.parent, gguf_file=file.name, dtype=getattr(torch, dtype), local_files_only=True, **extra
        )
    return model.eval()


def gguf_tokenizer(file: Path) -> Any:
    """Return a GGUF file's tokenizer."""
    return AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name, local_files_only=True)
