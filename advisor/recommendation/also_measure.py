"""Arms of a trial that may do better than the advised one: when to measure them first.

A classifier answers with one of the labels it was fitted on, in milliseconds; long-context is prompting with all
documents in every prompt, and is not advised as a choice.
"""

from __future__ import annotations

from advisor.questionnaire.profile import PASSAGES_TOKENS, SHORT_CONTEXT_B, Profile
from advisor.rules.behaviour import BE009
from advisor.rules.knowledge import KN010

READ_BY_ALL = 2 * PASSAGES_TOKENS
"""Tokens of documents that even a small model reads as it reads retrieved passages: hardly more than those are."""


def arms_to_measure(profile: Profile) -> dict[str, str]:
    """Return the arms beside the methods that should be measured first, each with its reason.

    Args:
        profile: the situation; facts of files and model may be unknown.

    Returns:
        ``classifier`` where labels are to be given, ``long-context`` where the documents fit the model's context.
    """
    reasons = {"classifier": _classifier(profile), "long-context": _long_context(profile)}
    return {arm: reason for arm, reason in reasons.items() if reason}


def _classifier(profile: Profile) -> str:
    """Return why a linear classifier over embeddings should be tried, "" where it should not.

    It needs labels, 20 examples and two of each label where that was counted (rule BE009). It reads texts through the
    embedder, so it is no better than that one's knowledge of their language.
    """
    reason = BE009().applies(profile)
    language = profile.data.language
    if not reason or language in (None, "en"):
        return reason
    return f"{reason}; with an embedder that knows the language of the texts ({language})"


def _long_context(profile: Profile) -> str:
    """Return why all documents should be tried in one prompt, "" where they should not.

    They must fit what the context has left, and the model must not lose the middle of them. Where the model's context is not
    known, up to 200,000 tokens are put in a cached prompt and up to a million compared (rules KN005 and KN010).
    """
    tokens = profile.corpus_tokens or 0
    if not tokens or not profile.needs_facts or profile.answers_lacking:
        return ""
    small = profile.params_b is not None and profile.params_b < SHORT_CONTEXT_B
    if small and tokens > READ_BY_ALL:
        return ""
    left = profile.context_without_passages
    if left is None:
        if profile.corpus_in_prompt:
            return f"all documents are {tokens:,} tokens: they may fit into one cached prompt, and no search can miss any"
        return KN010().applies(profile)
    if tokens > left:
        return ""
    return f"all documents are {tokens:,} tokens, and the model's context has {left:,} left: no search can miss any"
