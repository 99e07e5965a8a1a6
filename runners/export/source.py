"""A run as exports read it: checked against its manifest, with the arm that is meant and its weights. Light."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

from rag.durable import MANIFEST, check_manifest, sha256_file
from rag.errors import BadInput
from rag.generations import CURRENT
from rag.types import OnEvent
from runners import models
from runners.card import CARD
from runners.plan import EvaluateStep, Plan
from runners.recorded import Recorded
from runners.rundir import EVENTS, INDEX, PLAN, RunFolder, open_run, read_report, read_run_plan

ADAPTER = "adapter_config.json"


class Source:
    """An open run and, for exports of one arm, which arm and which seed of it.

    Raises BadInput for a folder that is no run, a damaged run, an arm that the plan has not, and an arm without
    weights where weights are needed.
    """

    def __init__(self, path: Path, on_event: OnEvent | None = None, model: Path | None = None) -> None:
        """Open the run and check it; `choose` says which arm is meant, ``model`` where its base lies now."""
        self.run: RunFolder = open_run(path)
        self.run.check()
        self.plan: Plan = read_run_plan(path)
        self.sealed = (path / MANIFEST).is_file()
        """Whether the run was finished; an unfinished one has no verdict."""
        self.report = read_report(path)
        self.tell = on_event or (lambda event: None)
        self.recorded = Recorded(self.run, self.plan, model, self.tell)
        self.arm: EvaluateStep | None = None
        self.seed: int | None = None
        self.weights: Path | None = None
        self.facts: dict[str, Any] = {}
        """The manifest of the arm's weights."""

    @property
    def winner(self) -> str:
        """The arm the verdict chose; before a verdict the plan's choice."""
        return str(self.report["verdict"]["winner"]) if self.report else self.plan.choice

    def choose(self, name: str | None, seed: int | None, need_weights: bool) -> None:
        """Take the arm of this name (None: the winner) and its weights of this seed (None: its first)."""
        wanted = name or self.winner
        steps = {step.arm: step for step in self.plan.arms}
        if wanted not in steps:
            raise BadInput(f"this run has no arm {wanted!r}", f"its arms: {', '.join(steps) or 'none'}")
        self.arm = steps[wanted]
        if self.arm.weights:
            self._take_weights(self.arm, seed)
        elif need_weights:
            with_weights = [step.arm for step in self.plan.arms if step.weights]
            instead = "its index, its rows or all of it: --to index, provider-jsonl or bundle"
            arms = f"; arms with weights: --arm {' or '.join(with_weights)}" if with_weights else ""
            raise BadInput(
                f"the arm {wanted} has no weights of its own: {self._answers_with(self.arm)}", instead + arms
            )
        elif seed is not None:
            raise BadInput(f"the arm {wanted} was not trained, so it has no seed {seed}", "leave out --seed")

    @property
    def made(self) -> Path:
        """The folder of the weights; only after `choose` found some."""
        assert self.weights is not None
        return self.weights

    @property
    def is_adapter(self) -> bool:
        """Whether the weights are an adapter, and not a whole model."""
        return (self.made / ADAPTER).is_file()

    @cached_property
    def base(self) -> models.Model:
        """The base that the weights were made on, obtained if need be; BadInput when it is another one here."""
        found = self.recorded.base(self.plan.model)
        if self.weights is not None:
            from runners.attach import check_made_on

            check_made_on(self.weights, found, "adapter" if self.is_adapter else "model")
        return found

    def digest(self, of: str) -> list[str]:
        """What an export is made from, as hashes: an export of the same things need not be made again."""
        run, examples = self.run.path, self.plan.data.examples
        files = [run / MANIFEST, run / PLAN]
        files += [self.weights / MANIFEST, self.weights / CARD] if self.weights else []
        files += [run / INDEX / CURRENT, run / EVENTS] if of != "weights" else []
        files += [examples] if of == "rows" and examples else []
        return [sha256_file(file) if file.is_file() else "" for file in files]

    def _take_weights(self, arm: EvaluateStep, seed: int | None) -> None:
        assert arm.weights is not None
        seeds = self.plan.train_step(arm.weights).seeds
        self.seed = seeds[0] if seed is None else seed
        if self.seed not in seeds:
            known = ", ".join(map(str, seeds))
            raise BadInput(f"the arm {arm.arm} has no weights of seed {seed}", f"its seeds: {known}")
        folder = self.run.adapter(arm.weights, self.seed)
        if not folder.is_dir():
            raise BadInput(
                f"the run has no weights for the arm {arm.arm} ({folder.name} is missing)",
                f"finish it with: tunewise run {self.run.path} --resume",
            )
        kind = "adapter" if (folder / ADAPTER).is_file() else "model"
        self.facts, self.weights = check_manifest(folder, kind, (CARD,)), folder

    def _answers_with(self, arm: EvaluateStep) -> str:
        if arm.classifier:
            return "it is a linear head over the embedder's vectors"
        besides = [what for what, has in (("passages", arm.retrieval), ("examples", arm.shots)) if has]
        remote = models.parse_remote((arm.model or self.plan.model).name)
        base = f"{remote.name} at its endpoint" if remote else "the base model as it is"
        return f"it is {base}" + (f", given {' and '.join(besides)}" if besides else "")
