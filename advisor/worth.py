"""Which unknown answers are most worth finding out: those that could change the choice."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from advisor.outlook import Outlook
from advisor.profile import Profile
from advisor.questions import BY_ID
from advisor.values import say

MOST = 2


@dataclass(frozen=True, slots=True)
class Worth:
    """An answer that is not known, or only by default, and where it could lead."""

    key: str
    text: str
    share: float
    """The share of its possible values that lead to another choice."""


def worth_finding(p: Profile, choice: str, outlook: Outlook) -> tuple[Worth, ...]:
    """Return the one or two unknown answers most likely to change the choice; none when none could.

    A number is tried at the few values that stand for what it usually is (``tries`` of its question).
    """
    found = []
    for key, spans in outlook.numbers.items():
        if _unknown(p, key) and BY_ID[key].tries:
            whole = BY_ID[key].kind == "count"
            met = (next(span for span in spans if value in span) for value in BY_ID[key].tries)
            found.append(_worth(key, choice, ((span.words(whole), span.choice) for span in met)))
    for key, leads in outlook.choices.items():
        if _unknown(p, key):
            found.append(_worth(key, choice, ((say(value), becomes) for value, becomes in leads.items())))
    # Answers that the wizard asks at once come before those it seldom needs.
    found.sort(key=lambda worth: (-worth.share, BY_ID[worth.key].detail, worth.key))
    return tuple(worth for worth in found if worth.share > 0)[:MOST]


def _unknown(p: Profile, key: str) -> bool:
    if key == "call_volume" and p.calls_per_month is not None:
        return False
    return getattr(p, key) is None or (key in p.sources and p.sources[key].source == "default")


def _worth(key: str, choice: str, leads: Iterable[tuple[str, str]]) -> Worth:
    pairs = list(leads)
    others = [(value, becomes) for value, becomes in pairs if becomes != choice]
    different = list(dict.fromkeys(others))
    said = ", ".join(f"{value} would make it {becomes}" for value, becomes in different[:2])
    return Worth(key, f"{key}: {said}", len(others) / len(pairs))
