"""Few-shot prompting: say what is wanted and show it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from advisor.cost import Estimate, bank_tokens
from advisor.methods.base import Drafting, Method, inference
from advisor.methods.blocks import Blocker, blocked_by, nothing_to_show
from advisor.profile import Profile
from advisor.rules.base import Need
from runners.plan import EvaluateStep, Step


class FewShot(Method):
    """Show a few chosen examples in the prompt.

    The best use of a handful of examples: nothing is trained, and a new example counts at once. Its price is
    the length of every prompt, softened by caching.
    """

    name = "few-shot"
    serves: ClassVar[Mapping[Need, float]] = {
        Need.WHOLE: 0.9, Need.GROUND: 0.3, Need.HONESTY: 1.0, Need.STYLE: 0.2, Need.FORMAT: 0.6,
        Need.TRAIN: 0.2, Need.SHOW: 1.0, Need.SPARING: 1.0, Need.SPEED: 0.4, Need.SIMPLE: 0.85,
        Need.LIGHT: 1.0, Need.STOP: 0.5,
    }  # fmt: skip

    def blocked(self, p: Profile) -> tuple[Blocker, ...]:
        """No examples to show."""
        return blocked_by(p, self.name, nothing_to_show)

    def estimate(self, p: Profile) -> Estimate:
        """Answering with a cached bank of eight examples before every question."""
        bank = bank_tokens(p)
        said = (f"{bank:,.0f} tokens of examples in a cached prompt",)
        return inference(p, self.name, bank, *said)

    def steps(self, p: Profile, drafting: Drafting) -> tuple[Step, ...]:
        """Evaluate the base with examples shown, the best of a few banks on dev questions."""
        return (EvaluateStep(arm=self.name, shots=drafting.shots, bank="chosen"),)
