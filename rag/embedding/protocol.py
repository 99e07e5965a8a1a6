"""What the index needs of an embedder; ``embed.Embedder`` is the real one, tests bring a tiny one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from rag.types import OnEvent

if TYPE_CHECKING:
    import numpy as np
    from tokenizers import Tokenizer


class Encoder(Protocol):
    """Turns texts into unit vectors, and counts in its own tokens."""

    @property
    def name(self) -> str:
        """The model's name, for people."""

    @property
    def fingerprint(self) -> str:
        """Everything that decides a vector; vectors of different fingerprints must never meet."""

    @property
    def dimension(self) -> int:
        """Length of a vector."""

    @property
    def max_tokens(self) -> int:
        """Tokens of its own that the model sees of one text, special tokens and passage prefix taken off."""

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer, with truncation and padding off."""

    def encode(
        self, texts: Sequence[str], *, query: bool = False, on_event: OnEvent | None = None
    ) -> np.ndarray:
        """Return float32 [len(texts), dimension], rows of length 1; a text's vector depends on it alone."""

    def count_tokens(self, text: str) -> int:
        """Return the text's length in the model's tokens, without special tokens."""
