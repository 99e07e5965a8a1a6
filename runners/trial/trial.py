"""The trial: every arm answers the same test questions, and the answers are scored.

:func:`run_arm` writes an arm's answers into the journal, :func:`score_trial` scores the journal,
:func:`write_scores` writes the scores of every question.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from rag.evaluation.statistics import bootstrap_interval
from rag.files import UPDATE_LOCK, append_lines, sha256_text, write_json, write_text
from rag.types import Citation, OnEvent
from runners.arms.answer import Answer, answer_all
from runners.arms.prompts import FewShotExamples
from runners.arms.retriever import PassageFinder
from runners.data.questions import Question
from runners.inference.types import Generator
from runners.made_from import MADE_FROM, recorded_answers
from runners.plan.schema import Plan
from runners.plan.steps import EvaluateStep
from runners.report.arm_scores import ArmScores
from runners.report.json_records import to_json
from runners.report.records import ScoreEstimate
from runners.run_folder import ANSWERS, SCORES, read_journal
from runners.scoring.scores import asked_weights, combined_score, question_weights, score_answer
from runners.selective.routes import ANSWERED_BY


def run_arm(
    plan: Plan,
    arm: EvaluateStep,
    seed: int,
    questions: Sequence[Question],
    generator: Generator,
    retriever: PassageFinder | None,
    shots: FewShotExamples,
    journal: Path,
    on_event: OnEvent | None = None,
    scores: RunningScores | None = None,
) -> int:
    """Answer the questions that the journal does not hold yet; return how many were asked.

    Each batch is written to the journal before the next one starts, so that an interrupted trial asks nothing
    twice. After an interruption the remaining questions are asked in the same batches as they would have
    been.

    Args:
        plan: the plan, with the arm's own instructions.
        arm: the arm's evaluate step.
        seed: the seed of the arm's weights.
        questions: the test questions.
        generator: the arm's model.
        retriever: provides the passages; None for an arm without.
        shots: the examples to show.
        journal: the file that answers are appended to.
        on_event: receives an event after each batch.
        scores: score the answers of each batch for its event; None for events without scores.
    """
    from runners.arms.long_context import store_passages_once

    answered = {row["id"] for row in read_journal(journal) if (row["arm"], row["seed"]) == (arm.arm, seed)}
    known = {question.id for question in questions if question.id in answered}
    done = len(known)

    def append_batch(answers: list[Answer]) -> None:
        nonlocal done
        done += len(answers)
        rows = [answer.to_json(arm.arm, seed) for answer in answers]
        if arm.passages == "all":
            rows = [store_passages_once(*pair, journal.parent) for pair in zip(answers, rows, strict=True)]
        append_lines(journal, rows)
        if on_event:
            generated = sum(answer.completion.finish != "refused" for answer in answers)
            on_event(
                {
                    "event": "answers.batch",
                    "arm": arm.arm,
                    "done": done,
                    "total": len(questions),
                    "batch": generated,
                    **(scores.add(rows) if scores else {}),
                }
            )

    if len(known) == len(questions):
        return 0
    return len(answer_all(plan, arm, questions, lambda: generator, retriever, shots, append_batch, known))


def drop_outdated_answers(folder: Path, arm: str, made_from: str) -> int:
    """Remove the journal's answers of an arm that were made from other inputs; return how many.

    Answers from before the documents or the weights changed must not be scored together with later ones. The trial's scores
    go first, as they are no longer those of its answers: a run that ends before it scores them again has none.
    """
    with UPDATE_LOCK:
        digests = recorded_answers(folder)
        if digests.get(arm) == made_from:
            return 0
        rows = read_journal(folder / ANSWERS)
        others = [row for row in rows if row["arm"] != arm]
        if len(others) < len(rows):
            (folder / SCORES).unlink(missing_ok=True)
            text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in others)
            write_text(folder / ANSWERS, text)
        write_json(folder / MADE_FROM, {**digests, arm: made_from})
        return len(rows) - len(others)


def score_trial(
    plan: Plan,
    questions: Sequence[Question],
    rows: Sequence[dict[str, Any]],
    gold: Callable[[Question], str],
) -> list[ArmScores]:
    """Score the journal's answers arm by arm; several seeds of one arm are averaged question by question.

    Args:
        plan: the run's plan.
        questions: the test questions.
        rows: the rows of the journal.
        gold: returns the text of a question's gold span, "" when it has none.
    """
    arms: list[ArmScores] = []
    by_key: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        by_key.setdefault((row["arm"], row["id"]), []).append(row)
    weights = {str(name): weight for name, weight in plan.weights.items()}
    answered_ids = {question_id for _, question_id in by_key}
    scored_questions = [question for question in questions if question.id in answered_ids]
    weight_of, asked = question_weights(plan, scored_questions), asked_weights(scored_questions)
    for arm in plan.arms:
        answered = [
            (question, by_key[arm.arm, question.id])
            for question in questions
            if (arm.arm, question.id) in by_key
        ]
        scores_by_seed = [
            [_score_row(plan, question, row, _retrieves(plan, arm, row), gold(question)) for row in answers]
            for question, answers in answered
        ]
        scores = [mean_over_seeds(rows) for rows in scores_by_seed]
        worded = any(question.wording_of for question, _ in answered)
        arms.append(
            ArmScores(
                arm.arm,
                tuple(question.id for question, _ in answered),
                tuple(scores),
                tuple(mean_combined_score(seeds, weights) for seeds in scores_by_seed),
                tuple(fmean([row["seconds"] for row in answers]) for _, answers in answered),
                tuple(round(fmean([row["prompt_tokens"] for row in answers])) for _, answers in answered),
                tuple(round(fmean([row["completion_tokens"] for row in answers])) for _, answers in answered),
                tuple(question.doc_id for question, _ in answered),
                _seed_means([answers for _, answers in answered], scores_by_seed, weights, weight_of),
                tuple(weight_of[question.id] for question, _ in answered)
                if set(weight_of.values()) != {1.0}
                else (),
                tuple(question.made for question, _ in answered)
                if any(question.made for question, _ in answered)
                else (),
                tuple(question.wording_of for question, _ in answered) if worded else (),
                _gold_shown(arm, answered),
                tuple(asked[question.id] for question, _ in answered) if asked else (),
            )
        )
    return arms


class RunningScores:
    """Right answers and combined score of one arm so far, as :func:`score_trial` scores the same answers at the end."""

    def __init__(
        self, plan: Plan, arm: EvaluateStep, questions: Sequence[Question], gold: Callable[[Question], str]
    ) -> None:
        """Start without answers; the parameters are those of :func:`score_trial`, and the arm's step."""
        self._plan, self._arm, self._gold = plan, arm, gold
        self._questions = {question.id: question for question in questions}
        self._weights = {str(name): weight for name, weight in plan.weights.items()}
        self._question_weights = question_weights(plan, questions)
        self._scores: dict[str, list[dict[str, float]]] = {}
        """By question: one dictionary for the answer of each training seed."""

    def add(self, rows: Sequence[dict[str, Any]]) -> dict[str, float]:
        """Score further rows of the journal; return ``right`` of ``judged`` and the mean ``score``, {} before the first."""
        for row in rows:
            question = self._questions.get(row["id"])
            if question and row["arm"] == self._arm.arm:
                gold = self._gold(question)
                retrieves = _retrieves(self._plan, self._arm, row)
                scores = _score_row(self._plan, question, row, retrieves, gold)
                self._scores.setdefault(question.id, []).append(scores)
        if not self._scores:
            return {}
        right = [mean["right"] for s in self._scores.values() if "right" in (mean := mean_over_seeds(s))]
        weights = [self._question_weights[question] for question in self._scores]
        means = [mean_combined_score(seeds, self._weights) for seeds in self._scores.values()]
        score = sum(weight * mean for weight, mean in zip(weights, means, strict=True)) / sum(weights)
        return {"right": sum(right), "judged": len(right), "score": score}


def _gold_shown(
    arm: EvaluateStep, answered: Sequence[tuple[Question, Sequence[Mapping[str, Any]]]]
) -> tuple[float | None, ...]:
    """Return whether the gold document is among the passages of each answer, the mean over seeds; () where none is known."""
    if not arm.retrieval or arm.passages == "all":
        return ()
    hits = tuple(
        fmean([any(span["doc"] == question.doc_id for span in row.get("context", ())) for row in answers])
        if question.doc_id and question.answerable
        else None
        for question, answers in answered
    )
    return () if all(hit is None for hit in hits) else hits


def mean_combined_score(
    scores_of_seeds: Sequence[Mapping[str, float]], weights: Mapping[str, float]
) -> float:
    """Return the combined score of one question, the mean over the seeds' answers."""
    return fmean([combined_score(scores, weights) for scores in scores_of_seeds])


def mean_over_seeds(scores_of_seeds: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the means of several seeds' scores of one question; seeds without a score are left out of its mean."""
    names = dict.fromkeys(name for scores in scores_of_seeds for name in scores)
    return {name: fmean([scores[name] for scores in scores_of_seeds if name in scores]) for name in names}


def scores_with_intervals(arm: ArmScores) -> dict[str, ScoreEstimate]:
    """Return the combined score of an arm and each of its other scores, with their 95 % intervals over the questions."""
    estimates = {}
    for name in dict.fromkeys(["combined", *(name for row in arm.scores for name in row)]):
        whole = name == "combined"
        sources, weights = arm.sources(None if whole else name), arm.weights_by_question(name)
        interval = bootstrap_interval(arm.shown(name), documents=sources, weights=weights)
        estimates[name] = ScoreEstimate(
            mean=interval.mean,
            # The values of a weighted mean may lie outside of 0 to 1, and so may a resample's mean; no score does.
            low=max(0.0, interval.low),
            high=min(1.0, interval.high),
            n=len(arm.questions) if whole else len(arm.of(name)),
        )
    return estimates


def with_intervals(arm: ArmScores) -> dict[str, Any]:
    """Return an arm's scores with their intervals, in the form that :func:`runners.models.cards.rewrite_card` takes."""
    return {"arm": arm.arm, "questions": len(arm.questions), "scores": to_json(scores_with_intervals(arm))}


def gold_digest(questions: Sequence[Question]) -> str:
    """Return the digest of what the answers to questions are judged by."""
    fields = ("id", "answers", "all_of", "reference", "references", "fact", "answerable", "doc_id", "spans")
    gold = [[getattr(question, name) for name in fields] for question in questions]
    weights = asked_weights(questions)  # without them the digest is that of earlier versions
    return sha256_text(repr([gold, weights] if weights else gold))


def scored_gold(path: Path) -> str:
    """Return the digest of the gold that a file of scores was computed with; "" where it was not recorded."""
    return str(json.loads(path.read_text("utf-8")).get("gold", "")) if path.is_file() else ""


def write_scores(arms: Sequence[ArmScores], path: Path, gold: str = "") -> None:
    """Write the scores of every question, so that other statistics can be computed from them.

    The file also holds the source document of each question (questions of one document are not independent),
    the mean score of each seed, and the questions' weights where they are not all 1, with the part of them that rows give
    (``asked``). Where questions have other wordings it says which question each of them asks, and for which the gold
    document was among the passages shown.
    """
    body = {
        arm.arm: {
            question: {
                **arm.scores[position],
                "combined": arm.combined[position],
                "seconds": arm.seconds[position],
                "prompt_tokens": arm.prompt_tokens[position],
                "completion_tokens": arm.completion_tokens[position],
            }
            for position, question in enumerate(arm.questions)
        }
        for arm in arms
    }
    documents = {
        question: document
        for arm in arms
        for question, document in zip(arm.questions, arm.documents, strict=False)
        if document
    }
    seeds = {arm.arm: [{"seed": seed, "mean": mean} for seed, mean in arm.seeds] for arm in arms}
    weight_of = {
        question: weight
        for arm in arms
        for question, weight in zip(arm.questions, arm.question_weights, strict=False)
    }
    asked = {id: times for arm in arms for id, times in zip(arm.questions, arm.asked, strict=False)}
    made_ids = sorted(
        {question for arm in arms for question, mark in zip(arm.questions, arm.made, strict=False) if mark}
    )
    content = {"schema": 1, "arms": body, "documents": documents, "seeds": seeds}
    content |= {"gold": gold} if gold else {}
    content |= {"question_weights": weight_of} if weight_of else {}
    content |= {"asked": asked} if asked else {}
    content |= {"made": made_ids} if made_ids else {}
    wordings = {
        question: of
        for arm in arms
        for question, of in zip(arm.questions, arm.wording_of, strict=False)
        if of is not None
    }
    if wordings:
        content["wording_of"] = wordings
    hits = {
        arm.arm: {
            question: hit for question, hit in zip(arm.questions, arm.hits, strict=False) if hit is not None
        }
        for arm in arms
    }
    if wordings or any(hits.values()):
        content["hits"] = hits
    write_json(path, content)


def _seed_means(
    answered: Sequence[Sequence[dict[str, Any]]],
    scored: Sequence[Sequence[dict[str, float]]],
    weights: dict[str, float],
    weight_of: Mapping[str, float],
) -> tuple[tuple[int, float], ...]:
    """Return (seed, weighted mean of the combined score over the questions that it answered), by seed."""
    values: dict[int, list[tuple[float, float]]] = {}
    for answers, scored_answers in zip(answered, scored, strict=True):
        for row, scores in zip(answers, scored_answers, strict=True):
            weight = weight_of[row["id"]]
            values.setdefault(row["seed"], []).append((combined_score(scores, weights) * weight, weight))
    return tuple(
        (seed, sum(score for score, _ in pairs) / sum(weight for _, weight in pairs))
        for seed, pairs in sorted(values.items())
    )


def _retrieves(plan: Plan, arm: EvaluateStep, row: Mapping[str, Any]) -> bool:
    """Return whether the arm that gave an answer retrieves: of a router, the one of its two arms that did."""
    by = row.get(ANSWERED_BY)
    return arm.retrieval if by is None else any(step.retrieval for step in plan.arms if step.arm == by)


def _score_row(
    plan: Plan,
    question: Question,
    row: dict[str, Any],
    retrieval: bool,
    gold: str,
) -> dict[str, float]:
    """Return the scores of one row of the journal."""
    cited = [Citation(**c) for c in row["citations"]]
    return score_answer(plan, question, row["answer"], cited, retrieval, gold)
