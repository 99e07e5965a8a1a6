"""Parts of docs/how-it-measures.md: examples of right answers, agreement with people, the combined score, all scores."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.answers.__main__ import share_texts
from runners.data.questions import Question
from runners.plan.schema import StyleCheck
from runners.plan.score_names import SCORE_DEFINITIONS
from runners.scoring.correctness import is_right
from runners.scoring.scores import NO_ANSWER_SHARE, RIGHT_SHARE, form_scores
from scripts.pages import Part, table

ANSWERS_SUMMARY = Path(__file__).resolve().parent.parent / "benchmarks" / "answers" / "summary.json"
UNSEEN_ANSWERS = "companies"
"""The set of labelled answers that no rule was made on."""
SUMMARY = Path(__file__).resolve().parent.parent / "benchmarks" / "judged" / "summary.json"

EXAMPLES: tuple[tuple[str, Question, str, bool], ...] = (
    (
        "price",
        Question("q", "What does entry cost?", ("7.80 euros",)),
        "Entry is 7.80 euros. Shall I book it?",
        True,
    ),
    ("price", Question("q", "What does entry cost?", ("7.80 euros",)), "It costs 8.70 euros.", False),
    ("price", Question("q", "What does entry cost?", ("7.80 euros",)), "7.80 euros or 9.50 euros.", False),
    (
        "price",
        Question("q", "What does entry cost?", ("7.80 euros",)),
        "museum, euros, 7.80, ticket, harbour, ship, gallery, café, train, guide",
        False,
    ),
    (
        "yes or no",
        Question("q", "Are dogs allowed on board?", ("no",)),
        "Dogs are not allowed on board.",
        True,
    ),
    (
        "yes or no",
        Question("q", "Are dogs allowed on board?", ("no",)),
        "Are dogs allowed on board? Shall I ask?",
        False,
    ),
    ("time", Question("q", "Wann öffnet das Museum?", ("10:30 Uhr",)), "Um 10.30 Uhr.", True),
    ("name", Question("q", "Who is the diver?", ("Gunnar Sprake",)), "The diver is Gunnar Holm.", False),
    ("JSON", Question("q", "Book it", reference='{"seats": 2}'), '{"seats": 2, "day": "May 1"}', False),
    (
        "card",
        Question("q", "Label it", reference="MODEL: LX-40\nFAULT: jam"),
        "MODEL: LX-40\nFAULT: jam",
        True,
    ),
)
"""(kind, question with gold, answer, whether it is right); the page is not written when the rule says otherwise."""

FORM = f"""\
`combined = right × ({RIGHT_SHARE:g} + {1 - RIGHT_SHARE:.1g} × grade)`: an answer that is not right scores 0, a right
one {RIGHT_SHARE:g} to 1. The grade is the weighted mean of the plan's `weights` over the scores that a right answer
can still lack: `style`, `citation`, `token_f1`, `fact_recall` and the like. Weights of scores that being right
includes (`agreement`, `label`, `refusal`, `slot_f1`, ...) grade only answers whose question has no gold; there the
combined score is the weighted mean of all scores that apply. Where less is better, 1 minus the value counts. Older
plans are scored by the same form.

Why this form. In a weighted sum, an arm that repeats the closing line of the style and knows nothing earns its style
points on every question: in the shipped example an arm with 2 of 65 answers right had .52, one with 36 of 65 right
.55. A lexicographic gate (right answers first, style only to break ties) keeps them apart as well, but has no mean to
draw an interval around, and a single question decides between two arms whatever the style. The product has one number
per question, is 0 for what is not right, and never lets the grade outweigh correctness: right on share p of the
questions is a score between {RIGHT_SHARE:g} p and p, so an arm that is right more than a quarter more often leads
whatever the grades are. With .5 in place of {RIGHT_SHARE:g}, an arm right half as often could still tie; with .95 two
arms that are right equally often could hardly be distinguished.

Questions without an answer together have at most {NO_ANSWER_SHARE:.0%} of an arm's mean (each weighs less where there
are more of them). An arm that refuses everything is right on all of them and scores at most .15; one that refuses
nothing and is right on three in ten of the other questions scores at least .85 × .3 × {RIGHT_SHARE:g} = .20. Means,
intervals and paired tests use these weights; `trial/scores.json` has them as `question_weights`.

Rows of questions may have a `weight`, how often each is asked ([questions from a log](import-questions.md)). Then every
mean, also the share of right answers, is over what was asked, and the weights above multiply with these. Intervals are
those of the weighted mean: of a share the Wilson interval at the effective number of questions (that of the standard
error, at most Kish's), of a difference Student's t, with Kish's effective number less one as degrees of freedom and a
standard error that is at least that of equal spread. In 400 simulated trials each of 40 to 250 questions, with weights by
Zipf's law or as imports draw them, they held in at least 93 % (`tests/advisor/verdict/test_weighted_questions.py`).

`refusal` is shown balanced: half the share of right refusals (`correct_refusal`) plus half the share of answerable
questions that were not refused (1 minus `false_refusal`). An arm that never refuses gets .5, however few questions
have no answer.

A judge (`judge` in the plan) is shown beside these, with how often it agrees with them, and decides nothing unless it
[may count](#a-judge-if-you-want-one)."""


def scores_parts() -> dict[str, Part]:
    """Return the generated parts of docs/how-it-measures.md about scores."""
    return {
        "right-examples": examples,
        "right-agreement": agreement,
        "right-by-kind": agreement_by_kind,
        "combined-score": FORM.splitlines,
        "scores": all_scores,
    }


def all_scores() -> list[str]:
    """Return the table of all scores."""
    rows = [
        (f"`{score.name}`", score.what + (" (less is better)" if score.lower else ""), score.needs)
        for score in SCORE_DEFINITIONS
    ]
    return table(("score", "what 1 means, or what is counted", "present with"), rows)


def examples() -> list[str]:
    """Return the table of examples; ValueError when the rule judges one otherwise than the table says."""
    rows = []
    for kind, question, answer, right in EXAMPLES:
        checks: tuple[StyleCheck, ...] = ()
        if is_right(question, answer, False, forms=form_scores(question, answer, checks)) is not right:
            raise ValueError(f"scripts/scores.py: the example {answer!r} is not judged {right}")
        gold = question.answers[0] if question.answers else question.reference or ""
        rows.append((kind, question.question, gold, answer, "right" if right else "not right"))
    return table(("", "question", "gold", "answer", "is"), rows)


def agreement() -> list[str]:
    """Return how often the rule agrees with answers judged by hand."""
    summary: dict[str, Any] = json.loads(SUMMARY.read_text("utf-8"))
    total = sum(part["of"] for part in summary["part"].values())
    right = sum(part["right"] for part in summary["part"].values())
    names = {
        "dev": "the thresholds were chosen on these",
        "held": "kept aside when the thresholds were chosen; read since",
    }
    rows = [(names.get(name, name), *_share(part)) for name, part in summary["part"].items()]
    rows += [(f"of {name}", *_share(part)) for name, part in summary["set"].items()]
    skipped = f" {summary['skipped']} more were not at hand." if summary["skipped"] else ""
    return [
        f"{total} answers of real and planted arms were judged by hand before the rule was run on them; {right} of them are "
        f"right.{skipped} `python -m benchmarks.correctness` compares again and shows every disagreement.",
        "",
        *table(("answers", "rule and person agree", "share (95 %)", "right"), rows),
    ]


def agreement_by_kind() -> list[str]:
    """Return by kind how often the rule agrees with the labels of the unseen set, both errors apart."""
    counted: dict[str, dict[str, list[int]]] = json.loads(ANSWERS_SUMMARY.read_text("utf-8"))[UNSEEN_ANSWERS]
    rows = [(kind, *share_texts(counts)) for kind, counts in counted.items()]
    agree, false_right, false_wrong = share_texts(counted["all"])
    return [
        f"**Rule and label agree on {agree} (95 %). Wrong answers that are called right: {false_right}; right ones that are "
        f"called wrong: {false_wrong}.**",
        "",
        *table(("kind", "rule and label agree (95 %)", "wrong called right", "right called wrong"), rows),
    ]


def _share(part: Mapping[str, Any]) -> tuple[str, str, str]:
    return (
        f"{part['agree']} of {part['of']}",
        f"{part['share']:.3f} [{part['low']:.3f}, {part['high']:.3f}]",
        str(part["right"]),
    )
