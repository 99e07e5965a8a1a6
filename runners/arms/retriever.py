"""Retrieval for the arms of a run: the index, the passages of a prompt, and the calibrated refusal.

:class:`Retriever` searches an open index with the plan's settings and returns a :class:`Retrieved` for each
question. Any other :class:`PassageFinder` can take its place, such as one that gives every passage
(:mod:`runners.arms.long_context`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from rag.embedding.reranker import Scorer, truncation_notes
from rag.grounding import context
from rag.grounding.refusal import SIGNAL_DEPTH, RefusalDecision, RefusalSignals, RefusalThreshold
from rag.index import Index
from rag.refusal.drift import DriftWatch
from rag.refusal.gate import read_hits
from rag.search.query import Query
from rag.settings import IndexSettings
from rag.types import Hit
from runners.inference.types import Lookups
from runners.plan.steps import IndexStep
from runners.tokenization.chat_template import control_token_breaker


@dataclass(frozen=True, slots=True)
class Retrieved:
    """The result of retrieval for one question."""

    hits: tuple[Hit, ...]
    passages: str
    """The numbered passages as the prompt shows them, best first."""
    decision: RefusalDecision
    """Whether to refuse, by the calibrated threshold."""
    notes: tuple[str, ...] = ()
    """Notes for the user about the search: documents that have expired, an unknown language, ..."""
    searched: Mapping[str, int] = field(default_factory=dict)
    """Counts of what was searched: documents, passages, and the index's generation."""
    reader: Scorer | None = field(default=None, compare=False)
    """The answerability model, where the gate reads: with it an answer is checked too."""

    @property
    def is_searched(self) -> bool:
        """Whether passages were searched for, so that the decision has signals; not where all were given."""
        return self.decision.signals != RefusalSignals()

    @property
    def refuse(self) -> bool:
        """Whether the documents seem not to contain the answer."""
        return self.decision.refuse


def looked_up(lookups: Lookups) -> Retrieved:
    """Return what a model looked up as the result of a retrieval, which decided nothing."""
    never = RefusalDecision(False, 0.0, RefusalSignals())
    return Retrieved(lookups.hits, "", never, lookups.notes, {"documents": lookups.documents})


class PassageFinder(Protocol):
    """Protocol of what provides the passages of a prompt: a search, or all passages at once."""

    def find(self, questions: Sequence[str]) -> list[Retrieved]:
        """Return the passages for each question."""
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
        reranker: Scorer | None = None,
        reader: Scorer | None = None,
    ) -> None:
        """Store the parts.

        Args:
            index: the open index.
            step: the plan's index step: number of passages, tokens of context, fusion.
            threshold: when to refuse.
            count_tokens: counts the tokens of a text as the base model does.
            controls: the base model's control tokens, which are broken up in passages so that none can begin
                a turn.
            reranker: puts the best candidates in order before they are cut to the number of passages.
            reader: the answerability model, needed where the threshold reads; without a reranker its order is shown.
        """
        self.reranker = reranker
        self.reader = reader
        self.drift = DriftWatch(threshold)
        self.index = index
        self.step = step
        self.threshold = threshold
        self.count_tokens = count_tokens
        self.controls = tuple(controls)
        self._break_controls = control_token_breaker(controls)
        self._lock = threading.RLock()  # arms of endpoints are asked beside those that answer here
        self._reranked: dict[tuple[int, int], dict[str, list[Hit]]] = {}

    def find(self, questions: Sequence[str]) -> list[Retrieved]:
        """Search for all questions at once; the refusal is decided on a fixed number of hits, whatever k is.

        A reranker orders what is shown, not what the refusal is decided on: the threshold is fitted on the search.
        """
        with self._lock:
            return self._find(questions)

    def _find(self, questions: Sequence[str]) -> list[Retrieved]:
        k = self.step.k
        depth = max(k, self.step.rerank) if self.reranker else k
        results = self.index.find_many(list(questions), Query(k=max(depth, SIGNAL_DEPTH)))
        facts = self.index.backend.facts
        searched = {
            "documents": facts.documents,
            "passages": facts.chunks,
            "generation": facts.generation,
        }
        retrieved = []
        for question, result in zip(questions, results, strict=True):
            hits, decision = read_hits(
                self.index, self.threshold, self.reader, question, result.hits[: max(k, SIGNAL_DEPTH)]
            )
            self.drift.add(question, decision.signals)
            shown, notes = tuple(hits[:k]), result.notes
            if self.reranker:
                cut_before = self.reranker.truncated
                shown = tuple(self.index.rerank(self.reranker, question, result.hits, depth)[:k])
                notes += truncation_notes(self.reranker.truncated - cut_before)
            passages = self.format_hits(shown, question)
            retrieved.append(Retrieved(shown, passages, decision, notes, searched, self.reader))
        return retrieved

    def candidates(self, questions: Sequence[str], count: int) -> list[list[Hit]]:
        """Return the first ``count`` hits of each question, in the order in which :meth:`find` would show them.

        What a reranker scored is kept: training rows are counted before they are made, and made once for every seed.
        """
        with self._lock:
            return self._candidates(questions, count)

    def _candidates(self, questions: Sequence[str], count: int) -> list[list[Hit]]:
        if self.reranker is None:
            return self.index.search_many(questions, count)
        depth = max(self.step.k, self.step.rerank)
        key = count, self.index.generation
        known = self._reranked.setdefault(key, {})
        if new := [question for question in dict.fromkeys(questions) if question not in known]:
            for question, hits in zip(new, self.index.search_many(new, max(count, depth)), strict=True):
                known[question] = self.index.rerank(self.reranker, question, hits, depth)[:count]
        return [known[question] for question in questions]

    def format_hits(self, hits: Sequence[Hit], question: str) -> str:
        """Return hits as the numbered passages of the question's prompt, in the order given."""

        def count(text: str) -> int:
            return self.count_tokens(self._break_controls(text))

        return self._break_controls(context.format_passages(hits, self.step.context_tokens, count, question))


def index_settings(step: IndexStep) -> IndexSettings:
    """Return the settings of the index that a plan's index step describes."""
    return IndexSettings(
        max_tokens=step.max_chunk_tokens,
        overlap=step.overlap,
        fusion=step.fusion,
        lexical_weight=step.lexical_weight,
        truncate_dim=step.truncate_dim,
        query_prompt=step.query_prompt,
        document_prompt=step.document_prompt,
    )
