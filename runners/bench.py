"""What the steps of one run share: the plan, models, data, and whatever is loaded right now."""

from __future__ import annotations

import gc
import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag.errors import BadInput
from runners import models
from runners.data import Example
from runners.plan import Plan, PlanModel
from runners.retrieval import Retriever, token_counter
from runners.rundir import INDEX, OnEvent, RunFolder
from runners.split import Split

if TYPE_CHECKING:
    from rag.embed import Embedder
    from rag.index import Index
    from runners.generate import LocalGenerator

REFUSAL = "refusal.json"


def obtain(wanted: PlanModel, kind: str, on_event: OnEvent = None) -> models.Model:
    """The model a plan names: of the kind its place needs, and of the plan's fingerprint when it has one."""
    model = models.resolve(wanted.name, wanted.allow_hub, on_event, recorded=wanted.fingerprint or "")
    if model.kind != kind:
        place = "model" if kind == "base" else "embedder"
        raise BadInput(
            f"the plan's {place} {wanted.name!r} is not of the kind it must be: {model.kind}, not {kind}",
            "see: tunewise models list",
        )
    return model


@dataclass
class Bench:
    """One run at work; heavy parts are loaded when first used, and only one generator is held at a time."""

    plan: Plan
    run: RunFolder
    base: models.Model
    embedder_model: models.Model | None = None
    examples: tuple[Example, ...] = ()
    split: Split = field(default_factory=lambda: Split((), ()))
    on_event: OnEvent = None
    _generator: LocalGenerator | None = None
    _generator_of: Path | None = None

    def tell(self, event: dict[str, Any]) -> None:
        """Log an event and pass it on to whoever watches."""
        self.run.write(event)
        if self.on_event:
            self.on_event(event)

    def generator(self, weights: Path | None) -> LocalGenerator:
        """The generator with these weights (None: the base model)."""
        from runners.generate import LocalGenerator

        if self._generator is None or self._generator_of != weights:
            self.release()
            self._generator, self._generator_of = LocalGenerator(self.base, weights), weights
        return self._generator

    def release(self) -> None:
        """Give the generator's memory back, before something else needs it."""
        self._generator = None
        gc.collect()

    @cached_property
    def embedder(self) -> Embedder:
        """The plan's embedder."""
        from rag.embed import Embedder

        assert self.embedder_model is not None
        return Embedder(self.embedder_model.folder)

    @cached_property
    def index(self) -> Index:
        """The run's index, verified."""
        from rag.index import Index

        return Index.open(self.run.path / INDEX, self.embedder)

    @cached_property
    def retriever(self) -> Retriever:
        """The run's retriever, with the refusal threshold fitted on its dev questions."""
        from rag.refuse import Threshold

        stored = json.loads((self.run.path / REFUSAL).read_text("utf-8"))
        assert self.plan.index is not None
        return Retriever(
            self.index, self.plan.index, Threshold.from_json(stored), token_counter(self.base.folder)
        )
