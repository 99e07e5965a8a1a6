"""What an opened run searches: its index with the refusal gate, and the tuned one (:class:`RunRetrieval`).

A plan's embedder step writes the tuned embedder and reranker, the fitted refusal threshold and the comparison on dev
questions into the folder ``retriever``, and the documents embedded with it into ``index-tuned``. Both are in the run folder,
so that a run can be moved; the plain index beside them stays as it is. :class:`TunedIndex` opens them.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag.backends.base import shown_url
from rag.backends.consent import stored_url
from rag.errors import BadInput, Problem
from rag.files import canonical_json
from rag.grounding.refusal import RefusalThreshold
from rag.refusal.drift import Drift, DriftWatch
from rag.types import OnEvent
from runners.arms.retriever import PassageFinder, Retriever
from runners.inference.servers.spending import token_price
from runners.inference.types import Generator
from runners.models import endpoint
from runners.models.encoders import load_embedder, load_reranker
from runners.plan.schema import Plan
from runners.plan.steps import EvaluateStep
from runners.run_folder import INDEX, RETRIEVER, TUNED_INDEX
from runners.runs.endpoint_consent import check_endpoint_allowed
from runners.runs.loaded_models import RunModels, with_index_settings
from runners.runs.plan_models import index_hosts, model_identity, must_stay_local

if TYPE_CHECKING:
    from rag.embedding.embedder import Embedder
    from rag.embedding.protocol import Encoder
    from rag.embedding.reranker import Reranker, Scorer
    from rag.index import Index
    from rag.indexing.build import BuildReport
    from runners.arms.long_context import AllPassages
    from runners.lookup.documents import LookupDocuments
    from runners.lookup.generator import LookupGenerator

REFUSAL_FILE = "refusal.json"
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
    """Return the arms that are not asked because the gate refused their retriever, with the reason; routers of such too."""
    tuned = [step.arm for step in plan.arms if step.retriever == "tuned"]
    tuned += [step.arm for step in plan.arms if step.route and step.route.otherwise in tuned]
    comparison = read_comparison(run) if tuned else {}
    return (
        dict.fromkeys(tuned, str(comparison["reason"])) if comparison and not comparison["accepted"] else {}
    )


def check_index_place(plan: Plan, folder: Path) -> None:
    """Raise BadInput where a run's index folder stands for another URL than the plan names."""
    url = stored_url(folder)
    if url is not None and (plan.index is None or url != plan.index.backend):
        raise BadInput(
            f"{folder} refers to an index at {shown_url(url)}, which the run's plan does not name",
            "the folder was changed; run the plan again",
        )


def check_backend_allowed(plan: Plan, run: Path) -> None:
    """Raise BadInput where documents and questions may not go to the host of the plan's index."""
    for host in index_hosts(plan):
        check_endpoint_allowed(run, host)
        endpoint.check_may_contact("the index", f"postgresql://{host}", must_stay_local(plan))


class OpenIndex:
    """An index of a run, opened when it is first searched, with its refusal threshold; shared by a server's threads."""

    def __init__(
        self, models: RunModels, index_folder: Path, refusal_file: Path, index: Index | None = None
    ) -> None:
        """Take the run's models, the folder of the index and its threshold, and the index if it is open already."""
        self.models, self.plan, self.run = models, models.plan, models.run.path
        self.index_folder = index_folder
        self.refusal_file = refusal_file
        self.retry_seconds = 30.0
        """How long a generation that could not be opened is not tried again."""
        self._index = index
        self._retriever: Retriever | None = None
        self._failed: tuple[int, float, str] = (0, 0.0, "")
        """The generation that could not be opened, the time of the attempt, and the error."""
        self._lock = threading.RLock()

    def encoder(self) -> Encoder:
        """Return the embedder of the index; BadInput where its folder or host is not that of the plan."""
        check_backend_allowed(self.plan, self.run)
        check_index_place(self.plan, self.index_folder)
        return self.models.embedder

    def scorer(self) -> Scorer | None:
        """Return the cross-encoder that orders what is shown; None without one."""
        return self.models.reranker

    @property
    def index(self) -> Index:
        """The open generation, verified against its manifest."""
        with self._lock:
            if self._index is None:
                self._index = self._open()
            return self._index

    @property
    def retriever(self) -> Retriever:
        """The retriever of the open generation, with the refusal threshold that was fitted on the run's dev questions."""
        with self._lock:  # models that look things up search on several threads
            index, models = self.index, self.models
            if self._retriever is None or self._retriever.index is not index:
                assert self.plan.index is not None
                scorer = self.scorer()
                threshold = RefusalThreshold.from_json(json.loads(self.refusal_file.read_text("utf-8")))
                self._retriever = Retriever(
                    index,
                    self.plan.index,
                    threshold,
                    models.token_counter(models.base),
                    models.all_control_tokens(),
                    scorer,
                    models.answer_reader.required(threshold.reader) if threshold.read else None,
                )
            return self._retriever

    @property
    def drift(self) -> DriftWatch | None:
        """What compares the questions with those that refusals were fitted on; None before the first question."""
        return self._retriever.drift if self._retriever else None

    def refresh(self) -> bool:
        """Open the newest generation where another one is open; return whether it changed.

        Raises:
            Problem, OSError: it cannot be opened. The open one stays in use, and the newest is tried again after
                :attr:`retry_seconds`; until then the same error is raised.
        """
        with self._lock:
            opened = self._index
            if opened is None or (newest := opened.backend.current_generation()) == opened.generation:
                return False
            failed, failed_at, reason = self._failed
            if newest == failed and reason and time.monotonic() < failed_at + self.retry_seconds:
                raise BadInput(reason)
            try:
                self._index = self._open()
            except (Problem, OSError) as problem:
                self._failed = newest, time.monotonic(), str(problem)
                raise
            return True

    def update(self, documents: Path, on_event: OnEvent | None = None) -> BuildReport:
        """Update the index to the documents; later searches use the new generation."""
        from rag.index import Index

        report = Index.update(self.index_folder, documents, self.encoder(), on_event)
        self.close()
        return report

    def close(self) -> None:
        """Forget what is open: the newest generation and the threshold are read at the next search."""
        with self._lock:
            self._index = self._retriever = None

    def _open(self) -> Index:
        from rag.index import Index

        return Index.open(self.index_folder, self.encoder())


class TunedIndex(OpenIndex):
    """The index of a run's tuned embedder, with that and the tuned reranker."""

    def __init__(self, models: RunModels, index_folder: Path) -> None:
        """Take the run's models, and the folder of the index."""
        self.folder = models.run.path / RETRIEVER
        self.embedder_folder = self.folder / EMBEDDER_FOLDER
        self.reranker_folder = self.folder / "reranker"
        """The folder of the tuned reranker; there is none where the plan tunes none."""
        super().__init__(models, index_folder, self.folder / TUNED_REFUSAL)
        self._embedder: Embedder | None = None
        self._reranker: Reranker | None = None

    def require(self, arm: EvaluateStep) -> None:
        """Raise BadInput where the run has no tuned retriever for an arm yet."""
        comparison = read_comparison(self.run)
        if comparison and not comparison.get("trained", True):
            raise BadInput(
                f"the arm {arm.arm} cannot be asked: {comparison['reason']}", "ask another arm: --arm rag"
            )
        if not (self.embedder_folder.is_dir() and self.refusal_file.is_file()):
            raise BadInput(
                f"the arm {arm.arm} searches with a tuned retriever, which the run has not made yet",
                f"finish it with: tunewise run {self.run} --resume",
            )

    @property
    def embedder(self) -> Embedder:
        """The tuned embedder, with the prompts and dimensions of the plan's index step."""
        if self._embedder is None:
            name = f"{Path(self.plan.embedder.name).name} (tuned)"
            self._embedder = with_index_settings(load_embedder(self.embedder_folder, name), self.plan)
        return self._embedder

    def encoder(self) -> Encoder:
        """Return the tuned embedder."""
        return self.embedder

    def scorer(self) -> Scorer | None:
        """Return the tuned reranker; the plan's where none is tuned."""
        step = self.plan.embedder_step
        if self._reranker is None and step and step.reranker:
            self._reranker = load_reranker(self.reranker_folder, f"{Path(step.reranker.name).name} (tuned)")
        return self._reranker or super().scorer()

    def close(self) -> None:
        """Forget what is open, the weights in the folder too."""
        super().close()
        self._embedder = self._reranker = None


class RunRetrieval:
    """The indexes of one run, opened when first used; later searches use what is opened."""

    def __init__(
        self,
        models: RunModels,
        folder: Path | None = None,
        index: Index | None = None,
        documents: Path | None = None,
    ) -> None:
        """Take the run's models, the folder of the indexes (the run's by default), and the plain one if it is open.

        ``documents`` are those that models look things up in; those of the plan by default.
        """
        run = models.run.path
        self.plain = OpenIndex(models, (folder or run) / INDEX, run / REFUSAL_FILE, index)
        self.tuned = TunedIndex(models, (folder or run) / TUNED_INDEX)
        self._models = models
        self._documents = documents or models.plan.data.documents
        self._lookup_documents: LookupDocuments | None = None
        self._all_passages: dict[str, tuple[Index, date, AllPassages]] = {}
        """By the name of the model that reads them: all passages of an index that are valid on a day."""
        self._drift_noted = False

    @property
    def index(self) -> Index:
        """The plain index."""
        return self.plain.index

    @property
    def retriever(self) -> Retriever:
        """The retriever of the plain index."""
        return self.plain.retriever

    def of(self, arm: EvaluateStep | None) -> OpenIndex:
        """Return the index that an arm searches, the plain one for None; BadInput for a tuned one that is not made yet."""
        if arm is None or arm.retriever == "plan":
            return self.plain
        self.tuned.require(arm)
        return self.tuned

    def finder(self, arm: EvaluateStep) -> PassageFinder | None:
        """Return what provides an arm's passages: a retriever, or all passages; None for an arm without.

        An arm that looks things up itself has none that could be given to it before it answers.
        """
        if not arm.retrieval:
            return None
        if arm.passages == "found":
            return self.of(arm).retriever
        if arm.looks_up:
            return None
        from runners.arms.long_context import AllPassages

        base, index, today = self._models.base_of(arm), self.index, date.today()
        known = self._all_passages.get(base.name)
        if known is None or known[0] is not index or known[1] != today:
            known = index, today, AllPassages(index, self._models.control_tokens(base))
            self._all_passages[base.name] = known
        return known[2]

    @property
    def lookup_documents(self) -> LookupDocuments:
        """The documents that models look things up in, read from where they are now."""
        if self._lookup_documents is None:
            from runners.lookup.documents import LookupDocuments

            assert self._documents is not None
            self._lookup_documents = LookupDocuments(self._documents)
        return self._lookup_documents

    def looking_up(
        self, arm: EvaluateStep, model: Generator, journals: Sequence[Path] = ()
    ) -> LookupGenerator:
        """Return an arm's model with the tools to look things up in the documents and, where there is one, the plain index.

        Args:
            arm: the arm.
            model: its model.
            journals: the file of its requests, and others whose replies may be taken; none keeps nothing.

        Raises:
            BadInput: the model's chat template takes no tools.
        """
        from runners.lookup.generator import LookupGenerator, LookupSetting, tool_model_of
        from runners.lookup.journal import LookupJournal

        models, plan = self._models, self._models.plan
        base, settings, server = models.base_of(arm), plan.model_of(arm), plan.servers.model_of(arm)
        asked = [model_identity(base), server.entry if server else "", settings.quantization, plan.kernels]
        asked += [str(plan.seed), plan.thinking.model_dump_json()]
        setting = LookupSetting(
            documents=self.lookup_documents,
            limits=arm.lookups,
            prompts=plan.prompts,
            model=canonical_json(asked),
            name=base.name,
            price=token_price(settings),
            search=(lambda: self.retriever) if plan.index else None,
        )
        journal = LookupJournal(journals[0], journals[1:]) if journals else None
        tool_model = tool_model_of(model, base.name, models.generates_here(arm))
        return LookupGenerator(tool_model, setting, journal, models.note)

    def refresh(self) -> bool:
        """Open the newest generation of each index, as :meth:`OpenIndex.refresh` does; return whether one changed."""
        tuned_changed = self.tuned.refresh()
        return self.plain.refresh() or tuned_changed

    def update(self, documents: Path, on_event: OnEvent | None = None) -> BuildReport:
        """Update both indexes to the documents; later searches use the new generations."""
        report = self.plain.update(documents, on_event)
        self.update_tuned(documents, on_event)
        return report

    def update_tuned(self, documents: Path, on_event: OnEvent | None = None) -> None:
        """Update the tuned index, where there is one."""
        if self.tuned.index_folder.is_dir():
            self.tuned.update(documents, on_event)

    @property
    def drift(self) -> Drift | None:
        """How the questions asked so far differ from those that refusals were fitted on; None if there are few."""
        return next((drift for watch in self._watches() if (drift := watch.compare())), None)

    def drift_note(self) -> str:
        """Return the line that says that these questions differ surely, once; "" otherwise."""
        if self._drift_noted:
            return ""
        text = next((line for watch in self._watches() if (line := watch.note())), "")
        self._drift_noted = bool(text)
        return text

    def _watches(self) -> list[DriftWatch]:
        return [watch for watch in (self.plain.drift, self.tuned.drift) if watch]
