"""Compare two retrievers on the same questions, at equal prompt tokens, and decide whether the second is surely better.

:func:`compare_retrievers` measures two things of each question: nDCG@10 of its gold document, and the evidence, how much of
the gold the passages show that fit into a prompt. Both retrievers fill the same number of tokens, so that neither gains by
showing longer passages. :func:`decide` is the gate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rag.evaluation import metrics
from rag.evaluation.labelled import LabelledQuestion, LabelledQuestions
from rag.evaluation.statistics import PairedDifference, bootstrap_interval, paired_test
from rag.grounding.context import passages_within_budget
from rag.text.words import count_noun
from rag.types import Hit

NDCG_K = 10
COMPARED_DEPTH = 50
"""Hits of each question: ranks beyond them count as not found, and more passages never fit into a prompt."""
MIN_GATE_QUESTIONS = 10
"""With fewer questions with gold nothing is decided."""
MIN_DIFFERENCES = 6
"""Differences of one sign that the sign-flip test needs for p of at most .05: 2 / 2^6 = .03, while 2 / 2^5 = .06."""
MAX_P = 0.05
Search = Callable[[Sequence[str]], list[list[Hit]]]
"""From questions to the hits of each, best first, at least :data:`COMPARED_DEPTH` where the index has them."""


@dataclass(frozen=True, slots=True)
class MeasureComparison:
    """One measure of two retrievers on the same questions, means with 95 % intervals."""

    name: str
    """ndcg or evidence."""
    before: float
    after: float
    difference: PairedDifference
    """After minus before."""

    @property
    def surely_better(self) -> bool:
        """Whether the interval of the difference is above 0, and so small a chance of it without any."""
        return self.difference.low > 0 and self.difference.p <= MAX_P

    def to_json(self) -> dict[str, Any]:
        """Return the measure as a JSON object."""
        d = self.difference
        values = {"before": self.before, "after": self.after, "difference": d.difference}
        values |= {"low": d.low, "high": d.high, "p": d.p}
        return {**{key: round(value, 4) for key, value in values.items()}, "n": d.questions, "units": d.units}

    @property
    def text(self) -> str:
        """The measure in words, such as ``nDCG@10 0.81 to 0.87 (+0.06, 95 % 0.03 to 0.09)``."""
        d = self.difference
        label = f"nDCG@{NDCG_K}" if self.name == "ndcg" else "evidence"
        return f"{label} {self.before:.3f} to {self.after:.3f} ({d.difference:+.3f}, 95 % {d.low:+.3f} to {d.high:+.3f})"


@dataclass(frozen=True, slots=True)
class RetrieverComparison:
    """Two retrievers on the same questions."""

    questions: int
    """Questions with gold in the index."""
    left_out: Mapping[str, int]
    """Questions without, by reason."""
    budget: int
    """Tokens of passages in the prompts of both."""
    measures: tuple[MeasureComparison, ...]
    """evidence, and ndcg where gold documents are known."""

    def to_json(self) -> dict[str, Any]:
        """Return the comparison as a JSON object."""
        body = {key: value for key, value in asdict(self).items() if key != "measures"}
        return {**body, **{measure.name: measure.to_json() for measure in self.measures}}


@dataclass(frozen=True, slots=True)
class RetrieverDecision:
    """Whether the trained retriever is used, and why."""

    accepted: bool
    reason: str


def token_budget(
    search: Search, questions: Sequence[str], k: int, most: int, count: Callable[[str], int]
) -> int:
    """Return the tokens that k passages of a retriever take in a prompt, their mean over questions, at most ``most``."""
    sizes = []
    for hits in search(questions):
        shown = passages_within_budget(hits[:k], most, count)
        sizes.append(sum(count(str(passage)) for passage in shown))
    return min(most, round(sum(sizes) / len(sizes))) if sizes else most


def compare_retrievers(
    before: Search,
    after: Search,
    labelled: LabelledQuestions,
    budget: int,
    count: Callable[[str], int],
    seed: int = 0,
) -> RetrieverComparison:
    """Measure two retrievers on the same questions.

    Args:
        before: the search as it is.
        after: the search with what was trained.
        labelled: the questions with their gold.
        budget: tokens of passages in a prompt, the same for both.
        count: counts tokens as the answering model does.
        seed: of the bootstrap.
    """
    questions = labelled.questions
    asked = [question.question for question in questions]
    scores = [_scores(search(asked) if asked else [], questions, budget, count) for search in (before, after)]
    documents = [question.doc for question in questions]
    measures = [_measure("evidence", scores[0][0], scores[1][0], documents, seed)]
    ranked = [n for n, question in enumerate(questions) if question.doc]
    if ranked:
        before_ndcg, after_ndcg = ([values[n] for n in ranked] for _, values in scores)
        measures.append(_measure("ndcg", before_ndcg, after_ndcg, [documents[n] for n in ranked], seed))
    return RetrieverComparison(len(questions), labelled.left_out, budget, tuple(measures))


def nothing_to_gain(
    search: Search, labelled: LabelledQuestions, budget: int, count: Callable[[str], int]
) -> str:
    """Return why no retriever could be surely better than this one on these questions; "" where one could.

    There are too few questions with gold, or it finds the gold of nearly all at the top and shows all of it: then too few
    differences are possible for a p of at most .05, and training can be left out.
    """
    questions = labelled.questions
    if len(questions) < MIN_GATE_QUESTIONS:
        return _too_few(len(questions))
    hits = search([question.question for question in questions])
    evidence, ndcg = _scores(hits, questions, budget, count)
    open_evidence = sum(score < 1 for score in evidence)
    open_ranks = sum(score < 1 for score, question in zip(ndcg, questions, strict=True) if question.doc)
    if max(open_evidence, open_ranks) >= MIN_DIFFERENCES:
        return ""
    return (
        f"the present search finds all gold passages of {len(questions) - open_evidence} of {len(questions)} dev "
        f"questions, and misses the first rank for {open_ranks}, so no other search could be clearly better"
    )


def _too_few(count: int) -> str:
    return f"{count} dev questions have gold in the index, and under {MIN_GATE_QUESTIONS} decide nothing"


def decide(comparison: RetrieverComparison) -> RetrieverDecision:
    """Return whether a trained retriever is surely better: the gate.

    One of the two measures must be surely better (the low end of its paired 95 % interval, clustered by document, above 0,
    and p of the sign-flip test at most .05) and the other must not be worse on average. Two chances of 2.5 % each let a
    retriever through that is no better, at most one in twenty.
    """
    if comparison.questions < MIN_GATE_QUESTIONS:
        return RetrieverDecision(False, _too_few(comparison.questions))
    texts = "; ".join(measure.text for measure in comparison.measures)
    where = f"on {count_noun(comparison.questions, 'dev question')} at {comparison.budget} tokens of passages"
    better = [measure.name for measure in comparison.measures if measure.surely_better]
    worse = [measure.name for measure in comparison.measures if measure.difference.difference < 0]
    if better and not worse:
        return RetrieverDecision(True, f"clearly better {where}: {texts}")
    if better:
        return RetrieverDecision(False, f"better in one measure and worse in the other {where}: {texts}")
    return RetrieverDecision(False, f"not clearly better {where}: {texts}")


def _scores(
    hits_of_each: Sequence[Sequence[Hit]],
    questions: Sequence[LabelledQuestion],
    budget: int,
    count: Callable[[str], int],
) -> tuple[list[float], list[float]]:
    """Return evidence and nDCG of each question, 0 where it has no gold document."""
    evidence, ndcg = [], []
    for question, hits in zip(questions, hits_of_each, strict=True):
        evidence.append(question.score(passages_within_budget(hits[:COMPARED_DEPTH], budget, count)))
        ranked = list(dict.fromkeys(hit.chunk.doc for hit in hits[:COMPARED_DEPTH]))
        ndcg.append(metrics.ndcg_at_k(ranked, {question.doc}, NDCG_K) if question.doc else 0.0)
    return evidence, ndcg


def _measure(
    name: str, before: Sequence[float], after: Sequence[float], documents: Sequence[str], seed: int
) -> MeasureComparison:
    difference = paired_test("after", "before", after, before, seed, documents)
    means = [bootstrap_interval(values, seed).mean for values in (before, after)]
    return MeasureComparison(name, means[0], means[1], difference)
