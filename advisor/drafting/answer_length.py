"""How many tokens a plan's answers may have, for the answer itself and for reasoning before it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from advisor.questionnaire.profile import Profile
from runners.catalog import models
from runners.data.examples import Example
from runners.data.reasoning import split_message
from runners.models.endpoint import reasons_by_name
from runners.plan.steps import Thinking
from runners.tokenization.token_estimate import CHARS_PER_TOKEN


def max_answer_tokens(profile: Profile, rows: Sequence[Example]) -> int:
    """Return the token limit of an answer: 1.3 x the longest of 99 % of the examples, else twice the mean."""
    if rows:
        lengths = sorted(len(row.reply) for row in rows)
        # The 99th percentile; then 30 % more, in tokens, rounded up to a multiple of 8.
        chars = lengths[min(len(lengths) - 1, math.ceil(0.99 * len(lengths)) - 1)]
        return max(16, min(1024, 8 * math.ceil(1.3 * chars / CHARS_PER_TOKEN / 8)))
    return max(16, min(1024, 2 * profile.answer_tokens)) if profile.answer_tokens else 96


def reasoning_settings(profile: Profile, rows: Sequence[Example]) -> tuple[Thinking, str]:
    """Return the settings of reasoning before answers, and a note on them: on where most examples hold it."""
    held = sorted(
        len(split.reasoning) for row in rows if (split := split_message(row.messages[-1])).reasoning
    )
    if 2 * len(held) > len(rows):
        chars = held[min(len(held) - 1, math.ceil(0.99 * len(held)) - 1)]
        most = max(256, min(16_384, 64 * math.ceil(1.3 * chars / CHARS_PER_TOKEN / 64)))
        return (
            Thinking(enabled=True, max_tokens=most),
            f"{len(held)} of {len(rows)} examples hold reasoning before the reply: it is learnt, and cut from "
            "answers before they are scored (thinking.enabled)",
        )
    some = (
        f"{len(held)} of {len(rows)} examples hold reasoning before the reply: it is learnt; " if held else ""
    )
    name = profile.model or models.DEFAULT_MODEL
    known = models.find_model(name)
    if profile.remote and reasons_by_name(name.removeprefix("openai:").rpartition("@")[0]):
        return (
            Thinking(),
            some + f"this model reasons before it answers: it gets {Thinking().max_tokens} tokens for that",
        )
    if known and known.reasons == "always":
        return Thinking(), some + (
            f"{known.name} always reasons before it answers: it gets {Thinking().max_tokens} tokens for that, "
            "and the reasoning is cut from its answers (thinking.max_tokens)"
        )
    if known and known.reasons:
        return Thinking(), some + f"{known.name} can reason before it answers: that is off (thinking.enabled)"
    return Thinking(), some.removesuffix("; ")
