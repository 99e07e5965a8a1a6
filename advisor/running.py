"""An arm's combined score while it still answers: the journal's answers scored one by one as they arrive."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from advisor.board import Board
from rag.types import Citation
from runners.data import Question
from runners.execution import read_data
from runners.plan import Plan, step_name
from runners.rundir import TRIAL
from runners.score import combined, score_answer
from runners.trial import ANSWERS

_CITATION = {field.name for field in fields(Citation)}


class Running:
    """Means of the combined score so far; gold spans are not looked up, so a question may lack a score it gets later."""

    def __init__(self, plan: Plan, journal: Path, questions: Mapping[str, Question]) -> None:
        """Take the journal to follow and the test questions by id."""
        self.plan = plan
        self.journal = journal
        self.questions = questions
        self.retrieval = {arm.arm: arm.retrieval for arm in plan.arms}
        self.read = 0
        self.found: dict[str, list[float]] = {}

    def mean(self, arm: str) -> float | None:
        """Return an arm's mean over what the journal holds by now; None before its first answer."""
        if self.journal.is_file():
            if (
                self.journal.stat().st_size < self.read
            ):  # taken back: another arm's outdated answers were removed
                self.read, self.found = 0, {}
            with self.journal.open("rb") as stream:
                stream.seek(self.read)
                for line in stream:
                    if not line.endswith(b"\n"):
                        break
                    self.read += len(line)
                    self._take(line)
        scores = self.found.get(arm)
        return sum(scores) / len(scores) if scores else None

    def _take(self, line: bytes) -> None:
        try:
            row: dict[str, Any] = json.loads(line)
        except ValueError:
            return
        question = self.questions.get(row.get("id", ""))
        if question is None or row.get("arm") not in self.retrieval:
            return
        cited = [Citation(**{k: v for k, v in c.items() if k in _CITATION}) for c in row.get("citations", ())]
        scores = score_answer(self.plan, question, row["answer"], cited, self.retrieval[row["arm"]])
        weights = {str(name): weight for name, weight in self.plan.weights.items()}
        self.found.setdefault(row["arm"], []).append(combined(scores, weights))


def board_of(plan: Plan, out: Path, only: str | None = None) -> Board:
    """Return the board of a plan that runs into ``out``: steps, estimates on this machine, and scores as they come.

    ``only`` names the one step that is run.
    """
    from advisor.timing import schedule

    examples, split = read_data(plan)
    running = Running(plan, out / TRIAL / ANSWERS, {q.id: q for q in split.test})
    estimates = dict(schedule(plan, len(examples), len(split.test)))
    names = [step_name(step) for step in plan.steps]
    steps = [name for name in names if only in (None, name)]
    return Board(plan.name, steps, estimates, running.mean)
