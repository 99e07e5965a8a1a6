"""The part of docs/how-it-decides.md on the probability of the advice, and its picture, from the recorded fit."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from advisor.recommendation import probability
from advisor.recommendation.confidence import HIGH_FROM, LOW_BELOW, unseen_text
from scripts.pages import table

ROOT = Path(__file__).resolve().parent.parent
RECORD = ROOT / "benchmarks" / "advice_probability.json"
PICTURE = "pictures/reliability.svg"
SIZE = 420
MARGIN = 50
MEANING = """\
A recommendation carries a `probability`. It answers one question: *if this were tried properly, how often would no other
way turn out surely better?* Properly is a trial with at least 200 questions, or a published comparison; surely means that
chance alone does not explain the difference. It does not say that the advised way is good enough for you, nor by how much
it leads.

**On decisions that no rule had seen the number did not hold.** The advice was right in {unseen}, and not more often where it
was surer: of the last 115, a higher number went with right advice in 52 of 100 pairs of a right and a wrong one (AUC .52,
.40 to .64), and its log score was .78 where that of a constant is .63. Of the newest 62 (`benchmarks/unseen/cases.json`,
scored before any rule was changed: `first_score.json`) 31 were right, of their 26 label tasks 11: a classifier, a router or
a nearest reply, which won some of these, are not among the methods yet. So take the number and its word for a count of the
doubts that apply here, and a trial of your own for the answer.

It is not an opinion of the program about itself. The rules choose the method. Then a small formula looks at what made
advice fail before, on published decisions and on the public trials of [accuracy](accuracy.md), and takes something off for
each of these that applies here. With answers alone the number is about published comparisons; as soon as you name files,
it is about a trial on them.

The words are cuts of that number: high from {high:g}, low below {low:g}."""
PICTURE_TEXT = """\
Each dot is a group of published decisions to which the advice gave about the same probability (left to right). Its height
is the share in which it held, the bar is the 95 % interval of that share, and on the dashed line 80 means that 80 of 100
held. Each source was left out in turn when the weights were fitted, but rules, doubts and cuts were chosen by people who
had read these decisions, so the picture shows how well they fit and not how well they foretell. Over all {n} decisions of
{sources} sources the mean squared error (Brier score) is {brier:.3f}; always giving the same probability would have
{constant:.3f}."""
PUBLISHED_TEXT = """\
{n} decisions of {sources} sources: papers, guides and benchmarks in which one way of adapting a model came out ahead. In
{accepted} the advice names it, or one that the source supports nearly as well. Each probability is computed from the other
sources alone; Brier score {brier:.3f}, of a constant {constant:.3f}. Rules, doubts and cuts were chosen with these decisions
in view: on decisions that no rule had seen the advice was right in {unseen}, and not more often where it was surer.
`tunewise eval-advice CASES` prints the same for your own file, and [how sure](how-it-decides.md#how-sure) explains it."""
WEIGHTS = """\
The weight is in log odds: at 0.90, a weight of 1 brings the number to 0.77, a weight of 0.5 to 0.85. Without any doubt it
is {published:.2f} for published comparisons and {trial:.2f} for trials. A weight may only have the sign that makes sense,
and a penalty keeps it small unless the cases insist. `ranked[].probability` says how likely each way is to come out best;
these sum to 1 together with the arms in `also_measure`. `python -m benchmarks.advice_probability` fits and checks all of
it."""


def how_sure_section() -> list[str]:
    """Return the part of the page: what the number means, the picture, how well it holds, and what lowers it."""
    record: Mapping[str, Any] = json.loads(RECORD.read_text("utf-8"))
    published, coefficients = record["published"], record["coefficients"]
    text = inspect.getdoc(probability.AdviceDoubts) or ""
    described = re.findall(r"^    (\w+): (.*(?:\n        .*)*)", text, re.MULTILINE)
    doubts = [
        (f"`{name}`", " ".join(words.split()), f"{coefficients[name]:.2f}") for name, words in described
    ]
    return [
        MEANING.format(high=HIGH_FROM, low=LOW_BELOW, unseen=unseen_text()),
        "",
        f"![How often advice of a given probability held]({PICTURE})",
        "",
        PICTURE_TEXT.format(
            n=published["n"],
            sources=published["sources"],
            brier=published["brier"],
            constant=published["brier_of_constant"],
        ),
        "",
        "What lowers it (`confidence_because` names what applies to you, and what would raise the number):",
        "",
        *table(("doubt", "what it is", "weight"), doubts),
        "",
        WEIGHTS.format(
            published=probability.logistic(coefficients["PUBLISHED_INTERCEPT"]),
            trial=probability.logistic(coefficients["TRIAL_INTERCEPT"]),
        ),
    ]


def published_section() -> list[str]:
    """Return the section of docs/accuracy.md on published decisions: reliability by band, the levels, the Brier score."""
    published = json.loads(RECORD.read_text("utf-8"))["published"]
    bands = [
        (
            f"{row['from']:.2f} to {min(1.0, row['below']):.2f}",
            f"{row['mean']:.2f}",
            str(row["n"]),
            _share(row),
        )
        for row in published["reliability"]
        if row["n"]
    ]
    return [
        "## Published decisions",
        "",
        PUBLISHED_TEXT.format(
            n=published["n"],
            sources=published["sources"],
            accepted=published["accepted"],
            unseen=unseen_text(),
            brier=published["brier"],
            constant=published["brier_of_constant"],
        ),
        "",
        *table(("probability", "mean", "decisions", "held, 95 % interval"), bands),
    ]


def draw_reliability() -> str:
    """Return the picture as SVG: share that held over the probability that was given, with intervals."""
    published = json.loads(RECORD.read_text("utf-8"))["published"]

    def x(value: float) -> float:
        return MARGIN + value * SIZE

    def y(value: float) -> float:
        return MARGIN + (1 - value) * SIZE

    marks = []
    for row in published["reliability"]:
        if not row["n"]:
            continue
        at = x(row["mean"])
        marks.append(
            f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{y(row["low"]):.1f}" y2="{y(row["high"]):.1f}" stroke="#4477aa" '
            'stroke-width="2"/>'
            f'<circle cx="{at:.1f}" cy="{y(row["rate"]):.1f}" r="{3 + row["n"] ** 0.5 / 2:.1f}" fill="#4477aa"/>'
        )
    ticks = []
    for tenth in range(0, 11, 2):
        value = tenth / 10
        ticks.append(
            f'<text x="{x(value):.0f}" y="{y(0) + 20:.0f}" text-anchor="middle">{value:.1f}</text>'
            f'<text x="{MARGIN - 8}" y="{y(value) + 4:.0f}" text-anchor="end">{value:.1f}</text>'
        )
    whole = SIZE + 2 * MARGIN
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {whole} {whole}" width="{whole}" height="{whole}" '
        'font-family="sans-serif" font-size="13">'
        f'<rect width="{whole}" height="{whole}" fill="#ffffff"/>'
        f'<rect x="{MARGIN}" y="{MARGIN}" width="{SIZE}" height="{SIZE}" fill="none" stroke="#888888"/>'
        f'<line x1="{x(0)}" y1="{y(0)}" x2="{x(1)}" y2="{y(1)}" stroke="#bbbbbb" stroke-dasharray="5 4"/>'
        f"{''.join(ticks)}{''.join(marks)}"
        f'<text x="{x(0.5)}" y="{whole - 10}" text-anchor="middle">probability that the advice gave</text>'
        f'<text transform="translate(14 {y(0.5)}) rotate(-90)" text-anchor="middle">share in which it held</text>'
        "</svg>\n"
    )


def _share(row: Mapping[str, Any]) -> str:
    return f"{row['rate']:.2f}, {row['low']:.2f} to {row['high']:.2f}" if row["n"] else ""
