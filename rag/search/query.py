"""How a question is searched: everything but the question itself."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import date

from rag.errors import BadInput
from rag.search.filters import Condition


@dataclass(frozen=True, slots=True)
class Query:
    """The options of a search. The defaults were measured to cost no accuracy: see benchmarks/LOG.md."""

    k: int = 5
    """Number of hits; fewer are returned only if the index, or what the filters leave of it, has no more."""
    without: Collection[str] = ()
    """Ids of documents to leave out."""
    where: tuple[Condition, ...] = ()
    """Conditions on metadata, all of which a document must satisfy; applied before ranking."""
    as_of: date | None = None
    """The day to answer for: documents published later are left out, those valid until an earlier day have expired.
    None uses today for expiry and does not leave out documents with a later date."""
    expired: bool = False
    """Search expired documents too, marked as such."""
    neighbours: int = 0
    """Chunks before and after each hit that are joined to it."""
    per_source: int = 0
    """Most hits from one document; 0 for no limit."""
    collapse: float = 0.0
    """Share of a chunk's three-word runs that must occur in a higher hit for the chunk to be listed in that hit's
    ``same`` instead of being a hit of its own; 1 collapses only chunks that add nothing, 0 none. See
    :func:`rag.search.postprocessing.is_redundant`. Off by default, because a gold passage that equals another one is
    missed: hit@5 falls from .993 to .989 on 1,078 questions and evidence at 1,600 tokens from .964 to .954 on 373,
    though the text is shown; prompts leave repeats out anyway."""
    rerank: int = 30
    """Number of best candidates given to the reranker, if the index was opened with one; with more, accuracy does not
    improve or falls (arXiv 2411.11767)."""
    lexical_weight: float | None = None
    """Weight of BM25 in the fused score, 0 to 1; None uses the index's setting."""

    def __post_init__(self) -> None:
        """Raise BadInput for values out of range."""
        if self.k < 1:
            raise BadInput(f"k is {self.k}, but at least one hit must be asked for")
        for name in ("neighbours", "per_source", "rerank"):
            if getattr(self, name) < 0:
                raise BadInput(f"{name} is {getattr(self, name)}, but cannot be negative")
        for name in ("collapse", "lexical_weight"):
            if not 0 <= (getattr(self, name) or 0) <= 1:
                raise BadInput(f"{name} is {getattr(self, name)}, but must be 0 to 1")
