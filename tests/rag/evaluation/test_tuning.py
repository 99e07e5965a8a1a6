"""Tuning: gold is found, candidates are compared at equal prompt tokens, the default stays unless clearly beaten."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from rag.evaluation import tuning
from rag.evaluation.labelled import LabelledQuestions, label_questions
from rag.evaluation.statistics import compare_with_many
from rag.evaluation.tuning import CandidateScore, IndexCandidate, IndexTuner, TuningOutcome
from rag.evaluation.workbench import Workbench
from rag.grounding.context import select_passages
from rag.index import Index
from rag.loading.reader import load_documents
from rag.search import query
from rag.settings import IndexSettings
from rag.stores.vector_cache import VectorCache
from rag.types import Chunk, Document, Hit
from tests.rag.conftest import TinyEncoder


@dataclass(frozen=True)
class Row:
    question: str
    answers: tuple[str, ...] = ()
    doc_id: str | None = None
    spans: tuple[tuple[int, int], ...] = ()
    answerable: bool = True
    all_of: tuple[str, ...] = ()


@pytest.fixture
def documents(tmp_path: Path) -> tuple[Document, ...]:
    """Twelve long documents of one paragraph each: 12 facts of 8 words, with the fact's number in each."""
    folder = tmp_path / "documents"
    folder.mkdir()
    for n in range(12):
        facts = [f"The n{n} harbour number m{n}x{k} costs {100 * n + k} euros today." for k in range(12)]
        (folder / f"d{n}.md").write_text(f"# Harbour {n}\n\n{' '.join(facts)}\n")
    return load_documents(folder).documents


def test_parts_are_scored_by_the_share_that_is_shown(documents: tuple[Document, ...]) -> None:
    questions = [
        Row("a", doc_id="d1.md", all_of=("106 euros", "number m1x3")),
        Row("b", all_of=("106 euros", "207 euros", "a pig")),
        Row("c", ("108 euros",), "d1.md", all_of=("106 euros",)),
    ]
    labelled = label_questions(questions, documents).questions
    assert [question.kind for question in labelled] == ["parts"] * 3
    chunk = Chunk(0, "d1.md", "", 0, "The n1 harbour number m1x6 costs 106 euros today.", 0, 49)
    passages = select_passages([Hit(chunk, 1.0, 1.0, 1.0)], sys.maxsize, len)
    assert [question.score(passages) for question in labelled] == [0.5, 0.5, 0.5]


def rows(documents: Sequence[Document]) -> list[Row]:
    """Return a question about the seventh fact of each document."""
    questions = []
    for n, document in enumerate(sorted(documents, key=lambda d: int(d.id[1:-3]))):
        fact = f"The n{n} harbour number m{n}x6 costs {100 * n + 6} euros today."
        start = document.raw.index(fact)
        questions.append(
            Row(f"what does m{n}x6 of n{n} cost", (), document.id, ((start, start + len(fact)),))
        )
    return questions


@pytest.fixture
def workbench(documents: tuple[Document, ...], tiny: TinyEncoder, tmp_path: Path) -> Iterator[Workbench]:
    with VectorCache(tmp_path, tiny.fingerprint, tiny.dimension) as cache:
        yield Workbench(documents, tiny, cache)


def test_label_questions_uses_the_strongest_gold(documents: tuple[Document, ...]) -> None:
    text = documents[0].raw
    labelled = label_questions(
        [
            Row("a", ("106 euros",), "d1.md", ((20, 30),)),
            Row("b", ("106 euros",), "d1"),
            Row("c", ("no",), "d1.md"),
            Row("d", ("106 euros",)),
            Row("e", (), "gone.md"),
            Row("f", (), "d1.md", ((20, len(text) * 2),)),
            Row("g", answerable=False),
            Row("h", ("a pig",)),
        ],
        documents,
    )
    assert [question.kind for question in labelled.questions] == ["spans", "answers", "document", "answers"]
    assert labelled.kinds == {"spans": 1, "answers": 2, "document": 1}
    assert sum(labelled.left_out.values()) == 4
    assert len(labelled.left_out) == 4
    assert [question.doc for question in labelled.questions] == ["d1.md", "d1.md", "d1.md", ""]


def test_workbench_search_equals_index_search(
    documents: tuple[Document, ...], tiny: TinyEncoder, make_tiny: type[TinyEncoder], tmp_path: Path
) -> None:
    folder, settings = tmp_path / "index", IndexSettings(max_tokens=40)
    Index.build(folder, tmp_path / "documents", tiny, settings)
    asked = [row.question for row in rows(documents)]
    with VectorCache(folder, tiny.fingerprint, tiny.dimension) as cache:
        workbench = Workbench(documents, make_tiny(), cache)
        results = workbench.searcher(workbench.cut(settings), settings).find(
            asked, [query.Query(k=9)] * 12, settings
        )
        assert workbench.embedded == 0
        other = replace(settings, max_tokens=20)
        workbench.searcher(workbench.cut(other), other)
        assert workbench.embedded > 0
    hits_of_index = Index.open(folder, tiny).search_many(asked, 9)
    assert [[h.chunk.text for h in r.hits] for r in results] == [
        [h.chunk.text for h in hits] for hits in hits_of_index
    ]
    tiny.encoded.clear()
    Index.build(folder, tmp_path / "documents", tiny, other)
    assert tiny.encoded == []


def test_tune_chooses_a_clearly_better_chunk_size(
    documents: tuple[Document, ...], workbench: Workbench, tiny: TinyEncoder
) -> None:
    questions = label_questions(rows(documents), documents).questions
    base = IndexSettings(max_tokens=50, overlap=0.0, lexical_weight=0.0)
    events: list[dict] = []
    outcome = IndexTuner(workbench, questions, 60, tiny.count_tokens, events.append).tune(base)
    assert outcome.baseline.candidate.settings == base
    assert outcome.changed
    assert outcome.chosen.mean > outcome.baseline.mean + 0.2
    assert all(score.tokens <= 60 for score in (outcome.baseline, *outcome.others))
    assert len({score.candidate for score in outcome.others}) == len(outcome.others) > 10
    assert outcome.depths_by_k[outcome.enough].mean >= outcome.chosen.mean - tuning.SUFFICIENT_GAIN
    done = [event for event in events if event["event"] == "tune.candidate"]
    assert len(done) == done[-1]["done"] == done[-1]["total"] == 1 + len(outcome.others)
    again = IndexTuner(workbench, questions, 60, tiny.count_tokens).tune(base)
    assert again == outcome


def test_tune_without_fusion_keeps_the_lexical_weight(
    documents: tuple[Document, ...], workbench: Workbench, tiny: TinyEncoder
) -> None:
    questions = label_questions(rows(documents), documents).questions
    base = IndexSettings(max_tokens=50)
    outcome = IndexTuner(workbench, questions, 60, tiny.count_tokens).tune(base, fusion=False)
    assert {score.candidate.settings.lexical_weight for score in outcome.others} == {base.lexical_weight}
    assert len(outcome.others) >= 2


class KeywordReranker:
    """A reranker that scores 1 for texts with the third word of the question."""

    truncated = 0

    def scores(self, question: str, texts: Sequence[str]) -> np.ndarray:
        wanted = question.split()[2]
        return np.array([float(wanted in text) for text in texts], dtype=np.float32)


def test_tune_tries_the_reranker_on_default_and_best(
    documents: tuple[Document, ...], tiny: TinyEncoder, tmp_path: Path
) -> None:
    questions = label_questions(rows(documents), documents).questions
    base = IndexSettings(max_tokens=20, overlap=0.0, lexical_weight=0.0)
    with VectorCache(tmp_path, tiny.fingerprint, tiny.dimension) as cache:
        workbench = Workbench(documents, tiny, cache, KeywordReranker())
        outcome = IndexTuner(workbench, questions, 40, tiny.count_tokens).tune(base, reranker=True)
    tried = [score for score in outcome.others if score.candidate.reranked]
    assert 1 <= len(tried) <= 2
    assert tried[0].candidate.settings == base
    assert tried[0].mean == 1
    assert outcome.changed


def outcome_of(base: Sequence[float], other: Sequence[float]) -> TuningOutcome:
    def measured(scores: Sequence[float]) -> CandidateScore:
        return CandidateScore(IndexCandidate(IndexSettings()), 1, tuple(scores), 1.0, 1.0)

    leads = compare_with_many("base", base, {"0": other})
    return TuningOutcome(measured(base), (measured(other),), leads, ())


def test_tune_keeps_the_default_within_noise() -> None:
    assert outcome_of([0.0] * 12 + [1.0] * 8, [1.0] * 20).changed
    assert not outcome_of([0.0, 0.0, 1.0] + [1.0] * 17, [1.0, 1.0, 0.0] + [1.0] * 17).changed
    assert not outcome_of([1.0] * 20, [0.0] * 20).changed
    assert not outcome_of([0.0] * 9, [1.0] * 9).changed
    alone = TuningOutcome(outcome_of([1.0], [1.0]).baseline, (), (), ())
    assert not alone.changed
    assert alone.chosen is alone.baseline


def test_label_questions_of_nothing() -> None:
    assert label_questions([], ()) == LabelledQuestions((), {})
