"""The run that an export reads: checked against its manifest, with the selected arm and its weights."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

from rag.backends.base import shown_url
from rag.backends.consent import stored_url
from rag.errors import BadInput
from rag.files import MANIFEST, check_manifest, sha256_file
from rag.index import newest_generation
from rag.indexing.generations import CURRENT_POINTER
from rag.types import OnEvent
from runners.models import resolve
from runners.models.cards import CARD_FILE
from runners.plan.schema import Plan
from runners.plan.steps import EvaluateStep, PlanModel
from runners.run_folder import EVENTS, INDEX, PLAN, TUNED_INDEX, RunFolder
from runners.runs.opened import Opening, OpenRun
from runners.runs.plan_models import MovedModels

ADAPTER_CONFIG = "adapter_config.json"


class ExportSource:
    """An opened run and, for exports of one arm, that arm, its seed and the folder of its weights.

    Args:
        path: the run's folder.
        on_event: called with the events of long work.
        model: the folder of the base model, where it is not at the path in the plan.

    Raises:
        BadInput: the folder is no run, or the run is damaged.
    """

    def __init__(self, path: Path, on_event: OnEvent | None = None, model: MovedModels = None) -> None:
        """Open the run and check it; `select_arm` selects the arm."""
        self.session = OpenRun.open(path, Opening(on_event=on_event, model=model))
        self.session.check()
        self.run: RunFolder = self.session.folder
        self.plan: Plan = self.session.plan
        self.sealed = (path / MANIFEST).is_file()
        """Whether the run is finished; an unfinished one has no verdict."""
        self.report = self.session.report
        self.on_event = on_event or (lambda event: None)
        self.models = self.session.source
        self.arm: EvaluateStep | None = None
        self.seed: int | None = None
        self.weights: Path | None = None
        self.weights_manifest: dict[str, Any] = {}
        """The manifest of the arm's weights; empty without weights."""

    def select_arm(self, name: str | None, seed: int | None, need_weights: bool) -> None:
        """Select an arm and its weights.

        Args:
            name: the arm; None for the one that the verdict says to use.
            seed: the seed of the weights; None for the first.
            need_weights: whether an arm without weights is an error.

        Raises:
            BadInput: the plan has no such arm or seed, or the arm has no weights where they are needed.
            UsageProblem: no arm was named, and the verdict says that none can be used.
        """
        self.arm = self.session.arm(name)
        if self.arm.weights:
            self.seed = self.session.seed(self.arm, seed)
            folder = self.session.weights(self.arm, seed)
            assert folder is not None
            kind = "adapter" if (folder / ADAPTER_CONFIG).is_file() else "model"
            self.weights_manifest = check_manifest(folder, kind, (CARD_FILE,))
            self.weights = folder
        elif need_weights:
            with_weights = [step.arm for step in self.plan.arms if step.weights]
            instead = "its index, its rows or all of it: --to index, provider-jsonl or bundle"
            if self.arm.classifier:
                instead = "its labels and numbers, or all of the run: --to classifier or bundle"
            elif self.arm.nearest_reply or self.arm.route:
                instead = "all of the run: --to bundle"
            arms = f"; arms with weights: --arm {' or '.join(with_weights)}" if with_weights else ""
            raise BadInput(
                f"the arm {self.arm.arm} has no weights of its own: {self._describe(self.arm)}",
                instead + arms,
            )
        elif seed is not None:
            raise BadInput(
                f"the arm {self.arm.arm} was not trained, so it has no seed {seed}", "remove --seed"
            )

    @property
    def model(self) -> PlanModel:
        """The plan's entry of the selected arm's model; of the plan's own model where none is selected."""
        return self.plan.model_of(self.arm) if self.arm else self.plan.model

    @property
    def weights_folder(self) -> Path:
        """The folder of the weights; only for a selected arm that has some."""
        assert self.weights is not None
        return self.weights

    @property
    def is_adapter(self) -> bool:
        """Whether the weights are an adapter, rather than a whole model."""
        return (self.weights_folder / ADAPTER_CONFIG).is_file()

    @cached_property
    def base(self) -> resolve.Model:
        """The base model of the weights, downloaded if needed; `BadInput` when it is not the one they were trained on."""
        base = self.models.base(self.model)
        if self.weights is not None:
            from runners.inference.weights import check_same_base

            check_same_base(self.weights, base, "adapter" if self.is_adapter else "model")
        return base

    def digest(self, needs: str) -> list[str]:
        """Return the hashes of what an export is made from; equal hashes mean that it need not be made again.

        Args:
            needs: the target's `needs`.
        """
        run, examples = self.run.path, self.plan.data.examples
        files = [run / MANIFEST, run / PLAN]
        files += [self.weights / MANIFEST, self.weights / CARD_FILE] if self.weights else []
        files += [run / INDEX / CURRENT_POINTER, run / EVENTS] if needs != "weights" else []
        tuned = run / TUNED_INDEX / CURRENT_POINTER
        files += [tuned] if needs != "weights" and tuned.is_file() else []
        files += [examples] if needs == "rows" and examples else []
        digests = [sha256_file(file) if file.is_file() else "" for file in files]
        if needs != "weights" and (url := stored_url(run / INDEX)):
            digests.append(f"{shown_url(url)} {newest_generation(run / INDEX)}")
        return digests

    def _describe(self, arm: EvaluateStep) -> str:
        if arm.classifier:
            return "it is a linear head over embeddings or TF-IDF"
        if arm.nearest_reply:
            return "it gives the replies of the nearest examples"
        if arm.route:
            return f"it takes the answers of {arm.route.first} and {arm.route.otherwise}"
        given = [name for name, used in (("passages", arm.retrieval), ("examples", arm.shots)) if used]
        remote = resolve.parse_remote(self.plan.model_of(arm).name)
        base = f"{remote.name} at its endpoint" if remote else "the base model as it is"
        way = ", whose likeliest label is the answer" if arm.labels == "scored" else ""
        return f"it is {base}" + (f", given {' and '.join(given)}" if given else "") + way
