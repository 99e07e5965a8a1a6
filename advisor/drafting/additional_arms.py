"""Arms of a plan beside those of the methods, where they fit.

They are scored labels, a classifier, the nearest example's reply, a router, and all documents in the prompt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from advisor.methods.base import Drafting
from advisor.methods.rag import AgenticSearch
from advisor.methods.small import SMALL_METHODS
from advisor.questionnaire.profile import MIN_LABELLED, Profile
from runners.catalog import models
from runners.data.labels import MAX_LABELS, labels_of
from runners.plan.data import NOT_NAMED
from runners.plan.schema import Step, StyleCheck
from runners.plan.steps import EvaluateStep, Route
from runners.plan.train_config import TUNING_METHODS

PROMPTED_ARMS = ("prompting", "few-shot")
SEARCH_ARMS = ("rag", "rag-few-shot")
MAX_CORPUS_TOKENS_CPU = 4_000
"""Tokens of documents up to which a trial without a GPU puts them all into every prompt.

Reading them once and attending to them with every answer's token takes about a minute then.
"""
MAX_CORPUS_TOKENS_GPU = 32_000
"""Tokens of documents up to which a trial with a GPU puts them all into every prompt."""
PASSAGE_OVERHEAD_FACTOR = 4
"""How many times longer documents may be as numbered passages with a heading each: of many short ones the
headings are longer than the text. The run counts exactly and refuses what does not fit, so the draft
leaves a margin.
"""
FILES_OF_METHODS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("rag", "long-context", "agentic-search"), ("documents",)),
    "hybrid": ("documents", "examples"),
    "few-shot": ("examples",),
    **dict.fromkeys(SMALL_METHODS, ("examples",)),
    **dict.fromkeys(TUNING_METHODS, ("examples",)),
}
"""The files without which a method has no arm, beside the questions."""


def with_additional_arms(
    steps: Sequence[Step], profile: Profile, replies: Sequence[str], advised: Sequence[str] = ()
) -> tuple[Step, ...]:
    """Return the steps with the additional arms that fit this situation, or are advised, after the arms that only prompt.

    Search by the model itself comes after rag. ``advised`` is the choice, then what should be measured beside it.
    """
    choice = next(iter(advised), "")
    added: list[Step] = []
    to_name = profile.examples == NOT_NAMED.format(key="examples")
    if has_label_replies(profile, replies) or (choice in ("classifier", "router") and to_name):
        added.append(EvaluateStep(arm="classifier", classifier=True))
    if has_repeated_replies(profile, replies) or (choice == "nearest-reply" and (any(replies) or to_name)):
        added.append(EvaluateStep(arm="nearest-reply", nearest_reply=True))
    if fits_context(profile) or (choice == "long-context" and profile.documents and profile.remote):
        added.append(EvaluateStep(arm="long-context", retrieval=True, passages="all"))
    simple = [
        index
        for index, step in enumerate(steps)
        if isinstance(step, EvaluateStep) and step.arm in PROMPTED_ARMS
    ]
    position = max(simple, default=-1) + 1
    placed = [*steps[:position], *added, *steps[position:]]
    if "agentic-search" in advised and profile.documents:
        searched = [
            at for at, step in enumerate(placed) if isinstance(step, EvaluateStep) and step.arm in SEARCH_ARMS
        ]
        behind = max(searched, default=-1) + 1
        placed[behind:behind] = AgenticSearch().steps(profile, Drafting())
    return tuple(placed)


def with_router(steps: Sequence[Step], choice: str) -> tuple[Step, ...]:
    """Return the steps with a router, as the last, where an arm without a language model can stand before one with one.

    That is the choice, or where it asks no model itself the last arm that only prompts; ``choice`` is the recommended
    method, whether the steps have it or not. The classifier comes first, where there is one: its probabilities are
    calibrated.
    """
    arms = {step.arm: step for step in steps if isinstance(step, EvaluateStep)}
    first = next((name for name in ("classifier", "nearest-reply") if name in arms), None)
    otherwise = next(
        (
            name
            for name in (choice, *reversed(PROMPTED_ARMS))
            if name in arms and not arms[name].without_model
        ),
        None,
    )
    if first is None or otherwise is None:
        return tuple(steps)
    return (*steps, EvaluateStep(arm="router", route=Route(first=first, otherwise=otherwise)))


def router_note(steps: Sequence[Step]) -> str:
    """Return what a router costs, in a sentence for the draft; "" without one."""
    step = next((step for step in steps if isinstance(step, EvaluateStep) and step.route), None)
    if step is None or step.route is None:
        return ""
    return (
        f"router: {step.route.first}, where it is sure, else {step.route.otherwise}; the cut is chosen on dev questions, of "
        f"which {step.route.otherwise} is asked at most {step.budget}; its test answers cost nothing"
    )


def with_scored_arms(
    steps: Sequence[Step], checks: Sequence[StyleCheck], profile: Profile
) -> tuple[Step, ...]:
    """Return the steps with an arm that scores labels after each arm that only prompts, where labels and model allow it.

    It asks with the same prompt. An endpoint does not give likelihoods, and after a model's reasoning there is no label to
    score.
    """
    known = models.find_model(profile.model or models.DEFAULT_MODEL)
    reasons = known is not None and known.reasons == "always"
    if profile.remote or reasons or not any(check.kind == "labels" for check in checks):
        return tuple(steps)
    result: list[Step] = []
    for step in steps:
        result.append(step)
        if isinstance(step, EvaluateStep) and step.arm in PROMPTED_ARMS:
            result.append(step.model_copy(update={"arm": f"{step.arm}-scored", "labels": "scored"}))
    return tuple(result)


def has_label_replies(profile: Profile, replies: Sequence[str]) -> bool:
    """Return whether the examples' replies are labels, at least two, each used a few times."""
    if labels_of(replies):
        return True
    distinct = {reply.strip() for reply in replies}
    return (
        profile.output_format == "labels"
        and 2 <= len(distinct) <= MAX_LABELS
        and len(replies) >= 2 * len(distinct)
    )


def has_repeated_replies(profile: Profile, replies: Sequence[str]) -> bool:
    """Return whether the reply of the nearest example is worth measuring: labels, or replies that are given again."""
    enough = len(replies) >= MIN_LABELLED
    return enough and (profile.repeats_replies or has_label_replies(profile, replies))


def fits_context(profile: Profile) -> bool:
    """Return whether all documents surely fit the model's context and are read quickly.

    A model whose context is not known gets no such arm; an endpoint is assumed to read as much as a small
    model.
    """
    if not profile.documents or not profile.corpus_tokens:
        return False
    model = models.find_model(profile.model or models.DEFAULT_MODEL)
    context = model.context if model else 8_192 if profile.remote else 0
    needed = (
        PASSAGE_OVERHEAD_FACTOR * profile.corpus_tokens
        + (profile.prompt_tokens or 0)
        + (profile.answer_tokens or 0)
    )
    return (
        profile.corpus_tokens <= (MAX_CORPUS_TOKENS_GPU if profile.has_gpu else MAX_CORPUS_TOKENS_CPU)
        and needed <= context
    )


def without_what(choice: str, steps: Sequence[Step], profile: Profile) -> str:
    """Return why a method has no arm in a plan: the files it lacks, or that no tuning is possible here."""
    missing = [key for key in FILES_OF_METHODS.get(choice, ()) if not getattr(profile, key)]
    if missing:
        return f"cannot be measured without {' and '.join(missing)}"
    if choice in ("hybrid", "few-shot") and not any(
        isinstance(step, EvaluateStep) and step.shots for step in steps
    ):
        return "cannot be measured with examples that are plain texts: it needs prompts with their replies"
    if choice == "long-context" and profile.remote:
        return "every answer pays for all documents, and it is not advised for this model"
    if choice == "long-context":
        return "a model on this machine would read all documents too slowly, or may not hold them all"
    if choice in TUNING_METHODS or choice == "hybrid":
        return "this model cannot be fine-tuned on this machine"
    return "cannot be tested with these files"
