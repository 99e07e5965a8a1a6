"""Which rules earn their place? Each is taken out, alone and with its family, on cases that no rule was written on.

    python -m benchmarks.advice FILE... [--report]

The sources of each file are dealt into two halves with the fixed :data:`SEED` (by ``half``, where the file has it). On the
first halves every rule that has a weight, fires there and is not :data:`KEPT` is taken out, alone and with its family; what
costs no accepted case, and then no exact one, may go. Of these goes what leaves the best counts, of equals what has the most
tokens, and all is tried again without it, until nothing may go. ``--report`` scores the second halves too: look once.

A rule that does not fire on the first halves is untested; it stays where published evidence with figures is named.
"""

from __future__ import annotations

import argparse
import inspect
import io
import json
import random
import re
import tokenize
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from advisor.methods.registry import METHODS
from advisor.recommendation.ranking import rank_methods
from advisor.rules.base import Rule
from advisor.rules.registry import RULES
from benchmarks.scorers.advice_cases import AdviceCase, read_cases, rule_of_thumb, sign_test

SEED = 51
WEIGHED: tuple[type[Rule], ...] = tuple(rule for rule in RULES if rule.need)
NAMES = tuple(method.name for method in METHODS)
SERVES = np.array([[method.serves.get(rule.need, 0.0) for method in METHODS] for rule in WEIGHED])  # type: ignore[arg-type]
KEPT = {
    "KN002": "citations",
    **dict.fromkeys(("RS003", "RS005", "RS006", "RS013"), "memory"),
    "BE006": "alone reads absence_is_legal",
    "KN003": "alone weighs facts_change for a search",
    "KN008": "alone reads can_retrain_every_days",
    "KN013": "alone reads answers_in_documents",
    "LB003": "alone reads labels_need_knowledge",
    "LB006": "alone reads replies_verbatim",
    "SC004": "alone weighs latency_p95_ms for answers by one search",
}
"""Rules that stay whatever they score, and why."""


class Halves:
    """Cases of one half as numbers: which rules speak, which methods are blocked, which choices are right."""

    def __init__(self, cases: Sequence[AdviceCase]) -> None:
        """Rank every case once; what is taken out does not change what speaks or blocks."""
        self.cases = cases
        ranked = [rank_methods(case.profile) for case in cases]
        self.speaks = np.array(
            [[any(found.rule is rule for found in r.findings) for rule in WEIGHED] for r in ranked], float
        )
        by_name = [{scored.method.name: scored for scored in r.methods} for r in ranked]
        self.blocked = np.array([[bool(row[name].blockers) for name in NAMES] for row in by_name])
        self.accepts = np.array([[case.accepts(name) for name in NAMES] for case in cases])
        self.exact = np.array([[case.winner == case.coded(name) for name in NAMES] for case in cases])

    def choices(self, out: frozenset[type[Rule]] = frozenset()) -> np.ndarray:
        """Return the method chosen for each case, as its number, without the rules in ``out``."""
        weights = np.array([0.0 if rule in out else rule.weight for rule in WEIGHED])
        sums = ((self.speaks * weights) @ SERVES).round(6)
        return np.where(self.blocked, -np.inf, sums).argmax(axis=1)

    def score(self, out: frozenset[type[Rule]] = frozenset()) -> tuple[int, int]:
        """Return accepted and exact without the rules in ``out``."""
        here, choice = np.arange(len(self.cases)), self.choices(out)
        return int(self.accepts[here, choice].sum()), int(self.exact[here, choice].sum())

    def line(self, name: str, out: frozenset[type[Rule]] = frozenset()) -> str:
        """Return the counts of the advice beside the rule of thumb's, with the sign test."""
        accepted, exact = self.score(out)
        thumbs = [NAMES.index(rule_of_thumb(case.profile)) for case in self.cases]
        here = np.arange(len(self.cases))
        right = self.accepts[here, thumbs]
        sign = sign_test(self.accepts[here, self.choices(out)].tolist(), right.tolist())
        return (
            f"{name}: {accepted} accepted, {exact} exact of {len(self.cases)}; rule of thumb {right.sum()}, "
            f"{self.exact[here, thumbs].sum()}; only one right {sign['advice_only']} and "
            f"{sign['rule_of_thumb_only']}, p = {sign['p']:g}"
        )


def dealt(path: Path) -> tuple[list[AdviceCase], list[AdviceCase]]:
    """Return the cases of both halves of a file: whole sources, by address, dealt with :data:`SEED`, or by ``half``."""
    rows = json.loads(path.read_text("utf-8"))["cases"]
    sources = sorted({row["source"]["url"] for row in rows})
    random.Random(SEED).shuffle(sources)
    first = set(sources[: len(sources) // 2])
    halves: tuple[list[AdviceCase], list[AdviceCase]] = ([], [])
    for row, case in zip(rows, read_cases(path), strict=True):
        in_first = row["half"] == "rules" if "half" in row else row["source"]["url"] in first
        halves[not in_first].append(case)
    return halves


def token_count(rules: Iterable[type[Rule]]) -> int:
    """Return the number of Python tokens of rules, docstrings included."""
    return sum(
        len(list(tokenize.generate_tokens(io.StringIO(inspect.getsource(rule)).readline))) for rule in rules
    )


def eliminate(half: Halves) -> frozenset[type[Rule]]:
    """Take rules out, as the module says, and print every step; return what went."""
    fires = {rule for number, rule in enumerate(WEIGHED) if half.speaks[:, number].any()}
    open_rules = {rule for rule in fires if rule.code() not in KEPT}
    families = [
        {rule for rule in open_rules if rule.family == name}
        for name in dict.fromkeys(r.family for r in RULES)
    ]
    singles = [{rule} for rule in WEIGHED if rule in open_rules]
    for group in (*families, *singles):
        print(f"  without {named(group)}: {half.score(frozenset(group))}")
    out: frozenset[type[Rule]] = frozenset()
    while True:
        groups = [frozenset(group - out) for group in (*families, *singles)]
        tried = [(half.score(out | group), token_count(group), group) for group in groups if group]
        best = max(tried, key=lambda found: (found[0], found[1], named(found[2])), default=None)
        if best is None or best[0] < half.score(out):
            break
        out |= best[2]
        print(f"goes: {named(best[2])} ({best[1]} tokens): {best[0]}")
    for rule in WEIGHED:
        if rule not in fires:
            figures = any(re.search(r"\d", re.sub(r"arXiv \S+", "", text)) for text in rule.evidence)
            print(f"untested: {rule.code()}, evidence {'with' if figures else 'without'} figures")
    return out


def named(rules: Iterable[type[Rule]]) -> str:
    """Return the codes of rules in order."""
    return " ".join(sorted(rule.code() for rule in rules))


def main() -> None:
    """Print each step, and both halves before and after."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("cases", type=Path, nargs="+")
    parser.add_argument("--report", action="store_true")
    given = parser.parse_args()
    files = [dealt(path) for path in given.cases]
    first = Halves([case for file in files for case in file[0]])
    print(first.line("first halves"))
    out = eliminate(first)
    print(f"{len(out)} of {len(RULES)} rules go: {named(out)}\n{first.line('first halves, after', out)}")
    if given.report:
        for name, cases in ((path.name, file[1]) for path, file in zip(given.cases, files, strict=True)):
            print(Halves(cases).line(f"{name}, second half"), Halves(cases).line("after", out), sep="\n  ")
        second = Halves([case for file in files for case in file[1]])
        print(second.line("second halves"), second.line("second halves, after", out), sep="\n")


if __name__ == "__main__":
    main()
