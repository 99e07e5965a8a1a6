"""Does the advice generalise? Weights set on one half of the sources, scored on the other.

python benchmarks/advice.py CASES.json [MORE.json ...] [--splits 20]

The first file is split: sources (not cases, since several come from one paper) are dealt into two halves, every
rule's weight starts at 1 and is set, one rule after the other, to the value that scores best on one half; the
frozen weights are then scored on the half they never saw. Further files are scored with the shipped weights only.
The conditions of the rules are not refitted: they were written from the literature, but by people who had read the
first file, so the held-out half is blind to the weights and not to the conditions. Files written by somebody who
knew neither the rules nor the first file are the harder test.
"""

from __future__ import annotations

import argparse
import random
import statistics
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from advisor.methods.registry import METHODS
from advisor.recommendation.ranking import rank_methods
from advisor.rules.base import Rule
from advisor.rules.registry import RULES
from benchmarks.scorers.advice_cases import AdviceCase, read_cases

WEIGHED: tuple[type[Rule], ...] = tuple(rule for rule in RULES if rule.need)
VALUES = (0.1, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
NAMES = tuple(method.name for method in METHODS)
SERVES = np.array([[method.serves.get(rule.need, 0.0) for method in METHODS] for rule in WEIGHED])  # type: ignore[arg-type]


class Table:
    """Cases as numbers: which rules speak, which methods are blocked, which choices are right."""

    def __init__(self, cases: Sequence[AdviceCase]) -> None:
        """Rank every case once; weights do not change what speaks or blocks."""
        ranked = [rank_methods(case.profile) for case in cases]
        self.speaks = np.array(
            [[any(f.rule is rule for f in r.findings) for rule in WEIGHED] for r in ranked], float
        )
        by_name = [{s.method.name: s for s in r.methods} for r in ranked]
        self.blocked = np.array([[bool(row[name].blockers) for name in NAMES] for row in by_name])
        self.accepts = np.array([[case.accepts(name) for name in NAMES] for case in cases])
        self.exact = np.array([[case.winner == name for name in NAMES] for case in cases])

    def score(self, weights: np.ndarray, rows: np.ndarray) -> tuple[int, int]:
        """Accepted and exact among the rows."""
        sums = (self.speaks[rows] * weights) @ SERVES
        choice = np.where(self.blocked[rows], -np.inf, sums).argmax(axis=1)
        here = np.arange(len(choice))
        return int(self.accepts[rows][here, choice].sum()), int(self.exact[rows][here, choice].sum())


def fit(table: Table, rows: np.ndarray, rounds: int = 4) -> np.ndarray:
    """Set every weight in turn to the value with the best score on these rows; ties keep the value nearest to 1."""
    weights = np.ones(len(WEIGHED))
    for _ in range(rounds):
        before = weights.copy()
        for rule in range(len(WEIGHED)):
            tried = []
            for value in VALUES:
                weights[rule] = value
                tried.append((sum(table.score(weights, rows)), -abs(np.log(value)), value))
            weights[rule] = max(tried)[2]
        if (weights == before).all():
            break
    return weights


def halves(cases: Sequence[AdviceCase], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Deal the sources into two halves; return the rows of each."""
    sources = sorted({case.source for case in cases})
    random.Random(seed).shuffle(sources)
    first = set(sources[: len(sources) // 2])
    side = np.array([case.source in first for case in cases])
    return np.flatnonzero(side), np.flatnonzero(~side)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("cases", type=Path, nargs="+")
    parser.add_argument("--splits", type=int, default=20)
    given = parser.parse_args()
    shipped = np.array([rule.weight for rule in WEIGHED])
    files = {path: read_cases(path) for path in given.cases}
    for path, cases in files.items():
        accepted, exact = Table(cases).score(shipped, np.arange(len(cases)))
        print(f"{path.name}: shipped weights {accepted} of {len(cases)} accepted, {exact} exact")
    cases = files[given.cases[0]]
    table = Table(cases)
    shares: dict[str, list[tuple[float, float]]] = {}
    for seed in range(given.splits):
        for seen, unseen in (halves(cases, seed), halves(cases, seed)[::-1]):
            fitted = fit(table, seen)
            for name, weights, rows in (
                ("fitted, seen half", fitted, seen),
                ("fitted, unseen half", fitted, unseen),
                ("all weights 1, unseen half", np.ones(len(WEIGHED)), unseen),
                ("shipped, same half", shipped, unseen),
            ):
                accepted, exact = table.score(weights, rows)
                shares.setdefault(name, []).append((accepted / len(rows), exact / len(rows)))
    print(f"\n{2 * given.splits} halves of {len({c.source for c in cases})} sources, mean share (lowest)")
    for name, pairs in shares.items():
        a, e = zip(*pairs, strict=True)
        print(
            f"{name:<28} accepted {statistics.mean(a):.2f} ({min(a):.2f})  exact {statistics.mean(e):.2f} ({min(e):.2f})"
        )


if __name__ == "__main__":
    main()
