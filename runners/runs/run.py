"""A run folder opened for reading and asking: :class:`Run` for Python, :class:`RunSession` for the commands and the server.

:func:`load` opens a run for Python; :func:`open_session` also checks its files and obtains its models.
"""

from __future__ import annotations

from collections.abc import Generator as Running
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

from rag.errors import BadInput, UsageProblem
from rag.files import parse_json
from rag.refusal.drift import Drift, DriftWatch
from rag.types import OnEvent
from runners import notebook
from runners.arms.answer import Answer, answer_all, stream_answer
from runners.arms.prompt_selection import read_choices
from runners.arms.retriever import Retriever
from runners.arms.scored_labels import labels_of_plan, read_prior
from runners.data.examples import Example
from runners.data.formats import Message
from runners.data.questions import Question
from runners.inference.types import Generator
from runners.plan.backend import Backend, check_backend_arms, parse_backend
from runners.plan.schema import ArmStep, Plan
from runners.plan.steps import EvaluateStep
from runners.report.report_file import read_report
from runners.report.trial_report import TrialReport
from runners.resources.device import WantedDtype
from runners.run_folder import SCORES, TRIAL, RunFolder, open_run_folder, read_run_plan
from runners.runs.arm import PreparedArm, passage_finder, recall_arm
from runners.runs.dataset import read_examples
from runners.runs.recorded_models import RecordedModels
from runners.runs.requirements import needs_embedder
from runners.runs.session import RunContext, must_stay_local

if TYPE_CHECKING:
    from runners.runs.backend_servers import BackendServers


class RunSession:
    """An opened run: its plan, report, arms with their weights, and the models it was made with.

    The files are checked against the run's manifest when an arm or a model is first requested. Models are
    obtained with :attr:`context`, loaded at the first question and kept in memory.
    """

    def __init__(
        self,
        folder: RunFolder,
        plan: Plan,
        on_event: OnEvent | None = None,
        model: Path | None = None,
        backend: Sequence[str] | None = None,
        *,
        dtype: WantedDtype = "auto",
    ) -> None:
        """Wrap a run folder and its plan.

        Args:
            folder: the run folder.
            plan: its plan.
            on_event: receives the events of downloads, and notes on the servers of a backend.
            model: the folder of the run's base, when it is elsewhere than the plan says.
            backend: the servers that generate, as the values of ``--backend``; None for those of the plan, if any.
            dtype: what models in this process compute their answers in.

        Raises:
            BadInput: the backend is malformed, or names an arm that the plan does not have.
        """
        self.folder = folder
        self.plan = plan
        self.dtype: WantedDtype = dtype
        self._on_event = on_event
        self._model = model
        self.backend = plan.servers if backend is None else chosen_backend(plan, backend)
        self._from_plan = backend is None
        self._checked = False
        self._prepared: dict[str, PreparedArm] = {}
        self._watches: dict[str, DriftWatch] = {}
        """Of the retrievers that were asked last, by their kind."""
        self._drift_noted = False

    @classmethod
    def open(
        cls,
        path: Path,
        on_event: OnEvent | None = None,
        model: Path | None = None,
        backend: Sequence[str] | None = None,
        *,
        dtype: WantedDtype = "auto",
    ) -> RunSession:
        """Read a run's plan and nothing else yet; BadInput when ``path`` is no run or has no plan."""
        folder = open_run_folder(path)
        return cls(folder, read_run_plan(folder.path), on_event, model, backend, dtype=dtype)

    def check(self) -> None:
        """Check the files against the run's manifest, once; BadInput names a file that differs."""
        if not self._checked:
            self.folder.check()
            self._checked = True

    @property
    def report(self) -> TrialReport | None:
        """The current report; None before there is one, BadInput when it is damaged."""
        return read_report(self.folder.path)

    @property
    def default_arm(self) -> str | None:
        """The name of the arm that is asked by default; None where the verdict says that none can be used.

        It is the verdict's ``use``, and before a verdict the plan's choice.
        """
        report = self.report
        return report.verdict.use if report else self.plan.choice

    def arm(self, name: str | None = None) -> EvaluateStep:
        """Return the arm of this name, by default the one to use.

        Raises:
            BadInput: the run has no such arm; the message lists its arms.
            UsageProblem: no name was given, and the verdict says that no arm can be used.
        """
        self.check()
        return self.find_arm(name)

    def find_arm(self, name: str | None = None) -> EvaluateStep:
        """Return the arm as :meth:`arm` does, without checking the run's files."""
        report = None if name else self.report
        wanted = name or (report.verdict.use if report else self.plan.choice)
        if wanted is None:
            reason = report.verdict.use_reason if report else ""
            arms = " or ".join(step.arm for step in self.plan.arms)
            raise UsageProblem(f"no arm is asked by default: {reason}", f"choose one yourself: --arm {arms}")
        for step in self.plan.arms:
            if step.arm == wanted:
                return step
        known = ", ".join(step.arm for step in self.plan.arms) or "none"
        raise BadInput(f"this run has no arm {wanted!r}", f"its arms: {known}")

    @property
    def searched_arm(self) -> EvaluateStep | None:
        """The arm that is asked by default, whose index searches are made in; None where there is none."""
        name = self.default_arm
        return next((step for step in self.plan.arms if step.arm == name), None)

    def seed(self, arm: EvaluateStep, seed: int | None = None) -> int | None:
        """Return the seed of an arm's weights, by default the first trained one; None for an arm without weights.

        BadInput when no weights were to be trained with this seed.
        """
        if not arm.weights:
            return None
        seeds = self.plan.train_step(arm.weights).seeds
        if seed is not None and seed not in seeds:
            known = ", ".join(map(str, seeds))
            raise BadInput(f"the arm {arm.arm} has no weights of seed {seed}", f"its seeds: {known}")
        return seeds[0] if seed is None else seed

    def weights_folder(self, arm: EvaluateStep, seed: int | None = None) -> Path | None:
        """Return the folder of an arm's weights, whether or not they are trained; None for an arm without weights."""
        trained_seed = self.seed(arm, seed)
        return (
            self.folder.adapter(arm.weights, trained_seed)
            if arm.weights and trained_seed is not None
            else None
        )

    def weights(self, arm: EvaluateStep, seed: int | None = None) -> Path | None:
        """Return the folder of an arm's weights; None for an arm without, BadInput when the run lacks them."""
        folder = self.weights_folder(arm, seed)
        if folder is not None and not folder.is_dir() and not self.backend.model_of(arm):
            raise BadInput(
                f"the run has no weights for the arm {arm.arm} ({folder.name} is missing)",
                f"finish it with: tunewise run {self.folder.path} --resume",
            )
        return folder

    @cached_property
    def recorded(self) -> RecordedModels:
        """The models named in the run's log; UsageProblem when a folder was given for a base that has none."""
        return RecordedModels(self.folder, self.plan, self._model, self._on_event)

    @cached_property
    def context(self) -> RunContext:
        """The models and the index that answer; BadInput when a model is not the one the run was made with."""
        self.check()
        bases = self.recorded.bases()
        choices = read_choices(self.folder.path / TRIAL).values()
        shows_nearest = any("nearest" in choice["chosen"] for choice in choices)
        embedder = self.recorded.embedder() if shows_nearest or needs_embedder(self.plan) else None
        return RunContext(
            self.plan,
            self.folder,
            bases[self.plan.model.name],
            embedder,
            bases=bases,
            reranker_model=self.recorded.reranker(),
            backend=self._backend_servers(),
            dtype=self.dtype,
        )

    def _backend_servers(self) -> BackendServers | None:
        """Return the servers of the backend, none of them asked yet; None without a backend."""
        if not self.backend:
            return None
        from runners.runs.backend_servers import BackendServers

        return BackendServers(
            self.plan,
            self.backend,
            must_stay_local(self.plan),
            self._note,
            self.folder.path if self._from_plan else None,
        )

    def _note(self, text: str) -> None:
        if self._on_event:
            self._on_event({"event": "backend.note", "reason": text})

    def note_difference(self, arms: Sequence[EvaluateStep]) -> None:
        """Say where arms are answered by another model or other servers than those that the verdict was measured with."""
        from runners.runs.backend_servers import backend_difference

        if (self.backend or self.plan.backend) and (
            text := backend_difference(self.plan, self.backend, arms)
        ):
            self._note(text)

    def ask(
        self,
        questions: list[str],
        arm: EvaluateStep,
        history: tuple[Message, ...] = (),
        seed: int | None = None,
    ) -> list[Answer]:
        """Answer questions with one arm.

        Args:
            questions: the questions' texts.
            arm: the arm.
            history: the turns before each question.
            seed: the seed of the arm's weights; the first trained one by default.
        """
        asked = [Question(f"ask-{n}", text, history=history) for n, text in enumerate(questions)]
        prepared = self.prepare(arm, seed)
        load = partial(self.generator, arm, seed)
        return answer_all(prepared.plan, arm, asked, load, prepared.finder, prepared.shots)

    def stream(
        self, question: str, arm: EvaluateStep, history: tuple[Message, ...] = ()
    ) -> Running[str, None, Answer]:
        """Yield the pieces of one answer while the model generates them; return the answer with its citations."""
        asked = Question("ask-0", question, history=history)
        prepared, load = self.prepare(arm), partial(self.generator, arm)
        return stream_answer(prepared.plan, arm, asked, load, prepared.finder, prepared.shots)

    def prepare(self, arm: EvaluateStep, seed: int | None = None) -> PreparedArm:
        """Return the arm ready to search: instructions, examples, passages; its language model is not loaded."""
        context = self.context
        weights = self.weights(arm, seed)
        if arm.labels == "scored" and not read_prior(
            self.folder.path / TRIAL, arm, weights, labels_of_plan(self.plan)
        ):
            raise BadInput(
                f"the run has not measured the priors of the labels for the arm {arm.arm} yet",
                f"finish it with: tunewise run {self.folder.path} --resume",
            )
        if arm.arm not in self._prepared:
            self._prepared[arm.arm] = recall_arm(context, arm, self._examples)
        # The index may have a newer generation since the last question.
        finder = passage_finder(context, arm)
        if isinstance(finder, Retriever):
            self._watches[arm.retriever] = finder.drift
        return replace(self._prepared[arm.arm], finder=finder)

    def generator(self, arm: EvaluateStep, seed: int | None = None) -> Generator:
        """Return the arm's model with the weights of this seed, loaded if it is not yet."""
        return self.context.generator(self.weights(arm, seed), arm)

    @property
    def drift(self) -> Drift | None:
        """How the questions asked in this session differ from those that refusals were fitted on; None if there are few."""
        compared = (watch.compare() for watch in list(self._watches.values()))
        return next((drift for drift in compared if drift), None)

    def drift_note(self) -> str:
        """Return the line that says that these questions differ surely, once in a session; "" otherwise."""
        if self._drift_noted:
            return ""
        text = next((line for watch in list(self._watches.values()) if (line := watch.note())), "")
        self._drift_noted = bool(text)
        return text

    def _examples(self) -> tuple[Example, ...]:
        """Read the examples that an arm shows; BadInput when their file is missing."""
        file = self.plan.data.examples
        if file is not None and not file.exists():
            raise BadInput(
                f"the arm shows examples of {file}, which is not there",
                "put them back in that place, or ask an arm that shows none: --arm ARM",
            )
        return read_examples(self.plan)


class Run:
    """A run folder that can be asked; models are loaded at the first question and kept in memory."""

    def __init__(self, session: RunSession) -> None:
        """Wrap an opened run; use `load` or `run`."""
        self._session = session

    @property
    def folder(self) -> RunFolder:
        """The run's files."""
        return self._session.folder

    @property
    def plan(self) -> Plan:
        """The plan that was carried out."""
        return self._session.plan

    @property
    def path(self) -> Path:
        """The path of the run folder."""
        return self.folder.path

    @property
    def arms(self) -> tuple[str, ...]:
        """The names of the arms that can be asked."""
        return tuple(step.arm for step in self.plan.arms)

    def arm(self, name: str | None = None) -> EvaluateStep:
        """Return the arm of this name, by default the one to use.

        Raises BadInput, listing the arms, when there is none, and UsageProblem when the verdict says that none can be
        used and no name was given.
        """
        return self._session.arm(name)

    def ask(self, question: str, arm: str | None = None) -> Answer:
        """Answer a question with citations, with the arm that the verdict says to use or the one named.

        Raises BadInput for an empty question, an unknown arm, and a run that is damaged or lacks the arm's
        weights; UsageProblem when the verdict says that no arm can be used and none was named.
        """
        _check_question(question)
        chosen = self.arm(arm)
        self._session.note_difference([chosen])
        return replace(self._session.ask([question], chosen)[0], arm=chosen.arm)

    def stream(self, question: str, arm: str | None = None) -> Running[str, None, Answer]:
        """Yield an answer in pieces as the model generates it, cited; return the answer that :meth:`ask` gives."""
        _check_question(question)
        chosen = self.arm(arm)
        self._session.note_difference([chosen])
        return self._session.stream(question, chosen)

    def scores(self) -> dict[str, float]:
        """Return the mean combined score of each arm, best first, as the trial weighs it; {} before the trial was scored."""
        path = self.path / TRIAL / SCORES
        if not path.is_file():
            return {}
        try:
            body = parse_json(path.read_text("utf-8"))
            weight_of = body.get("question_weights", {})
            means = {
                arm: sum(row["combined"] * weight_of.get(question, 1.0) for question, row in rows.items())
                / sum(weight_of.get(question, 1.0) for question in rows)
                for arm, rows in body["arms"].items()
                if rows
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
        """Return name, choice and the arms' scores so far as HTML for a notebook."""
        scores = self.scores()
        rows = [(arm, f"{scores[arm]:.2f}" if arm in scores else "not scored") for arm in scores or self.arms]
        head = notebook.html_paragraph(f"Run {self.plan.name}: {self.plan.choice} is recommended")
        return f"<div>{head}{notebook.html_table(('arm', 'combined'), rows)}</div>"


def chosen_backend(plan: Plan, entries: Sequence[str]) -> Backend:
    """Return the backend of the values of ``--backend``; BadInput for a malformed one, or an arm that the plan lacks."""
    backend = parse_backend(entries)
    try:
        check_backend_arms(entries, [step.arm for step in plan.steps if isinstance(step, ArmStep)])
    except ValueError as error:
        raise BadInput(str(error)) from None
    return backend


def open_session(
    path: Path,
    on_event: OnEvent | None = None,
    model: Path | None = None,
    backend: Sequence[str] | None = None,
    *,
    dtype: WantedDtype = "auto",
) -> RunSession:
    """Open a run to be asked: check its files and obtain its models now, load them at the first question.

    Args:
        path: the run folder.
        on_event: receives the events of downloads, and notes on the servers of a backend.
        model: the folder of the run's base, when it is elsewhere than the plan says.
        backend: the servers that generate, as the values of ``--backend``; None for those of the plan, if any.
        dtype: what models in this process compute their answers in.

    Raises:
        BadInput: ``path`` is no run, a file differs from the manifest, or a model is not the one the run was
            made with.
    """
    session = RunSession.open(path, on_event, model, backend, dtype=dtype)
    _ = session.context
    return session


def load(
    path: Path | str,
    on_event: OnEvent | None = None,
    model: Path | str | None = None,
    backend: Sequence[str] | None = None,
    *,
    dtype: WantedDtype = "auto",
) -> Run:
    """Open a run folder; BadInput when there is none at ``path`` or its plan cannot be read.

    ``model`` is the folder of the run's base, where it is elsewhere than the plan says, ``backend`` the servers that
    generate, as the values of ``--backend``; None for those that the run was measured with, if any. ``dtype`` is what
    models in this process compute their answers in; auto is what the device is fastest in.
    """
    return Run(RunSession.open(Path(path), on_event, Path(model) if model else None, backend, dtype=dtype))


def _check_question(question: str) -> None:
    if not question.strip():
        raise BadInput("the question is empty", 'ask something: tunewise ask RUN "When does it open?"')
