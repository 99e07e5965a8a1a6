"""One base in memory, its tuned weights put on and taken off without loading it again. Heavy: imports torch."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

from runners import hub

hub.close()

import torch  # noqa: E402

from rag.durable import MANIFEST, sha256_file  # noqa: E402
from runners.machine import GIB  # noqa: E402
from runners.models import Model  # noqa: E402
from runners.weights import (  # noqa: E402
    check_made_on,
    dtype_for,
    free_gib,
    from_folder,
    load_adapter,
    load_base,
    load_for_inference,
    merged_for_inference,
)


class Weights:
    """A base with at most one adapter merged into it; `model` decodes as fast as the bare base either way.

    With one set of weights from start to end nothing is kept beside the model. From the first switch on, a copy of
    the base's weights is, where there is room for it: taking an adapter off again by subtraction would not give the
    same bits back. Where there is none, the base is loaded again instead.
    """

    def __init__(
        self, base: Model, weights: Path | None, dtype: str, free: Callable[[], float] = free_gib
    ) -> None:
        """Load the base, with an adapter or as a tuned model, made on exactly this base; `free` tells free GiB."""
        self.base, self.dtype, self._free = base, dtype, free
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

    def use(self, weights: Path | None) -> None:
        """Put other tuned weights on, or none; a whole tuned model shares nothing with the base and is loaded.

        BadInput for weights of another base: then what was in use still is. After any other failure nothing is, and
        the next use loads afresh.
        """
        if weights == self.weights and self.model is not None:
            return
        adapter = weights is not None and (weights / "adapter_config.json").is_file()
        if weights is not None:
            check_made_on(weights, self.base, "adapter" if adapter else "model")
        try:
            if weights is not None and not adapter:
                self._drop()
                self.model = from_folder(weights, dtype_for(self.dtype)[0], {})
            else:
                self._restore()
                if weights is not None:
                    self.model = merged_for_inference(load_adapter(self.model, weights, self.base))
        except BaseException:
            self._drop()  # half switched, it would answer under a name that is not its own
            raise
        self.weights = weights

    def _restore(self) -> None:
        """Give the model the base's own weights."""
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
        size = sum(p.nbytes for p in self.model.parameters())
        # Half of what is free is left to others.
        if self._copy is None and 2 * size < self._free() * GIB:
            self._copy = {name: p.detach().clone() for name, p in self.model.named_parameters()}

    def _drop(self) -> None:
        """Give the model's memory back before another is loaded."""
        self.model = self._copy = None
        gc.collect()
