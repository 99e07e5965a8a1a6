"""The trial: every arm answers the same test questions; the scores, side by side."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from rag.files import append_lines, write_json, write_text
from rag.types import Citation, OnEvent
from runners.arms.answer import Answer, answer_all
from runners.arms.prompts import FewShotExamples
from runners.arms.retriever import PassageFinder
from runners.data.questions import Question
from runners.inference.types import Generator
from runners.plan.schema import Plan
from runners.plan.steps import EvaluateStep
from runners.run_folder import read_journal
from runners.scoring.scores import combined_score, score_answer

ANSWERS, MADE_FROM = "answers.jsonl", "made_from.json"


@dataclass(frozen=True, slots=True)
class ArmScores:
    """One arm's scores, question by question, in the order of the test questions."""

    arm: str
    questions: tuple[str, ...]
    scores: tuple[dict[str, float], ...]
    combined: tuple[float, ...]
    seconds: tuple[float, ...]
    prompt_tokens: tuple[int, ...]
    completion_tokens: tuple[int, ...]
    documents: tuple[str | None, ...] = ()
    """The source document of each question; () where none was kept."""
    seeds: tuple[tuple[int, float], ...] = ()
    """Each seed with its mean combined score; () where they were not kept."""

    def of(self, name: str) -> list[float]:
        """One score's values over the questions that have it."""
        return [scores[name] for scores in self.scores if name in scores]

    def sources(self, name: str | None = None) -> list[str | None]:
        """The documents of all questions, or of those that have one score, in the order of :meth:`of`."""
        known = self.documents or (None,) * len(self.questions)
        return [d for d, scores in zip(known, self.scores, strict=True) if name is None or name in scores]

    @property
    def tokens(self) -> float:
        """Tokens per answer, prompt and answer together."""
        return fmean(self.prompt_tokens) + fmean(self.completion_tokens) if self.questions else 0.0

    @property
    def seed_spread(self) -> float:
        """The mean of the best seed above that of the worst; 0 with one seed."""
        means = [mean for _, mean in self.seeds]
        return max(means) - min(means) if means else 0.0


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
) -> int:
    """Answer the questions that the journal does not hold yet; return how many were asked.

    Each batch is in the journal before the next one starts, so that an interrupted trial asks nothing twice; what is
    still open is then asked in the batches that it would have been asked in.
    """
    from runners.arms.long_context import store_passages_once

    have = {row["id"] for row in read_journal(journal) if (row["arm"], row["seed"]) == (arm.arm, seed)}
    known = {q.id for q in questions if q.id in have}
    done = len(known)

    def keep(answers: list[Answer]) -> None:
        nonlocal done
        done += len(answers)
        rows = [answer.to_json(arm.arm, seed) for answer in answers]
        if arm.passages == "all":
            rows = [store_passages_once(*both, journal.parent) for both in zip(answers, rows, strict=True)]
        append_lines(journal, rows)
        if on_event:
            on_event({"event": "answers.batch", "arm": arm.arm, "done": done, "total": len(questions)})

    if len(known) == len(questions):
        return 0
    return len(answer_all(plan, arm, questions, generator, retriever, shots, keep, known))


def drop_outdated_answers(folder: Path, arm: str, made_from: str) -> int:
    """Take out the journal's answers of an arm that were made from other inputs; return how many.

    Answers of before the documents or the weights changed must not be scored beside those of after.
    """
    path = folder / MADE_FROM
    known: dict[str, str] = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    if known.get(arm) == made_from:
        return 0
    rows = read_journal(folder / ANSWERS)
    kept = [row for row in rows if row["arm"] != arm]
    if len(kept) < len(rows):
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept)
        write_text(folder / ANSWERS, text)
    write_json(path, {**known, arm: made_from})
    return len(rows) - len(kept)


def score_trial(
    plan: Plan,
    questions: Sequence[Question],
    rows: Sequence[dict[str, Any]],
    gold: Callable[[Question], str],
) -> list[ArmScores]:
    """Score the journal's answers arm by arm; several seeds of one arm are averaged question by question.

    `gold` gives the text of a question's gold span, "" when it has none.
    """
    found: list[ArmScores] = []
    by_key: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        by_key.setdefault((row["arm"], row["id"]), []).append(row)
    for arm in plan.arms:
        answered = [(q, by_key[arm.arm, q.id]) for q in questions if (arm.arm, q.id) in by_key]
        each = [[_scores(plan, q, row, arm.retrieval, gold(q)) for row in answers] for q, answers in answered]
        scores = [mean_over_seeds(rows) for rows in each]
        weights = {str(k): v for k, v in plan.weights.items()}
        found.append(
            ArmScores(
                arm.arm,
                tuple(q.id for q, _ in answered),
                tuple(scores),
                tuple(combined_score(s, weights) for s in scores),
                tuple(fmean([r["seconds"] for r in answers]) for _, answers in answered),
                tuple(round(fmean([r["prompt_tokens"] for r in answers])) for _, answers in answered),
                tuple(round(fmean([r["completion_tokens"] for r in answers])) for _, answers in answered),
                tuple(q.doc_id for q, _ in answered),
                _seed_means([answers for _, answers in answered], each, weights),
            )
        )
    return found


def with_intervals(arm: ArmScores) -> dict[str, Any]:
    """Return an arm's scores with their 95 % intervals, as :func:`runners.models.cards.rewrite_card` takes them."""
    from rag.evaluation.statistics import bootstrap_interval

    named = {"combined": (list(arm.combined), arm.sources())} | {
        name: (arm.of(name), arm.sources(name)) for name in dict.fromkeys(n for s in arm.scores for n in s)
    }
    found = {
        name: {**asdict(bootstrap_interval(values, documents=documents)), "n": len(values)}
        for name, (values, documents) in named.items()
    }
    return {"arm": arm.arm, "questions": len(arm.questions), "scores": found}


def write_scores(arms: Sequence[ArmScores], path: Path) -> None:
    """Write the scores of every question, so that anybody can compute other statistics from them.

    Beside them the source document of each question (questions of one document are not independent) and the mean of
    each seed.
    """
    body = {
        arm.arm: {
            question: {
                **arm.scores[n],
                "combined": arm.combined[n],
                "seconds": arm.seconds[n],
                "prompt_tokens": arm.prompt_tokens[n],
                "completion_tokens": arm.completion_tokens[n],
            }
            for n, question in enumerate(arm.questions)
        }
        for arm in arms
    }
    documents = {q: d for arm in arms for q, d in zip(arm.questions, arm.sources(), strict=True) if d}
    seeds = {arm.arm: [{"seed": seed, "mean": mean} for seed, mean in arm.seeds] for arm in arms}
    write_json(path, {"schema": 1, "arms": body, "documents": documents, "seeds": seeds})


def _seed_means(
    answered: Sequence[Sequence[dict[str, Any]]],
    scored: Sequence[Sequence[dict[str, float]]],
    weights: dict[str, float],
) -> tuple[tuple[int, float], ...]:
    """Return the mean combined score of each seed by itself, over the questions that it answered."""
    values: dict[int, list[float]] = {}
    for answers, each in zip(answered, scored, strict=True):
        for row, scores in zip(answers, each, strict=True):
            values.setdefault(row["seed"], []).append(combined_score(scores, weights))
    return tuple((seed, fmean(found)) for seed, found in sorted(values.items()))


def _scores(
    plan: Plan,
    question: Question,
    row: dict[str, Any],
    retrieval: bool,
    gold: str,
) -> dict[str, float]:
    cited = [Citation(**c) for c in row["citations"]]
    return score_answer(plan, question, row["answer"], cited, retrieval, gold)


def mean_over_seeds(each: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the means of several seeds' scores of one question; a score that some lack is over those that have it."""
    names = dict.fromkeys(name for scores in each for name in scores)
    return {name: fmean([scores[name] for scores in each if name in scores]) for name in names}
