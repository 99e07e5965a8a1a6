"""The tuned retriever of a run: its folder, its own index, and whether its gate accepted it.

A plan's embedder step writes the tuned embedder and reranker, the fitted refusal threshold and the comparison on dev
questions into the folder ``retriever``, and the documents embedded with it into ``index-tuned``. Both are in the run folder,
so that a run can be moved; the plain index beside them stays as it is. :class:`TunedRetrieval` opens them.
"""

from __future__ import annotations

import json
import threading
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag.errors import BadInput
from runners.models import digests
from runners.plan.schema import Plan
from runners.plan.steps import EvaluateStep
from runners.resources.device import torch_device
from runners.run_folder import RETRIEVER, TUNED_INDEX, RunFolder

if TYPE_CHECKING:
    from rag.embedding.embedder import Embedder
    from rag.embedding.reranker import Reranker
    from rag.index import Index

EMBEDDER_FOLDER = "embedder"
COMPARISON = "comparison.json"
"""In the folder of the tuned retriever: the gate on dev questions, and after the trial the same on test questions."""
TRAINING = "training.json"
"""In the same folder: what the parts there were made from, and what their trainings reported."""
TUNED_REFUSAL = "refusal.json"


def read_comparison(run: Path) -> dict[str, Any]:
    """Return what the gate of a run's tuned retriever measured and decided; {} before it did, BadInput when damaged."""
    file = run / RETRIEVER / COMPARISON
    if not file.is_file():
        return {}
    try:
        body = dict(json.loads(file.read_text("utf-8")))
        bool(body["accepted"]), str(body["reason"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(
            f"{file} is damaged: {error!r}", f"measure it again: tunewise run {run} --resume --only embedder"
        ) from None
    return body


def refused_arms(run: Path, plan: Plan) -> dict[str, str]:
    """Return the arms that are not asked because the gate refused their retriever, with the reason."""
    tuned = [step.arm for step in plan.arms if step.retriever == "tuned"]
    comparison = read_comparison(run) if tuned else {}
    return (
        dict.fromkeys(tuned, str(comparison["reason"])) if comparison and not comparison["accepted"] else {}
    )


class TunedRetrieval:
    """The tuned embedder and reranker of a run with their index, loaded when first used."""

    def __init__(self, run: RunFolder, plan: Plan) -> None:
        """Take a run and its plan."""
        self.folder = run.path / RETRIEVER
        self.index_folder = run.path / TUNED_INDEX
        self._run = run
        self._plan = plan
        self._lock = threading.RLock()  # shared by the threads of a server

    @property
    def embedder_folder(self) -> Path:
        """The folder of the tuned embedder."""
        return self.folder / EMBEDDER_FOLDER

    @property
    def reranker_folder(self) -> Path:
        """The folder of the tuned reranker; there is none where the plan tunes none."""
        return self.folder / "reranker"

    def require(self, arm: EvaluateStep | None = None) -> None:
        """Raise BadInput where the run has no tuned retriever yet."""
        comparison = read_comparison(self._run.path)
        if comparison and not comparison.get("trained", True):
            name = f"the arm {arm.arm}" if arm else "the tuned retriever"
            raise BadInput(f"{name} cannot be asked: {comparison['reason']}", "ask another arm: --arm rag")
        if not (self.embedder_folder.is_dir() and (self.folder / TUNED_REFUSAL).is_file()):
            what = (
                f"the arm {arm.arm} searches with a tuned retriever, which" if arm else "the tuned retriever"
            )
            raise BadInput(
                f"{what} the run has not made yet" if arm else f"{what} is not in the run yet",
                f"finish it with: tunewise run {self._run.path} --resume",
            )

    @cached_property
    def embedder(self) -> Embedder:
        """The tuned embedder, with the prompts and dimensions of the plan's index step."""
        from rag.embedding.embedder import Embedder

        name = f"{Path(self._plan.embedder.name).name} (tuned)"
        embedder = Embedder(
            self.embedder_folder, name=name, device=torch_device().type, digest=digests.file_sha256
        )
        if step := self._plan.index:
            embedder = embedder.configured(step.truncate_dim, step.query_prompt, step.document_prompt)
        return embedder

    @cached_property
    def reranker(self) -> Reranker | None:
        """The tuned reranker; None where the plan tunes none."""
        from rag.embedding.reranker import Reranker

        step = self._plan.embedder_step
        if step is None or step.reranker is None:
            return None
        name = f"{Path(step.reranker.name).name} (tuned)"
        return Reranker(self.reranker_folder, name, device=torch_device().type, digest=digests.file_sha256)

    @property
    def index(self) -> Index:
        """The index of the documents embedded with the tuned embedder, verified against its manifest."""
        from rag.index import Index

        with self._lock:
            opened: Index | None = self.__dict__.get("_index")
            if opened is None:
                opened = self.__dict__["_index"] = Index.open(self.index_folder, self.embedder)
            return opened

    def close_index(self) -> None:
        """Forget the open index: the next search opens the newest generation."""
        with self._lock:
            self.__dict__.pop("_index", None)

    def refresh(self) -> bool:
        """Open the newest generation where another one is open; return whether it changed."""
        with self._lock:
            opened: Index | None = self.__dict__.get("_index")
            if opened is None or opened.backend.current_generation() == opened.generation:
                return False
            self.close_index()
            _ = self.index
            return True
