"""Retrieval for the arms of a run: the index, the passages of a prompt, and the calibrated refusal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rag import context
from rag.index import Index
from rag.refuse import DEPTH, Threshold
from rag.types import Hit
from runners.completion import estimated_tokens
from runners.plan import IndexStep


@dataclass(frozen=True, slots=True)
class Found:
    """What retrieval brings to one question."""

    hits: tuple[Hit, ...]
    passages: str
    """The numbered passages as the prompt shows them, best first."""
    refuse: bool
    """Whether the calibrated threshold says that the documents do not hold the answer."""


class Retriever:
    """An open index with the plan's settings: how many passages, how long, and when to refuse."""

    def __init__(
        self, index: Index, step: IndexStep, threshold: Threshold, count_tokens: Callable[[str], int]
    ) -> None:
        """Keep the parts; `count_tokens` counts in the base model's own tokens."""
        self.index = index
        self.step = step
        self.threshold = threshold
        self.count_tokens = count_tokens

    def find(self, questions: Sequence[str]) -> list[Found]:
        """Search all questions at once."""
        k = self.step.k
        found = self.index.search_many(list(questions), max(k, DEPTH))
        return [
            Found(tuple(hits[:k]), self.show(hits[:k]), self.threshold.refuses(question, hits))
            for question, hits in zip(questions, found, strict=True)
        ]

    def show(self, hits: Sequence[Hit]) -> str:
        """Hits as the numbered passages of a prompt, in the order given."""
        return context.passages(hits, self.step.context_tokens, self.count_tokens)


def token_counter(folder: Path | None) -> Callable[[str], int]:
    """Count tokens as the model in `folder` does, without loading it; estimated for one that is not here (None)."""
    if folder is None:
        return estimated_tokens
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)
