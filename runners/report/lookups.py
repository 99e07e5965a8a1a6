"""What the answers of an arm that looks things up took, over a trial."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import quantiles
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Quartiles of some values, the least and the most."""

    least: float
    low: float
    median: float
    high: float
    most: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LookupSummary:
    """What the ``n`` answers of a model that looks things up itself took, each in several requests."""

    n: int
    requests: Spread
    calls: Spread
    own: int
    """Calls that the model asked for itself, beyond the search for the question."""
    tokens: Spread
    """Of all requests and replies of an answer."""
    seconds: Spread
    limits: Mapping[str, int]
    """Answers that ended at a limit, by its name."""
    nothing_read: int
    """Answers of a model that was shown no line of a document."""
    empty: int
    repeated: int
    """Calls that were made before for the same answer."""
    problems: Mapping[str, int]
    """Calls that were not carried out, by what was wrong."""
    withheld: int
    """Sentences left out of answers because they repeat the instructions."""


def lookup_summary(rows: Sequence[Mapping[str, Any]], arm: str) -> LookupSummary | None:
    """Return what an arm's answers took; None for an arm that looked nothing up itself.

    Args:
        rows: the journal of the answers, of all arms.
        arm: the arm's name.
    """
    own = [row for row in rows if row["arm"] == arm and "lookups" in row]
    if not own:
        return None
    lookups = [row["lookups"] for row in own]
    problems: Counter[str] = Counter()
    for each in lookups:
        problems.update(each.get("problems", {}))
    return LookupSummary(
        n=len(own),
        requests=_spread([each["requests"] for each in lookups]),
        calls=_spread([each["calls"] for each in lookups]),
        own=sum(each.get("own", each["calls"]) for each in lookups),
        tokens=_spread([row["prompt_tokens"] + row["completion_tokens"] for row in own]),
        seconds=_spread([row["seconds"] for row in own]),
        limits=dict(Counter(each["limit"] for each in lookups if each.get("limit"))),
        nothing_read=sum(not each["passages"] for each in lookups),
        empty=sum(not row["answer"].strip() for row in own),
        repeated=sum(each.get("repeated", 0) for each in lookups),
        problems=dict(problems),
        withheld=sum(each.get("withheld", 0) for each in lookups),
    )


def _spread(values: Sequence[float]) -> Spread:
    """Return quartiles and extremes of some values."""
    low, middle, high = quantiles(values, n=4, method="inclusive") if len(values) > 1 else [values[0]] * 3
    rounded = (round(float(value), 3) for value in (min(values), low, middle, high, max(values)))
    return Spread(**dict(zip(("least", "low", "median", "high", "most"), rounded, strict=True)))
