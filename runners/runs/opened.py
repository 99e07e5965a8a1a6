"""An opened run (:class:`OpenRun`): the steps of a plan are carried out on one, and a finished run is asked by one."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Generator as Running
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag.errors import BadInput, Problem, UsageProblem
from rag.types import OnEvent
from runners.arms.answer import Answer, answer_all, stream_answer, with_check
from runners.arms.prompt_selection import StoredPrompts, read_stored_prompts
from runners.arms.scored_labels import labels_of_plan, read_prior
from runners.data.examples import Example
from runners.data.formats import Message
from runners.data.questions import Question
from runners.data.sampling import QuestionSplit
from runners.inference.types import Generator
from runners.made_from import file_lines, match_shown
from runners.plan.backend import Backend, check_backend_arms, parse_backend
from runners.plan.gate import Check
from runners.plan.schema import ArmStep, Plan
from runners.plan.steps import EvaluateStep
from runners.report.report_file import read_report
from runners.report.trial_report import TrialReport
from runners.resources.device import WantedDtype
from runners.run_folder import TRIAL, RunFolder, open_run_folder, read_run_plan
from runners.runs.arm import PreparedArm, recall_arm, shows_file
from runners.runs.dataset import RunData, read_data, read_examples
from runners.runs.loaded_models import RunModels
from runners.runs.plan_models import ModelSource, MovedModels, ObtainedModels, must_stay_local
from runners.runs.retrieval import RunRetrieval

if TYPE_CHECKING:
    from rag.embedding.embedder import Embedder


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """How a finished run is opened to be asked."""

    on_event: OnEvent | None = None
    """Receives the events of downloads, and notes on the servers of a backend."""
    model: MovedModels = None
    """The folder of the run's base, when it is elsewhere than the plan says; of several models ``ALIAS=FOLDER`` each."""
    backend: Sequence[str] | None = None
    """The servers that generate, as the values of ``--backend``; None for those of the plan, if any."""
    check: Check | None = None
    """What becomes of answers without support; None for what the trial settled for each arm."""
    dtype: WantedDtype = "auto"
    """What models in this process compute their answers in; auto is what the device is fastest in."""


class OpenRun:
    """A run with its plan, its data, the models it answers with and what it searches.

    The models of a finished run are those that its log names. They are obtained when they are first used, and its files are
    checked against its manifest before, as they are when an arm is requested.
    """

    def __init__(
        self,
        folder: RunFolder,
        plan: Plan,
        obtained: ObtainedModels | None = None,
        *,
        data: RunData | None = None,
        on_event: OnEvent | None = None,
        opening: Opening | None = None,
        embedder: Embedder | None = None,
    ) -> None:
        """Wrap a run folder and its plan.

        Args:
            folder: the run folder.
            plan: its plan.
            obtained: the models; None for those that the run was made with.
            data: the plan's examples and questions, where they are read already.
            on_event: receives the events that are written to the run's log.
            opening: how a finished run is opened.
            embedder: an embedder that is loaded already, in place of the plan's.

        Raises:
            BadInput: the backend is malformed, or names an arm that the plan does not have.
        """
        self.folder, self.plan, self.on_event = folder, plan, on_event
        self._opening = opening or Opening()
        entries = self._opening.backend
        self.backend = plan.servers if entries is None else chosen_backend(plan, entries)
        self._obtained, self._data, self._embedder = obtained, data, embedder
        self._checked = False
        self._compared = set[str]()
        """Arms whose examples were compared with those of their trial."""
        self._fields: Mapping[str, Any] = {}
        self._before_event: Callable[[], None] = lambda: None
        self._prepared: dict[str, PreparedArm] = {}

    @classmethod
    def open(cls, path: Path, opening: Opening | None = None) -> OpenRun:
        """Read a run's plan and nothing else yet; BadInput when ``path`` is no run or has no plan."""
        folder = open_run_folder(path)
        return cls(folder, read_run_plan(folder.path), opening=opening)

    def obtain(self) -> OpenRun:
        """Check the run's files and obtain its models now, and return the run; they are loaded at the first question.

        Raises:
            BadInput: a file differs from the manifest, or a model is not the one the run was made with.
        """
        _ = self.models
        return self

    def replace(self, *, data: RunData | None = None, retrieval: RunRetrieval | None = None) -> OpenRun:
        """Return this run with other data, or searching elsewhere; the models are shared."""
        other = copy.copy(self.obtain())
        other._data = data or self._data
        other.retrieval = retrieval or self.retrieval
        return other

    def with_events(self, fields: Mapping[str, Any], before: Callable[[], None]) -> OpenRun:
        """Return this run with fields that all of its events get; ``before`` is called for each, and may raise."""
        other = self.replace()
        other._fields, other._before_event = fields, before
        return other

    def emit(self, event: dict[str, Any]) -> None:
        """Write an event to the run's log and pass it to the caller's handler."""
        self._before_event()
        event = {**event, **self._fields}
        self.folder.write(event)
        if self.on_event:
            self.on_event(event)

    def check(self) -> None:
        """Check the files against the run's manifest, once; BadInput names a file that differs."""
        if not self._checked:
            self.folder.check()
            self._checked = True

    @property
    def data(self) -> RunData:
        """The plan's examples and questions, read once; BadInput where they are missing or broken."""
        if self._data is None:
            self._data = read_data(self.plan)
        return self._data

    @property
    def examples(self) -> tuple[Example, ...]:
        """The rows that arms are trained on."""
        return self.data.examples

    @property
    def split(self) -> QuestionSplit:
        """The dev and test questions."""
        return self.data.split

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
        wanted = name or self.default_arm
        if wanted is None:
            report = self.report
            reason = report.verdict.none_reason if report else ""
            incomplete = self.folder.incomplete_arms()
            arms = " or ".join(step.arm for step in self.plan.arms if step.arm not in incomplete)
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
        return None if trained_seed is None else self.folder.adapter(str(arm.weights), trained_seed)

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
    def source(self) -> ModelSource:
        """Where the models come from that the run was made with; UsageProblem when a folder is given for an endpoint."""
        opening = self._opening
        return ModelSource.of_run(self.folder, self.plan, opening.model, opening.on_event)

    @cached_property
    def prompts(self) -> StoredPrompts:
        """The prompts that the trial of a finished run chose."""
        return read_stored_prompts(self.folder.path / TRIAL)

    @cached_property
    def models(self) -> RunModels:
        """The models that answer; BadInput when one is not the one the run was made with."""
        obtained = self._obtained or self._obtain_recorded()
        return RunModels(
            plan=self.plan,
            run=self.folder,
            obtained=obtained,
            emit=self.emit,
            dtype=self._opening.dtype,
            loaded_embedder=self._embedder,
        )

    @cached_property
    def retrieval(self) -> RunRetrieval:
        """The indexes that are searched."""
        return RunRetrieval(self.models)

    def _obtain_recorded(self) -> ObtainedModels:
        """Return the models of a finished run, and the servers of its backend, none of them asked yet."""
        self.check()
        missing: dict[str, Problem] = {}
        bases = self.source.bases(missing if self.plan.models or self.plan.teacher else None)
        shows_nearest = any("nearest" in choice["chosen"] for choice in self.prompts.choices.values())
        embedder, reranker = self.source.embedder(shows_nearest), self.source.reranker()
        servers = None
        if self.backend:
            from runners.runs.backend_servers import BackendServers

            imported = self.folder.path if self._opening.backend is None else None
            servers = BackendServers(
                self.plan, self.backend, must_stay_local(self.plan), self._note, imported
            )
        return ObtainedModels(
            bases=bases, missing=missing, embedder=embedder, reranker=reranker, servers=servers
        )

    def _note(self, text: str) -> None:
        if self._opening.on_event:
            self._opening.on_event({"event": "backend.note", "reason": text})

    def note_difference(self, arms: Sequence[EvaluateStep]) -> None:
        """Say where arms, or those of a router, are answered otherwise than the verdict was measured: models, examples."""
        from runners.runs.backend_servers import backend_difference

        arms = self.plan.with_routed(arms)
        if (self.backend or self.plan.backend) and (
            text := backend_difference(self.plan, self.backend, arms)
        ):
            self._note(text)
        self.note_examples(arms)

    def note_examples(self, arms: Sequence[EvaluateStep]) -> None:
        """Say, once, where arms show examples of a file that is not the one of their trial."""
        file = self.plan.data.examples
        showing = [
            arm
            for arm in self.plan.with_routed(arms)
            if shows_file(self.plan, arm) and arm.arm not in self._compared
        ]
        if file is None or not file.exists():  # then those arms are refused when they are prepared
            return
        self._compared.update(arm.arm for arm in showing)
        hint = f"put the file back, or measure again: tunewise recheck {self.folder.path}"
        for arm in showing:
            match = match_shown(self.folder, self.plan, arm.arm, self.shown_examples)
            for line in file_lines(match, self.plan, f"the examples shown may be others; {hint}"):
                self._note(f"{arm.arm}: {line}")

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
        return self.answer(asked, arm, seed)

    def answer(
        self, questions: Sequence[Question], arm: EvaluateStep, seed: int | None = None
    ) -> list[Answer]:
        """Answer questions with one arm; of a router the second arm's model is loaded only where it is asked."""
        if arm.route:
            from runners.runs.routing import ask_routed

            return ask_routed(self, questions, arm, seed)
        prepared, load = self.prepare(arm, seed), partial(self.generator, arm, seed)
        return answer_all(prepared.plan, arm, questions, load, prepared.finder, prepared.shots)

    def stream(
        self, question: str, arm: EvaluateStep, history: tuple[Message, ...] = ()
    ) -> Running[str, None, Answer]:
        """Yield the pieces of one answer while the model generates them; return the answer with its citations."""
        if arm.route:
            from runners.runs.routing import stream_routed

            return stream_routed(self, question, arm, history)
        asked = Question("ask-0", question, history=history)
        prepared, load = self.prepare(arm), partial(self.generator, arm)
        return stream_answer(prepared.plan, arm, asked, load, prepared.finder, prepared.shots)

    def prepare(self, arm: EvaluateStep, seed: int | None = None) -> PreparedArm:
        """Return the arm ready to search: instructions, examples, passages; its language model is not loaded."""
        self.obtain()
        weights = self.weights(arm, seed)
        if arm.labels == "scored" and not read_prior(
            self.folder.path / TRIAL, arm, weights, labels_of_plan(self.plan)
        ):
            raise BadInput(
                f"the run has not measured the priors of the labels for the arm {arm.arm} yet",
                f"finish it with: tunewise run {self.folder.path} --resume",
            )
        if arm.arm not in self._prepared:
            self._prepared[arm.arm] = recall_arm(self, arm, self.prompts)
        # The index may have a newer generation since the last question.
        finder = self.retrieval.finder(arm)
        prepared = replace(self._prepared[arm.arm], finder=finder)
        return replace(prepared, plan=with_check(prepared.plan, self._opening.check))

    def generator(
        self, arm: EvaluateStep, seed: int | None = None, journals: Sequence[Path] = ()
    ) -> Generator:
        """Return what answers for an arm, with the weights of this seed; :meth:`answering` says what ``journals`` are."""
        return self.answering(arm, self.weights(arm, seed), journals)

    def answering(
        self, arm: EvaluateStep, weights: Path | None = None, journals: Sequence[Path] = ()
    ) -> Generator:
        """Return what answers for an arm: its model, loaded if it is not yet, or that model with tools to look things up.

        Args:
            arm: the arm.
            weights: its weights, None for the base.
            journals: of an arm that looks things up, the file of its requests, and others whose replies may be taken.
        """
        model = self.models.generator(weights, arm)
        if not arm.looks_up:
            return model
        return self.retrieval.looking_up(arm, model, journals)

    @property
    def shown_examples(self) -> tuple[Example, ...]:
        """The examples that an arm shows: of the data where it is read, else of their file alone, which is read once."""
        return (self._data and self._data.examples) or self._stored_examples

    @cached_property
    def _stored_examples(self) -> tuple[Example, ...]:
        """The examples of the plan's file; BadInput when it is missing."""
        file = self.plan.data.examples
        if file is not None and not file.exists():
            raise BadInput(
                f"the arm shows examples of {file}, which is not there",
                "put them back in that place, or ask an arm that shows none: --arm ARM",
            )
        return read_examples(self.plan)


def chosen_backend(plan: Plan, entries: Sequence[str]) -> Backend:
    """Return the backend of the values of ``--backend``; BadInput for a malformed one, or an arm that the plan lacks."""
    backend = parse_backend(entries, plan.own_aliases)
    try:
        check_backend_arms(entries, [step.arm for step in plan.steps if isinstance(step, ArmStep)])
    except ValueError as error:
        raise BadInput(str(error)) from None
    return backend
