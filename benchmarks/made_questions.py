"""Do made questions rank the arms of a trial as real ones do? Four finished trials, asked again on made questions.

Questions are made from the documents by `tunewise examples make` (by the question grammar, or by a teacher), without a look
at the real ones, and every arm of a copy of the run answers them, by the function behind `tunewise eval`. Compared are the
means of the arms on the real test questions and on the made ones: Kendall's tau-b, and the share of pairs of arms in
the same order, of all pairs and of those that the real questions surely tell apart; with intervals, of each set and of all
together. Sets of the same ``--work`` are asked once: with all their names in ``--sets`` the last line has them pooled.

    python -m benchmarks.made_questions --runs DIR --work DIR [--sets A,B] [--count 40] [--teacher NAME] [--arms N]

``--runs`` holds NAME/run of finished trials, which are copied; it may be given again.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from advisor.report.data import read_scores
from rag.errors import Problem
from rag.evaluation.statistics import paired_test
from runners.run_folder import INDEX, read_run_plan
from runners.trial.evaluate import evaluate
from runners.trial.trial import ArmScores

SETS = ("xquad_en", "hybrid_concierge", "tldr_commands", "endoflife_dates")
RESAMPLES = 2000
FEWEST = 10
"""Made questions of a set; on fewer nothing is measured."""


def kendall_tau(real: Sequence[float], made: Sequence[float]) -> float:
    """Return Kendall's tau-b of two lists of means, ties counted."""
    same = opposite = tied_real = tied_made = 0
    for i, j in combinations(range(len(real)), 2):
        a, b = np.sign(real[i] - real[j]), np.sign(made[i] - made[j])
        same += a * b > 0
        opposite += a * b < 0
        tied_real += a == 0
        tied_made += b == 0
    pairs = len(real) * (len(real) - 1) / 2
    scale = np.sqrt((pairs - tied_real) * (pairs - tied_made))
    return float((same - opposite) / scale) if scale else 0.0


@dataclass(frozen=True)
class ArmValues:
    """The combined scores of one set's arms on the real and on the made questions.

    ``real`` and ``made`` are float64 [arms, questions], each score times the weight of its question; ``sure`` has the
    pairs of arms whose paired 95 % interval on the real questions excludes 0.
    """

    names: tuple[str, ...]
    real: np.ndarray
    made: np.ndarray
    sure: frozenset[tuple[int, int]]

    def resampled(self, rng: np.random.Generator) -> ArmValues:
        """Return the set with its real and its made questions drawn again; all arms keep the same questions."""
        real, made = (v[:, rng.integers(0, v.shape[1], v.shape[1])] for v in (self.real, self.made))
        return ArmValues(self.names, real, made, self.sure)

    @property
    def tau(self) -> float:
        """Kendall's tau-b of the means."""
        return kendall_tau(self.real.mean(axis=1), self.made.mean(axis=1))

    def pair_counts(self, only_sure: bool = False) -> np.ndarray:
        """Return the numbers of pairs in the same order, in the opposite one, and equal on the made questions.

        Pairs that are equal on the real questions have no order to agree with and are not counted.
        """
        real, made = self.real.mean(axis=1), self.made.mean(axis=1)
        counts = np.zeros(3, dtype=int)
        for i, j in combinations(range(len(self.names)), 2):
            order = np.sign(real[i] - real[j])
            if order and (not only_sure or (i, j) in self.sure):
                product = order * np.sign(made[i] - made[j])
                counts[0 if product > 0 else 1 if product < 0 else 2] += 1
        return counts


def arm_values(real: dict[str, ArmScores], made: dict[str, ArmScores]) -> ArmValues:
    """Return the scores of the arms that answered both kinds of questions."""
    names = tuple(sorted(set(real) & set(made)))
    sure = set()
    for i, j in combinations(range(len(names)), 2):
        pair = paired_test(names[i], names[j], real[names[i]].weighted, real[names[j]].weighted)
        if pair.low > 0 or pair.high < 0:
            sure.add((i, j))
    sides = [np.array([side[name].weighted for name in names]) for side in (real, made)]
    return ArmValues(names, sides[0], sides[1], frozenset(sure))


def agreement(real: dict[str, ArmScores], made: dict[str, ArmScores], seed: int = 0) -> dict[str, Any]:
    """Return tau with a bootstrap interval over real and made questions, and the pairs by order."""
    values = arm_values(real, made)
    rng = np.random.default_rng(seed)
    taus = [values.resampled(rng).tau for _ in range(RESAMPLES)]
    means = [dict(zip(values.names, side.mean(axis=1), strict=True)) for side in (values.real, values.made)]
    return {
        "arms": len(values.names),
        "tau": round(values.tau, 3),
        "tau_95": _interval(taus),
        **{
            key: dict(
                zip(("same", "opposite", "tied_on_made"), map(int, values.pair_counts(sure)), strict=True)
            )
            for key, sure in (("pairs", False), ("sure_pairs", True))
        },
        "best": {
            key: max(side, key=side.__getitem__) for key, side in zip(("real", "made"), means, strict=True)
        },
        "combined": {name: [round(float(side[name]), 3) for side in means] for name in values.names},
        "right": {name: [_right(side[name]) for side in (real, made)] for name in values.names},
    }


def pooled_agreement(sets: Sequence[ArmValues], seed: int = 0) -> dict[str, Any]:
    """Return the share of pairs in the same order over several sets, and the mean tau.

    The intervals are of a bootstrap of two levels: sets are drawn, and of each the real and the made questions.
    """
    rng = np.random.default_rng(seed)
    drawn: dict[str, list[float]] = {"pairs": [], "sure_pairs": [], "tau": []}
    for _ in range(RESAMPLES):
        sample = [sets[n].resampled(rng) for n in rng.integers(0, len(sets), len(sets))]
        for key, value in _shares(sample).items():
            drawn[key].append(value)
    whole = _shares(sets)
    counts = {
        key: np.sum([s.pair_counts(key == "sure_pairs") for s in sets], axis=0)
        for key in ("pairs", "sure_pairs")
    }
    return {
        "sets": len(sets),
        **{key: [int(n) for n in value] for key, value in counts.items()},
        **{f"{key}_share": [round(whole[key], 3), _interval(drawn[key])] for key in ("pairs", "sure_pairs")},
        "mean_tau": [round(whole["tau"], 3), _interval(drawn["tau"])],
    }


def _shares(sets: Sequence[ArmValues]) -> dict[str, float]:
    """Return the shares of pairs in the same order, nan where there are none, and the mean tau."""
    shares = {"tau": float(np.mean([s.tau for s in sets]))}
    for key in ("pairs", "sure_pairs"):
        counts = np.sum([s.pair_counts(key == "sure_pairs") for s in sets], axis=0)
        shares[key] = counts[0] / counts.sum() if counts.sum() else float("nan")
    return shares


def _interval(values: Sequence[float]) -> list[float]:
    return [round(float(np.nanquantile(values, q)), 3) for q in (0.025, 0.975)]


def _right(scores: ArmScores) -> float | None:
    """Return the share of right answers; None where none can be judged."""
    values = scores.of("right")
    return round(float(np.mean(values)), 3) if values else None


def make_questions_file(documents: Path, index: Path, out: Path, count: int, teacher: str) -> dict[str, Any]:
    """Make questions as a user would and return the summary."""
    command = [
        sys.executable,
        "-P",
        "-m",
        "advisor",
        "examples",
        "make",
        "--documents",
        str(documents),
        "--out",
        str(out),
    ]
    command += ["--count", str(count), "--as", "questions", "--known", "skip", "--overwrite", "--json"]
    command += ["--index", str(index)]  # that of the run: nothing is embedded again
    command += ["--teacher", teacher] if teacher else []
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"rows": 0, "failed": done.stderr.strip().splitlines()[-2:]}
    summary: dict[str, Any] = json.loads(done.stdout)
    return summary


def measure(
    run: Path, work: Path, count: int, teacher: str, most_arms: int
) -> tuple[dict[str, Any], ArmValues | None]:
    """Return the rank agreement of one set and the scores that it is computed from; None where it cannot be."""
    copy = work / run.parent.name
    if not copy.exists():
        shutil.copytree(run, copy)
    plan = read_run_plan(copy)
    file = work / f"{run.parent.name}.made.jsonl"
    started = time.monotonic()
    assert plan.data.documents is not None
    summary = (
        {"rows": len(file.read_text("utf-8").splitlines())}
        if file.exists()
        else make_questions_file(plan.data.documents, copy / INDEX, file, count, teacher)
    )
    if summary["rows"] < FEWEST:
        missing = f"fewer than {FEWEST} questions could be made"
        return {"set": run.parent.name, "made": summary, "missing": missing}, None
    real = {arm.arm: arm for arm in read_scores(copy) if arm.combined}
    arms = sorted(real)
    random.Random(0).shuffle(arms)
    asked = evaluate(copy, file, arms[:most_arms] if most_arms else ())
    made = {arm.arm: arm for arm in asked.arms if arm.combined}
    row = {
        "set": run.parent.name,
        "made": len(asked.asked.questions),
        "answered_yes": sum(question.answers == ("yes",) for question in asked.asked.questions),
        "other_form": asked.asked.other_form,
        "real": max(len(arm.combined) for arm in real.values()),
        **agreement(real, made),
        "seconds": round(time.monotonic() - started),
    }
    return row, arm_values(real, made)


def main() -> None:
    """Measure the sets and print one line of JSON for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, action="append", required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--teacher", default="")
    parser.add_argument("--arms", type=int, default=0)
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    measured: list[ArmValues] = []
    for name in given.sets.split(","):
        run = next((folder / name / "run" for folder in given.runs if (folder / name / "run").is_dir()), None)
        if run is None:
            print(json.dumps({"set": name, "missing": "no finished run"}), flush=True)
            continue
        try:
            row, values = measure(run, given.work, given.count, given.teacher, given.arms)
            measured += [values] if values else []
        except (Problem, OSError) as error:  # one set that cannot be measured must not lose the others
            row = {"set": name, "missing": f"{type(error).__name__}: {error}"}
        print(json.dumps(row), flush=True)
    if len(measured) > 1:
        print(json.dumps({"pooled": pooled_agreement(measured)}), flush=True)


if __name__ == "__main__":
    main()
