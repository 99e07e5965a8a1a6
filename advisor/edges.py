"""The numbers at which advice can change, in closed form or solved: between two of them nothing changes."""

from __future__ import annotations

import math

from advisor.limits import limits
from advisor.methods import blocks
from advisor.profile import EDGES, Profile
from advisor.questions import BY_ID
from advisor.rules.table import rule_instances

NUMERIC: tuple[str, ...] = tuple(
    key for key, question in BY_ID.items() if question.kind in ("count", "number", "share")
)
_MOST = {"count": 1e15, "number": 1e6, "share": 1.0}
"""How far a solver looks; beyond it no answer is sensible."""


def edges(p: Profile, key: str) -> tuple[float, ...]:
    """Return, ascending, the values of a numeric answer at which a rule or a blocker may change its mind.

    Each value belongs to the side above it: the choice is the same for all values from one edge up to,
    but not including, the next, all other answers staying as they are.
    """
    found = {*EDGES.get(key, ())}
    for rule in rule_instances():
        found.update(rule.edges(p).get(key, ()))
    for at in blocks.AT.values():
        found.update(at.get(key, ()))
    found.update(limits(p, key))
    asked = BY_ID[key]
    whole = asked.kind == "count"
    found = {math.ceil(value) if whole else value for value in found if math.isfinite(value)}
    return tuple(sorted(value for value in found if asked.low < value <= _MOST[asked.kind]))
