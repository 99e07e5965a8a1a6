"""The models of an opened run in this process, each loaded when it is first used and held once (:class:`RunModels`).

One local language model is in memory at a time, unless a :class:`LoadedLimit` says that several fit.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag.types import OnEvent
from runners.arms.answer_constraint import constraint_input, constraint_report, demands_form
from runners.arms.scored_labels import ScoredLabels, labels_of_plan, read_prior, require_local
from runners.inference.servers.spending import Spending, token_price
from runners.inference.types import Generator
from runners.models import endpoint, resolve
from runners.models.answer_reader import AnswerReader, load_answer_reader
from runners.models.encoders import load_embedder, load_reranker
from runners.plan.schema import ArmStep, Plan
from runners.plan.steps import EvaluateStep, PlanModel, Thinking, TrainStep
from runners.resources.device import WantedDtype
from runners.resources.machine import Machine, detect_machine
from runners.run_folder import TRIAL, RunFolder
from runners.runs.endpoint_consent import check_endpoint_allowed, sent_by_plan
from runners.runs.plan_models import BaseModel, ObtainedModels
from runners.runs.requirements import MEMORY_HEADROOM, require_loading_memory, step_memory
from runners.tokenization.chat_template import ChatTokenizer
from runners.tokenization.token_estimate import estimate_tokens

if TYPE_CHECKING:
    from rag.embedding.embedder import Embedder
    from rag.embedding.reranker import Reranker
    from runners.inference.local import LocalGenerator
    from runners.inference.remote import RemoteGenerator


def with_index_settings(embedder: Embedder, plan: Plan) -> Embedder:
    """Return an embedder with the prompts and dimensions of a plan's index step."""
    if (step := plan.index) is None:
        return embedder
    return embedder.configured(step.truncate_dim, step.query_prompt, step.document_prompt)


@dataclass(frozen=True, slots=True)
class LoadedLimit:
    """How many local language models may be in memory at a time."""

    gib: float
    """What they may take together."""
    sizes: Mapping[PlanModel, float]
    """What each takes at most, in GiB; beside one that is missing, no other one is held."""

    @classmethod
    def of(cls, plan: Plan, folders: Mapping[str, Path], machine: Machine) -> LoadedLimit:
        """Return what the memory of a machine allows for the local models of a plan, whose folders are given by name."""
        sizes: dict[PlanModel, float] = {}
        for arm in (arm for arm in plan.arms if not arm.without_model and not arm.route):
            model = plan.model_of(arm)
            if model.name in folders and (need := step_memory(plan, arm, folders, machine)):
                sizes[model] = max(sizes.get(model, 0.0), need.memory.high)
        return cls(MEMORY_HEADROOM * (machine.device_memory_gib or 0.0), sizes)

    def fits(self, models: Collection[PlanModel]) -> bool:
        """Return whether models may be in memory together."""
        known = [self.sizes[model] for model in models if model in self.sizes]
        return len(known) == len(models) and sum(known) <= self.gib


@dataclass(kw_only=True, eq=False)
class RunModels:
    """The models that one run answers and searches with."""

    plan: Plan
    run: RunFolder
    """The folder with trained weights, classifiers and nearest replies."""
    obtained: ObtainedModels
    emit: OnEvent
    """Receives what is noted of a model, as events of the run."""
    dtype: WantedDtype = "auto"
    """What models in this process compute their answers in."""
    spending: Spending | None = None
    """Counts the requests to models with a price in the plan; None where nothing is counted, as for a finished run."""
    loaded_embedder: Embedder | None = None
    """The embedder, where it is loaded."""
    limit: LoadedLimit | None = None
    """Which language models may be in memory together; None: one at a time."""
    _reranker: Reranker | None = None
    _tokenizers: dict[Path, ChatTokenizer] = field(default_factory=dict)
    _generators: dict[tuple[PlanModel, Thinking], LocalGenerator] = field(default_factory=dict)
    """The language models in memory; the one used last is the last."""
    _scored: dict[tuple[str, Path | None], ScoredLabels] = field(default_factory=dict)
    """The arms of loaded models that score labels, by name and weights."""
    _remote: dict[resolve.RemoteModel, RemoteGenerator] = field(default_factory=dict)
    _decoding: dict[str, Any] = field(default_factory=dict)
    _constrained: str = ""
    """The decoding and the constraint that were reported last."""
    _lock: threading.RLock = field(default_factory=threading.RLock)

    @property
    def base(self) -> BaseModel:
        """The plan's own model; BadInput or CannotRun where it cannot be had here."""
        self._require(self.plan.model)
        return self.obtained.base

    def local_base(self, step: TrainStep) -> resolve.Model:
        """Return the model that a step tunes; a plan that tunes an endpoint was refused before the first step."""
        base = self.base_of(step)
        assert isinstance(base, resolve.Model)
        return base

    def base_of(self, arm: ArmStep) -> BaseModel:
        """Return the model that a step tunes, or that its arm answers with; raises as :attr:`base`."""
        self._require(self.plan.model_of(arm))
        return self.obtained.bases[self.plan.model_of(arm).name]

    def _require(self, model: PlanModel) -> None:
        if problem := self.obtained.missing.get(model.name):
            raise type(problem)(problem.message, problem.hint)

    def settings_of(self, arm: EvaluateStep) -> PlanModel:
        """Return the plan's entry of the model that an arm answers with."""
        return self.plan.model_of(arm)

    def generates_here(self, arm: EvaluateStep) -> bool:
        """Return whether an arm answers in this process: not by an endpoint, nor by a server of the backend."""
        servers = self.obtained.servers
        if servers is not None and servers.backend.model_of(arm):
            return False
        if arm.route:  # it answers nothing itself
            return False
        return arm.without_model or isinstance(self.base_of(arm), resolve.Model)

    @property
    def is_loaded(self) -> bool:
        """Whether a local language model is in memory."""
        return bool(self._generators)

    @property
    def loaded(self) -> tuple[PlanModel, ...]:
        """The language models in memory."""
        return tuple(dict.fromkeys(model for model, _ in tuple(self._generators)))

    @property
    def local_models(self) -> tuple[PlanModel, ...]:
        """The plan's models with local weights."""
        bases = self.obtained.bases
        return tuple(m for m in self.plan.base_models if isinstance(bases.get(m.name), resolve.Model))

    @property
    def loads_on_demand(self) -> bool:
        """Whether a language model may have to leave the memory before another one answers."""
        models = self.local_models
        return len(models) > 1 and not (self.limit and self.limit.fits(models))

    def generator(self, weights: Path | None, arm: EvaluateStep) -> Generator:
        """Return the generator of an arm with these weights (None: the base as it is): the backend's, else one here."""
        if self.obtained.servers is not None:
            seeds = self.plan.train_step(arm.weights).seeds[1:] if arm.weights else ()
            later = [
                s for s in seeds if weights and weights.name == self.run.adapter(str(arm.weights), s).name
            ]
            if remote := self.obtained.servers.generator(arm, later[0] if later else None, weights):
                return remote
        return self.generator_here(weights, arm)

    def generator_here(self, weights: Path | None, arm: EvaluateStep) -> Generator:
        """Return the same without a backend; the base stays loaded between arms, and others where the limit allows it.

        An endpoint uses no memory here, so asking one leaves the loaded base where it is.
        """
        if arm.classifier:
            from runners.arms import classifier

            return classifier.load_classifier(self.run.path, arm.arm, lambda: self.embedder)
        if arm.nearest_reply:
            from runners.selective.replies import load_replies

            refusal = self.plan.prompts.refusals[0]
            return load_replies(self.run.path, arm.arm, lambda: self.embedder, refusal)
        base, settings = self.base_of(arm), self.settings_of(arm)
        if isinstance(base, resolve.RemoteModel):
            if arm.labels == "scored":
                require_local(arm, base)
            if base not in self._remote:
                self._remote[base] = self.connect_endpoint(base, settings)
            return self._remote[base]
        thinking = self.plan.thinking
        if arm.labels == "scored":  # of a model that reasons, a label would have to follow its reasoning
            thinking = thinking.model_copy(update={"enabled": False})
        generator = self._generators.pop((settings, thinking), None)
        if generator is None:
            self._make_room(settings)
            generator = self._loaded(base, settings, thinking, weights)
        self._generators[settings, thinking] = generator
        generator.use(weights)
        return self._scored_labels(generator, weights, arm) if arm.labels == "scored" else generator

    def load_judge(self) -> LocalGenerator:
        """Return the generator of the plan's judge, which the caller alone holds; CannotRun where it does not fit."""
        judge, settings = self.obtained.judge, self.plan.judge
        assert judge is not None
        assert settings is not None
        # A grade would have to follow its reasoning.
        return self._loaded(judge, settings, self.plan.thinking.model_copy(update={"enabled": False}))

    def _loaded(
        self, base: resolve.Model, settings: PlanModel, thinking: Thinking, weights: Path | None = None
    ) -> LocalGenerator:
        from runners.inference.local import local_generator

        require_loading_memory(settings, base.folder, detect_machine(self.run.path))
        generator = local_generator(
            base,
            weights,
            dtype=self.dtype,
            kernels=self.plan.kernels,
            quantization=settings.quantization,
            thinking=thinking,
        )
        self._note_once([f"{base.name}: {note}" for note in generator.chat.notes])
        return generator

    def _make_room(self, wanted: PlanModel) -> None:
        """Free the memory of the models used longest ago until the limit allows another one."""
        while self._generators:
            beside = [*(model for model, _ in self._generators), wanted]
            if self.limit and self.limit.fits(beside):
                return
            del self._generators[next(iter(self._generators))]
            self._scored.clear()  # they hold it too
            gc.collect()

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

        check_endpoint_allowed(self.run.path, endpoint.endpoint_host(remote.url), sent_by_plan(self.plan))
        limits = RequestLimits(at_once=settings.at_once, per_minute=settings.per_minute)
        generator = RemoteGenerator(
            remote.url,
            remote.name,
            limits,
            self.plan.seed,
            thinking=self.plan.thinking,
            on_note=self.note,
        )
        if self.spending is not None and (price := token_price(settings)):
            generator.meter = self.spending.meter(remote.name, price)
        return generator

    def note(self, reason: str) -> None:
        """Emit a note on how an endpoint or an arm is asked."""
        self.emit({"event": "remote.note", "reason": reason})

    def release(self) -> None:
        """Free the memory of the language models before something else needs it."""
        self._generators.clear()
        self._scored.clear()  # they hold it too
        gc.collect()

    def tokenizer(self, base: BaseModel) -> ChatTokenizer | None:
        """Return the tokenizer of a model with local weights, read without loading these; None for an endpoint."""
        if isinstance(base, resolve.RemoteModel):
            return None
        if base.folder not in self._tokenizers:
            self._tokenizers[base.folder] = ChatTokenizer(base.folder)
        return self._tokenizers[base.folder]

    def token_counter(self, base: BaseModel) -> Callable[[str], int]:
        """Return what counts the tokens of a text as a model does; an estimate from its characters for an endpoint."""
        tokenizer = self.tokenizer(base)
        return tokenizer.count if tokenizer else estimate_tokens

    def control_tokens(self, base: BaseModel) -> tuple[str, ...]:
        """Return the control tokens of a model, such as those that begin a turn; () for an endpoint."""
        tokenizer = self.tokenizer(base)
        return tokenizer.control_tokens if tokenizer else ()

    def all_control_tokens(self) -> tuple[str, ...]:
        """Return the control tokens of all models of the plan: passages are prepared once for all of them."""
        tokens = (token for base in self.obtained.bases.values() for token in self.control_tokens(base))
        return tuple(dict.fromkeys(tokens))

    @property
    def has_embedder(self) -> bool:
        """Whether there is an embedder."""
        return self.loaded_embedder is not None or self.obtained.embedder is not None

    @property
    def embedder(self) -> Embedder:
        """The plan's embedder, with the prompts and dimensions of its index step."""
        with self._lock:  # shared by the threads of a server
            if self.loaded_embedder is None:
                model = self.obtained.embedder
                assert model is not None
                opened = load_embedder(model.folder, Path(model.name).name)
                self.loaded_embedder = with_index_settings(opened, self.plan)
            return self.loaded_embedder

    @property
    def reranker(self) -> Reranker | None:
        """The cross-encoder of the plan's index step; None when it names none."""
        with self._lock:
            if self._reranker is None and (model := self.obtained.reranker):
                self._reranker = load_reranker(model.folder, Path(model.name).name)
            return self._reranker

    @cached_property
    def answer_reader(self) -> AnswerReader:
        """The answerability model for the index, or why it cannot be used."""
        return load_answer_reader(self.obtained.embedder)
