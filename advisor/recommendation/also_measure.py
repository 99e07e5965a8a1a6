"""Arms of a trial that are no methods, and may still do better than the advised one: when to measure them first."""

from __future__ import annotations

from advisor.questionnaire.profile import Profile
from advisor.rules.behaviour import BE009
from advisor.rules.knowledge import KN010


def arms_to_measure(profile: Profile) -> dict[str, str]:
    """Return the arms beside the methods that should be measured first, each with its reason.

    Args:
        profile: the situation.

    Returns:
        ``classifier`` where labels are to be given, ``long-context`` where the documents fit the model's context.
    """
    reasons = {"classifier": BE009().applies(profile), "long-context": KN010().applies(profile)}
    return {arm: reason for arm, reason in reasons.items() if reason}
