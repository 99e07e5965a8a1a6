"""A finished run, ready to be asked: the arm the verdict chose, or any other, with its index and weights."""

from __future__ import annotations

import json
from collections.abc import Generator as Running
from pathlib import Path

from rag.errors import BadInput
from runners.answer import Answer, answer_all, answer_in_pieces
from runners.bench import Bench, obtain, obtain_bases
from runners.completion import Generator
from runners.data import Example, Question
from runners.plan import EvaluateStep, Plan
from runners.prompting import choose_shots
from runners.retrieval import Retriever
from runners.rundir import REPORT, OnEvent, open_run, read_run_plan
from runners.shapes import Message


class Desk:
    """Answers questions from a run folder; models are loaded at the first question and kept."""

    def __init__(self, path: Path, on_event: OnEvent = None) -> None:
        """Open a run; BadInput when it is not one, or its files differ from its manifest."""
        run = open_run(path)
        self.plan: Plan = read_run_plan(path)
        run.check()
        bases = obtain_bases(self.plan, on_event)
        embedder = obtain(self.plan.embedder, "embedder", on_event) if self.plan.index else None
        self.bench = Bench(self.plan, run, bases[self.plan.model.name], embedder, bases=bases)

    def arm(self, name: str | None = None) -> EvaluateStep:
        """The arm of this name; by default the verdict's winner, before a verdict the plan's choice."""
        wanted = name or self.winner()
        for step in self.plan.arms:
            if step.arm == wanted:
                return step
        known = ", ".join(step.arm for step in self.plan.arms)
        raise BadInput(f"this run has no arm {wanted!r}", f"its arms: {known}")

    def winner(self) -> str:
        """The arm the verdict chose."""
        report = self.bench.run.path / REPORT
        if not report.exists():
            return self.plan.choice
        return str(json.loads(report.read_text("utf-8"))["verdict"]["winner"])

    def ask(
        self,
        questions: list[str],
        arm: EvaluateStep,
        history: tuple[Message, ...] = (),
        seed: int | None = None,
    ) -> list[Answer]:
        """Answer questions with one arm; `history` is the turns before them."""
        asked = [Question(f"ask-{n}", text, history=history) for n, text in enumerate(questions)]
        return answer_all(self.plan, arm, asked, *self._parts(arm, seed))

    def stream(
        self, question: str, arm: EvaluateStep, history: tuple[Message, ...] = ()
    ) -> Running[str, None, Answer]:
        """Yield the pieces of one answer as the model says them; return the answer with its citations."""
        return answer_in_pieces(
            self.plan, arm, Question("ask-0", question, history=history), *self._parts(arm)
        )

    def _parts(
        self, arm: EvaluateStep, seed: int | None = None
    ) -> tuple[Generator, Retriever | None, tuple[Example, ...]]:
        """What an arm answers with: the model with its weights, the retriever, the examples shown."""
        weights = None
        if arm.weights:
            seeds = self.plan.train_step(arm.weights).seeds
            weights = self.bench.run.adapter(arm.weights, seeds[0] if seed is None else seed)
            if not weights.exists():
                raise BadInput(
                    f"the run has no weights for the arm {arm.arm} ({weights.name} is missing)",
                    "finish it with: tunewise run --resume",
                )
        shots: tuple[Example, ...] = ()
        if arm.shots:
            from runners.run import read_data

            shots = choose_shots(read_data(self.plan)[0], arm.shots, self.plan.seed)
        retriever = self.bench.retriever if arm.retrieval else None
        return self.bench.generator(weights, arm), retriever, shots
