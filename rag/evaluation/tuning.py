"""Choose an index's settings on questions with gold, comparing all candidates at the same number of prompt tokens.

Chunk size, overlap, kind and weight of fusion, and the reranker are tried together. Each candidate shows as many
passages as fit into the token budget, so that none wins by a longer prompt. The present settings stay unless one
candidate is better beyond noise, corrected for the number of candidates
(:func:`rag.evaluation.statistics.compare_with_many`); a held-out half would leave too few questions to detect a
difference. How many passages of the chosen candidate are enough is measured separately, because fewer passages can
only save tokens.
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
"""Hits taken from each search, at most."""
MIN_CHUNK_TOKENS = 20
"""Tokens that a passage takes at least with its header, so that no more hits are asked for than can be shown."""
MIN_QUESTIONS = 10
"""With fewer questions nothing is changed: no difference could be told from noise."""
SIGNIFICANCE = 0.05
"""Largest corrected p-value at which a candidate counts as better."""
SUFFICIENT_GAIN = 0.005
"""Fewer passages are enough if the mean score falls by no more than this: half a question in a hundred."""
PASSAGE_COUNTS = (1, 2, 3, 5, 8, 12, 20, SEARCH_DEPTH)
"""Numbers of passages that the chosen candidate is limited to."""


@dataclass(frozen=True, slots=True)
class IndexCandidate:
    """One combination of settings for cutting and searching."""

    settings: IndexSettings
    reranked: bool = False

    def __str__(self) -> str:
        """Return the settings in a few words."""
        settings = self.settings
        fusion = (
            f"convex {settings.lexical_weight:g}"
            if settings.fusion == "convex"
            else f"rrf {settings.lexical_weight:g}"
        )
        return f"{settings.max_tokens} tokens, overlap {settings.overlap:g}, {fusion}{', reranked' if self.reranked else ''}"


@dataclass(frozen=True, slots=True)
class CandidateScore:
    """The scores of a candidate on the questions."""

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
    """The measurements and the choice that follows from them."""

    baseline: CandidateScore
    others: tuple[CandidateScore, ...]
    leads: tuple[PairedDifference, ...]
    """Each of the others against the baseline, corrected for their number."""
    depths: tuple[CandidateScore, ...]
    """The chosen candidate limited to 1, 2, 3, ... passages; see :data:`PASSAGE_COUNTS`."""

    @property
    def best(self) -> int | None:
        """The position in ``others`` with the highest lower bound of its lead; None without others."""
        return max(range(len(self.leads)), key=lambda n: (self.leads[n].low, -n), default=None)

    @property
    def changed(self) -> bool:
        """Whether the best of the others is better than the baseline beyond noise."""
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
        """The scores of the chosen candidate, by the number of passages it was limited to."""
        return dict(zip(PASSAGE_COUNTS, self.depths, strict=True))

    @property
    def enough(self) -> int:
        """The fewest passages of the chosen candidate that lose no more than :data:`SUFFICIENT_GAIN`."""
        return next(
            k for k, depth in self.depths_by_k.items() if depth.mean >= self.chosen.mean - SUFFICIENT_GAIN
        )


class IndexTuner:
    """Measures candidates on one workbench with one set of questions."""

    def __init__(
        self,
        workbench: Workbench,
        questions: Sequence[LabelledQuestion],
        budget: int,
        count: Callable[[str], int],
        on_event: OnEvent | None = None,
    ) -> None:
        """Store the parts.

        Args:
            workbench: cuts and searches the corpus.
            questions: the questions with their gold.
            budget: prompt tokens that the passages of a question may take.
            count: counts tokens as the answering model does.
            on_event: receives ``tune.cut`` and ``tune.candidate`` events.
        """
        self._workbench = workbench
        self._questions = questions
        self._budget = budget
        self._depth = max(3, min(SEARCH_DEPTH, budget // MIN_CHUNK_TOKENS))
        self._count = lru_cache(maxsize=100_000)(count)
        self._on_event = on_event or (lambda event: None)
        self._total = 0
        self._done = 0

    def tune(self, base: IndexSettings, *, reranker: bool = False, fusion: bool = True) -> TuningOutcome:
        """Measure the present settings and the candidates around them.

        Args:
            base: the present settings, which are the baseline.
            reranker: also try the workbench's reranker, on the present settings and on the best without it.
            fusion: try other kinds and weights of fusion; must be off for questions made from the documents, which share
                their words and so cannot judge how much words should count.
        """
        cuts = list(self._cuts(base))
        fusions = [(base.fusion, base.lexical_weight), *(FUSIONS if fusion else ())]
        fusions = list(dict.fromkeys(fusions))
        self._total = len(cuts) * len(fusions) + 2 * reranker
        measured: list[CandidateScore] = []
        for number, (settings, chunks) in enumerate(cuts, start=1):
            progress = {"number": number, "total": len(cuts), "chunks": len(chunks)}
            chunking = {"max_tokens": settings.max_tokens, "overlap": settings.overlap, **progress}
            self._on_event({"event": "tune.cut", **chunking})
            searcher = self._workbench.searcher(chunks, settings)
            for kind, weight in fusions:
                candidate = IndexCandidate(replace(settings, fusion=kind, lexical_weight=weight))
                measured.append(self._measured(candidate, chunks, searcher))
        baseline, *others = measured
        if reranker:
            best = max(measured, key=lambda score: score.mean).candidate.settings
            for settings in dict.fromkeys((base, best)):
                chunks = self._workbench.cut(settings)
                searcher = self._workbench.searcher(chunks, settings, reranked=True)
                others.append(self._measured(IndexCandidate(settings, reranked=True), chunks, searcher))
        scores = {str(n): score.scores for n, score in enumerate(others)}
        documents = [question.doc for question in self._questions]
        leads = compare_with_many("baseline", baseline.scores, scores, documents=documents)
        outcome = TuningOutcome(baseline, tuple(others), leads, ())
        return replace(outcome, depths=tuple(self._depths(outcome.chosen.candidate)))

    def _cuts(self, base: IndexSettings) -> Iterator[tuple[IndexSettings, tuple[Chunk, ...]]]:
        """Yield settings that cut the documents differently, the present ones first, with the chunks."""
        seen = set()
        sizes = [size for size in CHUNK_SIZES if size <= self._workbench.window]
        pairs = [
            (base.max_tokens, base.overlap),
            *((size, share) for size in sizes for share in CHUNK_OVERLAPS),
        ]
        for size, share in pairs:
            settings = replace(base, max_tokens=size, overlap=share)
            chunks = self._workbench.cut(settings)
            if chunks not in seen:
                seen.add(chunks)
                yield settings, chunks

    def _measured(
        self, candidate: IndexCandidate, chunks: Sequence[Chunk], searcher: Searcher
    ) -> CandidateScore:
        """Search with a candidate, score it and report the progress."""
        hits = self._hits(candidate, searcher)
        self._done += 1
        self._on_event({"event": "tune.candidate", "done": self._done, "total": max(self._total, self._done)})
        return self._shown(candidate, len(chunks), hits, SEARCH_DEPTH)

    def _depths(self, candidate: IndexCandidate) -> Iterator[CandidateScore]:
        """Yield the scores of a candidate limited to each number of :data:`PASSAGE_COUNTS`."""
        chunks = self._workbench.cut(candidate.settings)
        searcher = self._workbench.searcher(chunks, candidate.settings, reranked=candidate.reranked)
        hits = self._hits(candidate, searcher)
        for k in PASSAGE_COUNTS:
            yield self._shown(candidate, len(chunks), hits, k)

    def _hits(self, candidate: IndexCandidate, searcher: Searcher) -> list[Sequence[Hit]]:
        """Return the hits of each question under a candidate's settings."""
        asked = [question.question for question in self._questions]
        return [
            results.hits
            for results in searcher.find(asked, [Query(k=self._depth)] * len(asked), candidate.settings)
        ]

    def _shown(
        self, candidate: IndexCandidate, chunks: int, hits: Sequence[Sequence[Hit]], k: int
    ) -> CandidateScore:
        """Fill the budget with the first ``k`` hits of each question and score what is shown."""
        shown = [
            context.passages_within_budget(question_hits[:k], self._budget, self._count)
            for question_hits in hits
        ]
        scores = tuple(
            question.score(passages) for question, passages in zip(self._questions, shown, strict=True)
        )
        tokens = [sum(self._count(f"{passage}\n") for passage in passages) for passages in shown]
        return CandidateScore(
            candidate,
            chunks,
            scores,
            float(np.mean([len(passages) for passages in shown])),
            float(np.mean(tokens)),
        )
