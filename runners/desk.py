"""A finished run, ready to be asked: the arm the verdict chose, or any other, with its index and weights."""

from __future__ import annotations

from collections.abc import Generator as Running
from dataclasses import replace
from pathlib import Path

from rag.errors import BadInput
from rag.types import OnEvent
from runners.answer import Answer, answer_all, answer_in_pieces
from runners.bench import Bench
from runners.completion import Generator
from runners.data import Example, Question
from runners.outfit import Outfit, needs_embedder, passages, recall
from runners.plan import EvaluateStep, Plan
from runners.recorded import Recorded
from runners.rundir import open_run, read_report, read_run_plan
from runners.shapes import Message


class Desk:
    """Answers questions from a run folder; models are loaded at the first question and kept."""

    def __init__(self, path: Path, on_event: OnEvent | None = None, model: Path | None = None) -> None:
        """Open a run; BadInput when it is not one, or its files or models are not those it was made with.

        ``model`` is the folder of its base, where that lies elsewhere than the plan says.
        """
        run = open_run(path)
        self.plan: Plan = read_run_plan(path)
        run.check()
        recorded = Recorded(run, self.plan, model, on_event)
        bases = recorded.bases()
        embedder = recorded.embedder() if needs_embedder(self.plan) else None
        self.bench = Bench(self.plan, run, bases[self.plan.model.name], embedder, bases=bases)
        self._outfits: dict[str, Outfit] = {}

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
        report = read_report(self.bench.run.path)
        return str(report["verdict"]["winner"]) if report else self.plan.choice

    def ask(
        self,
        questions: list[str],
        arm: EvaluateStep,
        history: tuple[Message, ...] = (),
        seed: int | None = None,
    ) -> list[Answer]:
        """Answer questions with one arm; `history` is the turns before them."""
        asked = [Question(f"ask-{n}", text, history=history) for n, text in enumerate(questions)]
        worn, generator = self.ready(arm, seed)
        return answer_all(worn.plan, arm, asked, generator, worn.finder, worn.shots)

    def stream(
        self, question: str, arm: EvaluateStep, history: tuple[Message, ...] = ()
    ) -> Running[str, None, Answer]:
        """Yield the pieces of one answer as the model says them; return the answer with its citations."""
        asked = Question("ask-0", question, history=history)
        worn, generator = self.ready(arm)
        return answer_in_pieces(worn.plan, arm, asked, generator, worn.finder, worn.shots)

    def ready(self, arm: EvaluateStep, seed: int | None = None) -> tuple[Outfit, Generator]:
        """What an arm answers with: its instructions, examples and passages, and the model with its weights."""
        weights = None
        if arm.weights:
            seeds = self.plan.train_step(arm.weights).seeds
            weights = self.tuned(arm.weights, seeds[0] if seed is None else seed)
        if arm.arm not in self._outfits:
            self._outfits[arm.arm] = recall(self.bench, arm, self._examples)
        # The index may have moved on since the last question.
        worn = replace(self._outfits[arm.arm], finder=passages(self.bench, arm))
        return worn, self.bench.generator(weights, arm)

    def tuned(self, arm: str, seed: int) -> Path:
        """The folder of a train step's weights; BadInput when the run has none."""
        weights = self.bench.run.adapter(arm, seed)
        if not weights.exists():
            raise BadInput(
                f"the run has no weights for the arm {arm} ({weights.name} is missing)",
                f"finish it with: tunewise run {self.bench.run.path} --resume",
            )
        return weights

    def _examples(self) -> tuple[Example, ...]:
        from runners.execution import read_examples

        file = self.plan.data.examples
        if file is not None and not file.exists():
            raise BadInput(
                f"the arm shows examples of {file}, which is not there",
                "put them back in that place, or ask an arm that shows none: --arm ARM",
            )
        return read_examples(self.plan)
