"""Questions that were made from the documents, beside those that people asked: which of them a verdict rests on.

Made questions are worded by a model or a rule that has read the passage, so they are easier to find it for, and they ask
what a document states instead of what somebody needs to know. Where a trial has both kinds, everything is judged on the real
ones, and the made ones are shown beside them. Where it has made ones alone, nothing is confirmed or overturned: the strength
of the verdict is :attr:`Strength.MADE`. Other questions can be in the
documents' words too, which :func:`words_note` says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from advisor.verdict.comparison import LEANING_BELOW
from advisor.verdict.right_answers import right_answers
from advisor.verdict.verdict import judge_trial
from rag.evaluation.question_words import QuestionWords
from rag.evaluation.statistics import PairedDifference, bootstrap_interval
from rag.text.words import count_noun
from runners.plan.schema import Plan
from runners.report.arm_scores import judged_rows
from runners.report.records import ArmReport, Estimate, MadeColumn, Outcome, Strength, Verdict
from runners.report.trial_report import MadeQuestions
from runners.trial.trial import ArmScores

REAL_QUESTIONS_NEEDED = (
    f"Collect {LEANING_BELOW} or more questions that people asked, and measure again: "
    "tunewise eval RUN --questions FILE."
)
"""What to do after a trial on made questions alone."""
MEASURED_LOSS = (
    "in one house measured by us (hybrid, gemma-3-270m), 45 of 70 answers were right in the documents' words and "
    "33 of 140 in customers' words"
)
"""What other words cost: the test half of "the pool" (benchmarks/LOG.md, 2026-11-30, "customers' words")."""


@dataclass(frozen=True, slots=True)
class JudgedTrial:
    """A verdict with the scores that it rests on.

    Attributes:
        verdict: the verdict.
        pairs: the paired differences.
        arms: scores on the questions that were judged: the real ones where there are any.
        beside: scores of the same arms on the made questions, where the real ones were judged; () where there are none.
    """

    verdict: Verdict
    pairs: tuple[PairedDifference, ...]
    arms: tuple[ArmScores, ...]
    beside: tuple[ArmScores, ...] = ()


def judge_on_real_questions(
    plan: Plan,
    arms: Sequence[ArmScores],
    model: str,
    lost: Mapping[str, str] | None = None,
    seconds_alone: Mapping[str, float] | None = None,
    incomplete: Mapping[str, str] | None = None,
    gpu: str = "",
) -> JudgedTrial:
    """Judge a trial as :func:`advisor.verdict.verdict.judge_trial` does, on the questions that were not made.

    On made questions alone the outcome is undecided, the gate open and the strength :attr:`Strength.MADE`; the arm to use is
    the one that came out ahead on them.
    """
    counted, beside = split_by_origin(arms)
    verdict, pairs = judge_trial(plan, counted, model, lost, seconds_alone, incomplete, gpu)
    if all(arm.made and all(arm.made) for arm in counted if arm.questions):
        verdict = _on_made_alone(verdict, max((arm.question_count for arm in counted), default=0))
    return JudgedTrial(verdict, pairs, counted, beside)


def split_by_origin(arms: Sequence[ArmScores]) -> tuple[tuple[ArmScores, ...], tuple[ArmScores, ...]]:
    """Return the scores that are judged, and those of made questions beside them.

    Real questions are judged; made ones where no arm answered any other. Of both only rows with gold, where there are others
    too (:func:`runners.report.arm_scores.judged_rows`).
    """
    arms = judged_rows(arms)
    if not any(any(arm.made) for arm in arms):
        return arms, ()
    real = tuple(arm.of_origin(from_documents=False) for arm in arms)
    if not any(arm.questions for arm in real):
        return tuple(arms), ()
    return real, tuple(arm.of_origin(from_documents=True) for arm in arms)


def made_column(arm: ArmScores) -> MadeColumn:
    """Return what an arm scored on made questions, as the report has it beside the real ones."""
    values, weights = arm.shown("combined"), arm.weights_by_question("combined")
    interval = bootstrap_interval(values, documents=arm.sources(), weights=weights) if arm.combined else None
    return MadeColumn(
        n=len(arm.combined),
        score=Estimate(mean=interval.mean, low=interval.low, high=interval.high) if interval else None,
        right=right_answers(arm) if arm.questions else None,
    )


def made_questions(arms: Sequence[ArmScores], dev: Mapping[str, int] | None = None) -> MadeQuestions | None:
    """Return how many test questions, dev questions and training rows are made, as far as recorded; None where none is."""
    longest = max(arms, key=lambda arm: len(arm.questions), default=None)
    count = longest.of_origin(from_documents=True).question_count if longest is not None else 0
    known: Mapping[str, int] = dev or {}
    if not count and not any(known.get(key) for key in ("dev", "rows")):
        return None
    return MadeQuestions(
        test=count,
        test_of=longest.question_count if longest is not None else 0,
        dev=known.get("dev"),
        dev_of=known.get("dev_of"),
        rows=known.get("rows"),
        rows_of=known.get("rows_of"),
    )


def origin_note(counts: MadeQuestions | None) -> str:
    """Return a sentence on how many questions are made, and what was judged; "" where none is."""
    if not counts:
        return ""
    parts = []
    if counts.test:
        real = counts.test_of - counts.test
        judged = (
            f"the verdict and every count are by the {count_noun(real, 'real one')}"
            if real
            else "none was asked by anybody"
        )
        were = "was" if counts.test == 1 else "were"
        parts.append(
            f"{counts.test} of {count_noun(counts.test_of, 'test question')} {were} made from the documents: {judged}"
        )
    if counts.dev:
        parts.append(
            f"{counts.dev} of {count_noun(counts.dev_of or 0, 'dev question')}, by which prompts and settings are "
            "chosen, were made"
        )
    if counts.rows:
        parts.append(f"{counts.rows} of {count_noun(counts.rows_of or 0, 'training row')} were made")
    return "; ".join(parts)


def words_note(words: QuestionWords | None, arms: Sequence[ArmReport]) -> str:
    """Return a sentence where questions are in the documents' words and were asked in no others; "" where not."""
    if not words or not words.documents_words or any(arm.by_wording for arm in arms):
        return ""
    count = count_noun(words.n, "question")
    return (
        f"The questions are in the documents' words ({words.share:.0%} of the content words of {count} are in the sentence "
        f"that answers them), and customers' words may do worse: {MEASURED_LOSS}; add to the "
        'questions the "wordings" of those who ask.'
    )


def _on_made_alone(verdict: Verdict, count: int) -> Verdict:
    use = f" Until then {verdict.use} is ahead on them." if verdict.use else ""
    text = (
        f"Measured on {count_noun(count, 'made question')} alone, so nothing is confirmed or overturned: made questions are "
        f"easier to find a passage for than real ones.{use} {REAL_QUESTIONS_NEEDED} On the made questions: {verdict.text}"
    )
    return replace(
        verdict,
        outcome=Outcome.UNDECIDED,
        strength=Strength.MADE,
        gate_met=None,
        text=text,
        more_questions_needed=LEANING_BELOW,
    )
