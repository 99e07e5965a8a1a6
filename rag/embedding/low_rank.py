"""Low-rank changes of all-MiniLM-L6-v2 that come with the package (LoRA, Hu et al. 2021). Imports torch.

Two files hold such changes: that of the answerability model (:mod:`rag.embedding.answerability`), and
:data:`QUESTION_ADAPTER`, with which the embedder reads questions. The latter brings a question in a customer's words nearer
to its passage; passages are embedded without it, so that it needs no other index. ``scripts/train_question_adapter.py``
makes it; benchmarks/LOG.md has what it gains.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from torch import nn

QUESTION_ADAPTER = Path(__file__).with_name("question_adapter.safetensors")
_PROBED = ("LayerNorm.weight", "LayerNorm.bias", "query.weight")
"""Ends of the names of the tensors by which the base is recognised: 3.6 MB, of which a training of all weights changes the
layer norms and a LoRA, which leaves those, the queries."""


def base_digest(folder: Path | str) -> str:
    """Return a SHA-256 of some of a model's weights, by which the base is recognised whatever else its file holds."""
    digest = hashlib.sha256()
    with safe_open(str(Path(folder) / "model.safetensors"), "np") as tensors:
        names: list[str] = tensors.keys()
        for name in sorted(name for name in names if name.endswith(_PROBED)):
            digest.update(np.asarray(tensors.get_tensor(name), dtype=np.float32).tobytes())
    return digest.hexdigest()


def why_not_base(folder: Path | str, changes: Path) -> str:
    """Return why a file of changes does not fit the model of a folder, "" where it does."""
    if not changes.is_file():
        return "its weights are not installed"
    if not (Path(folder) / "model.safetensors").is_file():
        return f"{Path(folder).name} has no model.safetensors"
    with safe_open(str(changes), "np") as tensors:
        wanted = (tensors.metadata() or {}).get("base", "")
    return (
        "" if base_digest(folder) == wanted else f"{Path(folder).name} is another model than it was made of"
    )


def add_changes(model: nn.Module, changes: Path) -> None:
    """Add the changes of a file to the weights of a model's linear layers, in float32."""
    with safe_open(str(changes), "pt") as tensors:
        scale = float(tensors.metadata()["scale"])
        names = set(tensors.keys())
        for name, layer in model.named_modules():
            if f"{name}.lora_A" not in names:
                continue
            up, down = (tensors.get_tensor(f"{name}.lora_{part}").float() for part in "BA")
            weight = layer.get_parameter("weight")
            with torch.no_grad():
                weight.copy_((weight.float() + scale * up @ down).to(weight.dtype))
