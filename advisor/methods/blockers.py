"""Blockers: why a method is not possible here, with numbers. A code is never reused for another block."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from advisor.costs.hosting import answering_memory_of
from advisor.costs.rental import fits_at_hand, memory_use_of, training_cost
from advisor.costs.tokens import ANSWER_SECONDS, PROMPT_TOKENS, device_plan
from advisor.costs.training_time import training_hours
from advisor.questionnaire.profile import (
    LONG_CONTEXT_TOKENS,
    MIN_LABELLED,
    MIN_PER_LABEL,
    MIN_RAW_TOKENS,
    READING_EXAMPLES,
    TINY_MODEL_B,
    Profile,
    Thresholds,
)
from advisor.rules.agentic import searching_size_b, takes_tools
from runners.plan.steps import NF4

MAX_CPU_HOURS = 72.0
MAX_CPU_PARAMS_B = 3.0
MIN_EXAMPLES = 10
MIN_SEARCHING_B = 14.0
"""Billions of parameters from which an untuned open model is taken to search by itself; 32 is what one maker asks for."""


@dataclass(frozen=True, slots=True)
class Blocker:
    """One reason why a method is blocked, with numbers."""

    rule: str
    text: str

    def to_json(self) -> dict[str, str]:
        """Return rule and text."""
        return {"rule": self.rule, "text": self.text}


def no_data(profile: Profile, method: str) -> str:
    """BL001. Training needs at least 10 examples, or a million tokens of raw text.

    Source: OpenAI's fine-tuning guide (minimum 10). Does not apply while the number of examples is unknown.
    """
    if profile.labelled_examples is None or profile.raw_text >= MIN_RAW_TOKENS:
        return ""
    n = profile.labelled_examples
    return f"needs at least {MIN_EXAMPLES} examples, you have {n}" if n < MIN_EXAMPLES else ""


def no_memory(profile: Profile, method: str) -> str:
    """BL002. It does not fit in memory, even at the low end of the estimate and with every saving that costs nothing.

    Several GPUs share a training (FSDP2, through a launcher), but answers come from one of them. Does not apply while the
    model's size or the memory is unknown.
    """
    available = profile.device_gib
    if profile.model_shape is None or available is None:
        return ""
    plan = device_plan(profile, memory_use_of(method))
    if plan.memory.fits(available) != "no":
        return _no_answers(profile) if plan.sharded else ""
    if plan.sharded:
        whole = ", 4-bit weights whole on each" if method == "qlora" and not profile.other_program else ""
        return (
            f"needs {plan.alone.low:.1f} GiB or more on one GPU, and {plan.memory.low:.1f} on each when sharded over "
            f"{profile.devices} (fsdp{whole}): {_cards(profile)} has {available:.0f} GiB"
        )
    offers = "the RAM gives" if profile.has_gpu is False else f"{_cards(profile)} of"
    return f"needs {plan.memory.low:.1f} GiB or more, {offers} {available:.0f} GiB"


def _no_answers(profile: Profile) -> str:
    """Return why a model that is trained sharded cannot answer here, where one GPU does not hold it in 4 bits either."""
    narrow = answering_memory_of(profile, NF4, int(profile.prompt_tokens or PROMPT_TOKENS))
    if profile.other_program or narrow is None or narrow.fits(profile.device_gib) != "no":
        return ""
    return (
        f"{profile.devices} GPUs can train it sharded (fsdp), but answers come from one: in 4 bits that takes "
        f"{narrow.low:.1f} GiB or more, {_cards(profile)} has {profile.device_gib:.0f} GiB"
    )


def too_slow(profile: Profile, method: str) -> str:
    """BL003. Without a GPU, training would take longer than three days, or has a model of 3 billion parameters or more.

    Does not apply to small models: on two cores 0.135 B parameters train at 1,000 tokens a second and more, and 8 B at 10.
    """
    hours = training_hours(profile, method) if profile.has_gpu is False else None
    if hours is None:
        return ""
    if hours.likely > MAX_CPU_HOURS:
        return f"would take about {hours.likely / 24:.0f} days without a GPU"
    if (profile.params_b or 0) < MAX_CPU_PARAMS_B:
        return ""
    return f"no GPU, and {profile.params_b:.3g} B parameters are too many to train on a CPU"


def remote_model(profile: Profile, method: str) -> str:
    """BL004. A model behind an endpoint cannot be fine-tuned here; name a local one."""
    name = profile.hosted_name or "a provider's model"
    return f"{name} is behind an endpoint: its weights are not here" if profile.remote else ""


def over_budget(profile: Profile, method: str) -> str:
    """BL005. Training would cost more than the budget, even at the low end of its range.

    On your own hardware it costs nothing, if it fits there; else the rent of the cheapest GPUs on which it fits.
    Does not apply while the model's size or the budget is unknown.
    """
    if profile.budget_usd is None or profile.model_shape is None or profile.remote:
        return ""
    usd = training_cost(profile, method)
    if usd is None:
        return (
            ""
            if fits_at_hand(profile, method) is None
            else "no GPU that can be rented is known to have enough memory"
        )
    if usd.low <= profile.budget_usd:
        return ""
    return f"costs {usd.low:,.2f} USD or more for rented GPUs, the budget is {profile.budget_usd:,g}"


def nothing_to_retrieve(profile: Profile, method: str) -> str:
    """BL006. A search needs documents, and there are none."""
    return "there are no documents to search" if profile.corpus_tokens == 0 else ""


def nothing_to_show(profile: Profile, method: str) -> str:
    """BL007. Few-shot needs examples, and there are none; three to five can be written by hand."""
    return "there are no examples to show" if profile.labelled_examples == 0 else ""


def half_unused(profile: Profile, method: str) -> str:
    """BL008. A hybrid is for tasks that need both facts and another style; without one of them, half of it has no use.

    A style that is nearly right counts from 1,000 examples on. From 100 on a model below a billion parameters is tuned in
    any case, unless a plain model already answers as wanted: it has to learn to read passages. Sources: Balaguer et al.,
    arXiv 2401.08406, and Bharti's 2x2: both halves add where both are missing; Ovadia et al., arXiv 2312.05934: retrieval
    alone is better where only facts are missing.
    """
    if profile.passages_given:
        return ""  # BL009 says it
    if profile.facts_needed == "known" and not (
        profile.must_cite or profile.corpus_tokens or profile.facts_change == "fast"
    ):
        return "the model knows these facts and there are no documents, so a search would have no use"
    unneeded = profile.task_needs_facts == "none" or not (profile.needs_facts or profile.corpus_tokens)
    if unneeded and not profile.must_cite:
        if profile.task_needs_facts is None:
            return "you have not said that the task needs facts, and there are no documents, so a search would have no use"
        return "the task needs no facts, so a search would have no use"
    unknown = profile.behaviour_gap is None and not profile.can_learn_to_read
    if profile.behaviour_gap == "none" or unknown:
        return "you have not said that a plain model misses your style, so fine-tuning would have no use"
    enough = (
        profile.behaviour_gap == "high"
        or profile.examples_known >= 1000
        or profile.can_learn_to_read
        or profile.raw_text >= MIN_RAW_TOKENS
    )
    return (
        "" if enough else "the style is nearly right, and there are fewer than 1,000 examples to improve it"
    )


def passages_at_hand(profile: Profile, method: str) -> str:
    """BL009. A search has nothing to add where most prompts already contain their passage and there are no documents."""
    if not profile.passages_given:
        return ""
    share = profile.data.passages_in_prompts or 0
    return f"{share:.0%} of the prompts already contain what their reply is taken from, and there are no documents"


def no_room_to_show(profile: Profile, method: str) -> str:
    """BL010. Not a single example fits into the model's context beside the prompt.

    Does not apply while the context or the length of prompts is unknown.
    """
    if profile.shots_that_fit is None or profile.shots_that_fit > 0 or profile.context_left is None:
        return ""
    return (
        f"the model's context has {max(0, profile.context_left):,} tokens left, less than one example takes"
    )


def no_labels(profile: Profile, method: str) -> str:
    """BL011. A classifier answers with one of a list of labels; other output cannot come from it."""
    if profile.gives_labels:
        return ""
    if profile.output_format is None:
        return "you have not said that the output is one of a list of labels"
    return f"the output is {profile.output_format}, not one of a list of labels"


def few_labelled(profile: Profile, method: str) -> str:
    """BL012. Fewer than 20 examples, or mostly one of each label, are too few to learn from and to judge it by.

    Does not apply while the number of examples is unknown.
    """
    n, rows = profile.labelled_examples, profile.rows_per_label
    if n is not None and n < MIN_LABELLED:
        return f"needs at least {MIN_LABELLED} examples, you have {n}"
    if rows is not None and rows < MIN_PER_LABEL:
        return f"{profile.labels} labels with about {rows:.2g} examples each: there are two or more to learn a label from"
    return ""


def no_stored_replies(profile: Profile, method: str) -> str:
    """BL013. Replies that differ from example to example are written for each question, not chosen among stored ones.

    Does not apply to labels, where half of the replies or more are given again, or must be given word for word.
    """
    if profile.repeats_replies or profile.gives_labels:
        return ""
    share = profile.data.repeated_replies
    if share is None:
        return "it is not known that replies are given again, word for word"
    return f"{share:.0%} of the replies are given by more than one example: they are written, not chosen"


def model_too_small(profile: Profile, method: str) -> str:
    """BL014. A model below a billion parameters is seldom better than a classifier on what that one is unsure of.

    Does not apply while the model's size is unknown.
    """
    return (
        f"a model of {profile.params_b:.2g} billion parameters is hardly better where the classifier is unsure"
        if profile.tiny_model
        else ""
    )


def too_long_to_read(profile: Profile, method: str) -> str:
    """BL015. All documents together are longer than what the model's context has left, or than any context.

    Does not apply while their size is unknown; where the model's context is unknown, it applies above a million tokens.
    """
    tokens, left = profile.corpus_tokens, profile.context_without_passages
    if not tokens or tokens <= (LONG_CONTEXT_TOKENS if left is None else left):
        return ""
    if left is None:
        return f"all documents are {tokens:,} tokens, more than models read at once"
    return f"all documents are {tokens:,} tokens, and the model's context has {max(0, left):,} left"


def no_tools(profile: Profile, method: str) -> str:
    """BL016. Search by the model itself needs a model that is known to call tools.

    Of the catalogue's models and of known hosted ones it is known; say it of another one with model_calls_tools. A run asks
    the endpoint once.
    """
    takes = takes_tools(profile)
    if takes:
        return ""
    if not profile.model:
        return "no model that calls tools is named"
    if takes is False:
        return f"{profile.hosted_name} does not call tools"
    return f"it is not known whether {profile.hosted_name} calls tools (--set model_calls_tools=yes)"


def too_weak_to_search(profile: Profile, method: str) -> str:
    """BL017. Untuned open models below 14 billion parameters mostly fail to search by themselves.

    Sources: an agentic file search whose maker saw 4, 8 and 14 B invent calls and asks for 32 B; arXiv 2604.04651: small
    models call tools less and often answer worse with them. Against: arXiv 2601.11327, where 4 B with tools passed 32 B
    without. Does not apply while the size is unknown, as of hosted models.
    """
    size = searching_size_b(profile)
    if size is None or size >= MIN_SEARCHING_B:
        return ""
    return f"a model of {size:.3g} billion parameters mostly fails to search by itself: from {MIN_SEARCHING_B:g} on"


def too_slow_to_search(profile: Profile, method: str) -> str:
    """BL018. Several calls one after the other take 6 seconds or more, which is longer than an answer may take.

    Does not apply where no limit is stated.
    """
    limit = profile.latency_p95_ms
    if limit is None or limit >= 1000 * ANSWER_SECONDS[method].low:
        return ""
    seconds = ANSWER_SECONDS[method]
    return (
        f"an answer takes about {seconds.likely:g} s ({seconds.low:g} to {seconds.high:g} in published runs), and must come "
        f"within {limit:g} ms"
    )


FOR_OTHERS = frozenset({"BL011", "BL013", "BL017"})
"""Blockers of methods for another kind of reply, or for larger models: tables and lines for people leave them out."""
BlockerCheck = Callable[[Profile, str], str]
BLOCKER_THRESHOLDS: dict[str, Thresholds] = {
    "BL001": {"labelled_examples": (MIN_EXAMPLES,), "unlabelled_tokens": (MIN_RAW_TOKENS,)},
    "BL003": {"model_params_b": (MAX_CPU_PARAMS_B,)},
    "BL006": {"corpus_tokens": (1,)},
    "BL007": {"labelled_examples": (1,)},
    "BL008": {
        "labelled_examples": (READING_EXAMPLES, 1000),
        "model_params_b": (TINY_MODEL_B,),
        "unlabelled_tokens": (MIN_RAW_TOKENS,),
        "corpus_tokens": (1,),
    },
    "BL009": {"corpus_tokens": (1,)},
    "BL012": {"labelled_examples": (MIN_LABELLED,)},
    "BL014": {"model_params_b": (TINY_MODEL_B,)},
    "BL015": {"corpus_tokens": (LONG_CONTEXT_TOKENS + 1,)},
    "BL017": {"model_params_b": (MIN_SEARCHING_B,)},
    "BL018": {"latency_p95_ms": (1000 * ANSWER_SECONDS["agentic-search"].low,)},
}
"""For numeric answers the constants that the checks compare them with."""
BLOCKER_CHECKS: tuple[BlockerCheck, ...] = (
    no_data,
    no_memory,
    too_slow,
    remote_model,
    over_budget,
    nothing_to_retrieve,
    nothing_to_show,
    half_unused,
    passages_at_hand,
    no_room_to_show,
    no_labels,
    few_labelled,
    no_stored_replies,
    model_too_small,
    too_long_to_read,
    no_tools,
    too_weak_to_search,
    too_slow_to_search,
)


def blocker_code(check: BlockerCheck) -> str:
    """Return the code that opens a check's docstring."""
    return (check.__doc__ or "").split(".", 1)[0]


def blocker_text(check: BlockerCheck) -> str:
    """Return the text for users: the check's docstring without the code."""
    return inspect.cleandoc(check.__doc__ or "").split(".", 1)[1].strip()


BLOCKER_CODES: dict[BlockerCheck, str] = {check: blocker_code(check) for check in BLOCKER_CHECKS}


def blocked_by(profile: Profile, method: str, *checks: BlockerCheck) -> tuple[Blocker, ...]:
    """Return the blockers among these checks."""
    known = profile.blocker_answers
    key = (method, checks)
    if key not in known:
        known[key] = tuple(
            Blocker(BLOCKER_CODES[check], text) for check in checks if (text := check(profile, method))
        )
    return cast("tuple[Blocker, ...]", known[key])


def _cards(profile: Profile) -> str:
    return "one GPU" if profile.devices == 1 else f"each of {profile.devices} GPUs"
