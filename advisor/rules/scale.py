"""Scale: calls, prompts and latency."""

from __future__ import annotations

from advisor.questionnaire.profile import Profile
from advisor.rules.base import Need, Rule

PROMPT_TOKENS_A_MONTH = 100_000_000


class Scale(Rule):
    """Rules about volume and speed."""

    family = "scale"


class SC001(Scale):
    """With many calls training pays: it costs once, a long prompt costs on every call.

    Does not apply when the task keeps changing, or when caching makes the long prompt nearly free.
    """

    need = Need.SCALE
    weight = 1.5
    evidence = (
        "Microsoft Learn, When to use fine-tuning: fewer tokens and lower latency",
        "Liu et al., T-Few, arXiv 2205.05638: at volume, tuning is cheaper than in-context examples",
    )

    def applies(self, profile: Profile) -> str:
        if not profile.high_volume or not profile.behaviour_needed:
            return ""
        return (
            f"{profile.calls_per_month:,} calls a month"
            if profile.calls_per_month
            else "the call volume is high"
        )


class SC004(Scale):
    """Where answers must be very fast, there is no time for long prompts and searching.

    Does not apply from about one second upwards.
    """

    need = Need.SPEED
    weight = 0.7
    evidence = ("Microsoft Learn, When to use fine-tuning: lower latency as a reason to tune",)
    at = {"latency_p95_ms": (1000,)}

    def applies(self, profile: Profile) -> str:
        tight = profile.latency_p95_ms is not None and profile.latency_p95_ms < 1000
        return f"an answer must come within {profile.latency_p95_ms:g} ms" if tight else ""


class SC005(Scale):
    """Hundreds of millions of prompt tokens a month are expensive: shorten what every call repeats.

    At list prices of 0.15 to 3 USD per million, 100 million tokens cost 15 to 300 USD every month, a LoRA run
    of a 7 B model 10 to 20 USD once.
    Does not apply where the style needs no change, so that the prompt is not long because of instructions.
    """

    need = Need.SCALE
    weight = 0.5
    evidence = (
        "computed from list prices of hosted models (advisor/catalog/prices.py)",
        "Hugging Face, Personal Copilot: a QLoRA run of a 15.5 B model cost 13.75 USD",
    )

    def applies(self, profile: Profile) -> str:
        tokens = (profile.calls_per_month or 0) * (profile.prompt_tokens or 0)
        if tokens < PROMPT_TOKENS_A_MONTH or not profile.behaviour_needed:
            return ""
        return f"{tokens / 1e6:,.0f} million prompt tokens a month"
