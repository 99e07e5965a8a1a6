"""The offer to measure an answer of the questionnaire by a probe of the base model: how long it takes, or what is missing.

Light to import: what a probe needs is imported when an offer is made.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from advisor.questionnaire.profile import Profile
from runners.catalog.models import DEFAULT_MODEL

PROBED_QUESTION = "behaviour_gap"
"""The question that a probe can answer when it is asked: how far a plain model is from the wanted behaviour."""


@dataclass(frozen=True, slots=True)
class ProbeOffer:
    """Whether the behaviour of the base model can be measured now, and about how long that takes.

    Attributes:
        model: name of the model that would be asked.
        seconds: estimated time.
        missing: what is missing before it can be measured; "" when nothing is.
    """

    model: str
    seconds: float = 0.0
    missing: str = ""

    @property
    def minutes(self) -> int:
        """The estimated time in minutes, rounded up."""
        return max(1, math.ceil(self.seconds / 60))


def offer_probe_of(profile: Profile) -> ProbeOffer:
    """Return the offer to measure the gap in behaviour of the profile's model, from the counted files.

    Style is judged on examples, skill on questions with the passages of documents: one of both is needed. An endpoint is
    asked by ``tunewise probe`` only, since that sends data and may cost money.
    """
    from advisor.costs import step_time
    from advisor.probe.probe import MAX_PROBE_QUESTIONS, MAX_PROBE_TOKENS, PROBE_PROMPT_TOKENS
    from runners.plan.schema import PlanData
    from runners.trial.base_probe import PROBE_EXAMPLES

    model = profile.model or DEFAULT_MODEL
    if profile.remote:
        return ProbeOffer(model, missing="the model is an endpoint: use tunewise probe")
    with_passages = bool(profile.documents and profile.question_count)
    if not (profile.examples_known or with_passages):
        lacking = [
            name
            for name, given in (("documents", profile.documents), ("questions", profile.question_count))
            if not given
        ]
        return ProbeOffer(model, missing=f"it needs examples, or {' and '.join(lacking)}")
    dev = round((profile.question_count or 0) * PlanData().dev_share)
    modes = 3 if profile.documents else 1
    answers = modes * min(MAX_PROBE_QUESTIONS, dev) + min(PROBE_EXAMPLES, profile.examples_known)
    seconds_each = (
        PROBE_PROMPT_TOKENS / step_time.PREFILL_TOKENS_PER_S
        + MAX_PROBE_TOKENS / step_time.DECODE_TOKENS_PER_S
    )
    _, speed_up = step_time.device_speed_ups(profile)
    loading = step_time.LOAD_SECONDS + (
        step_time.LOAD_SECONDS + step_time.EMBED_CORPUS_SECONDS if profile.documents else 0
    )
    return ProbeOffer(model, loading + answers * seconds_each / speed_up)
