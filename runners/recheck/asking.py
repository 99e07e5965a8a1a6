"""An arm asked again: recorded answers where the chat is the same, the arm's model for the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rag.files import append_lines
from runners.arms.prompt_selection import read_stored_prompts
from runners.data.questions import Question
from runners.inference.types import Generator
from runners.lookup.journal import LOOKUPS
from runners.made_from import compare
from runners.plan.steps import EvaluateStep
from runners.recheck.inputs import EXAMPLES, Change, RunInputs, asking_inputs
from runners.recheck.recorded import REFUSED, RecordedAnswers, RecordedGenerator
from runners.run_folder import TRIAL, RunFolder, read_journal
from runners.runs.arm import PreparedArm, choosing_step, prepare_arm, recall_arm
from runners.runs.example_arms import fit_on_examples
from runners.runs.opened import OpenRun
from runners.selective.routes import require_route, routed_rows
from runners.trial import trial
from runners.trial.trial import ANSWERS


@dataclass(frozen=True)
class ArmAsking:
    """What the arms of a recheck are asked with."""

    context: OpenRun
    """The recheck's folder, with the plan, models and index of today; its test questions are those that are compared."""
    base: RunFolder
    """The run, or the recheck, that it is compared with."""
    old: RunInputs
    new: RunInputs
    changes: Sequence[Change]
    again: frozenset[str]
    """Arms whose weights were trained again."""
    digest: str
    """Of everything that the answers depend on."""
    gold: Callable[[Question], str]
    """Returns the text of a question's gold span."""
    ask_all: bool = False
    rows: Sequence[dict[str, Any]] = ()
    """The journal of the base."""
    recorded: RecordedAnswers = field(init=False)

    def __post_init__(self) -> None:
        """Index the recorded answers."""
        object.__setattr__(self, "recorded", RecordedAnswers(self.rows, self.base.path / TRIAL))

    @property
    def folder(self) -> Path:
        """The recheck's own trial."""
        return self.context.folder.path / TRIAL

    def answer(self, arm: EvaluateStep, position: tuple[int, int]) -> None:
        """Let an arm answer what the recheck's journal does not hold yet.

        Args:
            arm: the arm of the present plan.
            position: which arm it is, from 1, and of how many.
        """
        context, name = self.context, f"evaluate:{arm.arm}"
        context.emit({"event": "step.start", "step": name, "number": position[0], "total": position[1]})
        trial.drop_outdated_answers(self.folder, arm.arm, self.digest)
        if arm.without_model and not self._reusable(arm):
            fit_on_examples(context, arm, self.digest)
        if arm.route:
            self._answer_routed(arm)
            context.emit({"event": "step.end", "step": name})
            return
        prepared = self._prepared(arm)
        for seed in self._seeds(arm):
            trial.run_arm(
                prepared.plan,
                arm,
                seed,
                context.split.test,
                self._generator(arm, prepared, seed),
                prepared.finder,
                prepared.shots,
                self.folder / ANSWERS,
                context.emit,
            )
        rows = [row for row in read_journal(self.folder / ANSWERS) if row["arm"] == arm.arm]
        cut = sum(row["finish"] == "length" for row in rows)
        context.emit({"event": "step.end", "step": name, "cut": cut})

    def _answer_routed(self, arm: EvaluateStep) -> None:
        """Write the answers of a router from those of its two arms, by the cut that the trial chose."""
        rows = read_journal(self.folder / ANSWERS)
        known = {(row["seed"], row["id"]) for row in rows if row["arm"] == arm.arm}
        cut = require_route(self.context.folder.path, self.folder, arm).cut
        routed = routed_rows(arm, rows, self._seeds(self.context.plan.routed(arm)[1]), cut)
        append_lines(self.folder / ANSWERS, [row for row in routed if (row["seed"], row["id"]) not in known])

    def asked_again(self, arm: EvaluateStep) -> frozenset[str]:
        """Return the questions whose answer is not the recorded one, as the two journals tell."""
        own = RecordedAnswers((), self.folder)
        reusable = self._reusable(arm)
        asked = set[str]()
        for row in read_journal(self.folder / ANSWERS):
            if row["arm"] != arm.arm:
                continue
            seed = self._recorded_seed(arm, row["seed"])
            if row["finish"] == REFUSED:
                same = self.recorded.refused(arm.arm, seed, row["id"])
            else:
                same = reusable and _same_answer(self.recorded.answer(arm.arm, seed, own.key(row)), row)
            if not same:
                asked.add(str(row["id"]))
        return frozenset(asked)

    def _seeds(self, arm: EvaluateStep) -> tuple[int, ...]:
        plan = self.context.plan
        return plan.train_step(arm.weights).seeds if arm.weights else (plan.seed,)

    def _recorded_seed(self, arm: EvaluateStep, seed: int) -> int:
        """Return the seed under which the base recorded an arm's answers: without weights it is the plan's."""
        weights = self.context.plan.routed(arm)[1].weights if arm.route else arm.weights
        return seed if weights else self.old.plan.seed

    def _before(self, arm: EvaluateStep) -> EvaluateStep | None:
        return next((step for step in self.old.plan.arms if step.arm == arm.arm), None)

    def _prepared(self, arm: EvaluateStep) -> PreparedArm:
        """Return the arm with the prompt that the trial chose; chosen anew where the examples or the arm changed."""
        context = self.context
        new_examples = any(change.kind == EXAMPLES for change in self.changes)
        if choosing_step(context.plan, arm).chooses_prompt and (new_examples or self._before(arm) != arm):
            seeds = self._seeds(arm)
            weights = context.folder.adapter(arm.weights, seeds[0]) if arm.weights else None
            return prepare_arm(context, arm, weights, self.gold)
        return recall_arm(context, arm, read_stored_prompts(self.folder))

    def _reusable(self, arm: EvaluateStep) -> bool:
        """Return whether the recorded answer to a chat of an arm is still its answer."""
        before = self._before(arm)
        if self.ask_all or before is None or arm.weights != before.weights or arm.weights in self.again:
            return False
        if arm.nearest_reply and self.context.plan.data.documents:
            return False  # they may hold questions with answers; it answers again in milliseconds
        if arm.route:
            return all(map(self._reusable, self.context.plan.routed(arm)))
        return not compare(asking_inputs(self.old, before), asking_inputs(self.new, arm)).changed

    def _generator(self, arm: EvaluateStep, prepared: PreparedArm, seed: int) -> Generator:
        """Return what answers: the recorded rows where they hold, else the arm's model, loaded when it is needed.

        An arm that looks things up is asked in any case, but sends no request whose reply was recorded: which those are
        depends on the documents.
        """
        context, reusable = self.context, self._reusable(arm)
        weights = context.folder.adapter(arm.weights, seed) if arm.weights else None
        if arm.looks_up:
            recorded = (self.base.path / TRIAL / LOOKUPS,) if reusable else ()
            return context.answering(arm, weights, (self.folder / LOOKUPS, *recorded))
        from_seed = self._recorded_seed(arm, seed)
        longest = self.old.plan.max_new_tokens

        def load() -> Generator:
            generator = context.models.generator(weights, arm)
            if arm.labels == "scored":
                self._measure_prior(arm, prepared, generator, weights)
            return generator

        return RecordedGenerator(
            load,
            lambda key: self.recorded.answer(arm.arm, from_seed, key) if reusable else None,
            None if longest == context.plan.max_new_tokens else longest,
        )

    def _measure_prior(
        self, arm: EvaluateStep, prepared: PreparedArm, generator: Generator, weights: Path | None
    ) -> None:
        """Measure the prior of an arm's labels with what it answers with today."""
        from runners.arms import scored_labels

        assert isinstance(generator, scored_labels.ScoredLabels)
        chats, reference = scored_labels.reference_chats(
            prepared.plan, arm, self.context.split.dev, prepared.finder, prepared.shots
        )
        scored_labels.measure_prior(generator, arm, weights, chats, reference, self.folder, self.digest)


def _same_answer(recorded: Mapping[str, Any] | None, row: Mapping[str, Any]) -> bool:
    """Return whether a row holds a recorded answer."""
    keys = ("answer", "completion_tokens", "seconds")
    return recorded is not None and all(recorded[key] == row[key] for key in keys)
