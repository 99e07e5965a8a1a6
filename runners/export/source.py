"""A run as exports read it: checked against its manifest, with the chosen arm and its weights. Light."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

from rag.errors import BadInput
from rag.files import MANIFEST, check_manifest, sha256_file
from rag.indexing.generations import CURRENT_POINTER
from rag.types import OnEvent
from runners.models import resolve
from runners.models.cards import CARD_FILE
from runners.plan.schema import Plan
from runners.plan.steps import EvaluateStep
from runners.run_folder import EVENTS, INDEX, PLAN, RunFolder
from runners.runs.run import RunSession

ADAPTER_CONFIG = "adapter_config.json"


class ExportSource:
    """An opened run and, for exports of one arm, that arm, the seed and the folder of its weights.

    Raises BadInput for a folder that is no run, a damaged run, an arm that the plan has not, and an arm without
    weights where weights are needed.
    """

    def __init__(self, path: Path, on_event: OnEvent | None = None, model: Path | None = None) -> None:
        """Open the run and check it; `choose` sets the arm, ``model`` is where its base is now."""
        self.session = RunSession.open(path, on_event, model)
        self.session.check()
        self.run: RunFolder = self.session.folder
        self.plan: Plan = self.session.plan
        self.sealed = (path / MANIFEST).is_file()
        """Whether the run was finished; an unfinished one has no verdict."""
        self.report = self.session.report
        self.tell = on_event or (lambda event: None)
        self.recorded = self.session.recorded
        self.arm: EvaluateStep | None = None
        self.seed: int | None = None
        self.weights: Path | None = None
        self.facts: dict[str, Any] = {}
        """The manifest of the arm's weights."""

    def choose(self, name: str | None, seed: int | None, need_weights: bool) -> None:
        """Take the arm of this name (None: the winner) and its weights of this seed (None: its first)."""
        self.arm = self.session.arm(name)
        if self.arm.weights:
            self.seed = self.session.seed(self.arm, seed)
            folder = self.session.weights(self.arm, seed)
            assert folder is not None
            kind = "adapter" if (folder / ADAPTER_CONFIG).is_file() else "model"
            self.facts, self.weights = check_manifest(folder, kind, (CARD_FILE,)), folder
        elif need_weights:
            with_weights = [step.arm for step in self.plan.arms if step.weights]
            instead = "its index, its rows or all of it: --to index, provider-jsonl or bundle"
            arms = f"; arms with weights: --arm {' or '.join(with_weights)}" if with_weights else ""
            raise BadInput(
                f"the arm {self.arm.arm} has no weights of its own: {self._answers_with(self.arm)}",
                instead + arms,
            )
        elif seed is not None:
            raise BadInput(
                f"the arm {self.arm.arm} was not trained, so it has no seed {seed}", "leave out --seed"
            )

    @property
    def made(self) -> Path:
        """The folder of the weights; only after `choose` found some."""
        assert self.weights is not None
        return self.weights

    @property
    def is_adapter(self) -> bool:
        """Whether the weights are an adapter, and not a whole model."""
        return (self.made / ADAPTER_CONFIG).is_file()

    @cached_property
    def base(self) -> resolve.Model:
        """The base that the weights were made on, obtained if need be; BadInput when it is another one here."""
        found = self.recorded.base(self.plan.model)
        if self.weights is not None:
            from runners.inference.weights import check_same_base

            check_same_base(self.weights, found, "adapter" if self.is_adapter else "model")
        return found

    def digest(self, of: str) -> list[str]:
        """What an export is made from, as hashes: an export of the same things need not be made again."""
        run, examples = self.run.path, self.plan.data.examples
        files = [run / MANIFEST, run / PLAN]
        files += [self.weights / MANIFEST, self.weights / CARD_FILE] if self.weights else []
        files += [run / INDEX / CURRENT_POINTER, run / EVENTS] if of != "weights" else []
        files += [examples] if of == "rows" and examples else []
        return [sha256_file(file) if file.is_file() else "" for file in files]

    def _answers_with(self, arm: EvaluateStep) -> str:
        if arm.classifier:
            return "it is a linear head over the embedder's vectors"
        besides = [what for what, has in (("passages", arm.retrieval), ("examples", arm.shots)) if has]
        remote = resolve.parse_remote((arm.model or self.plan.model).name)
        base = f"{remote.name} at its endpoint" if remote else "the base model as it is"
        return f"it is {base}" + (f", given {' and '.join(besides)}" if besides else "")
