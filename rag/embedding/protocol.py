"""The protocol of an embedder; ``rag.embedding.embedder.Embedder`` implements it, tests use a tiny one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from rag.types import OnEvent

if TYPE_CHECKING:
    import numpy as np
    from tokenizers import Tokenizer


class Encoder(Protocol):
    """Turns texts into unit vectors, and counts tokens."""

    @property
    def name(self) -> str:
        """The model's name, as shown to people."""

    @property
    def fingerprint(self) -> str:
        """Everything that decides a vector; vectors of different fingerprints cannot be compared."""

    @property
    def dimension(self) -> int:
        """Length of a vector."""

    @property
    def max_tokens(self) -> int:
        """Tokens of one text that the model sees at once, without special tokens and prefix."""

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer, with truncation and padding off."""

    def encode(
        self, texts: Sequence[str], *, query: bool = False, on_event: OnEvent | None = None
    ) -> np.ndarray:
        """Return float32 [len(texts), dimension], rows of length 1; a text's vector depends on it alone."""

    def count_tokens(self, text: str) -> int:
        """Return the text's length in the model's tokens, without special tokens."""
