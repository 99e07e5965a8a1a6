"""Do made questions rank the arms of a trial as real ones do? Four finished trials, asked again on made questions.

Questions are made from the documents by `tunewise examples make` (by the question grammar, or by a teacher), without a look
at the real ones, and every arm of a copy of the run answers them, by the function behind `tunewise eval`. Compared are the
means of the arms on the real test questions and on the made ones: Kendall's tau-b, and the share of pairs of arms in
the same order, of all pairs and of those that the real questions surely tell apart.

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
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from advisor.report.data import read_scores
from rag.evaluation.statistics import paired_test
from runners.run_folder import INDEX, read_run_plan
from runners.trial.evaluate import evaluate
from runners.trial.trial import ArmScores

SETS = ("xquad_en", "hybrid_concierge", "tldr_commands", "endoflife_dates")
RESAMPLES = 2000


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


def agreement(real: dict[str, ArmScores], made: dict[str, ArmScores], seed: int = 0) -> dict[str, Any]:
    """Return tau with a bootstrap interval over the made questions, and pairs in the same order."""
    names = sorted(set(real) & set(made))
    real_means = [real[name].mean_score for name in names]
    made_means = [made[name].mean_score for name in names]
    values = np.array([made[name].combined for name in names])
    rng = np.random.default_rng(seed)
    taus = [
        kendall_tau(real_means, values[:, rng.integers(0, values.shape[1], values.shape[1])].mean(axis=1))
        for _ in range(RESAMPLES)
    ]
    pairs = list(combinations(range(len(names)), 2))
    alike = [
        np.sign(real_means[i] - real_means[j]) == np.sign(made_means[i] - made_means[j]) for i, j in pairs
    ]
    sure = []
    for (i, j), same in zip(pairs, alike, strict=True):
        pair = paired_test(names[i], names[j], real[names[i]].weighted, real[names[j]].weighted)
        if pair.low > 0 or pair.high < 0:
            sure.append(bool(same))
    best_real = names[int(np.argmax(real_means))]
    best_made = names[int(np.argmax(made_means))]
    return {
        "arms": len(names),
        "tau": round(kendall_tau(real_means, made_means), 3),
        "tau_95": [round(float(np.quantile(taus, q)), 3) for q in (0.025, 0.975)],
        "pairs_alike": f"{int(sum(alike))}/{len(alike)}",
        "sure_pairs_alike": f"{sum(sure)}/{len(sure)}",
        "right_tau": _right_tau(real, made, names),
        "best": {"real": best_real, "made": best_made},
        "means": {
            n: [round(a, 3), round(b, 3)] for n, a, b in zip(names, real_means, made_means, strict=True)
        },
    }


def _right_tau(real: dict[str, ArmScores], made: dict[str, ArmScores], names: Sequence[str]) -> float | None:
    """Return tau of the shares of right answers; None where some arm's answers cannot be judged."""
    shares = [[scores[name].of("right") for name in names] for scores in (real, made)]
    if not all(values for side in shares for values in side):
        return None
    first, second = ([float(np.mean(values)) for values in side] for side in shares)
    return round(kendall_tau(first, second), 3)


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


def measure(run: Path, work: Path, count: int, teacher: str, most_arms: int) -> dict[str, Any]:
    """Return the rank agreement of one set."""
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
    if summary["rows"] < 10:
        return {"set": run.parent.name, "made": summary, "missing": "fewer than 10 questions could be made"}
    real = {arm.arm: arm for arm in read_scores(copy) if arm.combined}
    arms = sorted(real)
    random.Random(0).shuffle(arms)
    asked = evaluate(copy, file, arms[:most_arms] if most_arms else ())
    made = {arm.arm: arm for arm in asked.arms if arm.combined}
    return {
        "set": run.parent.name,
        "made": summary.get("rows"),
        "rejected": summary.get("rejected"),
        "real": max(len(arm.combined) for arm in real.values()),
        **agreement(real, made),
        "seconds": round(time.monotonic() - started),
    }


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
    for name in given.sets.split(","):
        run = next((folder / name / "run" for folder in given.runs if (folder / name / "run").is_dir()), None)
        if run is None:
            print(json.dumps({"set": name, "missing": "no finished run"}), flush=True)
            continue
        try:
            row = measure(run, given.work, given.count, given.teacher, given.arms)
        except Exception as error:  # one set that cannot be measured must not lose the others
            row = {"set": name, "missing": f"{type(error).__name__}: {error}"}
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
