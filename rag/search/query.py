"""How a question is searched: everything but the question itself."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import date

from rag.errors import BadInput
from rag.search.filters import Condition


@dataclass(frozen=True, slots=True)
class Query:
    """The options of a search. The defaults were measured to cost nothing: see benchmarks/LOG.md."""

    k: int = 5
    """Hits wanted; fewer come only when the index, or what the filters leave of it, holds no more."""
    without: Collection[str] = ()
    """Ids of documents to leave out."""
    where: tuple[Condition, ...] = ()
    """Conditions on metadata that a document must all fulfil; applied before ranking."""
    as_of: date | None = None
    """The day to answer for: what was published later is not known yet, what was valid until an earlier day
    has expired. None is today for expiry, and then also documents with a later date are known."""
    expired: bool = False
    """Search expired documents too, marked as such."""
    neighbours: int = 0
    """Chunks before and after each hit that are joined to it."""
    per_source: int = 0
    """Most hits from one document; 0 for no limit."""
    collapse: float = 0.0
    """Share of a chunk's three-word runs that must stand in a hit above it for it to be named there instead of
    being a hit of its own; 1 collapses only what adds nothing, 0 nothing. See ``arrange.adds_nothing``. Off,
    because where gold is one of several equal places it is missed: hit@5 .993 falls to .989 on 1,078 questions
    and evidence at 1,600 tokens .964 to .954 on 373, though the text is shown; prompts leave repeats out anyway."""
    rerank: int = 30
    """Best candidates given to the reranker, where the index was opened with one: with more it gains nothing
    or loses (arXiv 2411.11767)."""
    lexical_weight: float | None = None
    """Weight of BM25 in the fused score, 0 to 1; None is the index's own."""

    def __post_init__(self) -> None:
        """Refuse values that mean nothing, naming them."""
        if self.k < 1:
            raise BadInput(f"k is {self.k}, but at least one hit must be asked for")
        for name in ("neighbours", "per_source", "rerank"):
            if getattr(self, name) < 0:
                raise BadInput(f"{name} is {getattr(self, name)}, but cannot be negative")
        for name in ("collapse", "lexical_weight"):
            if not 0 <= (getattr(self, name) or 0) <= 1:
                raise BadInput(f"{name} is {getattr(self, name)}, but must be 0 to 1")
