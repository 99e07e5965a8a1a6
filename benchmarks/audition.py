"""What the choice of a prompt on dev questions brings: expected gain and loss, by number of prompts and by rule.

Simulated trials spend the answers as `runners.arms.prompt_selection` does. In each, the prompts have true means; what counts
is the true mean of the prompt that is taken above that of the default. Scores are as those of two real trials (paired
differences with a standard deviation of .1 to .2), or right and wrong. All prompts cost the same.

The first table (:data:`CELLS` by :data:`GRADES`) compares the rule with that of 0.2.0, which asked the default in every
round and took a prompt that led by half a standard error: how often one of equal prompts is taken, and how much of the gain
is kept where one prompt is better by .1. "Bound" is what the most powerful test keeps of the same answers that takes equal
prompts in 15 of 100 trials, where grades are 0 and 1 (Neyman and Pearson 1933: the differing questions' signs, drawn at the
boundary). The rule was chosen on other cells: 2, 4, 6 and 10 prompts with 8 to 40 dev questions, other spreads and shares.

The next tables draw the means of prompts independently, and compare rules of decision. The last ones draw them by kind:
the nearest examples share most of their effect, so do many examples, and so do instructions on whichever examples; they
compare the eight prompts of before (four fixed banks, with and without rules) with lists of the new ones.

    python -m benchmarks.audition
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from runners.arms.prompt_selection import halving_rounds
from runners.scoring.prompt_lead import score_lead

BUDGET, DEV, BASE = 60, 30, 0.45
Values = np.ndarray
LISTS: dict[str, tuple[str, ...]] = {
    "8 as before": ("fixed", "reversed", "others", "plain", "fixed+", "reversed+", "others+", "plain+"),
    "5": ("fixed", "near 8", "many", "near 16", "fixed+"),
    "8": ("fixed", "near 8", "near 16", "many", "fixed+", "near 8+", "near most", "many+"),
    "10 (now)": (
        "fixed", "near 8", "near 16", "many", "fixed+", "near 8+", "near most", "many+", "near 16+", "near 4",
    ),
    "12": (
        "fixed", "near 8", "near 16", "many", "fixed+", "near 8+", "near most", "many+", "near 16+", "near 4",
        "reversed", "near most+",
    ),
}  # fmt: skip
"""Prompts by name in the order in which they are tried; + is the other wording of the instructions."""
KINDS: dict[str, tuple[tuple[float, float], tuple[float, float], tuple[float, float]]] = {
    "all equal": ((0.0, 0.0), (0.0, 0.0), (0.0, 0.0)),
    "kinds differ": ((0.06, 0.12), (0.04, 0.10), (0.0, 0.06)),
    "labels": ((0.20, 0.10), (0.12, 0.10), (0.02, 0.05)),
    "near and many worse": ((-0.10, 0.07), (-0.08, 0.06), (0.0, 0.06)),
}
"""Mean and standard deviation, over trials, of the effect of nearest examples, of many, and of the other wording."""
OWN_SPREAD = 0.03
"""Standard deviation of what each prompt has of its own beside the effects of its kind."""


BETTER = 0.1
"""True lead of the better prompt in the first table."""
CELLS = (
    (2, 8, 60),
    (2, 15, 60),
    (2, 30, 60),
    (2, 60, 120),
    (3, 60, 60),
    (5, 30, 60),
    (8, 30, 60),
    (12, 60, 60),
    (12, 60, 120),
)
"""Prompts, dev questions and answers of the first table."""


def main() -> None:
    """Print a table for each kind of score."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    print(f"{'':46}{'equal, taken':>14}{'gain of one better':>30}")
    print(
        f"{'prompts, dev, answers':23}{'grades':23}{'before':>7}{'now':>7}{'before':>9}{'kept':>7}{'bound':>7}"
    )
    for cell in CELLS:
        for name in GRADES:
            one = compare_rules(*cell, name, given.trials, given.seed)
            bound = "" if one.bound is None else f"{one.bound:7.2f}"
            print(
                f"{cell!s:23}{name:23}{one.equal_before:7.3f}{one.equal:7.3f}{one.gain_before:9.4f}{one.kept:7.2f}{bound}"
            )
    for prompts, noise in ((10, 0.1), (10, 0.2), (4, 0.2), (10, None), (4, None)):
        kind = f"paired sd {noise}" if noise else "right or wrong"
        print(f"\n{prompts} prompts, {kind}: rounds {halving_rounds(prompts, DEV, BUDGET)}")
        print(f"{'':24}" + "".join(f"{name:>20}" for name in RULES))
        rng = np.random.default_rng(given.seed)
        for name, true in worlds(given.trials, prompts, rng):
            apart, fresh, other = compete(true, noise, rng)
            told = [outcome(rule(apart, fresh), true, other) for rule in RULES.values()]
            print(f"{name:24}" + "".join(f"{taken:>13.0%} {gain:+.3f}" for taken, gain in told))
    for noise in (0.2, None):
        print(f"\nprompts by kind, {f'paired sd {noise}' if noise else 'right or wrong'}, the rule")
        print(f"{'':24}" + "".join(f"{name:>20}" for name in LISTS))
        rng = np.random.default_rng(given.seed)
        for name, effects in KINDS.items():
            true_of = prompts_by_kind(given.trials, effects, rng)
            cells = []
            for names in LISTS.values():
                true = np.stack([true_of[prompt] for prompt in names], axis=1)
                apart, fresh, other = compete(true, noise, rng)
                cells.append(outcome(followed(apart, fresh), true, other))
            print(f"{name:24}" + "".join(f"{taken:>13.0%} {gain:+.3f}" for taken, gain in cells))


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleComparison:
    """The rule beside the one before, on the same number of answers."""

    equal_before: float
    """Share of trials with equal prompts in which the former rule left the default."""
    equal: float
    """The same of the present rule."""
    gain_before: float
    """Mean true gain of the former rule where one prompt is better by :data:`BETTER`."""
    gain: float
    bound: float | None
    """Share of that gain which the most powerful test keeps of the present answers; None unless grades are 0 and 1."""

    @property
    def kept(self) -> float:
        """The present rule's gain as a share of the former one's."""
        return self.gain / self.gain_before


def compare_rules(prompts: int, dev: int, budget: int, grades: str, trials: int, seed: int) -> RuleComparison:
    """Simulate equal prompts, and prompts of which one is better, with both rules."""
    equal = np.zeros((trials, prompts))
    better = equal.copy()
    better[np.arange(trials), np.random.default_rng(seed).integers(1, prompts, trials)] = BETTER
    told = []
    for rounds, rule, asks_default in (
        (former_rounds, half_an_error, True),
        (halving_rounds, followed, False),
    ):
        planned = rounds(prompts, dev, budget)
        for true in (equal, better):
            rng = np.random.default_rng(seed)
            scores = GRADES[grades](true, sum(each for _, each in planned), rng)
            apart, fresh, other = halve(true, scores, planned, asks_default)
            told.append(
                (outcome(rule(apart, fresh), true, other), apart[:, -fresh:], true[np.arange(trials), other])
            )
    (before, *_), (before_better, *_), (now, null, _), (now_better, apart, gains) = told
    bound = most_powerful(null, apart, gains) / before_better[1] if grades.startswith("0/1") else None
    return RuleComparison(
        equal_before=before[0], equal=now[0], gain_before=before_better[1], gain=now_better[1], bound=bound
    )


def most_powerful(null: Values, apart: Values, gains: Values) -> float:
    """Return the gain of the test of 0/1 grades that takes equal prompts in 15 of 100 trials.

    By the share of the signs of the questions that differ, in standard errors; ties are drawn.
    """
    rng = np.random.default_rng(0)

    def statistic(rows: Values) -> Values:
        return rows.sum(axis=1) / np.sqrt(np.maximum(1, np.abs(rows).sum(axis=1))) + rng.normal(
            0, 1e-6, len(rows)
        )

    return float(np.where(statistic(apart) > np.quantile(statistic(null), 0.85), gains, 0).mean())


def former_rounds(count: int, dev: int, budget: int) -> tuple[tuple[int, int], ...]:
    """Return (prompts, questions each) of every round as in 0.2.0: with the default in each."""
    sizes: list[int] = []
    while count > 2:
        sizes.append(count)
        count = -(-count // 2)
    screening = min(0.5 * budget, budget - 16)
    rounds = [(size, max(1, int(screening / len(sizes) / size))) for size in sizes]
    left = budget - sum(size * each for size, each in rounds)
    return (*rounds, (2, min(left // 2, dev - sum(each for _, each in rounds))))


def combined(spread: float) -> Callable[[Values, int, np.random.Generator], Values]:
    """Return what draws combined scores whose paired differences have this standard deviation."""

    def draw(true: Values, questions: int, rng: np.random.Generator) -> Values:
        return answers(true, questions, spread, rng)

    return draw


def right_or_wrong(shared: float, facts: int = 1) -> Callable[[Values, int, np.random.Generator], Values]:
    """Return what draws grades of 0 and 1, or the mean of so many such facts.

    ``shared`` is the correlation between two prompts' latent grades of one question (a Gaussian copula).
    """

    def draw(true: Values, questions: int, rng: np.random.Generator) -> Values:
        bar = stats.norm.ppf(np.clip(BASE + true, 0.02, 0.98))[:, :, None]
        total = np.zeros((*true.shape, questions))
        for _ in range(facts):
            hard = rng.normal(size=(len(true), 1, questions))
            own = rng.normal(size=total.shape)
            total += np.sqrt(shared) * hard + np.sqrt(1 - shared) * own < bar
        return total / facts

    return draw


GRADES: dict[str, Callable[[Values, int, np.random.Generator], Values]] = {
    "combined, sd .10": combined(0.10),
    "combined, sd .17": combined(0.17),
    "combined, sd .20": combined(0.20),
    "4 facts": right_or_wrong(0.5, 4),
    "2 facts": right_or_wrong(0.2, 2),
    "0/1 apart": right_or_wrong(0.0),
    "0/1 correlated": right_or_wrong(0.5),
    "0/1 much alike": right_or_wrong(0.85),
}
"""Distributions of the grades of a question."""


def prompts_by_kind(
    trials: int, effects: tuple[tuple[float, float], ...], rng: np.random.Generator
) -> dict[str, Values]:
    """Return the true means [trials] of every prompt above that of the fixed bank."""
    near, many, wording = (rng.normal(mean, spread, trials) for mean, spread in effects)
    own = OWN_SPREAD if any(spread for _, spread in effects) else 0.0
    true: dict[str, Values] = {}
    for bank in sorted({prompt.rstrip("+") for names in LISTS.values() for prompt in names}):
        kind = near if bank.startswith("near") else many if bank == "many" else np.zeros(trials)
        true[bank] = np.zeros(trials) if bank == "fixed" else kind + rng.normal(0, own, trials)
        true[f"{bank}+"] = true[bank] + wording
    return true


def worlds(trials: int, prompts: int, rng: np.random.Generator) -> Iterator[tuple[str, Values]]:
    """Yield names and true means [trials, prompts] above the fixed bank, which is the first prompt."""
    none = np.zeros((trials, prompts))
    yield "all equal", none
    for gain in (0.05, 0.15, 0.30):
        one = none.copy()
        one[np.arange(trials), rng.integers(1, prompts, trials)] = gain
        yield f"one {gain:.2f} better", one
    for loss in (0.05, 0.10):
        yield f"all others {loss:.2f} worse", np.where(np.arange(prompts) == 0, 0.0, -loss) + none
    for spread in (0.03, 0.06, 0.12):
        drawn = rng.normal(0, spread, (trials, prompts))
        yield f"drawn, sd {spread:.2f}", drawn - drawn[:, :1]


def compete(true: Values, noise: float | None, rng: np.random.Generator) -> tuple[Values, int, Values]:
    """Carry the rounds out; return the last two's differences [trials, questions], the fresh ones, and who was left."""
    planned = halving_rounds(true.shape[1], DEV, BUDGET)
    return halve(true, answers(true, sum(each for _, each in planned), noise, rng), planned)


def halve(
    true: Values, scores: Values, planned: Sequence[tuple[int, int]], asks_default: bool = False
) -> tuple[Values, int, Values]:
    """Carry planned rounds out on scores [trials, prompts, questions]; returns as :func:`compete`.

    ``asks_default`` is whether the rounds before the last count the default among their prompts.
    """
    trials = len(true)
    alive, total, asked = np.ones(true.shape, bool), np.zeros(true.shape), 0
    for number, (size, each) in enumerate(planned):
        if number:
            ranked = np.where(alive, total, -np.inf)
            ranked[:, 0] = np.inf
            last = number == len(planned) - 1
            kept = np.argsort(-ranked, axis=1, kind="stable")[:, : size if asks_default or last else size + 1]
            alive = np.zeros(true.shape, bool)
            np.put_along_axis(alive, kept, True, axis=1)
        total += np.where(alive, scores[:, :, asked : asked + each].sum(axis=2), 0)
        asked += each
    alive[:, 0] = False
    other = alive.argmax(axis=1)
    return scores[np.arange(trials), other] - scores[:, 0], planned[-1][1], other


def answers(true: Values, questions: int, noise: float | None, rng: np.random.Generator) -> Values:
    """Return scores [trials, prompts, questions]; some questions are harder for all prompts."""
    hard = rng.normal(0, 0.12 if noise else 0.25, (len(true), 1, questions))
    mean = BASE + true[:, :, None] + hard
    if noise is None:
        return (rng.random(mean.shape) < np.clip(mean, 0.02, 0.98)).astype(float)
    return np.clip(mean + rng.normal(0, noise / np.sqrt(2), mean.shape), 0, 1)


def followed(apart: Values, fresh: int) -> Values:
    """Take the other prompt where it leads, as `runners.arms.prompt_selection` does."""
    return np.array([score_lead(row, [0.0] * fresh).replaces for row in apart[:, -fresh:].tolist()])


def sure(apart: Values, fresh: int) -> Values:
    """Take it only where a 95 % interval on the fresh questions lies above zero (Student's, in place of BCa)."""
    return above(apart[:, -fresh:], float(stats.t.ppf(0.975, fresh - 1)))


def half_an_error(apart: Values, fresh: int) -> Values:
    """Take it where it leads by more than half of the lead's standard error: the rule of 0.2.0."""
    return above(apart[:, -fresh:], 0.5)


def better(apart: Values, fresh: int) -> Values:
    """Take it wherever its mean on the fresh questions is higher."""
    return above(apart[:, -fresh:], 0.0)


def above(apart: Values, errors: float) -> Values:
    """Return where the mean is above zero by more than so many standard errors."""
    mean, count = apart.mean(axis=1), apart.shape[1]
    return mean > errors * apart.std(axis=1, ddof=1) / np.sqrt(count) + 1e-9


def outcome(taken: Values, true: Values, other: Values) -> tuple[float, float]:
    """Return how often the other prompt is taken, and the mean true gain over keeping the fixed bank."""
    gain = true[np.arange(len(true)), other]
    return float(taken.mean()), float(np.where(taken, gain, 0).mean())


RULES: dict[str, Callable[[Values, int], Values]] = {
    "sure": sure,
    "now": followed,
    "half an error": half_an_error,
    "any lead": better,
}

if __name__ == "__main__":
    main()
