"""An arm's combined score while it still answers: the journal's answers scored one by one as they arrive."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from advisor.display.progress import ProgressBoard
from rag.errors import Problem
from rag.indexing import generations
from rag.stores.text import TextStore
from rag.types import Citation
from runners.data.questions import Question
from runners.plan.schema import Plan, step_name
from runners.run_folder import INDEX, TRIAL
from runners.runs.dataset import read_data
from runners.scoring.scores import combined_score, score_answer
from runners.trial.trial import ANSWERS, mean_over_seeds

_CITATION = {field.name for field in fields(Citation)}


class LiveScores:
    """Means of the combined score so far, as the trial will give them for the same answers."""

    def __init__(self, plan: Plan, run: Path, questions: Mapping[str, Question]) -> None:
        """Take the run's folder, whose journal is followed, and the test questions by id."""
        self.plan = plan
        self.index = run / INDEX
        self.journal = run / TRIAL / ANSWERS
        self.questions = questions
        self.retrieval = {arm.arm: arm.retrieval for arm in plan.arms}
        self.weights = {str(name): weight for name, weight in plan.weights.items()}
        self.read = 0
        self.found: dict[str, dict[str, list[dict[str, float]]]] = {}
        """Scores by arm and question: one for each seed's answer."""
        self.golds: dict[str, str] = {}
        self.waiting: list[dict[str, Any]] = []
        """Rows whose gold spans cannot be looked up before the index is there."""

    def mean(self, arm: str) -> float | None:
        """Return an arm's mean over what the journal holds by now; None before its first answer that can be scored."""
        if self.journal.is_file():
            # Taken back: another arm's outdated answers were removed.
            if self.journal.stat().st_size < self.read:
                self.read, self.found, self.waiting = 0, {}, []
            with self.journal.open("rb") as stream:
                stream.seek(self.read)
                for line in stream:
                    if not line.endswith(b"\n"):
                        break
                    self.read += len(line)
                    self._take(line)
        rows, self.waiting = self.waiting, []
        for row in rows:
            self._score(row, self.questions[row["id"]])
        each = [
            combined_score(mean_over_seeds(scores), self.weights)
            for scores in self.found.get(arm, {}).values()
        ]
        return sum(each) / len(each) if each else None

    def _take(self, line: bytes) -> None:
        try:
            row: dict[str, Any] = json.loads(line)
        except ValueError:
            return
        if row.get("id", "") in self.questions and row.get("arm") in self.retrieval:
            self.waiting.append(row)

    def _score(self, row: dict[str, Any], question: Question) -> None:
        """Score an answer, or leave it waiting; several seeds' answers stand beside one another."""
        gold = self._gold(question)
        if gold is None:
            self.waiting.append(row)
            return
        cited = [Citation(**{k: v for k, v in c.items() if k in _CITATION}) for c in row.get("citations", ())]
        scores = score_answer(self.plan, question, row["answer"], cited, self.retrieval[row["arm"]], gold)
        self.found.setdefault(row["arm"], {}).setdefault(question.id, []).append(scores)

    def _gold(self, question: Question) -> str | None:
        """The text of a question's gold span, as :func:`runners.trial.step_runner.gold_text` reads it; None before there is an index."""
        if not question.spans or question.doc_id is None or self.plan.index is None:
            return ""
        if question.id not in self.golds:
            try:
                if not (number := generations.current_generation(self.index)):
                    return None
                with TextStore(self.index) as text:
                    document = text.document(question.doc_id, number)
            except Problem:
                return None  # it is being replaced; a damaged one stops the run itself
            raw = document.raw if document else ""
            self.golds[question.id] = " ".join(raw[start:end] for start, end in question.spans)
        return self.golds[question.id]


def board_for_plan(plan: Plan, out: Path, only: str | None = None) -> ProgressBoard:
    """Return the board of a plan that runs into ``out``: steps, estimates on this machine, and scores as they come.

    ``only`` names the one step that is run.
    """
    from advisor.costs.step_time import estimate_step_times

    examples, split = read_data(plan)
    running = LiveScores(plan, out, {q.id: q for q in split.test})
    estimates = dict(estimate_step_times(plan, len(examples), len(split.test)))
    names = [step_name(step) for step in plan.steps]
    steps = [name for name in names if only in (None, name)]
    return ProgressBoard(plan.name, steps, estimates, running.mean)
