"""The protocols of an embedder; ``rag.embedding.embedder.Embedder`` implements both, tests use a tiny one.

An encoder of one's own needs only :class:`Encoder`. One that is :class:`Configurable` too takes the embedding settings
of an index, and is compared with its reference when the index is built.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

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


@runtime_checkable
class Configurable(Protocol):
    """What an encoder offers besides, when prompts and dimensions can be set and several paths lead to its vectors."""

    @property
    def cut(self) -> int:
        """How many texts so far were longer than the model reads."""

    def configured(
        self,
        truncate_dim: int | None,
        query_prompt: str | None,
        document_prompt: str | None,
        question_adapter: bool | None,
    ) -> Encoder:
        """Return this encoder with other settings; None leaves a setting as it is."""

    def matching(self, fingerprint: str, path: str) -> Encoder | None:
        """Return this encoder as it was when it had a fingerprint, None when it never had."""

    def checked(self, texts: Sequence[str]) -> Encoder:
        """Return this encoder on the path that was found right on texts of the corpus."""

    def description(self) -> dict[str, Any]:
        """Return what an index records, as JSON values: path, prompts, dimensions, maximum length."""
