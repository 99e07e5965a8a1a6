"""How often intervals of a judge that counts hold the truth, and what it saves: simulated through the function that decides.

    python -m benchmarks.simulated_judges [--part NAME] [--draws N] [--seed N]

Two arms answer the same questions; answers are right, partly right or wrong. A judge grades all of them, people those of
the rows that :func:`rag.evaluation.prediction_powered.priority_order` has first. A judge of accuracy .8 gives eight in
ten answers people's grade. ``arm``: of the wrong answers of the first arm it calls a quarter more right. ``length``: it
calls wrong answers the more often right the longer they are, and the first arm's are longer. ``importance``: rows on which
scores differ and near a refusal's cut are labelled earlier, as ``tunewise label`` does; ``uniform``: all alike.

``coverage``: how often the 95 % interval holds the true difference, by accuracy, bias, labels and questions, and how often
equal arms are called apart. ``structure``: the same with documents, wordings of a question and weights. ``sparse``: with
arms that seldom differ. ``family``: one arm compared with three equal ones (Holm). ``reversal``: one calibration for both
arms against ours. ``tuning``: tuned, in full and not at all. ``width``: against labels alone. ``floors``: fewer labels, and
judges that know next to nothing. ``looks``: labelling until it is decided. ``needed``: whether the further labels named
decide. Fixed seeds.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from advisor.verdict.comparison import ArmComparison, corrected_comparisons
from rag.evaluation.prediction_powered import (
    LOOKS,
    LabelledDifferences,
    PredictionPowered,
    any_time_level,
    label_chances,
    labels_needed,
    prediction_powered,
    priority_order,
    youden_j,
)

SIZES = ((60, 30), (120, 60), (200, 30), (200, 100), (500, 30), (500, 200))
"""Questions and labels."""
ACCURACIES = (0.55, 0.65, 0.75, 0.85, 0.95)
BIASES = ("none", "arm", "length")
ORDERS = ("uniform", "importance")
PARTLY = 0.15
"""Share of the answers that are partly right."""
FAVOUR = 0.25
"""Share of the wrong answers that a judge with a bias calls right besides."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One kind of trial."""

    questions: int = 200
    labels: int = 60
    accuracy: float = 0.8
    bias: str = "none"
    order: str = "importance"
    documents: int = 0
    """0 where every question has its own."""
    wordings: int = 1
    weighted: bool = False
    same: float = 0.1
    """Share of the rows on which both arms give the same answer."""
    hard: float = 1.0
    """Standard deviation of the questions' log odds: the larger, the less often the arms differ."""
    ease: float = 0.4
    lift: float = 0.0
    """Log odds by which the first arm is better."""
    arms: int = 2


@dataclass(frozen=True, slots=True)
class Trial:
    """Grades of all rows by people and by the judge, float [arms, rows], and how they are drawn and grouped."""

    people: np.ndarray
    judge: np.ndarray
    same: np.ndarray
    """Rows on which all arms give the same answer, bool [rows]."""
    questions: list[str]
    sources: list[str | None]
    weights: np.ndarray
    priorities: np.ndarray
    numbers: np.ndarray

    def rows(self, labels: int, a: int = 0, b: int = 1) -> LabelledDifferences:
        """Return what is known of two arms when the first ``labels`` rows that need a label have one."""
        needing = np.flatnonzero(~self.same)
        priorities, numbers = self.priorities[needing].tolist(), self.numbers[needing].tolist()
        order = priority_order(priorities, numbers)
        done = np.zeros(needing.size, dtype=bool)
        done[order[:labels]] = True
        chances = np.ones(self.same.size)
        chances[needing] = label_chances(priorities, numbers, done.tolist())[0]
        known = self.same.copy()
        known[needing] = done
        people, judge = self.people[a] - self.people[b], self.judge[a] - self.judge[b]
        return LabelledDifferences(
            labels=[float(y) if k else None for y, k in zip(people, known, strict=True)],
            predicted=judge.tolist(),
            chances=chances.tolist(),
            questions=self.questions,
            sources=self.sources,
            weights=self.weights.tolist(),
            same=self.same.tolist(),
        )


def simulated_trial(draw: np.random.Generator, cell: Cell) -> Trial:
    """Return one trial of a kind."""
    question = np.repeat(np.arange(cell.questions), cell.wordings)
    count = question.size
    odds = cell.ease + draw.normal(0, cell.hard, cell.questions)[question]
    odds = np.stack([odds] * cell.arms) + draw.normal(0, 0.5, (cell.arms, count))
    document = np.arange(cell.questions)
    if cell.documents:
        document = draw.integers(0, cell.documents, cell.questions)
        of_row = document[question]
        odds += draw.normal(0, 0.7, cell.documents)[of_row]
        odds += draw.normal(0, 0.7, (cell.arms, cell.documents))[:, of_row]
    odds[0] += cell.lift
    people = (draw.random(odds.shape) < 1 / (1 + np.exp(-odds))).astype(float)
    people[draw.random(odds.shape) < PARTLY] = 0.5
    lengths = draw.normal(0, 1, odds.shape)
    lengths[0] += 1
    judge = judged(draw, people, lengths, cell)
    same = draw.random(count) < cell.same
    people[:, same], judge[:, same] = people[-1, same], judge[-1, same]
    weights = draw.pareto(1.5, cell.questions)[question] + 0.2 if cell.weighted else np.ones(count)
    weights = np.minimum(weights, 20 * np.median(weights))
    apart = np.abs(people[0] - people[1])
    scored_apart = np.where(draw.random(count) < 0.7, apart, draw.random(count))
    urgency = 1 + scored_apart + draw.random(count) if cell.order == "importance" else np.ones(count)
    return Trial(
        people,
        judge,
        same,
        [str(n) for n in question],
        [f"d{n}" for n in document[question]],
        weights,
        weights * urgency,
        1 - draw.random(count),
    )


def judged(draw: np.random.Generator, people: np.ndarray, lengths: np.ndarray, cell: Cell) -> np.ndarray:
    """Return the judge's grades of answers that people graded so, float [arms, rows]."""
    other = np.where(people == 0.5, draw.integers(0, 2, people.shape), 1 - people)
    grades = np.where(draw.random(people.shape) < cell.accuracy, people, other)
    favour = np.zeros(people.shape)
    if cell.bias == "arm":
        favour[0] = FAVOUR
    elif cell.bias == "length":
        favour = FAVOUR * np.clip(lengths, 0, 3)
    return np.where((people < 1) & (draw.random(people.shape) < favour), 1.0, grades)


def verdicts(results: Sequence[PredictionPowered]) -> dict[str, ArmComparison]:
    """Return the comparisons of the first arm with the others, corrected together, as a verdict has them."""
    return corrected_comparisons([one.paired("0", str(n)) for n, one in enumerate(results, 1)])


def apart(results: Sequence[PredictionPowered]) -> bool:
    """Return whether the first arm is called surely above or below another."""
    return any(one.above or one.below for one in verdicts(results).values())


def seeded(cell: Cell, seed: int) -> np.random.Generator:
    """Return the random numbers of a cell."""
    return np.random.default_rng([seed, *repr(cell).encode()])


def measured(cell: Cell, draws: int, seed: int) -> dict[str, Any]:
    """Return coverage, how often the arms are called apart, and the width against labels alone.

    The true difference is that over the rows of all draws, which is far nearer to it than any interval is wide.
    """
    draw = seeded(cell, seed)
    found, parts, called = [], np.zeros(2), 0
    for _ in range(draws):
        trial = simulated_trial(draw, cell)
        found.append(prediction_powered(trial.rows(cell.labels)))
        parts += (trial.weights @ (trial.people[0] - trial.people[1]), trial.weights.sum())
        called += apart(found[-1:])
    true = parts[0] / parts[1] if cell.lift else 0.0
    low, high, alone = np.array([(one.low, one.high, one.alone) for one in found]).T
    return {
        "coverage": round(float(((low <= true) & (true <= high)).mean()), 3),
        "apart": round(called / draws, 3),
        "off": round(float(np.mean([one.difference for one in found]) - true), 4),
        "tuning": round(float(np.mean([one.tuning for one in found])), 2),
        "narrower": round(float(1 - np.mean(high - low) / np.mean(alone)), 2),
        "width": round(float(np.mean(high - low)), 3),
    }


def coverage_cells() -> Iterator[Cell]:
    """Yield equal arms by size, accuracy, bias and order."""
    for questions, labels in SIZES:
        for accuracy in ACCURACIES:
            for bias in BIASES:
                for order in ORDERS:
                    yield Cell(questions=questions, labels=labels, accuracy=accuracy, bias=bias, order=order)


def structure_cells() -> Iterator[Cell]:
    """Yield trials with documents, wordings and weights, and with one arm better."""
    for accuracy in (0.55, 0.75, 0.95):
        for cell in (
            Cell(documents=8),
            Cell(documents=15),
            Cell(documents=40),
            Cell(documents=40, labels=30),
            Cell(questions=60, wordings=3),
            Cell(questions=60, wordings=3, documents=20, labels=100),
            Cell(weighted=True),
            Cell(weighted=True, labels=30),
            Cell(weighted=True, documents=40, labels=100),
            Cell(lift=0.7),
            Cell(lift=1.5, labels=30),
            Cell(lift=0.7, documents=40),
        ):
            yield replace(cell, accuracy=accuracy, bias="arm")


def sparse_cells() -> Iterator[Cell]:
    """Yield arms that seldom differ: alike on most rows, or with most answers right."""
    for accuracy in (0.55, 0.75, 0.95):
        for cell in (
            Cell(same=0.6, labels=30),
            Cell(same=0.6, questions=500),
            Cell(ease=3.0, labels=30),
            Cell(ease=3.0, labels=100),
            Cell(ease=3.0, questions=500, labels=30),
            Cell(ease=3.0, questions=60, labels=30),
            Cell(hard=4.0, labels=30),
        ):
            yield replace(cell, accuracy=accuracy)


def family_row(cell: Cell, draws: int, seed: int) -> dict[str, Any]:
    """Return how often an arm is called apart from any of the others, which are equal to it."""
    draw, called = seeded(cell, seed), 0
    for _ in range(draws):
        trial = simulated_trial(draw, cell)
        others = range(1, cell.arms)
        called += apart([prediction_powered(trial.rows(cell.labels, 0, other)) for other in others])
    return {"apart": round(called / draws, 3)}


def reversal_row(cell: Cell, draws: int, seed: int) -> dict[str, Any]:
    """Return how often the worse arm, which the judge favours, is called surely better: by one calibration and by ours.

    ``one``: people's grades as a line of the judge's, fitted to the labelled answers of both arms, and the paired t interval
    of the judge's differences by its slope.
    """
    from scipy.special import stdtrit

    draw, counts = seeded(cell, seed), np.zeros(4)
    true = 0.0
    for _ in range(draws):
        trial = simulated_trial(draw, cell)
        rows = trial.rows(cell.labels)
        done = np.array([label is not None for label in rows.labels]) & ~trial.same
        people, judge = trial.people[:, done].ravel(), trial.judge[:, done].ravel()
        slope = np.cov(people, judge)[0, 1] / judge.var(ddof=1)
        of_judge = slope * np.asarray(rows.predicted)
        half = stdtrit(of_judge.size - 1, 0.975) * of_judge.std(ddof=1) / np.sqrt(of_judge.size)
        ours = prediction_powered(rows)
        true += (trial.people[0] - trial.people[1]).mean() / draws
        counts += (
            of_judge.mean() > 0,
            of_judge.mean() - half > 0,
            ours.difference > 0,
            verdicts([ours])["1"].above,
        )
    one, one_sure, pair, pair_sure = (round(float(share), 3) for share in counts / draws)
    return {
        "true": round(true, 3),
        "one: above": one,
        "one: surely": one_sure,
        "ours: above": pair,
        "ours: surely": pair_sure,
    }


def tuning_row(cell: Cell, draws: int, seed: int) -> dict[str, Any]:
    """Return width and coverage of the judge tuned, in full (a tuning of 1), and not at all; equal arms, uniform order."""
    from scipy.special import stdtrit

    draw, widths, held, tuning = seeded(cell, seed), np.zeros(3), np.zeros(2), 0.0
    for _ in range(draws):
        rows = simulated_trial(draw, cell).rows(cell.labels)
        ours = prediction_powered(rows)
        chances, judge = np.asarray(rows.chances), np.asarray(rows.predicted)
        known = np.array([label is not None for label in rows.labels])
        apart_by = np.where(known, np.array([label or 0.0 for label in rows.labels]) - judge, 0.0)
        drawn = known & (chances < 1)
        offset = apart_by[drawn].mean()
        values = judge + offset + np.where(known, apart_by - offset, 0.0) / chances
        half = stdtrit(drawn.sum() - 1, 0.975) * values.std(ddof=1) / np.sqrt(values.size)
        widths += (ours.width, 2 * half, ours.alone)
        held += (ours.low <= 0 <= ours.high, abs(values.mean()) <= half)
        tuning += ours.tuning
    tuned, full, alone = (round(float(width), 3) for width in widths / draws)
    return {
        "tuning": round(tuning / draws, 2),
        "width": {"tuned": tuned, "in full": full, "alone": alone},
        "coverage": {"tuned": round(held[0] / draws, 3), "in full": round(held[1] / draws, 3)},
    }


def width_row(cell: Cell, draws: int, seed: int) -> dict[str, Any]:
    """Return the width with the judge and by labels alone, and how often people's grades of two arms differ."""
    draw, differ, related = np.random.default_rng(seed), 0.0, 0.0
    for _ in range(100):
        trial = simulated_trial(draw, cell)
        people, judge = trial.people[0] - trial.people[1], trial.judge[0] - trial.judge[1]
        differ += (people != 0).mean() / 100
        related += np.corrcoef(people, judge)[0, 1] / 100
    row = measured(cell, draws, seed)
    return {
        "differ": round(differ, 2),
        "correlation": round(related, 2),
        **{key: row[key] for key in ("coverage", "tuning", "narrower")},
    }


def floor_row(cell: Cell, draws: int, seed: int) -> dict[str, Any]:
    """Return what Youden's J says of the judge, and coverage and width where it is at least .2 and where it is not."""
    draw, js = seeded(cell, seed), np.zeros(draws)
    held, narrower = np.zeros(draws, dtype=bool), np.zeros(draws)
    for n in range(draws):
        trial = simulated_trial(draw, cell)
        rows = trial.rows(cell.labels)
        done = np.array([label is not None for label in rows.labels]) & ~trial.same
        js[n] = youden_j(trial.people[:, done].ravel().tolist(), trial.judge[:, done].ravel().tolist())
        one = prediction_powered(rows)
        held[n], narrower[n] = one.low <= 0 <= one.high, 1 - one.width / one.alone
    above = js >= 0.2
    parts = {"counts": above, "does not": ~above}
    return {"J": [round(float(value), 2) for value in np.nanpercentile(js, (5, 50, 95))]} | {
        name: {
            "share": round(float(part.mean()), 3),
            "coverage": round(float(held[part].mean()), 3),
            "narrower": round(float(narrower[part].mean()), 2),
        }
        for name, part in parts.items()
        if part.sum() >= 50
    }


def looks_row(cell: Cell, draws: int, seed: int) -> dict[str, Any]:
    """Return how often equal arms are called apart when labelling goes on until they are, by when one looks.

    ``as named``: after 30 labels, and again after the further labels that are named then. ``p for .05``: the largest p at
    which one of all looks calls them apart in a twentieth of the draws.
    """
    schedules = {
        "once": [cell.labels],
        "every five from ten": list(range(10, cell.labels + 1, 5)),
        "every five": list(range(30, cell.labels + 1, 5)),
        "every ten": list(range(30, cell.labels + 1, 10)),
        "doubling": [count for count in (30, 60, 120, 240, 480) if count <= cell.labels],
        "as named": [],
    }
    draw, least = seeded(cell, seed), {name: np.ones(draws) for name in schedules}
    for n in range(draws):
        trial = simulated_trial(draw, cell)
        more = labels_needed(trial.rows(30)) or 0
        schedules["as named"] = [30, 30 + more]
        counts = sorted({count for counts in schedules.values() for count in counts})
        at = {count: prediction_powered(trial.rows(count)).p for count in counts}
        for name, counts in schedules.items():
            least[name][n] = min(at[count] for count in counts)
    return {
        name: {
            "apart": round(float((p <= 0.05).mean()), 3),
            "apart, any time": round(float((p * LOOKS <= 0.05).mean()), 3),
            "p for .05": round(float(np.quantile(p, 0.05)), 3),
        }
        for name, p in least.items()
    }


def needed_row(cell: Cell, draws: int, seed: int) -> dict[str, Any]:
    """Return how many further labels open trials name, and how often so many more decide them, at the level of any time.

    ``as seen``: of the trials in which the difference seen is within .03 of people's over all rows.
    """
    draw, named, decided, as_seen, never = seeded(cell, seed), [], [], [], 0
    for _ in range(draws):
        trial = simulated_trial(draw, cell)
        rows = trial.rows(cell.labels)
        more = labels_needed(rows, level=any_time_level())
        never += more is None
        if more:
            named.append(more)
            decided.append(apart([prediction_powered(trial.rows(cell.labels + more), any_time=True)]))
            away = prediction_powered(rows).difference - (trial.people[0] - trial.people[1]).mean()
            as_seen.append(abs(away) < 0.03)
    decided_as_seen = [one for one, near in zip(decided, as_seen, strict=True) if near]
    return {
        "decided at once": round(1 - (len(named) + never) / draws, 3),
        "not even all": round(never / draws, 3),
        "named": [int(np.percentile(named, share)) for share in (10, 50, 90)],
        "as it is": round(float(np.mean(decided)), 3),
        "as seen": [round(float(np.mean(decided_as_seen)), 3), len(decided_as_seen)],
    }


Row = Callable[[Cell, int, int], dict[str, Any]]
PARTS: dict[str, tuple[Row, Callable[[], Iterator[Cell]], int]] = {
    "coverage": (measured, coverage_cells, 2000),
    "structure": (measured, structure_cells, 2000),
    "sparse": (measured, sparse_cells, 2000),
    "family": (
        family_row,
        lambda: iter_cells(arms=(4,), labels=(30, 100), accuracy=(0.55, 0.75, 0.95)),
        2000,
    ),
    "reversal": (
        reversal_row,
        lambda: iter_cells(bias=("arm",), lift=(-0.6,), labels=(30, 60, 100), accuracy=(0.85,)),
        2000,
    ),
    "tuning": (
        tuning_row,
        lambda: iter_cells(order=("uniform",), labels=(30,), accuracy=ACCURACIES, bias=("none", "arm")),
        2000,
    ),
    "width": (
        width_row,
        lambda: iter_cells(
            hard=(0.0, 2.0, 4.0),
            questions=(200, 500),
            labels=(30, 100),
            accuracy=(0.85, 0.9, 0.95, 0.98),
        ),
        1000,
    ),
    "floors": (
        floor_row,
        lambda: iter_cells(labels=(8, 12, 20, 30, 60), accuracy=(0.5, 0.55, 0.6, 0.95), bias=("none", "arm")),
        2000,
    ),
    "looks": (looks_row, lambda: iter_cells(questions=(200,), labels=(180,), accuracy=(0.55, 0.95)), 1000),
    "needed": (
        needed_row,
        lambda: iter_cells(lift=(0.5, 1.0), labels=(30, 60), accuracy=(0.6, 0.9)),
        1000,
    ),
}


def iter_cells(**values: Sequence[Any]) -> Iterator[Cell]:
    """Yield a cell for each combination of values."""
    for chosen in itertools.product(*values.values()):
        yield replace(Cell(), **dict(zip(values, chosen, strict=True)))


def main() -> None:
    """Simulate the parts and print a row for each cell."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", choices=PARTS, action="append")
    parser.add_argument("--draws", type=int)
    parser.add_argument("--seed", type=int, default=0, help="99 was used to choose the rules, 0 is reported")
    options = parser.parse_args()
    plain = asdict(Cell())
    for part in options.part or PARTS:
        row, cells, draws = PARTS[part]
        for cell in cells():
            named = {key: value for key, value in asdict(cell).items() if value != plain[key]}
            found = row(cell, options.draws or draws, options.seed)
            print(json.dumps({"part": part} | named | found), flush=True)


if __name__ == "__main__":
    main()
