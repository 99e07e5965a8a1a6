"""Fit the probability of the advice, and say how true it is on sources that it was not fitted to.

    python -m benchmarks.advice_probability CASES.json [MORE.json ...] [--trials] [--record]

Published cases and public trials are put together; each source (a paper, or the trials of a set) is left out once, the
coefficients are fitted to the others, and the probabilities of its cases are computed with them. Printed are the
reliability of these probabilities, their Brier score, the share of accepted cases above and below each cut, and the
coefficients fitted to everything, which advisor/recommendation/probability.py holds. With ``--record`` they are written
into benchmarks/advice_probability.json, of which ``python scripts/docs.py`` makes a part of docs/how-it-decides.md.

Beside each published case and each trial there are copies of it with one decisive answer withheld, each with a quarter of a
case's weight: sources are silent about what did not matter, users about what they do not know. An undecided trial does not
count.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import minimize

from advisor.evidence.trials import MeasuredTrial, measured_trials
from advisor.questionnaire.profile import Profile
from advisor.recommendation.also_measure import arms_to_measure
from advisor.recommendation.confidence import level_of
from advisor.recommendation.probability import AdviceDoubts, advice_doubts
from advisor.recommendation.ranking import rank_methods
from benchmarks.scorers.advice_cases import brier_score, read_cases, reliability
from rag.evaluation.statistics import WilsonShare
from runners.plan.train_config import TUNING_METHODS

RECORD = Path(__file__).parent / "advice_probability.json"
WITHHELD = ("behaviour_gap", "task_needs_facts", "labelled_examples", "corpus_tokens")
WITHHELD_WEIGHT = 0.25
TRIAL_WEIGHT = 3.0
"""A trial compares all arms on the same questions, a published case the few that its authors chose."""
PENALTY = 1.0
"""Ridge penalty on the coefficients, not on the intercepts."""
VARIANTS = (
    frozenset({"prompting", "prompting-scored", "few-shot", "few-shot-scored"}),
    frozenset({"rag", "rag-few-shot", "rag-tuned"}),
    frozenset({"hybrid", "naive-stack"}),
    frozenset(TUNING_METHODS),
)
"""Arms that are ways of doing the same: one of them ahead of another does not overturn the advice."""
NAMES = tuple(part.name for part in fields(AdviceDoubts))
RAISES = ("memory_decides",)
"""Doubts with a coefficient of at most 0; all others have one of at least 0."""
CUTS = (
    0.70,
    0.75,
    0.80,
    0.82,
    0.83,
    0.84,
    0.85,
    0.86,
    0.87,
    0.88,
    0.885,
    0.89,
    0.895,
    0.90,
    0.91,
    0.92,
    0.95,
)


@dataclass(frozen=True, slots=True)
class Row:
    """One advice with its outcome."""

    source: str
    doubts: AdviceDoubts
    accepted: bool
    weight: float = 1.0
    trial: bool = False
    name: str = ""


def _without(profile: Profile, key: str) -> Profile:
    """The profile with one value not known."""
    unknown: dict[str, Any] = {key: None}
    return replace(profile, **unknown)


def case_rows(paths: Sequence[Path]) -> list[Row]:
    """Return the rows of published cases, and of the copies with an answer withheld."""
    rows = []
    for path in paths:
        for case in read_cases(path):
            for key in (None, *WITHHELD):
                if key and getattr(case.profile, key) is None:
                    continue
                profile = _without(case.profile, key) if key else case.profile
                ranking = rank_methods(profile)
                doubts = advice_doubts(profile, ranking, arms_to_measure(profile))
                rows.append(
                    Row(
                        case.source,
                        doubts,
                        case.accepts(ranking.choice),
                        WITHHELD_WEIGHT if key else 1.0,
                        name="" if key else case.id,
                    )
                )
    return rows


def _design(rows: Sequence[Row]) -> np.ndarray:
    """Return float [rows, 2 + doubts]: the two intercepts' columns, then the doubts with their sign turned."""
    # Not by `astuple`, which copies every value deeply: leaving each source out builds this matrix hundreds of times.
    values_of = attrgetter(*NAMES)
    return np.array(
        [[not row.trial, row.trial, *(-value for value in values_of(row.doubts))] for row in rows], float
    )


def fit(rows: Sequence[Row]) -> np.ndarray:
    """Return the intercept of published cases, that of trials, and the coefficients, by penalised likelihood."""
    matrix = _design(rows)
    accepted = np.array([row.accepted for row in rows])
    weights = np.array([row.weight for row in rows])

    def loss(values: np.ndarray) -> float:
        odds = matrix @ values
        return float(
            (weights * np.logaddexp(0, np.where(accepted, -odds, odds))).sum()
            + PENALTY * (values[2:] ** 2).sum() / 2
        )

    bounds = [(None, None)] * 2 + [(None, 0) if name in RAISES else (0, None) for name in NAMES]
    start = np.array([2.0, 2.0, *(-0.1 if name in RAISES else 0.1 for name in NAMES)])
    return np.asarray(minimize(loss, start, method="L-BFGS-B", bounds=bounds).x)


def probabilities(values: np.ndarray, rows: Sequence[Row]) -> np.ndarray:
    """Return the probability of each row under fitted values."""
    matrix = _design(rows)
    return np.asarray(1 / (1 + np.exp(-(matrix @ values))))


def left_out(rows: Sequence[Row]) -> np.ndarray:
    """Return the probability of each row under values fitted to all other sources."""
    result = np.zeros(len(rows))
    for source in dict.fromkeys(row.source for row in rows):
        inside = [index for index, row in enumerate(rows) if row.source == source]
        values = fit([row for row in rows if row.source != source])
        result[inside] = probabilities(values, [rows[index] for index in inside])
    return result


def report(title: str, predicted: np.ndarray, accepted: np.ndarray, bins: int) -> None:
    """Print the reliability and the Brier score of probabilities, and what each cut would leave."""
    print(f"\n{title}: {len(accepted)} cases, {accepted.mean():.3f} accepted")
    brier, constant = ((predicted - accepted) ** 2).mean(), accepted.mean() * (1 - accepted.mean())
    print(f"Brier score {brier:.4f}; of a constant {constant:.4f}")
    print("predicted   n  mean  accepted (95 %)")
    for part in np.array_split(np.argsort(predicted, kind="stable"), bins):
        share = WilsonShare.of(int(accepted[part].sum()), len(part))
        low, high = predicted[part].min(), predicted[part].max()
        print(f"{low:.2f}-{high:.2f} {len(part):>3}  {predicted[part].mean():.2f}  {share.text()}")
    for cut in CUTS:
        above = predicted >= cut
        print(
            f"cut {cut:.2f}: from it {above.sum():>3} with {accepted[above].mean() if above.any() else 0:.3f} accepted, "
            f"below {(~above).sum():>3} with {accepted[~above].mean() if (~above).any() else 0:.3f}"
        )


def record(rows: Sequence[Row], predicted: np.ndarray, accepted: np.ndarray, values: np.ndarray) -> None:
    """Write the reliability of left-out sources, the levels by the cuts of now, and the coefficients."""
    parts = {}
    for name, mask in (
        ("published", np.array([bool(row.name) and not row.trial for row in rows])),
        ("trials", np.array([bool(row.name) and row.trial for row in rows])),
    ):
        if not mask.any():
            continue
        pairs = [
            (float(value), bool(held)) for value, held in zip(predicted[mask], accepted[mask], strict=True)
        ]
        held = sum(pair[1] for pair in pairs) / len(pairs)
        parts[name] = {
            "n": len(pairs),
            "sources": len({row.source for row, inside in zip(rows, mask, strict=True) if inside}),
            "accepted": sum(pair[1] for pair in pairs),
            "brier": round(brier_score(pairs), 4),
            "brier_of_constant": round(held * (1 - held), 4),
            "reliability": reliability(pairs),
            "levels": {
                level: WilsonShare.of(
                    sum(accepted for value, accepted in pairs if level_of(value) == level),
                    sum(level_of(value) == level for value, _ in pairs),
                ).to_json()
                for level in ("high", "medium", "low")
            },
        }
    names = ("PUBLISHED_INTERCEPT", "TRIAL_INTERCEPT", *NAMES)
    coefficients = {name: round(float(value), 2) for name, value in zip(names, values, strict=True)}
    body = {"date": time.strftime("%Y-%m-%d"), "coefficients": coefficients, **parts}
    RECORD.write_text(json.dumps(body, indent=1) + "\n", "utf-8")


def main() -> None:
    """Print reliability and coefficients."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("cases", type=Path, nargs="+")
    parser.add_argument("--trials", action="store_true", help="also the public trials")
    parser.add_argument("--record", action="store_true", help=f"write {RECORD.name}")
    given = parser.parse_args()
    rows = case_rows(given.cases) + (trial_rows() if given.trials else [])
    predicted = left_out(rows)
    accepted = np.array([row.accepted for row in rows], float)
    for title, chosen, bins in (
        ("published cases", [bool(row.name) and not row.trial for row in rows], 8),
        ("published cases, an answer withheld", [not row.name and not row.trial for row in rows], 8),
        ("public trials", [bool(row.name) and row.trial for row in rows], 3),
        ("public trials, an answer withheld", [not row.name and row.trial for row in rows], 3),
    ):
        mask = np.array(chosen)
        if mask.any():
            report(title, predicted[mask], accepted[mask], bins)
    values = fit(rows)
    if given.record:
        record(rows, predicted, accepted, values)
    print(f"\nPUBLISHED_INTERCEPT = {values[0]:.2f}\nTRIAL_INTERCEPT = {values[1]:.2f}")
    for name, value in zip(NAMES, values[2:], strict=True):
        print(f"{name} = {value:.2f}")


def trial_rows() -> list[Row]:
    """Return the rows of the public trials that decide on the advice of now, from the table that ships with the program.

    Copies with an answer withheld are judged by the same trial: they say how often the advice would have been right without
    that answer. Sets that were named as tests are left out of the fit. Trials of a second model on a set share its source,
    so that both are left out together and its weight is divided between them.
    """
    rows = []
    models = Counter(trial.name for trial in measured_trials())
    for trial in measured_trials():
        for key in () if trial.held_back else (None, *WITHHELD):
            if key and getattr(trial.profile, key) is None:
                continue
            profile = _without(trial.profile, key) if key else trial.profile
            ranking = rank_methods(profile)
            held = trial_outcome(trial, ranking.choice)
            if held is None:
                continue
            doubts = advice_doubts(profile, ranking, arms_to_measure(profile))
            weight = (WITHHELD_WEIGHT if key else TRIAL_WEIGHT) / models[trial.name]
            name = "" if key else f"{trial.name}, {trial.model}"
            rows.append(Row(trial.name, doubts, held, weight, trial=True, name=name))
    return rows


def trial_outcome(trial: MeasuredTrial, choice: str) -> bool | None:
    """Return whether a trial confirms a choice (True) or puts another arm surely ahead of it (False); None: undecided.

    Other ways to do the same (:data:`VARIANTS`) do not count against it. A tuning method that was not measured is judged by
    the one that was.
    """
    arm = trial.arm(choice)
    if arm is None and choice in TUNING_METHODS:
        arm = trial.best(TUNING_METHODS)
    if arm is None:
        return None
    same = next((group for group in VARIANTS if arm.arm in group), frozenset())
    signs = []
    for other in trial.arms:
        if other.arm != arm.arm and other.arm not in same:
            pair = trial.difference(arm.arm, other.arm)
            signs.append(pair.sure if pair else 0)
    if -1 in signs:
        return False
    return True if signs and set(signs) == {1} else None


if __name__ == "__main__":
    main()
