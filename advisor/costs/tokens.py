"""Token counts of a call and of a training run: counted, else defaults that are named as such.

Also :class:`Range`, the low, likely and high end of an uncertain figure.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple, cast

from advisor.questionnaire.profile import PASSAGES_TOKENS, READ_BY_SMALLER_TOKENS, Profile
from runners.models.endpoint import reasons_by_name
from runners.plan.steps import LookupLimits
from runners.resources.memory_estimate import (
    MemoryEstimate,
    estimate_memory,
    memory_in_group,
    smallest_memory,
)
from runners.resources.memory_terms import MemorySetup, MemoryUse, ParallelKind
from runners.resources.model_shape import ModelShape

PROMPT_TOKENS = 200
"""Length of a prompt where it was not counted."""
ANSWER_TOKENS = 100
"""Length of an answer where it was not counted."""
CONTEXT_TOKENS = PASSAGES_TOKENS
"""Tokens of passages that a retrieval arm adds."""
PASSAGE_TOKENS = 63
"""Tokens of one retrieved passage in a training row or a prompt, with number and heading, in the shipped
example.

Recorded there (benchmarks/LOG.md, 2026-11-25): 357 rows with 3 passages, twice, in 402 s at 530 tokens/s are
298 tokens a row, 190 more than a plain row.
"""
ASSUMED_CORPUS_TOKENS = READ_BY_SMALLER_TOKENS
"""Length of all documents where it is not known."""
REASONING_TOKENS = 500
"""Tokens of reasoning before an answer, planned for a model that cannot do without.

docs.aspose.com/llm/net/developer-reference/parameters/chat/max-tokens (read 2026-11-26): Qwen3 and DeepSeek-R1 take 300 to
500 before the answer. OpenAI's guide to reasoning gives a few hundred to tens of thousands, so this is the low end.
"""
DEFAULT_SHOTS = 8
DEFAULT_EPOCHS = 2.0
RAW_SEQUENCE = 1024
"""Tokens of one training sequence when raw text is cut into pieces, and the shortest row planned for."""
_RETRIEVE = ("rag", "hybrid")


@dataclass(frozen=True, slots=True)
class Range:
    """A low, a likely and a high figure; the unit is that of the field that holds it."""

    low: float
    likely: float
    high: float

    def times(self, low: float, likely: float, high: float) -> Range:
        """Scale each end by its own factor."""
        return Range(self.low * low, self.likely * likely, self.high * high)

    def times_independent(self, other: Range) -> Range:
        """Multiply with a figure whose error has nothing to do with this one's.

        The relative spreads, logarithms of an end over the likely figure, are added in quadrature: both figures being at
        their worst at once is rarer than either. An end that is 0 stays 0.
        """
        if other.low == other.high:
            return self.times(other.low, other.likely, other.high)
        likely = self.likely * other.likely
        if likely <= 0:
            return self.times(other.low, other.likely, other.high)
        low = 0.0
        if self.low > 0 and other.low > 0:
            down = math.hypot(math.log(self.low / self.likely), math.log(other.low / other.likely))
            low = likely * math.exp(-down)
        up = math.hypot(math.log(self.high / self.likely), math.log(other.high / other.likely))
        return Range(low, likely, likely * math.exp(up))

    def values(self) -> tuple[float, float, float]:
        """Return the three figures."""
        return self.low, self.likely, self.high

    def to_json(self) -> dict[str, float]:
        """Return the three figures, rounded to four significant digits."""
        return {name: float(f"{getattr(self, name):.4g}") for name in ("low", "likely", "high")}


ZERO_RANGE = Range(0.0, 0.0, 0.0)
LOOKUP_REQUESTS = Range(2, 4, LookupLimits().steps + 1)
"""Requests for an answer that a model looks up itself: 2 to 5 for a plain look-up in published runs (4.07 on HotpotQA with
gpt-4o-mini), 10 to 20 over several sources; a plan ends it at the high one."""
LOOKUP_RESULT_TOKENS = 2_500
"""Tokens of a result, which every later request reads again. So 4 requests read 14 times what one search gives and 5 about
30,000 tokens; published are 12 times the price (HotpotQA) and 33,346 tokens (24 documents, Claude Opus)."""
TOOLS_TOKENS = 500
"""Tokens of the four tools in each request."""
CALL_TOKENS = 60
"""Tokens that the model writes for a call."""
ANSWER_SECONDS: dict[str, Range] = {
    "long-context": Range(5, 10, 20),
    "rag": Range(5, 7, 9),
    "agentic-search": Range(6, 12, 60),
}
"""Seconds of an answer of hosted models in published runs of 2025 and 2026 (curasinan/pdf-rag, SurfSense, fs-explorer,
RAGBench-12x, arXiv 2601.07711), not measured by us; a reranker on a processor (57 s) is left out."""


class CallTokens(NamedTuple):
    """Tokens that a method adds to an answer."""

    fixed: float = 0.0
    """Read, the same in every call, so that a cache can hold them."""
    fresh: float = 0.0
    """Read, different in every call."""
    written: float = 0.0
    """Written beside the answer."""


def row_tokens(profile: Profile) -> float:
    """Return the tokens of one prompt with its answer."""
    return (profile.prompt_tokens or PROMPT_TOKENS) + (profile.answer_tokens or ANSWER_TOKENS)


def reasoning_tokens(profile: Profile) -> float:
    """Return the tokens of reasoning that a call pays for: those of a model that cannot switch it off, else 0."""
    if profile.remote:
        name = profile.model or ""
        reasons = bool(reasons_by_name(name.removeprefix("openai:").rpartition("@")[0]))
    else:
        known = profile.model_facts
        reasons = known is not None and known.reasons == "always"
    return float(REASONING_TOKENS) if reasons else 0.0


def output_tokens(profile: Profile) -> float:
    """Return the tokens that a call generates: the answer and the reasoning before it."""
    return (profile.answer_tokens or ANSWER_TOKENS) + reasoning_tokens(profile)


def training_setup(profile: Profile, rented: bool = False) -> MemorySetup:
    """Return the setup for memory estimates on one device: rows as long as a prompt with its answer, at least 1,024 tokens.

    Without a GPU, unless one is ``rented``, it describes the whole process on the CPU, and in fp32 where the device computes
    in it.
    """
    longest = max(RAW_SEQUENCE, math.ceil(row_tokens(profile)))
    on_cpu = profile.has_gpu is False and not rented
    shape = profile.model_shape
    return MemorySetup(
        seq_len=longest,
        counter="process" if on_cpu else "device",
        weights="fp32" if profile.computes_in_fp32 else None,
        fp32_compute=profile.computes_in_fp32,
        fused=on_cpu and shape is not None and shape.llama_like,
    )


@dataclass(frozen=True, slots=True)
class DevicePlan:
    """How the devices at hand train a method with every free saving on."""

    parallel: ParallelKind
    """How several share it: ddp, fsdp, or for another program fsdp_4bit. ddp for one device."""
    memory: MemoryEstimate
    """Memory of one of them."""
    alone: MemoryEstimate
    """Memory of one device that trains alone."""

    @property
    def sharded(self) -> bool:
        """Whether the model is divided among the devices, as it does not fit one with room."""
        return self.parallel != "ddp"


def device_plan(profile: Profile, use: MemoryUse) -> DevicePlan:
    """Return how the devices of a profile, whose model's shape is known, train it; computed once for each profile and use.

    Blockers and several rules ask for the same estimate in one ranking. Several GPUs share a training as ``parallel: auto``
    does; those of another program shard 4-bit weights too.
    """
    known = profile.blocker_answers
    shape = profile.model_shape
    if shape is None:
        raise ValueError("the memory of a model of unknown shape")
    key = (shape.params, use)
    if key not in known:
        setup = training_setup(profile)
        alone = smallest_memory(shape, use, setup)
        shared = plan_group(shape, use, setup, profile) if profile.devices > 1 else ("ddp", alone)
        known[key] = DevicePlan(*shared, alone)
    return cast("DevicePlan", known[key])


def plan_group(
    shape: ModelShape, use: MemoryUse, setup: MemorySetup, profile: Profile
) -> tuple[ParallelKind, MemoryEstimate]:
    """Return how the profile's devices share a training of this setup, made as small as it can be, and one's memory."""
    if profile.devices == 1:
        return "ddp", smallest_memory(shape, use, setup)
    several = replace(
        setup, devices=profile.devices, batch=1, checkpointing=True, loss="rows", parallel="fsdp_4bit"
    )
    if profile.other_program:
        return "fsdp_4bit", estimate_memory(shape, use, several)
    return memory_in_group(shape, use, several, profile.device_gib)


def least_memory(profile: Profile, use: MemoryUse) -> MemoryEstimate:
    """Return the memory of one device in a training with every free saving on, on all devices of the profile."""
    return device_plan(profile, use).memory


def bank_tokens(profile: Profile) -> float:
    """Return the tokens of the examples shown in a few-shot prompt."""
    return DEFAULT_SHOTS * row_tokens(profile)


def example_tokens(profile: Profile, passages: float = 0.0) -> float:
    """Return the tokens of examples in training: prompt, answer and passages of each, for the passes of a drafted plan.

    ``passages`` is the number of tokens of retrieved passages in each row, 0 for plain rows.
    """
    from runners.training.defaults import passages_settings

    rows = profile.examples_known
    own = passages_settings("lora", int(rows), profile.params_b) if passages and profile.params_b else None
    epochs = own.values["epochs"] if own else DEFAULT_EPOCHS
    return rows * (row_tokens(profile) + passages) * epochs


def training_tokens(profile: Profile) -> float:
    """Return the tokens that training reads: the examples for two epochs, and raw text once."""
    return example_tokens(profile) + profile.raw_text


def lookup_tokens(profile: Profile, requests: float) -> CallTokens:
    """Return the tokens of an answer that a model looks up itself in this many requests, up to the limit of a plan.

    Every request reads the tools, the prompt and all results before it, of which there are no more than documents. What a
    provider's cache saves between the requests of one answer is left out.
    """
    most = math.inf if profile.corpus_tokens is None else float(profile.corpus_tokens)
    results = sum(min(LOOKUP_RESULT_TOKENS * number, most) for number in range(round(requests)))
    repeated = (requests - 1) * (profile.prompt_tokens or PROMPT_TOKENS)
    read = min(requests * TOOLS_TOKENS + repeated + results, LookupLimits().tokens)
    return CallTokens(fresh=read, written=(requests - 1) * (CALL_TOKENS + reasoning_tokens(profile)))


def call_tokens(profile: Profile, method: str) -> CallTokens:
    """Return the tokens a method adds to every prompt: those that a cache can hold, and those that it cannot.

    A bank of examples, or all documents, are the same in every call; retrieved passages are not.
    """
    if method == "few-shot":
        return CallTokens(fixed=bank_tokens(profile))
    if method == "long-context":
        tokens = profile.corpus_tokens
        return CallTokens(fixed=float(ASSUMED_CORPUS_TOKENS if tokens is None else tokens))
    if method == "agentic-search":
        return lookup_tokens(profile, LOOKUP_REQUESTS.likely)
    return CallTokens(fresh=float(CONTEXT_TOKENS)) if method in _RETRIEVE else CallTokens()


def assumed_token_counts(profile: Profile) -> tuple[str, ...]:
    """Return which token counts of a call are defaults, so that they are not mistaken for counts."""
    lines = []
    if profile.prompt_tokens is None:
        lines.append(f"{PROMPT_TOKENS} prompt tokens a call (assumed: prompt_tokens is unknown)")
    if profile.answer_tokens is None:
        lines.append(f"{ANSWER_TOKENS} answer tokens a call (assumed: answer_tokens is unknown)")
    if reasoning := reasoning_tokens(profile):
        lines.append(
            f"{reasoning:.0f} tokens of reasoning a call, priced as output (assumed: this model reasons before it answers; "
            "usually a few hundred, up to tens of thousands)"
        )
    return tuple(lines)
