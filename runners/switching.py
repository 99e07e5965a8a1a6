"""One base in memory, its tuned weights put on and taken off without loading it again. Heavy: imports torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from runners import hub

hub.close()

import torch  # noqa: E402

from rag.durable import MANIFEST, sha256_file  # noqa: E402
from runners.attach import load_adapter, load_for_inference, merged_for_inference  # noqa: E402
from runners.load import load_base  # noqa: E402
from runners.models import Model  # noqa: E402


class Weights:
    """A base with at most one adapter merged into it; `model` decodes as fast as the bare base either way.

    With one set of weights from start to end nothing is kept beside the model. From the first switch on, a copy of
    the base's weights is: taking an adapter off again by subtraction would not give the same bits back. So
    switching costs the base's memory once more, whatever the number of adapters.
    """

    def __init__(self, base: Model, weights: Path | None, dtype: str) -> None:
        """Load the base, with an adapter or as a tuned model, made on exactly this base."""
        self.base, self.dtype = base, dtype
        self.model: Any
        self.tokenizer: Any
        self.model, self.tokenizer = load_for_inference(base, weights, dtype)
        self.weights = weights
        self._copy: dict[str, torch.Tensor] | None = None

    @property
    def owner(self) -> tuple[str, str, str]:
        """What keys and values belong to: base, tuned weights, number type."""
        tuned = "" if self.weights is None else sha256_file(self.weights / MANIFEST)
        return self.base.fingerprint, tuned, str(self.model.dtype)

    def use(self, weights: Path | None) -> bool:
        """Put other tuned weights on, or none; return whether anything changed.

        A whole tuned model shares nothing with the base and is loaded. BadInput for weights of another base, which
        leaves the bare base in place.
        """
        if weights == self.weights:
            return False
        if any(w is not None and not _is_adapter(w) for w in (weights, self.weights)):
            self.model, self._copy = load_for_inference(self.base, weights, self.dtype)[0], None
        else:
            self._restore()
            if weights is not None:
                self.model = merged_for_inference(load_adapter(self.model, weights, self.base))
        self.weights = weights
        return True

    def _restore(self) -> None:
        """Give the model the base's own weights."""
        if self._copy is None:
            if self.weights is not None:
                self.model = load_base(self.base, self.dtype)
            self._copy = {name: p.detach().clone() for name, p in self.model.named_parameters()}
        elif self.weights is not None:
            with torch.no_grad():
                for name, parameter in self.model.named_parameters():
                    parameter.copy_(self._copy[name])
        self.weights = None


def _is_adapter(folder: Path) -> bool:
    return (folder / "adapter_config.json").is_file()
