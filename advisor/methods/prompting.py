"""Prompting: say what is wanted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from advisor.cost import Estimate
from advisor.methods.base import Drafting, Method, inference
from advisor.profile import Profile
from advisor.rules.base import Need
from runners.plan import EvaluateStep, Step


class Prompting(Method):
    """Say what is wanted in the prompt, and, where they are few, put all documents there too.

    Changed in minutes, nothing to train or to keep up. Its limits are what a prompt cannot bring about and
    what does not fit in it.
    """

    name = "prompting"
    serves: ClassVar[Mapping[Need, float]] = {
        Need.WHOLE: 1.0, Need.GROUND: 0.3, Need.HONESTY: 1.0, Need.FORMAT: 0.3, Need.SHOW: 0.6,
        Need.SPARING: 0.7, Need.SCALE: 0.2, Need.SPEED: 0.8, Need.SIMPLE: 1.0, Need.LIGHT: 1.0, Need.STOP: 1.0,
    }  # fmt: skip

    def estimate(self, p: Profile) -> Estimate:
        """Answering with the prompt; the whole corpus in it, cached, where that is the advice."""
        whole = float(p.corpus_tokens or 0) if p.corpus_in_prompt else 0.0
        said = (f"all {whole:,.0f} tokens of documents in a cached prompt",) if whole else ()
        return inference(p, self.name, whole, *said)

    def steps(self, p: Profile, drafting: Drafting) -> tuple[Step, ...]:
        """Evaluate the base with the instructions alone."""
        return (EvaluateStep(arm=self.name),)
