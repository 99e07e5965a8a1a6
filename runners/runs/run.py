"""A run folder for Python: :func:`load` opens one as :class:`Run`, which can be asked."""

from __future__ import annotations

from collections.abc import Generator as Running
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rag.errors import BadInput
from rag.types import OnEvent
from runners import notebook
from runners.arms.answer import Answer
from runners.data.questions import Question
from runners.plan.schema import Plan
from runners.plan.steps import EvaluateStep
from runners.resources.device import WantedDtype
from runners.run_folder import RunFolder, read_scores
from runners.runs.opened import Opening, OpenRun
from runners.runs.plan_models import MovedModels


class Run:
    """A run folder that can be asked; models are loaded at the first question and kept in memory."""

    def __init__(self, opened: OpenRun) -> None:
        """Wrap an opened run; use `load` or `run`."""
        self._opened = opened

    @property
    def folder(self) -> RunFolder:
        """The run's files."""
        return self._opened.folder

    @property
    def plan(self) -> Plan:
        """The plan that was carried out."""
        return self._opened.plan

    @property
    def path(self) -> Path:
        """The path of the run folder."""
        return self.folder.path

    @property
    def arms(self) -> tuple[str, ...]:
        """The names of the arms that can be asked."""
        return tuple(step.arm for step in self.plan.arms)

    @property
    def questions(self) -> tuple[Question, ...]:
        """The test questions of the plan, read once; BadInput where its data is missing or broken."""
        return self._opened.split.test

    def arm(self, name: str | None = None) -> EvaluateStep:
        """Return the arm of this name, by default the one to use.

        Raises BadInput, listing the arms, when there is none, and UsageProblem when the verdict says that none can be
        used and no name was given.
        """
        return self._opened.arm(name)

    def ask(self, question: str, arm: str | None = None) -> Answer:
        """Answer a question with citations, with the arm that the verdict says to use or the one named.

        Raises BadInput for an empty question, an unknown arm, and a run that is damaged or lacks the arm's
        weights; UsageProblem when the verdict says that no arm can be used and none was named.
        """
        _check_question(question)
        chosen = self.arm(arm)
        self._opened.note_difference([chosen])
        answer = self._opened.ask([question], chosen)[0]
        return replace(answer, arm=answer.arm or chosen.arm)

    def stream(self, question: str, arm: str | None = None) -> Running[str, None, Answer]:
        """Yield an answer in pieces as the model generates it, cited; return the answer that :meth:`ask` gives."""
        _check_question(question)
        chosen = self.arm(arm)
        self._opened.note_difference([chosen])
        return self._opened.stream(question, chosen)

    def scores(self) -> dict[str, float]:
        """Return the mean combined score of each arm, best first, as the trial weighs it; {} before the trial was scored."""
        body = read_scores(self.path)
        weight_of = body.get("question_weights", {})
        means = {
            arm: sum(row["combined"] * weight_of.get(question, 1.0) for question, row in rows.items())
            / sum(weight_of.get(question, 1.0) for question in rows)
            for arm, rows in body.get("arms", {}).items()
            if rows
        }
        return dict(sorted(means.items(), key=lambda pair: -pair[1]))

    def __repr__(self) -> str:
        """Return name, choice and arms."""
        return f"Run({str(self.path)!r}, choice={self.plan.choice!r}, arms={list(self.arms)})"

    def _repr_html_(self) -> str:
        """Return name, choice and the arms' scores so far as HTML for a notebook."""
        scores = self.scores()
        rows = [(arm, f"{scores[arm]:.2f}" if arm in scores else "not scored") for arm in scores or self.arms]
        head = notebook.html_paragraph(f"Run {self.plan.name}: {self.plan.choice} is recommended")
        return f"<div>{head}{notebook.html_table(('arm', 'combined'), rows)}</div>"


def load(
    path: Path | str,
    on_event: OnEvent | None = None,
    model: MovedModels = None,
    backend: Sequence[str] | None = None,
    *,
    dtype: WantedDtype = "auto",
) -> Run:
    """Open a run folder; BadInput when there is none at ``path`` or its plan cannot be read.

    ``model`` is the folder of the run's base, where it is elsewhere than the plan says (of several models a list of
    ``ALIAS=FOLDER``), ``backend`` the servers that generate, as the values of ``--backend``; None for those that the run
    was measured with, if any. ``dtype`` is what models in this process compute their answers in; auto is what the device
    is fastest in.
    """
    opening = Opening(on_event=on_event, model=model, backend=backend, dtype=dtype)
    return Run(OpenRun.open(Path(path), opening))


def _check_question(question: str) -> None:
    if not question.strip():
        raise BadInput("the question is empty", 'ask something: tunewise ask RUN "When does it open?"')
