"""What the choice of a prompt on dev questions brings: expected gain and loss, by number of prompts and by rule.

Simulated trials spend the answers as `runners.arms.prompt_selection` does. In each, the prompts have true means; what counts
is the true mean of the prompt that is taken above that of the default. Scores are as those of two real trials (paired
differences with a standard deviation of .1 to .2), or right and wrong.

The first tables draw the means of prompts independently, and compare rules of decision. The last ones draw them by kind:
the nearest examples share most of their effect, so do many examples, and so do instructions on whichever examples; they
compare the eight prompts of before (four fixed banks, with and without rules) with lists of the new ones.

    python -m benchmarks.audition
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator

import numpy as np
from scipy import stats

from runners.arms.prompt_selection import halving_rounds, score_lead

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


def main() -> None:
    """Print a table for each kind of score."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
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
        print(f"\nprompts by kind, {f'paired sd {noise}' if noise else 'right or wrong'}, half an error")
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
    trials, prompts = true.shape
    planned = halving_rounds(prompts, DEV, BUDGET)
    scores = answers(true, sum(each for _, each in planned), noise, rng)
    alive, total, asked = np.ones(true.shape, bool), np.zeros(true.shape), 0
    for number, (size, each) in enumerate(planned):
        if number:
            ranked = np.where(alive, total, -np.inf)
            ranked[:, 0] = np.inf
            kept = np.argsort(-ranked, axis=1, kind="stable")[:, :size]
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
    return np.array([score_lead(row, [0.0] * fresh).enough for row in apart[:, -fresh:].tolist()])


def sure(apart: Values, fresh: int) -> Values:
    """Take it only where a 95 % interval on the fresh questions lies above zero (Student's, in place of BCa)."""
    return above(apart[:, -fresh:], float(stats.t.ppf(0.975, fresh - 1)))


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
    "half an error (now)": followed,
    "any lead": better,
}

if __name__ == "__main__":
    main()
