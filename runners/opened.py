"""A run from Python: carry out a plan, open what it left, ask it."""

from __future__ import annotations

import json
from collections.abc import Generator as Running
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from rag.errors import BadInput, UsageProblem
from rag.types import OnEvent
from runners import notebook
from runners.answer import Answer
from runners.desk import Desk
from runners.plan import EvaluateStep, Plan, read_plan
from runners.rundir import TRIAL, RunFolder, open_run, read_run_plan
from runners.trial import SCORES


class Run:
    """A run folder, ready to be asked; models are loaded at the first question and kept."""

    def __init__(
        self, folder: RunFolder, plan: Plan, on_event: OnEvent | None = None, model: Path | None = None
    ) -> None:
        """Put the parts together; use `load` or `run`."""
        self.folder = folder
        self.plan = plan
        self._on_event, self._model = on_event, model

    @property
    def path(self) -> Path:
        """Where the run lies."""
        return self.folder.path

    @property
    def arms(self) -> tuple[str, ...]:
        """The names of the arms that can be asked."""
        return tuple(step.arm for step in self.plan.arms)

    def arm(self, name: str | None = None) -> EvaluateStep:
        """The arm of this name; by default the verdict's winner. BadInput, listing the arms, when there is none."""
        return self.desk.arm(name)

    def ask(self, question: str, arm: str | None = None) -> Answer:
        """Answer a question with citations, with the arm the verdict chose or the one named.

        Raises BadInput for an empty question, an unknown arm, and a run that is damaged or lacks the arm's weights.
        """
        if not question.strip():
            raise BadInput("the question is empty", 'ask something: tunewise ask RUN "When does it open?"')
        chosen = self.arm(arm)
        return replace(self.desk.ask([question], chosen)[0], arm=chosen.arm)

    def stream(self, question: str, arm: str | None = None) -> Running[str, None, Answer]:
        """Yield the pieces of an answer as the model says them; return the answer that :meth:`ask` gives."""
        if not question.strip():
            raise BadInput("the question is empty", 'ask something: tunewise ask RUN "When does it open?"')
        return self.desk.stream(question, self.arm(arm))

    @cached_property
    def desk(self) -> Desk:
        """What answers: the run checked against its manifest, its models obtained."""
        return Desk(self.path, self._on_event, self._model)

    def scores(self) -> dict[str, float]:
        """Return the mean combined score of each arm, best first; {} before the trial was scored."""
        path = self.path / TRIAL / SCORES
        if not path.is_file():
            return {}
        try:
            arms = json.loads(path.read_text("utf-8"))["arms"]
            means = {
                a: sum(r["combined"] for r in rows.values()) / len(rows) for a, rows in arms.items() if rows
            }
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BadInput(
                f"{path} is damaged: {error!r}", f"score it again with: tunewise run {self.path} --resume"
            ) from None
        return dict(sorted(means.items(), key=lambda pair: -pair[1]))

    def __repr__(self) -> str:
        """Return name, choice and arms."""
        return f"Run({str(self.path)!r}, choice={self.plan.choice!r}, arms={list(self.arms)})"

    def _repr_html_(self) -> str:
        """What a notebook shows: name, choice and the arms' scores so far."""
        scores = self.scores()
        rows = [(arm, f"{scores[arm]:.2f}" if arm in scores else "not scored") for arm in scores or self.arms]
        head = notebook.paragraph(f"Run {self.plan.name}: {self.plan.choice} is recommended")
        return f"<div>{head}{notebook.table(('arm', 'combined'), rows)}</div>"


def run(
    plan: Plan | Path | str,
    out: Path | str | None = None,
    *,
    resume: bool = False,
    overwrite: bool = False,
    quick: bool = False,
    only: str | None = None,
    on_event: OnEvent | None = None,
) -> Run:
    """Carry out a plan (or the file of one) into a folder, by default ``runs/NAME``, and return the run.

    ``resume`` goes on after the last finished step, ``overwrite`` starts again, ``quick`` takes fewer rows and
    questions, ``only`` runs one step; ``on_event`` hears what happens. Raises UsageProblem for a folder that
    exists, BadInput for bad data or leaking questions, CannotRun when this machine cannot do it.
    """
    from runners import execution

    if resume and overwrite:
        raise UsageProblem("resume and overwrite exclude each other", "choose one")
    plan = plan if isinstance(plan, Plan) else read_plan(Path(plan))
    plan = execution.quick(plan) if quick else plan
    place = Path(out) if out is not None else Path("runs") / plan.name
    folder = execution.run_plan(plan, place, resume, overwrite, only, on_event)
    return Run(folder, plan, on_event)


def load(path: Path | str, on_event: OnEvent | None = None, model: Path | str | None = None) -> Run:
    """Open a run folder; BadInput when there is none at ``path`` or its plan cannot be read.

    ``model`` is the folder of the run's base, where that lies elsewhere than the plan says.
    """
    folder = open_run(Path(path))
    return Run(folder, read_run_plan(folder.path), on_event, Path(model) if model else None)
