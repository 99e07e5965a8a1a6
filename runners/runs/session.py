"""What the steps of one run share: its plan, models and data, and what is loaded of them (:class:`RunContext`).

:func:`obtain_bases` turns the names in a plan into models with local weights or endpoints.
"""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag.backends.base import shown_url, url_hosts
from rag.backends.consent import stored_url
from rag.errors import BadInput, CannotRun, Problem
from rag.types import OnEvent
from runners.arms.answer_constraint import constraint_input, constraint_report, demands_form
from runners.arms.retriever import Retriever, open_retriever
from runners.arms.scored_labels import ScoredLabels, labels_of_plan, read_prior, require_local
from runners.data.examples import Example
from runners.data.sampling import QuestionSplit
from runners.inference.types import Generator
from runners.models import digests, endpoint, resolve
from runners.models.answer_reader import AnswerReader, load_answer_reader
from runners.plan.schema import Plan
from runners.plan.steps import EvaluateStep, PlanModel, Thinking, TrainStep
from runners.resources.device import WantedDtype, torch_device
from runners.resources.machine import detect_machine
from runners.run_folder import INDEX, TRIAL, RunFolder
from runners.runs.endpoint_consent import check_endpoint_allowed
from runners.runs.requirements import needs_embedder, require_loading_memory, tries_nearest_examples
from runners.runs.tuned_retrieval import TUNED_REFUSAL, TunedRetrieval

if TYPE_CHECKING:
    from rag.embedding.embedder import Embedder
    from rag.embedding.reranker import Reranker
    from rag.index import Index
    from runners.inference.local import LocalGenerator
    from runners.inference.remote import RemoteGenerator
    from runners.runs.backend_servers import BackendServers

REFUSAL_FILE = "refusal.json"
BaseModel = resolve.Model | resolve.RemoteModel
"""A model that arms answer with: local weights, or an endpoint."""


def obtain_model(wanted: PlanModel, kind: str, on_event: OnEvent | None = None) -> resolve.Model:
    """Return the model that a plan names, downloaded if necessary.

    Args:
        wanted: the plan's entry, with the fingerprint that the model must have, if any.
        kind: "base" or "embedder".
        on_event: receives the events of a download.

    Raises:
        BadInput: the model is of another kind or has another fingerprint.
    """
    model = resolve.resolve_model(wanted.name, wanted.allow_hub, on_event, recorded=wanted.fingerprint or "")
    if model.kind != kind:
        role = "model" if kind == "base" else "embedder"
        raise BadInput(
            f"the plan's {role} {wanted.name!r} is not of the kind it must be: {model.kind}, not {kind}",
            "see: tunewise models list",
        )
    return model


def obtain_embedder(plan: Plan, on_event: OnEvent | None = None) -> resolve.Model | None:
    """Return the embedder of a plan, downloaded if necessary; None where nothing is embedded.

    Where only the nearest of the examples are to be tried with it, None also where it cannot be obtained: the arm says so,
    and tries the other examples.
    """
    if needs_embedder(plan):
        return obtain_model(plan.embedder, "embedder", on_event)
    if not tries_nearest_examples(plan):
        return None
    try:
        return obtain_model(plan.embedder, "embedder", on_event)
    except CannotRun:
        return None


def obtain_reranker(plan: Plan, on_event: OnEvent | None = None, recorded: str = "") -> resolve.Model | None:
    """Return the cross-encoder that a plan's index step names, downloaded if necessary; None when it names none.

    Args:
        plan: the plan.
        on_event: receives the events of a download.
        recorded: the fingerprint that a run recorded; another model with the same name is refused. "" accepts any.
    """
    wanted = plan.index.reranker if plan.index else None
    if wanted is None:
        return None
    return resolve.resolve_model(
        wanted.name, wanted.allow_hub, on_event, recorded=wanted.fingerprint or recorded
    )


def obtain_bases(
    plan: Plan, on_event: OnEvent | None = None, get: Callable[[PlanModel], resolve.Model] | None = None
) -> dict[str, BaseModel]:
    """Return every model that the plan's arms answer with, by its name in the plan; the plan's own comes first.

    Nothing is sent to an endpoint here.

    Args:
        plan: the plan.
        on_event: receives the events of downloads.
        get: obtains a model with local weights; :func:`obtain_model` by default.

    Raises:
        BadInput: an endpoint may not be contacted, is to be tuned, or is to score labels.
    """
    bases: dict[str, BaseModel] = {}
    for wanted in (plan.model, *(step.model for step in plan.arms if step.model)):
        remote = resolve.parse_remote(wanted.name)
        if remote:
            endpoint.check_may_contact(remote.name, remote.url, must_stay_local(plan))
        bases[wanted.name] = remote or (get(wanted) if get else obtain_model(wanted, "base", on_event))
    for step in plan.arms:
        if step.labels == "scored":
            require_local(step, bases[(step.model or plan.model).name])
    if plan.judge and (judge := resolve.parse_remote(plan.judge.name)):
        endpoint.check_may_contact(judge.name, judge.url, must_stay_local(plan))
    tuned = [step.arm for step in plan.steps if isinstance(step, TrainStep)]
    if tuned and isinstance(bases[plan.model.name], resolve.RemoteModel):
        raise BadInput(
            f"{plan.model.name} is an endpoint: its weights are not here, so {', '.join(tuned)} cannot be trained",
            "take the train steps and their arms out of the plan, or name a local model",
        )
    return bases


def must_stay_local(plan: Plan) -> bool:
    """Return whether the plan's answers forbid sending data elsewhere."""
    local, hosted = (plan.answers.get(key) for key in ("data_must_stay_local", "hosted_api_allowed"))
    return (local is not None and local.value in (True, "yes")) or (
        hosted is not None and hosted.value in (False, "no")
    )


def model_identity(base: BaseModel) -> str:
    """Return what identifies a model: its fingerprint, or an endpoint's model name and host, the only things it shows."""
    if isinstance(base, resolve.Model):
        return base.fingerprint
    return f"openai:{base.name}@{endpoint.endpoint_host(base.url)}"


def named_models(plan: Plan) -> list[dict[str, str]]:
    """Return the models of a plan as manifests list them: the name of each, and the host of an endpoint."""
    rows = []
    for name in dict.fromkeys([plan.model.name, *(step.model.name for step in plan.arms if step.model)]):
        remote = resolve.parse_remote(name)
        rows.append(
            {"model": remote.name, "endpoint": endpoint.endpoint_host(remote.url)}
            if remote
            else {"model": name}
        )
    for server in plan.servers.models:
        rows += [
            {"model": server.name, "endpoint": endpoint.endpoint_host(url), "as": "backend"}
            for url in server.urls
        ]
    if plan.judge and (judge := resolve.parse_remote(plan.judge.name)):
        rows.append({"model": judge.name, "endpoint": endpoint.endpoint_host(judge.url), "as": "judge"})
    rows += [{"model": plan.embedder.name, "endpoint": host, "as": "index"} for host in index_hosts(plan)]
    return rows


def index_hosts(plan: Plan) -> list[str]:
    """Return the hosts of the database that holds a plan's index; none where no database does, or by a socket."""
    url = plan.index.backend if plan.index else None
    return url_hosts(url) if url else []


def check_index_place(plan: Plan, folder: Path) -> None:
    """Raise BadInput where a run's index folder stands for another URL than the plan names."""
    url = stored_url(folder)
    if url is not None and (plan.index is None or url != plan.index.backend):
        raise BadInput(
            f"{folder} refers to an index at {shown_url(url)}, which the run's plan does not name",
            "the folder was changed; run the plan again",
        )


def check_backend_allowed(plan: Plan, run: Path) -> None:
    """Raise BadInput where documents and questions may not go to the host of the plan's index."""
    for host in index_hosts(plan):
        check_endpoint_allowed(run, host)
        endpoint.check_may_contact("the index", f"postgresql://{host}", must_stay_local(plan))


@dataclass
class RunContext:
    """A run with its plan, models and index, loaded when first used; only one local model is in memory at a time."""

    plan: Plan
    run: RunFolder
    base: BaseModel
    embedder_model: resolve.Model | None = None
    examples: tuple[Example, ...] = ()
    split: QuestionSplit = field(default_factory=lambda: QuestionSplit((), ()))
    on_event: OnEvent | None = None
    bases: Mapping[str, BaseModel] = field(default_factory=dict)
    """The models that arms answer with, by their name in the plan."""
    reranker_model: resolve.Model | None = None
    """The cross-encoder of the plan's index step; None when it names none."""
    backend: BackendServers | None = None
    """The servers that generate in place of this process; None where none do."""
    dtype: WantedDtype = "auto"
    """What models in this process compute their answers in."""
    retry_seconds: float = 30.0
    """Seconds to wait before opening a generation of the index again that could not be opened."""
    _generator: LocalGenerator | None = None
    _generator_of: tuple[BaseModel, str, Thinking] | None = None
    _scored: dict[tuple[str, Path | None], ScoredLabels] = field(default_factory=dict)
    """The arms of the loaded model that score labels, by name and weights."""
    _remote: dict[resolve.RemoteModel, RemoteGenerator] = field(default_factory=dict)
    _decoding: dict[str, Any] = field(default_factory=dict)
    _constrained: str = ""
    """The decoding that was reported last."""
    _failed_generation: tuple[int, float, str] = (0, 0.0, "")
    """The generation of the index that could not be opened, the time of the attempt, and the error."""
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def emit(self, event: dict[str, Any]) -> None:
        """Write an event to the run's log and pass it to the caller's handler."""
        self.run.write(event)
        if self.on_event:
            self.on_event(event)

    @property
    def local_base(self) -> resolve.Model:
        """The base model to tune; a plan that tunes an endpoint was refused before the first step."""
        assert isinstance(self.base, resolve.Model)
        return self.base

    def base_of(self, arm: EvaluateStep) -> BaseModel:
        """Return the model that an arm answers with."""
        return self.bases[arm.model.name] if arm.model else self.base

    def settings_of(self, arm: EvaluateStep) -> PlanModel:
        """Return the plan's entry of the model that an arm answers with."""
        return arm.model or self.plan.model

    def generates_here(self, arm: EvaluateStep) -> bool:
        """Return whether an arm answers in this process: not by an endpoint, nor by a server of the backend."""
        if self.backend is not None and self.backend.backend.model_of(arm):
            return False
        return arm.classifier or isinstance(self.base_of(arm), resolve.Model)

    def generator(self, weights: Path | None, arm: EvaluateStep) -> Generator:
        """Return the generator of an arm with these weights (None: the base as it is): the backend's, else one here."""
        if self.backend is not None:
            seeds = self.plan.train_step(arm.weights).seeds[1:] if arm.weights else ()
            later = [
                s for s in seeds if weights and weights.name == self.run.adapter(str(arm.weights), s).name
            ]
            if remote := self.backend.generator(arm, later[0] if later else None, weights):
                return remote
        return self.generator_here(weights, arm)

    def generator_here(self, weights: Path | None, arm: EvaluateStep) -> Generator:
        """Return the same without a backend; the base stays loaded between arms.

        An endpoint uses no memory here, so asking one leaves the loaded base where it is.
        """
        if arm.classifier:
            from runners.arms import classifier

            return classifier.load_classifier(self.run.path, arm.arm, self.embedder)
        base = self.base_of(arm)
        if isinstance(base, resolve.RemoteModel):
            if arm.labels == "scored":
                require_local(arm, base)
            if base not in self._remote:
                self._remote[base] = self.connect_endpoint(base, self.settings_of(arm))
            return self._remote[base]
        quantization = self.settings_of(arm).quantization
        thinking = self.plan.thinking
        if arm.labels == "scored":  # of a model that reasons, a label would have to follow its reasoning
            thinking = thinking.model_copy(update={"enabled": False})
        if self._generator is None or self._generator_of != (base, quantization, thinking):
            from runners.inference.local import local_generator

            self.release()
            require_loading_memory(self.settings_of(arm), base.folder, detect_machine(self.run.path))
            self._generator = local_generator(
                base,
                weights,
                dtype=self.dtype,
                kernels=self.plan.kernels,
                quantization=quantization,
                thinking=thinking,
            )
            self._generator_of = (base, quantization, thinking)
            self._note_once([f"{base.name}: {note}" for note in self._generator.chat.notes])
        self._generator.use(weights)
        return (
            self._scored_labels(self._generator, weights, arm) if arm.labels == "scored" else self._generator
        )

    def _scored_labels(
        self, generator: LocalGenerator, weights: Path | None, arm: EvaluateStep
    ) -> ScoredLabels:
        """Return the generator of an arm that scores labels, with the prior that the trial stored, if it did."""
        scored = self._scored.get((arm.arm, weights))
        if scored is None:
            labels = labels_of_plan(self.plan)
            prior = read_prior(self.run.path / TRIAL, arm, weights, labels)
            scored = ScoredLabels(generator, labels, prior.values if prior else None)
            self._scored[arm.arm, weights] = scored
        return scored

    def _note_once(self, notes: list[str]) -> None:
        """Emit the notes that the run's log does not hold yet."""
        if not notes:
            return
        noted = {event.get("reason") for event in self.run.events() if event.get("event") == "model.note"}
        with suppress(OSError):  # a finished run may be asked where its folder cannot be written to
            for note in notes:
                if note not in noted:
                    self.emit({"event": "model.note", "reason": note})

    def report_decoding(self, generator: Generator) -> None:
        """Write the event that says how a model in this process decodes and why, where it differs from the last one."""
        describe = getattr(generator, "decoding", None)  # an endpoint and a classifier have none
        decoding = describe() if describe else self._decoding
        if decoding != self._decoding:
            self._decoding = decoding
            self.emit({"event": "decode.start", **decoding})

    def report_constraint(self, generator: Generator, step: EvaluateStep) -> None:
        """Write the event that says what answers are held to, or why not to a form of the plan; once for arms in a row.

        Only for models in this process: an endpoint says by itself what it is asked for.
        """
        if not hasattr(generator, "decoding") or step.labels == "scored":
            return
        report = constraint_report(self.plan)
        has_form = self.plan.constrain == "auto" and any(map(demands_form, self.plan.checks))
        if (has_form or constraint_input(self.plan, step)) and report != self._constrained:
            self._constrained = report
            self.emit({"event": "answers.constrained", "arm": step.arm, "reason": report})

    def connect_endpoint(self, remote: resolve.RemoteModel, settings: PlanModel) -> RemoteGenerator:
        """Return a generator that asks an endpoint, with the plan's seed and the limits of its entry in the plan.

        Raises:
            BadInput: the run came from a bundle, and the endpoint has not been allowed.
        """
        from runners.inference.http_client import RequestLimits
        from runners.inference.remote import RemoteGenerator

        check_endpoint_allowed(self.run.path, endpoint.endpoint_host(remote.url))
        limits = RequestLimits(at_once=settings.at_once, per_minute=settings.per_minute)
        return RemoteGenerator(
            remote.url,
            remote.name,
            limits,
            self.plan.seed,
            thinking=self.plan.thinking,
            on_note=lambda note: self.emit({"event": "remote.note", "reason": note}),
        )

    def release(self) -> None:
        """Free the model's memory before something else needs it."""
        self._generator = None
        self._scored.clear()  # they hold it too
        gc.collect()

    @cached_property
    def embedder(self) -> Embedder:
        """The plan's embedder, with the prompts and dimensions of its index step."""
        from rag.embedding.embedder import Embedder

        assert self.embedder_model is not None
        with self._lock:  # shared by the threads of a server
            existing: Embedder | None = self.__dict__.get("embedder")
            if existing:
                return existing
            model = self.embedder_model
            embedder = Embedder(
                model.folder,
                name=Path(model.name).name,
                device=torch_device().type,
                digest=digests.file_sha256,
            )
            if step := self.plan.index:
                embedder = embedder.configured(step.truncate_dim, step.query_prompt, step.document_prompt)
            return self.__dict__.setdefault("embedder", embedder)

    @cached_property
    def reranker(self) -> Reranker | None:
        """The cross-encoder of the plan's index step, loaded; None when it names none."""
        model = self.reranker_model or obtain_reranker(self.plan, self.on_event)
        if model is None:
            return None
        from rag.embedding.reranker import Reranker

        with self._lock:
            existing: Reranker | None = self.__dict__.get("reranker")
            return self.__dict__.setdefault(
                "reranker",
                existing
                or Reranker(
                    model.folder,
                    Path(model.name).name,
                    device=torch_device().type,
                    digest=digests.file_sha256,
                ),
            )

    @cached_property
    def index(self) -> Index:
        """The run's index, verified against its manifest."""
        from rag.index import Index

        with self._lock:
            existing: Index | None = self.__dict__.get("index")
            if existing is None:
                check_backend_allowed(self.plan, self.run.path)
                check_index_place(self.plan, self.run.path / INDEX)
            opened = existing or Index.open(self.run.path / INDEX, self.embedder)
            return self.__dict__.setdefault("index", opened)

    def refresh_index(self) -> bool:
        """Open the newest generation of the index when another one is open; return whether it changed.

        Raises:
            Problem, OSError: the newest generation cannot be opened. The open one stays in use, and the
                newest is tried again after :attr:`retry_seconds`; until then the same error is raised.
        """
        from rag.index import Index

        opened: Index | None = self.__dict__.get("index")
        folder = self.run.path / INDEX
        tuned_changed = self.tuned.refresh()
        if tuned_changed:
            self.__dict__.pop("tuned_retriever", None)
        if opened is None or (newest := opened.backend.current_generation()) == opened.generation:
            return tuned_changed
        failed, failed_at, reason = self._failed_generation
        if newest == failed and reason and time.monotonic() < failed_at + self.retry_seconds:
            raise BadInput(reason)
        try:
            self.__dict__["index"] = Index.open(folder, self.embedder)
        except (Problem, OSError) as problem:
            self._failed_generation = newest, time.monotonic(), str(problem)
            raise
        self.__dict__.pop("retriever", None)
        return True

    @cached_property
    def retriever(self) -> Retriever:
        """The run's retriever, with the refusal threshold that was fitted on its dev questions."""
        return self._retriever(self.index, self.run.path / REFUSAL_FILE, self.reranker)

    @cached_property
    def answer_reader(self) -> AnswerReader:
        """The answerability model for the index, or why it cannot be used."""
        return load_answer_reader(self.embedder_model)

    @cached_property
    def tuned(self) -> TunedRetrieval:
        """The run's tuned embedder, reranker and index, loaded when first used."""
        return TunedRetrieval(self.run, self.plan)

    @cached_property
    def tuned_retriever(self) -> Retriever:
        """The tuned retriever, with a refusal threshold of its own; the plan's reranker where none is tuned."""
        self.tuned.require()
        reranker = self.tuned.reranker or self.reranker
        return self._retriever(self.tuned.index, self.tuned.folder / TUNED_REFUSAL, reranker)

    def retriever_of(self, arm: EvaluateStep) -> Retriever:
        """Return the retriever that an arm searches with; BadInput for a tuned one that the run has not made yet."""
        if arm.retriever == "plan":
            return self.retriever
        self.tuned.require(arm)
        return self.tuned_retriever

    def index_of(self, arm: EvaluateStep | None) -> Index:
        """Return the index that an arm searches: the tuned one, or the plain one; None is no arm in particular."""
        if arm is None or arm.retriever == "plan":
            return self.index
        self.tuned.require(arm)
        return self.tuned.index

    def _retriever(self, index: Index, refusal_file: Path, reranker: Reranker | None) -> Retriever:
        assert self.plan.index is not None
        folder = self.base.folder if isinstance(self.base, resolve.Model) else None
        reader = self.answer_reader.required
        return open_retriever(index, self.plan.index, refusal_file, folder, reranker, reader)
