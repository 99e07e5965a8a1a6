"""Retrieval: documents in, cited passages out.

``rag`` loads documents, cuts them into chunks that fit the embedder, stores them in a crash-safe index, searches it by
dense vectors and by words, and attaches citations to answers. It depends on neither training nor advice and can be used
alone. Public names are imported when they are first used, so that ``import rag`` is fast. With a folder of documents
and one of an embedder (config, tokenizer, safetensors):

>>> import rag
>>> embedder = rag.Embedder(EMBEDDER_FOLDER)
>>> report = rag.Index.build("index", "documents", embedder)
>>> print(report.found, report.indexed, report.skipped)
2 2 ()
>>> index = rag.Index.open("index", embedder)
>>> results = index.find("What does a dog cost?", rag.Query(k=1, where=(rag.Condition.parse("tags=ferry"),)))
>>> for hit in results.hits:
...     print(hit.chunk.doc, hit.chunk.line_start, hit.date, hit.chunk.text)
fares.md 8 2026-05-01 Dogs travel on deck for 3 euros.
>>> for citation in rag.cite("Your dog travels on deck for 3 euros.", results.hits):
...     print(citation.doc, citation.line_start, citation.supported, citation.quote)
fares.md 8 True Dogs travel on deck for 3 euros.
>>> scores = rag.evaluate(index, [{"question": "Where do dogs travel?", "doc_id": "fares.md"}])
>>> print(scores.questions, scores.hit.mean, scores.mrr.mean)
1 1.0 1.0
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rag.embedding.embedder import Embedder
    from rag.embedding.reranker import Reranker
    from rag.evaluation.retrieval import RetrievalScores, evaluate
    from rag.grounding.citations import cite
    from rag.index import Index
    from rag.indexing.build import BuildReport
    from rag.search.filters import Condition
    from rag.search.query import Query
    from rag.settings import IndexSettings
    from rag.types import Chunk, Citation, Document, Hit, Results

__all__ = [
    "BuildReport",
    "Chunk",
    "Citation",
    "Condition",
    "Document",
    "Embedder",
    "Hit",
    "Index",
    "IndexSettings",
    "Query",
    "Reranker",
    "Results",
    "RetrievalScores",
    "cite",
    "evaluate",
]


def __getattr__(name: str) -> Any:
    """Import a public name, or the version, on first use."""
    from importlib import import_module

    modules = {
        "embedding.embedder": ["Embedder"],
        "evaluation.retrieval": ["RetrievalScores", "evaluate"],
        "grounding.citations": ["cite"],
        "search.filters": ["Condition"],
        "index": ["Index"],
        "search.query": ["Query"],
        "indexing.build": ["BuildReport"],
        "embedding.reranker": ["Reranker"],
        "settings": ["IndexSettings"],
        "types": ["Chunk", "Citation", "Document", "Hit", "Results"],
        "version": ["__version__"],
    }
    for module, names in modules.items():
        if name in names:
            return getattr(import_module(f"rag.{module}"), name)
    raise AttributeError(f"module 'rag' has no attribute {name!r}")
