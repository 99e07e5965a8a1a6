"""The parts of docs/how-it-decides.md and docs/accuracy.md on how often advice is right, from the constants of the code."""

from __future__ import annotations

import textwrap

from advisor.history import OwnTrials
from advisor.recommendation.probability import (
    HIGH_FROM,
    LOW_BELOW,
    PRIOR_TRIALS,
    UNSEEN_BASELINES,
    UNSEEN_SETS,
    AdviceRate,
    unseen_text,
)
from scripts.pages import table

WIDTH = 120
RATE = """\
There is one rate for all advice. It was right in {unseen}, scored before any rule was written or changed with them in
view: it named the method that won, or one that the source supports nearly as well. That is the `probability` of `plan
--json`. It does not say that the advised way is good enough for you, nor by how much it leads: a trial of your own says
that."""
MEANING = """\
The *rule of thumb* takes rag for new facts, lora for a style that is far off with 50 examples or more, hybrid for both, a
classifier for labels with 100 examples or more unless new facts are needed, and prompting for all else; *always* is the one
method that is right most often. Both were counted where the decisions are at hand. On the 62 the rule of thumb was ahead of
the advice. On 150 others that nobody had seen, which were scored outside of this repository, the advice was right in 105
and the rule of thumb in 70.

The sets differ by more than chance, so the rate for you may differ too. Of the 26 label tasks among the last 62
(`benchmarks/unseen/cases.json`, its first score in `first_score.json`) 11 were right: a classifier, a router or a nearest
reply won others.

**A probability for each advice, and the levels high, medium and low, were tried and separated nothing.** On 115 of these
decisions a higher number went with right advice in 52 of 100 pairs of a right and a wrong one (AUC .52, .40 to .64), its
log score was .78 where that of a constant is .63, and *high* was right in 26 of 39, *medium* in 21 of 31, *low* in 30 of
45. So no screen shows them. `confidence` stays in `plan --json` for scripts: high from {high:g}, low below {low:g}, the
word for the one rate, which tells no advice from another. `ranked[].probability` is the rate for the choice and null for
the others.

What is open about *your* advice is said in words (`confidence_because`): an answer that is not known and on which the
choice depends, a method close behind, a classifier that may do better, hardware that is not used, few examples, a better
method that cannot be done here; and what would settle it.

**Your own trials move the rate.** The latest finished trial of each plan in your
[history](how-it-measures.md#prediction-and-measurement) counts where it confirmed or overturned the advice; undecided
ones, trials on another model and the demo do not. The published rate weighs as much as {prior:g} trials, by how much the
four sets differ (a beta-binomial distribution fitted to them by moments, Kleinman 1973: a + b = 4.97). After {right} of
{n} it is {value:.2f}, with a 95 % interval of {least:.2f} to {most:.2f} (`own_trials`). In simulations of users who
differ as these sets do, such intervals hold the user's own rate in 95 of 100."""
PUBLISHED_TEXT = """\
348 decisions of 280 sources were used to write the rules and their weights, so the advice on them proves nothing. Advice
was right in {unseen}. These sets have been looked at since: with the 53, the 62 and 58 label decisions
(`benchmarks/unseen/labels.json`) it was chosen, on halves of their sources, which rules stay. On the halves that were kept
for the report, 89 decisions (rules had been changed with the 62 in view before), the advice was right in 72 without the 24
rules that went, in 71 with
them, a rule of thumb in 53 (sign test, p = 0.0005). `tunewise eval-advice CASES` scores your own file, beside
the same baselines, and [how sure](how-it-decides.md#how-sure)
explains the rate."""


def how_sure_section() -> list[str]:
    """Return the part of the page: the rate, the sets it comes from, what was tried, and what own trials do to it."""
    own = AdviceRate(OwnTrials(3, 4))
    least, most = own.interval
    sets = [
        (name, f"{right} of {n}", f"{right / n:.2f}", *_baselines(name))
        for name, (right, n) in UNSEEN_SETS.items()
    ]
    meaning = MEANING.format(
        high=HIGH_FROM,
        low=LOW_BELOW,
        prior=PRIOR_TRIALS,
        right=own.own.right,
        n=own.own.n,
        value=own.value,
        least=least,
        most=most,
    )
    rate = _wrapped(RATE.format(unseen=unseen_text()))
    return [
        *rate,
        "",
        *table(("decisions", "right", "rate", "rule of thumb", "always"), sets),
        "",
        *_wrapped(meaning),
    ]


def _baselines(name: str) -> tuple[str, str]:
    """Return what the rule of thumb and the best constant method have right in a set; "not at hand" without its file."""
    if name not in UNSEEN_BASELINES:
        return "not at hand", "not at hand"
    thumb, method, right = UNSEEN_BASELINES[name]
    return f"{thumb}", f"{method} {right}"


def published_section() -> list[str]:
    """Return the section of docs/accuracy.md on published decisions."""
    return ["## Published decisions", "", *_wrapped(PUBLISHED_TEXT.format(unseen=unseen_text()))]


def _wrapped(text: str) -> list[str]:
    """Return paragraphs as lines of :data:`WIDTH`."""
    paragraphs = (
        textwrap.fill(" ".join(part.split()), WIDTH, break_on_hyphens=False) for part in text.split("\n\n")
    )
    return "\n\n".join(paragraphs).split("\n")
