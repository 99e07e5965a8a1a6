"""Comparison of two finished runs: their common arms, and their arms to use, on the questions that both runs asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from advisor.report.data import read_report, read_scores
from advisor.verdict.comparison import corrected_comparisons
from rag.errors import BadInput
from rag.evaluation.clusters import mean_by_question, weighted_questions
from rag.evaluation.statistics import PairedDifference, paired_test
from runners.data.examples import normalise_text
from runners.report.arm_scores import judged_rows
from runners.report.json_records import to_json
from runners.report.trial_report import TrialReport
from runners.run_folder import TRIAL, read_journal
from runners.scoring.scores import combined_score
from runners.trial.trial import ANSWERS, ArmScores

COMPARISON_KEYS = ("difference", "low", "high", "p", "p_holm", "units")


class ScoredQuestion(NamedTuple):
    """Score of one question in the first run and in the second, the document it is about, and how often it is asked."""

    score_a: float
    score_b: float
    document: str | None
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class ComparedRun:
    """One of the two runs.

    Attributes:
        path: the run folder.
        report: its report.
        arms: scores of each arm by its name; only arms that have scores.
        texts: normalised text of each question by its id.
    """

    path: Path
    report: TrialReport
    arms: Mapping[str, ArmScores]
    texts: Mapping[str, str]

    @property
    def questions(self) -> list[str]:
        """The ids of all questions that an arm answered, in order."""
        return list(dict.fromkeys(question_id for arm in self.arms.values() for question_id in arm.questions))

    @property
    def judges_right(self) -> bool:
        """Whether the run's answers were judged right or not right; runs of early versions were not."""
        return any("right" in scores for arm in self.arms.values() for scores in arm.scores)

    @property
    def is_weighted(self) -> bool:
        """Whether its questions say how often each is asked."""
        return any(arm.asked for arm in self.arms.values())

    def weight_of(self, matched: Mapping[str, str]) -> dict[str, float]:
        """Return the weights of the matched questions by their id in the first run; {} when all are 1."""
        own = {
            question_id: weight
            for arm in self.arms.values()
            for question_id, weight in zip(arm.questions, arm.question_weights, strict=False)
        }
        return {first: own[key] for first, second in matched.items() for key in (first, second) if key in own}

    def to_json(self) -> dict[str, Any]:
        """Return the run's path, name and verdict as they are printed with ``report --compare --json``."""
        verdict = to_json(self.report.verdict)
        shown = {key: verdict[key] for key in ("outcome", "strength", "recommended", "model")}
        return {"run": str(self.path), "name": self.report.name, **shown, "winner": verdict["use"]}


def compare_runs(first: Path, second: Path) -> dict[str, Any]:
    """Compare two finished runs; every difference is the first run minus the second, paired by question.

    Questions are matched by their normalised text, or by id where the text was not stored. p-values are corrected over the
    arms (Holm); the comparison of the two arms to use, where both runs have one, is not part of that family.

    Raises:
        BadInput: when a run has no report, or when the runs have no question in common.
    """
    a, b = _read_run(first), _read_run(second)
    matched = match_questions(a, b)
    if not matched:
        raise BadInput(
            f"{first} and {second} have no question in common",
            "run both on the same questions: data.test_questions in the plan",
        )
    notes = _notes(a, b, matched)
    if a.report.weights != b.report.weights or a.judges_right != b.judges_right:
        without_right = not (a.judges_right and b.judges_right)
        weights = dict(a.report.weights or b.report.weights)
        a, b = (replace(run, arms=_reweighted(run.arms, weights, without_right)) for run in (a, b))
    leading, other = (b, a) if b.is_weighted and not a.is_weighted else (a, b)
    weight_of = {**other.weight_of(matched), **leading.weight_of(matched)}
    values = {
        name: _values(a.arms[name], b.arms[name], matched, weight_of) for name in a.arms if name in b.arms
    }
    comparisons = corrected_comparisons(_pair(name, rows) for name, rows in values.items() if rows)
    use_a, use_b = a.report.verdict.use, b.report.verdict.use
    winner_values = _values(a.arms[use_a], b.arms[use_b], matched, weight_of) if use_a and use_b else []
    winner_comparison = corrected_comparisons([_pair(str(use_b), winner_values)] if winner_values else [])
    return {
        "schema": 1,
        "a": a.to_json(),
        "b": b.to_json(),
        "questions": {
            "common": len(matched),
            "only_a": len(a.questions) - len(matched),
            "only_b": len(b.questions) - len(matched),
        },
        "arms": [
            {"arm": name, **_row(comparison.pair, values[name])} for name, comparison in comparisons.items()
        ],
        "winners": {"a": use_a, "b": use_b}
        | {
            key: value
            for comparison in winner_comparison.values()
            for key, value in _row(comparison.pair, winner_values).items()
        },
        "only_in_a": [name for name in a.arms if name not in comparisons],
        "only_in_b": [name for name in b.arms if name not in comparisons],
        "notes": notes,
    }


def match_questions(a: ComparedRun, b: ComparedRun) -> dict[str, str]:
    """Return, for each question of ``a`` that ``b`` asked too, its id in ``b``."""
    texts_of_b = {question_id: b.texts.get(question_id) for question_id in b.questions}
    matched = {
        question_id: question_id
        for question_id in a.questions
        if question_id in texts_of_b
        and (
            None in (a.texts.get(question_id), texts_of_b[question_id])
            or a.texts[question_id] == texts_of_b[question_id]
        )
    }
    used = set(matched.values())
    by_text: dict[str, list[str]] = {}
    for question_id, text in texts_of_b.items():
        if text and question_id not in used:
            by_text.setdefault(text, []).append(question_id)
    for question_id in a.questions:
        candidates = by_text.get(a.texts.get(question_id, ""), [])
        if question_id not in matched and candidates:
            matched[question_id] = candidates.pop(0)
    return matched


def _read_run(run: Path) -> ComparedRun:
    rows = read_journal(run / TRIAL / ANSWERS)
    texts = {str(row["id"]): normalise_text(str(row["question"])) for row in rows if "question" in row}
    report = read_report(run)
    arms = judged_rows([arm for arm in read_scores(run) if arm.combined])
    return ComparedRun(run, report, {arm.arm: arm for arm in arms}, texts)


def _reweighted(
    arms: Mapping[str, ArmScores], weights: dict[str, float], without_right: bool
) -> dict[str, ArmScores]:
    """Return the arms with the combined score under other weights, without ``right`` where one run lacks it."""
    left_out = {"right"} if without_right else set()
    scores_of = {
        name: [{key: value for key, value in scores.items() if key not in left_out} for scores in arm.scores]
        for name, arm in arms.items()
    }
    return {
        name: replace(arm, combined=tuple(combined_score(scores, weights) for scores in scores_of[name]))
        for name, arm in arms.items()
    }


def _values(
    a: ArmScores, b: ArmScores, matched: Mapping[str, str], weight_of: Mapping[str, float]
) -> list[ScoredQuestion]:
    """Return the scores of both arms on every question that both answered, with the question's document.

    Where questions say how often they are asked, these weights stand beside the scores. Others, which balance kinds of
    questions, are scaled to 1 on average over these questions, and the scores are multiplied by them. Wordings of one
    question, as the first run has them, are one value.
    """
    place_in_b = {question_id: n for n, question_id in enumerate(b.questions)}
    common = [
        (n, place_in_b[matched[question_id]])
        for n, question_id in enumerate(a.questions)
        if question_id in matched and matched[question_id] in place_in_b
    ]
    times = [weight_of.get(a.questions[n], 1.0) for n, _ in common]
    originals = [a.originals[n] for n, _ in common]
    documents: dict[str, str | None] = {}
    for original, (n, m) in zip(originals, common, strict=True):
        of_a, of_b = (arm.documents[k] if arm.documents else None for arm, k in ((a, n), (b, m)))
        documents.setdefault(original, of_a or of_b)
    of_both = ([scores[at[side]] for at in common] for side, scores in enumerate((a.combined, b.combined)))
    if a.asked or b.asked:
        (first, weights), (second, _) = (weighted_questions(scores, originals, times) for scores in of_both)
        return [ScoredQuestion(*row) for row in zip(first, second, documents.values(), weights, strict=True)]
    scale = len(common) / sum(times) if common else 1.0
    first, second = (
        mean_by_question([score * time * scale for score, time in zip(scores, times, strict=True)], originals)
        for scores in of_both
    )
    return [ScoredQuestion(*row) for row in zip(first, second, documents.values(), strict=True)]


def _pair(name: str, rows: Sequence[ScoredQuestion]) -> PairedDifference:
    weights = [row.weight for row in rows]
    return paired_test(
        name,
        name,
        [row.score_a for row in rows],
        [row.score_b for row in rows],
        documents=[row.document for row in rows],
        weights=weights if len(set(weights)) > 1 else (),
    )


def _row(pair: PairedDifference, rows: Sequence[ScoredQuestion]) -> dict[str, Any]:
    total = sum(row.weight for row in rows)
    means = {
        "mean_a": sum(row.score_a * row.weight for row in rows) / total,
        "mean_b": sum(row.score_b * row.weight for row in rows) / total,
    }
    return {**means, **{key: getattr(pair, key) for key in COMPARISON_KEYS}, "n": pair.questions}


def _asked(run: ComparedRun, questions: Sequence[str]) -> list[float]:
    """Return how often each question is asked, as shares of all that these are asked."""
    times = {
        id: time for arm in run.arms.values() for id, time in zip(arm.questions, arm.asked, strict=False)
    }
    asked = [times.get(question, 1.0) for question in questions]
    return [round(time / sum(asked), 6) for time in asked]


def _notes(a: ComparedRun, b: ComparedRun, matched: Mapping[str, str]) -> list[str]:
    """Return what differs between the two runs besides the arms: model and weights."""
    notes = []
    models = [run.report.verdict.model for run in (a, b)]
    if models[0] != models[1]:
        notes.append(f"the models differ: {models[0]} and {models[1]}")
    named_a, named_b = (run.report.models or {} for run in (a, b))
    notes += [
        f"the alias {alias} is {named_a[alias]} in {a.path}, and {named_b[alias]} in {b.path}"
        for alias in named_a
        if named_b.get(alias, named_a[alias]) != named_a[alias]
    ]
    if a.judges_right != b.judges_right:
        older = b.path if a.judges_right else a.path
        notes.append(
            f"{older} was scored before answers were judged right or not: both are compared by the weighted mean of their "
            "scores, as it was"
        )
    if _asked(a, list(matched)) != _asked(b, list(matched.values())):
        leading = b if b.is_weighted and not a.is_weighted else a
        notes.append(f"how often questions are asked differs: both runs are counted as in {leading.path}")
    if a.report.weights != b.report.weights:
        notes.append(
            f"the weights of the scores differ: both are weighed as in {a.path if a.report.weights else b.path}"
        )
    return notes
