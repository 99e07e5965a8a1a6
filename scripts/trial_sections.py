"""Sections of docs/accuracy.md over all public trials: misses first, kinds of task, a second model."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from advisor.evidence.trials import MeasuredTrial, trial_of_row
from advisor.recommendation.ranking import rank_methods
from benchmarks.cast import NOT_RUN
from benchmarks.trial_records import old_weighted_sum, shipped_table
from rag.evaluation.statistics import WilsonShare
from scripts.pages import table

Trials = Mapping[str, Mapping[str, Any]]
MISS_ORDER = ("overturned", "undecided", "confirmed")
SHOWN_ARMS = (
    "prompting",
    "few-shot",
    "prompting-scored",
    "few-shot-scored",
    "classifier",
    "rag",
    "rag-few-shot",
    "lora",
    "full",
    "naive-stack",
    "hybrid",
)

OVERVIEW = """\
*Advised* is the arm that was advised before the trial; *now* is what the present rules say of the same answers. *Regret*
is how far the advised arm's mean lies below that of the best arm that can be used: what following the advice cost. *Could
show* is the difference between the advised arm and its strongest rival that would have been sure in this trial (half the
width of the paired interval), and behind the slash the true difference that a trial of this size finds in 8 of 10 cases.
A difference below the first number is no evidence either way. Sets marked *test* were named before any of the sets of
that day was run, and were looked at once."""

KINDS = """
## Arms by kind of task

Mean combined score of each arm over the trials of a kind; in brackets the number of trials that measured it, where not all
did. Arms of different kinds were asked different questions: compare within a row."""

CARRY_OVER = """
## Does the order of arms carry over to another model?

The same sets, plans and questions with gemma-3-270m, a model of another family and twice the size. A pair of arms counts
where its order is sure on both models. This is what a trial on a small model (*proxy*) says of a larger one."""


def overview_section(trials: Trials, present: Mapping[str, str]) -> list[str]:
    """Return the table of all trials, misses first, then those with the largest regret.

    Args:
        trials: the records, by set.
        present: what :func:`present_advice` returns.
    """
    order = sorted(
        trials.items(), key=lambda item: (MISS_ORDER.index(item[1]["verdict"]["outcome"]), -item[1]["regret"])
    )
    rows = [
        (
            name + (", test" if trial["held_back"] else ""),
            trial["kind"],
            trial["advised"],
            present.get(name, ""),
            best_usable(trial),
            f"{trial['regret']:.2f}",
            _could_show(trial),
            trial["verdict"]["outcome"],
        )
        for name, trial in order
    ]
    columns = (
        "set",
        "kind",
        "advised",
        "now",
        "best arm that can be used",
        "regret",
        "could show",
        "outcome",
    )
    return [OVERVIEW, "", *table(columns, rows)]


def best_usable(trial: Mapping[str, Any]) -> str:
    """Return the arm with the highest mean that missed no requirement, with its mean; "none" without one."""
    excluded = trial["verdict"].get("excluded") or {}
    usable = [arm for arm in trial["arms"] if arm["arm"] not in excluded]
    if not usable:
        return "none"
    best = max(usable, key=lambda arm: arm["score"]["mean"])
    return f"{best['arm']}, {best['score']['mean']:.2f}"


def _could_show(trial: Mapping[str, Any]) -> str:
    shown = trial.get("could_show")
    return "" if not shown else f"{shown['seen']:.2f} / {shown['true']:.2f}"


def table_trials(trials: Trials) -> dict[str, MeasuredTrial]:
    """Return the trials as the shipped table has them, by set; those of the weighted sums of old are not among them."""
    return {row["set"]: trial_of_row(row) for row in shipped_table(trials)["trials"]}


def present_advice(trials: Trials) -> dict[str, str]:
    """Return what the present rules advise for each set of the table."""
    return {name: rank_methods(trial.profile).choice for name, trial in table_trials(trials).items()}


def kinds_section(trials: Trials) -> list[str]:
    """Return the mean of each arm over the trials of each kind of task, and which arms won."""
    shipped = table_trials(trials).values()
    rows = []
    for kind in sorted({trial.kind for trial in shipped}):
        of_kind = [trial for trial in shipped if trial.kind == kind]
        wins = Counter(best.arm for trial in of_kind if (best := trial.best()))
        cells = []
        for name in SHOWN_ARMS:
            means = [arm.mean for trial in of_kind if (arm := trial.arm(name))]
            some = f" ({len(means)})" if 0 < len(means) < len(of_kind) else ""
            cells.append(f"{sum(means) / len(means):.2f}{some}" if means else "")
        won = ", ".join(f"{arm} {count}" if len(of_kind) > 1 else arm for arm, count in wins.most_common())
        rows.append((kind, str(len(of_kind)), won, *cells))
    old = [name for name, trial in trials.items() if old_weighted_sum(trial)]
    note = (
        [
            "",
            f"Not among them: {', '.join(old)}, scored by the weighted sum of old. Where untrained arms were measured again "
            "after answers were constrained to a form, their later scores count.",
        ]
        if old
        else []
    )
    return [KINDS, "", *table(("kind", "trials", "won by", *SHOWN_ARMS), rows), *note]


def carry_over_section(trials: Trials, second: Path) -> list[str]:
    """Return how often the order of arms is the same on a second model; [] without its record."""
    if not second.is_file():
        return []
    first_model, second_model = (
        table_trials(trials),
        table_trials(json.loads(second.read_text("utf-8"))),
    )
    rows, same_total, sure_total, winners = [], 0, 0, []
    for name in (name for name in second_model if name in first_model):
        a, b = first_model[name], second_model[name]
        same, sure = same_order(a, b)
        both = {arm.arm for arm in a.arms} & {arm.arm for arm in b.arms}
        best_a, best_b = a.best(both), b.best(both)
        if best_a is None or best_b is None or len(both) < 2:
            continue
        winners.append(best_a.arm == best_b.arm)
        same_total, sure_total = same_total + same, sure_total + sure
        rows.append(
            (
                name,
                f"{best_a.arm}, {best_a.mean:.2f}",
                f"{best_b.arm}, {best_b.mean:.2f}",
                f"{same} of {sure}" if sure else "no pair is sure on both",
                f"{a.outcome}, {b.outcome}",
            )
        )
    if not rows:
        return []
    pairs, won = WilsonShare.of(same_total, sure_total), WilsonShare.of(sum(winners), len(winners))
    columns = ("set", "best on the first", "best on the second", "sure pairs in the same order", "outcomes")
    return [
        CARRY_OVER,
        "",
        *table(columns, rows),
        "",
        f"Of {pairs.n} pairs of arms that are sure on both models {pairs.hits} are in the same order"
        f"{_interval_of(pairs)}; pairs of one set are not independent, so the interval is too narrow. The best arm is the "
        f"same in {won.hits} of {won.n} sets{_interval_of(won)}.",
    ]


def _interval_of(share: WilsonShare) -> str:
    return f" ({share.rate:.2f} [{share.low:.2f}, {share.high:.2f}])" if share.rate is not None else ""


def same_order(a: MeasuredTrial, b: MeasuredTrial) -> tuple[int, int]:
    """Return how many pairs of arms are surely ordered alike in two trials, and how many are sure in both."""
    both = [arm.arm for arm in a.arms if b.arm(arm.arm)]
    pairs = [
        (a.difference(first, second), b.difference(first, second))
        for first, second in itertools.combinations(both, 2)
    ]
    sure = [(x.sure, y.sure) for x, y in pairs if x and y and x.sure and y.sure]
    return sum(x == y for x, y in sure), len(sure)


def not_run_section(trials: Trials) -> list[str]:
    """Return the sets of the cast that were not run, with the reason; [] when all were."""
    rows = [(name, reason) for name, reason in NOT_RUN.items() if name not in trials]
    return ["", "## Sets that were not run", "", *table(("set", "why"), rows)] if rows else []
