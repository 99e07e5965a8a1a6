"""The sample of a large corpus that the probe indexes: documents with answers, and others within the budget."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rag.index import Index
from rag.loading.reader import load_documents
from rag.settings import IndexSettings
from rag.types import Document
from runners.data import document_sample


def document(name: str, size: int) -> Document:
    return Document(name, name, "x" * size, (), "", "text")


def test_sample_has_gold_documents_then_others_that_fit() -> None:
    given = [document("a", 50), document("b", 40), document("c", 500), document("d", 30), document("e", 40)]
    assert document_sample.sample_documents(given, {"e"}, 130) == ("a", "b", "e")
    assert document_sample.sample_documents(given, {"c", "gone"}, 130) == ("c",)
    assert document_sample.sample_documents(given, (), 10_000) == ("a", "b", "c", "d", "e")


def test_seed_decides_document_order() -> None:
    given = [document(f"d{n}", 1) for n in range(20)]
    first = [d.id for d in document_sample.shuffled_documents(given, 1)]
    assert first == [d.id for d in document_sample.shuffled_documents(list(reversed(given)), 1)]
    assert first != [d.id for d in document_sample.shuffled_documents(given, 2)]


def test_corpus_within_budget_is_not_sampled(piers: Path, words: Any) -> None:
    documents = load_documents(piers).documents

    def never() -> set[str]:
        raise AssertionError("nobody needs to know where the answers are")

    long = document_sample.EmbeddingBudget(seconds=1e9, small_chars=0)
    for budget in (document_sample.DEFAULT_BUDGET, long):
        asked = documents, never, words, IndexSettings(), 0, budget
        assert document_sample.sample_within_budget(*asked) is None


def test_sample_reports_counts_and_text(piers: Path, words: Any) -> None:
    documents = load_documents(piers).documents
    nothing = document_sample.EmbeddingBudget(seconds=0.0, small_chars=0)
    found = document_sample.sample_within_budget(
        documents, lambda: {"pier03.md", "gone.md"}, words, IndexSettings(), 0, nothing
    )
    assert found is not None
    assert (found.documents, found.of, found.gold, found.ids) == (1, 12, 1, ("pier03.md",))
    assert found.text.startswith(
        "indexed 1 of 12 documents, with every one that answers a dev question (1): embedding"
    )
    assert "an upper bound" in found.text
    assert "ids" not in found.to_json()


def test_index_of_a_sample_is_completed_by_update(piers: Path, tmp_path: Path, words: Any) -> None:
    report = Index.build(tmp_path / "index", piers, words, only=["pier03.md", "pier07.md"])
    assert (report.indexed, report.chunks) == (2, 2)
    assert Index.update(tmp_path / "index", piers, words).added == 10
