"""Retrieval for the arms of a run: the index, the passages of a prompt, and the calibrated refusal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from rag.grounding import context
from rag.grounding.refusal import SIGNAL_DEPTH, RefusalDecision, RefusalThreshold
from rag.index import Index
from rag.search.query import Query
from rag.settings import IndexSettings
from rag.types import Hit
from runners.plan.steps import IndexStep
from runners.tokenization.chat_template import control_token_breaker
from runners.tokenization.token_estimate import estimate_tokens


@dataclass(frozen=True, slots=True)
class Retrieved:
    """What retrieval brings to one question."""

    hits: tuple[Hit, ...]
    passages: str
    """The numbered passages as the prompt shows them, best first."""
    decision: RefusalDecision
    """What the calibrated threshold says of them."""
    notes: tuple[str, ...] = ()
    """What the user should know of the search: documents that have expired, an unknown language, ..."""
    searched: Mapping[str, int] = field(default_factory=dict)
    """How much was searched: documents, passages, and the index's generation."""

    @property
    def refuse(self) -> bool:
        """Whether the documents seem not to hold the answer."""
        return self.decision.refuse


class PassageFinder(Protocol):
    """Brings the passages of a prompt: those a search finds, or all there are."""

    def find(self, questions: Sequence[str]) -> list[Retrieved]:
        """Return what each question is given."""
        ...


class Retriever:
    """An open index with the plan's settings: how many passages, how long, and when to refuse."""

    def __init__(
        self,
        index: Index,
        step: IndexStep,
        threshold: RefusalThreshold,
        count_tokens: Callable[[str], int],
        controls: Sequence[str] = (),
    ) -> None:
        """Keep the parts; `count_tokens` counts in the base model's own tokens, `controls` are those that mean turns."""
        self.index = index
        self.step = step
        self.threshold = threshold
        self.count_tokens = count_tokens
        self.controls = tuple(controls)
        self._broken = control_token_breaker(controls)

    def find(self, questions: Sequence[str]) -> list[Retrieved]:
        """Search all questions at once."""
        k = self.step.k
        results = self.index.find_many(list(questions), Query(k=max(k, SIGNAL_DEPTH)))
        chunks, generation = self.index.chunks, self.index.generation
        documents = len({chunk.doc for chunk in chunks})
        searched = {"documents": documents, "passages": len(chunks), "generation": generation}
        return [
            Retrieved(
                result.hits[:k],
                self.format_hits(result.hits[:k], question),
                self.threshold.decide(question, result.hits),
                result.notes,
                searched,
            )
            for question, result in zip(questions, results, strict=True)
        ]

    def format_hits(self, hits: Sequence[Hit], question: str) -> str:
        """Hits as the numbered passages of the question's prompt, in the order given."""

        def count(text: str) -> int:
            return self.count_tokens(self._broken(text))

        return self._broken(context.format_passages(hits, self.step.context_tokens, count, question))


def token_counter(folder: Path | None) -> Callable[[str], int]:
    """Count tokens as the model in `folder` does, without loading it; estimated for one that is not here (None)."""
    if folder is None:
        return estimate_tokens
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)


def control_tokens(folder: Path | None) -> tuple[str, ...]:
    """The tokens that mean turns to the model in `folder`; none for one that is not here (None)."""
    from runners.tokenization.chat_template import ChatTokenizer

    return ChatTokenizer(folder).control_tokens if folder else ()


def index_settings(step: IndexStep) -> IndexSettings:
    """Return the settings of the index that a plan's index step describes."""
    return IndexSettings(
        max_tokens=step.max_chunk_tokens,
        overlap=step.overlap,
        fusion=step.fusion,
        lexical_weight=step.lexical_weight,
    )
