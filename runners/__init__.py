"""Execute a plan: obtain models, train, generate answers, measure.

``runners`` turns plain data (a plan, examples, questions) into measured results; it does not depend on the advisor, and
uses :mod:`rag` for retrieval. Public names are imported when they are first used, so that ``import runners`` stays
light. With a plan (``tunewise plan`` writes one, ``advisor.recommend`` makes one):

>>> import runners
>>> run = runners.run("plan.yaml", "runs/again", quick=True)
>>> answer = runners.load("runs/again").ask("How many berths has pier 3?", arm="rag")
>>> print(answer.arm, answer.refused, [(hit.chunk.doc, hit.chunk.line_start) for hit in answer.hits][:1])
rag False [('pier3.md', 3)]
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runners.arms.answer import Answer
    from runners.plan.schema import Plan
    from runners.runs.run import Run, load
    from runners.trial.execute import run, run_plan

__all__ = ["Answer", "Plan", "Run", "load", "run", "run_plan"]


def __getattr__(name: str) -> Any:
    """Import a public name, or the version, on first use."""
    from importlib import import_module

    modules = {
        "runners.arms.answer": ["Answer"],
        "runners.trial.execute": ["run", "run_plan"],
        "runners.runs.run": ["Run", "load"],
        "runners.plan.schema": ["Plan"],
        "rag.version": ["__version__"],
    }
    for module, names in modules.items():
        if name in names:
            return getattr(import_module(module), name)
    raise AttributeError(f"module 'runners' has no attribute {name!r}")
