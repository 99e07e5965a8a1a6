"""Arms beside the seven methods, drafted where they make sense: a classifier for labels, all documents in the prompt."""

from __future__ import annotations

from collections.abc import Sequence

from advisor.facts import models
from advisor.profile import Profile
from runners.labels import MOST_LABELS, labels_of
from runners.plan import EvaluateStep, Step

SIMPLE = ("prompting", "few-shot")
FEW_TOKENS, MANY_TOKENS = 4_000, 32_000
"""Tokens of documents up to which a trial puts them all into every prompt: without a GPU (reading them once and
attending to them with every answer's token takes about a minute then), and with one."""
OVERHEAD = 4
"""How much longer documents may be as numbered passages with a heading each: many short ones have more heading than
text. The run counts exactly and would refuse what does not fit, so the draft stays clear of that."""


def with_others(steps: Sequence[Step], p: Profile, replies: Sequence[str]) -> tuple[Step, ...]:
    """Return the steps with the arms that fit this situation, behind the arms that only prompt."""
    added: list[Step] = []
    if has_labels(p, replies):
        added.append(EvaluateStep(arm="classifier", classifier=True))
    if fits_whole(p):
        added.append(EvaluateStep(arm="long-context", retrieval=True, passages="all"))
    simple = [n for n, step in enumerate(steps) if isinstance(step, EvaluateStep) and step.arm in SIMPLE]
    place = max(simple, default=-1) + 1
    return (*steps[:place], *added, *steps[place:])


def has_labels(p: Profile, replies: Sequence[str]) -> bool:
    """Whether the examples' replies are labels, at least two, each used a few times."""
    if labels_of(replies):
        return True
    found = {reply.strip() for reply in replies}
    return p.output_format == "labels" and 2 <= len(found) <= MOST_LABELS and len(replies) >= 2 * len(found)


def fits_whole(p: Profile) -> bool:
    """Whether all documents surely fit the model's context beside prompt and answer, and reading them is quick.

    A model whose context is not known gets no such arm; an endpoint is taken to read what a small model reads.
    """
    if not p.documents or not p.corpus_tokens:
        return False
    known = models.find(p.model or models.DEFAULT)
    context = known.context if known else 8_192 if p.remote else 0
    needed = OVERHEAD * p.corpus_tokens + (p.prompt_tokens or 0) + (p.answer_tokens or 0)
    return p.corpus_tokens <= (MANY_TOKENS if p.has_gpu else FEW_TOKENS) and needed <= context
