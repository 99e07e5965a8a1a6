"""The page docs/accuracy.md: what the advice said of six public sets, and what the trials found."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from rag.evaluation.statistics import WilsonShare

RECORD = Path(__file__).resolve().parent.parent / "benchmarks" / "accuracy.json"
Table = Callable[[tuple[str, ...], Iterable[tuple[str, ...]]], list[str]]

INTRO = """\
# How often the advice was right

For each public set the advisor was given what a user would say of it (written down from the set's description before
anything was measured) and the files, nothing else. Its own plan was then carried out: every arm on the same held-out
questions, judged by the rules of [the verdict](how-it-decides.md). `python -m benchmarks.trials` runs them again.

These are trials of one small model on data cut to a size that two cores can train on. They say what happened there; a
larger model needs less tuning and reads passages better. *Confirmed* asks that the advised arm surely beats every arm that
costs less, and that no other arm is surely better; *lost* is how far the advised arm's mean lies below the best arm's:
what following the advice cost."""


def accuracy_page(table: Table) -> list[str]:
    """Return the page: all trials in one table, what may be concluded, and each trial by itself."""
    found: dict[str, dict[str, Any]] = json.loads(RECORD.read_text("utf-8"))
    rows = [
        (
            f"[{name}](#{name})",
            one["task"],
            f"{one['advised']} ({one['confidence']})",
            one["verdict"]["winner"],
            f"{best(one)['arm']}, {best(one)['score']['mean']:.2f}",
            f"{lost(one):.2f}",
            one["verdict"]["outcome"],
        )
        for name, one in found.items()
    ]
    head = ("set", "task", "advised", "arm to use", "best mean", "lost", "outcome")
    lines = [INTRO, "", *table(head, rows), "", conclusion(list(found.values()))]
    for name, one in found.items():
        lines += section(name, one, table)
    return lines


def conclusion(trials: list[dict[str, Any]]) -> str:
    """Say how many of the trials held, with the interval that so few allow."""
    outcomes = Counter(one["verdict"]["outcome"] for one in trials)
    share = WilsonShare.of(outcomes["confirmed"], len(trials))
    near = sum(lost(one) <= 0.02 for one in trials)
    return (
        f"Of {share.n} trials {share.hits} confirmed the advice, {outcomes['overturned']} overturned it and "
        f"{outcomes['undecided']} left it undecided. With so few, the share that would be confirmed lies anywhere between "
        f"{share.low:.2f} and {share.high:.2f} (95 % Wilson interval). In {near} the advised arm was the best one or within "
        ".02 of it."
    )


def section(name: str, one: Mapping[str, Any], table: Table) -> list[str]:
    """Return one trial: the situation, the arms with their scores, the verdict."""
    parts = list(dict.fromkeys(key for arm in one["arms"] for key in arm["scores"]))
    rows = [
        (
            f"**{arm['arm']}**" if arm["arm"] == one["advised"] else arm["arm"],
            "{mean:.2f} [{low:.2f}, {high:.2f}]".format(**arm["score"]),
            *(f"{arm['scores'][key]:.2f}" if key in arm["scores"] else "" for key in parts),
        )
        for arm in sorted(one["arms"], key=lambda arm: -arm["score"]["mean"])
    ]
    count = max(arm["n"] for arm in one["arms"])
    out = f"; {one['left_out']} that nearly repeat a row were not asked" if one["left_out"] else ""
    tuned = f"{one['examples']} examples, " if one["examples"] else "no examples, "
    weights = ", ".join(f"{key} {value:g}" for key, value in one["weights"].items() if value)
    return [
        "",
        f"## {name}",
        "",
        f"{one['task'].capitalize()}. {tuned.capitalize()}{count} questions{out}; {one['model']}, {one['date']}. "
        f"Expected: {one['wanted']}.",
        "",
        f"Said: {', '.join(f'`{item}`' for item in one['said'])}. Advised **{one['advised']}** with "
        f"{one['confidence']} confidence; predicted order {' > '.join(one['order'])}.",
        "",
        *table(("arm", "combined", *parts), rows),
        "",
        f"Combined weighs {weights}. **{one['verdict']['outcome'].capitalize()}** ({one['verdict']['strength']}): "
        f"{one['verdict']['text']} {one['verdict'].get('taught') or ''}".rstrip(),
    ]


def best(one: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the arm with the highest mean."""
    return max(one["arms"], key=lambda arm: arm["score"]["mean"])  # type: ignore[no-any-return]


def lost(one: Mapping[str, Any]) -> float:
    """Return how far the advised arm's mean lies below the best arm's."""
    advised = next(arm for arm in one["arms"] if arm["arm"] == one["verdict"]["recommended"])
    return float(best(one)["score"]["mean"] - advised["score"]["mean"])
