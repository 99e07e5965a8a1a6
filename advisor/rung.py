"""A rung of the ladder: one relaxation, the method it opens, and what it costs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from advisor.profile import Profile
from advisor.ranking import Scored, rank


@dataclass(frozen=True, slots=True)
class Rung:
    """One relaxation: in words, the method it opens, its price, and how to apply it."""

    relax: str
    then: str
    cost: str
    set: dict[str, Any] = field(default_factory=dict)
    """Answers that would change; with these the engine chooses ``then``."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Settings of the training step that would make it fit, where no answer changes."""

    def to_json(self) -> dict[str, Any]:
        """Return the rung as the recommendation prints it."""
        return {"relax": self.relax, "then": self.then, "cost": self.cost, "set": self.set,
                "settings": self.settings}  # fmt: skip


def checked(p: Profile, name: str, relax: str, cost: str, **change: Any) -> Iterator[Rung]:
    """Yield the rung when the engine really chooses the method after the change."""
    after = p
    for key, value in change.items():
        after = after.change(key, value)
    if rank(after).choice == name:
        yield Rung(relax, name, cost, set=change)


def rules_of(scored: Scored) -> set[str]:
    """Return the codes of what blocks a method."""
    return {blocker.rule for blocker in scored.blockers}
