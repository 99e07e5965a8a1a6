"""Choose an index's settings on questions with gold: every candidate shows what fits the same prompt tokens.

Chunk size, overlap, way and weight of fusion, and the reranker are tried together, each with as many passages
as the budget holds, so that no candidate wins by a longer prompt. The settings there are stay unless one
candidate is better beyond noise, corrected for the number of candidates (``stats.against``); a held-out half
would leave too few questions to see anything. How many passages of the winner are enough is told apart from
that, for fewer passages can only save tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from rag.evaluation.labelled import LabelledQuestion
from rag.evaluation.statistics import PairedDifference, compare_with_many
from rag.evaluation.workbench import Workbench
from rag.grounding import context
from rag.search.query import Query
from rag.search.searcher import Searcher
from rag.settings import IndexSettings
from rag.types import Chunk, Hit, OnEvent

CHUNK_SIZES = (50, 100, 150, 200, 250, 400)
"""Chunk sizes tried, in the embedder's tokens, as far as its window reaches."""
CHUNK_OVERLAPS = (0.0, 0.25, 0.5)
FUSIONS = (
    *(("convex", weight) for weight in (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0)),
    ("rrf", 0.5),
)
SEARCH_DEPTH = 50
"""Hits taken of each search, at most."""
MIN_CHUNK_TOKENS = 20
"""Tokens that a passage takes at least with its header, so that no more hits are asked for than can be shown."""
MIN_QUESTIONS = 10
"""With fewer questions nothing is changed: no difference among them could be told from noise."""
SIGNIFICANCE = 0.05
"""Largest corrected chance of a candidate that is no better."""
SUFFICIENT_GAIN = 0.005
"""Fewer passages are enough when no more than this is lost: half a question in a hundred."""
PASSAGE_COUNTS = (1, 2, 3, 5, 8, 12, 20, SEARCH_DEPTH)
"""Numbers of passages that the chosen candidate is held to."""


@dataclass(frozen=True, slots=True)
class IndexCandidate:
    """One way to cut and search."""

    settings: IndexSettings
    reranked: bool = False

    def __str__(self) -> str:
        """Return what is tried, in a few words."""
        s = self.settings
        way = f"convex {s.lexical_weight:g}" if s.fusion == "convex" else f"rrf {s.lexical_weight:g}"
        return f"{s.max_tokens} tokens, overlap {s.overlap:g}, {way}{', reranked' if self.reranked else ''}"


@dataclass(frozen=True, slots=True)
class CandidateScore:
    """What a candidate showed to the questions."""

    candidate: IndexCandidate
    chunks: int
    scores: tuple[float, ...]
    """One for each question, 0 to 1."""
    passages: float
    """Passages shown, on average."""
    tokens: float
    """Tokens of these passages, on average."""

    @property
    def mean(self) -> float:
        """The mean score."""
        return float(np.mean(self.scores))


@dataclass(frozen=True, slots=True)
class TuningOutcome:
    """What was measured and what it comes to."""

    baseline: CandidateScore
    others: tuple[CandidateScore, ...]
    leads: tuple[PairedDifference, ...]
    """Each of the others against the baseline, corrected for their number."""
    depths: tuple[CandidateScore, ...]
    """The chosen candidate held to 1, 2, 3, ... passages."""

    @property
    def best(self) -> int | None:
        """Which of the others is most surely better; None when there are none."""
        return max(range(len(self.leads)), key=lambda n: (self.leads[n].low, -n), default=None)

    @property
    def changed(self) -> bool:
        """Whether that one is better beyond noise."""
        if self.best is None or len(self.baseline.scores) < MIN_QUESTIONS:
            return False
        lead = self.leads[self.best]
        return lead.low > 0 and lead.p <= SIGNIFICANCE

    @property
    def chosen(self) -> CandidateScore:
        """The best candidate when it is better beyond noise, else the baseline."""
        return self.others[self.best] if self.changed and self.best is not None else self.baseline

    @property
    def depths_by_k(self) -> dict[int, CandidateScore]:
        """What the chosen candidate showed, by the most passages it was held to."""
        return dict(zip(PASSAGE_COUNTS, self.depths, strict=True))

    @property
    def enough(self) -> int:
        """The fewest passages of the chosen candidate that lose no more than ``ENOUGH``."""
        return next(
            k for k, each in self.depths_by_k.items() if each.mean >= self.chosen.mean - SUFFICIENT_GAIN
        )


class IndexTuner:
    """Measures candidates on one workbench with one set of questions."""

    def __init__(
        self,
        bench: Workbench,
        questions: Sequence[LabelledQuestion],
        budget: int,
        count: Callable[[str], int],
        on_event: OnEvent | None = None,
    ) -> None:
        """Keep the parts; ``count`` counts the tokens of the ``budget``."""
        self._bench = bench
        self._questions = questions
        self._budget = budget
        self._depth = max(3, min(SEARCH_DEPTH, budget // MIN_CHUNK_TOKENS))
        self._count = lru_cache(maxsize=100_000)(count)
        self._tell = on_event or (lambda event: None)
        self._total = 0
        self._done = 0

    def tune(self, base: IndexSettings, *, reranker: bool = False, fusion: bool = True) -> TuningOutcome:
        """Measure the settings there are and the candidates around them.

        ``reranker``: also try the workbench's reranker, on the settings there are and on the best without it.
        ``fusion``: try other ways and weights of fusion; questions made from the documents share their words,
        so they cannot judge how much words should count.
        """
        cuts = list(self._cuts(base))
        ways = [(base.fusion, base.lexical_weight), *(FUSIONS if fusion else ())]
        ways = list(dict.fromkeys(ways))
        self._total = len(cuts) * len(ways) + 2 * reranker
        found: list[CandidateScore] = []
        for number, (settings, chunks) in enumerate(cuts, start=1):
            place = {"number": number, "total": len(cuts), "chunks": len(chunks)}
            told = {"max_tokens": settings.max_tokens, "overlap": settings.overlap, **place}
            self._tell({"event": "tune.cut", **told})
            searcher = self._bench.searcher(chunks, settings)
            for way, weight in ways:
                candidate = IndexCandidate(replace(settings, fusion=way, lexical_weight=weight))
                found.append(self._measured(candidate, chunks, searcher))
        baseline, *others = found
        if reranker:
            best = max(found, key=lambda each: each.mean).candidate.settings
            for settings in dict.fromkeys((base, best)):
                chunks = self._bench.cut(settings)
                searcher = self._bench.searcher(chunks, settings, reranked=True)
                others.append(self._measured(IndexCandidate(settings, reranked=True), chunks, searcher))
        named = {str(n): each.scores for n, each in enumerate(others)}
        outcome = TuningOutcome(
            baseline, tuple(others), compare_with_many("baseline", baseline.scores, named), ()
        )
        return replace(outcome, depths=tuple(self._depths(outcome.chosen.candidate)))

    def _cuts(self, base: IndexSettings) -> Iterator[tuple[IndexSettings, tuple[Chunk, ...]]]:
        """Yield settings that cut differently, those there are first."""
        seen = set()
        sizes = [size for size in CHUNK_SIZES if size <= self._bench.window]
        pairs = [
            (base.max_tokens, base.overlap),
            *((size, share) for size in sizes for share in CHUNK_OVERLAPS),
        ]
        for size, share in pairs:
            settings = replace(base, max_tokens=size, overlap=share)
            chunks = self._bench.cut(settings)
            if chunks not in seen:
                seen.add(chunks)
                yield settings, chunks

    def _measured(
        self, candidate: IndexCandidate, chunks: Sequence[Chunk], searcher: Searcher
    ) -> CandidateScore:
        hits = self._hits(candidate, searcher)
        self._done += 1
        self._tell({"event": "tune.candidate", "done": self._done, "total": max(self._total, self._done)})
        return self._shown(candidate, len(chunks), hits, SEARCH_DEPTH)

    def _depths(self, candidate: IndexCandidate) -> Iterator[CandidateScore]:
        chunks = self._bench.cut(candidate.settings)
        searcher = self._bench.searcher(chunks, candidate.settings, reranked=candidate.reranked)
        hits = self._hits(candidate, searcher)
        for k in PASSAGE_COUNTS:
            yield self._shown(candidate, len(chunks), hits, k)

    def _hits(self, candidate: IndexCandidate, searcher: Searcher) -> list[Sequence[Hit]]:
        asked = [each.question for each in self._questions]
        return [r.hits for r in searcher.find(asked, [Query(k=self._depth)] * len(asked), candidate.settings)]

    def _shown(
        self, candidate: IndexCandidate, chunks: int, hits: Sequence[Sequence[Hit]], k: int
    ) -> CandidateScore:
        """Fill the budget with the first ``k`` hits of each question and judge what is shown."""
        shown = [context.passages_within_budget(found[:k], self._budget, self._count) for found in hits]
        scores = tuple(q.score(passages) for q, passages in zip(self._questions, shown, strict=True))
        tokens = [sum(self._count(f"{passage}\n") for passage in passages) for passages in shown]
        return CandidateScore(
            candidate, chunks, scores, float(np.mean([len(p) for p in shown])), float(np.mean(tokens))
        )
