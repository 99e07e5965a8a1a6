"""NEFTune: noise on the input embeddings while training, off unless asked for. Heavy: imports torch.

Jain et al., arXiv 2310.05914: uniform noise of size ``alpha / sqrt(length * width)``. It helped instruction
tuning on answers judged by other models; whether it helps here is for the validation loss to say.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel


class Noise:
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


def attach(causal: PreTrainedModel, alpha: float) -> None:
    """Let a model add noise to its input embeddings whenever it is in training mode; 0 does nothing.

    The noise is drawn from torch's own generator, so a checkpoint's random state brings it back. A beginning
    that rows share gets the same noise in all of them.
    """
    if alpha == 0:
        return
    noise = Noise(alpha)
    causal.base_model.register_forward_pre_hook(noise.measure, with_kwargs=True)
    causal.get_input_embeddings().register_forward_hook(noise.add)
