"""Combined scores of the arms while a trial runs: the answers in its journal are scored as they arrive.

:func:`board_for_plan` makes the progress board that shows them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from advisor.display.progress import ProgressBoard
from rag.backends.base import backend_class
from rag.backends.consent import index_location
from rag.errors import Problem
from rag.indexing import generations
from rag.stores.text import TextStore
from rag.types import Citation
from runners.data.questions import Question
from runners.plan.schema import Plan, step_name
from runners.run_folder import INDEX, TRIAL
from runners.runs.dataset import RunData, read_data
from runners.scoring.scores import question_weights, score_answer
from runners.trial.trial import ANSWERS, mean_combined_score, mean_over_seeds

_CITATION = {field.name for field in fields(Citation)}


class LiveScores:
    """Means of the combined score so far, computed as the trial will compute them for the same answers."""

    def __init__(self, plan: Plan, run: Path, questions: Mapping[str, Question]) -> None:
        """Prepare reading the journal.

        Args:
            plan: the plan of the run.
            run: the run folder, whose journal is read.
            questions: the test questions by id.
        """
        self.plan = plan
        self.index = run / INDEX
        self.journal = run / TRIAL / ANSWERS
        self.questions = questions
        self.retrieval = {arm.arm: arm.retrieval for arm in plan.arms}
        self.weights = {str(name): weight for name, weight in plan.weights.items()}
        self.question_weights = question_weights(plan, tuple(questions.values()))
        self.bytes_read = 0
        self.scores: dict[str, dict[str, list[dict[str, float]]]] = {}
        """Scores by arm and question: one dictionary for the answer of each training seed."""
        self.golds: dict[str, str] = {}
        self.waiting: list[dict[str, Any]] = []
        """Rows that cannot be scored before the index holds the text of their gold spans."""

    def mean(self, arm: str) -> float | None:
        """Return the mean score of an arm over its answers in the journal so far; None before the first one."""
        if self.journal.is_file():
            # A shorter journal was rewritten, without another arm's outdated answers: read it from the start.
            if self.journal.stat().st_size < self.bytes_read:
                self.bytes_read = 0
                self.scores = {}
                self.waiting = []
            with self.journal.open("rb") as stream:
                stream.seek(self.bytes_read)
                for line in stream:
                    if not line.endswith(b"\n"):
                        break
                    self.bytes_read += len(line)
                    self._queue_row(line)
        rows, self.waiting = self.waiting, []
        for row in rows:
            self._score(row, self.questions[row["id"]])
        scores_of = self.scores.get(arm, {})
        total = sum(self.question_weights[question_id] for question_id in scores_of)
        weighted = (
            mean_combined_score(scores, self.weights) * self.question_weights[question_id]
            for question_id, scores in scores_of.items()
        )
        return sum(weighted) / total if total else None

    def summary(self, arm: str) -> str | None:
        """Return "right 12 of 32, score so far 0.52" of an arm; None before its first answer is scored.

        The right answers are left out where answers cannot be judged. With several seeds the count is a mean.
        """
        mean = self.mean(arm)
        if mean is None:
            return None
        judged = [
            scores["right"]
            for seeds in self.scores[arm].values()
            if "right" in (scores := mean_over_seeds(seeds))
        ]
        right = f"right {round(sum(judged), 1):g} of {len(judged)}, " if judged else ""
        return f"{right}score so far {mean:.2f}"

    def _queue_row(self, line: bytes) -> None:
        try:
            row: dict[str, Any] = json.loads(line)
        except ValueError:
            return
        if row.get("id", "") in self.questions and row.get("arm") in self.retrieval:
            self.waiting.append(row)

    def _score(self, row: dict[str, Any], question: Question) -> None:
        """Score an answer, or keep the row waiting until its gold can be read; seeds are stored side by side."""
        gold = self._gold(question)
        if gold is None:
            self.waiting.append(row)
            return
        citations = [
            Citation(**{key: value for key, value in citation.items() if key in _CITATION})
            for citation in row.get("citations", ())
        ]
        scores = score_answer(self.plan, question, row["answer"], citations, self.retrieval[row["arm"]], gold)
        self.scores.setdefault(row["arm"], {}).setdefault(question.id, []).append(scores)

    def _gold(self, question: Question) -> str | None:
        """Return the text of a question's gold spans; None until there is an index to read it from.

        It is read as by :func:`runners.trial.step_runner.gold_text`.
        """
        if not question.spans or question.doc_id is None or self.plan.index is None:
            return ""
        if question.id not in self.golds:
            try:
                raw = self._source_text(question.doc_id)
            except Problem:
                return None  # the index is being replaced; if it is damaged, the run itself reports it
            if raw is None:
                return None
            self.golds[question.id] = " ".join(raw[start:end] for start, end in question.spans)
        return self.golds[question.id]

    def _source_text(self, document: str) -> str | None:
        """Return a document's source text, "" if the index lacks it; None if there is no index yet."""
        location = index_location(self.index)
        if isinstance(location, str):
            backend = backend_class(location).open(location)
            try:
                return backend.raw(document) or ""
            finally:
                backend.close()
        if not (number := generations.current_generation(location)):
            return None
        with TextStore(location) as text:
            stored = text.document(document, number)
        return stored.raw if stored else ""


def board_for_plan(
    plan: Plan, out: Path, only: str | None = None, inputs: RunData | None = None
) -> ProgressBoard:
    """Return the progress board of a plan: its steps, their estimated times on this machine, and scores as they come.

    Args:
        plan: the plan.
        out: the run folder.
        only: name of the only step that is run, None for all.
        inputs: the plan's data, if it is read already.
    """
    from advisor.verdict.predictions import corrected_step_times

    inputs = inputs or read_data(plan)
    examples, split = inputs.examples, inputs.split
    live_scores = LiveScores(plan, out, {question.id: question for question in split.test})
    times, _ = corrected_step_times(plan, len(examples), len(split.test))
    estimates = {name: corrected for name, _, corrected in times}
    names = [step_name(step) for step in plan.steps]
    steps = [name for name in names if only in (None, name)]
    return ProgressBoard(plan.name, steps, estimates, live_scores.summary)
