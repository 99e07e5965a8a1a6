"""How often a verdict calls a difference sure that is none, and which differences it finds: simulated through what decides.

    python -m benchmarks.simulated_verdicts [--part few|many|lead|recheck|needed|crossings] [--trials N] [--record]

Two arms answer the same questions. Questions of one document are alike, and each arm is good or bad at a document by luck
(``LUCKS``: standard deviation of the log odds), so with equal arms every "surely better" is wrong. ``few`` simulates 3 to 9
documents of 5 to 40 questions each, alike and unlike in size, ``many`` 10 to 30; each is also run with one arm truly better.
``lead`` simulates which lead in right answers 30 to 200 questions of as many documents find. ``recheck`` compares the loss
that a recheck says it finds with 80 % with how often its decision finds it. ``needed`` compares the further questions that
an open verdict or recheck names with how often so many more decide it. ``crossings`` simulates learning curves of several
arms: how often one is called clearly ahead where none is, and a later lead is found. Fixed seeds. ``--record`` writes
benchmarks/simulated_verdicts.json, of which ``python scripts/docs.py`` makes a part of docs/how-it-measures.md.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from advisor.verdict.comparison import ArmStanding, compare_with_others, questions_needed
from advisor.verdict.crossings import compare_curves
from advisor.verdict.regression import Decision, decide, paired_changes, smallest_found_loss
from runners.trial.trial import ArmScores

RECORD = Path(__file__).parent / "simulated_verdicts.json"
PARTS = ("few", "many", "lead", "recheck", "needed", "crossings")
FEW, MANY = (3, 4, 5, 6, 7, 9), (10, 15, 30)
EACH = (5, 12, 40)
LUCKS = (1.0, 3.0)
SHAPES = ("alike", "unlike")
BETTER = 1.5
"""Log odds by which the better arm is better where power is simulated: about 50 right of 100 become 75."""
MOST_NAMED = 2000
"""Trials that name more questions than this are left out of ``needed``: their larger trial takes long to simulate."""
CURVE_SIZES = (50, 100, 200, 400)
CURVE_RESAMPLES = 1000
"""Bootstrap samples and sign flips of each pair of curves: a tenth of what ``tunewise curve`` draws, to save time."""
LEADS: Mapping[int, Sequence[float]] = {
    30: (0.2, 0.3, 0.4),
    60: (0.15, 0.2, 0.3),
    120: (0.1, 0.15, 0.2),
    200: (0.1, 0.15),
}
"""Questions, each of a document of its own -> leads in the share of right answers."""


def sources(draw: np.random.Generator, documents: int, each: int, shape: str) -> np.ndarray:
    """Return the document of each question; documents that are unlike hold 1 to 2 * each - 1 questions."""
    sizes = np.full(documents, each) if shape == "alike" else draw.integers(1, 2 * each, documents)
    return np.repeat(np.arange(documents), sizes)


def right_answers(
    draw: np.random.Generator, documents: np.ndarray, luck: float, lift: float = 0.0
) -> np.ndarray:
    """Return right (1) and wrong (0) answers of two arms, float [2, questions]; the first is better by ``lift``."""
    count = int(documents.max()) + 1
    hard = draw.normal(0, 0.9, count)[documents] + draw.normal(0, 0.8, len(documents))
    own = draw.normal(0, luck, (2, count))[:, documents]
    chance = 1 / (1 + np.exp(-(hard + own + np.array([[lift], [0.0]]))))
    return (draw.random(chance.shape) < chance).astype(float)


def arm_of(name: str, right: Sequence[float], documents: Sequence[str]) -> ArmScores:
    """Return an arm's scores, one question for each value."""
    count = len(right)
    ids, rows = tuple(str(n) for n in range(count)), tuple({"right": value} for value in right)
    ones = (1,) * count
    return ArmScores(name, ids, rows, tuple(right), (0.1,) * count, ones, ones, tuple(documents))


def standing_of(of_arms: np.ndarray, documents: Sequence[str], seed: int) -> ArmStanding:
    """Return how the first of two arms stands against the second, by the comparison of a verdict."""
    arms = {name: arm_of(name, row.tolist(), documents) for name, row in zip("ab", of_arms, strict=True)}
    return compare_with_others("a", arms, ("b",), 0.0, seed)


def sure(of_arms: np.ndarray, documents: Sequence[str], seed: int) -> bool | None:
    """Return whether the first of two arms is surely better (True), surely worse (False), or neither."""
    standing = standing_of(of_arms, documents, seed)
    return True if standing.gate_met else False if standing.better else None


def share_sure(
    documents: int, each: int, luck: float, shape: str = "alike", lift: float = 0.0, trials: int = 1000
) -> float:
    """Return the share of trials in which an arm comes out as surely better; with a lift, the truly better one."""
    draw, found = np.random.default_rng([documents, each, int(10 * luck)]), 0
    for trial in range(trials):
        of_question = sources(draw, documents, each, shape)
        answers = right_answers(draw, of_question, luck, lift)
        result = sure(answers, of_question.astype(str).tolist(), trial)
        found += result is True if lift else result is not None
    return found / trials


def share_led(questions: int, lead: float, trials: int) -> float:
    """Return the share of trials in which a lead in right answers is found; half of the questions are alike for both."""
    draw, found = np.random.default_rng(questions), 0
    names = [str(n) for n in range(questions)]
    for trial in range(trials):
        low, high = 0.5 - lead / 2, 0.5 + lead / 2
        luck = draw.random((2, questions))
        luck[1] = np.where(draw.random(questions) < 0.5, luck[0], luck[1])
        found += sure((luck < np.array([[high], [low]])).astype(float), names, trial) is True
    return found / trials


def share_crossed(arms: int, questions: int, lift: float = 0.0, trials: int = 200) -> dict[str, float]:
    """Return how often simulated learning curves are called clearly ahead.

    Arms are alike but for the first, which is better by ``lift`` at the two larger sizes. What an arm answers well it
    answers well at each size, so that the tests of a pair are alike.

    Returns:
        ``false``: the share of trials in which any arm is called clearly ahead where it is not better. ``found``: the share
        in which the first arm is the best, and clearly ahead of every other from one of the two larger sizes on.
    """
    draw, false, found = np.random.default_rng([arms, questions, int(10 * lift)]), 0, 0
    names, ids = [f"arm{n}" for n in range(arms)], [str(n) for n in range(questions)]
    later = CURVE_SIZES[len(CURVE_SIZES) // 2 :]
    better = np.zeros((arms, len(CURVE_SIZES), 1))
    better[0, -len(later) :] = lift
    for trial in range(trials):
        hard, own = draw.normal(0, 1.2, questions), draw.normal(0, 1, (arms, 1, questions))
        at_size = draw.normal(0, 0.5, (arms, len(CURVE_SIZES), questions))
        chance = 1 / (1 + np.exp(-(hard + own + at_size + better)))
        right = (draw.random(chance.shape) < chance).astype(float)
        scores = {
            name: {
                size: [arm_of(name, row.tolist(), ids)] for size, row in zip(CURVE_SIZES, rows, strict=True)
            }
            for name, rows in zip(names, right, strict=True)
        }
        crossings = compare_curves(scores, trial, CURVE_RESAMPLES)
        true = {(names[0], size) for size in later} if lift else set()
        false += any(one.ahead and (one.ahead, one.rows) not in true for one in crossings.at)
        found += crossings.best == names[0] and crossings.best_from in later
    return {"false": false / trials, "found": found / trials}


def found_losses(margin: float, questions: int, each: int, flips: float, trials: int) -> dict[str, Any]:
    """Return the losses that rechecks of so many questions state, and how often their decisions find one of that size.

    Every recheck states its loss by the gains that it saw, as a report does, so the statement varies with chance too.

    Args:
        margin: the loss that is accepted.
        questions: of which 70 % were right.
        each: questions of a document.
        flips: share of the answers that change by chance, half of them in either direction.
        trials: rechecks.
    """
    draw = np.random.default_rng([questions, each, int(100 * margin), int(100 * flips)])
    names = [f"d{n // each}" for n in range(questions)]
    was = (draw.permutation(questions) < 0.7 * questions).astype(float)
    right, wrong = was.sum(), (1 - was).sum()
    before = arm_of("rag", was.tolist(), names)
    unchanged = paired_changes([(before, before)])
    stated: dict[int, int] = {}
    found = 0
    for seed in range(trials):
        gains = int(draw.binomial(wrong, flips * questions / 2 / wrong))
        if gains not in stated:
            loss = smallest_found_loss(
                before, [replace(change, gains=gains) for change in unchanged], margin=margin
            )
            stated[gains] = loss.answers if loss else questions
        chance = np.where(was == 1, (stated[gains] + flips * questions / 2) / right, gains / wrong)
        now = arm_of("rag", np.where(draw.random(questions) < chance, 1 - was, was).tolist(), names)
        found += decide(paired_changes([(before, now)], seed=seed), margin, 0).outcome == "regression"
    return {"stated": [min(stated.values()), max(stated.values())], "found": found / trials}


def resampled(
    draw: np.random.Generator, values: np.ndarray, documents: np.ndarray, count: int
) -> tuple[np.ndarray, list[str]]:
    """Return the answers of ``count`` documents drawn from those seen, whose difference is the one seen, and their names."""
    columns = [np.flatnonzero(documents == drawn) for drawn in draw.integers(0, documents.max() + 1, count)]
    names = [f"d{n}" for n, questions in enumerate(columns) for _ in questions]
    return values[:, np.concatenate(columns)], names


def decided_with_more(documents: int, each: int, lift: float, trials: int) -> dict[str, Any]:
    """Return how many more questions open verdicts name, and how often so many more decide.

    ``as seen`` draws the larger trial from the documents seen, so that the difference is the one that was seen;
    ``as it is`` draws it from where the trial came from, where the difference is another than the one seen.

    Args:
        documents: of a trial.
        each: questions of a document.
        lift: log odds by which the first arm is truly better.
        trials: trials; those that decide at once are not counted.
    """
    draw, named, as_seen, as_it_is = np.random.default_rng([documents, each, int(10 * lift)]), [], 0, 0
    for trial in range(trials):
        of_question = np.repeat(np.arange(documents), each)
        answers = right_answers(draw, of_question, 1.0, lift)
        standing = standing_of(answers, of_question.astype(str).tolist(), trial)
        needed = None if standing.gate_met or standing.better else questions_needed([standing.gate["b"]])
        if needed is None or needed.questions > MOST_NAMED:
            continue
        named.append(needed.questions)
        total = documents + (needed.documents or -(-needed.questions // each))
        as_seen += sure(*resampled(draw, answers, of_question, total), trial) is not None
        more = np.repeat(np.arange(total), each)
        as_it_is += sure(right_answers(draw, more, 1.0, lift), more.astype(str).tolist(), trial) is not None
    count = len(named)
    return {
        "named": [int(np.percentile(named, share)) for share in (10, 50, 90)],
        "open": count,
        "as seen": as_seen / count,
        "as it is": as_it_is / count,
    }


def found_with_more(questions: int, each: int, margin: float, loss: float, trials: int) -> dict[str, Any]:
    """Return how many more questions undecided rechecks name, and how often so many more find a loss as large as seen.

    Args:
        questions: of which 70 % were right.
        each: questions of a document.
        margin: the loss that is accepted.
        loss: share of the answers that are truly lost; as many as half of it are gained besides.
        trials: rechecks; those that decide at once are not counted.
    """
    draw, named, found = np.random.default_rng([questions, each, int(100 * margin), int(100 * loss)]), [], 0
    of_question = np.arange(questions) // each
    was = (draw.permutation(questions) < 0.7 * questions).astype(float)
    for seed in range(trials):
        chance = np.where(was == 1, 1.5 * loss / 0.7, 0.5 * loss / 0.3)
        values = np.vstack([was, np.where(draw.random(questions) < chance, 1 - was, was)])
        decision = decision_of(values, of_question.astype(str).tolist(), margin, seed)
        more = decision.more_questions_needed or 0
        if decision.outcome != "undecided" or not 0 < more <= MOST_NAMED:
            continue
        named.append(more)
        total = -(-(questions + more) // each)
        larger, names = resampled(draw, values, of_question, total)
        found += decision_of(larger, names, margin, seed).outcome == "regression"
    count = len(named)
    return {
        "named": [int(np.percentile(named, share)) for share in (10, 50, 90)],
        "open": count,
        "as seen": found / count,
    }


def decision_of(values: np.ndarray, documents: Sequence[str], margin: float, seed: int) -> Decision:
    """Return what a recheck decides of right answers before and now, float [2, questions]."""
    before, now = (arm_of("rag", row.tolist(), documents) for row in values)
    return decide(paired_changes([(before, now)], seed=seed), margin, 0)


def needed_rows(trials: int) -> Iterator[dict[str, Any]]:
    """Yield what open verdicts and rechecks name as needed, and how often it decides."""
    for documents, each, lift in (
        (40, 1, 0.5),
        (120, 1, 0.3),
        (12, 5, 0.5),
        (30, 4, 0.5),
        (6, 10, 0.7),
        (4, 12, 1.0),
    ):
        cell = {"of": "verdict", "documents": documents, "each": each, "lift": lift, "trials": trials}
        yield cell | decided_with_more(documents, each, lift, trials)
    for questions, each, margin, loss in (
        (60, 1, 0.0, 0.05),
        (120, 6, 0.0, 0.04),
        (120, 24, 0.0, 0.06),
        (120, 6, 0.05, 0.08),
    ):
        cell = {
            "of": "recheck",
            "documents": questions // each,
            "each": each,
            "margin": margin,
            "loss": loss,
            "trials": trials,
        }
        yield cell | found_with_more(questions, each, margin, loss, trials)


def few_rows(counts: Sequence[int], trials: int) -> Iterator[dict[str, Any]]:
    """Yield a row for each number of documents, questions each, luck and shape."""
    for documents in counts:
        for each in EACH:
            for luck in LUCKS:
                for shape in SHAPES:
                    cell = {
                        "documents": documents,
                        "each": each,
                        "luck": luck,
                        "shape": shape,
                        "trials": trials,
                    }
                    yield cell | {"false": share_sure(documents, each, luck, shape, trials=trials)}


def power_rows(counts: Sequence[int], trials: int) -> Iterator[dict[str, Any]]:
    """Yield how often an arm that is better by :data:`BETTER` is found."""
    for documents in counts:
        for each in EACH:
            for luck in (0.0, 1.0):
                found = share_sure(documents, each, luck, lift=BETTER, trials=trials)
                yield {"documents": documents, "each": each, "luck": luck, "trials": trials, "found": found}


def lead_rows(trials: int) -> Iterator[dict[str, Any]]:
    """Yield how often leads in right answers are found."""
    for questions, leads in LEADS.items():
        for lead in leads:
            yield {
                "questions": questions,
                "lead": lead,
                "trials": trials,
                "found": share_led(questions, lead, trials),
            }


def recheck_rows(trials: int) -> Iterator[dict[str, Any]]:
    """Yield stated and found losses of rechecks."""
    for questions, each in ((60, 1), (120, 6), (120, 24)):
        for margin in (0.0, 0.1):
            for flips in (0.0, 0.06):
                cell = {
                    "questions": questions,
                    "each": each,
                    "margin": margin,
                    "flips": flips,
                    "trials": trials,
                }
                yield cell | found_losses(margin, questions, each, flips, trials)


def crossing_rows(trials: int) -> Iterator[dict[str, Any]]:
    """Yield how often curves of equal arms are told apart, and how often a lead at the larger sizes is found."""
    for arms, questions, lift in (
        (2, 40, 0.0),
        (2, 200, 0.0),
        (4, 40, 0.0),
        (4, 200, 0.0),
        (3, 100, 1.0),
        (3, 100, 1.5),
        (3, 300, 1.0),
    ):
        cell = {"arms": arms, "questions": questions, "lift": lift, "trials": trials}
        yield cell | share_crossed(arms, questions, lift, trials)


def main() -> None:
    """Simulate the parts, print their rows, and keep them with ``--record``."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", choices=PARTS, action="append")
    parser.add_argument("--trials", type=int)
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args()
    record = json.loads(RECORD.read_text("utf-8")) if RECORD.exists() else {}
    parts = {
        "few": lambda: few_rows(FEW, options.trials or 1000),
        "few power": lambda: power_rows(FEW, options.trials or 300),
        "many": lambda: few_rows(MANY, options.trials or 200),
        "many power": lambda: power_rows(MANY, options.trials or 100),
        "lead": lambda: lead_rows(options.trials or 300),
        "recheck": lambda: recheck_rows(options.trials or 300),
        "needed": lambda: needed_rows(options.trials or 400),
        "crossings": lambda: crossing_rows(options.trials or 200),
    }
    for name, rows in parts.items():
        if options.part and name.split()[0] not in options.part:
            continue
        record[name] = []
        for row in rows():
            print(name, json.dumps(row), flush=True)
            record[name].append(row)
        if options.record:
            RECORD.write_text(json.dumps(record, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
