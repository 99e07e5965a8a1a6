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

import os
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

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

_PACKAGES = ("rag", "runners", "advisor")
"""The packages that tunewise consists of, lowest first. They are beside this module in a wheel, an sdist and a checkout."""


def _require_own_packages() -> None:
    """Import the three packages, or raise ImportError when another module of that name comes first.

    Their ``__init__`` files import nothing, and once imported they stay: what is put on the search path later cannot hide
    them. Places are compared after symbolic links are followed, so that a checkout, a wheel in site-packages, an archive on
    the search path and a linked folder are all recognised. For ``python -m tunewise`` the working directory, which Python
    puts first, is left out, because the installed command does not look there either.
    """
    if __name__ == "__main__":
        _leave_out_working_directory()
    for name in _PACKAGES:
        place = _imported_from(name)
        if place is None:
            raise ImportError(
                f"tunewise is not whole: its package {name!r} is not in {Path(__file__).parent}; install it again",
                name=name,
            )
        if not any(_same_place(place, folder / name) for folder in _own_folders()):
            raise ImportError(_hidden_message(name, place), name=name, path=str(place))
        import_module(name)


def _imported_from(name: str) -> Path | None:
    """Return the folder, or the file of a module, that ``import name`` uses here; None when there is none.

    A module that was imported before counts, however it came into ``sys.modules``.
    """
    module = sys.modules.get(name)
    if module is not None:
        folders = list(getattr(module, "__path__", []))
        file = getattr(module, "__file__", None)
        return Path(folders[0]) if folders else Path(file or f"<{name} in sys.modules>")
    spec = find_spec(name)
    if spec is None:
        return None
    if spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations)))
    return Path(spec.origin or f"<{name}>")


def _leave_out_working_directory() -> None:
    """Take the working directory off the search path, unless it is a checkout of tunewise."""
    working = Path.cwd()
    if sys.path and _same_place(Path(sys.path[0] or "."), working) and working not in _own_folders():
        del sys.path[0]


def _own_folders() -> tuple[Path, ...]:
    """Return the folders in which the packages may be: beside this module, as it is named and with links followed."""
    return Path(__file__).parent, Path(os.path.realpath(__file__)).parent


def _same_place(one: Path, other: Path) -> bool:
    """Return whether two paths are the same; also where they are inside an archive, so that neither is a file."""
    return os.path.normcase(os.path.realpath(one)) == os.path.normcase(os.path.realpath(other))


def _hidden_message(name: str, place: Path) -> str:
    return (
        f"another {name!r} hides the package of tunewise of that name\n"
        f"  found first: {place}\n"
        f"  tunewise's:  {_own_folders()[0] / name}\n"
        "Rename yours, or take its folder off the search path: python -P leaves out the script's folder, and PYTHONPATH may "
        "name another."
    )


def __getattr__(name: str) -> Any:
    """Import a public name, the version, or the command line's `main` on first use."""
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
    return sorted([*__all__, "__version__"])


_require_own_packages()

if __name__ == "__main__":
    from advisor.cli import main

    main()
