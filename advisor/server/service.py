"""What the handlers share: the opened run, the clerk, the names that can be asked, limits and meters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from advisor.server.limits import Limits
from advisor.server.meters import Meters
from advisor.server.refusals import Refusal
from rag.clean import line
from runners.catalogue import Choice
from runners.clerk import Clerk
from runners.opened import RunSession


@dataclass(frozen=True)
class Service:
    """One run, being served."""

    session: RunSession
    clerk: Clerk
    choices: Mapping[str, Choice]
    """What `model` may name, the default first."""
    limits: Limits = field(default_factory=Limits)
    meters: Meters = field(default_factory=Meters)

    @property
    def embedder(self) -> str | None:
        """The embedder's id, None for a run without."""
        model = self.session.context.embedder_model
        if model is None:
            return None
        return model.folder.name if model.source == "path" else model.name

    def choice(self, name: str | None) -> Choice:
        """What a request's `model` means; by default the verdict's arm."""
        if name is None:
            return next(iter(self.choices.values()))
        if name not in self.choices:
            raise no_model(name, ", ".join(self.choices))
        return self.choices[name]

    def models(self) -> dict[str, Any]:
        """The body of /v1/models."""
        rows = [
            {
                "id": choice.id, "object": "model", "created": choice.created, "owned_by": "tunewise",
                "root": choice.root, "parent": choice.parent, "x_tunewise": self._about(choice),
            }
            for choice in self.choices.values()
        ]  # fmt: skip
        if self.embedder:
            made = next(iter(self.choices.values())).created
            rows.append(
                {
                    "id": self.embedder, "object": "model", "created": made, "owned_by": "tunewise",
                    "root": self.embedder, "parent": None, "x_tunewise": {"kind": "embedder"},
                }
            )  # fmt: skip
        return {"object": "list", "data": rows}

    def _about(self, choice: Choice) -> dict[str, Any]:
        if choice.raw:
            return {"kind": "adapter" if choice.parent else "base"}
        step = choice.step
        return {"kind": "arm", "retrieval": step.retrieval, "shots": step.shots, "weights": step.weights}


def no_model(name: str, known: str) -> Refusal:
    """A model that nobody here has."""
    return Refusal(
        404,
        f"there is no model {line(name)!r} here; there are: {known}",
        param="model",
        code="model_not_found",
    )
