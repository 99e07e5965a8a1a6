"""Choose how to adapt a language model, do it, and measure it on your own questions: everything with one import.

``import tunewise`` offers what a user needs of the packages ``advisor``, ``runners`` and ``rag``. Names are imported when
they are first used, so the import itself loads no heavy library. From your files to an answer with its source:

>>> import tunewise
>>> situation = {"documents": "documents", "questions": "questions.jsonl", "must_cite": True, "model": MODEL}
>>> advice = tunewise.recommend(situation)
>>> run = tunewise.run(advice.plan("first"))
>>> report = tunewise.judge(run)
>>> print(advice.choice, report.path, sorted(arm["arm"] for arm in report.data["arms"]))
rag runs/first ['prompting', 'rag']
>>> answer = tunewise.load("runs/first").ask("How many berths has pier 3?", arm="rag")
>>> print(answer.arm, [(hit.chunk.doc, hit.chunk.line_start) for hit in answer.hits][:1])
rag [('pier3.md', 3)]

``tunewise.train`` tunes a model on examples without a plan, ``tunewise.export`` hands a result on to other tools,
``tunewise.serve`` answers over HTTP, and ``tunewise.Index`` is the search by itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tunewise import shadowing

if TYPE_CHECKING:
    from advisor.advice import Recommendation, recommend
    from advisor.calls import export, serve, train
    from advisor.report.report import Report, judge
    from rag.embedding.embedder import Embedder
    from rag.embedding.reranker import Reranker
    from rag.errors import BadInput, CannotRun, Problem, UsageProblem
    from rag.grounding.citations import cite
    from rag.index import Index
    from rag.search.filters import Condition
    from rag.search.query import Query
    from rag.types import Chunk, Citation, Document, Hit, Results
    from runners.arms.answer import Answer
    from runners.export.job import ExportResult
    from runners.plan.schema import Plan, read_plan, write_plan
    from runners.plan.train_config import TrainResult
    from runners.runs.run import Run, load
    from runners.trial.execute import run

__all__ = [
    "Answer",
    "BadInput",
    "CannotRun",
    "Chunk",
    "Citation",
    "Condition",
    "Document",
    "Embedder",
    "ExportResult",
    "Hit",
    "Index",
    "Plan",
    "Problem",
    "Query",
    "Recommendation",
    "Report",
    "Reranker",
    "Results",
    "Run",
    "TrainResult",
    "UsageProblem",
    "cite",
    "export",
    "judge",
    "load",
    "read_plan",
    "recommend",
    "run",
    "serve",
    "train",
    "write_plan",
]

shadowing.require_own_packages()


def __getattr__(name: str) -> Any:
    """Import a public name, the version, or the command line's `main` on first use."""
    from importlib import import_module

    modules = {
        "advisor.advice": ["Recommendation", "recommend"],
        "advisor.calls": ["export", "serve", "train"],
        "advisor.cli": ["main"],
        "advisor.report.report": ["Report", "judge"],
        "rag.embedding.embedder": ["Embedder"],
        "rag.embedding.reranker": ["Reranker"],
        "rag.errors": ["BadInput", "CannotRun", "Problem", "UsageProblem"],
        "rag.grounding.citations": ["cite"],
        "rag.index": ["Index"],
        "rag.search.filters": ["Condition"],
        "rag.search.query": ["Query"],
        "rag.types": ["Chunk", "Citation", "Document", "Hit", "Results"],
        "rag.version": ["__version__"],
        "runners.arms.answer": ["Answer"],
        "runners.export.job": ["ExportResult"],
        "runners.plan.schema": ["Plan", "read_plan", "write_plan"],
        "runners.plan.train_config": ["TrainResult"],
        "runners.runs.run": ["Run", "load"],
        "runners.trial.execute": ["run"],
    }
    for module, names in modules.items():
        if name in names:
            return getattr(import_module(module), name)
    raise AttributeError(f"module 'tunewise' has no attribute {name!r}")


def __dir__() -> list[str]:
    """Return the public names, which are not attributes until they are used."""
    return sorted([*globals(), *__all__, "__version__"])
